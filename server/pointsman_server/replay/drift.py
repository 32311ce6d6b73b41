"""Does the quality model still fit the traffic? What callers report against what was predicted, and early against late.

A calibrated prediction stays calibrated whoever is chosen by it, because the choice looks at nothing but predictions. So
reported less predicted quality must be zero on average, for every model, early and late. Prompts may change without that:
then the model is asked what it has not shown to know, and calibration is the next to go. Differences count only if they
are larger than chance makes them, with every comparison that is made taken into account (Holm, 1979), and large enough to
matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from pointsman_server.decision_log.reader import LoggedRequest
from pointsman_server.quality.features import SURFACE_NAMES
from pointsman_server.replay.estimate import Estimate, mean_of

Doubles = npt.NDArray[np.float64]

SIGNIFICANCE = 0.05
"""Probability that anything at all is found where nothing is to be found."""
BIAS_MIN = 0.03
"""Of quality: less is within what the models of one make differ by, and no reason to train anew."""
DISTANCE_MIN = 0.1
"""Largest difference of two cumulative distributions: a tenth of the prompts lies elsewhere."""
LABELS_MIN = 30
"""Of a model, so that its mean is about normal."""
DECISIONS_MIN = 100
"""In either half of the log, before prompts are compared."""
INPUT_TOKENS = "input_tokens"
BEST_QUALITY = "best_predicted_quality"
"""Names of what is compared beside the surface features."""
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bias:
    """Reported less predicted quality of some answers."""

    of: str
    """The model; of all together `all`, of the difference of the later to the earlier half `later - earlier`."""
    label_count: int
    predicted: float
    """Mean."""
    reported: float
    """Mean."""
    bias: Estimate
    is_off: bool
    """By more than chance and `BIAS_MIN`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """A trait of prompts, early and late."""

    of: str
    earlier: float
    """Median."""
    later: float
    """Median."""
    distance: float
    """Kolmogorov's and Smirnov's: the largest difference of the two cumulative distributions, 0..1."""
    has_shifted: bool
    """By more than chance and `DISTANCE_MIN`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What a log says of the quality model."""

    artifact: str
    """Of the last decision, name@version; the decisions of others are left out."""
    decision_count: int
    other_count: int
    """Left out: decided by another artifact."""
    biases: tuple[Bias, ...]
    """All, later less earlier, then by model; empty with too few labels."""
    shifts: tuple[Shift, ...]
    """The farthest first; empty with too few decisions."""

    @property
    def fits(self) -> bool | None:
        """Whether nothing speaks against the model; None where there is too little to say so."""
        if any(bias.is_off for bias in self.biases):
            return False
        return True if self.biases else None


@dataclass(slots=True)
class _Part:
    """What was read of the decisions of one artifact."""

    traits: list[tuple[float, ...]] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)
    reported: list[float] = field(default_factory=list)


def drift(requests: Iterable[LoggedRequest]) -> Drift:
    """What the requests say of the artifact that the last of them was decided by. Memory: 0.6 kB for each."""
    parts: dict[str, _Part] = {}
    artifact, count = "", 0
    for request in requests:
        artifact, count = request.decision.given.quality_artifact, count + 1
        _add(parts.setdefault(artifact, _Part()), request)
    part = parts.get(artifact, _Part())
    return Drift(
        artifact=artifact,
        decision_count=len(part.traits),
        other_count=count - len(part.traits),
        biases=_biases(part),
        shifts=_shifts(np.array(part.traits, dtype=np.float64)),
    )


def _add(part: _Part, request: LoggedRequest) -> None:
    logged = request.decision
    best = max((quality.mean for quality in logged.given.qualities.values()), default=math.nan)
    surface = logged.prompt.surface
    known = surface if len(surface) == len(SURFACE_NAMES) else (math.nan,) * len(SURFACE_NAMES)
    part.traits.append((float(logged.given.facts.input_token_count), best, *known))
    answered_by = request.answered_by
    found = [each for each in logged.decision.candidates if each.endpoint.name == answered_by]
    if request.quality is not None and found and found[0].quality is not None:
        part.models.append(found[0].endpoint.model)
        part.predicted.append(found[0].quality.mean)
        part.reported.append(request.quality)


def _biases(part: _Part) -> tuple[Bias, ...]:
    """Of all, of late against early, and of every model with enough labels; tested together."""
    count = len(part.reported)
    if count < LABELS_MIN:
        return ()
    predicted, reported, models = np.array(part.predicted), np.array(part.reported), np.array(part.models, dtype=object)
    groups = {"all": np.ones(count, dtype=np.bool_)}
    groups |= {str(name): models == name for name in sorted(set(part.models))}
    found = [
        (name, own, mean_of((reported - predicted)[own], effective_count=float(own.sum())))
        for name, own in groups.items()
        if own.sum() >= LABELS_MIN
    ]
    if count >= 2 * LABELS_MIN:
        halves = np.arange(count) >= count // 2
        found.insert(1, ("later - earlier", np.ones(count, dtype=np.bool_), _change(reported - predicted, halves)))
    are_off = holm([_p_value(bias) for _, _, bias in found])
    return tuple(
        Bias(
            of=name,
            label_count=int(own.sum()),
            predicted=float(predicted[own].mean()),
            reported=float(reported[own].mean()),
            bias=bias,
            is_off=is_off and abs(bias.value) >= BIAS_MIN,
        )
        for (name, own, bias), is_off in zip(found, are_off, strict=True)
    )


def _change(errors: Doubles, is_later: npt.NDArray[np.bool_]) -> Estimate:
    """By how much the mean error of the later half is above that of the earlier one."""
    parts = [mean_of(errors[half], effective_count=float(half.sum())) for half in (~is_later, is_later)]
    value = parts[1].value - parts[0].value
    half_width = math.hypot(*(part.high - part.value for part in parts))
    return Estimate(value, value - half_width, value + half_width)


def _p_value(estimate: Estimate) -> float:
    """That a mean of zero shows as far from it, by the width of its interval."""
    error = (estimate.high - estimate.value) / _NORMAL.inv_cdf(0.975)
    if error <= 0.0:
        return 0.0 if estimate.value else 1.0
    return 2.0 * (1.0 - _NORMAL.cdf(abs(estimate.value) / error))


def _shifts(traits: Doubles) -> tuple[Shift, ...]:
    """Of every trait, early against late; the farthest first."""
    if len(traits) < 2 * DECISIONS_MIN:
        return ()
    earlier, later = traits[: len(traits) // 2], traits[len(traits) // 2 :]
    names = (INPUT_TOKENS, BEST_QUALITY, *SURFACE_NAMES)
    found = []
    for column, name in enumerate(names):
        one, other = (half[~np.isnan(half[:, column]), column] for half in (earlier, later))
        if len(one) >= DECISIONS_MIN and len(other) >= DECISIONS_MIN:
            found.append((name, float(np.median(one)), float(np.median(other)), *distance(one, other)))
    have_shifted = holm([p_value for *_, p_value in found])
    shifts = [
        Shift(of=name, earlier=low, later=high, distance=far, has_shifted=is_far and far >= DISTANCE_MIN)
        for (name, low, high, far, _), is_far in zip(found, have_shifted, strict=True)
    ]
    return tuple(sorted(shifts, key=lambda shift: -shift.distance))


def distance(one: Doubles, other: Doubles) -> tuple[float, float]:
    """The largest difference of two cumulative distributions, and the probability of one as large by chance (Kolmogorov,
    1933; Smirnov, 1939; with Stephens' correction for small samples, 1970)."""
    one, other = np.sort(one), np.sort(other)
    values = np.concatenate((one, other))
    below = [np.searchsorted(part, values, side="right") / len(part) for part in (one, other)]
    far = float(np.abs(below[0] - below[1]).max())
    root = math.sqrt(len(one) * len(other) / (len(one) + len(other)))
    scaled = (root + 0.12 + 0.11 / root) * far
    if scaled < 0.3:  # The series below converges too slowly there, and the probability is 1 to five digits.
        return far, 1.0
    terms = ((-1) ** (k - 1) * math.exp(-2.0 * (k * scaled) ** 2) for k in range(1, 101))
    return far, min(1.0, max(0.0, 2.0 * math.fsum(terms)))


def holm(p_values: Sequence[float]) -> list[bool]:
    """Which of several comparisons show something, so that the chance that any of them does in vain is at most
    `SIGNIFICANCE`."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    shown = [False] * len(p_values)
    for rank, index in enumerate(order):
        if p_values[index] > SIGNIFICANCE / (len(p_values) - rank):
            break
        shown[index] = True
    return shown
