"""What is held for streams: for slow readers, for thousands at once, and after hundreds of thousands."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import grpc
from google.protobuf.duration_pb2 import Duration
from pointsman.v1.router_service_pb2 import Execution
from pointsman_server.providers.scripted import (
    Close,
    Hang,
    Pause,
    ReadRequest,
    Reset,
    Script,
    Send,
    stream_head,
    whole_answer,
)

from benchmarks.faults import figures
from benchmarks.faults.amount import Amount
from benchmarks.faults.calling import connected, ended, left, request
from benchmarks.faults.figures import Measured
from benchmarks.faults.site import ANSWER, END, ENDLESS, PIECES, QUICK, Provided, RouterState, Site, delta

if TYPE_CHECKING:
    # A flavour of the stub that exists for type checkers alone.
    from pointsman.v1.router_service_pb2_grpc import RouterServiceAsyncStub

MB = 1024 * 1024
WARM_UP_COUNT = 1500
"""Fills what has a bound: the memory of decisions holds 1,000 of them."""
CANCELLED_WARM_UP_COUNT = 5000
"""Of streams that are cancelled: resident memory goes up and down by a quarter of a megabyte while free memory finds its
places, mostly within the first thousands. Those that are counted first come last, so that memory is laid out for them."""
CONNECTION_COUNT = 8
"""Over which the streams of a burst are spread, as callers are."""
AT_A_TIME = 32
"""Callers whose streams are counted for memory."""
SETTLING_TIMEOUT_S = 60.0
"""More than it takes until an idle connection expires, which is kept for 30 s."""
PIECE_BYTES = 1000
SLOW_BYTES = 10 * MB


async def slow_reader(amount: Amount) -> Measured:
    """A9: an answer of 10 MB that its caller takes a message of in a second."""
    sends = [Send(delta("x" * PIECE_BYTES)) for _ in range(SLOW_BYTES // PIECE_BYTES)]
    providers = {
        "long": Provided(scripts=((ReadRequest(), Send(stream_head()), *sends, Send(END)),)),
        "quick": Provided(scripts=(QUICK,)),
    }
    async with Site(providers) as site, connected(site.target) as stub:
        await _completed(lambda: ended(stub, request("m0@quick")), WARM_UP_COUNT // 5)
        before = site.memory_bytes()
        call = stub.Complete(request("m0@long"))
        most, end_s = before, time.monotonic() + amount.reading_s
        while time.monotonic() < end_s:
            await call.read()
            await asyncio.sleep(1.0)
            most = max(most, site.memory_bytes())
        call.cancel()
    return {figures.SLOW_READER: (most - before) / MB}


async def burst(amount: Amount) -> Measured:
    """A10: streams that are opened all at once, each with a message a second."""
    pieces = [f"{number} " for number in range(amount.burst_message_count)]
    sends = [step for piece in pieces for step in (Send(delta(piece)), Pause(1.0))]
    providers = {
        "paced": Provided(scripts=((ReadRequest(is_kept=False), Send(stream_head()), *sends, Send(END)),)),
        "quick": Provided(scripts=(QUICK,)),
    }
    async with Site(providers, server_lines="ttft_timeout_s = 120") as site, AsyncExitStack() as stack:
        stubs = [
            await stack.enter_async_context(connected(site.target, number=number)) for number in range(CONNECTION_COUNT)
        ]
        await _completed(lambda: ended(stubs[0], request("m0@quick")), WARM_UP_COUNT // 5)
        before = site.memory_bytes()
        calls = asyncio.gather(
            *(ended(stubs[number % CONNECTION_COUNT], request("m0@paced")) for number in range(amount.burst_count))
        )
        most = before
        while not calls.done():
            await asyncio.wait([calls], timeout=0.25)
            most = max(most, site.memory_bytes())
        found = await calls
    expected = "".join(pieces)
    return {
        figures.BURST_ERRORS: sum(one.code is not grpc.StatusCode.OK for one in found),
        figures.BURST_INEXACT: sum(one.text != expected for one in found),
        figures.BURST_MEMORY: (most - before) / amount.burst_count / 1024.0,
    }


async def soak(amount: Amount, seed: int) -> Measured:
    """F2 to F4: streams by the thousands that are completed, then such that are cancelled, then all that can go wrong."""
    sent: Script = (ReadRequest(is_kept=False), Send(stream_head()), *(Send(delta(piece)) for piece in PIECES[:2]))
    refusal = whole_answer("bad gateway", status=502)
    providers = {
        "quick": Provided(scripts=(QUICK,)),
        "endless": Provided(scripts=(ENDLESS,)),
        "resets": Provided(scripts=((*sent, Reset()),)),
        "closes": Provided(scripts=((*sent, Close()),)),
        "stalls": Provided(scripts=((*sent, Hang()),), lines="idle_timeout_s = 0.5"),
        "refuses": Provided(scripts=((ReadRequest(is_kept=False), Send(refusal)),)),
        "silent": Provided(scripts=((ReadRequest(is_kept=False), Hang()),)),
    }
    async with Site(providers) as site, connected(site.target) as stub:

        async def complete() -> None:
            assert (await ended(stub, request("m0@quick"))).text == ANSWER

        async def cancel() -> None:
            await left(stub.Complete(request("m0@endless")))

        kinds = _mixed(stub, random.Random(seed))
        # Each kind has been once: what is made for the first of all is there.
        await _completed(kinds, amount.mixed_count // 10)
        await _completed(cancel, CANCELLED_WARM_UP_COUNT)
        await _completed(complete, WARM_UP_COUNT)
        # Always without a connection that is kept for the next call: those that are take memory, too.
        before = await _settled(site)
        await _completed(complete, amount.completed_count)
        completed = await _settled(site)
        await _completed(cancel, amount.cancelled_count)
        cancelled = await _settled(site)
        await _completed(kinds, amount.mixed_count)
        after = await _settled(site, as_before=before)
        open_count = await site.open_count()
    return {
        figures.COMPLETED_GROWTH: (completed.memory_bytes - before.memory_bytes) / MB,
        figures.CANCELLED_GROWTH: (cancelled.memory_bytes - completed.memory_bytes) / amount.cancelled_count,
        figures.LEFT_SOCKETS: after.socket_count - before.socket_count,
        figures.LEFT_TASKS: after.task_count - before.task_count,
        figures.LEFT_CONNECTIONS: open_count,
    }


def _mixed(stub: RouterServiceAsyncStub, rng: random.Random) -> Callable[[], Awaitable[None]]:
    """A function that makes a call of which something goes wrong, another thing each time."""
    quick = Execution(ttft_timeout=Duration(nanos=200_000_000), allow_hedging=True)

    async def call() -> None:
        name = rng.choice(["resets", "closes", "stalls", "refuses", "silent", "endless", "quick"])
        router = f"m0@{name}->m0@quick"
        await ended(stub, request(router, quick), timeout_s=rng.choice([0.05, 0.3, 1.0]))

    return call


async def _completed(call: Callable[[], Awaitable[object]], count: int) -> None:
    """So many calls, a bounded number at a time."""
    numbers = iter(range(count))

    async def caller() -> None:
        for _ in numbers:
            await call()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(AT_A_TIME, count)):
            group.create_task(caller())


async def _settled(site: Site, *, as_before: RouterState | None = None) -> RouterState:
    """The router's state once no connection to a provider is open, and, where it is told what it was before, once sockets
    and tasks are as many as then; or what it is when that takes too long."""
    end_s = time.monotonic() + SETTLING_TIMEOUT_S
    while True:
        state = await site.state()
        is_settled = await site.open_count() == 0
        if as_before is not None:
            is_settled &= (state.socket_count, state.task_count) == (as_before.socket_count, as_before.task_count)
        if is_settled or time.monotonic() > end_s:
            return await site.state()
        await asyncio.sleep(0.25)
