"""Measures of a router and of its predictions: arrays in, numbers out, no model and no file.

    pair of models     strong_weak_curve, apgr, cpt                  (RouteLLM)
    cost and quality   envelope, aiq, zero_router, share_of_cost_at  (RouterBench), arena_score (RouterArena)
    predictions        brier, ece, auc

Qualities are 0..1, costs USD. Every measure takes a `weight`: how often each prompt counts, whole numbers, by default
once each. `resampling` turns that into bootstrap intervals; `baselines` makes the choices that are measured. NaN is the
answer where a measure is not defined.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite, log2, nan

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

EDGE_COUNT = 11
"""Thresholds of the curve between two models: the edges of the deciles of the win probability."""
GAP_MIN = 1e-9
"""A smaller difference between two models' qualities is none, and nothing can be a share of it."""
ECE_BIN_COUNT = 15
"""Bins of equal size for the expected calibration error."""
GOOD_QUALITY_MIN = 0.5
"""From here on an answer counts as good, where good and bad are told apart."""

ARENA_USD_PER_1000_MAX = 200.0
ARENA_USD_PER_1000_MIN = 0.0044
"""Costs per thousand prompts that RouterArena maps to 0 and 1; beyond them a cost counts as the nearer one."""
ARENA_QUALITY_WEIGHT = 0.1
"""RouterArena's beta: the share of the cost term against the quality term."""


@dataclass(frozen=True, slots=True)
class StrongWeakCurve:
    """What a router between two models gains with the share of its calls to the strong one."""

    strong_share: Doubles
    """Ascending from 0 to 1."""
    quality: Doubles
    """Mean quality at that share."""
    strong_quality: float
    weak_quality: float

    @property
    def apgr(self) -> float:
        """Average performance gap recovered: 0 is the weak model's quality, 1 the strong one's; random gives 0.5."""
        gap = self.strong_quality - self.weak_quality
        if abs(gap) < GAP_MIN:
            return nan
        area = np.sum(np.diff(self.strong_share) * (self.quality[1:] + self.quality[:-1]) / 2.0)
        return float((area - self.weak_quality) / gap)

    def cpt(self, gap_share: float) -> float:
        """Call-performance threshold: the share of strong calls at which this share of the gap is first recovered,
        interpolated between the points of the curve."""
        gap = self.strong_quality - self.weak_quality
        if gap < GAP_MIN:
            return nan
        recovered = (self.quality - self.weak_quality) / gap
        after = int(np.argmax(recovered >= gap_share))
        if recovered[after] < gap_share:  # a rounding error short of 1, at the very end
            return 1.0
        if after == 0:
            return 0.0
        before = after - 1
        part = (gap_share - recovered[before]) / (recovered[after] - recovered[before])
        return float(self.strong_share[before] + part * (self.strong_share[after] - self.strong_share[before]))


def strong_weak_curve(
    win: Doubles, strong_quality: Doubles, weak_quality: Doubles, *, weight: Doubles | None = None
) -> StrongWeakCurve:
    """The curve of a router that sends a prompt to the strong model where `win` reaches a threshold (RouteLLM,
    https://arxiv.org/abs/2406.18665).

    Args:
        win: of each prompt, the higher the more the strong model should be called; only its order counts.
        strong_quality: of the strong model, per prompt.
        weak_quality: of the weak model, per prompt.
        weight: how often each prompt counts.
    """
    order = np.argsort(win, kind="stable")
    ranked, strong, weak = win[order], strong_quality[order], weak_quality[order]
    counts = np.ones(len(win)) if weight is None else weight[order]
    total = counts.sum()
    assert total > 0, "a curve needs a prompt"
    edges = _deciles(ranked, counts)
    first = np.searchsorted(ranked, edges, side="left")
    first[-1] = np.searchsorted(ranked, edges[-1], side="right")
    before_count, before_weak, before_strong = (
        np.concatenate(([0.0], np.cumsum(values))) for values in (counts, counts * weak, counts * strong)
    )
    share = 1.0 - before_count[first] / total
    quality = (before_weak[first] + before_strong[-1] - before_strong[first]) / total
    return StrongWeakCurve(
        strong_share=share[::-1],
        quality=quality[::-1],
        strong_quality=float(before_strong[-1] / total),
        weak_quality=float(before_weak[-1] / total),
    )


def apgr(win: Doubles, strong_quality: Doubles, weak_quality: Doubles, *, weight: Doubles | None = None) -> float:
    """Average performance gap recovered, see `StrongWeakCurve.apgr`."""
    return strong_weak_curve(win, strong_quality, weak_quality, weight=weight).apgr


def cpt(
    win: Doubles,
    strong_quality: Doubles,
    weak_quality: Doubles,
    *,
    gap_share: float,
    weight: Doubles | None = None,
) -> float:
    """Call-performance threshold, see `StrongWeakCurve.cpt`; `gap_share` 0.5 gives CPT(50 %)."""
    return strong_weak_curve(win, strong_quality, weak_quality, weight=weight).cpt(gap_share)


def _deciles(ranked: Doubles, counts: Doubles) -> Doubles:
    """The `EDGE_COUNT` quantiles of ascending values that count so often, interpolated linearly as NumPy does; in whole
    numbers, so that an edge which is one of the values is that value exactly."""
    cumulative = np.cumsum(counts).astype(np.int64)
    last = int(cumulative[-1]) - 1
    parts = EDGE_COUNT - 1
    below, rest = np.divmod(last * np.arange(EDGE_COUNT), parts)
    lower = ranked[np.searchsorted(cumulative, below, side="right")]
    upper = ranked[np.searchsorted(cumulative, np.minimum(below + 1, last), side="right")]
    return np.asarray(lower + (upper - lower) * (rest / parts))


@dataclass(frozen=True, slots=True)
class Envelope:
    """The best mean quality for a mean cost, by mixing configurations: non-decreasing and concave.

    Below its first cost it is not defined; above its last it stays at its height, since nobody has to spend more.
    """

    cost_usd: Doubles
    """Of its corners, ascending."""
    quality: Doubles

    def height(self, cost_usd: float) -> float:
        """Quality at a cost, NaN below the cheapest configuration."""
        if cost_usd < self.cost_usd[0]:
            return nan
        return float(np.interp(cost_usd, self.cost_usd, self.quality))

    def cost_of(self, quality: float) -> float:
        """The lowest cost at which this quality is reached, NaN where it never is."""
        if quality > self.quality[-1]:
            return nan
        return float(np.interp(quality, self.quality, self.cost_usd))

    def mean_height(self, cost_min_usd: float, cost_max_usd: float) -> float:
        """The mean quality over a range of costs; NaN where it starts below the cheapest configuration."""
        assert cost_min_usd <= cost_max_usd, "a range ascends"
        if cost_min_usd < self.cost_usd[0]:
            return nan
        if cost_min_usd == cost_max_usd:
            return self.height(cost_min_usd)
        inside = self.cost_usd[(self.cost_usd > cost_min_usd) & (self.cost_usd < cost_max_usd)]
        corners = np.concatenate(([cost_min_usd], inside, [cost_max_usd]))
        heights = np.interp(corners, self.cost_usd, self.quality)
        area = np.sum(np.diff(corners) * (heights[1:] + heights[:-1]) / 2.0)
        return float(area / (cost_max_usd - cost_min_usd))


def envelope(cost_usd: Doubles, quality: Doubles) -> Envelope:
    """The envelope of configurations with these mean costs and qualities."""
    assert len(cost_usd) > 0, "an envelope needs a configuration"
    costs: list[float] = []
    heights: list[float] = []
    # Cheapest first, of equally cheap ones the best.
    for index in np.lexsort((-quality, cost_usd)):
        cost, height = float(cost_usd[index]), float(quality[index])
        if heights and height <= heights[-1]:
            continue
        while len(costs) > 1 and (heights[-1] - heights[-2]) * (cost - costs[-1]) <= (height - heights[-1]) * (
            costs[-1] - costs[-2]
        ):
            costs.pop()
            heights.pop()
        costs.append(cost)
        heights.append(height)
    return Envelope(np.array(costs), np.array(heights))


def shared_cost_range(routers: Iterable[Envelope], *, dearest_usd: float) -> tuple[float, float]:
    """The costs at which all of these routers are defined, up to that of the dearest single model."""
    lowest = max(float(router.cost_usd[0]) for router in routers)
    return lowest, max(lowest, dearest_usd)


def aiq(cost_usd: Doubles, quality: Doubles, *, cost_min_usd: float, cost_max_usd: float) -> float:
    """Average improvement in quality (RouterBench, https://arxiv.org/abs/2403.12031): the mean height of the envelope of
    a router's configurations over a range of costs, which is the same for all that are compared."""
    return envelope(cost_usd, quality).mean_height(cost_min_usd, cost_max_usd)


def zero_router(model_cost_usd: Doubles, model_quality: Doubles) -> Envelope:
    """RouterBench's Zero router: mixing single models by chance, without a look at the prompt.

    Args:
        model_cost_usd: the mean cost of each model.
        model_quality: the mean quality of each model.
    """
    return envelope(model_cost_usd, model_quality)


def share_of_cost_at(
    cost_usd: Doubles, quality: Doubles, *, reference_cost_usd: float, reference_quality: float, quality_share: float
) -> float:
    """The share of a model's cost at which a router reaches a share of its quality, mixing its own configurations.

    Args:
        cost_usd: the mean cost of each configuration of the router.
        quality: its mean quality.
        reference_cost_usd: the model's mean cost, above 0.
        reference_quality: the model's mean quality.
        quality_share: 0.98 for 98 % of the model's quality.

    Returns:
        0.4 where two fifths of the cost are enough; NaN where that quality is never reached.
    """
    if not (isfinite(reference_cost_usd) and reference_cost_usd > 0.0):
        return nan
    return envelope(cost_usd, quality).cost_of(quality_share * reference_quality) / reference_cost_usd


def arena_score(quality: float, *, cost_usd: float) -> float:
    """RouterArena's score of a mean quality at a mean cost per prompt, 0..1 (https://arxiv.org/abs/2510.00202)."""
    if not (isfinite(quality) and isfinite(cost_usd)):
        return nan
    per_1000 = min(max(1000.0 * cost_usd, ARENA_USD_PER_1000_MIN), ARENA_USD_PER_1000_MAX)
    thrift = log2(ARENA_USD_PER_1000_MAX / per_1000) / log2(ARENA_USD_PER_1000_MAX / ARENA_USD_PER_1000_MIN)
    denominator = ARENA_QUALITY_WEIGHT * quality + thrift
    return (1.0 + ARENA_QUALITY_WEIGHT) * quality * thrift / denominator if denominator > 0.0 else 0.0


def brier(predicted: Doubles, observed: Doubles, *, weight: Doubles | None = None) -> float:
    """Mean squared distance of predicted and observed quality."""
    return weighted_mean((predicted - observed) ** 2, weight)


def ece(predicted: Doubles, observed: Doubles, *, weight: Doubles | None = None) -> float:
    """Expected calibration error: the mean distance of predicted and observed quality over bins of equal size."""
    if len(predicted) == 0:
        return nan
    bins = equal_bins(predicted)
    counts = np.ones(len(predicted)) if weight is None else weight
    errors = np.bincount(bins, weights=counts * (predicted - observed), minlength=ECE_BIN_COUNT)
    return float(np.abs(errors).sum() / counts.sum())


def equal_bins(predicted: Doubles) -> npt.NDArray[np.intp]:
    """Which of `ECE_BIN_COUNT` bins of equal size each prediction falls into; equal predictions by their order."""
    bins = np.empty(len(predicted), dtype=np.intp)
    order = np.argsort(predicted, kind="stable")
    for number, members in enumerate(np.array_split(order, ECE_BIN_COUNT)):
        bins[members] = number
    return bins


def auc(predicted: Doubles, observed: Doubles, *, weight: Doubles | None = None) -> float:
    """The probability that a good answer was predicted higher than a bad one, ties counting half; NaN if all are alike."""
    counts = np.ones((1, len(predicted))) if weight is None else weight[np.newaxis]
    return float(auc_of_resamples(predicted, observed, counts)[0])


def auc_of_resamples(predicted: Doubles, observed: Doubles, weights: Doubles) -> Doubles:
    """`auc` of each row of `weights`, (resamples, prompts)."""
    good = observed >= GOOD_QUALITY_MIN
    if len(predicted) == 0 or good.all() or not good.any():
        return np.full(len(weights), nan)
    order = np.argsort(predicted, kind="stable")
    ranked = predicted[order]
    starts = np.flatnonzero(np.concatenate(([True], ranked[1:] > ranked[:-1])))
    counts = weights[:, order]
    good_counts = np.add.reduceat(counts * good[order], starts, axis=1)
    bad_counts = np.add.reduceat(counts, starts, axis=1) - good_counts
    bad_below = np.cumsum(bad_counts, axis=1) - bad_counts
    ordered = (good_counts * (bad_below + bad_counts / 2.0)).sum(axis=1)
    pairs = good_counts.sum(axis=1) * bad_counts.sum(axis=1)
    return np.where(pairs > 0.0, ordered / np.maximum(pairs, 1.0), nan)


def weighted_mean(values: Doubles, weight: Doubles | None = None) -> float:
    """The mean of values that count so often; NaN of none."""
    if weight is None:
        return float(values.mean()) if len(values) else nan
    total = weight.sum()
    return float(values @ weight / total) if total > 0.0 else nan
