"""How a new LLM joins without retraining: what an artifact keeps for it, and its profile from published scores.

    weights of a model = mean + factor u,      u ~ Normal(0, 1)                    the prior: what models have in common
    log-odds of a score on a benchmark = log-odds of mean over its anchors of sigmoid(anchor . weights + offset) + error

The anchors of a benchmark are a sample of its prompts, as the booster sees them, each with its known ease as `offset`:
a score is compared with what the trained models made of the same prompts. So a score says how able the model is there,
not that each prompt is answered well at that rate: a likelihood of the mean leaves the differences among prompts to the
prior, where equally many pseudo-labels would flatten them. The error is between two measurements of one model by
different prompts, samples and parsers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

ANCHOR_COUNT = 64
"""Prompts that stand for a benchmark: their mean difficulty is within 0.15 of log-odds of the whole benchmark's, half of
`SCORE_ERROR`. Memory: 4 kB a benchmark at 12 latents."""
BENCHMARK_COUNT_MAX = 256
"""Benchmarks and categories that an artifact keeps anchors of: 1 MB."""
BENCHMARK_PROMPTS_MIN = 30
"""A kind of prompt with fewer says too little of what its score means."""
SCORE_ERROR = 0.3
"""Standard deviation of a published score around ours, log-odds: the makers' scores of three models on MMLU-Pro (48.3,
66.4, 75.8 %) are 0.16 to 0.28 above those of the leaderboard that the shipped artifact learned from."""
SCORE_MARGIN = 0.005
"""A score counts as at least so far from 0 and 1: beyond, log-odds say more about the errors in a benchmark's own answers
than about a model."""
STEPS_MAX = 50
STEP_MAX = 1.0
"""Standard deviations of the prior; keeps Newton's method from leaping where a benchmark is saturated."""
STEP_SHRINKAGE = 0.3
"""Of a step that fits worse than where it came from: a wide prior would have it leap to and fro for ever."""
STEP_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known of a model before its own evidence: Normal(mean, factor factor^T) over its weights on [1, z]."""

    mean: Doubles
    """(1 + latents,), log-odds."""
    factor: Doubles
    """(1 + latents, directions)."""


@dataclass(frozen=True, slots=True)
class Posterior:
    """A profile that evidence has shaped."""

    weights: Floats
    """(1 + latents,)."""
    covariance: Floats
    """(1 + latents, 1 + latents)."""


@dataclass(frozen=True, slots=True)
class Joining:
    """What an artifact keeps for models that join: the prior and the anchors. Memory: 4 kB per benchmark."""

    prior_mean: Floats
    """(1 + latents,)."""
    prior_factor: Floats
    """(1 + latents, directions)."""
    benchmarks: tuple[str, ...]
    """Names of benchmarks, such as `mmlu_pro`, and of their categories, such as `mmlu_pro/law`; sorted."""
    anchors: Floats
    """(benchmarks, ANCHOR_COUNT, 1 + latents)."""
    offsets: Floats
    """(benchmarks, ANCHOR_COUNT): `anchor @ weights + offset` is the log-odds of a good answer at the prompt."""

    def __post_init__(self) -> None:
        columns = len(self.prior_mean)
        assert self.prior_factor.shape[0] == columns, "a row of the factor per weight"
        assert self.anchors.shape == (len(self.benchmarks), ANCHOR_COUNT, columns), "anchors of every benchmark"
        assert self.offsets.shape == self.anchors.shape[:2], "an offset per anchor"
        assert len(self.benchmarks) <= BENCHMARK_COUNT_MAX, "a bounded number of benchmarks"
        assert tuple(sorted(set(self.benchmarks))) == self.benchmarks, "benchmarks are sorted and distinct"
        assert all(np.isfinite(tensor).all() for tensor in (self.prior_mean, self.prior_factor, self.anchors)), "finite"
        assert np.isfinite(self.offsets).all(), "finite"

    @property
    def prior(self) -> Prior:
        """Of a model of which nothing is known."""
        return Prior(self.prior_mean.astype(np.float64), self.prior_factor.astype(np.float64))


def relative_prior(joining: Joining, weights: Floats, covariance: Floats, *, ability_variance: float) -> Prior:
    """Of a newer relative of a trained model: around that model's profile, as models differ, but only so far that the
    variance of its ability is `ability_variance`, log-odds squared."""
    spread = joining.prior.factor @ joining.prior.factor.T
    apart = covariance + ability_variance / spread[0, 0] * spread
    values, axes = np.linalg.eigh(apart)
    return Prior(weights.astype(np.float64), axes * np.sqrt(np.maximum(values, 0.0)))


def posterior_of_scores(joining: Joining, prior: Prior, scores: Mapping[str, float]) -> Posterior:
    """The profile of a model of which these scores (0..1, by benchmark) are published.

    Names that `joining` does not know say nothing. Mode and curvature (Laplace), by Gauss-Newton steps from the prior's
    mean, each shortened until it fits better.
    """
    known = [(joining.benchmarks.index(name), score) for name, score in scores.items() if name in joining.benchmarks]
    rows = joining.anchors[[row for row, _ in known]].astype(np.float64)
    offsets = joining.offsets[[row for row, _ in known]].astype(np.float64)
    observed = log_odds(np.clip([score for _, score in known], SCORE_MARGIN, 1.0 - SCORE_MARGIN))
    size = prior.factor.shape[1]
    u: Doubles = np.zeros(size)
    step: Doubles = np.zeros(size)
    misfit = math.inf
    precision = np.eye(size)
    for _ in range(STEPS_MAX):
        tried = np.add(u, step)
        expected, slopes = _expected_scores(rows, offsets, prior.mean + prior.factor @ tried)
        error = (observed - expected) / SCORE_ERROR
        if (found := float(error @ error + tried @ tried)) > misfit:
            step *= STEP_SHRINKAGE
            continue
        u, misfit = tried, found
        slopes = slopes @ prior.factor / SCORE_ERROR
        precision = slopes.T @ slopes + np.eye(size)
        step = np.asarray(np.linalg.solve(precision, slopes.T @ error - u), dtype=np.float64)
        step *= min(1.0, STEP_MAX / max(float(np.abs(step).max()), STEP_TOLERANCE))
        if np.abs(step).max() < STEP_TOLERANCE:
            break
    return Posterior(
        weights=(prior.mean + prior.factor @ u).astype(np.float32),
        covariance=(prior.factor @ np.linalg.inv(precision) @ prior.factor.T).astype(np.float32),
    )


def log_odds(share: Doubles) -> Doubles:
    """Of shares strictly between 0 and 1."""
    return np.asarray(np.log(share) - np.log1p(-share), dtype=np.float64)


def _expected_scores(rows: Doubles, offsets: Doubles, weights: Doubles) -> tuple[Doubles, Doubles]:
    """Of each benchmark the log-odds of the expected score, and their slopes in the weights."""
    quality = 1.0 / (1.0 + np.exp(-(rows @ weights + offsets)))
    mean = np.clip(quality.mean(axis=1), SCORE_MARGIN / 10.0, 1.0 - SCORE_MARGIN / 10.0)
    slope = np.einsum("ba,bak->bk", quality * (1.0 - quality), rows) / rows.shape[1]
    return log_odds(mean), slope / (mean * (1.0 - mean))[:, np.newaxis]
