"""The life of a request: snapshot -> predict -> decide -> attempt -> record.

Every step is one line here; its arithmetic lives in the organ that it names. Nothing here knows gRPC, and time and
chance come in as arguments.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from pointsman_server.attempt import Attempt, AttemptPlan, Delta, UsageCounted
from pointsman_server.chat import Conversation, Finished, prompt_text
from pointsman_server.decision.assignment import assign
from pointsman_server.decision.decide import decide
from pointsman_server.decision.facts import request_facts
from pointsman_server.decision.resolve import effective_router_string
from pointsman_server.decision.router_string import RouterAlternative, RouterString
from pointsman_server.decision.types import (
    Candidate,
    Decision,
    DecisionInput,
    RejectionReason,
    RequestFacts,
)
from pointsman_server.errors import (
    AttemptFailure,
    AttemptsExhaustedError,
    DeadlineExceededError,
    EndpointsUnavailableError,
    FieldViolation,
    InvalidRequestError,
    NoEligibleEndpointError,
    StreamBrokenError,
    UnknownDecisionError,
    UpstreamError,
    UpstreamErrorKind,
)
from pointsman_server.memory import DecisionMemory, RememberedDecision
from pointsman_server.runtime.tracker import Observation, RuntimeTracker
from pointsman_server.shadow import shadow_decisions
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.spans import RequestSpan
from pointsman_server.world import ServedRouter, World

RETRY_AFTER_DEFAULT_S = 1.0
"""When to come back if no endpoint says when: about the time in which a breaker lets a trial through."""
PROVIDER_FAILURES = frozenset(UpstreamErrorKind) - {UpstreamErrorKind.REJECTED, UpstreamErrorKind.RATE_LIMITED}
"""Failures that are probably the provider's as a whole; the others concern the request, or one model's limit."""
ATTEMPT_TIME_MIN_S = 0.01
"""With less than this left of the deadline no provider can be reached and answer: no call is made, none is paid for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRequest:
    """What is asked, and by what to route."""

    conversation: Conversation
    asked: RouterString
    overlay: RouterAlternative
    """The caller's typed constraints and preferences."""
    seed: int | None = None
    """Of the draw among near-ties; None lets the server draw one."""
    assignment_key: str = field(default="", repr=False)
    """What keeps the caller's requests with one arm of a split router; empty lets the seed draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a completion is carried out."""

    attempt_count_max: int
    ttft_timeout_s: float
    deadline_s: float | None
    """Monotonic; None when the caller set no deadline."""
    restart_after_break: bool = False
    """An answer that broke off is begun anew at the next candidate, in sight of the caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision with what it was made of."""

    decision: Decision
    facts: RequestFacts
    served: ServedRouter
    router_text: str
    """What was decided by, in full: the router's constraints and preferences with the caller's in them."""
    world: World
    shadows: tuple[Decision, ...]
    """What each shadow of the router would have chosen."""


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """A call of an endpoint begins."""

    attempt_number: int
    endpoint_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The answer is complete."""

    finished: Finished
    endpoint_name: str
    attempt_count: int
    ttft_s: float | None
    """From the arrival of the request to the first delta; None when there was none."""
    duration_s: float
    cost_usd: float | None
    """Of all attempts; None when a price is unknown."""
    cost_estimated: bool


CompletionEvent = Decided | AttemptStarted | Delta | AttemptFailure | UsageCounted | Completed


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedOutcome:
    """What a caller saw of a call that it made itself, or learned later about any answer."""

    decision_id: str
    endpoint_name: str | None = None
    """None means the chosen one."""
    ttft_s: float | None = None
    duration_s: float | None = None
    input_token_count: int | None = None
    output_token_count: int | None = None
    failure: UpstreamErrorKind | None = None
    quality: float | None = None
    quality_source: str = ""

    @property
    def tells_runtime(self) -> bool:
        """Whether it says anything of how the call went; a mere judgement of the answer does not."""
        return self.ttft_s is not None or self.duration_s is not None or self.failure is not None


class Router:
    """Serves requests with the world as it stands; assigning a new `world` reloads everything at once."""

    def __init__(
        self,
        world: World,
        *,
        tracker: RuntimeTracker,
        memory: DecisionMemory,
        metrics: Metrics,
        clock_s: Callable[[], float],
        new_decision_id: Callable[[], str],
        new_seed: Callable[[], int],
    ) -> None:
        self.world = world
        self.tracker = tracker
        self._memory = memory
        self._metrics = metrics
        self._clock_s = clock_s
        self._new_decision_id = new_decision_id
        self._new_seed = new_seed

    def route(self, request: RoutingRequest, span: RequestSpan, *, served: bool = False) -> Decided:
        """Decides for a request. `served` says that the call will be made here.

        Raises:
            InvalidRequestError: a name is unknown, or nothing is left of the search space.
            NoEligibleEndpointError: no endpoint satisfies the constraints.
            EndpointsUnavailableError: some would, but all of them are down or rate limited.
        """
        world, started_s = self.world, self._clock_s()
        seed = self._new_seed() if request.seed is None else request.seed
        with span.route() as routing:
            assigned = assign(request.asked, world.named_routers, key=request.assignment_key, seed=seed)
            router = world.routers[assigned.router_name]
            asked = world.resolve(request.asked, request.overlay, assigned)
            facts, text = request_facts(request.conversation), prompt_text(request.conversation)
            with routing.phase("predict_quality"):
                qualities = world.predict(router.router.name, text)
            with routing.phase("snapshot"):
                snapshot = self.tracker.snapshot(self._clock_s())
            given = DecisionInput(
                decision_id=self._new_decision_id(),
                facts=facts,
                alternatives=asked.alternatives,
                endpoints=world.catalog.endpoints,
                qualities=qualities,
                snapshot=snapshot,
                seed=seed,
                exploration=router.router.exploration,
                router_name=router.router.name,
                router_version=router.version,
                quality_artifact=router.quality_artifact,
                assignment=assigned,
                risk_table=router.quality.risk_table,
            )
            with routing.phase("decide"):
                decision = decide(given)
            shadows = shadow_decisions(given, world, asked=request.asked, overlay=request.overlay, text=text)
            routing.decided(decision, shadows)
        self._metrics.decided(decision, shadows, duration_s=self._clock_s() - started_s)
        if decision.chosen is None:
            raise unroutable(decision)
        self._memory.remember(
            decision.decision_id,
            RememberedDecision(
                decision.chosen.endpoint.name,
                router_name=decision.router_name,
                split_name=assigned.split_name,
                input_token_count=facts.input_token_count,
                served=served,
            ),
        )
        as_it_is = asked.alternatives == router.router.alternatives
        router_text = router.text if as_it_is else str(effective_router_string(asked.alternatives))
        return Decided(
            decision=decision, facts=facts, served=router, router_text=router_text, world=world, shadows=shadows
        )

    async def complete(
        self, request: RoutingRequest, execution: Execution, span: RequestSpan
    ) -> AsyncGenerator[CompletionEvent, None]:
        """Decides, calls the chosen endpoint, and yields what happens; until the first delta a failure is followed by
        the next candidate, unseen in the text.

        Raises:
            AttemptsExhaustedError: every attempt failed before anything was sent.
            StreamBrokenError: the answer broke off after a part of it was sent.
            DeadlineExceededError: the deadline passed.
            PointsmanError: as `route`.
        """
        arrived_s = self._clock_s()
        decided = self.route(request, span, served=True)
        yield decided
        failures: list[AttemptFailure] = []
        usages: list[UsageCounted] = []
        for attempt in self._attempts(decided, request.conversation, execution, failures):
            yield AttemptStarted(attempt.plan.number, attempt.endpoint_name)
            try:
                async with aclosing(attempt.events(span)) as events:
                    async for event in events:
                        yield event
                error = None
            except UpstreamError as caught:
                error = caught
            if attempt.has_used_tokens:
                usages.append(attempt.usage())
                yield usages[-1]
            if error is None:
                yield self._completed(attempt, usages, arrived_s)
                return
            failures.append(attempt.failure(error))
            yield failures[-1]
            if attempt.delta_count and not execution.restart_after_break:
                raise StreamBrokenError(
                    failures[-1], delta_count=attempt.delta_count, character_count=attempt.character_count
                )
        raise AttemptsExhaustedError(
            tuple(failures),
            decision_id=decided.decision.decision_id,
            retry_after_s=self._soonest_retry_s(decided.decision.eligible),
        )

    def report(self, outcome: ReportedOutcome) -> None:
        """Takes what a caller saw of a decision into the runtime aggregator.

        Raises:
            UnknownDecisionError: no such decision is remembered.
            InvalidRequestError: the outcome names an endpoint that the catalog does not have.
        """
        remembered = self._memory.find(outcome.decision_id)
        if remembered is None:
            raise UnknownDecisionError(outcome.decision_id)
        endpoint_name = outcome.endpoint_name or remembered.chosen_endpoint_name
        if endpoint_name not in self.world.catalog.by_name:
            description = f"the catalog has no endpoint {endpoint_name!r}"
            raise InvalidRequestError((FieldViolation("outcome.endpoint", description),))
        self._metrics.reported(
            outcome.quality,
            endpoint_name=endpoint_name,
            router_name=remembered.router_name,
            split_name=remembered.split_name,
        )
        # What was served here has been seen here; counting it twice would make the estimates too sure of themselves.
        if outcome.tells_runtime and not remembered.served:
            self.tracker.observe(
                Observation(
                    endpoint_name=endpoint_name,
                    ttft_s=outcome.ttft_s,
                    duration_s=outcome.duration_s,
                    output_token_count=outcome.output_token_count,
                    input_token_count=outcome.input_token_count or remembered.input_token_count,
                    error_kind=outcome.failure,
                ),
                now_s=self._clock_s(),
            )

    def _attempts(
        self,
        decided: Decided,
        conversation: Conversation,
        execution: Execution,
        failures: Sequence[AttemptFailure],
    ) -> Iterator[Attempt]:
        """The attempts that may be made, each to be run, and its failure noted, before the next is asked for."""
        world, remaining = decided.world, list(decided.decision.eligible)
        for number in range(1, min(execution.attempt_count_max, len(remaining)) + 1):
            candidate = next_to_try(remaining, failures)
            remaining.remove(candidate)
            now_s = self._clock_s()
            if execution.deadline_s is not None and execution.deadline_s - now_s < ATTEMPT_TIME_MIN_S:
                raise DeadlineExceededError(delta_count=0)
            plan = AttemptPlan(
                number=number,
                decision=decided.decision,
                entry=world.catalog.by_name[candidate.endpoint.name],
                provider=world.providers[candidate.endpoint.provider],
                server_address=world.server_addresses[candidate.endpoint.provider],
                conversation=conversation,
                facts=decided.facts,
                ttft_timeout_s=execution.ttft_timeout_s,
                deadline_s=execution.deadline_s,
            )
            yield Attempt(plan, tracker=self.tracker, metrics=self._metrics, clock_s=self._clock_s)

    def _completed(self, attempt: Attempt, usages: list[UsageCounted], arrived_s: float) -> Completed:
        assert attempt.finished is not None, "an attempt without an error has finished"
        costs = [usage.cost_usd for usage in usages]
        return Completed(
            finished=attempt.finished,
            endpoint_name=attempt.endpoint_name,
            attempt_count=attempt.plan.number,
            ttft_s=None if attempt.first_delta_s is None else attempt.first_delta_s - arrived_s,
            duration_s=self._clock_s() - arrived_s,
            cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
            cost_estimated=any(usage.estimated for usage in usages),
        )

    def _soonest_retry_s(self, candidates: tuple[Candidate, ...]) -> float:
        """When the first of these endpoints may be called again, as far as that is known."""
        snapshot = self.tracker.snapshot(self._clock_s())
        waits = [snapshot.of(candidate.endpoint.name).retry_after_s for candidate in candidates]
        return min((wait_s for wait_s in waits if wait_s is not None), default=RETRY_AFTER_DEFAULT_S)


def next_to_try(remaining: Sequence[Candidate], failures: Sequence[AttemptFailure]) -> Candidate:
    """The best of `remaining` at a provider that has not just shown itself ill, if there is one; else the best.

    A provider that is down takes all its models with it, and attempts are few. A chain of fallbacks keeps its order.
    """
    ill = {failure.endpoint_name.rpartition("@")[2] for failure in failures if failure.kind in PROVIDER_FAILURES}
    alternative = remaining[0].alternative
    others = (c for c in remaining if c.alternative == alternative and c.endpoint.provider not in ill)
    return next(others, remaining[0])


def unroutable(decision: Decision) -> NoEligibleEndpointError | EndpointsUnavailableError:
    """Why a decision chose nothing: for good, or only for now."""
    waiting = [candidate for candidate in decision.candidates if candidate.healthy_but_for_time]
    if not waiting:
        return NoEligibleEndpointError(decision)
    health = [rejection for candidate in waiting for rejection in candidate.rejections]
    return EndpointsUnavailableError(
        decision,
        retry_after_s=min((r.actual for r in health if r.actual is not None), default=RETRY_AFTER_DEFAULT_S),
        rate_limited=all(rejection.reason is RejectionReason.RATE_LIMITED for rejection in health),
    )
