"""The body of a chunked HTTP/1.1 answer (RFC 9112, section 7.1), as bytes in, bytes out: no I/O, no clock.

A stream of tokens is nothing but small chunks, and h11, which is made to be right in all of HTTP, takes longer for one than
all else on its way to the caller. Here are plain chunks alone. What is anything else (the last chunk, an extension, nonsense)
is left to h11: between two chunks the format has no state, so that who has seen none of them can read on from there.
"""

from __future__ import annotations

import re

PLAIN_HEAD = re.compile(rb"(?!0+\r)([0-9A-Fa-f]{1,8})\r\n")
"""The size of a chunk that holds something, and is below 4 GiB."""
BEGUN_HEAD = re.compile(rb"[0-9A-Fa-f]{1,8}\r?")
LINE_END = b"\r\n"


class ChunkDecoder:
    """Takes the data out of plain chunks, up to the first thing that is none. Holds on to at most 9 bytes.

    Guarantee: what comes out does not depend on how the bytes were split.
    """

    __slots__ = ("_left", "_unread", "is_broken")

    def __init__(self) -> None:
        self.is_broken = False
        """A chunk is longer than it says: nothing must be fed any more."""
        self._left = 0
        """Bytes of a chunk that are still to come, with the line's end behind it; 0 between two chunks."""
        self._unread = b""
        """A head, or a line's end, that is not all there."""

    def feed(self, received: bytes) -> tuple[bytes, bytes | None]:
        """The data in these bytes; and what comes from the first thing on that is no plain chunk, if there is one: after
        that nothing must be fed any more."""
        if self._unread:
            received, self._unread = self._unread + received, b""
        pieces: list[bytes] = []
        position = 0
        while position < len(received):
            if self._left == 0:
                head = PLAIN_HEAD.match(received, position)
                if head is None:
                    rest = received[position:]
                    if BEGUN_HEAD.fullmatch(rest) is None:
                        return b"".join(pieces), rest
                    self._unread = rest
                    break
                position = head.end()
                self._left = int(head[1], 16) + len(LINE_END)
            end = position + self._left
            data_end = end - len(LINE_END)
            pieces.append(received[position:data_end])
            if end > len(received):
                # A line's end that is not all there is looked at when it is.
                self._unread = received[data_end:]
                self._left = end - min(len(received), data_end)
                break
            if not received.startswith(LINE_END, data_end):
                self.is_broken = True
                break
            position, self._left = end, 0
        return b"".join(pieces), None

    def begun(self) -> bytes:
        """Of a chunk's head what there is, where no more comes."""
        return self._unread if self._left == 0 else b""
