"""Where a duration stands at this moment, at the load and for the input of one more call.

`LevelFilter` follows the median through its logarithm: latencies are near enough symmetric there, and a change by a
factor means the same at 10 ms and at 10 s. A Kalman filter (Kalman 1960) over three numbers,

    log median = level + load exponent * log(1 + (load / load scale)^2) + length exponent * log(1 + length / length scale),

with Huberised innovations (Huber 1964), so that a straggler moves it little; a two-sided cumulative sum (Page 1954)
notices that the level has moved for good; "at least this long" is evidence as in Tobin 1958.

Exponent and scale say nearly the same where loads are alike, so the scale is moved to where the exponent is one once
there is something to be seen: then the median is exactly level x (1 + length / scale), as where each token takes its
time. Load enters squared: a server that batches hardly notices the first calls, and each further one more than the one
before. No load enters as zero, and costs nothing.

A change of regime must not be taken for load, though calls pile up where they become slow. Three things keep them
apart: the filter attributes a surprise to what its covariance says is in doubt; a surprise too large for the load that
came with it teaches no exponent; and when the level jumps, the exponents stay.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, median, median_low
from typing import NamedTuple

from pointsman_server.runtime.sessions import RETURN_S_MIN, SESSION_GAP_S, Sessions
from pointsman_server.runtime.summary import GrowthSummary, LevelSummary

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
FAST_SCORE_MAX = 4.0
"""As evidence that the level has fallen, an innovation counts as up to this many: calls are late for many reasons, and
early for one. So two answers that are far too fast show that a brown-out is over, where few are sent to find out."""
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

EXPONENT_VARIANCE_PRIOR = 0.5
"""Before anything is seen an exponent is 0 within 0.7: from elastic to all calls sharing one machine."""
EXPONENT_VARIANCE_PER_OBSERVATION = 1e-5
"""How fast an exponent may change: with the information of a usual call it stays known to 0.06, from the last 300."""
EXPONENT_CAUTION = 3.0
"""An exponent is shrunk towards 0 by so many times its variance (James, Stein 1961), to 0 at 1.7 standard errors: noise
must not be charged to an elastic provider, and what is there shows ten standard errors soon."""
EXPONENT_SCORE_MAX = 1.5
"""A surprise of more deviations than this teaches an exponent less, one of `SCORE_MAX` nothing: it is no load."""
SCALE_STEP_MAX = 1.2
SCALE_INTERVAL_COUNT = 16
"""A scale moves by at most a fifth every 16 observations: slowly against what is learned in between."""
USUAL_GAIN_MIN = 0.02
"""The usual load and length are those of the last 50 observations."""

LOAD_SCALE = 8.0
LOAD_SCALE_MIN = 0.5
LOAD_SCALE_MAX = 500.0
"""Calls under way that double a duration: from an endpoint that serves one at a time to one that hardly notices."""
LOAD_POWER = 2.0
"""With 1, the scale of an endpoint that bears six calls well and no more (as servers that batch do) would fit neither few
calls nor many, and too many would be sent where few are. What grows evenly is fitted within its spread all the same."""
COMMON_MAX = 1.5
"""An exponent is taken to be at most this from what other endpoints show: theirs may be another kind of machine."""
COMMON_GAIN_MIN = 0.005
"""What endpoints have in common is that of the last 200 observations, of all of them together."""
LENGTH_SCALE = 3000.0
LENGTH_SCALE_MIN = 100.0
LENGTH_SCALE_MAX = 1e6
"""Input tokens that double a duration: prompts are read at some thousand to some ten thousand tokens per second."""

_SQRT_2 = math.sqrt(2.0)
_SQRT_2_PI = math.sqrt(2.0 * math.pi)


class Level(NamedTuple):
    """Where the median of a positive quantity stands at an instant, and how well that is known."""

    log_median: float
    """Natural logarithm of the median."""
    log_standard_error: float
    """Standard error of `log_median`: 0.1 means that the median is known to about 10 %."""
    log_spread: float
    """Standard deviation of the logarithm of one observation around the level."""
    returned: float
    """0..1, how far the median has returned from the last session's to the usual one."""
    log_mean_ratio: float
    """By how much the logarithm of the mean lies above the median's, over all sessions; 0 before the first has ended."""


class _Run:
    """Evidence that the level has moved in one direction, summed up since it was last nil."""

    __slots__ = ("_evidence", "seen")

    def __init__(self) -> None:
        self._evidence = 0.0
        self.seen: deque[tuple[float, float, float]] = deque(maxlen=REGIME_OBSERVATION_COUNT)
        """The last observations of the run: logarithm, load, length."""

    def add(self, score: float, seen: tuple[float, float, float]) -> bool:
        """Take in an observation `score` deviations off in this direction; whether the evidence is enough."""
        self._evidence += score - REGIME_DRIFT
        if self._evidence > 0.0:
            self.seen.append(seen)
            return self._evidence >= REGIME_EVIDENCE
        self.clear()
        return False

    def clear(self) -> None:
        """Start over."""
        self._evidence = 0.0
        self.seen.clear()


class CommonGrowth:
    """What several endpoints have in common of how they grow with load: where little is known of one of them, it is
    taken to be like the others (empirical Bayes: Robbins 1956). A running mean, so that nothing is kept of endpoints
    that are gone."""

    __slots__ = ("_weight", "bend")

    def __init__(self) -> None:
        self.bend = 0.0
        """The mean of exponent / scale^power, by which times quantity^power a duration grows where that is little."""
        self._weight = 0.0

    def learn(self, growth: Growth) -> None:
        """Take in what is known of one endpoint after a further observation, by how much of the first doubt is gone."""
        unit = math.pow(growth.scale, growth.power)
        first = math.pow(LOAD_SCALE, growth.power)
        known = 1.0 - growth.variance / EXPONENT_VARIANCE_PRIOR * (first / unit) ** 2
        if known > 0.0:
            weight = known * known
            self._weight = min(1.0 / COMMON_GAIN_MIN, self._weight + weight)
            self.bend += weight / self._weight * (growth.exponent / unit - self.bend)


class Growth:
    """How the duration grows with one quantity: (1 + (quantity / scale)^power)^exponent, of which all but the power is
    learned."""

    __slots__ = ("_common", "exponent", "power", "scale", "scale_max", "scale_min", "usual", "variance")

    def __init__(
        self, *, power: float, scale: float, scale_min: float, scale_max: float, common: CommonGrowth | None = None
    ) -> None:
        self._common = common
        self.power = power
        self.scale = scale
        self.scale_min = scale_min
        self.scale_max = scale_max
        self.exponent = 0.0
        self.variance = EXPONENT_VARIANCE_PRIOR
        """Of the exponent."""
        self.usual = 0.0
        """The quantity that the level is about: that of the last calls."""

    @property
    def shrunk(self) -> float:
        """The exponent as far as it is proven to differ from what is common, or from 0 where nothing is; never negative:
        nothing becomes faster by waiting behind more."""
        expected = 0.0 if self._common is None else self._common.bend * math.pow(self.scale, self.power)
        expected = max(0.0, min(COMMON_MAX, expected))
        differs = self.exponent - expected
        squared = differs * differs
        if squared <= EXPONENT_CAUTION * self.variance:
            return expected
        return max(0.0, expected + differs * (1.0 - EXPONENT_CAUTION * self.variance / squared))

    @property
    def is_proven(self) -> bool:
        """Whether the duration is known to grow with the quantity, by itself and whatever others do."""
        return self.exponent > 0.0 and self.exponent * self.exponent > EXPONENT_CAUTION * self.variance

    def learned(self) -> None:
        """What is known of the exponent has changed with an observation."""
        if self._common is not None:
            self._common.learn(self)

    def summary(self) -> GrowthSummary:
        """What is known, to be kept."""
        return GrowthSummary(scale=self.scale, exponent=self.exponent, variance=self.variance, usual=self.usual)

    def restore(self, summary: GrowthSummary) -> None:
        """Go on from what was known."""
        self.scale = max(self.scale_min, min(self.scale_max, summary.scale))
        self.exponent, self.variance, self.usual = summary.exponent, summary.variance, summary.usual

    def regressor(self, quantity: float) -> float:
        """What the exponent multiplies."""
        return math.log1p(math.pow(quantity / self.scale, self.power)) if quantity > 0.0 else 0.0

    def growth(self, quantity: float) -> float:
        """By how much the logarithm of the duration lies higher there than at the usual quantity."""
        exponent = self.shrunk
        return exponent * (self.regressor(quantity) - self.regressor(self.usual)) if exponent > 0.0 else 0.0

    def slope(self, quantity: float) -> float:
        """By which share the duration grows there with one more unit, per unit."""
        power = self.power
        steepness = power * math.pow(quantity, power - 1.0)
        return self.shrunk * steepness / (math.pow(self.scale, power) + math.pow(quantity, power))

    def better_scale(self) -> float:
        """A step towards the scale at which the exponent that shows the same slope is one."""
        usual = math.pow(self.usual, self.power)
        raised = max(0.0, (math.pow(self.scale, self.power) + usual) / self.exponent - usual)
        wanted = math.pow(raised, 1.0 / self.power)
        wanted = max(self.scale / SCALE_STEP_MAX, min(self.scale * SCALE_STEP_MAX, wanted))
        return max(self.scale_min, min(self.scale_max, wanted))


class LevelFilter:
    """Follows the median of a positive quantity through its logarithms, and knows how well. Constant memory."""

    __slots__ = (
        "_cross_length",
        "_cross_load",
        "_cross_slopes",
        "_intercept",
        "_intercept_variance",
        "_run_down",
        "_run_up",
        "_seen_s",
        "_session_count",
        "_session_sum_s",
        "_sessions",
        "_spread",
        "length",
        "load",
        "observation_count",
    )

    def __init__(self, *, common_load: CommonGrowth | None = None) -> None:
        """`common_load`: what is shared with the filters of other endpoints; None shares nothing."""
        self.observation_count = 0
        self.load = Growth(
            power=LOAD_POWER,
            scale=LOAD_SCALE,
            scale_min=LOAD_SCALE_MIN,
            scale_max=LOAD_SCALE_MAX,
            common=common_load,
        )
        self.length = Growth(power=1.0, scale=LENGTH_SCALE, scale_min=LENGTH_SCALE_MIN, scale_max=LENGTH_SCALE_MAX)
        # The level without load and input, its variance, and the covariances of the three.
        self._intercept = 0.0
        self._intercept_variance = 0.0
        self._cross_load = 0.0
        self._cross_length = 0.0
        self._cross_slopes = 0.0
        self._spread = SPREAD_VARIANCE_PRIOR
        self._seen_s = 0.0
        self._sessions = Sessions()
        # The durations of the session that goes on, at the usual load and length.
        self._session_count = 0
        self._session_sum_s = 0.0
        self._run_up = _Run()
        self._run_down = _Run()

    def at(self, now_s: float, *, load: float | None = None, length: float | None = None) -> Level | None:
        """The level as it is known at `now_s`; None before the first observation.

        Args:
            now_s: The instant.
            load: At which load; None: at the usual one.
            length: For which length of input; None: for the usual one.
        """
        if self.observation_count == 0:
            return None
        x, y = self.load.regressor(self.load.usual), self.length.regressor(self.length.usual)
        log_median = self._intercept + self.load.exponent * x + self.length.exponent * y
        silent_s = max(0.0, now_s - self._seen_s)
        variance = self._variance(x, y) + silent_s * LEVEL_VARIANCE_PER_S
        log_median += self._sessions.returned(log_median, silent_s)
        for growth, quantity, usual in ((self.load, load, x), (self.length, length, y)):
            exponent = growth.shrunk
            if quantity is not None and exponent > 0.0:
                further = growth.regressor(quantity) - usual
                log_median += exponent * further
                variance += min(growth.variance, exponent * exponent) * further * further
        known = min(self._sessions.variance(LEVEL_VARIANCE_MAX), variance)
        return Level(
            log_median,
            math.sqrt(known),
            math.sqrt(self._spread),
            self._sessions.share(silent_s),
            self._sessions.log_mean_ratio,
        )

    def growth(self, *, load: float, length: float) -> float:
        """By how much the logarithm of the median lies higher there than at the usual load and length."""
        return self.load.growth(load) + self.length.growth(length)

    @property
    def log_median(self) -> float | None:
        """At the usual load and length; None before the first observation."""
        if self.observation_count == 0:
            return None
        load, length = self.load, self.length
        return (
            self._intercept
            + load.exponent * load.regressor(load.usual)
            + length.exponent * length.regressor(length.usual)
        )

    def observe(
        self, log_value: float, *, now_s: float, noise_variance: float = 0.0, load: float = 0.0, length: float = 0.0
    ) -> bool:
        """Take in an observation; whether the level has jumped for it.

        Args:
            log_value: Its natural logarithm.
            now_s: When it was made.
            noise_variance: Variance of its logarithm beyond the spread, where it is known to be imprecise.
            load: The calls that were under way besides.
            length: Tokens of the input.
        """
        jumps = False
        if self.observation_count == 0:
            self.load.usual, self.length.usual = load, length
            self._place(((log_value, load, length),), variance=self._spread + noise_variance)
            self.observation_count = 1
        else:
            self.observation_count += 1
            x, y = self.load.regressor(load), self.length.regressor(length)
            self._age(now_s)
            level_variance = self._variance(x, y)
            variance = level_variance + self._spread + noise_variance
            deviation = math.sqrt(variance)
            expected = self._intercept + self.load.exponent * x + self.length.exponent * y
            surprise = (log_value - expected) / deviation
            score = max(-SCORE_MAX, min(SCORE_MAX, surprise))
            lesson = max(0.0, min(1.0, (SCORE_MAX - abs(score)) / (SCORE_MAX - EXPONENT_SCORE_MAX)))
            self._learn(x, y, step=score / deviation, certainty=1.0 / variance, lesson=lesson)
            self._learn_spread((score * score - 1.0) * variance)
            self._remember(load, length)
            self.load.learned()
            seen = (log_value, load, length)
            if self._run_up.add(score, seen):
                self._jump(self._run_up)
                jumps = True
            if self._run_down.add(min(FAST_SCORE_MAX, -surprise), seen):
                self._jump(self._run_down, middle=median_low)
                jumps = True
        self._seen_s = max(self._seen_s, now_s)
        self._count(log_value, load=load, length=length)
        return jumps

    def observe_at_least(self, log_value: float, *, now_s: float, load: float = 0.0, length: float = 0.0) -> bool:
        """Take in that a value would have been larger than this one: the wait was broken off. Whether the level has jumped
        for it.

        Before the first observation nothing can be said to be long, and the evidence is dropped.
        """
        if self.observation_count == 0:
            return False
        x, y = self.load.regressor(load), self.length.regressor(length)
        self._age(now_s)
        variance = self._variance(x, y) + self._spread
        deviation = math.sqrt(variance)
        expected = self._intercept + self.load.exponent * x + self.length.exponent * y
        threshold = (log_value - expected) / deviation
        if threshold < SCORE_MIN_INFORMATIVE:
            return False
        # The expectation of a standard normal beyond the threshold, and by how much knowing this narrows it.
        score, narrowing = SCORE_MAX, 1.0
        if threshold < SCORE_MAX:
            density = math.exp(-0.5 * threshold * threshold) / _SQRT_2_PI
            beyond = density / (0.5 * math.erfc(threshold / _SQRT_2))
            score, narrowing = min(SCORE_MAX, beyond), min(1.0, beyond * (beyond - threshold))
        if threshold > 0.0:
            self._count(log_value, load=load, length=length)
        # Nobody knows how long it would have been, so nothing is learned of what it grows with.
        self._learn(x, y, step=score / deviation, certainty=narrowing / variance, lesson=0.0)
        # A wait that was broken off early is no evidence that the level is back to normal.
        if score > REGIME_DRIFT and self._run_up.add(score, (log_value, load, length)):
            self._jump(self._run_up)
            return True
        return False

    def _count(self, log_value: float, *, load: float, length: float) -> None:
        """Take a duration into the mean of the session."""
        self._session_count += 1
        self._session_sum_s += math.exp(log_value - self.growth(load=load, length=length))

    def shift(self, by: float) -> None:
        """Move the level: what it is measured against has moved."""
        self._intercept += by
        self._session_sum_s *= math.exp(by)
        self._sessions.shift(by)
        for run in (self._run_up, self._run_down):
            shifted = [(log_value + by, load, length) for log_value, load, length in run.seen]
            run.seen.clear()
            run.seen.extend(shifted)

    def summary(self, *, unix_offset_s: float) -> LevelSummary:
        """What is known, to be kept; `unix_offset_s` makes our time seconds since 1970."""
        return LevelSummary(
            observation_count=self.observation_count,
            intercept=self._intercept,
            intercept_variance=max(0.0, self._intercept_variance),
            cross_load=self._cross_load,
            cross_length=self._cross_length,
            cross_slopes=self._cross_slopes,
            spread=self._spread,
            seen_unix_s=self._seen_s + unix_offset_s,
            load=self.load.summary(),
            length=self.length.summary(),
            sessions=self._sessions.summary(),
        )

    def restore(self, summary: LevelSummary, *, now_s: float, unix_offset_s: float) -> None:
        """Go on from what was known; what was last seen in the future, by a clock that was wrong, was seen now."""
        self.observation_count = summary.observation_count
        self._intercept, self._intercept_variance = summary.intercept, summary.intercept_variance
        self._cross_load, self._cross_length = summary.cross_load, summary.cross_length
        self._cross_slopes = summary.cross_slopes
        self._spread = max(SPREAD_VARIANCE_MIN, min(SPREAD_VARIANCE_MAX, summary.spread))
        self._seen_s = min(now_s, summary.seen_unix_s - unix_offset_s)
        self.load.restore(summary.load)
        self.length.restore(summary.length)
        self._sessions.restore(summary.sessions)

    def _age(self, now_s: float) -> None:
        """Let doubt grow up to `now_s`, and the level return to the usual one."""
        elapsed_s = max(0.0, now_s - self._seen_s)
        self._seen_s = max(self._seen_s, now_s)
        self._intercept_variance += min(LEVEL_VARIANCE_MAX, elapsed_s * LEVEL_VARIANCE_PER_S)
        if elapsed_s >= RETURN_S_MIN and (level := self.log_median) is not None:
            self._intercept += self._sessions.returned(level, elapsed_s)
            if elapsed_s >= SESSION_GAP_S:
                session_s = self._session_sum_s / self._session_count if self._session_count else math.exp(level)
                self._sessions.end(level, session_s)
                self._session_count, self._session_sum_s = 0, 0.0
                between = self._sessions.variance(LEVEL_VARIANCE_MAX)
                self._intercept_variance = min(self._intercept_variance, between)
                self._run_up.clear()
                self._run_down.clear()
        for growth in (self.load, self.length):
            if growth.usual > 0.0 and growth.variance < EXPONENT_VARIANCE_PRIOR:
                growth.variance += EXPONENT_VARIANCE_PER_OBSERVATION

    def _variance(self, x: float, y: float) -> float:
        """Of the level at these regressors."""
        return max(
            0.0,
            self._intercept_variance
            + x * (2.0 * self._cross_load + x * self.load.variance)
            + y * (2.0 * self._cross_length + 2.0 * x * self._cross_slopes + y * self.length.variance),
        )

    def _learn(self, x: float, y: float, *, step: float, certainty: float, lesson: float) -> None:
        """One step of the Kalman filter at these regressors, of which the exponents take the share `lesson`.

        Args:
            x: The load's regressor.
            y: The length's.
            step: The innovation over its variance.
            certainty: One over that variance; less where the observation narrows less than a value would.
            lesson: 0..1. The level at these regressors learns in full.
        """
        load, length = self.load, self.length
        # The covariance of level and exponents with what was observed.
        c_load = self._cross_load + x * load.variance + y * self._cross_slopes
        c_length = self._cross_length + x * self._cross_slopes + y * length.variance
        c_level = self._intercept_variance + x * self._cross_load + y * self._cross_length
        c_observed = c_level + x * c_load + y * c_length
        load_step, length_step = lesson * c_load * step, lesson * c_length * step
        load.exponent += load_step
        length.exponent += length_step
        self._intercept += c_observed * step - x * load_step - y * length_step
        self._intercept_variance -= certainty * c_level * c_level
        self._cross_load -= certainty * c_level * c_load
        self._cross_length -= certainty * c_level * c_length
        load.variance -= certainty * c_load * c_load
        length.variance -= certainty * c_length * c_length
        self._cross_slopes -= certainty * c_load * c_length
        if lesson < 1.0:
            # The exponents get back the doubt that they have not lost; the level here keeps what it has learned.
            kept = (1.0 - lesson) * certainty
            d_load, d_length, d_cross = kept * c_load * c_load, kept * c_length * c_length, kept * c_load * c_length
            load.variance += d_load
            length.variance += d_length
            self._cross_slopes += d_cross
            self._cross_load -= x * d_load + y * d_cross
            self._cross_length -= x * d_cross + y * d_length
            self._intercept_variance += x * x * d_load + 2.0 * x * y * d_cross + y * y * d_length

    def _learn_spread(self, surprise: float) -> None:
        weight = SPREAD_PRIOR_COUNT + min(self.observation_count - 1, SPREAD_MEMORY_COUNT)
        spread = self._spread + surprise / weight
        self._spread = max(SPREAD_VARIANCE_MIN, min(SPREAD_VARIANCE_MAX, spread))

    def _remember(self, load: float, length: float) -> None:
        """Follow what is usual, and where there is something to be seen, the scale."""
        gain = max(USUAL_GAIN_MIN, 1.0 / self.observation_count)
        self.load.usual += gain * (load - self.load.usual)
        self.length.usual += gain * (length - self.length.usual)
        if self.observation_count % SCALE_INTERVAL_COUNT == 0:
            for growth in (self.load, self.length):
                if growth.is_proven:
                    self._rescale(growth)

    def _rescale(self, growth: Growth) -> None:
        """Move the scale of `growth` so that level and slope at the usual quantity stay as they are."""
        before, scale = growth.regressor(growth.usual), growth.scale
        growth.scale = growth.better_scale()
        power, usual = growth.power, math.pow(growth.usual, growth.power)
        ratio = (math.pow(growth.scale, power) + usual) / (math.pow(scale, power) + usual)
        moved = before - ratio * growth.regressor(growth.usual)
        is_load = growth is self.load
        cross, other = self._cross_load, self._cross_length
        if not is_load:
            cross, other = other, cross
        self._intercept += moved * growth.exponent
        self._intercept_variance += moved * (2.0 * cross + moved * growth.variance)
        other += moved * self._cross_slopes
        cross = ratio * (cross + moved * growth.variance)
        self._cross_slopes *= ratio
        growth.exponent *= ratio
        growth.variance *= ratio * ratio
        self._cross_load, self._cross_length = (cross, other) if is_load else (other, cross)

    def _jump(self, run: _Run, middle: Callable[[Iterable[float]], float] = median) -> None:
        """The level is where the run of observations is that gave the change away: in their middle, of two the lower one
        where it has fallen, since the other may be from before."""
        variance = min(LEVEL_VARIANCE_MAX, self._spread / len(run.seen))
        self._place(tuple(run.seen), variance=variance, middle=middle)
        self._run_up.clear()
        self._run_down.clear()

    def _place(
        self,
        seen: Sequence[tuple[float, float, float]],
        *,
        variance: float,
        middle: Callable[[Iterable[float]], float] = median,
    ) -> None:
        """Put the level to the middle of some observations, known to `variance` at their load and length. Nothing that
        was known of the exponents says anything of it."""
        load, length = self.load, self.length
        x, y = fmean(load.regressor(at) for _, at, _ in seen), fmean(length.regressor(at) for _, _, at in seen)
        level = middle(
            log_value - load.exponent * (load.regressor(met) - x) - length.exponent * (length.regressor(sent) - y)
            for log_value, met, sent in seen
        )
        self._intercept = level - load.exponent * x - length.exponent * y
        self._cross_load = -x * load.variance - y * self._cross_slopes
        self._cross_length = -x * self._cross_slopes - y * length.variance
        self._intercept_variance = variance - x * self._cross_load - y * self._cross_length
