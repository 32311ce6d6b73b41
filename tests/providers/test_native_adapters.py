"""The adapters of Anthropic and Google against a scripted upstream: what differs from the OpenAI-compatible one."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest
from pointsman_server.chat import (
    Conversation,
    Finished,
    FinishReason,
    Message,
    RequestAllowance,
    Role,
    SamplingOptions,
    TextDelta,
    TextPart,
    UpstreamEvent,
    Usage,
    UsageReported,
)
from pointsman_server.errors import (
    UpstreamErrorKind,
    UpstreamStatusError,
    UpstreamUnsupportedError,
)
from pointsman_server.providers.base import ChatProvider, ProviderSettings, Secret, UpstreamCall
from pointsman_server.providers.registry import create_provider
from pointsman_server.providers.scripted import (
    LAST_CHUNK,
    Hang,
    ReadRequest,
    Reset,
    ScriptedUpstream,
    Send,
    event,
    stream_head,
    whole_answer,
)

OpenAdapter = Callable[[str, ScriptedUpstream], ChatProvider]

NOW_UNIX_S = 1_764_133_200.0
"""2025-11-26T05:00:00Z."""
HELLO = Conversation((Message(Role.USER, (TextPart("Hello"),)),))
CALL = UpstreamCall(upstream_model="m", conversation=HELLO, output_token_count_max=10)
COMPLETE = event('{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}')
COUNTED = event('{"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":1}}')
EVENTS = [TextDelta("a"), UsageReported(Usage(3, 1)), Finished(FinishReason.STOP)]


@pytest.fixture
async def open_adapter(tls: ssl.SSLContext) -> AsyncIterator[OpenAdapter]:
    """Makes providers that are closed when the test ends."""
    opened: list[ChatProvider] = []

    def open_one(adapter: str, upstream: ScriptedUpstream) -> ChatProvider:
        settings = ProviderSettings(name="p", base_url=upstream.base_url, api_key=Secret("sk-1"), idle_timeout_s=60.0)
        opened.append(create_provider(adapter, settings, unix_s=lambda: NOW_UNIX_S, tls=tls))
        return opened[-1]

    yield open_one
    for provider in opened:
        await provider.aclose()


async def events_of(provider: ChatProvider, call: UpstreamCall = CALL) -> list[UpstreamEvent]:
    """Every event of a call."""
    async with aclosing(provider.complete(call)) as batches:
        return [event async for batch in batches for event in batch]


async def test_an_answer_ends_with_its_stream(open_adapter: OpenAdapter) -> None:
    """Google sends no end mark: what follows the reason still counts, and the connection serves again."""
    answer = (ReadRequest(), Send(stream_head() + COMPLETE + COUNTED + LAST_CHUNK))
    async with ScriptedUpstream((*answer, *answer)) as upstream:
        provider = open_adapter("gemini", upstream)
        assert await events_of(provider) == EVENTS
        assert await events_of(provider) == EVENTS
        assert len(upstream.connections) == 1


@pytest.mark.parametrize("end", [Hang(), Reset()])
async def test_a_complete_answer_does_not_wait_for_a_stream_that_stays_open(
    open_adapter: OpenAdapter, end: Hang | Reset
) -> None:
    """A provider that neither closes nor breaks in order can't take the answer back; its connection is closed."""
    async with ScriptedUpstream((ReadRequest(), Send(stream_head() + COMPLETE + COUNTED), end)) as upstream:
        assert await events_of(open_adapter("gemini", upstream)) == EVENTS
        await upstream.connections[0].script_done.wait()


async def test_googles_answer_says_itself_when_to_come_back(open_adapter: OpenAdapter) -> None:
    """In the body; a header that says so comes before it."""
    body = '{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"retryDelay":"41.5s"}]}}'
    for headers, expected_s in (((), 41.5), ((("retry-after", "7"),), 7.0)):
        refused = (ReadRequest(), Send(whole_answer(body, status=429, headers=headers)))
        async with ScriptedUpstream(refused) as upstream:
            with pytest.raises(UpstreamStatusError) as raised:
                await events_of(open_adapter("gemini", upstream))
        assert raised.value.retry_after_s == expected_s
        assert raised.value.kind is UpstreamErrorKind.RATE_LIMITED


async def test_a_wrong_key_is_known_though_google_calls_the_request_wrong(open_adapter: OpenAdapter) -> None:
    """A 400 with that reason is the key's fault, not the request's."""
    body = '{"error":{"code":400,"status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}'
    async with ScriptedUpstream((ReadRequest(), Send(whole_answer(body, status=400)))) as upstream:
        with pytest.raises(UpstreamStatusError, match="API_KEY_INVALID") as raised:
            await events_of(open_adapter("gemini", upstream))
    assert raised.value.kind is UpstreamErrorKind.AUTHENTICATION


async def test_anthropics_allowance_is_told(open_adapter: OpenAdapter) -> None:
    """Of an error too."""
    headers = (
        ("anthropic-ratelimit-requests-limit", "50"),
        ("anthropic-ratelimit-requests-remaining", "0"),
        ("anthropic-ratelimit-requests-reset", "2025-11-26T05:00:30Z"),
    )
    told: list[RequestAllowance] = []
    call = UpstreamCall(upstream_model="m", conversation=HELLO, output_token_count_max=10, on_allowance=told.append)
    async with ScriptedUpstream((ReadRequest(), Send(whole_answer("{}", status=429, headers=headers)))) as upstream:
        with pytest.raises(UpstreamStatusError):
            await events_of(open_adapter("anthropic", upstream), call)
    assert told == [RequestAllowance(limit_count=50, remaining_count=0, reset_s=30.0)]


@pytest.mark.parametrize("adapter", ["anthropic", "gemini"])
async def test_what_cannot_be_said_opens_no_connection(open_adapter: OpenAdapter, adapter: str) -> None:
    """The provider hears nothing of it."""
    asked = Conversation((Message(Role.USER, (TextPart("Hello"),), name="Ann"),), sampling=SamplingOptions(seed=2**40))
    async with ScriptedUpstream((ReadRequest(),)) as upstream:
        with pytest.raises(UpstreamUnsupportedError):
            await events_of(open_adapter(adapter, upstream), UpstreamCall(upstream_model="m", conversation=asked))
        assert upstream.connections == []


@pytest.mark.parametrize("adapter", ["anthropic", "gemini", "openai_compatible"])
async def test_no_provider_shows_its_key(open_adapter: OpenAdapter, adapter: str) -> None:
    """Its repr tells where it is, and no secret."""
    async with ScriptedUpstream((ReadRequest(),)) as upstream:
        shown = repr(open_adapter(adapter, upstream))
    assert upstream.base_url in shown
    assert "sk-1" not in shown
