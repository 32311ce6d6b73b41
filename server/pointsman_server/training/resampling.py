"""Bootstrap intervals: how far a measure would move if other questions had been asked.

Questions are drawn with replacement, not prompts: two wordings of one question say the same twice (Efron and
Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 8). A resample is a count per question, so every mean over
prompts is one matrix product for all resamples together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import nan

import numpy as np
import numpy.typing as npt

from pointsman_server.training.metrics import Doubles

RESAMPLE_COUNT = 1000
"""The ends of a 95 % interval then move by about a twentieth of its width from seed to seed."""
INTERVAL_LEVEL = 0.95
"""The share of resamples between the two ends, in the middle."""
PRODUCT_BLOCK_SIZE = 250
"""Resamples that are multiplied together: 250 of 15,000 questions take 30 MB. Small products are slow where the threads
of the matrix library wait for a busy machine."""
WEIGHT_BLOCK_SIZE = 50
"""Resamples that are weighed together, prompt by prompt: 50 of 15,000 take 6 MB."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A measure with its bootstrap interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Resamples:
    """How often each question occurs in each resample. Memory: 2 bytes per resample and question."""

    question_of: npt.NDArray[np.intp]
    """Of each prompt."""
    counts: npt.NDArray[np.uint16]
    """(resamples, questions); every row adds up to the number of questions."""

    @classmethod
    def of(cls, questions: npt.NDArray[np.object_], *, seed: int, resample_count: int = RESAMPLE_COUNT) -> Resamples:
        """Resamples of prompts whose questions have these keys; the same seed gives the same."""
        assert len(questions) > 0, "nothing can be drawn from no questions"
        keys, question_of = np.unique(questions.astype(str), return_inverse=True)
        rng = np.random.default_rng(seed)
        counts = np.empty((resample_count, len(keys)), dtype=np.uint16)
        for row in counts:
            row[:] = np.bincount(rng.integers(len(keys), size=len(keys)), minlength=len(keys))
        return cls(question_of.astype(np.intp), counts)

    def sums(self, values: Doubles) -> Doubles:
        """The sums over prompts of each column of `values`, (prompts, columns), in each resample: (resamples, columns)."""
        by_question = np.zeros((self.counts.shape[1], values.shape[1]))
        np.add.at(by_question, self.question_of, values)
        none = np.empty((0, values.shape[1]))
        return np.concatenate(
            (none, *(block.astype(np.float64) @ by_question for block in self._blocks(PRODUCT_BLOCK_SIZE)))
        )

    def means(self, values: Doubles) -> Doubles:
        """The means over prompts of each column of `values`, likewise."""
        return self.sums(values) / self.sums(np.ones((len(values), 1)))

    def weights(self) -> Iterator[Doubles]:
        """How often each prompt counts, for `WEIGHT_BLOCK_SIZE` resamples at a time: (resamples, prompts)."""
        for block in self._blocks(WEIGHT_BLOCK_SIZE):
            yield block[:, self.question_of].astype(np.float64)

    def each(self, measure: Callable[[Doubles], float]) -> Doubles:
        """A measure of the prompts' weights, in each resample."""
        return np.array([measure(weight) for block in self.weights() for weight in block])

    def _blocks(self, size: int) -> Iterator[npt.NDArray[np.uint16]]:
        for start in range(0, len(self.counts), size):
            yield self.counts[start : start + size]


def measured(value: float, resampled: Doubles) -> Measured:
    """A measure with the interval that holds the middle of its resampled values; those not defined are left out."""
    known = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(known):
        return Measured(value, nan, nan)
    tail = (1.0 - INTERVAL_LEVEL) / 2.0
    low, high = np.quantile(known, (tail, 1.0 - tail))
    return Measured(float(value), float(low), float(high))


def bootstrap_interval(
    measure: Callable[[Doubles], float],
    questions: npt.NDArray[np.object_],
    *,
    seed: int,
    resample_count: int = RESAMPLE_COUNT,
) -> Measured:
    """A measure of weights, such as `lambda weight: apgr(win, strong, weak, weight=weight)`, with its interval.

    The difference of two routers on the same prompts is such a measure too, and far narrower than the two intervals.

    Args:
        measure: from how often each prompt counts to a number.
        questions: of each prompt the key of its question.
        seed: of the draw.
        resample_count: how many times all questions are drawn.
    """
    resamples = Resamples.of(questions, seed=seed, resample_count=resample_count)
    return measured(measure(np.ones(len(questions))), resamples.each(measure))
