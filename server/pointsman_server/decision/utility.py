"""What each eligible candidate is worth under the caller's preferences: one sum of quality, cost and live latency.

A weighed value that is unknown is assumed to be like the others': the worse of the two middle ones of those that are
known. So it is never a reason to win, never a reason to be ruled out, and ties go to what is known. A term that no
candidate knows is left out for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add
from typing import NamedTuple, TypeGuard

from pointsman_server.decision.estimate import CHARGES, Column, Drafts
from pointsman_server.decision.metrics import METRIC_SPECS, Metric
from pointsman_server.decision.types import (
    DEFAULT_PREFERENCE,
    Direction,
    Objective,
    Preference,
    UtilityColumn,
    Weights,
)


class Ranking(NamedTuple):
    """Eligible drafts with what they are worth. A draft's row is its place in all columns, also in those of `drafts`."""

    drafts: Drafts
    utilities: list[float]
    rows: list[int]
    """Best first."""
    columns: tuple[UtilityColumn, ...]


def rank(drafts: Drafts, preference: Preference) -> Ranking:
    """The drafts with their utilities.

    Ties go to the candidate with fewer assumed values, then (under an objective) to the better one by the default
    preference, then by name, so that the order of the catalog never matters.
    """
    columns = [_sought(drafts, preference)] if isinstance(preference, Objective) else weigh(drafts, preference)
    utilities = _totals(columns, drafts)
    rows = sorted(range(len(utilities)), key=utilities.__getitem__, reverse=True)
    if len(set(utilities)) < len(utilities):
        default = [0.0] * len(utilities)
        if isinstance(preference, Objective):
            default = _totals(weigh(drafts, DEFAULT_PREFERENCE), drafts)
        assumed_counts = [sum([column.assumed[row] for column in columns]) for row in range(len(utilities))]
        endpoints = drafts.endpoints
        rows.sort(key=lambda row: (-utilities[row], assumed_counts[row], -default[row], endpoints[row].name))
    return Ranking(drafts, utilities, rows, tuple(columns))


def _totals(columns: Sequence[UtilityColumn], drafts: Drafts) -> list[float]:
    """What the columns contribute to each draft, in all."""
    totals = [0.0] * len(drafts.endpoints)
    for column in columns:
        totals = list(map(add, totals, column.contributions))
    return totals


def weigh(drafts: Drafts, weights: Weights) -> list[UtilityColumn]:
    """The terms of the utility, in the order of the weights; without those of which no draft knows the value."""
    columns = []
    for metric, weight in weights.by_metric:
        found = CHARGES[metric](drafts)
        assumed: Sequence[bool] = [False] * len(found)
        if _is_known(found):
            values = found
        else:
            stand_in = _middle([value for value in found if value is not None], metric)
            if stand_in is None:
                continue
            assumed = [value is None for value in found]
            values = [stand_in if value is None else value for value in found]
        signed = weight if METRIC_SPECS[metric].higher_is_better else -weight
        columns.append(UtilityColumn(metric, weight, values, assumed, [signed * value for value in values]))
    return columns


def _is_known(values: Column) -> TypeGuard[Sequence[float]]:
    """Whether every draft's value is known: the usual case."""
    return None not in values


def _middle(known: list[float], metric: Metric) -> float | None:
    """The median; of an even number the worse of the two middle ones."""
    if not known:
        return None
    ascending = sorted(known)
    index = len(ascending) // 2
    if METRIC_SPECS[metric].higher_is_better:
        index = (len(ascending) - 1) // 2
    return ascending[index]


def _sought(drafts: Drafts, objective: Objective) -> UtilityColumn:
    """The one term of an objective; what is unknown stands for the least sought of the known values."""
    found = CHARGES[objective.metric](drafts)
    known = [value for value in found if value is not None]
    is_highest = objective.direction is Direction.HIGHEST
    worst = min(known, default=0.0) if is_highest else max(known, default=0.0)
    values = [worst if value is None else value for value in found]
    contributions = values if is_highest else [-value for value in values]
    return UtilityColumn(objective.metric, 1.0, values, [value is None for value in found], contributions)
