"""The command line, `pointsman`. docs/cli.md is the reader's version.

A command is a module of this package with a function `run`; it is imported when it is asked for, so that `--help`
and `version` load neither gRPC nor the quality model.
"""

from __future__ import annotations

import importlib
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence

from pointsman_server.cli.arguments import build_parser
from pointsman_server.cli.exit import EXIT_FAILURE, EXIT_INTERRUPTED, CommandError

Run = Callable[[Namespace, Mapping[str, str]], int]
"""What a command does with its arguments and the environment; gives the exit code."""

_TRAIN_PACKAGES = frozenset({"pyarrow", "resvg_py", "tokenizers", "wordllama"})
"""What only the installation for training brings."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. The only reader of the environment and of the program's arguments.

    Args:
        argv: the arguments after the program's name. None: the program's own.

    Returns:
        The exit code: 0 it is done, 1 it failed, 2 the arguments are wrong, 130 interrupted.
    """
    try:
        arguments = build_parser(os.environ).parse_args(argv)
        exit_code = _command(arguments.module)(arguments, os.environ)
        sys.stdout.flush()
    except CommandError as failed:
        if failed.message:
            sys.stderr.write(f"pointsman: {failed.message}\n")
        return failed.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has had enough. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    return exit_code


def _command(module: str) -> Run:
    """The function of a command.

    Raises:
        CommandError: it needs a package that only a larger installation brings.
    """
    try:
        run: Run = importlib.import_module(f"pointsman_server.cli.{module}").run
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith("pointsman"):
            raise
        package = missing.name.partition(".")[0]
        extra = "train" if package in _TRAIN_PACKAGES else "server"
        raise CommandError(f"this needs {package}: pip install 'pointsman[{extra}]'") from missing
    return run
