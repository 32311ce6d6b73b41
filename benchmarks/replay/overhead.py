"""What the log costs: on the path of a request, and beside it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pointsman_server.catalog.catalog import Catalog, CatalogEntry
from pointsman_server.decision.decide import decide
from pointsman_server.decision.resolve import NamedRouter
from pointsman_server.decision.router_string import RouterAlternative, parse_router_string
from pointsman_server.decision.types import (
    DecisionInput,
    Endpoint,
    EndpointRuntime,
    Latency,
    Policy,
    QualityPrediction,
    RequestFacts,
    RuntimeSnapshot,
)
from pointsman_server.decision_log.keeper import WAKE_COUNT, DecisionLog
from pointsman_server.decision_log.segments import segment_paths
from pointsman_server.decision_log.settings import DecisionLogSettings
from pointsman_server.quality.artifact import builtin_artifact_path, load
from pointsman_server.world import ServedRouter, World

ENDPOINT_COUNT = 20
PROMPT = "Explain in a few sentences how a railway signal box works, and who invented it. " * 12
"""1 kB, as in the benchmark of routes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one decision over 20 endpoints, medians of the rounds."""

    handing_over_us: float
    """On the event loop, while a request waits for it."""
    writing_us: float
    """CPU of the writing thread."""
    deciding_us: float
    """CPU of deciding, in the same rounds, to compare with: machines differ, and so do their neighbours."""
    bytes_per_decision: float


def cost(directory: Path, *, round_count: int) -> Cost:
    """What the log takes for each decision."""
    return asyncio.run(_cost(directory, round_count=round_count))


async def _cost(directory: Path, *, round_count: int) -> Cost:
    world, given = _served()
    decision = decide(given)
    settings = DecisionLogSettings(directory=directory, flush_interval_s=60.0)
    log = DecisionLog(settings, unix_s=time.time, on_drop=_never)
    asked, overlay = parse_router_string(""), RouterAlternative(head="")
    handing_s, writing_s, deciding_s = [], [], []
    for number in range(round_count):
        records = [given._replace(decision_id=f"{number:016x}{index:016x}") for index in range(WAKE_COUNT - 1)]
        started_s = time.perf_counter()
        for record in records:
            log.decided(
                record,
                decision,
                asked=asked,
                overlay=overlay,
                served=True,
                caller_seeded=False,
                world=world,
                text=PROMPT,
            )
        handing_s.append((time.perf_counter() - started_s) / len(records))
        started_s = time.process_time()
        await log._flush()  # noqa: SLF001  # the task that calls it would add its own timer
        writing_s.append((time.process_time() - started_s) / len(records))
        started_s = time.process_time()
        for record in records:
            decide(record)
        deciding_s.append((time.process_time() - started_s) / len(records))
    log.close()
    await log.run()
    written = sum(path.stat().st_size for path in segment_paths(directory))
    return Cost(
        handing_over_us=1e6 * median(handing_s),
        writing_us=1e6 * median(writing_s),
        deciding_us=1e6 * median(deciding_s),
        bytes_per_decision=written / (round_count * (WAKE_COUNT - 1)),
    )


def _never(count: int, reason: str) -> None:
    raise AssertionError((count, reason))


def _served() -> tuple[World, DecisionInput]:
    endpoints = [
        Endpoint(f"model-{n % 13}", f"provider-{n}", 0.1 * (n + 1), 0.3 * (n + 1)) for n in range(ENDPOINT_COUNT)
    ]
    catalog = Catalog.of(
        CatalogEntry(endpoint=endpoint, upstream_model=endpoint.model, quality_model=endpoint.model, stream=True)
        for endpoint in endpoints
    )
    router = ServedRouter(
        router=NamedRouter("default"),
        version="0123456789ab",
        quality=load(builtin_artifact_path()),
        quality_artifact="builtin@1",
        text="router",
    )
    world = World.of(catalog, {"default": router}, providers={}, server_addresses={})
    runtimes = {
        endpoint.name: EndpointRuntime(
            Latency(0.41 + n / 97, 0.37 + n / 97, 0.71 + n / 97, 0.83 + n / 97, 1.37 + n / 97),
            Latency(0.0131, 0.0127, 0.0193, 0.0211, 0.0317),
            0.0123 + n / 9973,
            in_flight_count=n,
            observation_count=100 + n,
            age_s=1.234567 + n / 7,
            ttft_s_per_input_token=1.7e-5,
            reference_input_token_count=411.3,
            marginal_load_s=0.0123,
        )
        for n, endpoint in enumerate(catalog.endpoints)
    }
    given = DecisionInput(
        decision_id="d",
        facts=RequestFacts(260),
        alternatives=(Policy(),),
        endpoints=catalog.endpoints,
        qualities={f"model-{n}": QualityPrediction(0.5 + n / 37, 0.07 + n / 997, 203.7 + n / 7) for n in range(13)},
        snapshot=RuntimeSnapshot(runtimes),
        seed=7654321987654321987,
    )
    return world, given
