"""The life of a request: snapshot -> predict -> decide -> attempt (fail over, hedge) -> record.

Every step is one line here; its arithmetic lives in the organ that it names. Nothing here knows gRPC, and time and
chance come in as arguments.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from pointsman_server.attempt import Attempt
from pointsman_server.chat import Conversation, Finished, prompt_text
from pointsman_server.decision.assignment import assign
from pointsman_server.decision.decide import PANIC_OPEN_S_MAX, decide
from pointsman_server.decision.facts import request_facts
from pointsman_server.decision.reach import is_out_of_reach
from pointsman_server.decision.router_string import RouterAlternative, RouterString
from pointsman_server.decision.types import (
    Candidate,
    Decision,
    DecisionInput,
    RejectionReason,
    RequestFacts,
    RuntimeSnapshot,
)
from pointsman_server.decision_log.keeper import DecisionLog
from pointsman_server.decision_log.records import LoggedReport
from pointsman_server.ending import Ending
from pointsman_server.errand import Errand, Execution, Organs
from pointsman_server.errors import (
    AttemptsExhaustedError,
    DeadlineExceededError,
    EndpointsUnavailableError,
    FieldViolation,
    InvalidRequestError,
    NoEligibleEndpointError,
    StreamBrokenError,
    UnknownDecisionError,
    UpstreamErrorKind,
)
from pointsman_server.execution.budgets import HedgeBudget, RetryBudget
from pointsman_server.execution.lineup import patience_s
from pointsman_server.execution.sliding import SlidingSum
from pointsman_server.line import Lines, Place
from pointsman_server.memory import DecisionMemory, RememberedDecision
from pointsman_server.race import Account, RaceEvent
from pointsman_server.runtime.prompt_cache import Beginnings, PromptCaches, beginnings_of
from pointsman_server.runtime.tracker import Observation, RuntimeTracker
from pointsman_server.shadow import shadow_decisions
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.spans import RequestSpan
from pointsman_server.world import ServedRouter, World

RETRY_AFTER_DEFAULT_S = 1.0
"""When to come back if no endpoint says when: about the time in which a breaker lets a trial through."""
TRAFFIC_BUCKET_S = 60.0
TRAFFIC_BUCKET_COUNT = 60
"""The traffic of an hour is known to the minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRequest:
    """What is asked, and by what to route."""

    conversation: Conversation
    asked: RouterString
    overlay: RouterAlternative
    """The caller's typed constraints and preferences."""
    seed: int | None = None
    """Of the draw among near-ties; None lets the server draw one."""
    conversation_id: str = field(default="", repr=False)
    """What the turns of one conversation share, where the caller names it."""
    assignment_key: str = field(default="", repr=False)
    """What keeps the caller's requests with one arm of a split router; empty lets the seed draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision with what it was made of."""

    decision: Decision
    facts: RequestFacts
    snapshot: RuntimeSnapshot
    """The runtime state that was decided by."""
    served: ServedRouter
    router_text: str
    """What was decided by, in full: the router's constraints and preferences with the caller's in them."""
    world: World
    beginnings: Beginnings
    """Of the conversation, for the prompt caches."""
    shadows: tuple[Decision, ...]
    """What each shadow of the router would have chosen."""


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


CompletionEvent = Decided | RaceEvent | Completed


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
        sleep: Callable[[float], Awaitable[None]],
        new_decision_id: Callable[[], str],
        new_seed: Callable[[], int],
        log: DecisionLog | None = None,
    ) -> None:
        self.world = world
        self.tracker = tracker
        self.traffic = SlidingSum(bucket_s=TRAFFIC_BUCKET_S, bucket_count=TRAFFIC_BUCKET_COUNT)
        """Tokens of the calls that were made for callers, those of the last hour."""
        self.prompt_caches = PromptCaches()
        self._organs = Organs(
            tracker=tracker,
            metrics=metrics,
            traffic=self.traffic,
            retries=RetryBudget(),
            hedges=HedgeBudget(),
            clock_s=clock_s,
            sleep=sleep,
        )
        self._lines = Lines()
        self._memory = memory
        self._metrics = metrics
        self._clock_s = clock_s
        self._new_decision_id = new_decision_id
        self._new_seed = new_seed
        self._log = log

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
            with routing.phase("features"):
                facts, text = request_facts(request.conversation), prompt_text(request.conversation)
                beginnings = beginnings_of(request.conversation, facts, conversation_id=request.conversation_id)
            with routing.phase("snapshot"):
                now_s = self._clock_s()
                snapshot = self.tracker.snapshot(now_s)
                cached_counts = self.prompt_caches.expected(beginnings, world.catalog.endpoints, now_s=now_s)
            with routing.phase("predict_quality"):
                is_refused = is_out_of_reach(asked.alternatives, world.catalog.endpoints, snapshot)
                qualities = {} if is_refused else world.predict(router.router.name, text)
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
                cached_input_token_counts=cached_counts,
            )
            with routing.phase("decide"):
                decision = decide(given)
            shadows = shadow_decisions(given, world, asked=request.asked, overlay=request.overlay, text=text)
            routing.decided(decision, shadows)
        duration_s = self._clock_s() - started_s
        self._metrics.decided(decision, shadows, duration_s=duration_s, phases=routing.phases, example=routing.recorded)
        self._log_decision(given, decision, request, served=served, world=world, text=text)
        if decision.chosen is None:
            raise unroutable(decision)
        self._remember(decision, decision.chosen, facts, beginnings, served=served)
        return Decided(
            decision=decision,
            facts=facts,
            snapshot=snapshot,
            served=router,
            router_text=router.text_of(asked.alternatives),
            world=world,
            beginnings=beginnings,
            shadows=shadows,
        )

    async def complete(
        self, request: RoutingRequest, execution: Execution, span: RequestSpan
    ) -> AsyncGenerator[CompletionEvent, None]:
        """Decides, calls the chosen endpoint, and yields what happens; until the first delta a failure is followed by
        the next candidate, unseen in the text, as far as the budget of retries goes.

        Raises:
            AttemptsExhaustedError: every attempt failed before anything was sent.
            StreamBrokenError: the answer broke off after a part of it was sent.
            DeadlineExceededError: the deadline passed.
            PointsmanError: as `route`.
        """
        arrived_s = self._clock_s()
        if execution.is_too_late(arrived_s):
            raise DeadlineExceededError(delta_count=0)
        self._organs.add_request(now_s=arrived_s)
        with self._lines.place() as place:
            decided = await self._decided(request, execution, span, place)
            yield decided
            errand = Errand(
                decided.decision,
                decided.facts,
                request.conversation,
                execution,
                world=decided.world,
                snapshot=decided.snapshot,
                organs=self._organs,
                begun=place.leave,
            )
            account = errand.account
            with Ending(self._log, decided.decision, account, arrived_s=arrived_s, clock_s=self._clock_s) as ending:
                for race in errand.races():
                    async with aclosing(race.events(span)) as events:
                        async for event in events:
                            yield event
                    if race.winner is not None:
                        ending.winner = race.winner
                        self._note_read(race.winner, decided.beginnings)
                        yield self._completed(race.winner, account, arrived_s)
                        return
                    if race.leader is not None and race.leader.delta_count and not execution.restart_after_break:
                        raise StreamBrokenError(
                            account.failures[-1],
                            delta_count=race.leader.delta_count,
                            character_count=race.leader.character_count,
                        )
                raise AttemptsExhaustedError(
                    tuple(account.failures),
                    decision_id=decided.decision.decision_id,
                    retry_after_s=self._soonest_retry_s(decided.decision.eligible),
                    is_budget_spent=account.is_budget_spent,
                )

    def _log_decision(
        self,
        given: DecisionInput,
        decision: Decision,
        request: RoutingRequest,
        *,
        served: bool,
        world: World,
        text: str,
    ) -> None:
        """Hands the decision to the log, if there is one."""
        if self._log is not None:
            self._log.decided(
                given,
                decision,
                asked=request.asked,
                overlay=request.overlay,
                served=served,
                caller_seeded=request.seed is not None,
                world=world,
                text=text,
            )

    def _note_read(self, winner: Attempt, beginnings: Beginnings) -> None:
        cached = winner.usage().usage.cached_input_token_count
        self.prompt_caches.read(winner.endpoint_name, beginnings, cached_token_count=cached, now_s=self._clock_s())

    def _remember(
        self, decision: Decision, chosen: Candidate, facts: RequestFacts, beginnings: Beginnings, *, served: bool
    ) -> None:
        remembered = RememberedDecision(
            chosen.endpoint.name,
            router_name=decision.router_name,
            split_name=decision.assignment.split_name,
            input_token_count=facts.input_token_count,
            served=served,
            predicted_quality=None if chosen.quality is None else chosen.quality.mean,
            beginnings=beginnings.to_remember,
        )
        self._memory.remember(decision.decision_id, remembered)

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
            predicted_quality=(
                remembered.predicted_quality if endpoint_name == remembered.chosen_endpoint_name else None
            ),
        )
        if self._log is not None:
            self._log.add(_logged(outcome, endpoint_name=endpoint_name, now_unix_s=self._log.now_unix_s()))
        # What was served here has been seen here; counting it twice would make the estimates too sure of themselves.
        if outcome.tells_runtime and not remembered.served:
            if outcome.failure is None:
                self.prompt_caches.read(
                    endpoint_name, remembered.beginnings, cached_token_count=None, now_s=self._clock_s()
                )
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

    async def _decided(self, request: RoutingRequest, execution: Execution, span: RequestSpan, place: Place) -> Decided:
        """The decision; where all endpoints are down or limit our rate, the one of the moment when one may be called, if
        that comes soon enough. Who waits for it stands in line, and keeps the place until the call has begun."""
        now_s = self._clock_s()
        give_up_s = now_s + patience_s(left_s=execution.left_s(now_s))
        while True:
            try:
                decided, wait_s = self.route(request, span, served=True), 0.0
            except EndpointsUnavailableError as error:
                now_s, wait_s, names = self._clock_s(), error.retry_after_s, error.waited_for
                left_s = give_up_s - now_s
                room = self.tracker.room(names, within_s=left_s, now_s=now_s)
                if wait_s > left_s or not place.enter(names, room=room):
                    raise
            else:
                assert decided.decision.chosen is not None, "a request that is routed has an endpoint"
                left_s = give_up_s - self._clock_s()
                if left_s <= 0.0 or not place.goes_behind(decided.decision.chosen.endpoint.name):
                    return decided
            await place.wait(wait_s, at_most_s=left_s)

    def _completed(self, winner: Attempt, account: Account, arrived_s: float) -> Completed:
        assert winner.finished is not None, "an attempt without an error has finished"
        costs = [usage.cost_usd for usage in account.usages]
        return Completed(
            finished=winner.finished,
            endpoint_name=winner.endpoint_name,
            attempt_count=account.attempt_count,
            ttft_s=None if winner.first_delta_s is None else winner.first_delta_s - arrived_s,
            duration_s=self._clock_s() - arrived_s,
            cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
            cost_estimated=any(usage.estimated for usage in account.usages),
        )

    def _soonest_retry_s(self, candidates: tuple[Candidate, ...]) -> float:
        """When the first of these endpoints may be called again, as far as that is known."""
        snapshot = self.tracker.snapshot_of([one.endpoint.name for one in candidates], self._clock_s())
        waits = [snapshot.of(candidate.endpoint.name).retry_after_s for candidate in candidates]
        return min((wait_s for wait_s in waits if wait_s is not None), default=RETRY_AFTER_DEFAULT_S)


def _logged(outcome: ReportedOutcome, *, endpoint_name: str, now_unix_s: float) -> LoggedReport:
    return LoggedReport(
        decision_id=outcome.decision_id,
        time_unix_s=now_unix_s,
        endpoint_name=endpoint_name,
        ttft_s=outcome.ttft_s,
        duration_s=outcome.duration_s,
        input_token_count=outcome.input_token_count,
        output_token_count=outcome.output_token_count,
        failure=outcome.failure,
        quality=outcome.quality,
        quality_source=outcome.quality_source,
    )


def unroutable(decision: Decision) -> NoEligibleEndpointError | EndpointsUnavailableError:
    """Why a decision chose nothing: for good, or only for now."""
    waiting = tuple([candidate for candidate in decision.candidates if candidate.healthy_but_for_time])
    if not waiting:
        return NoEligibleEndpointError(decision)
    reasons = {rejection.reason for candidate in waiting for rejection in candidate.rejections}
    waits_s = [wait_s for candidate in waiting if (wait_s := _wait_s(candidate)) is not None]
    return EndpointsUnavailableError(
        decision,
        waiting=waiting,
        retry_after_s=min(waits_s, default=RETRY_AFTER_DEFAULT_S),
        rate_limited=reasons == {RejectionReason.RATE_LIMITED},
    )


def _wait_s(candidate: Candidate) -> float | None:
    """When the endpoint may be called, as far as that is known. Where nobody else may be, a breaker that failures have
    opened is no reason to wait longer than the endpoint asks for."""
    waits_s = [
        rejection.actual
        for rejection in candidate.rejections
        if rejection.actual is not None
        and (rejection.reason is RejectionReason.RATE_LIMITED or rejection.actual > PANIC_OPEN_S_MAX)
    ]
    return max(waits_s) if waits_s else None
