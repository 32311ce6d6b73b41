"""Virtual time for asyncio: a loop whose clock jumps to the next timer instead of waiting for it.

Whatever runs on it runs unchanged, as fast as the processor allows, and in the same order every time: nothing outside of
the process is waited for, so timers alone decide what happens next. Work without an `await` takes no time at all.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from contextlib import closing
from typing import Any, TypeVar

Result = TypeVar("Result")


class StalledError(Exception):
    """Everything waits and no timer is set: in virtual time nothing could ever happen again."""


class _JumpingSelector(selectors.BaseSelector):
    """Waits for nothing: the time that it was to wait is added to the clock. Holds the loop's own socket, unread."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._held = selectors.DefaultSelector()

    def register(self, fileobj: Any, events: int, data: object = None) -> selectors.SelectorKey:
        return self._held.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._held.unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StalledError("nothing is left that could happen")
        self.now_s += max(0.0, timeout)
        return []

    def close(self) -> None:
        self._held.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._held.get_map()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, which starts at 0 s. It serves no sockets, no threads and no signals."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now_s


def run_virtually(main: Coroutine[Any, Any, Result]) -> Result:
    """Runs `main` to its end on a loop of its own; what it leaves running is cancelled.

    Raises:
        StalledError: `main` waits for something that can't happen.
    """
    with closing(VirtualLoop()) as loop:
        try:
            return loop.run_until_complete(main)
        finally:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left))
            loop.run_until_complete(loop.shutdown_asyncgens())
