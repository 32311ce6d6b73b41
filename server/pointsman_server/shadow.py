"""What other routers would have chosen: they decide beside the acting one, and nothing comes of it."""

from __future__ import annotations

from dataclasses import replace

from pointsman_server.decision.decide import decide
from pointsman_server.decision.router_string import RouterAlternative, RouterString
from pointsman_server.decision.types import Decision, DecisionInput
from pointsman_server.errors import InvalidRequestError
from pointsman_server.world import World


def shadow_decisions(
    given: DecisionInput, world: World, *, asked: RouterString, overlay: RouterAlternative, text: str
) -> tuple[Decision, ...]:
    """The decisions of the acting router's shadows, in the order of the configuration.

    Each decides on the same facts, snapshot and seed, so that what differs is the routers' doing and not chance's; the
    seed is only read, so the acting decision is the same with shadows and without. A shadow with an artifact of its own
    predicts anew, which is most of its cost.

    Args:
        given: What the acting router decided on.
        world: Where both are from.
        asked: What the request names.
        overlay: The caller's typed constraints and preferences.
        text: The prompt, for the quality models.
    """
    names = world.named_routers[given.router_name].shadow_names
    return tuple(_decided(given, world, name, asked=asked, overlay=overlay, text=text) for name in names)


def _decided(
    given: DecisionInput, world: World, name: str, *, asked: RouterString, overlay: RouterAlternative, text: str
) -> Decision:
    shadow, acting = world.routers[name], world.routers[given.router_name]
    own = given._replace(router_name=name, router_version=shadow.version, quality_artifact=shadow.quality_artifact)
    try:
        resolved = world.resolve(asked, overlay, replace(given.assignment, router_name=name))
    except InvalidRequestError:  # What the caller demands and what this router allows have nothing in common.
        return decide(own._replace(endpoints=()))
    return decide(
        own._replace(
            alternatives=resolved.alternatives,
            qualities=given.qualities if shadow.quality is acting.quality else world.predict(name, text),
            exploration=shadow.router.exploration,
            risk_table=shadow.quality.risk_table,
        )
    )
