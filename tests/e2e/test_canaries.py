"""Prompts, answers, keys and headers are in nothing that a server tells, whatever happens to a call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import grpc
import pytest
from e2e.harness import config_of, delta_event, endpoints, refusing, streaming, urls_of
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pointsman import AsyncClient, Delta, PointsmanError, conversation, image, json_schema, outcome, system, tool, user
from pointsman.v1 import router_service_pb2
from pointsman.v1.router_service_pb2_grpc import RouterServiceStub
from pointsman_server.app import Application
from pointsman_server.config import Config
from pointsman_server.providers.scripted import Hang, ReadRequest, Reset, ScriptedUpstream, Send, stream_head
from pointsman_server.telemetry import names
from pointsman_server.telemetry.exposition import exposition
from pointsman_server.telemetry.setup import TelemetrySettings, configure_telemetry
from watched import SECRETS, WATCH, watched_telemetry

CANARY = "canary-5e77"
API_KEY = f"{CANARY}-api-key"
ENVIRONMENT = {
    "API_KEYS": API_KEY,
    "FIRST_KEY": f"{CANARY}-first-key",
    "SECOND_HEADER": f"{CANARY}-second-header",
}
METADATA = {"x-secret": f"{CANARY}-header", "tracestate": "vendor=1"}
IN_ORDER = "a@first->a@second"
PROMPT = [
    system(f"{CANARY}-system"),
    user(f"{CANARY}-question", image(f"https://example.com/{CANARY}.png")),
]
PATIENCE_S = 30.0

Play = Callable[[AsyncClient], Awaitable[object]]


def configured(first: ScriptedUpstream, second: ScriptedUpstream) -> Config:
    """Two providers with a key and a header of their own, and a server that asks for a key."""
    extra = 'capabilities = ["tools", "image_input", "json_schema", "json_object"]'
    toml = endpoints({"first": ["a"], "second": ["a"]}, urls_of(first=first, second=second), extra=extra)
    toml = toml.replace("[providers.first]", '[providers.first]\napi_key_env = "FIRST_KEY"')
    toml = toml.replace("[providers.second]", '[providers.second]\nheaders_env = { x-account = "SECOND_HEADER" }')
    return config_of(toml, ENVIRONMENT, server='api_keys_env = "API_KEYS"')


async def answered(client: AsyncClient) -> None:
    """Everything that a request may hold, and what is learned of the answer later."""
    answer = await client.complete_text(
        conversation(
            PROMPT,
            tools=[tool(f"{CANARY}-tool", CANARY, parameters={"title": CANARY})],
            response_format=json_schema(CANARY, {"title": CANARY}),
        ),
        router=IN_ORDER,
        assignment_key=f"{CANARY}-user",
        metadata=METADATA,
    )
    assert CANARY in answer.text
    await client.report_outcome(answer.decision.id, quality=0.5, quality_source=f"{CANARY}-judge", metadata=METADATA)
    reported = await client.report_outcomes(
        [outcome(answer.decision.id, ttft_s=0.1, duration_s=0.2), outcome(f"{CANARY}-id", quality=1.0)]
    )
    assert (reported.accepted_count, reported.refused_count) == (1, 1)


async def looked(client: AsyncClient) -> None:
    """The calls that no prompt goes with."""
    await client.list_endpoints(metadata=METADATA)
    await client.list_routers(metadata=METADATA)
    async for _ in client.watch_endpoints(metadata=METADATA):
        break


async def left(client: AsyncClient) -> None:
    """A caller who goes in the middle of the answer."""
    stream = client.complete(PROMPT, router=IN_ORDER, metadata=METADATA)
    async for event in stream:
        if isinstance(event, Delta):
            break
    await stream.aclose()


def failing(*, timeout_s: float | None = None) -> Play:
    """A completion that fails."""

    async def play(client: AsyncClient) -> None:
        with pytest.raises(PointsmanError) as caught:
            await client.complete_text(PROMPT, router=IN_ORDER, metadata=METADATA, timeout_s=timeout_s)
        WATCH.look("the error's details", repr(caught.value.status.details) + str(caught.value))

    return play


async def refused(client: AsyncClient) -> None:
    """Requests that are turned away: by their constraints, for what they are, and by their key."""
    for router in ("router@c<0.001", "no-such-router", "router@@"):
        with pytest.raises(PointsmanError) as caught:
            await client.route(PROMPT, metadata=METADATA, router=router)
        WATCH.look("the error's details", repr(caught.value.status.details) + str(caught.value))
    with pytest.raises(PointsmanError) as caught:
        await client.route(PROMPT, metadata={"authorization": f"Bearer {CANARY}-wrong-key"})
    WATCH.look("the error's details", repr(caught.value.status.details) + str(caught.value))
    with pytest.raises(PointsmanError) as caught:
        await client.report_outcome("unknown", quality_source=f"{CANARY}-judge", quality=0.5)
    WATCH.look("the error's details", repr(caught.value.status.details) + str(caught.value))


ANSWER = streaming(f"{CANARY}-answer")
HALF = (ReadRequest(), Send(stream_head()), Send(delta_event(f"{CANARY}-half")))
CASES = {
    "answered": (ANSWER, ANSWER, answered),
    "looked at": (ANSWER, ANSWER, looked),
    "left": ((*HALF, Hang()), ANSWER, left),
    "late": ((*HALF, Hang()), ANSWER, failing(timeout_s=0.5)),
    "broken": ((*HALF, Reset()), ANSWER, failing()),
    "all refused": (refusing(500), refusing(429), failing()),
    "nonsense": (
        (ReadRequest(), Send(f"HTTP/1.1 200 OK\r\n\r\n{CANARY}".encode())),
        (ReadRequest(), Send(f"{CANARY}\r\n\r\n".encode())),
        failing(),
    ),
    "turned away": (ANSWER, ANSWER, refused),
}


@pytest.mark.parametrize("case", CASES)
async def test_no_call_leaves_a_secret_behind(case: str, caplog: pytest.LogCaptureFixture) -> None:
    """Prompt, tools, images, answer, keys and headers of every method, through every fault, are in no log line at any
    level, no span, no metric and no error's details."""
    caplog.set_level(logging.DEBUG)
    first, second, play = CASES[case]
    async with ScriptedUpstream(first) as one, ScriptedUpstream(second) as two:
        with watched_telemetry() as telemetry:
            async with (
                Application(configured(one, two), telemetry=telemetry) as application,
                AsyncClient(f"127.0.0.1:{application.port}", api_key=API_KEY, timeout_s=PATIENCE_S) as client,
            ):
                await asyncio.wait_for(play(client), PATIENCE_S)
    WATCH.look("the log", caplog.text)
    assert WATCH.taken() == []


async def test_what_can_not_be_read_is_not_told_either() -> None:
    """A message that is none, and one that is too large, end in a status that says nothing of what they held."""
    exporter = InMemorySpanExporter()
    telemetry = configure_telemetry(TelemetrySettings(is_scraped=True), span_exporter=exporter)
    config = config_of(
        endpoints({"first": ["a"]}, {"first": "http://127.0.0.1:9/v1"}), server="message_bytes_max = 1024"
    )
    async with (
        Application(config, telemetry=telemetry) as application,
        grpc.aio.insecure_channel(f"127.0.0.1:{application.port}") as channel,
    ):
        route: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/pointsman.v1.RouterService/Route", request_serializer=None, response_deserializer=None
        )
        told = []
        for message in (f"\xff{CANARY}".encode("latin-1"), CANARY.encode() * 1000):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await route(message)
            told.append(f"{caught.value.details()} {caught.value.trailing_metadata()}")
        stub = RouterServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Route(router_service_pb2.RouteRequest(), metadata=(("x-bin-bin", CANARY.encode()),))
    told += [span.to_json() for span in exporter.get_finished_spans()]
    told.append(exposition(telemetry.collect(), openmetrics=True))
    assert [text for text in told if SECRETS.search(text)] == []
    assert names.RPC_RESPONSE_STATUS_CODE in told[2]


def test_what_is_told_is_found() -> None:
    """A secret in a log line, however deep the level, or in the exception that it carries, is found; so the others were
    searched."""
    logger = logging.getLogger("pointsman_server.telemetry")
    looked_count = WATCH.looked_count
    logger.debug("prompt=%s", CANARY)
    logger.debug("failed", exc_info=ValueError(CANARY))
    logger.debug("nothing")
    assert [line.split(":")[0] for line in WATCH.taken()] == ["'canary' in the log of pointsman_server.telemetry"] * 2
    assert WATCH.looked_count == looked_count + 3
