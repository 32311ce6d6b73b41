"""No ending of a call leaves objects that refer to each other: those stay until the garbage collector stops the server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from types import FrameType

import grpc
import pytest
from e2e.harness import Running, config_of, delta_event, endpoints, refusing, running, streaming
from pointsman import conversation
from pointsman.v1.router_service_pb2 import CompleteRequest, Execution
from pointsman.v1.routing_pb2 import Routing
from pointsman_server.providers.scripted import Close, Hang, ReadRequest, ScriptedUpstream, Send, stream_head

CALL_COUNT = 3
BEGUN = (ReadRequest(), Send(stream_head()), Send(delta_event("on and on")))
SCRIPTS = {
    "quick": streaming("fine"),
    "down": refusing(500),
    "limited": refusing(429),
    "silent": (ReadRequest(), Hang()),
    "breaks": (*BEGUN, Close()),
    "endless": (*BEGUN, Hang()),
}


@contextmanager
def garbage() -> Iterator[list[object]]:
    """What is found within the block that only a search for cycles frees."""
    found: list[object] = []
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def ours(found: Sequence[object]) -> set[str]:
    """Frames, and the classes of the server, among these objects; spans wait for their export as long as they like."""
    frames = {one.f_code.co_qualname for one in found if isinstance(one, FrameType)}
    names = {f"{type(one).__module__}.{type(one).__qualname__}" for one in found}
    return frames | {name for name in names if name.startswith("pointsman_server.") and ".telemetry." not in name}


async def status_of(server: Running, router: str, *, timeout_s: float, leaves: bool, hedges: bool) -> str:
    """How a completion ended."""
    request = CompleteRequest(
        conversation=conversation("hi"),
        routing=Routing(router=router),
        execution=Execution(allow_hedging=hedges),
    )
    call = server.stub.Complete(request, timeout=timeout_s)
    try:
        async for response in call:
            if leaves and response.HasField("delta"):
                call.cancel()
    except grpc.aio.AioRpcError as error:
        return error.code().name
    except asyncio.CancelledError:
        return "left"
    return "OK"


@pytest.mark.parametrize(
    ("router", "expected", "timeout_s"),
    [
        ("m{}@quick", "OK", 20.0),
        ("m{}@down->m{}@quick", "OK", 20.0),
        ("m{}@down", "UNAVAILABLE", 20.0),
        ("m{}@limited", "RESOURCE_EXHAUSTED", 20.0),
        ("m0@limited", "RESOURCE_EXHAUSTED", 20.0),
        ("m{}@breaks", "UNAVAILABLE", 20.0),
        ("m{}@silent", "DEADLINE_EXCEEDED", 0.1),
        ("m{}@endless", "DEADLINE_EXCEEDED", 0.1),
        ("m{}@endless", "left", 20.0),
        ("m{}@nobody", "INVALID_ARGUMENT", 20.0),
    ],
)
@pytest.mark.parametrize("hedges", [False, True])
async def test_no_ending_leaves_a_cycle(router: str, expected: str, timeout_s: float, *, hedges: bool) -> None:
    """Served, failed over, refused, broken off, too late, left: nothing of the call is there any more when it is over."""
    async with AsyncExitStack() as stack:
        upstreams = {
            name: await stack.enter_async_context(ScriptedUpstream(script)) for name, script in SCRIPTS.items()
        }
        urls = {name: upstream.base_url for name, upstream in upstreams.items()}
        models = {name: [f"m{number}" for number in range(2 * CALL_COUNT)] for name in urls}
        config = config_of(endpoints(models, urls), server="decision_memory_count = 1")
        server = await stack.enter_async_context(running(config))

        async def called(number: int) -> str:
            asked = router.replace("{}", str(number))
            return await status_of(server, asked, timeout_s=timeout_s, leaves=expected == "left", hedges=hedges)

        # What the first call makes for all of them is no garbage of theirs.
        assert [await called(number) for number in range(CALL_COUNT)] == [expected] * CALL_COUNT
        await asyncio.sleep(0.05)
        with garbage() as found:
            assert [await called(CALL_COUNT + number) for number in range(CALL_COUNT)] == [expected] * CALL_COUNT
            # A caller sees its call end before the server has put everything away.
            await asyncio.sleep(0.1)
        assert ours(found) == set()
