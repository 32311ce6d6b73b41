"""The client in a program that traces, and in one that does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
TIMEOUT_S = 120.0
"""Some seconds on an idle machine."""


def run(*arguments: str) -> str:
    """What a Python program prints."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_program_that_traces_sees_one_tree_through_client_and_server() -> None:
    """Each call is a span below the program's own, with the status that the caller got, and the server's spans are below
    it in the same trace; leaving a stream is no error."""
    spans: list[dict[str, Any]] = [json.loads(line) for line in run("-m", "e2e.traced_caller").splitlines()]
    by_id = {span["context"]["span_id"]: span for span in spans}
    calls = [span for span in spans if span["service"] == "caller" and span["kind"] == "SpanKind.CLIENT"]
    told = {
        by_id[call["parent_id"]]["name"]: (
            call["name"].partition("/")[2],
            call["attributes"].get("rpc.response.status_code"),
            call["attributes"].get("error.type"),
            call["status"]["status_code"],
        )
        for call in calls
    }
    assert told == {
        "failover": ("Complete", "OK", None, "UNSET"),
        "cancel": ("Complete", "CANCELLED", None, "UNSET"),
        "rejection": ("Route", "FAILED_PRECONDITION", "FAILED_PRECONDITION", "ERROR"),
        "blocking": ("Route", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "ERROR"),
    }
    servers = [span for span in spans if span["kind"] == "SpanKind.SERVER"]
    assert len(servers) == 3
    for server in servers:
        call = by_id[server["parent_id"]]
        assert (call["name"], call["context"]["trace_id"]) == (server["name"], server["context"]["trace_id"])
    assert "canary" not in json.dumps(spans)


def test_a_program_that_does_not_trace_loads_nothing_of_opentelemetry() -> None:
    """The client does without OpenTelemetry, which is not among what it is installed with."""
    program = "import sys, pointsman; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    assert run("-c", program).strip() == "[]"
