"""The joining benchmark: what its figures mean. The whole takes minutes, and data that is not in the repository."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import json
import numpy as np
from benchmarks.harness.machine import this_machine
from benchmarks.joining import SOURCES, WAYS, Judged, auc, markdown, share_of_gain, summary

def judged(source, scores):
    area = dict.fromkeys(WAYS, 0.7) | {"mean": 0.5, "scores": scores, "retrained": 0.8}
    same = dict.fromkeys(WAYS, 0.1)
    return Judged("m", source, area, same, same, same, dict.fromkeys(WAYS[1:], (9, 10)))

models = [judged(source, area) for source, area in zip(SOURCES, (0.59, 0.6, 0.8))]
report = summary(models, 1)
print(json.dumps({
    "auc": auc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0.0, 0.0, 1.0, 1.0])),
    "share": share_of_gain(models, "scores", np.random.default_rng(1)),
    "coverage": report["all"]["scores"]["coverage_90"],
    "page": markdown(models, report, this_machine(), 1),
}))
"""


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """What the script finds of three made-up models."""
    command = [sys.executable, "-c", SCRIPT]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def test_the_area_is_the_share_of_pairs_in_the_right_order(figures: dict[str, Any]) -> None:
    """Of four pairs three are right and one is a tie, which counts half."""
    assert figures["auc"] == 3.5 / 4.0


def test_the_share_is_of_the_gain_over_chance(figures: dict[str, Any]) -> None:
    """Gains of 0.09, 0.1 and 0.3 where retraining gains 0.3 each are 54 %, between the least and the most."""
    share, low, high = figures["share"]
    assert share == pytest.approx(0.49 / 0.9)
    assert 0.29 < low < share < high < 1.01
    assert figures["coverage"] == 0.9


def test_the_bars_say_what_is_reached(figures: dict[str, Any]) -> None:
    """Below the bar, at the bar and at the aim read differently."""
    rows = [line for line in figures["page"].splitlines() if line.endswith(("missed |", "reached |"))]
    assert "| mmlu_pro: scores | 50% | 70% | 30% | missed |" in rows
    assert "| all: scores | 50% | 70% | 54% | bar reached |" in rows
    assert "| llmrouter: scores | 50% | 70% | 100% | aim reached |" in rows


def test_without_data_it_says_what_is_missing(tmp_path: Path) -> None:
    """It ends with code 2, naming the file, and writes nothing."""
    command = [sys.executable, "-m", "benchmarks.joining", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert "prompts.parquet is missing" in run.stderr
    assert not (tmp_path / "out").exists()
