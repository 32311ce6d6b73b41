"""The fault benchmark: it runs, its figures follow from what it saw, and the page says what it found."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from test_docs import page

import benchmarks.faults.__main__ as faults
from benchmarks.faults import figures
from benchmarks.faults.__main__ import (
    CASES,
    REPEAT_COUNT_MAX,
    RESULTS,
    SOAK,
    TABLE,
    disturbances,
    told,
    undisturbed,
)
from benchmarks.faults.failing import early_count
from benchmarks.faults.figures import FIGURES, Measured, Report, Row, Run, quantile, rows_of, shown
from benchmarks.faults.leaving import LONG_S, Wire, delays_ms
from benchmarks.faults.site import QUICK, Provided, Seen, Site
from benchmarks.harness.machine import Machine, stolen_s, this_machine

ROOT = Path(__file__).resolve().parents[2]


def seen(accepted_at_s: float, closed_at_s: float | None = None) -> Seen:
    """A connection that was opened and closed then."""
    return Seen(accepted_at_s=accepted_at_s, closed_at_s=closed_at_s, is_over=closed_at_s is not None)


def test_the_worst_run_counts_and_a_bar_may_be_reached() -> None:
    """Of several runs the highest value is told, and it holds up to the bar itself; what was not measured neither holds
    nor fails."""
    found = [{figures.CLOSED_P99: 3.0, figures.CLOSED_MAX: 260.0}, {figures.CLOSED_P99: 50.0, figures.CLOSED_MAX: 9.0}]
    p99, longest, left_open, vanished = rows_of([Run(("A1",), measured) for measured in found], ["A1", "A3"])
    assert (p99.worst, p99.values, p99.holds) == (50.0, (3.0, 50.0), True)
    assert (longest.worst, longest.holds) == (260.0, False)
    assert (left_open.worst, left_open.holds) == (None, None)
    assert (vanished.case, vanished.holds) == ("A3", None)


async def test_a_router_with_a_core_of_its_own_gives_the_others_back() -> None:
    """What is measured after such a site has every core again."""
    cores = os.sched_getaffinity(0)
    async with Site({"quick": Provided(scripts=(QUICK,))}, is_router_alone=True):
        assert (os.sched_getaffinity(0) < cores) == (len(cores) > 1)
    assert os.sched_getaffinity(0) == cores


async def test_a_run_that_breaks_off_costs_its_own_case_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """It is told with what ended it; its figures hold in no case, even where another run of it went well, and the other
    cases keep theirs."""

    async def well(value: float) -> Measured:
        return {figures.DEADLINE_LATE: value, figures.TOO_LATE_CALLS: 0.0}

    async def badly() -> Measured:
        raise ExceptionGroup("two callers", [OSError("no route to host"), AssertionError("no streams")])

    cases = ("A4", "A5")
    runs = [await told(cases, "run 1 of 2", well(3.0)), await told(cases, "run 2 of 2", badly())]
    runs.append(await told(("A11",), "run 1 of 1", well(3.0)))
    assert [run.measured is None for run in runs] == [False, True, False]
    rows = {row.figure: row for row in rows_of(runs[:2], ["A4", "A5"])}
    late = rows[figures.DEADLINE_LATE.name]
    assert (late.worst, late.failed_run_count, late.holds) == (3.0, 1, False)
    assert rows[figures.TOO_LATE_CALLS.name].holds is False
    said = capsys.readouterr().err
    assert "no route to host" in said
    assert "A4, A5, run 2 of 2: FAILED, ExceptionGroup" in said


@pytest.mark.parametrize(("stolen_runs", "value"), [(0, 1.0), (2, 3.0), (9, REPEAT_COUNT_MAX + 1.0)])
async def test_a_run_whose_cores_were_given_to_others_is_made_again(
    stolen_runs: int, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it gave, and not for ever: then the last one counts. The page tells both, and not of the soak, which is made
    once."""
    begun = itertools.count(1)
    stolen = (
        1000.0 * number + after_s
        for number in itertools.count()
        for after_s in (0.0, 1000.0 if number < stolen_runs else 0.0)
    )
    monkeypatch.setattr(faults, "stolen_s", partial(next, stolen))

    async def case() -> Measured:
        return {figures.DEADLINE_LATE: float(next(begun))}

    run = await undisturbed(("A4",), "run 1 of 1", case)
    assert run.measured == {figures.DEADLINE_LATE: value}
    assert run.again_count == value - 1.0
    told_of = " ".join(disturbances([run, Run(("F2",), {}, stolen_share=0.5)]))
    assert (f"{run.again_count} times a run was made again" in told_of) is (run.again_count > 0)
    assert ("Of A4 it did so in runs that count" in told_of) is (stolen_runs > REPEAT_COUNT_MAX)
    assert "F2" not in told_of


def test_stolen_time_is_the_eighth_that_linux_counts(tmp_path: Path) -> None:
    """Of all cores together, in ticks (proc_stat(5)); nothing where nobody counts it."""
    counted = tmp_path / "stat"
    assert stolen_s(counted) == 0.0
    counted.write_text("cpu  1 2 3 4 5 6 7 800 9 10\ncpu0 1 2 3 4 5 6 7 400 9 10\n", encoding="ascii")
    assert stolen_s(counted) == 800 / os.sysconf("SC_CLK_TCK")


def test_two_that_run_at_one_time_have_wires_of_their_own() -> None:
    """The addresses of A3 follow from the process, within the block that leads nowhere: 4,096 processes in a row share
    none, and the two ends of a wire differ."""
    wires = [Wire.of(process_id) for process_id in range(100_000, 100_000 + 4096)]
    addresses = [ip_address(address) for wire in wires for address in (wire.host, wire.guest)]
    assert len(set(addresses)) == 2 * 4096
    assert all(address in ip_network("169.254.64.0/18") for address in addresses)
    assert len({wire.namespace for wire in wires}) == 4096


def test_each_figure_is_of_a_case_that_is_run() -> None:
    """No figure is asked for that no case gives, and no two have one name."""
    cases = {name for names in CASES for name in names} | set(SOAK)
    assert {figure.case for figure in FIGURES} == cases
    assert len({(figure.case, figure.name) for figure in FIGURES}) == len(FIGURES)


def test_a_connection_that_stays_open_is_over_every_bar() -> None:
    """Delays are between the caller's leaving and the closing; what was never closed counts as nearly endless."""
    assert delays_ms([1.0, 2.0], [seen(0.5, 1.25), seen(1.5)]) == [250.0, (LONG_S - 2.0) * 1000.0]


def test_calls_before_their_time_are_counted() -> None:
    """A refusal holds for its time; what was on the way when it came does not count, and a call after it begins anew."""
    assert early_count([seen(at_s) for at_s in (0.0, 0.02, 3.0, 5.0, 5.05, 10.5)], after_s=5.0) == 1
    assert early_count([seen(at_s) for at_s in (0.0, 5.0, 9.9)], after_s=5.0) == 1
    assert early_count([], after_s=5.0) == 0


def test_numbers_are_told_to_three_digits() -> None:
    """With their unit, and a bar as it was set."""
    assert shown(50.0, "ms") == "50 ms"
    assert shown(3.4567, "ms") == "3.46 ms"
    assert shown(1475.4, "bytes") == "1,475 bytes"
    assert shown(0.0, "") == "0"
    assert shown(None, "ms") == ""


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2.0), (0.99, 4.0), (0.25, 1.0), (0.0, 1.0)])
def test_quantiles_are_values_that_were_measured(share: float, expected: float) -> None:
    """The smallest value that so many do not exceed."""
    assert quantile([4.0, 1.0, 3.0, 2.0], share) == expected


def test_the_table_tells_what_holds(tmp_path: Path) -> None:
    """Each row says yes, NO, FAILED, or that it was not measured; below stand machine, commit and seed."""
    report = Report(
        machine=this_machine(),
        seed=7,
        run_count=2,
        completed_count=20_000,
        cancelled_count=5_000,
        notes=("The machine was busy.",),
        rows=rows_of(
            [Run(("A1",), {figures.CLOSED_P99: 3.0, figures.CLOSED_MAX: 251.0}), Run(("A11",), None)], ["A1", "A11"]
        ),
    )
    *table, empty, made = report.markdown().splitlines()
    verdicts = [line.split(" | ")[-1].rstrip("| ") for line in table[2:]]
    assert verdicts == ["yes", "**NO**", "not measured", "**FAILED**"]
    assert empty == ""
    assert "seed 7" in made
    assert made.endswith("The machine was busy.")
    (tmp_path / "faults.json").write_text(report.json(), encoding="utf-8")
    assert json.loads((tmp_path / "faults.json").read_text())["rows"][1]["holds"] is False


def test_the_page_shows_the_results_that_are_kept() -> None:
    """The table of docs/reliability.md is that of the last whole run, every figure of which is there."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows = tuple(Row(**{**row, "values": tuple(row["values"])}) for row in kept["rows"])
    report = Report(**{**kept, "machine": Machine(**kept["machine"]), "notes": tuple(kept["notes"]), "rows": rows})
    found = TABLE.search(page("reliability.md"))
    assert found is not None
    assert found[0] == report.markdown()
    assert [(row.case, row.figure) for row in rows] == [(figure.case, figure.name) for figure in FIGURES]


def test_a_quick_run_works_from_end_to_end(tmp_path: Path) -> None:
    """Real processes and sockets: callers cancel, die, run into deadlines; providers fail before and after the first
    token. What must be exact is."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.faults",
        "--quick",
        "--cases",
        "A1,A2,A4,A5,A6,A7",
        "--out",
        str(tmp_path),
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300.0, check=False)
    assert run.returncode == 0, run.stderr
    rows = json.loads((tmp_path / "faults.json").read_text())["rows"]
    assert {row["case"] for row in rows} == {"A1", "A2", "A4", "A5", "A6", "A7"}
    assert all(row["worst"] is not None for row in rows)
    assert [row["figure"] for row in rows if row["unit"] == "" and row["worst"] != 0.0] == []


@pytest.mark.parametrize("arguments", [("--runs", "0"), ("--cases", "A1,C3"), ("--completed", "-1")])
def test_senseless_amounts_are_refused(arguments: tuple[str, ...]) -> None:
    """An amount or a case that there is not is refused before any process starts."""
    command = [sys.executable, "-m", "benchmarks.faults", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60.0, check=False)
    assert run.returncode == 2
    assert "error: argument" in run.stderr
