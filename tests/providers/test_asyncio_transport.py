"""The connections under the adapters: what is pooled, what is closed, what is trusted, what is held back."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pointsman_server.providers.asyncio_transport import PIECE_BYTES_MAX, RECEIVED_BYTES_MAX, AsyncioTransport
from pointsman_server.providers.scripted import (
    LAST_CHUNK,
    Close,
    Hang,
    Pause,
    ReadRequest,
    Repeat,
    Reset,
    Script,
    ScriptedUpstream,
    Send,
    SendBeneath,
    Step,
    WaitFor,
    chunk,
    stream_head,
    whole_answer,
)

CERTIFICATE = Path(__file__).with_name("localhost.pem")
ANSWER = whole_answer("{}")
TIMEOUT = httpx.Timeout(5.0)


def trusting(certificate: Path) -> ssl.SSLContext:
    """Trusts that certificate alone."""
    return ssl.create_default_context(cafile=str(certificate))


def identified_by(certificate: Path) -> ssl.SSLContext:
    """Serves with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def transport_of(tls: ssl.SSLContext, *, keepalive_expiry_s: float = 30.0) -> AsyncioTransport:
    """A pool of two."""
    return AsyncioTransport(tls=tls, connection_count_max=2, keepalive_expiry_s=keepalive_expiry_s)


def client_of(transport: AsyncioTransport) -> httpx.AsyncClient:
    """Httpx over it."""
    return httpx.AsyncClient(transport=transport, trust_env=False, timeout=TIMEOUT)


async def opened(transport: AsyncioTransport, upstream: ScriptedUpstream) -> httpx.Response:
    """An answer of which only the head is read."""
    client = client_of(transport)
    return await client.send(client.build_request("GET", upstream.base_url), stream=True)


async def read_into(found: list[bytes], response: httpx.Response) -> None:
    """Keeps the pieces of the body, also where it breaks."""
    async for piece in response.aiter_raw():
        found += [piece]


@pytest.fixture
async def transport(tls: ssl.SSLContext) -> AsyncIterator[AsyncioTransport]:
    """A pool that is closed when the test ends."""
    pool = transport_of(tls)
    yield pool
    await pool.aclose()


async def test_tls_is_spoken_with_whom_it_trusts() -> None:
    """Requests go through, over one connection that is kept."""
    script = (ReadRequest(), Send(ANSWER), ReadRequest(), Send(ANSWER))
    pool = transport_of(trusting(CERTIFICATE))
    async with ScriptedUpstream(script, tls=identified_by(CERTIFICATE)) as upstream, client_of(pool) as client:
        for _ in range(2):
            response = await client.post(f"https://localhost:{upstream.port}/", content=b"x" * 300_000)
            assert response.content == b"{}"
        assert [len(request.body) for request in upstream.connections[0].requests] == [300_000, 300_000]
        assert len(upstream.connections) == 1


@pytest.mark.parametrize(("trusted", "host"), [(False, "localhost"), (True, "127.0.0.1")])
async def test_a_certificate_must_be_trusted_and_of_that_host(tls: ssl.SSLContext, host: str, *, trusted: bool) -> None:
    """Nothing is sent to anyone else."""
    pool = transport_of(trusting(CERTIFICATE) if trusted else tls)
    async with (
        ScriptedUpstream((ReadRequest(),), tls=identified_by(CERTIFICATE)) as upstream,
        client_of(pool) as client,
    ):
        with pytest.raises(httpx.ConnectError):
            await client.get(f"https://{host}:{upstream.port}/")
        assert repr(pool) == "AsyncioTransport(0 connections, 0 idle)"
        assert [request for connection in upstream.connections for request in connection.requests] == []


async def test_tls_that_breaks_within_an_answer_breaks_the_answer() -> None:
    """Bytes that TLS does not vouch for are no part of it: what came before them is, then the reading fails."""
    script = (ReadRequest(), Send(stream_head() + chunk(b"a")), Pause(0.01), SendBeneath(b"in the clear"), Hang())
    pool = transport_of(trusting(CERTIFICATE))
    async with ScriptedUpstream(script, tls=identified_by(CERTIFICATE)) as upstream:
        response = await opened(pool, upstream)
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"a"
        with pytest.raises(httpx.ReadError):
            await anext(pieces)
        await response.aclose()
        assert repr(pool) == "AsyncioTransport(0 connections, 0 idle)"


async def test_a_kept_connection_expires(tls: ssl.SSLContext) -> None:
    """It is closed once it has been idle for long enough."""
    pool = transport_of(tls, keepalive_expiry_s=0.02)
    async with ScriptedUpstream((ReadRequest(), Send(ANSWER), Hang())) as upstream, client_of(pool) as client:
        await client.get(upstream.base_url)
        assert repr(pool) == "AsyncioTransport(1 connections, 1 idle)"
        await asyncio.wait_for(upstream.connections[0].client_closed.wait(), 5.0)
        assert repr(pool) == "AsyncioTransport(0 connections, 0 idle)"


async def test_a_connection_that_the_server_closed_is_not_used_again(transport: AsyncioTransport) -> None:
    """Neither one that ended while idle nor one whose answer said so: each request gets a fresh one."""
    said_so = whole_answer("{}", headers=(("connection", "close"),))
    scripts = (
        (ReadRequest(), Send(ANSWER), Close()),
        (ReadRequest(), Send(said_so), Hang()),
        (ReadRequest(), Send(ANSWER)),
    )
    async with ScriptedUpstream(*scripts) as upstream:
        client = client_of(transport)
        for number in range(3):
            assert (await client.get(upstream.base_url)).content == b"{}"
            if number == 0:
                await upstream.connections[0].script_done.wait()
        assert len(upstream.connections) == 3


@pytest.mark.parametrize("end", [Close(), Reset()], ids=["close", "reset"])
async def test_a_connection_that_the_server_closes_meanwhile_is_replaced(
    transport: AsyncioTransport, end: Step
) -> None:
    """A server that closes a kept connection just when a request is on its way has not seen that: it goes out again, over
    a fresh connection, once."""
    scripts: tuple[Script, ...] = (
        (ReadRequest(), Send(ANSWER), ReadRequest(), end),
        (ReadRequest(), Send(ANSWER)),
    )
    async with ScriptedUpstream(*scripts) as upstream:
        client = client_of(transport)
        for _ in range(2):
            assert (await client.post(upstream.base_url, content=b"same")).content == b"{}"
        bodies = [[request.body for request in connection.requests] for connection in upstream.connections]
    assert bodies == [[b"same", b"same"], [b"same"]]


@pytest.mark.parametrize("answered_count", [0, 1], ids=["fresh", "kept"])
async def test_a_request_that_was_seen_is_not_sent_again(transport: AsyncioTransport, answered_count: int) -> None:
    """A fresh connection that closes, or a kept one after a part of an answer, has had the request: that is a failure."""
    part = [Send(ANSWER[:9])] * answered_count
    script: Script = (*(ReadRequest(), Send(ANSWER)) * answered_count, ReadRequest(), *part, Close())
    async with ScriptedUpstream(script) as upstream:
        client = client_of(transport)
        for _ in range(answered_count):
            await client.post(upstream.base_url, content=b"same")
        with pytest.raises(httpx.ReadError):
            await client.post(upstream.base_url, content=b"same")
        assert len(upstream.connections) == 1
        assert repr(transport) == "AsyncioTransport(0 connections, 0 idle)"


async def test_bytes_that_nobody_asked_for_cost_the_connection(transport: AsyncioTransport) -> None:
    """They must not be taken for the next answer, whether they come with the last one or later."""
    go = asyncio.Event()
    scripts = (
        (ReadRequest(), Send(ANSWER + whole_answer('"stale"')), Hang()),
        (ReadRequest(), Send(ANSWER), WaitFor(go), Send(whole_answer('"stale"')), Hang()),
        (ReadRequest(), Send(ANSWER)),
    )
    async with ScriptedUpstream(*scripts) as upstream:
        client = client_of(transport)
        for number in range(3):
            assert (await client.get(upstream.base_url)).content == b"{}"
            if number == 1:
                go.set()
                await asyncio.wait_for(upstream.connections[1].client_closed.wait(), 5.0)
        assert len(upstream.connections) == 3


async def test_what_arrives_together_is_read_together(transport: AsyncioTransport) -> None:
    """Fifty chunks that are there come as one piece, not as fifty."""
    chunks = b"".join(chunk(b"%d," % number) for number in range(50))
    async with ScriptedUpstream((ReadRequest(), Send(stream_head() + chunks + LAST_CHUNK))) as upstream:
        response = await opened(transport, upstream)
        pieces = [piece async for piece in response.aiter_raw()]
    assert pieces == [b"".join(b"%d," % number for number in range(50))]


async def test_a_slow_reader_slows_the_server_down(transport: AsyncioTransport) -> None:
    """What is not read is not taken from the network: memory holds a bounded piece of it."""
    size = 160 * RECEIVED_BYTES_MAX
    script = (ReadRequest(), Send(stream_head() + chunk(b"x" * size)), Send(LAST_CHUNK))
    async with ScriptedUpstream(script) as upstream:
        response = await opened(transport, upstream)
        await asyncio.sleep(0.1)
        assert not upstream.connections[0].script_done.is_set()
        pieces = [piece async for piece in response.aiter_raw()]
    assert sum(len(piece) for piece in pieces) == size
    assert max(len(piece) for piece in pieces) <= PIECE_BYTES_MAX


async def test_an_answer_that_comes_before_the_request_was_read_counts(transport: AsyncioTransport) -> None:
    """A server may refuse a large request by its head, and close."""
    refusal = whole_answer("{}", status=413, headers=(("connection", "close"),))
    go = asyncio.Event()
    async with ScriptedUpstream((Send(refusal), WaitFor(go), Close())) as upstream:
        response = await client_of(transport).post(upstream.base_url, content=b"x" * 1_000_000)
        go.set()
    assert response.status_code == 413


async def test_informational_answers_are_skipped(transport: AsyncioTransport) -> None:
    """The answer is the one that follows."""
    sent = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + ANSWER
    async with ScriptedUpstream((ReadRequest(), Send(sent))) as upstream:
        assert (await client_of(transport).get(upstream.base_url)).status_code == 200


async def test_a_head_is_read_however_it_is_cut(transport: AsyncioTransport) -> None:
    """Byte by byte, and its body in the same way."""
    drops: tuple[Step, ...] = tuple(step for byte in ANSWER for step in (Send(bytes([byte])), Pause(0.0)))
    async with ScriptedUpstream((ReadRequest(), *drops, Hang())) as upstream:
        answer = await client_of(transport).get(upstream.base_url)
    assert (answer.status_code, answer.content) == (200, b"{}")


@pytest.mark.parametrize("length", [1, 2, 3, 5, 7, 11, 1000])
async def test_a_chunked_answer_is_read_however_it_is_cut(transport: AsyncioTransport, length: int) -> None:
    """Its body, too, where that comes together with the head, and the connection serves again; a head may come before the
    answer's, and end as servers that are not strict end it."""
    early = b"HTTP/1.1 103 Early Hints\nlink: </x>\n\n"
    body = chunk(b"one ") + b"3;odd=yes\r\ntwo\r\n" + chunk(b" three") + LAST_CHUNK
    sent = early + stream_head() + body
    pieces = [sent[start : start + length] for start in range(0, len(sent), length)]
    steps: tuple[Step, ...] = tuple(step for piece in pieces for step in (Send(piece), Pause(0.0)))
    async with ScriptedUpstream((ReadRequest(), *steps, ReadRequest(), *steps)) as upstream:
        for _ in range(2):
            assert (await client_of(transport).get(upstream.base_url)).content == b"one two three"
        assert len(upstream.connections) == 1


async def test_a_chunk_that_is_longer_than_it_says_breaks_the_answer(transport: AsyncioTransport) -> None:
    """What came before counts, and the connection is closed."""
    script = (ReadRequest(), Send(stream_head() + chunk(b"a") + b"1\r\nbc\r\n"), Hang())
    async with ScriptedUpstream(script) as upstream:
        response = await opened(transport, upstream)
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"ab"
        with pytest.raises(httpx.RemoteProtocolError, match="longer than it says"):
            await anext(pieces)
        await response.aclose()
        await asyncio.wait_for(upstream.connections[0].client_closed.wait(), 5.0)


@pytest.mark.parametrize("cut", [b"", b"5", b"5\r\nhel", b"5\r\nhello\r", b"5\r\nhello\r\n"])
async def test_a_chunked_answer_that_is_cut_off_breaks(transport: AsyncioTransport, cut: bytes) -> None:
    """Wherever that is: what came counts, and it is no whole answer."""
    script = (ReadRequest(), Send(stream_head() + chunk(b"a") + cut), Close())
    async with ScriptedUpstream(script) as upstream:
        response = await opened(transport, upstream)
        found: list[bytes] = []
        with pytest.raises(httpx.ReadError, match="before its message was complete"):
            await read_into(found, response)
        assert b"".join(found) == b"a" + cut[3:8]
        await response.aclose()


async def test_a_line_of_a_head_that_does_not_end_is_silence(transport: AsyncioTransport) -> None:
    """Who drips a byte now and then holds nobody beyond the timeout for silence."""
    drips = Repeat((Send(b"x"), Pause(0.05)))
    async with ScriptedUpstream((ReadRequest(), Send(b"HTTP/1.1 200 OK\r\nx-drip: "), drips)) as upstream:
        request = client_of(transport).build_request("GET", upstream.base_url, timeout=httpx.Timeout(5.0, read=0.3))
        with pytest.raises(httpx.ReadTimeout):
            await asyncio.wait_for(transport.handle_async_request(request), 5.0)


async def test_what_is_no_head_is_refused_at_its_first_byte(transport: AsyncioTransport) -> None:
    """An alert of TLS, say, that has no line's end."""
    async with ScriptedUpstream((ReadRequest(), Send(b"\x15\x03\x03\x00\x02\x02\x28"), Hang())) as upstream:
        with pytest.raises(httpx.RemoteProtocolError):
            await client_of(transport).get(upstream.base_url)


async def test_a_head_without_an_end_is_refused(transport: AsyncioTransport) -> None:
    """A line may not be longer than any head that the parser takes."""
    endless = Repeat((Send(b"x" * 1024), Pause(0.0)))
    async with ScriptedUpstream((ReadRequest(), Send(b"HTTP/1.1 200 OK\r\nx-long: "), endless)) as upstream:
        with pytest.raises(httpx.RemoteProtocolError):
            await asyncio.wait_for(client_of(transport).get(upstream.base_url), 5.0)


async def test_a_body_without_length_ends_with_the_connection(transport: AsyncioTransport) -> None:
    """As HTTP/1.0 servers send it."""
    async with ScriptedUpstream((ReadRequest(), Send(b"HTTP/1.0 200 OK\r\n\r\nall of it"), Close())) as upstream:
        assert (await client_of(transport).get(upstream.base_url)).content == b"all of it"


async def test_closing_the_pool_closes_what_is_in_use(transport: AsyncioTransport) -> None:
    """A call that still reads fails, and the peer sees the close."""
    async with ScriptedUpstream((ReadRequest(), Send(stream_head() + chunk(b"a")), Hang())) as upstream:
        response = await opened(transport, upstream)
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"a"
        await transport.aclose()
        with pytest.raises(httpx.ReadError):
            await anext(pieces)
        await response.aclose()
        await asyncio.wait_for(upstream.connections[0].client_closed.wait(), 5.0)
    assert repr(transport) == "AsyncioTransport(0 connections, 0 idle)"


async def test_a_place_is_waited_for_and_given_on(transport: AsyncioTransport) -> None:
    """More calls than places are all served, by no more connections than places."""
    script = (ReadRequest(), Send(ANSWER)) * 20
    async with ScriptedUpstream(script) as upstream:
        client = client_of(transport)
        responses = await asyncio.gather(*(client.get(upstream.base_url) for _ in range(20)))
        assert len(upstream.connections) <= 2
    assert {response.status_code for response in responses} == {200}
