"""docs/joining.md: what it shows is so.

POINTSMAN_UPDATE_GOLDEN=1 writes what its example of a calibration prints, which names the shipped artifact's version, and
the shares that `make bench-joining` has measured.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from cli.conftest import Pointsman
from pointsman_server.cli.arguments import build_parser
from pointsman_server.quality.artifact import builtin_artifact_path, read_benchmarks

_UPDATE = "POINTSMAN_UPDATE_GOLDEN" in os.environ
_PAGE = Path(__file__).parents[2] / "docs" / "joining.md"
_RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "joining.json"
LABEL_COUNT = 50


def block(name: str) -> str:
    """The code block that follows the comment with that name."""
    match = re.search(rf"<!-- test: {name} -->\n```[a-z]+\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert match is not None, name
    return match[1]


def test_the_configuration_is_sound(pointsman: Pointsman, tmp_path: Path) -> None:
    """The example passes the check, benchmarks included, and the shipped artifact."""
    path = tmp_path / "pointsman.toml"
    path.write_text(block("scores"), encoding="utf-8")
    done = pointsman("catalog", "check", str(path))
    assert (done.exit_code, done.err) == (0, "")


def test_the_benchmarks_are_those_of_the_shipped_artifact() -> None:
    """Every whole benchmark that it can read scores of is listed, and no other."""
    listed = block("benchmarks").replace("\n", " ").strip().split(", ")
    assert listed == [name for name in read_benchmarks(builtin_artifact_path()) if "/" not in name]


def test_the_calibration_prints_what_is_shown(
    pointsman: Pointsman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example runs as it stands on fifty labels, 40 % of them good."""
    monkeypatch.chdir(tmp_path)
    ids = [f"p{index}" for index in range(LABEL_COUNT)]
    prompts = [f"What is {index} * {index + 7}?" for index in range(LABEL_COUNT)]
    Path("labels").mkdir()
    pa.parquet.write_table(pa.table({"prompt_id": ids, "prompt": prompts}), "labels/prompts.parquet")
    quality = [float(index % 5 < 2) for index in range(LABEL_COUNT)]
    outcomes = {"prompt_id": ids, "model": ["in-house-7b"] * LABEL_COUNT, "quality": quality}
    pa.parquet.write_table(pa.table(outcomes | {"output_tokens": [150] * LABEL_COUNT}), "labels/outcomes.parquet")
    shown = block("calibrate")
    command = shown.splitlines()[0].removeprefix("$ ")
    done = pointsman(*shlex.split(command)[1:])
    assert (done.exit_code, done.err) == (0, "")
    given = f"$ {command}\n{done.out}"
    if _UPDATE:
        _PAGE.write_text(_PAGE.read_text(encoding="utf-8").replace(shown, given), encoding="utf-8")
    assert given == shown or _UPDATE


def test_every_option_is_in_the_table() -> None:
    """The table of options is the parser's."""
    listed = re.findall(r"^\| `(--[a-z-]+)", _PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    required = ["--artifact", "x", "--data", "x", "--model", "x", "--out", "x"]
    parsed = vars(build_parser({}).parse_args(["calibrate", *required]))
    assert sorted(listed) == sorted(f"--{name.replace('_', '-')}" for name in parsed if name != "module")


def test_the_shares_are_those_that_were_measured() -> None:
    """The table of shares is that of benchmarks/results/joining.json."""
    page = _PAGE.read_text(encoding="utf-8")
    table = re.search(r"<!-- test: shares -->\n\|([^\n]*)\|\n[^\n]*\n((?:\|[^\n]*\n)*)", page)
    assert table is not None
    ways = [cell.strip() for cell in table[1].split("|")][2:]
    summary = json.loads(_RESULTS.read_text(encoding="utf-8"))["summary"]
    rows = [
        [source, f"{of['scores']['models']:.0f}", *(f"{of[way]['share']:.0%}" for way in ways)]
        for source, of in summary.items()
    ]
    given = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    if _UPDATE:
        _PAGE.write_text(page[: table.start(2)] + given + page[table.end(2) :], encoding="utf-8")
    assert given == table[2] or _UPDATE
