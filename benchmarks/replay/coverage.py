"""Do the intervals hold? The truth of a router that never ran, against 200 logs of one that did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pointsman_server.replay.again import logging_probabilities
from pointsman_server.replay.estimate import Estimate, Estimates, estimates
from pointsman_server.replay.evidence import Gatherer, Outcome

from benchmarks.replay.world import World, drawn

OUTCOMES = (Outcome.QUALITY, Outcome.COST, Outcome.FAILED)
ESTIMATORS: dict[str, Callable[[Estimates], Estimate]] = {
    "inverse propensity": lambda found: found.inverse_propensity,
    "self-normalised": lambda found: found.self_normalised,
    "doubly robust": lambda found: found.doubly_robust,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How one estimator did on one outcome."""

    outcome: str
    estimator: str
    draw_count: int
    truth: float
    """Of the router that never ran."""
    logged: float
    """Mean over the draws of what the one that ran gave."""
    mean: float
    """Of the estimates."""
    covered: float
    """Share of the draws whose 95 % interval holds the truth."""
    width: float
    """Mean width of the intervals."""


def coverage(world: World, *, draw_count: int, decision_count: int, seed: int) -> tuple[list[Coverage], float]:
    """The coverage of every estimator, and the mean effective sample size of a draw."""
    draws: list[dict[Outcome, Estimates]] = []
    for number in range(draw_count):
        gatherer = Gatherer()
        for request, other in drawn(world, count=decision_count, rng=np.random.default_rng((seed, number))):
            probabilities, whole = logging_probabilities(request.decision)
            gatherer.add(request, other, probabilities, whole=whole)
        assert gatherer.support.unseen_share == 0.0, "the one that runs may choose whatever the other one does"
        draws.append({outcome: estimates(evidence) for outcome, evidence in gatherer.evidence().items()})
    effective = float(np.mean([found[Outcome.QUALITY].effective_count for found in draws]))
    return [
        _coverage(world, draws, outcome, name, read) for outcome in OUTCOMES for name, read in ESTIMATORS.items()
    ], effective


def _coverage(
    world: World,
    draws: list[dict[Outcome, Estimates]],
    outcome: Outcome,
    name: str,
    read: Callable[[Estimates], Estimate],
) -> Coverage:
    truth = world.truth(outcome)
    found = [read(draw[outcome]) for draw in draws]
    return Coverage(
        outcome=outcome.value,
        estimator=name,
        draw_count=len(draws),
        truth=truth,
        logged=float(np.mean([draw[outcome].as_logged.value for draw in draws])),
        mean=float(np.mean([estimate.value for estimate in found])),
        covered=float(np.mean([estimate.low <= truth <= estimate.high for estimate in found])),
        width=float(np.mean([estimate.high - estimate.low for estimate in found])),
    )
