"""From rounds of measurements to figures, a table, and whether the bars hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean, median

from benchmarks.harness.cases import Case
from benchmarks.harness.machine import Machine
from benchmarks.telemetry.cases import (
    CPU_AIMS_US,
    CPU_BARS_US,
    FAILING,
    P99_RATIO_MAX,
    SHUTDOWN_S_MAX,
    Telling,
)

HOLDS = {True: "yes", False: "NO", None: "the run can't tell"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What requests of one kind to one server took in one round."""

    cpu_s: float
    """Of the server's process, until the last span has been sent."""
    latencies_s: Sequence[float]
    works_s: Sequence[float]
    """See `caller.Met`."""

    @property
    def cpu_us_per_request(self) -> float:
        """What one request cost."""
        return self.cpu_s / len(self.latencies_s) * 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One server in one round."""

    samples: Mapping[Case, Sample]
    dropped_span_count: int
    shutdown_s: float
    """From the word to stop until it has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AloneResult:
    """CPU time of what telemetry does for one completion, in a process that does nothing else."""

    cpu_us: float
    """The lowest of all rounds, since what else the machine does can but add to it; beyond what the same calls cost where
    nothing is told."""
    cpu_us_median: float
    """The same, of the middle round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TellingResult:
    """What one way of telling cost one kind of request."""

    case: str
    telling: str
    request_count: int
    cpu_us: float
    """CPU time of the server per request beyond that of the one that tells nothing, mean of the rounds."""
    cpu_us_min: float
    cpu_us_max: float
    """The lowest and the highest round."""
    latency_ms_p50: float
    latency_ms_p99: float
    work_ms_p99: float
    """CPU time of the server while a request is under way."""
    latency_p99_ratio: float
    work_p99_ratio: float
    """By those of the server whose collector is well and takes all traces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How servers of one kind ended."""

    shutdown_s: float
    """The longest."""
    dropped_span_count: int
    """Of all rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BarResult:
    """Whether something is as it must be."""

    what: str
    actual: float
    limit: float
    unit: str
    holds: bool | None
    """None: the run can't tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run found."""

    machine: Machine
    seed: int
    round_count: int
    off_cpu_us: dict[str, float]
    """By case, what a request costs a server that tells nothing."""
    alone: dict[str, AloneResult]
    """By what is told."""
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
            f"- seed {self.seed}, {self.round_count} rounds. How to read it: [README](../README.md#telemetry).",
            "",
            "By itself, in a process that does nothing but what a completion has its telemetry do:",
            "",
            "| what is told | CPU, us | of the middle round |",
            "|---|--:|--:|",
            *(f"| {telling} | {each.cpu_us:.0f} | {each.cpu_us_median:.0f} |" for telling, each in self.alone.items()),
            "",
            f"A request costs a whole server that tells nothing, in CPU time: {off}. Beyond that, sending included, and what",
            "requests met; ratios are to all traces with a collector that is well:",
            "",
            "| request | what is told | CPU beyond, us | low, high | p50, ms | p99, ms | ratio | CPU p99, ms | ratio | requests |",
            "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
            *(
                f"| {each.case} | {each.telling} | {each.cpu_us:.0f} | {each.cpu_us_min:.0f} to {each.cpu_us_max:.0f} |"
                f" {each.latency_ms_p50:.2f} | {each.latency_ms_p99:.2f} | {each.latency_p99_ratio:.2f} |"
                f" {each.work_ms_p99:.2f} | {each.work_p99_ratio:.2f} | {each.request_count} |"
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
                f"| {bar.what} | {bar.actual:.2f} {bar.unit} | {bar.limit:g} {bar.unit} | {HOLDS[bar.holds]} |"
                for bar in self.bars
            ),
        ]
        return "\n".join(lines) + "\n"


def report(
    rounds: Sequence[Mapping[Telling, Round]], alone_us: Mapping[str, Sequence[float]], *, machine: Machine, seed: int
) -> Report:
    """The figures of a run."""
    cases = list(rounds[0][Telling.OFF].samples)
    alone = {telling: _alone(alone_us, telling) for telling in alone_us if telling != Telling.OFF}
    results = tuple(_result(rounds, case, telling) for case in cases for telling in Telling)
    ends = {
        telling.value: End(
            shutdown_s=max(each[telling].shutdown_s for each in rounds),
            dropped_span_count=sum(each[telling].dropped_span_count for each in rounds),
        )
        for telling in Telling
    }
    return Report(
        machine=machine,
        seed=seed,
        round_count=len(rounds),
        off_cpu_us={
            case.value: mean(each[Telling.OFF].samples[case].cpu_us_per_request for each in rounds) for case in cases
        },
        alone=alone,
        results=results,
        ends=ends,
        bars=(*_alone_bars(alone), *_p99_bars(results), *_end_bars(ends)),
    )


def _alone(alone_us: Mapping[str, Sequence[float]], telling: str) -> AloneResult:
    told_us, off_us = alone_us[telling], alone_us[Telling.OFF]
    return AloneResult(cpu_us=min(told_us) - min(off_us), cpu_us_median=median(told_us) - median(off_us))


def _result(rounds: Sequence[Mapping[Telling, Round]], case: Case, telling: Telling) -> TellingResult:
    beyond_us = [
        each[telling].samples[case].cpu_us_per_request - each[Telling.OFF].samples[case].cpu_us_per_request
        for each in rounds
    ]
    samples = [each[telling].samples[case] for each in rounds]
    latencies_ms = sorted(seconds * 1e3 for sample in samples for seconds in sample.latencies_s)
    works_ms = sorted(seconds * 1e3 for sample in samples for seconds in sample.works_s)
    well = [each[Telling.SAMPLED].samples[case] for each in rounds]
    return TellingResult(
        case=case.value,
        telling=telling.value,
        request_count=len(latencies_ms),
        cpu_us=mean(beyond_us),
        cpu_us_min=min(beyond_us),
        cpu_us_max=max(beyond_us),
        latency_ms_p50=latencies_ms[len(latencies_ms) // 2],
        latency_ms_p99=_p99(latencies_ms),
        work_ms_p99=_p99(works_ms),
        latency_p99_ratio=_p99(latencies_ms) / _p99([seconds * 1e3 for each in well for seconds in each.latencies_s]),
        work_p99_ratio=_p99(works_ms) / _p99([seconds * 1e3 for each in well for seconds in each.works_s]),
    )


def _p99(values: Sequence[float]) -> float:
    ascending = sorted(values)
    return ascending[len(ascending) * 99 // 100]


def _alone_bars(alone: Mapping[str, AloneResult]) -> list[BarResult]:
    return [
        _bar(f"CPU by itself, {telling}{kind}", alone[telling].cpu_us, limits[telling], "us")
        for limits, kind in ((CPU_BARS_US, ""), (CPU_AIMS_US, " (aim)"))
        for telling in limits
    ]


def _p99_bars(results: Sequence[TellingResult]) -> list[BarResult]:
    by_what = {(each.case, each.telling): each for each in results}
    bars = []
    for each in results:
        if each.telling in FAILING:
            same = by_what[each.case, Telling.SAMPLED_TOO]
            for of, ratio, ratio_of_same in (
                ("", each.latency_p99_ratio, same.latency_p99_ratio),
                (" in CPU", each.work_p99_ratio, same.work_p99_ratio),
            ):
                bar = _bar(f"p99 of {each.case}{of}, {each.telling}, by that with one", ratio, P99_RATIO_MAX, "")
                can_tell = 1.0 / P99_RATIO_MAX <= ratio_of_same <= P99_RATIO_MAX
                bars.append(bar if can_tell else replace(bar, holds=None))
    return bars


def _end_bars(ends: Mapping[str, End]) -> list[BarResult]:
    return [_bar(f"time to end, {telling}", ends[telling].shutdown_s, SHUTDOWN_S_MAX, "s") for telling in FAILING]


def _bar(what: str, actual: float, limit: float, unit: str) -> BarResult:
    return BarResult(what=what, actual=actual, limit=limit, unit=unit, holds=actual <= limit)
