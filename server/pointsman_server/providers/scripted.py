"""An upstream that does exactly what a script says, byte by byte, on a real loopback socket: for tests of faults.

The n-th connection plays the n-th script, and every further one plays the last. Whatever the client sends is recorded as
it came, and so is the moment at which it closed.

    whole = whole_answer('{"choices": []}')
    async with ScriptedUpstream((ReadRequest(), Send(whole)), (Reset(),)) as upstream:
        ...  # call upstream.base_url
        assert upstream.connections[0].requests[0].body == b"..."
        await upstream.connections[0].client_closed.wait()

A script covers the whole connection: its bytes, their pace, its end, and with TLS what goes wrong beneath. What goes wrong
before there is one is `DeafPort`, a port that takes no connection; a host without an address is `UNKNOWN_HOST`.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Self, cast

from pointsman_server.providers.loopback import reset

REQUEST_BYTES_MAX = 64 * 1024 * 1024
"""More than any request that the router admits: reaching it is a fault of the test."""

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,18})\r\n", re.IGNORECASE)
HEAD_END = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
"""Ends a body in chunked encoding."""
UNKNOWN_HOST = "upstream.invalid"
"""A host that no name server may know (RFC 6761, section 6.4)."""
BACKLOG = 4096
"""Connections that may wait to be accepted: bursts of thousands are a fault that is wanted, a full backlog is not."""
DEAF_CONNECTION_COUNT_MAX = 64
"""A port with a backlog of none takes one or two connections, on Linux: with so many it is never going to be deaf."""


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Wait for one whole request and record it."""

    is_kept: bool = True
    """False only reads it: what is recorded of many thousand requests would fill the memory."""


@dataclass(frozen=True, slots=True)
class ReadAnything:
    """Wait until bytes have come, whatever they are: those of a client that speaks TLS to a server that does not."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send these bytes and wait until the socket has taken them."""

    content: bytes


@dataclass(frozen=True, slots=True)
class SendBeneath:
    """Send these bytes as they are beneath TLS, where they break what was agreed. Not more than the socket takes at once."""

    content: bytes


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Wait until the test sets the event."""

    event: asyncio.Event


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait a moment, where a fault is about time itself."""

    pause_s: float


@dataclass(frozen=True, slots=True)
class Reset:
    """Close with a TCP reset."""


@dataclass(frozen=True, slots=True)
class HalfClose:
    """Say that nothing more will be sent, but keep reading."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close in order. A script that ends without it closes too."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Do nothing until the client closes."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """Play these steps again and again, until the client closes. They must wait for it, by a request or a pause."""

    steps: tuple[Step, ...]


Step = ReadRequest | ReadAnything | Send | SendBeneath | WaitFor | Pause | Reset | HalfClose | Close | Hang | Repeat
Script = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request, byte for byte."""

    head: bytes
    """Request line and headers, with the empty line that ends them."""
    body: bytes = field(repr=False)


class ScriptedConnection(asyncio.Protocol):
    """One accepted connection: plays its script, records what came."""

    def __init__(self, opened: Callable[[ScriptedConnection], Script]) -> None:
        self.requests: list[RecordedRequest] = []
        self.client_closed = asyncio.Event()
        """Set at the moment at which the client's close or reset arrives."""
        self.client_closed_at_s: float | None = None
        """That moment, by the event loop's clock."""
        self.script_done = asyncio.Event()
        self.accepted_at_s = 0.0
        """When it was opened, with TLS agreed, by the event loop's clock."""
        self.taken_byte_count = 0
        """Bytes of `Send` that the socket has taken, with what the client has not read yet."""
        self._opened = opened
        self._received = bytearray()
        self._arrived = asyncio.Event()
        self._recorded = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def __repr__(self) -> str:
        state = "closed" if self.client_closed.is_set() else "open"
        return f"ScriptedConnection({len(self.requests)} requests, {state} by the client)"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to play."""
        # By shape: uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self.accepted_at_s = asyncio.get_running_loop().time()
        self._playing = asyncio.create_task(self._play(self._opened(self)), name="scripted upstream")

    def data_received(self, received: bytes) -> None:
        """Keep it for `ReadRequest`."""
        assert len(self._received) + len(received) <= REQUEST_BYTES_MAX, "the request is endless"
        self._received += received
        self._arrived.set()

    def eof_received(self) -> bool:
        """The client closed; the script may go on sending."""
        self._note_client_closed()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: by a reset, or because the script closed it."""
        if exc is not None:
            self._note_client_closed()
        self._playing.cancel()

    def pause_writing(self) -> None:
        """The client does not read as fast as the script sends."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The socket takes bytes again."""
        self._writable.set()

    def _note_client_closed(self) -> None:
        if self.client_closed_at_s is None:
            self.client_closed_at_s = asyncio.get_running_loop().time()
            self.client_closed.set()
            self._arrived.set()

    async def _play(self, script: Script) -> None:
        try:
            for step in script:
                await self._do(step)
        except _ClientClosedError:
            pass
        finally:
            self.script_done.set()
            self._transport.close()

    async def _do(self, step: Step) -> None:
        match step:
            case ReadRequest(is_kept):
                await self._read_request(is_kept=is_kept)
            case ReadAnything():
                while not self._received:
                    await self._more()
                self._received.clear()
            case Send(content):
                self._transport.write(content)
                await self._writable.wait()
                self.taken_byte_count += len(content)
            case SendBeneath(content):
                sent_count = os.write(self._transport.get_extra_info("socket").fileno(), content)
                assert sent_count == len(content), "the socket takes it all"
            case Repeat(steps):
                while not self.client_closed.is_set():
                    for repeated in steps:
                        await self._do(repeated)
            case WaitFor(event):
                await event.wait()
            case Pause(pause_s):
                await asyncio.sleep(pause_s)
            case Reset():
                reset(self._transport)
            case HalfClose():
                self._transport.write_eof()
            case Close():
                self._transport.close()
            case Hang():
                await self.client_closed.wait()

    async def _read_request(self, *, is_kept: bool) -> None:
        while (head_size := self._received.find(HEAD_END) + len(HEAD_END)) < len(HEAD_END):
            await self._more()
        head = bytes(self._received[:head_size])
        length = CONTENT_LENGTH.search(head)
        request_size = head_size + (int(length[1]) if length else 0)
        while len(self._received) < request_size:
            await self._more()
        if is_kept:
            self.requests.append(RecordedRequest(head, bytes(self._received[head_size:request_size])))
        del self._received[:request_size]
        self._recorded.set()

    async def _more(self) -> None:
        if self.client_closed.is_set():
            raise _ClientClosedError
        self._arrived.clear()
        await self._arrived.wait()

    async def requested(self, count: int) -> None:
        """Wait until so many requests have been recorded."""
        while len(self.requests) < count:
            self._recorded.clear()
            await self._recorded.wait()

    async def abort(self) -> None:
        """Stop playing and let go of the socket."""
        self._playing.cancel()
        await asyncio.wait([self._playing])
        self._transport.abort()


class _ClientClosedError(Exception):
    """No further request can come: the end of the script."""


class ScriptedUpstream:
    """A server on 127.0.0.1 that plays one script per connection, from `async with` to its end."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        """Nothing is opened yet. With `tls` it serves https and must be addressed by the certificate's name."""
        assert scripts, "there is something to play"
        self._tls = tls
        self.connections: list[ScriptedConnection] = []
        """In the order in which they were accepted; with TLS, once that is agreed."""
        self._scripts = scripts
        self._accepted = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: ScriptedConnection(self._opened), "127.0.0.1", 0, ssl=self._tls, backlog=BACKLOG
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        """The TCP port it listens on."""
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in self.connections:
            await connection.abort()
        await self._server.wait_closed()

    def _opened(self, connection: ScriptedConnection) -> Script:
        script = self._scripts[min(len(self.connections), len(self._scripts) - 1)]
        self.connections.append(connection)
        self._accepted.set()
        return script

    @property
    def base_url(self) -> str:
        """What a provider's settings name."""
        scheme, host = ("http", "127.0.0.1") if self._tls is None else ("https", "localhost")
        return f"{scheme}://{host}:{self.port}/v1"

    async def connection(self, number: int) -> ScriptedConnection:
        """That connection, waiting until it has been accepted. Counts from 0."""
        while len(self.connections) <= number:
            self._accepted.clear()
            await self._accepted.wait()
        return self.connections[number]


class DeafPort:
    """A port on 127.0.0.1 that neither takes nor refuses a connection, from `with` to its end: whoever connects waits.

    It listens, but nobody accepts, and its backlog is full. Linux then drops what asks for a connection.
    """

    def __enter__(self) -> Self:
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen(0)
        self.port: int = self._listening.getsockname()[1]
        """The TCP port."""
        self._filling: list[socket.socket] = []
        while not self._filling or _is_connected(self._filling[-1]):
            assert len(self._filling) < DEAF_CONNECTION_COUNT_MAX, "this system keeps no backlog that can be filled"
            filling = socket.socket()
            filling.setblocking(False)
            filling.connect_ex(("127.0.0.1", self.port))
            self._filling.append(filling)
        return self

    def __exit__(self, *_: object) -> None:
        for filling in self._filling:
            filling.close()
        self._listening.close()

    @property
    def base_url(self) -> str:
        """What a provider's settings name."""
        return f"http://127.0.0.1:{self.port}/v1"


def _is_connected(connecting: socket.socket) -> bool:
    """Whether the connection stands; over loopback it does at once, or not for a second."""
    try:
        connecting.getpeername()
    except OSError:
        return False
    return True


def whole_answer(body: str, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> bytes:
    """A complete HTTP answer with a JSON body."""
    content = body.encode()
    framing = (("content-type", "application/json"), ("content-length", str(len(content))))
    return _head(status, (*framing, *headers)) + content


def stream_head(*headers: tuple[str, str]) -> bytes:
    """The head of an event stream, to be followed by chunks."""
    return _head(200, (("content-type", "text/event-stream"), ("transfer-encoding", "chunked"), *headers))


def chunk(content: bytes) -> bytes:
    """A piece of a body in chunked encoding; `LAST_CHUNK` ends it."""
    assert content, "an empty chunk would end the body"
    return b"%x\r\n%b\r\n" % (len(content), content)


def event(sent: str) -> bytes:
    """One server-sent event, as a chunk of its own."""
    return chunk(f"data: {sent}\n\n".encode())


def _head(status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    # Providers have statuses of their own, such as 529.
    phrase = next((known.phrase for known in HTTPStatus if known == status), "Of Its Own")
    return f"HTTP/1.1 {status} {phrase}\r\n{lines}\r\n".encode()
