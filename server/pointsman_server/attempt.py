"""One upstream call: its events as they come, its timeouts, and what it teaches the runtime aggregator."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass

from pointsman_server.alarm import Alarm
from pointsman_server.catalog.catalog import CatalogEntry
from pointsman_server.chat import (
    Conversation,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UpstreamEvent,
    Usage,
    UsageReported,
)
from pointsman_server.decision.cost import cost_usd
from pointsman_server.decision.facts import estimated_token_count, utf8_length
from pointsman_server.decision.types import Decision, RequestFacts
from pointsman_server.errors import (
    AttemptFailure,
    DeadlineExceededError,
    UpstreamDisconnectedError,
    UpstreamError,
    UpstreamStatusError,
    UpstreamTimeoutError,
)
from pointsman_server.execution.patience import patience_s
from pointsman_server.execution.sliding import SlidingSum
from pointsman_server.providers.base import ChatProvider, UpstreamCall
from pointsman_server.runtime.tracker import Attempt as TrackedAttempt
from pointsman_server.runtime.tracker import RuntimeTracker
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.names import ERROR_TYPE_CANCELLED
from pointsman_server.telemetry.regret import Seen
from pointsman_server.telemetry.spans import AttemptSpan, RequestSpan

Delta = TextDelta | ReasoningDelta | ToolCallDelta

HTTP_OK = 200
"""The only status that an answer comes with."""


@dataclass(frozen=True, slots=True)
class UsageCounted:
    """Tokens and money of one attempt."""

    attempt_number: int
    endpoint_name: str
    usage: Usage
    """Input and output are always counted, here or by the provider."""
    cost_usd: float | None
    """None when the catalog lacks a price."""
    estimated: bool
    """The provider did not report the counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptPlan:
    """What an attempt is to do."""

    number: int
    decision: Decision | None
    """What it carries out; None for a probe, which is made for nobody."""
    entry: CatalogEntry
    provider: ChatProvider
    server_address: str
    """The provider's host, for the trace."""
    conversation: Conversation
    facts: RequestFacts
    ttft_timeout_s: float
    """Without a token for so long it has failed; of an endpoint that does not stream, without the whole answer."""
    stall_s: float
    """Without a further piece for so long it has failed, or for longer if it has paused for long before."""
    deadline_s: float | None
    """Monotonic; None when the caller set no deadline."""
    is_hedge: bool = False
    """It was begun beside another attempt, which was slow."""
    cached_input_token_count: float = 0.0
    """Tokens of the input that the endpoint is expected to have in its prompt cache, so that it reads only the rest."""


class Attempt:
    """One call of one endpoint. `events` runs it, once; everything else tells what became of it."""

    def __init__(
        self,
        plan: AttemptPlan,
        *,
        tracker: RuntimeTracker,
        metrics: Metrics,
        traffic: SlidingSum,
        clock_s: Callable[[], float],
        begun: Callable[[], None] | None = None,
    ) -> None:
        """Nothing is called yet.

        Args:
            plan: What to do.
            tracker: Learns from all that happens.
            metrics: Is told of the attempt's end.
            traffic: Sums up the tokens of calls that are made for callers.
            clock_s: A monotonic clock in seconds.
            begun: Is told when the tracker knows of the call.
        """
        self.plan = plan
        self.delta_count = 0
        """Deltas that came, all of which are handed on; from the first one on the stream is committed to this endpoint."""
        self.character_count = 0
        self._byte_count = 0
        self.finished: Finished | None = None
        self.started_s = clock_s()
        self.first_delta_s: float | None = None
        self.has_lost = False
        """Another attempt has won; set by who ends this one for that. What this one was asked counts as read."""
        self._was_left = False
        """Nobody waits for it any longer, though the provider may be at work: what it was asked counts as read."""
        self._last_delta_s = 0.0
        """When the last delta came, and then, when the caller had taken it."""
        self._longest_pause_s = 0.0
        self._patience_s = plan.stall_s
        self._usage = Usage()
        self._http_status: int | None = None
        """Of a refusal."""
        self._tracker = tracker
        self._metrics = metrics
        self._traffic = traffic
        self._clock_s = clock_s
        self._begun = begun

    @property
    def endpoint_name(self) -> str:
        """The endpoint that is called."""
        return self.plan.entry.endpoint.name

    async def events(self, request_span: RequestSpan) -> AsyncGenerator[Delta, None]:
        """Makes the call and yields its deltas; those that one read brought together come merged.

        Raises:
            UpstreamError: the attempt failed. What was yielded before stays valid.
            DeadlineExceededError: the caller's deadline passed.
        """
        self.started_s = self._clock_s()
        read_count = self.plan.facts.input_token_count - int(self.plan.cached_input_token_count)
        track = self._tracker.start(self.endpoint_name, input_token_count=read_count, now_s=self.started_s)
        if self._begun is not None:
            self._begun()
        span = request_span.attempt(
            self.plan.number,
            self.plan.entry.endpoint,
            server_address=self.plan.server_address,
            is_hedge=self.plan.is_hedge,
        )
        # Until it is settled an attempt counts as left by its caller: cancellation comes as no exception of ours.
        error_type: str | None = ERROR_TYPE_CANCELLED
        alarm = Alarm()
        try:
            async with aclosing(self.plan.provider.complete(self._call(span.headers(), track))) as batches:
                while batch := await self._next(batches, alarm):
                    for delta in self._taken(batch, track):
                        yield delta
                    self._resume(track)
            if self.finished is None:
                raise UpstreamDisconnectedError("the provider's answer ended without a finish")
            track.succeed(output_token_count=self.usage().usage.output_token_count, now_s=self._clock_s())
            error_type = None
        except UpstreamError as error:
            if isinstance(error, UpstreamTimeoutError) and self._remaining_s() == 0.0:
                # The caller's time was up, which says nothing against the endpoint.
                self._was_left = True
                raise DeadlineExceededError(delta_count=self.delta_count) from None
            if isinstance(error, UpstreamStatusError):
                self._http_status = error.http_status
            track.fail(error.kind, retry_after_s=error.retry_after_s, now_s=self._clock_s())
            error_type = error.kind.value
            self._was_left = isinstance(error, UpstreamTimeoutError)
            raise
        finally:
            alarm.close()
            if error_type == ERROR_TYPE_CANCELLED:
                self._was_left = True
                track.cancel(self._clock_s())
            self._tell(span, error_type)

    def _taken(self, batch: Iterable[UpstreamEvent], track: TrackedAttempt) -> list[Delta]:
        """Notes what a batch says, and gives its deltas."""
        deltas: list[Delta] = []
        for event in merged(batch):
            if isinstance(event, UsageReported):
                self._usage = event.usage
            elif isinstance(event, Finished):
                self.finished = event
            else:
                self._count(event)
                deltas.append(event)
        if deltas:
            now_s = self._clock_s()
            if self.first_delta_s is None:
                self.first_delta_s = now_s
                if self.plan.entry.stream:
                    track.first_token(now_s)
            elif now_s - self._last_delta_s > self._longest_pause_s:
                self._longest_pause_s = now_s - self._last_delta_s
                self._patience_s = patience_s(self.plan.stall_s, longest_pause_s=self._longest_pause_s)
            self._last_delta_s = now_s
            if self.plan.entry.stream:
                track.progress(estimated_token_count(self._byte_count), now_s)
        return deltas

    def _resume(self, track: TrackedAttempt) -> None:
        """The caller has taken what came. How long that took is no pause of the endpoint's, and no slowness."""
        if self.first_delta_s is None:
            return
        now_s = self._clock_s()
        if self.plan.entry.stream and now_s > self._last_delta_s:
            track.held(now_s - self._last_delta_s)
        self._last_delta_s = now_s

    def _tell(self, span: AttemptSpan, error_type: str | None) -> None:
        """Telemetry of an attempt that is over."""
        ttft_s = None if self.first_delta_s is None else self.first_delta_s - self.started_s
        used = self.usage() if self.has_used_tokens else None
        usage = Usage() if used is None else used.usage
        cost_usd = None if used is None else used.cost_usd
        endpoint, gap_s = self.plan.entry.endpoint, self._inter_token_latency_s(usage)
        has_answer = self.first_delta_s is not None or self.finished is not None
        span.end(
            error_type=error_type,
            http_status=HTTP_OK if has_answer else self._http_status,
            usage=usage,
            cost_usd=cost_usd,
            finished=self.finished,
            ttft_s=ttft_s,
        )
        if ttft_s is not None:
            self._metrics.first_token(endpoint, ttft_s=ttft_s, example=span.recorded)
        if self.plan.decision is not None and used is not None:
            self._traffic.add(token_count(used.usage), now_s=self._clock_s())
            self._metrics.spent(self.plan.decision, endpoint, usage=usage, cost_usd=used.cost_usd)
            if error_type is None:
                seen = Seen(
                    cost_usd=used.cost_usd,
                    ttft_s=ttft_s,
                    inter_token_latency_s=gap_s,
                    duration_s=self._clock_s() - self.started_s,
                )
                self._metrics.answered(self.plan.decision, endpoint, seen)
        self._metrics.attempted(
            endpoint,
            usage=usage,
            cost_usd=cost_usd,
            inter_token_latency_s=gap_s,
            error_type=None if error_type == ERROR_TYPE_CANCELLED else error_type,
        )

    def _inter_token_latency_s(self, usage: Usage) -> float | None:
        """Mean time between two tokens so far; None with fewer than two."""
        if self.first_delta_s is None or usage.output_token_count is None or usage.output_token_count < 2:
            return None
        return (self._clock_s() - self.first_delta_s) / (usage.output_token_count - 1)

    def failure(self, error: UpstreamError) -> AttemptFailure:
        """How this attempt failed, as the caller is told."""
        duration_s = self._clock_s() - self.started_s
        return AttemptFailure(self.plan.number, self.endpoint_name, error.kind, str(error), duration_s)

    def usage(self) -> UsageCounted:
        """What the attempt has used so far: by the provider's count, or by our estimate where it gave none. As long as
        the answer has not ended, what the provider has counted is not the whole of it."""
        reported = self._usage
        is_counted = reported.input_token_count is not None and reported.output_token_count is not None
        usage = Usage(
            input_token_count=(
                self.plan.facts.input_token_count if reported.input_token_count is None else reported.input_token_count
            ),
            output_token_count=(
                estimated_token_count(self._byte_count)
                if reported.output_token_count is None
                else reported.output_token_count
            ),
            cached_input_token_count=reported.cached_input_token_count,
            reasoning_token_count=reported.reasoning_token_count,
            cache_write_input_token_count=reported.cache_write_input_token_count,
        )
        assert usage.input_token_count is not None, "counted or estimated"
        assert usage.output_token_count is not None, "counted or estimated"
        cost = cost_usd(
            self.plan.entry.endpoint,
            input_token_count=usage.input_token_count,
            output_token_count=usage.output_token_count,
            cached_input_token_count=usage.cached_input_token_count or 0,
            cache_write_input_token_count=usage.cache_write_input_token_count or 0,
        )
        estimated = not is_counted or self.finished is None
        return UsageCounted(self.plan.number, self.endpoint_name, usage, cost, estimated)

    @property
    def has_used_tokens(self) -> bool:
        """Whether the provider counted any tokens, or any of its answer arrived, or it was left while it read."""
        return self.delta_count > 0 or self.has_lost or self._was_left or self._usage != Usage()

    def _call(self, headers: tuple[tuple[str, str], ...], track: TrackedAttempt) -> UpstreamCall:
        return UpstreamCall(
            upstream_model=self.plan.entry.upstream_model,
            conversation=self.plan.conversation,
            output_token_count_max=self.plan.entry.endpoint.output_token_count_max,
            reasoning_control=self.plan.entry.reasoning_control,
            stream=self.plan.entry.stream,
            headers=headers,
            timeout_s=self._remaining_s(),
            on_allowance=lambda allowance: track.allowance(allowance, self._clock_s()),
        )

    def _remaining_s(self) -> float | None:
        """What is left of the deadline, not below 0."""
        deadline_s = self.plan.deadline_s
        return None if deadline_s is None else max(0.0, deadline_s - self._clock_s())

    async def _next(
        self, batches: AsyncGenerator[tuple[UpstreamEvent, ...], None], alarm: Alarm
    ) -> tuple[UpstreamEvent, ...] | None:
        """The next batch, or None at the end. The wait is limited: for the first delta, then for each further one. What
        is no delta, such as a usage report, is awaited anew; its adapter watches for silence as a whole."""
        is_whole = not self.plan.entry.stream
        if self.finished is not None or (is_whole and math.isinf(self.plan.ttft_timeout_s)):
            return await anext(batches, None)
        if self.first_delta_s is None or is_whole:
            limit_s = self.plan.ttft_timeout_s - (self._clock_s() - self.started_s)
            try:
                return await alarm.limited(anext(batches, None), limit_s=max(0.0, limit_s))
            except TimeoutError:
                raise UpstreamTimeoutError(f"no token within {self.plan.ttft_timeout_s:.3g} s") from None
        try:
            return await alarm.limited(anext(batches, None), limit_s=self._patience_s)
        except TimeoutError:
            raise UpstreamTimeoutError(f"no further piece within {self._patience_s:.3g} s") from None

    def _count(self, delta: Delta) -> None:
        self.delta_count += 1
        text = delta.arguments_json_fragment if isinstance(delta, ToolCallDelta) else delta.text
        self.character_count += len(text)
        self._byte_count += utf8_length(text)


def token_count(usage: Usage) -> int:
    """Input and output together, as far as they are known."""
    return (usage.input_token_count or 0) + (usage.output_token_count or 0)


def _goes_on(last: ToolCallDelta, event: ToolCallDelta) -> bool:
    """Whether `event` is a further piece of the same tool call: it names neither id nor name anew, nor a second signature."""
    is_named = event.id is not None or event.name is not None
    return event.index == last.index and not is_named and (last.signature is None or event.signature is None)


def merged(batch: Iterable[UpstreamEvent]) -> list[UpstreamEvent]:
    """The events of a batch, neighbouring pieces of one text or one tool call joined: what came at once goes out at once."""
    events: list[UpstreamEvent] = []
    for event in batch:
        last = events[-1] if events else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            events[-1] = TextDelta(last.text + event.text)
        elif isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta):
            events[-1] = ReasoningDelta(last.text + event.text)
        elif isinstance(event, ToolCallDelta) and isinstance(last, ToolCallDelta) and _goes_on(last, event):
            fragment = last.arguments_json_fragment + event.arguments_json_fragment
            signature = event.signature if last.signature is None else last.signature
            events[-1] = ToolCallDelta(last.index, last.id, last.name, fragment, signature)
        else:
            events.append(event)
    return events
