"""How a duration varies with the hour of the day, so that a known evening slow-down is expected and not discovered.

For each hour the mean logarithm of its duration is kept, one figure a day; what is expected of an hour is how far it
lies from the day's mean, as far as days agree. Between the middles of the hours it is interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

HOUR_S = 3600.0
HOUR_COUNT = 24
HOUR_OBSERVATION_COUNT_MIN = 5
"""Observations that make an hour count: the mean of fewer is mostly chance."""
HOURS_KNOWN_MIN = 12
"""Hours that must be known before any counts: against less than half a day there is no usual to lie above."""
DAY_COUNT_MAX = 14
"""An hour's figure is the mean of about so many days: a provider grows, and its users' habits change."""
DAY_PRIOR_COUNT = 3.0
"""Days without any profile that what is seen is shrunk by. Levels of different days differ by 26 % for no reason of the
hour, so an hour seen on three days is believed by half."""
DEVIATION_MAX = 1.5
"""An hour counts as at most 4.5 times as slow as the day, or as fast: what is beyond that was an outage."""


class DailyProfile:
    """Learns the logarithm of a duration by hour of the day. 24 means and how many days each is of."""

    __slots__ = ("_day_counts", "_deviations", "_hour", "_hour_count", "_hour_mean", "_means")

    def __init__(self) -> None:
        self._means = [0.0] * HOUR_COUNT
        self._day_counts = [0] * HOUR_COUNT
        self._deviations: tuple[float, ...] | None = None
        # The hour under way, counted since 1970.
        self._hour = -1
        self._hour_count = 0
        self._hour_mean = 0.0

    def at(self, unix_s: float) -> float:
        """By how much the duration's logarithm lies above the day's mean then; 0 as long as too little is known."""
        deviations = self._deviations
        if deviations is None:
            return 0.0
        hours = unix_s / HOUR_S - 0.5
        whole = math.floor(hours)
        before, after = deviations[whole % HOUR_COUNT], deviations[(whole + 1) % HOUR_COUNT]
        return before + (hours - whole) * (after - before)

    def observe(self, log_value: float, *, unix_s: float) -> float:
        """Take in a duration's logarithm.

        Returns:
            By how much what is expected of this moment has changed by it; not 0 at the end of an hour alone.
        """
        hour = math.floor(unix_s / HOUR_S)
        change = 0.0
        if hour > self._hour:
            before = self.at(unix_s)
            self._close()
            self._hour, self._hour_count, self._hour_mean = hour, 0, 0.0
            change = self.at(unix_s) - before
        self._hour_count += 1
        self._hour_mean += (log_value - self._hour_mean) / self._hour_count
        return change

    def summary(self) -> tuple[tuple[float, int], ...]:
        """The mean of each hour of the day, and how many days it is of."""
        return tuple(zip(self._means, self._day_counts, strict=True))

    def restore(self, summary: Sequence[tuple[float, int]]) -> None:
        """Go on from what was learned before."""
        assert len(summary) == HOUR_COUNT, "a day has 24 hours"
        self._means = [mean for mean, _ in summary]
        self._day_counts = [min(DAY_COUNT_MAX, count) for _, count in summary]
        self._settle()

    def _close(self) -> None:
        """The hour under way is over."""
        if self._hour_count < HOUR_OBSERVATION_COUNT_MIN:
            return
        index = self._hour % HOUR_COUNT
        count = self._day_counts[index] = min(DAY_COUNT_MAX, self._day_counts[index] + 1)
        self._means[index] += (self._hour_mean - self._means[index]) / count
        self._settle()

    def _settle(self) -> None:
        """Work out what is expected of each hour."""
        known = [mean for mean, count in self.summary() if count]
        if len(known) < HOURS_KNOWN_MIN:
            return
        usual = fmean(known)
        self._deviations = tuple(
            max(-DEVIATION_MAX, min(DEVIATION_MAX, (mean - usual) * count / (count + DAY_PRIOR_COUNT)))
            for mean, count in self.summary()
        )
