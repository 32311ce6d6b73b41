"""What calls say that still wait, and streams that are silent."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pointsman_server.decision.types import EndpointRuntime
from pointsman_server.runtime.level import Level
from pointsman_server.runtime.tracker import Attempt, RuntimeTracker
from pointsman_server.runtime.waiting import (
    REMAINING_RATIO,
    WAITING_COUNT_MAX,
    Delay,
    WaitingCall,
    WaitingRoom,
    stall,
    wait_surprise,
)
from runtime.lane import NAME, Lane, Truth

SEEDS = range(4)
TTFT_S = 0.4
SECOND = Level(0.0, 0.1, 0.3, 0.0, 0.0)
"""A time to first token of about one."""


def settled(seed: int, *, gap_s: float = 0.5, count: int = 100) -> tuple[RuntimeTracker, random.Random]:
    """A tracker that has seen calls, one each `gap_s`, all answered after about `TTFT_S`; now it is 0."""
    tracker, rng = RuntimeTracker(), random.Random(seed)
    for number in range(-count, 0):
        start_s = number * gap_s - 2.0
        attempt = tracker.start(NAME, input_token_count=500, now_s=start_s)
        attempt.first_token(start_s + TTFT_S * rng.lognormvariate(0.0, 0.3))
        attempt.succeed(output_token_count=100, now_s=start_s + 1.8)
    return tracker, rng


def of_a_second(room: WaitingRoom, now_s: float) -> Delay | None:
    """What is to be expected where answers take a second."""
    return room.delay(now_s, lambda _load, _length: SECOND, usual_s=1.0)


def runtime_of(tracker: RuntimeTracker, now_s: float) -> EndpointRuntime:
    """The state of the endpoint."""
    return tracker.snapshot(now_s).of(NAME)


def expected_ttft_s(tracker: RuntimeTracker, now_s: float) -> float:
    """The expected time to first token."""
    ttft_s = runtime_of(tracker, now_s).ttft_s
    assert ttft_s is not None
    return ttft_s.mean


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rate", [2.0, 5.0, 20.0])
def test_a_hang_is_seen_by_waiting_calls_alone(seed: int, rate: float) -> None:
    """Two seconds after answers stopped coming, with nothing but waits to show it, the endpoint looks five times slower."""
    tracker, _ = settled(seed)
    before_s = expected_ttft_s(tracker, 0.0)
    for number in range(math.ceil(2.0 * rate)):
        tracker.start(NAME, input_token_count=500, now_s=number / rate)
    assert expected_ttft_s(tracker, 2.0) > 5.0 * before_s, f"seed {seed}"
    later = [runtime_of(tracker, at_s).ttft_s for at_s in (2.0, 4.0, 8.0, 16.0)]
    p50s = [latency.p50 for latency in later if latency is not None]
    assert p50s == sorted(p50s), "the longer it lasts, the slower it looks"


@pytest.mark.parametrize("seed", SEEDS)
def test_one_late_call_is_a_straggler_until_it_is_very_late(seed: int) -> None:
    """A single wait of three medians moves the expectation by less than a third, one of thirty says it hangs."""
    tracker, _ = settled(seed)
    before_s = expected_ttft_s(tracker, 0.0)
    tracker.start(NAME, input_token_count=500, now_s=0.0)
    assert expected_ttft_s(tracker, 3.0 * TTFT_S) < 1.34 * before_s, f"seed {seed}"
    assert expected_ttft_s(tracker, 30.0 * TTFT_S) > 5.0 * before_s, f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_who_was_overtaken_proves_nothing(seed: int) -> None:
    """As soon as a call that began later is answered, the waits of the others say nothing against the endpoint."""
    tracker, rng = settled(seed)
    before_s = expected_ttft_s(tracker, 0.0)
    for second in range(5):
        tracker.start(NAME, input_token_count=500, now_s=0.1 * second)
    later = tracker.start(NAME, input_token_count=500, now_s=3.0)
    assert expected_ttft_s(tracker, 3.2) > 5.0 * before_s
    later.first_token(3.0 + TTFT_S * rng.lognormvariate(0.0, 0.3))
    assert expected_ttft_s(tracker, 4.5) < 1.3 * before_s, f"seed {seed}"


@pytest.mark.parametrize("ends", [lambda attempt: attempt.cancel(0.6), lambda attempt: attempt.first_token(0.6)])
def test_who_has_left_waits_no_more(ends: Callable[[Attempt], None]) -> None:
    """A call that ended or was answered is not counted as waiting, however long ago it began."""
    tracker, _ = settled(1)
    before_s = expected_ttft_s(tracker, 0.0)
    for _ in range(5):
        ends(tracker.start(NAME, input_token_count=500, now_s=0.0))
    assert expected_ttft_s(tracker, 60.0) < 2.0 * before_s


def gave_up(tracker: RuntimeTracker, *, count: int) -> None:
    """So many calls, two a second from 0 on, are left after a second and a half without a token: as when hedges win."""
    for number in range(count):
        start_s = 0.5 * number
        tracker.start(NAME, input_token_count=500, now_s=start_s).cancel(start_s + 1.5)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_hang_is_not_forgotten_with_those_who_gave_up(seed: int) -> None:
    """When all have left that waited in vain, the endpoint looks the slower the longer they are gone; half a minute later
    only their waits are held against it, and it may be looked at again."""
    tracker, _ = settled(seed)
    before_s = expected_ttft_s(tracker, 0.0)
    gave_up(tracker, count=4)
    soon_s, later_s = expected_ttft_s(tracker, 4.0), expected_ttft_s(tracker, 8.0)
    assert 5.0 * before_s < soon_s < later_s, f"seed {seed}"
    assert expected_ttft_s(tracker, 40.0) < 2.0, f"seed {seed}"


def test_one_answer_ends_what_those_said_who_gave_up() -> None:
    """An answer to a call that began before the hang proves nothing; one to a call that began in it is a sign of life."""
    tracker, _ = settled(1)
    early = tracker.start(NAME, input_token_count=500, now_s=-0.1)
    gave_up(tracker, count=4)
    early.first_token(3.5)
    hung_s = expected_ttft_s(tracker, 4.0)
    tracker.start(NAME, input_token_count=500, now_s=4.0).first_token(4.4)
    assert expected_ttft_s(tracker, 4.5) < 0.5 * hung_s


def test_who_gave_up_long_ago_is_forgotten() -> None:
    """A minute after others gave up, one late call makes the endpoint look no slower than it would by itself."""
    with_others, alone = WaitingRoom(), WaitingRoom()
    with_others.gave_up(30.0, SECOND, now_s=30.0)
    for room in (with_others, alone):
        room.enter(WaitingCall(90.0, 0.0, 10.0))
    delays = [of_a_second(room, 100.0) for room in (with_others, alone)]
    assert delays[0] == delays[1]
    assert delays[1] is not None


def test_whom_an_answer_has_overtaken_says_nothing() -> None:
    """Who gave up, but began before a call that was answered, was a straggler; so is everyone who gave up when a call is
    answered that began after the first of them."""
    room = WaitingRoom()
    room.answered(5.0)
    room.gave_up(30.0, SECOND, now_s=33.0)
    assert of_a_second(room, 33.0) is None
    room.gave_up(29.0, SECOND, now_s=35.0)
    room.gave_up(27.0, SECOND, now_s=36.0)
    seen = of_a_second(room, 36.0)
    room.answered(5.5)
    assert of_a_second(room, 36.0) == seen is not None
    room.answered(10.0)
    assert of_a_second(room, 36.0) is None


@pytest.mark.parametrize(("waiting_from_s", "since_s"), [(20.0, 3.0), (1.0, 1.0)])
def test_a_hang_lasts_since_the_first_who_met_it(waiting_from_s: float, since_s: float) -> None:
    """Whoever began first and was not answered, gone or waiting still, says for how long nothing has come."""
    room = WaitingRoom()
    for started_s, gone_s in ((10.0, 40.0), (3.0, 41.0), (12.0, 42.0)):
        room.gave_up(gone_s - started_s, SECOND, now_s=gone_s)
    room.enter(WaitingCall(waiting_from_s, 0.0, 10.0))
    delay = of_a_second(room, 42.0)
    assert delay is not None
    assert delay.expected_s == pytest.approx(REMAINING_RATIO * (42.0 - since_s))


def test_who_gave_up_in_good_time_says_nothing() -> None:
    """Calls that are left sooner than answers usually come raise no suspicion, however many they are."""
    tracker, _ = settled(1)
    before_s = expected_ttft_s(tracker, 0.0)
    for number in range(50):
        tracker.start(NAME, input_token_count=500, now_s=0.1 * number).cancel(0.1 * number + 0.1)
    assert expected_ttft_s(tracker, 5.5) < 1.5 * before_s


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rate", [3.0, 30.0])
def test_ordinary_waits_raise_no_alarm(seed: int, rate: float) -> None:
    """Under ordinary traffic with stragglers, few or many calls at a time, hardly any reading is off by half."""
    lane = Lane(seed, lambda _: Truth(gap_s=0.002), rate_at=lambda _: rate)
    lane.ran(300.0 / rate)
    means = [runtime.ttft_s.mean for runtime in lane.run(900.0 / rate) if runtime.ttft_s is not None]
    usual_s = sorted(means)[len(means) // 2]
    assert sum(mean > 1.5 * usual_s for mean in means) < 0.02 * len(means), f"seed {seed}"


def test_nothing_is_late_where_nothing_was_answered() -> None:
    """Without an answer there is nothing to wait longer than: the figures stay unknown."""
    tracker = RuntimeTracker()
    for _ in range(10):
        tracker.start(NAME, input_token_count=500, now_s=0.0)
    assert runtime_of(tracker, 100.0).ttft_s is None


def streaming(tracker: RuntimeTracker, *, count: int) -> list[Attempt]:
    """Answers under way that tell of their tokens as they come; the last ones at 2.4 s."""
    attempts = []
    for _ in range(count):
        attempt = tracker.start(NAME, input_token_count=500, now_s=0.0)
        attempt.first_token(0.4)
        attempt.progress(140, 2.4)
        attempts.append(attempt)
    return attempts


def gap_s(tracker: RuntimeTracker, now_s: float) -> float:
    """The expected time between tokens."""
    latency = runtime_of(tracker, now_s).inter_token_latency_s
    assert latency is not None
    return latency.mean


def test_a_stall_is_seen_by_the_silence_of_all() -> None:
    """When no stream of an endpoint has had a token for two seconds, its tokens are expected to take longer; one token
    of one stream, and they are not."""
    tracker, _ = settled(1)
    attempts = streaming(tracker, count=4)
    before_s = gap_s(tracker, 2.4)
    assert gap_s(tracker, 3.3) == before_s, "a second of silence is nothing"
    assert gap_s(tracker, 4.9) > 2.0 * before_s
    attempts[2].progress(141, 4.9)
    assert gap_s(tracker, 4.95) == before_s
    for attempt in attempts:
        attempt.cancel(20.0)
    assert gap_s(tracker, 60.0) < 2.0 * before_s, "nobody is left to be silent"


def test_who_does_not_tell_of_tokens_is_not_silent() -> None:
    """An attempt that reports its first token and its end alone never looks stalled."""
    tracker, _ = settled(1)
    before_s = gap_s(tracker, 0.0)
    for _ in range(5):
        tracker.start(NAME, input_token_count=500, now_s=0.0).first_token(0.4)
    assert gap_s(tracker, 30.0) == before_s


@given(st.floats(0.001, 1e4), st.floats(0.001, 1e4), st.floats(0.0, 1.0), st.floats(0.05, 1.5))
@settings(max_examples=200)
def test_surprise_grows_with_the_wait(one_s: float, other_s: float, error: float, spread: float) -> None:
    """The longer a wait, the more surprising; never negative, and finite: a straggler can take any time."""
    level = Level(0.0, error, spread, 0.0, 0.0)
    surprises = [wait_surprise(wait_s, level) for wait_s in sorted((one_s, other_s))]
    assert 0.0 <= surprises[0] <= surprises[1] < 30.0


@given(st.lists(st.floats(1.1, 600.0), min_size=2, max_size=6))
def test_a_longer_silence_is_more_certain(silences: list[float]) -> None:
    """The chance of a stall grows with the silence and with the streams that share it."""
    delays = [stall(silent_s, stream_count=2, gap_s=0.01) for silent_s in sorted(silences)]
    chances = [delay.chance for delay in delays if delay is not None]
    assert all(left <= right for left, right in pairwise(chances))
    more = stall(max(silences), stream_count=3, gap_s=0.01)
    assert more is not None
    assert chances[-1] <= more.chance <= 1.0


def test_the_room_is_bounded() -> None:
    """Of a thousand waiting calls those are watched that began first; the rest costs nothing."""
    room = WaitingRoom()
    calls = [WaitingCall(float(second), 0.0, 10.0) for second in range(1000)]
    for call in calls:
        room.enter(call)
    assert len(room._calls) == WAITING_COUNT_MAX
    assert room._calls[0] == calls[0]
    room.answered(calls[500].started_s)
    assert not room
    room.leave(calls[999])
