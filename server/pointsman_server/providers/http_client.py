"""One provider's HTTP connections: a request's bytes in, its answer's bytes out, and every failure as an `UpstreamError`.

What the formats have in common lives here: timeouts, bounds, the reading of error answers, and the one function that
translates httpx's exceptions.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import httpx

from pointsman_server.chat import RequestAllowance
from pointsman_server.errors import (
    UpstreamConnectError,
    UpstreamDisconnectedError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamStatusError,
    UpstreamTimeoutError,
)
from pointsman_server.providers.asyncio_transport import DEADLINE_EXTENSION, AsyncioTransport, DeadlineError
from pointsman_server.providers.base import ProviderSettings
from pointsman_server.providers.request_allowance import request_allowance
from pointsman_server.providers.retry_after import retry_after_s
from pointsman_server.providers.wire import ErrorAnswer

ERROR_BYTES_MAX = 64 * 1024
"""Enough for any machine-readable error; what lies beyond is an error page."""
ERROR_BODY_TIMEOUT_S = 1.0
"""The status is known: its body, worth one word of explanation, must not hold up the next attempt for longer."""
DRAIN_TIMEOUT_S = 0.1
"""After the last event the end of the HTTP body follows at once; a server that keeps the stream open loses its connection."""
URL_COUNT_MAX = 8192
"""Two for each endpoint that a catalog can hold."""
USER_AGENT = "pointsman"


def default_tls() -> ssl.SSLContext:
    """Trust in the public certificate authorities. Takes 20 ms and 1 MB, so providers share one."""
    return httpx.create_ssl_context(trust_env=False)


class HttpClient:
    """The connections to one provider. HTTP/1.1, kept alive; no redirect is followed, no proxy is read from outside.

    It drives the transport itself: httpx's own client adds cookies, redirects and authentication, none of them wanted here,
    and takes a good part of a short call's time for that.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        *,
        headers: tuple[tuple[str, str], ...],
        unix_s: Callable[[], float],
        tls: ssl.SSLContext,
        error_answer: Callable[[bytes], ErrorAnswer],
    ) -> None:
        """Nothing is opened yet.

        Args:
            settings: Where the provider is, and its limits.
            headers: Sent with every request, in addition to `settings.headers`.
            unix_s: The time of day, for Retry-After dates.
            tls: Which certificates are trusted.
            error_answer: Reads what a machine may repeat from the body of an error answer.
        """
        self._settings = settings
        self._unix_s = unix_s
        self._error_answer = error_answer
        self._base_url = settings.base_url.rstrip("/")
        self._urls: dict[str, httpx.URL] = {}
        """By path: as many as there are models, because parsing one takes longer than sending a short request."""
        own_headers = [(name, value.reveal()) for name, value in settings.headers]
        # Each line replaces what the lines before it say of the same header.
        self._headers = httpx.Headers(
            [(b"Host", httpx.URL(self._base_url).netloc), (b"Accept", b"*/*"), (b"Connection", b"keep-alive")]
        )
        self._headers.update([("user-agent", USER_AGENT), ("accept-encoding", "identity"), *headers, *own_headers])
        self._headers.update([("content-type", "application/json")])
        self._stream_timeouts = _timeouts(settings, silence_s=settings.idle_timeout_s)
        self._whole_timeouts = _timeouts(settings, silence_s=settings.whole_answer_timeout_s)
        self._transport = AsyncioTransport(
            tls=tls,
            connection_count_max=settings.connection_count_max,
            keepalive_expiry_s=settings.keepalive_expiry_s,
        )

    @asynccontextmanager
    async def post(
        self,
        path: str,
        body: bytes,
        *,
        headers: tuple[tuple[str, str], ...],
        streamed: bool,
        timeout_s: float | None,
        on_allowance: Callable[[RequestAllowance], None] | None = None,
    ) -> AsyncIterator[Answer]:
        """Send JSON and open the answer; whoever leaves before its end closes the connection.

        `path` is below `settings.base_url`. `on_allowance` is told what the headers say of further requests.

        Raises:
            UpstreamError: No connection, no answer in time, or an answer other than 200.
        """
        sent_headers = self._headers.copy()
        sent_headers.update([*headers, ("Content-Length", str(len(body)))])
        extensions: dict[str, object] = {"timeout": self._stream_timeouts if streamed else self._whole_timeouts}
        if timeout_s is not None:
            # The event loop's clock is the one that its timeouts are set by; no other use is made of it.
            extensions[DEADLINE_EXTENSION] = asyncio.get_running_loop().time() + timeout_s
        stream = httpx.ByteStream(body)
        request = httpx.Request("POST", self._url(path), headers=sent_headers, stream=stream, extensions=extensions)
        try:
            response = await self._transport.handle_async_request(request)
        except httpx.HTTPError as error:
            raise _translated(error) from None
        answer = Answer(response, self._settings)
        try:
            if on_allowance is not None:
                allowance = request_allowance(response.headers, now_unix_s=self._unix_s())
                if allowance is not None:
                    on_allowance(allowance)
            if response.status_code != httpx.codes.OK:
                raise await self._status_error(response, answer)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise UpstreamProtocolError("the provider compressed its answer unasked")
            yield answer
        finally:
            await response.aclose()

    async def _status_error(self, response: httpx.Response, answer: Answer) -> UpstreamError:
        if response.status_code < 400:
            return UpstreamProtocolError(f"the provider answered HTTP {response.status_code} in place of an answer")
        body = b""
        with suppress(UpstreamError, TimeoutError):
            async with asyncio.timeout(ERROR_BODY_TIMEOUT_S):
                while len(body) < ERROR_BYTES_MAX and (received := await answer.read()):
                    body += received
        said = self._error_answer(body[:ERROR_BYTES_MAX])
        asked_s = retry_after_s(response.headers, now_unix_s=self._unix_s())
        return UpstreamStatusError(
            response.status_code,
            retry_after_s=said.retry_after_s if asked_s is None else asked_s,
            detail=said.code,
            kind=said.kind,
        )

    def _url(self, path: str) -> httpx.URL:
        url = self._urls.get(path)
        if url is None:
            if len(self._urls) == URL_COUNT_MAX:
                self._urls.clear()
            url = self._urls[path] = httpx.URL(self._base_url + path)
        return url

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


def _timeouts(settings: ProviderSettings, *, silence_s: float) -> dict[str, float | None]:
    connect_s = settings.connect_timeout_s
    return httpx.Timeout(connect=connect_s, pool=connect_s, write=silence_s, read=silence_s).as_dict()


class Answer:
    """The body of one answer, as it arrives."""

    __slots__ = ("_received", "_received_size", "_settings", "is_json")

    def __init__(self, response: httpx.Response, settings: ProviderSettings) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream), "the transport is asynchronous"
        # Not `response.aiter_raw`: for each piece it goes through two generators more.
        self._received = aiter(response.stream)
        self._received_size = 0
        self._settings = settings
        self.is_json: bool = response.headers.get("content-type", "").startswith("application/json")
        """It comes as one JSON document, whatever was asked for."""

    async def read(self) -> bytes:
        """What arrives next; empty at the end.

        Raises:
            UpstreamError: Nothing arrived in time, the connection broke, or the answer is too long.
        """
        try:
            received = await anext(self._received, b"")
        except httpx.HTTPError as error:
            raise _translated(error) from None
        self._received_size += len(received)
        self._check_size(self._settings.stream_bytes_max, "a stream")
        return received

    async def read_all(self) -> bytes:
        """The whole of it; fails as `read` does."""
        pieces = []
        while received := await self.read():
            self._check_size(self._settings.whole_bytes_max, "an answer in one piece")
            pieces.append(received)
        return b"".join(pieces)

    def _check_size(self, bytes_max: int, kind: str) -> None:
        if self._received_size > bytes_max:
            raise UpstreamProtocolError(f"the provider's answer is too long: {kind} may have {bytes_max} bytes")

    async def drain(self) -> None:
        """Give the server a moment to end the body, so that the connection can serve again."""
        with suppress(UpstreamError, TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                while await self.read():
                    pass


def _translated(error: httpx.HTTPError) -> UpstreamError:
    """What failed, in our own words: foreign text may quote a header."""
    name = type(error).__name__
    match error:
        case DeadlineError():
            return UpstreamTimeoutError("the provider did not answer before the deadline")
        case httpx.ConnectTimeout() | httpx.PoolTimeout() | httpx.ConnectError() | httpx.UnsupportedProtocol():
            return UpstreamConnectError(f"no connection to the provider ({name})")
        case httpx.TimeoutException():
            return UpstreamTimeoutError(f"the provider was silent for too long ({name})")
        case httpx.ProtocolError():
            return UpstreamProtocolError(f"what was to be sent or received is not HTTP ({name})")
        case _:
            return UpstreamDisconnectedError(f"the connection to the provider broke ({name})")
