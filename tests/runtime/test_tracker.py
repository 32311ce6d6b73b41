"""The tracker: what each event says, and to what."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pointsman_server.decision.types import BreakerState, EndpointRuntime, Latency, RuntimeSnapshot
from pointsman_server.errors import UpstreamErrorKind
from pointsman_server.runtime.breaker import Breaker, BreakerRules
from pointsman_server.runtime.endpoint import (
    IDLE_READ_TICK_S,
    RATE_LIMIT_S_DEFAULT,
    RATE_LIMIT_S_MAX,
    READ_TICK_S,
    Common,
    EndpointState,
)
from pointsman_server.runtime.tracker import Attempt, Observation, RuntimeTracker

NAME = "small@north"
OTHER = "large@south"
ILLNESSES = (
    UpstreamErrorKind.CONNECT,
    UpstreamErrorKind.TIMEOUT,
    UpstreamErrorKind.SERVER_ERROR,
    UpstreamErrorKind.PROTOCOL,
    UpstreamErrorKind.DISCONNECTED,
)


def started(tracker: RuntimeTracker, now_s: float, name: str = NAME) -> Attempt:
    """A call that begins."""
    return tracker.start(name, input_token_count=100, now_s=now_s)


def answered(tracker: RuntimeTracker, now_s: float, *, ttft_s: float = 0.5, name: str = NAME) -> float:
    """One whole call: 101 tokens, 10 ms apart; when it ended."""
    attempt = started(tracker, now_s, name)
    attempt.first_token(now_s + ttft_s)
    attempt.succeed(output_token_count=101, now_s=now_s + ttft_s + 1.0)
    return now_s + ttft_s + 1.0


def failed(tracker: RuntimeTracker, now_s: float, kind: UpstreamErrorKind, *, count: int = 1) -> None:
    """Calls that fail at once."""
    for _ in range(count):
        started(tracker, now_s).fail(kind, retry_after_s=None, now_s=now_s)


def runtime_of(tracker: RuntimeTracker, now_s: float, name: str = NAME) -> EndpointRuntime:
    """What the snapshot says of an endpoint that it must know."""
    return tracker.snapshot(now_s).by_endpoint[name]


def test_what_was_never_called_is_absent() -> None:
    """The snapshot of a new tracker is empty, and one endpoint's call does not bring in another."""
    tracker = RuntimeTracker()
    assert tracker.snapshot(0.0) == RuntimeSnapshot({})
    answered(tracker, 0.0)
    assert set(tracker.snapshot(5.0).by_endpoint) == {NAME}


def test_a_catalog_is_not_read_anew_all_at_once() -> None:
    """Two hundred endpoints that nothing happens to: each state is the same object for a second and a new one after
    that, and no moment renews more than a few of them."""
    tracker = RuntimeTracker()
    names = [f"m{number}@north" for number in range(200)]
    for name in names:
        tracker.observe(Observation(name, ttft_s=0.4, duration_s=2.0, output_token_count=100), now_s=0.0)
    moments = [tracker.snapshot(10.0 + number * IDLE_READ_TICK_S / 50).by_endpoint for number in range(51)]
    renewed = [sum(before[name] is not after[name] for name in names) for before, after in itertools.pairwise(moments)]
    assert sum(renewed) == len(names)
    assert max(renewed) < len(names) / 10


@pytest.mark.parametrize(("call_count", "tick_s"), [(0, IDLE_READ_TICK_S), (1, READ_TICK_S)])
def test_an_endpoint_at_work_is_read_anew_sooner(call_count: int, tick_s: float) -> None:
    """While a call is under way its silence says more every half second; where none is, a second is soon enough."""
    tracker = RuntimeTracker()
    answered(tracker, 0.0)
    for _ in range(call_count):
        started(tracker, 5.0)
    moments = [runtime_of(tracker, 10.0 + number / 64.0) for number in range(129)]
    renewed = sum(before is not after for before, after in itertools.pairwise(moments))
    assert renewed == 2.0 / tick_s


def test_a_limit_leaves_all_else_as_it_is() -> None:
    """Of an endpoint that is limited nothing is told otherwise but for how long it is left alone."""
    state = EndpointState(Breaker(BreakerRules()), common=Common(), unix_offset_s=None)
    state.saw_failure(
        UpstreamErrorKind.RATE_LIMITED, state.breaker.admission_of(0.0), lost_s=0.0, retry_after_s=8.0, now_s=0.0
    )
    state.runtime(2.0)
    slow, slower = Latency(1.0, 2.0, 3.0, 4.0, 5.0), Latency(2.0, 3.0, 4.0, 5.0, 6.0)
    state.reading = EndpointRuntime(slow, slower, 0.1, 2, BreakerState.CLOSED, None, 3, 4.0, 5.0, 6.0, 7.0, 8.0, None)
    assert state.runtime(2.0) == state.reading._replace(retry_after_s=6.0)


def test_a_call_under_way_is_counted_and_nothing_else_is_known() -> None:
    """An endpoint with one call under way has one in flight; every figure is unknown, not zero."""
    tracker = RuntimeTracker()
    started(tracker, 0.0)
    assert runtime_of(tracker, 1.0) == EndpointRuntime(in_flight_count=1)


def test_a_success_tells_both_latencies() -> None:
    """Time to first token runs from the start; inter-token latency is the rest over the gaps; the age from the end."""
    tracker = RuntimeTracker()
    end_s = answered(tracker, 100.0)
    runtime = runtime_of(tracker, end_s + 2.0)
    assert runtime.ttft_s is not None
    assert runtime.inter_token_latency_s is not None
    assert runtime.ttft_s.p50 == pytest.approx(0.5, rel=0.05)
    assert runtime.inter_token_latency_s.p50 == pytest.approx(0.01, rel=0.05)
    assert runtime.age_s is not None
    assert 2.0 - IDLE_READ_TICK_S < runtime.age_s <= 2.0 + 1e-9
    assert (runtime.in_flight_count, runtime.observation_count, runtime.retry_after_s) == (0, 1, None)
    assert runtime.breaker is BreakerState.CLOSED
    assert runtime.error_rate is not None
    assert runtime.error_rate < 0.02


@pytest.mark.parametrize(
    ("output_token_count", "duration_s"), [(None, 1.0), (0, 1.0), (1, 1.0), (50, 0.0), (50, 0.001)]
)
def test_without_gaps_the_speed_stays_unknown(output_token_count: int | None, duration_s: float) -> None:
    """One token, an uncounted answer and an answer in one piece say nothing of the time between tokens."""
    tracker = RuntimeTracker()
    attempt = started(tracker, 0.0)
    attempt.first_token(0.5)
    attempt.succeed(output_token_count=output_token_count, now_s=0.5 + duration_s)
    runtime = runtime_of(tracker, 5.0)
    assert runtime.ttft_s is not None
    assert runtime.inter_token_latency_s is None


def test_an_answer_that_came_as_a_whole_is_its_own_first_token() -> None:
    """Without a first token the caller waited for the whole: that is its time to first token, and there are no gaps."""
    tracker = RuntimeTracker()
    started(tracker, 0.0).succeed(output_token_count=50, now_s=3.0)
    runtime = runtime_of(tracker, 3.0)
    assert runtime.ttft_s is not None
    assert runtime.ttft_s.p50 == pytest.approx(3.0, rel=0.05)
    assert runtime.inter_token_latency_s is None


@pytest.mark.parametrize("ends", [lambda a: a.cancel(9.0), lambda a: a.fail(ILLNESSES[4], retry_after_s=None, now_s=9)])
def test_an_answer_that_breaks_off_still_tells_its_speed(ends: Callable[[Attempt], None]) -> None:
    """What an attempt had received when it was cancelled or broke is evidence: gaps until the last progress."""
    tracker = RuntimeTracker()
    attempt = started(tracker, 0.0)
    attempt.first_token(0.5)
    attempt.progress(21, 1.5)
    ends(attempt)
    latency = runtime_of(tracker, 9.0).inter_token_latency_s
    assert latency is not None
    assert latency.p50 == pytest.approx(0.05, rel=0.05)


def test_a_stream_tells_its_speed_while_it_lasts() -> None:
    """Of answers under way that have become six times as slow the gaps are known within some seconds, though none of them
    is over."""
    tracker = RuntimeTracker()
    now_s = 0.0
    for _ in range(30):
        now_s = answered(tracker, now_s)
    usual = runtime_of(tracker, now_s).inter_token_latency_s
    assert usual is not None
    attempts = [started(tracker, now_s) for _ in range(5)]
    for attempt in attempts:
        attempt.first_token(now_s + 0.5)
    for tick in range(1, 10):
        for attempt in attempts:
            attempt.progress(1 + 10 * tick, now_s + 0.5 + 60.0 * usual.p50 * tick)
    slow = runtime_of(tracker, now_s + 0.5 + 540.0 * usual.p50).inter_token_latency_s
    assert slow is not None
    assert slow.p50 == pytest.approx(6.0 * usual.p50, rel=0.3)


def test_parts_of_an_answer_and_the_whole_tell_one_speed() -> None:
    """Where the provider counts twice the tokens that we estimate, what a stream tells on its way is scaled to that."""
    tracker = RuntimeTracker()
    for number in range(100):
        begun_s = 100.0 * number
        attempt = started(tracker, begun_s)
        attempt.first_token(begun_s + 0.5)
        for second in range(1, 10):
            attempt.progress(1 + 50 * second, begun_s + 0.5 + second)
        attempt.succeed(output_token_count=902, now_s=begun_s + 9.5)
    latency = runtime_of(tracker, 9909.5).inter_token_latency_s
    assert latency is not None
    assert latency.p50 == pytest.approx(0.01, rel=0.03)
    assert latency.p95 == pytest.approx(0.01, rel=0.2)


def test_an_attempt_ends_once() -> None:
    """A second end, or any event after the end, is a bug of the caller and is caught."""
    tracker = RuntimeTracker()
    attempt = started(tracker, 0.0)
    attempt.first_token(0.1)
    with pytest.raises(AssertionError, match="one first token"):
        attempt.first_token(0.2)
    attempt.cancel(0.3)
    for again in (attempt.cancel, attempt.first_token, lambda now_s: attempt.progress(3, now_s)):
        with pytest.raises(AssertionError, match="over"):
            again(0.4)
    assert runtime_of(tracker, 1.0).in_flight_count == 0


@pytest.mark.parametrize("kind", ILLNESSES)
def test_illness_opens_the_breaker(kind: UpstreamErrorKind) -> None:
    """Five failures in a row that are the endpoint's fault open its breaker, with the time that it stays open."""
    tracker = RuntimeTracker()
    failed(tracker, 10.0, kind, count=4)
    assert runtime_of(tracker, 10.0).breaker is BreakerState.CLOSED
    failed(tracker, 10.0, kind)
    runtime = runtime_of(tracker, 11.0)
    assert (runtime.breaker, runtime.breaker_open_s, runtime.retry_after_s) == (BreakerState.OPEN, 4.0, None)
    assert runtime.error_rate is not None
    assert runtime.error_rate > 0.5
    assert runtime_of(tracker, 15.0).breaker is BreakerState.HALF_OPEN


def test_a_refused_key_opens_the_breaker_at_once() -> None:
    """One refused key is enough, and the endpoint is left alone for minutes: a key doesn't heal by itself."""
    tracker = RuntimeTracker()
    failed(tracker, 0.0, UpstreamErrorKind.AUTHENTICATION)
    runtime = runtime_of(tracker, 0.0)
    assert (runtime.breaker, runtime.breaker_open_s) == (BreakerState.OPEN, 300.0)


def test_a_rejected_request_is_not_the_endpoints_fault() -> None:
    """Any number of requests that are wrong in themselves leave health, error rate and latency alone."""
    tracker = RuntimeTracker()
    end_s = answered(tracker, 0.0)
    before = runtime_of(tracker, end_s)
    failed(tracker, end_s, UpstreamErrorKind.REJECTED, count=50)
    assert runtime_of(tracker, end_s) == before


@pytest.mark.parametrize(
    ("asked_s", "kept_s"), [(None, RATE_LIMIT_S_DEFAULT), (7.0, 7.0), (3600.0, RATE_LIMIT_S_MAX), (0.0, None)]
)
def test_retry_after_is_honoured_up_to_a_cap(asked_s: float | None, kept_s: float | None) -> None:
    """A rate limit keeps callers away for as long as the provider asks, within bounds; the breaker stays closed."""
    tracker = RuntimeTracker()
    for _ in range(10):
        started(tracker, 0.0).fail(UpstreamErrorKind.RATE_LIMITED, retry_after_s=asked_s, now_s=0.0)
    runtime = runtime_of(tracker, 0.0)
    assert (runtime.breaker, runtime.retry_after_s) == (BreakerState.CLOSED, kept_s)
    assert runtime_of(tracker, RATE_LIMIT_S_MAX).retry_after_s is None


def test_a_later_rate_limit_does_not_shorten_an_earlier_one() -> None:
    """Of two answers in flight the longer Retry-After holds."""
    tracker = RuntimeTracker()
    for asked_s in (30.0, 1.0):
        started(tracker, 0.0).fail(UpstreamErrorKind.RATE_LIMITED, retry_after_s=asked_s, now_s=0.0)
    assert runtime_of(tracker, 10.0).retry_after_s == 20.0


@pytest.mark.parametrize("kind", [UpstreamErrorKind.RATE_LIMITED, UpstreamErrorKind.SERVER_ERROR])
def test_failing_fast_does_not_look_fast(kind: UpstreamErrorKind) -> None:
    """Errors that come within a millisecond raise the expected time to first token, by their odds."""
    tracker, now_s = RuntimeTracker(), 0.0
    for number in range(30):
        now_s = answered(tracker, now_s)
        if number % 3 == 0:
            started(tracker, now_s).fail(kind, retry_after_s=0.0, now_s=now_s + 0.001)
    ttft_s = runtime_of(tracker, now_s).ttft_s
    assert ttft_s is not None
    assert ttft_s.p50 == pytest.approx(0.5, rel=0.1), "an answer is as fast as it was"
    assert ttft_s.mean > 0.5 + 0.2, "but it must be waited for through failures"


def test_a_cancelled_wait_is_slow_but_no_error() -> None:
    """A caller who gives up after a long wait makes the endpoint look slower, never less reliable."""
    patient, impatient = RuntimeTracker(), RuntimeTracker()
    for tracker in (patient, impatient):
        for second in range(20):
            answered(tracker, float(second))
    started(impatient, 20.0).cancel(40.0)
    before, after = runtime_of(patient, 40.0), runtime_of(impatient, 40.0)
    assert before.ttft_s is not None
    assert after.ttft_s is not None
    assert after.ttft_s.p50 > before.ttft_s.p50
    assert after.ttft_s.p99 > before.ttft_s.p99
    assert (after.error_rate, after.breaker) == (before.error_rate, before.breaker)


def test_a_half_open_endpoint_takes_one_trial() -> None:
    """The first call takes the trial and the snapshot says open; a cancel gives it back; a first token closes it."""
    tracker = RuntimeTracker()
    failed(tracker, 0.0, UpstreamErrorKind.CONNECT, count=5)
    trial = started(tracker, 5.0)
    during = runtime_of(tracker, 6.0)
    assert during.breaker is BreakerState.OPEN
    assert during.breaker_open_s is not None
    trial.cancel(6.0)
    assert runtime_of(tracker, 6.0).breaker is BreakerState.HALF_OPEN
    trial = started(tracker, 6.0)
    trial.first_token(6.5)
    assert runtime_of(tracker, 6.5).breaker is BreakerState.CLOSED
    trial.succeed(output_token_count=1000, now_s=60.0)
    assert runtime_of(tracker, 60.0).breaker is BreakerState.CLOSED


@pytest.mark.parametrize("kind", [UpstreamErrorKind.REJECTED, UpstreamErrorKind.RATE_LIMITED])
def test_a_trial_without_verdict_is_given_back(kind: UpstreamErrorKind) -> None:
    """A trial that ends in a wrong request or a rate limit says nothing of health: the next call is a trial again."""
    tracker = RuntimeTracker()
    failed(tracker, 0.0, UpstreamErrorKind.CONNECT, count=5)
    started(tracker, 5.0).fail(kind, retry_after_s=1.0, now_s=5.0)
    assert runtime_of(tracker, 5.0).breaker is BreakerState.HALF_OPEN


def test_reported_outcomes_say_the_same_as_attempts() -> None:
    """A call that its caller made and reported leaves the same figures as one made by the router."""
    attempted, reported = RuntimeTracker(), RuntimeTracker()
    for second in range(10):
        end_s = answered(attempted, float(second))
        reported.observe(Observation(NAME, ttft_s=0.5, duration_s=1.5, output_token_count=101), now_s=end_s)
    started(attempted, 20.0).fail(UpstreamErrorKind.TIMEOUT, retry_after_s=None, now_s=30.0)
    reported.observe(Observation(NAME, duration_s=10.0, error_kind=UpstreamErrorKind.TIMEOUT), now_s=30.0)
    actual, expected = runtime_of(reported, 31.0), runtime_of(attempted, 31.0)
    assert actual.ttft_s is not None
    assert expected.ttft_s is not None
    assert actual.ttft_s.mean == pytest.approx(expected.ttft_s.mean, rel=0.01)
    assert actual.ttft_s.p95 == pytest.approx(expected.ttft_s.p95, rel=0.01)
    assert (actual.error_rate, actual.observation_count) == (expected.error_rate, expected.observation_count)
    assert (actual.age_s, actual.breaker) == (expected.age_s, expected.breaker)


def test_a_reported_outcome_without_figures_counts() -> None:
    """To report "it worked", and no more, is an outcome: it enters the error rate, and no latency is made up."""
    tracker = RuntimeTracker()
    tracker.observe(Observation(NAME), now_s=0.0)
    runtime = runtime_of(tracker, 0.0)
    assert (runtime.observation_count, runtime.ttft_s, runtime.inter_token_latency_s) == (1, None, None)


def test_reports_close_the_breaker() -> None:
    """Where every call is made by callers, their reports are the trials; an old success among them is not."""
    tracker = RuntimeTracker()
    for _ in range(5):
        tracker.observe(Observation(NAME, duration_s=0.1, error_kind=UpstreamErrorKind.CONNECT), now_s=0.0)
    assert runtime_of(tracker, 0.0).breaker is BreakerState.OPEN
    tracker.observe(Observation(NAME, duration_s=60.0), now_s=6.0)
    assert runtime_of(tracker, 6.0).breaker is BreakerState.HALF_OPEN
    tracker.observe(Observation(NAME, duration_s=0.5), now_s=6.0)
    assert runtime_of(tracker, 6.0).breaker is BreakerState.CLOSED


@pytest.mark.parametrize(
    "observation",
    [
        lambda: Observation(NAME, ttft_s=-0.1),
        lambda: Observation(NAME, duration_s=math.nan),
        lambda: Observation(NAME, output_token_count=-1),
        lambda: Observation(NAME, input_token_count=-1),
        lambda: Observation(NAME, retry_after_s=math.nan),
    ],
)
def test_impossible_figures_are_refused(observation: Callable[[], Observation]) -> None:
    """A negative duration or one that is no number never reaches the estimators."""
    with pytest.raises(AssertionError, match="not negative"):
        observation()


def test_only_the_endpoints_of_the_catalog_are_retained() -> None:
    """What left the catalog is forgotten; its calls under way end in peace; if it returns it starts afresh."""
    tracker = RuntimeTracker()
    answered(tracker, 0.0, name=OTHER)
    leaving = started(tracker, 0.0)
    tracker.retain([OTHER, "never@called"])
    assert set(tracker.snapshot(1.0).by_endpoint) == {OTHER}
    leaving.succeed(output_token_count=10, now_s=2.0)
    assert set(tracker.snapshot(2.0).by_endpoint) == {OTHER}
    started(tracker, 3.0)
    assert runtime_of(tracker, 3.0) == EndpointRuntime(in_flight_count=1)


def test_the_least_recently_used_endpoint_gives_way() -> None:
    """Memory is bounded: beyond the bound the endpoint goes that was longest without a call."""
    tracker = RuntimeTracker(endpoint_count_max=2)
    for second, name in enumerate(("a@p", "b@p", "a@p", "c@p")):
        answered(tracker, float(second), name=name)
    assert set(tracker.snapshot(9.0).by_endpoint) == {"a@p", "c@p"}


EVENTS = st.tuples(
    st.sampled_from(["start", "first_token", "succeed", "fail", "cancel", "observe", "retain"]),
    st.sampled_from([NAME, OTHER]),
    st.integers(0, 5),
    st.sampled_from(UpstreamErrorKind),
    st.floats(0.0, 100.0),
    st.none() | st.floats(0.0, 1e4),
)
Event = tuple[str, str, int, UpstreamErrorKind, float, float | None]


class Script:
    """Plays events on a tracker: whatever is possible at that point."""

    def __init__(self) -> None:
        self.tracker = RuntimeTracker(breaker_rules=BreakerRules(consecutive_failure_count=2))
        self.now_s = 0.0
        self.waiting: list[Attempt] = []
        self.streaming: list[Attempt] = []

    def play(self, event: Event) -> None:
        """Let one thing happen."""
        what, name, index, kind, gap_s, amount = event
        self.now_s += gap_s
        under_way = self.waiting + self.streaming
        if what == "start" and len(under_way) < 20:
            self.waiting.append(started(self.tracker, self.now_s, name))
        elif what == "observe":
            error_kind = kind if index % 2 else None
            observation = Observation(name, ttft_s=amount, duration_s=amount, error_kind=error_kind)
            self.tracker.observe(observation, now_s=self.now_s)
        elif what == "retain" and index == 0:
            self.tracker.retain([name])
        elif what == "first_token" and self.waiting:
            attempt = self.waiting.pop(index % len(self.waiting))
            attempt.first_token(self.now_s)
            self.streaming.append(attempt)
        elif under_way:
            attempt = under_way[index % len(under_way)]
            (self.waiting if attempt in self.waiting else self.streaming).remove(attempt)
            if what == "fail":
                attempt.fail(kind, retry_after_s=amount, now_s=self.now_s)
            elif what == "cancel":
                attempt.cancel(self.now_s)
            else:
                attempt.succeed(output_token_count=None if amount is None else int(amount), now_s=self.now_s)


@given(st.lists(EVENTS, max_size=40), st.lists(st.floats(0.0, 1000.0), max_size=4))
@settings(max_examples=200)
def test_reading_changes_nothing_and_every_figure_is_sane(events: list[Event], offsets: list[float]) -> None:
    """Snapshots between any events, at any times, in any order, change nothing; what they show is finite and possible."""
    read, unread = Script(), Script()
    for event in events:
        for offset_s in offsets:
            read.tracker.snapshot(read.now_s + offset_s)
        read.play(event)
        unread.play(event)
    times = [unread.now_s + offset_s for offset_s in offsets]
    backwards = [unread.tracker.snapshot(at_s) for at_s in reversed(times)][::-1]
    snapshots = [read.tracker.snapshot(at_s) for at_s in times]
    assert snapshots == backwards
    for snapshot in snapshots:
        for runtime in snapshot.by_endpoint.values():
            numbers: list[float] = [runtime.in_flight_count, runtime.observation_count]
            numbers += [runtime.age_s or 0.0, runtime.left_alone_s or 0.0, runtime.error_rate or 0.0]
            for latency in (runtime.ttft_s, runtime.inter_token_latency_s):
                if latency is not None:
                    assert 0.0 < latency.p50 <= latency.p90 <= latency.p95 <= latency.p99
                    numbers += [latency.mean, latency.p99]
            assert all(math.isfinite(number) and number >= 0.0 for number in numbers)
            assert runtime.error_rate is None or runtime.error_rate <= 1.0
            assert runtime.retry_after_s is None or runtime.retry_after_s > 0.0
            assert (runtime.breaker_open_s is not None) == (runtime.breaker is BreakerState.OPEN)


def test_a_snapshot_of_some_tells_of_them_what_that_of_all_does() -> None:
    """Those that are named, as far as they were ever called, and no others."""
    tracker = RuntimeTracker()
    for name in ("a@x", "b@x"):
        tracker.start(name, input_token_count=5, now_s=1.0).succeed(output_token_count=3, now_s=2.0)
    found = tracker.snapshot_of(["b@x", "never@x"], 3.0)
    assert found.by_endpoint == {"b@x": tracker.snapshot(3.0).of("b@x")}
