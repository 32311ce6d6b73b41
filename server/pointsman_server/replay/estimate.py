"""What a router that never ran would have given, from the decisions of one that did. Pure arithmetic.

Of each decision the log has the endpoint that was chosen, the probability with which it was, and what came of it. Where
the other router would choose it with probability q and the one that ran did with p, the decision counts w = q / p times:

    inverse propensity    mean(w r)                                 unbiased, and wide where few decisions count for many
    self-normalised       sum(w r) / sum(w)                         hardly biased, and never outside of what was seen
    doubly robust         mean(direct + w (r - predicted))          the predictions of our own models, corrected by what
                                                                    they miss; right where either of the two is

(Horvitz and Thompson, 1952; Swaminathan and Joachims, "The Self-Normalized Estimator for Counterfactual Learning", 2015;
Dudik, Langford and Li, "Doubly Robust Policy Evaluation and Learning", 2011.) `direct` is what is predicted of the other
router's choice, `predicted` what is predicted of the endpoint that was chosen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

INTERVAL_LEVEL = 0.95
NORMAL_QUANTILE = 1.959963984540054
"""Standard normal quantile at 0.975: an interval of 95 % leaves as much on either side."""
FREEDOM_MIN = 2.0
"""Degrees of freedom below which the quantile of Student's distribution is no longer told apart."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval; an interval of infinite width where a single decision carries everything."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What decisions tell of one metric, one entry for each whose outcome is known. At least one."""

    weights: Doubles
    """q / p of what was chosen, from 0 up."""
    outcomes: Doubles
    direct: Doubles
    """Mean prediction of the other router's choice, weighed by its probabilities."""
    predicted: Doubles
    """Prediction of what was chosen."""

    def __post_init__(self) -> None:
        assert len(self.outcomes) > 0, "nothing can be estimated from nothing"
        assert len(self.weights) == len(self.outcomes) == len(self.direct) == len(self.predicted)
        assert np.isfinite(self.weights).all(), "the one that ran could choose what it chose"


@dataclass(frozen=True, slots=True)
class Estimates:
    """What the other router would have given, in three ways, beside what was seen."""

    decision_count: int
    effective_count: float
    """So many decisions of the other router itself would tell as much: Kish's effective sample size."""
    largest_share: float
    """Of all weight, what a single decision carries, 0..1."""
    rarer_count: int | None
    """Of outcomes that are 0 or 1 how many are the rarer one; None of others."""
    as_logged: Estimate
    """Of the router that ran: the mean of what was seen."""
    inverse_propensity: Estimate
    self_normalised: Estimate
    doubly_robust: Estimate
    difference: Estimate
    """Doubly robust, the other router less the one that ran, decision by decision."""


def estimates(evidence: Evidence) -> Estimates:
    """All that can be told of one metric."""
    weights, outcomes = evidence.weights, evidence.outcomes
    total = float(weights.sum())
    effective = total * total / float((weights * weights).sum()) if total > 0.0 else 0.0
    robust = evidence.direct + weights * (outcomes - evidence.predicted)
    return Estimates(
        decision_count=len(outcomes),
        effective_count=effective,
        largest_share=float(weights.max()) / total if total > 0.0 else 1.0,
        rarer_count=_rarer_count(outcomes),
        as_logged=mean_of(outcomes, effective_count=len(outcomes)),
        inverse_propensity=mean_of(weights * outcomes, effective_count=effective),
        self_normalised=_self_normalised(weights, outcomes, effective_count=effective),
        doubly_robust=mean_of(robust, effective_count=effective),
        difference=mean_of(robust - outcomes, effective_count=effective),
    )


def mean_of(values: Doubles, *, effective_count: float) -> Estimate:
    """The mean of independent values. Its interval is Student's, with the freedom of as many values as count: few heavy
    ones tell little of how far their mean may be off."""
    value = float(values.mean())
    if len(values) < 2:
        return Estimate(value, -math.inf, math.inf)
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return _around(value, error, effective_count)


def _rarer_count(outcomes: Doubles) -> int | None:
    ones = int((outcomes == 1.0).sum())
    zeros = int((outcomes == 0.0).sum())
    return min(ones, zeros) if ones + zeros == len(outcomes) else None


def _self_normalised(weights: Doubles, outcomes: Doubles, *, effective_count: float) -> Estimate:
    total = float(weights.sum())
    if total <= 0.0 or len(weights) < 2:
        return Estimate(math.nan, -math.inf, math.inf)
    value = float((weights * outcomes).sum()) / total
    # By the delta method: the ratio of two means moves like the mean of w (r - value), over the mean weight.
    error = float(np.sqrt((weights**2 * (outcomes - value) ** 2).sum())) / total
    return _around(value, error, effective_count)


def _around(value: float, error: float, effective_count: float) -> Estimate:
    half = student_quantile(effective_count - 1.0) * error if error > 0.0 else 0.0
    return Estimate(value, value - half, value + half)


def student_quantile(freedom: float) -> float:
    """The 0.975 quantile of Student's distribution, by Cornish's and Fisher's expansion; infinite below `FREEDOM_MIN`."""
    if freedom < FREEDOM_MIN:
        return math.inf
    z, v = NORMAL_QUANTILE, freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )
