"""How a completion ended, told to the decision log whichever way it did."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from pointsman_server.attempt import Attempt
from pointsman_server.decision.types import Decision
from pointsman_server.decision_log.keeper import DecisionLog
from pointsman_server.decision_log.records import CompletionResult, LoggedAttempt, LoggedCompletion
from pointsman_server.errors import AttemptsExhaustedError, DeadlineExceededError, StreamBrokenError
from pointsman_server.race import Account


class Ending:
    """Around the attempts of a completion. Without a log it does nothing."""

    def __init__(
        self,
        log: DecisionLog | None,
        decision: Decision,
        account: Account,
        *,
        arrived_s: float,
        clock_s: Callable[[], float],
    ) -> None:
        self.winner: Attempt | None = None
        """Whose answer is complete; set by who runs the attempts."""
        self._log = log
        self._decision = decision
        self._account = account
        self._arrived_s = arrived_s
        self._clock_s = clock_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._log is not None:
            self._log.add(self._record(error, now_unix_s=self._log.now_unix_s()))

    def _record(self, error: BaseException | None, *, now_unix_s: float) -> LoggedCompletion:
        account, winner = self._account, self.winner
        costs = [usage.cost_usd for usage in account.usages]
        first_delta_s = None if winner is None else winner.first_delta_s
        return LoggedCompletion(
            decision_id=self._decision.decision_id,
            time_unix_s=now_unix_s,
            result=CompletionResult.DONE if winner is not None else _result_of(error),
            endpoint_name=None if winner is None else winner.endpoint_name,
            ttft_s=None if first_delta_s is None else first_delta_s - self._arrived_s,
            duration_s=self._clock_s() - self._arrived_s,
            cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
            attempt_count=account.attempt_count,
            attempts=_attempts_of(account),
        )


def _result_of(error: BaseException | None) -> CompletionResult:
    match error:
        case AttemptsExhaustedError():
            return CompletionResult.EXHAUSTED
        case StreamBrokenError():
            return CompletionResult.BROKEN
        case DeadlineExceededError():
            return CompletionResult.DEADLINE
        case asyncio.CancelledError() | GeneratorExit():
            return CompletionResult.LEFT
        case _:
            return CompletionResult.FAILED


def _attempts_of(account: Account) -> tuple[LoggedAttempt, ...]:
    """The attempts that failed or used tokens, by number."""
    failures = {failure.attempt_number: failure for failure in account.failures}
    usages = {usage.attempt_number: usage for usage in account.usages}
    attempts = []
    for number in sorted(failures.keys() | usages.keys()):
        failure, used = failures.get(number), usages.get(number)
        endpoint_name = failure.endpoint_name if failure is not None else usages[number].endpoint_name
        attempts.append(
            LoggedAttempt(
                number=number,
                endpoint_name=endpoint_name,
                failure=None if failure is None else failure.kind,
                input_token_count=None if used is None else used.usage.input_token_count,
                output_token_count=None if used is None else used.usage.output_token_count,
                cached_input_token_count=None if used is None else used.usage.cached_input_token_count,
                cost_usd=None if used is None else used.cost_usd,
            )
        )
    return tuple(attempts)
