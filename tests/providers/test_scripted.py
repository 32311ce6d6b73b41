"""The scripted upstream itself: each step does what it says, and everything is recorded."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from pointsman_server.providers.scripted import (
    UNKNOWN_HOST,
    Close,
    DeafPort,
    HalfClose,
    Hang,
    Pause,
    ReadAnything,
    ReadRequest,
    Repeat,
    Reset,
    ScriptedUpstream,
    Send,
    SendBeneath,
    WaitFor,
    chunk,
    whole_answer,
)

CERTIFICATE = Path(__file__).with_name("localhost.pem")
REQUEST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


async def test_requests_are_recorded_byte_for_byte() -> None:
    """Two requests that arrive in odd pieces on one connection are told apart."""
    async with ScriptedUpstream((ReadRequest(), ReadRequest(), Send(b"done"))) as upstream:
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        for piece in (REQUEST[:7], REQUEST[7:-1], REQUEST[-1:] + b"GET / HTTP/1.1\r\n\r\n"):
            writer.write(piece)
            await writer.drain()
        assert await reader.read() == b"done"
        writer.close()
        recorded = [(request.head, request.body) for request in upstream.connections[0].requests]
    assert recorded == [(REQUEST[:-3], b"abc"), (b"GET / HTTP/1.1\r\n\r\n", b"")]


async def test_a_reset_is_a_reset() -> None:
    """The client sees ECONNRESET, not an orderly end, and has what was sent before."""
    async with ScriptedUpstream((Send(b"a"), Pause(0.01), Reset())) as upstream:
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        assert await reader.readexactly(1) == b"a"
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_half_closed_connection_still_reads() -> None:
    """The client sees the end and can go on sending."""
    async with ScriptedUpstream((HalfClose(), ReadRequest(), Close())) as upstream:
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        assert await reader.read() == b""
        writer.write(REQUEST)
        await upstream.connections[0].requested(1)
        writer.close()


async def test_a_script_waits_for_the_test() -> None:
    """Nothing is sent before the event is set."""
    go = asyncio.Event()
    async with ScriptedUpstream((WaitFor(go), Send(b"a"))) as upstream:
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        await upstream.connection(0)
        go.set()
        assert await reader.read() == b"a"
        writer.close()


@pytest.mark.parametrize("abruptly", [True, False])
async def test_the_clients_close_is_noted(*, abruptly: bool) -> None:
    """In order or by a reset: the event is set, with its moment, and the script ends."""
    async with ScriptedUpstream((Send(b"a"), Hang())) as upstream:
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        await reader.readexactly(1)
        connection = upstream.connections[0]
        if abruptly:
            writer.transport.abort()
        else:
            writer.close()
        await asyncio.wait_for(connection.client_closed.wait(), 5.0)
        await asyncio.wait_for(connection.script_done.wait(), 5.0)
        assert connection.client_closed_at_s is not None
        assert repr(connection) == "ScriptedConnection(0 requests, closed by the client)"


async def test_the_last_script_repeats() -> None:
    """Connections beyond the scripts play the last one."""
    async with ScriptedUpstream((Send(b"a"),), (Send(b"b"),)) as upstream:
        seen = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
            seen.append(await reader.read())
            writer.close()
    assert seen == [b"a", b"b", b"b"]


async def test_steps_repeat_until_the_client_closes() -> None:
    """One connection serves request after request, and what is not to be kept is read all the same."""
    script = (Repeat((ReadRequest(is_kept=False), Send(b"a"))),)
    async with ScriptedUpstream(script) as upstream:
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        for _ in range(3):
            writer.write(REQUEST)
            assert await reader.readexactly(1) == b"a"
        writer.close()
        (connection,) = upstream.connections
        await asyncio.wait_for(connection.script_done.wait(), 5.0)
        assert connection.requests == []
        assert connection.taken_byte_count == 3


async def test_a_server_without_tls_can_answer_a_client_that_speaks_it() -> None:
    """Whatever the client said first is read, and what it is told is no TLS."""
    async with ScriptedUpstream((ReadAnything(), Send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Hang())) as upstream:
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("127.0.0.1", upstream.port, ssl=ssl.create_default_context())


async def test_bytes_beneath_tls_break_it() -> None:
    """A client that has agreed on TLS gets what was sent within, then an error of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    script = (Send(b"a"), Pause(0.01), SendBeneath(b"in the clear"), Hang())
    async with ScriptedUpstream(script, tls=context) as upstream:
        assert upstream.base_url == f"https://localhost:{upstream.port}/v1"
        trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
        reader, writer = await asyncio.open_connection("localhost", upstream.port, ssl=trusting)
        assert await reader.readexactly(1) == b"a"
        with pytest.raises(ssl.SSLError):
            await reader.read()
        writer.transport.abort()


async def test_a_deaf_port_neither_takes_nor_refuses_a_connection() -> None:
    """Who connects is still waiting when the kernel has had time to say no, and is free of it after the end."""
    with DeafPort() as deaf:
        assert deaf.base_url == f"http://127.0.0.1:{deaf.port}/v1"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.open_connection("127.0.0.1", deaf.port), 0.1)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", deaf.port)


def test_nobody_knows_the_unknown_host() -> None:
    """It has no address, whether or not there is a name server to ask."""
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(UNKNOWN_HOST, 443)


def test_answers_are_framed() -> None:
    """The pieces that tests build answers of."""
    assert chunk(b"hello, world!") == b"d\r\nhello, world!\r\n"
    assert whole_answer("{}", status=503, headers=(("retry-after", "1"),)) == (
        b"HTTP/1.1 503 Service Unavailable\r\n"
        b"content-type: application/json\r\ncontent-length: 2\r\nretry-after: 1\r\n\r\n{}"
    )
