"""How models join a trained quality model: what training keeps for them, and the profile of one from its own labels.

A published score is turned into a profile by the server itself (`quality.joining`); labels are fitted here, once, under
the same prior.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import isnan

import numpy as np
import numpy.typing as npt

from pointsman_server.quality.joining import (
    ANCHOR_COUNT,
    BENCHMARK_COUNT_MAX,
    BENCHMARK_PROMPTS_MIN,
    Floats,
    Joining,
    Posterior,
)
from pointsman_server.quality.joining import Prior as JoiningPrior
from pointsman_server.quality.model import JoinedProfile, QualityModel, normalised
from pointsman_server.quality.published import fitting, starting_prior, usual_length
from pointsman_server.training.dataset import Dataset, DatasetError, Matrix, Strings
from pointsman_server.training.profiles import FittedProfiles, Prior, fit_profile

Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

CALIBRATION_LABELS_MIN = 20
"""Fewer labels move a profile by less than its interval is wide."""
SPREAD_SCALES = ((1.0, 0.5), (4.0, 0.3), (16.0, 0.2))
"""Factors on the variance between models, and how likely each is beforehand: most models are like the trained ones, and
one in a few is odd, such as one that gets the format of answers wrong. With the first alone the labels of such a model
are worth half as much (docs/quality.md)."""
LENGTH_LABELS_MIN = 5
"""With fewer known lengths a model's length is the pool's."""
VERSION_DIGEST_LENGTH = 8
"""Hexadecimal digits: no two calibrations of one artifact will share them."""
LENGTH_VARIANCE_MIN = 0.05
"""Between models, squared log tokens, where too few lengths are known to tell: models differ by a quarter at least."""


def fit_joining(fitted: FittedProfiles, positions: Doubles, categories: Strings, rng: np.random.Generator) -> Joining:
    """What an artifact keeps for models that join.

    Args:
        fitted: the profiles, fitted on these prompts.
        positions: of each prompt, (prompts, 1 + latents + categories), cross-fitted: as good as those of a prompt never
            seen.
        categories: of each prompt, `benchmark/category` or either of them.
        rng: draws the anchors.
    """
    common = fitted.common
    members = benchmark_members(categories)
    rows = positions / common.slope
    offsets = common.ease - common.shift / common.slope
    drawn = [rng.choice(prompts, ANCHOR_COUNT, replace=len(prompts) < ANCHOR_COUNT) for prompts in members.values()]
    index = np.array(drawn, dtype=np.intp).reshape(len(members), ANCHOR_COUNT)
    return Joining(
        prior_mean=common.mean.astype(np.float32),
        prior_factor=common.factor.astype(np.float32),
        benchmarks=tuple(members),
        anchors=rows[index].astype(np.float32),
        offsets=offsets[index].astype(np.float32),
    )


def benchmark_members(categories: Strings) -> dict[str, Rows]:
    """The prompts of every benchmark, and of its categories where it has several, by name in lower case, sorted.

    Those with too few prompts are left out, and of more than `BENCHMARK_COUNT_MAX` the smallest.
    """
    lower = np.array([category.lower() for category in categories], dtype=object)
    wholes = np.array([category.partition("/")[0] for category in lower], dtype=object)
    members = {name: np.flatnonzero(wholes == name) for name in sorted(set(wholes)) if name}
    for name in sorted(set(lower) - set(members)):
        part = np.flatnonzero(lower == name)
        if name and len(part) < len(members[name.partition("/")[0]]):
            members[name] = part
    large = sorted(
        (name for name in members if len(members[name]) >= BENCHMARK_PROMPTS_MIN),
        key=lambda name: (-len(members[name]), name),
    )
    return {name: members[name] for name in sorted(large[:BENCHMARK_COUNT_MAX])}


@dataclass(frozen=True, slots=True)
class Calibration:
    """A model that has joined by its labels, and what that rests on."""

    model: QualityModel
    """The new one; its other profiles are the old ones, bit for bit."""
    joined: str
    """The name under which it joined, normalised."""
    relative: str | None
    """The model from whose profile it started."""
    label_count: int
    length_count: int
    quality_mean: float
    """Of its labels."""


def calibrate(
    model: QualityModel, dataset: Dataset, *, name: str, relative: str | None = None, replace: bool = False
) -> Calibration:
    """`model` with a profile of the LLM `name`, fitted to the outcomes that `dataset` has of it.

    Args:
        model: what it joins.
        dataset: its labelled prompts; other models' outcomes in it are not looked at.
        name: as the outcomes and the catalog call it.
        relative: a model that `model` knows, of which this one is a near relative: it starts from that one's profile.
            None: the one whose stand-in it is, if it is any.
        replace: it may take the place of a profile of that name.

    Raises:
        DatasetError: it has too few labels, or a name is not what it should be.
    """
    _check_names(model, name, relative=relative, replace=replace)
    if relative is None and (found := model.found(name)) is not None and found[1]:
        relative = model.profiles[found[0]].model
    quality, tokens, weight = _outcomes_of(dataset, name)
    known = ~np.isnan(quality)
    if (count := int(known.sum())) < CALIBRATION_LABELS_MIN:
        raise DatasetError(f"{count} labels of {name} are too few: at least {CALIBRATION_LABELS_MIN} are needed")
    read = [model.latent(text) for text in dataset.texts[known]]
    positions = np.stack([position for position, _ in read]).astype(np.float64)
    counted = weight[known]
    posterior = posterior_of_labels(starting_prior(model, relative), positions, quality[known], counted)
    length_latent = np.array([latent for _, latent in read])
    length = joined_length(model.table.length, length_latent, tokens[known])
    joined = JoinedProfile(normalised(name), fitting(model, posterior), length)
    names = f"{normalised(name)}\n{relative}"
    if (counted != 1.0).any():
        names += f"\n{counted.tolist()}"
    version = _version(model, dataset.texts[known], quality[known], tokens[known], names)
    return Calibration(
        model=model.with_profiles([joined], version=version),
        joined=joined.model,
        relative=relative,
        label_count=count,
        length_count=int(np.isfinite(tokens[known]).sum()),
        quality_mean=float(np.average(quality[known], weights=counted)),
    )


def posterior_of_labels(
    prior: JoiningPrior,
    positions: Doubles,
    quality: npt.NDArray[np.float32],
    counted: npt.NDArray[np.float32] | None = None,
) -> Posterior:
    """The profile of a model from its labels (0..1) at these positions [1, z], whose ease is unknown. Each counts as so
    many labels as `counted` says; None: one.

    How far the model may be from the prior's mean is learned from its labels as well: each of `SPREAD_SCALES` counts by
    how likely it makes them (Laplace), so a model like the others keeps what these have in common, and an odd one is
    free to differ after a few dozen labels.
    """
    modes, covariances, evidence = [], [], []
    count = np.ones(len(quality)) if counted is None else counted.astype(np.float64)
    for scale, share in SPREAD_SCALES:
        factor = prior.factor * np.sqrt(scale)
        size = factor.shape[1]
        offset = positions @ prior.mean
        standard = Prior(mean=np.zeros(size), precision=np.eye(size))
        u, covariance = fit_profile(
            positions @ factor, quality, standard, standard.mean, offset=offset, counted=counted
        )
        odds = offset + positions @ factor @ u
        likelihood = float((count * (quality * odds - np.logaddexp(0.0, odds))).sum())
        evidence.append(likelihood - 0.5 * u @ u + 0.5 * np.linalg.slogdet(covariance)[1] + np.log(share))
        modes.append(prior.mean + factor @ u)
        covariances.append(factor @ covariance @ factor.T)
    shares = np.exp(np.array(evidence) - max(evidence))
    shares /= shares.sum()
    weights = shares @ np.stack(modes)
    apart = np.stack(modes) - weights
    covariance = np.einsum("k,kij->ij", shares, np.stack(covariances)) + (shares * apart.T) @ apart
    return Posterior(weights=weights.astype(np.float32), covariance=covariance.astype(np.float32))


def joined_length(pool: Floats, length_latent: Doubles, output_tokens: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Log of the expected output tokens at length latent 0, and per unit; NaN where nothing tells.

    The slope is that of the `pool` (models, 2), which few lengths can't tell from the model's own; the intercept is
    shrunk to the pool's by how well its lengths tell it.
    """
    known = np.isfinite(output_tokens)
    usual, slope = usual_length(pool)
    if (count := int(known.sum())) < LENGTH_LABELS_MIN:
        return usual, slope
    has_pool = not isnan(usual)
    slope = slope if has_pool else 1.0
    tokens, scale = output_tokens[known].astype(np.float64), np.exp(slope * length_latent[known])
    own = float(np.log(max(1.0, tokens.mean()) / scale.mean()))
    if not has_pool:
        return own, slope
    noise = float(np.var(np.log1p(tokens) - np.log(scale), ddof=1)) / count
    between = max(LENGTH_VARIANCE_MIN, float(np.nanvar(pool[:, 0])))
    return (between * own + noise * usual) / (between + noise), slope


def _check_names(model: QualityModel, name: str, *, relative: str | None, replace: bool) -> None:
    if relative is not None and normalised(relative) not in model.models:
        raise DatasetError(f"the artifact does not know {relative}, of which {name} is to be a relative")
    found = model.found(name)
    if found is not None and not found[1] and not replace:
        profile = model.profiles[found[0]].model
        known_as = "" if profile == normalised(name) else f", as {profile}"
        raise DatasetError(f"the artifact knows {name} by its labels already{known_as}; --replace takes these instead")


def _outcomes_of(
    dataset: Dataset, name: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Quality, output tokens and weights of the endpoints of that name, by prompt; NaN unknown."""
    wanted = normalised(name)
    columns = [column for column, (_, model) in enumerate(dataset.endpoints) if normalised(model) == wanted]
    if not columns:
        found = sorted({model for _, model in dataset.endpoints})
        raise DatasetError(f"there are no outcomes of {name}, only of {', '.join(found[:5])}")
    quality = dataset.quality[:, columns]
    told = np.ones_like(quality) if dataset.weight is None else dataset.weight[:, columns]
    weight = np.where(np.isnan(quality), np.nan, told)
    return _first_known(quality), _first_known(dataset.output_tokens[:, columns]), _first_known(weight)


def _first_known(values: Matrix) -> npt.NDArray[np.float32]:
    """The one known entry of each row: a prompt is of one source, in which a model occurs once."""
    known = ~np.isnan(values)
    return np.where(known.any(axis=1), values[np.arange(len(values)), known.argmax(axis=1)], np.nan).astype(np.float32)


def _version(model: QualityModel, texts: Strings, quality: Matrix, tokens: Matrix, names: str) -> str:
    """The old version and a hash of all that the new profile depends on: the same evidence gives the same version."""
    digest = hashlib.sha256(f"{model.version}\n{names}".encode())
    for text, label, length in sorted(zip(texts, quality.tolist(), tokens.tolist(), strict=True), key=repr):
        digest.update(repr((text, label, length)).encode("utf-8", "replace"))
    return f"{model.version.partition('+')[0]}+{digest.hexdigest()[:VERSION_DIGEST_LENGTH]}"
