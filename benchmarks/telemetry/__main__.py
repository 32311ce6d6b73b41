"""What it costs to be seen: `make bench-telemetry`, or `python -m benchmarks.telemetry --help`."""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import httpx
from pointsman_server.telemetry.setup import TelemetrySettings

from benchmarks.harness.cases import Case
from benchmarks.harness.children import Child
from benchmarks.harness.load import Order, Ports, serve_load
from benchmarks.harness.machine import ROOT, this_machine
from benchmarks.harness.report import Sample
from benchmarks.harness.upstream import serve_upstream
from benchmarks.telemetry.alone import serve_alone
from benchmarks.telemetry.cases import ALONE, SPANS_BY_SDK, TELLINGS, Telling
from benchmarks.telemetry.collector import Manner
from benchmarks.telemetry.report import End, Report, report
from benchmarks.telemetry.servers import DEAD_URL, serve_collector, serve_telling

RESULTS = ROOT / "benchmarks" / "results"
CASES = (Case.ROUTE, Case.COMPLETE_1)
CONCURRENCY = 8
SLICE_COUNT = 64
"""Requests that one server gets before it is the next one's turn: so few that whatever else the machine does meets all."""
START_TIMEOUT_S = 120.0
"""For seven servers on a small machine."""
SETTLE_S = 1.5
"""After the requests, until the last of their spans have been sent, which counts too."""
SECONDS_MAX = 60.0
"""Ends a slice on a machine that is too slow for it."""
WARM_UP_COUNT = 200
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
        self._servers = {
            telling: stack.enter_context(Child(serve_telling, upstream_port, _table(telling, self._url_by_manner)))
            for telling in Telling
        }
        self._loads: dict[Telling, Child] = {}
        self._metrics_ports: dict[Telling, int] = {}
        for telling, server in self._servers.items():
            port, self._metrics_ports[telling] = server.receive(START_TIMEOUT_S)
            ports = Ports(bare=port, bare_uvloop=port, router=port, upstream=upstream_port)
            self._loads[telling] = stack.enter_context(Child(serve_load, ports, seed))

    def prepare_round(self) -> None:
        """Gives each server fresh runtime data of every endpoint."""
        for load in self._loads.values():
            load.send(None)
            load.receive(START_TIMEOUT_S)

    def samples(self, order: Order, *, slice_count: int, settle_s: float, rng: random.Random) -> dict[Telling, Sample]:
        """Has each server serve so many slices of requests, in turns whose order changes, and what they cost each, until
        the last span has been sent."""
        latencies_s: dict[Telling, list[float]] = {telling: [] for telling in Telling}
        before_s = {telling: server.cpu_s() for telling, server in self._servers.items()}
        for _ in range(slice_count):
            for telling in rng.sample(list(Telling), k=len(Telling)):
                self._loads[telling].send(order)
                latencies_s[telling] += self._loads[telling].receive(order.seconds_max + START_TIMEOUT_S)
        time.sleep(settle_s)
        return {
            telling: Sample(cpu_s=server.cpu_s() - before_s[telling], latencies_s=tuple(latencies_s[telling]))
            for telling, server in self._servers.items()
        }

    def alone_us(self, *, round_count: int) -> dict[str, float]:
        """CPU time of what telemetry does for one request, in a process that does nothing else, by what is told."""
        found: dict[str, list[float]] = {**{telling.value: [] for telling in ALONE}, SPANS_BY_SDK: []}
        for _ in range(round_count):
            for telling in ALONE:
                spec = TELLINGS[telling]
                assert spec is not None
                assert spec.collector is not None
                settings = TelemetrySettings(
                    otlp_endpoint=self._url_by_manner[spec.collector], sample_ratio=spec.sample_ratio
                )
                self._alone.send(settings)
                found[telling.value].append(self._alone.receive(START_TIMEOUT_S) * 1e6)
            self._alone.send(self._url_by_manner[Manner.PROMPT])
            found[SPANS_BY_SDK].append(self._alone.receive(START_TIMEOUT_S) * 1e6)
        return {telling: median(each) for telling, each in found.items()}

    def end(self) -> dict[Telling, End]:
        """Ends each server, and how long that took."""
        ends = {}
        for telling, server in self._servers.items():
            dropped = self._dropped_count(telling)
            started_s = time.perf_counter()
            server.__exit__(None, None, None)
            ends[telling] = End(shutdown_s=time.perf_counter() - started_s, dropped_span_count=dropped)
        return ends

    def _dropped_count(self, telling: Telling) -> int:
        port = self._metrics_ports[telling]
        if not port:
            return 0
        found = _DROPPED.search(httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text)
        return 0 if found is None else int(found[1])


def _table(telling: Telling, urls: dict[Manner, str]) -> str:
    spec = TELLINGS[telling]
    if spec is None:
        return ""
    url = DEAD_URL if spec.collector is None else urls[spec.collector]
    return (
        f'[telemetry]\notlp_endpoint = "{url}"\nsample_ratio = {spec.sample_ratio}\nprometheus_listen = "127.0.0.1:0"\n'
    )


def measure(*, round_count: int, slice_count: int, count: int, seed: int, settle_s: float) -> Report:
    """A whole run. Progress goes to stderr.

    Raises:
        ChildError: a process failed; what it says of it stands on stderr.
    """
    machine = this_machine()
    rng = random.Random(seed)
    samples: dict[tuple[Case, Telling], list[Sample]] = {(case, telling): [] for case in CASES for telling in Telling}

    with ExitStack() as stack:
        bench = Bench(stack, seed=seed)
        bench.prepare_round()
        for case in CASES:
            bench.samples(
                _order(case, WARM_UP_COUNT if count > QUICK_COUNT else 1), slice_count=1, settle_s=0.0, rng=rng
            )
        alone_us = bench.alone_us(round_count=round_count)
        for number in range(1, round_count + 1):
            bench.prepare_round()
            for case in CASES:
                found = bench.samples(_order(case, count), slice_count=slice_count, settle_s=settle_s, rng=rng)
                for telling, sample in found.items():
                    samples[case, telling].append(sample)
            print(f"round {number} of {round_count}", file=sys.stderr)
        ends = bench.end()
    return report(samples, ends, alone_us, machine=machine, seed=seed, concurrency=CONCURRENCY)


def _order(case: Case, count: int) -> Order:
    return Order(case=case, concurrency=CONCURRENCY, count_max=count, seconds_max=SECONDS_MAX)


def run(arguments: Sequence[str]) -> None:
    """The command line: measures, prints the table and the bars, writes the results."""
    options = _parser().parse_args(arguments)
    found = measure(
        round_count=1 if options.quick else options.rounds,
        slice_count=1 if options.quick else options.slices,
        count=QUICK_COUNT if options.quick else SLICE_COUNT,
        seed=options.seed,
        settle_s=0.0 if options.quick else SETTLE_S,
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
    parser.add_argument("--rounds", type=_positive_int, default=5, metavar="N", help="interleaved rounds (5)")
    parser.add_argument(
        "--slices", type=_positive_int, default=10, metavar="N", help="of 64 requests for each case in each round (10)"
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
