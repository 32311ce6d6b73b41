"""The commands and their arguments. Standard library only."""

from __future__ import annotations

import argparse
import math
import re
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

_RESAMPLE_COUNT_MAX = 100_000
"""Of a bootstrap: beyond it the ends of an interval no longer move."""

CONCURRENCY_MAX = 256
"""Half of the connections that a provider's adapter opens at most; further calls would fail for want of one."""

# argparse has no public names for them.
_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001
_Group: TypeAlias = "argparse._ArgumentGroup"  # noqa: SLF001

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
    _add_benchmark(commands)
    _add_frontier(commands)
    _add_catalog(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_calibrate(commands)
    _add_replay(commands)
    _add_explain(commands)
    drift = _add_command(commands, "drift", "tell from a decision log whether the quality model still fits the traffic")
    _add_log(drift)
    drift.add_argument("--json", action="store_true", help="print JSON, for programs")
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
    _add_connection(group)
    options.add_argument("--json", action="store_true", help="print JSON, for programs")
    return options


def _add_connection(group: _Group) -> None:
    """How a server is talked to."""
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
    complete.add_argument(
        "--hedge", action="store_true", help="let a slow attempt be raced by a second one, which can cost tokens twice"
    )
    _add_router(complete)


def _add_router(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--router",
        metavar="ROUTER",
        default="",
        help="by what to route: a router's name, a model, an endpoint, or a router as text (default: default)",
    )
    command.add_argument(
        "--assignment-key",
        metavar="KEY",
        default="",
        help="a user or conversation, whose requests all get the same router of a split (default: chance decides)",
    )
    command.add_argument(
        "--conversation-id",
        metavar="ID",
        default="",
        help="what the turns of one conversation share, for prompt caches (default: its text alone tells)",
    )
    command.add_argument("--shadows", action="store_true", help="show what each shadow of the router would choose")


def _add_endpoints(commands: _Commands, remote: argparse.ArgumentParser) -> None:
    endpoints = _add_command(commands, "endpoints", "list the endpoints with their live figures", remote)
    endpoints.add_argument("--watch", action="store_true", help="go on showing them as they change")


def _add_benchmark(commands: _Commands) -> None:
    benchmark = _add_command(
        commands, "benchmark", "label prompts of your own by asking endpoints and scoring the answers"
    )
    _add_benchmark_task(benchmark.add_argument_group("what"))
    _add_benchmark_scoring(benchmark.add_argument_group("how answers are scored"))
    limits = benchmark.add_argument_group("limits")
    limits.add_argument(
        "--budget-usd", metavar="USD", type=_positive, help="what may be spent in all, earlier runs included"
    )
    limits.add_argument(
        "--concurrency",
        metavar="N",
        type=_concurrency,
        default=4,
        help=f"calls under way per provider, up to {CONCURRENCY_MAX} (default: 4)",
    )
    limits.add_argument(
        "--attempts", metavar="N", type=_count, default=4, help="attempts at a call that fails (default: 4)"
    )
    limits.add_argument(
        "--timeout", metavar="SECONDS", type=_positive_seconds, default=300.0, help="deadline of a call (default: 300)"
    )
    limits.add_argument("--yes", action="store_true", help="go on without asking whether the estimated cost is right")
    benchmark.add_argument("--json", action="store_true", help="print JSON, for programs")


def _add_benchmark_task(task: _Group) -> None:
    task.add_argument("--prompts", metavar="FILE", type=Path, required=True, help="the prompts, as JSONL")
    task.add_argument(
        "--endpoints", metavar="A@P,B@Q", required=True, help="whom to ask: endpoints of the catalog, by commas"
    )
    task.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="where answers are kept, and prompts and outcomes written",
    )
    task.add_argument("--config", metavar="FILE", type=Path, help="the configuration (default: as for serve)")
    task.add_argument("--simulate", action="store_true", help="simulate every provider on this machine")
    task.add_argument(
        "--format", choices=("parquet", "jsonl"), help="of what is written (default: parquet if it can be)"
    )
    task.add_argument("--temperature", metavar="T", type=_non_negative, help="of the answers (default: the provider's)")
    task.add_argument("--output-tokens-max", metavar="N", type=_count, help="longest answer (default: the provider's)")
    task.add_argument(
        "--assume-output-tokens",
        metavar="N",
        type=_count,
        default=400,
        help="length of an answer, for the estimate of cost alone (default: 400)",
    )


def _add_benchmark_scoring(scoring: _Group) -> None:
    scoring.add_argument(
        "--score",
        choices=("exact", "regex", "number", "choice", "json", "judge", "pairwise"),
        help="how prompts are scored that don't say so themselves",
    )
    scoring.add_argument("--ignore-case", action="store_true", help="let exact overlook upper and lower case")
    scoring.add_argument("--judge", metavar="ENDPOINT", help="who judges, for judge and pairwise")
    scoring.add_argument("--judge-temperature", metavar="T", type=_non_negative, help="of the judge (default: its own)")
    scoring.add_argument("--baseline", metavar="ENDPOINT", help="whose answers pairwise compares the others with")


def _add_frontier(commands: _Commands) -> None:
    frontier = _add_command(commands, "frontier", "draw quality against cost or latency, of endpoints and of routers")
    frontier.add_argument(
        "--data", metavar="DIR", type=Path, required=True, help="labelled prompts: prompts.parquet and outcomes.parquet"
    )
    frontier.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="where to draw: a name that ends in .html, .svg or .png"
    )
    frontier.add_argument(
        "--artifact",
        metavar="DIR",
        type=Path,
        default=Path("builtin"),
        help="the quality artifact (default: builtin, the shipped one)",
    )
    frontier.add_argument("--json", metavar="FILE", type=Path, help="write the numbers too")
    frontier.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: test")
    frontier.add_argument("--source", metavar="NAME", help="whose prompts, where the data comes from several sources")
    frontier.add_argument(
        "--x", choices=("cost", "price", "ttft", "itl"), default="cost", help="against what (default: cost)"
    )
    frontier.add_argument(
        "--pool", metavar="NAMES", default="default", help="only these models or endpoints, by commas (default: all)"
    )
    frontier.add_argument(
        "--router", metavar="ROUTER", action="append", help="draw this router too; may be given again"
    )
    frontier.add_argument("--prompts", metavar="N", type=_count, default=2000, help="at most this many (default: 2000)")
    frontier.add_argument("--seed", metavar="N", type=int, default=0, help="of the prompts' draw and of the intervals")
    _add_frontier_catalog(frontier)


def _add_frontier_catalog(frontier: argparse.ArgumentParser) -> None:
    endpoints = frontier.add_argument_group(
        "endpoints", "by default those of the data, with the prices its costs imply"
    )
    origin = endpoints.add_mutually_exclusive_group()
    origin.add_argument("--prices", metavar="FILE", type=Path, help="list prices of the data's models, as CSV")
    origin.add_argument("--config", metavar="FILE", type=Path, help="the endpoints of this configuration")
    origin.add_argument("--server", metavar="HOST:PORT", help="the endpoints of this server, with its live latencies")
    endpoints.add_argument("--latency", metavar="FILE", type=Path, help="latencies that you measured or assume, as CSV")
    _add_connection(endpoints)


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


def _add_train(commands: _Commands) -> None:
    train = _add_command(commands, "train", "train a quality model on labelled prompts")
    _add_data(train, required=False)
    _add_labelled_log(train)
    train.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="where to put the artifact")
    train.add_argument("--seed", metavar="N", type=_seed, default=1, help="of everything that is drawn (default: 1)")
    train.add_argument("--name", metavar="NAME", type=_artifact_name, default="own", help="of the model (default: own)")
    train.add_argument(
        "--sources", metavar="A,B", type=_names, help="train on these sources of the data (default: all)"
    )
    train.add_argument(
        "--exclude-questions-of",
        metavar="C,D",
        type=_names,
        default=(),
        help="train on no question that one of these sources has too, so that they stay yardsticks",
    )


def _add_evaluate(commands: _Commands) -> None:
    evaluate = _add_command(commands, "evaluate", "measure a quality model on labelled prompts")
    _add_artifact(evaluate)
    _add_data(evaluate)
    evaluate.add_argument(
        "--split",
        choices=("train", "val", "test", "all"),
        default="test",
        help="the prompts to measure on (default: test)",
    )
    evaluate.add_argument("--json", metavar="FILE", type=Path, help="write the figures as JSON; - prints them")
    evaluate.add_argument(
        "--pair", metavar="STRONG,WEAK", type=_names, help="measure a router between these two models too"
    )
    evaluate.add_argument(
        "--prices",
        metavar="FILE",
        type=Path,
        help="list prices for data without costs: CSV of model, usd_per_1m_input, usd_per_1m_output",
    )
    evaluate.add_argument("--models", metavar="M,N", type=_names, help="route among these models (default: all known)")
    evaluate.add_argument("--sources", metavar="A,B", type=_names, help="measure these sources (default: all)")
    evaluate.add_argument("--seed", metavar="N", type=_seed, default=1, help="of the resamples (default: 1)")
    evaluate.add_argument(
        "--resamples",
        metavar="N",
        type=_resample_count,
        default=1000,
        help="behind each interval; 0 measures none (default: 1000)",
    )


def _add_predict(commands: _Commands) -> None:
    predict = _add_command(commands, "predict", "predict quality and length for each prompt of a file")
    _add_artifact(predict)
    predict.add_argument(
        "--input", metavar="FILE", type=Path, required=True, help="prompts: .parquet or .jsonl with prompt_id, prompt"
    )
    predict.add_argument("--models", metavar="M,N", type=_names, required=True, help="the models to predict")
    predict.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="where to write: .parquet or .jsonl, as its name says"
    )


def _add_artifact(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--artifact", metavar="FOLDER", type=Path, required=True, help="a trained artifact; builtin is the shipped one"
    )


def _add_data(command: argparse.ArgumentParser, *, required: bool = True) -> None:
    command.add_argument(
        "--data",
        metavar="FOLDER",
        type=Path,
        required=required,
        help="prompts and outcomes, as .parquet or .jsonl; or a table in RouterBench's format",
    )


def _names(text: str) -> tuple[str, ...]:
    """Names between commas, each once."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of names with commas between them")
    return names


def _artifact_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of up to 64 letters, digits, dots, _ and -")
    return text


def _seed(text: str) -> int:
    return _whole_number(text, value_max=2**31 - 1)


def _resample_count(text: str) -> int:
    return _whole_number(text, value_max=_RESAMPLE_COUNT_MAX)


def _whole_number(text: str, *, value_max: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= value_max):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {value_max}")
    return int(text)


def _add_calibrate(commands: _Commands) -> None:
    calibrate = _add_command(commands, "calibrate", "let a model join a trained artifact with a few labelled prompts")
    calibrate.add_argument(
        "--artifact", metavar="FOLDER", type=Path, required=True, help="a trained artifact; builtin is the shipped one"
    )
    calibrate.add_argument(
        "--data", metavar="FOLDER", type=Path, help="the labelled prompts, as for training; 20 or more"
    )
    _add_labelled_log(calibrate)
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


def _add_replay(commands: _Commands) -> None:
    replay = _add_command(
        commands, "replay", "decide a decision log again, and estimate what another router would have given"
    )
    _add_log(replay)
    replay.add_argument(
        "--router",
        metavar="ROUTER",
        help="the other router: a name or a router as text, in place of whatever requests asked for",
    )
    replay.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="its configuration: routers, catalog, quality artifact (default: as the log has them)",
    )
    replay.add_argument("--json", action="store_true", help="print JSON, for programs")


def _add_explain(commands: _Commands) -> None:
    explain = _add_command(commands, "explain", "tell from a decision log why a request went where it went")
    explain.add_argument("decision_id", metavar="DECISION_ID", help="the id that the decision carries")
    _add_log(explain)
    explain.add_argument("--json", action="store_true", help="print JSON, for programs")


def _add_labelled_log(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--log", metavar="DIR", type=Path, help="judged answers in this decision log, weighed by their propensities"
    )


def _add_log(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--log", metavar="DIR", type=Path, required=True, help="the directory of the log, as [decision_log] names it"
    )


def _positive_seconds(text: str) -> float:
    value_s = float(text)
    if not (value_s > 0 and math.isfinite(value_s)):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value_s


def _positive(text: str) -> float:
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def _non_negative(text: str) -> float:
    value = float(text)
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 on")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return value


def _concurrency(text: str) -> int:
    value = _count(text)
    if value > CONCURRENCY_MAX:
        raise argparse.ArgumentTypeError(f"{text} is more than {CONCURRENCY_MAX}")
    return value
