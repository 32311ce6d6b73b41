"""What can be told of a request before its prompt is assessed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.decision.decide import decide
from pointsman_server.decision.metrics import Metric
from pointsman_server.decision.reach import is_out_of_reach
from pointsman_server.decision.types import (
    Bound,
    BreakerState,
    Comparison,
    DecisionInput,
    Endpoint,
    EndpointRuntime,
    Policy,
    RuntimeSnapshot,
    SearchSpace,
)
from strategies import decision_inputs

FREE = EndpointRuntime()
LIMITED = EndpointRuntime(retry_after_s=20.0)
ILL = EndpointRuntime(breaker=BreakerState.OPEN, breaker_open_s=5.0)
CHEAP = Bound(Metric.INPUT_PRICE, Comparison.LESS, 1.0)
SPACES = {
    "everywhere": SearchSpace(),
    "models": SearchSpace(models=frozenset({"a"})),
    "providers": SearchSpace(providers=frozenset({"x"})),
    "endpoints": SearchSpace(endpoints=frozenset({"a@x"})),
    "skip_models": SearchSpace(skip_models=frozenset({"b"})),
    "skip_providers": SearchSpace(skip_providers=frozenset({"y"})),
    "skip_endpoints": SearchSpace(skip_endpoints=frozenset({"b@y"})),
}


@st.composite
def mostly_limited(draw: st.DrawFn) -> DecisionInput:
    """A request without bounds where most endpoints limit our rate."""
    given_input = draw(decision_inputs())
    runtimes = {
        endpoint.name: given_input.snapshot.of(endpoint.name)._replace(
            retry_after_s=draw(st.sampled_from([20.0, 20.0, 20.0, 0.5, None]))
        )
        for endpoint in given_input.endpoints
    }
    return given_input._replace(
        alternatives=tuple(replace(policy, bounds=()) for policy in given_input.alternatives),
        snapshot=RuntimeSnapshot(runtimes),
    )


@given(mostly_limited())
def test_out_of_reach_means_refused_for_the_same_reasons_whatever_is_expected(given_input: DecisionInput) -> None:
    """Where limits leave nothing to choose, nothing is chosen, and what was predicted changes no rejection; where a
    decision does choose, it was within reach."""
    decision = decide(given_input)
    if is_out_of_reach(given_input.alternatives, given_input.endpoints, given_input.snapshot):
        unassessed = decide(given_input._replace(qualities={}))
        assert decision.chosen is None
        assert unassessed.chosen is None
        assert unassessed.relaxations == decision.relaxations
        assert {c.endpoint.name: c.rejections for c in unassessed.candidates} == {
            c.endpoint.name: c.rejections for c in decision.candidates
        }


def is_so(policy: Policy, *, x: EndpointRuntime, y: EndpointRuntime) -> bool:
    """For the endpoints a@x and b@y in these states."""
    endpoints = (Endpoint("a", "x"), Endpoint("b", "y"))
    return is_out_of_reach((policy,), endpoints, RuntimeSnapshot({"a@x": x, "b@y": y}))


def test_one_endpoint_that_may_be_called_is_within_reach() -> None:
    """It takes a limit at every endpoint."""
    assert is_so(Policy(), x=LIMITED, y=LIMITED)
    assert not is_so(Policy(), x=LIMITED, y=FREE)


def test_an_open_breaker_is_within_reach() -> None:
    """Where nothing else is left, what failed is tried all the same."""
    assert not is_so(Policy(), x=LIMITED, y=ILL)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_what_may_not_be_used_is_not_asked_for_its_limits(space: SearchSpace) -> None:
    """A free endpoint outside of the search space brings nothing within reach, one inside does."""
    assert is_so(Policy(space=space), x=LIMITED, y=FREE) == (space != SearchSpace())
    assert not is_so(Policy(space=space), x=FREE, y=LIMITED)


def test_without_a_limit_nothing_is_out_of_reach() -> None:
    """What no endpoint is allowed for is told with what was expected of each."""
    assert not is_so(Policy(space=SearchSpace(models=frozenset({"c"}))), x=FREE, y=FREE)


def test_a_bound_takes_an_assessment() -> None:
    """Whether the bound or the limit stands against an endpoint is told, for which its value must be known."""
    assert not is_so(Policy(bounds=(CHEAP,)), x=LIMITED, y=LIMITED)
