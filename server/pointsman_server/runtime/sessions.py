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
RETURN_S = 3600.0
"""Within an hour a level is two thirds of the way back to the usual one: hours apart nothing is left of it."""
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

    __slots__ = ("_count", "_mean", "_squares")

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0
        """Sum of the squared deviations from the mean, faded like the mean."""

    def end(self, level: float) -> None:
        """A session ended at this level."""
        self._count += 1
        known = min(self._count, MEMORY_COUNT)
        deviation = level - self._mean
        self._mean += deviation / known
        self._squares += deviation * (level - self._mean)
        if self._count > MEMORY_COUNT:
            self._squares *= 1.0 - 1.0 / MEMORY_COUNT

    def returned(self, level: float, silent_s: float) -> float:
        """By how much a level has moved towards the usual one after a silence; it counts as a session itself."""
        if silent_s < RETURN_S_MIN or self._count == 0:
            return 0.0
        distance = (self._mean - level) * (1.0 - 1.0 / (min(self._count, MEMORY_COUNT) + 1))
        return distance * -math.expm1(-silent_s / RETURN_S)

    def variance(self, unknown: float) -> float:
        """Between sessions; `unknown` while they are few."""
        if self._count < VARIANCE_COUNT_MIN:
            return unknown
        return min(unknown, max(VARIANCE_MIN, self._squares / (min(self._count, MEMORY_COUNT) - 1)))

    def shift(self, by: float) -> None:
        """What levels are measured against has moved."""
        self._mean += by

    def summary(self) -> SessionsSummary:
        """What is known, to be kept."""
        return SessionsSummary(count=self._count, mean=self._mean, squares=self._squares)

    def restore(self, summary: SessionsSummary) -> None:
        """Go on from what was known."""
        self._count, self._mean, self._squares = summary.count, summary.mean, summary.squares
