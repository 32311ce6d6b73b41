"""Chunked bodies: any cut, any oddity, and always what h11 makes of them."""

from __future__ import annotations

import pytest
from fuzz.targets import fuzz_chunks
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.providers.chunks import ChunkDecoder

DATA = st.binary(max_size=12) | st.sampled_from([b"\r\n", b"\n\n", b"0\r\n\r\n", b"5\r\nhello\r\n"])


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    """A chunk: mostly a plain one."""
    data = draw(DATA)
    size = format(len(data) + draw(st.sampled_from([0, 0, 0, 0, 1])), draw(st.sampled_from(["x", "X", "03x", "09x"])))
    behind = draw(st.sampled_from(["", "", "", "", " ", ";a=b", "\r", "\n"]))
    line_end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b""]))
    return f"{size}{behind}\r\n".encode() + data + line_end


@given(
    st.lists(chunks(), max_size=5), st.sampled_from([b"0\r\n\r\n", b"0\r\na: b\r\n\r\n", b"0\r\n", b"0", b"", b"zz"])
)
def test_a_body_is_what_it_is_to_h11(body: list[bytes], end: bytes) -> None:
    """Its data and whether it ends as it should, however it is cut."""
    fuzz_chunks(b"".join(body) + end)


@pytest.mark.parametrize(
    ("received", "data", "rest"),
    [
        (b"5\r\nhello\r\n", b"hello", None),
        (b"5\r\nhello\r\n3\r\nyou\r\n", b"helloyou", None),
        (b"5\r\nhel", b"hel", None),
        (b"5\r\nhello\r", b"hello", None),
        (b"5\r\nhello\r\n3", b"hello", None),
        (b"5\r\nhello\r\n0\r", b"hello", None),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello", b"0\r\n\r\n"),
        (b"5\r\nhello\r\n00\r\n\r\n", b"hello", b"00\r\n\r\n"),
        (b"5\r\nhello\r\n3;a=b\r\nyou\r\n", b"hello", b"3;a=b\r\nyou\r\n"),
        (b"123456789\r\nhello", b"", b"123456789\r\nhello"),
    ],
)
def test_plain_chunks_are_decoded_and_nothing_else(received: bytes, data: bytes, rest: bytes | None) -> None:
    """What there is of a chunk comes out at once; from the first thing on that is no plain chunk all is left as it is."""
    assert ChunkDecoder().feed(received) == (data, rest)


def test_a_chunk_that_is_longer_than_it_says_is_noticed() -> None:
    """What it says comes out, and nothing after it."""
    decoder = ChunkDecoder()
    assert decoder.feed(b"5\r\nhello!\r\n") == (b"hello", None)
    assert decoder.is_broken
