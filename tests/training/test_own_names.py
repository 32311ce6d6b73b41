"""Names of the models of somebody's own data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.quality.model import normalised
from pointsman_server.training.dataset import Dataset
from pointsman_server.training.own import train_own
from pointsman_server.training.own_names import by_llm, llms_of

LISTED = ("zeroeval", "gpt-4o-2024-08-06")
ENDPOINTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(("m", "v/m", "w/M", "gpt-4o", "n", "x/n"))), unique=True
)


def test_a_model_is_called_as_its_owner_calls_it() -> None:
    """The vendor goes, as in the catalog, and a name that public data knows too is no reason for another."""
    found = llms_of([("own", "OpenAI/GPT-4o"), ("own", "my-model")])
    assert found == {"gpt-4o": [("own", "OpenAI/GPT-4o")], "my-model": [("own", "my-model")]}


def test_one_llm_in_several_sources_is_one() -> None:
    """What two sources call alike is fitted together."""
    assert llms_of([("a", "m"), ("b", "v/M")]) == {"m": [("a", "m"), ("b", "v/M")]}


def test_two_vendors_of_one_source_stay_two() -> None:
    """Within a source the vendor tells two models apart."""
    assert set(llms_of([("a", "v/m"), ("a", "w/m"), ("a", "m")])) == {"v.m", "w.m", "m"}


def test_a_listed_endpoint_brings_its_names() -> None:
    """An endpoint of public data that is listed stands for its LLM, and what has one of its names joins it."""
    assert llms_of([("own", "gpt-4o"), LISTED]) == {"gpt-4o-2024-08-06": [LISTED, ("own", "gpt-4o")]}


@given(ENDPOINTS)
def test_every_endpoint_belongs_to_one_llm(endpoints: list[tuple[str, str]]) -> None:
    """Nothing is lost and nothing counted twice; names are those that a catalog could have, and two models of one source
    under different whole names are never mixed unless the names differ in case alone."""
    found = llms_of(endpoints)
    assert sorted(endpoint for members in found.values() for endpoint in members) == sorted(endpoints)
    assert all(name == normalised(name) for name in found)
    for members in found.values():
        sources = [source for source, _ in members]
        assert len(sources) == len(set(sources))


def test_outcomes_of_one_llm_are_averaged(small_world: Dataset) -> None:
    """Where several endpoints of an LLM answered a prompt, it counts with their mean; where one did, with that."""
    two = replace(small_world, endpoints=(("own", "average"), ("x", "historian"), ("y", "v/Historian")))
    quality = small_world.quality.copy()
    quality[0] = (0.0, 1.0, 0.5)
    quality[1] = (1.0, np.nan, 0.25)
    merged = by_llm(replace(two, quality=quality), llms_of(two.endpoints))
    assert merged.endpoints == (("own", "average"), ("x", "historian"))
    assert merged.quality[0].tolist() == [0.0, 0.75]
    assert merged.quality[1].tolist() == [1.0, 0.25]


@pytest.fixture(scope="module")
def renamed(small_world: Dataset) -> Dataset:
    """The small world under names that public data has too, its second half from another source."""
    half = np.arange(len(small_world.texts)) < len(small_world.texts) // 2
    columns = [np.where(side[:, np.newaxis], small_world.quality, np.nan) for side in (half, ~half)]
    unknown = np.full((len(half), 6), np.nan, dtype=np.float32)
    return replace(
        small_world,
        sources=np.where(half, "own", "other").astype(object),
        endpoints=tuple((s, m) for s in ("own", "other") for m in ("gpt-4o", "vendor/gpt-4", "my-model")),
        quality=np.hstack(columns),
        cost_usd=unknown,
        input_tokens=unknown,
        output_tokens=unknown,
        latency_s=unknown,
    )


def test_a_trained_model_goes_by_its_owners_names(renamed: Dataset) -> None:
    """The model predicts what a catalog calls it, knows every endpoint that it was trained on, and has one profile for
    the two sources."""
    model = train_own(renamed, seed=1, name="mine", progress=lambda _step, _share: None)
    assert [profile.model for profile in model.profiles] == ["gpt-4", "gpt-4o", "my-model"]
    assert model.models == {"gpt-4", "gpt-4o", "my-model"}
    assert model.profiles[0].endpoints == (("other", "vendor/gpt-4"), ("own", "vendor/gpt-4"))
    found = model.predict("the king and the queen of the empire", ["OpenAI/gpt-4o", "gpt-4", "my-model"])
    assert set(found) == {"OpenAI/gpt-4o", "gpt-4", "my-model"}
