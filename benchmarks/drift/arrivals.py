"""When requests come and how long they are: real arrivals replayed, or a small process made up for tests."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from pointsman_server.providers.weather import Draws

TRACE_S = 3400.0
"""All traces have at least so much of their hour."""
LENGTH_SIGMA = 0.5
"""Log standard deviation of the error of the predicted length: an assumption, about what length predictors reach."""
INPUT_TOKEN_COUNT_MAX = 32_000
"""Longer prompts are cut: no endpoint of the simulation takes more."""


@dataclass(frozen=True, slots=True)
class Request:
    """One arrival."""

    number: int
    arrival_s: float
    input_token_count: int
    output_token_count: int
    expected_output_token_count: float
    """What every policy is told beforehand."""


def replayed(path: Path, *, seed: int, duration_s: float) -> tuple[Request, ...]:
    """A part of a trace: `duration_s` from a place that the seed draws; the first arrives within a moment."""
    start_s = Draws(seed, "arrivals").uniform() * max(0.0, TRACE_S - duration_s)
    with path.open(encoding="utf-8", newline="") as file:
        rows = [
            (float(row["t_s"]) - start_s, int(row["input_tokens"]), int(row["output_tokens"]))
            for row in csv.DictReader(file)
        ]
    return _numbered([row for row in rows if 0.0 <= row[0] < duration_s], seed=seed)


def made_up(*, seed: int, duration_s: float, per_s: float = 5.0) -> tuple[Request, ...]:
    """Poisson arrivals of short conversations."""
    draws, now_s, rows = Draws(seed, "arrivals"), 0.0, []
    while (now_s := now_s - math.log(draws.uniform()) / per_s) < duration_s:
        tokens = [max(1, round(scale * math.exp(0.8 * draws.normal()))) for scale in (800.0, 140.0)]
        rows.append((now_s, tokens[0], tokens[1]))
    return _numbered(rows, seed=seed)


def _numbered(rows: list[tuple[float, int, int]], *, seed: int) -> tuple[Request, ...]:
    requests = []
    for number, (arrival_s, input_count, written_count) in enumerate(rows):
        error = math.exp(LENGTH_SIGMA * Draws(seed, "length", number).normal())
        output_count = max(1, written_count)
        requests.append(
            Request(number, arrival_s, min(INPUT_TOKEN_COUNT_MAX, input_count), output_count, output_count * error)
        )
    return tuple(requests)
