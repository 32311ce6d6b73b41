"""How the cases call the router: raw messages, so that what is timed is the router's, and processes that can be killed."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, TypeAlias

import grpc
import pointsman
from google.rpc import error_details_pb2, status_pb2
from pointsman.v1.router_service_pb2 import CompleteRequest, CompleteResponse, Execution
from pointsman.v1.router_service_pb2_grpc import RouterServiceStub
from pointsman.v1.routing_pb2 import Routing

from benchmarks.faults.site import START_TIMEOUT_S

if TYPE_CHECKING:
    # A flavour of the stub that exists for type checkers alone.
    from pointsman.v1.router_service_pb2_grpc import RouterServiceAsyncStub

TIMEOUT_S = 300.0
"""Of calls whose deadline is not the point; reached by a fault alone."""
STATUS_TRAILER = "grpc-status-details-bin"

Call: TypeAlias = "grpc.aio.UnaryStreamCall[CompleteRequest, CompleteResponse]"  # generic for the type checker alone


@asynccontextmanager
async def connected(target: str, *, number: int = 0) -> AsyncIterator[RouterServiceAsyncStub]:
    """A connection of its own for each number."""
    options = [("grpc.use_local_subchannel_pool", 1), ("benchmark.number", number)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        stub: RouterServiceAsyncStub = RouterServiceStub(channel)
        yield stub


def request(router: str, execution: Execution | None = None) -> CompleteRequest:
    """A completion by that router."""
    return CompleteRequest(
        conversation=pointsman.conversation("hi"), routing=Routing(router=router, seed=1), execution=execution
    )


@dataclass(slots=True)
class Ended:
    """What came of one completion."""

    events: list[CompleteResponse]
    code: grpc.StatusCode
    details: status_pb2.Status
    """Empty for an answer that is complete."""
    started_s: float
    first_delta_s: float | None
    ended_s: float

    @property
    def text(self) -> str:
        """What the deltas add up to."""
        return "".join(event.delta.text for event in self.events)

    @property
    def error_info(self) -> error_details_pb2.ErrorInfo:
        """The ErrorInfo of the status; empty without one."""
        unpacked = error_details_pb2.ErrorInfo()
        any(packed.Unpack(unpacked) for packed in self.details.details)
        return unpacked


async def ended(stub: RouterServiceAsyncStub, asked: CompleteRequest, *, timeout_s: float = TIMEOUT_S) -> Ended:
    """A completion, read to its end, whatever that is."""
    found = Ended([], grpc.StatusCode.OK, status_pb2.Status(), time.monotonic(), None, 0.0)
    try:
        async for event in stub.Complete(asked, timeout=timeout_s):
            if found.first_delta_s is None and event.HasField("delta"):
                found.first_delta_s = time.monotonic()
            found.events.append(event)
    except grpc.aio.AioRpcError as error:
        found.code = error.code()
        for key, value in error.trailing_metadata() or ():
            if key == STATUS_TRAILER and isinstance(value, bytes):
                found.details.ParseFromString(value)
    found.ended_s = time.monotonic()
    return found


async def begun(call: Call) -> None:
    """Until the first delta has come."""
    async for event in call:
        if event.HasField("delta"):
            return


async def left(call: Call) -> float:
    """Cancels a stream that has begun, and says when it did."""
    await begun(call)
    cancelled_s = time.monotonic()
    call.cancel()
    return cancelled_s


class Victims:
    """Processes with one stream each, to be killed. Forked from one that has loaded everything but opened nothing."""

    def __init__(self, target: str, router: str, count: int) -> None:
        forking = multiprocessing.get_context("forkserver")
        forking.set_forkserver_preload([__name__])
        pipes = [forking.Pipe() for _ in range(count)]
        self._pipes = [ours for ours, _ in pipes]
        self._processes = [forking.Process(target=_stream, args=(theirs, target, router)) for _, theirs in pipes]
        for process in self._processes:
            process.start()

    def await_streams(self) -> None:
        """Until each has had its first delta."""
        for pipe in self._pipes:
            assert pipe.poll(START_TIMEOUT_S), "a victim has no stream"
            pipe.recv()

    def kill(self, number: int) -> float:
        """Ends that one without a word; when."""
        killed_s = time.monotonic()
        self._processes[number].kill()
        self._processes[number].join()
        return killed_s


def _stream(pipe: Connection, target: str, router: str) -> None:
    """A victim: begins a stream, says so, and reads on until it is killed."""
    with pointsman.Client(target) as client:
        is_told = False
        for event in client.complete("hi", router=router, timeout_s=TIMEOUT_S):
            if isinstance(event, pointsman.Delta) and not is_told:
                is_told = True
                pipe.send(os.getpid())


async def gathered(calls: Sequence[Call]) -> None:
    """Until all of these streams have begun."""
    await asyncio.gather(*(begun(call) for call in calls))
