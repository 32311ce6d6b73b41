"""The overhead benchmark, as a whole: its processes, its measurements, its files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120.0
"""A quick run takes ten seconds on an idle machine."""

CASES = {
    "echo", "echo-uvloop", "stream-50", "stream-50-uvloop", "stream-50-paced", "stream-50-paced-uvloop", "route", "complete-1", "complete-50-burst", "complete-50-paced",
    "httpx-whole", "httpx-50-burst", "httpx-50-paced",
}  # fmt: skip


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A run of the script, as the Makefile runs it."""
    command = [sys.executable, str(ROOT / "benchmarks" / "overhead.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a tiny run."""
    folder = tmp_path_factory.mktemp("results")
    run = benchmark("--quick", "--seed", "5", "--out", str(folder))
    assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture
def found(out: Path) -> dict[str, Any]:
    """What it wrote for programs."""
    parsed: dict[str, Any] = json.loads((out / "overhead.json").read_text())
    return parsed


def test_every_case_is_measured_at_every_concurrency(found: dict[str, Any]) -> None:
    """A run measures each case, one request at a time and eight at a time, and counts what it asked for."""
    expected = {(case, concurrency) for case in CASES for concurrency in (1, 8)}
    assert expected == {(result["case"], result["concurrency"]) for result in found["results"]}
    assert {16} == {result["request_count"] for result in found["results"]}


def test_figures_are_consistent(found: dict[str, Any]) -> None:
    """Costs and times are positive and ordered, and a reference costs exactly once itself."""
    for result in found["results"]:
        assert 0.0 < result["cpu_ms_min"] <= result["cpu_ms"] <= result["cpu_ms_max"]
        assert 0.0 < result["latency_ms_p50"] <= result["latency_ms_p99"]
        if result["case"] == "echo":
            assert result["cpu_ratio_to_echo"] == 1.0
        if result["case"] == "stream-50":
            assert result["cpu_ratio_to_stream"] == 1.0


def test_bars_follow_from_the_figures(found: dict[str, Any]) -> None:
    """Each bar compares the ratio that was measured with the one that is allowed."""
    assert {"route", "complete-50-burst", "complete-50-paced"} == {bar["case"] for bar in found["bars"]}
    by_case = {result["case"]: result for result in found["results"] if result["concurrency"] == 8}
    for bar in found["bars"]:
        # In one round the median of the ratios is the ratio.
        ratio = by_case[bar["case"]]["cpu_ms"] / by_case[bar["reference"]]["cpu_ms"]
        assert bar["cpu_ratio"] == pytest.approx(ratio)
        assert bar["holds"] == (bar["cpu_ratio"] <= bar["cpu_ratio_max"])


def test_circumstances_are_told(found: dict[str, Any]) -> None:
    """The results say on what machine, with what versions and from what seed they came."""
    assert found["seed"] == 5
    assert found["round_count"] == 1
    machine = found["machine"]
    assert machine["cpu_model"]
    assert machine["core_count"] >= 1
    assert {"grpcio", "httpx", "protobuf", "uvloop"} <= machine["packages"].keys()


def test_table_has_every_case(out: Path) -> None:
    """The table for people names each case, and whether each bar holds."""
    table = (out / "overhead.md").read_text()
    for case in CASES:
        assert table.count(f"| {case}: ") == 2
    assert table.count("| yes |") + table.count("| NO |") == 7


@pytest.mark.parametrize("arguments", [("--rounds", "0"), ("--seconds", "nan"), ("--count", "5", "--seconds", "1")])
def test_senseless_amounts_are_refused(arguments: tuple[str, ...]) -> None:
    """An amount that would measure nothing is refused before any process starts."""
    run = benchmark(*arguments)
    assert run.returncode == 2
    assert "error: argument" in run.stderr
