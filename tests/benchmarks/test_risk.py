"""The risk benchmark, on a part of the test prompts: its figures, its files, and that the promise holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("POINTSMAN_DATA", ROOT.parent / "shared" / "data")) / "quality"
TIMEOUT_S = 300.0
"""A run takes fifteen seconds on an idle machine."""
PROMPT_COUNT = 200
SOURCES = ("mmlu_pro", "zeroeval", "llmrouter")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a small run."""
    if not (DATA / "prompts.parquet").is_file():
        pytest.skip(f"no data in {DATA}; set POINTSMAN_DATA to the directory that contains quality/prompts.parquet")
    folder = tmp_path_factory.mktemp("results")
    command = [sys.executable, str(ROOT / "benchmarks" / "risk.py"), "--data", str(DATA)]
    run = subprocess.run(
        [*command, "--out", str(folder), "--prompts", str(PROMPT_COUNT)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture
def found(out: Path) -> list[dict[str, Any]]:
    """The rows that it wrote for programs."""
    results: list[dict[str, Any]] = json.loads((out / "risk.json").read_text(encoding="utf-8"))["results"]
    return results


def test_the_stated_risk_holds_on_test_prompts(found: list[dict[str, Any]]) -> None:
    """On each trained source, at each share and risk, the chosen candidate falls short no more often than stated, within
    the interval; and at 20 % the router does choose others than the best."""
    rows = [row for row in found if row["pool"] in SOURCES]
    assert {(row["pool"], row["share"], row["risk"]) for row in rows} == {
        (source, share, risk) for source in SOURCES for share in (0.9, 1.0) for risk in (0.05, 0.1, 0.2)
    }
    for row in rows:
        assert row["holds"], row
        assert row["fell_short"] <= row["any_fell_short"]
        assert row["prompt_count"] >= PROMPT_COUNT * 0.9
        assert row["risk"] < 0.2 or row["left_reference"] > 0.3


def test_more_accepted_risk_saves_more(found: list[dict[str, Any]]) -> None:
    """Within a pool and share, a higher risk leaves the best candidate more often, and costs no more."""
    for row in found:
        looser = [
            other
            for other in found
            if (other["pool"], other["share"]) == (row["pool"], row["share"]) and other["risk"] > row["risk"]
        ]
        for other in looser:
            assert other["any_fell_short"] >= row["any_fell_short"]
            assert row["cost_saved"] is None or other["cost_saved"] >= row["cost_saved"] - 1e-9


def test_the_confidence_of_absolute_floors_is_honest(out: Path) -> None:
    """On each trained source the expected quality of a cell is at or above the floor in as many cells as the confidence
    says, to within a tenth: the cells of a source share their errors, so that fewer than they seem speak."""
    floors = json.loads((out / "risk.json").read_text(encoding="utf-8"))["absolute_floors"]
    assert {floor["prompts"] for floor in floors} == set(SOURCES)
    for floor in floors:
        assert floor["cell_count"] >= 50
        assert floor["share_above"] >= floor["confidence"] - 0.1, floor


def test_the_report_has_every_row(out: Path, found: list[dict[str, Any]]) -> None:
    """What people read has a line for each row, and the coverage of absolute floors."""
    text = (out / "risk.md").read_text(encoding="utf-8")
    for row in found:
        assert f"| {row['pool']} | {row['prompt_count']} | {row['model_count']} | {row['share']:g} |" in text
    assert "## Absolute floors with a confidence" in text
