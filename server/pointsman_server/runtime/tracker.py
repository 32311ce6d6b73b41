"""The runtime aggregator: fed by every attempt and every reported outcome, read by every decision.

What an event says, and to what:

| event                     | latency                          | error rate | breaker              |
|---------------------------|----------------------------------|------------|----------------------|
| first token               | time to first token              |            | ends a trial well    |
| success                   | inter-token latency              | success    | success              |
| timeout, server error,    | "at least this long"; time lost  | failure    | failure              |
| connect, broken, protocol |                                  |            |                      |
| rate limited              | time lost                        | failure    | leaves it; rate limit|
| key refused               | time lost                        | failure    | opens it for long    |
| request rejected          |                                  |            | leaves it            |
| cancelled by the caller   | "at least this long"             |            | leaves it            |

A failed call counts as a slow answer (linkerd2-proxy's load biaser does so): otherwise an endpoint that fails fast would
look fast and draw all traffic. Its time is charged to the calls that succeed: the expected time to first token is that
of an answer plus the odds of failing first times what a failure costs.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import KW_ONLY, dataclass

from pointsman_server.decision.types import BreakerState, EndpointRuntime, RuntimeSnapshot
from pointsman_server.errors import UpstreamErrorKind
from pointsman_server.runtime.breaker import Admission, Breaker, BreakerRules
from pointsman_server.runtime.estimators import DURATION_S_MAX, DurationEstimator, OutcomeCounts

ENDPOINT_COUNT_MAX = 4096
"""As many endpoints as a caller may watch; about 15 kB each."""
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
READ_TICK_S = 0.5
"""What changes with time alone is projected in steps of this: at most two recomputations per endpoint and second."""

_HEALTH_KINDS = frozenset(
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
class Observation:
    """What a caller saw who made the call without us. None: not reported."""

    endpoint_name: str
    _: KW_ONLY
    ttft_s: float | None = None
    """Time to first token; also of a call that failed later."""
    duration_s: float | None = None
    """From sending the request to the end of the answer, or to its failure."""
    output_token_count: int | None = None
    input_token_count: int | None = None
    error_kind: UpstreamErrorKind | None = None
    """None: the call succeeded."""
    retry_after_s: float | None = None
    """What the provider asked for with a rate limit."""

    def __post_init__(self) -> None:
        counts = (self.output_token_count, self.input_token_count)
        for value in (self.ttft_s, self.duration_s, self.retry_after_s, *counts):
            assert value is None or value >= 0, "durations and counts are not negative"


class _Endpoint:
    """Everything that is known of one endpoint."""

    __slots__ = (
        "_inter_token",
        "_load_s",
        "_load_since_s",
        "_observed_s",
        "_outcomes",
        "_rate_limited_until_s",
        "_read_from_s",
        "_read_until_s",
        "_reading",
        "_ttft",
        "breaker",
        "in_flight_count",
    )

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.in_flight_count = 0
        self._load_s = 0.0
        self._load_since_s = 0.0
        self._ttft = DurationEstimator()
        self._inter_token = DurationEstimator()
        self._outcomes = OutcomeCounts()
        self._rate_limited_until_s = -math.inf
        self._observed_s: float | None = None
        # What was read last, and from when until when it holds if nothing is written.
        self._reading = EndpointRuntime()
        self._read_from_s = math.inf
        self._read_until_s = -math.inf

    def runtime(self, now_s: float) -> EndpointRuntime:
        """The state at `now_s`. The very same object until something is written or a tick passes."""
        if not self._read_from_s <= now_s < self._read_until_s:
            tick = math.floor(now_s / READ_TICK_S)
            self._read_from_s, self._read_until_s = tick * READ_TICK_S, (tick + 1) * READ_TICK_S
            self._reading = self._read(self._read_from_s)
        if self._rate_limited_until_s <= now_s and self.breaker.is_closed:
            return self._reading
        return self._restrained(now_s)

    def _restrained(self, now_s: float) -> EndpointRuntime:
        """The state of an endpoint that may not be called, or only once: exact to the moment."""
        breaker = self.breaker.state(now_s)
        retry_after_s = self.breaker.retry_after_s(now_s) if breaker is BreakerState.OPEN else None
        if self._rate_limited_until_s > now_s:
            retry_after_s = max(retry_after_s or 0.0, self._rate_limited_until_s - now_s)
        return self._reading._replace(breaker=breaker, retry_after_s=retry_after_s)

    def _read(self, now_s: float) -> EndpointRuntime:
        load = self.in_flight_count
        outcomes = self._outcomes.at(now_s)
        ttft_s, inter_token_s = self._ttft.latency(now_s, load=load), self._inter_token.latency(now_s, load=load)
        per_input_token_s = reference = marginal_s = marginal_s_per_token = 0.0
        if ttft_s is not None:
            marginal_s = load * ttft_s.mean * self._ttft.load_slope(load)
            per_input_token_s = ttft_s.mean * self._ttft.length_slope()
            if per_input_token_s > 0.0:
                reference = self._ttft.usual_length
            if outcomes.lost_s > 0.0:
                # One success more than was seen: a bounded figure for those who never succeed.
                lost_s = min(DURATION_S_MAX, outcomes.lost_s / (outcomes.success_count + 1))
                ttft_s = ttft_s._replace(mean=ttft_s.mean + lost_s)
        if inter_token_s is not None:
            marginal_s_per_token = load * inter_token_s.mean * self._inter_token.load_slope(load)
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

    def enter(self, now_s: float) -> None:
        """A call begins."""
        self._count(now_s, 1)

    def leave(self, now_s: float) -> None:
        """A call ends."""
        assert self.in_flight_count > 0, "what ends has begun"
        self._count(now_s, -1)

    def _count(self, now_s: float, change: int) -> None:
        self._load_s = self.load_s(now_s)
        self._load_since_s = max(self._load_since_s, now_s)
        self.in_flight_count += change
        self._read_until_s = -math.inf

    def load_s(self, now_s: float) -> float:
        """The calls under way, summed up over all time until now: calls x seconds."""
        return self._load_s + self.in_flight_count * max(0.0, now_s - self._load_since_s)

    def saw_first_token(self, ttft_s: float, *, load: float, length: float | None, now_s: float) -> None:
        """An answer began."""
        self._ttft.observe(ttft_s, now_s=now_s, load=load, length=length)
        self._written(now_s)

    def saw_tokens(self, duration_s: float, *, token_count: int, load: float, now_s: float) -> None:
        """`token_count` tokens, of which the last came `duration_s` after the first.

        One token has no gap, and an answer that came in one piece shows none.
        """
        gap_count = token_count - 1
        if gap_count < 1 or duration_s < BURST_GAP_S * gap_count:
            return
        # A mean of n gaps, each of which varies by about its own size, varies by 1/n.
        self._inter_token.observe(duration_s / gap_count, now_s=now_s, noise_variance=1.0 / gap_count, load=load)
        self._written(now_s)

    def saw_wait(self, duration_s: float, *, load: float, length: float | None, now_s: float) -> None:
        """A call waited so long for its first token, in vain."""
        self._ttft.observe_at_least(duration_s, now_s=now_s, load=load, length=length)
        self._read_until_s = -math.inf

    def saw_success(self, admission: Admission, *, now_s: float) -> None:
        """A call succeeded."""
        self._outcomes.add_success(now_s=now_s)
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
        self._outcomes.add_failure(lost_s=lost_s, now_s=now_s)
        if kind is UpstreamErrorKind.RATE_LIMITED:
            self.breaker.release(admission)
            wanted_s = RATE_LIMIT_S_DEFAULT if retry_after_s is None else retry_after_s
            self._rate_limited_until_s = max(self._rate_limited_until_s, now_s + min(RATE_LIMIT_S_MAX, wanted_s))
        else:
            assert kind in _HEALTH_KINDS or kind is UpstreamErrorKind.AUTHENTICATION, kind
            self.breaker.fail(admission, is_authentication=kind not in _HEALTH_KINDS, now_s=now_s)
        self._written(now_s)

    def _written(self, now_s: float) -> None:
        self._observed_s = now_s if self._observed_s is None else max(self._observed_s, now_s)
        self._read_until_s = -math.inf


class Attempt:
    """One upstream call under way. Exactly one of `succeed`, `fail` and `cancel` ends it."""

    __slots__ = (
        "_admission",
        "_endpoint",
        "_first_token_load_s",
        "_first_token_s",
        "_is_over",
        "_load",
        "_progress",
        "input_token_count",
        "started_s",
    )

    def __init__(self, endpoint: _Endpoint, *, input_token_count: int, now_s: float) -> None:
        assert input_token_count >= 0, input_token_count
        self.started_s = now_s
        self.input_token_count = input_token_count
        self._endpoint = endpoint
        self._admission = endpoint.breaker.start(now_s)
        self._load = endpoint.in_flight_count
        self._first_token_s: float | None = None
        self._first_token_load_s = 0.0
        self._progress: tuple[int, float] | None = None
        self._is_over = False
        endpoint.enter(now_s)

    def first_token(self, now_s: float) -> None:
        """The first piece of the answer has come. At most once, and not at all for an answer that comes as a whole."""
        assert not self._is_over, "the attempt is over"
        assert self._first_token_s is None, "there is one first token"
        self._first_token_s = now_s
        self._first_token_load_s = self._endpoint.load_s(now_s)
        self._endpoint.saw_first_token(
            self._elapsed_s(now_s), load=self._load, length=self.input_token_count, now_s=now_s
        )
        if self._admission.is_trial:
            # The endpoint answers. The rest of a long answer need not keep everyone else waiting.
            self._endpoint.breaker.succeed(self._admission, now_s=now_s)

    def progress(self, token_count: int, now_s: float) -> None:
        """So many tokens have come in all. Optional: it lets an attempt that breaks off still tell its speed."""
        assert not self._is_over, "the attempt is over"
        assert self._first_token_s is not None, "progress comes after the first token"
        self._progress = (token_count, now_s)

    def succeed(self, *, output_token_count: int | None, now_s: float) -> None:
        """The answer is complete. None: the provider did not say how many tokens it had."""
        if self._first_token_s is None:
            # An answer that came as a whole: its caller waited so long for the first token.
            self.first_token(now_s)
        elif output_token_count is not None:
            self._progress = (output_token_count, now_s)
        self._end(now_s)
        self._endpoint.saw_success(self._admission, now_s=now_s)

    def fail(self, kind: UpstreamErrorKind, *, retry_after_s: float | None, now_s: float) -> None:
        """The attempt failed. `retry_after_s` is what the provider asked for; it counts with RATE_LIMITED alone."""
        assert retry_after_s is None or retry_after_s >= 0.0, "a provider asks for time, if at all"
        self._end(now_s)
        elapsed_s = self._elapsed_s(now_s)
        if self._first_token_s is None and kind in _HEALTH_KINDS:
            self._saw_wait(elapsed_s, now_s)
        self._endpoint.saw_failure(kind, self._admission, lost_s=elapsed_s, retry_after_s=retry_after_s, now_s=now_s)

    def cancel(self, now_s: float) -> None:
        """The caller left. No error of the endpoint's, but its wait says "at least this long"."""
        self._end(now_s)
        if self._first_token_s is None:
            self._saw_wait(self._elapsed_s(now_s), now_s)
        self._endpoint.breaker.release(self._admission)

    def _end(self, now_s: float) -> None:
        assert not self._is_over, "the attempt is over"
        self._is_over = True
        self._endpoint.leave(now_s)
        if self._first_token_s is not None and self._progress is not None:
            token_count, last_s = self._progress
            duration_s = max(0.0, last_s - self._first_token_s)
            load = self._stream_load(now_s)
            self._endpoint.saw_tokens(duration_s, token_count=token_count, load=load, now_s=now_s)

    def _stream_load(self, now_s: float) -> float:
        """The other calls that were under way while this one streamed, on the average."""
        assert self._first_token_s is not None, "there was a stream"
        streamed_s = now_s - self._first_token_s
        if streamed_s <= 0.0:
            return self._endpoint.in_flight_count
        return max(0.0, (self._endpoint.load_s(now_s) - self._first_token_load_s) / streamed_s - 1.0)

    def _saw_wait(self, elapsed_s: float, now_s: float) -> None:
        self._endpoint.saw_wait(elapsed_s, load=self._load, length=self.input_token_count, now_s=now_s)

    def _elapsed_s(self, now_s: float) -> float:
        return max(0.0, now_s - self.started_s)


class RuntimeTracker:
    """Knows how fast and how healthy every endpoint is. Not thread-safe: one event loop feeds and reads it.

    Memory is bounded by `endpoint_count_max`: beyond it the endpoint is forgotten that was used least recently.
    """

    def __init__(
        self, *, endpoint_count_max: int = ENDPOINT_COUNT_MAX, breaker_rules: BreakerRules | None = None
    ) -> None:
        assert endpoint_count_max > 0, endpoint_count_max
        self._endpoint_count_max = endpoint_count_max
        self._breaker_rules = BreakerRules() if breaker_rules is None else breaker_rules
        self._endpoints: OrderedDict[str, _Endpoint] = OrderedDict()

    def start(self, endpoint_name: str, *, input_token_count: int, now_s: float) -> Attempt:
        """A call begins; on a half-open breaker it is the trial. Every attempt must be ended."""
        return Attempt(self._endpoint(endpoint_name), input_token_count=input_token_count, now_s=now_s)

    def observe(self, observation: Observation, *, now_s: float) -> None:
        """Take in a call that was made without us and has just ended."""
        endpoint = self._endpoint(observation.endpoint_name)
        ttft_s, duration_s = observation.ttft_s, observation.duration_s
        admission = endpoint.breaker.admission_of(now_s - (duration_s or ttft_s or 0.0))
        # Of the load that this call met only our own part is known.
        load, length = endpoint.in_flight_count, observation.input_token_count
        if ttft_s is not None:
            endpoint.saw_first_token(ttft_s, load=load, length=length, now_s=now_s)
            token_count = observation.output_token_count
            if duration_s is not None and duration_s >= ttft_s and token_count is not None:
                endpoint.saw_tokens(duration_s - ttft_s, token_count=token_count, load=load, now_s=now_s)
        elif duration_s is not None and observation.error_kind in _HEALTH_KINDS:
            endpoint.saw_wait(duration_s, load=load, length=length, now_s=now_s)
        if observation.error_kind is None:
            endpoint.saw_success(admission, now_s=now_s)
        else:
            endpoint.saw_failure(
                observation.error_kind,
                admission,
                lost_s=duration_s or 0.0,
                retry_after_s=observation.retry_after_s,
                now_s=now_s,
            )

    def snapshot(self, now_s: float) -> RuntimeSnapshot:
        """The state of every endpoint that was ever called, at `now_s`. Changes nothing."""
        return RuntimeSnapshot({name: endpoint.runtime(now_s) for name, endpoint in self._endpoints.items()})

    def retain(self, endpoint_names: Collection[str]) -> None:
        """Forget every other endpoint: they have left the catalog. Their attempts under way may still end."""
        kept = frozenset(endpoint_names)
        for name in [name for name in self._endpoints if name not in kept]:
            del self._endpoints[name]

    def _endpoint(self, name: str) -> _Endpoint:
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            endpoint = self._endpoints[name] = _Endpoint(Breaker(self._breaker_rules))
            if len(self._endpoints) > self._endpoint_count_max:
                self._endpoints.popitem(last=False)
        else:
            self._endpoints.move_to_end(name)
        return endpoint
