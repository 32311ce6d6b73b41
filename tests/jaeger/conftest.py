"""One Jaeger for all tests of this folder; without one they are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from jaeger.server import PROGRAM_VARIABLE, Jaeger, running_jaeger
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor


@pytest.fixture(scope="session")
def program() -> str:
    """The path of Jaeger."""
    named = os.environ.get(PROGRAM_VARIABLE)
    if not named:
        pytest.skip(f"{PROGRAM_VARIABLE} names no Jaeger: `make test-jaeger` builds one and runs this")
    return named


@pytest.fixture(scope="session")
def jaeger(program: str) -> Iterator[Jaeger]:
    """A real Jaeger."""
    with running_jaeger(program) as running:
        yield running


@pytest.fixture(scope="session")
def caller(jaeger: Jaeger) -> trace.Tracer:
    """A program that traces, set up for the whole process, as programs do."""
    provider = _provider(jaeger, "caller")
    trace.set_tracer_provider(provider)
    return provider.get_tracer("program")


@pytest.fixture(scope="session")
def upstream(jaeger: Jaeger) -> trace.Tracer:
    """A provider that traces."""
    return _provider(jaeger, "provider").get_tracer("provider")


def _provider(jaeger: Jaeger, service_name: str) -> TracerProvider:
    provider = TracerProvider(resource=Resource({"service.name": service_name}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(jaeger.otlp_url)))
    return provider
