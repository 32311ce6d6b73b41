"""A caller who traces by OpenTelemetry sees each call as a span, and the server's spans below it.

Nothing needs to be set up, and OpenTelemetry need not be installed: where the program has not loaded it, nobody traces.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from pointsman.channel import SERVICE, GrpcCallArguments
from pointsman.errors import PointsmanError

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

_SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
_STATUS_CODE = "rpc.response.status_code"
_ERROR_TYPE = "error.type"
_CANCELLED = "CANCELLED"
_OK = "OK"


class TracedCall:
    """The span of one call, from `with` to its end. What is raised within is told by its code or type, never by its text.

    The block gets what the call passes to grpc, with the span's context for the server. Headers of the caller's that name
    a `traceparent` stay as they are, and there is no span: then the caller traces by other means.
    """

    __slots__ = ("_arguments", "_method", "_span")

    def __init__(self, method: str, arguments: GrpcCallArguments) -> None:
        self._method = method
        self._arguments = arguments
        self._span: Span | None = None

    def __enter__(self) -> GrpcCallArguments:
        if "opentelemetry.trace" not in sys.modules or any(
            key == "traceparent" for key, _ in self._arguments["metadata"]
        ):
            return self._arguments
        from opentelemetry import trace  # noqa: PLC0415  # only where it is loaded already

        name = f"{SERVICE}/{self._method}"
        about = {"rpc.system.name": "grpc", "rpc.method": name}
        tracer = trace.get_tracer("pointsman", schema_url=_SCHEMA_URL)
        span = tracer.start_span(name, kind=trace.SpanKind.CLIENT, attributes=about)
        context = span.get_span_context()
        if not context.is_valid:
            return self._arguments
        self._span = span
        return GrpcCallArguments(
            timeout=self._arguments["timeout"], metadata=(*self._arguments["metadata"], *_headers(context))
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        span = self._span
        if span is None:
            return
        if kind is None:
            span.set_attribute(_STATUS_CODE, _OK)
        elif isinstance(error, PointsmanError):
            span.set_attribute(_STATUS_CODE, error.code.name)
            _fail(span, error.code.name)
        elif issubclass(kind, Exception):
            _fail(span, kind.__name__)
        else:
            # Who leaves a stream, or cancels the task that waits, has what they want: told, but no error.
            span.set_attribute(_STATUS_CODE, _CANCELLED)
        span.end()


def _fail(span: Span, error_type: str) -> None:
    from opentelemetry.trace import StatusCode  # noqa: PLC0415  # as above

    span.set_attribute(_ERROR_TYPE, error_type)
    span.set_status(StatusCode.ERROR)


def _headers(context: SpanContext) -> tuple[tuple[str, str], ...]:
    """The W3C trace context: what the server reads, whatever other formats the program is set up for."""
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    state = context.trace_state.to_header()
    return (("traceparent", parent), ("tracestate", state)) if state else (("traceparent", parent),)
