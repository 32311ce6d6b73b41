"""What telemetry takes by itself: everything that one request has it do, in a process that does nothing else.

Whole servers take ten times as long for the rest of a request, and that differs from second to second; this is steady.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import MappingProxyType

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pointsman_server.app import settle_memory
from pointsman_server.chat import Finished, FinishReason, Usage
from pointsman_server.decision.decide import decide
from pointsman_server.decision.types import (
    Decision,
    DecisionInput,
    Endpoint,
    EndpointRuntime,
    Latency,
    Policy,
    QualityPrediction,
    RequestFacts,
    RuntimeSnapshot,
)
from pointsman_server.telemetry.export import SPAN_BATCH_COUNT_MAX, SPAN_EXPORT_INTERVAL_S, SPAN_QUEUE_COUNT_MAX
from pointsman_server.telemetry.regret import Seen
from pointsman_server.telemetry.setup import EXPORT_TIMEOUT_S, Telemetry, TelemetrySettings, configure_telemetry
from pointsman_server.telemetry.spans import (
    CANDIDATE_EVENT_COUNT_MAX,
    attempt_attributes,
    candidate_attributes,
    decision_attributes,
)

from benchmarks.harness.workload import FIRST_PARTY_MODELS, OPEN_MODELS

METHOD = "pointsman.v1.RouterService/Complete"
PHASES = ("features", "predict_quality", "snapshot", "decide")
REQUEST_COUNT = 1000
"""A second's worth of a busy server; about as many spans as the queue holds."""
REQUESTS_PER_PAUSE = 100
PAUSE_S = 0.05
"""Between them, as the exporter's thread would find time between requests; not counted as CPU."""
USAGE = Usage(250, 50)
SEEN = Seen(cost_usd=0.001, ttft_s=0.21, inter_token_latency_s=0.01, duration_s=0.7)


def a_decision() -> Decision:
    """Over twenty endpoints, each with runtime data, all eligible."""
    names = [model for model, *_ in FIRST_PARTY_MODELS] + [
        model for model, *_, count in OPEN_MODELS for _ in range(count)
    ]
    endpoints = tuple(Endpoint(model, f"provider-{number}", 1.0, 2.0) for number, model in enumerate(names))
    runtime = EndpointRuntime(Latency(0.2, 0.2, 0.3, 0.4, 0.5), Latency(0.01, 0.01, 0.02, 0.02, 0.03), age_s=1.0)
    rng = random.Random(1)
    return decide(
        DecisionInput(
            decision_id="0" * 32,
            facts=RequestFacts(input_token_count=250),
            alternatives=(Policy(),),
            endpoints=endpoints,
            qualities={model: QualityPrediction(rng.uniform(0.5, 0.9), 0.1, 200.0) for model in names},
            snapshot=RuntimeSnapshot(MappingProxyType({endpoint.name: runtime for endpoint in endpoints})),
            seed=1,
        )
    )


def tell(telemetry: Telemetry, decision: Decision, endpoint: Endpoint) -> None:
    """What a completion with one attempt has its telemetry do."""
    tracing, metrics = telemetry.tracing, telemetry.metrics
    span = tracing.request(METHOD, (("user-agent", "grpc-python"),))
    with span.route() as routing:
        for name in PHASES:
            with routing.phase(name):
                pass
        routing.decided(decision)
    metrics.decided(decision, duration_s=0.001, phases=routing.phases, example=routing.recorded)
    attempt = span.attempt(1, endpoint, server_address="127.0.0.1")
    attempt.headers()
    attempt.end(http_status=200, usage=USAGE, cost_usd=0.001, finished=Finished(FinishReason.STOP, "m"), ttft_s=0.21)
    metrics.first_token(endpoint, ttft_s=0.21, example=attempt.recorded)
    metrics.spent(decision, endpoint, usage=USAGE, cost_usd=0.001)
    metrics.answered(decision, endpoint, SEEN)
    metrics.attempted(endpoint, usage=USAGE, cost_usd=0.001, inter_token_latency_s=0.01, error_type=None)
    span.end(status="OK", reason=None)
    metrics.served(METHOD, status="OK", duration_s=0.7, example=span.recorded)


def serve_alone(pipe: Connection) -> None:
    """A child: for settings that the pipe brings, tells the CPU time in seconds per request, sending included; for the URL
    of a collector that of the SDK's spans."""
    decision = a_decision()
    assert decision.chosen is not None
    endpoint = decision.chosen.endpoint
    settle_memory()
    while True:
        try:
            asked: TelemetrySettings | str = pipe.recv()
        except EOFError:
            return
        if isinstance(asked, str):
            provider = sdk_provider(asked)
            tracer = provider.get_tracer("pointsman")
            pipe.send(_cpu_s(lambda: tell_by_sdk(tracer, decision, endpoint), provider.shutdown))  # noqa: B023  # called at once
        else:
            telemetry = configure_telemetry(asked)
            pipe.send(_cpu_s(lambda: tell(telemetry, decision, endpoint), telemetry.shutdown))  # noqa: B023  # likewise


def _cpu_s(tell_one: Callable[[], None], shutdown: Callable[[], None]) -> float:
    """CPU time of one request's telemetry, until the last of it has been sent."""
    started_s = time.process_time()
    for number in range(REQUEST_COUNT):
        tell_one()
        if number % REQUESTS_PER_PAUSE == 0:
            time.sleep(PAUSE_S)
    shutdown()
    return (time.process_time() - started_s) / REQUEST_COUNT


def sdk_provider(url: str) -> TracerProvider:
    """OpenTelemetry's own, with as large a queue and batches as ours."""
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = OTLPSpanExporter(url, timeout=EXPORT_TIMEOUT_S)
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=SPAN_QUEUE_COUNT_MAX,
            max_export_batch_size=SPAN_BATCH_COUNT_MAX,
            schedule_delay_millis=SPAN_EXPORT_INTERVAL_S * 1000.0,
        )
    )
    return provider


def tell_by_sdk(tracer: Tracer, decision: Decision, endpoint: Endpoint) -> None:
    """The same spans as `tell` makes, by the SDK's calls."""
    server = tracer.start_span(METHOD, Context(), SpanKind.SERVER, {"rpc.system.name": "grpc", "rpc.method": METHOD})
    within = set_span_in_context(server, Context())
    route = tracer.start_span("route", within)
    for name in PHASES:
        tracer.start_span(name, set_span_in_context(route, Context())).end()
    route.set_attributes(decision_attributes(decision))
    for candidate in decision.candidates[:CANDIDATE_EVENT_COUNT_MAX]:
        route.add_event("pointsman.candidate", candidate_attributes(candidate))
    route.end()
    about: dict[str, str | int] = {
        "gen_ai.request.model": endpoint.model,
        "pointsman.endpoint": endpoint.name,
        "pointsman.attempt.number": 1,
    }
    chat = tracer.start_span(f"chat {endpoint.model}", within, SpanKind.CLIENT, about)
    post = tracer.start_span(
        "POST", set_span_in_context(chat, Context()), SpanKind.CLIENT, {"http.request.method": "POST"}
    )
    TraceContextTextMapPropagator().inject({}, set_span_in_context(post, Context()))
    post.set_attribute("http.response.status_code", 200)
    post.end()
    chat.set_attributes(attempt_attributes(USAGE, 0.001, Finished(FinishReason.STOP, "m"), 0.21))
    chat.end()
    server.set_attribute("rpc.response.status_code", "OK")
    server.end()
