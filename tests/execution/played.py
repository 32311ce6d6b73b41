"""A router over providers that play scripts in virtual time: no socket, no wait, each run the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import count

from e2e.harness import config_of, endpoints
from pointsman_server.app import Application
from pointsman_server.chat import (
    Conversation,
    Finished,
    FinishReason,
    Message,
    Role,
    TextDelta,
    TextPart,
    UpstreamEvent,
)
from pointsman_server.decision.router_string import RouterAlternative, parse_router_string
from pointsman_server.decision.types import EndpointRuntime
from pointsman_server.errand import Execution
from pointsman_server.errors import UpstreamError, UpstreamStatusError, UpstreamTimeoutError
from pointsman_server.memory import DecisionMemory
from pointsman_server.providers.base import UpstreamCall
from pointsman_server.race import AttemptStarted
from pointsman_server.router import Completed, CompletionEvent, Decided, Router, RoutingRequest
from pointsman_server.runtime.tracker import RuntimeTracker
from pointsman_server.telemetry.setup import Telemetry, TelemetrySettings, configure_telemetry
from pointsman_server.world import World

NEVER = 1e6
"""A pause that no test waits for."""
STOP = Finished(FinishReason.STOP)

Step = float | str | UpstreamEvent | UpstreamError
"""A pause in seconds, a piece of text, another event, or a failure."""
Script = Sequence[Step]


def answer(text: str = "fine", *, after_s: float = 0.2, gap_s: float = 0.01) -> Script:
    """A whole answer, one character at a time."""
    steps: list[Step] = [after_s]
    for letter in text:
        steps += [letter, gap_s]
    return (*steps, STOP)


def refusal(status: int = 500, *, after_s: float = 0.0, retry_after_s: float | None = None) -> Script:
    """An answer with an error status."""
    return (after_s, UpstreamStatusError(status, retry_after_s=retry_after_s))


HANG: Script = (NEVER,)


class Played:
    """A provider whose n-th call plays the script that `script_of` gives for n, counted from 0."""

    def __init__(self, script_of: Callable[[int], Script]) -> None:
        self.call_count = 0
        self.open_count = 0
        """Calls whose connection is open."""
        self._script_of = script_of

    async def complete(self, call: UpstreamCall) -> AsyncGenerator[tuple[UpstreamEvent, ...], None]:
        """See `ChatProvider.complete`."""
        script = self._script_of(self.call_count)
        self.call_count += 1
        self.open_count += 1
        loop = asyncio.get_running_loop()
        ends_s = None if call.timeout_s is None else loop.time() + call.timeout_s
        try:
            for step in script:
                match step:
                    case float():
                        try:
                            async with asyncio.timeout_at(ends_s):
                                await asyncio.sleep(step)
                        except TimeoutError:
                            raise UpstreamTimeoutError("the provider did not answer before the deadline") from None
                    case str():
                        yield (TextDelta(step),)
                    case UpstreamError():
                        raise step
                    case _:
                        yield (step,)
        finally:
            self.open_count -= 1

    async def aclose(self) -> None:
        """Nothing is open."""


def always(script: Script) -> Played:
    """A provider that plays one script for every call."""
    return Played(lambda _: script)


@cache
def world_of(providers: tuple[str, ...]) -> World:
    """One model `a` at each of these providers, none of which can be called yet."""
    urls = dict.fromkeys(providers, "http://127.0.0.1:9/v1")
    return Application(config_of(endpoints({name: ["a"] for name in providers}, urls))).router.world


class Stage:
    """A router over one model `a` at each of these providers; by default they are asked in their order."""

    def __init__(
        self, telemetry: Telemetry | None = None, *, tracker: RuntimeTracker | None = None, **providers: Played
    ) -> None:
        self.providers = providers
        self.telemetry = telemetry or configure_telemetry(TelemetrySettings())
        self.clock_s = asyncio.get_running_loop().time
        seeds = count()
        self.router = Router(
            replace(world_of(tuple(providers)), providers=dict(providers)),
            tracker=tracker or RuntimeTracker(),
            memory=DecisionMemory(1),
            metrics=self.telemetry.metrics,
            clock_s=self.clock_s,
            sleep=asyncio.sleep,
            new_decision_id=lambda: "d",
            new_seed=lambda: next(seeds),
        )
        self._in_order = "->".join(f"a@{name}" for name in providers)

    def execution(
        self,
        *,
        attempts: int = 3,
        hedge: bool = False,
        restart: bool = False,
        ttft_timeout_s: float = 30.0,
        timeout_s: float | None = None,
    ) -> Execution:
        """How a completion that begins now is carried out."""
        return Execution(
            attempt_count_max=attempts,
            ttft_timeout_s=ttft_timeout_s,
            deadline_s=None if timeout_s is None else self.clock_s() + timeout_s,
            restart_after_break=restart,
            allow_hedging=hedge,
        )

    def events(
        self, execution: Execution | None = None, *, asked: str | None = None, prompt: str = "hi"
    ) -> AsyncGenerator[CompletionEvent, None]:
        """What happens in one completion."""
        request = RoutingRequest(
            conversation=Conversation((Message(Role.USER, (TextPart(prompt),)),)),
            asked=parse_router_string(asked or self._in_order),
            overlay=RouterAlternative(""),
        )
        span = self.telemetry.tracing.request("pointsman.v1.RouterService/Complete", ())
        return self.router.complete(request, execution or self.execution(), span)

    async def complete(self, execution: Execution | None = None, *, asked: str | None = None) -> list[CompletionEvent]:
        """All events of one completion."""
        return [event async for event in self.events(execution, asked=asked)]

    async def warm_up(self, count: int = 30) -> None:
        """As many completions one after the other, so that the first endpoint is known."""
        for _ in range(count):
            await self.complete()

    def runtime(self, provider: str) -> EndpointRuntime:
        """What is known of the endpoint at this provider."""
        return self.router.tracker.snapshot(self.clock_s()).of(f"a@{provider}")


def told(events: Sequence[CompletionEvent]) -> list[str]:
    """What happens after the decision, in short; pieces of text that follow one another are one."""
    lines: list[str] = []
    for event in events:
        name = type(event).__name__
        match event:
            case Decided():
                continue
            case AttemptStarted(number, endpoint_name):
                lines.append(f"{number}. {endpoint_name}")
            case TextDelta(text) if lines and lines[-1].startswith("text "):
                lines[-1] += text
            case TextDelta(text):
                lines.append(f"text {text}")
            case Completed():
                lines.append(f"done {event.endpoint_name} after {event.attempt_count}")
            case _:
                lines.append(f"{name} {getattr(event, 'attempt_number', '')}")
    return lines


def by_number(scripts: Mapping[int, Script], default: Script) -> Played:
    """A provider that plays these scripts for these calls, and `default` for all others."""
    return Played(lambda number: scripts.get(number, default))
