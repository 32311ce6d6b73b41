"""The limit on waits: it ends the one that is too long, and only that."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest
import uvloop
from pointsman_server.alarm import LATE_S, Alarm

from benchmarks.drift.loop import run_virtually


async def never() -> None:
    """Waits for what never comes."""
    await asyncio.Event().wait()


def test_a_wait_that_is_too_long_ends_on_time() -> None:
    """TimeoutError after the limit, not later and not sooner, also when an earlier wait had set the timer."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        alarm = Alarm()
        await alarm.limited(asyncio.sleep(1.0), limit_s=5.0)
        with pytest.raises(TimeoutError):
            await alarm.limited(never(), limit_s=5.0)
        assert loop.time() == pytest.approx(6.0)
        with pytest.raises(TimeoutError):
            await alarm.limited(never(), limit_s=2.0)
        assert loop.time() == pytest.approx(8.0)
        alarm.close()

    run_virtually(scenario())


def test_a_shorter_limit_overtakes_a_longer_one() -> None:
    """The timer of an earlier, longer limit does not hold up a shorter one."""

    async def scenario() -> None:
        alarm = Alarm()
        await alarm.limited(asyncio.sleep(0.0), limit_s=100.0)
        with pytest.raises(TimeoutError):
            await alarm.limited(never(), limit_s=1.0)
        assert asyncio.get_running_loop().time() == pytest.approx(1.0)
        alarm.close()

    run_virtually(scenario())


def test_many_short_waits_are_none_too_long() -> None:
    """A thousand waits that each keep the limit together last far longer, and share a timer."""

    async def scenario() -> None:
        alarm = Alarm()
        for _ in range(1000):
            assert await alarm.limited(asyncio.sleep(0.9, "piece"), limit_s=1.0) == "piece"
        alarm.close()
        await asyncio.sleep(10.0)

    run_virtually(scenario())


def test_cancelling_from_outside_goes_on() -> None:
    """Who cancels the task gets CancelledError through, also when the alarm rings in the same instant."""

    async def scenario() -> None:
        for cancel_after_s in (0.5, 1.0):
            task = asyncio.create_task(limited())
            asyncio.get_running_loop().call_later(cancel_after_s, task.cancel)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()

    async def limited() -> None:
        alarm = Alarm()
        try:
            await alarm.limited(never(), limit_s=1.0)
        finally:
            alarm.close()

    run_virtually(scenario())


def test_a_task_that_was_rung_at_can_wait_again() -> None:
    """The alarm leaves no trace of a cancellation: a timeout around the next wait works as ever."""

    async def scenario() -> None:
        alarm = Alarm()
        with pytest.raises(TimeoutError):
            await alarm.limited(never(), limit_s=1.0)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await never()
        alarm.close()

    run_virtually(scenario())


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_what_came_while_the_loop_was_held_up_was_in_time(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """A process that was stopped for longer than a limit, with the bytes that it waits for there by then, reads them."""

    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        alarm = Alarm()
        waiting = asyncio.ensure_future(alarm.limited(reader.readexactly(4), limit_s=LATE_S))
        await asyncio.sleep(0)
        theirs.send(b"here")
        time.sleep(3 * LATE_S)  # noqa: ASYNC251 - nothing else holds a loop up
        try:
            assert await waiting == b"here"
        finally:
            alarm.close()
            writer.close()
            theirs.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(scenario())
