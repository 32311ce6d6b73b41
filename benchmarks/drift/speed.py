"""What a decision over twenty endpoints takes, with the snapshot that it is made on."""

from __future__ import annotations

import time
from collections import deque
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
from pointsman_server.runtime.tracker import Attempt, RuntimeTracker

from benchmarks.drift.shipped import PREFERENCE

ENDPOINT_COUNT = 20
CALL_COUNT = 40
"""Calls of each endpoint that the aggregator has seen before."""
ALTERNATIVES = (Policy(preference=PREFERENCE),)
"""As a request that asks for a router as it is gets the router's own."""
DECISIONS_PER_S = 10.0
"""In virtual time."""
WAITING_COUNT = 2
STREAMING_COUNT = 8
"""Where calls are under way: how many wait for a first token, and how many stream."""
ROUND_COUNT = 40
PAUSE_S = 0.05
"""Between two rounds: what others do to a core that they share with us comes and goes by the second."""
REPEAT_COUNT = 200


@dataclass(frozen=True, slots=True)
class DecisionSpeed:
    """Medians of the round in which the machine was least in the way, microseconds.

    As Python's `timeit` says of its repeats: the lowest is what the code takes, and what the others take beyond it is what
    else went on. Of the others `middle_us` tells.
    """

    snapshot_and_decide_us: float
    decide_us: float
    plain_us: float
    """The least that a choice can be: the lowest of twenty expected durations, in plain Python."""
    middle_us: float
    """`snapshot_and_decide_us` of the middle one of the rounds."""
    busy_us: float
    """`snapshot_and_decide_us` where between two decisions a call begins, one is answered and one ends."""

    @property
    def ratio(self) -> float:
        """Of the whole to the least."""
        return self.snapshot_and_decide_us / self.plain_us


def decision_speed(*, round_count: int = ROUND_COUNT, repeat_count: int = REPEAT_COUNT) -> DecisionSpeed:
    """Measures by the wall clock."""
    quiet, busy = [], []
    for _ in range(round_count):
        time.sleep(PAUSE_S)
        quiet.append(_round(repeat_count, is_busy=False))
        busy.append(_round(repeat_count, is_busy=True))
    quiet.sort()
    whole_us, alone_us, plain_us = quiet[0]
    return DecisionSpeed(whole_us, alone_us, plain_us, quiet[len(quiet) // 2][0], min(busy)[0])


def _round(repeat_count: int, *, is_busy: bool) -> list[float]:
    """Medians, microseconds: of snapshot and decision, of the decision alone, and of a plain choice.

    Where it `is_busy`, each decision is followed by a call of the endpoint that it chose; its first token and its end come
    some decisions later.
    """
    tracker, endpoints = RuntimeTracker(), tuple(Endpoint("m", f"p{index}") for index in range(ENDPOINT_COUNT))
    draws, now_s = Draws("speed"), 0.0
    for _ in range(CALL_COUNT):
        for endpoint in endpoints:
            now_s += 0.05
            attempt = tracker.start(endpoint.name, input_token_count=100, now_s=now_s)
            attempt.first_token(now_s + 0.3 * draws.uniform())
            attempt.succeed(output_token_count=100, now_s=now_s + 0.4 + draws.uniform())
    rows = []
    waiting, streaming = deque[Attempt](), deque[Attempt]()
    for seed in range(repeat_count):
        now_s += 1.0 / DECISIONS_PER_S
        chosen, *row = _decision(tracker, endpoints, now_s, seed=seed)
        rows.append(row)
        if is_busy:
            waiting.append(tracker.start(chosen, input_token_count=100, now_s=now_s))
        if len(waiting) > WAITING_COUNT:
            streaming.append(waiting.popleft())
            streaming[-1].first_token(now_s)
        if len(streaming) > STREAMING_COUNT:
            streaming.popleft().succeed(output_token_count=100, now_s=now_s)
    return [median(column) * 1e6 for column in zip(*rows, strict=True)]


def _decision(
    tracker: RuntimeTracker, endpoints: tuple[Endpoint, ...], now_s: float, *, seed: int
) -> tuple[str, float, float, float]:
    """The chosen endpoint, and the seconds of snapshot and decision, of the decision alone, and of a plain choice."""
    begun = time.perf_counter()
    snapshot = tracker.snapshot(now_s)
    taken = time.perf_counter()
    decision = decide(
        DecisionInput(
            decision_id="",
            facts=RequestFacts(input_token_count=100),
            alternatives=ALTERNATIVES,
            endpoints=endpoints,
            qualities={"m": QualityPrediction(0.8, 0.1, 100.0)},
            snapshot=snapshot,
            seed=seed,
        )
    )
    done = time.perf_counter()
    expected = [
        (runtime.ttft_s.mean + 99.0 * runtime.inter_token_latency_s.mean, name)
        for name, runtime in snapshot.by_endpoint.items()
        if runtime.ttft_s is not None and runtime.inter_token_latency_s is not None
    ]
    min(expected)
    return decision.candidates[0].endpoint.name, done - begun, done - taken, time.perf_counter() - done
