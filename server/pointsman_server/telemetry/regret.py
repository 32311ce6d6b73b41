"""What a choice gives up against the best other one, as far as that can be known: an estimate, in units of utility.

Nobody knows what the other endpoints would have given. What is held against a choice is what they were expected to give.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pointsman_server.decision.metrics import Metric
from pointsman_server.decision.types import Candidate, Decision, Endpoint, Latency


class Seen(NamedTuple):
    """What an answer turned out to take; None is not known."""

    cost_usd: float | None
    ttft_s: float | None
    inter_token_latency_s: float | None
    duration_s: float | None


def candidate_of(decision: Decision, endpoint: Endpoint) -> Candidate | None:
    """What was expected of an endpoint; None where it was not among the candidates."""
    for candidate in decision.candidates:
        if candidate.endpoint.name == endpoint.name:
            return candidate
    return None


def expected_regret(decision: Decision) -> float | None:
    """By how much the best candidate was expected to be better than the chosen one, not below 0: the price of exploration
    and of drawing among near-ties. None where nothing was chosen."""
    chosen = decision.chosen
    if chosen is None or chosen.utility is None:
        return None
    return max(0.0, _best_other(decision, chosen) - chosen.utility)


def seen_regret(decision: Decision, answered: Candidate, seen: Seen) -> float | None:
    """By how much the best other candidate was expected to be better than what the one that answered gave, not below 0.

    Its expected cost and latencies give way to the ones that were seen, its expected quality stays. Noise adds to it: even
    the best of choices shows some. None where no weighed figure was seen.
    """
    if answered.utility is None:
        return None
    is_any_known, change = False, 0.0
    for column in answered.columns:
        figure = _FIGURES.get(column.metric)
        actual, expected = (None, None) if figure is None else figure(answered, seen)
        if actual is not None and expected is not None:
            # What a latency costs those under way is in the term's value, beside what is expected, and stays.
            is_any_known, change = True, change - column.weight * (actual - expected)
    return max(0.0, _best_other(decision, answered) - (answered.utility + change)) if is_any_known else None


def _best_other(decision: Decision, candidate: Candidate) -> float:
    """The highest utility of the other eligible candidates; minus infinity when there is none. Only those of one
    alternative can be compared: of these the first may be any, and the others are ranked (see `Decision`)."""
    best = float("-inf")
    is_first = True
    for other in decision.candidates:
        if other.rejections:
            return best
        if other.alternative != candidate.alternative:
            continue
        if other is not candidate and other.utility is not None:
            best = max(best, other.utility)
            if not is_first:
                return best
        is_first = False
    return best


_Figure = Callable[[Candidate, Seen], tuple[float | None, float | None]]
"""What was seen, and what was expected; None is not known."""


def _mean(latency: Latency | None) -> float | None:
    return None if latency is None else latency.mean


_FIGURES: dict[Metric, _Figure] = {
    Metric.REQUEST_COST: lambda candidate, seen: (seen.cost_usd, candidate.cost_usd),
    Metric.TTFT: lambda candidate, seen: (seen.ttft_s, _mean(candidate.ttft_s)),
    Metric.END_TO_END_LATENCY: lambda candidate, seen: (seen.duration_s, candidate.end_to_end_latency_s),
    Metric.INTER_TOKEN_LATENCY: lambda candidate, seen: (
        seen.inter_token_latency_s,
        _mean(candidate.inter_token_latency_s),
    ),
}
"""By metric, where an answer shows it."""
