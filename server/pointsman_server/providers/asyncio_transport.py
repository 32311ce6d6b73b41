"""HTTP/1.1 under httpx, straight on the event loop: what one read of the socket brought comes out as one piece.

httpx's own transport hands a chunked body on chunk by chunk, each through six generators and its own timers; a stream of
tokens is nothing but chunks. This one costs about half of that, and lets events that arrived together stay together. It does
what the adapters need and no more: HTTP/1.1, TLS, keep-alive, a bound on connections, a timeout for each phase. No proxies,
no HTTP/2, no upgrade. Besides httpx's timeouts it knows a deadline for all of them together.
"""

from __future__ import annotations

import asyncio
import math
import re
import select
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Self, TypeVar, cast

import h11
import httpx

from pointsman_server.alarm import LATE_S, SECOND_LOOK_S
from pointsman_server.providers.chunks import ChunkDecoder

ADDRESS_TIMEOUT_S = 1.0
"""For each address of a host but the last: a dead one (a broken IPv6 route, mostly) must not use up the whole timeout."""
RECEIVED_BYTES_MAX = 64 * 1024
"""Received and not yet taken: beyond, the socket is not read, and TCP slows the provider down. One read more, of up to
256 KiB, may come on top."""
PIECE_BYTES_MAX = 64 * 1024
"""Handed on at one time: each step from here to the caller holds a piece in a form of its own. More than a fast stream
brings within a second."""
HEAD_LINE_BYTES_MAX = 16 * 1024
"""Of the head of an answer, not yet parsed, for want of a line's end: as many as the parser allows a head."""
HEAD_END = re.compile(rb"\n\r?\n")
"""As the parser sees it. Where two reads share it, the parser gets some of the body, and then reads all of that."""
STALE_S = 1.0
"""A kept connection that ends within this after a request, without a byte, had been closed already: the news takes a round
trip."""

DEADLINE_EXTENSION = "deadline_s"
"""Name of the request's extension that bounds the call from its start to the body's end: a time of the event loop's clock.
Infinite when absent. It ends what waits, never the reading of what is there."""

Origin = tuple[str, str, int]
_T = TypeVar("_T")


class DeadlineError(httpx.TimeoutException):
    """The deadline came before any of the phases' own timeouts."""


class AsyncioTransport(httpx.AsyncBaseTransport):
    """A pool of connections. Every exception that leaves it is httpx's, or `DeadlineError`, which is derived from one."""

    def __init__(self, *, tls: ssl.SSLContext, connection_count_max: int, keepalive_expiry_s: float) -> None:
        self._tls = tls
        self._keepalive_expiry_s = keepalive_expiry_s
        self._places = asyncio.Semaphore(connection_count_max)
        self._idle: dict[Origin, dict[_Connection, None]] = {}
        """An ordered set, the one used last at its end: that is taken first, so that the others can expire."""
        self._connections: set[_Connection] = set()

    def __repr__(self) -> str:
        idle_count = sum(len(idle) for idle in self._idle.values())
        return f"AsyncioTransport({len(self._connections)} connections, {idle_count} idle)"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and read the answer's head; the body is read from the response's stream."""
        limits = _Limits.of(request)
        origin = _origin(request.url)
        body = await request.aread()
        await self._take_place(limits)
        try:
            connection, head = await self._answered(origin, request, body, limits)
        except BaseException:
            self._places.release()
            raise
        headers = list(head.headers.raw_items())
        return httpx.Response(head.status_code, headers=headers, stream=_Body(self, connection))

    async def _answered(
        self, origin: Origin, request: httpx.Request, body: bytes, limits: _Limits
    ) -> tuple[_Connection, h11.Response]:
        """The head of the answer, and the connection that it came over."""
        kept = self._idle_one(origin)
        if kept is not None:
            try:
                return kept, await kept.ask(request, body, limits)
            except httpx.ReadError:
                if not kept.was_stale:
                    raise
        too_late = httpx.ConnectTimeout("not connected in time")
        fresh = await _within(self._connect(origin), too_late, timeout_s=limits.connect_s, deadline_s=limits.deadline_s)
        return fresh, await fresh.ask(request, body, limits)

    async def aclose(self) -> None:
        """Close every connection, also those in use."""
        for connection in tuple(self._connections):
            connection.abort()
        # Closing is done by the event loop; one turn of it lets go of the sockets.
        await asyncio.sleep(0)

    def give_back(self, connection: _Connection) -> None:
        """The answer is read or given up: keep the connection if it can serve again."""
        self._places.release()
        if connection.restart():
            self._idle.setdefault(connection.origin, {})[connection] = None
            loop = asyncio.get_running_loop()
            connection.expiry = loop.call_later(self._keepalive_expiry_s, connection.abort)
        else:
            connection.abort()

    def forget(self, connection: _Connection) -> None:
        """The connection is closed."""
        self._connections.discard(connection)
        self._idle.get(connection.origin, {}).pop(connection, None)

    async def _take_place(self, limits: _Limits) -> None:
        taken = self._places.acquire()
        if self._places.locked():
            too_late = httpx.PoolTimeout("every connection is in use")
            await _within(taken, too_late, timeout_s=limits.pool_s, deadline_s=limits.deadline_s)
        else:
            # There is nothing to wait for, and a timer would cost more than all of this.
            await taken

    def _idle_one(self, origin: Origin) -> _Connection | None:
        idle = self._idle.get(origin, {})
        while idle:
            connection, _ = idle.popitem()
            if connection.wake():
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: Origin) -> _Connection:
        scheme, host, port = origin
        loop = asyncio.get_running_loop()
        try:
            connected = await _connected_socket(host, port)
            _, connection = await loop.create_connection(
                lambda: _Connection(self, origin),
                sock=connected,
                ssl=self._tls if scheme == "https" else None,
                server_hostname=host if scheme == "https" else None,
            )
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(type(error).__name__) from None
        self._connections.add(connection)
        return connection


def _origin(url: httpx.URL) -> Origin:
    return url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    """How long each phase of one request may take; infinite where nothing limits it."""

    pool_s: float
    connect_s: float
    write_s: float
    read_s: float
    """For each wait for bytes."""
    deadline_s: float
    """For all of it, by the event loop's clock."""

    @classmethod
    def of(cls, request: httpx.Request) -> Self:
        """Those that the request carries."""
        timeouts: dict[str, float | None] = request.extensions["timeout"]
        limits_s = {f"{phase}_s": math.inf if limit is None else limit for phase, limit in timeouts.items()}
        return cls(**limits_s, deadline_s=request.extensions.get(DEADLINE_EXTENSION, math.inf))


async def _within(
    waiting: Awaitable[_T], too_late: httpx.TimeoutException, *, timeout_s: float, deadline_s: float
) -> _T:
    due_s = asyncio.get_running_loop().time() + timeout_s
    try:
        async with asyncio.timeout_at(min(due_s, deadline_s)):
            return await waiting
    except TimeoutError:
        raise (too_late if due_s < deadline_s else DeadlineError("the deadline came")) from None


async def _connected_socket(host: str, port: int) -> socket.socket:
    """A connection to the host's first address that answers; raises OSError if none does."""
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, address) in enumerate(addresses, start=1):
        is_last = number == len(addresses)
        attempt = socket.socket(family, kind, protocol)
        try:
            attempt.setblocking(False)
            # A stream of tokens may be silent for long: keep-alives find out when the provider's host has vanished.
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            async with asyncio.timeout(None if is_last else ADDRESS_TIMEOUT_S):
                await loop.sock_connect(attempt, address)
        except OSError:
            attempt.close()
            if is_last:
                raise
        except BaseException:
            attempt.close()
            raise
        else:
            return attempt
    raise OSError("the host has no address")


class _Connection(asyncio.Protocol):
    """One connection: one request at a time, its answer as it arrives."""

    def __init__(self, pool: AsyncioTransport, origin: Origin) -> None:
        self.origin = origin
        self.expiry: asyncio.TimerHandle | None = None
        """Closes the connection while it is idle."""
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.CLIENT)
        self._received: list[bytes] = []
        self._received_size = 0
        self._reading_paused = False
        self._ended = False
        """The peer has closed, or the connection is lost: nothing more will arrive."""
        self._end_parsed = False
        """The parser knows that, too."""
        self._lost_by: Exception | None = None
        self._parser_is_empty = False
        """The parser has said that it needs more."""
        self._chunks: ChunkDecoder | None = None
        """Reads the body, of which the parser has seen nothing yet."""
        self._asked_s = 0.0
        self._has_answered = False
        """Something has come since it was asked."""
        self._reads_head = False
        """The reader waits for the head of an answer."""
        self._arrival: asyncio.Future[None] | None = None
        """What the reader waits for while nothing is there."""
        self._waiting_since_s = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        """Ends a wait that takes too long. It goes off when the wait that set it would be too long, and is then set again
        for what is left to the wait of that moment: a timer for each wait would cost more than the reading."""
        self._was_held_up = False
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # By shape: uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, received: bytes) -> None:
        if self.expiry is not None:
            # Nothing was asked: whatever this is, it must not be taken for the next answer.
            self.abort()
            return
        is_first, self._has_answered = not self._has_answered, True
        self._received.append(received)
        self._received_size += len(received)
        # A head that drips byte by byte is nothing to the parser before a line ends; but what is no head at all it sees at once.
        if not self._reads_head or is_first or b"\n" in received or self._received_size > HEAD_LINE_BYTES_MAX:
            self._wake_reader()
        if self._received_size > RECEIVED_BYTES_MAX and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost_by = exc
        self._end()
        self._writable.set()
        self._pool.forget(self)
        if self.expiry is not None:
            self.expiry.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _end(self) -> None:
        self._ended = True
        self._wake_reader()
        if self.expiry is not None:
            self._pool.forget(self)

    def abort(self) -> None:
        """Close at once."""
        self._disarm()
        self._pool.forget(self)
        self._transport.abort()

    def wake(self) -> bool:
        """End idleness; False if the peer has closed already, be it that the event loop has not seen it yet."""
        assert self.expiry is not None, "it was idle"
        self.expiry.cancel()
        self.expiry = None
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket"), select.POLLIN)
        return not self._ended and not poll.poll(0)

    def restart(self) -> bool:
        """Make ready for the next request; False if there can be none."""
        self._disarm()
        parsed, _ = self._http.trailing_data
        unasked = parsed or self._received
        is_done = self._http.our_state is self._http.their_state is h11.DONE
        if self._ended or unasked or not is_done:
            return False
        self._http.start_next_cycle()
        self._parser_is_empty = False
        return True

    @property
    def was_stale(self) -> bool:
        """Whether the peer closed it for its idleness, just when the request was on its way: at once, and without a byte.

        RFC 9112, section 9.3.1, lets a client send a request again that was never seen. What takes longer was at work.
        """
        return not self._has_answered and self._loop.time() - self._asked_s < STALE_S

    async def ask(self, request: httpx.Request, body: bytes, limits: _Limits) -> h11.Response:
        """Send a request, and read the head of its answer; closed if that fails."""
        self._asked_s, self._has_answered = self._loop.time(), False
        try:
            await self._send(request, body, limits)
            return await self._read_head()
        except BaseException:
            self.abort()
            raise

    async def _send(self, request: httpx.Request, body: bytes, limits: _Limits) -> None:
        """Send a whole request; its limits hold for the answer, too.

        A peer that closes meanwhile may have answered, so that is no error yet.
        """
        self._limits = limits
        try:
            head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
            sent = [self._http.send(head), self._http.send(h11.Data(data=body)), self._http.send(h11.EndOfMessage())]
        except h11.LocalProtocolError:
            raise httpx.LocalProtocolError("HTTP can't carry this request") from None
        self._transport.write(b"".join(piece for piece in sent if piece))
        if not self._writable.is_set():
            too_late = httpx.WriteTimeout("the request was not taken in time")
            taken = self._writable.wait()
            await _within(taken, too_late, timeout_s=limits.write_s, deadline_s=limits.deadline_s)

    async def _read_head(self) -> h11.Response:
        """The answer's status and headers."""
        self._reads_head = True
        while True:
            match self._next_event():
                case h11.Response() as head:
                    self._reads_head = False
                    is_chunked = any(name == b"transfer-encoding" for name, _ in head.headers)
                    self._chunks = ChunkDecoder() if is_chunked and self._is_at_body() else None
                    return head
                case h11.NEED_DATA:
                    await self._receive()
                case h11.InformationalResponse():
                    pass
                case other:
                    raise httpx.RemoteProtocolError(f"{type(other).__name__} in place of a response")

    async def read_body(self) -> bytes:
        """All of the body that is there, waiting if nothing is; empty at its end."""
        while self._chunks is not None:
            if piece := await self._read_chunks(self._chunks):
                return piece
        pieces: list[bytes] = []
        if self._parser_is_empty:
            await self._receive()
        while self._http.their_state in (h11.SEND_BODY, h11.ERROR):
            try:
                event = self._next_event()
            except httpx.TransportError:
                if pieces:
                    # The parser says it again when it is asked for more.
                    break
                raise
            if isinstance(event, h11.Data):
                pieces.append(bytes(event.data))
            elif event is h11.NEED_DATA:
                if pieces:
                    self._parser_is_empty = True
                    break
                await self._receive()
        return b"".join(pieces)

    def _is_at_body(self) -> bool:
        """Whether a body follows of which the parser has nothing yet."""
        unparsed, _ = self._http.trailing_data
        return not unparsed and self._http.their_state is h11.SEND_BODY

    async def _read_chunks(self, chunks: ChunkDecoder) -> bytes:
        """What has come in plain chunks. At the first thing that is none the parser takes over."""
        if chunks.is_broken:
            raise httpx.RemoteProtocolError("a chunk is longer than it says")
        received = await self._taken()
        piece, rest = chunks.feed(received) if received else (b"", chunks.begun())
        if rest is not None:
            self._chunks = None
            if rest:
                self._parse(rest)
            if not received:
                self._parse(b"")
        return piece

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            if self._end_parsed:
                raise httpx.ReadError("the peer closed before its message was complete") from None
            raise httpx.RemoteProtocolError(str(error)) from None

    async def _receive(self) -> None:
        """Wait for bytes, or the end, and hand them to the parser."""
        self._parse(await self._taken())

    def _parse(self, received: bytes) -> None:
        """Hand bytes to the parser, or the end."""
        self._parser_is_empty = False
        self._end_parsed = not received
        self._http.receive_data(received)

    async def _taken(self) -> bytes:
        """Wait for bytes, and take some; empty at the end. Of a head no more than the head."""
        if not self._received and not self._ended:
            await self._wait()
        received = b"".join(self._received)
        size = PIECE_BYTES_MAX
        if self._reads_head and (head_end := HEAD_END.search(received)) is not None:
            size = min(size, head_end.end())
        rest = received[size:]
        received = received[:size]
        self._received = [rest] if rest else []
        self._received_size = len(rest)
        if not received and self._lost_by is not None:
            raise httpx.ReadError(type(self._lost_by).__name__)
        if self._reading_paused and self._received_size <= RECEIVED_BYTES_MAX:
            self._reading_paused = False
            self._transport.resume_reading()
        return received

    async def _wait(self) -> None:
        self._waiting_since_s, self._was_held_up = self._loop.time(), False
        if self._alarm is None:
            self._alarm = self._loop.call_at(self._due_s(), self._end_long_wait)
        self._arrival = self._loop.create_future()
        try:
            await self._arrival
        finally:
            self._arrival = None

    def _wake_reader(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def _due_s(self) -> float:
        return min(self._waiting_since_s + self._limits.read_s, self._limits.deadline_s)

    def _end_long_wait(self) -> None:
        self._alarm = None
        if self._arrival is None or self._arrival.done():
            # The next wait sets the alarm again.
            return
        due_s = self._due_s()
        late_s = self._loop.time() - due_s
        if late_s < 0.0:
            self._alarm = self._loop.call_at(due_s, self._end_long_wait)
        elif late_s > LATE_S and not self._was_held_up:
            # The loop itself was held up: what came meanwhile is still to be read.
            self._was_held_up = True
            self._alarm = self._loop.call_later(SECOND_LOOK_S, self._end_long_wait)
        elif due_s < self._limits.deadline_s:
            self._arrival.set_exception(httpx.ReadTimeout("nothing came in time"))
        else:
            self._arrival.set_exception(DeadlineError("the deadline came"))

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


class _Body(httpx.AsyncByteStream):
    """The body of one answer."""

    def __init__(self, pool: AsyncioTransport, connection: _Connection) -> None:
        self._pool = pool
        self._connection: _Connection | None = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._connection is not None:
            received = await self._connection.read_body()
            if not received:
                return
            yield received

    async def aclose(self) -> None:
        """Give the connection back; nothing waits here, so it happens at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_back(connection)
