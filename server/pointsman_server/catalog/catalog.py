"""The catalog: every endpoint that may be chosen, with what it takes to call it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType

from pointsman_server.chat import ReasoningControl
from pointsman_server.decision.types import Endpoint

VERSION_CHARACTER_COUNT = 12
"""48 bits: two catalogs of one server collide once in 10^14, and a person can still compare them by eye."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """One endpoint, and the names that others know it by."""

    endpoint: Endpoint
    upstream_model: str
    """The provider's own name of the model."""
    quality_model: str
    """The name under which the quality model knows the model."""
    reasoning_control: ReasoningControl = ReasoningControl.EFFORT
    """How the model is told how long to think, where its provider's API knows two ways."""
    stream: bool = True
    """Whether the provider is asked to stream; without it the answer comes as a whole."""
    benchmark_scores: tuple[tuple[str, float], ...] = ()
    """What is published of the quality model: benchmark and score, 0..1, by the benchmark's name. The same for every
    entry of that quality model."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """Endpoints by name. Immutable, so one reference is a consistent view; a change makes a new catalog.

    Look-ups are O(1). Memory: about 1 kB an endpoint.
    """

    entries: tuple[CatalogEntry, ...]
    """In the order of the endpoints' names."""
    endpoints: tuple[Endpoint, ...] = field(init=False, repr=False)
    """In the same order."""
    by_name: Mapping[str, CatalogEntry] = field(init=False, repr=False, compare=False)
    models: frozenset[str] = field(init=False, repr=False)
    providers: frozenset[str] = field(init=False, repr=False)
    version: str = field(init=False)
    """Hash of the content: equal catalogs have equal versions, on every machine."""

    def __post_init__(self) -> None:
        names = [entry.endpoint.name for entry in self.entries]
        assert all(left < right for left, right in pairwise(names)), "use Catalog.of"
        object.__setattr__(self, "endpoints", tuple(entry.endpoint for entry in self.entries))
        object.__setattr__(self, "by_name", MappingProxyType(dict(zip(names, self.entries, strict=True))))
        object.__setattr__(self, "models", frozenset(endpoint.model for endpoint in self.endpoints))
        object.__setattr__(self, "providers", frozenset(endpoint.provider for endpoint in self.endpoints))
        object.__setattr__(self, "version", _version(self.entries))

    @classmethod
    def of(cls, entries: Iterable[CatalogEntry]) -> Catalog:
        """A catalog of these entries, in whatever order they come.

        Raises:
            ValueError: Two of them name the same endpoint.
        """
        ordered = tuple(sorted(entries, key=lambda entry: entry.endpoint.name))
        for left, right in pairwise(ordered):
            if left.endpoint.name == right.endpoint.name:
                raise ValueError(f"{left.endpoint.name} is in the catalog twice")
        return cls(ordered)


def _version(entries: Iterable[CatalogEntry]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        endpoint = entry.endpoint
        facts = (
            endpoint.model,
            endpoint.provider,
            endpoint.input_price_usd_per_mtok,
            endpoint.output_price_usd_per_mtok,
            endpoint.cached_input_price_usd_per_mtok,
            endpoint.cache_write_price_usd_per_mtok,
            endpoint.context_token_count_max,
            endpoint.output_token_count_max,
            sorted(capability.value for capability in endpoint.capabilities),
            sorted(endpoint.labels),
            sorted(feature.value for feature in endpoint.lacks),
            entry.upstream_model,
            entry.quality_model,
            entry.reasoning_control.value,
            entry.stream,
            entry.benchmark_scores,
        )
        digest.update(repr(facts).encode())
    return digest.hexdigest()[:VERSION_CHARACTER_COUNT]
