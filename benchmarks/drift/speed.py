"""What a decision over twenty endpoints takes, with the snapshot that it is made on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from pointsman_server.decision.decide import decide
from pointsman_server.decision.types import (
    DecisionInput,
    Endpoint,
    Policy,
    QualityPrediction,
    RequestFacts,
)
from pointsman_server.providers.weather import Draws
from pointsman_server.runtime.tracker import RuntimeTracker

from benchmarks.drift.shipped import PREFERENCE

ENDPOINT_COUNT = 20
CALL_COUNT = 40
"""Calls of each endpoint that the aggregator has seen."""
REPEAT_COUNT = 2000


@dataclass(frozen=True, slots=True)
class DecisionSpeed:
    """Medians over many repeats, microseconds."""

    snapshot_and_decide_us: float
    decide_us: float
    plain_us: float
    """The least that a choice can be: the lowest of twenty expected durations, in plain Python."""

    @property
    def ratio(self) -> float:
        """Of the whole to the least."""
        return self.snapshot_and_decide_us / self.plain_us


def decision_speed(*, repeat_count: int = REPEAT_COUNT) -> DecisionSpeed:
    """Measures by the wall clock, each repeat a tenth of a second of virtual time after the last."""
    tracker, endpoints = RuntimeTracker(), tuple(Endpoint("m", f"p{index}") for index in range(ENDPOINT_COUNT))
    draws, now_s = Draws("speed"), 0.0
    for _ in range(CALL_COUNT):
        for endpoint in endpoints:
            now_s += 0.05
            attempt = tracker.start(endpoint.name, input_token_count=100, now_s=now_s)
            attempt.first_token(now_s + 0.3 * draws.uniform())
            attempt.succeed(output_token_count=100, now_s=now_s + 0.4 + draws.uniform())
    # A request that asks for a router as it is gets the router's own alternatives.
    alternatives = (Policy(preference=PREFERENCE),)
    whole, alone, plain = [], [], []
    for number in range(repeat_count):
        now_s += 0.1
        begun = time.perf_counter()
        snapshot = tracker.snapshot(now_s)
        taken = time.perf_counter()
        decide(
            DecisionInput(
                decision_id="",
                facts=RequestFacts(input_token_count=100),
                alternatives=alternatives,
                endpoints=endpoints,
                qualities={"m": QualityPrediction(0.8, 0.1, 100.0)},
                snapshot=snapshot,
                seed=number,
            )
        )
        done = time.perf_counter()
        expected = [
            (runtime.ttft_s.mean + 99.0 * runtime.inter_token_latency_s.mean, name)
            for name, runtime in snapshot.by_endpoint.items()
            if runtime.ttft_s is not None and runtime.inter_token_latency_s is not None
        ]
        min(expected)
        whole.append(done - begun)
        alone.append(done - taken)
        plain.append(time.perf_counter() - done)
    return DecisionSpeed(median(whole) * 1e6, median(alone) * 1e6, median(plain) * 1e6)
