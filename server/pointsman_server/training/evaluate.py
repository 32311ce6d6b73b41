"""How good a quality model is on held-out prompts, beside what needs no model of them.

`measure` goes through a data set source by source, and where a source has several data sets through each of them:
how true the predicted qualities are, what comes of routing by them, what that costs, and what a router between two
models gains. Every figure has its bootstrap interval. `evaluate` gives the main ones as plain numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pointsman_server.quality.model import QualityModel, normalised
from pointsman_server.training.comparison import Sample, cost_figures, pair_figures, routing_figures
from pointsman_server.training.costs import Costs, Prices, costs_of, expected_costs, input_tokens
from pointsman_server.training.dataset import SPLITS, Dataset
from pointsman_server.training.figures import (
    ChosenOn,
    CostFigures,
    Evaluation,
    ModelLists,
    PairFigures,
    PartFigures,
)
from pointsman_server.training.honesty import Groups, prediction_figures
from pointsman_server.training.metrics import Doubles
from pointsman_server.training.names import ModelNames, UnknownModelError, near
from pointsman_server.training.predictions import Predictions, predictions
from pointsman_server.training.resampling import RESAMPLE_COUNT

Bools = npt.NDArray[np.bool_]
Endpoint = tuple[str, str]

ALL = "all"
"""In place of a split: every prompt."""
CONTAMINATED_TAG = "contaminated"
"""Marks questions that yardsticks are not measured on, because published routers were trained on them."""
POOL_COVERAGE_MIN = 0.8
"""A model takes part in the routing of a source if it answered this share of its prompts."""
CHOOSING_COUNT_MIN = 20
"""With fewer train prompts that all routed models answered, no baseline can choose on them."""
DEFAULT_SEED = 1
"""Of the resamples."""


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """What to measure."""

    split: str = "test"
    """One of train, val, test, or all."""
    models: tuple[str, ...] | None = None
    """Only these models take part, `MODEL` or `SOURCE/MODEL`. None: all that the artifact knows."""
    pair: tuple[str, str] | None = None
    """A strong and a weak model, to route between."""
    prices: Prices | None = None
    """List prices, for sources that do not tell what their calls cost."""
    seed: int = DEFAULT_SEED
    resample_count: int = RESAMPLE_COUNT

    def __post_init__(self) -> None:
        assert self.split in (*SPLITS, ALL), self.split


def measure(
    model: QualityModel, dataset: Dataset, settings: EvaluationSettings, advance: Callable[[int], None]
) -> Evaluation:
    """Everything that can be measured of a model on a data set.

    Args:
        model: what is measured.
        dataset: with all its splits: on the train split the baselines choose.
        settings: what to measure.
        advance: told how many more prompts are done, of those that `evaluated` counts.

    Raises:
        UnknownModelError: a model that is asked for is in no source.
    """
    asked = _Asked.of(dataset, settings)
    parts = []
    for source in sorted(set(dataset.sources)):
        data = dataset.from_sources([source])
        is_evaluated = evaluated(data, settings.split)
        if not is_evaluated.any():
            continue
        whole = _known_part(model, data, is_evaluated, asked, advance)
        parts.append(_figures(whole, None, asked, settings))
        names = sorted(set(data.datasets[is_evaluated]))
        if len(names) > 1:
            parts += [_figures(whole.of(data.datasets == name), name, asked, settings) for name in names]
    return Evaluation(
        artifact_name=model.name,
        artifact_version=model.version,
        split=settings.split,
        seed=settings.seed,
        resample_count=settings.resample_count,
        crossing_question_count=len(dataset.crossing_questions()),
        parts=tuple(parts),
    )


def evaluated(dataset: Dataset, split: str) -> Bools:
    """Which prompts are measured: those of the split that are not contaminated."""
    inside = np.ones(len(dataset.splits), dtype=np.bool_) if split == ALL else dataset.splits == split
    return np.asarray(inside & ~dataset.tagged(CONTAMINATED_TAG), dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the data, with what the artifact says of its evaluated prompts."""

    data: Dataset
    """Of the known models alone, in all splits."""
    is_evaluated: Bools
    contaminated_count: int
    predicted: Predictions
    """Of the evaluated prompts."""
    unknown: tuple[str, ...]
    """The models that the artifact does not know."""

    def of(self, rows: Bools) -> _Part:
        """These prompts alone."""
        dropped = self.data.tagged(CONTAMINATED_TAG) & rows
        return _Part(
            self.data.where(rows),
            self.is_evaluated[rows],
            int(dropped.sum()),
            self.predicted.of(rows[self.is_evaluated]),
            self.unknown,
        )

    @property
    def models(self) -> tuple[str, ...]:
        """As the data has them."""
        return tuple(model for _, model in self.data.endpoints)

    @property
    def observed(self) -> Doubles:
        """The qualities of the evaluated prompts."""
        return self.data.quality[self.is_evaluated].astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The endpoints that the settings name."""

    models: frozenset[Endpoint] | None
    """None: all."""
    pair: tuple[frozenset[Endpoint], frozenset[Endpoint]] | None
    """Of each source one strong and one weak."""

    @classmethod
    def of(cls, dataset: Dataset, settings: EvaluationSettings) -> _Asked:
        """What is meant by the names.

        Raises:
            UnknownModelError: no endpoint is called that.
        """
        return cls(
            models=None
            if settings.models is None
            else frozenset[Endpoint]().union(*(_called(dataset, name) for name in settings.models)),
            pair=None
            if settings.pair is None
            else (_called(dataset, settings.pair[0]), _called(dataset, settings.pair[1])),
        )

    def takes_part(self, endpoint: Endpoint) -> bool:
        """Whether anything is to be said of an endpoint; of the pair always."""
        return self.routes(endpoint) or any(endpoint in side for side in self.pair or ())

    def routes(self, endpoint: Endpoint) -> bool:
        """Whether it is one of the models to route among."""
        return self.models is None or endpoint in self.models


def _called(dataset: Dataset, name: str) -> frozenset[Endpoint]:
    """The endpoints of that name: exactly, with or without their source, else but for vendor and case."""
    ways: tuple[Callable[[Endpoint], bool], ...] = (
        lambda endpoint: "/".join(endpoint) == name,
        lambda endpoint: endpoint[1] == name,
        lambda endpoint: normalised(endpoint[1]) == normalised(name),
    )
    for is_called in ways:
        if found := frozenset(filter(is_called, dataset.endpoints)):
            return found
    raise UnknownModelError(f"the data has no model {name}{near(name, (model for _, model in dataset.endpoints))}")


def _known_part(
    model: QualityModel, data: Dataset, is_evaluated: Bools, asked: _Asked, advance: Callable[[int], None]
) -> _Part:
    """The part of one source."""
    names = ModelNames.of(model)
    found = {
        column: names.of_endpoint(endpoint)
        for column, endpoint in enumerate(data.endpoints)
        if asked.takes_part(endpoint)
    }
    known = {column: name for column, name in found.items() if name is not None}
    return _Part(
        data=data.of_endpoints(list(known)),
        is_evaluated=is_evaluated,
        contaminated_count=int(data.tagged(CONTAMINATED_TAG).sum()),
        predicted=predictions(model, data.texts[is_evaluated].tolist(), tuple(known.values()), advance),
        unknown=tuple(data.endpoints[column][1] for column, name in found.items() if name is None),
    )


def _figures(part: _Part, dataset_name: str | None, asked: _Asked, settings: EvaluationSettings) -> PartFigures:
    data = part.data
    seed, resample_count = settings.seed, settings.resample_count
    inside = _pool(part, asked)
    costs = costs_of(data, inside, settings.prices) if len(inside) > 1 else None
    priced = [inside[position] for position in costs.known] if costs is not None else []
    sample, chosen_on = _sample(part, inside, costs if len(priced) == len(inside) else None)
    return PartFigures(
        source=str(data.sources[0]),
        dataset=dataset_name,
        prompt_count=int(part.is_evaluated.sum()),
        question_count=len(set(data.dedupe_keys[part.is_evaluated])),
        contaminated_count=part.contaminated_count,
        chosen_on=chosen_on,
        models=ModelLists(
            known=part.models,
            unknown=part.unknown,
            routed=tuple(part.models[column] for column in inside) if sample is not None else (),
            priced=tuple(part.models[column] for column in priced),
        ),
        predictions=prediction_figures(part.predicted, part.observed, _groups(part), seed=seed, count=resample_count),
        routing=None if sample is None else routing_figures(sample, seed=seed, resample_count=resample_count),
        cost=_cost(part, priced, settings),
        pair=_pair(part, asked, settings),
    )


def _groups(part: _Part) -> Groups:
    return Groups(part.data.dedupe_keys[part.is_evaluated], part.data.categories[part.is_evaluated])


def _pool(part: _Part, asked: _Asked) -> list[int]:
    """The columns of the models that are routed among."""
    coverage = np.isfinite(part.data.quality).mean(axis=0)
    return [
        column
        for column, endpoint in enumerate(part.data.endpoints)
        if asked.routes(endpoint) and coverage[column] >= POOL_COVERAGE_MIN
    ]


def _cost(part: _Part, priced: Sequence[int], settings: EvaluationSettings) -> CostFigures | None:
    if len(priced) < 2:
        return None
    costs = costs_of(part.data, priced, settings.prices)
    sample, _ = _sample(part, priced, costs)
    if sample is None or costs is None:
        return None
    return cost_figures(sample, costs, seed=settings.seed, resample_count=settings.resample_count)


def _pair(part: _Part, asked: _Asked, settings: EvaluationSettings) -> PairFigures | None:
    sides = [
        [column for column, endpoint in enumerate(part.data.endpoints) if endpoint in side] for side in asked.pair or ()
    ]
    if not sides or not all(sides):
        return None
    sample, _ = _sample(part, [columns[0] for columns in sides], None)
    if sample is None:
        return None
    return pair_figures(sample, seed=settings.seed, resample_count=settings.resample_count)


def _sample(part: _Part, columns: Sequence[int], costs: Costs | None) -> tuple[Sample | None, ChosenOn]:
    """The prompts that all these models answered; None where that are none, or fewer than two models."""
    data = part.data
    quality = data.quality[:, columns].astype(np.float64)
    complete = np.isfinite(quality).all(axis=1)
    if costs is not None:
        complete &= np.isfinite(costs.actual_usd).all(axis=1)
    choosing = complete & (data.splits == "train")
    chosen_on = ChosenOn.TRAIN if choosing.sum() >= CHOOSING_COUNT_MIN else ChosenOn.EVALUATED
    rows = complete & part.is_evaluated
    if chosen_on is ChosenOn.EVALUATED:
        choosing = rows
    if len(columns) < 2 or not rows.any():
        return None, chosen_on
    lengths = input_tokens(data)
    among_evaluated = rows[part.is_evaluated]
    expected = None
    if costs is not None:
        tokens = np.full(quality.shape, math.nan)
        tokens[part.is_evaluated] = part.predicted.output_tokens[:, columns]
        expected = expected_costs(costs, train=choosing, evaluated=rows, lengths=lengths, output_tokens=tokens)
    sample = Sample(
        models=tuple(part.models[column] for column in columns),
        quality=quality[rows],
        predicted=part.predicted.quality[:, columns][among_evaluated],
        categories=data.categories[rows],
        lengths=lengths[rows],
        questions=data.dedupe_keys[rows],
        train_quality=quality[choosing],
        train_categories=data.categories[choosing],
        train_lengths=lengths[choosing],
        cost_usd=None if costs is None else costs.actual_usd[rows],
        expected_cost_usd=expected,
    )
    return sample, chosen_on


def evaluate(
    model: QualityModel, dataset: Dataset, *, split: str, models_of: Mapping[str, Sequence[str]] | None = None
) -> dict[str, dict[str, float]]:
    """The main metrics of `split` by source, for a manifest. Qualities, accuracies and shares are 0..1.

    `models_of` limits a source to these models; otherwise all that `model` knows take part. A source without two
    models that answered most of its prompts has no routing figures.
    """
    report: dict[str, dict[str, float]] = {}
    for source in sorted(set(dataset.sources)):
        part = dataset.from_sources([source])
        limited = None if models_of is None or source not in models_of else tuple(models_of[source])
        report |= main_metrics(measure(model, part, EvaluationSettings(split, limited, resample_count=0), _ignore))
    return report


def main_metrics(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Of each source of which the artifact knows a model, the main figures as plain numbers."""
    return {
        part.source: _flat(part) for part in evaluation.parts if part.dataset is None and part.predictions is not None
    }


def _ignore(_count: int) -> None:
    """Nobody waits."""


def _flat(part: PartFigures) -> dict[str, float]:
    found = {"prompts": float(part.prompt_count), "models": float(len(part.models.known))}
    if part.predictions is not None:
        found |= {
            "auc_within_model": part.predictions.auc_within_model.value,
            "brier": part.predictions.brier.value,
            "ece": part.predictions.ece.value,
        }
    if part.routing is not None:
        policies = part.routing.policies
        found |= {
            "routing_prompts": float(part.routing.prompt_count),
            "routing_models": float(len(part.models.routed)),
            "accuracy": policies["router"].accuracy.value,
            **{
                f"accuracy_{name}": policies[name].accuracy.value
                for name in ("random", "best_single", "best_per_category", "oracle")
            },
        }
    if part.predictions is not None and part.predictions.cell_count:
        found |= {
            "cells": float(part.predictions.cell_count),
            "coverage_90": part.predictions.coverage_90.value,
        }
    return found
