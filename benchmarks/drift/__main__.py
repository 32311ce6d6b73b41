"""Routing while providers drift: the shipped rules in virtual time, beside what others do and an oracle.

    python -m benchmarks.drift --data DIR [--weathers "steady,load"] [--tuning] [--quick]

Requests arrive as in the traces of DIR (azure2023, mooncake), at endpoints with the levels and spreads that thefastest.ai
and llmperf measured; without --data both are made up. Every policy meets the same endpoints with the same chance. The
figures go to benchmarks/results/drift.md and drift.json, and with the pictures into docs/runtime.md.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from pointsman_server.app import settle_memory
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from benchmarks.drift.arrivals import Request, made_up, replayed
from benchmarks.drift.fastest import sparse_figures
from benchmarks.drift.figures import Figures, figures, summaries
from benchmarks.drift.report import Results, as_json, bar_table, document, markdown, regret_table
from benchmarks.drift.simulate import ORACLE, POLICIES, run
from benchmarks.drift.sites import MEASURED, Level, calibrated, sites
from benchmarks.drift.speed import DecisionSpeed, decision_speed
from benchmarks.drift.traces import TTFT_WEATHER, Traces, together, traces
from benchmarks.drift.weathers import Scene, Weather, scene
from benchmarks.harness.machine import this_machine

RESULTS = Path(__file__).parents[1] / "results"
DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- bench-drift -->\n", "<!-- end of bench-drift -->"
SEEDS = (1, 2, 3, 4, 5)
"""Of the reported figures."""
TUNING_SEEDS = (901, 902, 903)
"""For those who change a constant: what is tuned on the reported seeds would flatter itself."""
DURATION_S = 420.0
LONG_DURATION_S = 720.0
"""Of weathers in which several things happen one after the other."""
QUICK_DURATION_S = 120.0
SPARSE_SEED_COUNT = 10


@dataclass(frozen=True, slots=True)
class Job:
    """The runs of all policies under one weather with one seed: what one process does at a time."""

    weather: Weather
    seed: int
    duration_s: float
    levels: tuple[Level, ...]
    data: Path | None
    draw_speeds: bool

    def scene(self) -> Scene:
        """Its endpoints, and what happens to them."""
        return scene(self.weather, sites(self.levels, seed=self.seed), seed=self.seed, duration_s=self.duration_s)

    def requests(self, trace: str) -> tuple[Request, ...]:
        """Its arrivals."""
        if self.data is None:
            return made_up(seed=self.seed, duration_s=self.duration_s)
        return replayed(self.data / trace, seed=self.seed, duration_s=self.duration_s)


def measure(job: Job) -> tuple[list[Figures], Traces]:
    """Runs a job."""
    staged = job.scene()
    requests = job.requests(staged.trace)
    oracle = run(ORACLE, staged, requests, seed=job.seed)
    found, drawn = [], []
    for policy in POLICIES:
        one = oracle if policy == ORACLE else run(policy, staged, requests, seed=job.seed)
        found.append(figures(one, oracle, seed=job.seed))
        drawn.append(traces(one, draw_speeds=job.draw_speeds and policy == POLICIES[0]))
    return found, together(drawn)


def weathers_of(text: str) -> list[Weather]:
    """The weathers of these names.

    Raises:
        ArgumentTypeError: one has no such name.
    """
    try:
        return [Weather(name) for name in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; there are {', '.join(Weather)}") from None


def jobs(options: argparse.Namespace) -> list[Job]:
    """What is asked for, the longest first."""
    levels = MEASURED if options.data is None else calibrated(options.data)
    seeds = (TUNING_SEEDS if options.tuning else SEEDS)[: options.seeds]
    weathers: Sequence[Weather] = options.weathers
    listed = []
    for weather in weathers:
        duration_s = LONG_DURATION_S if weather in (Weather.ALL, Weather.REGIMES) else DURATION_S
        for seed in seeds[:1] if options.quick else seeds:
            taken_s = QUICK_DURATION_S if options.quick else duration_s
            listed.append(Job(weather, seed, taken_s, levels, options.data, draw_speeds=seed == seeds[0]))
    return sorted(listed, key=lambda job: -job.duration_s)


def run_all(listed: Sequence[Job], process_count: int) -> tuple[list[Figures], Traces]:
    """All jobs, in as many processes, with a bar that shows how far they are."""
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    done: dict[Job, tuple[list[Figures], Traces]] = {}
    with Progress(*columns) as progress, ProcessPoolExecutor(process_count) as pool:
        task = progress.add_task("weathers x seeds", total=len(listed))
        running = {pool.submit(measure, job): job for job in listed}
        for future in as_completed(running):
            done[running[future]] = future.result()
            progress.advance(task)
    order = list(Weather)
    ordered = [done[job] for job in sorted(listed, key=lambda job: (order.index(job.weather), job.seed))]
    return [one for found, _ in ordered for one in found], together(drawn for _, drawn in ordered)


def settled_speed() -> DecisionSpeed:
    """The speed of decisions alone: the garbage collector is set as the server sets it, and sees nothing of what was simulated."""
    settle_memory()
    return decision_speed()


def publish(section: str) -> None:
    """Puts the section into docs/runtime.md."""
    page = DOCS / "runtime.md"
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"{page} has the marks between which the section stands"
    page.write_text(f"{before}{begin}\n{section}{end}{after}", encoding="utf-8")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the traces; without it arrivals and levels are made up")
    parser.add_argument(
        "--weathers", type=weathers_of, default=list(Weather), help="only these, with commas between them"
    )
    parser.add_argument("--seeds", type=int, help="only so many of the seeds")
    parser.add_argument(
        "--tuning", action="store_true", help="other seeds than those that are reported; writes nothing"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two minutes of one seed, to see that it works; writes nothing"
    )
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    started_s = time.perf_counter()
    listed = jobs(options)
    speed_before = settled_speed()
    found, drawn = run_all(listed, options.processes)
    sparse = None
    if options.data is not None:
        seed_count = 1 if options.quick else SPARSE_SEED_COUNT
        sparse = sparse_figures(options.data / "thefastest_provider_time.csv", seed_count=seed_count)
    speeds = (speed_before, settled_speed())
    results = Results(
        this_machine(),
        tuple(sorted({job.seed for job in listed})),
        "arrivals and levels made up" if options.data is None else "arrivals and levels of real traces",
        time.perf_counter() - started_s,
        tuple(found),
        tuple(summaries(found)),
        sparse,
        min(speeds, key=lambda speed: speed.snapshot_and_decide_us),
    )
    print("\n".join((*bar_table(results), "", *regret_table(results))))
    print(f"{len(found)} runs in {results.seconds:.0f} s")
    if options.tuning or options.quick:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "drift.md").write_text(markdown(results), encoding="utf-8")
    (options.out / "drift.json").write_text(json.dumps(as_json(results), indent=1) + "\n", encoding="utf-8")
    if {job.weather for job in listed} == set(Weather):
        from benchmarks.drift.plots import draw

        events = next(job for job in listed if job.weather is TTFT_WEATHER).scene().events
        draw(results.summaries, drawn, events, DOCS)
        publish(document(results))


if __name__ == "__main__":
    main()
