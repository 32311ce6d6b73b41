"""The processes: collectors, and servers that tell them."""

from __future__ import annotations

import asyncio
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop
from pointsman_server.app import Application, settle_memory
from pointsman_server.config.load import parse_config

from benchmarks.harness.children import until_closed
from benchmarks.harness.workload import router_config
from benchmarks.telemetry.collector import Collector, Manner

DEAD_URL = "http://127.0.0.1:1"
"""A port that nobody listens on."""


def serve_collector(pipe: Connection, manner: Manner) -> None:
    """A child: a collector that counts what it is sent."""
    asyncio.run(_serve_collector(pipe, manner))


async def _serve_collector(pipe: Connection, manner: Manner) -> None:
    with Collector(manner, keeps=False) as collector:
        pipe.send(collector.url)
        await until_closed(pipe)


def serve_telling(pipe: Connection, upstream_port: int) -> None:
    """A child: for each [telemetry] table that the pipe brings, Pointsman as `pointsman serve` runs it, which says its port
    and that of its metrics; for None, ends that one, and says in how many seconds."""
    uvloop.run(_serve_telling(pipe, upstream_port))


async def _serve_telling(pipe: Connection, upstream_port: int) -> None:
    while (table := await _received(pipe)) is not None:
        text = f"{router_config(upstream_port)}\n{table}"
        config = parse_config(text, source="the benchmark's configuration", directory=Path(), environment=os.environ)
        async with Application(config) as application:
            settle_memory()
            pipe.send((application.port, application.metrics_port))
            await _received(pipe)
            ending_s = time.perf_counter()
        pipe.send(time.perf_counter() - ending_s)


async def _received(pipe: Connection) -> str | None:
    """What the pipe brings; None at its end too."""
    try:
        table: str | None = await asyncio.to_thread(pipe.recv)
    except EOFError:
        return None
    return table
