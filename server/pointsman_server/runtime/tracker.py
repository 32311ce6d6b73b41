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
from zlib import crc32

from pointsman_server.chat import RequestAllowance
from pointsman_server.decision.types import RuntimeSnapshot
from pointsman_server.errors import UpstreamErrorKind
from pointsman_server.runtime.breaker import Breaker, BreakerRules
from pointsman_server.runtime.endpoint import HEALTH_KINDS, IDLE_READ_TICK_S, Common, EndpointState
from pointsman_server.runtime.summary import RuntimeSummary
from pointsman_server.runtime.waiting import WaitingCall

PART_S = 2.0
"""A stream tells its speed every so often while it lasts, not just at its end: where answers become six times as slow, that
is six times as late. Pieces come by the dozen within it, and the answers of a second or two are told of as a whole."""
PART_GAP_COUNT_MIN = 8.0
"""Fewer show no speed: they may have come in one piece."""
ENDPOINT_COUNT_MAX = 4096
"""As many endpoints as a caller may watch; about 25 kB each."""


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


class Attempt:
    """One upstream call under way. Exactly one of `succeed`, `fail` and `cancel` ends it."""

    __slots__ = (
        "_admission",
        "_call",
        "_endpoint",
        "_first_token_s",
        "_is_over",
        "_is_streaming",
        "_number",
        "_progress",
        "_told_count",
        "_told_load_s",
        "_told_s",
        "input_token_count",
        "started_s",
    )

    def __init__(self, endpoint: EndpointState, *, input_token_count: int, now_s: float) -> None:
        assert input_token_count >= 0, input_token_count
        self.started_s = now_s
        self.input_token_count = input_token_count
        self._endpoint = endpoint
        self._admission = endpoint.breaker.start(now_s)
        self._call = WaitingCall(now_s, endpoint.in_flight_count, input_token_count)
        self._first_token_s: float | None = None
        self._progress: tuple[int, float] | None = None
        # Up to where the endpoint has been told of the stream.
        self._told_count = 1
        self._told_s = 0.0
        self._told_load_s = 0.0
        self._is_streaming = False
        self._is_over = False
        self._number = endpoint.enter(self._call)

    def allowance(self, allowance: RequestAllowance, now_s: float) -> None:
        """The headers of the answer, or of the refusal, say how many more requests are admitted."""
        self._endpoint.saw_allowance(allowance, number=self._number, now_s=now_s)

    def first_token(self, now_s: float) -> None:
        """The first piece of the answer has come. At most once, and not at all for an answer that comes as a whole."""
        assert not self._is_over, "the attempt is over"
        assert self._first_token_s is None, "there is one first token"
        self._first_token_s = now_s
        self._told_s, self._told_load_s = now_s, self._endpoint.load_s(now_s)
        self._endpoint.saw_answer(self._call, now_s=now_s)
        if self._admission.is_trial:
            # The endpoint answers. The rest of a long answer need not keep everyone else waiting.
            self._endpoint.breaker.succeed(self._admission, now_s=now_s)

    def progress(self, token_count: int, now_s: float) -> None:
        """So many tokens have come in all, by an estimate. Optional: it lets an attempt tell its speed before it ends, and
        if it breaks off, and from the first time on, its silence that it has stalled; so it is to be called whenever
        something comes, or never."""
        assert not self._is_over, "the attempt is over"
        assert self._first_token_s is not None, "progress comes after the first token"
        self._progress = (token_count, now_s)
        if not self._is_streaming:
            self._is_streaming = True
            self._endpoint.saw_stream()
        self._endpoint.saw_sign_of_life(now_s)
        if now_s - self._told_s >= PART_S:
            gap_count = (token_count - self._told_count) * self._endpoint.tokens_per_estimated
            if gap_count >= PART_GAP_COUNT_MIN:
                self._tell(gap_count, now_s)
                self._told_count, self._told_s = token_count, now_s
                self._told_load_s = self._endpoint.load_s(now_s)

    def held(self, held_s: float) -> None:
        """For so long nothing was read of the stream, because its caller did not take what had come: no time of it."""
        assert held_s >= 0.0, held_s
        self._told_s += held_s
        self._told_load_s += held_s * self._endpoint.in_flight_count

    def succeed(self, *, output_token_count: int | None, now_s: float) -> None:
        """The answer is complete. None: the provider did not say how many tokens it had."""
        if self._first_token_s is None:
            # An answer that came as a whole: its caller waited so long for the first token.
            self.first_token(now_s)
        self._end(now_s, output_token_count=output_token_count)
        self._endpoint.saw_success(self._admission, now_s=now_s)

    def fail(self, kind: UpstreamErrorKind, *, retry_after_s: float | None, now_s: float) -> None:
        """The attempt failed. `retry_after_s` is what the provider asked for; it counts with RATE_LIMITED alone."""
        assert retry_after_s is None or retry_after_s >= 0.0, "a provider asks for time, if at all"
        self._end(now_s)
        elapsed_s = self._elapsed_s(now_s)
        if self._first_token_s is None and kind in HEALTH_KINDS:
            self._saw_wait(elapsed_s, now_s)
        if kind is UpstreamErrorKind.RATE_LIMITED:
            self._endpoint.saw_refusal(self._call, retry_after_s=retry_after_s, now_s=now_s)
        self._endpoint.saw_failure(kind, self._admission, lost_s=elapsed_s, retry_after_s=retry_after_s, now_s=now_s)

    def cancel(self, now_s: float) -> None:
        """The caller left. No error of the endpoint's, but its wait says "at least this long"."""
        self._end(now_s)
        if self._first_token_s is None:
            self._saw_wait(self._elapsed_s(now_s), now_s)
        self._endpoint.breaker.release(self._admission)

    def _end(self, now_s: float, *, output_token_count: int | None = None) -> None:
        assert not self._is_over, "the attempt is over"
        self._is_over = True
        self._endpoint.leave(
            self._call, answered=self._first_token_s is not None, streamed=self._is_streaming, now_s=now_s
        )
        if self._first_token_s is None:
            return
        count, last_s = (1, now_s) if self._progress is None else self._progress
        scale = self._endpoint.tokens_per_estimated
        if output_token_count is not None:
            last_s = now_s
            if self._progress is None:
                count, scale = output_token_count, 1.0
            else:
                scale = output_token_count / max(1, count)
                if count >= PART_GAP_COUNT_MIN:
                    self._endpoint.saw_count(scale)
        self._endpoint.saw_length((count - 1) * scale)
        gap_count = (count - self._told_count) * scale
        if self._told_count == 1 or gap_count >= PART_GAP_COUNT_MIN:
            self._tell(gap_count, now_s, last_s=last_s)

    def _tell(self, gap_count: float, now_s: float, *, last_s: float | None = None) -> None:
        """So many gaps have passed since the endpoint was told last, the last of which ended at `last_s`, or now."""
        duration_s = max(0.0, (now_s if last_s is None else last_s) - self._told_s)
        passed_s, load = now_s - self._told_s, float(self._endpoint.in_flight_count)
        if passed_s > 0.0:
            # The other calls that were under way meanwhile, on the average.
            load = max(0.0, (self._endpoint.load_s(now_s) - self._told_load_s) / passed_s - 1.0)
        self._endpoint.saw_tokens(duration_s, gap_count=gap_count, load=load, now_s=now_s)

    def _saw_wait(self, elapsed_s: float, now_s: float) -> None:
        self._endpoint.saw_wait(elapsed_s, load=self._call.load, length=self._call.length, now_s=now_s)

    def _elapsed_s(self, now_s: float) -> float:
        return max(0.0, now_s - self.started_s)


class RuntimeTracker:
    """Knows how fast and how healthy every endpoint is. Not thread-safe: one event loop feeds and reads it.

    Memory is bounded by `endpoint_count_max`: beyond it the endpoint is forgotten that was used least recently.
    """

    def __init__(
        self,
        *,
        endpoint_count_max: int = ENDPOINT_COUNT_MAX,
        breaker_rules: BreakerRules | None = None,
        unix_offset_s: float | None = None,
        replica_count: int = 1,
    ) -> None:
        """Nothing is known yet.

        Args:
            endpoint_count_max: Endpoints that are kept in mind.
            breaker_rules: When an endpoint is left alone.
            unix_offset_s: What makes the time that is passed in seconds since 1970. It tells the hour of the day, by
                which endpoints are slow; None learns nothing of that.
            replica_count: Trackers that as much of the same traffic is spread over, this one included: what a call takes
                from others it takes from theirs too.
        """
        assert endpoint_count_max > 0, endpoint_count_max
        assert replica_count > 0, replica_count
        self._endpoint_count_max = endpoint_count_max
        self._unix_offset_s = unix_offset_s
        self._common = Common(replica_count)
        self._breaker_rules = BreakerRules() if breaker_rules is None else breaker_rules
        self._endpoints: OrderedDict[str, EndpointState] = OrderedDict()

    def start(self, endpoint_name: str, *, input_token_count: int, now_s: float) -> Attempt:
        """A call begins; on a half-open breaker it is the trial. Every attempt must be ended."""
        return Attempt(self._endpoint(endpoint_name), input_token_count=input_token_count, now_s=now_s)

    def observe(self, observation: Observation, *, now_s: float) -> None:
        """Take in a call that was made without us and has just ended."""
        endpoint = self._endpoint(observation.endpoint_name)
        ttft_s, duration_s = observation.ttft_s, observation.duration_s
        started_s = now_s - (duration_s or ttft_s or 0.0)
        admission = endpoint.breaker.admission_of(started_s)
        # Of the load that this call met only our own part is known.
        load, length = endpoint.in_flight_count, observation.input_token_count
        if ttft_s is not None:
            endpoint.saw_first_token(ttft_s, started_s=started_s, load=load, length=length, now_s=now_s)
            token_count = observation.output_token_count
            if duration_s is not None and duration_s >= ttft_s and token_count is not None:
                endpoint.saw_length(token_count - 1)
                endpoint.saw_tokens(duration_s - ttft_s, gap_count=token_count - 1, load=load, now_s=now_s)
        elif duration_s is not None and observation.error_kind in HEALTH_KINDS:
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
        # What still holds is taken as it is: a call for each endpoint would be most of what a snapshot takes.
        return RuntimeSnapshot(
            {
                name: endpoint.reading
                if endpoint.read_from_s <= now_s < endpoint.read_until_s and not endpoint.may_be_restrained
                else endpoint.runtime(now_s)
                for name, endpoint in self._endpoints.items()
            }
        )

    def snapshot_of(self, endpoint_names: Collection[str], now_s: float) -> RuntimeSnapshot:
        """The same for these endpoints alone, for as much less as there are others."""
        found = {name: self._endpoints[name] for name in endpoint_names if name in self._endpoints}
        return RuntimeSnapshot({name: endpoint.runtime(now_s) for name, endpoint in found.items()})

    def room(self, endpoint_names: Collection[str], *, within_s: float, now_s: float) -> float:
        """How many calls these endpoints together admit within the next `within_s`, as far as limits of our rate are known;
        infinite where one of them knows none. Changes nothing."""
        states = [self._endpoints.get(name) for name in endpoint_names]
        return sum(math.inf if state is None else state.room(now_s, within_s=within_s) for state in states)

    def retain(self, endpoint_names: Collection[str]) -> None:
        """Forget every other endpoint: they have left the catalog. Their attempts under way may still end."""
        kept = frozenset(endpoint_names)
        for name in [name for name in self._endpoints if name not in kept]:
            del self._endpoints[name]

    def summary(self, *, unix_offset_s: float) -> RuntimeSummary:
        """What is known for longer than a minute, to be kept over a restart; `unix_offset_s` makes our time seconds since
        1970."""
        found = (endpoint.summary(name, unix_offset_s=unix_offset_s) for name, endpoint in self._endpoints.items())
        return RuntimeSummary(endpoints=tuple(summary for summary in found if summary is not None))

    def restore(self, summary: RuntimeSummary, *, now_s: float, unix_offset_s: float) -> None:
        """Go on from what another tracker knew. What has been observed here since is replaced."""
        for endpoint in summary.endpoints:
            self._endpoints.pop(endpoint.name, None)
            self._endpoint(endpoint.name).restore(endpoint, now_s=now_s, unix_offset_s=unix_offset_s)

    def _endpoint(self, name: str) -> EndpointState:
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            endpoint = self._endpoints[name] = EndpointState(
                Breaker(self._breaker_rules),
                common=self._common,
                unix_offset_s=self._unix_offset_s,
                tick_offset_s=_tick_offset_s(name),
            )
            if len(self._endpoints) > self._endpoint_count_max:
                self._endpoints.popitem(last=False)
        else:
            self._endpoints.move_to_end(name)
        return endpoint


def _tick_offset_s(name: str) -> float:
    """When within `IDLE_READ_TICK_S` an endpoint is read anew. Were it the same moment for all of them, one decision in each tick
    would work out a whole catalog: 2.6 ms for 200 endpoints that are in use."""
    return IDLE_READ_TICK_S * crc32(name.encode("utf-8")) / 2**32
