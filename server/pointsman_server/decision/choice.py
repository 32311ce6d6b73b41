"""Who is picked of the ranked candidates, and with what probability.

Mostly the best. Two bounded departures: near-ties of the best share the traffic by a soft minimum, because replicas
that see the same snapshot would otherwise all rush to one endpoint; and a small share of decisions refreshes what is
known of an endpoint that could be the best, if only its latency were known. Chance comes from the seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pointsman_server.decision.estimate import Draft
from pointsman_server.decision.metrics import METRIC_SPECS, Metric
from pointsman_server.decision.types import DecisionReason, Exploration
from pointsman_server.decision.utility import utility_of

LIVE_METRICS = frozenset({Metric.TTFT, Metric.INTER_TOKEN_LATENCY, Metric.END_TO_END_LATENCY, Metric.ERROR_RATE})
"""Metrics that are measured and move by the minute; prices and predictions don't."""
LIVE_TOLERANCE = 0.05
"""Live values that differ by less than this share are the same: real runs spread by 5 to 25 % within minutes."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The pick: an index into the ranked drafts, and why."""

    index: int
    reason: DecisionReason


def choose(ranked: Sequence[Draft], exploration: Exploration, seed: int) -> Choice:
    """Picks one of `ranked` (best first, not empty) and writes every draft's probability."""
    tied = near_ties(ranked, exploration.near_tie_width)
    explored = _worth_exploring(ranked, tied, exploration) if exploration.rate > 0.0 else []
    explore_share = exploration.rate if explored else 0.0
    scale = _utility_scale(ranked) * exploration.near_tie_width
    best = utility_of(ranked[0])
    softness = [math.exp((utility_of(ranked[index]) - best) / scale) if scale > 0.0 else 1.0 for index in tied]
    total = math.fsum(softness)
    for index, weight in zip(tied, softness, strict=True):
        ranked[index].probability = (1.0 - explore_share) * weight / total
    for index in explored:
        ranked[index].probability += explore_share / len(explored)
    drawn = uniform(seed)
    if drawn < explore_share:
        return Choice(explored[int(drawn / explore_share * len(explored))], DecisionReason.EXPLORATION)
    index = _draw(tied, softness, (drawn - explore_share) / (1.0 - explore_share))
    if len(ranked) == 1:
        return Choice(index, DecisionReason.ONLY_CANDIDATE)
    return Choice(index, DecisionReason.BEST_UTILITY if index == 0 else DecisionReason.NEAR_TIE)


def near_ties(ranked: Sequence[Draft], width: float) -> list[int]:
    """Indices of the best and of every candidate close to it that no other one dominates."""
    threshold = utility_of(ranked[0]) - width * _utility_scale(ranked)
    close = [index for index, draft in enumerate(ranked) if index == 0 or utility_of(draft) > threshold]
    return [
        index for index in close if index == 0 or not any(dominates(ranked[other], ranked[index]) for other in close)
    ]


def dominates(better: Draft, worse: Draft) -> bool:
    """Whether `better` is no worse in anything that is weighed, and truly better in something.

    Live values within their tolerance count as equal; an assumed value neither dominates nor is dominated.
    """
    strictly = False
    for one, other in zip(better.terms, worse.terms, strict=True):
        if one.assumed or other.assumed:
            return False
        higher_is_better = METRIC_SPECS[one.metric].higher_is_better
        gain = one.value - other.value if higher_is_better else other.value - one.value
        tolerance = LIVE_TOLERANCE * max(one.value, other.value) if one.metric in LIVE_METRICS else 0.0
        if gain < -tolerance:
            return False
        strictly = strictly or gain > tolerance
    return strictly


def _worth_exploring(ranked: Sequence[Draft], tied: Sequence[int], exploration: Exploration) -> list[int]:
    """Indices of candidates without fresh data that would win if their live values were the best that anyone shows."""
    stale = [
        index
        for index, draft in enumerate(ranked)
        if (draft.runtime.age_s is None or draft.runtime.age_s > exploration.stale_after_s) and index not in tied
    ]
    if not stale:
        return []
    best_live: dict[Metric, float] = {}
    for draft in ranked:
        for term in draft.terms:
            if term.metric in LIVE_METRICS and not term.assumed:
                known = best_live.get(term.metric)
                best_live[term.metric] = term.value if known is None else min(known, term.value)
    best = utility_of(ranked[0])
    return [
        index for index in stale if _gain_if_fast(ranked[index], best_live) > max(0.0, best - utility_of(ranked[index]))
    ]


def _gain_if_fast(draft: Draft, best_live: Mapping[Metric, float]) -> float:
    """What the draft's utility would gain by live values as good as the best. Without a weight on anything live there is
    nothing to learn that could change the ranking, and the gain is 0."""
    return math.fsum(
        term.weight * (term.value - best_live.get(term.metric, term.value))
        for term in draft.terms
        if term.metric in LIVE_METRICS
    )


def _utility_scale(ranked: Sequence[Draft]) -> float:
    """What a utility is measured against: the best candidate's gains and losses together."""
    return math.fsum(abs(term.contribution) for term in ranked[0].terms)


def _draw(indices: Sequence[int], weights: Sequence[float], drawn: float) -> int:
    """The index at `drawn` (0 up to 1) of the cumulative weights."""
    remaining = drawn * math.fsum(weights)
    for index, weight in zip(indices, weights, strict=True):
        remaining -= weight
        if remaining < 0.0:
            return index
    return indices[-1]


def uniform(seed: int) -> float:
    """A number in [0, 1) that depends on the seed alone: one step of SplitMix64 (Steele, Lea, Flood, 2014)."""
    mask = (1 << 64) - 1
    mixed = (seed + 0x9E3779B97F4A7C15) & mask
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
    return ((mixed ^ (mixed >> 31)) >> 11) / (1 << 53)
