"""A server in place of the real one, for what the real one can't show: what a client does by itself when none is there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Self

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from pointsman.v1.router_service_pb2 import CompleteResponse, Done, RouteResponse
from pointsman.v1.routing_pb2 import Decision

from conformance.scenario import METHODS

Context = grpc.aio.ServicerContext[Any, Any]
ENDPOINT = "a@north"


@dataclass(frozen=True, slots=True)
class ReceivedCall:
    """One call, sent again or not."""

    method: str
    remaining_s: float | None
    """To its deadline when it came. None: it has none."""


class Standin:
    """Answers Route and Complete, but for the first calls of all, which it refuses as a server does that shuts down."""

    def __init__(self, *, unavailable_count: int, router_text: str) -> None:
        """Nothing is opened yet.

        Args:
            unavailable_count: How many calls are refused before the first is answered.
            router_text: Of each decision; it may be as large as a response should be.
        """
        self._unavailable_count = unavailable_count
        self._router_text = router_text
        self.calls: list[ReceivedCall] = []
        """In the order in which they came."""
        self.port = 0
        """The TCP port it listens on, once started."""

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server()
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Route": grpc.unary_unary_rpc_method_handler(self._route),
            "Complete": grpc.unary_stream_rpc_method_handler(self._complete),
        }
        service = METHODS["Route"].containing_service.full_name
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        # A proxy in front of it asks.
        healthy = health.aio.HealthServicer()
        await healthy.set(service, HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(healthy, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self._server.stop(None))

    async def _route(self, _: bytes, context: Context) -> bytes:
        await self._receive("Route", context)
        return RouteResponse(decision=Decision(endpoint=ENDPOINT, router_text=self._router_text)).SerializeToString()

    async def _complete(self, _: bytes, context: Context) -> None:
        await self._receive("Complete", context)
        await context.write(CompleteResponse(done=Done(endpoint=ENDPOINT)).SerializeToString())

    async def _receive(self, method: str, context: Context) -> None:
        # None without a deadline, which the published types leave out.
        remaining_s: float | None = context.time_remaining()
        self.calls.append(ReceivedCall(method, remaining_s))
        if len(self.calls) <= self._unavailable_count:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "shutting down")
