"""What an artifact says of many prompts, as arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pointsman_server.quality.model import QualityModel
from pointsman_server.training.metrics import Doubles

NORMAL_QUANTILE_90 = 1.645
"""Half-width, in standard errors, of a two-sided interval of 90 %."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """(prompts, models) each."""

    quality: Doubles
    """Probability of a good answer, 0..1."""
    standard_error: Doubles
    output_tokens: Doubles
    """NaN where the artifact does not tell."""

    @property
    def interval(self) -> tuple[Doubles, Doubles]:
        """The ends of the 90 % interval of quality, within 0..1."""
        half = NORMAL_QUANTILE_90 * self.standard_error
        return np.clip(self.quality - half, 0.0, 1.0), np.clip(self.quality + half, 0.0, 1.0)

    def of(self, rows: npt.NDArray[np.bool_]) -> Predictions:
        """Of these prompts alone."""
        return Predictions(self.quality[rows], self.standard_error[rows], self.output_tokens[rows])


def predictions(
    model: QualityModel, texts: Sequence[str], names: Sequence[str], advance: Callable[[int], None]
) -> Predictions:
    """What to expect of these models, which the artifact knows, on each prompt. A name may stand more than once.

    Args:
        model: the artifact.
        texts: the prompts.
        names: as `QualityModel.predict` takes them.
        advance: told after each prompt that one more is done.
    """
    asked = tuple(dict.fromkeys(names))
    columns = [asked.index(name) for name in names]
    found = np.empty((3, len(texts), len(asked)))
    for row, text in enumerate(texts):
        answers = model.predict(text, asked)
        for column, name in enumerate(asked):
            answer = answers[name]
            tokens = math.nan if answer.output_token_count is None else answer.output_token_count
            found[:, row, column] = (answer.mean, answer.standard_error, tokens)
        advance(1)
    return Predictions(*found[:, :, columns])
