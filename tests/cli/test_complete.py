"""`pointsman complete`."""

from __future__ import annotations

import json

import grpc
import pytest
from cli.conftest import Pointsman
from client.samples import ANSWER_EVENTS
from client.scripted_server import Failure, ScriptedServer, events
from pointsman import conversation
from pointsman.durations import duration
from pointsman.v1.chat_pb2 import Delta
from pointsman.v1.routing_pb2 import AttemptFailed, AttemptsExhausted, AttemptStarted
from pointsman_server.cli import output


def test_text_is_all_there_is_on_standard_output(server: ScriptedServer, pointsman: Pointsman) -> None:
    """The answer's text goes to standard output, everything about it to standard error."""
    server.on("Complete", events(*ANSWER_EVENTS))
    done = pointsman("complete", "Hello", "--router", "cheap")
    assert (done.exit_code, done.out) == (0, "Signals are set.\n")
    assert done.err.splitlines() == [
        "small@north: it ranks first (router default 7c1e, quality by builtin@1.0, 12 input tokens, last observed 1.5 s ago)",
        "1. small@north",
        "   failed: the provider answered HTTP 429",
        "2. large@south",
        "   12 tokens in, 4 out, $0.0101 (large@south)",
        "large@south: stop, 2 attempts, first token after 310 ms, done after 0.62 s",
    ]
    request = server.requests["Complete"][0]
    assert (request.conversation, request.routing.router) == (conversation("Hello"), "cheap")
    assert not request.execution.allow_hedging


def test_hedging_is_asked_for(server: ScriptedServer, pointsman: Pointsman) -> None:
    """With --hedge the request allows a second attempt beside a slow one."""
    server.on("Complete", events(*ANSWER_EVENTS))
    assert pointsman("complete", "Hello", "--hedge").exit_code == 0
    assert server.requests["Complete"][0].execution.allow_hedging


def test_prompt_from_standard_input(server: ScriptedServer, pointsman: Pointsman) -> None:
    """A dash takes the prompt from standard input."""
    server.on("Complete", events(*ANSWER_EVENTS))
    assert pointsman("complete", "-", stdin="Hello\n").exit_code == 0
    assert server.requests["Complete"][0].conversation == conversation("Hello")


def test_events_are_json(server: ScriptedServer, pointsman: Pointsman) -> None:
    """With --json each event is an object on a line of its own, under its name in the contract."""
    server.on("Complete", events(*ANSWER_EVENTS))
    done = pointsman("complete", "Hello", "--json")
    assert (done.exit_code, done.err) == (0, "")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [next(iter(line)) for line in lines] == [
        "decision",
        "attempt_started",
        "attempt_failed",
        "attempt_started",
        "delta",
        "delta",
        "usage",
        "done",
    ]
    assert "".join(line["delta"]["text"] for line in lines if "delta" in line) == "Signals are set."


def test_broken_answer(server: ScriptedServer, pointsman: Pointsman) -> None:
    """An answer that breaks off leaves what came, on a line of its own, and is code 1."""
    metadata = {"endpoint": "small@north", "delta_count": "1", "character_count": "3", "cause": "timeout"}
    broken = Failure(grpc.StatusCode.UNAVAILABLE, "the answer broke off", "ERROR_REASON_STREAM_BROKEN", metadata)
    server.on("Complete", [*events(Delta(text="Sig")), broken])
    done = pointsman("complete", "Hello")
    assert (done.exit_code, done.out) == (1, "Sig\n")
    assert "the answer broke off  UNAVAILABLE" in done.err
    assert "all that small@north sent" in done.err

    done = pointsman("complete", "Hello", "--json")
    assert [next(iter(json.loads(line))) for line in done.out.splitlines()] == ["delta", "error"]


def test_exhausted_attempts(server: ScriptedServer, pointsman: Pointsman) -> None:
    """When every attempt failed, each is listed with what it met."""
    attempts = AttemptsExhausted(
        attempts=[
            AttemptFailed(attempt_number=1, endpoint="small@north", message="no connection"),
            AttemptFailed(attempt_number=2, endpoint="large@south", message="HTTP 500", duration=duration(1)),
        ]
    )
    failure = Failure(
        grpc.StatusCode.UNAVAILABLE, "all 2 attempts failed", "ERROR_REASON_ATTEMPTS_EXHAUSTED", details=(attempts,)
    )
    server.on("Complete", [*events(AttemptStarted(attempt_number=1, endpoint="small@north")), failure])
    done = pointsman("complete", "Hello")
    assert (done.exit_code, done.out) == (1, "")
    assert "1. small@north: no connection" in done.err
    assert "2. large@south: HTTP 500" in done.err


class _Terminal:
    """Standard output that says it is a terminal."""

    def __init__(self) -> None:
        self.written = ""

    def write(self, text: str) -> int:
        self.written += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


def test_terminals_are_spared_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's text can't steer a person's terminal."""
    terminal = _Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    output.print_text("red \x1b[31m\x07 tab\tline\nü\x9b2J")
    assert terminal.written == "red [31m tab\tline\nü2J"
