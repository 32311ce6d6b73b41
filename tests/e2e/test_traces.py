"""The trace of a request through the whole server, and what never gets into it."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import cast

import pytest
from e2e.harness import config_of, endpoints, refusing, streaming, urls_of
from e2e.traced import CANARY, SCENARIOS, Scenario, SeenSpan, played, tree
from opentelemetry.context import attach, detach
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from pointsman import AsyncClient, InternalError, NoEligibleEndpointError
from pointsman_server.app import Application
from pointsman_server.providers.scripted import ScriptedUpstream
from pointsman_server.telemetry import names
from pointsman_server.telemetry.setup import TelemetrySettings, configure_telemetry
from pointsman_server.world import World

KEY = "sk-canary-key-77d1"
TRACE_ID, CALLER_ID = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331


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


def seen_of(span: ReadableSpan) -> SeenSpan:
    """A span of the SDK's, to be compared."""
    assert span.context is not None
    assert span.end_time is not None, "every span ends"
    return SeenSpan(
        name=span.name,
        service=str(span.resource.attributes["service.name"]),
        kind=span.kind.name.lower(),
        trace_id=span.context.trace_id,
        span_id=span.context.span_id,
        parent_id=None if span.parent is None else span.parent.span_id,
        start_ns=span.start_time or 0,
        end_ns=span.end_time,
        attributes=dict(span.attributes or {}),
        is_error=span.status.status_code is StatusCode.ERROR,
        events=[(event.name, dict(event.attributes or {})) for event in span.events],
    )


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
async def test_whatever_becomes_of_a_request_its_tree_tells(scenario: Scenario) -> None:
    """Success, failover, hedge, cancel, deadline, an upstream's death and a rejection each leave one tree: every span has
    ended within its parent's time, has the status of what happened and no exception's text, and providers are sent the
    context of their own call."""
    exporter = InMemorySpanExporter()
    telemetry = configure_telemetry(TelemetrySettings(), span_exporter=exporter)
    caller = SpanContext(TRACE_ID, CALLER_ID, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    token = attach(set_span_in_context(NonRecordingSpan(caller)))
    try:
        heads = await played(scenario, telemetry)
    finally:
        detach(token)
    spans = [seen_of(span) for span in exporter.get_finished_spans()]
    (root,) = [span for span in spans if span.parent_id == CALLER_ID]
    assert tree(spans, root) == scenario.expected
    assert {span.trace_id for span in spans} == {TRACE_ID}
    by_id = {span.span_id: span for span in spans}
    for span in spans:
        parent = by_id.get(span.parent_id or 0, span)
        assert parent.start_ns <= span.start_ns <= span.end_ns <= parent.end_ns
        assert {name for name, _ in span.events} <= {names.CANDIDATE_EVENT}
    sent = {match[1] for head in heads if (match := re.search(r"traceparent: (\S+)\r\n", head)) is not None}
    assert sent == {f"00-{TRACE_ID:032x}-{span.span_id:016x}-01" for span in spans if span.name == names.POST}


async def test_a_bug_is_told_by_its_type_and_the_id_under_which_the_log_has_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What escapes a method ends its span as INTERNAL; the caller, the log and the span have one id, and nobody the text."""
    exporter = InMemorySpanExporter()
    telemetry = configure_telemetry(TelemetrySettings(), span_exporter=exporter)
    async with Application(config_of(endpoints({"first": ["a"]}, {"first": "http://127.0.0.1:9/v1"})), telemetry=telemetry) as application:  # fmt: skip
        application.router.world = cast("World", BrokenWorld())
        async with AsyncClient(f"127.0.0.1:{application.port}") as client:
            with pytest.raises(InternalError) as caught:
                await client.route(CANARY)
    spans = {span.name: seen_of(span) for span in exporter.get_finished_spans()}
    server = spans["pointsman.v1.RouterService/Route"]
    assert server.is_error
    assert server.attributes[names.RPC_RESPONSE_STATUS_CODE] == "INTERNAL"
    assert server.attributes[names.ERROR_ID] == caught.value.error_id
    assert spans["route"].attributes[names.ERROR_TYPE] == "RuntimeError"
    assert f"error_id={caught.value.error_id}" in caplog.text
    assert CANARY not in caplog.text + "".join(span.to_json() for span in exporter.get_finished_spans())


class BrokenWorld:
    """Nothing about it works."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(f"{CANARY}: no {name}")


async def test_a_server_that_is_off_passes_the_callers_context_on() -> None:
    """Without telemetry the provider still joins the caller's trace, right below the caller's own span."""
    caller = SpanContext(TRACE_ID, CALLER_ID, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    token = attach(set_span_in_context(NonRecordingSpan(caller)))
    try:
        (head,) = await played(SCENARIOS[0], configure_telemetry(TelemetrySettings()))
    finally:
        detach(token)
    assert f"traceparent: 00-{TRACE_ID:032x}-{CALLER_ID:016x}-01" in head
