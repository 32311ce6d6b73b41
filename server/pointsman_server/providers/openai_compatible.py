"""The adapter for every provider that speaks OpenAI's chat completions over HTTP: OpenAI itself, vLLM, and most others."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable

from pointsman_server.chat import UpstreamEvent
from pointsman_server.errors import UpstreamError
from pointsman_server.providers.base import ProviderSettings, UpstreamCall
from pointsman_server.providers.http_client import Answer, HttpClient
from pointsman_server.providers.openai_wire import StreamDecoder, answer_events, error_code, request_body
from pointsman_server.providers.sse import SseParser

PATH = "/chat/completions"


class OpenAICompatibleProvider:
    """A `ChatProvider` over OpenAI's chat completions."""

    def __init__(self, settings: ProviderSettings, *, unix_s: Callable[[], float], tls: ssl.SSLContext) -> None:
        key = settings.api_key
        self._settings = settings
        self._http = HttpClient(
            settings,
            path=PATH,
            headers=() if key is None else (("authorization", f"Bearer {key.reveal()}"),),
            unix_s=unix_s,
            tls=tls,
            error_code=error_code,
        )

    def __repr__(self) -> str:
        return f"OpenAICompatibleProvider({self._settings!r})"

    async def complete(self, call: UpstreamCall) -> AsyncGenerator[tuple[UpstreamEvent, ...], None]:
        """See `ChatProvider.complete`.

        Raises:
            InvalidRequestError: A JSON schema in the conversation is not JSON.
        """
        body = request_body(call, max_tokens_field=self._settings.max_tokens_field)
        posted = self._http.post(
            body,
            headers=call.headers,
            streamed=call.stream,
            timeout_s=call.timeout_s,
            on_allowance=call.on_allowance,
        )
        async with posted as answer:
            if answer.is_json or not call.stream:
                yield answer_events(await answer.read_all())
                return
            parser, decoder = SseParser(), StreamDecoder()
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


async def _next(answer: Answer, decoder: StreamDecoder) -> bytes:
    """What arrives next; empty at the end. A break after the answer is complete is an end like any other."""
    try:
        return await answer.read()
    except UpstreamError:
        if decoder.answer_complete:
            return b""
        raise


def _decoded(
    received: bytes, parser: SseParser, decoder: StreamDecoder
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
