"""How true the predicted qualities are: whether they rank, whether they are probabilities, whether intervals hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pointsman_server.training.figures import PredictionFigures
from pointsman_server.training.metrics import (
    ECE_BIN_COUNT,
    Doubles,
    auc,
    auc_of_resamples,
    brier,
    ece,
    equal_bins,
)
from pointsman_server.training.predictions import NORMAL_QUANTILE_90, Predictions
from pointsman_server.training.resampling import Measured, Resamples, measured

CELL_SIZE_MIN = 15
"""Prompts of one category that one model answered, so that their mean says something."""


@dataclass(frozen=True, slots=True)
class Groups:
    """What belongs together among evaluated prompts."""

    questions: npt.NDArray[np.object_]
    categories: npt.NDArray[np.object_]


def prediction_figures(
    predicted: Predictions, observed: Doubles, groups: Groups, *, seed: int, count: int
) -> PredictionFigures | None:
    """AUC, Brier score, calibration error and coverage of predictions, (prompts, models), NaN in `observed` unknown."""
    known = np.isfinite(observed)
    if not known.any():
        return None
    resamples = Resamples.of(groups.questions, seed=seed, resample_count=count)
    values, outcomes = predicted.quality[known], observed[known]
    totals = resamples.sums(known.sum(axis=1, dtype=np.float64)[:, np.newaxis])[:, 0]
    squares = np.where(known, (predicted.quality - observed) ** 2, 0.0).sum(axis=1)
    cell_count, coverage = _coverage(predicted, observed, groups.categories, seed=seed, count=count)
    return PredictionFigures(
        outcome_count=int(known.sum()),
        auc_within_model=_auc_within_model(predicted.quality, observed, resamples),
        brier=measured(brier(values, outcomes), resamples.sums(squares[:, np.newaxis])[:, 0] / totals),
        ece=measured(ece(values, outcomes), _drawn_ece(predicted.quality, observed, resamples) / totals),
        cell_count=cell_count,
        coverage_90=coverage,
    )


def _auc_within_model(predicted: Doubles, observed: Doubles, resamples: Resamples) -> Measured:
    """The mean of the models' AUC, over those that have one."""
    columns = []
    for values, outcomes in zip(predicted.T, observed.T, strict=True):
        known = np.isfinite(outcomes)
        value = auc(values[known], outcomes[known])
        if math.isfinite(value):
            drawn = [
                auc_of_resamples(values[known], outcomes[known], weights[:, known]) for weights in resamples.weights()
            ]
            columns.append(np.concatenate(([value], *drawn)))
    if not columns:
        return Measured(math.nan, math.nan, math.nan)
    areas = np.column_stack(columns)
    defined = np.isfinite(areas)
    means = np.where(defined, areas, 0.0).sum(axis=1) / np.maximum(1, defined.sum(axis=1))
    return measured(float(means[0]), means[1:][defined[1:].any(axis=1)])


def _drawn_ece(predicted: Doubles, observed: Doubles, resamples: Resamples) -> Doubles:
    """The sums of distances within the sample's own bins, in each resample."""
    rows, _ = known = np.nonzero(np.isfinite(observed))
    errors = np.zeros((len(observed), ECE_BIN_COUNT))
    np.add.at(errors, (rows, equal_bins(predicted[known])), predicted[known] - observed[known])
    return np.asarray(np.abs(resamples.sums(errors)).sum(axis=1))


def _coverage(
    predicted: Predictions, observed: Doubles, categories: npt.NDArray[np.object_], *, seed: int, count: int
) -> tuple[int, Measured]:
    """The number of cells, and the share of them that lie within their interval.

    The errors of one cell are taken to go all the same way, so the standard error of its mean is their mean.
    """
    inside: list[bool] = []
    category_of: list[str] = []
    for category in np.unique(categories.astype(str)):
        members = categories == category
        for column in range(observed.shape[1]):
            rows = members & np.isfinite(observed[:, column])
            if rows.sum() < CELL_SIZE_MIN:
                continue
            residual = observed[rows, column] - predicted.quality[rows, column]
            noise = float(residual.var(ddof=1)) / len(residual)
            error = float(predicted.standard_error[rows, column].mean())
            inside.append(abs(float(residual.mean())) <= NORMAL_QUANTILE_90 * math.sqrt(error**2 + noise))
            category_of.append(category)
    if not inside:
        return 0, Measured(math.nan, math.nan, math.nan)
    values = np.array(inside, dtype=np.float64)
    resamples = Resamples.of(np.array(category_of, dtype=np.object_), seed=seed, resample_count=count)
    return len(inside), measured(float(values.mean()), resamples.means(values[:, np.newaxis])[:, 0])
