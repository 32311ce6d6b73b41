"""Where a level usually stands, over sessions that lie so far apart that one tells little of the next.

Public measurements of providers, hours apart, hardly resemble the ones before: each lies around a mean that is the
provider's own. So what is known of an endpoint returns to that mean while nobody calls it, as in a process of Ornstein
and Uhlenbeck (1930), and choosing by the last benchmark alone, 15 % worse than the best fixed provider, is avoided.
"""

from __future__ import annotations

import math

from pointsman_server.runtime.summary import SessionsSummary

SESSION_GAP_S = 1800.0
"""A silence of half an hour ends a session."""
RETURN_S = 900.0
"""Within a quarter of an hour a level is two thirds of the way back to the usual one: public measurements resemble one
another (correlation 0.4) for a quarter of an hour, and after half an hour not any more."""
RETURN_S_MIN = 60.0
"""A shorter silence moves nothing: 2 % of the way is less than what the next call shows."""
MEMORY_COUNT = 10
"""Sessions that the mean is about: what was a month ago should not hold down what is new."""
VARIANCE_COUNT_MIN = 3
"""Sessions from which their variance is taken for known."""
VARIANCE_MIN = 0.02
"""14 %: half of what public measurements show, lest two like sessions look like certainty."""


class Sessions:
    """The usual logarithm of a level. Constant memory."""

    __slots__ = ("_count", "_mean", "_mean_s", "_squares")

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._mean_s = 1.0
        """Of the durations themselves: stragglers, and whole sessions that are slow, weigh in it what they cost."""
        self._squares = 0.0
        """Sum of the squared deviations from the mean, faded like the mean."""

    def end(self, level: float, mean_s: float) -> None:
        """A session ended at this level; its durations had this arithmetic mean."""
        self._count += 1
        known = min(self._count, MEMORY_COUNT)
        deviation = level - self._mean
        self._mean += deviation / known
        self._mean_s += (mean_s - self._mean_s) / known
        self._squares += deviation * (level - self._mean)
        if self._count > MEMORY_COUNT:
            self._squares *= 1.0 - 1.0 / MEMORY_COUNT

    def share(self, silent_s: float) -> float:
        """How far what is known has returned to what is usual after a silence, 0..1; it counts as a session itself."""
        if silent_s < RETURN_S_MIN or self._count == 0:
            return 0.0
        return (1.0 - 1.0 / (min(self._count, MEMORY_COUNT) + 1)) * -math.expm1(-silent_s / RETURN_S)

    def returned(self, level: float, silent_s: float) -> float:
        """By how much a level has moved towards the usual one after a silence."""
        return (self._mean - level) * self.share(silent_s)

    @property
    def log_mean_ratio(self) -> float:
        """By how much the logarithm of the mean lies above the usual level."""
        return math.log(self._mean_s) - self._mean

    def variance(self, unknown: float) -> float:
        """Between sessions; `unknown` while they are few."""
        if self._count < VARIANCE_COUNT_MIN:
            return unknown
        return min(unknown, max(VARIANCE_MIN, self._squares / (min(self._count, MEMORY_COUNT) - 1)))

    def shift(self, by: float) -> None:
        """What levels are measured against has moved."""
        self._mean += by
        self._mean_s *= math.exp(by)

    def summary(self) -> SessionsSummary:
        """What is known, to be kept."""
        return SessionsSummary(count=self._count, mean=self._mean, mean_s=self._mean_s, squares=self._squares)

    def restore(self, summary: SessionsSummary) -> None:
        """Go on from what was known."""
        self._count, self._mean = summary.count, summary.mean
        self._mean_s, self._squares = summary.mean_s, summary.squares
