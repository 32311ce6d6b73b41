"""Spans in the bytes of OTLP (opentelemetry.proto.trace.v1), written as each ends.

A span is a message of nothing but names that repeat and values that do not: what stands before a value is encoded once
and kept. So a span takes a few microseconds, where building the protobuf objects of one with ten events takes a third of a millisecond
(make bench-telemetry), and what waits for the exporter is small and needs no further work.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from opentelemetry.trace import SpanKind

from pointsman_server.telemetry import names
from pointsman_server.telemetry.memo import Memo
from pointsman_server.telemetry.span_record import (
    Attributes,
    AttributeValue,
    EventShape,
    FigureEvent,
    SpanEvent,
    SpanRecord,
)

MEMO_COUNT_MAX = 4096
"""Encoded pieces of a kind that are kept, about 100 bytes each. Beyond it they are forgotten."""

_UINT64_MASK: Final = (1 << 64) - 1

# Tags: a field's number and its wire type. Of Span:
_IDS = struct.Struct(">HQQHQ")
_IDS_AND_PARENT = struct.Struct(">HQQHQHQ")
_TRACE_ID, _SPAN_ID, _PARENT_ID = 0x0A10, 0x1208, 0x2208
"""With the lengths of the ids."""
_TRACE_STATE, _NAME = b"\x1a", b"\x2a"
_INTERNAL, _SERVER, _CLIENT = b"\x30\x01", b"\x30\x02", b"\x30\x03"
_TIMES = struct.Struct("<BQBQ")
_START, _END = 0x39, 0x41
_ATTRIBUTE, _EVENT = b"\x4a", b"\x5a"
_STATUS_UNSET, _STATUS_ERROR = b"\x7a\x00", b"\x7a\x02\x18\x02"
_FLAGS_LOCAL_PARENT, _FLAGS_REMOTE_PARENT = b"\x85\x01\x00\x01\x00\x00", b"\x85\x01\x00\x03\x00\x00"
# Of Event:
_EVENT_TIME = struct.Struct("<BQ")
_TIME, _EVENT_NAME, _EVENT_ATTRIBUTE = 0x09, b"\x12", b"\x1a"
# Of KeyValue, AnyValue and ArrayValue:
_KEY, _VALUE = b"\x0a", b"\x12"
_STRING, _BOOL, _INT, _DOUBLE, _ARRAY, _ARRAY_ITEM = b"\x0a", b"\x10", b"\x18", b"\x21", b"\x2a", b"\x0a"
_PACKED_DOUBLE = struct.Struct("<d")
# Of Resource, InstrumentationScope, ScopeSpans, ResourceSpans and ExportTraceServiceRequest:
_RESOURCE_ATTRIBUTE, _SCOPE_NAME = b"\x0a", b"\x0a"
_SPAN, _SCOPE, _RESOURCE, _SCOPE_SPANS, _RESOURCE_SPANS, _SCHEMA_URL = (
    b"\x12",
    b"\x0a",
    b"\x0a",
    b"\x12",
    b"\x0a",
    b"\x1a",
)


def varint(value: int) -> bytes:
    """A number from 0 to 2^64 - 1, seven bits to a byte, the lowest first."""
    if value < 0x80:
        return _SMALL[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_SMALL = tuple(bytes((value,)) for value in range(0x80))


def delimited(tag: bytes, content: bytes) -> bytes:
    """A field that holds bytes, a text or a message."""
    return tag + varint(len(content)) + content


def text(tag: bytes, value: str) -> bytes:
    """A field that holds a text. Half of a surrogate pair, which UTF-8 has no bytes for, becomes a question mark."""
    return delimited(tag, value.encode("utf-8", "replace"))


class _AttributeEncoder:
    """Encodes attributes as fields that hold a KeyValue."""

    def __init__(self, tag: bytes) -> None:
        # What stands before a value, by key and, where that differs, the value's length.
        self._before_text: Memo[tuple[str, int], bytes] = Memo(
            lambda key: before(tag, key[0], _STRING + varint(key[1]), key[1]), count_max=MEMO_COUNT_MAX
        )
        self._before_int: Memo[tuple[str, int], bytes] = Memo(
            lambda key: before(tag, key[0], _INT, key[1]), count_max=MEMO_COUNT_MAX
        )
        self._before_double: Memo[str, bytes] = Memo(
            lambda key: before(tag, key, _DOUBLE, _PACKED_DOUBLE.size), count_max=MEMO_COUNT_MAX
        )
        self._others: Memo[tuple[str, AttributeValue], bytes] = Memo(
            lambda attribute: delimited(tag, pair(*attribute)), count_max=MEMO_COUNT_MAX
        )

    def encode(self, attributes: Attributes, pieces: list[bytes]) -> None:
        """Appends the fields of all attributes."""
        before_text = self._before_text
        for key, value in attributes.items():
            if type(value) is str:
                encoded = value.encode("utf-8", "replace")
                pieces += (before_text[key, len(encoded)], encoded)
            elif type(value) is float:
                pieces += (self._before_double[key], _PACKED_DOUBLE.pack(value))
            elif type(value) is int:
                encoded = varint(value & _UINT64_MASK)
                pieces += (self._before_int[key, len(encoded)], encoded)
            else:
                pieces.append(self._others[key, value])


class _FigureEventEncoder:
    """Encodes the events of one shape as fields of Span. All that changes in those of one text are numbers of eight bytes:
    what stands between them is kept, and one call writes it all."""

    def __init__(self, shape: EventShape) -> None:
        self._shape = shape
        self._plans: Memo[str, tuple[Callable[..., bytes], list[bytes | float]]] = Memo(
            self._plan, count_max=MEMO_COUNT_MAX
        )

    def encode(self, event: FigureEvent) -> bytes:
        """The whole field."""
        pack, kept = self._plans[event.text]
        parts = kept.copy()
        parts[1::2] = (event.unix_ns, *event.figures)
        return pack(*parts)

    def _plan(self, value: str) -> tuple[Callable[..., bytes], list[bytes | float]]:
        """What packs the event of a text, and what it packs: what is kept, with a place for a number after each piece."""
        shape = self._shape
        between = [before(_EVENT_ATTRIBUTE, key, _DOUBLE, _PACKED_DOUBLE.size) for key in shape.figure_keys]
        between[0] = (
            text(_EVENT_NAME, shape.name) + delimited(_EVENT_ATTRIBUTE, pair(shape.text_key, value)) + between[0]
        )
        length = _EVENT_TIME.size + sum(len(piece) + _PACKED_DOUBLE.size for piece in between)
        pieces = [_EVENT + varint(length) + _SMALL[_TIME], *between]
        layout = "<" + "".join(f"{len(piece)}s{'d' if number else 'Q'}" for number, piece in enumerate(pieces))
        return struct.Struct(layout).pack, [part for piece in pieces for part in (piece, 0.0)]


class SpanEncoder:
    """Encodes spans, each as a field of ScopeSpans; `request` puts them into one message for a collector."""

    def __init__(self, resource: Mapping[str, str]) -> None:
        """Nothing is encoded yet. `resource` are the attributes of the server itself."""
        self._attributes = _AttributeEncoder(_ATTRIBUTE)
        self._event_attributes = _AttributeEncoder(_EVENT_ATTRIBUTE)
        self._names: Memo[str, bytes] = Memo(lambda name: text(_NAME, name), count_max=MEMO_COUNT_MAX)
        self._event_names: Memo[str, bytes] = Memo(lambda name: text(_EVENT_NAME, name), count_max=MEMO_COUNT_MAX)
        self._shapes: Memo[EventShape, _FigureEventEncoder] = Memo(_FigureEventEncoder, count_max=MEMO_COUNT_MAX)
        described = b"".join(delimited(_RESOURCE_ATTRIBUTE, pair(key, value)) for key, value in resource.items())
        self._resource = delimited(_RESOURCE, described)
        self._scope = delimited(_SCOPE, text(_SCOPE_NAME, names.SCOPE_NAME))
        self._schema = text(_SCHEMA_URL, names.SCHEMA_URL)

    def span(self, span: SpanRecord) -> bytes:
        """A span that has ended."""
        context, parent, kind = span.context, span.parent, span.kind
        trace_id = context.trace_id
        high, low = trace_id >> 64, trace_id & _UINT64_MASK
        if parent is None:
            ids = _IDS.pack(_TRACE_ID, high, low, _SPAN_ID, context.span_id)
        else:
            ids = _IDS_AND_PARENT.pack(_TRACE_ID, high, low, _SPAN_ID, context.span_id, _PARENT_ID, parent.span_id)
        pieces = [
            ids,
            self._names[span.name],
            # Not by way of a dictionary: the hash of these is written in Python.
            _INTERNAL if kind is SpanKind.INTERNAL else _SERVER if kind is SpanKind.SERVER else _CLIENT,
            _TIMES.pack(_START, span.start_unix_ns, _END, span.end_unix_ns),
            _STATUS_ERROR if span.is_error else _STATUS_UNSET,
            _FLAGS_REMOTE_PARENT if parent is not None and kind is SpanKind.SERVER else _FLAGS_LOCAL_PARENT,
        ]
        if context.state:
            pieces.append(text(_TRACE_STATE, context.state))
        self._attributes.encode(span.attributes, pieces)
        for event in span.events:
            if type(event) is FigureEvent:
                pieces.append(self._shapes[event.shape].encode(event))
            else:
                encoded = self._event(event)
                pieces += (_EVENT, varint(len(encoded)), encoded)
        return delimited(_SPAN, b"".join(pieces))

    def request(self, spans: Sequence[bytes]) -> bytes:
        """ExportTraceServiceRequest of encoded spans."""
        # A third of a megabyte, put together in one go: each `delimited` would copy it once more.
        length = len(self._scope) + sum(map(len, spans)) + len(self._schema)
        scope_spans = _SCOPE_SPANS + varint(length)
        length += len(self._resource) + len(scope_spans) + len(self._schema)
        whole = (_RESOURCE_SPANS, varint(length), self._resource, scope_spans, self._scope)
        return b"".join((*whole, *spans, self._schema, self._schema))

    def _event(self, event: SpanEvent | FigureEvent) -> bytes:
        pieces = [_EVENT_TIME.pack(_TIME, event.unix_ns), self._event_names[event.name]]
        self._event_attributes.encode(event.attributes, pieces)
        return b"".join(pieces)


def before(tag: bytes, key: str, kind: bytes, value_length: int) -> bytes:
    """The field of an attribute but for its value's own bytes, which are the last ones."""
    content = text(_KEY, key) + _VALUE + varint(len(kind) + value_length) + kind
    return tag + varint(len(content) + value_length) + content


def pair(key: str, value: AttributeValue) -> bytes:
    """KeyValue of an attribute."""
    return text(_KEY, key) + delimited(_VALUE, _any_value(value))


def _any_value(value: AttributeValue) -> bytes:
    match value:
        case bool():
            return _BOOL + _SMALL[value]
        case int():
            return _INT + varint(value & _UINT64_MASK)
        case float():
            return _DOUBLE + _PACKED_DOUBLE.pack(value)
        case str():
            return text(_STRING, value)
        case tuple():
            return delimited(_ARRAY, b"".join([delimited(_ARRAY_ITEM, text(_STRING, item)) for item in value]))
