"""A router and its providers, each in a process of its own, as one run of a case needs them; and what is seen of both."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import resource
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import uvloop
from pointsman_server.app import Application, settle_memory
from pointsman_server.config.load import parse_config
from pointsman_server.providers.scripted import (
    LAST_CHUNK,
    Pause,
    ReadRequest,
    Repeat,
    Script,
    ScriptedUpstream,
    Send,
    event,
    stream_head,
)

from benchmarks.harness.children import Child

START_TIMEOUT_S = 120.0
"""Loading the server's libraries and the quality artifact takes 2 s on an idle machine."""
CONNECTION_COUNT_MAX = 10_000
"""More than any case has open at one time: what holds the streams of a case back should not be a setting."""
NICENESS = 10
"""Of providers that must not hold up those that are apart."""
PAGE_BYTES = resource.getpagesize()


def delta(text: str) -> bytes:
    """An event of an OpenAI stream that carries text."""
    return event(json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}))


END = (
    event(json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
    + event(json.dumps({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}))
    + event("[DONE]")
    + LAST_CHUNK
)
PIECES = ("one ", "two ", "three ", "four ", "five ")
ANSWER = "".join(PIECES)
WHOLE = stream_head() + b"".join(delta(piece) for piece in PIECES) + END
ENDLESS: Script = (ReadRequest(is_kept=False), Send(stream_head()), Repeat((Send(delta("on and on ")), Pause(0.01))))
"""A hundred pieces a second, without an end."""
QUICK: Script = (Repeat((ReadRequest(is_kept=False), Send(WHOLE))),)
"""A whole answer at once, for any number of requests on one connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provided:
    """One provider of a site."""

    scripts: tuple[Script, ...] = ()
    """What its connections play; none where `url` leads elsewhere."""
    model_count: int = 1
    """It serves `m0`, `m1`, ..., each an endpoint with a breaker of its own."""
    lines: str = ""
    """Further lines of its table in the configuration."""
    url: str = "http://127.0.0.1:{port}/v1"
    is_apart: bool = False
    """Whether what the others play must not hold it up: such providers have a process of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One connection, as the provider saw it; times are of the monotonic clock, which all processes share."""

    accepted_at_s: float
    closed_at_s: float | None
    """When the router closed it; None: it has not."""
    is_over: bool
    """It is closed by either side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterState:
    """What the router's process holds."""

    memory_bytes: int
    """Resident, after garbage is collected and free pages are given back: what is really held."""
    socket_count: int
    task_count: int


@dataclass(frozen=True, slots=True)
class _Look:
    """Asks the upstreams' child for the connections of one of them."""

    name: str


async def serve_orders(pipe: Connection, answer: Callable[[Any], Awaitable[object]]) -> None:
    """Within a child: answers what the parent asks, one thing after the other, until it has closed the pipe or is gone."""
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pipe.fileno(), readable.set)
    try:
        while True:
            await readable.wait()
            readable.clear()
            while pipe.poll():
                pipe.send(await answer(pipe.recv()))
    except (EOFError, ConnectionResetError):
        # A parent that goes before it has read an answer resets the pipe.
        return
    finally:
        loop.remove_reader(pipe.fileno())


def keep_to(cores: Sequence[int]) -> None:
    """From now on this process's first thread, with the threads that it will start, runs on these cores alone; on any when
    there are none. Whichever thread asks for it: a site is taken down in another one."""
    if cores:
        os.sched_setaffinity(os.getpid(), cores)


def raise_file_limit() -> None:
    """As many open files as the system lets this process have: a socket for each of thousands of streams."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def serve_upstreams(
    pipe: Connection, scripts: Mapping[str, tuple[Script, ...]], cores: Sequence[int], niceness: int
) -> None:
    """A child: one scripted upstream for each name. On asyncio's own loop, whose clock is exact."""
    keep_to(cores)
    os.nice(niceness)
    raise_file_limit()
    # A search for garbage here would be a provider's delay.
    settle_memory()
    asyncio.run(_serve_upstreams(pipe, scripts))


async def _serve_upstreams(pipe: Connection, scripts: Mapping[str, tuple[Script, ...]]) -> None:
    async with AsyncExitStack() as stack:
        upstreams = {
            name: await stack.enter_async_context(ScriptedUpstream(*played)) for name, played in scripts.items()
        }
        pipe.send({name: upstream.port for name, upstream in upstreams.items()})

        async def look(order: _Look) -> tuple[Seen, ...]:
            return tuple(
                Seen(
                    accepted_at_s=connection.accepted_at_s,
                    closed_at_s=connection.client_closed_at_s,
                    is_over=connection.script_done.is_set(),
                )
                for connection in upstreams[order.name].connections
            )

        await serve_orders(pipe, look)


def serve_faulted_router(pipe: Connection, config: str, cores: Sequence[int]) -> None:
    """A child: Pointsman as `pointsman serve` runs it."""
    keep_to(cores)
    raise_file_limit()
    uvloop.run(_serve_router(pipe, config))


async def _serve_router(pipe: Connection, config: str) -> None:
    parsed = parse_config(config, source="the benchmark's configuration", directory=Path(), environment={})
    async with Application(parsed) as application:
        settle_memory()
        pipe.send(application.port)

        async def state(_order: object) -> RouterState:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
            return RouterState(
                memory_bytes=memory_bytes(os.getpid()),
                socket_count=_socket_count(),
                task_count=len(asyncio.all_tasks()),
            )

        await serve_orders(pipe, state)


def _socket_count() -> int:
    return sum(_is_socket(path) for path in Path("/proc/self/fd").iterdir())


def _is_socket(path: Path) -> bool:
    try:
        return str(path.readlink()).startswith("socket:")
    except FileNotFoundError:
        # The descriptor that listed the folder is gone by now.
        return False


def memory_bytes(pid: int) -> int:
    """What a process has resident at this moment."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES


@dataclass(slots=True)
class Site:
    """Processes up from `async with` to its end."""

    providers: Mapping[str, Provided]
    server_lines: str = ""
    """Further lines of the router's [server] table."""
    host: str = "127.0.0.1"
    """What the router listens on."""
    is_router_alone: bool = False
    """Whether the router has a core of its own, and the caller and the providers share the others, those that are apart
    before those that are not: what the router does for the ones can then hold up the others, and nothing else can."""
    target: str = field(init=False, default="")
    """host:port of the router."""
    _upstreams: dict[str, Child] = field(init=False)
    """The process of each provider."""
    _router: Child = field(init=False)
    _stack: ExitStack = field(init=False)
    _asking: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    """One question at a time: two threads that read one pipe get half an answer each."""

    async def __aenter__(self) -> Self:
        ports: dict[str, int] = {}
        cores = sorted(os.sched_getaffinity(0))
        own, rest = (cores[:1], cores[1:]) if self.is_router_alone and len(cores) > 1 else ((), ())
        with ExitStack() as starting:
            if rest:
                keep_to(rest)
                starting.callback(keep_to, cores)
            self._upstreams = {}
            for apart in (False, True):
                scripts = {n: p.scripts for n, p in self.providers.items() if p.scripts and p.is_apart is apart}
                if scripts:
                    niceness = 0 if apart or not self.is_router_alone else NICENESS
                    child = starting.enter_context(Child(serve_upstreams, scripts, rest, niceness))
                    ports |= await asyncio.to_thread(child.receive, START_TIMEOUT_S)
                    self._upstreams |= dict.fromkeys(scripts, child)
            self._router = starting.enter_context(Child(serve_faulted_router, self._config(ports), own))
            port = await asyncio.to_thread(self._router.receive, START_TIMEOUT_S)
            self._stack = starting.pop_all()
        self.target = f"{self.host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._stack.close)

    def _config(self, ports: Mapping[str, int]) -> str:
        lines = [
            f'[server]\nlisten = "{self.host}:0"\nshutdown_grace_s = 0.1',
            f"request_count_max = {CONNECTION_COUNT_MAX}\ndecision_memory_count = 1000\n{self.server_lines}",
        ]
        for name, provided in self.providers.items():
            url = provided.url.format(port=ports.get(name))
            lines += [
                f'[providers.{name}]\nadapter = "openai_compatible"\nbase_url = "{url}"\n',
                f"connection_count_max = {CONNECTION_COUNT_MAX}\n{provided.lines}",
            ]
            lines += [
                f'[[endpoints]]\nmodel = "m{number}"\nprovider = "{name}"\n'
                "input_price_usd_per_mtok = 1.0\noutput_price_usd_per_mtok = 2.0"
                for number in range(provided.model_count)
            ]
        return "\n".join(lines)

    async def seen(self, name: str) -> tuple[Seen, ...]:
        """The connections that a provider has had, in the order in which they came."""
        found: tuple[Seen, ...] = await self._asked(self._upstreams[name], _Look(name))
        return found

    async def open_count(self) -> int:
        """Connections to all providers that are open."""
        return sum([sum(not c.is_over for c in await self.seen(n)) for n, p in self.providers.items() if p.scripts])

    async def state(self) -> RouterState:
        """What the router holds now."""
        found: RouterState = await self._asked(self._router, None)
        return found

    def memory_bytes(self) -> int:
        """What the router has resident at this moment, garbage and all."""
        return memory_bytes(self._router.pid)

    async def _asked(self, child: Child, order: object) -> Any:
        async with self._asking:
            child.send(order)
            return await asyncio.to_thread(child.receive, START_TIMEOUT_S)
