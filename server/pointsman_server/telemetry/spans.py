"""The trace of a request: who decided what and why, and how each attempt went.

    pointsman.v1.RouterService/Complete   RequestSpan, SERVER
    +- route                              RoutingSpan; its phases are spans of their own
    +- chat {model}                       AttemptSpan, CLIENT, one per attempt
       +- POST                            the same as a call of HTTP; the provider gets its context

    probe                                 RequestSpan, INTERNAL, the root of its trace
    +- chat {model}                       AttemptSpan, as above

A span's parent is passed as an object, never through a context variable: concurrent attempts and generators that outlive
their caller's step can't mix up theirs. What is not recorded is not built: below a span that is not sampled there is
none at all, only its context travels on. The text of prompts, answers and exceptions is never recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Self

from opentelemetry.trace import SpanKind

from pointsman_server.chat import Finished, Usage
from pointsman_server.decision.types import Affinity, Candidate, Decision, Endpoint
from pointsman_server.telemetry import names
from pointsman_server.telemetry.span_record import (
    AttributeValue,
    EventShape,
    FigureEvent,
    SpanEvent,
    SpanRecord,
    SpanRecorder,
)
from pointsman_server.telemetry.trace_context import TraceContext, trace_context

CANDIDATE_EVENT_COUNT_MAX = 10
"""Candidates that a span tells of: the ones near the choice. All of them are in the response."""
FOREIGN_CHARACTER_COUNT_MAX = 512
"""Of a text that callers or providers wrote, such as a model's own name; what is longer is cut."""

SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""gRPC statuses that are errors of the server by the semantic conventions; the others are the caller's."""

HTTP_ERROR = 400
"""From this status on an answer is an error."""

_NO_PHASE = nullcontext()


class Tracing:
    """Where the spans of requests begin."""

    __slots__ = ("_recorder", "_unix_ns")

    def __init__(self, recorder: SpanRecorder | None, *, unix_ns: Callable[[], int] | None) -> None:
        """Nothing is recorded yet.

        Args:
            recorder: Makes the spans; None makes none, and passes callers' contexts on as they are.
            unix_ns: The time of day, by which the phases of a decision are timed; None where nobody wants to know.
        """
        self._recorder = recorder
        self._unix_ns = unix_ns

    def request(self, method: str, metadata: Iterable[tuple[str, str]], *, door: str = "") -> RequestSpan:
        """The span of one call of `method` (package.Service/Method), to be ended with its status.

        Its parent is the W3C trace context in the call's metadata, if there is one. Nothing else of the metadata is read.
        `door` is the door that the call came through, where that is not gRPC's.
        """
        parent, recorder = trace_context(metadata), self._recorder
        if recorder is None:
            return RequestSpan(None, parent, None, self._unix_ns)
        context = recorder.context(parent)
        span = None
        if context.is_sampled:
            about: dict[str, AttributeValue] = {
                names.RPC_SYSTEM_NAME: names.RPC_SYSTEM_GRPC,
                names.RPC_METHOD: method,
            }
            if door:
                about[names.DOOR] = door
            span = recorder.begin(method, context, parent, about, kind=SpanKind.SERVER)
        return RequestSpan(recorder, context, span, self._unix_ns)

    @contextmanager
    def probe(self) -> Iterator[RequestSpan]:
        """The span of one probe. It is the root of a trace of its own: no caller's request is behind it."""
        recorder = self._recorder
        if recorder is None:
            yield RequestSpan(None, None, None, None)
            return
        context = recorder.context(None)
        span = recorder.begin(names.PROBE_SPAN, context, None, {}) if context.is_sampled else None
        try:
            yield RequestSpan(recorder, context, span, None)
        finally:
            if span is not None:
                recorder.end(span)


class RequestSpan:
    """The span of one call of our service, or of a probe, and the parent of what is done for it."""

    __slots__ = ("_context", "_recorder", "_span", "_unix_ns")

    def __init__(
        self,
        recorder: SpanRecorder | None,
        context: TraceContext | None,
        span: SpanRecord | None,
        unix_ns: Callable[[], int] | None,
    ) -> None:
        assert span is None or recorder is not None, "who records has a recorder"
        self._recorder = recorder
        self._context = context
        self._span = span
        self._unix_ns = unix_ns

    @property
    def recorded(self) -> TraceContext | None:
        """What a figure may refer to as its example; None where nothing is recorded."""
        return None if self._span is None else self._span.context

    def route(self) -> RoutingSpan:
        """The span of the decision; as a context manager it ends itself."""
        recorder, parent = self._recorder, self._span
        if recorder is None or parent is None:
            return RoutingSpan(None, None, self._unix_ns)
        span = recorder.begin(names.ROUTE_SPAN, recorder.context(parent.context), parent.context, {})
        return RoutingSpan(recorder, span, recorder.unix_ns)

    def attempt(
        self, number: int, endpoint: Endpoint, *, server_address: str | None = None, is_hedge: bool = False
    ) -> AttemptSpan:
        """The span of one upstream call, counted from 1; it must be ended. The address is the provider's host."""
        recorder, parent = self._recorder, self._span
        if recorder is None or parent is None:
            return AttemptSpan(None, None, None, self._context)
        about = _known(
            (names.GEN_AI_OPERATION_NAME, names.CHAT_OPERATION),
            (names.GEN_AI_REQUEST_MODEL, endpoint.model),
            (names.GEN_AI_PROVIDER_NAME, endpoint.provider),
            (names.SERVER_ADDRESS, server_address),
            (names.ENDPOINT, endpoint.name),
            (names.ATTEMPT_NUMBER, number),
            (names.ATTEMPT_HEDGE, True if is_hedge else None),
        )
        name = f"{names.CHAT_OPERATION} {endpoint.model}"
        chat = recorder.begin(name, recorder.context(parent.context), parent.context, about, kind=SpanKind.CLIENT)
        about_post = _known((names.HTTP_REQUEST_METHOD, names.POST), (names.SERVER_ADDRESS, server_address))
        context = recorder.context(chat.context)
        post = recorder.begin(names.POST, context, chat.context, about_post, kind=SpanKind.CLIENT)
        return AttemptSpan(recorder, chat, post, context)

    def end(self, *, status: str, reason: str | None, error_id: str | None = None) -> None:
        """The call is over.

        Args:
            status: The name of its gRPC status.
            reason: The `ErrorReason`, if it failed.
            error_id: Under which the log has a fault of our own.
        """
        if self._recorder is None or self._span is None:
            return
        about = self._span.attributes
        about[names.RPC_RESPONSE_STATUS_CODE] = status
        if reason is not None:
            about[names.ERROR_REASON] = reason
        if error_id is not None:
            about[names.ERROR_ID] = error_id
        if status in SERVER_FAULTS:
            _fail(self._span, status)
        self._recorder.end(self._span)


class Phase:
    """A part of a decision; as a context manager it notes when that begins and ends."""

    __slots__ = ("_unix_ns", "end_unix_ns", "error_type", "name", "start_unix_ns")

    def __init__(self, name: str, unix_ns: Callable[[], int]) -> None:
        self.name = name
        self._unix_ns = unix_ns
        self.start_unix_ns = self.end_unix_ns = 0
        self.error_type: str | None = None
        """The exception that ended it; None when it came to its end."""

    def __enter__(self) -> None:
        self.start_unix_ns = self._unix_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_unix_ns = self._unix_ns()
        if kind is not None:
            self.error_type = kind.__name__

    @property
    def duration_s(self) -> float:
        """Not below 0, whatever the time of day did meanwhile."""
        return max(0, self.end_unix_ns - self.start_unix_ns) * 1e-9


class RoutingSpan:
    """The span of one decision and of its phases, which become spans when it ends."""

    __slots__ = ("_recorder", "_span", "_unix_ns", "phases")

    def __init__(
        self, recorder: SpanRecorder | None, span: SpanRecord | None, unix_ns: Callable[[], int] | None
    ) -> None:
        self._recorder = recorder
        self._span = span
        self._unix_ns = unix_ns
        self.phases: list[Phase] = []
        """One after the other; none where nobody wants to know."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        recorder, span = self._recorder, self._span
        if recorder is None or span is None:
            return
        for phase in self.phases:
            child = SpanRecord(
                phase.name,
                recorder.context(span.context),
                span.context,
                SpanKind.INTERNAL,
                start_unix_ns=phase.start_unix_ns,
                attributes={},
            )
            if phase.error_type is not None:
                _fail(child, phase.error_type)
            recorder.end(child, end_unix_ns=phase.end_unix_ns)
        if kind is not None:
            # Of an exception its type is told, never its text: it may quote the prompt.
            _fail(span, kind.__name__)
        recorder.end(span)

    @property
    def recorded(self) -> TraceContext | None:
        """What a figure may refer to as its example; None where nothing is recorded."""
        return None if self._span is None else self._span.context

    def phase(self, name: str) -> AbstractContextManager[object]:
        """A part of the decision, as a child span: features, predict_quality, snapshot, decide."""
        if self._unix_ns is None:
            return _NO_PHASE
        phase = Phase(name, self._unix_ns)
        self.phases.append(phase)
        return phase

    def decided(self, decision: Decision, shadows: Iterable[Decision] = ()) -> None:
        """Tells what was decided, between whom, and why, and what each shadow would have chosen."""
        recorder, span = self._recorder, self._span
        if recorder is None or span is None:
            return
        span.attributes |= decision_attributes(decision)
        now_unix_ns = recorder.unix_ns()
        span.events = [
            *(
                candidate_event(candidate, unix_ns=now_unix_ns)
                for candidate in decision.candidates[:CANDIDATE_EVENT_COUNT_MAX]
            ),
            *(SpanEvent(names.SHADOW_EVENT, now_unix_ns, _shadow_attributes(decision, shadow)) for shadow in shadows),
        ]


class AttemptSpan:
    """The spans of one upstream call: what it is for the model, and for HTTP. Exactly one `end`."""

    __slots__ = ("_chat", "_context", "_post", "_recorder")

    def __init__(
        self,
        recorder: SpanRecorder | None,
        chat: SpanRecord | None,
        post: SpanRecord | None,
        context: TraceContext | None,
    ) -> None:
        self._recorder = recorder
        self._chat = chat
        self._post = post
        self._context = context

    @property
    def recorded(self) -> TraceContext | None:
        """What a figure may refer to as its example; None where nothing is recorded."""
        return None if self._chat is None else self._chat.context

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The W3C trace context for the provider; empty where there is no trace to join."""
        return () if self._context is None else self._context.headers()

    def end(
        self,
        *,
        error_type: str | None = None,
        http_status: int | None = None,
        usage: Usage | None = None,
        cost_usd: float | None = None,
        finished: Finished | None = None,
        ttft_s: float | None = None,
    ) -> None:
        """The attempt is over.

        Args:
            error_type: The value of an `UpstreamErrorKind`, or `names.ERROR_TYPE_CANCELLED`; None for success.
            http_status: What the provider answered with; None when it did not come to that.
            usage: Tokens, as far as they were counted.
            cost_usd: None when it is unknown.
            finished: How the model stopped, if it did.
            ttft_s: Time to first token; None when there was none.
        """
        recorder, chat, post = self._recorder, self._chat, self._post
        if recorder is None or chat is None or post is None:
            return
        chat.attributes |= attempt_attributes(usage, cost_usd, finished, ttft_s)
        if http_status is not None:
            post.attributes[names.HTTP_RESPONSE_STATUS_CODE] = http_status
        if error_type == names.ERROR_TYPE_CANCELLED:
            # The caller left: worth telling, no fault of the provider's.
            chat.attributes[names.ERROR_TYPE] = post.attributes[names.ERROR_TYPE] = error_type
        elif error_type is not None:
            _fail(chat, error_type)
            # As the conventions for HTTP have it: the status where that is the error.
            _fail(post, error_type if http_status is None or http_status < HTTP_ERROR else str(http_status))
        recorder.end(post)
        recorder.end(chat)


def _fail(span: SpanRecord, error_type: str) -> None:
    span.attributes[names.ERROR_TYPE] = error_type
    span.is_error = True


def _cut(text: str) -> str:
    return text if len(text) <= FOREIGN_CHARACTER_COUNT_MAX else text[:FOREIGN_CHARACTER_COUNT_MAX]


def _known(*attributes: tuple[str, AttributeValue | None]) -> dict[str, AttributeValue]:
    """The attributes whose values are known."""
    return {name: value for name, value in attributes if value is not None}


def decision_attributes(decision: Decision) -> dict[str, AttributeValue]:
    """What is told of a decision."""
    chosen, assigned, affinity = decision.chosen, decision.assignment, decision.affinity
    eligible = [candidate for candidate in decision.candidates if not candidate.rejections]
    attributes = _known(
        (names.DECISION_ID, decision.decision_id),
        (names.DECISION_REASON, None if decision.reason is None else decision.reason.value),
        (names.DECISION_AFFINITY, None if affinity is Affinity.NONE else affinity.value),
        (names.ROUTER_NAME, decision.router_name),
        (names.ROUTER_VERSION, decision.router_version),
        (names.QUALITY_ARTIFACT, decision.quality_artifact or None),
        (names.CANDIDATES_TOTAL, len(decision.candidates)),
        (names.CANDIDATES_ELIGIBLE, len(eligible)),
        (names.DECISION_RUNNER_UP, eligible[1].endpoint.name if len(eligible) > 1 else None),
    )
    if assigned.split_name:
        attributes |= _known(
            (names.ROUTER_ASKED, assigned.split_name),
            (names.ASSIGNMENT_PROBABILITY, assigned.probability),
            (names.ASSIGNMENT_KEYED, assigned.keyed),
        )
    if chosen is not None:
        attributes |= _known(
            (names.DECISION_ENDPOINT, chosen.endpoint.name),
            (names.DECISION_PREDICTED_QUALITY, None if chosen.quality is None else chosen.quality.mean),
            (names.DECISION_EXPECTED_COST_USD, chosen.cost_usd),
            (names.DECISION_EXPECTED_TTFT_S, None if chosen.ttft_s is None else chosen.ttft_s.mean),
        )
    return attributes


def candidate_event(candidate: Candidate, *, unix_ns: int) -> SpanEvent | FigureEvent:
    """Tells of a candidate."""
    utility, quality, cost_usd, ttft_s = candidate.utility, candidate.quality, candidate.cost_usd, candidate.ttft_s
    if utility is None or quality is None or cost_usd is None or ttft_s is None or candidate.rejections:
        return SpanEvent(names.CANDIDATE_EVENT, unix_ns, candidate_attributes(candidate))
    # Nothing stands against most, and all is known of them.
    figures = (utility, quality.mean, cost_usd, ttft_s.mean, candidate.probability)
    return FigureEvent(_KNOWN_CANDIDATE, unix_ns, candidate.endpoint.name, figures)


_KNOWN_CANDIDATE = EventShape(
    names.CANDIDATE_EVENT,
    names.CANDIDATE_ENDPOINT,
    (
        names.CANDIDATE_UTILITY,
        names.CANDIDATE_PREDICTED_QUALITY,
        names.CANDIDATE_EXPECTED_COST_USD,
        names.CANDIDATE_EXPECTED_TTFT_S,
        names.CANDIDATE_PROBABILITY,
    ),
)


def candidate_attributes(candidate: Candidate) -> dict[str, AttributeValue]:
    """What is told of a candidate, or what stood against it."""
    attributes = _known(
        (names.CANDIDATE_ENDPOINT, candidate.endpoint.name),
        (names.CANDIDATE_UTILITY, candidate.utility),
        (names.CANDIDATE_PREDICTED_QUALITY, None if candidate.quality is None else candidate.quality.mean),
        (names.CANDIDATE_EXPECTED_COST_USD, candidate.cost_usd),
        (names.CANDIDATE_EXPECTED_TTFT_S, None if candidate.ttft_s is None else candidate.ttft_s.mean),
    )
    if candidate.rejections:
        attributes[names.CANDIDATE_REJECTIONS] = tuple([_cut(each.constraint) for each in candidate.rejections])
    else:
        attributes[names.CANDIDATE_PROBABILITY] = candidate.probability
    return attributes


def _shadow_attributes(acting: Decision, shadow: Decision) -> dict[str, AttributeValue]:
    chosen = shadow.chosen
    quality = None if chosen is None else chosen.quality
    return _known(
        (names.SHADOW_ROUTER, shadow.router_name),
        (names.SHADOW_ROUTER_VERSION, shadow.router_version),
        (names.SHADOW_QUALITY_ARTIFACT, shadow.quality_artifact or None),
        (names.SHADOW_AGREEMENT, acting.agreement(shadow).value),
        (names.SHADOW_ENDPOINT, None if chosen is None else chosen.endpoint.name),
        (names.SHADOW_PREDICTED_QUALITY, None if quality is None else quality.mean),
        (names.SHADOW_EXPECTED_COST_USD, None if chosen is None else chosen.cost_usd),
    )


def attempt_attributes(
    usage: Usage | None, cost_usd: float | None, finished: Finished | None, ttft_s: float | None
) -> dict[str, AttributeValue]:
    """What is told of an attempt that is over."""
    counted = usage or Usage()
    response_model = None if finished is None else finished.response_model
    return _known(
        (names.GEN_AI_USAGE_INPUT_TOKENS, counted.input_token_count),
        (names.GEN_AI_USAGE_OUTPUT_TOKENS, counted.output_token_count),
        (names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, counted.cached_input_token_count),
        (names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, counted.reasoning_token_count),
        (names.GEN_AI_RESPONSE_FINISH_REASONS, None if finished is None else (finished.reason.value,)),
        (names.GEN_AI_RESPONSE_MODEL, None if response_model is None else _cut(response_model)),
        (names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, ttft_s),
        (names.ATTEMPT_COST_USD, cost_usd),
    )
