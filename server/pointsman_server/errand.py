"""A decision on its way to an answer: which attempts are made, in what order, with how much patience."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial

from pointsman_server.attempt import Attempt, AttemptPlan
from pointsman_server.chat import Conversation
from pointsman_server.decision.choice import uniform
from pointsman_server.decision.types import Candidate, Capability, Decision, RequestFacts, RuntimeSnapshot
from pointsman_server.errors import DeadlineExceededError
from pointsman_server.execution.budgets import HedgeBudget, RetryBudget, RetryGrant
from pointsman_server.execution.lineup import ATTEMPT_TIME_MIN_S, WAIT_S_MAX, Lineup, Turn, stretched_s
from pointsman_server.execution.patience import hedge_delay_s, stall_timeout_s, ttft_timeout_s, whole_answer_timeout_s
from pointsman_server.execution.sliding import SlidingSum
from pointsman_server.race import Account, Hedge, Race
from pointsman_server.runtime.tracker import RuntimeTracker
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a completion is carried out."""

    attempt_count_max: int
    ttft_timeout_s: float
    """The longest wait for the first token of an attempt; what is known of its endpoint may cut it short."""
    deadline_s: float | None
    """Monotonic; None when the caller set no deadline."""
    restart_after_break: bool = False
    """An answer that broke off is begun anew at the next candidate, in sight of the caller."""
    allow_hedging: bool = False
    """A second attempt may be made beside a slow one."""

    def left_s(self, now_s: float) -> float | None:
        """What is left of the deadline at `now_s`, possibly below 0; None without one."""
        return None if self.deadline_s is None else self.deadline_s - now_s

    def is_too_late(self, now_s: float) -> bool:
        """Whether too little is left of the deadline for any call. A server that is behind should not decide for nobody."""
        return self.deadline_s is not None and self.deadline_s - now_s < ATTEMPT_TIME_MIN_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Organs:
    """What all errands of a server share."""

    tracker: RuntimeTracker
    metrics: Metrics
    traffic: SlidingSum
    """Tokens of the calls that are made for callers."""
    retries: RetryBudget
    hedges: HedgeBudget
    clock_s: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]

    def add_request(self, *, now_s: float) -> None:
        """A completion begins, which the budgets live on."""
        self.retries.add_request(now_s=now_s)
        self.hedges.add_request()


class Errand:
    """Carries one decision out. `account` tells what has become of it so far."""

    def __init__(
        self,
        decision: Decision,
        facts: RequestFacts,
        conversation: Conversation,
        execution: Execution,
        *,
        world: World,
        snapshot: RuntimeSnapshot,
        organs: Organs,
        begun: Callable[[], None],
    ) -> None:
        """Nothing is called yet; `begun` is told of each call that begins."""
        self.account = Account()
        self._decision = decision
        self._facts = facts
        self._conversation = conversation
        self._execution = execution
        self._world = world
        self._snapshot = snapshot
        """Of the decision at first, then of the last time that someone was to be asked."""
        self._organs = organs
        self._begun = begun
        self._lineup = Lineup(decision.eligible, snapshot)
        self._names = [candidate.endpoint.name for candidate in decision.eligible]

    def races(self) -> Iterator[Race]:
        """The attempts that may be made, each with its hedge, to be run before the next is asked for.

        Raises:
            DeadlineExceededError: too little is left of the deadline for a further one.
        """
        account, organs = self.account, self._organs
        grant: RetryGrant | None = None
        while account.attempt_count < self._execution.attempt_count_max:
            now_s = organs.clock_s()
            if self._execution.is_too_late(now_s):
                raise DeadlineExceededError(delta_count=0)
            left_s = self._execution.left_s(now_s)
            if account.failures:
                self._snapshot = self._looked(now_s)
            turn = self._lineup.next(account.failures, self._snapshot, left_s=left_s)
            if turn is None:
                return
            if account.failures and (grant := organs.retries.take(now_s=now_s)) is None:
                account.is_budget_spent = True
                organs.metrics.failover_refused()
                return
            if account.failures:
                failed = account.failures[-1]
                organs.metrics.failed_over(failed.endpoint_name, error_type=failed.kind.value)
            yield self._race(turn, grant)

    def _race(self, turn: Turn, grant: RetryGrant | None) -> Race:
        organs, slow = self._organs, turn.candidate
        first = self._attempt(slow)
        may_hedge = self._execution.allow_hedging and self._has_more
        return Race(
            first,
            self.account,
            wait_s=stretched_s(turn.wait_s, drawn=uniform(self._decision.seed)) if turn.wait_s else 0.0,
            sleep=organs.sleep,
            wait_again_s=partial(self._wait_again_s, slow, until_s=organs.clock_s() + WAIT_S_MAX),
            hedge=Hedge(hedge_delay_s(slow.ttft_s), lambda: self._rival(slow)) if may_hedge else None,
            grant=grant,
            metrics=organs.metrics,
        )

    def _wait_again_s(self, candidate: Candidate, *, until_s: float) -> float | None:
        """How long an endpoint that was waited for is to be left alone yet: 0 when it may be called, None when that takes
        too long. Others may have called it meanwhile, taken the place or been told to stay away."""
        now_s = self._organs.clock_s()
        left_s, snapshot = self._execution.left_s(now_s), self._looked(now_s)
        left_s = until_s - now_s if left_s is None else min(left_s, until_s - now_s)
        return self._lineup.wait_s(candidate, snapshot, left_s=left_s)

    def _looked(self, now_s: float) -> RuntimeSnapshot:
        """The state of those that may be asked: many attempts may fail at one time, in a catalog of hundreds."""
        return self._organs.tracker.snapshot_of(self._names, now_s)

    def _rival(self, slow: Candidate) -> Attempt | None:
        """The attempt to make beside a slow one, as far as the budget of hedges goes."""
        organs = self._organs
        if not organs.hedges.has_room:
            return None
        self._snapshot = self._looked(organs.clock_s())
        candidate = self._lineup.rival(slow, self.account.failures, self._snapshot)
        if candidate is None:
            return None
        organs.hedges.take()
        return self._attempt(candidate, is_hedge=True)

    def _attempt(self, candidate: Candidate, *, is_hedge: bool = False) -> Attempt:
        organs, execution, world, endpoint = self._organs, self._execution, self._world, candidate.endpoint
        self.account.attempt_count += 1
        now_s = organs.clock_s()
        has_successor = self._has_more and organs.retries.has_room(now_s)
        entry = world.catalog.by_name[endpoint.name]
        plan = AttemptPlan(
            number=self.account.attempt_count,
            decision=self._decision,
            entry=entry,
            provider=world.providers[endpoint.provider],
            server_address=world.server_addresses[endpoint.provider],
            conversation=self._conversation,
            facts=self._facts,
            ttft_timeout_s=self._ttft_timeout_s(
                candidate, now_s, is_whole=not entry.stream, has_successor=has_successor
            ),
            stall_s=stall_timeout_s(
                candidate.inter_token_latency_s,
                can_restart=execution.restart_after_break and has_successor,
                thinks=Capability.REASONING in endpoint.capabilities,
            ),
            deadline_s=execution.deadline_s,
            is_hedge=is_hedge,
            cached_input_token_count=candidate.cached_input_token_count,
        )
        return Attempt(
            plan,
            tracker=organs.tracker,
            metrics=organs.metrics,
            traffic=organs.traffic,
            clock_s=organs.clock_s,
            begun=self._begun,
        )

    def _ttft_timeout_s(self, candidate: Candidate, now_s: float, *, is_whole: bool, has_successor: bool) -> float:
        input_token_count, left_s = self._facts.input_token_count, self._execution.left_s(now_s)
        if is_whole:
            return whole_answer_timeout_s(
                candidate.ttft_s, input_token_count=input_token_count, left_s=left_s, has_successor=has_successor
            )
        return ttft_timeout_s(
            candidate.ttft_s,
            input_token_count=input_token_count,
            cap_s=self._execution.ttft_timeout_s,
            left_s=left_s,
            has_successor=has_successor,
        )

    @property
    def _has_more(self) -> bool:
        """Whether another endpoint may be tried after the attempts so far."""
        may_try = self.account.attempt_count < self._execution.attempt_count_max
        return may_try and self._lineup.has_more(self._snapshot)
