"""The trace of a request through the whole server, and what never gets into it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
from e2e.harness import config_of, endpoints, refusing, streaming, urls_of
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from pointsman import AsyncClient, NoEligibleEndpointError
from pointsman_server.app import Application
from pointsman_server.providers.scripted import ScriptedUpstream
from pointsman_server.telemetry import names
from pointsman_server.telemetry.setup import TelemetrySettings, configure_telemetry

CANARY = "canary-81f2c"
KEY = "sk-canary-key-77d1"


def by_name(spans: Sequence[ReadableSpan]) -> dict[str, ReadableSpan]:
    """Spans by their names."""
    return {span.name: span for span in spans}


def attributes_of(span: ReadableSpan) -> dict[str, object]:
    """The attributes of a span."""
    return dict(span.attributes or {})


async def test_a_failover_is_seen_in_one_trace_from_the_caller_to_the_provider(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server span joins the caller's trace; the decision and each attempt are its children; the provider gets the
    context of its attempt; and neither prompt nor key nor answer is in any span, metric or log line."""
    caplog.set_level(logging.DEBUG)
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    telemetry = configure_telemetry(TelemetrySettings(), span_exporter=exporter, metric_reader=reader)
    async with ScriptedUpstream(refusing(503, CANARY.upper())) as first, ScriptedUpstream(streaming(CANARY)) as second:
        toml = endpoints({"first": ["a"], "second": ["a"]}, urls_of(first=first, second=second))
        keyed = toml.replace("[providers.second]", '[providers.second]\napi_key_env = "SECOND_KEY"')
        async with Application(config_of(keyed, {"SECOND_KEY": KEY}), telemetry=telemetry) as application:
            trace_id, caller_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
            async with AsyncClient(f"127.0.0.1:{application.port}") as client:
                answer = await client.complete_text(
                    f"{CANARY}?",
                    router="a@first->a@second",
                    metadata={"traceparent": f"00-{trace_id}-{caller_id}-01"},
                )
                with pytest.raises(NoEligibleEndpointError):
                    await client.route(CANARY, router="router@c<0.001")
                collected = reader.get_metrics_data()
        received = second.connections[0].requests[0].head.decode()
    spans = exporter.get_finished_spans()
    ours = [span for span in spans if span.context is not None and span.context.trace_id == int(trace_id, 16)]
    server = by_name(ours)["pointsman.v1.RouterService/Complete"]
    route = by_name(ours)["route"]
    attempts = [span for span in ours if span.name == "chat a"]
    assert server.kind is SpanKind.SERVER
    assert server.parent is not None
    assert server.parent.span_id == int(caller_id, 16)
    assert attributes_of(server)[names.RPC_RESPONSE_STATUS_CODE] == "OK"
    for child in (route, *attempts):
        assert child.parent is not None
        assert child.parent.span_id == server.context.span_id
    assert attributes_of(route)[names.DECISION_ID] == answer.decision.id
    assert attributes_of(route)[names.DECISION_ENDPOINT] == "a@first"
    assert {"predict_quality", "snapshot", "decide"} <= set(by_name(ours))
    failed, succeeded = sorted(attempts, key=lambda span: str(attributes_of(span)[names.ATTEMPT_NUMBER]))
    assert attributes_of(failed)[names.ERROR_TYPE] == "server_error"
    assert names.ERROR_TYPE not in attributes_of(succeeded)
    assert attributes_of(succeeded)[names.SERVER_ADDRESS] == "127.0.0.1"
    assert attributes_of(succeeded)[names.GEN_AI_USAGE_OUTPUT_TOKENS] == 3
    (post,) = [span for span in ours if span.parent is not None and span.parent.span_id == succeeded.context.span_id]
    assert attributes_of(post) == {
        names.HTTP_REQUEST_METHOD: "POST",
        names.HTTP_RESPONSE_STATUS_CODE: 200,
        names.SERVER_ADDRESS: "127.0.0.1",
    }
    assert f"traceparent: 00-{trace_id}-{post.context.span_id:016x}-01" in received.lower()
    assert all(span.end_time is not None for span in spans)
    told = "".join(span.to_json() for span in spans) + caplog.text
    told += "" if collected is None else collected.to_json()
    for secret in (CANARY, KEY):
        assert secret not in told
