"""The fault benchmark's own caller: it speaks enough of gRPC to be told from no other by a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from benchmarks.faults.lean import Raw, answered, calling, fields_of

SERVICE = "test.Service"
METHOD = f"/{SERVICE}/Call"
TIMEOUT_S = 5.0

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Handler = Callable[[bytes, Context], Awaitable[None]]


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[str]:
    """A server with that one method, on a port of its own."""
    server = grpc.aio.server()
    methods: dict[str, Any] = {"Call": grpc.unary_stream_rpc_method_handler(handler, None, None)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def retry_status() -> status_pb2.Status:
    """A status with details, longer than a frame's smallest window for lengths of one byte."""
    status = status_pb2.Status(code=8, message="slow down " * 50)
    status.details.add().Pack(error_details_pb2.RetryInfo())
    return status


async def test_a_refusal_is_read_with_its_details() -> None:
    """Code and details of each of many calls at one time, and the server is sent the message."""
    received = []

    async def refuse(message: bytes, context: Context) -> None:
        received.append(message)
        trailers = (("grpc-status-details-bin", retry_status().SerializeToString()),)
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down", trailers)

    async with served(refuse) as target, calling(target, METHOD, timeout_s=TIMEOUT_S) as caller:
        found = await asyncio.gather(*(caller.call(b"%d" % number * 1000) for number in range(5)))
    assert sorted(received) == [b"%d" % number * 1000 for number in range(5)]
    for one in [answered(raw, timeout_s=TIMEOUT_S) for raw in found]:
        assert one.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert one.details == retry_status()
        assert one.has_details("RetryInfo")
        assert not one.has_details("RetryInfo", "QuotaFailure")
        assert one.duration_s > 0.0


async def test_an_answer_is_read_to_its_end() -> None:
    """Messages are passed over, however many bytes they have, and the status that follows them counts."""

    async def answer(_: bytes, context: Context) -> None:
        for size in (1, 100_000):
            await context.write(bytes(size))

    async with served(answer) as target, calling(target, METHOD, timeout_s=TIMEOUT_S) as caller:
        found = answered(await caller.call(b""), timeout_s=TIMEOUT_S)
    assert (found.code, found.details) == (grpc.StatusCode.OK, status_pb2.Status())


async def test_a_server_ends_what_is_too_late() -> None:
    """The deadline goes with the call, and it is the server that keeps it."""

    async def hang(_: bytes, __: Context) -> None:
        await asyncio.Event().wait()

    async with served(hang) as target, calling(target, METHOD, timeout_s=0.05) as caller:
        found = answered(await caller.call(b""), timeout_s=0.05)
    assert found.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_stream_that_breaks_off_is_not_taken_for_a_late_one() -> None:
    """A reset before the deadline is a fault of the server's, and one after it is the deadline."""
    broken = Raw(started_s=1.0, ended_s=1.1, headers=None)
    assert answered(broken, timeout_s=0.2).code is grpc.StatusCode.INTERNAL
    assert answered(broken, timeout_s=0.05).code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_server_that_goes_ends_the_calls() -> None:
    """Nobody waits for an answer that can't come."""
    ended = asyncio.Event()

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()
        ended.set()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with calling(f"127.0.0.1:{port}", METHOD, timeout_s=TIMEOUT_S) as caller:
            with pytest.raises(ConnectionError):
                await caller.call(b"")
        await ended.wait()


def test_headers_are_read_as_a_server_writes_them() -> None:
    """A status of HTTP and updates of the table are passed over; names and values of any length are given in full; what a
    caller without a table can't know, and what is coded, is no header that a server may send here."""
    long = b"v" * 300
    block = b"\x20\x88\x40\x01a\x01b\x00\x01c\x00\x10\x01d\x7f\xad\x01" + long
    assert list(fields_of(block)) == [(b"a", b"b"), (b"c", b""), (b"d", long)]
    with pytest.raises(AssertionError, match="in full"):
        list(fields_of(b"\xbe"))
    with pytest.raises(AssertionError, match="Huffman"):
        list(fields_of(b"\x40\x81a\x01b"))
