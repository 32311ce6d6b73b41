"""Makes the calls that are missing: so many at a time per provider, within the budget, each journalled as it ends.

Every endpoint has lanes that take prompts in the order of the file, as many as its provider has slots; the judge has lanes of
its own, fed with answers as they come. A call takes a slot for the time of an attempt alone, so an endpoint that is paused
keeps no other from being asked, not even one at the same provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pointsman_server.catalog.catalog import CatalogEntry
from pointsman_server.errors import UpstreamError, UpstreamErrorKind
from pointsman_server.labelling.budget import Budget
from pointsman_server.labelling.calls import RETRIED, attempt, backoff_s, failure_record
from pointsman_server.labelling.journal import Journal
from pointsman_server.labelling.plan import Call, Plan, answer_call, cost_usd_max, verdict_calls
from pointsman_server.labelling.prompts import LabelledPrompt
from pointsman_server.labelling.records import Answered
from pointsman_server.labelling.scoring import Compared, Judged
from pointsman_server.providers.base import ChatProvider

VERDICT_ATTEMPT_COUNT_MAX = 3
"""A judge that can't be read three times in a row will hardly be the fourth time, and each time is paid for."""
RATE_LIMITED_WAIT_S_MAX = 900.0
"""A call that has waited so long for its turn gives up: limits are counted by the minute, and what is still refused after a
quarter of an hour is a quota."""
FAILURE_STREAK_MAX = 10
"""Calls of an endpoint that fail one after the other, retries included, before it is not asked any more in this run."""
JUDGE_BACKLOG_MAX = 64
"""Answers that wait for the judge; beyond, their lanes wait with them, so that little is left unjudged by a run that is cut
short."""


class Reason(StrEnum):
    """Why there is no label."""

    CALL_FAILED = "call failed"
    GIVEN_UP = "endpoint given up"
    OVER_BUDGET = "over the budget"
    UNREADABLE_VERDICT = "unreadable verdict"
    NO_BASELINE = "no baseline answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A label that could not be had in this run."""

    prompt_id: str
    endpoint_name: str
    """Whose answer would have been labelled."""
    reason: Reason
    detail: str
    """What failed where, in a few words that many failures can share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a run may do at one time, and how long it tries."""

    concurrency: int
    """Calls under way per provider."""
    attempt_count_max: int
    """Attempts at a call, the first included; answers that ask to come back later don't count."""
    timeout_s: float
    """Deadline of an attempt."""


class Watcher(Protocol):
    """Is told how the run goes on."""

    def finished(self) -> None:
        """An endpoint is through with a prompt, with a label or without."""
        ...

    def paused(self, endpoint_name: str, wait_s: float) -> None:
        """An endpoint wants to be left alone for so long."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Time and chance."""

    clock_s: Callable[[], float]
    """Monotonic."""
    sleep: Callable[[float], Awaitable[None]]
    chance: Callable[[], float]
    """0..1, for the spread of retries."""


@dataclass(frozen=True, slots=True)
class _ToJudge:
    prompt: LabelledPrompt
    entry: CatalogEntry
    answer: str
    baseline_answer: str | None


@dataclass(slots=True)
class _Tries:
    """How often a call has been tried, and how long it has waited for its turn."""

    failure_count: int = 0
    limited_count: int = 0
    waited_s: float = 0.0


class Run:
    """One run over a plan. `complete` makes it, once; `missing` tells what it could not get."""

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        providers: Mapping[str, ChatProvider],
        *,
        limits: Limits,
        budget: Budget,
        watcher: Watcher,
        surroundings: Surroundings,
    ) -> None:
        self.missing: list[Missing] = []
        self._plan = plan
        self._journal = journal
        self._providers = providers
        self._limits = limits
        self._budget = budget
        self._watcher = watcher
        self._around = surroundings
        self._slots = {name: asyncio.Semaphore(limits.concurrency) for name in providers}
        self._settled = asyncio.Event()
        """Set, and replaced, when a call ends: what it did not spend of its reservation is free again."""
        self._streaks: dict[str, int] = {}
        """Failures in a row by endpoint."""
        self._given_up: dict[str, str] = {}
        """Endpoints that are not asked any more, and why."""
        self._paused_until_s: dict[str, float] = {}
        self._to_judge: asyncio.Queue[_ToJudge | None] = asyncio.Queue(JUDGE_BACKLOG_MAX)
        self._baselines: dict[str, str | None] = {}
        """The baseline endpoint's answer by prompt; None where it failed."""
        self._unpaired: dict[str, list[tuple[CatalogEntry, str | None]]] = {}
        """Answers whose baseline is not there yet, by prompt."""

    async def complete(self) -> None:
        """Makes every call that is missing, as far as budget and providers allow.

        Raises:
            OSError: the journal can't be written.
        """
        judges = [self._judge_lane() for _ in range(self._limits.concurrency if self._plan.judge else 0)]
        await _together(self._answer_all(len(judges)), *judges)

    async def _answer_all(self, judge_count: int) -> None:
        lanes = []
        for entry in self._plan.answering:
            asked = self._asked_of(entry)
            lanes += [self._answer_lane(entry, asked) for _ in range(self._limits.concurrency)]
        await _together(*lanes)
        for _ in range(judge_count):
            await self._to_judge.put(None)

    def _asked_of(self, entry: CatalogEntry) -> Iterator[LabelledPrompt]:
        """The prompts that an endpoint is asked."""
        return (prompt for prompt in self._plan.prompts if self._plan.asks(prompt, entry))

    async def _answer_lane(self, entry: CatalogEntry, prompts: Iterator[LabelledPrompt]) -> None:
        """Asks an endpoint one prompt after the other; its lanes share the iterator."""
        for prompt in prompts:
            answer = await self._answer(prompt, entry)
            if prompt.rule == Compared(None):
                await self._pair(prompt, entry, answer)
            elif answer is not None and isinstance(prompt.rule, Judged | Compared):
                await self._to_judge.put(_ToJudge(prompt, entry, answer, None))
            else:
                self._watcher.finished()

    async def _answer(self, prompt: LabelledPrompt, entry: CatalogEntry) -> str | None:
        """The endpoint's answer; None where there is none, which has been noted. Without a judge that can still be asked
        nothing is bought that only a judge can label."""
        call = answer_call(self._plan, prompt, entry)
        reason = self._judge_lost(prompt)
        if reason is not None and call.key not in self._journal.ledger.answered:
            self._miss(call, Reason.GIVEN_UP, reason)
            return None
        made = await self._made(call)
        return None if made is None else made.text

    def _judge_lost(self, prompt: LabelledPrompt) -> str | None:
        """Why a prompt that needs the judge can't have it any more; None where it can, or needs none."""
        judge = self._plan.judge
        if judge is None or not isinstance(prompt.rule, Judged | Compared):
            return None
        name = judge.endpoint.name
        return f"{name}: {self._given_up[name]}" if name in self._given_up else None

    async def _pair(self, prompt: LabelledPrompt, entry: CatalogEntry, answer: str | None) -> None:
        """Brings answers and the baseline of their prompt together, whichever comes first."""
        if entry == self._plan.baseline:
            self._baselines[prompt.prompt_id] = answer
            self._watcher.finished()
            pairs = self._unpaired.pop(prompt.prompt_id, [])
        else:
            pairs = [(entry, answer)]
            if prompt.prompt_id not in self._baselines:
                self._unpaired.setdefault(prompt.prompt_id, []).extend(pairs)
                return
        baseline_answer = self._baselines[prompt.prompt_id]
        for answering, text in pairs:
            if text is not None and baseline_answer is not None:
                await self._to_judge.put(_ToJudge(prompt, answering, text, baseline_answer))
                continue
            if text is not None:
                self._miss(answer_call(self._plan, prompt, answering), Reason.NO_BASELINE, "the baseline call failed")
            self._watcher.finished()

    async def _judge_lane(self) -> None:
        while (judged := await self._to_judge.get()) is not None:
            calls = verdict_calls(
                self._plan,
                judged.prompt,
                judged.entry,
                answer=judged.answer,
                baseline_answer=judged.baseline_answer,
            )
            for call in calls:
                if not await self._judge(call):
                    break  # One order alone is no label, so the other is not paid for.
            self._watcher.finished()

    async def _judge(self, call: Call) -> bool:
        """Whether there is a verdict that can be read; an unreadable one is asked for again within bounds."""
        for _ in range(VERDICT_ATTEMPT_COUNT_MAX):
            if await self._made(call) is None:
                return False
            if call.key in self._journal.ledger.answered:
                return True
        self._miss(
            call, Reason.UNREADABLE_VERDICT, f"{call.key.endpoint}: no verdict in {VERDICT_ATTEMPT_COUNT_MAX} tries"
        )
        return False

    async def _made(self, call: Call) -> Answered | None:
        """The answer of a call: the one that has been paid for, or a new one. None where there is none, which has been
        noted."""
        known = self._journal.ledger.answered.get(call.key)
        if known is not None:
            return known
        tries = _Tries()
        while True:
            await self._pause_over(call.key.endpoint)
            outcome = await self._attempt(call)
            if outcome is None:
                return None
            if isinstance(outcome, Answered):
                self._streaks[call.key.endpoint] = 0
                await self._journal.append(outcome)
                return outcome
            error, cost_usd = outcome
            wait_s = self._wait_s(error, tries)
            if wait_s is None or cost_usd:
                await self._journal.append(failure_record(call, error, spent_usd=cost_usd))
            if wait_s is None:
                self._give_up(call, error)
                return None
            if error.kind is UpstreamErrorKind.RATE_LIMITED:
                self._pause(call.key.endpoint, wait_s)
            else:
                await self._around.sleep(wait_s)

    async def _attempt(self, call: Call) -> Answered | tuple[UpstreamError, float | None] | None:
        """One attempt, within the provider's slots and the budget. None where it may not be made, which has been noted."""
        async with self._slots[call.entry.endpoint.provider]:
            if call.key.endpoint in self._given_up:
                self._miss(call, Reason.GIVEN_UP, f"{call.key.endpoint}: {self._given_up[call.key.endpoint]}")
                return None
            reserved_usd = cost_usd_max(call) or 0.0
            if not await self._reserve(reserved_usd):
                self._miss(call, Reason.OVER_BUDGET, f"{call.key.endpoint}: a call may cost more than what is left")
                return None
            # What a call has cost that is cancelled nobody knows: the worst is taken.
            cost_usd: float | None = reserved_usd
            try:
                outcome = await attempt(
                    call,
                    self._providers[call.entry.endpoint.provider],
                    timeout_s=self._limits.timeout_s,
                    clock_s=self._around.clock_s,
                )
                cost_usd = outcome.cost_usd if isinstance(outcome, Answered) else outcome[1]
            finally:
                self._budget.settle(reserved_usd=reserved_usd, cost_usd=cost_usd or 0.0)
                self._settled.set()
                self._settled = asyncio.Event()
            return outcome

    async def _reserve(self, cost_usd: float) -> bool:
        """Sets the money for a call aside, waiting for calls under way if it must; False where there is not enough."""
        while not self._budget.try_reserve(cost_usd):
            if not self._budget.fits_ever(cost_usd):
                return False
            await self._settled.wait()
        return True

    def _wait_s(self, error: UpstreamError, tries: _Tries) -> float | None:
        """How long to wait before the next attempt; None where this was the last."""
        if error.kind not in RETRIED:
            return None
        if error.kind is UpstreamErrorKind.RATE_LIMITED:
            wait_s = backoff_s(tries.limited_count, chance=self._around.chance(), retry_after_s=error.retry_after_s)
            tries.limited_count += 1
            tries.waited_s += wait_s
            return wait_s if tries.waited_s <= RATE_LIMITED_WAIT_S_MAX else None
        tries.failure_count += 1
        if tries.failure_count >= self._limits.attempt_count_max:
            return None
        return backoff_s(tries.failure_count - 1, chance=self._around.chance(), retry_after_s=error.retry_after_s)

    def _pause(self, endpoint_name: str, wait_s: float) -> None:
        """Leaves an endpoint alone for so long: whoever is refused speaks for all."""
        until_s = self._around.clock_s() + wait_s
        if until_s > self._paused_until_s.get(endpoint_name, 0.0):
            self._paused_until_s[endpoint_name] = until_s
            self._watcher.paused(endpoint_name, wait_s)

    async def _pause_over(self, endpoint_name: str) -> None:
        while (left_s := self._paused_until_s.get(endpoint_name, 0.0) - self._around.clock_s()) > 0.0:
            await self._around.sleep(left_s)

    def _give_up(self, call: Call, error: UpstreamError) -> None:
        """Notes a call that failed for good, and an endpoint that does nothing but fail."""
        name = call.key.endpoint
        self._miss(call, Reason.CALL_FAILED, f"{name}: {error}")
        self._streaks[name] = self._streaks.get(name, 0) + 1
        if error.kind is UpstreamErrorKind.AUTHENTICATION:
            self._given_up.setdefault(name, str(error))
        elif self._streaks[name] >= FAILURE_STREAK_MAX:
            self._given_up.setdefault(name, f"{FAILURE_STREAK_MAX} calls in a row failed, the last with: {error}")

    def _miss(self, call: Call, reason: Reason, detail: str) -> None:
        self.missing.append(
            Missing(prompt_id=call.key.prompt_id, endpoint_name=call.key.subject, reason=reason, detail=detail)
        )


async def _together(*lanes: Coroutine[None, None, None]) -> None:
    """Runs them to their end; when one fails, the others are cancelled and its exception is raised."""
    tasks = [asyncio.create_task(lane) for lane in lanes]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
