"""What telemetry takes by itself: everything that one request has it do, in a process that does nothing else.

Beside the figures of whole servers, which differ by what else the machine does, this one is steady.
"""

from __future__ import annotations

import random
import time
from multiprocessing.connection import Connection
from types import MappingProxyType

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
from pointsman_server.telemetry.regret import Seen
from pointsman_server.telemetry.setup import Telemetry, TelemetrySettings, configure_telemetry

from benchmarks.harness.workload import FIRST_PARTY_MODELS, OPEN_MODELS

METHOD = "pointsman.v1.RouterService/Complete"
PHASES = ("features", "predict_quality", "snapshot", "decide")
REQUEST_COUNT = 3000
"""Some seconds' worth of a busy server; more than the queue of spans holds is sent meanwhile."""
REQUESTS_PER_PAUSE = 200
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
    """A child: for settings that the pipe brings, tells the CPU time in seconds per request, sending included."""
    decision = a_decision()
    assert decision.chosen is not None
    endpoint = decision.chosen.endpoint
    settle_memory()
    while True:
        try:
            settings: TelemetrySettings = pipe.recv()
        except EOFError:
            return
        telemetry = configure_telemetry(settings)
        started_s = time.process_time()
        for number in range(REQUEST_COUNT):
            tell(telemetry, decision, endpoint)
            if number % REQUESTS_PER_PAUSE == 0:
                time.sleep(PAUSE_S)
        telemetry.shutdown()
        pipe.send((time.process_time() - started_s) / REQUEST_COUNT)
