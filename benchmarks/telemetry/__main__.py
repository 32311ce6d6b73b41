"""What it costs to be seen: `make bench-telemetry`, or `python -m benchmarks.telemetry --help`."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
from pointsman_server.telemetry.setup import TelemetrySettings

from benchmarks.harness.cases import Case
from benchmarks.harness.children import Child
from benchmarks.harness.machine import ROOT, this_machine
from benchmarks.harness.upstream import serve_upstream
from benchmarks.telemetry.alone import serve_alone
from benchmarks.telemetry.caller import WARM_UP_COUNT, Ask, Met, serve_caller
from benchmarks.telemetry.cases import ALONE, SPANS_BY_SDK, TELLINGS, Telling
from benchmarks.telemetry.collector import Manner
from benchmarks.telemetry.report import Report, Round, Sample, report
from benchmarks.telemetry.servers import DEAD_URL, serve_collector, serve_telling

RESULTS = ROOT / "benchmarks" / "results"
CASES = (Case.ROUTE, Case.COMPLETE_1)
COUNT = 600
"""Requests of each kind to each server in a round: with eight rounds the slowest hundredth are 48."""
ROUND_COUNT = len(Telling)
"""In so many rounds each process is each kind of server once, and whatever makes it faster than others meets all kinds."""
ALONE_ROUND_COUNT = 15
START_TIMEOUT_S = 300.0
"""For eight servers on a small machine."""
SECONDS_PER_REQUEST_MAX = 1.0
"""A machine that takes longer has nothing to say."""
SETTLE_S = 1.5
"""After the requests, until the last of their spans have been sent, which counts too."""
QUICK_COUNT = 16
_DROPPED = re.compile(r"^pointsman_telemetry_spans_dropped_total (\d+)$", re.MULTILINE)


class Bench:
    """The processes, and how to have requests made and measured."""

    def __init__(self, stack: ExitStack, *, seed: int) -> None:
        upstream = stack.enter_context(Child(serve_upstream))
        upstream_port: int = upstream.receive(START_TIMEOUT_S)
        urls = {manner: stack.enter_context(Child(serve_collector, manner)) for manner in Manner}
        self._url_by_manner = {manner: str(child.receive(START_TIMEOUT_S)) for manner, child in urls.items()}
        self._alone = stack.enter_context(Child(serve_alone))
        self._servers = [stack.enter_context(Child(serve_telling, upstream_port)) for _ in Telling]
        clock_ids = [server.cpu_clock_id for server in self._servers]
        self._caller = stack.enter_context(Child(serve_caller, upstream_port, clock_ids, seed))

    def round(self, number: int, *, count: int) -> dict[Telling, Round]:
        """Starts a server of each kind, which kind in which process changes from round to round, has each serve so many
        requests of each kind, one at a time, and ends them."""
        tellings = list(Telling)
        tellings = tellings[number % len(tellings) :] + tellings[: number % len(tellings)]
        for telling, server in zip(tellings, self._servers, strict=True):
            server.send(_table(telling, self._url_by_manner))
        ports = [server.receive(START_TIMEOUT_S) for server in self._servers]
        self._caller.send([port for port, _ in ports])
        self._caller.receive(START_TIMEOUT_S)
        samples = {case: self._samples(case, count=count) for case in CASES}
        dropped_counts = [_dropped_count(metrics_port) for _, metrics_port in ports]
        ends_s = [self._end_s(server) for server in self._servers]
        return {
            telling: Round(
                samples={case: samples[case][index] for case in CASES},
                dropped_span_count=dropped_counts[index],
                shutdown_s=ends_s[index],
            )
            for index, telling in enumerate(tellings)
        }

    def _samples(self, case: Case, *, count: int) -> list[Sample]:
        """What each server took, until the last span has been sent."""
        self._asked(Ask(case, WARM_UP_COUNT))
        time.sleep(SETTLE_S)
        before_s = [server.cpu_s() for server in self._servers]
        met = self._asked(Ask(case, count))
        time.sleep(SETTLE_S)
        return [
            Sample(cpu_s=server.cpu_s() - before, latencies_s=each.latencies_s, works_s=each.works_s)
            for server, before, each in zip(self._servers, before_s, met, strict=True)
        ]

    def _asked(self, ask: Ask) -> list[Met]:
        self._caller.send(ask)
        met: list[Met] = self._caller.receive(START_TIMEOUT_S + ask.count * len(Telling) * SECONDS_PER_REQUEST_MAX)
        return met

    @staticmethod
    def _end_s(server: Child) -> float:
        server.send(None)
        seconds: float = server.receive(START_TIMEOUT_S)
        return seconds

    def alone_us(self, *, round_count: int) -> dict[str, list[float]]:
        """CPU time of what telemetry does for one request, in a process that does nothing else, by what is told; of each
        round, in which all take turns."""
        asked: dict[str, TelemetrySettings | str] = {}
        for telling in ALONE:
            spec = TELLINGS[telling]
            url = None if spec is None or spec.collector is None else self._url_by_manner[spec.collector]
            ratio = 0.0 if spec is None else spec.sample_ratio
            asked[telling.value] = TelemetrySettings(otlp_endpoint=url, sample_ratio=ratio)
        asked[SPANS_BY_SDK] = self._url_by_manner[Manner.PROMPT]
        found: dict[str, list[float]] = {what: [] for what in asked}
        for _ in range(round_count):
            for what, each in asked.items():
                self._alone.send(each)
                found[what].append(self._alone.receive(START_TIMEOUT_S) * 1e6)
        return found


def _dropped_count(metrics_port: int) -> int:
    if not metrics_port:
        return 0
    found = _DROPPED.search(httpx.get(f"http://127.0.0.1:{metrics_port}/metrics", trust_env=False).text)
    return 0 if found is None else int(found[1])


def _table(telling: Telling, urls: dict[Manner, str]) -> str:
    spec = TELLINGS[telling]
    if spec is None:
        return ""
    url = DEAD_URL if spec.collector is None else urls[spec.collector]
    return (
        f'[telemetry]\notlp_endpoint = "{url}"\nsample_ratio = {spec.sample_ratio}\nprometheus_listen = "127.0.0.1:0"\n'
    )


def measure(*, round_count: int, alone_round_count: int, count: int, seed: int) -> Report:
    """A whole run. Progress goes to stderr.

    Raises:
        ChildError: a process failed; what it says of it stands on stderr.
    """
    machine = this_machine()
    with ExitStack() as stack:
        bench = Bench(stack, seed=seed)
        alone_us = bench.alone_us(round_count=alone_round_count)
        rounds = []
        for number in range(round_count):
            rounds.append(bench.round(number, count=count))
            print(f"round {number + 1} of {round_count}", file=sys.stderr)
    return report(rounds, alone_us, machine=machine, seed=seed)


def run(arguments: Sequence[str]) -> None:
    """The command line: measures, prints the table and the bars, writes the results."""
    options = _parser().parse_args(arguments)
    found = measure(
        round_count=1 if options.quick else options.rounds,
        alone_round_count=1 if options.quick else ALONE_ROUND_COUNT,
        count=QUICK_COUNT if options.quick else options.count,
        seed=options.seed,
    )
    print(found.markdown())
    out: Path | None = options.out or (None if options.quick else RESULTS)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "telemetry.json").write_text(found.json(), encoding="utf-8")
        (out / "telemetry.md").write_text(found.markdown(), encoding="utf-8")
        print(f"written to {out}/telemetry.json and telemetry.md")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.telemetry", description="What traces and metrics cost a request, in CPU and time."
    )
    parser.add_argument(
        "--rounds",
        type=_positive_int,
        default=ROUND_COUNT,
        metavar="N",
        help=f"rounds, best a multiple of {ROUND_COUNT} ({ROUND_COUNT})",
    )
    parser.add_argument(
        "--count",
        type=_positive_int,
        default=COUNT,
        metavar="N",
        help=f"requests of each kind to each server in a round ({COUNT})",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of prompts and order (1)")
    parser.add_argument(
        "--quick", action="store_true", help="one round of a few requests, to see that it works; writes only with --out"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the results go (benchmarks/results)")
    return parser


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


if __name__ == "__main__":
    run(sys.argv[1:])
