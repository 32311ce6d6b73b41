"""Predicts how well each LLM will answer a prompt, and at what length, from one pass over the prompt.

    text -> features -> linear reading + vector-leaf booster -> latent z          (what the prompt asks of a model; once per prompt)
                                               |
    profile of a model: weights w, covariance C of w              (what the model can do; once per model)
                                               v
    quality = sigmoid(w . [1, z])      standard error = quality (1 - quality) sqrt(a [1, z] C [1, z] + b)

So the cost hardly grows with the number of candidates, and a model joins with a vector. The weights are the posterior
of a hierarchical logistic regression (see `training.profiles`): what the labels of a model do not tell is filled in
from what is common among models, with a wider interval; its loadings shrink to the common ones, where only the means
of the models rank them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from math import isnan

import numpy as np
import numpy.typing as npt
import xgboost

from pointsman_server.decision.risk import RiskTable
from pointsman_server.decision.types import QualityPrediction
from pointsman_server.quality.features import FeatureExtractor
from pointsman_server.quality.joining import Joining, Posterior
from pointsman_server.quality.trees import CompleteTrees

Floats = npt.NDArray[np.float32]

LOG_TOKENS_MAX = 11.5
"""Predicted lengths are cut at e^11.5 = 98,700 tokens, above the output limit of today's endpoints."""

CATALOG_COUNT_MAX = 16
"""How many sequences of model names are remembered with their profiles: a server asks for its whole catalog each time,
so this many catalogs can alternate. One of 20 models takes about 20 kB."""


def normalised(model: str) -> str:
    """The form in which model names are compared: lower case, without a vendor before the last slash."""
    return model.lower().rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Profile:
    """Under which names a row of `ProfileTable` is found."""

    model: str
    """The trained LLM, normalised."""
    aliases: tuple[str, ...] = ()
    """Other names of the same LLM, normalised."""
    stand_ins: tuple[str, ...] = ()
    """Newer relatives without training data, which borrow this profile with a wider interval, normalised."""
    endpoints: tuple[tuple[str, str], ...] = ()
    """(source, model as that source writes it) pairs from whose outcomes this profile was fitted."""


@dataclass(frozen=True, slots=True)
class ProfileTable:
    """What every trained LLM can do, one row each. Memory: about 0.7 kB per row for 12 latents."""

    weights: Floats
    """(models, 1 + latents): log-odds of a good answer at the mean prompt, and per unit of each latent."""
    covariance: Floats
    """(models, 1 + latents, 1 + latents): posterior covariance of the weights."""
    length: Floats
    """(models, 2): log of the expected output tokens at the mean prompt, and per unit of the length latent; NaN where
    no source gives the lengths of that model."""

    def __post_init__(self) -> None:
        rows, columns = self.weights.shape
        assert self.covariance.shape == (rows, columns, columns), "one covariance per row of weights"
        assert self.length.shape == (rows, 2), "an intercept and a slope per row"


@dataclass(frozen=True, slots=True)
class JoinedProfile:
    """The profile of an LLM that joins a trained model."""

    model: str
    """Its name, normalised."""
    posterior: Posterior
    length: tuple[float, float]
    """As a row of `ProfileTable.length`."""


@dataclass(frozen=True, slots=True)
class IntervalCalibration:
    """How the posterior variance becomes an honest interval; fitted on held-out cells (see `standard_errors`)."""

    variance_scale: float
    """Factor on the variance that the profile's posterior gives, in log-odds squared."""
    variance_floor: float
    """Added to it: the error that all profiles share because the latent is itself a prediction, log-odds squared."""
    stand_in_variance: float
    """Added for a stand-in: how far an LLM is from its nearest trained relative, log-odds squared."""


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The profiles of the known ones among some model names, side by side."""

    names: tuple[str, ...]
    """As they were asked."""
    weights: Floats
    covariance: Floats
    length_intercept: Floats
    length_slope: Floats
    extra_variance: npt.NDArray[np.float64]
    """What a stand-in's variance has on top, log-odds squared."""


@dataclass(frozen=True)
class QualityModel:
    """A loaded quality artifact. Immutable; safe to call from several threads; one thread per call."""

    name: str
    version: str
    features: FeatureExtractor
    booster: xgboost.Booster
    """Maps a feature vector to what its linear reading lacks of the latents and, as the last output, of the length
    latent."""
    profiles: tuple[Profile, ...]
    table: ProfileTable
    """Rows in the order of `profiles`."""
    calibration: IntervalCalibration
    joining: Joining
    """What it takes for an LLM to join."""
    risk_table: RiskTable | None = None
    """How likely candidates fall short of the best one; None where too few held-out prompts could tell."""
    _row_of: Mapping[str, tuple[int, bool]] = field(init=False, repr=False)
    """Normalised name to its row and whether it is a stand-in."""
    _share_count: int = field(init=False, repr=False)
    """How many shares of categories the profiles see beside the latents."""
    _trees: CompleteTrees = field(init=False, repr=False)
    """The booster, as it is walked for one prompt."""
    _candidates: Callable[[tuple[str, ...]], _Candidates] = field(init=False, repr=False, compare=False)
    """`_gathered`, remembered for the last `CATALOG_COUNT_MAX` sequences of names."""

    def __post_init__(self) -> None:
        assert len(self.profiles) == len(self.table.weights), "one row per profile"
        seen = self.table.weights.shape[1] - self.features.ngrams.latent_count
        assert seen in {0, self.features.ngrams.category_count}, "profiles see the shares of all categories or none"
        object.__setattr__(self, "_share_count", seen)
        self.booster.set_param({"nthread": 1})
        object.__setattr__(self, "_trees", CompleteTrees.of(self.booster))
        _index_profiles(self)

    @property
    def models(self) -> frozenset[str]:
        """Every name that `predict` knows, aliases and stand-ins included, normalised."""
        return frozenset(self._row_of)

    def found(self, name: str) -> tuple[int, bool] | None:
        """The row of the profile that answers for this model, and whether as a stand-in; None if there is none."""
        return self._row_of.get(normalised(name))

    def with_profiles(self, joined: Sequence[JoinedProfile], *, version: str | None = None) -> QualityModel:
        """The same model with these profiles besides its own, which stay as they are. It shares features and booster.

        A profile of the same name is replaced; a name that another profile answered to, as an alias or a stand-in, is
        taken from it.
        """
        names = {p.model for p in joined}
        assert len(names) == len(joined), "each model joins once"
        kept = [row for row, profile in enumerate(self.profiles) if profile.model not in names]
        former = {profile.model: profile for profile in self.profiles}
        model = copy(self)
        own = (_without_names(self.profiles[row], names) for row in kept)
        new = (replace(_without_names(former.get(p.model, Profile(p.model)), names), endpoints=()) for p in joined)
        table = ProfileTable(
            weights=_extended(self.table.weights[kept], [p.posterior.weights for p in joined]),
            covariance=_extended(self.table.covariance[kept], [p.posterior.covariance for p in joined]),
            length=_extended(self.table.length[kept], [np.array(p.length, dtype=np.float32) for p in joined]),
        )
        object.__setattr__(model, "profiles", (*own, *new))
        object.__setattr__(model, "table", table)
        object.__setattr__(model, "version", self.version if version is None else version)
        _index_profiles(model)
        return model

    def predict(self, text: str, models: Sequence[str]) -> Mapping[str, QualityPrediction]:
        """What to expect of each of these models on this prompt, by the names given.

        A model that the artifact does not know is absent. A prediction's `mean` is the calibrated probability of a
        good answer. Its `standard_error` is the uncertainty of that probability, not the spread of one outcome: over
        held-out cells of one model and one category of prompts, the true mean quality of the cell lies within
        1.645 standard errors of the predicted mean in 90 % of cells (the sampling noise of the cell taken out).
        """
        candidates = self._candidates(tuple(models))
        if not candidates.names:
            return {}
        position, length_latent = self.latent(text)
        mean, error = _success(
            self.calibration,
            weights=candidates.weights,
            covariance=candidates.covariance,
            extra_variance=candidates.extra_variance,
            position=position,
        )
        log_tokens = np.minimum(candidates.length_intercept + candidates.length_slope * length_latent, LOG_TOKENS_MAX)
        counts = [None if isnan(count) else count for count in np.exp(log_tokens).tolist()]
        predictions = map(_new_prediction, zip(mean.tolist(), error.tolist(), counts, strict=True))
        return dict(zip(candidates.names, predictions, strict=True))

    def latent(self, text: str) -> tuple[Floats, float]:
        """Where the prompt lies: [1, z] for the profiles, with the shares of the categories where they see them, and the
        length latent."""
        vector = self.features(text)
        output = self._trees.predict(vector) + self.features.base(vector)
        shares = vector[len(vector) - self._share_count :]
        return np.concatenate((_ONE, output[:-1], shares)), float(output[-1])


_new_prediction: Callable[[tuple[float, float, float | None]], QualityPrediction] = partial(
    tuple.__new__, QualityPrediction
)
_ONE = np.ones(1, dtype=np.float32)


def _index_profiles(model: QualityModel) -> None:
    """Derives what depends on the profiles of a model that is being made."""
    rows: dict[str, tuple[int, bool]] = {}
    for row, profile in enumerate(model.profiles):
        for name in (profile.model, *profile.aliases, *profile.stand_ins):
            assert name == normalised(name), name
            assert name not in rows, f"{name} names two profiles"
            rows[name] = (row, name in profile.stand_ins)
    gathered = partial(_gathered, rows, model.table, model.calibration)
    object.__setattr__(model, "_row_of", rows)
    object.__setattr__(model, "_candidates", lru_cache(maxsize=CATALOG_COUNT_MAX)(gathered))


def _without_names(profile: Profile, names: set[str]) -> Profile:
    """The profile without these among its aliases and stand-ins."""
    return replace(
        profile,
        aliases=tuple(name for name in profile.aliases if name not in names),
        stand_ins=tuple(name for name in profile.stand_ins if name not in names),
    )


def _extended(rows: Floats, more: Sequence[Floats]) -> Floats:
    return np.concatenate((rows, np.stack(more))) if more else rows


def success(
    table: ProfileTable,
    calibration: IntervalCalibration,
    rows: npt.NDArray[np.intp],
    position: Floats,
    *,
    stand_in: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Probability of a good answer and its standard error, for these rows of the table at one position [1, z]."""
    extra_variance = calibration.stand_in_variance * stand_in.astype(np.float64)
    return _success(
        calibration,
        weights=table.weights[rows],
        covariance=table.covariance[rows],
        extra_variance=extra_variance,
        position=position,
    )


def _success(
    calibration: IntervalCalibration,
    *,
    weights: Floats,
    covariance: Floats,
    extra_variance: npt.NDArray[np.float64],
    position: Floats,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """`success` of profiles that are already side by side."""
    mean = 1.0 / (1.0 + np.exp(-(weights @ position).astype(np.float64)))
    posterior = (covariance @ position) @ position
    variance = calibration.variance_scale * np.maximum(posterior, 0.0) + calibration.variance_floor + extra_variance
    return mean, mean * (1.0 - mean) * np.sqrt(variance)


def _gathered(
    row_of: Mapping[str, tuple[int, bool]],
    table: ProfileTable,
    calibration: IntervalCalibration,
    models: tuple[str, ...],
) -> _Candidates:
    """The profiles of those models that `row_of` knows, in their order."""
    found = {model: row_of.get(model) or row_of.get(normalised(model)) for model in models}
    known = {model: row for model, row in found.items() if row is not None}
    rows = np.array([row for row, _ in known.values()], dtype=np.intp)
    stand_in = np.array([is_stand_in for _, is_stand_in in known.values()], dtype=np.float64)
    return _Candidates(
        names=tuple(known),
        weights=table.weights[rows],
        covariance=table.covariance[rows],
        length_intercept=table.length[rows, 0],
        length_slope=table.length[rows, 1],
        extra_variance=calibration.stand_in_variance * stand_in,
    )
