"""The trace context: what callers may send, and what providers are sent."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pointsman_server.telemetry.trace_context import TraceContext, trace_context

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


@given(
    st.text("0123456789abcdef-", max_size=60)
    | st.from_regex(r"(00|01|ff)-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-x)?", fullmatch=True)
)
@example(PARENT)
@example(f"cc-{TRACE_ID}-{SPAN_ID}-01-what-comes-later")
def test_a_parent_is_read_as_opentelemetry_reads_it(parent: str) -> None:
    """What names a span for OpenTelemetry's propagator names it here, and nothing else does."""
    carrier = {"traceparent": parent}
    expected = get_current_span(TraceContextTextMapPropagator().extract(carrier, Context())).get_span_context()
    read = trace_context(carrier.items())
    assert (read is not None) == expected.is_valid
    if read is not None:
        assert (read.trace_id, read.span_id) == (expected.trace_id, expected.span_id)
        assert read.is_sampled == expected.trace_flags.sampled


def test_a_context_is_sent_as_it_is_read() -> None:
    """What a caller sends, its state included, is what its headers are again."""
    metadata = (("traceparent", PARENT), ("tracestate", "a=1,b=2"))
    read = trace_context([("authorization", "Bearer x"), *metadata])
    assert read == TraceContext(int(TRACE_ID, 16), int(SPAN_ID, 16), is_sampled=True, state="a=1,b=2")
    assert read.headers() == metadata


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("traceparent", PARENT), ("traceparent", PARENT)],
        [("traceparent", PARENT + "-" + "x" * 10_000)],
        [("tracestate", "a=1")],
        [("traceparent", PARENT.upper())],
    ],
)
def test_what_names_no_one_span_names_none(metadata: list[tuple[str, str]]) -> None:
    """Nothing, two parents, one without end, a mere state and a parent in upper case are no context."""
    assert trace_context(metadata) is None


def test_a_state_that_is_none_is_left_out() -> None:
    """The parent stands, whatever a caller sends as its state."""
    read = trace_context([("traceparent", PARENT), ("tracestate", "\x00 no state")])
    assert read is not None
    assert read.state == ""
