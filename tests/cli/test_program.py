"""The program as a process: what it loads, and how it ends when it is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from cli.conftest import Pointsman
from client.samples import ANSWER_EVENTS
from client.scripted_server import Pause, ScriptedServer, events
from pointsman import DEFAULT_TARGET
from pointsman_server.cli.arguments import DEFAULT_SERVER, build_parser
from pointsman_server.config import ServerSettings

_REPOSITORY = Path(__file__).parents[2]
_ENVIRONMENT = {"PYTHONPATH": f"{_REPOSITORY / 'server'}:{_REPOSITORY / 'client' / 'python'}", "PATH": ""}
_MAIN = "import sys; from pointsman_server.cli import main; sys.exit(main())"
_PATIENCE_S = 30.0
"""How long a process may take for what takes it a moment."""


def test_version(pointsman: Pointsman) -> None:
    """The version is one line."""
    done = pointsman("version")
    assert done.exit_code == 0
    assert done.out.startswith("pointsman ")
    assert done.out.count("\n") == 1


@pytest.mark.parametrize("argv", [["--help"], ["route", "--help"], ["version"]], ids=" ".join)
def test_help_is_light(argv: list[str]) -> None:
    """Help and version load neither gRPC nor the quality model nor anything else that takes its time."""
    code = (
        "import sys\n"
        "from pointsman_server.cli import main\n"
        "try:\n"
        f"    main({argv!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'grpc', 'xgboost', 'numpy', 'google', 'rich', 'httpx', 'opentelemetry'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=_ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, "")


def test_missing_packages_are_named() -> None:
    """Where only a part is installed, a command says what it needs."""
    # -S leaves out every installed package.
    argv = [sys.executable, "-S", "-c", _MAIN, "routers"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=_ENVIRONMENT)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "pointsman: this needs grpc: pip install 'pointsman[server]'\n"


def test_missing_packages_of_the_training_are_named() -> None:
    """A server without what training needs says which installation brings it."""
    # None in the place of a module makes its import fail as if it were not there.
    code = f"import sys\nsys.modules['pyarrow'] = None\n{_MAIN}"
    argv = [sys.executable, "-c", code, "frontier", "--data", ".", "--out", "plot.svg"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=_ENVIRONMENT)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "pointsman: this needs pyarrow: pip install 'pointsman[train]'\n"


def test_interrupt(server: ScriptedServer) -> None:
    """Ctrl-C ends an answer on the server too, with what came so far, code 130 and no traceback."""
    server.on("Complete", [*events(*ANSWER_EVENTS[:-2]), Pause.UNTIL_CANCELLED])
    process = subprocess.Popen(
        [sys.executable, "-c", _MAIN, "complete", "Hello", "--server", server.target],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_ENVIRONMENT,
    )
    assert process.stdout is not None
    received = process.stdout.read(len("Signals are set."))
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=_PATIENCE_S)
    assert (process.returncode, received + rest) == (130, "Signals are set.\n")
    assert "Traceback" not in err
    assert server.cancelled.wait(_PATIENCE_S)


def test_reader_that_has_enough() -> None:
    """Where the reader of its output is gone, the program ends without complaint."""
    reading, writing = os.pipe()
    os.close(reading)
    argv = [sys.executable, "-c", _MAIN, "version"]
    done = subprocess.run(argv, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, env=_ENVIRONMENT)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_every_command_has_its_module() -> None:
    """Every command that the parser knows has a module that runs it."""
    parser = build_parser({})
    commands = (
        ["serve"],
        ["route", "Hello"],
        ["complete", "Hello"],
        ["endpoints"],
        ["routers"],
        ["health"],
        ["catalog", "show"],
        ["catalog", "import", "prices.json"],
        ["catalog", "check", "pointsman.toml"],
        ["demo"],
        ["version"],
    )
    for argv in commands:
        assert find_spec(f"pointsman_server.cli.{parser.parse_args(argv).module}") is not None


def test_programs_meet_at_one_address() -> None:
    """The commands, the Python client and the server have the same address in mind when none is given."""
    assert DEFAULT_SERVER == DEFAULT_TARGET == ServerSettings().listen
