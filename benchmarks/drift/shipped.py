"""The shipped router as it is: its aggregator, its decision, its execution. Nothing of it is copied or replaced.

Only what touches the world outside is given by the simulation: the clock, chance, the providers. The quality model plays
no part, because all endpoints serve one model; what it would predict of the answer's length comes with the request.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from random import Random

from pointsman_server.app import PROBE_COUNT_MAX, PROBE_LOOK_INTERVAL_S
from pointsman_server.catalog.catalog import Catalog, CatalogEntry
from pointsman_server.chat import Conversation, Message, ReasoningDelta, Role, TextDelta, TextPart, ToolCallDelta
from pointsman_server.decision.facts import BYTES_PER_TOKEN
from pointsman_server.decision.metrics import Metric
from pointsman_server.decision.resolve import DEFAULT_ROUTER_NAME, NamedRouter
from pointsman_server.decision.router_string import DEFAULT_HEAD, RouterAlternative, RouterString
from pointsman_server.decision.types import Endpoint, Policy, QualityPrediction, Weights
from pointsman_server.errand import Execution
from pointsman_server.errors import PointsmanError, StreamBrokenError
from pointsman_server.execution.probing import ProbeSchedule, ProbeSettings
from pointsman_server.memory import DecisionMemory
from pointsman_server.prober import Prober
from pointsman_server.providers.base import ChatProvider
from pointsman_server.quality.artifact import builtin_artifact_path, load
from pointsman_server.quality.model import QualityModel
from pointsman_server.router import Router, RoutingRequest
from pointsman_server.runtime.tracker import RuntimeTracker
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.spans import Tracing
from pointsman_server.world import ServedRouter, World

from benchmarks.drift.arrivals import Request
from benchmarks.drift.sites import MODEL, Site
from benchmarks.drift.world import SimulatedProvider, Upstream

SHIPPED = "Pointsman"
"""Its name among the policies."""
PREFERENCE = Weights.of({Metric.END_TO_END_LATENCY: 1.0})
"""What the runs are judged by: a second is a second, to the first token or after it."""
EXECUTION = Execution(attempt_count_max=3, ttft_timeout_s=30.0, deadline_s=None, allow_hedging=True)
"""The server's own defaults, and hedges as the oracle makes them."""
PROBES = ProbeSettings(after_s=8.0, tokens_per_hour_max=1_000_000, usd_per_day_max=10.0)
"""Opted in, and held down by 1 % of the traffic's tokens alone, which is what is reported."""
PRICE = 1.0
"""USD per million tokens, of all alike: without a price nobody is probed."""
DECISION_COUNT = 10_000
METHOD = "pointsman.v1.RouterService/Complete"


@dataclass(frozen=True, slots=True)
class ToldWorld(World):
    """A world whose quality model says nothing but how long the answer will be, which the prompt brings along."""

    def predict(self, router_name: str, text: str) -> dict[str, QualityPrediction]:
        """The same for every model."""
        del router_name
        expected = float(text.split(":", 2)[1])
        return {model: QualityPrediction(1.0, 0.0, expected) for model in self.catalog.models}


@cache
def _quality_model() -> QualityModel:
    return load(builtin_artifact_path())


def catalog_of(sites: Sequence[Site]) -> Catalog:
    """The catalog that lists these sites."""
    return Catalog.of(
        CatalogEntry(endpoint=Endpoint(MODEL, site.provider, PRICE, PRICE), upstream_model=MODEL, quality_model=MODEL)
        for site in sites
    )


def world_of(catalog: Catalog, providers: dict[str, ChatProvider], preference: Weights) -> World:
    """A world in which one router chooses among all of `catalog` by `preference`."""
    router = NamedRouter(DEFAULT_ROUTER_NAME, (Policy(preference=preference),))
    served = ServedRouter(router=router, version="", quality=_quality_model(), quality_artifact="", text="")
    addresses = dict.fromkeys(providers, "")
    return ToldWorld.of(catalog, {DEFAULT_ROUTER_NAME: served}, providers=providers, server_addresses=addresses)


def conversation_of(request: Request) -> Conversation:
    """A prompt as long as the request's, which begins with what the simulation has to know."""
    head = f"{request.number}:{request.expected_output_token_count:.1f}:"
    text = head.ljust(BYTES_PER_TOKEN * request.input_token_count, "x")
    return Conversation((Message(Role.USER, (TextPart(text),)),))


@dataclass(frozen=True, slots=True)
class Answered:
    """What the caller of the shipped router saw."""

    ttft_s: float | None
    failed: bool
    broke: bool
    """It failed after a part of the answer had come."""


class ShippedRouter:
    """One of so many replicas of the router in front of a simulated upstream; it knows how many, and nothing else of them."""

    def __init__(self, upstream: Upstream, *, seed: int, replica_count: int) -> None:
        random, numbers = Random(seed), itertools.count()
        metrics = Metrics(None)
        providers: dict[str, ChatProvider] = {
            live.site.provider: SimulatedProvider(live, upstream) for live in upstream.live
        }
        self._clock_s = upstream.clock_s
        self.router = Router(
            world_of(catalog_of([live.site for live in upstream.live]), providers, PREFERENCE),
            tracker=RuntimeTracker(replica_count=replica_count),
            memory=DecisionMemory(DECISION_COUNT),
            metrics=metrics,
            clock_s=upstream.clock_s,
            sleep=asyncio.sleep,
            new_decision_id=lambda: str(next(numbers)),
            new_seed=lambda: random.getrandbits(63),
        )
        self._tracing = Tracing(None, unix_ns=None)
        self._prober = Prober(
            ProbeSchedule(random.random),
            tracker=self.router.tracker,
            metrics=metrics,
            tracing=self._tracing,
            traffic=self.router.traffic,
            clock_s=upstream.clock_s,
        )
        settings = dict.fromkeys(providers, PROBES)
        # It ends with the loop.
        self._probing = [asyncio.create_task(self._probe(settings)) for _ in range(PROBE_COUNT_MAX)]

    async def _probe(self, settings: Mapping[str, ProbeSettings]) -> None:
        while True:
            await asyncio.sleep(PROBE_LOOK_INTERVAL_S)
            await self._prober.look(self.router.world, settings)

    async def serve(self, request: Request) -> Answered:
        """Completes a request to its end."""
        asked = RoutingRequest(
            conversation=conversation_of(request),
            asked=RouterString((RouterAlternative(DEFAULT_HEAD),)),
            overlay=RouterAlternative(DEFAULT_HEAD),
        )
        arrived_s, ttft_s = self._clock_s(), None
        span = self._tracing.request(METHOD, ())
        try:
            async with aclosing(self.router.complete(asked, EXECUTION, span)) as events:
                async for event in events:
                    if ttft_s is None and isinstance(event, TextDelta | ReasoningDelta | ToolCallDelta):
                        ttft_s = self._clock_s() - arrived_s
        except PointsmanError as error:
            return Answered(ttft_s, failed=True, broke=isinstance(error, StreamBrokenError))
        return Answered(ttft_s, failed=False, broke=False)
