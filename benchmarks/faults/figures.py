"""What is measured under faults, what each figure may be at most, and how a run is told."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.harness.machine import Machine


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a case; less is better."""

    case: str
    """Such as A1."""
    name: str
    """What is measured, in words."""
    value_max: float | None
    """The bar: at most this; None for what others are to be seen against."""
    unit: str
    """ms, s, MB, KB, bytes, %, or empty for a count."""


CLOSED_P99 = Figure("A1", "client cancels: provider's connection closed, p99", 50.0, "ms")
CLOSED_MAX = Figure("A1", "client cancels: provider's connection closed, longest", 250.0, "ms")
CANCELLED_OPEN = Figure("A1", "client cancels: connections open 1 s after the last", 0.0, "")
KILLED_P99 = Figure("A2", "client is killed: provider's connection closed, p99", 50.0, "ms")
KILLED_MAX = Figure("A2", "client is killed: provider's connection closed, longest", 250.0, "ms")
KILLED_OPEN = Figure("A2", "client is killed: connections open 1 s after the last", 0.0, "")
VANISHED = Figure("A3", "client's host vanishes: provider's connection closed by keepalive", 40.0, "s")
DEADLINE_LATE = Figure("A4", "deadline of 500 ms on an endless stream: DEADLINE_EXCEEDED comes late by", 50.0, "ms")
DEADLINE_OPEN = Figure("A4", "deadline of 500 ms: provider's connection closed after that", 50.0, "ms")
TOO_LATE_CALLS = Figure("A5", "5 ms before the deadline: calls of a provider", 0.0, "")
UNSERVED = Figure("A6", "provider fails before the first token: not served by the next candidate", 0.0, "")
BEYOND_FAILURE = Figure("A6", "provider fails before the first token: time beyond the failure itself, p99", 20.0, "ms")
INEXACT = Figure("A7", "provider fails after the first token: text or count not exact, usage not counted", 0.0, "")
LORIS_LATE = Figure("A8", "200 providers that drip bytes: timeout fires late by, longest", 100.0, "ms")
LORIS_SLOWER = Figure("A8", "200 providers that drip bytes: p99 of healthy traffic up by", 10.0, "%")
LORIS_INSTANT = Figure("A8", "200 providers that drip bytes: the same at a provider that takes no time", None, "%")
SLOW_READER = Figure("A9", "client reads 1 message a second of 10 MB: router grows by", 2.0, "MB")
BURST_ERRORS = Figure("A10", "5,000 streams at once: errors", 0.0, "")
BURST_INEXACT = Figure("A10", "5,000 streams at once: with text lost or out of order", 0.0, "")
BURST_MEMORY = Figure("A10", "5,000 streams at once: memory of each", 40.0, "KB")
ABANDONED = Figure("A11", "caller abandons the iterator: stream gone, longest", 100.0, "ms")
LOSER = Figure("A12", "hedge's loser: its connection closed after the winner was called, longest", 50.0, "ms")
LIMITED_EXTRA = Figure("B5", "everyone answers 429: calls of providers beyond one for each request", 20.0, "%")
LIMITED_EARLY = Figure("B5", "everyone answers 429: calls before Retry-After is over", 0.0, "")
LIMITED_OTHER = Figure("B5", "everyone answers 429: answers without RetryInfo and QuotaFailure", 0.0, "")
LIMITED_TIME = Figure("B5", "everyone answers 429: RESOURCE_EXHAUSTED comes within, p95", 5.0, "ms")
BARE_TIME = Figure("B5", "a gRPC server that does nothing but refuse as many, p95", None, "ms")
COMPLETED_GROWTH = Figure("F2", "completed streams: memory grows by", 2.0, "MB")
CANCELLED_GROWTH = Figure("F3", "cancelled streams: memory grows for each by", 40.0, "bytes")
LEFT_SOCKETS = Figure("F4", "after all of that and mixed failures: sockets more than before", 0.0, "")
LEFT_TASKS = Figure("F4", "after all of that and mixed failures: tasks more than before", 0.0, "")
LEFT_CONNECTIONS = Figure("F4", "after all of that and mixed failures: connections to providers open", 0.0, "")

FIGURES = (
    CLOSED_P99, CLOSED_MAX, CANCELLED_OPEN, KILLED_P99, KILLED_MAX, KILLED_OPEN, VANISHED, DEADLINE_LATE, DEADLINE_OPEN,
    TOO_LATE_CALLS, UNSERVED, BEYOND_FAILURE, INEXACT, LORIS_LATE, LORIS_SLOWER, LORIS_INSTANT,
    SLOW_READER, BURST_ERRORS, BURST_INEXACT, BURST_MEMORY, ABANDONED, LOSER, LIMITED_EXTRA, LIMITED_EARLY,
    LIMITED_OTHER, LIMITED_TIME, BARE_TIME, COMPLETED_GROWTH, CANCELLED_GROWTH, LEFT_SOCKETS, LEFT_TASKS, LEFT_CONNECTIONS,
)  # fmt: skip

Measured = Mapping[Figure, float]
"""What one run of a case gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A figure, the worst of what was measured, and whether every run measured it."""

    case: str
    figure: str
    value_max: float | None
    unit: str
    worst: float | None
    """None: it could not be measured here."""
    values: tuple[float, ...]
    """Of each run."""
    holds: bool | None
    """None: it was not measured, or has no bar."""
    failed_run_count: int = 0
    """Runs of its case that broke off without a figure; with any the bar does not hold."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the cases that go together."""

    cases: tuple[str, ...]
    """Such as A4 and A5."""
    measured: Measured | None
    """None: it broke off."""
    stolen_share: float = 0.0
    """Of a core's time, what the machine's hypervisor gave to others, of all cores together."""
    again_count: int = 0
    """Runs before this one that were thrown away for that."""


def rows_of(runs: Sequence[Run], cases: Sequence[str]) -> tuple[Row, ...]:
    """A row for each figure of these cases, in the order of the table."""
    rows = []
    for figure in FIGURES:
        if figure.case not in cases:
            continue
        values = tuple(run.measured[figure] for run in runs if run.measured is not None and figure in run.measured)
        failed_count = sum(run.measured is None and figure.case in run.cases for run in runs)
        worst = max(values, default=None)
        holds = None if worst is None or figure.value_max is None else worst <= figure.value_max
        rows.append(
            Row(
                case=figure.case,
                figure=figure.name,
                value_max=figure.value_max,
                unit=figure.unit,
                worst=worst,
                values=values,
                holds=False if failed_count else holds,
                failed_run_count=failed_count,
            )
        )
    return tuple(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole run."""

    machine: Machine
    seed: int
    run_count: int
    completed_count: int
    cancelled_count: int
    notes: tuple[str, ...]
    """What a reader must know of the circumstances."""
    rows: tuple[Row, ...]

    def json(self) -> str:
        """For programs."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def markdown(self) -> str:
        """For people: a table, and where it comes from."""
        lines = ["| case | figure | at most | worst | holds |", "|---|---|---|---|---|"]
        lines += [
            f"| {row.case} | {row.figure} | {shown(row.value_max, row.unit)} | {shown(row.worst, row.unit)} "
            f"| {_judged(row)} |"
            for row in self.rows
        ]
        machine = self.machine
        changes = ", with uncommitted changes" if machine.git_dirty else ""
        made = (
            f"Worst of {self.run_count} runs (A3, and {self.completed_count:,} completed and "
            f"{self.cancelled_count:,} cancelled streams, once), "
            f"{machine.date}, commit {(machine.git_commit or 'unknown')[:12]}{changes}, seed {self.seed}: "
            f"{machine.core_count} cores of {machine.cpu_model}, {machine.kernel}, Python {machine.python}, "
            f"grpcio {machine.packages.get('grpcio', 'unknown')}."
        )
        return "\n".join([*lines, "", " ".join([made, *self.notes])]) + "\n"


def _judged(row: Row) -> str:
    if row.failed_run_count:
        return "**FAILED**"
    if row.worst is None:
        return "not measured"
    return {True: "yes", False: "**NO**", None: ""}[row.holds]


def shown(value: float | None, unit: str) -> str:
    """A number with its unit, to three digits."""
    if value is None:
        return ""
    number = f"{value:,.0f}" if abs(value) >= 100.0 or value == int(value) else f"{value:.3g}"
    return f"{number} {unit}".rstrip()


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]
