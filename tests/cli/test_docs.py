"""docs/cli.md: every example in it gives what it shows.

POINTSMAN_UPDATE_GOLDEN=1 writes what the examples give into the document.
"""

from __future__ import annotations

import io
import os
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import grpc
import pytest
from client.samples import ANSWER_EVENTS, DECISION, ENDPOINTS, REJECTED, ROUTERS, SPLIT_DECISION
from client.scripted_server import Failure, ScriptedServer, events
from pointsman.v1.router_service_pb2 import ListEndpointsResponse, ListRoutersResponse, RouteResponse
from pointsman.v1.routing_pb2 import BoundChange, Decision, NoEligibleEndpoint, Relaxation
from pointsman_server.cli import main

_UPDATE = "POINTSMAN_UPDATE_GOLDEN" in os.environ
_DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"
_BLOCK = re.compile(r"(?<=```console\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)

_NOTHING_FITS = Failure(
    grpc.StatusCode.FAILED_PRECONDITION,
    "none of 1 endpoints satisfies the constraints",
    "ERROR_REASON_NO_ELIGIBLE_ENDPOINT",
    {"decision_id": "0193f2a0-0002", "candidate_count": "1"},
    (
        NoEligibleEndpoint(
            candidates=[REJECTED],
            relaxations=[
                Relaxation(
                    endpoint="large@west",
                    changes=[
                        BoundChange(bound="time-to-first-token.p95<500", relaxed_bound="time-to-first-token.p95<=812")
                    ],
                )
            ],
        ),
    ),
)
_NO_KEY = Failure(grpc.StatusCode.UNAUTHENTICATED, "the call has no valid API key", "ERROR_REASON_UNAUTHENTICATED")


@pytest.fixture
def _scripted(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The server that the document's examples talk to, in an empty folder, with an environment of their own."""
    cheap = Decision()
    cheap.CopyFrom(DECISION)
    cheap.router = "cheap"
    del cheap.candidates[1:]
    server.on(
        "Route",
        RouteResponse(decision=DECISION),
        _NOTHING_FITS,
        RouteResponse(decision=cheap),
        RouteResponse(decision=SPLIT_DECISION),
    )
    server.on("Complete", events(*ANSWER_EVENTS), _NO_KEY)
    server.on("ListEndpoints", ListEndpointsResponse(endpoints=ENDPOINTS))
    server.on("ListRouters", ListRoutersResponse(routers=ROUTERS))
    monkeypatch.setattr("os.environ", {"POINTSMAN_SERVER": server.target})
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_scripted")
def test_examples_give_what_they_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in their order, the document's examples print what stands below each of them."""
    written = _DOCUMENT.read_text(encoding="utf-8")

    def run(example: re.Match[str]) -> str:
        command, shown = example.groups()
        return f"$ {command}\n{_output(command, shown, monkeypatch)}"

    given = _BLOCK.sub(lambda block: _COMMAND.sub(run, block.group()), written)
    if _UPDATE:
        _DOCUMENT.write_text(given, encoding="utf-8")
    assert given == written or _UPDATE


def _output(command: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a line of shell prints on both streams, as one sees it on a terminal; of shell it knows what is needed."""
    words = shlex.split(command)
    if words[0] == "cat":
        Path(words[1]).write_text(shown, encoding="utf-8")
        return shown
    stdin = ""
    if words[0] == "echo":
        stdin = f"{words[1]}\n"
        words = words[words.index("|") + 1 :]
    both = out = io.StringIO()
    if ">" in words:
        out, words = io.StringIO(), words[: words.index(">")]
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    assert words[0] == "pointsman"
    with redirect_stdout(out), redirect_stderr(both):
        main(words[1:])
    return "".join(f"{line.rstrip()}\n" for line in both.getvalue().splitlines())
