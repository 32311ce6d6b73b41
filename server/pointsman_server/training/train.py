"""From labelled prompts to a quality model, in five steps.

features     fit the token table, read every prompt
latents      factorise the outcomes; smooth by category (`factors`)
booster      learn latents from features, cross-fitted so that each prompt is predicted by trees that never saw it
profiles     fit every LLM to the cross-fitted latents (`profiles`): its loadings meet latents as good as in service
intervals    calibrate on the held-out prompts
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import xgboost

from pointsman_server.quality.features import FeatureExtractor, Window
from pointsman_server.quality.model import IntervalCalibration, Profile, ProfileTable, QualityModel, success
from pointsman_server.training.dataset import Dataset, DatasetError, Matrix, Strings
from pointsman_server.training.embedding import fit_features
from pointsman_server.training.factors import factorise, smoothed
from pointsman_server.training.joining import fit_joining
from pointsman_server.training.llms import KnownLlm, llm_of
from pointsman_server.training.profiles import FittedProfiles, fit_lengths, fit_profiles, length_targets

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

Progress = Callable[[str, float], None]
"""Told the step's name and the share of it that is done, 0..1."""

FOLD_COUNT = 5
"""Of the cross-fit: every booster but the last sees four fifths of the questions."""
LABELS_MIN = 50
"""An LLM with fewer training labels gets no profile."""
CELL_SIZE_MIN = 15
"""Held-out prompts of one category that one model answered, so that their mean says something."""
CELL_COUNT_MIN = 20
"""With fewer cells the interval is not fitted but taken from `UNCALIBRATED`."""
UNCALIBRATED = (1.0, 0.25)
"""Variance scale and floor without held-out data: the posterior as it is, and half a unit of log-odds beside it."""
VARIANCE_SCALES = np.geomspace(0.25, 64.0, 17)
VARIANCE_FLOORS = np.geomspace(0.0025, 2.0, 21)
"""Searched for the most likely pair, log-odds squared: steps of 1.4, finer than their own uncertainty."""
STAND_IN_VARIANCE = 0.5
"""An LLM is taken to be 0.7 of log-odds from its nearest trained relative. An estimate, not a measurement: it keeps
stand-ins from looking certain."""


@dataclass(frozen=True, slots=True)
class BoosterSettings:
    """How the trees are grown; chosen on validation, see docs/quality.md."""

    round_count: int = 150
    depth: int = 6
    learning_rate: float = 0.07
    child_weight_min: float = 10.0
    ridge: float = 5.0
    row_share: float = 0.8
    column_share: float = 0.3
    """Of the features, drawn anew at every node."""
    bin_count: int = 64
    """Candidate thresholds per feature."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """Everything that shapes a model besides the data and the seed."""

    embedding_dimension_count: int = 16
    latent_count: int = 12
    category_share: float = 0.5
    """How far the latents move to the mean of their category before the trees learn them."""
    loading_variance: float = 0.5
    """How much models differ in what a prompt's latents mean to them, per whitened latent, log-odds squared. The default
    lets labels speak, as suits one source in which every model answered every kind of prompt; see `build` for several."""
    ease_variance: float = 1.0
    """How much prompts of one group differ in ease beyond what their latents tell, log-odds squared."""
    booster: BoosterSettings = field(default_factory=BoosterSettings)
    window: Window = field(default_factory=Window)


@dataclass(frozen=True, slots=True)
class LlmColumns:
    """The outcomes by LLM: the endpoints of one LLM in several sources are one column."""

    llms: tuple[KnownLlm, ...]
    quality: Matrix
    output_tokens: Matrix


def train(
    dataset: Dataset, *, settings: TrainingSettings, seed: int, progress: Progress, name: str, version: str
) -> QualityModel:
    """A model of the LLMs in `dataset`: trained on its train split, its intervals calibrated on its val split.

    Raises:
        DatasetError: too few training prompts or labels.
    """
    training, held_out = dataset.in_split("train"), dataset.in_split("val")
    columns = llm_columns(training, labels_min=LABELS_MIN)
    if not columns.llms:
        raise DatasetError(f"no model has {LABELS_MIN} outcomes in the train split, the least a profile needs")
    rng = np.random.default_rng(seed)
    progress("features", 0.0)
    features = fit_features(training.texts, dimension_count=settings.embedding_dimension_count, window=settings.window)
    inputs = feature_matrix(features, training.texts, progress)
    progress("latents", 0.0)
    targets = _targets(training, columns, settings, rng)
    progress("latents", 1.0)
    folds = _folds(training.dedupe_keys, rng)
    booster, latents = _cross_fit(inputs, targets, folds, settings.booster, seed=seed, progress=progress)
    progress("profiles", 0.0)
    fitted = fit_profiles(
        latents[:, :-1],
        columns.quality,
        training.groups,
        loading_variance=settings.loading_variance,
        ease_variance=settings.ease_variance,
    )
    table = _profile_table(fitted, fit_lengths(latents[:, -1], columns.output_tokens))
    model = QualityModel(
        name=name,
        version=version,
        features=features,
        booster=booster,
        profiles=tuple(_profile(llm, dataset) for llm in columns.llms),
        table=table,
        calibration=IntervalCalibration(*UNCALIBRATED, STAND_IN_VARIANCE),
        joining=fit_joining(fitted, latents[:, :-1], training.categories, rng),
    )
    progress("profiles", 1.0)
    return _with_calibration(model, held_out)


def llm_columns(dataset: Dataset, *, labels_min: int) -> LlmColumns:
    """The outcomes by LLM, those with at least `labels_min` known; where several endpoints of one LLM answered a
    prompt, their mean."""
    members: dict[KnownLlm, list[int]] = {}
    for column, endpoint in enumerate(dataset.endpoints):
        members.setdefault(llm_of(endpoint), []).append(column)
    quality = {llm: _known_mean(dataset.quality[:, columns]) for llm, columns in members.items()}
    llms = tuple(
        sorted((llm for llm in members if np.isfinite(quality[llm]).sum() >= labels_min), key=lambda llm: llm.model)
    )
    shape = (len(dataset.texts), 0)
    return LlmColumns(
        llms=llms,
        quality=np.column_stack([quality[llm] for llm in llms]) if llms else np.empty(shape, np.float32),
        output_tokens=np.column_stack([_known_mean(dataset.output_tokens[:, members[llm]]) for llm in llms])
        if llms
        else np.empty(shape, np.float32),
    )


def feature_matrix(features: FeatureExtractor, texts: Strings, progress: Progress) -> Floats:
    """The features of every text, one row each."""
    matrix = np.empty((len(texts), len(features.names)), dtype=np.float32)
    for row, text in enumerate(texts):
        matrix[row] = features(text)
        if row % 200 == 0:
            progress("features", row / len(texts))
    progress("features", 1.0)
    return matrix


def _targets(training: Dataset, columns: LlmColumns, settings: TrainingSettings, rng: np.random.Generator) -> Doubles:
    """What the booster learns: the smoothed latents, and last the length latent (an unknown length is a usual one)."""
    latents = factorise(columns.quality, latent_count=settings.latent_count, rng=rng)
    return np.column_stack(
        (
            smoothed(latents, training.groups, share=settings.category_share),
            np.nan_to_num(length_targets(columns.output_tokens), nan=0.0),
        )
    )


def _folds(dedupe_keys: Strings, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """A fold per prompt; the same question is always in one fold."""
    keys, inverse = np.unique(dedupe_keys.astype(str), return_inverse=True)
    return rng.integers(FOLD_COUNT, size=len(keys))[inverse]


def _cross_fit(
    inputs: Floats,
    targets: Doubles,
    folds: npt.NDArray[np.intp],
    settings: BoosterSettings,
    *,
    seed: int,
    progress: Progress,
) -> tuple[xgboost.Booster, Doubles]:
    """The booster of all rows, and for each row what a booster that never saw its question predicts."""
    predicted = np.empty_like(targets)
    for fold in range(FOLD_COUNT):
        progress("booster", fold / (FOLD_COUNT + 1))
        inside = folds != fold
        booster = fit_booster(inputs[inside], targets[inside], settings, seed=seed)
        if not inside.all():
            predicted[~inside] = booster.inplace_predict(inputs[~inside])
    booster = fit_booster(inputs, targets, settings, seed=seed)
    progress("booster", 1.0)
    return booster, predicted


def fit_booster(inputs: Floats, targets: Doubles, settings: BoosterSettings, *, seed: int) -> xgboost.Booster:
    """Vector-leaf trees: each leaf holds one value per latent, so one pass predicts all of them."""
    return xgboost.train(
        {
            "objective": "reg:squarederror",
            "tree_method": "hist",
            "multi_strategy": "multi_output_tree",
            "base_score": 0.0,
            "max_depth": settings.depth,
            "learning_rate": settings.learning_rate,
            "min_child_weight": settings.child_weight_min,
            "reg_lambda": settings.ridge,
            "subsample": settings.row_share,
            "colsample_bynode": settings.column_share,
            "max_bin": settings.bin_count,
            "seed": seed,
            "nthread": 1,  # the same bytes on every machine, and no spinning threads on a shared one
        },
        xgboost.QuantileDMatrix(inputs, targets, max_bin=settings.bin_count),
        num_boost_round=settings.round_count,
    )


def _profile_table(fitted: FittedProfiles, length: Doubles) -> ProfileTable:
    return ProfileTable(
        weights=fitted.weights.astype(np.float32),
        covariance=fitted.covariance.astype(np.float32),
        length=length.astype(np.float32),
    )


def _profile(llm: KnownLlm, dataset: Dataset) -> Profile:
    return Profile(
        model=llm.model,
        aliases=llm.aliases,
        stand_ins=llm.stand_ins,
        endpoints=tuple(endpoint for endpoint in llm.members if endpoint in dataset.endpoints),
    )


def _known_mean(values: Matrix) -> Floats:
    """The mean of the known entries of each row, NaN where none is known."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(1, known.sum(axis=1)), np.nan).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Cell:
    """What one model made of the held-out prompts of one category, and what was predicted."""

    error: float
    """Observed mean quality minus predicted."""
    noise_variance: float
    """Of the observed mean around the true mean of the cell."""
    slopes: Doubles
    """Per prompt, predicted quality x (1 - predicted quality): what a unit of log-odds is worth."""
    posterior: Doubles
    """Per prompt, the variance of the log-odds that the profile's posterior gives."""

    def standard_error(self, *, scale: float, floor: float) -> float:
        """Of the predicted mean, if the errors of one cell go all the same way."""
        return float((self.slopes * np.sqrt(scale * self.posterior + floor)).mean())


def cells(model: QualityModel, dataset: Dataset) -> list[Cell]:
    """All cells of at least `CELL_SIZE_MIN` prompts: one LLM, one category of one source."""
    columns = llm_columns(dataset, labels_min=CELL_SIZE_MIN)
    row_of = {profile.model: row for row, profile in enumerate(model.profiles)}
    known = [(row_of[llm.model], column) for column, llm in enumerate(columns.llms) if llm.model in row_of]
    if not known:
        return []
    rows = np.array([row for row, _ in known], dtype=np.intp)
    outcomes = columns.quality[:, [column for _, column in known]]
    positions = np.stack([model.latent(text)[0] for text in dataset.texts])
    means = np.stack([success(model.table, model.calibration, rows, p, stand_in=NO_STAND_IN)[0] for p in positions])
    posterior = np.einsum("pi,mij,pj->pm", positions, model.table.covariance[rows], positions, optimize=True)
    groups = dataset.groups
    found = []
    for group in np.unique(groups):
        for column in range(len(known)):
            members = (groups == group) & ~np.isnan(outcomes[:, column])
            if members.sum() < CELL_SIZE_MIN:
                continue
            mean = means[members, column]
            residual = outcomes[members, column] - mean
            found.append(
                Cell(
                    error=float(residual.mean()),
                    noise_variance=float(residual.var(ddof=1) / members.sum()),
                    slopes=mean * (1.0 - mean),
                    posterior=posterior[members, column],
                )
            )
    return found


NO_STAND_IN = np.zeros(1, dtype=np.bool_)


def _with_calibration(model: QualityModel, held_out: Dataset) -> QualityModel:
    """The same model with the variance scale and floor that make the held-out cells most likely."""
    measured = cells(model, held_out) if len(held_out.texts) else []
    if len(measured) < CELL_COUNT_MIN:
        return model
    scale, floor = max(
        ((scale, floor) for scale in VARIANCE_SCALES for floor in VARIANCE_FLOORS),
        key=lambda pair: _log_likelihood(measured, scale=pair[0], floor=pair[1]),
    )
    return QualityModel(
        name=model.name,
        version=model.version,
        features=model.features,
        booster=model.booster,
        profiles=model.profiles,
        table=model.table,
        calibration=IntervalCalibration(float(scale), float(floor), STAND_IN_VARIANCE),
        joining=model.joining,
    )


def _log_likelihood(measured: list[Cell], *, scale: float, floor: float) -> float:
    """Of the cells' errors, as normal with the variance of the prediction and of the sample."""
    total = 0.0
    for cell in measured:
        variance = cell.standard_error(scale=scale, floor=floor) ** 2 + cell.noise_variance + 1e-9
        total -= 0.5 * (np.log(variance) + cell.error**2 / variance)
    return float(total)
