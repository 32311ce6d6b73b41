"""Who is picked of the ranked candidates, and with what probability.

Mostly the best. Two bounded departures: near-ties of the best share the traffic by a soft minimum, because replicas
that see the same snapshot would otherwise all rush to one endpoint; and a small share of decisions refreshes what is
known of an endpoint that could be the best, if only its latency were known. Chance comes from the seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from pointsman_server.decision.metrics import METRIC_SPECS, Metric
from pointsman_server.decision.types import DecisionReason, Exploration, UtilityColumn
from pointsman_server.decision.utility import Ranking

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

    row: int
    """In the ranking's columns."""
    reason: DecisionReason
    probabilities: list[float]
    """With which each draft of the ranking is picked, by row, given everything but the seed."""


def choose(ranking: Ranking, exploration: Exploration, seed: int) -> Choice:
    """Picks one of a ranking that is not empty."""
    utilities, best = ranking.utilities, ranking.rows[0]
    scale = _utility_scale(ranking)
    width = exploration.near_tie_width * scale
    tied = _near_ties(ranking, threshold=utilities[best] - width)
    explored = _explored(ranking, tied, exploration, scale=scale) if exploration.rate > 0.0 else {}
    probabilities = [0.0] * len(utilities)
    reason = DecisionReason.ONLY_CANDIDATE if len(utilities) == 1 else DecisionReason.BEST_UTILITY
    if len(tied) == 1 and not explored:
        # The usual case, which leaves nothing to chance.
        probabilities[best] = 1.0
        return Choice(best, reason, probabilities)
    explore_share = math.fsum(explored.values())
    softness = [math.exp((utilities[row] - utilities[best]) / width) if width > 0.0 else 1.0 for row in tied]
    total = math.fsum(softness)
    for row, weight in zip(tied, softness, strict=True):
        probabilities[row] = (1.0 - explore_share) * weight / total
    for row, share in explored.items():
        probabilities[row] += share
    drawn = uniform(seed)
    if drawn < explore_share:
        row = _draw(list(explored), list(explored.values()), drawn / explore_share)
        return Choice(row, DecisionReason.EXPLORATION, probabilities)
    row = _draw(tied, softness, (drawn - explore_share) / (1.0 - explore_share))
    return Choice(row, reason if row == best else DecisionReason.NEAR_TIE, probabilities)


def _utility_scale(ranking: Ranking) -> float:
    """What a utility is measured against: the best candidate's gains and losses together."""
    best = ranking.rows[0]
    return math.fsum([abs(column.contributions[best]) for column in ranking.columns])


def _near_ties(ranking: Ranking, *, threshold: float) -> list[int]:
    """The rows of the best and of every candidate above the threshold that no other such one dominates.

    Where the best has read the conversation before, only others that have are near it: its conversations are spread
    already, and to draw lots at each of their turns would read them anew, everywhere.
    """
    utilities, cached_counts = ranking.utilities, ranking.drafts.cached_input_token_counts
    best, *others = ranking.rows
    close = [best, *takewhile(lambda row: utilities[row] > threshold, others)]
    if cached_counts[best]:
        close = [row for row in close if cached_counts[row]]
    if len(close) == 1:
        return close
    columns = ranking.columns
    # Two hundred endpoints may be alike. Whom not even the strongest in something surpasses in it, nobody dominates.
    assumed = [any(flags) for flags in zip(*[column.assumed for column in columns], strict=True)]
    comparable = [row for row in close if not assumed[row]]
    strongest = [(column, _strongest(column, comparable)) for column in columns] if comparable else []
    tied = []
    for row in close:
        ahead = [other for column, other in strongest if _surpasses(column, other, row)]
        is_safe = row == best or assumed[row] or not ahead
        if is_safe or not any(dominates(columns, better=other, worse=row) for other in (*ahead, *comparable)):
            tied.append(row)
    return tied


def _strongest(column: UtilityColumn, rows: Sequence[int]) -> int:
    """The row with the best value."""
    return (max if METRIC_SPECS[column.metric].higher_is_better else min)(rows, key=column.values.__getitem__)


def _surpasses(column: UtilityColumn, one: int, other: int) -> bool:
    """Whether the value in the row `one` is truly better than that in the row `other`. Live values within their tolerance
    are not."""
    better, worse = column.values[one], column.values[other]
    gain = better - worse if METRIC_SPECS[column.metric].higher_is_better else worse - better
    return gain > (LIVE_TOLERANCE * max(better, worse) if column.metric in LIVE_METRICS else 0.0)


def dominates(columns: Sequence[UtilityColumn], *, better: int, worse: int) -> bool:
    """Whether the candidate in the row `better` is no worse in anything that is weighed than the one in the row `worse`,
    and truly better in something. An assumed value neither dominates nor is dominated."""
    if any(column.assumed[better] or column.assumed[worse] for column in columns):
        return False
    if any(_surpasses(column, worse, better) for column in columns):
        return False
    return any(_surpasses(column, better, worse) for column in columns)


def _explored(ranking: Ranking, tied: Sequence[int], exploration: Exploration, *, scale: float) -> dict[int, float]:
    """The candidates without fresh data that are tried, each with its share of the decisions.

    These are the ones that would win if they were faster than the fastest by as much as providers differ. Who was never
    called is tried at the full rate; of whom it is known that he was slow, only as often as the loss that this
    is expected to bring allows: what he shows is worth as much, and costs more.
    """
    ages_s = ranking.drafts.ages_s
    stale_after_s = exploration.stale_after_s
    is_stale = [age_s is None or age_s > stale_after_s for age_s in ages_s]
    if not any(is_stale):
        return {}
    utility_best = ranking.utilities[ranking.rows[0]]
    losses = [utility_best - utility for utility in ranking.utilities]
    gains = _gains_if_fast(ranking)
    worth = [row for row in ranking.rows if is_stale[row] and gains[row] > losses[row] and row not in tied]
    share = exploration.rate / max(1, len(worth))
    bearable = share * LOSS_SHARE_MAX * scale
    return {row: share if ages_s[row] is None else min(share, bearable / max(losses[row], 1e-12)) for row in worth}


def _gains_if_fast(ranking: Ranking) -> list[float]:
    """What each utility would gain by live values that are somewhat better than the best. Without a weight on anything
    live there is nothing to learn that could change the ranking, and the gains are 0."""
    gains = [[0.0] * len(ranking.utilities)]
    for metric, weight, values, assumed, _ in ranking.columns:
        if metric in LIVE_METRICS:
            best = min(
                [value for value, is_assumed in zip(values, assumed, strict=True) if not is_assumed], default=0.0
            )
            hoped = OPTIMISM * best
            gains.append([weight * (value - hoped) if value > hoped else 0.0 for value in values])
    return list(map(math.fsum, zip(*gains, strict=True)))


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
