"""The event-stream parser against the WHATWG rules, at every split."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.errors import UpstreamProtocolError
from pointsman_server.providers.sse import EVENT_BYTES_MAX, SseEvent, SseParser

CORPUS: dict[str, tuple[bytes, list[SseEvent]]] = {
    "one event": (b'data: {"a":1}\n\n', [SseEvent('{"a":1}')]),
    "several events": (b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n", [SseEvent("1"), SseEvent("2"), SseEvent("[DONE]")]),
    "no blank after the colon": (b"data:1\n\n", [SseEvent("1")]),
    "only one blank is removed": (b"data:  1\n\n", [SseEvent(" 1")]),
    "CR LF": (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [SseEvent("1"), SseEvent("2")]),
    "CR": (b"data: 1\r\rdata: 2\r\r", [SseEvent("1"), SseEvent("2")]),
    "mixed line ends": (b"data: 1\r\n\ndata: 2\n\r\ndata: 3\r\n\r", [SseEvent("1"), SseEvent("2"), SseEvent("3")]),
    "byte order mark": (b"\xef\xbb\xbfdata: 1\n\n", [SseEvent("1")]),
    "byte order mark later is content": (b"data: \xef\xbb\xbf1\n\n", [SseEvent("\ufeff1")]),
    "half a byte order mark": (b"\xef\xbbdata: 1\n\n", []),
    "comments": (b": hello\n\n:\n\ndata: 1\n: within\ndata: 2\n\n", [SseEvent("1\n2")]),
    "several data lines": (b"data: 1\ndata: 2\ndata:\n\n", [SseEvent("1\n2\n")]),
    "empty data": (b"data\n\ndata:\n\n", [SseEvent(""), SseEvent("")]),
    "no data, no event": (b"event: ping\n\ndata: 1\n\n", [SseEvent("1")]),
    "event types": (b"event: error\ndata: 1\n\ndata: 2\n\n", [SseEvent("1", "error"), SseEvent("2")]),
    "id and retry are ignored": (b"id: 7\nretry: 10\ndata: 1\n\n", [SseEvent("1")]),
    "unknown fields are ignored": (b"dataset: 2\n data: 3\nDATA: 4\ndata: 1\n\n", [SseEvent("1")]),
    "empty lines are nothing": (b"\n\n\n\r\n\r\rdata: 1\n\n\n\n", [SseEvent("1")]),
    "three line ends between": (b"data: 1\n\n\ndata: 2\n\n", [SseEvent("1"), SseEvent("2")]),
    "cut off": (b"data: 1\n\ndata: 2\n", [SseEvent("1")]),
    "characters of 2, 3, 4 bytes": ("data: é…🚂\n\n".encode(), [SseEvent("é…🚂")]),
    "broken UTF-8": (b"data: a\xff\xe2\x82b\n\n", [SseEvent("a\ufffd\ufffdb")]),
    "other separators of lines are content": (
        "data: a\u2028b\x0bc\x85d\n\n".encode(),
        [SseEvent("a\u2028b\x0bc\x85d")],
    ),
    "colons in the value": (b"data: a: b\n\n", [SseEvent("a: b")]),
    "nothing": (b"", []),
}


def parsed(*pieces: bytes, event_bytes_max: int = EVENT_BYTES_MAX) -> tuple[list[SseEvent], bool]:
    """The events, and whether the parser gave up."""
    parser = SseParser(event_bytes_max=event_bytes_max)
    events: list[SseEvent] = []
    try:
        for piece in pieces:
            # One by one: what was given before a refusal counts.
            for event in parser.feed(piece):
                events += [event]
    except UpstreamProtocolError:
        return events, True
    return events, False


def feed_all(parser: SseParser, *pieces: bytes) -> None:
    """Parse them all, for what that costs or raises."""
    for piece in pieces:
        assert list(parser.feed(piece)) == []


@pytest.mark.parametrize("name", CORPUS)
def test_corpus_in_one_piece(name: str) -> None:
    """Each documented form gives its events."""
    stream, expected = CORPUS[name]
    assert (expected, False) == parsed(stream)


@pytest.mark.parametrize("name", CORPUS)
def test_corpus_split_at_every_byte(name: str) -> None:
    """Two pieces, wherever they part, and single bytes give the same events as the whole."""
    stream, expected = CORPUS[name]
    for at in range(len(stream) + 1):
        assert (expected, False) == parsed(stream[:at], stream[at:]), at
    assert (expected, False) == parsed(*(bytes([byte]) for byte in stream))


PIECES = st.sampled_from(
    [
        b"data: ",
        b"data:",
        b"data",
        b"event: x",
        b":",
        b" ",
        b"\n",
        b"\n\n",
        b"\r",
        b"\r\n",
        b"abc",
        b"\xef\xbb\xbf",
        b"\xf0\x9f",
        b"\x9a\x82",
        b"\xff",
        b"data: {}\n\n",
        b"0123456789",
    ]
)


@given(st.lists(PIECES, max_size=30).map(b"".join), st.lists(st.integers(0, 300), max_size=12))
def test_the_split_never_matters(stream: bytes, cuts: list[int]) -> None:
    """Any bytes, split anywhere, give the same events and the same refusal of what is too long."""
    borders = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(borders)]
    for event_bytes_max in (8, EVENT_BYTES_MAX):
        whole = parsed(stream, event_bytes_max=event_bytes_max)
        assert whole == parsed(*pieces, event_bytes_max=event_bytes_max)
        assert whole == parsed(*(bytes([byte]) for byte in stream), event_bytes_max=event_bytes_max)


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20), max_size=10))
def test_what_is_sent_as_lines_arrives_as_lines(lines: list[str]) -> None:
    """Text sent as data lines is read back exactly."""
    stream = "".join(f"data: {line}\n" for line in lines).encode() + b"\n"
    assert ([SseEvent("\n".join(lines))] if lines else [], False) == parsed(stream)


@pytest.mark.parametrize("line", [b"data: ", b": ", b"", b"x" * 100])
def test_an_endless_line_is_refused_without_growing(line: bytes) -> None:
    """64 MB without a line end are refused at 1 MiB, and memory grows by at most 4 MB."""
    parser = SseParser()
    piece = b"x" * 65536
    tracemalloc.start()
    with pytest.raises(UpstreamProtocolError):
        feed_all(parser, line, *itertools.repeat(piece, 1024))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000


@pytest.mark.parametrize("line", [b"data: 0123456789\n", b"data:ab\n", b"data\n"])
def test_an_endless_event_of_short_lines_is_refused_without_growing(line: bytes) -> None:
    """Lines that are short each do not add up beyond the limit, nor do they take more memory than one long line."""
    parser = SseParser(event_bytes_max=65_536)
    piece = line * (4096 // len(line))
    tracemalloc.start()
    with pytest.raises(UpstreamProtocolError):
        feed_all(parser, *itertools.repeat(piece, 1024))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 65_536


def test_endless_comments_are_no_event() -> None:
    """A provider may keep the connection alive with comments for as long as it likes."""
    parser = SseParser(event_bytes_max=100)
    for _ in range(1000):
        assert list(parser.feed(b": OPENROUTER PROCESSING\n")) == []


def test_an_event_of_exactly_the_limit_passes() -> None:
    """The limit itself is allowed, one byte more is not."""
    assert ([SseEvent("x" * 94)], False) == parsed(b"data: " + b"x" * 94 + b"\n\n", event_bytes_max=100)
    assert parsed(b"data: " + b"x" * 95 + b"\n\n", event_bytes_max=100) == ([], True)


def test_events_before_a_refusal_are_given() -> None:
    """What came in whole before the line that is too long is not lost."""
    assert ([SseEvent("1")], True) == parsed(b"data: 1\n\ndata: " + b"x" * 200 + b"\n\n", event_bytes_max=100)


def test_an_event_shows_no_text() -> None:
    """The data of an event is not in its repr."""
    assert "diary" not in repr(SseEvent("my diary"))
