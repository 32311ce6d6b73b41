"""The trace of a request: who decided what and why, and how each attempt went.

    pointsman.v1.RouterService/Complete   RequestSpan, SERVER
    +- route                              RoutingSpan; its phases are spans of their own
    +- chat {model}                       AttemptSpan, CLIENT, one per attempt

    probe                                 RequestSpan, INTERNAL, the root of its trace
    +- chat {model}                       AttemptSpan, CLIENT

A span's parent is passed as an object, never through a context variable: concurrent attempts and generators that outlive
their caller's step can't mix up theirs. What is not recorded is not built: below a span that is not sampled there is
none at all, only its context travels on. The text of prompts, answers and exceptions is never recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Self

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from pointsman_server.chat import Finished, Usage
from pointsman_server.decision.types import Candidate, Decision, Endpoint
from pointsman_server.telemetry import names

CANDIDATE_EVENT_COUNT_MAX = 10
"""Candidates that a span tells of: the ones near the choice. All of them are in the response."""

SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""gRPC statuses that are errors of the server by the semantic conventions; the others are the caller's."""

_PROPAGATOR = TraceContextTextMapPropagator()
_TRACE_CONTEXT_KEYS = frozenset(_PROPAGATOR.fields)
_NO_PHASE = nullcontext()


class _MetadataGetter(Getter[Sequence[tuple[str, str]]]):
    """Reads gRPC metadata, whose keys are in lower case and may repeat."""

    def get(self, carrier: Sequence[tuple[str, str]], key: str) -> list[str] | None:
        return [value for name, value in carrier if name == key] or None

    def keys(self, carrier: Sequence[tuple[str, str]]) -> list[str]:
        return [name for name, _ in carrier]


_METADATA_GETTER = _MetadataGetter()


class Tracing:
    """Where the spans of requests begin."""

    __slots__ = ("_tracer",)

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def request(self, method: str, metadata: Iterable[tuple[str, str]], *, door: str = "") -> RequestSpan:
        """The span of one call of `method` (package.Service/Method), to be ended with its status.

        Its parent is the W3C trace context in the call's metadata, if there is one. Nothing else of the metadata is read.
        `door` is the door that the call came through, where that is not gRPC's.
        """
        carrier = [(key, value) for key, value in metadata if key in _TRACE_CONTEXT_KEYS]
        parent = _PROPAGATOR.extract(carrier, Context(), _METADATA_GETTER) if carrier else Context()
        span = self._tracer.start_span(method, parent, SpanKind.SERVER)
        if span.is_recording():
            span.set_attribute(names.RPC_SYSTEM_NAME, names.RPC_SYSTEM_GRPC)
            span.set_attribute(names.RPC_METHOD, method)
            if door:
                span.set_attribute(names.DOOR, door)
        return RequestSpan(self._tracer, span)

    @contextmanager
    def probe(self) -> Iterator[RequestSpan]:
        """The span of one probe. It is the root of a trace of its own: no caller's request is behind it."""
        span = self._tracer.start_span(names.PROBE_SPAN, Context(), SpanKind.INTERNAL)
        try:
            yield RequestSpan(self._tracer, span)
        finally:
            span.end()


class RequestSpan:
    """The span of one call of our service, or of a probe, and the parent of what is done for it."""

    __slots__ = ("_context", "_span", "_tracer")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span, Context())

    def route(self) -> RoutingSpan:
        """The span of the decision; as a context manager it ends itself."""
        if not self._span.is_recording():
            return RoutingSpan(self._tracer, self._span, owns_span=False)
        span = self._tracer.start_span(names.ROUTE_SPAN, self._context)
        return RoutingSpan(self._tracer, span, owns_span=True)

    def attempt(
        self, number: int, endpoint: Endpoint, *, server_address: str | None = None, is_hedge: bool = False
    ) -> AttemptSpan:
        """The span of one upstream call, counted from 1; it must be ended. The address is the provider's host."""
        if not self._span.is_recording():
            return AttemptSpan(self._span, owns_span=False)
        span = self._tracer.start_span(f"{names.CHAT_OPERATION} {endpoint.model}", self._context, SpanKind.CLIENT)
        if span.is_recording():
            span.set_attributes(
                _known(
                    (names.GEN_AI_OPERATION_NAME, names.CHAT_OPERATION),
                    (names.GEN_AI_REQUEST_MODEL, endpoint.model),
                    (names.GEN_AI_PROVIDER_NAME, endpoint.provider),
                    (names.SERVER_ADDRESS, server_address),
                    (names.ATTEMPT_NUMBER, number),
                    (names.ATTEMPT_HEDGE, True if is_hedge else None),
                )
            )
        return AttemptSpan(span, owns_span=True)

    def end(self, *, status: str, reason: str | None) -> None:
        """The call ended with this gRPC status, by its name, and for this `ErrorReason`, if it failed."""
        if self._span.is_recording():
            self._span.set_attribute(names.RPC_RESPONSE_STATUS_CODE, status)
            if reason is not None:
                self._span.set_attribute(names.ERROR_REASON, reason)
            if status in SERVER_FAULTS:
                _fail(self._span, status)
        self._span.end()


class RoutingSpan:
    """The span of one decision and of its phases."""

    __slots__ = ("_owns_span", "_span", "_tracer")

    def __init__(self, tracer: Tracer, span: Span, *, owns_span: bool) -> None:
        self._tracer = tracer
        self._span = span
        self._owns_span = owns_span

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owns_span:
            _close(self._span, kind)

    def phase(self, name: str) -> AbstractContextManager[object]:
        """A part of the decision, as a child span: features, predict_quality, snapshot, decide."""
        if not self._owns_span:
            return _NO_PHASE
        return _Phase(self._tracer.start_span(name, set_span_in_context(self._span, Context())))

    def decided(self, decision: Decision, shadows: Iterable[Decision] = ()) -> None:
        """Tells what was decided, between whom, and why, and what each shadow would have chosen."""
        if not self._owns_span or not self._span.is_recording():
            return
        self._span.set_attributes(_decision_attributes(decision))
        for candidate in decision.candidates[:CANDIDATE_EVENT_COUNT_MAX]:
            self._span.add_event(names.CANDIDATE_EVENT, _candidate_attributes(candidate))
        for shadow in shadows:
            self._span.add_event(names.SHADOW_EVENT, _shadow_attributes(decision, shadow))


class _Phase:
    """A child span that ends with its block."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _close(self._span, kind)


class AttemptSpan:
    """The span of one upstream call. Exactly one `end`."""

    __slots__ = ("_owns_span", "_span")

    def __init__(self, span: Span, *, owns_span: bool) -> None:
        self._span = span
        self._owns_span = owns_span

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The W3C trace context for the provider; empty where there is no trace to join."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, set_span_in_context(self._span, Context()))
        return tuple(carrier.items())

    def end(
        self,
        *,
        error_type: str | None = None,
        usage: Usage | None = None,
        finished: Finished | None = None,
        ttft_s: float | None = None,
    ) -> None:
        """The attempt is over.

        Args:
            error_type: The value of an `UpstreamErrorKind`, or `names.ERROR_TYPE_CANCELLED`; None for success.
            usage: Tokens, as far as they were counted.
            finished: How the model stopped, if it did.
            ttft_s: Time to first token; None when there was none.
        """
        if not self._owns_span:
            return
        if self._span.is_recording():
            self._span.set_attributes(_attempt_attributes(usage, finished, ttft_s))
            if error_type == names.ERROR_TYPE_CANCELLED:
                # The caller left: worth telling, no fault of the provider's.
                self._span.set_attribute(names.ERROR_TYPE, error_type)
            elif error_type is not None:
                _fail(self._span, error_type)
        self._span.end()


def _fail(span: Span, error_type: str) -> None:
    span.set_attribute(names.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR))


def _close(span: Span, kind: type[BaseException] | None) -> None:
    """End a span whose block is left. Of an exception its type is told, never its text: it may quote the prompt."""
    if kind is not None and span.is_recording():
        _fail(span, kind.__name__)
    span.end()


def _known(*attributes: tuple[str, AttributeValue | None]) -> dict[str, AttributeValue]:
    """The attributes whose values are known."""
    return {name: value for name, value in attributes if value is not None}


def _decision_attributes(decision: Decision) -> dict[str, AttributeValue]:
    chosen, eligible, assigned = decision.chosen, decision.eligible, decision.assignment
    attributes = _known(
        (names.DECISION_ID, decision.decision_id),
        (names.DECISION_REASON, None if decision.reason is None else decision.reason.value),
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


def _candidate_attributes(candidate: Candidate) -> dict[str, AttributeValue]:
    rejections = tuple(rejection.constraint for rejection in candidate.rejections)
    return _known(
        (names.CANDIDATE_ENDPOINT, candidate.endpoint.name),
        (names.CANDIDATE_UTILITY, candidate.utility),
        (names.CANDIDATE_PROBABILITY, candidate.probability if candidate.eligible else None),
        (names.CANDIDATE_PREDICTED_QUALITY, None if candidate.quality is None else candidate.quality.mean),
        (names.CANDIDATE_EXPECTED_COST_USD, candidate.cost_usd),
        (names.CANDIDATE_EXPECTED_TTFT_S, None if candidate.ttft_s is None else candidate.ttft_s.mean),
        (names.CANDIDATE_REJECTIONS, rejections or None),
    )


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


def _attempt_attributes(
    usage: Usage | None, finished: Finished | None, ttft_s: float | None
) -> dict[str, AttributeValue]:
    counted = usage or Usage()
    return _known(
        (names.GEN_AI_USAGE_INPUT_TOKENS, counted.input_token_count),
        (names.GEN_AI_USAGE_OUTPUT_TOKENS, counted.output_token_count),
        (names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, counted.cached_input_token_count),
        (names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, counted.reasoning_token_count),
        (names.GEN_AI_RESPONSE_FINISH_REASONS, None if finished is None else (finished.reason.value,)),
        (names.GEN_AI_RESPONSE_MODEL, None if finished is None else finished.response_model),
        (names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, ttft_s),
    )
