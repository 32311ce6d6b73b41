"""What calls say that still wait: a hang shows in them long before the first timeout.

A call that has waited for longer than nearly all others did may be a straggler; several such calls, of which none that
began later was answered, are not. Each is evidence by how rarely a call waits so long; a call that was overtaken by a
later one is a straggler and counts no more. The evidence that is needed is that of `level`'s change of regime: a
surprise of one in a thousand.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from pointsman_server.runtime.level import Level

WAITING_COUNT_MAX = 32
"""Calls that are watched while they wait, per endpoint: those that began first say the most, and ten overdue are proof."""
HANG_SURPRISE = 7.0
"""Natural logarithm of 1,000: a level changes once in so many calls, so a wait must be as unlikely as that."""
SURPRISE_MAX = 14.0
"""From here on a hang is certain, and what the other calls say needs no reading."""
STRAGGLER_SHARE = 0.02
STRAGGLER_RATIO = 2.0
STRAGGLER_POWER = 1.5
"""One call in fifty takes twice the median for reasons of its own, and of those one in three twice as long again: public
traces show 1 to 7 % beyond twice the median, and the longest at fifty times. A single call must wait for eight times the
median before it is believed."""
REMAINING_RATIO = 2.0
"""Who has waited so long will wait as long again (Lindy): the expected whole of a wait is twice what has passed."""

EARLY_SHARE = 0.5
"""Who has waited for less than half the median says nothing, and nor does who began later: so much need not be read where
many wait as they should."""

STALL_S_MIN = 1.0
"""A shorter silence of a stream is a batch in the making, a tool's thought, a lost packet."""
STALL_GAP_COUNT = 20.0
"""A silence of so many usual gaps is as rare as a wait of `STRAGGLER_RATIO` medians: pieces come by the dozen."""

VAIN_S = 30.0
"""What those say who gave up fades away in so much time: an endpoint that everybody left is worth another look within half
a minute."""

_LOG_STRAGGLER_RATIO = math.log(STRAGGLER_RATIO)
_SQRT_2 = math.sqrt(2.0)


class Delay(NamedTuple):
    """What those who wait say of the next call."""

    chance: float
    """0..1, that the endpoint hangs, or has become so slow that it looks like it."""
    expected_s: float
    """How long the next call would wait if so."""


class WaitingCall(NamedTuple):
    """A call that waits for its first token."""

    started_s: float
    load: float
    """The calls that were under way when it began."""
    length: float
    """Tokens of its input."""


class WaitingRoom:
    """The calls of one endpoint that wait for their first token and that none that began later has overtaken: at most
    `WAITING_COUNT_MAX`, those that began first; and what those said that waited in vain since somebody was answered."""

    __slots__ = ("_answered_from_s", "_calls", "_vain_from_s", "_vain_s", "_vain_surprise")

    def __init__(self) -> None:
        self._calls: deque[WaitingCall] = deque()
        self._answered_from_s = -math.inf
        """When the last of those began that were answered."""
        # Of those who gave up since: when the first of them began, how surprising their waits were in all, and when that was.
        self._vain_from_s = math.inf
        self._vain_surprise = 0.0
        self._vain_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._calls) or self._vain_surprise > 0.0

    def enter(self, call: WaitingCall) -> None:
        """A call begins."""
        if len(self._calls) < WAITING_COUNT_MAX:
            self._calls.append(call)

    def answered(self, started_s: float) -> None:
        """A call that began then has its first token; whoever began no later is not waiting for a sign of life any more."""
        while self._calls and self._calls[0].started_s <= started_s:
            self._calls.popleft()
        self._answered_from_s = max(self._answered_from_s, started_s)
        if started_s >= self._vain_from_s:
            self._vain_from_s, self._vain_surprise = math.inf, 0.0

    def leave(self, call: WaitingCall) -> None:
        """A call ends in vain."""
        with suppress(ValueError):
            self._calls.remove(call)

    def gave_up(self, wait_s: float, level: Level | None, *, now_s: float) -> None:
        """A call waited so long in vain. `level` is where the time to first token stood for it; None: it is not known."""
        started_s = now_s - wait_s
        if level is None or wait_s <= 0.0 or started_s <= self._answered_from_s:
            return
        before = self._vain(now_s)
        self._vain_from_s = min(self._vain_from_s, started_s) if before > 0.0 else started_s
        self._vain_surprise = min(SURPRISE_MAX, before + wait_surprise(wait_s, level))
        self._vain_s = now_s

    def _vain(self, now_s: float) -> float:
        """What is left of the surprise of those who gave up."""
        return self._vain_surprise * max(0.0, 1.0 - max(0.0, now_s - self._vain_s) / VAIN_S)

    def delay(self, now_s: float, level_of: Callable[[float, float], Level | None], *, usual_s: float) -> Delay | None:
        """What is to be expected by those who wait, or gave up; None as long as nobody waits for unusually long.

        Args:
            now_s: The instant.
            level_of: Where the time to first token stands, at a load and for a length of the input.
            usual_s: The median time to first token.
        """
        surprise = self._vain(now_s)
        since_s = self._vain_from_s if surprise > 0.0 else math.inf
        for call in self._calls:
            wait_s = now_s - call.started_s
            if wait_s <= EARLY_SHARE * usual_s:
                break
            level = level_of(call.load, call.length)
            if level is None:
                return None
            surprise += wait_surprise(wait_s, level)
            if surprise >= SURPRISE_MAX:
                break
        if surprise <= 0.0:
            return None
        if self._calls:
            since_s = min(since_s, self._calls[0].started_s)
        return Delay(_chance(surprise), REMAINING_RATIO * max(0.0, now_s - since_s))


def wait_surprise(wait_s: float, level: Level) -> float:
    """How surprising such a wait is: minus the logarithm of the share of calls that wait longer. 0 below the median."""
    ratio = math.log(wait_s) - level.log_median
    if ratio <= 0.0:
        return 0.0
    score = ratio / math.hypot(level.log_spread, level.log_standard_error)
    straggling = min(1.0, math.exp(-STRAGGLER_POWER * (ratio - _LOG_STRAGGLER_RATIO)))
    share = (1.0 - STRAGGLER_SHARE) * 0.5 * math.erfc(score / _SQRT_2) + STRAGGLER_SHARE * straggling
    return -math.log(share)


def stall(silent_s: float, *, stream_count: int, gap_s: float) -> Delay | None:
    """What the silence of all streams of an endpoint says; None as long as it is not unusual.

    Args:
        silent_s: Since any of them had a token.
        stream_count: How many there are.
        gap_s: The usual time between two tokens.
    """
    if stream_count == 0:
        return None
    usual_s = max(STALL_S_MIN, STALL_GAP_COUNT * gap_s)
    if silent_s <= usual_s:
        return None
    surprise = stream_count * (STRAGGLER_POWER * math.log(silent_s / usual_s) - math.log(STRAGGLER_SHARE))
    return Delay(_chance(min(SURPRISE_MAX, surprise)), REMAINING_RATIO * silent_s)


def _chance(surprise: float) -> float:
    return 1.0 / (1.0 + math.exp(HANG_SURPRISE - surprise))
