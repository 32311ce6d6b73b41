"""A limit on each of many short waits, for the price of one timer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import TypeVar

_T = TypeVar("_T")

LATE_S = 0.05
"""A timer that goes off later than this shows that the loop was held up: the process was stopped, or had no processor."""
SECOND_LOOK_S = 0.01
"""What came meanwhile is read within this, and was in time."""


class Alarm:
    """Ends waits that take too long, one at a time, as `asyncio.timeout` does.

    Its timer goes off when the wait that set it would be too long, and is then set again for what is left to the wait of
    that moment: a timer for each piece of an answer would cost more than taking it in. To be closed after the last wait.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s = math.inf
        self._waiting: asyncio.Task[object] | None = None
        self._due_s = math.inf
        self._has_rung = False
        self._was_held_up = False

    async def limited(self, wait: Awaitable[_T], *, limit_s: float) -> _T:
        """What is waited for.

        Raises:
            TimeoutError: It took longer than `limit_s`, and was cancelled.
        """
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        assert self._waiting is None, "one wait at a time"
        self._due_s, self._was_held_up = self._loop.time() + limit_s, False
        if self._due_s < self._timer_due_s:
            self._set()
        self._waiting, cancelling_count = task, task.cancelling()
        try:
            return await wait
        except asyncio.CancelledError:
            # Also cancelled by someone else: that goes on.
            if self._has_rung and task.cancelling() - 1 <= cancelling_count:
                raise TimeoutError from None
            raise
        finally:
            self._waiting = None
            if self._has_rung:
                self._has_rung = False
                task.uncancel()

    def close(self) -> None:
        """Take the timer back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_due_s = None, math.inf

    def _set(self) -> None:
        self.close()
        self._timer_due_s = self._due_s
        self._timer = self._loop.call_at(self._due_s, self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_due_s = None, math.inf
        if self._waiting is None:
            # The next wait sets the timer again.
            return
        late_s = self._loop.time() - self._due_s
        if late_s < 0.0:
            self._set()
        elif late_s > LATE_S and not self._was_held_up:
            self._was_held_up = True
            self._timer_due_s = self._loop.time() + SECOND_LOOK_S
            self._timer = self._loop.call_at(self._timer_due_s, self._ring)
        else:
            self._has_rung = True
            self._waiting.cancel()
