"""Limits are learned from refusals and headers, and then hardly ever run into."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.chat import RequestAllowance
from pointsman_server.errors import UpstreamErrorKind
from pointsman_server.runtime.limits import BURST_S, RateLimits
from pointsman_server.runtime.tracker import RuntimeTracker

NAME = "small@north"
SEEDS = range(3)


class Limiter:
    """Admits so many calls in any window of so many seconds; says when there is room again, or says nothing."""

    def __init__(self, *, count: int, window_s: float, tells: bool = True) -> None:
        self.count, self.window_s, self.tells = count, window_s, tells
        self.admitted: deque[float] = deque()

    def refusal(self, now_s: float, _in_flight_count: int) -> tuple[float | None] | None:
        """None admits; else what Retry-After says."""
        while self.admitted and self.admitted[0] <= now_s - self.window_s:
            self.admitted.popleft()
        if len(self.admitted) < self.count:
            self.admitted.append(now_s)
            return None
        return (self.admitted[0] + self.window_s - now_s if self.tells else None,)


class Bucket:
    """Admits as OpenAI does: a bucket of calls that refills evenly."""

    def __init__(self, *, count: int, window_s: float) -> None:
        self.count, self.rate = count, count / window_s
        self.left, self.at_s = float(count), 0.0

    def refusal(self, now_s: float, _in_flight_count: int) -> tuple[float | None] | None:
        """None admits; else what Retry-After says."""
        self.left = min(self.count, self.left + (now_s - self.at_s) * self.rate)
        self.at_s = now_s
        if self.left >= 1.0:
            self.left -= 1.0
            return None
        return ((1.0 - self.left) / self.rate,)


Refusal = Callable[[float, int], tuple[float | None] | None]


class Demand:
    """Calls that come at random, are made where the endpoint is said to be free, and take a second or so."""

    def __init__(self, seed: int, refusal: Refusal, *, duration_s: float = 1.0) -> None:
        self.rng, self.refusal, self.duration_s = random.Random(seed), refusal, duration_s
        self.tracker = RuntimeTracker()
        self.now_s = 0.0
        self.ends: list[tuple[float, int, Callable[[float], None]]] = []
        self.made_count = self.refused_count = self.made_total = 0

    def run(self, duration_s: float, *, rate: float) -> None:
        """So long a time of it."""
        self.made_count = self.refused_count = 0
        end_s = self.now_s + duration_s
        while self.now_s < end_s:
            self.now_s += self.rng.expovariate(rate)
            while self.ends and self.ends[0][0] <= self.now_s:
                at_s, _, finish = heapq.heappop(self.ends)
                finish(at_s)
            if self.tracker.snapshot(self.now_s).of(NAME).retry_after_s is None:
                self.call()

    def call(self) -> None:
        """One call."""
        self.made_count += 1
        self.made_total += 1
        attempt = self.tracker.start(NAME, input_token_count=100, now_s=self.now_s)
        refused = self.refusal(self.now_s, len(self.ends))
        if refused is not None:
            self.refused_count += 1
            attempt.fail(UpstreamErrorKind.RATE_LIMITED, retry_after_s=refused[0], now_s=self.now_s)
            return
        attempt.first_token(self.now_s)
        last_s = self.now_s + self.duration_s * self.rng.lognormvariate(0.0, 0.3)
        finish = partial(attempt.succeed, output_token_count=50)
        heapq.heappush(self.ends, (last_s, self.made_total, lambda at_s: finish(now_s=at_s)))


LIMITERS: dict[str, tuple[float, Callable[[], Limiter | Bucket]]] = {
    "5 a second": (5.0, lambda: Limiter(count=5, window_s=1.0)),
    "120 a minute": (2.0, lambda: Limiter(count=120, window_s=60.0)),
    "120 a minute, silent": (2.0, lambda: Limiter(count=120, window_s=60.0, tells=False)),
    "bucket of 30": (1.5, lambda: Bucket(count=30, window_s=20.0)),
}
"""Each with the calls per second that it admits."""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", LIMITERS)
def test_a_rate_limit_is_learned(seed: int, kind: str) -> None:
    """At twice what is admitted, about one call in a hundred is refused once the limit is known, and half of
    what it admits or more is used."""
    rate, limiter = LIMITERS[kind]
    demand = Demand(seed, limiter().refusal)
    demand.run(400.0, rate=2.0 * rate)
    demand.run(600.0, rate=2.0 * rate)
    assert demand.refused_count < 0.015 * demand.made_count, f"seed {seed}"
    assert demand.made_count - demand.refused_count > 0.45 * 600.0 * rate, f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_limit_on_calls_under_way_is_learned(seed: int) -> None:
    """Where a refusal names no time to wait, the calls under way are kept below the number that was refused."""
    demand = Demand(seed, lambda _, in_flight_count: (None,) if in_flight_count >= 8 else None, duration_s=2.0)
    demand.run(300.0, rate=12.0)
    demand.run(300.0, rate=12.0)
    assert demand.refused_count < 0.03 * demand.made_count, f"seed {seed}"
    assert demand.made_count > 0.45 * 300.0 * 8 / 2.1, f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_raised_limit_is_found(seed: int) -> None:
    """When the provider admits ten times as much, we use at least twice as much within ten minutes."""
    limiter = Limiter(count=2, window_s=1.0)
    demand = Demand(seed, limiter.refusal)
    demand.run(200.0, rate=8.0)
    limiter.count = 20
    demand.run(600.0, rate=8.0)
    demand.run(60.0, rate=8.0)
    assert demand.made_count > 60.0 * 4.0, f"seed {seed}"


def test_below_its_limit_an_endpoint_is_free() -> None:
    """A learned limit keeps nobody away who comes more rarely; without one there is nothing to ask for."""
    limits = RateLimits()
    assert not limits.may_bind
    assert limits.wait_s(0.0, in_flight_count=1000) == 0.0
    for tenth in range(21):
        limits.started(tenth / 10.0)
    limits.refused(started_s=2.0, load=0, retry_after_s=1.0, now_s=2.0)
    rate = limits.rate_per_s(2.0)
    assert rate == pytest.approx(9.5, rel=0.1)
    for second in range(4, 30):
        assert limits.wait_s(float(second), in_flight_count=0) == 0.0
        limits.started(float(second))
    assert limits.concurrency is None, "who names a time to wait counts by time"


def test_the_first_burst_does_not_pass_for_the_limit() -> None:
    """Four calls at once and none before them, then a refusal that tells nothing: neither four a second, nor four in ten."""
    limits = RateLimits()
    for _ in range(5):
        limits.started(100.2)
    limits.refused(started_s=100.2, load=4, retry_after_s=None, now_s=100.3)
    rate = limits.rate_per_s(100.3)
    assert rate is not None
    assert 0.8 < rate < 2.0


def at_once(limits: RateLimits, now_s: float) -> int:
    """How many calls may be started at that moment; starts them."""
    count = 0
    while limits.wait_s(now_s, in_flight_count=0) <= 1e-9 and count < 100:
        limits.started(now_s)
        count += 1
    return count


def test_what_was_once_admitted_at_once_is_sent_at_once_again() -> None:
    """A bucket that let six calls pass within a second, though it refills by one or two, is used as a bucket: after a
    refusal one call is left of it, and after a while all of it is."""
    limits = RateLimits()
    for second in range(91, 100):
        limits.started(float(second))
    for _ in range(7):
        limits.started(100.0)
    limits.refused(started_s=100.0, load=0, retry_after_s=2.0, now_s=100.0)
    rate = limits.rate_per_s(100.0)
    assert rate == pytest.approx(0.95 * 10 / 4)
    assert at_once(limits, 100.0) == 1
    assert at_once(limits, 103.5) == 3
    assert at_once(limits, 103.6) == 0


def test_who_holds_back_does_not_forget_what_was_admitted_at_once() -> None:
    """Six at once were admitted, and a call every two seconds since. The refusal of more than that leaves the bucket as
    large as it was; one of no more than is known to be admitted shows another bucket, learned from what is sent now."""
    limits = RateLimits()
    for _ in range(7):
        limits.started(100.0)
    limits.refused(started_s=100.0, load=0, retry_after_s=4.0, now_s=100.0)
    learned = limits.rate_per_s(100.0)
    assert learned is not None
    for second in range(102, 260, 2):
        assert limits.wait_s(float(second), in_flight_count=0) == 0.0
        limits.started(float(second))
    limits.refused(started_s=260.0, load=0, retry_after_s=4.0, now_s=260.0)
    rate = limits.rate_per_s(260.0)
    assert rate is not None
    assert learned < rate
    assert at_once(limits, 275.0) == 5
    limits.started(340.0)
    limits.refused(started_s=340.0, load=0, retry_after_s=4.0, now_s=340.0)
    assert at_once(limits, 400.0) == 1


def test_a_limit_by_the_second_is_not_sent_at_once() -> None:
    """Where no second admitted more than the mean one does, calls are sent evenly."""
    limits = RateLimits()
    for tenth in range(900, 1001):
        limits.started(tenth / 10.0)
    limits.refused(started_s=100.0, load=0, retry_after_s=2.0, now_s=100.0)
    assert at_once(limits, 110.0) == 2


def test_refusals_of_one_burst_count_once() -> None:
    """What was sent before the first refusal came back says nothing new of the limit."""
    limits = RateLimits()
    for number in range(50):
        limits.started(number / 50.0)
    limits.refused(started_s=0.9, load=40, retry_after_s=None, now_s=1.0)
    first = (limits.rate_per_s(1.0), limits.concurrency)
    for _ in range(20):
        limits.refused(started_s=0.95, load=40, retry_after_s=None, now_s=1.1)
    assert (limits.rate_per_s(1.1), limits.concurrency) == first


def test_a_stated_allowance_is_not_overdrawn() -> None:
    """Three left, ten seconds to the reset of 13: three calls may start, then one each second, and all after it."""
    tracker = RuntimeTracker()
    attempt = tracker.start(NAME, input_token_count=10, now_s=0.0)
    attempt.allowance(RequestAllowance(limit_count=13, remaining_count=3, reset_s=10.0), 0.0)
    for _ in range(3):
        assert tracker.snapshot(0.0).of(NAME).retry_after_s is None
        tracker.start(NAME, input_token_count=10, now_s=0.0)
    assert tracker.snapshot(0.0).of(NAME).retry_after_s == pytest.approx(1.0)
    assert tracker.snapshot(0.75).of(NAME).retry_after_s == pytest.approx(0.25)
    assert tracker.snapshot(1.0).of(NAME).retry_after_s is None
    tracker.start(NAME, input_token_count=10, now_s=1.0)
    assert tracker.snapshot(1.0).of(NAME).retry_after_s == pytest.approx(1.0)
    assert tracker.snapshot(10.0).of(NAME).retry_after_s is None


def test_an_allowance_counts_from_the_moment_of_its_report() -> None:
    """A snapshot in the very moment after the headers tells of them, though one was taken just before."""
    tracker = RuntimeTracker()
    attempt = tracker.start(NAME, input_token_count=10, now_s=0.0)
    assert tracker.snapshot(0.0).of(NAME).retry_after_s is None
    attempt.allowance(RequestAllowance(limit_count=10, remaining_count=0, reset_s=10.0), 0.0)
    assert tracker.snapshot(0.0).of(NAME).retry_after_s == pytest.approx(1.0)


def test_an_exhausted_allowance_without_refill_waits_for_the_reset() -> None:
    """Nothing is left and nothing comes back in between: until the reset nobody is sent."""
    limits = RateLimits()
    number = limits.started(0.0)
    limits.reported(RequestAllowance(limit_count=0, remaining_count=0, reset_s=30.0), number=number, now_s=0.0)
    assert limits.wait_s(10.0, in_flight_count=0) == pytest.approx(20.0)
    assert limits.wait_s(30.0, in_flight_count=0) == 0.0


def test_an_older_answer_does_not_undo_a_newer_one() -> None:
    """Answers come in any order; the allowance of the call that began last holds."""
    limits = RateLimits()
    first, second = limits.started(0.0), limits.started(0.1)
    limits.reported(RequestAllowance(limit_count=10, remaining_count=0, reset_s=60.0), number=second, now_s=1.0)
    limits.reported(RequestAllowance(limit_count=10, remaining_count=9, reset_s=60.0), number=first, now_s=2.0)
    assert limits.wait_s(2.0, in_flight_count=0) > 0.0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["start", "refuse", "report", "succeed"]),
            st.floats(0.0, 200.0),
            st.integers(0, 50),
            st.none() | st.floats(0.0, 600.0),
        ),
        max_size=60,
    )
)
def test_no_wait_is_endless(events: list[tuple[str, float, int, float | None]]) -> None:
    """Whatever is seen, the wait is finite and over within the hour, and one call may always follow it."""
    limits, now_s = RateLimits(), 0.0
    for what, gap_s, count, seconds in events:
        now_s += gap_s
        if what == "start":
            limits.started(now_s)
        elif what == "refuse":
            limits.refused(started_s=now_s, load=count, retry_after_s=seconds, now_s=now_s)
        elif what == "succeed":
            limits.succeeded(count)
        else:
            allowance = RequestAllowance(limit_count=count + 5, remaining_count=count, reset_s=1.0 + (seconds or 0.0))
            limits.reported(allowance, number=limits.started_count, now_s=now_s)
        wait_s = limits.wait_s(now_s, in_flight_count=0)
        assert 0.0 <= wait_s <= 3600.0
        rate = limits.rate_per_s(now_s)
        assert rate is None or rate > 0.0
        assert limits.wait_s(now_s + 3600.0 + BURST_S, in_flight_count=0) == 0.0


@given(
    refused_after=st.integers(1, 30),
    retry_after_s=st.sampled_from([None, 0.0, 0.5, 2.0, 20.0]),
    quiet_s=st.floats(0.0, 30.0),
    within_s=st.floats(0.0, 10.0),
)
def test_the_room_that_is_told_is_the_room_that_there_is(
    refused_after: int, retry_after_s: float | None, quiet_s: float, within_s: float
) -> None:
    """Whoever calls as soon as it is let gets as many calls as had been told before, but for the one at the very end."""
    limits, now_s = RateLimits(), 100.0
    for _ in range(refused_after):
        limits.started(now_s)
        now_s += 0.05
    limits.refused(started_s=now_s, load=0, retry_after_s=retry_after_s, now_s=now_s)
    now_s += quiet_s
    until_s, count = now_s + within_s, 0
    room = limits.room(now_s, until_s)
    while (wait_s := limits.wait_s(now_s, in_flight_count=0)) <= until_s - now_s:
        now_s += max(0.0, wait_s)
        limits.started(now_s)
        count += 1
    assert count == pytest.approx(room, abs=1)


@given(
    limit_count=st.integers(1, 100),
    left=st.integers(0, 100),
    reset_s=st.floats(0.5, 60.0),
    within_s=st.floats(0.0, 30.0),
)
def test_the_room_of_an_allowance_is_what_is_left_and_what_comes(
    limit_count: int, left: int, reset_s: float, within_s: float
) -> None:
    """As above, by the headers of an answer; once they are out of date nothing is known that limits."""
    limits, now_s = RateLimits(), 100.0
    number = limits.started(now_s)
    allowance = RequestAllowance(limit_count=limit_count, remaining_count=min(left, limit_count), reset_s=reset_s)
    limits.reported(allowance, number=number, now_s=now_s)
    until_s, count = now_s + within_s, 0
    room = limits.room(now_s, until_s)
    if room == math.inf:
        assert within_s >= reset_s - 1e-9
        return
    assert within_s <= reset_s + 1e-9
    while (wait_s := limits.wait_s(now_s, in_flight_count=0)) <= until_s - now_s and now_s < 100.0 + reset_s:
        now_s += wait_s
        limits.started(now_s)
        count += 1
    assert count == pytest.approx(room, abs=1)


def test_the_room_of_several_endpoints_is_that_of_all() -> None:
    """An endpoint that was told to be left alone has none until then, one that knows no limit has as much as anyone wants,
    and what two have is added up."""
    tracker = RuntimeTracker()
    for name in ("a@x", "a@y"):
        attempt = tracker.start(name, input_token_count=1, now_s=0.0)
        attempt.fail(UpstreamErrorKind.RATE_LIMITED, retry_after_s=5.0, now_s=0.0)
    one = tracker.room(["a@x"], within_s=60.0, now_s=1.0)
    assert 0.0 < one < math.inf
    assert tracker.room(["a@x", "a@y"], within_s=3.9, now_s=1.0) == 0.0
    assert tracker.room(["a@x", "a@y"], within_s=60.0, now_s=1.0) == 2.0 * one
    assert tracker.room(["a@x", "a@never"], within_s=1.0, now_s=1.0) == math.inf
