"""How long a call waits, on an event loop whose clock the tests set forward: none takes the time that it is about."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from contextvars import Context
from typing import TypeVarTuple

import pytest
from pointsman_server.chat import (
    Conversation,
    Finished,
    FinishReason,
    Message,
    Role,
    TextDelta,
    TextPart,
    UpstreamEvent,
)
from pointsman_server.errors import UpstreamTimeoutError
from pointsman_server.providers.base import ProviderSettings, UpstreamCall
from pointsman_server.providers.openai_compatible import OpenAICompatibleProvider
from pointsman_server.providers.scripted import (
    LAST_CHUNK,
    Hang,
    ReadRequest,
    Script,
    ScriptedUpstream,
    Send,
    WaitFor,
    event,
    stream_head,
)

IDLE_TIMEOUT_S = 3_000.0
PAUSE_S = 2_000.0
"""One is shorter than the idle timeout, two are longer."""
SILENT = "the provider was silent for too long (ReadTimeout)"
TOO_LATE = "the provider did not answer before the deadline"

HELLO = Conversation((Message(Role.USER, (TextPart("Hello"),)),))
A = event('{"choices":[{"delta":{"content":"a"}}]}')
END = event('{"choices":[{"delta":{},"finish_reason":"stop"}]}') + event("[DONE]") + LAST_CHUNK

_Ts = TypeVarTuple("_Ts")
Batches = AsyncGenerator[tuple[UpstreamEvent, ...], None]


class SetForwardLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be set forward, and that counts the timers it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_s = 0.0
        self.timer_count = 0

    def time(self) -> float:
        """The clock."""
        return super().time() + self.ahead_s

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a timer."""
        self.timer_count += 1
        return super().call_at(when, callback, *args, context=context)

    async def pause(self, pause_s: float) -> None:
        """Let that much time pass at once, and whatever is due then happen."""
        self.ahead_s += pause_s
        for _ in range(5):
            await asyncio.sleep(0)


def run(scenario: Callable[[SetForwardLoop], Coroutine[None, None, None]]) -> None:
    """Play it on a loop of its own."""
    loop = SetForwardLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(scenario(loop))


@asynccontextmanager
async def calling(
    tls: ssl.SSLContext, *scripts: Script
) -> AsyncIterator[tuple[OpenAICompatibleProvider, ScriptedUpstream]]:
    """A provider that plays these, one per connection."""
    async with ScriptedUpstream(*scripts) as upstream:
        settings = ProviderSettings(name="p", base_url=upstream.base_url, idle_timeout_s=IDLE_TIMEOUT_S)
        provider = OpenAICompatibleProvider(settings, unix_s=lambda: 0.0, tls=tls)
        yield provider, upstream
        await provider.aclose()


def call_of(*, timeout_s: float | None = None) -> UpstreamCall:
    """A streamed call."""
    return UpstreamCall(upstream_model="m", conversation=HELLO, timeout_s=timeout_s)


async def next_of(batches: Batches) -> tuple[UpstreamEvent, ...]:
    """The next batch, as a coroutine."""
    return await anext(batches)


async def waiting_for(batches: Batches) -> asyncio.Task[tuple[UpstreamEvent, ...]]:
    """A task that waits for the next batch already."""
    task = asyncio.create_task(next_of(batches))
    await asyncio.sleep(0)
    assert not task.done()
    return task


def told(count: int) -> tuple[list[asyncio.Event], Script]:
    """A stream that begins with one text; so many follow, each when its event is set, and nothing after them."""
    events = [asyncio.Event() for _ in range(count)]
    steps = [step for go in events for step in (WaitFor(go), Send(A))]
    return events, (ReadRequest(), Send(stream_head() + A), *steps, Hang())


def test_a_stream_that_keeps_coming_is_never_silent(tls: ssl.SSLContext) -> None:
    """Pauses shorter than the idle timeout add up to many times of it, and nothing fails."""

    async def scenario(loop: SetForwardLoop) -> None:
        texts, script = told(20)
        async with calling(tls, script) as (provider, _), aclosing(provider.complete(call_of())) as batches:
            await anext(batches)
            for text in texts:
                waiting = await waiting_for(batches)
                await loop.pause(PAUSE_S)
                text.set()
                assert await waiting == (TextDelta("a"),)

    run(scenario)


def test_silence_counts_from_the_last_bytes(tls: ssl.SSLContext) -> None:
    """After text has come, the whole idle timeout has to pass before the call fails."""

    async def scenario(loop: SetForwardLoop) -> None:
        (text,), script = told(1)
        async with calling(tls, script) as (provider, upstream), aclosing(provider.complete(call_of())) as batches:
            await anext(batches)
            waiting = await waiting_for(batches)
            await loop.pause(PAUSE_S)
            text.set()
            await waiting
            waiting = await waiting_for(batches)
            await loop.pause(PAUSE_S)
            assert not waiting.done()
            await loop.pause(IDLE_TIMEOUT_S - PAUSE_S + 1.0)
            with pytest.raises(UpstreamTimeoutError) as raised:
                await waiting
            assert str(raised.value) == SILENT
            await upstream.connections[0].client_closed.wait()

    run(scenario)


def test_the_deadline_holds_while_text_keeps_coming(tls: ssl.SSLContext) -> None:
    """It counts from the call's beginning, however lively the stream is; the connection is closed."""

    async def scenario(loop: SetForwardLoop) -> None:
        texts, script = told(2)
        call = call_of(timeout_s=2.5 * PAUSE_S)
        async with calling(tls, script) as (provider, upstream), aclosing(provider.complete(call)) as batches:
            await anext(batches)
            for text in texts:
                waiting = await waiting_for(batches)
                await loop.pause(PAUSE_S)
                text.set()
                await waiting
            waiting = await waiting_for(batches)
            await loop.pause(PAUSE_S)
            with pytest.raises(UpstreamTimeoutError) as raised:
                await waiting
            assert str(raised.value) == TOO_LATE
            await upstream.connections[0].client_closed.wait()

    run(scenario)


@pytest.mark.parametrize(("timeout_s", "expected"), [(None, SILENT), (2 * IDLE_TIMEOUT_S, SILENT), (PAUSE_S, TOO_LATE)])
def test_before_the_head_the_earlier_limit_ends_the_call(
    tls: ssl.SSLContext, timeout_s: float | None, expected: str
) -> None:
    """Idle timeout and deadline hold from the moment at which the request is sent."""

    async def scenario(loop: SetForwardLoop) -> None:
        async with calling(tls, (ReadRequest(), Hang())) as (provider, upstream):
            waiting = await waiting_for(provider.complete(call_of(timeout_s=timeout_s)))
            await (await upstream.connection(0)).requested(1)
            await loop.pause(PAUSE_S - 1.0)
            assert not waiting.done()
            await loop.pause(IDLE_TIMEOUT_S - PAUSE_S + 2.0)
            with pytest.raises(UpstreamTimeoutError) as raised:
                await waiting
            assert str(raised.value) == expected
            await upstream.connections[0].client_closed.wait()

    run(scenario)


def test_the_time_that_the_user_takes_is_not_silence(tls: ssl.SSLContext) -> None:
    """Only waiting counts: after a long pause between reads the stream goes on, and real silence still ends it."""

    async def scenario(loop: SetForwardLoop) -> None:
        (text,), script = told(1)
        async with calling(tls, script) as (provider, _), aclosing(provider.complete(call_of())) as batches:
            await anext(batches)
            await loop.pause(10 * IDLE_TIMEOUT_S)
            waiting = await waiting_for(batches)
            await loop.pause(PAUSE_S)
            text.set()
            assert await waiting == (TextDelta("a"),)
            waiting = await waiting_for(batches)
            await loop.pause(IDLE_TIMEOUT_S + 1.0)
            with pytest.raises(UpstreamTimeoutError):
                await waiting

    run(scenario)


def test_the_limits_of_one_call_end_with_it(tls: ssl.SSLContext) -> None:
    """The next call over the same connection has its own."""

    async def scenario(loop: SetForwardLoop) -> None:
        go = asyncio.Event()
        first = (ReadRequest(), Send(stream_head() + END))
        async with calling(tls, (*first, ReadRequest(), WaitFor(go), Send(stream_head() + END))) as (
            provider,
            upstream,
        ):
            for timeout_s in (PAUSE_S / 2, None):
                async with aclosing(provider.complete(call_of(timeout_s=timeout_s))) as batches:
                    waiting = await waiting_for(batches)
                    await (await upstream.connection(0)).requested(1 if timeout_s else 2)
                    if timeout_s is None:
                        await loop.pause(PAUSE_S)
                        go.set()
                    assert await waiting == (Finished(FinishReason.STOP),)
                    assert [batch async for batch in batches] == []
            assert len(upstream.connections) == 1

    run(scenario)


def test_a_stream_sets_no_timer_for_each_of_its_pieces(tls: ssl.SSLContext) -> None:
    """A hundred texts, each waited for, take the timers of the first."""

    async def scenario(loop: SetForwardLoop) -> None:
        texts, script = told(100)
        call = call_of(timeout_s=2 * IDLE_TIMEOUT_S)
        async with calling(tls, script) as (provider, _), aclosing(provider.complete(call)) as batches:
            await anext(batches)
            timer_count = loop.timer_count
            for text in texts:
                waiting = await waiting_for(batches)
                text.set()
                await waiting
            assert timer_count == loop.timer_count

    run(scenario)
