"""Server-sent events as bytes in, events out: no I/O, no clock.

Follows the event-stream format of the WHATWG HTML standard, section 9.2: lines end in LF, CR or CRLF, a byte order mark
is skipped, comments and the fields `id` and `retry` are ignored (there is no reconnecting to a completion), broken UTF-8
becomes U+FFFD, and an event that the end of the stream cuts off is no event.

Guarantee: the events do not depend on how the bytes were split. Memory: at most `event_bytes_max` for the unfinished line
and as much for the unfinished event.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pointsman_server.errors import UpstreamProtocolError

EVENT_BYTES_MAX = 1024 * 1024
"""An event carries a few tokens; the largest seen, a whole tool call in one piece, is some 100 KiB."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event of a stream. Its data is a piece of an answer, hence not in `repr`."""

    data: str = field(repr=False)
    event: str = "message"
    """The event's type; `message` where the stream names none."""


class SseParser:
    """Turns one stream's bytes into its events. Not to be used again after an error."""

    __slots__ = ("_after_cr", "_data", "_event", "_event_bytes_max", "_has_data", "_head", "_line", "_started")

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        assert event_bytes_max > 0, event_bytes_max
        self._event_bytes_max = event_bytes_max
        self._started = False
        self._head = b""
        """The stream's first bytes while they may still become a byte order mark."""
        self._line = bytearray()
        """The unfinished line."""
        self._after_cr = False
        """The last byte was a CR: a LF that follows belongs to it."""
        self._data = bytearray()
        """The unfinished event's data. In one piece, because a list of short lines takes a multiple of their length."""
        self._has_data = False
        self._event = b""

    def feed(self, received: bytes) -> Iterator[SseEvent]:
        """The events that these bytes complete; must be iterated to its end before the next call.

        Raises:
            UpstreamProtocolError: A line or an event is longer than `event_bytes_max`; the events before it were given.
        """
        received = received if self._started else self._after_byte_order_mark(received)
        between_events = not (self._line or self._has_data or self._event or self._after_cr)
        if not (between_events and received.endswith(b"\n\n") and b"\r" not in received):
            yield from self._feed_lines(received)
            return
        # Whole events only, as providers send them: no need to look at single lines.
        for block in received[:-2].split(b"\n\n"):
            if block.startswith(b"data: ") and b"\n" not in block:
                self._check_size(len(block))
                yield SseEvent(block[6:].decode("utf-8", "replace"))
            elif block.startswith(b":") and b"\n" not in block:
                # A sign of life, as gateways send it to keep a connection open.
                self._check_size(len(block))
            else:
                yield from self._feed_lines(block + b"\n\n")

    def _after_byte_order_mark(self, received: bytes) -> bytes:
        self._head += received
        if len(self._head) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(self._head):
            return b""
        self._started = True
        head, self._head = self._head, b""
        return head.removeprefix(BYTE_ORDER_MARK)

    def _feed_lines(self, received: bytes) -> Iterator[SseEvent]:
        start = 1 if self._after_cr and received.startswith(b"\n") else 0
        if received:
            self._after_cr = received.endswith(b"\r")
        for line_end in LINE_END.finditer(received, start):
            piece = received[start : line_end.start()]
            start = line_end.end()
            self._check_size(len(self._line) + len(piece))
            if self._line:
                piece = bytes(self._line) + piece
                self._line.clear()
            if piece:
                self._take_field(piece)
                continue
            if self._has_data:
                yield self._event_so_far()
                self._data.clear()
                self._has_data = False
            self._event = b""
        self._check_size(len(self._line) + len(received) - start)
        self._line += received[start:]

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            if self._has_data:
                self._data += b"\n"
            self._check_size(len(self._data) + len(value))
            self._data += value
            self._has_data = True
        elif name == b"event":
            self._event = value

    def _event_so_far(self) -> SseEvent:
        return SseEvent(self._data.decode("utf-8", "replace"), self._event.decode("utf-8", "replace") or "message")

    def _check_size(self, size: int) -> None:
        if size > self._event_bytes_max:
            raise UpstreamProtocolError(f"the provider sent an event of more than {self._event_bytes_max} bytes")
