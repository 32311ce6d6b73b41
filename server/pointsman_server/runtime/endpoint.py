"""Everything that is known of one endpoint, put together from its estimators: written by events, read by decisions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from pointsman_server.chat import RequestAllowance
from pointsman_server.decision.types import BreakerState, EndpointRuntime, Latency
from pointsman_server.errors import UpstreamErrorKind
from pointsman_server.runtime.breaker import Admission, Breaker
from pointsman_server.runtime.estimators import DURATION_S_MAX, DurationEstimator, OutcomeCounts
from pointsman_server.runtime.failures import FailureOdds
from pointsman_server.runtime.level import CommonGrowth, Level
from pointsman_server.runtime.limits import RateLimits
from pointsman_server.runtime.summary import EndpointSummary
from pointsman_server.runtime.waiting import STALL_S_MIN, Delay, WaitingCall, WaitingRoom, stall

FAILURE_S_MIN = 1.0
"""A failed call costs its caller at least this: noticing it, choosing again, and the other endpoint's first token.
Linkerd charges 5 s, which suits callers who don't fail over."""
RATE_LIMIT_S_DEFAULT = 5.0
"""How long an endpoint is left alone after a 429 without Retry-After: limits are counted by the minute or the second,
and a few seconds give back a share of either."""
RATE_LIMIT_S_MAX = 60.0
"""A longer Retry-After is cut to this: the limits of a day are worth a try each minute, since others share them."""
BURST_GAP_S = 1e-4
"""Tokens that come faster come out of a buffer and show no speed: no model writes 10,000 tokens per second."""
RUSH_MAX = 4.0
"""A load above the usual one is charged for more in proportion, up to so many times: what brings more calls of ours there
brings those of every other replica too, unseen, and all of them at once are what overloads an endpoint. A load below the
usual one is charged for less: it is the peaks that hurt."""
GAP_COUNT_PRIOR = 100.0
GAP_COUNT_GAIN = 0.05
"""An answer has about as many tokens as the last 20 had: what a stall is spread over."""
TOKENS_PER_ESTIMATED_MAX = 10.0
"""Tokens of a script that we estimate wrongly are a few times as many or as few; what is beyond was not streamed at all."""
READ_TICK_S = 0.5
"""What changes with time alone is projected in steps of this while calls are under way, whose silence says more with every
second: at most two recomputations per endpoint and second, each endpoint's at moments of its own."""
IDLE_READ_TICK_S = 1.0
"""Likewise where nothing is under way: doubt grows, and errors are forgotten, by the minute."""

HEALTH_KINDS = frozenset(
    {
        UpstreamErrorKind.CONNECT,
        UpstreamErrorKind.TIMEOUT,
        UpstreamErrorKind.SERVER_ERROR,
        UpstreamErrorKind.PROTOCOL,
        UpstreamErrorKind.DISCONNECTED,
    }
)
"""Failures that say that the endpoint is ill."""


@dataclass(frozen=True, slots=True)
class Common:
    """What all endpoints of one tracker have in common. What one of them teaches the others shows when they are next read."""

    replica_count: int = 1
    """Trackers over which the same traffic is spread."""
    ttft: CommonGrowth = field(default_factory=CommonGrowth)
    """How time to first token grows with load."""
    inter_token: CommonGrowth = field(default_factory=CommonGrowth)
    """How inter-token latency grows with load."""


class EndpointState:
    """What is known of one endpoint. Constant memory, about 25 kB; reading never changes it."""

    __slots__ = (
        "_failures",
        "_gap_count",
        "_inter_token",
        "_load_s",
        "_load_since_s",
        "_observed_s",
        "_outcomes",
        "_rate_limited_until_s",
        "_replica_count",
        "_stream_count",
        "_tick_offset_s",
        "_token_s",
        "_ttft",
        "_waiting",
        "breaker",
        "in_flight_count",
        "limits",
        "may_be_restrained",
        "read_from_s",
        "read_until_s",
        "reading",
        "tokens_per_estimated",
    )

    def __init__(
        self, breaker: Breaker, *, common: Common, unix_offset_s: float | None, tick_offset_s: float = 0.0
    ) -> None:
        self.breaker = breaker
        self._replica_count = common.replica_count
        self._tick_offset_s = tick_offset_s
        self.limits = RateLimits()
        self.in_flight_count = 0
        self._load_s = 0.0
        self._load_since_s = 0.0
        self._waiting = WaitingRoom()
        self._stream_count = 0
        self._token_s = -math.inf
        self._gap_count = GAP_COUNT_PRIOR
        self.tokens_per_estimated = 1.0
        """By the provider's count, in the last 20 answers or so."""
        self._ttft = DurationEstimator(unix_offset_s=unix_offset_s, common_load=common.ttft)
        self._inter_token = DurationEstimator(unix_offset_s=unix_offset_s, common_load=common.inter_token)
        self._outcomes = OutcomeCounts()
        self._failures = FailureOdds()
        self._rate_limited_until_s = -math.inf
        self._observed_s: float | None = None
        self.reading = EndpointRuntime()
        """What was read last. It holds from `read_from_s` until `read_until_s`, if nothing is written meanwhile."""
        self.read_from_s = math.inf
        self.read_until_s = -math.inf
        self.may_be_restrained = False
        """Whether the endpoint may be one that must not be called as one likes, of which `reading` tells nothing."""

    def runtime(self, now_s: float) -> EndpointRuntime:
        """The state at `now_s`. The very same object until something is written or a tick passes."""
        if not self.read_from_s <= now_s < self.read_until_s:
            tick_s = READ_TICK_S if self.in_flight_count else IDLE_READ_TICK_S
            tick = math.floor((now_s - self._tick_offset_s) / tick_s)
            self.read_from_s = tick * tick_s + self._tick_offset_s
            self.read_until_s = self.read_from_s + tick_s
            self.reading = self._read(self.read_from_s)
            self.may_be_restrained = (
                self._rate_limited_until_s > self.read_from_s or not self.breaker.is_closed or self.limits.may_bind
            )
        return self._restrained(now_s) if self.may_be_restrained else self.reading

    def _restrained(self, now_s: float) -> EndpointRuntime:
        """The state of an endpoint that may not be called, or only once, or only so often: exact to the moment."""
        breaker = self.breaker.state(now_s)
        wait_s = max(
            self._rate_limited_until_s - now_s, self.limits.wait_s(now_s, in_flight_count=self.in_flight_count)
        )
        if breaker is BreakerState.CLOSED and wait_s <= 0.0:
            return self.reading
        open_s = self.breaker.retry_after_s(now_s) if breaker is BreakerState.OPEN else None
        # `_replace` would take as long again as all of this.
        ttft_s, gap_s, error_rate, load, _, _, count, age_s, slope, length, marginal_s, marginal_s_per_token, _ = (
            self.reading
        )
        return EndpointRuntime(
            ttft_s,
            gap_s,
            error_rate,
            load,
            breaker,
            wait_s if wait_s > 0.0 else None,
            count,
            age_s,
            slope,
            length,
            marginal_s,
            marginal_s_per_token,
            open_s,
        )

    def _read(self, now_s: float) -> EndpointRuntime:
        load = self.in_flight_count
        outcomes = self._outcomes.at(now_s)
        ttft_s, inter_token_s = self._ttft.latency(now_s, load=load), self._inter_token.latency(now_s, load=load)
        per_input_token_s = reference = marginal_s = marginal_s_per_token = 0.0
        if ttft_s is not None:
            marginal_s = ttft_s.mean * self._margin(self._ttft, load)
            per_input_token_s = ttft_s.mean * self._ttft.length_slope()
            if per_input_token_s > 0.0:
                reference = self._ttft.usual_length
            if self._waiting:
                delay = self._waiting.delay(now_s, self._level_of(now_s), usual_s=ttft_s.p50)
                ttft_s = ttft_s if delay is None else _delayed(ttft_s, delay)
            lost_s = self._failures.cost_s(now_s)
            if lost_s > 0.0:
                ttft_s = ttft_s._replace(mean=min(DURATION_S_MAX, ttft_s.mean + lost_s))
        if inter_token_s is not None:
            marginal_s_per_token = inter_token_s.mean * self._margin(self._inter_token, load)
            silence = stall(now_s - self._token_s, stream_count=self._stream_count, gap_s=inter_token_s.p50)
            if silence is not None:
                spread_s = silence.expected_s / self._gap_count
                inter_token_s = _delayed(inter_token_s, silence._replace(expected_s=inter_token_s.mean + spread_s))
        return EndpointRuntime(
            ttft_s,
            inter_token_s,
            outcomes.error_rate,
            load,
            BreakerState.CLOSED,
            None,
            outcomes.call_count,
            None if self._observed_s is None else max(0.0, now_s - self._observed_s),
            per_input_token_s,
            reference,
            marginal_s,
            marginal_s_per_token,
        )

    def _margin(self, duration: DurationEstimator, load: int) -> float:
        """What one more call takes from all others, as a multiple of the duration: 0 where nothing grows with load. Each
        further replica has as many calls there, unseen."""
        if load == 0:
            return 0.0
        rush = min(RUSH_MAX, (load + 1.0) / (duration.usual_load + 1.0))
        return self._replica_count * rush * load * duration.load_slope(load)

    def _level_of(self, now_s: float) -> Callable[[float, float], Level | None]:
        return lambda load, length: self._ttft.level(now_s, load=load, length=length)

    def room(self, now_s: float, *, within_s: float) -> float:
        """How many calls may start within the next `within_s`, as far as limits of our rate are known; infinite without."""
        from_s, until_s = max(now_s, self._rate_limited_until_s), now_s + within_s
        return self.limits.room(from_s, until_s) if from_s <= until_s else 0.0

    def load_s(self, now_s: float) -> float:
        """The calls under way, summed up over all time until now: calls x seconds."""
        return self._load_s + self.in_flight_count * max(0.0, now_s - self._load_since_s)

    def enter(self, call: WaitingCall) -> int:
        """A call begins; its number."""
        self._waiting.enter(call)
        self._count(call.started_s, 1)
        return self.limits.started(call.started_s)

    def leave(self, call: WaitingCall, *, answered: bool, streamed: bool, now_s: float) -> None:
        """A call ends."""
        assert self.in_flight_count > 0, "what ends has begun"
        if not answered:
            self._waiting.leave(call)
        self._stream_count -= streamed
        self._count(now_s, -1)

    def _count(self, now_s: float, change: int) -> None:
        self._load_s = self.load_s(now_s)
        self._load_since_s = max(self._load_since_s, now_s)
        self.in_flight_count += change
        self.read_until_s = -math.inf

    def saw_answer(self, call: WaitingCall, *, now_s: float) -> None:
        """A call that was made here has its first token."""
        self.saw_sign_of_life(now_s)
        ttft_s = max(0.0, now_s - call.started_s)
        self.saw_first_token(ttft_s, started_s=call.started_s, load=call.load, length=call.length, now_s=now_s)

    def saw_stream(self) -> None:
        """An answer tells of its tokens as they come; from now on its silence says something."""
        self._stream_count += 1
        self.read_until_s = -math.inf

    def saw_sign_of_life(self, now_s: float) -> None:
        """A token has come, of whatever answer."""
        if now_s - self._token_s >= STALL_S_MIN:
            self.read_until_s = -math.inf
        self._token_s = max(self._token_s, now_s)

    def saw_first_token(
        self, ttft_s: float, *, started_s: float, load: float, length: float | None, now_s: float
    ) -> None:
        """An answer began, of a call that began at `started_s`."""
        self._waiting.answered(started_s)
        self._ttft.observe(ttft_s, now_s=now_s, load=load, length=length)
        self._written(now_s)

    def saw_length(self, gap_count: float) -> None:
        """An answer is over that had so many gaps between its tokens."""
        if gap_count >= 1.0:
            self._gap_count += GAP_COUNT_GAIN * (gap_count - self._gap_count)

    def saw_count(self, tokens_per_estimated: float) -> None:
        """By the provider's count an answer had so many tokens for each of our estimate."""
        bounded = max(1.0 / TOKENS_PER_ESTIMATED_MAX, min(TOKENS_PER_ESTIMATED_MAX, tokens_per_estimated))
        self.tokens_per_estimated += GAP_COUNT_GAIN * (bounded - self.tokens_per_estimated)

    def saw_tokens(self, duration_s: float, *, gap_count: float, load: float, now_s: float) -> None:
        """So many gaps between tokens, which took so long together.

        One token has no gap, and an answer that came in one piece shows none.
        """
        if gap_count < 1.0 or duration_s < BURST_GAP_S * gap_count:
            return
        # A mean of n gaps, each of which varies by about its own size, varies by 1/n.
        self._inter_token.observe(duration_s / gap_count, now_s=now_s, noise_variance=1.0 / gap_count, load=load)
        self._written(now_s)

    def saw_wait(self, duration_s: float, *, load: float, length: float | None, now_s: float) -> None:
        """A call waited so long for its first token, in vain."""
        self._waiting.gave_up(duration_s, self._ttft.level(now_s, load=load, length=length), now_s=now_s)
        self._ttft.observe_at_least(duration_s, now_s=now_s, load=load, length=length)
        self.read_until_s = -math.inf

    def saw_success(self, admission: Admission, *, now_s: float) -> None:
        """A call succeeded."""
        self._outcomes.add_success(now_s=now_s)
        self._failures.add_success(now_s=now_s)
        self.limits.succeeded(self.in_flight_count)
        self.breaker.succeed(admission, now_s=now_s)
        self._written(now_s)

    def saw_failure(
        self, kind: UpstreamErrorKind, admission: Admission, *, lost_s: float, retry_after_s: float | None, now_s: float
    ) -> None:
        """A call failed after `lost_s`."""
        if kind is UpstreamErrorKind.REJECTED:
            self.breaker.release(admission)
            return
        lost_s = max(FAILURE_S_MIN, min(DURATION_S_MAX, lost_s))
        self._outcomes.add_failure(now_s=now_s)
        self._failures.add_failure(lost_s=lost_s, now_s=now_s)
        if kind is UpstreamErrorKind.RATE_LIMITED:
            self.breaker.release(admission)
            wanted_s = RATE_LIMIT_S_DEFAULT if retry_after_s is None else retry_after_s
            self._rate_limited_until_s = max(self._rate_limited_until_s, now_s + min(RATE_LIMIT_S_MAX, wanted_s))
        else:
            assert kind in HEALTH_KINDS or kind is UpstreamErrorKind.AUTHENTICATION, kind
            self.breaker.fail(admission, is_authentication=kind not in HEALTH_KINDS, now_s=now_s)
        self._written(now_s)

    def saw_allowance(self, allowance: RequestAllowance, *, number: int, now_s: float) -> None:
        """The headers of an answer, or of a refusal, to the call of that number say how many more are admitted."""
        self.limits.reported(allowance, number=number, now_s=now_s)
        self.may_be_restrained = True

    def saw_refusal(self, call: WaitingCall, *, retry_after_s: float | None, now_s: float) -> None:
        """A call that was made here was refused for a limit."""
        self.limits.refused(started_s=call.started_s, load=int(call.load), retry_after_s=retry_after_s, now_s=now_s)
        self.read_until_s = -math.inf

    def summary(self, name: str, *, unix_offset_s: float) -> EndpointSummary | None:
        """What is known for longer than a minute, to be kept; None if there is nothing."""
        if self._observed_s is None:
            return None
        return EndpointSummary(
            name=name,
            observed_unix_s=self._observed_s + unix_offset_s,
            gap_count=self._gap_count,
            ttft=self._ttft.summary(unix_offset_s=unix_offset_s),
            inter_token=self._inter_token.summary(unix_offset_s=unix_offset_s),
            limit=self.limits.summary(unix_offset_s=unix_offset_s),
        )

    def restore(self, summary: EndpointSummary, *, now_s: float, unix_offset_s: float) -> None:
        """Go on from what was known, as old as it is."""
        self._gap_count = summary.gap_count
        if summary.ttft is not None:
            self._ttft.restore(summary.ttft, now_s=now_s, unix_offset_s=unix_offset_s)
        if summary.inter_token is not None:
            self._inter_token.restore(summary.inter_token, now_s=now_s, unix_offset_s=unix_offset_s)
        if summary.limit is not None:
            self.limits.restore(summary.limit, now_s=now_s, unix_offset_s=unix_offset_s)
        self._written(min(now_s, summary.observed_unix_s - unix_offset_s))

    def _written(self, now_s: float) -> None:
        self._observed_s = now_s if self._observed_s is None else max(self._observed_s, now_s)
        self.read_until_s = -math.inf


def _delayed(latency: Latency, delay: Delay) -> Latency:
    """The distribution when there is a chance that it takes longer: the mean of both cases, and quantiles between."""
    factor = math.exp(delay.chance * math.log(max(1.0, delay.expected_s / latency.p50)))
    mean = (1.0 - delay.chance) * latency.mean + delay.chance * max(latency.mean, delay.expected_s)
    quantiles = (min(DURATION_S_MAX, factor * quantile) for quantile in latency[1:])
    return Latency(min(DURATION_S_MAX, mean), *quantiles)
