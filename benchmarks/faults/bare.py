"""A gRPC server that does nothing but refuse: what of a refusal's time is gRPC's, and not Pointsman's."""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection

import grpc
import uvloop
from google.rpc import status_pb2
from pointsman_server.app import settle_memory
from pointsman_server.edge.interceptors import Handler

from benchmarks.faults.site import START_TIMEOUT_S
from benchmarks.harness.children import Child, until_closed


def refusing(method: str, status: status_pb2.Status) -> Child:
    """Its process, to be entered; `port_of` says where it listens."""
    return Child(_serve, method, status.SerializeToString())


async def port_of(child: Child) -> int:
    """The port of the server, once it is up."""
    port: int = await asyncio.to_thread(child.receive, START_TIMEOUT_S)
    return port


def _serve(pipe: Connection, method: str, serialised: bytes) -> None:
    uvloop.run(_refuse(pipe, method, serialised))


async def _refuse(pipe: Connection, method: str, serialised: bytes) -> None:
    message = status_pb2.Status.FromString(serialised).message
    details = (("grpc-status-details-bin", serialised),)

    async def refuse(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, message, details)

    _, service, name = method.split("/")
    server = grpc.aio.server()
    handler: Handler = grpc.unary_stream_rpc_method_handler(refuse)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    settle_memory()
    pipe.send(port)
    await until_closed(pipe)
    await server.stop(None)
