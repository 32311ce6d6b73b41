"""Who is picked of the ranked candidates, and with what probability.

Mostly the best. Two bounded departures: near-ties of the best share the traffic by a soft minimum, because replicas
that see the same snapshot would otherwise all rush to one endpoint; and a small share of decisions refreshes what is
known of an endpoint that could be the best, if only its latency were known. Chance comes from the seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pointsman_server.decision.metrics import METRIC_SPECS, Metric
from pointsman_server.decision.types import DecisionReason, Exploration
from pointsman_server.decision.utility import Ranking, Terms

LIVE_METRICS = frozenset({Metric.TTFT, Metric.INTER_TOKEN_LATENCY, Metric.END_TO_END_LATENCY, Metric.ERROR_RATE})
"""Metrics that are measured and move by the minute; prices and predictions don't."""
LIVE_TOLERANCE = 0.05
"""Live values that differ by less than this share are the same: real runs spread by 5 to 25 % within minutes."""
OPTIMISM = 0.6
"""Of the best live value that anyone shows: a newcomer may be so good. Providers of one model differ by twice as much."""
LOSS_SHARE_MAX = 0.5
"""Of the utility scale: what is expected to lose more than this is explored more seldom, in proportion."""


class Choice(NamedTuple):
    """The pick."""

    place: int
    """In the ranking, from 0."""
    reason: DecisionReason
    probabilities: list[float]
    """With which each of the ranking is picked, given everything but the seed."""


def choose(ranking: Ranking, exploration: Exploration, seed: int) -> Choice:
    """Picks one of a ranking that is not empty."""
    utilities = ranking.utilities
    scale = _utility_scale(ranking)
    width = exploration.near_tie_width * scale
    tied = _near_ties(ranking, threshold=utilities[0] - width)
    explored = _explored(ranking, tied, exploration, scale=scale) if exploration.rate > 0.0 else {}
    explore_share = math.fsum(explored.values())
    softness = [math.exp((utilities[index] - utilities[0]) / width) if width > 0.0 else 1.0 for index in tied]
    total = math.fsum(softness)
    probabilities = [0.0] * len(utilities)
    for index, weight in zip(tied, softness, strict=True):
        probabilities[index] = (1.0 - explore_share) * weight / total
    for index, share in explored.items():
        probabilities[index] += share
    drawn = uniform(seed)
    if drawn < explore_share:
        place = _draw(list(explored), list(explored.values()), drawn / explore_share)
        return Choice(place, DecisionReason.EXPLORATION, probabilities)
    place = _draw(tied, softness, (drawn - explore_share) / (1.0 - explore_share))
    reason = DecisionReason.BEST_UTILITY if place == 0 else DecisionReason.NEAR_TIE
    return Choice(place, DecisionReason.ONLY_CANDIDATE if len(utilities) == 1 else reason, probabilities)


def _utility_scale(ranking: Ranking) -> float:
    """What a utility is measured against: the best candidate's gains and losses together."""
    best = ranking.rows[0]
    return math.fsum([abs(column.contributions[best]) for column in ranking.columns])


def _near_ties(ranking: Ranking, *, threshold: float) -> list[int]:
    """Indices of the best and of every candidate above the threshold that no other such one dominates.

    Where the best has read the conversation before, only others that have are near it: its conversations are spread
    already, and to draw lots at each of their turns would read them anew, everywhere.
    """
    close = [place for place, utility in enumerate(ranking.utilities) if place == 0 or utility > threshold]
    if ranking.drafts[0].cached_input_token_count:
        close = [place for place in close if ranking.drafts[place].cached_input_token_count]
    if len(close) == 1:
        return close
    terms = {place: ranking.terms_at(place) for place in close}
    return [place for place in close if place == 0 or not any(dominates(terms[other], terms[place]) for other in close)]


def dominates(better: Terms, worse: Terms) -> bool:
    """Whether a candidate with the terms `better` is no worse in anything that is weighed, and truly better in something.

    Live values within their tolerance count as equal; an assumed value neither dominates nor is dominated.
    """
    strictly = False
    for one, other in zip(better, worse, strict=True):
        if one.assumed or other.assumed:
            return False
        higher_is_better = METRIC_SPECS[one.metric].higher_is_better
        gain = one.value - other.value if higher_is_better else other.value - one.value
        tolerance = LIVE_TOLERANCE * max(one.value, other.value) if one.metric in LIVE_METRICS else 0.0
        if gain < -tolerance:
            return False
        strictly = strictly or gain > tolerance
    return strictly


def _explored(ranking: Ranking, tied: Sequence[int], exploration: Exploration, *, scale: float) -> dict[int, float]:
    """The candidates without fresh data that are tried, each with its share of the decisions.

    These are the ones that would win if they were faster than the fastest by as much as providers differ. Who was never
    called is tried at the full rate; of whom it is known that he was slow, only as often as the loss that this
    is expected to bring allows: what he shows is worth as much, and costs more.
    """
    ages_s = [draft.runtime.age_s for draft in ranking.drafts]
    stale = [
        index
        for index, age_s in enumerate(ages_s)
        if (age_s is None or age_s > exploration.stale_after_s) and index not in tied
    ]
    if not stale:
        return {}
    best_live: dict[Metric, float] = {}
    for column in ranking.columns:
        known = [value for value, assumed in zip(column.values, column.assumed, strict=True) if not assumed]
        if column.metric in LIVE_METRICS and known:
            best_live[column.metric] = min(known)
    losses = [max(0.0, ranking.utilities[0] - utility) for utility in ranking.utilities]
    worth = [index for index in stale if _gain_if_fast(ranking.terms_at(index), best_live) > losses[index]]
    share = exploration.rate / max(1, len(worth))
    return {
        index: share
        if ages_s[index] is None
        else min(share, share * LOSS_SHARE_MAX * scale / max(losses[index], 1e-12))
        for index in worth
    }


def _gain_if_fast(terms: Terms, best_live: Mapping[Metric, float]) -> float:
    """What a utility would gain by live values that are somewhat better than the best. Without a weight on anything live
    there is nothing to learn that could change the ranking, and the gain is 0."""
    return math.fsum(
        term.weight * max(0.0, term.value - OPTIMISM * best_live.get(term.metric, term.value))
        for term in terms
        if term.metric in LIVE_METRICS
    )


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
