"""What is fuzzed: each parser of foreign bytes, as a function of bytes that returns, or fails only if the parser is wrong.

A parser may refuse with its own typed error and with nothing else; what it lets through keeps its promises: events don't
depend on how the bytes were cut, text is whole UTF-8, waits are within their bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import h11
import httpx
from pointsman_server.catalog.importer import import_litellm_prices
from pointsman_server.chat import (
    Conversation,
    Finished,
    Message,
    ReasoningDelta,
    Role,
    TextDelta,
    TextPart,
    ToolCallDelta,
    UpstreamEvent,
)
from pointsman_server.errors import ConfigError, UpstreamError, UpstreamProtocolError
from pointsman_server.providers.anthropic_wire import AnthropicWire
from pointsman_server.providers.base import ProviderSettings, UpstreamCall
from pointsman_server.providers.chunks import ChunkDecoder
from pointsman_server.providers.dialects import DIALECTS
from pointsman_server.providers.gemini_wire import GeminiWire
from pointsman_server.providers.openai_wire import OpenAIWire
from pointsman_server.providers.request_allowance import request_allowance
from pointsman_server.providers.retry_after import RETRY_AFTER_S_MAX, retry_after_s
from pointsman_server.providers.sse import SseEvent, SseParser
from pointsman_server.providers.wire import WireFormat

Target = Callable[[bytes], None]

EVENT_BYTES_MAX = 64
"""So short that what is fuzzed reaches it."""
SSE_BYTES_MAX = 512
"""Each byte is a piece of its own once: more bytes would be fewer tries."""
NOW_UNIX_S = 1_764_000_000.0
CALL = UpstreamCall(
    upstream_model="m",
    conversation=Conversation((Message(Role.USER, (TextPart("hi"),)),)),
    output_token_count_max=100,
)


def fuzz_sse(data: bytes) -> None:
    """However the bytes are cut, the events and the refusal are the same."""
    data = data[:SSE_BYTES_MAX]
    for event_bytes_max in (EVENT_BYTES_MAX, 1024 * 1024):
        whole = _parsed([data], event_bytes_max)
        middle = len(data) // 2
        assert whole == _parsed([data[:middle], data[middle:]], event_bytes_max)
        assert whole == _parsed((bytes([byte]) for byte in data), event_bytes_max)


def _parsed(pieces: Iterable[bytes], event_bytes_max: int) -> tuple[list[SseEvent], bool]:
    parser, events = SseParser(event_bytes_max=event_bytes_max), list[SseEvent]()
    try:
        for piece in pieces:
            # One by one: what was given before a refusal counts.
            for event in parser.feed(piece):
                events += [event]
    except UpstreamProtocolError:
        return events, True
    return events, False


def fuzz_chunks(data: bytes) -> None:
    """However the bytes of a chunked body are cut, its data and its end are what they are to h11 alone."""
    data = data[:SSE_BYTES_MAX]
    expected = _drained(_answering(), [data, b""])
    middle = len(data) // 2
    for pieces in ([data], [data[:middle], data[middle:]], [bytes([byte]) for byte in data]):
        assert _dechunked(pieces) == expected


def _dechunked(pieces: Sequence[bytes]) -> tuple[bytes, bool]:
    """The data of a body, and whether it ends as it should. Plain chunks are decoded by ours, the rest by h11."""
    decoder, decoded = ChunkDecoder(), b""
    for number, piece in enumerate(pieces):
        data, rest = decoder.feed(piece)
        decoded += data
        if decoder.is_broken:
            return decoded, False
        if rest is not None:
            # Nothing but an empty piece would be the end.
            more, ends = _drained(_answering(), [one for one in (rest, *pieces[number + 1 :]) if one] + [b""])
            return decoded + more, ends
    more, ends = _drained(_answering(), [decoder.begun(), b""] if decoder.begun() else [b""])
    return decoded + more, ends


def _answering() -> h11.Connection:
    """A client that has read the head of a chunked answer."""
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("host", "h")]))
    http.send(h11.EndOfMessage())
    http.receive_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    assert isinstance(http.next_event(), h11.Response)
    return http


def _drained(http: h11.Connection, pieces: Iterable[bytes]) -> tuple[bytes, bool]:
    decoded = b""
    try:
        for piece in pieces:
            http.receive_data(piece)
            while not isinstance(event := http.next_event(), type(h11.NEED_DATA)):
                if isinstance(event, h11.EndOfMessage):
                    return decoded, True
                assert isinstance(event, h11.Data)
                decoded += bytes(event.data)
    except h11.RemoteProtocolError:
        pass
    return decoded, False


def fuzz_openai(data: bytes) -> None:
    """OpenAI's format, in the dialect that keeps the most."""
    _read(OpenAIWire(ProviderSettings(name="p", base_url="http://a", dialect=DIALECTS["deepseek"])), data)


def fuzz_anthropic(data: bytes) -> None:
    """Anthropic's format."""
    _read(AnthropicWire(ProviderSettings(name="p", base_url="http://a")), data)


def fuzz_gemini(data: bytes) -> None:
    """Google's format."""
    _read(GeminiWire(ProviderSettings(name="p", base_url="http://a")), data)


def _read(wire: WireFormat, data: bytes) -> None:
    """As a stream, as a whole answer, and as an error."""
    with suppress(UpstreamError):
        _check(wire.answer_events(CALL, data))
    with suppress(UpstreamError):
        decoder, events = wire.decoder(CALL), list[UpstreamEvent]()
        for sent in SseParser().feed(data):
            events += decoder.events_of(sent.data)
            if decoder.ended:
                break
        events += decoder.end()
        _check(events)
    said = wire.error_answer(data)
    assert said.retry_after_s is None or 0.0 <= said.retry_after_s <= RETRY_AFTER_S_MAX


def _check(events: Iterable[UpstreamEvent]) -> None:
    """Exactly one end, and it is the last; text can be sent on."""
    events = list(events)
    assert [isinstance(event, Finished) for event in events] == [False] * (len(events) - 1) + [True]
    for event in events:
        match event:
            case TextDelta(text) | ReasoningDelta(text):
                assert text.encode()
            case ToolCallDelta():
                assert event.index >= 0
                f"{event.id}{event.name}{event.arguments_json_fragment}{event.signature}".encode()
            case _:
                pass


def fuzz_headers(data: bytes) -> None:
    """How long to wait and how many requests are left, of headers that hold anything."""
    names = (b"retry-after", b"retry-after-ms", b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests")
    values = data.split(b"\n")
    headers = httpx.Headers(
        [*zip((*names, b"x-ratelimit-reset-requests"), (value.strip() for value in values), strict=False)]
    )
    wait_s = retry_after_s(headers, now_unix_s=NOW_UNIX_S)
    assert wait_s is None or 0.0 <= wait_s <= RETRY_AFTER_S_MAX
    allowance = request_allowance(headers, now_unix_s=NOW_UNIX_S)
    assert allowance is None or math.isfinite(allowance.reset_s)


def fuzz_prices(data: bytes) -> None:
    """A file of model prices that someone downloaded."""
    with suppress(ConfigError):
        assert import_litellm_prices(data.decode("utf-8", "replace")).endpoint_count > 0


TARGETS: dict[str, Target] = {
    "sse": fuzz_sse,
    "chunks": fuzz_chunks,
    "openai": fuzz_openai,
    "anthropic": fuzz_anthropic,
    "gemini": fuzz_gemini,
    "headers": fuzz_headers,
    "prices": fuzz_prices,
}
"""By the name that `make fuzz` takes."""
