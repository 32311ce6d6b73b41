"""From rounds of measurements to figures, a table, and whether the bars hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.harness.cases import Case
from benchmarks.harness.machine import Machine
from benchmarks.harness.report import Sample
from benchmarks.telemetry.cases import (
    CPU_AIMS_US,
    CPU_BARS_US,
    FAILING,
    P99_RATIO_MAX,
    SHUTDOWN_S_MAX,
    Telling,
)

Rounds = Mapping[tuple[Case, Telling], Sequence[Sample]]
"""By case and telling, one sample a round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a server's run ended."""

    shutdown_s: float
    """From the word to stop to the end of its process."""
    dropped_span_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TellingResult:
    """What one way of telling cost one kind of request."""

    case: str
    telling: str
    request_count: int
    cpu_us: float
    """CPU time of the server per request beyond that of the one that tells nothing, in the same round; median."""
    cpu_us_min: float
    cpu_us_max: float
    """The lowest and the highest round."""
    latency_ms_p50: float
    latency_ms_p99: float
    p99_ratio: float
    """Median over the rounds of the p99 by that of the server whose collector is well and takes all traces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BarResult:
    """Whether something is as it must be."""

    what: str
    actual: float
    limit: float
    unit: str
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run found."""

    machine: Machine
    seed: int
    round_count: int
    concurrency: int
    off_cpu_us: dict[str, float]
    """By case, what a request costs a server that tells nothing."""
    alone_us: dict[str, float]
    """By what is told, CPU time of what telemetry does for one completion, in a process that does nothing else."""
    results: tuple[TellingResult, ...]
    ends: dict[str, End]
    bars: tuple[BarResult, ...]

    def json(self) -> str:
        """The whole of it, for programs."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def markdown(self) -> str:
        """The same, for people."""
        machine = self.machine
        changed = " with uncommitted changes" if machine.git_dirty else ""
        off = ", ".join(f"{case} {cpu_us:.0f} us" for case, cpu_us in self.off_cpu_us.items())
        lines = [
            "# What it costs to be seen",
            "",
            f"- {machine.date}, commit {machine.git_commit or 'unknown'}{changed}",
            f"- {machine.core_count} cores of {machine.cpu_model}, {machine.kernel}, Python {machine.python}",
            f"- {', '.join(f'{name} {found}' for name, found in machine.packages.items())}",
            f"- seed {self.seed}, {self.round_count} interleaved rounds, {self.concurrency} requests at a time",
            "",
            f"A request costs a server that tells nothing, in CPU time: {off}. The table has what it costs beyond that,",
            "recording, encoding and sending included, median of the rounds. How to read it: [README](../README.md#telemetry).",
            "",
            "By itself, in a process that does nothing but what a completion has its telemetry do: "
            + ", ".join(f"{telling} {cpu_us:.0f} us" for telling, cpu_us in self.alone_us.items())
            + ".",
            "",
            "| request | what is told | CPU beyond, us | lowest to highest | p50, ms | p99, ms | p99 ratio | requests |",
            "|---|---|--:|--:|--:|--:|--:|--:|",
            *(
                f"| {each.case} | {each.telling} | {each.cpu_us:.0f} | {each.cpu_us_min:.0f} to {each.cpu_us_max:.0f} |"
                f" {each.latency_ms_p50:.2f} | {each.latency_ms_p99:.2f} | {each.p99_ratio:.2f} | {each.request_count} |"
                for each in self.results
            ),
            "",
            "| what is told | time to end, s | spans dropped |",
            "|---|--:|--:|",
            *(f"| {name} | {end.shutdown_s:.1f} | {end.dropped_span_count} |" for name, end in self.ends.items()),
            "",
            "| bar | measured | at most | holds |",
            "|---|--:|--:|---|",
            *(
                f"| {bar.what} | {bar.actual:.2f} {bar.unit} | {bar.limit:g} {bar.unit} | {'yes' if bar.holds else 'NO'} |"
                for bar in self.bars
            ),
        ]
        return "\n".join(lines) + "\n"


def report(
    rounds: Rounds,
    ends: Mapping[Telling, End],
    alone_us: dict[str, float],
    *,
    machine: Machine,
    seed: int,
    concurrency: int,
) -> Report:
    """The figures of a run."""
    cases = list(dict.fromkeys(case for case, _ in rounds))
    results = tuple(_result(rounds, case, telling) for case in cases for telling in Telling)
    return Report(
        machine=machine,
        seed=seed,
        round_count=len(rounds[cases[0], Telling.OFF]),
        concurrency=concurrency,
        off_cpu_us={
            case.value: median(sample.cpu_s_per_request for sample in rounds[case, Telling.OFF]) * 1e6 for case in cases
        },
        alone_us=alone_us,
        results=results,
        ends={telling.value: end for telling, end in ends.items()},
        bars=(*_alone_bars(alone_us), *_figure_bars(results), *_end_bars(ends)),
    )


def _result(rounds: Rounds, case: Case, telling: Telling) -> TellingResult:
    samples, off, well = rounds[case, telling], rounds[case, Telling.OFF], rounds[case, Telling.SAMPLED]
    # Within each round first: what slows a round down slows both.
    beyond_us = [
        (sample.cpu_s_per_request - base.cpu_s_per_request) * 1e6 for sample, base in zip(samples, off, strict=True)
    ]
    latencies_ms = sorted(latency_s * 1e3 for sample in samples for latency_s in sample.latencies_s)
    ratios = [_p99(sample) / _p99(base) for sample, base in zip(samples, well, strict=True)]
    return TellingResult(
        case=case.value,
        telling=telling.value,
        request_count=len(latencies_ms),
        cpu_us=median(beyond_us),
        cpu_us_min=min(beyond_us),
        cpu_us_max=max(beyond_us),
        latency_ms_p50=latencies_ms[len(latencies_ms) // 2],
        latency_ms_p99=latencies_ms[len(latencies_ms) * 99 // 100],
        p99_ratio=median(ratios),
    )


def _p99(sample: Sample) -> float:
    ascending = sorted(sample.latencies_s)
    return ascending[len(ascending) * 99 // 100]


def _alone_bars(alone_us: Mapping[str, float]) -> list[BarResult]:
    return [
        _bar(f"CPU by itself, {telling}{kind}", alone_us[telling], limits[telling], "us")
        for limits, kind in ((CPU_BARS_US, ""), (CPU_AIMS_US, " (aim)"))
        for telling in limits
    ]


def _figure_bars(results: Sequence[TellingResult]) -> list[BarResult]:
    bars = []
    for each in results:
        telling = Telling(each.telling)
        for limits, kind in ((CPU_BARS_US, ""), (CPU_AIMS_US, " (aim)")):
            if telling in limits:
                limit = limits[telling]
                bars.append(_bar(f"CPU of {each.case}, {each.telling}{kind}", each.cpu_us, limit, "us"))
        if telling in FAILING:
            bars.append(
                _bar(f"p99 of {each.case}, {each.telling}, by that with one", each.p99_ratio, P99_RATIO_MAX, "")
            )
    return bars


def _end_bars(ends: Mapping[Telling, End]) -> list[BarResult]:
    return [
        _bar(
            f"time to end, {telling}, beyond that of off",
            ends[telling].shutdown_s - ends[Telling.OFF].shutdown_s,
            SHUTDOWN_S_MAX,
            "s",
        )
        for telling in FAILING
    ]


def _bar(what: str, actual: float, limit: float, unit: str) -> BarResult:
    return BarResult(what=what, actual=actual, limit=limit, unit=unit, holds=actual <= limit)
