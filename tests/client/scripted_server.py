"""A Pointsman server that answers by script: real gRPC on 127.0.0.1, no router behind it."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from queue import Queue
from typing import Any, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer, add_HealthServicer_to_server
from pointsman.errors import ERROR_DOMAIN
from pointsman.v1 import router_service_pb2 as service
from pointsman.v1.router_service_pb2_grpc import RouterServiceServicer, add_RouterServiceServicer_to_server

_M = TypeVar("_M", bound=Message)

_START_TIMEOUT_S = 30.0
"""A server that isn't up by then never will be."""


class Pause(Enum):
    """A step that is not a message."""

    UNTIL_CANCELLED = "until cancelled"


@dataclass(frozen=True, slots=True)
class Failure:
    """A step that ends the call with a status."""

    code: grpc.StatusCode
    message: str = ""
    reason: str = ""
    """Empty: no ErrorInfo."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    details: tuple[Message, ...] = ()
    trailer: bytes | None = None
    """Raw grpc-status-details-bin, in place of the details."""

    def trailers(self) -> tuple[tuple[str, str | bytes], ...]:
        """The trailing metadata."""
        if self.trailer is not None:
            return (("grpc-status-details-bin", self.trailer),)
        info = ErrorInfo(reason=self.reason, domain=ERROR_DOMAIN, metadata=self.metadata)
        details = (info, *self.details) if self.reason else self.details
        status = Status(code=self.code.value[0], message=self.message)
        for detail in details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return (("grpc-status-details-bin", status.SerializeToString()),) if details else ()


Step = Message | Failure | Pause


class ScriptedServer(RouterServiceServicer):
    """Plays for each call of a method the next of its replies; the last one is played for ever."""

    def __init__(self) -> None:
        self.target = ""
        self.requests: defaultdict[str, list[Any]] = defaultdict(list)
        """The requests of each method, as they came."""
        self.headers: defaultdict[str, list[dict[str, str | bytes]]] = defaultdict(list)
        """Their metadata."""
        self.cancelled = threading.Event()
        """Set when a call is cancelled, or its deadline has passed."""
        self.health: int = HealthCheckResponse.SERVING
        """What the health service says."""
        self._replies: dict[str, deque[Sequence[Step]]] = {}

    def on(self, method: str, *replies: Step | Sequence[Step]) -> None:
        """Sets what a method answers: a step for each call, or the steps of a stream."""
        self._replies[method] = deque([reply] if isinstance(reply, Step) else reply for reply in replies)

    async def Route(self, request: service.RouteRequest, context: Any) -> service.RouteResponse:  # noqa: D102, N802
        return await self._unary("Route", request, context, service.RouteResponse)

    async def Complete(  # noqa: D102, N802
        self, request: service.CompleteRequest, context: Any
    ) -> AsyncIterator[service.CompleteResponse]:
        async for response in self._play("Complete", request, context):
            yield cast("service.CompleteResponse", response)

    async def ReportOutcome(  # noqa: D102, N802
        self, request: service.ReportOutcomeRequest, context: Any
    ) -> service.ReportOutcomeResponse:
        return await self._unary("ReportOutcome", request, context, service.ReportOutcomeResponse)

    async def ReportOutcomes(  # noqa: D102, N802
        self, request_iterator: Any, context: Any
    ) -> service.ReportOutcomesResponse:
        requests = [request async for request in request_iterator]
        return await self._unary("ReportOutcomes", requests, context, service.ReportOutcomesResponse)

    async def ListEndpoints(  # noqa: D102, N802
        self, request: service.ListEndpointsRequest, context: Any
    ) -> service.ListEndpointsResponse:
        return await self._unary("ListEndpoints", request, context, service.ListEndpointsResponse)

    async def WatchEndpoints(  # noqa: D102, N802
        self, request: service.WatchEndpointsRequest, context: Any
    ) -> AsyncIterator[service.WatchEndpointsResponse]:
        async for response in self._play("WatchEndpoints", request, context):
            yield cast("service.WatchEndpointsResponse", response)

    async def ListRouters(  # noqa: D102, N802
        self, request: service.ListRoutersRequest, context: Any
    ) -> service.ListRoutersResponse:
        return await self._unary("ListRouters", request, context, service.ListRoutersResponse)

    async def _unary(self, method: str, request: object, context: Any, kind: type[_M]) -> _M:
        (response,) = [response async for response in self._play(method, request, context)]
        assert isinstance(response, kind), f"{method} is scripted to answer {type(response).__name__}"
        return response

    async def _play(self, method: str, request: object, context: Any) -> AsyncIterator[Message]:
        self.requests[method].append(request)
        self.headers[method].append(dict(context.invocation_metadata()))
        replies = self._replies[method]
        try:
            for step in replies.popleft() if len(replies) > 1 else replies[0]:
                match step:
                    case Failure():
                        await context.abort(step.code, step.message, step.trailers())
                    case Pause.UNTIL_CANCELLED:
                        await asyncio.Event().wait()
                    case _:
                        yield step
        except (asyncio.CancelledError, GeneratorExit):
            # It may hit any step, and while a message is being sent it does not even reach this generator but as its end.
            self.cancelled.set()
            raise


class _ScriptedHealth(HealthServicer):
    """The health service beside a scripted server."""

    def __init__(self, scripted: ScriptedServer) -> None:
        self._scripted = scripted

    async def Check(self, request: HealthCheckRequest, _context: Any) -> HealthCheckResponse:  # noqa: N802
        self._scripted.requests["Health"].append(request)
        return HealthCheckResponse(status=self._scripted.health)


@contextmanager
def scripted_server(credentials: grpc.ServerCredentials | None = None) -> Iterator[ScriptedServer]:
    """Runs a scripted server on a loop of its own, so that blocking and asynchronous callers alike can talk to it."""
    scripted = ScriptedServer()
    stops: Queue[Callable[[], object]] = Queue()

    async def serve() -> None:
        server = grpc.aio.server()
        add_RouterServiceServicer_to_server(scripted, server)
        add_HealthServicer_to_server(_ScriptedHealth(scripted), server)
        port = (
            server.add_insecure_port("127.0.0.1:0")
            if credentials is None
            else server.add_secure_port("127.0.0.1:0", credentials)
        )
        await server.start()
        scripted.target = f"127.0.0.1:{port}"
        stop = asyncio.Event()
        stops.put(partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set))
        await stop.wait()
        await server.stop(grace=None)

    # asyncio.run also ends the calls that are still under way when the server has stopped.
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    stop = stops.get(timeout=_START_TIMEOUT_S)
    try:
        yield scripted
    finally:
        stop()
        thread.join()


def events(*messages: Message) -> list[Step]:
    """The responses of a stream that carries these events."""
    fields = service.CompleteResponse.DESCRIPTOR.fields
    names = {each.message_type.full_name: each.name for each in fields if each.message_type is not None}
    return [_response({names[message.DESCRIPTOR.full_name]: message}) for message in messages]


def _response(event: Mapping[str, Any]) -> service.CompleteResponse:
    return service.CompleteResponse(**event)


def pages(kind: type[_M], field_name: str, entries: Iterable[Message], *, size: int) -> list[_M]:
    """A list cut into pages, each but the last with the token of the next."""
    everything = list(entries)
    cuts = range(0, len(everything), size)
    return [
        kind(
            **{
                field_name: everything[start : start + size],
                "next_page_token": f"page-{start + size}" if start + size < len(everything) else "",
            }
        )
        for start in cuts
    ]
