"""The catalog finds endpoints by name and knows its own version."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.catalog.catalog import Catalog, CatalogEntry
from pointsman_server.chat import ReasoningControl
from pointsman_server.decision.types import Capability, Endpoint, RequestFeature


def entry(model: str, provider: str, price: float | None = None) -> CatalogEntry:
    """An entry with nothing special."""
    return CatalogEntry(endpoint=Endpoint(model, provider, price), upstream_model=model, quality_model=model)


NAMES = st.text("abcz0./:-", min_size=1, max_size=4)
ENTRIES = st.lists(
    st.builds(entry, NAMES, NAMES, st.none() | st.floats(0.0, 100.0)),
    unique_by=lambda entry: entry.endpoint.name,
    max_size=12,
)


@given(ENTRIES, st.randoms(use_true_random=False))
def test_order_is_irrelevant_and_every_entry_is_found(entries: list[CatalogEntry], chance: random.Random) -> None:
    """A catalog of the same entries in any order is equal, has the same version, and finds each by its name."""
    shuffled = chance.sample(entries, len(entries))
    catalog = Catalog.of(entries)
    assert catalog == Catalog.of(shuffled)
    assert catalog.version == Catalog.of(shuffled).version
    assert [endpoint.name for endpoint in catalog.endpoints] == sorted(catalog.by_name)
    assert all(catalog.by_name[entry.endpoint.name] is entry for entry in entries)
    assert catalog.models == {entry.endpoint.model for entry in entries}
    assert catalog.providers == {entry.endpoint.provider for entry in entries}


def test_one_endpoint_twice_is_refused() -> None:
    """Two entries with the same model and provider can't be in one catalog, whatever else they say."""
    with pytest.raises(ValueError, match="a@p is in the catalog twice"):
        Catalog.of([entry("a", "p", 1.0), entry("b", "p"), entry("a", "p", 2.0)])


def test_every_fact_is_in_the_version() -> None:
    """A change of any fact of any endpoint changes the version; building the same anew does not."""
    base = entry("a", "p")
    endpoints = [
        replace(base.endpoint, model="b"),
        replace(base.endpoint, provider="q"),
        replace(base.endpoint, input_price_usd_per_mtok=1.0),
        replace(base.endpoint, output_price_usd_per_mtok=1.0),
        replace(base.endpoint, cached_input_price_usd_per_mtok=1.0),
        replace(base.endpoint, cache_write_price_usd_per_mtok=1.0),
        replace(base.endpoint, context_token_count_max=1),
        replace(base.endpoint, output_token_count_max=1),
        replace(base.endpoint, capabilities=frozenset({Capability.TOOLS})),
        replace(base.endpoint, labels=frozenset({("region", "eu")})),
        replace(base.endpoint, lacks=frozenset({RequestFeature.SEED})),
    ]
    entries = [
        replace(base, upstream_model="b"),
        replace(base, quality_model="b"),
        replace(base, reasoning_control=ReasoningControl.BUDGET),
        replace(base, stream=False),
        replace(base, benchmark_scores=(("mmlu_pro", 0.7),)),
    ]
    assert len(endpoints) == len([field for field in fields(Endpoint) if field.init]), "a new fact needs a line here"
    assert len(entries) == len(fields(CatalogEntry)) - 1, "a new fact needs a line here"
    changed = [*entries, *(replace(base, endpoint=endpoint) for endpoint in endpoints)]
    versions = {Catalog.of([entry]).version for entry in (base, *changed)}
    assert len(versions) == 1 + len(changed)
    assert Catalog.of([base]).version == Catalog.of([entry("a", "p")]).version


def test_the_index_cannot_be_changed() -> None:
    """Whoever holds a catalog can rely on it: its index refuses assignment."""
    index = cast("dict[str, CatalogEntry]", Catalog.of([entry("a", "p")]).by_name)
    with pytest.raises(TypeError):
        index["b@p"] = entry("b", "p")
