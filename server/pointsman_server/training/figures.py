"""What an evaluation finds, as programs read it: docs/training.md describes each field, and its names are a contract.

`FORMAT_VERSION` is raised when a reader of the version before would misread something; new fields do not raise it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum

from pointsman_server.training.costs import CostBasis
from pointsman_server.training.resampling import INTERVAL_LEVEL, Measured

FORMAT = "pointsman.evaluation"
FORMAT_VERSION = 1

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


class ChosenOn(StrEnum):
    """The prompts on which the baselines chose their models."""

    TRAIN = "train"
    EVALUATED = "evaluated"
    """There is no train split to speak of, so they chose on the very prompts that they are measured on: it favours
    them."""


@dataclass(frozen=True, slots=True)
class ModelLists:
    """Which models of a part take part in what. Names as the data has them."""

    known: tuple[str, ...]
    """The artifact predicts them."""
    unknown: tuple[str, ...]
    """It does not: they are left out of everything."""
    routed: tuple[str, ...]
    """Known, and answered enough of the part's prompts to be compared on those that all answered."""
    priced: tuple[str, ...]
    """Routed, and their cost is known."""


@dataclass(frozen=True, slots=True)
class PredictionFigures:
    """How true the predicted qualities are, over all known outcomes of the known models."""

    outcome_count: int
    auc_within_model: Measured
    """The mean over models."""
    brier: Measured
    ece: Measured
    cell_count: int
    """One model and one category, with enough prompts that their mean says something."""
    coverage_90: Measured
    """The share of cells whose mean lies in their 90 % interval, widened by the cell's own sampling noise. Resampled by
    category."""


@dataclass(frozen=True, slots=True)
class PolicyFigures:
    """What comes of one way to choose."""

    accuracy: Measured
    """Mean quality, 0..1."""
    cost_usd: Measured | None
    """Mean per prompt; None where a routed model's cost is unknown."""
    arena_score: Measured | None


@dataclass(frozen=True, slots=True)
class RoutingFigures:
    """Every prompt to the model with the highest predicted quality, beside what needs no model of the prompt."""

    prompt_count: int
    """All routed models answered them."""
    best_single_model: str
    cheapest_model: str | None
    policies: Mapping[str, PolicyFigures]
    """router, random, cheapest (where costs are known), prompt_length, best_single, best_per_category, oracle."""
    gain_over_best_single: Measured
    gain_over_best_per_category: Measured
    """Accuracy of the router minus theirs; the interval is that of the difference."""
    gain: Measured
    """The smaller of the two: over the better one."""


@dataclass(frozen=True, slots=True)
class CostFigures:
    """Routers of one kind at every willingness to pay, over the priced models."""

    basis: CostBasis
    prompt_count: int
    best_single_model: str
    """Among the priced."""
    cost_range_usd: tuple[float, float]
    """Mean cost per prompt over which AIQ is taken."""
    aiq: Mapping[str, Measured]
    """router, zero_router, prompt_length, best_per_category, oracle."""
    share_of_cost_at_98: Measured
    share_of_cost_at_100: Measured
    """Of the best single model's cost, where the router reaches 98 % and all of its quality; unknown where it never
    does. The operating point is read off the evaluated prompts."""
    cost_saved_at_98: Measured
    cost_saved_at_100: Measured
    """1 minus the share."""


@dataclass(frozen=True, slots=True)
class WinFigures:
    """One order in which prompts go to the strong model."""

    apgr: Measured
    cpt_50: Measured
    cpt_80: Measured
    cpt_95: Measured


@dataclass(frozen=True, slots=True)
class PairFigures:
    """A router between two models (RouteLLM)."""

    strong: str
    weak: str
    prompt_count: int
    strong_accuracy: Measured
    weak_accuracy: Measured
    routers: Mapping[str, WinFigures]
    """router, prompt_length, best_per_category; and random, whose interval is its own spread over random orders."""


@dataclass(frozen=True, slots=True)
class PartFigures:
    """The figures of one source, or of one data set within it."""

    source: str
    dataset: str | None
    """None: the whole source."""
    prompt_count: int
    question_count: int
    contaminated_count: int
    """Prompts with that tag, which are left out."""
    chosen_on: ChosenOn
    models: ModelLists
    predictions: PredictionFigures | None
    """None: the artifact knows no model of the part."""
    routing: RoutingFigures | None
    """None: fewer than two routed models, or no prompt that all of them answered."""
    cost: CostFigures | None
    """None: likewise of the priced models."""
    pair: PairFigures | None
    """None: no pair was asked for, or the part lacks one of the two."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that was measured of an artifact on a data set."""

    artifact_name: str
    artifact_version: str
    split: str
    seed: int
    resample_count: int
    crossing_question_count: int
    """Questions of the data that stand in more than one split."""
    parts: tuple[PartFigures, ...]


def as_json(evaluation: Evaluation) -> dict[str, Json]:
    """The evaluation as JSON values; what is not defined is null."""
    found = _plain(evaluation)
    assert isinstance(found, dict)
    return {"format": FORMAT, "format_version": FORMAT_VERSION, "interval_level": INTERVAL_LEVEL, **found}


def _plain(value: object) -> Json:
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    assert value is None or isinstance(value, bool | int | str), value
    return str(value) if isinstance(value, StrEnum) else value
