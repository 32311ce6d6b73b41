"""Why a decision chose nothing."""

from __future__ import annotations

import pytest
from pointsman_server.decision.decide import PANIC_OPEN_S_MAX, decide
from pointsman_server.decision.types import (
    BreakerState,
    DecisionInput,
    Endpoint,
    EndpointRuntime,
    Policy,
    RequestFacts,
    RuntimeSnapshot,
)
from pointsman_server.errors import EndpointsUnavailableError
from pointsman_server.router import unroutable

LIMITED = EndpointRuntime(retry_after_s=20.0)
LIMITED_LONGER = EndpointRuntime(retry_after_s=40.0)
SHUT = EndpointRuntime(breaker=BreakerState.OPEN, breaker_open_s=10.0 * PANIC_OPEN_S_MAX)
"""As a refused key leaves it, which no panic tries."""


@pytest.mark.parametrize(
    ("one", "other", "rate_limited"),
    [(LIMITED, LIMITED_LONGER, True), (LIMITED, SHUT, False), (SHUT, SHUT, False)],
    ids=["limited", "one of them down", "down"],
)
def test_only_limits_are_told_as_limits(one: EndpointRuntime, other: EndpointRuntime, *, rate_limited: bool) -> None:
    """Where every endpoint limits our rate the caller is told so; where one of them is down it is told that some are."""
    endpoints = (Endpoint("a", "x"), Endpoint("b", "y"))
    decision = decide(
        DecisionInput(
            decision_id="d",
            facts=RequestFacts(1),
            alternatives=(Policy(),),
            endpoints=endpoints,
            qualities={},
            snapshot=RuntimeSnapshot({"a@x": one, "b@y": other}),
            seed=1,
        )
    )
    error = unroutable(decision)
    assert isinstance(error, EndpointsUnavailableError)
    assert error.waited_for == {"a@x", "b@y"}
    assert error.rate_limited is rate_limited
    if one is LIMITED:
        assert error.retry_after_s == 20.0
