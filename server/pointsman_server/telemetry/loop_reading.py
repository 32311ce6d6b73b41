"""Reading what belongs to an event loop from another thread, without racing with what runs there."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import TypeVar

READ_TIMEOUT_S = 1.0
"""A loop that does not come to it for so long is overloaded, or has ended: the figures are left out that time."""

_T = TypeVar("_T")


def read_in_loop(loop: asyncio.AbstractEventLoop, read: Callable[[], _T]) -> _T | None:
    """What `read` gives in the loop's own thread; None when it does not come to that in time."""
    try:
        if asyncio.get_running_loop() is loop:
            return read()
    except RuntimeError:
        pass  # Another thread, without a loop of its own.

    async def reading() -> _T:
        return read()

    asked = reading()
    try:
        return asyncio.run_coroutine_threadsafe(asked, loop).result(READ_TIMEOUT_S)
    except concurrent.futures.TimeoutError:
        return None
    except RuntimeError:  # The loop is closed.
        asked.close()
        return None
