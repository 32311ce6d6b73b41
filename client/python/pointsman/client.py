"""The two clients: `AsyncClient` for asyncio, `Client` for everything else. They differ in how they wait, only."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from typing import Protocol, Self, TypeVar, Unpack

import grpc
import grpc.aio

from pointsman.channel import (
    CHANNEL_OPTIONS,
    DEFAULT_COMPLETE_TIMEOUT_S,
    DEFAULT_TARGET,
    DEFAULT_TIMEOUT_S,
    CallDefaults,
    GrpcCallArguments,
    TlsSettings,
)
from pointsman.chat import Prompt
from pointsman.durations import duration
from pointsman.errors import translated_errors
from pointsman.events import Answer, AnswerCollector, Event, event_of
from pointsman.options import (
    CallOptions,
    CompleteOptions,
    ReportOutcomeOptions,
    RouteOptions,
    complete_request,
    outcome_of,
    reject_unknown,
    route_request,
)
from pointsman.tracing import TracedCall
from pointsman.v1.router_service_pb2 import (
    ListEndpointsRequest,
    ListRoutersRequest,
    ReportOutcomeRequest,
    ReportOutcomesRequest,
    ReportOutcomesResponse,
    WatchEndpointsRequest,
    WatchEndpointsResponse,
)
from pointsman.v1.router_service_pb2_grpc import RouterServiceStub
from pointsman.v1.routing_pb2 import Decision, EndpointStatus, Outcome, Router

_PAGE_SIZE = 1_000
"""Entries asked for at once: the most that the server gives."""


_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Response_co = TypeVar("_Response_co", covariant=True)
_Item = TypeVar("_Item")


class _PageRequest(Protocol):
    page_token: str


class _Page(Protocol):
    next_page_token: str


class _Call(Protocol[_Response_co]):
    """What is needed of grpc's blocking call of a stream."""

    def __iter__(self) -> Iterator[_Response_co]: ...

    def cancel(self) -> object: ...


_PageRequestT = TypeVar("_PageRequestT", bound=_PageRequest)
_PageT = TypeVar("_PageT", bound=_Page)


class AsyncClient:
    """Talks to a Pointsman server, for asyncio. Create it where a loop runs, close it, or use `async with`.

    One client serves any number of concurrent calls over one connection to each replica. Every method raises a
    `PointsmanError` when the call fails; `Route` and the lists are tried again while the server is unavailable.

    Args:
        target: host:port, or another name that grpc resolves, such as dns:///pointsman.internal:50061.
        api_key: sent as a bearer token. None: none is sent.
        tls: how the connection is secured. None: it is not.
        timeout_s: deadline of every call but `complete`, where the call does not set its own.
        complete_timeout_s: likewise for `complete`.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        api_key: str | None = None,
        tls: TlsSettings | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        complete_timeout_s: float = DEFAULT_COMPLETE_TIMEOUT_S,
    ) -> None:
        self._defaults = CallDefaults(api_key=api_key, timeout_s=timeout_s, complete_timeout_s=complete_timeout_s)
        self._channel = (
            grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
            if tls is None
            else grpc.aio.secure_channel(target, tls.credentials(), options=CHANNEL_OPTIONS)
        )
        self._stub = RouterServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection and cancels the calls on it."""
        await self._channel.close(grace=None)

    async def route(self, prompt: Prompt, **options: Unpack[RouteOptions]) -> Decision:
        """Where the prompt should go, and why; the call itself is left to the caller."""
        request = route_request(prompt, options)
        with TracedCall("Route", self._defaults.of_call(options)) as arguments, translated_errors():
            return (await self._stub.Route(request, **arguments)).decision

    def complete(self, prompt: Prompt, **options: Unpack[CompleteOptions]) -> AsyncGenerator[Event, None]:
        """The events of an answer as they come: the decision first, `Done` last. Asking for the first makes the call.

        Leaving the loop early cancels the call, and with it the call upstream; `contextlib.aclosing` does so at once,
        a mere `break` as soon as the iterator is collected.
        """
        request = complete_request(prompt, options)
        return self._stream("Complete", self._stub.Complete, request, event_of, self._defaults.of_completion(options))

    async def complete_text(self, prompt: Prompt, **options: Unpack[CompleteOptions]) -> Answer:
        """The whole answer, when it is complete."""
        collector = AnswerCollector()
        async for event in self.complete(prompt, **options):
            collector.add(event)
        return collector.answer()

    async def report_outcome(self, decision_id: str, **options: Unpack[ReportOutcomeOptions]) -> None:
        """Tells what became of a decision: what was measured, or later how good the answer was."""
        reject_unknown(options, ReportOutcomeOptions)
        request = ReportOutcomeRequest(outcome=outcome_of(decision_id, options))
        with TracedCall("ReportOutcome", self._defaults.of_call(options)) as arguments, translated_errors():
            await self._stub.ReportOutcome(request, **arguments)

    async def report_outcomes(
        self, outcomes: Iterable[Outcome] | AsyncIterable[Outcome], **options: Unpack[CallOptions]
    ) -> ReportOutcomesResponse:
        """Tells many outcomes (see `outcome`) over one stream; those that can't be taken are listed, not raised."""
        reject_unknown(options, CallOptions)
        requests = _outcome_requests(outcomes) if isinstance(outcomes, Iterable) else _async_outcome_requests(outcomes)
        with TracedCall("ReportOutcomes", self._defaults.of_call(options)) as arguments, translated_errors():
            return await self._stub.ReportOutcomes(requests, **arguments)

    async def list_endpoints(self, **options: Unpack[CallOptions]) -> list[EndpointStatus]:
        """Every endpoint by name, with its catalog entry and its runtime state."""
        reject_unknown(options, CallOptions)
        pages = self._pages(
            "ListEndpoints", self._stub.ListEndpoints, ListEndpointsRequest(page_size=_PAGE_SIZE), options
        )
        return [endpoint async for page in pages for endpoint in page.endpoints]

    async def list_routers(self, **options: Unpack[CallOptions]) -> list[Router]:
        """Every named router, by name."""
        reject_unknown(options, CallOptions)
        pages = self._pages("ListRouters", self._stub.ListRouters, ListRoutersRequest(page_size=_PAGE_SIZE), options)
        return [router async for page in pages for router in page.routers]

    def watch_endpoints(
        self, *, endpoints: Iterable[str] = (), min_interval_s: float | None = None, **options: Unpack[CallOptions]
    ) -> AsyncGenerator[WatchEndpointsResponse, None]:
        """Every endpoint at once, then those that have changed, as they change. Leaving the loop ends the watch.

        Args:
            endpoints: the ones to watch, model@provider. Empty: all.
            min_interval_s: the least time between two responses, 0.1 to 3,600. None: 1.
            options: the call's own; without a timeout the watch goes on until it is left.
        """
        request = _watch_request(endpoints, min_interval_s, options)
        return self._stream(
            "WatchEndpoints", self._stub.WatchEndpoints, request, _as_it_is, self._defaults.of_watch(options)
        )

    async def _stream(
        self,
        name: str,
        method: grpc.aio.UnaryStreamMultiCallable[_Request, _Response],
        request: _Request,
        read: Callable[[_Response], _Item | None],
        arguments: GrpcCallArguments,
    ) -> AsyncGenerator[_Item, None]:
        """What `read` finds in the responses of a call that lives no longer than this iterator.

        grpc's own call goes on when its iterator is abandoned.
        """
        with TracedCall(name, arguments) as traced:
            call = method(request, **traced)
            try:
                with translated_errors():
                    async for response in call:
                        if (item := read(response)) is not None:
                            yield item
            finally:
                call.cancel()

    async def _pages(
        self,
        name: str,
        method: grpc.aio.UnaryUnaryMultiCallable[_PageRequestT, _PageT],
        request: _PageRequestT,
        options: CallOptions,
    ) -> AsyncIterator[_PageT]:
        while True:
            with TracedCall(name, self._defaults.of_call(options)) as arguments, translated_errors():
                page = await method(request, **arguments)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


class Client:
    """Talks to a Pointsman server, for code without asyncio. Close it, or use `with`. Safe to share among threads.

    Arguments and errors are those of `AsyncClient`.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        api_key: str | None = None,
        tls: TlsSettings | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        complete_timeout_s: float = DEFAULT_COMPLETE_TIMEOUT_S,
    ) -> None:
        self._defaults = CallDefaults(api_key=api_key, timeout_s=timeout_s, complete_timeout_s=complete_timeout_s)
        self._channel = (
            grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
            if tls is None
            else grpc.secure_channel(target, tls.credentials(), options=CHANNEL_OPTIONS)
        )
        self._stub = RouterServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and cancels the calls on it."""
        self._channel.close()

    def route(self, prompt: Prompt, **options: Unpack[RouteOptions]) -> Decision:
        """Where the prompt should go, and why; the call itself is left to the caller."""
        request = route_request(prompt, options)
        with TracedCall("Route", self._defaults.of_call(options)) as arguments, translated_errors():
            return self._stub.Route(request, **arguments).decision

    def complete(self, prompt: Prompt, **options: Unpack[CompleteOptions]) -> Generator[Event, None, None]:
        """The events of an answer as they come: the decision first, `Done` last. Asking for the first makes the call.

        Leaving the loop early cancels the call, and with it the call upstream.
        """
        request = complete_request(prompt, options)
        return self._stream("Complete", self._stub.Complete, request, event_of, self._defaults.of_completion(options))

    def complete_text(self, prompt: Prompt, **options: Unpack[CompleteOptions]) -> Answer:
        """The whole answer, when it is complete."""
        collector = AnswerCollector()
        for event in self.complete(prompt, **options):
            collector.add(event)
        return collector.answer()

    def report_outcome(self, decision_id: str, **options: Unpack[ReportOutcomeOptions]) -> None:
        """Tells what became of a decision: what was measured, or later how good the answer was."""
        reject_unknown(options, ReportOutcomeOptions)
        request = ReportOutcomeRequest(outcome=outcome_of(decision_id, options))
        with TracedCall("ReportOutcome", self._defaults.of_call(options)) as arguments, translated_errors():
            self._stub.ReportOutcome(request, **arguments)

    def report_outcomes(self, outcomes: Iterable[Outcome], **options: Unpack[CallOptions]) -> ReportOutcomesResponse:
        """Tells many outcomes (see `outcome`) over one stream; those that can't be taken are listed, not raised."""
        reject_unknown(options, CallOptions)
        with TracedCall("ReportOutcomes", self._defaults.of_call(options)) as arguments, translated_errors():
            return self._stub.ReportOutcomes(_outcome_requests(outcomes), **arguments)

    def list_endpoints(self, **options: Unpack[CallOptions]) -> list[EndpointStatus]:
        """Every endpoint by name, with its catalog entry and its runtime state."""
        reject_unknown(options, CallOptions)
        pages = self._pages(
            "ListEndpoints", self._stub.ListEndpoints, ListEndpointsRequest(page_size=_PAGE_SIZE), options
        )
        return [endpoint for page in pages for endpoint in page.endpoints]

    def list_routers(self, **options: Unpack[CallOptions]) -> list[Router]:
        """Every named router, by name."""
        reject_unknown(options, CallOptions)
        pages = self._pages("ListRouters", self._stub.ListRouters, ListRoutersRequest(page_size=_PAGE_SIZE), options)
        return [router for page in pages for router in page.routers]

    def watch_endpoints(
        self, *, endpoints: Iterable[str] = (), min_interval_s: float | None = None, **options: Unpack[CallOptions]
    ) -> Generator[WatchEndpointsResponse, None, None]:
        """Every endpoint at once, then those that have changed, as they change. See `AsyncClient.watch_endpoints`."""
        request = _watch_request(endpoints, min_interval_s, options)
        return self._stream(
            "WatchEndpoints", self._stub.WatchEndpoints, request, _as_it_is, self._defaults.of_watch(options)
        )

    def _stream(
        self,
        name: str,
        method: grpc.UnaryStreamMultiCallable[_Request, _Response],
        request: _Request,
        read: Callable[[_Response], _Item | None],
        arguments: GrpcCallArguments,
    ) -> Generator[_Item, None, None]:
        """What `read` finds in the responses of a call that lives no longer than this iterator, as `AsyncClient` has it."""
        with TracedCall(name, arguments) as traced:
            call: _Call[_Response] = method(request, **traced)
            try:
                with translated_errors():
                    for response in call:
                        if (item := read(response)) is not None:
                            yield item
            finally:
                call.cancel()

    def _pages(
        self,
        name: str,
        method: grpc.UnaryUnaryMultiCallable[_PageRequestT, _PageT],
        request: _PageRequestT,
        options: CallOptions,
    ) -> Iterator[_PageT]:
        while True:
            with TracedCall(name, self._defaults.of_call(options)) as arguments, translated_errors():
                page = method(request, **arguments)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


def _watch_request(
    endpoints: Iterable[str], min_interval_s: float | None, options: CallOptions
) -> WatchEndpointsRequest:
    reject_unknown(options, CallOptions)
    return WatchEndpointsRequest(
        endpoints=endpoints, min_interval=None if min_interval_s is None else duration(min_interval_s)
    )


def _outcome_requests(outcomes: Iterable[Outcome]) -> Iterator[ReportOutcomesRequest]:
    return (ReportOutcomesRequest(outcome=outcome) for outcome in outcomes)


def _async_outcome_requests(outcomes: AsyncIterable[Outcome]) -> AsyncIterator[ReportOutcomesRequest]:
    return (ReportOutcomesRequest(outcome=outcome) async for outcome in outcomes)


def _as_it_is(response: WatchEndpointsResponse) -> WatchEndpointsResponse:
    return response
