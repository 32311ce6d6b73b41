"""Callers who leave: by cancelling, by dying, by vanishing, by their deadline, by forgetting an iterator; and hedges' losers."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

import grpc
import pointsman
from pointsman.v1.router_service_pb2 import Execution
from pointsman_server.providers.scripted import Hang, ReadRequest, Send

from benchmarks.faults import figures
from benchmarks.faults.amount import Amount
from benchmarks.faults.calling import Victims, connected, ended, left, request
from benchmarks.faults.figures import Measured, quantile
from benchmarks.faults.site import ENDLESS, QUICK, START_TIMEOUT_S, WHOLE, Provided, Seen, Site

SETTLED_S = 1.0
"""After which nothing of the callers who left may be open."""
CLOSING_TIMEOUT_S = 10.0
"""For a connection that should be closed at once."""
VANISHED_TIMEOUT_S = 60.0
LONG_S = 1e6
"""Stands for what never happened: it is over every bar."""
DEADLINE_S = 0.5
HEDGES_SAVED = 10
REQUESTS_PER_HEDGE = 20
ENDLESS_ALONE = {"endless": Provided(scripts=(ENDLESS,))}
WIRE_COUNT = 4096
"""Networks that a wire to a namespace can have: those of four addresses in 169.254.64.0/18, link-local (RFC 3927), which
lead nowhere beyond it."""


def delays_ms(left_s: Sequence[float], seen: Sequence[Seen]) -> list[float]:
    """How long after each caller left its connection was closed."""
    assert len(left_s) == len(seen), "each caller had a connection of its own"
    closed_s = [LONG_S if c.closed_at_s is None else c.closed_at_s for c in seen]
    return [(closed - gone) * 1000.0 for gone, closed in zip(left_s, closed_s, strict=True)]


async def _closed(site: Site, name: str, timeout_s: float = CLOSING_TIMEOUT_S) -> tuple[Seen, ...]:
    """The connections of a provider, once all are closed; those that are not in time stay open."""
    due_s = time.monotonic() + timeout_s
    while time.monotonic() < due_s:
        seen = await site.seen(name)
        if all(connection.is_over for connection in seen):
            return seen
        await asyncio.sleep(0.05)
    return await site.seen(name)


async def cancelled(amount: Amount) -> Measured:
    """A1: streams that are cancelled in the middle, one after the other."""
    async with Site(ENDLESS_ALONE) as site, connected(site.target) as stub:
        await left(stub.Complete(request("m0@endless")))
        left_s = [await left(stub.Complete(request("m0@endless"))) for _ in range(amount.cancel_count)]
        await asyncio.sleep(SETTLED_S)
        open_count = await site.open_count()
        closed_ms = delays_ms(left_s, (await _closed(site, "endless"))[1:])
    return {
        figures.CLOSED_P99: quantile(closed_ms, 0.99),
        figures.CLOSED_MAX: max(closed_ms),
        figures.CANCELLED_OPEN: open_count,
    }


async def killed(amount: Amount) -> Measured:
    """A2: clients whose process is killed."""
    async with Site(ENDLESS_ALONE) as site:
        victims = await asyncio.to_thread(Victims, site.target, "m0@endless", amount.kill_count)
        await asyncio.to_thread(victims.await_streams)
        before = {connection.accepted_at_s for connection in await site.seen("endless") if not connection.is_over}
        assert len(before) == amount.kill_count
        closed_ms = []
        for number in range(amount.kill_count):
            # Which connection is whose is seen by which one closes.
            was_open = {c.accepted_at_s for c in await site.seen("endless") if c.closed_at_s is None}
            killed_s = await asyncio.to_thread(victims.kill, number)
            closed_ms.append((await _next_closed(site, was_open) - killed_s) * 1000.0)
        await asyncio.sleep(SETTLED_S)
        open_count = await site.open_count()
    return {
        figures.KILLED_P99: quantile(closed_ms, 0.99),
        figures.KILLED_MAX: max(closed_ms),
        figures.KILLED_OPEN: open_count,
    }


async def _next_closed(site: Site, was_open: set[float]) -> float:
    """When the first of those connections was closed."""
    due_s = time.monotonic() + CLOSING_TIMEOUT_S
    while time.monotonic() < due_s:
        closed_s = [c.closed_at_s for c in await site.seen("endless") if c.accepted_at_s in was_open and c.closed_at_s]
        if closed_s:
            return min(closed_s)
        await asyncio.sleep(0.01)
    return LONG_S


def can_vanish() -> bool:
    """Whether network namespaces can be made here: it takes Linux, root and iproute2."""
    return shutil.which("ip") is not None and os.geteuid() == 0 and _ran("ip", "netns", "list")


def _ran(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@dataclass(frozen=True, slots=True)
class Wire:
    """What leads from this machine to a network namespace."""

    namespace: str
    host: str
    """The address of this machine on it."""
    guest: str
    """The address of the namespace on it."""

    @classmethod
    def of(cls, process_id: int) -> Self:
        """That of a process: two that run at one time have wires of their own. With one address for all, what is sent back
        to the second goes to the first, and its clients never connect."""
        number = process_id % WIRE_COUNT
        network = f"169.254.{64 + number // 64}"
        first = number % 64 * 4
        return cls(f"pointsman-{process_id}", f"{network}.{first + 1}", f"{network}.{first + 2}")


@contextmanager
def _wired() -> Iterator[Wire]:
    """A network namespace with one wire to this machine, gone at the end."""
    wire = Wire.of(os.getpid())
    outside, inside = f"pm{os.getpid() % 100_000}h", f"pm{os.getpid() % 100_000}g"
    within = ("ip", "-n", wire.namespace)
    commands = (
        ("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", wire.namespace),
        ("ip", "addr", "add", f"{wire.host}/30", "dev", outside),
        ("ip", "link", "set", outside, "up"),
        (*within, "addr", "add", f"{wire.guest}/30", "dev", inside),
        (*within, "link", "set", inside, "up"),
    )
    subprocess.run(("ip", "netns", "add", wire.namespace), check=True)
    try:
        for command in commands:
            subprocess.run(command, check=True)
        yield wire
    finally:
        # The wire goes with it.
        subprocess.run(("ip", "netns", "del", wire.namespace), check=True)


def _cut_off(wire: Wire) -> None:
    """From now on nothing that is sent there goes anywhere, not even the news that something has closed."""
    subprocess.run(("ip", "-n", wire.namespace, "route", "replace", "blackhole", f"{wire.host}/32"), check=True)


async def vanished(amount: Amount) -> Measured:
    """A3: clients in a network namespace of their own from which from one moment on no packet comes any more."""
    if not can_vanish():
        return {}
    silent = Provided(scripts=((ReadRequest(), Hang()),), lines="idle_timeout_s = 600")
    providers = {**ENDLESS_ALONE, "silent": silent}
    with _wired() as wire:
        async with Site(providers, host=wire.host, server_lines="ttft_timeout_s = 600") as site:
            program = (sys.executable, "-m", "benchmarks.faults.vanishing", site.target, str(amount.vanish_count))
            within = ("ip", "netns", "exec", wire.namespace)
            client = await asyncio.create_subprocess_exec(*within, *program, stdout=subprocess.PIPE)
            try:
                assert client.stdout is not None
                told = await asyncio.wait_for(client.stdout.readline(), START_TIMEOUT_S)
                assert told, "the client has no streams; what it says of it stands on stderr"
                await asyncio.to_thread(_cut_off, wire)
                vanished_s = time.monotonic()
                await asyncio.gather(*(_closed(site, provider, VANISHED_TIMEOUT_S) for provider in providers))
            finally:
                # It may have ended by itself, which then is the fault to be told.
                with suppress(ProcessLookupError):
                    client.kill()
                await client.wait()
            delays_s = [
                delay_ms / 1000.0
                for provider in providers
                for seen in [await site.seen(provider)]
                for delay_ms in delays_ms([vanished_s] * amount.vanish_count, seen)
            ]
    return {figures.VANISHED: max(delays_s)}


async def too_late(amount: Amount) -> Measured:
    """A4, A5: deadlines that an endless stream runs into, and such as leave no time for any."""
    async with Site({**ENDLESS_ALONE, "idle": Provided(scripts=(QUICK,))}) as site, connected(site.target) as stub:
        await left(stub.Complete(request("m0@endless")))
        late_ms, ended_s = [], []
        for _ in range(amount.call_count):
            found = await ended(stub, request("m0@endless"), timeout_s=DEADLINE_S)
            assert found.code is grpc.StatusCode.DEADLINE_EXCEEDED
            late_ms.append((found.ended_s - found.started_s - DEADLINE_S) * 1000.0)
            ended_s.append(found.started_s + DEADLINE_S)
        open_ms = delays_ms(ended_s, (await _closed(site, "endless"))[1:])
        for _ in range(amount.call_count):
            await ended(stub, request("m0@idle"), timeout_s=0.005)
        call_count = len(await site.seen("idle"))
    return {
        figures.DEADLINE_LATE: max(late_ms),
        figures.DEADLINE_OPEN: max(open_ms),
        figures.TOO_LATE_CALLS: call_count,
    }


async def abandoned(amount: Amount) -> Measured:
    """A11: loops over an answer that are left by a break, without a word, from both clients."""
    async with Site(ENDLESS_ALONE) as site:
        left_s = await asyncio.to_thread(_abandon, site.target, amount.call_count)
        async with pointsman.AsyncClient(site.target) as client:
            for _ in range(amount.call_count):
                left_s.append(await _abandon_async(client))
                # The iterator is closed by the event loop, as soon as it gets to that.
                await asyncio.sleep(0.02)
            seen = await _closed(site, "endless")
    return {figures.ABANDONED: max(delays_ms(left_s, seen))}


def _abandon(target: str, count: int) -> list[float]:
    left_s = []
    with pointsman.Client(target) as client:
        for _ in range(count):
            for event in client.complete("hi", router="m0@endless", timeout_s=60.0):
                if isinstance(event, pointsman.Delta):
                    left_s.append(time.monotonic())
                    break
            time.sleep(0.02)
    return left_s


async def _abandon_async(client: pointsman.AsyncClient) -> float:
    async for event in client.complete("hi", router="m0@endless", timeout_s=60.0):
        if isinstance(event, pointsman.Delta):
            break
    return time.monotonic()


async def hedged(amount: Amount) -> Measured:
    """A12: calls whose first provider hangs; the second one answers at once when it is asked."""
    providers = {
        "slow": Provided(scripts=((ReadRequest(is_kept=False), Hang()),), model_count=HEDGES_SAVED),
        "quick": Provided(scripts=((ReadRequest(is_kept=False), Send(WHOLE)),), model_count=HEDGES_SAVED),
        "other": Provided(scripts=(QUICK,)),
    }
    async with Site(providers) as site, connected(site.target) as stub:
        for _ in range(HEDGES_SAVED * REQUESTS_PER_HEDGE):
            await ended(stub, request("m0@other"))
        asked = [
            request(f"m{number}@slow->m{number}@quick", Execution(allow_hedging=True))
            for number in range(min(HEDGES_SAVED, amount.call_count))
        ]
        found = await asyncio.gather(*(ended(stub, one) for one in asked))
        assert [one.events[-1].done.attempt_count for one in found] == [2] * len(asked)
        # Each winner answers at once, on a connection of its own.
        winners_s = sorted(connection.accepted_at_s for connection in await site.seen("quick"))
        losers_s = sorted(c.closed_at_s or LONG_S for c in await site.seen("slow"))
    return {figures.LOSER: max((lost - won) * 1000.0 for lost, won in zip(losers_s, winners_s, strict=True))}
