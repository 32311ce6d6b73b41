"""A real Jaeger for as long as a test needs it, and what its HTTP API says of a trace."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from e2e.traced import SeenSpan

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / "deploy" / "jaeger" / "config.yaml"
COLLECTOR_CONFIG = REPOSITORY / "deploy" / "otel-collector.yaml"
PROGRAM_VARIABLE = "POINTSMAN_JAEGER"
"""Names the program; `make test-jaeger` sets it."""
PATIENCE_S = 60.0
"""For Jaeger to start, and for a trace to appear; reached by a fault alone."""
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Jaeger:
    """A running Jaeger."""

    otlp_url: str
    query_url: str

    def has(self, trace_id: int) -> bool:
        """Whether it has any span of a trace."""
        return httpx.get(f"{self.query_url}/api/traces/{trace_id:032x}", trust_env=False).status_code == httpx.codes.OK

    def trace(self, trace_id: int, *, span_count: int) -> list[SeenSpan]:
        """The spans of a trace, once at least so many are there: a collector stores them as they come."""
        until_s = time.monotonic() + PATIENCE_S
        spans: list[SeenSpan] = []
        while time.monotonic() < until_s:
            answer = httpx.get(f"{self.query_url}/api/traces/{trace_id:032x}", trust_env=False)
            if answer.status_code == httpx.codes.OK:
                spans = _spans(answer.json())
                if len(spans) >= span_count:
                    return spans
            time.sleep(POLL_S)
        raise AssertionError(f"{len(spans)} of {span_count} spans came: {sorted(span.line for span in spans)}")


@contextmanager
def running_jaeger(program: str) -> Iterator[Jaeger]:
    """Starts Jaeger on free ports of loopback, with the configuration that is documented, and ends it."""
    otlp_port, query_port, grpc_port = free_ports(3)
    ports = {"JAEGER_OTLP_PORT": otlp_port, "JAEGER_QUERY_PORT": query_port, "JAEGER_QUERY_GRPC_PORT": grpc_port}
    jaeger = Jaeger(f"http://127.0.0.1:{otlp_port}", f"http://127.0.0.1:{query_port}")
    with _running(
        program, CONFIG, {name: str(port) for name, port in ports.items()}, listens_on=(otlp_port, query_port)
    ):
        yield jaeger


@contextmanager
def running_collector(program: str, jaeger: Jaeger) -> Iterator[str]:
    """Starts a collector with the configuration that is documented, which sends to Jaeger what it keeps; the URL of its
    OTLP. Jaeger's program is a collector itself, with the same processors under the same names."""
    otlp_port, prometheus_port = free_ports(2)
    variables = {
        "OTLP_LISTEN": f"127.0.0.1:{otlp_port}",
        "PROMETHEUS_LISTEN": f"127.0.0.1:{prometheus_port}",
        "TRACES_ENDPOINT": jaeger.otlp_url.removeprefix("http://"),
        # All spans of a trace come within it, however slow the machine: what is judged without its error is not kept.
        "SAMPLING_WAIT": "5s",
        "SAMPLING_PERCENTAGE": "0",
    }
    with _running(program, COLLECTOR_CONFIG, variables, listens_on=(otlp_port,)):
        yield f"http://127.0.0.1:{otlp_port}"


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on at this moment."""
    with ExitStack() as holding:
        return [holding.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


@contextmanager
def _running(program: str, config: Path, variables: Mapping[str, str], *, listens_on: Sequence[int]) -> Iterator[None]:
    process = subprocess.Popen([program, "--config", str(config)], env={**os.environ, **variables})
    try:
        until_s = time.monotonic() + PATIENCE_S
        for port in listens_on:
            while not _is_open(port):
                assert process.poll() is None, f"{program} has ended at its start; what it says of it stands above"
                assert time.monotonic() < until_s, f"{program} has not opened port {port}"
                time.sleep(POLL_S)
        yield
    finally:
        process.terminate()
        process.wait()


def _is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _spans(answer: dict[str, Any]) -> list[SeenSpan]:
    (trace,) = answer["data"]
    services = {key: process["serviceName"] for key, process in trace["processes"].items()}
    return [_span(span, services[span["processID"]]) for span in trace["spans"]]


def _span(span: dict[str, Any], service: str) -> SeenSpan:
    attributes = _attributes(span["tags"])
    parents = [reference["spanID"] for reference in span["references"] if reference["refType"] == "CHILD_OF"]
    start_ns = span["startTime"] * 1000
    events = []
    for log in span["logs"]:
        fields = _attributes(log["fields"])
        events.append((str(fields.pop("event", "")), fields))
    return SeenSpan(
        name=span["operationName"],
        service=service,
        kind=str(attributes.pop("span.kind", "internal")),
        trace_id=int(span["traceID"], 16),
        span_id=int(span["spanID"], 16),
        parent_id=int(parents[0], 16) if parents else None,
        start_ns=start_ns,
        end_ns=start_ns + span["duration"] * 1000,
        attributes=attributes,
        is_error=attributes.get("error") is True,
        events=events,
    )


def _attributes(tags: Sequence[dict[str, Any]]) -> dict[str, object]:
    """Values as they were sent; Jaeger writes a list as JSON."""
    return {
        tag["key"]: json.loads(tag["value"]) if str(tag["value"]).startswith('["') else tag["value"] for tag in tags
    }
