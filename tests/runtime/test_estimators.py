"""Estimators: they follow what is there, know what they don't know, and are never changed by being read."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.runtime.estimators import (
    DURATION_S_MAX,
    DURATION_S_MIN,
    OUTCOME_BUCKET_COUNT,
    OUTCOME_BUCKET_S,
    SHAPE_EPOCH_S,
    DurationEstimator,
    OutcomeCounts,
    ShapeWindow,
)
from pointsman_server.runtime.level import LevelFilter

durations = st.floats(0.0, 1e6)
gaps = st.floats(-1.0, 2000.0)
"""Between two observations; a little backwards too, since two tasks may read the clock in one order and report in the
other."""
SEEDS = range(5)


def fed(estimator: DurationEstimator, rng: random.Random, *, count: int, median_s: float, spread: float = 0.5) -> float:
    """Feed log-normal observations one second apart, from 0 s; the time of the last."""
    for second in range(count):
        estimator.observe(median_s * math.exp(rng.gauss(0.0, spread)), now_s=float(second))
    return float(count - 1)


@given(st.lists(st.tuples(durations, gaps, st.booleans()), min_size=1, max_size=60), st.floats(0.0, 1e7))
def test_whatever_is_observed_the_latency_is_finite_and_in_order(
    observations: list[tuple[float, float, bool]], later_s: float
) -> None:
    """No sequence of durations, waits and clock readings gives a quantile that is not finite, positive and in order."""
    estimator, now_s = DurationEstimator(), 1000.0
    for duration_s, gap_s, is_whole in observations:
        now_s += gap_s
        (estimator.observe if is_whole else estimator.observe_at_least)(duration_s, now_s=now_s)
    latency = estimator.latency(now_s + later_s)
    if latency is None:
        assert not any(is_whole for _, _, is_whole in observations)
        return
    quantiles = (latency.p50, latency.p90, latency.p95, latency.p99)
    assert all(DURATION_S_MIN <= value <= DURATION_S_MAX for value in (latency.mean, *quantiles))
    assert all(left <= right for left, right in pairwise(quantiles))


@given(
    st.lists(st.tuples(durations, st.floats(0.0, 400.0)), min_size=1, max_size=40),
    st.lists(st.floats(0.0, 1e5), max_size=5),
)
def test_reading_changes_nothing(observations: list[tuple[float, float]], reads: list[float]) -> None:
    """An estimator that is read at any times between its observations says the same as one that never was."""
    read, unread, now_s = DurationEstimator(), DurationEstimator(), 0.0
    for duration_s, gap_s in observations:
        for offset_s in reads:
            read.latency(now_s + offset_s)
        now_s += gap_s
        read.observe(duration_s, now_s=now_s)
        unread.observe(duration_s, now_s=now_s)
    assert [read.latency(now_s + offset_s) for offset_s in reads] == [
        unread.latency(now_s + offset_s) for offset_s in reversed(reads)
    ][::-1]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("spread", [0.3, 0.8])
def test_quantiles_and_mean_are_those_of_the_distribution(seed: int, spread: float) -> None:
    """After some hundred observations of a log-normal latency its quantiles and mean are known to half its spread."""
    estimator = DurationEstimator()
    now_s = fed(estimator, random.Random(seed), count=290, median_s=0.4, spread=spread)
    latency = estimator.latency(now_s)
    assert latency is not None
    for actual, normal_quantile in ((latency.p50, 0.0), (latency.p90, 1.2816), (latency.p95, 1.6449)):
        assert abs(math.log(actual / 0.4) - normal_quantile * spread) < 0.5 * spread, f"seed {seed}"
    assert abs(math.log(latency.mean / 0.4) - 0.5 * spread**2) < 0.5 * spread, f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("factor", "observation_count_max"), [(10.0, 12), (3.0, 20), (0.2, 15)])
def test_all_quantiles_follow_a_change_of_regime(seed: int, factor: float, observation_count_max: int) -> None:
    """When a latency changes by a factor, p50 and p95 have both made most of the way within a few observations."""
    rng, estimator = random.Random(seed), DurationEstimator()
    now_s = fed(estimator, rng, count=200, median_s=0.5, spread=0.4)
    before = estimator.latency(now_s)
    for _ in range(observation_count_max):
        now_s += 1.0
        estimator.observe(factor * 0.5 * math.exp(rng.gauss(0.0, 0.4)), now_s=now_s)
    after = estimator.latency(now_s)
    assert before is not None
    assert after is not None
    for old, new in ((before.p50, after.p50), (before.p95, after.p95)):
        assert abs(math.log(new / old / factor)) < 0.4 * abs(math.log(factor)), f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_straggler_moves_the_median_little(seed: int) -> None:
    """An answer that takes a hundred times as long moves the median by less than a fifth."""
    estimator = DurationEstimator()
    now_s = fed(estimator, random.Random(seed), count=100, median_s=0.5)
    before = estimator.level(now_s)
    estimator.observe(50.0, now_s=now_s)
    after = estimator.level(now_s)
    assert before is not None
    assert after is not None
    assert 0.0 < after.log_median - before.log_median < math.log(1.2), f"seed {seed}"


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6))
def test_doubt_grows_with_age_and_is_bounded(first_s: float, second_s: float) -> None:
    """The older the data, the larger the standard error and the further apart the quantiles, up to a bound."""
    estimator = DurationEstimator()
    now_s = fed(estimator, random.Random(1), count=50, median_s=0.5)
    sooner_s, later_s = sorted((now_s + first_s, now_s + second_s))
    sooner, later = estimator.level(sooner_s), estimator.level(later_s)
    assert sooner is not None
    assert later is not None
    assert sooner.log_standard_error <= later.log_standard_error <= 1.0
    assert sooner.log_median == later.log_median
    old = estimator.latency(now_s + 1e6)
    very_old = estimator.latency(now_s + 2e6)
    assert old == very_old, "the bound is reached"


def test_a_wait_is_evidence_only_where_it_is_long() -> None:
    """A wait that is broken off early changes nothing; one beyond the median raises it, the longer the more."""
    medians = []
    for wait_s in (0.001, 0.5, 0.6, 0.7):
        level_filter = LevelFilter()
        for second in range(20):
            level_filter.observe(math.log(0.5), now_s=float(second))
        level_filter.observe_at_least(math.log(wait_s), now_s=20.0)
        level = level_filter.at(20.0)
        assert level is not None
        medians.append(math.exp(level.log_median))
    assert medians[0] == pytest.approx(0.5, rel=1e-6)
    assert medians == sorted(set(medians))


def test_waits_alone_reveal_a_hang() -> None:
    """Where answers stop coming, the waits that are given up move the median to their length within a few calls."""
    estimator = DurationEstimator()
    now_s = fed(estimator, random.Random(2), count=100, median_s=0.5)
    for _ in range(6):
        now_s += 1.0
        estimator.observe_at_least(10.0, now_s=now_s)
    latency = estimator.latency(now_s)
    assert latency is not None
    assert latency.p50 >= 5.0


def test_what_gave_a_change_away_is_no_straggler_of_what_follows() -> None:
    """After a hang in which calls waited a hundred times as long, two answers as before bring the median back, and with
    it the mean and the 99th percentile."""
    estimator, rng = DurationEstimator(), random.Random(5)
    now_s = fed(estimator, rng, count=200, median_s=0.3, spread=0.2)
    before = estimator.latency(now_s)
    for step in range(20):
        estimator.observe_at_least(30.0, now_s=now_s + step)
    for second in (25.0, 26.0):
        estimator.observe(0.3, now_s=now_s + second)
    after = estimator.latency(now_s + 26.0)
    assert before is not None
    assert after is not None
    assert after.p50 == pytest.approx(0.3, rel=0.2)
    assert after.mean < 2.0 * before.mean
    assert after.p99 < 3.0 * before.p99


def test_waiting_before_any_answer_leaves_the_unknown_unknown() -> None:
    """As long as nothing was answered there is no latency: a wait alone does not invent one."""
    estimator = DurationEstimator()
    estimator.observe_at_least(5.0, now_s=0.0)
    assert estimator.latency(0.0) is None


def test_an_imprecise_observation_moves_the_level_less() -> None:
    """The speed of an answer of two tokens weighs less than that of an answer of a thousand."""
    medians = []
    for noise_variance in (1.0, 0.001):
        level_filter = LevelFilter()
        level_filter.observe(0.0, now_s=0.0)
        level_filter.observe(1.0, now_s=1.0, noise_variance=noise_variance)
        level = level_filter.at(1.0)
        assert level is not None
        medians.append(level.log_median)
    assert medians[0] < medians[1]


def test_the_window_forgets() -> None:
    """A ratio counts for at least one epoch and at most two, whether or not others come."""
    window = ShapeWindow()
    window.add(4.0, now_s=1.0)
    for now_s in (1.0, SHAPE_EPOCH_S - 0.1, SHAPE_EPOCH_S, 2 * SHAPE_EPOCH_S - 0.1):
        shape = window.at(now_s)
        assert shape is not None
        assert shape.count == 1
        assert shape.log_quantiles == pytest.approx([math.log(4.0)] * 4, abs=0.021)
    assert window.at(2 * SHAPE_EPOCH_S) is None
    window.add(2.0, now_s=SHAPE_EPOCH_S)
    both = window.at(SHAPE_EPOCH_S)
    one = window.at(2 * SHAPE_EPOCH_S)
    assert both is not None
    assert one is not None
    assert (both.count, one.count) == (2, 1)


def test_at_the_turn_of_an_epoch_the_shape_is_that_of_the_next_one() -> None:
    """Many ratios of two epochs ago say no more, however few have come since."""
    window = window_of([4.0] * 100)
    window.add(1.0, now_s=SHAPE_EPOCH_S)
    window.add(1.0, now_s=2.0 * SHAPE_EPOCH_S)
    shape = window.at(2.0 * SHAPE_EPOCH_S)
    assert shape is not None
    assert (shape.count, shape.mean) == (2, 1.0)


def window_of(ratios: Iterable[float]) -> ShapeWindow:
    """A window that has seen these, all at one time."""
    window = ShapeWindow()
    for ratio in ratios:
        window.add(ratio, now_s=1.0)
    return window


def test_a_shape_is_of_all_but_a_twentieth_of_the_window() -> None:
    """Few observations all count at once; of many the last few wait until they are a twentieth of them."""
    counts = [shape.count for number in range(1, 400) if (shape := window_of([1.0] * number).at(1.0)) is not None]
    assert counts[:20] == list(range(1, 21))
    assert all(0.95 * number <= count <= number for number, count in enumerate(counts, start=1))
    assert len(set(counts)) < 100


def test_the_shape_does_not_depend_on_when_it_is_asked_for() -> None:
    """Who reads after each observation sees at last what a first reader sees, through the turn of an epoch, too."""
    rng = random.Random(7)
    often, once = ShapeWindow(), ShapeWindow()
    for number in range(300):
        ratio, now_s = math.exp(rng.gauss(0.0, 0.5)), 1.1 * number
        for window in (often, once):
            window.add(ratio, now_s=now_s)
        often.at(now_s)
    assert often.at(330.0) == once.at(330.0)
    assert often.at(330.0 + SHAPE_EPOCH_S) == once.at(330.0 + SHAPE_EPOCH_S)


@given(st.lists(st.tuples(st.floats(0.0, 20.0), st.booleans()), max_size=80), st.floats(0.0, 100.0))
def test_outcomes_are_counted_exactly(calls: list[tuple[float, bool]], later_s: float) -> None:
    """The counts are those of a list of all calls, cut off where the bucket of a minute ago begins."""
    counts, log, now_s = OutcomeCounts(), [], 0.0
    for gap_s, is_success in calls:
        now_s += gap_s
        log.append((now_s, is_success))
        if is_success:
            counts.add_success(now_s=now_s)
        else:
            counts.add_failure(now_s=now_s)
    read_s = now_s + later_s
    oldest_s = (math.floor(read_s / OUTCOME_BUCKET_S) - OUTCOME_BUCKET_COUNT + 1) * OUTCOME_BUCKET_S
    recent = [is_success for at_s, is_success in log if at_s >= oldest_s]
    outcomes = counts.at(read_s)
    assert (outcomes.success_count, outcomes.failure_count) == (sum(recent), len(recent) - sum(recent))
    assert (outcomes.error_rate is None) == (not recent)


def test_the_error_rate_leans_on_its_prior_only_while_calls_are_few() -> None:
    """One failure in one call is no 100 %; fifty in a hundred are 50 % within a few points; none is None, not zero."""
    counts = OutcomeCounts()
    assert counts.at(0.0).error_rate is None
    counts.add_failure(now_s=0.0)
    few = counts.at(0.0).error_rate
    assert few is not None
    assert 0.02 < few < 0.5
    for number in range(99):
        if number % 2:
            counts.add_failure(now_s=0.0)
        else:
            counts.add_success(now_s=0.0)
    assert counts.at(0.0).error_rate == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_fast_answers_end_a_brown_out(seed: int) -> None:
    """An endpoint that was ten times slower and is left by nearly all is known to be fast again after two answers."""
    rng, estimator = random.Random(seed), DurationEstimator()
    now_s = fed(estimator, rng, count=100, median_s=0.4, spread=0.3)
    for _ in range(20):
        now_s += 1.0
        estimator.observe(4.0 * math.exp(rng.gauss(0.0, 0.3)), now_s=now_s)
    for _ in range(2):
        now_s += 20.0
        estimator.observe(0.4 * math.exp(rng.gauss(0.0, 0.3)), now_s=now_s)
    latency = estimator.latency(now_s)
    assert latency is not None
    assert latency.p50 < 0.8, f"seed {seed}"
