"""What is known of a duration and of failures from a stream of observations. Reading never changes what is known.

A duration is a level that drifts and sometimes jumps, times a shape that is stable:

* `LevelFilter` (see `level`) follows the median, at the load of the moment and for the length of the input.
* `ShapeWindow` keeps the quantiles of observation / level in DDSketches (Masson, Rim, Lee: "DDSketch", VLDB 2019).
* `DurationEstimator` multiplies the two.

Failures are counted exactly, in a ring of time buckets: a time-weighted average would hide a burst (linkerd2-proxy
argues this in its success-rate breaker).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from ddsketch import DDSketch

from pointsman_server.decision.types import Latency
from pointsman_server.runtime.level import CommonGrowth, Level, LevelFilter
from pointsman_server.runtime.profile import DailyProfile
from pointsman_server.runtime.summary import DurationSummary

DURATION_S_MIN = 1e-5
"""Shorter durations are taken for this: a logarithm needs a floor, and a clock read twice shows no less."""
DURATION_S_MAX = 3600.0
"""Longer durations are taken for this: no call lives longer, and one absurd report must not reach the quantiles."""

SHAPE_EPOCH_S = 150.0
"""The window of quantiles is one to two of these: 2.5 to 5 minutes, some hundred calls on a busy endpoint."""
SHAPE_RELATIVE_ACCURACY = 0.02
"""Error of a quantile. 1 % would double the bins, and with them the time to read."""
SHAPE_RATIO_MAX = 1000.0
"""Ratios are kept within 1/1000..1000, which bounds a sketch to 346 bins."""
SHAPE_NEWS_SHARE = 0.05
"""A shape is read again when so many more observations have come: one in twenty moves no quantile by more than the next five
minutes do, and to read a sketch takes as long as half a decision. It is read as they come, not as it is asked for: who
asks, and when, changes nothing."""
DOUBT_EPOCH_S = 5.0
"""Doubt that grows with age, and the hour of the day, are looked at in steps of this: a level drifts by 3 % in it."""
SHAPE_PRIOR_COUNT = 20
"""Observations that the log-normal shape is worth: with fewer a sketch knows its median, but not its 95th percentile."""

OUTCOME_BUCKET_S = 5.0
OUTCOME_BUCKET_COUNT = 12
"""Together a minute: a burst of errors is forgiven within a minute, as calls come or not."""

ERROR_RATE_PRIOR = 0.02
"""Share of failed calls that is expected of an endpoint of which little is known: a mediocre one, so that nobody looks
perfect for not having been tried."""
ERROR_RATE_PRIOR_CALL_COUNT = 5.0
"""Calls that this expectation is worth: weak, so that one failure in one call says 18 % and not 100 %."""

_QUANTILES = (0.5, 0.9, 0.95, 0.99)
_NORMAL_QUANTILES = (0.0, *(NormalDist().inv_cdf(quantile) for quantile in _QUANTILES[1:]))


@dataclass(frozen=True, slots=True)
class Shape:
    """How observations spread around their level, as ratios to it."""

    count: int
    mean: float
    log_quantiles: tuple[float, ...]
    """Natural logarithms of the ratio at p50, p90, p95, p99; ascending."""


class ShapeWindow:
    """Quantiles of ratios over the last 2.5 to 5 minutes.

    Two sketches whose starts lie one epoch apart; every ratio goes into both, and the older one is read. So a read
    needs no merge, and what is old falls out by itself. Quantiles are within 2 %; at most 2 x 346 bins.
    """

    __slots__ = ("_due_count", "_epoch", "_older", "_older_shape", "_younger", "_younger_shape")

    def __init__(self) -> None:
        self._epoch = 0
        """In which the younger sketch started; the older one started an epoch earlier."""
        self._older = DDSketch(SHAPE_RELATIVE_ACCURACY)
        self._younger = DDSketch(SHAPE_RELATIVE_ACCURACY)
        self._older_shape: Shape | None = None
        self._due_count = 0.0
        """Of observations in the older sketch, when its shape is to be read again."""
        self._younger_shape: Shape | None = None
        """None until it is asked for: only while nothing comes for minutes."""

    def add(self, ratio: float, *, now_s: float) -> None:
        """Take in a ratio."""
        age = _epoch(now_s, SHAPE_EPOCH_S) - self._epoch
        if age > 0:
            self._older = self._younger if age == 1 else DDSketch(SHAPE_RELATIVE_ACCURACY)
            self._younger = DDSketch(SHAPE_RELATIVE_ACCURACY)
            self._epoch += age
            self._due_count = 0.0
        bounded = max(1.0 / SHAPE_RATIO_MAX, min(SHAPE_RATIO_MAX, ratio))
        self._older.add(bounded)
        self._younger.add(bounded)
        self._younger_shape = None
        if self._older.count >= self._due_count:
            self._older_shape = _shape(self._older)
            self._due_count = (1.0 + SHAPE_NEWS_SHARE) * self._older.count

    def clear(self) -> None:
        """Forget every ratio."""
        self._older, self._younger = DDSketch(SHAPE_RELATIVE_ACCURACY), DDSketch(SHAPE_RELATIVE_ACCURACY)
        self._older_shape = self._younger_shape = None
        self._due_count = 0.0

    def at(self, now_s: float) -> Shape | None:
        """The shape within the window that ends at `now_s`; None when nothing was observed in it."""
        age = _epoch(now_s, SHAPE_EPOCH_S) - self._epoch
        if age <= 0:
            return self._older_shape
        if age > 1:
            return None
        if self._younger_shape is None:
            self._younger_shape = _shape(self._younger)
        return self._younger_shape


_NO_SHAPE = Shape(0, 1.0, (0.0,) * len(_QUANTILES))


def _shape(sketch: DDSketch) -> Shape | None:
    if sketch.count == 0:
        return None
    ratios = [sketch.get_quantile_value(quantile) for quantile in _QUANTILES]
    return Shape(int(sketch.count), sketch.avg, tuple(math.log(ratio) for ratio in ratios if ratio is not None))


def _epoch(now_s: float, length_s: float) -> int:
    return math.floor(now_s / length_s)


class DurationEstimator:
    """What is expected of a duration now: the level of this moment times the shape of the last minutes.

    The window holds ratios to the level of their time, not seconds, so that every quantile follows the level at once.
    With seconds a provider that became ten times slower would keep its old 95th percentile until the new calls are
    more than five in a hundred, and one that recovered would drag its bad minutes along; the mixture in between would
    be the distribution of no moment at all. When the level jumps the window starts anew: the ratios that gave the jump
    away were to a level that did not hold any more, and would pass for stragglers of the new one for minutes.
    """

    __slots__ = ("_level", "_profile", "_read", "_read_epoch", "_unix_offset_s", "_window")

    def __init__(self, *, unix_offset_s: float | None = None, common_load: CommonGrowth | None = None) -> None:
        """Args:
        unix_offset_s: What makes the time that is passed in seconds since 1970, for the hour of the day; None learns
            no daily profile.
        common_load: What the same duration of other endpoints shows of load; None shares nothing.
        """
        self._level = LevelFilter(common_load=common_load)
        self._window = ShapeWindow()
        self._unix_offset_s = unix_offset_s
        self._profile = DailyProfile()
        # What reading has worked out since the last write, and for when.
        self._read: Latency | None = None
        self._read_epoch = 0

    def observe(
        self,
        duration_s: float,
        *,
        now_s: float,
        noise_variance: float = 0.0,
        load: float = 0.0,
        length: float | None = None,
    ) -> None:
        """Take in a duration; the rest as for `LevelFilter.observe`. An input of unknown length is a usual one."""
        level = self._level
        length = level.length.usual if length is None else length
        log_value = _bounded_log(duration_s)
        in_profile = log_value - self._hourly(now_s)
        self._read = None
        usual, growth = level.log_median, level.growth(load=load, length=length)
        self._window.add(1.0 if usual is None else math.exp(in_profile - usual - growth), now_s=now_s)
        if level.observe(in_profile, now_s=now_s, noise_variance=noise_variance, load=load, length=length):
            self._window.clear()
        if self._unix_offset_s is not None:
            change = self._profile.observe(log_value - growth, unix_s=now_s + self._unix_offset_s)
            if change != 0.0:
                level.shift(-change)

    def observe_at_least(
        self, duration_s: float, *, now_s: float, load: float = 0.0, length: float | None = None
    ) -> None:
        """Take in a duration that was broken off, so that only a lower limit of it is known."""
        level = self._level
        length = level.length.usual if length is None else length
        in_profile = _bounded_log(duration_s) - self._hourly(now_s)
        self._read = None
        usual = level.log_median
        if usual is not None and (ratio := in_profile - usual - level.growth(load=load, length=length)) > 0.0:
            # A lower limit below the median would pull the quantiles the wrong way; above it, it errs on the safe side.
            self._window.add(math.exp(ratio), now_s=now_s)
        if level.observe_at_least(in_profile, now_s=now_s, load=load, length=length):
            self._window.clear()

    def summary(self, *, unix_offset_s: float) -> DurationSummary | None:
        """What is known, to be kept; None before the first observation."""
        if self._level.observation_count == 0:
            return None
        hours = self._profile.summary()
        return DurationSummary(
            level=self._level.summary(unix_offset_s=unix_offset_s),
            hour_means=tuple(mean for mean, _ in hours),
            hour_day_counts=tuple(day_count for _, day_count in hours),
        )

    def restore(self, summary: DurationSummary, *, now_s: float, unix_offset_s: float) -> None:
        """Go on from what was known."""
        self._read = None
        self._level.restore(summary.level, now_s=now_s, unix_offset_s=unix_offset_s)
        self._profile.restore(tuple(zip(summary.hour_means, summary.hour_day_counts, strict=True)))

    def _hourly(self, now_s: float) -> float:
        """By how much the logarithm is usually higher at this hour."""
        return 0.0 if self._unix_offset_s is None else self._profile.at(now_s + self._unix_offset_s)

    def level(self, now_s: float, *, load: float | None = None, length: float | None = None) -> Level | None:
        """The median at `now_s`, and how well it is known; None before the first observation. None for load or length:
        as usual."""
        level = self._level.at(now_s, load=load, length=length)
        hourly = self._hourly(now_s)
        return level if level is None or hourly == 0.0 else level._replace(log_median=level.log_median + hourly)

    @property
    def usual_length(self) -> float:
        """The length of the input that figures are about where none is named."""
        return self._level.length.usual

    @property
    def usual_load(self) -> float:
        """The calls that were under way besides, on the average of the last 50."""
        return self._level.load.usual

    def load_slope(self, load: float) -> float:
        """By which share the duration grows there with one more call under way."""
        return self._level.load.slope(load)

    def length_slope(self) -> float:
        """By which share the duration grows with one more input token, at the usual length."""
        return self._level.length.slope(self._level.length.usual)

    def latency(self, now_s: float, *, load: float | None = None) -> Latency | None:
        """The distribution at `now_s`, seconds, for an input of usual length; None before the first observation.

        The older the data, the further the quantiles lie apart, in steps of `DOUBT_EPOCH_S`. The mean doesn't grow with
        doubt: not to know is not to be slow.

        Args:
            now_s: The instant.
            load: The calls that are under way besides; None: as many as usual.
        """
        epoch = _epoch(now_s, DOUBT_EPOCH_S)
        usual = self._read
        if usual is None or epoch != self._read_epoch:
            usual = self._read = self._usual(epoch * DOUBT_EPOCH_S)
            self._read_epoch = epoch
        if usual is None or load is None:
            return usual
        growth = self._level.load.growth(load)
        if growth == 0.0:
            return usual
        factor = math.exp(growth)
        return Latency(*[max(DURATION_S_MIN, min(DURATION_S_MAX, factor * value)) for value in usual])

    def _usual(self, now_s: float) -> Latency | None:
        """The distribution at the usual load."""
        level = self.level(now_s)
        if level is None:
            return None
        shape = self._window.at(now_s) or _NO_SHAPE
        spread = level.log_spread
        doubt = math.hypot(spread, level.log_standard_error) - spread
        weight = shape.count / (shape.count + SHAPE_PRIOR_COUNT)
        scale = (1.0 - weight) * spread + doubt
        p50, p90, p95, p99 = [
            _bounded_exp(level.log_median + weight * log_ratio + scale * normal_quantile)
            for log_ratio, normal_quantile in zip(shape.log_quantiles, _NORMAL_QUANTILES, strict=True)
        ]
        mean_ratio = weight * shape.mean + (1.0 - weight) * math.exp(0.5 * spread * spread)
        log_mean_ratio = (1.0 - level.returned) * math.log(mean_ratio) + level.returned * level.log_mean_ratio
        mean = _bounded_exp(level.log_median + log_mean_ratio)
        return Latency(mean, p50, p90, p95, p99)


def _bounded_log(duration_s: float) -> float:
    return math.log(max(DURATION_S_MIN, min(DURATION_S_MAX, duration_s)))


def _bounded_exp(log_value: float) -> float:
    duration_s = math.exp(log_value)
    if DURATION_S_MIN <= duration_s <= DURATION_S_MAX:
        return duration_s  # The usual case.
    return max(DURATION_S_MIN, min(DURATION_S_MAX, duration_s))


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How the calls of a window ended."""

    success_count: int
    failure_count: int

    @property
    def call_count(self) -> int:
        """Calls that ended in the window."""
        return self.success_count + self.failure_count

    @property
    def error_rate(self) -> float | None:
        """Share of failed calls, 0..1, leaning towards the prior while calls are few; None without any call."""
        if self.call_count == 0:
            return None
        expected = ERROR_RATE_PRIOR * ERROR_RATE_PRIOR_CALL_COUNT
        return (self.failure_count + expected) / (self.call_count + ERROR_RATE_PRIOR_CALL_COUNT)


class OutcomeCounts:
    """Exact counts of how calls ended within the last minute, in a ring of 12 buckets of 5 seconds."""

    __slots__ = ("_epochs", "_failure_counts", "_newest", "_read", "_read_oldest", "_success_counts")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._read: Outcomes | None = None
        self._read_oldest = 0
        self._newest = -OUTCOME_BUCKET_COUNT
        self._epochs = [self._newest] * OUTCOME_BUCKET_COUNT
        self._success_counts = [0] * OUTCOME_BUCKET_COUNT
        self._failure_counts = [0] * OUTCOME_BUCKET_COUNT

    def add_success(self, *, now_s: float) -> None:
        """Count a call that succeeded."""
        self._success_counts[self._bucket(now_s)] += 1

    def add_failure(self, *, now_s: float) -> None:
        """Count a call that failed."""
        self._failure_counts[self._bucket(now_s)] += 1

    def _bucket(self, now_s: float) -> int:
        self._read = None
        # A call whose clock was read earlier than the last one's belongs to the newest bucket.
        self._newest = max(self._newest, _epoch(now_s, OUTCOME_BUCKET_S))
        bucket = self._newest % OUTCOME_BUCKET_COUNT
        if self._epochs[bucket] != self._newest:
            self._epochs[bucket] = self._newest
            self._success_counts[bucket] = self._failure_counts[bucket] = 0
        return bucket

    def at(self, now_s: float) -> Outcomes:
        """The counts within the window that ends at `now_s`."""
        oldest = _epoch(now_s, OUTCOME_BUCKET_S) - OUTCOME_BUCKET_COUNT + 1
        if self._read is not None and oldest == self._read_oldest:
            return self._read
        success_count = failure_count = 0
        for bucket, epoch in enumerate(self._epochs):
            if epoch >= oldest:
                success_count += self._success_counts[bucket]
                failure_count += self._failure_counts[bucket]
        self._read, self._read_oldest = Outcomes(success_count, failure_count), oldest
        return self._read
