"""Estimates are right on average, and their intervals hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pointsman_server.replay.estimate import (
    Doubles,
    Estimate,
    Evidence,
    estimates,
    mean_of,
    student_quantile,
)
from pointsman_server.replay.verdict import EFFECTIVE_COUNT_MIN

DRAW_COUNT = 200
DECISION_COUNT = 250
CONTEXT_COUNT = 400
ENDPOINT_COUNT = 5


def test_student_quantiles_are_those_of_the_tables() -> None:
    """To two digits from five degrees of freedom on; with hardly any, nothing is known."""
    found = [round(student_quantile(freedom), 2) for freedom in (5, 10, 30, 1e9)]
    assert found == [2.57, 2.23, 2.04, 1.96]
    assert student_quantile(1.0) == math.inf


def test_the_router_that_ran_is_estimated_by_what_was_seen() -> None:
    """With every weight 1 all estimates are the mean of the outcomes, and nothing differs from it."""
    outcomes = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    ones, guess = np.ones(5), np.full(5, 0.3)
    found = estimates(Evidence(ones, outcomes, direct=guess, predicted=guess))
    for estimate in (found.as_logged, found.inverse_propensity, found.self_normalised, found.doubly_robust):
        assert estimate.value == pytest.approx(0.6)
    assert (found.effective_count, found.largest_share, found.rarer_count) == (5.0, 0.2, 2)
    assert found.difference == Estimate(0.0, 0.0, 0.0)


def test_weights_count_as_many_times() -> None:
    """A decision of weight 2 counts twice, one of weight 0 not at all; fewer decisions are left than there were."""
    weights, outcomes, nothing = np.array([2.0, 2.0, 0.0, 0.0]), np.array([3.0, 5.0, 100.0, 100.0]), np.zeros(4)
    found = estimates(Evidence(weights, outcomes, direct=nothing, predicted=nothing))
    assert found.inverse_propensity.value == found.self_normalised.value == found.doubly_robust.value == 4.0
    assert (found.effective_count, found.largest_share, found.rarer_count) == (2.0, 0.5, None)


def test_perfect_predictions_leave_no_doubt() -> None:
    """Where outcomes are as predicted, doubly robust is what is predicted of the other router's choices, whatever the
    weights."""
    weights, outcomes, direct = np.array([0.0, 3.0, 1.0]), np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.5, 3.0])
    found = estimates(Evidence(weights, outcomes, direct=direct, predicted=outcomes))
    assert found.doubly_robust.value == pytest.approx(2.5)


def test_one_decision_tells_no_interval() -> None:
    """It is as wide as can be."""
    one = np.ones(1)
    found = estimates(Evidence(one, one, direct=one, predicted=one))
    assert (found.doubly_robust.low, found.doubly_robust.high) == (-math.inf, math.inf)
    assert (found.self_normalised.low, found.self_normalised.high) == (-math.inf, math.inf)
    assert mean_of(np.array([1.0, 2.0]), effective_count=1.5).high == math.inf


def test_where_the_other_router_chooses_nobody_who_was_chosen_nothing_is_normalised() -> None:
    """Without any weight a normalised mean is not defined."""
    two, nothing = np.array([1.0, 2.0]), np.zeros(2)
    found = estimates(Evidence(nothing, two, direct=nothing, predicted=nothing))
    assert math.isnan(found.self_normalised.value)
    assert (found.effective_count, found.largest_share) == (0.0, 1.0)


@pytest.mark.parametrize("skew", [0.3, 0.6, 0.8])
def test_intervals_hold_the_truth_in_nine_of_ten_logs(skew: float) -> None:
    """Over 200 logs of a router whose truth is known, each of the three 95 % intervals holds what another router would
    have given in at least 90 %, and none is off on average, though the predictions are wrong. The three logs are worth
    220, 150 and 105 decisions of the other router: of fewer than 100 a replay warns."""
    rng = np.random.default_rng(20261126)
    shape = (CONTEXT_COUNT, ENDPOINT_COUNT)
    logging, other = (_probabilities(rng.normal(scale=skew, size=shape)) for _ in range(2))
    truth = 1.0 / (1.0 + np.exp(-rng.normal(scale=1.5, size=shape)))
    predicted = np.clip(truth + 0.15 + rng.normal(scale=0.2, size=shape), 0.0, 1.0)
    value = float((other * truth).sum(axis=1).mean())
    direct = (other * predicted).sum(axis=1)
    held = {"inverse_propensity": 0, "self_normalised": 0, "doubly_robust": 0}
    means = dict.fromkeys(held, 0.0)
    effective_counts = []
    for _ in range(DRAW_COUNT):
        row = rng.integers(CONTEXT_COUNT, size=DECISION_COUNT)
        drawn = rng.random(DECISION_COUNT)[:, np.newaxis]
        column = (drawn > logging[row].cumsum(axis=1)).sum(axis=1).clip(max=ENDPOINT_COUNT - 1)
        found = estimates(
            Evidence(
                weights=other[row, column] / logging[row, column],
                outcomes=(rng.random(DECISION_COUNT) < truth[row, column]).astype(np.float64),
                direct=direct[row],
                predicted=predicted[row, column],
            )
        )
        effective_counts.append(found.effective_count)
        for name in held:
            estimate: Estimate = getattr(found, name)
            held[name] += estimate.low <= value <= estimate.high
            means[name] += estimate.value / DRAW_COUNT
    assert float(np.mean(effective_counts)) > EFFECTIVE_COUNT_MIN
    assert {name for name, count in held.items() if count < 0.9 * DRAW_COUNT} == set(), held
    assert all(mean == pytest.approx(value, abs=0.02) for mean in means.values()), means


def _probabilities(odds: Doubles) -> Doubles:
    weights = np.exp(odds)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
