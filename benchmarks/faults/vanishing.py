"""A client to be cut off: opens streams, says so, and reads on. Its host and its process are the benchmark's to end."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

from benchmarks.faults.calling import connected, gathered, request


async def main(target: str, count: int) -> None:
    """So many streams of each provider, each over a connection of its own; of those that are silent nothing is awaited
    but that they are accepted."""
    async with AsyncExitStack() as stack:
        stubs = [await stack.enter_async_context(connected(target, number=number)) for number in range(2 * count)]
        endless = [stub.Complete(request("m0@endless")) for stub in stubs[:count]]
        silent = [stub.Complete(request("m0@silent")) for stub in stubs[count:]]
        await gathered(endless)
        for call in silent:
            # The decision, and the start of the attempt.
            await call.read()
            await call.read()
        await asyncio.sleep(1.0)
        sys.stdout.write("streaming\n")
        sys.stdout.flush()
        await asyncio.gather(*(_read(call) for call in endless))


async def _read(call: object) -> None:
    async for _ in call:  # type: ignore[attr-defined]
        pass


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
