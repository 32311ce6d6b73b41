"""The caller: one request to each server in turn, so that whatever else the machine does meets all of them alike.

With each request it reads the CPU clock of the server's process. What an exporting thread takes from requests, the
processor or the interpreter's lock, shows there, and more steadily than in latencies.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection

import uvloop

from benchmarks.harness.cases import Case
from benchmarks.harness.load import Callers, Ports

WARM_UP_COUNT = 20
"""Requests of each kind that a server gets before any is measured."""


@dataclass(frozen=True, slots=True)
class Ask:
    """So many requests to each server."""

    case: Case
    count: int


@dataclass(frozen=True, slots=True)
class Met:
    """What the requests to one server met."""

    latencies_s: list[float]
    works_s: list[float]
    """CPU time of the server's process while each was under way, whatever for."""


def serve_caller(pipe: Connection, upstream_port: int, clock_ids: Sequence[int], seed: int) -> None:
    """A child: for the ports of the servers, which the pipe brings, connects to them anew, reports outcomes to them and
    says None; for an `Ask` it tells what was met by server. `clock_ids` are the servers' CPU clocks."""
    rng = random.Random(seed)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stack = AsyncExitStack()
        servers: list[Callers] = []
        while True:
            try:
                asked: Ask | list[int] = pipe.recv()
            except EOFError:
                break
            if isinstance(asked, Ask):
                pipe.send(runner.run(_ask(servers, asked, clock_ids, rng)))
            else:
                runner.run(stack.aclose())
                servers = runner.run(_connected(asked, upstream_port, stack, seed=seed))
                pipe.send(None)
        runner.run(stack.aclose())


async def _connected(ports: Sequence[int], upstream_port: int, stack: AsyncExitStack, *, seed: int) -> list[Callers]:
    servers = []
    for port in ports:
        everywhere = Ports(bare=port, bare_uvloop=port, router=port, upstream=upstream_port)
        callers = Callers(everywhere, seed=seed, stack=stack)
        await callers.connect()
        await callers.report()
        servers.append(callers)
    return servers


async def _ask(servers: Sequence[Callers], asked: Ask, clock_ids: Sequence[int], rng: random.Random) -> list[Met]:
    calls = [callers.calls[asked.case] for callers in servers]
    met = [Met([], []) for _ in servers]
    order = list(range(len(servers)))
    for number in range(asked.count):
        rng.shuffle(order)
        for index in order:
            started_s, worked_s = time.perf_counter(), time.clock_gettime(clock_ids[index])
            await calls[index](number)
            met[index].works_s.append(time.clock_gettime(clock_ids[index]) - worked_s)
            met[index].latencies_s.append(time.perf_counter() - started_s)
    return met
