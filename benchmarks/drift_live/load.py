"""The callers: the same requests at the same moments to both, and what each of them saw."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import httpx
import pointsman

from benchmarks.drift_live.systems import REQUEST_TIMEOUT_S
from benchmarks.drift_live.weather import MODEL, Timeline

REQUESTS_PER_S = 4.0
"""To each of the two. Few enough that two cores serve both, many enough that a minute tells quantiles."""
PROGRESS_S = 5.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as its caller saw it."""

    at_s: float
    """When it was sent, from the start of the load."""
    ttft_s: float | None
    """None where no token came."""
    failed: bool
    provider: str
    """Who answered; empty where nobody did or where it is not told."""


Call = Callable[[str], Awaitable[tuple[float | None, str]]]
"""Asks a prompt; gives the time to the first token, and who answered. Raises on failure."""


def pointsman_call(client: pointsman.AsyncClient) -> Call:
    """A streamed answer through Pointsman."""

    async def call(prompt: str) -> tuple[float | None, str]:
        started_s = time.monotonic()
        ttft_s, provider = None, ""
        async with aclosing(client.complete(prompt, timeout_s=REQUEST_TIMEOUT_S)) as events:
            async for event in events:
                if isinstance(event, pointsman.Delta) and ttft_s is None:
                    ttft_s = time.monotonic() - started_s
                elif isinstance(event, pointsman.Done):
                    provider = event.endpoint.rpartition("@")[2]
        return ttft_s, provider

    return call


def litellm_call(client: httpx.AsyncClient) -> Call:
    """A streamed answer through LiteLLM's proxy."""

    async def call(prompt: str) -> tuple[float | None, str]:
        started_s = time.monotonic()
        ttft_s = None
        body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": prompt}]}
        async with (
            asyncio.timeout(REQUEST_TIMEOUT_S),
            client.stream("POST", "/v1/chat/completions", json=body) as response,
        ):
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk:
                        raise httpx.HTTPError("the stream ended in an error")
                    if ttft_s is None and any(choice["delta"].get("content") for choice in chunk["choices"]):
                        ttft_s = time.monotonic() - started_s
            return ttft_s, response.headers.get("x-litellm-model-id", "")

    return call


async def loaded(calls: dict[str, Call], timeline: Timeline, *, seed: int, started_s: float) -> dict[str, list[Seen]]:
    """Makes all requests, in step for all systems. `started_s` is when the providers' clock started, monotonic."""
    rng = random.Random(seed)
    seen: dict[str, list[Seen]] = {name: [] for name in calls}
    at_s, told_s = 0.0, 0.0
    async with asyncio.TaskGroup() as group:
        while (at_s := at_s + rng.expovariate(REQUESTS_PER_S)) < timeline.end_s:
            await asyncio.sleep(started_s + at_s - time.monotonic())
            for name, call in calls.items():
                group.create_task(_one(call, f"Question {at_s:.3f}?", at_s, seen[name]))
            if at_s >= told_s:
                print(f"\r{at_s:4.0f} of {timeline.end_s:.0f} s", end="", file=sys.stderr, flush=True)
                told_s += PROGRESS_S
    print(file=sys.stderr)
    return seen


async def _one(call: Call, prompt: str, at_s: float, seen: list[Seen]) -> None:
    try:
        ttft_s, provider = await call(prompt)
        seen.append(Seen(at_s, ttft_s, failed=ttft_s is None, provider=provider))
    except (pointsman.PointsmanError, httpx.HTTPError, TimeoutError):
        seen.append(Seen(at_s, None, failed=True, provider=""))
