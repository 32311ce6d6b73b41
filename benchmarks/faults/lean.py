"""A caller that costs next to nothing: gRPC by hand over one connection of HTTP/2, for more calls a second than gRPC's own
client leaves room for beside a router on two cores.

It sends the frames of a call in one write and reads no further into what comes back than to the status; there is no
interceptor, no retry, no compression. What it does not speak it does not ask for: header compression by reference
(RFC 7541 section 2.3.2, whose table it sets to nothing) and base64 in binary metadata (gRPC's "true binary" setting).
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from google.rpc import status_pb2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD = struct.Struct(">BHBBI")
"""24 bits of length in two parts, type, flags, stream."""
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
ACK = END_STREAM = 1
END_HEADERS = 4
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, TRUE_BINARY = 1, 4, 5, 0xFE03
WINDOW_BYTES = 2**30
"""More than any case sends: no window is ever given back."""
FRAME_BYTES_MAX = 2**20
STATUS_OK = 8
"""`:status 200` in HPACK's table (RFC 7541 appendix A)."""
METHOD_POST, SCHEME_HTTP, PATH, AUTHORITY = b"\x83", b"\x86", b"\x04", b"\x01"
"""Indices in that table, as fields whose value is there (those two) or follows."""
STATUS_DETAILS = b"grpc-status-details-bin"
CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of one call."""

    code: grpc.StatusCode
    details: status_pb2.Status
    """Empty without any."""
    duration_s: float
    """From just before the call's bytes were handed to the system until those had been read that hold its status."""

    def has_details(self, *names: str) -> bool:
        """Whether the status has details of all these types."""
        return set(names) <= {packed.TypeName().rpartition(".")[2] for packed in self.details.details}


@dataclass(frozen=True, slots=True)
class Raw:
    """An answer as it came, to be read when nobody is timed any longer."""

    started_s: float
    ended_s: float
    headers: bytes | None
    """The block of the trailers; None for a stream that was reset."""

    @property
    def duration_s(self) -> float:
        """From the request to its status."""
        return self.ended_s - self.started_s


class Caller(asyncio.Protocol):
    """One connection, and any number of calls of one method on it."""

    def __init__(self, method: str, *, timeout_s: float) -> None:
        """Nothing is sent yet.

        Args:
            method: /package.Service/Method.
            timeout_s: The deadline of each call, which the server keeps.
        """
        self._head = b"".join(
            (
                METHOD_POST + SCHEME_HTTP + PATH + _text(method.encode()) + AUTHORITY + _text(b"localhost"),
                _field(b"te", b"trailers"),
                _field(b"content-type", b"application/grpc"),
                _field(b"grpc-timeout", b"%dm" % (timeout_s * 1000.0)),
            )
        )
        self._stream = 1
        self._waiting: dict[int, tuple[float, asyncio.Future[Raw]]] = {}
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says what is spoken here."""
        assert isinstance(transport, asyncio.Transport), "a TCP connection"
        self._transport = transport
        settings = (
            (HEADER_TABLE_SIZE, 0),
            (INITIAL_WINDOW_SIZE, WINDOW_BYTES),
            (MAX_FRAME_SIZE, FRAME_BYTES_MAX),
            (TRUE_BINARY, 1),
        )
        asked = b"".join(struct.pack(">HI", *setting) for setting in settings)
        window = struct.pack(">I", WINDOW_BYTES)
        transport.write(PREFACE + _frame(SETTINGS, 0, 0, asked) + _frame(WINDOW_UPDATE, 0, 0, window))

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing comes of the calls under way any more."""
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(exc or ConnectionResetError("the router closed the connection"))

    def close(self) -> None:
        """After the last call."""
        self._transport.close()

    def call(self, message: bytes) -> asyncio.Future[Raw]:
        """Sends a call with this serialised message, and gives what comes of it."""
        future: asyncio.Future[Raw] = asyncio.get_running_loop().create_future()
        stream, self._stream = self._stream, self._stream + 2
        body = b"\0" + struct.pack(">I", len(message)) + message
        frames = _frame(HEADERS, END_HEADERS, stream, self._head) + _frame(DATA, END_STREAM, stream, body)
        self._waiting[stream] = (time.monotonic(), future)
        self._transport.write(frames)
        return future

    def data_received(self, data: bytes) -> None:
        """Takes in the frames that are there as a whole."""
        now_s = time.monotonic()
        received = self._unread + data
        position = 0
        while len(received) - position >= FRAME_HEAD.size:
            high, low, kind, flags, stream = FRAME_HEAD.unpack_from(received, position)
            end = position + FRAME_HEAD.size + (high << 16 | low)
            if end > len(received):
                break
            payload = received[position + FRAME_HEAD.size : end]
            position = end
            if kind == HEADERS and flags & END_STREAM:
                assert flags == END_STREAM | END_HEADERS, "gRPC neither pads its headers nor ranks them"
                self._end(stream, payload, now_s)
            elif kind == RST_STREAM:
                self._end(stream, None, now_s)
            elif kind in {SETTINGS, PING} and not flags & ACK:
                self._transport.write(_frame(kind, ACK, 0, payload if kind == PING else b""))
        self._unread = received[position:]

    def _end(self, stream: int, headers: bytes | None, now_s: float) -> None:
        # A server may reset a stream that it has answered.
        started_s, future = self._waiting.pop(stream, (0.0, None))
        if future is not None:
            future.set_result(Raw(started_s, now_s, headers))


@asynccontextmanager
async def calling(target: str, method: str, *, timeout_s: float) -> AsyncIterator[Caller]:
    """A connection to host:port."""
    host, _, port = target.rpartition(":")
    _, caller = await asyncio.get_running_loop().create_connection(
        lambda: Caller(method, timeout_s=timeout_s), host, int(port)
    )
    try:
        yield caller
    finally:
        caller.close()


def answered(raw: Raw, *, timeout_s: float) -> Answered:
    """What an answer to a call with that deadline says."""
    if raw.headers is None:
        # Where the deadline has passed a server need not say more than that it does not go on.
        is_late = raw.duration_s >= timeout_s
        code = grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.INTERNAL
        return Answered(code, status_pb2.Status(), raw.duration_s)
    fields = dict(fields_of(raw.headers))
    details = status_pb2.Status.FromString(fields.get(STATUS_DETAILS, b"\0")[1:])
    return Answered(CODES[int(fields[b"grpc-status"])], details, raw.duration_s)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return FRAME_HEAD.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def _field(name: bytes, value: bytes) -> bytes:
    """A header of HPACK that is neither looked up nor to be remembered."""
    return b"\0" + _text(name) + _text(value)


def _text(text: bytes) -> bytes:
    assert len(text) < 0x7F, "a length that takes one byte"
    return bytes((len(text),)) + text


def fields_of(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The headers of a block, as a server writes them to whom it knows to have no table: names and values in full.

    `:status` is left out; so is every update of the table's size.
    """
    position = 0
    while position < len(block):
        first = block[position]
        if first & 0xE0 == 0x20 or first == 0x80 | STATUS_OK:
            position += 1
            continue
        assert first in {0x00, 0x10, 0x40}, f"a header with a name in full, not {first:#x}"
        name, position = _text_at(block, position + 1)
        value, position = _text_at(block, position)
        yield name, value


def _text_at(block: bytes, position: int) -> tuple[bytes, int]:
    """A text of HPACK (RFC 7541 section 5.2) and where it ends."""
    length, position = block[position], position + 1
    assert not length & 0x80, "no Huffman code"
    if length == 0x7F:
        shift = 0
        while True:
            byte, position = block[position], position + 1
            length += (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
    return block[position : position + length], position + length
