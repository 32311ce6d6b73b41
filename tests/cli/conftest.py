"""A scripted server, and one way to run a command against it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from client.scripted_server import ScriptedServer, scripted_server
from pointsman_server.cli import main


@dataclass(frozen=True, slots=True)
class Finished:
    """What came of a command."""

    exit_code: int
    out: str
    err: str


Pointsman = Callable[..., Finished]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A scripted server of this test's own."""
    with scripted_server() as scripted:
        yield scripted


@pytest.fixture
def pointsman(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pointsman:
    """Runs a command against the scripted server, whose address is in the environment."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "POINTSMAN_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("POINTSMAN_SERVER", server.target)

    def run(*argv: str, stdin: str | bytes = "") -> Finished:
        raw = stdin if isinstance(stdin, bytes) else stdin.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
        try:
            exit_code = main(argv)
        except SystemExit as usage:  # how argparse ends
            exit_code = int(usage.code or 0)
        captured = capsys.readouterr()
        return Finished(exit_code, captured.out, captured.err)

    return run
