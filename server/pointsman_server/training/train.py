"""From labelled prompts to a quality model, in six steps.

features     fit the word table, read every prompt
latents      factorise the outcomes; smooth by category (`factors`)
wording      learn the latents from words and pairs of words (`wording`)
booster      learn what the wording leaves of the latents; both cross-fitted, so that what is said of a prompt comes from
             regressions and trees that never saw its question
profiles     fit every LLM to the cross-fitted latents (`profiles`): its loadings meet latents as good as in service
promises     calibrate intervals and risks on the held-out prompts
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import xgboost
from scipy.sparse import csr_matrix

from pointsman_server.quality.features import FeatureExtractor, Window, WordTable, pieces_of, plain_features
from pointsman_server.quality.model import IntervalCalibration, Profile, ProfileTable, QualityModel, success
from pointsman_server.quality.ngrams import NgramTable
from pointsman_server.training.checkpoints import Recall, computed
from pointsman_server.training.dataset import Dataset, DatasetError, Matrix, Strings
from pointsman_server.training.embedding import fit_word_table
from pointsman_server.training.factors import factorise, smoothed
from pointsman_server.training.joining import fit_joining
from pointsman_server.training.llms import KnownLlm, llm_of
from pointsman_server.training.profiles import (
    FittedProfiles,
    Located,
    Spread,
    chosen_spread,
    fit_lengths,
    fit_profiles,
    length_targets,
)
from pointsman_server.training.risk import calibrate
from pointsman_server.training.wording import fit_wording, membership, ngram_counts

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
    depth: int = 3
    learning_rate: float = 0.03
    child_weight_min: float = 60.0
    ridge: float = 40.0
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
    sees_categories: bool = True
    """Whether the profiles see the shares of the categories beside the latents. They are nearly free of noise, so they tell
    the best models apart; over several sources they would tell the sources apart instead, see `build`."""
    loading_variance: float | None = None
    """How much models differ in what a prompt's latents mean to them, per whitened latent, log-odds squared. None chooses it,
    and how much they differ by category, by cross-validation, as suits one source in which every model answered every kind of prompt; see `build` for several."""
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
    weight: Matrix | None
    """How many labels each of `quality` counts as; None: one."""


def train(
    dataset: Dataset,
    *,
    settings: TrainingSettings,
    seed: int,
    progress: Progress,
    name: str,
    version: str,
    recall: Recall = computed,
) -> QualityModel:
    """A model of the LLMs in `dataset`: trained on its train split, its intervals calibrated on its val split.

    Args:
        dataset: with all its splits.
        settings: what shapes the model.
        seed: of everything that is drawn. The same data, settings and seed give the same model.
        progress: told how far it is.
        name: of the model.
        version: of the model.
        recall: remembers the pieces that take long; those of another data set, settings or seed must not be among them.

    Raises:
        DatasetError: too few training prompts or labels.
    """
    training, held_out = dataset.in_split("train"), dataset.in_split("val")
    columns = llm_columns(training, labels_min=LABELS_MIN)
    if not columns.llms:
        raise DatasetError(f"no model has {LABELS_MIN} outcomes in the train split, the least a profile needs")
    rng = np.random.default_rng(seed)
    reader = _fit_reader(training, columns, settings, rng, seed=seed, progress=progress, recall=recall)
    progress("profiles", 0.0)
    if settings.loading_variance is None:
        spread = chosen_spread(reader.located, columns.quality, reader.folds, ease_variance=settings.ease_variance)
    else:
        spread = Spread(settings.loading_variance)
    fitted = fit_profiles(
        reader.located,
        columns.quality,
        columns.weight,
        spread=spread,
        ease_variance=settings.ease_variance,
    )
    model = QualityModel(
        name=name,
        version=version,
        features=reader.features,
        booster=reader.booster,
        profiles=tuple(_profile(llm, dataset) for llm in columns.llms),
        table=_profile_table(fitted, fit_lengths(reader.length_latent, columns.output_tokens)),
        calibration=IntervalCalibration(*UNCALIBRATED, STAND_IN_VARIANCE),
        joining=fit_joining(fitted, reader.located.rows, training.categories, rng),
    )
    progress("profiles", 1.0)
    return _with_risks(_with_calibration(model, held_out), held_out, rng)


@dataclass(frozen=True, slots=True)
class _Reader:
    """What tells where a prompt lies, and where the training prompts do by what never saw their questions."""

    features: FeatureExtractor
    booster: xgboost.Booster
    located: Located
    """The training prompts, as the profiles see them."""
    length_latent: Doubles
    """(prompts,)."""
    folds: npt.NDArray[np.intp]
    """Of the training prompts."""


def _fit_reader(
    training: Dataset,
    columns: LlmColumns,
    settings: TrainingSettings,
    rng: np.random.Generator,
    *,
    seed: int,
    progress: Progress,
    recall: Recall,
) -> _Reader:
    """Learns the latents of the training prompts from their texts."""
    progress("features", 0.0)
    table = fit_word_table(training.texts, dimension_count=settings.embedding_dimension_count, window=settings.window)
    read = _read(table, settings.window, training.texts, progress)
    progress("latents", 0.0)
    targets = _targets(training, columns, settings, rng)
    progress("latents", 1.0)
    folds = _folds(training.dedupe_keys, rng)
    ngrams, readings = _cross_read(
        read.counts, targets.plain, membership(training.groups), folds, progress=progress, recall=recall
    )
    features = FeatureExtractor(table, ngrams, settings.window)
    shares = readings[:, readings.shape[1] - ngrams.category_count :].astype(np.float64)
    # The trees read what comes before the shares, which repeat what the reading by category says.
    inputs = np.concatenate((read.plain, readings[:, : 2 * ngrams.latent_count]), axis=1)
    booster, latents = _cross_fit(
        inputs,
        targets.smooth,
        features.base(inputs),
        folds,
        settings.booster,
        seed=seed,
        progress=progress,
        recall=recall,
    )
    located = Located(latents[:, :-1], shares if settings.sees_categories else shares[:, :0], training.groups)
    return _Reader(features, booster, located, length_latent=latents[:, -1], folds=folds)


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
    weight = None if dataset.weight is None else np.where(np.isnan(dataset.quality), np.nan, dataset.weight)
    return LlmColumns(
        llms=llms,
        quality=np.column_stack([quality[llm] for llm in llms]) if llms else np.empty(shape, np.float32),
        output_tokens=np.column_stack([_known_mean(dataset.output_tokens[:, members[llm]]) for llm in llms])
        if llms
        else np.empty(shape, np.float32),
        weight=None
        if weight is None or not llms
        else np.column_stack([_known_mean(weight[:, members[llm]]) for llm in llms]),
    )


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of the training prompts, before anything is learned from their labels."""

    plain: Floats
    """(prompts, plain features)."""
    counts: csr_matrix
    """(prompts, buckets): words and pairs of words."""


def _read(table: WordTable, window: Window, texts: Strings, progress: Progress) -> _Read:
    """Every text, as the model will read it."""
    plain, hashes = [], []
    for row, text in enumerate(texts):
        part = window.of(text)
        words = table.read(pieces_of(part))
        plain.append(plain_features(table, part, words, character_count=len(text)))
        hashes.append(words.hashes)
        if row % 200 == 0:
            progress("features", row / len(texts))
    progress("features", 1.0)
    return _Read(np.stack(plain), ngram_counts(hashes))


@dataclass(frozen=True, slots=True)
class _Targets:
    """What there is to learn of each training prompt, (prompts, latents + 1): the latents, and last the length latent (an
    unknown length is a usual one)."""

    plain: Doubles
    smooth: Doubles
    """Moved towards the mean of the category."""


def _targets(training: Dataset, columns: LlmColumns, settings: TrainingSettings, rng: np.random.Generator) -> _Targets:
    latents = factorise(columns.quality, latent_count=min(settings.latent_count, len(columns.llms)), rng=rng)
    length = np.nan_to_num(length_targets(columns.output_tokens), nan=0.0)
    smooth = smoothed(latents, training.groups, share=settings.category_share)
    return _Targets(np.column_stack((latents, length)), np.column_stack((smooth, length)))


def _cross_read(
    counts: csr_matrix,
    targets: Doubles,
    members: Floats,
    folds: npt.NDArray[np.intp],
    *,
    progress: Progress,
    recall: Recall,
) -> tuple[NgramTable, Floats]:
    """The linear reading of all rows, and for each row what one that never saw its question says of it."""
    readings = np.zeros((len(targets), 2 * targets.shape[1] + members.shape[1]), dtype=np.float32)
    for fold in range(FOLD_COUNT):
        progress("wording", fold / (FOLD_COUNT + 1))
        inside = folds != fold
        if inside.any() and not inside.all():
            parts = counts[inside], targets[inside], members[inside]
            others = counts[~inside]
            readings[~inside] = recall(f"wording-{fold}", partial(_read_others, parts, others))
    table = fit_wording(counts, targets, members).table()
    progress("wording", 1.0)
    return table, readings


def _read_others(known: tuple[csr_matrix, Doubles, Floats], asked: csr_matrix) -> Floats:
    """What a reading fitted to some prompts says of others."""
    return fit_wording(*known).read(asked)


def _folds(dedupe_keys: Strings, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """A fold per prompt; the same question is always in one fold."""
    keys, inverse = np.unique(dedupe_keys.astype(str), return_inverse=True)
    return rng.integers(FOLD_COUNT, size=len(keys))[inverse]


def _cross_fit(
    inputs: Floats,
    targets: Doubles,
    base: Floats,
    folds: npt.NDArray[np.intp],
    settings: BoosterSettings,
    *,
    seed: int,
    progress: Progress,
    recall: Recall,
) -> tuple[xgboost.Booster, Doubles]:
    """The booster that adds to the `base` of all rows, and for each row the latents that one that never saw its question
    predicts."""
    predicted, lacking = base.astype(np.float64), targets - base
    for fold in range(FOLD_COUNT):
        progress("booster", fold / (FOLD_COUNT + 1))
        inside = folds != fold
        if inside.any() and not inside.all():
            raw = recall(f"booster-{fold}", partial(_raw_booster, inputs[inside], lacking[inside], settings, seed))
            predicted[~inside] += _booster(raw).inplace_predict(inputs[~inside])
    booster = _booster(recall("booster", partial(_raw_booster, inputs, lacking, settings, seed)))
    progress("booster", 1.0)
    return booster, predicted


def _raw_booster(inputs: Floats, targets: Doubles, settings: BoosterSettings, seed: int) -> npt.NDArray[np.uint8]:
    """A booster's bytes."""
    return np.frombuffer(fit_booster(inputs, targets, settings, seed=seed).save_raw("ubj"), dtype=np.uint8)


def _booster(raw: npt.NDArray[np.uint8]) -> xgboost.Booster:
    return xgboost.Booster({"nthread": 1}, model_file=bytearray(raw.tobytes()))


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
    return replace(model, calibration=IntervalCalibration(float(scale), float(floor), STAND_IN_VARIANCE))


def _with_risks(model: QualityModel, held_out: Dataset, rng: np.random.Generator) -> QualityModel:
    """The same model with what the held-out prompts show of falling short of the best candidate."""
    columns = llm_columns(held_out, labels_min=1)
    row_of = {profile.model: row for row, profile in enumerate(model.profiles)}
    known = [column for column, llm in enumerate(columns.llms) if llm.model in row_of]
    if not known:
        return model
    rows = np.array([row_of[columns.llms[column].model] for column in known], dtype=np.intp)
    predicted = [
        success(model.table, model.calibration, rows, model.latent(text)[0], stand_in=NO_STAND_IN)[0]
        for text in held_out.texts
    ]
    observed = columns.quality[:, known].astype(np.float64)
    return replace(model, risk_table=calibrate(np.stack(predicted), observed, held_out.sources, rng=rng))


def _log_likelihood(measured: list[Cell], *, scale: float, floor: float) -> float:
    """Of the cells' errors, as normal with the variance of the prediction and of the sample."""
    total = 0.0
    for cell in measured:
        variance = cell.standard_error(scale=scale, floor=floor) ** 2 + cell.noise_variance + 1e-9
        total -= 0.5 * (np.log(variance) + cell.error**2 / variance)
    return float(total)
