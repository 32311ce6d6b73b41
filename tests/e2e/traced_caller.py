"""A program whose OpenTelemetry is set up as programs do it, for the whole process: it prints the spans of its own and the
server's, a line of JSON for each.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from e2e.traced import SCENARIOS, played
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pointsman import Client, DeadlineExceededError
from pointsman_server.telemetry.setup import TelemetrySettings, configure_telemetry

PLAYED = ("failover", "cancel", "rejection")


def main() -> None:
    """Makes calls that go well and badly, asynchronous and blocking, each below a span of the program's own."""
    callers, servers = InMemorySpanExporter(), InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "caller"}))
    provider.add_span_processor(SimpleSpanProcessor(callers))
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("program")
    for scenario in SCENARIOS:
        if scenario.name in PLAYED:
            with tracer.start_as_current_span(scenario.name):
                asyncio.run(played(scenario, configure_telemetry(TelemetrySettings(), span_exporter=servers)))
    with (
        tracer.start_as_current_span("blocking"),
        Client("127.0.0.1:1") as client,
        pytest.raises(DeadlineExceededError),
    ):
        client.route("hi", timeout_s=0.05)
    for span in (*callers.get_finished_spans(), *servers.get_finished_spans()):
        told = json.loads(span.to_json())
        print(json.dumps({**told, "service": span.resource.attributes["service.name"]}))  # noqa: T201


if __name__ == "__main__":
    main()
