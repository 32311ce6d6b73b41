"""The commands and their arguments. Standard library only."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TypeAlias

DEFAULT_SERVER = "127.0.0.1:50061"
"""Where `pointsman serve` listens unless it is told otherwise."""
SERVER_VARIABLE = "POINTSMAN_SERVER"
"""The environment variable that holds the address of the server to talk to."""
DEFAULT_API_KEY_VARIABLE = "POINTSMAN_API_KEY"
"""The environment variable that holds the API key, unless --api-key-env names another."""

# argparse has no public name for it.
_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001

_EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 interrupted."


def build_parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """The parser of all commands. The parsed arguments carry in `module` which module of this package runs them."""
    parser = argparse.ArgumentParser(
        prog="pointsman",
        description="Sends every prompt to the best model at the best provider.",
        epilog=_EXIT_CODES,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    remote = _remote_options(environment)
    _add_serve(commands)
    _add_route(commands, remote)
    _add_complete(commands, remote)
    _add_endpoints(commands, remote)
    _add_command(commands, "routers", "list the named routers", remote)
    _add_command(commands, "health", "tell whether a server takes calls, for probes", remote)
    _add_catalog(commands)
    _add_calibrate(commands)
    demo = _add_command(commands, "demo", "show a router at work with simulated endpoints")
    demo.add_argument("--once", action="store_true", help="end after the tour in place of leaving the server running")
    _add_command(commands, "version", "print the version")
    return parser


def _add_command(
    commands: _Commands, name: str, summary: str, *parents: argparse.ArgumentParser, module: str = ""
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, parents=parents, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=_EXIT_CODES
    )
    command.set_defaults(module=module or name)
    return command


def _remote_options(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """What every command takes that talks to a server."""
    options = argparse.ArgumentParser(add_help=False)
    group = options.add_argument_group("server")
    group.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=environment.get(SERVER_VARIABLE, DEFAULT_SERVER),
        help=f"the server to talk to (default: ${SERVER_VARIABLE}, or {DEFAULT_SERVER})",
    )
    group.add_argument(
        "--api-key-env",
        metavar="NAME",
        help=f"the environment variable that holds the API key (default: {DEFAULT_API_KEY_VARIABLE})",
    )
    group.add_argument("--tls", action="store_true", help="secure the connection, with the system's roots")
    group.add_argument("--tls-ca", metavar="FILE", type=Path, help="secure it with the roots in this PEM file")
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_positive_seconds,
        help="the deadline (default: 10, for an answer 600, for health 3, for a watch none)",
    )
    options.add_argument("--json", action="store_true", help="print JSON, for programs")
    return options


def _add_serve(commands: _Commands) -> None:
    serve = _add_command(commands, "serve", "run the server")
    serve.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="the configuration (default: the well-known endpoints of which the API key is in the environment)",
    )
    serve.add_argument("--listen", metavar="HOST:PORT", help="where to listen, whatever the configuration says")
    serve.add_argument("--simulate", action="store_true", help="simulate every provider on this machine")


def _add_route(commands: _Commands, remote: argparse.ArgumentParser) -> None:
    route = _add_command(commands, "route", "show where a prompt would go, and why", remote)
    route.add_argument("prompt", metavar="PROMPT", nargs="?", help="what to ask; - reads it from standard input")
    route.add_argument(
        "--file",
        metavar="FILE",
        help='route every line of a JSONL file, {"id", "prompt"} or {"id", "messages"}; - is standard input',
    )
    _add_router(route)


def _add_complete(commands: _Commands, remote: argparse.ArgumentParser) -> None:
    complete = _add_command(commands, "complete", "ask a prompt and stream the answer", remote)
    complete.add_argument("prompt", metavar="PROMPT", help="what to ask; - reads it from standard input")
    _add_router(complete)


def _add_router(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--router",
        metavar="ROUTER",
        default="",
        help="by what to route: a router's name, a model, an endpoint, or a router as text (default: default)",
    )


def _add_endpoints(commands: _Commands, remote: argparse.ArgumentParser) -> None:
    endpoints = _add_command(commands, "endpoints", "list the endpoints with their live figures", remote)
    endpoints.add_argument("--watch", action="store_true", help="go on showing them as they change")


def _add_catalog(commands: _Commands) -> None:
    catalog = commands.add_parser("catalog", help="show, import and check endpoints and prices", epilog=_EXIT_CODES)
    parts = catalog.add_subparsers(required=True, metavar="PART")

    show = _add_command(parts, "show", "show the endpoints that a server would have", module="catalog_show")
    show.add_argument("--config", metavar="FILE", type=Path, help="the configuration (default: as for serve)")

    read = _add_command(
        parts,
        "import",
        "turn a model_prices_and_context_window.json into configuration",
        module="catalog_import",
    )
    read.add_argument("file", metavar="FILE", type=Path, help="the file that LiteLLM's users have")
    read.add_argument("--out", metavar="FILE", type=Path, help="where to write the TOML (default: standard output)")
    read.add_argument("--provider", metavar="NAME", action="append", help="take only this provider; may be given again")

    check = _add_command(parts, "check", "list every fault of a configuration", module="catalog_check")
    check.add_argument("file", metavar="FILE", type=Path, help="the configuration")


def _add_calibrate(commands: _Commands) -> None:
    calibrate = _add_command(commands, "calibrate", "let a model join a trained artifact with a few labelled prompts")
    calibrate.add_argument(
        "--artifact", metavar="FOLDER", type=Path, required=True, help="a trained artifact; builtin is the shipped one"
    )
    calibrate.add_argument(
        "--data", metavar="FOLDER", type=Path, required=True, help="the labelled prompts, as for training; 20 or more"
    )
    calibrate.add_argument("--model", metavar="NAME", required=True, help="who joins, as the outcomes call it")
    calibrate.add_argument(
        "--stand-in-of", metavar="NAME", help="a model of the artifact of which it is a near relative, to start from"
    )
    calibrate.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="where to put the new artifact")
    calibrate.add_argument(
        "--replace", action="store_true", help="take the place of a profile that the artifact has of this model"
    )
    calibrate.add_argument(
        "--created", metavar="DATE", type=date.fromisoformat, help="the date that the artifact tells (default: today)"
    )


def _positive_seconds(text: str) -> float:
    value_s = float(text)
    if not (value_s > 0 and math.isfinite(value_s)):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value_s
