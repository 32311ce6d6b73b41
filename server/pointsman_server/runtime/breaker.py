"""When an endpoint should be left alone, and when one call may try it again.

    CLOSED --(failures in a row, or their share, or a refused key)--> OPEN
    OPEN --(its time is over)--> HALF_OPEN
    HALF_OPEN --(a call starts: the trial)--> OPEN, until the trial ends
    trial succeeds --> CLOSED        trial fails --> OPEN for twice as long        trial ends without verdict --> HALF_OPEN

Rate limits are no failures and don't come here: the tracker honours them separately.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from pointsman_server.decision.types import BreakerState


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """When a breaker opens and for how long."""

    consecutive_failure_count: int = 5
    """Failures in a row that open it: at 5 % errors by chance once in three million calls, for a dead provider within
    a second of traffic."""
    failure_share: float = 0.6
    """Share of failures among the last calls that opens it: what fails more often than it answers, beyond chance. What fails
    less often is dear (`failures`), and so is left where others are nearly as good; but where all others are overloaded
    or slow, to do without it would be dearer yet."""
    failure_share_call_count: int = 20
    """Calls that the share is taken of: a number and not a time, so that it is noticed equally soon under any load, and
    by failures alone, not by many good calls of a moment ago. At 30 % errors 12 of 20 fail by chance once in 200 times."""
    failure_share_s: float = 60.0
    """Calls that ended longer ago don't count. Those before it opened do: of an endpoint that fails now and then one good
    trial says little, and the next failure opens it again."""
    open_s_first: float = 5.0
    """How long it stays open at first: most outages are a restart or a lost connection."""
    open_s_max: float = 10.0
    """Each failed trial doubles the time up to this: recovery is noticed within ten seconds, at the price of one call in
    that time that fails over, or of a probe."""
    open_s_min: float = 1.0
    """However late a trial fails, which has been part of that time, the next one is not made at once."""
    open_s_authentication: float = 300.0
    """After a refused key: a key doesn't heal by itself, but its quota or its billing may."""
    forgiven_after_s: float = 120.0
    """Closed for so long, the next opening starts from `open_s_first` again."""
    trial_s_max: float = 15.0
    """A trial that has not ended by then leaves its place to another: it may be a long answer, or lost."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A call's relation to the breaker: only what started since its last change says anything of its state."""

    era: int
    is_trial: bool


class Breaker:
    """The breaker of one endpoint. Constant memory; reading its state never changes it."""

    __slots__ = (
        "_changed_at_s",
        "_consecutive_failure_count",
        "_era",
        "_is_open",
        "_last_calls",
        "_open_until_s",
        "_opening_count",
        "_rules",
        "_trial_until_s",
    )

    def __init__(self, rules: BreakerRules) -> None:
        self._rules = rules
        self._is_open = False
        self._era = 0
        self._changed_at_s = -math.inf
        self._open_until_s = -math.inf
        self._trial_until_s = -math.inf
        self._opening_count = 0
        self._consecutive_failure_count = 0
        self._last_calls: deque[tuple[float, bool]] = deque(maxlen=rules.failure_share_call_count)
        """When each ended, and whether it failed."""

    def __repr__(self) -> str:
        state = f"open until {self._open_until_s}" if self._is_open else "closed"
        return f"Breaker({state}, failures in a row: {self._consecutive_failure_count})"

    def state(self, now_s: float) -> BreakerState:
        """Whether the endpoint may be called. OPEN also while a trial is under way."""
        if not self._is_open:
            return BreakerState.CLOSED
        if now_s < self._open_until_s or now_s < self._trial_until_s:
            return BreakerState.OPEN
        return BreakerState.HALF_OPEN

    @property
    def is_closed(self) -> bool:
        """Whether the endpoint may be called as one likes."""
        return not self._is_open

    def retry_after_s(self, now_s: float) -> float | None:
        """How long it stays open, or the trial that is under way may take at most; None when a call may be made."""
        if not self._is_open:
            return None
        remaining_s = max(self._open_until_s, self._trial_until_s) - now_s
        return remaining_s if remaining_s > 0.0 else None

    def start(self, now_s: float) -> Admission:
        """A call starts. On a half-open breaker it is the trial; on an open one it is made at the caller's own risk."""
        is_trial = self.state(now_s) is BreakerState.HALF_OPEN
        if is_trial:
            self._trial_until_s = now_s + self._rules.trial_s_max
        return Admission(self._era, is_trial)

    def admission_of(self, started_s: float) -> Admission:
        """The relation of a call that was made elsewhere and is known only now that it has ended."""
        return Admission(self._era if started_s >= self._changed_at_s else self._era - 1, is_trial=False)

    def succeed(self, admission: Admission, *, now_s: float) -> None:
        """A call succeeded, or has gone far enough to show that the endpoint answers."""
        if admission.era != self._era:
            return
        self._last_calls.append((now_s, False))
        if not self._is_open:
            self._consecutive_failure_count = 0
        elif now_s >= self._open_until_s:
            self._change(now_s, is_open=False)

    def fail(self, admission: Admission, *, is_authentication: bool, now_s: float) -> None:
        """A call failed, and it was the endpoint's fault or its key's."""
        if admission.era != self._era:
            return
        self._last_calls.append((now_s, True))
        if is_authentication:
            self._open(now_s, self._rules.open_s_authentication)
        elif self._is_open:
            if now_s >= self._open_until_s:
                self._open(now_s, tried_s=self._trial_until_s - self._rules.trial_s_max)
        else:
            self._consecutive_failure_count += 1
            if self._has_failed_enough(now_s):
                self._open(now_s)

    def release(self, admission: Admission) -> None:
        """A call ended and says nothing of the endpoint's health. If it was the trial, its place is free again."""
        if admission.is_trial and admission.era == self._era:
            self._trial_until_s = -math.inf

    def _has_failed_enough(self, now_s: float) -> bool:
        rules = self._rules
        if self._consecutive_failure_count >= rules.consecutive_failure_count:
            return True
        recent = [failed for ended_s, failed in self._last_calls if now_s - ended_s <= rules.failure_share_s]
        return len(recent) == rules.failure_share_call_count and sum(recent) >= rules.failure_share * len(recent)

    def _open(self, now_s: float, open_s: float | None = None, *, tried_s: float | None = None) -> None:
        """Opens for so long, or for what failures so far make it. A trial that fails late has been part of that time."""
        rules = self._rules
        if not self._is_open and now_s - self._changed_at_s >= rules.forgiven_after_s:
            self._opening_count = 0
        if open_s is None:
            # The exponent is bounded, so that a year of failures doesn't overflow.
            open_s = min(rules.open_s_max, rules.open_s_first * 2.0 ** min(self._opening_count, 32))
        self._opening_count += 1
        self._change(now_s, is_open=True)
        self._open_until_s = now_s + open_s
        if tried_s is not None:
            self._open_until_s = max(now_s + rules.open_s_min, tried_s + open_s)

    def _change(self, now_s: float, *, is_open: bool) -> None:
        self._is_open = is_open
        self._era += 1
        self._changed_at_s = now_s
        self._trial_until_s = -math.inf
        self._consecutive_failure_count = 0
