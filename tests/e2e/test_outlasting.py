"""A call of gRPC that nobody waits for any longer comes to its own end."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from pointsman_server.edge.outlasting import outlasting


class Sending:
    """Sends in two steps, each of which ends when it is told to."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.steps: tuple[asyncio.Future[None], asyncio.Future[None]] = (loop.create_future(), loop.create_future())
        self.seen: list[str] = []

    async def send(self) -> None:
        """What grpc.aio does: it waits, and then frees what it has made."""
        for number, step in enumerate(self.steps):
            try:
                await step
            except BaseException as error:
                self.seen.append(f"{number}: {type(error).__name__}")
                raise
            self.seen.append(f"{number}: freed")


async def turns() -> None:
    """Until what can happen has happened."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_ends_when_the_call_does() -> None:
    """After the last step, and not before."""
    sending = Sending()
    waiting = asyncio.create_task(outlasting(sending.send()))
    for number in range(2):
        await turns()
        assert not waiting.done()
        sending.steps[number].set_result(None)
    await waiting
    assert sending.seen == ["0: freed", "1: freed"]


async def test_a_call_that_has_nothing_to_wait_for_is_done_at_once() -> None:
    """Nor does its caller wait: what comes next runs in the same turn."""
    seen: list[str] = []

    async def send() -> None:
        seen.append("sent")

    asyncio.get_running_loop().call_soon(seen.append, "next turn")
    await outlasting(send())
    assert seen == ["sent"]


@pytest.mark.parametrize("number", [0, 1])
async def test_a_failure_of_grpc_reaches_who_waits(number: int) -> None:
    """At whatever step."""
    sending = Sending()
    waiting = asyncio.create_task(outlasting(sending.send()))
    for step in sending.steps[:number]:
        step.set_result(None)
    await turns()
    sending.steps[number].set_exception(grpc.aio.UsageError("the call is over"))
    with pytest.raises(grpc.aio.UsageError, match="the call is over"):
        await waiting


async def test_a_failure_before_anything_is_awaited_is_raised_as_it_is() -> None:
    """A message that can't be serialized, for one."""

    async def send() -> None:
        raise ValueError("no message")

    with pytest.raises(ValueError, match="no message"):
        await outlasting(send())


async def test_who_is_cancelled_leaves_at_once_and_the_call_goes_on() -> None:
    """The caller's cancellation is not the call's: it is resumed by what it waits for, and frees what it has made."""
    sending = Sending()
    waiting = asyncio.create_task(outlasting(sending.send()))
    await turns()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert sending.seen == []
    for step in sending.steps:
        assert not step.cancelled()
        step.set_result(None)
        await turns()
    assert sending.seen == ["0: freed", "1: freed"]


async def test_a_failure_that_nobody_waits_for_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """A call that is cancelled fails soon after: that is no news, and nothing for the log."""
    sending = Sending()
    waiting = asyncio.create_task(outlasting(sending.send()))
    await turns()
    waiting.cancel()
    await turns()
    sending.steps[0].set_exception(grpc.aio.UsageError("the call is over"))
    await turns()
    assert sending.seen == ["0: UsageError"]
    assert caplog.records == []
