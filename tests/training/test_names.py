"""Which model is meant."""

from __future__ import annotations

import pytest
from pointsman_server.training.names import ModelNames, UnknownModelError, near

NAMES = ModelNames(
    by_endpoint={
        ("a", "vendor/Alpha-1"): "alpha-1",
        ("a", "twin"): "twin",
        ("b", "twin"): "twin.b",
        ("b", "Solo"): "solo.b",
    },
    by_model={
        "vendor/Alpha-1": frozenset({"alpha-1"}),
        "twin": frozenset({"twin", "twin.b"}),
        "Solo": frozenset({"solo.b"}),
        "double": frozenset({"d.a", "d.b"}),
    },
    known=frozenset({"alpha-1", "alpha-latest", "twin", "twin.b", "solo", "solo.b", "d.a", "d.b"}),
)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (("a", "vendor/Alpha-1"), "alpha-1"),
        (("b", "twin"), "twin.b"),
        (("elsewhere", "Solo"), "solo.b"),
        (("elsewhere", "VENDOR/alpha-LATEST"), "alpha-latest"),
        (("elsewhere", "twin"), "twin"),
        (("elsewhere", "double"), None),
        (("elsewhere", "gamma"), None),
    ],
)
def test_an_endpoint_is_what_it_was_trained_as(endpoint: tuple[str, str], expected: str | None) -> None:
    """The very endpoint comes first, then the only one with that model's name, then a name, vendor and case aside."""
    assert NAMES.of_endpoint(endpoint) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("vendor/Alpha-1", "alpha-1"), ("b/twin", "twin.b"), ("Solo", "solo.b"), ("solo", "solo"), ("x/solo", "solo")],
)
def test_a_text_means_a_model(text: str, expected: str) -> None:
    """On the command line a model is named as in the data, with its source where need be, or as in the catalog."""
    assert NAMES.of_text(text) == expected


def test_a_name_of_two_models_is_not_guessed() -> None:
    """Where two sources have different models of a name, and none goes by the name alone, both are offered."""
    names = ModelNames(
        by_endpoint={("a", "double"): "d.a", ("b", "double"): "d.b"}, by_model=NAMES.by_model, known=NAMES.known
    )
    with pytest.raises(UnknownModelError) as caught:
        names.of_text("double")
    assert str(caught.value) == "double was trained on in several sources; say which: a/double, b/double"


def test_an_unknown_name_gets_those_near_it() -> None:
    """A misspelt name is answered with the names most like it; one like none with some of all."""
    with pytest.raises(UnknownModelError) as caught:
        NAMES.of_text("alfa-1")
    assert str(caught.value).startswith("the artifact does not know alfa-1; near it: vendor/Alpha-1")
    assert near("zzzzzz", ["one", "two", "three", "four"]) == "; it knows four, one, three and 1 more"
