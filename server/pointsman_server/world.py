"""What requests are served with: the catalog, the routers, the providers, the quality models.

One immutable object, so that a reload replaces all of it at once and a request sees one version of it to its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pointsman_server.catalog.catalog import Catalog
from pointsman_server.decision.resolve import (
    KnownNames,
    NamedRouter,
    ResolvedRouting,
    effective_router_string,
    resolve,
    with_stand_in,
)
from pointsman_server.decision.router_string import RouterAlternative, RouterString
from pointsman_server.decision.types import Assignment, Policy, QualityPrediction
from pointsman_server.providers.base import ChatProvider
from pointsman_server.quality.model import QualityModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRouter:
    """A named router with the quality model that it predicts by."""

    router: NamedRouter
    version: str
    """Changes with the router's configuration, the catalog, or the quality artifact."""
    quality: QualityModel
    quality_artifact: str
    """The artifact that `quality` was loaded from, `name@version`."""
    refused_update: str = ""
    """Why a newer artifact in the place of that one is not used. Empty: there is none."""
    text: str
    """The router as text, for the requests that ask for it as it is."""

    def text_of(self, alternatives: tuple[Policy, ...]) -> str:
        """What is decided by, in full, where these alternatives are: the router's own, or a caller's wishes in them."""
        return self.text if alternatives == self.router.alternatives else str(effective_router_string(alternatives))


@dataclass(frozen=True, slots=True)
class World:
    """Everything that a configuration describes, ready for use."""

    catalog: Catalog
    routers: Mapping[str, ServedRouter]
    """By name; always holds the default one."""
    named_routers: Mapping[str, NamedRouter]
    """The same, as the decision knows them."""
    providers: Mapping[str, ChatProvider]
    """By name; every provider of the catalog."""
    server_addresses: Mapping[str, str]
    """The host of each provider, for traces."""
    known_names: KnownNames
    quality_names: Mapping[str, str]
    """For each model of the catalog, the name by which quality models know it."""

    @classmethod
    def of(
        cls,
        catalog: Catalog,
        routers: Mapping[str, ServedRouter],
        *,
        providers: Mapping[str, ChatProvider],
        server_addresses: Mapping[str, str],
    ) -> World:
        """A world of these parts."""
        return cls(
            catalog=catalog,
            routers=routers,
            named_routers={name: served.router for name, served in routers.items()},
            providers=providers,
            server_addresses=server_addresses,
            known_names=KnownNames.of(catalog.endpoints),
            quality_names={entry.endpoint.model: entry.quality_model for entry in catalog.entries},
        )

    def resolve(self, asked: RouterString, overlay: RouterAlternative, assigned: Assignment) -> ResolvedRouting:
        """What the assigned router decides by, in place of the one that is asked for.

        Raises:
            InvalidRequestError: a name is unknown, or nothing is left of a search space.
        """
        routers = with_stand_in(self.named_routers, asked_name=assigned.asked_name, name=assigned.router_name)
        return resolve(asked, overlay, routers=routers, known=self.known_names)

    def predict(self, router_name: str, text: str) -> dict[str, QualityPrediction]:
        """What that router's quality model expects of each model of the catalog; models it does not know are missing."""
        by_quality_name = self.routers[router_name].quality.predict(text, tuple(self.quality_names.values()))
        return {
            model: by_quality_name[quality_name]
            for model, quality_name in self.quality_names.items()
            if quality_name in by_quality_name
        }
