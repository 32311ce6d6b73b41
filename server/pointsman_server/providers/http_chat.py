"""A chat provider over HTTP: what all wire formats have in common, from the call to the last event."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable

from pointsman_server.chat import UpstreamEvent
from pointsman_server.errors import UpstreamError
from pointsman_server.providers.base import ProviderSettings, UpstreamCall
from pointsman_server.providers.http_client import Answer, HttpClient
from pointsman_server.providers.sse import SseParser
from pointsman_server.providers.wire import Decoder, WireFormat

AFTER_ANSWER_TIMEOUT_S = 2.0
"""What follows the last piece of an answer comes with it or shortly after; gateways have been seen to take half a second to
count. A provider that then keeps the stream open without a mark must not keep the caller."""


class HttpChatProvider:
    """A `ChatProvider` that speaks one wire format."""

    def __init__(
        self, settings: ProviderSettings, wire: WireFormat, *, unix_s: Callable[[], float], tls: ssl.SSLContext
    ) -> None:
        """Nothing is opened yet.

        Args:
            settings: Where the provider is, its key, its limits.
            wire: How it is spoken to.
            unix_s: The time of day, for Retry-After dates.
            tls: Which certificates are trusted.
        """
        self._settings = settings
        self._wire = wire
        self._http = HttpClient(settings, headers=wire.headers, unix_s=unix_s, tls=tls, error_answer=wire.error_answer)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings!r})"

    async def complete(self, call: UpstreamCall) -> AsyncGenerator[tuple[UpstreamEvent, ...], None]:
        """See `ChatProvider.complete`.

        Raises:
            InvalidRequestError: A JSON schema in the conversation is not JSON.
        """
        request = self._wire.request(call)
        posted = self._http.post(
            request.path,
            request.body,
            headers=call.headers,
            streamed=call.stream,
            timeout_s=call.timeout_s,
            on_allowance=call.on_allowance,
        )
        async with posted as answer:
            if answer.is_json or not call.stream:
                yield self._wire.answer_events(call, await answer.read_all())
                return
            parser, decoder = SseParser(), self._wire.decoder(call)
            while not decoder.ended:
                events, failure = _decoded(await _next(answer, decoder), parser, decoder)
                if events:
                    yield events
                if failure is not None:
                    raise failure
            await answer.drain()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()


async def _next(answer: Answer, decoder: Decoder) -> bytes:
    """What arrives next; empty at the end. Once the answer is complete a break is an end like any other, and so is a
    silence: only counts and marks can be missing."""
    if not decoder.answer_complete:
        return await answer.read()
    try:
        async with asyncio.timeout(AFTER_ANSWER_TIMEOUT_S):
            return await answer.read()
    except (UpstreamError, TimeoutError):
        return b""


def _decoded(
    received: bytes, parser: SseParser, decoder: Decoder
) -> tuple[tuple[UpstreamEvent, ...], UpstreamError | None]:
    """The events of one read, and the failure that follows them: what came before a failure is not lost."""
    events: list[UpstreamEvent] = []
    try:
        if not received:
            events += decoder.end()
        for sent in parser.feed(received):
            events += decoder.events_of(sent.data)
            if decoder.ended:
                break
    except UpstreamError as failure:
        return tuple(events), failure
    return tuple(events), None
