"""Sessions that lie hours apart: what is known of an endpoint returns to what is usual there."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.runtime.estimators import DurationEstimator
from pointsman_server.runtime.level import LevelFilter
from pointsman_server.runtime.sessions import MEMORY_COUNT, RETURN_S, Sessions

HOUR_S = 3600.0


def session(estimator: DurationEstimator, *, at_s: float, median_s: float, rng: random.Random) -> None:
    """Thirty calls within half a minute, around that median."""
    for number in range(30):
        estimator.observe(median_s * math.exp(rng.gauss(0.0, 0.1)), now_s=at_s + number)


def test_hours_later_the_usual_level_is_expected_and_not_the_last_one() -> None:
    """After four sessions around 0.4 s and a slow one, the fast one's median is expected again half a day later, though a
    minute after the slow session it is that one's."""
    estimator, rng = DurationEstimator(), random.Random(1)
    for number, median_s in enumerate((0.4, 0.36, 0.44, 0.4, 1.6)):
        session(estimator, at_s=number * 6 * HOUR_S, median_s=median_s, rng=rng)
    last_s = 4 * 6 * HOUR_S + 30.0
    soon, late = estimator.latency(last_s + 30.0), estimator.latency(last_s + 12 * HOUR_S)
    assert soon is not None
    assert late is not None
    assert soon.p50 == pytest.approx(1.6, rel=0.15)
    assert late.p50 == pytest.approx(0.4 * (1.6 / 0.4) ** (1 / 5), rel=0.15)


def test_hours_later_the_mean_is_that_of_all_sessions_stragglers_among_them() -> None:
    """One answer in ten takes 6 s, though the median is 0.3 s: hours later the expected duration is the mean that this
    makes, far above what is usual; within the session that goes on it is the shape of the last minutes that counts."""
    estimator, rng = DurationEstimator(), random.Random(3)
    for number in range(8):
        for call in range(30):
            duration_s = 6.0 if call % 10 == 4 else 0.3 * math.exp(rng.gauss(0.0, 0.05))
            estimator.observe(duration_s, now_s=number * 6 * HOUR_S + call)
    late = estimator.latency(7 * 6 * HOUR_S + 30.0 + 12 * HOUR_S)
    assert late is not None
    assert late.p50 == pytest.approx(0.3, rel=0.15)
    assert late.mean == pytest.approx(0.9 * 0.3 + 0.1 * 6.0, rel=0.15)


def test_slow_sessions_weigh_what_they_cost() -> None:
    """Nine sessions at 0.3 s and one at 5 s, long ago: the median is near 0.3 s, the mean near that of the ten."""
    estimator, rng = DurationEstimator(), random.Random(4)
    for number in range(10):
        session(estimator, at_s=number * 6 * HOUR_S, median_s=5.0 if number == 3 else 0.3, rng=rng)
    late = estimator.latency(9 * 6 * HOUR_S + 12 * HOUR_S)
    assert late is not None
    assert late.p50 < 0.45
    assert late.mean == pytest.approx(0.9 * 0.3 + 0.1 * 5.0, rel=0.2)


def test_waits_that_were_broken_off_weigh_in_the_mean() -> None:
    """One call in ten is given up after 6 s: hours later these weigh as the answers do."""
    estimator, rng = DurationEstimator(), random.Random(5)
    for number in range(8):
        for call in range(30):
            now_s = number * 6 * HOUR_S + call
            if call % 10 == 4:
                estimator.observe_at_least(6.0, now_s=now_s)
            else:
                estimator.observe(0.3 * math.exp(rng.gauss(0.0, 0.05)), now_s=now_s)
    late = estimator.latency(7 * 6 * HOUR_S + 30.0 + 12 * HOUR_S)
    assert late is not None
    assert late.mean == pytest.approx(0.9 * 0.3 + 0.1 * 6.0, rel=0.15)


def test_the_session_that_goes_on_moves_too() -> None:
    """A shift in the middle of a session leaves by how much its mean lies above its level."""
    plain, shifted = LevelFilter(), LevelFilter()
    for filtered, by in ((plain, 0.0), (shifted, 0.7)):
        for second, log_value in enumerate((-1.0, -1.1, 1.0, -0.9, -1.0)):
            filtered.observe(log_value, now_s=float(second))
        filtered.shift(by)
        filtered.observe(-1.0 + by, now_s=6 * HOUR_S)
    expected, level = plain.at(12 * HOUR_S), shifted.at(12 * HOUR_S)
    assert expected is not None
    assert level is not None
    assert expected.log_mean_ratio > 0.2
    assert level.log_mean_ratio == pytest.approx(expected.log_mean_ratio)


def test_the_mean_moves_with_what_levels_are_measured_against() -> None:
    """A shift by a logarithm moves the mean by its factor, and leaves its ratio to the level."""
    sessions = Sessions()
    for level, mean_s in ((0.0, 1.4), (0.2, 1.3)):
        sessions.end(level, mean_s)
    before = sessions.log_mean_ratio
    sessions.shift(0.7)
    assert sessions.log_mean_ratio == pytest.approx(before)
    assert sessions.returned(0.0, 1e9) == pytest.approx((0.1 + 0.7) * 2 / 3)


def test_a_level_that_was_seen_without_a_break_returns_nowhere() -> None:
    """Without a session that ended there is nothing usual, and the last level stands however old it is."""
    estimator, rng = DurationEstimator(), random.Random(2)
    for minute in range(120):
        session(estimator, at_s=60.0 * minute, median_s=0.4 if minute < 100 else 0.8, rng=rng)
    latency = estimator.latency(60.0 * 120 + 48 * HOUR_S)
    assert latency is not None
    assert latency.p50 == pytest.approx(0.8, rel=0.1)


@given(st.lists(st.floats(-3.0, 3.0), min_size=1, max_size=60), st.floats(-3.0, 3.0), st.floats(0.0, 1e7))
def test_a_level_returns_towards_the_mean_and_never_beyond(ended: list[float], level: float, silent_s: float) -> None:
    """The longer the silence the nearer, from where it is, to the mean of the sessions with its own among them."""
    sessions = Sessions()
    for one in ended:
        sessions.end(one, math.exp(one))
    moved = sessions.returned(level, silent_s)
    further = sessions.returned(level, silent_s + RETURN_S)
    whole = sessions.returned(level, 1e9)
    assert abs(moved) <= abs(further) <= abs(whole) + 1e-9
    assert moved * whole >= 0.0
    if len(ended) < MEMORY_COUNT:
        assert level + whole == pytest.approx(math.fsum((*ended, level)) / (len(ended) + 1), abs=1e-9)


@given(st.lists(st.floats(-3.0, 3.0), max_size=60))
def test_what_is_kept_is_what_was_known(ended: list[float]) -> None:
    """A summary that is restored answers as the original does."""
    sessions, restored = Sessions(), Sessions()
    for one in ended:
        sessions.end(one, math.exp(one))
    restored.restore(sessions.summary())
    assert restored.returned(0.5, 1e5) == sessions.returned(0.5, 1e5)
    assert restored.variance(1.0) == sessions.variance(1.0)
    assert restored.log_mean_ratio == sessions.log_mean_ratio


def test_the_variance_between_sessions_is_learned_once_there_are_three() -> None:
    """Until then it is as unknown as ever; then it is what they show, but never next to nothing."""
    sessions = Sessions()
    sessions.end(0.0, 1.0)
    sessions.end(0.4, 1.5)
    assert sessions.variance(1.0) == 1.0
    sessions.end(0.8, 2.2)
    assert sessions.variance(1.0) == pytest.approx(0.16)
    alike = Sessions()
    for _ in range(30):
        alike.end(0.1, 1.1)
    assert 0.0 < alike.variance(1.0) < 0.05
