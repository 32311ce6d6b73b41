"""The collector's configuration: what is worth keeping reaches Jaeger, and the rest does not."""

from __future__ import annotations

from e2e.traced import SCENARIOS, played
from jaeger.server import Jaeger, running_collector
from opentelemetry import trace
from pointsman_server.telemetry.setup import TelemetrySettings, configure_telemetry

KEPT = ("failover", "hedge", "deadline", "upstream death", "rejection")
LEFT = ("success", "cancel")


async def test_the_tail_sampling_keeps_what_is_worth_it(program: str, jaeger: Jaeger) -> None:
    """With deploy/otel-collector.yaml in between, traces with an error, a failover, a hedge or a rejection are in Jaeger
    with all their spans; one that went well, and one that its caller left, are not."""
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    roots: dict[str, trace.SpanContext] = {}
    with running_collector(program, jaeger) as url:
        for number, name in enumerate((*LEFT, *KEPT), start=1):
            telemetry = configure_telemetry(TelemetrySettings(otlp_endpoint=url))
            context = trace.SpanContext(
                trace_id=(0xC0FFEE << 64) + number, span_id=number, is_remote=False, trace_flags=trace.TraceFlags(1)
            )
            with trace.use_span(trace.NonRecordingSpan(context)):
                await played(by_name[name], telemetry)
            roots[name] = context
        for name in KEPT:
            # Judged after those that are left out: what came first is judged first.
            jaeger.trace(roots[name].trace_id, span_count=by_name[name].expected.count("\n") + 1)
    assert [name for name in LEFT if jaeger.has(roots[name].trace_id)] == []
