"""Simulated providers: a real HTTP/1.1 server on loopback that speaks OpenAI's protocol under seeded weather.

Demo, tests and benchmarks reach it through the real adapter, so the whole client path is exercised. Each provider has a
path of its own: `POST /{provider}/v1/chat/completions` and `GET /{provider}/v1/models`. Every answer says that it is
simulated.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self, cast

import h11

from pointsman_server.providers.loopback import reset
from pointsman_server.providers.simulated_answer import (
    BadRequestError,
    SimulatedAnswer,
    SimulatedRequest,
    answer_to,
    error_body,
    models_body,
    parsed_request,
    stream_events,
    whole_body,
)
from pointsman_server.providers.weather import Draws, EndpointWeather, OutageKind, ProviderWeather, outage_at

REQUEST_BYTES_MAX = 32 * 1024 * 1024
"""As hosted models allow: a few images as base64. A longer request closes the connection."""
CONNECTION_COUNT_MAX = 8192
"""Room for a benchmark of 5,000 streams; further connections are reset."""
BACKLOG = 1024
"""A burst of connections waits in the kernel, as far as the kernel's own limit (net.core.somaxconn) goes."""

MODELS = "models"
RESOURCES = frozenset({("GET", MODELS), ("POST", "chat/completions")})

Headers = tuple[tuple[str, str], ...]
JSON_HEADERS: Headers = (("content-type", "application/json"),)
STREAM_HEADERS: Headers = (("content-type", "text/event-stream"), ("cache-control", "no-cache"))


class _ResetError(Exception):
    """The weather wants this connection reset."""


class _RefusalError(Exception):
    """The request is answered with an error status."""

    def __init__(self, status: int, code: str, kind: str, *, retry_after_s: float | None = None) -> None:
        self.status = status
        self.body = error_body(code=code, kind=kind, message=f"[simulated] {code.replace('_', ' ')}")
        self.retry_after_s = retry_after_s
        super().__init__(code)


@dataclass(slots=True)
class _Endpoint:
    """One endpoint's changing state."""

    weather: EndpointWeather
    provider: ProviderWeather
    bucket_count: float
    """Requests that the rate limit still allows, as of `bucket_filled_at_s`."""
    bucket_filled_at_s: float = 0.0
    in_flight_count: int = 0
    request_count: int = 0


@dataclass(frozen=True, slots=True)
class _HttpRequest:
    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class SimulatedProviders:
    """The server, running from `async with` to its end."""

    def __init__(
        self,
        weather: tuple[ProviderWeather, ...],
        *,
        seed: int,
        clock_s: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        time_scale: float = 1.0,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Nothing is opened yet.

        Args:
            weather: The providers.
            seed: Of all latencies, failures and answers.
            clock_s: A monotonic clock in seconds.
            sleep: Waits so many seconds of that clock.
            time_scale: Simulated seconds per second of the clock; tests run faster with more.
            host: The address to listen on.
            port: 0 picks a free one.
        """
        assert time_scale > 0.0, time_scale
        self._providers = {provider.name: provider for provider in weather}
        self._endpoints = {
            (provider.name, endpoint.model): _Endpoint(
                endpoint, provider, bucket_count=float(endpoint.rate_limit.burst) if endpoint.rate_limit else 0.0
            )
            for provider in weather
            for endpoint in provider.endpoints
        }
        self._seed = seed
        self._clock_s = clock_s
        self._sleep = sleep
        self._time_scale = time_scale
        self._host = host
        self._wanted_port = port
        self._forced_outages: dict[str, OutageKind] = {}
        self._connections: set[_Connection] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._started_s = self._clock_s()
        self._server = await loop.create_server(self._accept, self._host, self._wanted_port, backlog=BACKLOG)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in tuple(self._connections):
            await connection.abort()
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def base_url(self, provider: str) -> str:
        """What that provider's settings name."""
        assert provider in self._providers, provider
        return f"http://{self._host}:{self.port}/{provider}/v1"

    def set_outage(self, provider: str, kind: OutageKind | None) -> None:
        """Take a provider down, or with None leave it to its weather again."""
        assert provider in self._providers, provider
        if kind is None:
            self._forced_outages.pop(provider, None)
        else:
            self._forced_outages[provider] = kind

    def in_flight_count(self, provider: str, model: str) -> int:
        """Calls under way at one endpoint."""
        return self._endpoints[provider, model].in_flight_count

    def _accept(self) -> _Connection:
        return _Connection(self._respond, self._connections)

    async def _respond(self, request: _HttpRequest, reply: _Connection) -> None:
        try:
            provider, resource = self._resolved(request)
            await self._endure(self._forced_outages.get(provider.name) or outage_at(provider.outages, self._now_s()))
            self._authorize(provider, request)
            if resource == MODELS:
                models = tuple(endpoint.model for endpoint in provider.endpoints)
                reply.send_whole(200, JSON_HEADERS, models_body(models))
            else:
                await self._complete(provider, request, reply)
        except _RefusalError as refusal:
            headers: Headers = JSON_HEADERS
            if refusal.retry_after_s is not None:
                wait_s = refusal.retry_after_s / self._time_scale
                headers += (("retry-after", str(math.ceil(wait_s))), ("retry-after-ms", str(math.ceil(wait_s * 1e3))))
            reply.send_whole(refusal.status, headers, refusal.body)

    def _resolved(self, request: _HttpRequest) -> tuple[ProviderWeather, str]:
        _, _, path = request.path.partition("/")
        name, _, rest = path.partition("/")
        version, _, resource = rest.partition("/")
        provider = self._providers.get(name)
        if provider is None or version != "v1" or (request.method, resource) not in RESOURCES:
            raise _RefusalError(404, "unknown_url", "invalid_request_error")
        return provider, resource

    def _authorize(self, provider: ProviderWeather, request: _HttpRequest) -> None:
        key = provider.api_key
        if key is not None and request.headers.get("authorization") != f"Bearer {key.reveal()}":
            raise _RefusalError(401, "invalid_api_key", "invalid_request_error")

    async def _complete(self, provider: ProviderWeather, request: _HttpRequest, reply: _Connection) -> None:
        try:
            asked = parsed_request(request.body)
        except BadRequestError as error:
            raise _RefusalError(400, f"invalid_{error.parameter}", "invalid_request_error") from None
        endpoint = self._endpoints.get((provider.name, asked.model))
        if endpoint is None:
            raise _RefusalError(404, "model_not_found", "invalid_request_error")
        await self._endure(outage_at(endpoint.weather.outages, self._now_s()))
        self._take_from_bucket(endpoint)
        endpoint.request_count += 1
        draws = Draws(self._seed, "weather", provider.name, asked.model, endpoint.request_count)
        if draws.uniform() < endpoint.weather.error_rate:
            raise _RefusalError(500, "server_error", "server_error")
        answer = answer_to(
            asked,
            provider=provider.name,
            seed=self._seed,
            output_token_count_mean=endpoint.weather.output_token_count_mean,
        )
        endpoint.in_flight_count += 1
        try:
            await self._send_answer(answer, asked, endpoint, draws, reply)
        finally:
            endpoint.in_flight_count -= 1

    def _take_from_bucket(self, endpoint: _Endpoint) -> None:
        limit = endpoint.weather.rate_limit
        if limit is None:
            return
        now_s = self._now_s()
        refilled = endpoint.bucket_count + (now_s - endpoint.bucket_filled_at_s) * limit.requests_per_s
        endpoint.bucket_count = min(float(limit.burst), refilled)
        endpoint.bucket_filled_at_s = now_s
        if endpoint.bucket_count < 1.0:
            wait_s = (1.0 - endpoint.bucket_count) / limit.requests_per_s
            raise _RefusalError(429, "rate_limit_exceeded", "requests", retry_after_s=wait_s)
        endpoint.bucket_count -= 1.0

    async def _send_answer(
        self,
        answer: SimulatedAnswer,
        asked: SimulatedRequest,
        endpoint: _Endpoint,
        draws: Draws,
        reply: _Connection,
    ) -> None:
        """Token by token on an absolute schedule, so that tokens that are overdue go out together."""
        weather = endpoint.weather
        token_count = len(answer.tokens)
        breaks_at = draws.index(token_count) if draws.uniform() < weather.break_rate else None
        events = stream_events(answer, include_usage=asked.include_usage)
        due_s = self._now_s() + weather.ttft_s.draw(draws) * self._latency_factor(endpoint)
        for index in range(token_count):
            await self._until(due_s)
            await self._endure_midway(endpoint)
            if index == breaks_at:
                raise _ResetError
            if asked.stream:
                if index == 0:
                    reply.send_head(200, STREAM_HEADERS)
                reply.send_body(next(events))
                await reply.drained()
            due_s += weather.inter_token_latency_s.draw(draws) * self._latency_factor(endpoint)
        if asked.stream:
            reply.send_body(next(events))
            reply.send_end()
        else:
            reply.send_whole(200, JSON_HEADERS, whole_body(answer))

    def _latency_factor(self, endpoint: _Endpoint) -> float:
        return endpoint.weather.latency_factor(self._now_s(), in_flight_count=endpoint.in_flight_count)

    async def _endure_midway(self, endpoint: _Endpoint) -> None:
        now_s, provider = self._now_s(), endpoint.provider
        kind = self._forced_outages.get(provider.name) or outage_at(provider.outages + endpoint.weather.outages, now_s)
        if kind is not OutageKind.REFUSE:
            await self._endure(kind)

    async def _endure(self, kind: OutageKind | None) -> None:
        match kind:
            case None:
                return
            case OutageKind.REFUSE:
                raise _RefusalError(503, "service_unavailable", "server_error")
            case OutageKind.RESET:
                raise _ResetError
            case OutageKind.HANG:
                await asyncio.Event().wait()

    def _now_s(self) -> float:
        return (self._clock_s() - self._started_s) * self._time_scale

    async def _until(self, due_s: float) -> None:
        wait_s = (due_s - self._now_s()) / self._time_scale
        if wait_s > 0.0:
            await self._sleep(wait_s)


class _Connection(asyncio.Protocol):
    """One client's connection: whole requests in, answers out, one at a time. Ends the answer when the client leaves."""

    def __init__(
        self, respond: Callable[[_HttpRequest, _Connection], Awaitable[None]], connections: set[_Connection]
    ) -> None:
        self._respond = respond
        self._connections = connections
        self._http = h11.Connection(h11.SERVER)
        self._head: h11.Request | None = None
        self._body = bytearray()
        self._answering: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # By shape: uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        if len(self._connections) > CONNECTION_COUNT_MAX:
            reset(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._connections.discard(self)
        self._writable.set()
        if self._answering is not None:
            self._answering.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, received: bytes) -> None:
        if self._answering is not None:
            # No client of ours sends a request before it has the last answer.
            self._transport.abort()
            return
        try:
            self._http.receive_data(received)
            self._read()
        except h11.RemoteProtocolError:
            self._transport.abort()

    def _read(self) -> None:
        while True:
            match self._http.next_event():
                case h11.Request() as head:
                    self._head, self._body = head, bytearray()
                case h11.Data(data=received) if len(self._body) + len(received) <= REQUEST_BYTES_MAX:
                    self._body += received
                case h11.EndOfMessage():
                    self._answering = asyncio.create_task(self._answer(), name="simulated answer")
                    return
                case h11.NEED_DATA | h11.PAUSED:
                    return
                case _:
                    self._transport.abort()
                    return

    async def _answer(self) -> None:
        head = self._head
        assert head is not None, "the body came after its head"
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        request = _HttpRequest(head.method.decode(), head.target.decode("latin-1"), headers, bytes(self._body))
        try:
            await self._respond(request, self)
        except _ResetError:
            reset(self._transport)
            return
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._answering = None
        else:
            self._transport.close()

    def send_whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a complete answer."""
        self.send_head(status, (*headers, ("content-length", str(len(body)))))
        self.send_body(body)
        self.send_end()

    def send_head(self, status: int, headers: Headers) -> None:
        """Begin an answer; without a content-length its body is chunked."""
        self._send(h11.Response(status_code=status, headers=list(headers)))

    def send_body(self, content: bytes) -> None:
        """Send a piece of the body."""
        self._send(h11.Data(data=content))

    def send_end(self) -> None:
        """End the answer."""
        self._send(h11.EndOfMessage())

    def _send(self, event: h11.Event) -> None:
        self._transport.write(self._http.send(event) or b"")

    async def drained(self) -> None:
        """Wait while the client does not read."""
        await self._writable.wait()

    async def abort(self) -> None:
        """Close at once, and end the answer under way."""
        self._transport.abort()
        if self._answering is not None:
            self._answering.cancel()
            await asyncio.wait([self._answering])


async def run_simulated(
    weather: tuple[ProviderWeather, ...],
    *,
    seed: int,
    clock_s: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
    port: int = 0,
    announce: Callable[[int], None],
) -> None:
    """Serve until cancelled; `announce` is told the port as soon as connections are accepted."""
    async with SimulatedProviders(weather, seed=seed, clock_s=clock_s, sleep=sleep, port=port) as server:
        announce(server.port)
        await asyncio.Event().wait()
