"""The budgets of further calls: what they allow, whatever comes in whatever order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.execution.budgets import (
    HEDGE_COUNT_MAX,
    HEDGE_REQUEST_COUNT,
    RETRY_BUCKET_COUNT,
    RETRY_BUCKET_S,
    RETRY_COUNT_MIN,
    RETRY_SHARE,
    HedgeBudget,
    RetryBudget,
    RetryGrant,
)
from pointsman_server.execution.sliding import SlidingSum

steps_s = st.floats(0.0, 3.0)
"""Times between two events: mostly within a bucket, some over several."""


@given(st.lists(st.tuples(steps_s, st.floats(0.0, 100.0)), max_size=60), st.floats(0.0, 30.0))
def test_a_sliding_sum_is_the_sum_of_its_window(added: list[tuple[float, float]], wait_s: float) -> None:
    """At any time it is the sum of what was added in the last ten buckets, the present one included."""
    window = SlidingSum(bucket_s=1.0, bucket_count=10)
    now_s, events = 0.0, []
    for step_s, amount in added:
        now_s += step_s
        window.add(amount, now_s=now_s)
        events.append((int(now_s), amount))
    now_s += wait_s
    expected = sum(amount for epoch, amount in events if epoch > int(now_s) - 10)
    assert abs(window.at(now_s) - expected) < 1e-6


def test_reading_a_sliding_sum_changes_nothing() -> None:
    """A look into the future, in which all has left the window, does not make it leave now."""
    window = SlidingSum(bucket_s=1.0, bucket_count=10)
    window.add(3.0, now_s=5.0)
    assert window.at(1000.0) == 0.0
    assert window.at(5.0) == 3.0


def test_what_has_left_the_window_can_not_be_taken_back() -> None:
    """An amount is taken back from its own bucket; once that is gone, nothing is taken from the one in its place."""
    window = SlidingSum(bucket_s=1.0, bucket_count=10)
    epoch = window.add(2.0, now_s=0.0)
    window.take_back(1.0, epoch=epoch)
    assert window.at(0.0) == 1.0
    window.add(5.0, now_s=10.0)
    window.take_back(1.0, epoch=epoch)
    assert window.at(10.0) == 5.0


@given(st.lists(st.tuples(steps_s, st.sampled_from(["request", "failover", "failover", "answer"])), max_size=200))
def test_failovers_in_vain_are_a_fifth_of_the_requests_and_ten_more(events: list[tuple[float, str]]) -> None:
    """Whenever a failover is allowed, those of the window that got no token are at most 20 % of its requests and 10."""
    budget = RetryBudget()
    now_s = 0.0
    requests: list[float] = []
    open_grants: list[tuple[float, RetryGrant]] = []
    for step_s, event in events:
        now_s += step_s
        oldest = int(now_s / RETRY_BUCKET_S) - RETRY_BUCKET_COUNT + 1
        if event == "request":
            budget.add_request(now_s=now_s)
            requests.append(now_s)
        elif event == "answer":
            if open_grants:
                open_grants.pop()[1].give_back()
        elif (grant := budget.take(now_s=now_s)) is not None:
            open_grants.append((now_s, grant))
            in_vain = sum(int(taken_s / RETRY_BUCKET_S) >= oldest for taken_s, _ in open_grants)
            recent = sum(int(request_s / RETRY_BUCKET_S) >= oldest for request_s in requests)
            assert in_vain <= RETRY_COUNT_MIN + RETRY_SHARE * recent


def test_an_outage_of_everything_adds_a_fifth() -> None:
    """Of 1,000 requests in 10 s that all fail, 210 may be tried again, and not a single one more."""
    budget = RetryBudget()
    granted = 0
    for number in range(1000):
        now_s = number * 0.01
        budget.add_request(now_s=now_s)
        granted += sum(budget.take(now_s=now_s) is not None for _ in range(2))
    assert granted == 210


def test_a_healthy_endpoint_takes_over_without_limit() -> None:
    """Failovers that get an answer are given back: 1,000 of 1,000 requests may fail over, each before the next."""
    budget = RetryBudget()
    for number in range(1000):
        budget.add_request(now_s=number * 0.01)
        grant = budget.take(now_s=number * 0.01)
        assert grant is not None
        grant.give_back()
        grant.give_back()


def test_a_quiet_server_can_fail_over() -> None:
    """Without any other request ten failovers are allowed in ten seconds, and ten again in the next ones."""
    budget = RetryBudget()
    for start_s in (0.0, 10.0):
        assert [budget.take(now_s=start_s) is not None for _ in range(11)] == [True] * 10 + [False]


@given(st.lists(st.sampled_from(["request", "hedge"]), max_size=3000))
def test_hedges_are_a_twentieth_of_the_requests(events: list[str]) -> None:
    """At any time at most 5 % of the requests so far were hedged, or one."""
    budget = HedgeBudget()
    request_count = hedge_count = 0
    for event in events:
        if event == "request":
            budget.add_request()
            request_count += 1
        elif budget.has_room:
            budget.take()
            hedge_count += 1
            assert hedge_count <= max(1, request_count // HEDGE_REQUEST_COUNT)


def test_quiet_times_save_up_ten_hedges() -> None:
    """After 10,000 requests without one, ten hedges may be made at once, and the eleventh only 20 requests later."""
    budget = HedgeBudget()
    for _ in range(10_000):
        budget.add_request()
    for _ in range(HEDGE_COUNT_MAX):
        assert budget.has_room
        budget.take()
    assert not budget.has_room
    for _ in range(HEDGE_REQUEST_COUNT):
        assert not budget.has_room
        budget.add_request()
    assert budget.has_room
