"""Which endpoints belong to a search space, and what is told of the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pointsman_server.decision.feasibility import outside
from pointsman_server.decision.types import Endpoint, RejectionReason, SearchSpace

HERE, THERE = Endpoint("a", "x"), Endpoint("b", "y")
LISTS = {
    "models": SearchSpace(models=frozenset({"a"})),
    "providers": SearchSpace(providers=frozenset({"x"})),
    "endpoints": SearchSpace(endpoints=frozenset({"a@x"})),
}
SKIPS = {
    "skip_models": SearchSpace(skip_models=frozenset({"b"})),
    "skip_providers": SearchSpace(skip_providers=frozenset({"y"})),
    "skip_endpoints": SearchSpace(skip_endpoints=frozenset({"b@y"})),
}
ORDER = [*LISTS, *SKIPS]


def told(space: SearchSpace) -> str | None:
    """Which list or skip is told of `THERE`; `HERE` is always inside."""
    here, there = outside((HERE, THERE), space)
    assert here is None
    if there is None:
        return None
    name = there.constraint.partition(":")[0]
    assert there.reason is (RejectionReason.NOT_IN_SEARCH_SPACE if name in LISTS else RejectionReason.SKIPPED)
    return name


def test_everywhere_is_everywhere() -> None:
    """A space that says nothing leaves nobody out."""
    assert told(SearchSpace()) is None


@pytest.mark.parametrize("first", ORDER)
@pytest.mark.parametrize("second", ORDER)
def test_of_several_reasons_the_first_is_told(first: str, second: str) -> None:
    """Lists come before skips; models, then providers, then endpoints."""
    spaces = {**LISTS, **SKIPS}
    both = replace(spaces[first], **{second: getattr(spaces[second], second)})
    assert told(both) == min(first, second, key=ORDER.index)


def test_a_long_list_is_told_by_its_first_names() -> None:
    """An answer repeats four names of a list, and how many there are."""
    models = frozenset({"a", *(f"m{number}" for number in range(9))})
    _, there = outside((HERE, THERE), SearchSpace(models=models))
    assert there is not None
    assert there.constraint == "models:a,m0,m1,m2,... (10)"
