"""The two servers that are compared: bare grpc.aio, and Pointsman. Each tells its port, and serves until the pipe closes."""

from __future__ import annotations

import asyncio
import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import uvloop
from pointsman.v1 import chat_pb2, router_service_pb2
from pointsman_server.app import Application, server_options, settle_memory
from pointsman_server.config.load import parse_config
from pointsman_server.config.settings import ServerSettings

from benchmarks.harness.children import until_closed
from benchmarks.harness.upstream import PACE_S
from benchmarks.harness.workload import PIECES, router_config

BARE_SERVICE = "benchmark.Bare"
BARE_MESSAGES = tuple(
    router_service_pb2.CompleteResponse(delta=chat_pb2.Delta(text=piece)).SerializeToString() for piece in PIECES
)
"""As many bytes as the router's own messages have, serialised beforehand."""

Context = grpc.aio.ServicerContext[Any, Any]


async def _echo(request: bytes, _context: Context) -> bytes:
    return request


async def _stream(_request: bytes, context: Context) -> None:
    for message in BARE_MESSAGES:
        await context.write(message)


async def _stream_paced(_request: bytes, context: Context) -> None:
    for message in BARE_MESSAGES:
        await context.write(message)
        await asyncio.sleep(PACE_S)


def serve_bare(pipe: Connection) -> None:
    """A child: the least that grpc.aio can do with the options of the real server, on asyncio's own loop."""
    asyncio.run(_serve_bare(pipe))


def serve_bare_on_uvloop(pipe: Connection) -> None:
    """A child: the same on the event loop of the real server."""
    uvloop.run(_serve_bare(pipe))


async def _serve_bare(pipe: Connection) -> None:
    server = grpc.aio.server(options=server_options(ServerSettings()))
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(_echo),
        "Stream": grpc.unary_stream_rpc_method_handler(_stream),
        "StreamPaced": grpc.unary_stream_rpc_method_handler(_stream_paced),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(BARE_SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    pipe.send(port)
    await until_closed(pipe)
    await server.stop(None)


def serve_router(pipe: Connection, upstream_port: int) -> None:
    """A child: Pointsman as `pointsman serve` runs it, over endpoints of the upstream at that port."""
    uvloop.run(_serve_router(pipe, upstream_port))


async def _serve_router(pipe: Connection, upstream_port: int) -> None:
    config = parse_config(
        router_config(upstream_port), source="the benchmark's configuration", directory=Path(), environment=os.environ
    )
    async with Application(config) as application:
        settle_memory()
        pipe.send(application.port)
        await until_closed(pipe)
