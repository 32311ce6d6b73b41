"""What each eligible candidate is worth under the caller's preferences: one sum of quality, cost and live latency.

A weighed value that is unknown is assumed to be like the others': the worse of the two middle ones of those that are
known. So it is never a reason to win, never a reason to be ruled out, and ties go to what is known. A term that no
candidate knows is left out for all.
"""

from __future__ import annotations

from collections.abc import Sequence

from pointsman_server.decision.estimate import EXPECTATIONS, Draft
from pointsman_server.decision.metrics import METRIC_SPECS, Metric
from pointsman_server.decision.types import (
    DEFAULT_PREFERENCE,
    Direction,
    Objective,
    Preference,
    UtilityTerm,
    Weights,
)


def rank(drafts: Sequence[Draft], preference: Preference) -> list[Draft]:
    """Gives each draft its utility and terms, and returns them best first.

    Ties go to the candidate with fewer assumed values, then (under an objective) to the better one by the default
    preference, then by name, so that the order of the catalog never matters.
    """
    drafts = list(drafts)
    match preference:
        case Objective():
            default_terms = weigh(drafts, DEFAULT_PREFERENCE)
            for draft, value, worst in zip(drafts, *_sought(drafts, preference), strict=True):
                sign = 1.0 if preference.direction is Direction.HIGHEST else -1.0
                seen = worst if value is None else value
                draft.utility = sign * seen
                draft.terms = (UtilityTerm(preference.metric, 1.0, seen, value is None, draft.utility),)
            tie_breaker = {
                draft.endpoint.name: sum(term.contribution for term in terms)
                for draft, terms in zip(drafts, default_terms, strict=True)
            }
        case Weights():
            for draft, terms in zip(drafts, weigh(drafts, preference), strict=True):
                draft.terms = terms
                draft.utility = sum([term.contribution for term in terms])
            tie_breaker = {}

    def place(draft: Draft) -> tuple[float, int, float, str]:
        name = draft.endpoint.name
        assumed_count = [term.assumed for term in draft.terms].count(True)
        return (-utility_of(draft), assumed_count, -tie_breaker.get(name, 0.0), name)

    return sorted(drafts, key=place)


def utility_of(draft: Draft) -> float:
    """The utility of a draft that has been ranked."""
    assert draft.utility is not None, "ranked drafts have a utility"
    return draft.utility


def weigh(drafts: Sequence[Draft], weights: Weights) -> list[tuple[UtilityTerm, ...]]:
    """The terms of each draft's utility, in the order of the weights."""
    columns: list[list[UtilityTerm]] = []
    for metric, weight in weights.by_metric:
        value_of = EXPECTATIONS[metric]
        values = [value_of(draft) for draft in drafts]
        signed = weight if METRIC_SPECS[metric].higher_is_better else -weight
        if None in values:
            columns.append(_with_assumed(metric, weight, signed, values))
        else:
            columns.append(
                [UtilityTerm(metric, weight, value, False, signed * value) for value in values if value is not None]
            )
    known = [column for column in columns if column]
    return list(zip(*known, strict=True)) if known else [()] * len(drafts)


def _with_assumed(metric: Metric, weight: float, signed: float, values: Sequence[float | None]) -> list[UtilityTerm]:
    """The terms of one metric, what is unknown assumed; none if all is unknown."""
    assumed = _middle([value for value in values if value is not None], metric)
    if assumed is None:
        return []
    return [
        UtilityTerm(metric, weight, assumed, assumed=True, contribution=signed * assumed)
        if value is None
        else UtilityTerm(metric, weight, value, assumed=False, contribution=signed * value)
        for value in values
    ]


def _middle(known: list[float], metric: Metric) -> float | None:
    """The median; of an even number the worse of the two middle ones."""
    if not known:
        return None
    ascending = sorted(known)
    index = len(ascending) // 2
    if METRIC_SPECS[metric].higher_is_better:
        index = (len(ascending) - 1) // 2
    return ascending[index]


def _sought(drafts: Sequence[Draft], objective: Objective) -> tuple[list[float | None], list[float]]:
    """Each draft's value of the sought metric, and what stands for an unknown one: the least sought of the known."""
    values = [EXPECTATIONS[objective.metric](draft) for draft in drafts]
    known = [value for value in values if value is not None]
    least_sought = min if objective.direction is Direction.HIGHEST else max
    return values, [least_sought(known, default=0.0)] * len(drafts)
