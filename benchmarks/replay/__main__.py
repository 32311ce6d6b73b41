"""The decision log and its replay: what it costs, whether decisions are repeated, whether intervals hold the truth.

    python -m benchmarks.replay [--quick]

The figures go to benchmarks/results/replay.md and replay.json. About four minutes on an idle core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness.machine import this_machine
from benchmarks.replay.coverage import Coverage, coverage
from benchmarks.replay.identical import Repeated, repeated
from benchmarks.replay.overhead import ENDPOINT_COUNT, Cost, cost
from benchmarks.replay.world import CHALLENGER, made_world

RESULTS = Path(__file__).resolve().parents[1] / "results"
SEED = 20261126
POOL_COUNT = 1000
DRAW_COUNT = 200
DECISION_COUNT = 500
REPEATED_COUNT = 10_000
ROUND_COUNT = 15
COVERED_MIN = 0.9
HANDING_OVER_US_MAX = 50.0


def main() -> int:
    """Measures, prints, writes; 1 where a bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a little of everything, to see that it works; no files")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write (default: benchmarks/results)")
    arguments = parser.parse_args()
    shrink = 20 if arguments.quick else 1
    world = made_world(pool_count=POOL_COUNT // shrink, seed=SEED)
    with tempfile.TemporaryDirectory() as folder:
        costs = cost(Path(folder) / "cost", round_count=max(2, ROUND_COUNT // shrink))
        again = repeated(world, Path(folder) / "log", count=REPEATED_COUNT // shrink, seed=SEED)
    rows, effective = coverage(world, draw_count=DRAW_COUNT // shrink, decision_count=DECISION_COUNT, seed=SEED)
    text = report(costs, again, rows, effective)
    print(text)
    if not arguments.quick:
        results = {
            "machine": asdict(this_machine()),
            "seed": SEED,
            "cost": asdict(costs),
            "repeated": asdict(again),
            "effective_count": effective,
            "coverage": [asdict(row) for row in rows],
        }
        (arguments.out / "replay.md").write_text(text, encoding="utf-8")
        (arguments.out / "replay.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    holds = (
        again.identical_count == again.decision_count
        and costs.handing_over_us <= HANDING_OVER_US_MAX
        and (arguments.quick or all(row.covered >= COVERED_MIN for row in rows))
    )
    return 0 if holds else 1


def report(costs: Cost, again: Repeated, rows: list[Coverage], effective: float) -> str:
    """The figures for people."""
    lines = [
        "# The decision log and its replay",
        "",
        "How to read it: [README](../README.md). Seed, machine and commit are in replay.json.",
        "",
        "## What the log costs",
        "",
        f"| of a decision over {ENDPOINT_COUNT} endpoints | |",
        "|---|--:|",
        f"| on the path of the request: handing it over | {costs.handing_over_us:.1f} us |",
        f"| beside it: CPU of the writing thread | {costs.writing_us:.0f} us |",
        f"| to compare with: CPU of the decision itself | {costs.deciding_us:.0f} us |",
        f"| on disk | {costs.bytes_per_decision / 1000:.1f} kB |",
        "",
        "## Whether decisions are repeated",
        "",
        (
            f"{again.identical_count:,} of {again.decision_count:,} logged decisions over {again.candidate_count} endpoints,"
            f" written to files, read back and decided again, are the same byte for byte, in"
            f" {again.replay_ms_per_decision:.2f} ms each."
        ),
        "",
        "## Whether intervals hold the truth",
        "",
        (
            f"What `{CHALLENGER}` gives, which never ran, estimated from {rows[0].draw_count} logs of {DECISION_COUNT} decisions"
            f" each, worth {effective:.0f} of its own."
        ),
        "",
        "| of | estimator | truth | the router that ran | mean estimate | 95 % intervals that hold the truth | mean width |",
        "|---|---|--:|--:|--:|--:|--:|",
        *(
            f"| {row.outcome} | {row.estimator} | {row.truth:.4g} | {row.logged:.4g} | {row.mean:.4g}"
            f" | {row.covered:.1%} | {row.width:.3g} |"
            for row in rows
        ),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
