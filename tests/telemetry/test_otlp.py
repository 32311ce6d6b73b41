"""Spans in bytes: what is written by hand is what OpenTelemetry's own encoder writes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanKind
from pointsman_server.telemetry import names, otlp
from pointsman_server.telemetry.otlp import SpanEncoder, text, varint
from pointsman_server.telemetry.span_record import (
    AttributeValue,
    EventShape,
    FigureEvent,
    SpanEvent,
    SpanRecord,
    readable,
)
from pointsman_server.telemetry.trace_context import TraceContext

RESOURCE = {names.SERVICE_NAME: "pointsman", names.SERVICE_VERSION: "0.1.0"}

words = st.text(st.characters(codec="utf-8"), max_size=200)
values = st.one_of(
    words,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(words, min_size=1, max_size=3).map(tuple),
)
attributes = st.dictionaries(st.text("abc.", min_size=1, max_size=3) | words.filter(bool), values, max_size=8)
contexts = st.builds(
    TraceContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.just(value=True),
    st.sampled_from(["", "vendor=1", "a=b,c=d"]),
)
times = st.integers(0, 2**63 - 1)

figures = st.floats(allow_nan=False)
events = st.builds(SpanEvent, words, times, attributes) | st.builds(
    FigureEvent, st.builds(EventShape, words, words, st.tuples(words, words)), times, words, st.tuples(figures, figures)
).filter(lambda event: len(event.attributes) == 3)


@st.composite
def spans(draw: st.DrawFn) -> SpanRecord:
    """A span that has ended."""
    span = SpanRecord(
        draw(words),
        draw(contexts),
        draw(st.none() | contexts),
        draw(st.sampled_from([SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT])),
        start_unix_ns=draw(times),
        attributes=draw(attributes),
    )
    span.end_unix_ns = draw(times)
    span.events = draw(st.lists(events, max_size=3))
    span.is_error = draw(st.booleans())
    return span


@given(st.lists(spans(), min_size=1, max_size=4))
@settings(max_examples=150)
def test_a_message_is_the_one_that_the_sdk_makes(recorded: list[SpanRecord]) -> None:
    """Whatever spans hold, the collector reads of them what it would read of the SDK's own encoding."""
    encoder = SpanEncoder(RESOURCE)
    ours = ExportTraceServiceRequest.FromString(encoder.request([encoder.span(span) for span in recorded]))
    resource = Resource(RESOURCE, schema_url=names.SCHEMA_URL)
    assert ours == encode_spans([readable(span, resource) for span in recorded])


@given(st.integers(0, 2**64 - 1))
def test_a_number_takes_seven_bits_to_a_byte(number: int) -> None:
    """A varint has as few bytes as hold it, the lowest bits first, and all but the last say that more follow."""
    encoded = varint(number)
    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(encoded)) == number
    assert [byte >= 0x80 for byte in encoded] == [True] * (len(encoded) - 1) + [False]
    assert len(encoded) == max(1, -(-number.bit_length() // 7))


def test_what_utf_8_can_not_hold_does_no_harm() -> None:
    """Half of a surrogate pair, which a provider's JSON may hold, becomes a question mark."""
    assert text(b"\x0a", "a\ud800b") == b"\x0a\x03a?b"


def test_what_is_kept_is_bounded() -> None:
    """However many different keys and values come by, no more than so many of their encodings are kept."""
    encoder = SpanEncoder(RESOURCE)
    context = TraceContext(1, 2, is_sampled=True)
    for number in range(2 * otlp.MEMO_COUNT_MAX):
        about: dict[str, AttributeValue] = {f"key{number}": "a", "key": (str(number),)}
        span = SpanRecord(f"s{number}", context, None, SpanKind.INTERNAL, start_unix_ns=1, attributes=about)
        assert str(number).encode() in encoder.span(span)
    attributes = encoder._attributes
    for memo in (encoder._names, attributes._before_text, attributes._others):
        assert 0 < len(memo) <= otlp.MEMO_COUNT_MAX
