"""OpenAI's own Node client against the door: `node/scenarios.mjs` asks, and prints what it saw."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest
from e2e.harness import refusing, streaming
from openai_door.harness import PATIENCE_S, Opened, opened
from openai_door.test_door import BEGUN
from openai_door.test_python_sdk import BREAKING, TWO_CALLS
from toolchains import node_modules, tool

FOLDER = Path(__file__).parent / "node"
NODE_PATIENCE_S = 120.0
"""Ends a scenario that hangs; no test waits for it."""


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    """The client that package-lock.json names."""
    tool("node")
    node_modules(FOLDER)


async def seen(door: Opened, scenario: str) -> dict[str, Any]:
    """What a scenario prints."""
    command = (tool("node"), str(FOLDER / "scenarios.mjs"), f"{door.url}/v1", scenario)
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    out, err = await asyncio.wait_for(process.communicate(), NODE_PATIENCE_S)
    assert process.returncode == 0, err.decode()
    answer: dict[str, Any] = json.loads(out)
    return answer


async def test_an_answer_comes_whole() -> None:
    """Text, finish reason, model, usage and headers are where the client looks for them."""
    async with opened(streaming("Hel", "lo")) as door:
        assert await seen(door, "chat") == {
            "text": "Hello",
            "finish": "stop",
            "model": "a",
            "tokens": 14,
            "endpoint": "a@first",
            "sameId": True,
        }
        sent = json.loads(door.upstreams[0].connections[0].requests[0].body)
        assert (sent["seed"], sent["stop"]) == (7, ["END"])


async def test_an_answer_streams_with_its_decision() -> None:
    """Chunks, usage and the optional field."""
    async with opened(streaming("Hello")) as door:
        assert await seen(door, "stream") == {
            "texts": ["Hello"],
            "finish": "stop",
            "tokens": 14,
            "decided": "a@first",
            "done": "a@first",
        }


async def test_tools_are_called_and_answered() -> None:
    """Two calls, their results, and the answer to them."""
    async with opened(TWO_CALLS, streaming("Rain.")) as door:
        assert await seen(door, "toolLoop") == {
            "calls": [["call_1", "weather", "Oslo"], ["call_2", "weather", "Bergen"]],
            "finish": "tool_calls",
            "text": "Rain.",
        }


async def test_tool_calls_stream() -> None:
    """The client's own helper puts interleaved pieces together."""
    async with opened(TWO_CALLS) as door:
        assert await seen(door, "toolStream") == {"calls": [["call_1", "Oslo"], ["call_2", "Bergen"]]}


async def test_failures_have_the_clients_own_classes() -> None:
    """Each kind of refusal and failure, with status, code and field."""
    limited = refusing(429, "rate_limit_exceeded", ("retry-after", "7"))
    async with opened(limited, refusing(503)) as door:
        assert await seen(door, "failures") == {
            "unsupported": ["BadRequestError", 400, "unsupported_value", "n"],
            "unknown": ["NotFoundError", 404, "model_not_found", "model"],
            "impossible": ["BadRequestError", 400, "no_eligible_endpoint", None],
            "limited": ["RateLimitError", 429, "attempts_exhausted", None],
            "down": ["InternalServerError", 503, "attempts_exhausted", None],
        }


async def test_a_stream_that_breaks_off_is_raised() -> None:
    """The error event is an exception, after the text that came before it."""
    async with opened(BREAKING) as door:
        assert await seen(door, "breakOff") == {"texts": ["Hel"], "kind": "APIError", "code": "stream_broken"}


async def test_a_client_that_leaves_closes_the_call_upstream() -> None:
    """Aborting the stream closes the provider's connection."""
    async with opened(BEGUN) as door:
        assert await seen(door, "leave") == {"text": "Hel"}
        await asyncio.wait_for(door.upstreams[0].connections[0].client_closed.wait(), PATIENCE_S)
