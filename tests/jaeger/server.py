"""A real Jaeger for as long as a test needs it, and what its HTTP API says of a trace."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from e2e.traced import SeenSpan

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / "deploy" / "jaeger" / "config.yaml"
PROGRAM_VARIABLE = "POINTSMAN_JAEGER"
"""Names the program; `make test-jaeger` sets it."""
PATIENCE_S = 60.0
"""For Jaeger to start, and for a trace to appear; reached by a fault alone."""
POLL_S = 0.1
PORT_VARIABLES = ("JAEGER_OTLP_PORT", "JAEGER_QUERY_PORT", "JAEGER_QUERY_GRPC_PORT")


@dataclass(frozen=True, slots=True)
class Jaeger:
    """A running Jaeger."""

    otlp_url: str
    query_url: str

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
    with ExitStack() as holding:
        ports = [holding.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in PORT_VARIABLES]
    environment = {**os.environ, **dict(zip(PORT_VARIABLES, map(str, ports), strict=True))}
    process = subprocess.Popen([program, "--config", str(CONFIG)], env=environment)
    try:
        jaeger = Jaeger(f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}")
        _await_start(process, jaeger, otlp_port=ports[0])
        yield jaeger
    finally:
        process.terminate()
        process.wait()


def _await_start(process: subprocess.Popen[bytes], jaeger: Jaeger, *, otlp_port: int) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        assert process.poll() is None, "Jaeger has ended at its start; what it says of it stands above"
        try:
            httpx.get(f"{jaeger.query_url}/api/services", trust_env=False).raise_for_status()
            socket.create_connection(("127.0.0.1", otlp_port)).close()
        except (OSError, httpx.HTTPError):
            time.sleep(POLL_S)
        else:
            return
    raise AssertionError("Jaeger has not started")


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
