"""Whole traces in a real Jaeger, from the caller through client and router to the provider."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from e2e.traced import CANARY, SCENARIOS, Scenario, SeenSpan, children, played, tree
from jaeger.server import Jaeger
from opentelemetry import trace
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pointsman_server.telemetry import names
from pointsman_server.telemetry.setup import TelemetrySettings, configure_telemetry

SERVED = "POST /v1/chat/completions"
"""A provider's span of a call."""


def answer_for(heads: Sequence[str], upstream: trace.Tracer) -> None:
    """Makes the spans that providers who trace would make of the calls that they were sent."""
    for head in heads:
        sent = re.search(r"traceparent: (\S+)\r\n", head)
        assert sent is not None, "a provider is told of the trace"
        parent = TraceContextTextMapPropagator().extract({"traceparent": sent[1]})
        upstream.start_span(SERVED, parent, SpanKind.SERVER).end()


def only(spans: Sequence[SeenSpan], **wanted: object) -> list[SeenSpan]:
    """The spans with these fields."""
    return [span for span in spans if all(getattr(span, name) == value for name, value in wanted.items())]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
async def test_jaeger_shows_the_whole_tree(
    scenario: Scenario, jaeger: Jaeger, caller: trace.Tracer, upstream: trace.Tracer
) -> None:
    """For each way in which a request can end Jaeger has one trace: the caller's span, the client's call below it, the
    server's tree with its statuses and figures below that, and what each provider made of its call below the attempt."""
    telemetry = configure_telemetry(TelemetrySettings(otlp_endpoint=jaeger.otlp_url, sends_metrics=False))
    with caller.start_as_current_span("ask") as asking:
        heads = await played(scenario, telemetry)
    answer_for(heads, upstream)
    expected_lines = scenario.expected.count("\n") + 1
    spans = jaeger.trace(asking.get_span_context().trace_id, span_count=2 + expected_lines + len(heads))

    (ask,) = only(spans, parent_id=None)
    assert (ask.name, ask.service) == ("ask", "caller")
    (call,) = children(spans, ask)
    assert (call.service, call.kind) == ("caller", "client")
    (served,) = children(spans, call)
    assert served.name == call.name
    ours = only(spans, service="pointsman")
    assert tree(ours, served) == scenario.expected.replace("('stop',)", "['stop']")
    posts = only(ours, name=names.POST)
    assert [child.service for post in posts for child in children(spans, post)] == ["provider"] * len(heads)
    assert len(spans) == 2 + expected_lines + len(heads)
    assert CANARY not in repr(spans).lower()


async def test_jaeger_shows_why_it_was_decided_so(jaeger: Jaeger, caller: trace.Tracer) -> None:
    """The span of the decision has what was chosen, by whom and why, and each candidate with its figures or what stood
    against it."""
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    found: dict[str, SeenSpan] = {}
    for name in ("success", "rejection"):
        telemetry = configure_telemetry(TelemetrySettings(otlp_endpoint=jaeger.otlp_url, sends_metrics=False))
        with caller.start_as_current_span("ask") as asking:
            await played(by_name[name], telemetry)
        spans = jaeger.trace(asking.get_span_context().trace_id, span_count=8)
        (found[name],) = only(spans, name=names.ROUTE_SPAN)
    decided, refused = found["success"], found["rejection"]
    assert decided.attributes[names.DECISION_ENDPOINT] == "a@first"
    assert decided.attributes[names.ROUTER_NAME] == "default"
    assert decided.attributes[names.CANDIDATES_TOTAL] == 2
    assert re.fullmatch("[0-9a-f]{32}", str(decided.attributes[names.DECISION_ID]))
    for route in (decided, refused):
        assert [name for name, _ in route.events] == [names.CANDIDATE_EVENT] * 2
    assert {about[names.CANDIDATE_ENDPOINT] for _, about in decided.events} == {"a@first", "b@second"}
    for _, about in refused.events:
        assert about[names.CANDIDATE_REJECTIONS] == ["c<0.001"]
