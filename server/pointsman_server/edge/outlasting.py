"""What has been handed to gRPC, and must come to its end even when nobody waits for it any longer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any

import grpc


async def outlasting(sending: Awaitable[None]) -> None:
    """Awaits a call of grpc.aio. Whoever is cancelled meanwhile leaves at once, and the call goes on to its own end.

    grpc.aio frees what it has made for a message when the coroutine that sends it is resumed. One that is cancelled while
    it waits is never resumed: some 300 bytes are lost for good, with each caller who leaves at such a moment.
    `asyncio.shield` does the same for a task, at three times the price, for each piece of an answer.

    Raises:
        BaseError: gRPC's own, as it comes from the call.
    """
    steps = sending.__await__()
    try:
        waited = next(steps)
    except StopIteration:
        return
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    _Rest(steps, end).go_on_after(waited)
    await end


class _Rest:
    """What is left to do of a coroutine: resumed by what it waits for, as a task would resume it."""

    __slots__ = ("_end", "_steps")

    def __init__(self, steps: Generator[Any, None, None], end: asyncio.Future[None]) -> None:
        self._steps = steps
        self._end = end
        """Who waits for the end, unless cancelled."""

    def go_on_after(self, waited: asyncio.Future[Any]) -> None:
        assert asyncio.isfuture(waited), "grpc.aio waits for futures alone"
        # By this a future knows that what awaits it has told its event loop; see `asyncio.Future.__await__`.
        waited._asyncio_future_blocking = False  # noqa: SLF001 - the protocol between futures and tasks
        waited.add_done_callback(self._go_on)

    def _go_on(self, _: object) -> None:
        error: grpc.aio.BaseError | None = None
        try:
            waited = next(self._steps)
        except StopIteration:
            pass
        except grpc.aio.BaseError as raised:
            error = raised
        else:
            self.go_on_after(waited)
            return
        if self._end.cancelled():
            return
        if error is None:
            self._end.set_result(None)
        else:
            self._end.set_exception(error)
