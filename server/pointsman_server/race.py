"""One step of carrying a decision out: an attempt, and where it is slow and the caller allows it, a second one beside it.

    attempt_started 1 -- no token for a while -- attempt_started 2 -- first token of either: the other one is left

Who wins is seen by the first delta, and the loser's connection is closed before that delta goes out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

from pointsman_server.attempt import Attempt, Delta, UsageCounted
from pointsman_server.errors import AttemptFailure, UpstreamError
from pointsman_server.execution.budgets import RetryGrant
from pointsman_server.line import LOOK_INTERVAL_S_MIN
from pointsman_server.telemetry.metrics import HedgeResult, Metrics
from pointsman_server.telemetry.spans import RequestSpan


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """A call of an endpoint begins."""

    attempt_number: int
    endpoint_name: str


@dataclass(slots=True)
class Account:
    """What has become of a completion so far."""

    attempt_count: int = 0
    failures: list[AttemptFailure] = field(default_factory=list)
    usages: list[UsageCounted] = field(default_factory=list)
    is_budget_spent: bool = False
    """There was someone left to ask, but the budget of retries did not allow it."""


@dataclass(frozen=True, slots=True)
class Hedge:
    """What happens when an attempt is slow."""

    delay_s: float
    """Without a token for so long it is."""
    rival: Callable[[], Attempt | None]
    """The attempt to begin beside it; None when there is none, or no budget for it."""


RaceEvent = AttemptStarted | Delta | UsageCounted | AttemptFailure


class Race:
    """Runs an attempt, and its hedge if it comes to that. `events` runs it, once; `winner` is who answered."""

    def __init__(
        self,
        first: Attempt,
        account: Account,
        *,
        wait_s: float,
        sleep: Callable[[float], Awaitable[None]],
        wait_again_s: Callable[[], float | None],
        hedge: Hedge | None,
        grant: RetryGrant | None,
        metrics: Metrics,
    ) -> None:
        """Nothing is called yet.

        Args:
            first: The attempt.
            account: Where failures and usages are noted.
            wait_s: For so long its endpoint is to be left alone before.
            sleep: Waits so many seconds.
            wait_again_s: For how long, after the wait, the endpoint is to be left alone yet; None: for too long, so that no
                call is made.
            hedge: What to do when `first` is slow; None: wait on.
            grant: The leave for the failover that this is; given back with the first delta. None: it is none.
            metrics: Is told how a hedge ended.
        """
        self.winner: Attempt | None = None
        self.leader: Attempt | None = None
        """Whose deltas the caller gets, if any come; it may fail yet."""
        self._first = first
        self._account = account
        self._wait_s = wait_s
        self._sleep = sleep
        self._wait_again_s = wait_again_s
        self._hedge = hedge
        self._grant = grant
        self._metrics = metrics

    def events(self, span: RequestSpan) -> AsyncGenerator[RaceEvent, None]:
        """Makes the calls, and yields what happens. A failure is an event, and noted in the account.

        Raises:
            DeadlineExceededError: the caller's deadline passed.
        """
        return self._alone(span) if self._hedge is None else self._raced(span, self._hedge)

    async def _alone(self, span: RequestSpan) -> AsyncGenerator[RaceEvent, None]:
        if not await self._is_due():
            return
        yield _started(self._first)
        self.leader = self._first
        error: UpstreamError | None = None
        try:
            async with aclosing(self._first.events(span)) as deltas:
                async for delta in deltas:
                    if self._grant is not None:
                        self._commit()
                    yield delta
        except UpstreamError as caught:
            # Its frames hold this very name: without them there is no cycle.
            error = caught.with_traceback(None)
        for event in self._settled(self._first, error):
            yield event

    async def _raced(self, span: RequestSpan, hedge: Hedge) -> AsyncGenerator[RaceEvent, None]:
        if not await self._is_due():
            return
        yield _started(self._first)
        runners = [_Runner(self._first, span)]
        rival: Attempt | None = None
        try:
            await asyncio.wait((runners[0].first,), timeout=hedge.delay_s)
            if not runners[0].first.done() and (rival := hedge.rival()) is not None:
                runners.append(_Runner(rival, span))
                yield _started(rival)
            while self.leader is None and runners:
                for event in await self._first_sign(runners):
                    yield event
            if self.leader is not None:
                async with aclosing(self._led(runners)) as events:
                    async for event in events:
                        yield event
        finally:
            for runner in runners:
                await runner.leave()
            if rival is not None:
                self._metrics.hedged(self._first.plan.entry.endpoint, self._result(rival))

    async def _first_sign(self, runners: list[_Runner]) -> list[RaceEvent]:
        """Waits until one of them has shown something: it leads from then on, or is out, which is told."""
        told: list[RaceEvent] = []
        await asyncio.wait([runner.first for runner in runners], return_when=asyncio.FIRST_COMPLETED)
        for runner in [runner for runner in runners if runner.first.done()]:
            error = runner.error()
            if error is not None:
                runners.remove(runner)
                told += self._settled(runner.attempt, error)
            elif self.leader is None:
                self.leader = runner.attempt
        return told

    async def _led(self, runners: list[_Runner]) -> AsyncGenerator[RaceEvent, None]:
        """The answer of the one who leads; the others are left at once."""
        (leading,) = [runner for runner in runners if runner.attempt is self.leader]
        losers = []
        for runner in [runner for runner in runners if runner is not leading]:
            failed = runner.error() if runner.first.done() else None
            if failed is None:
                losers.append(runner)
                runner.attempt.has_lost = True
            await runner.leave()
            if failed is not None:
                for event in self._settled(runner.attempt, failed):
                    yield event
        error: UpstreamError | None = None
        try:
            delta = leading.first.result()
            self._commit()
            while delta is not None:
                yield delta
                delta = await anext(leading.deltas, None)
        except UpstreamError as caught:
            # Its frames hold this very name: without them there is no cycle.
            error = caught.with_traceback(None)
        for loser in losers:
            yield self._counted(loser.attempt)
        for event in self._settled(leading.attempt, error):
            yield event

    async def _is_due(self) -> bool:
        """Waits, if that is to be; whether the call is to be made then."""
        wait_s: float | None = self._wait_s
        while wait_s:
            await self._sleep(max(LOOK_INTERVAL_S_MIN, wait_s))
            wait_s = self._wait_again_s()
        if wait_s is None:
            self._account.attempt_count -= 1
            self._commit()
        return wait_s is not None

    def _commit(self) -> None:
        """The attempt has shown a delta, or is not made: no failover has been paid for in vain."""
        if self._grant is not None:
            self._grant.give_back()
            self._grant = None

    def _settled(self, attempt: Attempt, error: UpstreamError | None) -> Iterator[RaceEvent]:
        """The end of an attempt, as the account has it and the caller sees it."""
        if attempt.has_used_tokens:
            yield self._counted(attempt)
        if error is None:
            self.winner = attempt
        else:
            self._account.failures.append(attempt.failure(error))
            yield self._account.failures[-1]

    def _counted(self, attempt: Attempt) -> UsageCounted:
        self._account.usages.append(attempt.usage())
        return self._account.usages[-1]

    def _result(self, rival: Attempt) -> HedgeResult:
        if self.leader is None:
            return HedgeResult.NEITHER
        return HedgeResult.WON if self.leader is rival else HedgeResult.LOST


def _started(attempt: Attempt) -> AttemptStarted:
    return AttemptStarted(attempt.plan.number, attempt.endpoint_name)


class _Runner:
    """An attempt whose first delta is awaited in a task of its own."""

    def __init__(self, attempt: Attempt, span: RequestSpan) -> None:
        self.attempt = attempt
        self.deltas = attempt.events(span)
        """All but the first, once that is there."""
        self.first = asyncio.create_task(self._begin(), name="attempt")
        """None for an answer without any delta."""

    async def _begin(self) -> Delta | None:
        return await anext(self.deltas, None)

    def error(self) -> UpstreamError | None:
        """Why the attempt failed before its first delta; None when it did not. Anything else is raised."""
        try:
            self.first.result()
        except UpstreamError as error:
            # The task holds it, and its frames hold the task: without them there is no cycle.
            return error.with_traceback(None)
        return None

    async def leave(self) -> None:
        """Ends the attempt, if it has not ended, and closes its connection."""
        self.first.cancel()
        await asyncio.gather(self.first, return_exceptions=True)
        await self.deltas.aclose()
