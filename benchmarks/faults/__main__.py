"""The command line: `make bench-faults`, or `python -m benchmarks.faults --help`."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pointsman_server.app import settle_memory

from benchmarks.faults import failing, holding, leaving
from benchmarks.faults.amount import QUICK_AMOUNT, Amount
from benchmarks.faults.figures import FIGURES, Measured, Report, Run, rows_of
from benchmarks.harness.machine import ROOT, stolen_s, this_machine

RESULTS = ROOT / "benchmarks" / "results" / "faults.json"
PAGE = ROOT / "docs" / "reliability.md"
TABLE = re.compile(r"(?<=<!-- make bench-faults -->\n).*?(?=<!-- until here -->)", re.DOTALL)
"""The part of the page that is written here."""
SOAK = ("F2", "F3", "F4")
CASES: Mapping[tuple[str, ...], Callable[[Amount], Coroutine[None, None, Measured]]] = {
    ("A1",): leaving.cancelled,
    ("A2",): leaving.killed,
    ("A3",): leaving.vanished,
    ("A4", "A5"): leaving.too_late,
    ("A6",): failing.before_first_token,
    ("A7",): failing.after_first_token,
    ("A8",): failing.dripping,
    ("A9",): holding.slow_reader,
    ("A10",): holding.burst,
    ("A11",): leaving.abandoned,
    ("A12",): leaving.hedged,
    ("B5",): failing.limited,
}
"""Each with a router and providers of its own; those that share one go together."""
STOLEN_SHARE_MAX = 0.01
"""A core that is gone for a hundredth of the time holds up more than one call in a hundred, whoever serves it."""
REPEAT_COUNT_MAX = 4
NO_NAMESPACE = "A3 was not measured: network namespaces can't be made here (it takes Linux, root and iproute2)."


def main() -> int:
    """Measures, prints the table, writes it. Gives the exit status: 1 where a run broke off."""
    options = _parser().parse_args()
    amount = QUICK_AMOUNT if options.quick else Amount()
    amount = replace(
        amount,
        completed_count=options.completed or amount.completed_count,
        cancelled_count=options.cancelled or amount.cancelled_count,
    )
    run_count = 1 if options.quick else options.runs
    machine = this_machine()
    # The callers are in this process: what its garbage collector does is not to be measured.
    settle_memory()
    runs = asyncio.run(_measured(options.cases, amount, run_count=run_count, seed=options.seed))
    notes = [] if "A3" not in options.cases or leaving.can_vanish() else [NO_NAMESPACE]
    notes += disturbances(runs)
    report = Report(
        machine=machine,
        seed=options.seed,
        run_count=run_count,
        completed_count=amount.completed_count,
        cancelled_count=amount.cancelled_count,
        notes=(*notes, *([options.note] if options.note else [])),
        rows=rows_of(runs, options.cases),
    )
    print(report.markdown())
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "faults.json").write_text(report.json(), encoding="utf-8")
        (options.out / "faults.md").write_text(report.markdown(), encoding="utf-8")
    elif not options.quick and options.cases == _all_cases():
        RESULTS.write_text(report.json(), encoding="utf-8")
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(TABLE.sub(lambda _: report.markdown(), page), encoding="utf-8")
        print(f"written to {RESULTS} and {PAGE}", file=sys.stderr)
    return 1 if any(run.measured is None for run in runs) else 0


async def _measured(cases: list[str], amount: Amount, *, run_count: int, seed: int) -> list[Run]:
    """What each run of each case gave. Progress goes to stderr."""
    runs: list[Run] = []
    for names, case in CASES.items():
        if not set(names) & set(cases):
            continue
        for number in range(1, run_count + 1):
            # Streams of three runs that vanish at once show the same, and each run takes a minute.
            if "A3" in names and number > 1:
                continue
            runs.append(await undisturbed(names, f"run {number} of {run_count}", partial(case, amount)))
    if set(SOAK) & set(cases):
        runs.append(await told(SOAK, "once", holding.soak(amount, seed)))
    return runs


async def undisturbed(names: tuple[str, ...], which: str, case: Callable[[], Coroutine[None, None, Measured]]) -> Run:
    """A run while the machine's hypervisor left it its cores: one that it did not is made again, whatever it gave, up to
    `REPEAT_COUNT_MAX` times, of which the last counts."""
    again_count = 0
    while True:
        run = await told(names, which, case())
        if run.stolen_share <= STOLEN_SHARE_MAX or again_count == REPEAT_COUNT_MAX:
            return replace(run, again_count=again_count)
        again_count += 1


def disturbances(runs: Sequence[Run]) -> list[str]:
    """What to tell of runs during which the machine lacked its cores."""
    notes = []
    again_count = sum(run.again_count for run in runs)
    if again_count:
        notes.append(
            f"{again_count} times a run was made again, since this machine's hypervisor gave more than "
            f"{STOLEN_SHARE_MAX:.0%} of a core's time to others meanwhile."
        )
    kept = [run for run in runs if run.again_count and run.stolen_share > STOLEN_SHARE_MAX]
    if kept:
        cases = ", ".join(dict.fromkeys(name for run in kept for name in run.cases))
        notes.append(f"Of {cases} it did so in runs that count, too.")
    return notes


async def told(names: tuple[str, ...], which: str, case: Coroutine[None, None, Measured]) -> Run:
    """One run, told of on stderr. Where it breaks off, by whatever it is, the others go on: half an hour is not lost to
    one of them, and the table says which it was."""
    started_s, stolen_before_s = time.monotonic(), stolen_s()
    task = asyncio.create_task(case)
    await asyncio.wait([task])
    duration_s = time.monotonic() - started_s
    stolen_share = (stolen_s() - stolen_before_s) / duration_s
    error = task.exception()
    if error is None:
        shown = ", ".join(f"{value:.4g} {figure.unit}".strip() for figure, value in task.result().items())
    else:
        traceback.print_exception(error)
        shown = f"FAILED, {type(error).__name__}"
    circumstances = f"{duration_s:.0f} s, {stolen_share:.1%} of a core stolen"
    print(f"{', '.join(names)}, {which}: {shown} ({circumstances})", file=sys.stderr)
    return Run(names, None if error is not None else task.result(), stolen_share)


def _all_cases() -> list[str]:
    return list(dict.fromkeys(figure.case for figure in FIGURES))


def _cases(text: str) -> list[str]:
    cases = text.split(",")
    if not set(cases) <= set(_all_cases()):
        raise ValueError(text)
    return cases


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description="What becomes of streams when callers leave and providers fail."
    )
    parser.add_argument("--runs", type=_positive, default=5, metavar="N", help="of which the worst counts (5)")
    parser.add_argument("--completed", type=_positive, metavar="N", help="streams of F2 (20000)")
    parser.add_argument("--cancelled", type=_positive, metavar="N", help="streams of F3 (50000)")
    parser.add_argument("--cases", type=_cases, default=_all_cases(), metavar="A1,A2,...", help="those alone")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the mixed failures (1)")
    parser.add_argument("--note", default="", metavar="TEXT", help="a sentence on the circumstances, for the table")
    parser.add_argument("--quick", action="store_true", help="little of everything; writes only with --out")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the results go (docs/reliability.md)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
