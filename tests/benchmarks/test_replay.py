"""The benchmark of the decision log, small: decisions are repeated, and intervals hold the truth."""

from __future__ import annotations

from pathlib import Path

import pytest
from pointsman_server.replay.evidence import Outcome

from benchmarks.replay.coverage import coverage
from benchmarks.replay.identical import repeated, replayed
from benchmarks.replay.overhead import cost
from benchmarks.replay.world import World, made_world


@pytest.fixture(scope="module")
def world() -> World:
    """A world in which the truth is known."""
    return made_world(pool_count=60, seed=3)


def test_logged_decisions_are_repeated_and_the_truth_is_estimated(world: World, tmp_path: Path) -> None:
    """Through files and back 300 decisions are the same byte for byte, and the estimate of a router that never ran holds
    the truth while the mean of what was seen is far from it."""
    found = repeated(world, tmp_path / "log", count=300, seed=4)
    assert (found.decision_count, found.identical_count) == (300, 300)
    comparison = replayed(tmp_path / "log").comparison
    assert comparison is not None
    estimate, truth = comparison.estimates[Outcome.COST], world.truth(Outcome.COST)
    assert estimate.doubly_robust.low <= truth <= estimate.doubly_robust.high
    assert not estimate.as_logged.low <= truth <= estimate.as_logged.high


def test_intervals_hold_the_truth_through_real_decisions(world: World) -> None:
    """Over 40 logs of real decisions every estimator holds quality and cost of the other router in at least 85 % of
    cases: 90 % in the benchmark, where there are 200."""
    rows, effective = coverage(world, draw_count=40, decision_count=120, seed=5)
    held = {(row.outcome, row.estimator): row.covered for row in rows if row.outcome != Outcome.FAILED}
    assert len(held) == 6
    assert min(held.values()) >= 0.85, held
    assert 60.0 < effective < 120.0


def test_the_cost_is_measured_in_full(tmp_path: Path) -> None:
    """A decision over twenty endpoints is handed over, written, and takes kilobytes."""
    found = cost(tmp_path / "log", round_count=1)
    assert found.handing_over_us > 0.0
    assert found.writing_us > 0.0
    assert 5_000 < found.bytes_per_decision < 40_000
