"""The benchmark of telemetry, as a whole: its processes, its measurements, its files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from benchmarks.telemetry.cases import CPU_BARS_US, FAILING, P99_RATIO_MAX, SPANS_BY_SDK, Telling
from benchmarks.telemetry.collector import Collector, Manner
from benchmarks.telemetry.report import HOLDS

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300.0
"""A quick run takes a quarter of a minute on an idle machine."""


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A run of the program, as the Makefile runs it."""
    command = [sys.executable, "-m", "benchmarks.telemetry", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


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
    parsed: dict[str, Any] = json.loads((out / "telemetry.json").read_text())
    return parsed


def test_every_way_of_telling_is_measured(found: dict[str, Any]) -> None:
    """A run measures both kinds of requests for each way of telling, counts what it asked for, and ends each server."""
    expected = {(case, telling.value) for case in ("route", "complete-1") for telling in Telling}
    assert {(result["case"], result["telling"]) for result in found["results"]} == expected
    assert {result["request_count"] for result in found["results"]} == {16}
    assert set(found["ends"]) == {telling.value for telling in Telling}
    assert set(found["alone"]) == {*(telling.value for telling in CPU_BARS_US), SPANS_BY_SDK}


def test_what_tells_nothing_is_the_measure(found: dict[str, Any]) -> None:
    """A server that tells nothing costs nothing beyond itself; the ratios of one whose collector is well are 1."""
    for result in found["results"]:
        assert result["cpu_us_min"] <= result["cpu_us"] <= result["cpu_us_max"]
        if result["telling"] == Telling.OFF:
            assert result["cpu_us"] == 0.0
        if result["telling"] == Telling.SAMPLED:
            assert result["latency_p99_ratio"] == result["work_p99_ratio"] == 1.0


def test_spans_that_nobody_takes_are_dropped_and_counted(found: dict[str, Any]) -> None:
    """With a frozen collector spans are dropped, with one that is well none is; with none they wait, and there is room for
    these few."""
    dropped = {telling: end["dropped_span_count"] for telling, end in found["ends"].items()}
    assert dropped[Telling.FROZEN] > 0
    assert dropped[Telling.SAMPLED] == dropped[Telling.OFF] == dropped[Telling.DEAD] == 0


def test_bars_follow_from_the_figures(found: dict[str, Any], out: Path) -> None:
    """Each bar compares what was measured with what is allowed, and stands in the table for people."""
    bars = {bar["what"]: bar for bar in found["bars"]}
    assert all(bar["holds"] in (None, bar["actual"] <= bar["limit"]) for bar in bars.values())
    for telling, limit in CPU_BARS_US.items():
        assert bars[f"CPU by itself, {telling}"]["limit"] == limit
    for telling in FAILING:
        assert f"time to end, {telling}" in bars
        assert f"p99 of route in CPU, {telling}, by that with one" in bars
    table = (out / "telemetry.md").read_text()
    assert sum(table.count(f"| {word} |") for word in HOLDS.values()) == len(bars)


def test_a_bar_is_left_open_where_the_same_server_differs_from_itself_by_more(found: dict[str, Any]) -> None:
    """Ratios count as far as the run can tell two servers apart that are the same."""
    results = {(result["case"], result["telling"]): result for result in found["results"]}
    bars = {bar["what"]: bar for bar in found["bars"]}
    for case in ("route", "complete-1"):
        for of, ratio in (("", "latency_p99_ratio"), (" in CPU", "work_p99_ratio")):
            can_tell = 1 / P99_RATIO_MAX <= results[case, Telling.SAMPLED_TOO][ratio] <= P99_RATIO_MAX
            for telling in FAILING:
                assert (bars[f"p99 of {case}{of}, {telling}, by that with one"]["holds"] is None) is not can_tell


def test_a_collector_that_is_well_takes_what_the_sdk_sends() -> None:
    """The stand-in speaks the protocol: OpenTelemetry's own exporter succeeds with it."""
    with Collector(Manner.PROMPT) as collector:
        span = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("one")
        span.end()
        exporter = OTLPSpanExporter(collector.url)
        assert exporter.export((span,)) is SpanExportResult.SUCCESS  # type: ignore[arg-type]  # it is readable, too
        exporter.shutdown()
        assert [each.name for each in collector.spans] == ["one"]


@pytest.mark.parametrize("arguments", [("--rounds", "0"), ("--count", "x")])
def test_senseless_amounts_are_refused(arguments: tuple[str, ...]) -> None:
    """An amount that would measure nothing is refused before any process starts."""
    run = benchmark(*arguments)
    assert run.returncode == 2
    assert "error: argument" in run.stderr
