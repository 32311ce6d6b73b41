"""The hours of the day: what happens each evening is expected, and nothing is made of a single one."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.runtime.profile import DEVIATION_MAX, HOUR_COUNT, HOUR_S, DailyProfile
from pointsman_server.runtime.tracker import RuntimeTracker

NAME = "small@north"
SEEDS = range(3)
DAY_S = 86_400.0
MIDNIGHT_S = 1_700_006_400.0
"""A midnight in UTC, seconds since 1970."""


def evening(hour: float) -> float:
    """By which factor it is slower then: twice from 18 to 22."""
    return 2.0 if 18.0 <= hour % 24.0 < 22.0 else 1.0


def lived(seed: int, day_count: int, *, hour: float, slow: bool = True) -> RuntimeTracker:
    """A tracker after so many days, and the hours of one more, of a call every four minutes."""
    rng, tracker, at_s = random.Random(seed), RuntimeTracker(unix_offset_s=MIDNIGHT_S), 0.0
    while at_s < day_count * DAY_S + hour * HOUR_S:
        of_day = math.exp(random.Random(seed * 1000 + int(at_s // DAY_S)).gauss(0.0, 0.2))
        ttft_s = 0.4 * of_day * rng.lognormvariate(0.0, 0.3) * (evening(at_s / HOUR_S) if slow else 1.0)
        attempt = tracker.start(NAME, input_token_count=500, now_s=at_s)
        attempt.first_token(at_s + ttft_s)
        attempt.succeed(output_token_count=100, now_s=at_s + ttft_s + 1.0)
        at_s += 240.0
    return tracker


def median_s(tracker: RuntimeTracker, day: int, hour: float) -> float:
    """What is expected then."""
    ttft_s = tracker.snapshot(day * DAY_S + hour * HOUR_S).of(NAME).ttft_s
    assert ttft_s is not None
    return ttft_s.p50


@pytest.mark.parametrize("seed", SEEDS)
def test_a_known_evening_slow_down_is_expected(seed: int) -> None:
    """After a week with slow evenings, an endpoint last called at noon is expected to be slow at eight, and not at
    midnight."""
    tracker = lived(seed, 7, hour=12.0)
    noon_s = median_s(tracker, 7, 12.0)
    assert median_s(tracker, 7, 20.0) == pytest.approx(2.0 * noon_s, rel=0.35), f"seed {seed}"
    assert median_s(tracker, 7, 24.0) == pytest.approx(noon_s, rel=0.25), f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_single_evening_is_hardly_believed(seed: int) -> None:
    """After one day the next evening is expected to be slower by less than a third: it may have been chance."""
    tracker = lived(seed, 1, hour=12.0)
    assert median_s(tracker, 1, 20.0) < 1.34 * median_s(tracker, 1, 12.0), f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_where_no_hour_is_special_none_becomes_it(seed: int) -> None:
    """Days that differ as a whole, hours that don't: every hour is expected within a seventh of the others."""
    tracker = lived(seed, 7, hour=12.0, slow=False)
    noon_s = median_s(tracker, 7, 12.0)
    for hour in range(12, 36, 3):
        assert median_s(tracker, 7, float(hour)) == pytest.approx(noon_s, rel=0.15), f"seed {seed}"


def test_without_the_time_of_day_there_is_no_profile() -> None:
    """A tracker that is not told what makes its time the time of day expects the same of every hour."""
    tracker = RuntimeTracker()
    for number in range(4000):
        at_s = number * 300.0
        attempt = tracker.start(NAME, input_token_count=500, now_s=at_s)
        attempt.first_token(at_s + 0.4 * evening(at_s / HOUR_S))
        attempt.cancel(at_s + 5.0)
    now = tracker.snapshot(4000 * 300.0).of(NAME).ttft_s
    later = tracker.snapshot(4000 * 300.0 + 6.0 * HOUR_S).of(NAME).ttft_s
    assert now is not None
    assert later is not None
    # The first may be read up to half a second before.
    assert now.p50 == pytest.approx(later.p50, rel=0.01)


@given(
    st.lists(st.tuples(st.floats(-11.0, 8.0), st.floats(0.0, 2.0 * HOUR_S)), max_size=200), st.floats(0.0, 10.0 * DAY_S)
)
def test_the_profile_is_bounded(observations: list[tuple[float, float]], read_s: float) -> None:
    """Whatever is seen, no hour counts as more than 4.5 times as slow, and a profile that is restored says the same."""
    profile, unix_s = DailyProfile(), MIDNIGHT_S
    for log_value, gap_s in observations:
        unix_s += gap_s
        profile.observe(log_value, unix_s=unix_s)
    assert abs(profile.at(unix_s + read_s)) <= DEVIATION_MAX
    restored = DailyProfile()
    restored.restore(profile.summary())
    assert restored.at(unix_s + read_s) == profile.at(unix_s + read_s)
    assert len(profile.summary()) == HOUR_COUNT
