"""Probes endpoints that nobody has called for a while, through the same adapters and into the same tracker as real calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing

from pointsman_server.attempt import Attempt, AttemptPlan, token_count
from pointsman_server.chat import Conversation, Message, Role, SamplingOptions, TextPart
from pointsman_server.decision.cost import cost_usd
from pointsman_server.decision.decide import decide
from pointsman_server.decision.facts import request_facts
from pointsman_server.decision.types import DecisionInput, RejectionReason, RuntimeSnapshot
from pointsman_server.errors import DeadlineExceededError, UpstreamError, UpstreamErrorKind
from pointsman_server.execution.probing import (
    PROBE_OUTPUT_TOKEN_COUNT,
    PROBE_TOKEN_COUNT,
    ProbeSchedule,
    ProbeSettings,
    ProbeTarget,
)
from pointsman_server.execution.sliding import SlidingSum
from pointsman_server.runtime.tracker import RuntimeTracker
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.spans import Tracing
from pointsman_server.world import World

PROBE = Conversation(
    (Message(Role.USER, (TextPart("Count to nine."),)),),
    sampling=SamplingOptions(output_token_count_max=PROBE_OUTPUT_TOKEN_COUNT, temperature=0.0),
)
"""A short question whose answer is as long as it may be."""
SILENCE_S_MAX = 10.0
"""A probe without a token for so long has failed: nobody would wait for such an endpoint."""
SURPRISE_RATIO = 0.6
"""A probe that is answered in less than this share of the expected time: providers' own spread is a tenth to a quarter."""
PROBE_S_MAX = 30.0
"""A probe of an endpoint that answers whole, or never ends, is left after so long."""
BARRED = frozenset(
    {
        RejectionReason.NOT_IN_SEARCH_SPACE,
        RejectionReason.SKIPPED,
        RejectionReason.MISSING_CAPABILITY,
        RejectionReason.LABEL_MISMATCH,
        RejectionReason.BOUND_VIOLATED,
    }
)
"""Reasons that stand against an endpoint whatever a probe would show; bounds on what is unknown yet are none of them."""


class Prober:
    """Makes probes, one for each look. What may be probed is worked out anew only when the world has changed."""

    def __init__(
        self,
        schedule: ProbeSchedule,
        *,
        tracker: RuntimeTracker,
        metrics: Metrics,
        tracing: Tracing,
        traffic: SlidingSum,
        clock_s: Callable[[], float],
    ) -> None:
        self._schedule = schedule
        self._tracker = tracker
        self._metrics = metrics
        self._tracing = tracing
        self._traffic = traffic
        self._clock_s = clock_s
        self._known: tuple[World, tuple[ProbeTarget, ...]] | None = None

    async def look(self, world: World, settings: Mapping[str, ProbeSettings]) -> None:
        """Makes the probe that is due, if there is one, and waits for its end. `settings` are by provider."""
        if not settings:
            return
        if self._known is None or self._known[0] is not world:
            self._known = world, probe_targets(world, settings)
        now_s = self._clock_s()
        target = self._schedule.next(
            self._known[1],
            self._tracker.snapshot(now_s),
            traffic_token_count=self._traffic.at(now_s),
            now_s=now_s,
        )
        if target is not None:
            await self._probe(target, world)

    async def _probe(self, target: ProbeTarget, world: World) -> None:
        entry = world.catalog.by_name[target.endpoint_name]
        plan = AttemptPlan(
            number=1,
            decision=None,
            entry=entry,
            provider=world.providers[target.provider],
            server_address=world.server_addresses[target.provider],
            conversation=PROBE,
            facts=request_facts(PROBE),
            ttft_timeout_s=SILENCE_S_MAX if entry.stream else PROBE_S_MAX,
            stall_s=SILENCE_S_MAX,
            deadline_s=self._clock_s() + PROBE_S_MAX,
        )
        attempt = Attempt(
            plan, tracker=self._tracker, metrics=self._metrics, traffic=self._traffic, clock_s=self._clock_s
        )
        expected_s = self._tracker.snapshot(self._clock_s()).of(target.endpoint_name).ttft_s
        error_type: str | None = None
        with self._tracing.probe() as span:
            try:
                async with aclosing(attempt.events(span)) as deltas:
                    async for _ in deltas:
                        continue
            except UpstreamError as error:
                error_type = error.kind.value
            except DeadlineExceededError:
                error_type = UpstreamErrorKind.TIMEOUT.value
        used = attempt.usage() if attempt.has_used_tokens else None
        count = 0 if used is None else token_count(used.usage)
        cost = 0.0 if used is None else used.cost_usd or 0.0
        is_surprise = (
            expected_s is not None
            and attempt.first_delta_s is not None
            and attempt.first_delta_s - attempt.started_s < SURPRISE_RATIO * expected_s.p50
        )
        self._schedule.settle(target, token_count=count, cost_usd=cost, is_surprise=is_surprise, now_s=self._clock_s())
        self._metrics.probed(entry.endpoint, token_count=count, error_type=error_type)


def probe_targets(world: World, settings: Mapping[str, ProbeSettings]) -> tuple[ProbeTarget, ...]:
    """The endpoints that may be probed: of providers that opted in, at a known price, and of use to some router."""
    targets = []
    usable = _usable_names(world)
    for entry in world.catalog.entries:
        endpoint = entry.endpoint
        opted_in = settings.get(endpoint.provider)
        # All of it as output, which costs more, so that what is taken off beforehand is enough.
        cost = cost_usd(endpoint, input_token_count=PROBE_TOKEN_COUNT, output_token_count=PROBE_TOKEN_COUNT)
        if opted_in is not None and cost is not None and endpoint.name in usable:
            targets.append(
                ProbeTarget(endpoint_name=endpoint.name, provider=endpoint.provider, cost_usd=cost, settings=opted_in)
            )
    return tuple(targets)


def _usable_names(world: World) -> frozenset[str]:
    """The endpoints that at least one alternative of one named router could choose."""
    usable: set[str] = set()
    for served in world.routers.values():
        for policy in served.router.alternatives:
            decision = decide(
                DecisionInput(
                    decision_id="",
                    facts=request_facts(PROBE),
                    alternatives=(policy,),
                    endpoints=world.catalog.endpoints,
                    qualities={},
                    snapshot=RuntimeSnapshot(),
                    seed=0,
                )
            )
            usable |= {
                candidate.endpoint.name
                for candidate in decision.candidates
                if not any(rejection.reason in BARRED for rejection in candidate.rejections)
            }
    return frozenset(usable)
