"""Hedges, budgets, waits and probes over real gRPC and HTTP, against upstreams that do exactly what a script says."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import aclosing

import grpc
import pytest
from e2e.harness import (
    DONE_EVENT,
    FINISH_EVENT,
    config_of,
    delta_event,
    endpoints,
    refusing,
    running,
    streaming,
    urls_of,
)
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pointsman import (
    AsyncClient,
    AttemptFailed,
    AttemptsExhaustedError,
    AttemptStarted,
    Decision,
    Delta,
    Done,
    Usage,
)
from pointsman.v1 import routing_pb2
from pointsman_server.app import Application, Chance
from pointsman_server.execution.probing import PROBE_OUTPUT_TOKEN_COUNT, PROBE_TOKEN_COUNT
from pointsman_server.providers.scripted import (
    LAST_CHUNK,
    Hang,
    ReadRequest,
    Script,
    ScriptedUpstream,
    Send,
    event,
    stream_head,
)
from pointsman_server.telemetry import names
from pointsman_server.telemetry.setup import TelemetrySettings, configure_telemetry
from telemetry.test_metrics import of, points

IN_ORDER = "a@first->a@second"
SILENT: Script = (ReadRequest(), Hang())
PATIENCE_S = 10.0
"""For what must happen at once; reached by a fault alone."""


async def test_a_hedge_wins_and_the_losers_connection_is_closed() -> None:
    """An attempt that hangs is raced by a second one at another provider, which answers; the provider that hung sees its
    connection close, and the caller sees both attempts, both usages and one end."""
    async with ScriptedUpstream(SILENT) as first, ScriptedUpstream(streaming("fine")) as second:
        config = config_of(endpoints({"first": ["a"], "second": ["a"]}, urls_of(first=first, second=second)))
        async with running(config) as server:
            events = [e async for e in server.client.complete("hi", router=IN_ORDER, allow_hedging=True)]
            await asyncio.wait_for(first.connections[0].client_closed.wait(), PATIENCE_S)
            statuses = {s.endpoint.name: s.runtime for s in await server.client.list_endpoints()}
    assert [type(e) for e in events] == [Decision, AttemptStarted, AttemptStarted, Delta, Usage, Usage, Done]
    loser, winner, done = events[-3:]
    assert isinstance(loser, Usage)
    assert isinstance(winner, Usage)
    assert isinstance(done, Done)
    assert (loser.attempt_number, loser.endpoint, loser.estimated) == (1, "a@first", True)
    assert (winner.attempt_number, winner.endpoint, winner.estimated) == (2, "a@second", False)
    assert (done.endpoint, done.attempt_count) == ("a@second", 2)
    assert done.cost_usd == pytest.approx(loser.cost_usd + winner.cost_usd)
    assert done.cost_estimated
    assert statuses["a@first"].in_flight_count == 0
    assert not statuses["a@first"].HasField("error_rate")


async def test_a_caller_who_leaves_closes_both_connections() -> None:
    """While a hedge is under way, cancelling the call closes it at both providers."""
    async with ScriptedUpstream(SILENT) as first, ScriptedUpstream(SILENT) as second:
        config = config_of(endpoints({"first": ["a"], "second": ["a"]}, urls_of(first=first, second=second)))
        async with running(config) as server:
            async with aclosing(server.client.complete("hi", router=IN_ORDER, allow_hedging=True)) as events:
                async for seen in events:
                    if isinstance(seen, AttemptStarted) and seen.attempt_number == 2:
                        await (await second.connection(0)).requested(1)
                        break
            for upstream in (first, second):
                await asyncio.wait_for(upstream.connections[0].client_closed.wait(), PATIENCE_S)


async def test_a_stream_that_is_only_kept_alive_has_stalled() -> None:
    """A provider whose stream goes on with comments, but with no piece of an answer, is left; another one begins anew."""
    alive = Send(b"".join(event_comment() for _ in range(3)))
    script: Script = (ReadRequest(), Send(stream_head()), Send(delta_event("begun")), alive, Hang())
    async with ScriptedUpstream(script) as first, ScriptedUpstream(streaming("fine")) as second:
        urls = urls_of(first=first, second=second)
        async with running(config_of(endpoints({"first": ["a"], "second": ["a"]}, urls))) as server:
            now_s, tracker = time.monotonic(), server.application.router.tracker
            # What is known of the endpoint's speed, so that a stall is seen after seconds and not after half a minute.
            attempt = tracker.start("a@first", input_token_count=10, now_s=now_s - 2.0)
            attempt.first_token(now_s - 1.0)
            attempt.succeed(output_token_count=101, now_s=now_s)
            events = [e async for e in server.client.complete("hi", router=IN_ORDER, on_break="restart")]
    (failed,) = [e for e in events if isinstance(e, AttemptFailed)]
    assert failed.kind == routing_pb2.ATTEMPT_FAILURE_KIND_TIMEOUT
    assert failed.message == "no further piece within 5 s"
    assert [e.text for e in events if isinstance(e, Delta)] == ["begun", "fine"]
    assert [e.endpoint for e in events if isinstance(e, Done)] == ["a@second"]


def event_comment() -> bytes:
    """What keeps a stream alive without saying anything, as a chunk of its own."""
    return b"5\r\n: up\n\r\n"


async def test_the_retry_budget_bounds_what_reaches_failing_providers() -> None:
    """Of 100 requests that both providers refuse, 30 are tried a second time; the others fail with the reason."""
    refusal = refusing(400, "context_length_exceeded")
    async with ScriptedUpstream(refusal) as first, ScriptedUpstream(refusal) as second:
        chance = Chance(clock_s=lambda: 1000.0)
        config = config_of(endpoints({"first": ["a"], "second": ["a"]}, urls_of(first=first, second=second)))
        async with (
            Application(config, chance=chance) as application,
            AsyncClient(f"127.0.0.1:{application.port}", timeout_s=30.0) as client,
        ):
            errors = []
            for _ in range(100):
                with pytest.raises(AttemptsExhaustedError) as caught:
                    await client.complete_text("hi", router=IN_ORDER)
                errors.append(caught.value)
        assert len(first.connections) + len(second.connections) == 130
    stopped = [error for error in errors if "the retry budget is spent" in error.message]
    assert len(stopped) == 70
    assert {error.code for error in stopped} == {grpc.StatusCode.UNAVAILABLE}
    assert all(error.retry_after_s is not None for error in stopped)
    assert [error for error in errors if error.metadata.get("stopped_by") == "retry_budget"] == stopped


async def test_a_short_retry_after_is_waited_for() -> None:
    """The only endpoint answers 429 and asks for a moment: it is called again after it, and answers."""
    limited = refusing(429, "rate_limit_exceeded", ("retry-after-ms", "50"))
    async with ScriptedUpstream(limited, streaming("fine")) as upstream:
        async with running(config_of(endpoints({"first": ["a"]}, urls_of(first=upstream)))) as server:
            answer = await server.client.complete_text("hi", router="a@first")
        assert (answer.text, answer.done.attempt_count) == ("fine", 2)
        assert [f.kind for f in answer.failed_attempts] == [routing_pb2.ATTEMPT_FAILURE_KIND_RATE_LIMITED]
        assert len(upstream.connections) == 2


class Clock:
    """A monotonic clock that the test sets forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        """The time."""
        return time.monotonic() + self.ahead_s


def busy() -> Script:
    """An answer to one long prompt, as its provider counts it: 10,000 tokens of traffic."""
    usage = {"choices": [], "usage": {"prompt_tokens": 9_990, "completion_tokens": 10}}
    end = FINISH_EVENT + event(json.dumps(usage)) + DONE_EVENT + LAST_CHUNK
    return (ReadRequest(), Send(stream_head()), Send(delta_event("fine")), Send(end))


async def test_an_endpoint_that_nobody_calls_is_probed() -> None:
    """Once it is unseen for long, and there is traffic that pays for it, an endpoint of a provider that opted in gets a
    question of a few tokens: its figures are known then, and metrics and a trace of its own tell of it. Endpoints of other
    providers, and such as no router could choose, get none."""
    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    telemetry = configure_telemetry(TelemetrySettings(), metric_reader=reader, span_exporter=exporter)
    clock = Clock()
    async with (
        ScriptedUpstream(busy()) as used,
        ScriptedUpstream(streaming("x")) as idle,
        ScriptedUpstream(streaming("x")) as other,
    ):
        toml = endpoints(
            {"used": ["a"], "idle": ["a", "b"], "other": ["a"]}, urls_of(used=used, idle=idle, other=other)
        )
        toml += '\n[routers.default]\npolicy = "a"\n[providers.idle.probes]\nafter_s = 60'
        chance = Chance(clock_s=clock, random=random.Random(1))
        async with (
            Application(config_of(toml), chance=chance, telemetry=telemetry) as application,
            AsyncClient(f"127.0.0.1:{application.port}") as client,
        ):
            await application.probe()
            clock.ahead_s += 200.0
            await application.probe()
            assert idle.connections == [], "without traffic there is nothing to pay for a probe"
            await client.complete_text("hi", router="a@used", metadata={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
            # Unless it is made here it has just been made by the server itself, which looks every second.
            await application.probe()
            connection = await asyncio.wait_for(idle.connection(0), PATIENCE_S)
            await asyncio.wait_for(connection.script_done.wait(), PATIENCE_S)
            await application.probe()
            async with asyncio.timeout(PATIENCE_S):
                while names.PROBES not in (found := points(reader)):
                    await client.list_endpoints()
            runtimes = {s.endpoint.name: s.runtime for s in await client.list_endpoints()}
        (request,) = connection.requests
        assert len(idle.connections) == 1
        assert other.connections == []
    asked = json.loads(request.body)
    assert (asked["model"], asked["max_tokens"]) == ("a", PROBE_OUTPUT_TOKEN_COUNT)
    assert asked["messages"] == [{"role": "user", "content": "Count to nine."}]
    assert runtimes["a@idle"].HasField("ttft")
    assert runtimes["a@idle"].observation_count == 1
    assert runtimes["b@idle"].observation_count == runtimes["a@other"].observation_count == 0
    assert of(found[names.PROBES], pointsman_endpoint="a@idle") == 1
    assert of(found[names.PROBE_TOKENS], pointsman_endpoint="a@idle") == 14 < PROBE_TOKEN_COUNT
    (probe,) = [span for span in exporter.get_finished_spans() if span.name == names.PROBE_SPAN]
    assert probe.parent is None
    assert probe.context is not None
    assert probe.context.trace_id != int("a" * 32, 16)
    attempts = [span for span in exporter.get_finished_spans() if span.name == "chat a"]
    assert [s.context.trace_id for s in attempts if s.context is not None].count(probe.context.trace_id) == 1


async def test_a_probe_under_way_does_not_hold_up_the_end() -> None:
    """A server that is told to stop leaves a probe at once: its connection is closed."""
    clock = Clock()
    async with ScriptedUpstream(busy()) as used, ScriptedUpstream(SILENT) as idle:
        toml = endpoints({"used": ["a"], "idle": ["a"]}, urls_of(used=used, idle=idle))
        toml += "\n[providers.idle.probes]\nafter_s = 60"
        chance = Chance(clock_s=clock, random=random.Random(1))
        async with asyncio.timeout(PATIENCE_S):
            async with (
                Application(config_of(toml), chance=chance) as application,
                AsyncClient(f"127.0.0.1:{application.port}") as client,
            ):
                await application.probe()
                clock.ahead_s += 200.0
                await client.complete_text("hi", router="a@used")
                # The server's own look finds it.
                connection = await idle.connection(0)
                await connection.requested(1)
            await connection.client_closed.wait()
