"""Spans in the bytes of OTLP (opentelemetry.proto.trace.v1), written as each ends.

A span is a message of nothing but names that repeat and numbers that do not: what repeats is encoded once and kept. So a
span takes a few microseconds, where building the protobuf objects of one with ten events takes a third of a millisecond
(make bench-telemetry), and what waits for the exporter is small and needs no further work.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from opentelemetry.trace import SpanKind

from pointsman_server.telemetry import names
from pointsman_server.telemetry.span_record import Attributes, AttributeValue, SpanEvent, SpanRecord

MEMO_COUNT_MAX = 4096
"""Encoded pieces that are kept, about 100 bytes each: names, and values such as endpoints. Beyond it they are forgotten."""

_Key = TypeVar("_Key")
_UINT64_MASK: Final = (1 << 64) - 1

# Tags: a field's number and its wire type. Of Span:
_TRACE_ID, _SPAN_ID, _TRACE_STATE, _PARENT_ID, _NAME = b"\x0a\x10", b"\x12\x08", b"\x1a", b"\x22\x08", b"\x2a"
_KIND = {SpanKind.INTERNAL: b"\x30\x01", SpanKind.SERVER: b"\x30\x02", SpanKind.CLIENT: b"\x30\x03"}
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
        self._tag = tag
        self._texts: dict[tuple[str, str], bytes] = {}
        self._doubles: dict[str, bytes] = {}

    def encode(self, attributes: Attributes, pieces: list[bytes]) -> None:
        """Appends one field for each attribute."""
        texts, doubles = self._texts, self._doubles
        for key, value in attributes.items():
            if type(value) is float:
                pieces += (doubles.get(key) or self._double(key), _PACKED_DOUBLE.pack(value))
            elif type(value) is str:
                pieces.append(texts.get((key, value)) or self._text(key, value))
            else:
                pieces.append(delimited(self._tag, pair(key, value)))

    def _double(self, key: str) -> bytes:
        """The field of a double but for its last eight bytes."""
        whole = delimited(self._tag, pair(key, 0.0))
        return _remembered(self._doubles, key, whole[: -_PACKED_DOUBLE.size])

    def _text(self, key: str, value: str) -> bytes:
        return _remembered(self._texts, (key, value), delimited(self._tag, pair(key, value)))


class SpanEncoder:
    """Encodes spans, each as a field of ScopeSpans; `request` puts them into one message for a collector."""

    def __init__(self, resource: Mapping[str, str]) -> None:
        """Nothing is encoded yet. `resource` are the attributes of the server itself."""
        self._attributes = _AttributeEncoder(_ATTRIBUTE)
        self._event_attributes = _AttributeEncoder(_EVENT_ATTRIBUTE)
        self._names: dict[str, bytes] = {}
        described = b"".join(delimited(_RESOURCE_ATTRIBUTE, pair(key, value)) for key, value in resource.items())
        self._resource = delimited(_RESOURCE, described)
        self._scope = delimited(_SCOPE, text(_SCOPE_NAME, names.SCOPE_NAME))
        self._schema = text(_SCHEMA_URL, names.SCHEMA_URL)

    def span(self, span: SpanRecord) -> bytes:
        """A span that has ended."""
        context, parent = span.context, span.parent
        pieces = [_TRACE_ID, context.trace_id.to_bytes(16, "big"), _SPAN_ID, context.span_id.to_bytes(8, "big")]
        if context.state:
            pieces.append(text(_TRACE_STATE, context.state))
        if parent is not None:
            pieces += (_PARENT_ID, parent.span_id.to_bytes(8, "big"))
        pieces += (
            _NAME,
            self._names.get(span.name) or self._name(span.name),
            _KIND[span.kind],
            _TIMES.pack(_START, span.start_unix_ns, _END, span.end_unix_ns),
        )
        self._attributes.encode(span.attributes, pieces)
        for event in span.events:
            encoded = self._event(event)
            pieces += (_EVENT, varint(len(encoded)), encoded)
        pieces.append(_STATUS_ERROR if span.is_error else _STATUS_UNSET)
        is_remote = parent is not None and span.kind is SpanKind.SERVER
        pieces.append(_FLAGS_REMOTE_PARENT if is_remote else _FLAGS_LOCAL_PARENT)
        return delimited(_SPAN, b"".join(pieces))

    def request(self, spans: Iterable[bytes]) -> bytes:
        """ExportTraceServiceRequest of encoded spans."""
        scope_spans = b"".join((self._scope, *spans, self._schema))
        return delimited(_RESOURCE_SPANS, self._resource + delimited(_SCOPE_SPANS, scope_spans) + self._schema)

    def _event(self, event: SpanEvent) -> bytes:
        name = self._names.get(event.name) or self._name(event.name)
        pieces = [_EVENT_TIME.pack(_TIME, event.unix_ns), _EVENT_NAME, name]
        self._event_attributes.encode(event.attributes, pieces)
        return b"".join(pieces)

    def _name(self, name: str) -> bytes:
        """A name with its length before it."""
        return _remembered(self._names, name, text(b"", name))


def _remembered(memo: dict[_Key, bytes], key: _Key, encoded: bytes) -> bytes:
    if len(memo) >= MEMO_COUNT_MAX:
        memo.clear()
    memo[key] = encoded
    return encoded


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
