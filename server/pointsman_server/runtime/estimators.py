"""What is known of a duration and of failures from a stream of observations. Reading never changes what is known.

A duration is a level that drifts and sometimes jumps, times a shape that is stable:

* `LevelFilter` follows the median. It works on logarithms, where latencies are near enough symmetric and a change by
  a factor means the same at 10 ms and at 10 s. One-dimensional Kalman filter (Kalman 1960) with Huberised
  innovations (Huber 1964), so that a straggler moves it little; a two-sided cumulative sum (Page 1954) notices that
  the level has moved for good; "at least this long" is evidence as in Tobin 1958.
* `ShapeWindow` keeps the quantiles of observation / level in DDSketches (Masson, Rim, Lee: "DDSketch", VLDB 2019).
* `DurationEstimator` multiplies the two.

Failures are counted exactly, in a ring of time buckets: a time-weighted average would hide a burst (linkerd2-proxy
argues this in its success-rate breaker).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import NormalDist, median

from ddsketch import DDSketch

from pointsman_server.decision.types import Latency

DURATION_S_MIN = 1e-5
"""Shorter durations are taken for this: a logarithm needs a floor, and a clock read twice shows no less."""
DURATION_S_MAX = 3600.0
"""Longer durations are taken for this: no call lives longer, and one absurd report must not reach the quantiles."""

SPREAD_VARIANCE_PRIOR = 0.25
"""Variance of log latency around its level before any is seen: a factor of 1.65, common for time to first token."""
SPREAD_VARIANCE_MIN = 0.0025
"""5 %. A provider that seems steadier than that would turn ordinary jitter into a change of regime."""
SPREAD_VARIANCE_MAX = 2.25
"""A factor of 4.5. Beyond that a level says nothing, and the filter should not stop listening."""
SPREAD_PRIOR_COUNT = 10
"""Observations that the prior of the spread is worth."""
SPREAD_MEMORY_COUNT = 200
"""Observations over which the spread is learned: a variance from 200 values is known to 10 %."""

LEVEL_VARIANCE_PER_S = 2e-4
"""How fast a level is assumed to drift, and old knowledge to fade: 11 % within a minute, 85 % within an hour. Faster
and the filter would follow noise; what is faster than this is a change of regime."""
LEVEL_VARIANCE_MAX = 1.0
"""However old the data, the level is within a factor of e, nearly always within ten: an old figure beats none."""

SCORE_MAX = 2.5
"""An innovation counts as at most this many standard deviations: 1 % of normal ones are larger, most stragglers are."""
SCORE_MIN_INFORMATIVE = -5.0
"""A wait this many deviations shorter than usual says nothing: the update would be below 1e-6 deviations."""
REGIME_DRIFT = 0.5
"""Half the shift, in standard deviations, that the cumulative sum is quickest to find (Page 1954): one deviation."""
REGIME_EVIDENCE = 6.0
"""Three extreme observations in a row reach it, or about twelve that are each one deviation off. Under normal noise
it is reached by chance about every thousand observations, and then costs a few observations of doubt."""
REGIME_OBSERVATION_COUNT = 5
"""The new level is the median of at most so many of the observations that gave it away: three must agree, so that two
stragglers at the end of a few slow answers don't set it, and three of a kind do."""

SHAPE_EPOCH_S = 150.0
"""The window of quantiles is one to two of these: 2.5 to 5 minutes, some hundred calls on a busy endpoint."""
SHAPE_RELATIVE_ACCURACY = 0.02
"""Error of a quantile. 1 % would double the bins, and with them the time to read."""
SHAPE_RATIO_MAX = 1000.0
"""Ratios are kept within 1/1000..1000, which bounds a sketch to 346 bins."""
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
_SQRT_2 = math.sqrt(2.0)
_SQRT_2_PI = math.sqrt(2.0 * math.pi)


@dataclass(frozen=True, slots=True)
class Level:
    """Where the median of a positive quantity stands at an instant, and how well that is known."""

    log_median: float
    """Natural logarithm of the median."""
    log_standard_error: float
    """Standard error of `log_median`: 0.1 means that the median is known to about 10 %."""
    log_spread: float
    """Standard deviation of the logarithm of one observation around the level."""


class _Run:
    """Evidence that the level has moved in one direction, summed up since it was last nil."""

    __slots__ = ("_evidence", "_logs")

    def __init__(self) -> None:
        self._evidence = 0.0
        self._logs: deque[float] = deque(maxlen=REGIME_OBSERVATION_COUNT)

    def add(self, score: float, log_value: float) -> bool:
        """Take in an observation `score` deviations off in this direction; whether the evidence is enough."""
        self._evidence = max(0.0, self._evidence + score - REGIME_DRIFT)
        if self._evidence > 0.0:
            self._logs.append(log_value)
        else:
            self._logs.clear()
        return self._evidence >= REGIME_EVIDENCE

    @property
    def logs(self) -> tuple[float, ...]:
        """The last observations of the run."""
        return tuple(self._logs)

    def clear(self) -> None:
        """Start over."""
        self._evidence = 0.0
        self._logs.clear()


class LevelFilter:
    """Follows the median of a positive quantity through its logarithms, and knows how well. Constant memory."""

    __slots__ = ("_level_variance", "_log_median", "_observation_count", "_run_down", "_run_up", "_seen_s", "_spread")

    def __init__(self) -> None:
        self._observation_count = 0
        self._log_median = 0.0
        self._level_variance = 0.0
        self._spread = SPREAD_VARIANCE_PRIOR
        self._seen_s = 0.0
        self._run_up = _Run()
        self._run_down = _Run()

    def at(self, now_s: float) -> Level | None:
        """The level as it is known at `now_s`; None before the first observation."""
        if self._observation_count == 0:
            return None
        return Level(self._log_median, math.sqrt(self._level_variance_at(now_s)), math.sqrt(self._spread))

    def observe(self, log_value: float, *, now_s: float, noise_variance: float = 0.0) -> None:
        """Take in an observation.

        Args:
            log_value: Its natural logarithm.
            now_s: When it was made.
            noise_variance: Variance of its logarithm beyond the spread, where it is known to be imprecise.
        """
        if self._observation_count == 0:
            self._log_median = log_value
            self._level_variance = self._spread + noise_variance
        else:
            level_variance = self._level_variance_at(now_s)
            variance = level_variance + self._spread + noise_variance
            score = (log_value - self._log_median) / math.sqrt(variance)
            score = max(-SCORE_MAX, min(SCORE_MAX, score))
            gain = level_variance / variance
            self._log_median += gain * score * math.sqrt(variance)
            self._level_variance = (1.0 - gain) * level_variance
            self._learn_spread((score * score - 1.0) * variance)
            if self._run_up.add(score, log_value):
                self._jump(self._run_up)
            if self._run_down.add(-score, log_value):
                self._jump(self._run_down)
        self._observation_count += 1
        self._seen_s = max(self._seen_s, now_s)

    def observe_at_least(self, log_value: float, *, now_s: float) -> None:
        """Take in that a value would have been larger than this one: the wait was broken off.

        Before the first observation nothing can be said to be long, and the evidence is dropped.
        """
        if self._observation_count == 0:
            return
        level_variance = self._level_variance_at(now_s)
        variance = level_variance + self._spread
        threshold = (log_value - self._log_median) / math.sqrt(variance)
        if threshold < SCORE_MIN_INFORMATIVE:
            return
        # The expectation of a standard normal beyond the threshold, and by how much knowing this narrows it.
        score, narrowing = SCORE_MAX, 1.0
        if threshold < SCORE_MAX:
            density = math.exp(-0.5 * threshold * threshold) / _SQRT_2_PI
            beyond = density / (0.5 * math.erfc(threshold / _SQRT_2))
            score, narrowing = min(SCORE_MAX, beyond), min(1.0, beyond * (beyond - threshold))
        gain = level_variance / variance
        self._log_median += gain * score * math.sqrt(variance)
        self._level_variance = (1.0 - gain * narrowing) * level_variance
        self._seen_s = max(self._seen_s, now_s)
        # A wait that was broken off early is no evidence that the level is back to normal.
        if score > REGIME_DRIFT and self._run_up.add(score, log_value):
            self._jump(self._run_up)

    def _level_variance_at(self, now_s: float) -> float:
        elapsed_s = max(0.0, now_s - self._seen_s)
        return min(LEVEL_VARIANCE_MAX, self._level_variance + elapsed_s * LEVEL_VARIANCE_PER_S)

    def _learn_spread(self, surprise: float) -> None:
        weight = SPREAD_PRIOR_COUNT + min(self._observation_count, SPREAD_MEMORY_COUNT)
        spread = self._spread + surprise / weight
        self._spread = max(SPREAD_VARIANCE_MIN, min(SPREAD_VARIANCE_MAX, spread))

    def _jump(self, run: _Run) -> None:
        """The level is where the run of observations is that gave the change away."""
        logs = run.logs
        self._log_median = median(logs)
        self._level_variance = min(LEVEL_VARIANCE_MAX, self._spread / len(logs))
        self._run_up.clear()
        self._run_down.clear()


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

    __slots__ = ("_epoch", "_older", "_older_shape", "_younger", "_younger_shape")

    def __init__(self) -> None:
        self._epoch = 0
        """In which the younger sketch started; the older one started an epoch earlier."""
        self._older = DDSketch(SHAPE_RELATIVE_ACCURACY)
        self._younger = DDSketch(SHAPE_RELATIVE_ACCURACY)
        # What reading has worked out since the last write: reading is the more frequent.
        self._older_shape: Shape | None = None
        self._younger_shape: Shape | None = None

    def add(self, ratio: float, *, now_s: float) -> None:
        """Take in a ratio."""
        age = _epoch(now_s, SHAPE_EPOCH_S) - self._epoch
        if age > 0:
            self._older = self._younger if age == 1 else DDSketch(SHAPE_RELATIVE_ACCURACY)
            self._younger = DDSketch(SHAPE_RELATIVE_ACCURACY)
            self._epoch += age
        self._older_shape = self._younger_shape = None
        bounded = max(1.0 / SHAPE_RATIO_MAX, min(SHAPE_RATIO_MAX, ratio))
        self._older.add(bounded)
        self._younger.add(bounded)

    def at(self, now_s: float) -> Shape | None:
        """The shape within the window that ends at `now_s`; None when nothing was observed in it."""
        age = _epoch(now_s, SHAPE_EPOCH_S) - self._epoch
        if age <= 0:
            if self._older_shape is None:
                self._older_shape = _shape(self._older)
            return self._older_shape
        if age == 1:
            if self._younger_shape is None:
                self._younger_shape = _shape(self._younger)
            return self._younger_shape
        return None


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
    be the distribution of no moment at all.
    """

    __slots__ = ("_level", "_window")

    def __init__(self) -> None:
        self._level = LevelFilter()
        self._window = ShapeWindow()

    def observe(self, duration_s: float, *, now_s: float, noise_variance: float = 0.0) -> None:
        """Take in a duration; `noise_variance` as for `LevelFilter.observe`."""
        log_value = _bounded_log(duration_s)
        level = self._level.at(now_s)
        self._window.add(1.0 if level is None else math.exp(log_value - level.log_median), now_s=now_s)
        self._level.observe(log_value, now_s=now_s, noise_variance=noise_variance)

    def observe_at_least(self, duration_s: float, *, now_s: float) -> None:
        """Take in a duration that was broken off, so that only a lower limit of it is known."""
        log_value = _bounded_log(duration_s)
        level = self._level.at(now_s)
        if level is not None and log_value > level.log_median:
            # A lower limit below the median would pull the quantiles the wrong way; above it, it errs on the safe side.
            self._window.add(math.exp(log_value - level.log_median), now_s=now_s)
        self._level.observe_at_least(log_value, now_s=now_s)

    def level(self, now_s: float) -> Level | None:
        """The median at `now_s`, and how well it is known; None before the first observation."""
        return self._level.at(now_s)

    def latency(self, now_s: float) -> Latency | None:
        """The distribution at `now_s`, seconds; None before the first observation.

        The older the data, the further the quantiles lie apart. The mean doesn't grow with doubt: not to know is not to
        be slow.
        """
        level = self._level.at(now_s)
        if level is None:
            return None
        shape = self._window.at(now_s) or Shape(0, 1.0, (0.0,) * len(_QUANTILES))
        spread = level.log_spread
        doubt = math.hypot(spread, level.log_standard_error) - spread
        weight = shape.count / (shape.count + SHAPE_PRIOR_COUNT)
        p50, p90, p95, p99 = (
            _bounded_exp(level.log_median + weight * log_ratio + ((1.0 - weight) * spread + doubt) * normal_quantile)
            for log_ratio, normal_quantile in zip(shape.log_quantiles, _NORMAL_QUANTILES, strict=True)
        )
        mean_ratio = weight * shape.mean + (1.0 - weight) * math.exp(0.5 * spread * spread)
        mean = _bounded_exp(level.log_median + math.log(mean_ratio))
        return Latency(mean=mean, p50=p50, p90=p90, p95=p95, p99=p99)


def _bounded_log(duration_s: float) -> float:
    return math.log(max(DURATION_S_MIN, min(DURATION_S_MAX, duration_s)))


def _bounded_exp(log_value: float) -> float:
    return max(DURATION_S_MIN, min(DURATION_S_MAX, math.exp(log_value)))


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How the calls of a window ended."""

    success_count: int
    failure_count: int
    lost_s: float
    """Time that the failed calls cost, together."""

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

    __slots__ = ("_epochs", "_failure_counts", "_lost_s", "_newest", "_success_counts")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._newest = -OUTCOME_BUCKET_COUNT
        self._epochs = [self._newest] * OUTCOME_BUCKET_COUNT
        self._success_counts = [0] * OUTCOME_BUCKET_COUNT
        self._failure_counts = [0] * OUTCOME_BUCKET_COUNT
        self._lost_s = [0.0] * OUTCOME_BUCKET_COUNT

    def add_success(self, *, now_s: float) -> None:
        """Count a call that succeeded."""
        self._success_counts[self._bucket(now_s)] += 1

    def add_failure(self, *, lost_s: float, now_s: float) -> None:
        """Count a call that failed and cost `lost_s`."""
        bucket = self._bucket(now_s)
        self._failure_counts[bucket] += 1
        self._lost_s[bucket] += lost_s

    def _bucket(self, now_s: float) -> int:
        # A call whose clock was read earlier than the last one's belongs to the newest bucket.
        self._newest = max(self._newest, _epoch(now_s, OUTCOME_BUCKET_S))
        bucket = self._newest % OUTCOME_BUCKET_COUNT
        if self._epochs[bucket] != self._newest:
            self._epochs[bucket] = self._newest
            self._success_counts[bucket] = self._failure_counts[bucket] = 0
            self._lost_s[bucket] = 0.0
        return bucket

    def at(self, now_s: float) -> Outcomes:
        """The counts within the window that ends at `now_s`."""
        oldest = _epoch(now_s, OUTCOME_BUCKET_S) - OUTCOME_BUCKET_COUNT + 1
        success_count, failure_count, lost_s = 0, 0, 0.0
        for bucket, epoch in enumerate(self._epochs):
            if epoch >= oldest:
                success_count += self._success_counts[bucket]
                failure_count += self._failure_counts[bucket]
                lost_s += self._lost_s[bucket]
        return Outcomes(success_count, failure_count, lost_s)
