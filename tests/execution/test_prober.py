"""Probes as they are made, in virtual time: what an answer shows decides whether another one follows at once."""

from __future__ import annotations

import asyncio

import pytest
from execution.played import Stage, always, answer
from pointsman_server.execution.probing import ProbeSchedule, ProbeSettings
from pointsman_server.execution.sliding import SlidingSum
from pointsman_server.prober import Prober
from pointsman_server.runtime.tracker import Observation

from benchmarks.drift.loop import run_virtually

USUAL_S = 2.0
SETTINGS = {"idle": ProbeSettings(after_s=60.0, tokens_per_hour_max=10_000, usd_per_day_max=1.0)}


async def probed(*, answers_after_s: float, look_count: int) -> int:
    """How often an endpoint that used to take `USUAL_S` is probed by so many looks, one second apart, once it is due."""
    provider = always(answer("12345678", after_s=answers_after_s))
    stage = Stage(idle=provider)
    traffic = SlidingSum(bucket_s=60.0, bucket_count=60)
    traffic.add(1_000_000.0, now_s=0.0)
    prober = Prober(
        ProbeSchedule(lambda: 0.0),
        tracker=stage.router.tracker,
        metrics=stage.telemetry.metrics,
        tracing=stage.telemetry.tracing,
        traffic=traffic,
        clock_s=stage.clock_s,
    )
    for number in range(10):
        stage.router.tracker.observe(Observation("a@idle", ttft_s=USUAL_S), now_s=0.1 * number)
    await prober.look(stage.router.world, SETTINGS)
    await asyncio.sleep(100.0)
    for _ in range(look_count):
        await prober.look(stage.router.world, SETTINGS)
        await asyncio.sleep(1.0)
    return provider.call_count


@pytest.mark.parametrize(("answers_after_s", "expected"), [(0.1, 2), (USUAL_S, 1), (0.8 * USUAL_S, 1)])
def test_an_answer_much_faster_than_expected_is_asked_for_again_at_once(answers_after_s: float, expected: int) -> None:
    """Two looks make two probes of an endpoint that is fast again, and one of an endpoint that is as it was."""
    assert run_virtually(probed(answers_after_s=answers_after_s, look_count=2)) == expected
