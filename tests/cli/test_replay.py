"""docs/replay.md and docs/decision-log.md: every example in them gives what it shows.

POINTSMAN_UPDATE_GOLDEN=1 writes what the examples print into the documents, and the coverage that `make bench-replay` has
measured.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from cli.conftest import Pointsman
from decision_log.samples import COMPLETION, REPORT, SAMPLE, logged
from pointsman_server.cli.arguments import build_parser
from pointsman_server.config import parse_config
from pointsman_server.decision_log.codec import LineWriter, header_line
from pointsman_server.decision_log.reader import DecisionLogReader
from pointsman_server.decision_log.settings import DecisionLogSettings

from benchmarks.replay.identical import write_log
from benchmarks.replay.world import made_world

_UPDATE = "POINTSMAN_UPDATE_GOLDEN" in os.environ
_ROOT = Path(__file__).parents[2]
_REPLAY, _LOG = _ROOT / "docs" / "replay.md", _ROOT / "docs" / "decision-log.md"
_CONSOLE = re.compile(r"(?<=<!-- test: (?:replay) -->\n```console\n)\$ (.*)\n((?:.*\n)*?)(?=```)", re.MULTILINE)
DECISION_COUNT = 600
ENDPOINT = '[providers.p]\nbase_url = "http://127.0.0.1:9/v1"\n[[endpoints]]\nmodel = "m"\nprovider = "p"\n'


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of a world whose truth is known."""
    directory = tmp_path_factory.mktemp("examples") / "decisions"
    write_log(made_world(pool_count=200, seed=3), directory, count=DECISION_COUNT, seed=4)
    return directory


def block(page: Path, name: str) -> str:
    """The code block that follows the comment with that name."""
    match = re.search(rf"<!-- test: {name} -->\n```[a-z]+\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert match is not None, name
    return match[1]


def shown(pointsman: Pointsman, command: str) -> str:
    """The command with what it prints."""
    done = pointsman(*shlex.split(command)[1:])
    assert (done.exit_code, done.err) == (0, "")
    lines = "".join(f"{line.rstrip()}\n" for line in done.out.splitlines())
    return f"$ {command}\n{lines}"


def compared(page: Path, pattern: re.Pattern[str], given: Callable[[re.Match[str]], str]) -> None:
    """Every match of the page is what is given for it; or it is written, where goldens are made."""
    text = page.read_text(encoding="utf-8")
    assert pattern.search(text) is not None
    made = pattern.sub(given, text)
    if _UPDATE:
        page.write_text(made, encoding="utf-8")
    assert made == text or _UPDATE


def test_the_replays_print_what_is_shown(pointsman: Pointsman, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example of docs/replay.md runs as it stands."""
    monkeypatch.chdir(log.parent)
    compared(_REPLAY, _CONSOLE, lambda match: shown(pointsman, match[1]))


def test_the_explanation_prints_what_is_shown(pointsman: Pointsman, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of docs/decision-log.md explains the first decision of the log."""
    monkeypatch.chdir(log.parent)
    first = next(DecisionLogReader(log).requests()).decision.decision_id
    pattern = re.compile(r"(?<=<!-- test: explain -->\n```console\n)((?:.*\n)*?)(?=```)", re.MULTILINE)
    compared(_LOG, pattern, lambda _: shown(pointsman, f"pointsman explain {first} --log decisions"))


def test_the_coverage_is_what_was_measured() -> None:
    """The table of docs/replay.md is that of benchmarks/results/replay.json, and every interval holds nine times in ten."""
    results = json.loads((_ROOT / "benchmarks" / "results" / "replay.json").read_text(encoding="utf-8"))
    assert min(row["covered"] for row in results["coverage"]) >= 0.9
    assert results["repeated"]["identical_count"] == results["repeated"]["decision_count"] == 10_000
    assert results["cost"]["handing_over_us"] <= 50.0
    rows = "".join(
        f"| {row['outcome']} | {row['estimator']} | {row['truth']:.4g} | {row['logged']:.4g} | {row['covered']:.1%} |\n"
        for row in results["coverage"]
    )
    pattern = re.compile(r"(?<=<!-- test: coverage -->\n)(\|.*\n\|.*\n)((?:\|.*\n)*)", re.MULTILINE)
    compared(_REPLAY, pattern, lambda match: match[1] + rows)


def test_the_configurations_are_sound(tmp_path: Path) -> None:
    """Both examples pass the check; the table of keys has every setting with its real default."""
    for page, name in ((_LOG, "configuration"), (_REPLAY, "chance")):
        config = parse_config(block(page, name) + ENDPOINT, source="page", directory=tmp_path, environment={})
        if page is _LOG:
            assert config.decision_log == DecisionLogSettings(directory=tmp_path / "decisions")
    listed = dict(re.findall(r"^\| `(\w+)` \| \w+ \| (\S+) \|", _LOG.read_text(encoding="utf-8"), re.MULTILINE))
    default = DecisionLogSettings(directory=tmp_path)
    assert listed.pop("directory") == "required"
    written = {name: tomllib.loads(f"x = {value.strip('`')}")["x"] for name, value in listed.items()}
    assert written == {name: getattr(default, name) for name in DecisionLogSettings.__slots__ if name != "directory"}


def test_every_field_of_the_log_is_in_the_tables() -> None:
    """Whatever key a line has at its top is named on the page, under its kind."""
    text = _LOG.read_text(encoding="utf-8")
    listed = {
        kind: set(re.findall(r"`(\w+)`", fields))
        for kind, fields in re.findall(r"^\| `(\w+)` \|[^|]*\|(.*)\|$", text, re.MULTILINE)
    }
    table = text[text.index("A decision:") :]
    listed["decision"] = {
        name for cell in re.findall(r"^\| (`[^|]*`) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    }
    writer = LineWriter()
    lines = [
        header_line(("a",)),
        *(line for each in (logged(SAMPLE), COMPLETION, REPORT) for line in writer.lines(each)),
    ]
    for line in lines:
        fields = json.loads(line)
        assert fields.keys() - {"kind"} <= listed[fields["kind"]], fields["kind"]


def test_what_is_asked_wrongly_is_told(pointsman: Pointsman, log: Path, tmp_path: Path) -> None:
    """No log, an unknown decision, a router that is none: each in a line that says what is wrong."""
    assert pointsman("replay", "--log", str(tmp_path)).err == (
        f"pointsman: {tmp_path}: there is no decision log here, no decisions-*.jsonl\n"
    )
    unknown = pointsman("explain", "abc", "--log", str(log))
    assert (unknown.exit_code, unknown.err) == (1, f"pointsman: {log}: the log has no decision abc\n")
    for router, reason in (("nobody", "no router and no model is named 'nobody'"), ("a b", "'a b' is no name")):
        done = pointsman("replay", "--log", str(log), "--router", router)
        assert done.exit_code == 2
        assert done.err.startswith(f"pointsman: --router: {reason}")


def test_programs_get_json(pointsman: Pointsman, log: Path) -> None:
    """Everything that the tables show, unrounded."""
    done = pointsman("replay", "--log", str(log), "--router", "router@lowest-rc", "--json")
    found = json.loads(done.out)
    assert (found["decision_count"], found["identical_count"]) == (DECISION_COUNT, DECISION_COUNT)
    assert found["comparison"]["estimates"]["quality"]["doubly_robust"].keys() == {"value", "low", "high"}
    drift = json.loads(pointsman("drift", "--log", str(log), "--json").out)
    assert drift["biases"][0]["of"] == "all"


def test_a_decision_that_is_not_repeated_fails_the_command(pointsman: Pointsman, log: Path, tmp_path: Path) -> None:
    """It ends with 1, and lists the decision with what differs."""
    (path,) = log.iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    changed = lines[2].replace(b'"cost_usd":', b'"cost_usd":1')
    (tmp_path / path.name).write_bytes(b"".join([*lines[:2], changed]))
    done = pointsman("replay", "--log", str(tmp_path))
    assert done.exit_code == 1
    assert done.out.startswith("1 of 1 decisions are not repeated:\n")
    assert "cost_usd of large@north was 1" in done.out.replace("\n", " ")


def test_another_configuration_is_judged_too(pointsman: Pointsman, log: Path, tmp_path: Path) -> None:
    """With its own catalog and its own quality model, whose predictions need prompts that this log has not."""
    path = tmp_path / "other.toml"
    endpoints = "".join(
        f'[[endpoints]]\nmodel = "{model}"\nprovider = "{provider}"\ninput_price_usd_per_mtok = 1.0\n'
        "output_price_usd_per_mtok = 1.0\n"
        for model in ("large", "medium", "small")
        for provider in ("north", "south")
    )
    providers = "".join(f'[providers.{name}]\nbase_url = "http://127.0.0.1:9/v1"\n' for name in ("north", "south"))
    path.write_text(providers + endpoints, encoding="utf-8")
    done = pointsman("replay", "--log", str(log), "--config", str(path), "--json")
    assert (done.exit_code, done.err) == (0, "")
    comparison = json.loads(done.out)["comparison"]
    assert comparison["stale_prediction_count"] == DECISION_COUNT
    # Of some 1,300 tokens at a dollar per million.
    assert 0.001 < comparison["estimates"]["cost_usd"]["as_logged"]["value"] < 0.002


def test_the_commands_are_those_of_the_page() -> None:
    """Every command that docs/replay.md names in its table is one that the parser takes."""
    commands = re.findall(r"`pointsman (\w+) ([^`]*)`", _REPLAY.read_text(encoding="utf-8"))
    for command, rest in commands:
        words = [word for word in shlex.split(rest.replace("...", "")) if word]
        assert build_parser({}).parse_args([command, *words]).module == command
