"""Simulated providers through the real adapter: one protocol, seeded weather, honest answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace

import httpx
import pytest
from pointsman_server.chat import (
    Conversation,
    Finished,
    FinishReason,
    Message,
    ResponseFormat,
    ResponseFormatKind,
    Role,
    SamplingOptions,
    TextDelta,
    TextPart,
    Tool,
    ToolCallDelta,
    ToolChoice,
    ToolChoiceMode,
    UpstreamEvent,
    UsageReported,
)
from pointsman_server.errors import (
    UpstreamDisconnectedError,
    UpstreamError,
    UpstreamErrorKind,
    UpstreamStatusError,
    UpstreamTimeoutError,
)
from pointsman_server.providers.base import ChatProvider, ProviderSettings, Secret, UpstreamCall
from pointsman_server.providers.simulated import SimulatedProviders, run_simulated
from pointsman_server.providers.weather import (
    Duration,
    EndpointWeather,
    LoadResponse,
    Outage,
    OutageKind,
    ProviderWeather,
    RateLimit,
    demo_weather,
)

OpenProvider = Callable[[ProviderSettings], ChatProvider]

ENDPOINT = EndpointWeather(
    model="m",
    ttft_s=Duration(median_s=0.001, sigma=0.0),
    inter_token_latency_s=Duration(median_s=0.0, sigma=0.0),
    output_token_count_mean=40.0,
)
HOURS = 1e6
"""An outage that lasts for the whole test."""


def call_for(prompt: str, *, stream: bool = True, **sampling: int) -> UpstreamCall:
    """A call with that prompt."""
    conversation = Conversation(
        (Message(Role.USER, (TextPart(prompt),)),),
        sampling=SamplingOptions(output_token_count_max=sampling.get("output_token_count_max")),
    )
    return UpstreamCall(upstream_model="m", conversation=conversation, stream=stream)


def serve(*endpoints: EndpointWeather, seed: int = 7, api_key: Secret | None = None) -> SimulatedProviders:
    """One provider `sim-a` under that weather."""
    provider = ProviderWeather(name="sim-a", endpoints=endpoints, api_key=api_key)
    return SimulatedProviders((provider,), seed=seed, clock_s=time.monotonic, sleep=asyncio.sleep)


async def ask(
    open_provider: OpenProvider,
    server: SimulatedProviders,
    call: UpstreamCall,
    *,
    api_key: str | None = None,
    idle_timeout_s: float = 10.0,
) -> list[UpstreamEvent]:
    """All events of one call to `sim-a` through the adapter."""
    settings = ProviderSettings(
        name="sim-a",
        base_url=server.base_url("sim-a"),
        api_key=None if api_key is None else Secret(api_key),
        idle_timeout_s=idle_timeout_s,
    )
    return [event async for batch in open_provider(settings).complete(call) for event in batch]


def text_of(events: list[UpstreamEvent]) -> str:
    """The whole text."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_an_answer_says_that_it_is_simulated(open_provider: OpenProvider) -> None:
    """Its text begins with that; usage counts it, and the end has its reason and model."""
    async with serve(ENDPOINT) as server:
        events = await ask(open_provider, server, call_for("What is a pointsman?"))
    text = text_of(events)
    assert text.startswith("[simulated] This is a stand-in answer from m at sim-a: no model was asked.")
    usage, finished = events[-2:]
    assert isinstance(usage, UsageReported)
    assert usage.usage.output_token_count == len(text.split())
    assert usage.usage.input_token_count is not None
    assert finished == Finished(FinishReason.STOP, "m")


async def test_streamed_and_whole_answers_are_the_same(open_provider: OpenProvider) -> None:
    """The same prompt gives the same text and usage either way."""
    async with serve(ENDPOINT) as server:
        streamed = await ask(open_provider, server, call_for("Hello"))
        whole = await ask(open_provider, server, call_for("Hello", stream=False))
    assert text_of(whole) == text_of(streamed)
    assert whole[-2:] == streamed[-2:]


async def test_an_answer_depends_on_seed_and_prompt_alone(open_provider: OpenProvider) -> None:
    """Servers with one seed agree; another seed or prompt gives another answer."""
    texts: list[str] = []
    for seed, prompt in ((1, "a"), (1, "a"), (2, "a"), (1, "b")):
        async with serve(ENDPOINT, seed=seed) as server:
            texts.append(text_of(await ask(open_provider, server, call_for(prompt))))
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


async def test_the_weather_depends_on_the_seed_alone() -> None:
    """Servers with one seed sleep the same times, fail the same requests and break the same streams."""
    wild = replace(
        ENDPOINT,
        ttft_s=Duration(median_s=1.0, sigma=0.5),
        inter_token_latency_s=Duration(median_s=0.1, sigma=0.5),
        error_rate=0.3,
        break_rate=0.3,
    )

    async def outcomes(seed: int) -> list[tuple[int, float]]:
        now_s = 0.0

        async def sleep(duration_s: float) -> None:
            nonlocal now_s
            now_s += duration_s

        provider = ProviderWeather(name="sim-a", endpoints=(wild,))
        seen: list[tuple[int, float]] = []
        server = SimulatedProviders((provider,), seed=seed, clock_s=lambda: now_s, sleep=sleep)
        async with server, httpx.AsyncClient(trust_env=False) as client:
            for number in range(20):
                body = {"model": "m", "messages": [{"role": "user", "content": str(number)}]}
                try:
                    response = await client.post(server.base_url("sim-a") + "/chat/completions", json=body)
                    seen.append((response.status_code, now_s))
                except httpx.TransportError:
                    seen.append((0, now_s))
        return seen

    first = await outcomes(1)
    assert await outcomes(1) == first
    assert await outcomes(2) != first
    assert {status for status, _ in first} == {0, 200, 500}


async def test_the_callers_limit_cuts_the_answer(open_provider: OpenProvider) -> None:
    """Three tokens, and the reason says so."""
    async with serve(ENDPOINT) as server:
        events = await ask(open_provider, server, call_for("Hello", output_token_count_max=3))
    assert text_of(events) == "[simulated] This is"
    assert events[-1] == Finished(FinishReason.LENGTH, "m")


SCHEMA = (
    '{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"},"unit":{"enum":["C","F"]},'
    '"tags":{"type":"array","items":{"type":"boolean"}},"deep":{"type":"object","properties":{"x":{"type":"null"}}}}}'
)
EXAMPLE = {"city": "simulated", "days": 1, "unit": "C", "tags": [True], "deep": {"x": None}}


@pytest.mark.parametrize("choice", [ToolChoice(ToolChoiceMode.REQUIRED), ToolChoice(ToolChoiceMode.NAMED, "weather")])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_required_tool_is_called(open_provider: OpenProvider, choice: ToolChoice, *, stream: bool) -> None:
    """The call's arguments are JSON of the tool's schema, its first piece has id and name."""
    conversation = replace(
        call_for("Weather?").conversation,
        tools=(Tool("weather", parameters_json_schema=SCHEMA), Tool("other")),
        tool_choice=choice,
    )
    call = UpstreamCall(upstream_model="m", conversation=conversation, stream=stream)
    async with serve(ENDPOINT) as server:
        events = await ask(open_provider, server, call)
    pieces = [event for event in events if isinstance(event, ToolCallDelta)]
    assert (pieces[0].index, pieces[0].name) == (0, "weather")
    assert pieces[0].id
    assert json.loads("".join(piece.arguments_json_fragment for piece in pieces)) == EXAMPLE
    assert events[-1] == Finished(FinishReason.TOOL_CALLS, "m")


@pytest.mark.parametrize(
    "wanted",
    [
        ResponseFormat(ResponseFormatKind.JSON_OBJECT),
        ResponseFormat(ResponseFormatKind.JSON_SCHEMA, schema_name="s", json_schema=SCHEMA),
    ],
)
async def test_json_is_answered_where_json_is_wanted(open_provider: OpenProvider, wanted: ResponseFormat) -> None:
    """An object, of the schema if there is one."""
    conversation = replace(call_for("JSON!").conversation, response_format=wanted)
    async with serve(ENDPOINT) as server:
        events = await ask(open_provider, server, UpstreamCall(upstream_model="m", conversation=conversation))
    expected = EXAMPLE if wanted.json_schema else {"simulated": True}
    assert json.loads(text_of(events)) == expected


@pytest.mark.parametrize("api_key", [None, "sk-wrong"])
async def test_a_wrong_key_is_refused(open_provider: OpenProvider, api_key: str | None) -> None:
    """401 in OpenAI's shape; the right key is served."""
    async with serve(ENDPOINT, api_key=Secret("sk-right")) as server:
        with pytest.raises(UpstreamStatusError) as raised:
            await ask(open_provider, server, call_for("Hello"), api_key=api_key)
        assert await ask(open_provider, server, call_for("Hello"), api_key="sk-right")
    assert raised.value.kind is UpstreamErrorKind.AUTHENTICATION
    assert str(raised.value) == "the provider answered HTTP 401 (invalid_api_key)"


async def test_an_unknown_model_is_refused(open_provider: OpenProvider) -> None:
    """404 in OpenAI's shape."""
    call = replace(call_for("Hello"), upstream_model="other")
    async with serve(ENDPOINT) as server:
        with pytest.raises(UpstreamStatusError, match=r"HTTP 404 \(model_not_found\)"):
            await ask(open_provider, server, call)


async def test_a_rate_limit_says_when_to_come_back(open_provider: OpenProvider) -> None:
    """The burst is served, then 429 with the wait, in time of the clock."""
    limited = replace(ENDPOINT, rate_limit=RateLimit(requests_per_s=0.01, burst=2))
    async with serve(limited) as server:
        await ask(open_provider, server, call_for("a"))
        await ask(open_provider, server, call_for("b"))
        with pytest.raises(UpstreamStatusError) as raised:
            await ask(open_provider, server, call_for("c"))
    assert raised.value.kind is UpstreamErrorKind.RATE_LIMITED
    assert raised.value.retry_after_s == pytest.approx(100.0, abs=5.0)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (OutageKind.REFUSE, UpstreamErrorKind.SERVER_ERROR),
        (OutageKind.RESET, UpstreamErrorKind.DISCONNECTED),
        (OutageKind.HANG, UpstreamErrorKind.TIMEOUT),
    ],
)
async def test_each_outage_fails_in_its_way(
    open_provider: OpenProvider, kind: OutageKind, expected: UpstreamErrorKind
) -> None:
    """Forced on a provider or in the weather of an endpoint; without it all is well again."""
    down = replace(ENDPOINT, model="down", outages=(Outage(from_s=0.0, to_s=HOURS, kind=kind),))
    async with serve(ENDPOINT, down) as server:
        with pytest.raises(UpstreamError) as planned:
            await ask(open_provider, server, replace(call_for("a"), upstream_model="down"), idle_timeout_s=0.05)
        server.set_outage("sim-a", kind)
        with pytest.raises(UpstreamError) as forced:
            await ask(open_provider, server, call_for("a"), idle_timeout_s=0.05)
        server.set_outage("sim-a", None)
        assert await ask(open_provider, server, call_for("a"))
    assert (planned.value.kind, forced.value.kind) == (expected, expected)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(OutageKind.RESET, UpstreamDisconnectedError), (OutageKind.HANG, UpstreamTimeoutError)],
)
async def test_an_outage_hits_streams_under_way(
    open_provider: OpenProvider, kind: OutageKind, expected: type[UpstreamError]
) -> None:
    """A provider that goes down breaks what it was just sending."""
    slow = replace(ENDPOINT, inter_token_latency_s=Duration(median_s=0.01, sigma=0.0))
    async with serve(slow) as server:
        settings = ProviderSettings(name="sim-a", base_url=server.base_url("sim-a"), idle_timeout_s=0.2)
        async with aclosing(open_provider(settings).complete(call_for("Hello"))) as batches:
            await anext(batches)
            server.set_outage("sim-a", kind)
            with pytest.raises(expected):
                await exhaust(batches)


async def exhaust(batches: AsyncIterator[tuple[UpstreamEvent, ...]]) -> None:
    """Read to the end."""
    async for _ in batches:
        pass


async def test_errors_and_breaks_come_at_their_rates(open_provider: OpenProvider) -> None:
    """A rate of one makes every request fail, midway or at once."""
    async with serve(replace(ENDPOINT, error_rate=1.0)) as server:
        with pytest.raises(UpstreamStatusError, match="HTTP 500"):
            await ask(open_provider, server, call_for("Hello"))
    async with serve(replace(ENDPOINT, break_rate=1.0)) as server:
        for prompt in ("a", "b", "c"):
            with pytest.raises(UpstreamDisconnectedError):
                await ask(open_provider, server, call_for(prompt))


async def test_a_client_that_leaves_ends_its_call(open_provider: OpenProvider) -> None:
    """The load of a cancelled call is gone: in-flight counts come from connections, not from wishes."""
    ended = asyncio.Event()

    async def sleep(duration_s: float) -> None:
        try:
            await asyncio.sleep(duration_s)
        finally:
            ended.set()

    frozen = replace(ENDPOINT, ttft_s=Duration(median_s=1000.0, sigma=0.0))
    provider = ProviderWeather(name="sim-a", endpoints=(frozen,))
    async with SimulatedProviders((provider,), seed=1, clock_s=time.monotonic, sleep=sleep) as server:
        with pytest.raises(UpstreamTimeoutError):
            await ask(open_provider, server, call_for("Hello"), idle_timeout_s=0.1)
        await asyncio.wait_for(ended.wait(), 5.0)
        assert server.in_flight_count("sim-a", "m") == 0


async def test_latency_grows_with_the_calls_in_flight(open_provider: OpenProvider) -> None:
    """Under load the server waits longer for the first token, by the slope."""
    waits_s: list[float] = []

    async def sleep(duration_s: float) -> None:
        waits_s.append(duration_s)
        await asyncio.sleep(0.05)

    loaded = replace(ENDPOINT, ttft_s=Duration(median_s=100.0, sigma=0.0), load=LoadResponse(knee_count=1, slope=1.0))
    provider = ProviderWeather(name="sim-a", endpoints=(loaded,))
    async with SimulatedProviders((provider,), seed=1, clock_s=lambda: 0.0, sleep=sleep) as server:
        await asyncio.gather(*(ask(open_provider, server, call_for("a", output_token_count_max=1)) for _ in range(3)))
    assert sorted(waits_s) == pytest.approx([100.0, 200.0, 300.0])


async def test_time_can_be_scaled() -> None:
    """A hundred simulated seconds take one of the clock."""
    waits_s: list[float] = []

    async def sleep(duration_s: float) -> None:
        waits_s.append(duration_s)

    provider = ProviderWeather(name="sim-a", endpoints=(replace(ENDPOINT, ttft_s=Duration(median_s=100.0, sigma=0.0)),))
    server = SimulatedProviders((provider,), seed=1, clock_s=lambda: 0.0, sleep=sleep, time_scale=100.0)
    async with server, httpx.AsyncClient(base_url=server.base_url("sim-a"), trust_env=False) as client:
        body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}
        assert (await client.post("/chat/completions", json=body)).status_code == 200
    assert waits_s == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/sim-a/v1/nothing", b"", 404, "unknown_url"),
        ("GET", "/sim-b/v1/models", b"", 404, "unknown_url"),
        ("GET", "/sim-a/v1/chat/completions", b"", 404, "unknown_url"),
        ("POST", "/sim-a/v1/chat/completions", b"{", 400, "invalid_body"),
        ("POST", "/sim-a/v1/chat/completions", b"[]", 400, "invalid_body"),
        ("POST", "/sim-a/v1/chat/completions", b"{}", 400, "invalid_model"),
        ("POST", "/sim-a/v1/chat/completions", b'{"model":"m","messages":[]}', 400, "invalid_messages"),
        (
            "POST",
            "/sim-a/v1/chat/completions",
            b'{"model":"m","messages":[1],"max_tokens":0}',
            400,
            "invalid_max_tokens",
        ),
        (
            "POST",
            "/sim-a/v1/chat/completions",
            b'{"model":"m","messages":[1],"tools":[],"tool_choice":{"type":"function","function":{"name":"f"}}}',
            400,
            "invalid_tool_choice",
        ),
    ],
)
async def test_a_bad_request_is_answered_as_providers_do(
    method: str, path: str, body: bytes, status: int, code: str
) -> None:
    """With a status and OpenAI's error object."""
    async with serve(ENDPOINT) as server, httpx.AsyncClient(trust_env=False) as client:
        response = await client.request(method, f"http://127.0.0.1:{server.port}{path}", content=body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


async def test_models_are_listed() -> None:
    """As every OpenAI-compatible server lists them."""
    async with serve(ENDPOINT, replace(ENDPOINT, model="n")) as server, httpx.AsyncClient(trust_env=False) as client:
        listed = (await client.get(server.base_url("sim-a") + "/models")).json()
    assert [model["id"] for model in listed["data"]] == ["m", "n"]


async def test_many_streams_at_once_are_each_complete(open_provider: OpenProvider) -> None:
    """A hundred concurrent calls over one adapter all end well."""
    async with serve(ENDPOINT) as server:
        provider = open_provider(ProviderSettings(name="sim-a", base_url=server.base_url("sim-a")))

        async def last_of(number: int) -> UpstreamEvent:
            return [event async for batch in provider.complete(call_for(str(number))) for event in batch][-1]

        ends = await asyncio.gather(*(last_of(number) for number in range(100)))
    assert set(ends) == {Finished(FinishReason.STOP, "m")}


async def test_the_demo_weather_can_be_served_in_a_process_of_its_own(open_provider: OpenProvider) -> None:
    """The runner announces its port and serves until it is cancelled."""
    announced: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(
        run_simulated(
            demo_weather(), seed=1, clock_s=time.monotonic, sleep=asyncio.sleep, announce=announced.set_result
        )
    )
    base_url = f"http://127.0.0.1:{await announced}/sim-west/v1"
    call = replace(call_for("Hello", output_token_count_max=5), upstream_model="llama-3.1-8b-instruct")
    provider = open_provider(ProviderSettings(name="sim-west", base_url=base_url))
    events = [event async for batch in provider.complete(call) for event in batch]
    running.cancel()
    await asyncio.wait([running])
    assert text_of(events) == "[simulated] This is a stand-in"
