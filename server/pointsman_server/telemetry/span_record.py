"""What is recorded of a span, and how spans come about: ids, times, and whether a trace is recorded at all.

A span of OpenTelemetry's SDK guards its attributes with locks and checks each of them again, which would cost more than
the decision that it tells of (make bench-telemetry). Ours are told by one task each and hold only what `spans` gives them,
so they are plain records. Those who take OpenTelemetry's own objects get them from `readable`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from pointsman_server.telemetry import names
from pointsman_server.telemetry.trace_context import TraceContext

AttributeValue = str | bool | int | float | tuple[str, ...]
Attributes = Mapping[str, AttributeValue]

TRACE_ID_BITS: Final = 128
SPAN_ID_BITS: Final = 64
RATIO_BITS: Final = 64
"""Of a trace's id, the lower ones decide whether it is recorded, as in OpenTelemetry's own sampler."""


class SpanEvent(NamedTuple):
    """Something that happened within a span."""

    name: str
    unix_ns: int
    attributes: Attributes


class EventShape:
    """What events have in common that tell a text and then always the same figures. Made once; alike is not the same."""

    __slots__ = ("figure_keys", "name", "text_key")

    def __init__(self, name: str, text_key: str, figure_keys: tuple[str, ...]) -> None:
        self.name = name
        self.text_key = text_key
        self.figure_keys = figure_keys

    def __repr__(self) -> str:
        return f"EventShape({self.name!r})"


class FigureEvent(NamedTuple):
    """A `SpanEvent` of a known shape, which takes a third of the time to make and to encode."""

    shape: EventShape
    unix_ns: int
    text: str
    figures: tuple[float, ...]
    """As many as the shape has keys for."""

    @property
    def name(self) -> str:
        """That of its shape."""
        return self.shape.name

    @property
    def attributes(self) -> Attributes:
        """The text and the figures under their keys."""
        return {self.shape.text_key: self.text} | dict(zip(self.shape.figure_keys, self.figures, strict=True))


class SpanRecord:
    """One span. Whoever made it tells its attributes and ends it, once."""

    __slots__ = (
        "attributes",
        "context",
        "end_unix_ns",
        "events",
        "is_error",
        "kind",
        "name",
        "parent",
        "start_unix_ns",
    )

    def __init__(
        self,
        name: str,
        context: TraceContext,
        parent: TraceContext | None,
        kind: SpanKind,
        *,
        start_unix_ns: int,
        attributes: dict[str, AttributeValue],
    ) -> None:
        self.name = name
        self.context = context
        self.parent = parent
        self.kind = kind
        self.start_unix_ns = start_unix_ns
        self.end_unix_ns = 0
        self.attributes = attributes
        self.events: Sequence[SpanEvent | FigureEvent] = ()
        self.is_error = False

    def __repr__(self) -> str:
        return f"SpanRecord({self.name!r}, {self.context.span_id:016x}, {'ended' if self.end_unix_ns else 'open'})"


class SpanSink(Protocol):
    """Where spans go when they have ended."""

    def add(self, span: SpanRecord) -> None:
        """Takes a span. Never waits, never fails."""


class SpanRecorder:
    """Begins spans, decides which traces are recorded, and hands finished spans on."""

    __slots__ = ("_random_bits", "_ratio_bound", "_sinks", "unix_ns")

    def __init__(
        self,
        sinks: Sequence[SpanSink],
        *,
        sample_ratio: float,
        unix_ns: Callable[[], int],
        random_bits: Callable[[int], int],
    ) -> None:
        """Nothing is recorded yet.

        Args:
            sinks: Each is handed every span.
            sample_ratio: Share of the traces begun here that are recorded, 0..1; others keep what their beginner decided.
            unix_ns: The time of day.
            random_bits: A number of so many random bits.
        """
        self._sinks = tuple(sinks)
        self._ratio_bound = round(sample_ratio * (1 << RATIO_BITS))
        self.unix_ns = unix_ns
        self._random_bits = random_bits

    def context(self, parent: TraceContext | None) -> TraceContext:
        """A new span's identity, within the trace of `parent` or one of its own."""
        # One in 2^64 would be 0, which names no span.
        span_id = self._random_bits(SPAN_ID_BITS) or 1
        if parent is not None:
            return TraceContext(parent.trace_id, span_id, parent.is_sampled, parent.state)
        trace_id = self._random_bits(TRACE_ID_BITS) or 1
        return TraceContext(trace_id, span_id, trace_id & ((1 << RATIO_BITS) - 1) < self._ratio_bound)

    def begin(
        self,
        name: str,
        context: TraceContext,
        parent: TraceContext | None,
        attributes: dict[str, AttributeValue],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> SpanRecord:
        """A span that begins now."""
        return SpanRecord(name, context, parent, kind, start_unix_ns=self.unix_ns(), attributes=attributes)

    def end(self, span: SpanRecord, *, end_unix_ns: int | None = None) -> None:
        """A span ends, now unless a time is given."""
        assert span.end_unix_ns == 0, f"{span!r} ends twice"
        span.end_unix_ns = self.unix_ns() if end_unix_ns is None else end_unix_ns
        for sink in self._sinks:
            sink.add(span)


SCOPE = InstrumentationScope(names.SCOPE_NAME, schema_url=names.SCHEMA_URL)


def readable(span: SpanRecord, resource: Resource) -> ReadableSpan:
    """The same as one of OpenTelemetry's own."""
    return ReadableSpan(
        span.name,
        _span_context(span.context, is_remote=False),
        # A parent in another process: whoever made that span, it was not us.
        None if span.parent is None else _span_context(span.parent, is_remote=span.kind is SpanKind.SERVER),
        resource,
        dict(span.attributes),
        [Event(event.name, dict(event.attributes), event.unix_ns) for event in span.events],
        (),
        span.kind,
        status=Status(StatusCode.ERROR if span.is_error else StatusCode.UNSET),
        start_time=span.start_unix_ns,
        end_time=span.end_unix_ns,
        instrumentation_scope=SCOPE,
    )


def _span_context(context: TraceContext, *, is_remote: bool) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if context.is_sampled else TraceFlags.DEFAULT)
    state = TraceState.from_header([context.state]) if context.state else None
    return SpanContext(context.trace_id, context.span_id, is_remote, flags, state)
