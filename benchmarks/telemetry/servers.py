"""The processes: collectors, and servers that tell them. Each says its port, and serves until the pipe closes."""

from __future__ import annotations

import asyncio
import os
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


def serve_telling(pipe: Connection, upstream_port: int, telemetry: str) -> None:
    """A child: Pointsman as `pointsman serve` runs it, with this [telemetry] table; says its port and that of its metrics."""
    uvloop.run(_serve_telling(pipe, upstream_port, telemetry))


async def _serve_telling(pipe: Connection, upstream_port: int, telemetry: str) -> None:
    text = f"{router_config(upstream_port)}\n{telemetry}"
    config = parse_config(text, source="the benchmark's configuration", directory=Path(), environment=os.environ)
    async with Application(config) as application:
        settle_memory()
        pipe.send((application.port, application.metrics_port))
        await until_closed(pipe)
