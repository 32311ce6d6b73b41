"""What can become of a traced request, and the tree of spans that it must leave, wherever that is read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field

import pytest
from e2e.harness import config_of, delta_event, endpoints, refusing, streaming
from pointsman import AsyncClient, DeadlineExceededError, Delta, NoEligibleEndpointError, StreamBrokenError
from pointsman_server.app import Application
from pointsman_server.providers.scripted import (
    Hang,
    ReadRequest,
    Reset,
    Script,
    ScriptedUpstream,
    Send,
    stream_head,
)
from pointsman_server.telemetry import names
from pointsman_server.telemetry.setup import Telemetry

CANARY = "canary-81f2c"
"""In every prompt and every answer."""
IN_ORDER = "a@first->b@second"
COMPLETE = "pointsman.v1.RouterService/Complete"
ROUTE = "pointsman.v1.RouterService/Route"
PATIENCE_S = 30.0
"""For what must happen; reached by a fault alone."""

SHOWN = (
    names.RPC_RESPONSE_STATUS_CODE,
    names.ERROR_TYPE,
    names.HTTP_RESPONSE_STATUS_CODE,
    names.ATTEMPT_NUMBER,
    names.ATTEMPT_HEDGE,
    names.ENDPOINT,
    names.GEN_AI_RESPONSE_FINISH_REASONS,
    names.GEN_AI_USAGE_OUTPUT_TOKENS,
    names.DECISION_ENDPOINT,
    names.CANDIDATES_ELIGIBLE,
)
"""Attributes that a tree is compared by: those that do not depend on time or chance."""
PHASES = ("features", "snapshot", "predict_quality", "decide")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenSpan:
    """A span as it was read."""

    name: str
    service: str
    kind: str
    trace_id: int
    span_id: int
    parent_id: int | None
    start_ns: int
    end_ns: int
    attributes: Mapping[str, object]
    is_error: bool
    events: Sequence[tuple[str, Mapping[str, object]]] = field(default=())

    @property
    def line(self) -> str:
        """Name, kind and what is shown of its attributes."""
        shown = [f"{key.rpartition('.')[2]}={self.attributes[key]}" for key in SHOWN if key in self.attributes]
        return " ".join([self.name, self.kind, *(["ERROR"] if self.is_error else []), *shown])


def children(spans: Sequence[SeenSpan], parent: SeenSpan) -> list[SeenSpan]:
    """The spans right below one, in their order. Two phases may begin within the same tick of a clock."""
    below = [span for span in spans if span.parent_id == parent.span_id]
    return sorted(below, key=lambda s: (s.start_ns, PHASES.index(s.name) if s.name in PHASES else 0))


def tree(spans: Sequence[SeenSpan], root: SeenSpan, depth: int = 0) -> str:
    """A span and what is below it, a line for each."""
    below = [tree(spans, child, depth + 1) for child in children(spans, root)]
    return "\n".join(["  " * depth + root.line, *below])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A request, its providers, and its tree."""

    name: str
    first: Script
    second: Script = (ReadRequest(), Hang())
    play: Callable[[AsyncClient], Awaitable[object]]
    expected: str
    """The server's own part of the tree."""

    def __str__(self) -> str:
        return self.name


async def _answered(client: AsyncClient) -> object:
    return await client.complete_text(f"{CANARY}?", router=IN_ORDER)


async def _hedged(client: AsyncClient) -> object:
    return await client.complete_text(f"{CANARY}?", router=IN_ORDER, allow_hedging=True)


async def _left(client: AsyncClient) -> None:
    async with aclosing(client.complete(f"{CANARY}?", router=IN_ORDER)) as events:
        async for event in events:
            if isinstance(event, Delta):
                break


async def _late(client: AsyncClient) -> None:
    with pytest.raises(DeadlineExceededError):
        await client.complete_text(f"{CANARY}?", router="a@first", timeout_s=1.5)


async def _broken(client: AsyncClient) -> None:
    with pytest.raises(StreamBrokenError):
        await client.complete_text(f"{CANARY}?", router="a@first")


async def _turned_away(client: AsyncClient) -> None:
    with pytest.raises(NoEligibleEndpointError):
        await client.route(f"{CANARY}?", router="router@c<0.001")


_ROUTE_TREE = """
  route internal endpoint=a@first eligible={eligible}
    features internal
    snapshot internal
    predict_quality internal
    decide internal
"""


def _tree(root: str, *attempts: str, eligible: int = 2) -> str:
    route = _ROUTE_TREE.strip("\n").format(eligible=eligible)
    below = [f"  {line}\n    {post}" for line, _, post in (attempt.partition(" / ") for attempt in attempts)]
    return "\n".join([root, route, *below])


FINE = "finish_reasons=('stop',) output_tokens=3"
SCENARIOS = (
    Scenario(
        name="success",
        first=streaming(CANARY),
        play=_answered,
        expected=_tree(
            f"{COMPLETE} server status_code=OK",
            f"chat a client number=1 endpoint=a@first {FINE} / POST client status_code=200",
        ),
    ),
    Scenario(
        name="failover",
        first=refusing(503, CANARY.upper()),
        second=streaming(CANARY),
        play=_answered,
        expected=_tree(
            f"{COMPLETE} server status_code=OK",
            "chat a client ERROR type=server_error number=1 endpoint=a@first"
            " / POST client ERROR type=503 status_code=503",
            f"chat b client number=2 endpoint=b@second {FINE} / POST client status_code=200",
        ),
    ),
    Scenario(
        name="hedge",
        first=(ReadRequest(), Hang()),
        second=streaming(CANARY),
        play=_hedged,
        expected=_tree(
            f"{COMPLETE} server status_code=OK",
            "chat a client type=cancelled number=1 endpoint=a@first output_tokens=0 / POST client type=cancelled",
            f"chat b client number=2 hedge=True endpoint=b@second {FINE} / POST client status_code=200",
        ),
    ),
    Scenario(
        name="cancel",
        first=(ReadRequest(), Send(stream_head()), Send(delta_event(CANARY)), Hang()),
        play=_left,
        expected=_tree(
            f"{COMPLETE} server status_code=CANCELLED",
            "chat a client type=cancelled number=1 endpoint=a@first output_tokens=3"
            " / POST client type=cancelled status_code=200",
        ),
    ),
    Scenario(
        name="deadline",
        first=(ReadRequest(), Hang()),
        play=_late,
        expected=_tree(
            f"{COMPLETE} server ERROR status_code=DEADLINE_EXCEEDED type=DEADLINE_EXCEEDED",
            "chat a client type=cancelled number=1 endpoint=a@first output_tokens=0 / POST client type=cancelled",
            eligible=1,
        ),
    ),
    Scenario(
        name="upstream death",
        first=(ReadRequest(), Send(stream_head()), Send(delta_event(CANARY)), Reset()),
        play=_broken,
        expected=_tree(
            f"{COMPLETE} server ERROR status_code=UNAVAILABLE type=UNAVAILABLE",
            "chat a client ERROR type=disconnected number=1 endpoint=a@first output_tokens=3"
            " / POST client ERROR type=disconnected status_code=200",
            eligible=1,
        ),
    ),
    Scenario(
        name="rejection",
        first=(ReadRequest(), Hang()),
        play=_turned_away,
        expected=_tree(f"{ROUTE} server status_code=FAILED_PRECONDITION", eligible=0).replace(" endpoint=a@first", ""),
    ),
)


async def played(
    scenario: Scenario, telemetry: Telemetry, *, environment: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Plays a scenario through client, server and providers, to the server's end; the heads of what providers were sent."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(ScriptedUpstream(scenario.first))
        second = await stack.enter_async_context(ScriptedUpstream(scenario.second))
        toml = endpoints({"first": ["a"], "second": ["b"]}, {"first": first.base_url, "second": second.base_url})
        if environment:
            toml = toml.replace("[providers.first]", f'[providers.first]\napi_key_env = "{next(iter(environment))}"')
        application = await stack.enter_async_context(Application(config_of(toml, environment), telemetry=telemetry))
        async with AsyncClient(f"127.0.0.1:{application.port}", timeout_s=PATIENCE_S) as client:
            await asyncio.wait_for(scenario.play(client), PATIENCE_S)
    connections = (*first.connections, *second.connections)
    return tuple(request.head.decode() for connection in connections for request in connection.requests)
