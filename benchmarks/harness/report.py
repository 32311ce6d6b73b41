"""From rounds of measurements to figures, a table, and whether the bars hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.harness.cases import BARS, CASES, CONCURRENCIES, Case
from benchmarks.harness.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One case at one concurrency in one round."""

    cpu_s: float
    """Of the process that the case measures, while the requests were made."""
    latencies_s: tuple[float, ...]
    """One for each request."""

    @property
    def cpu_s_per_request(self) -> float:
        """What one request cost."""
        return self.cpu_s / len(self.latencies_s)


Rounds = Mapping[tuple[Case, int], Sequence[Sample]]
"""By case and concurrency, one sample a round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """What one case cost at one concurrency."""

    case: str
    description: str
    measured_process: str
    concurrency: int
    request_count: int
    """Of all rounds."""
    cpu_ms: float
    """CPU time of the measured process per request, median over the rounds."""
    cpu_ms_min: float
    cpu_ms_max: float
    """The lowest and the highest round."""
    latency_ms_p50: float
    latency_ms_p99: float
    """As the caller sees it, over the requests of all rounds."""
    cpu_ratio_to_echo: float
    cpu_ratio_to_stream: float
    """Median over the rounds of the ratio within a round, to `echo` and to `stream-50` at the same concurrency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BarResult:
    """Whether a case is as cheap as it must be."""

    case: str
    reference: str
    concurrency: int
    cpu_ratio: float
    cpu_ratio_max: float
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run found."""

    machine: Machine
    seed: int
    round_count: int
    results: tuple[CaseResult, ...]
    bars: tuple[BarResult, ...]

    def json(self) -> str:
        """The whole of it, for programs."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def markdown(self) -> str:
        """The figures as a table, for people."""
        machine = self.machine
        changed = " and uncommitted changes" if machine.git_dirty else ""
        lines = [
            "# What Pointsman adds to a request",
            "",
            f"- {machine.date}, commit {machine.git_commit or 'unknown'}{changed}",
            f"- {machine.core_count} cores of {machine.cpu_model}, {machine.kernel}, Python {machine.python}",
            f"- {', '.join(f'{name} {found}' for name, found in machine.packages.items())}",
            f"- seed {self.seed}, {self.round_count} interleaved rounds",
            "",
            "CPU is that of the process in the second column, per request, median of the rounds; latency is the caller's.",
            "How to read it: [README](../README.md).",
        ]
        for concurrency in CONCURRENCIES:
            lines += [
                "",
                f"## {concurrency} at a time",
                "",
                "| case | CPU of | CPU, ms | lowest to highest | / echo | / stream | p50, ms | p99, ms | requests |",
                "|---|---|--:|--:|--:|--:|--:|--:|--:|",
                *(_row(result) for result in self.results if result.concurrency == concurrency),
            ]
        lines += [
            "",
            "## Bars",
            "",
            "| case | in multiples of | CPU, measured | at most | holds |",
            "|---|---|--:|--:|---|",
        ]
        lines += [
            f"| {bar.case} | {bar.reference} | {bar.cpu_ratio:.2f} | {bar.cpu_ratio_max:g} |"
            f" {'yes' if bar.holds else 'NO'} |"
            for bar in self.bars
        ]
        return "\n".join(lines) + "\n"


def _row(result: CaseResult) -> str:
    return (
        f"| {result.case}: {result.description} | {result.measured_process} | {result.cpu_ms:.2f} |"
        f" {result.cpu_ms_min:.2f} to {result.cpu_ms_max:.2f} | {result.cpu_ratio_to_echo:.1f} |"
        f" {result.cpu_ratio_to_stream:.2f} | {result.latency_ms_p50:.2f} | {result.latency_ms_p99:.2f} |"
        f" {result.request_count} |"
    )


def report(rounds: Rounds, *, machine: Machine, seed: int) -> Report:
    """The figures of a run."""
    results = [_result(rounds, case, concurrency) for concurrency in CONCURRENCIES for case in CASES]
    concurrency = CONCURRENCIES[-1]
    bars = []
    for bar in BARS:
        ratio = _ratio(rounds[bar.case, concurrency], rounds[bar.reference, concurrency])
        bars.append(
            BarResult(
                case=bar.case.value,
                reference=bar.reference.value,
                concurrency=concurrency,
                cpu_ratio=ratio,
                cpu_ratio_max=bar.ratio_max,
                holds=ratio <= bar.ratio_max,
            )
        )
    round_count = len(rounds[Case.ECHO, concurrency])
    return Report(machine=machine, seed=seed, round_count=round_count, results=tuple(results), bars=tuple(bars))


def _result(rounds: Rounds, case: Case, concurrency: int) -> CaseResult:
    samples = rounds[case, concurrency]
    latencies_ms = sorted(latency_s * 1e3 for sample in samples for latency_s in sample.latencies_s)
    cpu_ms = [sample.cpu_s_per_request * 1e3 for sample in samples]
    return CaseResult(
        case=case.value,
        description=CASES[case].description,
        measured_process=CASES[case].measured.value,
        concurrency=concurrency,
        request_count=len(latencies_ms),
        cpu_ms=median(cpu_ms),
        cpu_ms_min=min(cpu_ms),
        cpu_ms_max=max(cpu_ms),
        latency_ms_p50=_quantile(latencies_ms, 0.5),
        latency_ms_p99=_quantile(latencies_ms, 0.99),
        cpu_ratio_to_echo=_ratio(samples, rounds[Case.ECHO, concurrency]),
        cpu_ratio_to_stream=_ratio(samples, rounds[Case.STREAM, concurrency]),
    )


def _ratio(samples: Sequence[Sample], references: Sequence[Sample]) -> float:
    """Within each round first: what slows a round down slows both."""
    return median(
        sample.cpu_s_per_request / reference.cpu_s_per_request
        for sample, reference in zip(samples, references, strict=True)
    )


def _quantile(ascending: Sequence[float], share: float) -> float:
    """The smallest value that so many of the values do not exceed."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]
