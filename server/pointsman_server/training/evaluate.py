"""How good a quality model is on held-out prompts, beside what needs no model.

By source: accuracy when every prompt goes to the model with the highest predicted quality, beside a random choice, the
best single model, the best model per category (both chosen on the train split) and an oracle; and how true the
predicted probabilities are (AUC, Brier score, calibration error, coverage of the intervals).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pointsman_server.quality.model import QualityModel, normalised, success
from pointsman_server.training.dataset import Dataset
from pointsman_server.training.train import NO_STAND_IN, cells

Doubles = npt.NDArray[np.float64]

POOL_COVERAGE_MIN = 0.8
"""A model takes part in the routing of a source if it answered this share of its prompts."""
ECE_BIN_COUNT = 15
"""Bins of equal size for the expected calibration error."""
NORMAL_QUANTILE_90 = 1.645
"""Half-width, in standard errors, of a two-sided interval of 90 %."""


def evaluate(
    model: QualityModel, dataset: Dataset, *, split: str, models_of: Mapping[str, Sequence[str]] | None = None
) -> dict[str, dict[str, float]]:
    """The metrics of `split` by source. Qualities, accuracies and shares are 0..1.

    `models_of` limits the routing of a source to these models; otherwise all that answered most of its prompts and
    that `model` knows take part. A source without two such models has no routing figures.
    """
    report = {}
    for source in sorted(set(dataset.sources)):
        part = dataset.from_sources([source])
        held_out, training = part.in_split(split), part.in_split("train")
        rows, columns = _known_columns(model, part)
        if not columns or not len(held_out.texts):
            continue
        predicted = predict_all(model, held_out, rows)
        observed = held_out.quality[:, columns].astype(np.float64)
        metrics = {"prompts": float(len(held_out.texts)), **probability_metrics(predicted, observed)}
        allowed = None if models_of is None else models_of.get(source)
        inside = [
            position
            for position, column in enumerate(columns)
            if (allowed is None or part.endpoints[column][1] in allowed)
            and np.isfinite(part.quality[:, column]).mean() >= POOL_COVERAGE_MIN
        ]
        if len(inside) > 1:
            chosen = [columns[position] for position in inside]
            metrics |= _routing(held_out, training, chosen, predicted[:, inside])
        report[source] = metrics | _coverage(model, held_out)
    return report


def predict_all(model: QualityModel, dataset: Dataset, rows: Sequence[int]) -> Doubles:
    """Predicted quality of these profile rows on every prompt, (prompts, rows)."""
    index = np.array(rows, dtype=np.intp)
    return np.stack(
        [
            success(model.table, model.calibration, index, model.latent(text)[0], stand_in=NO_STAND_IN)[0]
            for text in dataset.texts
        ]
    )


def probability_metrics(predicted: Doubles, observed: Doubles) -> dict[str, float]:
    """Of all known outcomes together: Brier score, calibration error, and the AUC within models, averaged."""
    known = np.isfinite(observed)
    p, y = predicted[known], observed[known]
    areas = [
        area
        for column in range(observed.shape[1])
        if (area := auc(predicted[known[:, column], column], observed[known[:, column], column])) is not None
    ]
    return {
        "models": float(observed.shape[1]),
        "auc_within_model": float(np.mean(areas)) if areas else float("nan"),
        "brier": float(((p - y) ** 2).mean()),
        "ece": calibration_error(p, y),
    }


def auc(predicted: Doubles, observed: Doubles) -> float | None:
    """Probability that a good answer (quality 0.5 or more) was predicted higher than a bad one; None if all are alike."""
    good = observed >= 0.5
    if good.all() or not good.any():
        return None
    _, inverse, counts = np.unique(predicted, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    good_count, bad_count = int(good.sum()), int((~good).sum())
    return float((rank[good].sum() - good_count * (good_count + 1) / 2.0) / (good_count * bad_count))


def calibration_error(predicted: Doubles, observed: Doubles) -> float:
    """Expected calibration error: mean distance of predicted and observed quality over bins of equal size."""
    order = np.argsort(predicted, kind="stable")
    bins = np.array_split(order, min(ECE_BIN_COUNT, len(order)))
    return float(sum(len(b) * abs(predicted[b].mean() - observed[b].mean()) for b in bins) / len(order))


def _routing(held_out: Dataset, training: Dataset, columns: list[int], predicted: Doubles) -> dict[str, float]:
    """Accuracies over the prompts that all of these columns answered."""
    complete = np.isfinite(held_out.quality[:, columns]).all(axis=1)
    quality = held_out.quality[complete][:, columns].astype(np.float64)
    if not len(quality):
        return {}
    table = training.where(np.asarray(np.isfinite(training.quality[:, columns]).all(axis=1)))
    mean = table.quality[:, columns].mean(axis=0)
    best_of = {
        category: int(table.quality[table.categories == category][:, columns].mean(axis=0).argmax())
        for category in np.unique(table.categories)
    }
    best = int(mean.argmax())
    by_category = [best_of.get(category, best) for category in held_out.categories[complete]]
    every = np.arange(len(quality))
    return {
        "routing_prompts": float(len(quality)),
        "routing_models": float(len(columns)),
        "accuracy": float(quality[every, predicted[complete].argmax(axis=1)].mean()),
        "accuracy_random": float(quality.mean()),
        "accuracy_best_single": float(quality[:, best].mean()),
        "accuracy_best_per_category": float(quality[every, by_category].mean()),
        "accuracy_oracle": float(quality.max(axis=1).mean()),
    }


def _coverage(model: QualityModel, held_out: Dataset) -> dict[str, float]:
    """Share of cells whose observed mean lies within the 90 % interval, widened by the cell's own sampling noise."""
    measured = cells(model, held_out)
    if not measured:
        return {}
    scale, floor = model.calibration.variance_scale, model.calibration.variance_floor
    inside = [
        abs(cell.error)
        <= NORMAL_QUANTILE_90 * (cell.standard_error(scale=scale, floor=floor) ** 2 + cell.noise_variance) ** 0.5
        for cell in measured
    ]
    return {"cells": float(len(measured)), "coverage_90": float(np.mean(inside))}


def _known_columns(model: QualityModel, dataset: Dataset) -> tuple[list[int], list[int]]:
    """Profile rows and data columns of the endpoints that the model knows: as trained, else by name."""
    by_endpoint = {endpoint: row for row, profile in enumerate(model.profiles) for endpoint in profile.endpoints}
    by_name = {
        name: row
        for row, profile in enumerate(model.profiles)
        for name in (profile.model, *profile.aliases, *profile.stand_ins)
    }
    rows, columns = [], []
    for column, endpoint in enumerate(dataset.endpoints):
        row = by_endpoint.get(endpoint, by_name.get(normalised(endpoint[1])))
        if row is not None:
            rows.append(row)
            columns.append(column)
    return rows, columns
