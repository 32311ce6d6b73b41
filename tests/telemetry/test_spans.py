"""Spans: the tree of a request, what each tells, and what none ever tells."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.context import get_current
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, TraceFlags, format_span_id, format_trace_id
from pointsman_server.chat import Finished, FinishReason, Usage
from pointsman_server.decision.decide import decide
from pointsman_server.decision.metrics import Metric
from pointsman_server.decision.types import (
    Bound,
    Candidate,
    Comparison,
    Decision,
    DecisionInput,
    DecisionReason,
    Endpoint,
    EndpointRuntime,
    Latency,
    Policy,
    QualityPrediction,
    Rejection,
    RejectionReason,
    RequestFacts,
    RuntimeSnapshot,
)
from pointsman_server.errors import UpstreamErrorKind
from pointsman_server.telemetry import names
from pointsman_server.telemetry.setup import TelemetrySettings, configure_telemetry
from pointsman_server.telemetry.spans import (
    CANDIDATE_EVENT_COUNT_MAX,
    Tracing,
    candidate_attributes,
    candidate_event,
)
from strategies import endpoints, latencies, qualities

METHOD = "pointsman.v1.RouterService/Complete"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
ENDPOINT = Endpoint("small", "north")


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """Gets every span."""
    spans = InMemorySpanExporter()
    yield spans
    spans.clear()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Tracing:
    """Records everything."""
    return configure_telemetry(TelemetrySettings(), span_exporter=exporter).tracing


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """The finished spans but for those of HTTP, whose names must differ."""
    spans = [span for span in exporter.get_finished_spans() if span.name != "POST"]
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def posts(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """The finished spans of HTTP by the names of their parents."""
    spans = exporter.get_finished_spans()
    names_by_id = {id_of(span): span.name for span in spans}
    return {names_by_id[parent_of(span) or ""]: span for span in spans if span.name == "POST"}


def attributes(span: ReadableSpan) -> dict[str, object]:
    """A span's attributes."""
    return dict(span.attributes or {})


def parent_of(span: ReadableSpan) -> str | None:
    """The id of a span's parent."""
    return None if span.parent is None else format_span_id(span.parent.span_id)


def id_of(span: ReadableSpan) -> str:
    """A span's own id."""
    assert span.context is not None
    return format_span_id(span.context.span_id)


def a_decision(*, model_count: int = 3, quality_min: float = 0.0) -> Decision:
    """Models of rising quality, all priced, one with known latency; the bound may leave none."""
    endpoints = tuple(Endpoint(f"m{number:02}", "north", 1.0, 2.0) for number in range(model_count))
    latency = Latency(0.4, 0.3, 0.5, 0.6, 0.9)
    return decide(
        DecisionInput(
            decision_id="d-1",
            facts=RequestFacts(input_token_count=100),
            alternatives=(Policy(bounds=(Bound(Metric.QUALITY, Comparison.GREATER_EQUAL, quality_min),)),),
            endpoints=endpoints,
            qualities={
                endpoint.model: QualityPrediction(0.5 + 0.01 * number, 0.1, 200.0)
                for number, endpoint in enumerate(endpoints)
            },
            snapshot=RuntimeSnapshot({endpoint.name: EndpointRuntime(latency, age_s=1.0) for endpoint in endpoints}),
            seed=1,
            router_name="default",
            router_version="abc",
        )
    )


def test_a_request_is_one_tree(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """Server span, route with its phases, and each attempt hang together as drawn, in the caller's trace."""
    request = tracing.request(METHOD, [("authorization", "Bearer canary"), ("traceparent", TRACEPARENT)])
    with request.route() as routing:
        for phase in ("predict_quality", "snapshot", "decide"):
            with routing.phase(phase):
                pass
        routing.decided(a_decision())
    request.attempt(1, ENDPOINT).end(error_type=UpstreamErrorKind.TIMEOUT)
    request.attempt(2, Endpoint("large", "south")).end()
    request.end(status="OK", reason=None)
    spans = by_name(exporter)
    server, route = spans[METHOD], spans["route"]
    assert parent_of(server) == PARENT_ID
    assert {parent_of(spans[name]) for name in ("route", "chat small", "chat large")} == {id_of(server)}
    assert {parent_of(spans[name]) for name in ("predict_quality", "snapshot", "decide")} == {id_of(route)}
    assert {format_trace_id(span.context.trace_id) for span in spans.values() if span.context} == {TRACE_ID}
    assert set(posts(exporter)) == {"chat small", "chat large"}
    assert (server.kind, route.kind, spans["chat small"].kind) == (SpanKind.SERVER, SpanKind.INTERNAL, SpanKind.CLIENT)
    assert "canary" not in "".join(span.to_json() for span in spans.values())


def test_the_decision_is_explained(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """The route span says what was chosen, why, and at what expected quality, cost and latency."""
    request = tracing.request(METHOD, [])
    decision = a_decision()
    with request.route() as routing:
        routing.decided(decision)
    chosen = decision.chosen
    assert chosen is not None
    route = by_name(exporter)["route"]
    assert attributes(route) == {
        "pointsman.decision.id": "d-1",
        "pointsman.decision.endpoint": "m02@north",
        "pointsman.decision.reason": decision.reason,
        "pointsman.decision.predicted_quality": 0.52,
        "pointsman.decision.expected_cost_usd": chosen.cost_usd,
        "pointsman.decision.expected_ttft_s": 0.4,
        "pointsman.decision.runner_up": "m01@north",
        "pointsman.candidates.total": 3,
        "pointsman.candidates.eligible": 3,
        "pointsman.router.name": "default",
        "pointsman.router.version": "abc",
    }
    assert [dict(event.attributes or {})[names.CANDIDATE_ENDPOINT] for event in route.events] == [
        candidate.endpoint.name for candidate in decision.candidates
    ]


def test_a_decision_for_nothing_names_what_stood_against_each(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """Where nothing is eligible no endpoint is named, and each candidate's event has the constraint that rejected it."""
    with tracing.request(METHOD, []).route() as routing:
        routing.decided(a_decision(quality_min=0.9))
    route = by_name(exporter)["route"]
    assert names.DECISION_ENDPOINT not in attributes(route)
    assert attributes(route)[names.CANDIDATES_ELIGIBLE] == 0
    for event in route.events:
        assert dict(event.attributes or {})[names.CANDIDATE_REJECTIONS] == ("q>=0.9",)
        assert names.CANDIDATE_UTILITY not in (event.attributes or {})


def test_a_shadow_without_a_choice_is_told_without_one(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """Its event has its name and that only the acting router had something to choose, and no endpoint or figure."""
    with tracing.request(METHOD, []).route() as routing:
        routing.decided(a_decision(), [a_decision(quality_min=0.9)._replace(router_name="s")])
    (event,) = [event for event in by_name(exporter)["route"].events if event.name == names.SHADOW_EVENT]
    assert dict(event.attributes or {}) == {
        "pointsman.shadow.router": "s",
        "pointsman.shadow.router.version": "abc",
        "pointsman.shadow.agreement": "only_acting",
    }


def test_candidate_events_are_bounded(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """Of many candidates the span tells of the first ten."""
    decision = a_decision(model_count=40)
    with tracing.request(METHOD, []).route() as routing:
        routing.decided(decision)
    route = by_name(exporter)["route"]
    assert len(route.events) == CANDIDATE_EVENT_COUNT_MAX
    assert route.dropped_events == 0


numbers = st.none() | st.floats(0.0, 1e6)
candidates = st.builds(
    Candidate,
    endpoint=endpoints().map(lambda catalog: catalog[0]),
    quality=st.none() | qualities,
    output_token_count=numbers,
    cost_usd=numbers,
    ttft_s=st.none() | latencies(0.05, 5.0),
    inter_token_latency_s=st.none(),
    end_to_end_latency_s=numbers,
    error_rate=st.none(),
    runtime_age_s=numbers,
    utility=numbers,
    rejections=st.sampled_from([(), (Rejection(RejectionReason.UNKNOWN_VALUE, "ttft<500"),)]),
)


known_candidates = st.builds(
    Candidate._replace,
    candidates,
    quality=qualities,
    cost_usd=st.floats(2.0, 1e6),
    ttft_s=latencies(0.05, 1.0),
    utility=st.floats(-9.0, -1.0),
    rejections=st.just(()),
)


@given(candidates | known_candidates)
def test_the_short_way_to_tell_of_a_candidate_tells_the_same(candidate: Candidate) -> None:
    """Whether all is known of it or not, its event has the attributes that any candidate has, each under its own key."""
    event = candidate_event(candidate, unix_ns=1)
    assert event.attributes == candidate_attributes(candidate)


decisions = st.builds(
    Decision,
    decision_id=st.just("d-1"),
    router_name=st.just("default"),
    router_version=st.just(""),
    seed=st.just(1),
    reason=st.none() | st.sampled_from(DecisionReason),
    candidates=st.lists(candidates, max_size=15).map(tuple),
)


@given(decisions)
@settings(max_examples=50)
def test_every_decision_can_be_told(decision: Decision) -> None:
    """No decision, whatever is unknown in it, is beyond telling; an unknown value is left out."""
    exporter = InMemorySpanExporter()
    tracing = configure_telemetry(TelemetrySettings(), span_exporter=exporter).tracing
    with tracing.request(METHOD, []).route() as routing:
        routing.decided(decision)
    told = attributes(by_name(exporter)["route"])
    chosen = decision.chosen
    assert told.get(names.DECISION_ENDPOINT) == (None if chosen is None else chosen.endpoint.name)
    assert told.get(names.DECISION_EXPECTED_COST_USD) == (None if chosen is None else chosen.cost_usd)


def test_an_attempt_tells_what_it_used(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """Model, provider, address, number, tokens, finish and time to first token are on the attempt's span."""
    attempt = tracing.request(METHOD, []).attempt(2, ENDPOINT, server_address="api.north.example")
    attempt.end(
        usage=Usage(10, 20, 5, 7),
        cost_usd=0.0625,
        finished=Finished(FinishReason.STOP, response_model="small-0613"),
        ttft_s=0.25,
    )
    span = by_name(exporter)["chat small"]
    assert attributes(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "small",
        "gen_ai.response.model": "small-0613",
        "gen_ai.provider.name": "north",
        "server.address": "api.north.example",
        "pointsman.endpoint": "small@north",
        "pointsman.attempt.number": 2,
        "pointsman.attempt.cost_usd": 0.0625,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 7,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.25,
    }
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("error_type", "expected"),
    [
        (UpstreamErrorKind.RATE_LIMITED.value, StatusCode.ERROR),
        (names.ERROR_TYPE_CANCELLED, StatusCode.UNSET),
    ],
)
def test_a_failed_attempt_is_an_error_and_a_cancelled_one_is_not(
    tracing: Tracing, exporter: InMemorySpanExporter, error_type: str, expected: StatusCode
) -> None:
    """Both say what happened in `error.type`; only the provider's failure is an error."""
    tracing.request(METHOD, []).attempt(1, ENDPOINT).end(error_type=error_type)
    span = by_name(exporter)["chat small"]
    assert attributes(span)[names.ERROR_TYPE] == error_type
    assert span.status.status_code is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("OK", StatusCode.UNSET),
        ("INVALID_ARGUMENT", StatusCode.UNSET),
        ("CANCELLED", StatusCode.UNSET),
        ("UNAVAILABLE", StatusCode.ERROR),
        ("INTERNAL", StatusCode.ERROR),
        ("DEADLINE_EXCEEDED", StatusCode.ERROR),
    ],
)
def test_a_call_has_the_status_that_its_caller_got(
    tracing: Tracing, exporter: InMemorySpanExporter, status: str, expected: StatusCode
) -> None:
    """The gRPC status is always told; only the server's faults are errors, by the semantic conventions."""
    tracing.request(METHOD, []).end(status=status, reason=None if status == "OK" else "ERROR_REASON_X")
    span = by_name(exporter)[METHOD]
    assert attributes(span)[names.RPC_RESPONSE_STATUS_CODE] == status
    assert attributes(span).get(names.ERROR_REASON) == (None if status == "OK" else "ERROR_REASON_X")
    assert (span.status.status_code, attributes(span).get(names.ERROR_TYPE)) == (
        expected,
        status if expected is StatusCode.ERROR else None,
    )


def test_an_exception_is_told_by_its_type_alone(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """An exception passes through, ends the spans it leaves, and its text, which may quote a prompt, stays out."""
    request = tracing.request(METHOD, [])
    with pytest.raises(ValueError, match="canary"), request.route() as routing, routing.phase("decide"):
        raise ValueError("canary prompt")
    spans = by_name(exporter)
    assert {name: attributes(span)[names.ERROR_TYPE] for name, span in spans.items()} == {
        "decide": "ValueError",
        "route": "ValueError",
    }
    assert "canary" not in "".join(span.to_json() for span in spans.values())


def test_a_hedge_says_that_it_is_one(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """An attempt that was begun beside another one has the attribute; the other one lacks it."""
    request = tracing.request(METHOD, [])
    request.attempt(1, ENDPOINT).end(error_type=names.ERROR_TYPE_CANCELLED)
    request.attempt(2, Endpoint("large", "south"), is_hedge=True).end()
    spans = by_name(exporter)
    assert names.ATTEMPT_HEDGE not in attributes(spans["chat small"])
    assert attributes(spans["chat large"])[names.ATTEMPT_HEDGE] is True


def test_a_probe_is_a_trace_of_its_own(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """Its span has no parent, and is the parent of its one attempt."""
    with tracing.probe() as probe:
        probe.attempt(1, ENDPOINT).end()
    spans = by_name(exporter)
    assert spans[names.PROBE_SPAN].parent is None
    assert spans[names.PROBE_SPAN].kind is SpanKind.INTERNAL
    assert parent_of(spans["chat small"]) == id_of(spans[names.PROBE_SPAN])


def test_the_trace_goes_on_upstream(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """The headers for the provider name the attempt's own span as the parent, in the caller's trace."""
    request = tracing.request(METHOD, [("traceparent", TRACEPARENT), ("tracestate", "vendor=1")])
    attempt = request.attempt(1, ENDPOINT)
    headers = dict(attempt.headers())
    attempt.end()
    span = posts(exporter)["chat small"]
    assert headers == {"traceparent": f"00-{TRACE_ID}-{id_of(span)}-01", "tracestate": "vendor=1"}


@pytest.mark.parametrize("broken", ["", "00-xyz", f"00-{'0' * 32}-{PARENT_ID}-01", "x" * 10_000])
def test_a_broken_trace_context_starts_a_new_trace(
    tracing: Tracing, exporter: InMemorySpanExporter, broken: str
) -> None:
    """Whatever a caller sends as traceparent, the request is served and traced, if need be in a trace of its own."""
    tracing.request(METHOD, [("traceparent", broken)]).end(status="OK", reason=None)
    assert by_name(exporter)[METHOD].parent is None


def run_request(tracing: Tracing, metadata: list[tuple[str, str]]) -> dict[str, str]:
    """A whole request; the headers for its provider."""
    request = tracing.request(METHOD, metadata)
    with request.route() as routing, routing.phase("decide"):
        routing.decided(a_decision())
    attempt = request.attempt(1, ENDPOINT)
    headers = dict(attempt.headers())
    attempt.end(usage=Usage(1, 2))
    request.end(status="OK", reason=None)
    return headers


def test_off_means_nothing_but_passing_the_context_on() -> None:
    """Without an exporter no trace is made; a caller's trace still reaches the provider."""
    tracing = configure_telemetry(TelemetrySettings()).tracing
    assert run_request(tracing, []) == {}
    assert run_request(tracing, [("traceparent", TRACEPARENT)]) == {"traceparent": TRACEPARENT}


def test_what_is_not_sampled_is_not_recorded(exporter: InMemorySpanExporter) -> None:
    """At a ratio of 0 nothing is exported and the provider is told so, unless the caller's trace is sampled already."""
    tracing = configure_telemetry(TelemetrySettings(sample_ratio=0.0), span_exporter=exporter).tracing
    headers = run_request(tracing, [])
    flags = re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-([0-9a-f]{2})", headers["traceparent"])
    assert flags is not None
    assert int(flags[1], 16) & TraceFlags.SAMPLED == 0
    assert exporter.get_finished_spans() == ()
    run_request(tracing, [("traceparent", TRACEPARENT)])
    assert len(exporter.get_finished_spans()) == 5


def test_the_ambient_context_is_neither_read_nor_changed(tracing: Tracing) -> None:
    """Parents are passed as objects: a request leaves the context of the task as it was."""
    before = get_current()
    run_request(tracing, [])
    assert get_current() == before
