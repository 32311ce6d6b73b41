"""Router strings: what is read is what is printed, and what can't be read is explained."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.decision.metrics import METRIC_BY_NAME, Metric
from pointsman_server.decision.router_string import (
    ALTERNATIVE_COUNT_MAX,
    LENGTH_MAX,
    RouterAlternative,
    RouterString,
    RouterStringError,
    parse_router_string,
)
from pointsman_server.decision.types import (
    Bound,
    Capability,
    Comparison,
    Direction,
    Objective,
    SearchSpace,
    Weights,
    number_text,
    parse_number,
)
from strategies import bounds, capabilities, labels, preferences, spaces

alternatives = st.builds(
    RouterAlternative,
    head=st.sampled_from(["router", "cheap", "gpt-4o", "qwen2:7b", "meta/llama-3.1"]),
    space=spaces(),
    bounds=st.lists(bounds(), max_size=3).map(tuple),
    capabilities=capabilities,
    labels=labels,
    preference=st.none() | preferences,
)


@given(st.lists(alternatives, min_size=1, max_size=4))
def test_printing_and_parsing_gives_the_same_router(parts: list[RouterAlternative]) -> None:
    """Whatever a router is, its text reads back as exactly that router, to the last bit of every number."""
    router = RouterString(tuple(parts))
    assert parse_router_string(str(router)) == router


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([-3, 0, 2, 3]))
def test_numbers_survive_the_change_of_unit(value: float, exponent: int) -> None:
    """A number in text units reads back as the very same float, unless the shift of unit leaves the range of floats."""
    if value != 0.0 and not 1e-290 < abs(value) < 1e290:
        return
    assert parse_number(number_text(value, exponent=exponent), exponent=exponent) == value


def test_the_form_that_people_copy_from_a_plot() -> None:
    """Weights and bounds come in the units of the text, and are kept in canonical ones: seconds, not milliseconds."""
    text = "router@q:1|c:4.65e-03|t:2.08e-05|i:2.07e-03|models:a,b|skip_providers:x|ttft<500"
    (alternative,) = parse_router_string(text).alternatives
    assert alternative == RouterAlternative(
        "router",
        SearchSpace(models=frozenset({"a", "b"}), skip_providers=frozenset({"x"})),
        (Bound(Metric.TTFT, Comparison.LESS, 0.5),),
        preference=Weights.of(
            {
                Metric.QUALITY: 1.0,
                Metric.PRICE: 0.00465,
                Metric.TTFT: 0.0208,
                Metric.INTER_TOKEN_LATENCY: 2.07,
            }
        ),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (RouterAlternative("router"),)),
        ("cheap", (RouterAlternative("cheap"),)),
        (
            "MODEL@lowest-itl",
            (RouterAlternative("MODEL", preference=Objective(Metric.INTER_TOKEN_LATENCY, Direction.LOWEST)),),
        ),
        (
            "a@p->b@q",
            (
                RouterAlternative("a", SearchSpace(providers=frozenset({"p"}))),
                RouterAlternative("b", SearchSpace(providers=frozenset({"q"}))),
            ),
        ),
        (
            "router@rq.p90>=0.95|capabilities:tools|labels:region=eu,region=us",
            (
                RouterAlternative(
                    "router",
                    bounds=(Bound(Metric.RELATIVE_QUALITY, Comparison.GREATER_EQUAL, 0.95, 0.9),),
                    capabilities=frozenset({Capability.TOOLS}),
                    labels=frozenset({("region", "eu"), ("region", "us")}),
                ),
            ),
        ),
    ],
)
def test_each_form_is_understood(text: str, expected: tuple[RouterAlternative, ...]) -> None:
    """Names, endpoints, objectives, fallbacks, quantiles, labels and capabilities each have their form."""
    assert parse_router_string(text).alternatives == expected


@pytest.mark.parametrize("name", sorted(METRIC_BY_NAME))
def test_every_alias_of_a_metric_bounds_it(name: str) -> None:
    """Each metric can be bounded under each of its names."""
    (alternative,) = parse_router_string(f"router@{name}<=0.5").alternatives
    assert [bound.metric for bound in alternative.bounds] == [METRIC_BY_NAME[name]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("router@foo:1", "'foo' is no metric; known are quality (q)"),
        ("router@q:1|q:2", "quality is weighed twice (at character 11)"),
        ("router@q:0", "at least one weight must be above 0"),
        ("router@q:-1", "a weight is at least 0; what is better when lower is subtracted already (at character 9)"),
        ("router@ttft<nan", "'nan' is no finite number (at character 12)"),
        ("router@ttft<inf", "'inf' is no finite number (at character 12)"),
        ("router@ttft<1e999", "'1e999' is no finite number (at character 12)"),
        ("router@q>1.5", "quality is from 0 to 1 (at character 9)"),
        ("router@ttft<-1", "time-to-first-token is at least 0 (at character 12)"),
        ("router@c.p95<1", "cost has no distribution, so no .p95 (at character 10)"),
        ("router@ttft.p10<1", "a quantile lies between .p50 and .p99 (at character 13)"),
        ("router@ots:1", "tks-per-sec has no weight; bound it, or weigh what it is made of (at character 7)"),
        ("router@lowest-ttft|q:1", "an objective stands alone: no weights beside it (at character 19)"),
        ("router@q:1|lowest-ttft", "an objective stands alone: no second objective and no weights (at character 11)"),
        ("router@models:a|models:b", "models is listed twice (at character 16)"),
        ("router@models:a,,b", "'' can't stand in the list models (at character 16)"),
        ("router@endpoints:a", "'a' can't stand in the list endpoints (at character 17)"),
        ("router@capabilities:fly", "'fly' can't stand in the list capabilities (at character 20)"),
        ("router@", "'' is neither a weight (q:1)"),
        ("@q:1", "'' is no name; expected router, the name of a router, or the name of a model (at character 0)"),
        ("a->", "'' is no name; expected router, the name of a router, or the name of a model (at character 3)"),
        ("a b", "'a b' is no name"),
        ("->".join(["a"] * (ALTERNATIVE_COUNT_MAX + 1)), "at most 16 alternatives, joined by -> (at character 48)"),
        ("x" * (LENGTH_MAX + 1), "a router string has at most 4096 characters, not 4097"),
    ],
)
def test_what_cannot_be_read_is_explained(text: str, message: str) -> None:
    """The error says what is wrong, what would be right, and where."""
    with pytest.raises(RouterStringError) as caught:
        parse_router_string(text)
    assert str(caught.value).startswith(message)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the parser do anything but return a router or raise its own error."""
    try:
        router = parse_router_string(text)
    except RouterStringError:
        return
    assert parse_router_string(str(router)) == router


@given(st.text("qcti:|<>@->=.,0129e-p", max_size=40))
def test_near_misses_are_read_or_refused(tail: str) -> None:
    """Text made of the grammar's own characters is read or refused, and every number in it is finite."""
    try:
        router = parse_router_string(f"router@{tail}")
    except RouterStringError:
        return
    assert all(math.isfinite(bound.limit) for part in router.alternatives for bound in part.bounds)
