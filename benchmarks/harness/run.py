"""The run: processes up, rounds of every case in changing order, report out."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.cases import CASES, CONCURRENCIES, Case, Part
from benchmarks.harness.children import Child
from benchmarks.harness.load import Order, Ports, serve_load
from benchmarks.harness.machine import ROOT, this_machine
from benchmarks.harness.report import Report, Sample, report
from benchmarks.harness.servers import serve_bare, serve_bare_on_uvloop, serve_router
from benchmarks.harness.upstream import serve_upstream

RESULTS = ROOT / "benchmarks" / "results"
START_TIMEOUT_S = 60.0
"""Loading the server's libraries and the quality artifact takes 2 s on an idle machine."""
COUNT_MAX = 1_000_000
"""Where seconds are the limit: more than any case makes in them."""
SECONDS_MAX = 60.0
"""Where a count is the limit: also a slow machine ends."""
WARM_UP_COUNT = 200
QUICK_COUNT = 16
"""Enough that every caller of the highest concurrency makes a request or two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How much is measured."""

    round_count: int
    count_max: int
    """Requests of one case in one round at one concurrency."""
    seconds_max: float
    """Time for them; whichever limit comes first."""
    warm_up_count: int
    """Requests of each case that are not counted."""


class Bench:
    """The processes, and how to have them make and measure requests."""

    def __init__(self, stack: ExitStack, *, seed: int) -> None:
        upstream = stack.enter_context(Child(serve_upstream))
        upstream_port: int = upstream.receive(START_TIMEOUT_S)
        bare = stack.enter_context(Child(serve_bare))
        bare_uvloop = stack.enter_context(Child(serve_bare_on_uvloop))
        router = stack.enter_context(Child(serve_router, upstream_port))
        ports = Ports(
            bare=bare.receive(START_TIMEOUT_S),
            bare_uvloop=bare_uvloop.receive(START_TIMEOUT_S),
            router=router.receive(START_TIMEOUT_S),
            upstream=upstream_port,
        )
        self._load = stack.enter_context(Child(serve_load, ports, seed))
        self._measured = {
            Part.BARE: bare,
            Part.BARE_UVLOOP: bare_uvloop,
            Part.ROUTER: router,
            Part.CALLER: self._load,
        }

    def prepare_round(self) -> None:
        """Gives the router fresh runtime data of every endpoint."""
        self._load.send(None)
        self._load.receive(START_TIMEOUT_S)

    def sample(self, order: Order) -> Sample:
        """Has the requests of an order made, and what they cost."""
        measured = self._measured[CASES[order.case].measured]
        before_s = measured.cpu_s()
        self._load.send(order)
        latencies_s: list[float] = self._load.receive(order.seconds_max + START_TIMEOUT_S)
        return Sample(cpu_s=measured.cpu_s() - before_s, latencies_s=tuple(latencies_s))


def measure(amount: Amount, *, seed: int) -> Report:
    """A whole run. Progress goes to stderr.

    Raises:
        ChildError: a process failed; what it says of it stands on stderr.
    """
    machine = this_machine()
    rng = random.Random(seed)
    samples: dict[tuple[Case, int], list[Sample]] = {(case, level): [] for case in Case for level in CONCURRENCIES}
    with ExitStack() as stack:
        bench = Bench(stack, seed=seed)
        bench.prepare_round()
        for case in Case:
            bench.sample(_order(case, CONCURRENCIES[-1], amount, count_max=amount.warm_up_count))
        for number in range(1, amount.round_count + 1):
            bench.prepare_round()
            # In another order each time: whatever else the machine does should not always meet the same case.
            for case, level in rng.sample(list(samples), k=len(samples)):
                samples[case, level].append(bench.sample(_order(case, level, amount)))
            print(f"round {number} of {amount.round_count}", file=sys.stderr)
    return report(samples, machine=machine, seed=seed)


def _order(case: Case, concurrency: int, amount: Amount, *, count_max: int | None = None) -> Order:
    return Order(
        case=case,
        concurrency=concurrency,
        count_max=amount.count_max if count_max is None else count_max,
        seconds_max=amount.seconds_max,
    )


def run(arguments: Sequence[str]) -> None:
    """The command line: measures, prints the table and the bars, writes the results."""
    options = _parser().parse_args(arguments)
    found = measure(_amount(options), seed=options.seed)
    print(found.markdown())
    out: Path | None = options.out or (None if options.quick else RESULTS)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "overhead.json").write_text(found.json(), encoding="utf-8")
        (out / "overhead.md").write_text(found.markdown(), encoding="utf-8")
        print(f"written to {out}/overhead.json and overhead.md")
    for bar in found.bars:
        verdict = "holds" if bar.holds else "does NOT hold"
        print(f"{bar.case} <= {bar.cpu_ratio_max:g} x {bar.reference}: {bar.cpu_ratio:.2f}, {verdict}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="overhead.py", description="What Pointsman adds to a request, in CPU and time."
    )
    parser.add_argument("--rounds", type=_positive_int, default=7, metavar="N", help="interleaved rounds (7)")
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument(
        "--seconds", type=_positive_float, default=1.0, metavar="S", help="for each case in each round and level (1)"
    )
    limit.add_argument("--count", type=_positive_int, metavar="N", help="requests instead of seconds")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of prompts and order (1)")
    parser.add_argument(
        "--quick", action="store_true", help="one round of a few requests, to see that it works; writes only with --out"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the results go (benchmarks/results)")
    return parser


def _amount(options: argparse.Namespace) -> Amount:
    if options.quick:
        return Amount(round_count=1, count_max=QUICK_COUNT, seconds_max=SECONDS_MAX, warm_up_count=QUICK_COUNT)
    by_count = options.count is not None
    return Amount(
        round_count=options.rounds,
        count_max=options.count if by_count else COUNT_MAX,
        seconds_max=SECONDS_MAX if by_count else options.seconds,
        warm_up_count=WARM_UP_COUNT,
    )


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0.0 < value <= SECONDS_MAX:
        raise ValueError(text)
    return value
