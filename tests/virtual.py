"""An event loop in virtual time: where it would wait, its clock jumps. For what opens no socket."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import TypeVar

_T = TypeVar("_T")


class _JumpingSelector(selectors.SelectSelector):
    """Waits no time at all, and says how long it would have."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready."""
        ready = super().select(0.0)
        if not ready:
            assert timeout is not None, "everything waits, and for nothing that a clock could bring"
            self.now_s += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; its time starts at 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        # A timer is due when the clock is within this of it; jumps are exact but for rounding.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """The clock."""
        return self._jumping.now_s


def run(scenario: Coroutine[None, None, _T]) -> _T:
    """Plays it to its end on a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scenario)
