"""The fuzz targets over what they start from, and over a few hundred inputs that hypothesis makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.corpora import FOLDER, seeds
from fuzz.targets import TARGETS
from hypothesis import given
from hypothesis import strategies as st

SEEDS = [(target, seed) for target in TARGETS for seed in seeds(target)]


@pytest.mark.parametrize(("target", "seed"), SEEDS, ids=lambda value: value.name if isinstance(value, Path) else value)
def test_no_seed_makes_its_target_fail(target: str, seed: Path) -> None:
    """The corpora are plain tests; what fuzzing finds is added to them."""
    TARGETS[target](seed.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_starts_from_something(target: str) -> None:
    """From nothing a fuzzer needs hours to find the first brace."""
    assert len(seeds(target)) >= 3


def test_every_folder_of_seeds_has_its_target() -> None:
    """No seed is left over."""
    assert {path.name for path in FOLDER.iterdir()} <= TARGETS.keys()


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
def test_no_damaged_seed_makes_its_target_fail(target: str, data: st.DataObject) -> None:
    """A seed with a piece cut out and another put in is refused, or read, and never an exception."""
    seed = data.draw(st.sampled_from(seeds(target))).read_bytes()[:2000]
    start, end = sorted((data.draw(st.integers(0, len(seed))), data.draw(st.integers(0, len(seed)))))
    TARGETS[target](seed[:start] + data.draw(st.binary(max_size=16)) + seed[end:])
