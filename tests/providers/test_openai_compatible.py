"""The OpenAI-compatible adapter against a scripted upstream: exact bytes out, every failure in, nothing left open."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from collections.abc import Callable
from contextlib import aclosing

import pytest
from pointsman_server.chat import (
    Conversation,
    Finished,
    FinishReason,
    Message,
    RequestAllowance,
    Role,
    TextDelta,
    TextPart,
    UpstreamEvent,
    Usage,
    UsageReported,
)
from pointsman_server.errors import (
    UpstreamConnectError,
    UpstreamDisconnectedError,
    UpstreamError,
    UpstreamErrorKind,
    UpstreamProtocolError,
    UpstreamStatusError,
    UpstreamTimeoutError,
)
from pointsman_server.providers.base import ChatProvider, ProviderSettings, Secret, UpstreamCall
from pointsman_server.providers.http_client import ERROR_BYTES_MAX
from pointsman_server.providers.scripted import (
    LAST_CHUNK,
    Close,
    HalfClose,
    Hang,
    ReadRequest,
    Reset,
    Script,
    ScriptedUpstream,
    Send,
    WaitFor,
    chunk,
    event,
    stream_head,
    whole_answer,
)

OpenProvider = Callable[[ProviderSettings], ChatProvider]

KEY = "sk-test-0123456789"
HELLO = Conversation((Message(Role.USER, (TextPart("Hello"),)),))
STREAMED = UpstreamCall(upstream_model="m", conversation=HELLO)
WHOLE = UpstreamCall(upstream_model="m", conversation=HELLO, stream=False)

A = event('{"choices":[{"delta":{"content":"a"}}]}')
B = event('{"choices":[{"delta":{"content":"b"}}]}')
STOP = event('{"choices":[{"delta":{},"finish_reason":"stop"}]}')
USAGE = event('{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}')
DONE = event("[DONE]")
STREAM = stream_head() + A + B + STOP + USAGE + DONE + LAST_CHUNK
EVENTS = [TextDelta("a"), TextDelta("b"), UsageReported(Usage(1, 2)), Finished(FinishReason.STOP)]
ANSWER = '{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}'


def settings_for(upstream: ScriptedUpstream, *, api_key: str | None = None) -> ProviderSettings:
    """The usual settings for that upstream."""
    return ProviderSettings(name="p", base_url=upstream.base_url, api_key=None if api_key is None else Secret(api_key))


async def events_of(provider: ChatProvider, call: UpstreamCall = STREAMED) -> list[UpstreamEvent]:
    """Every event of a call."""
    events: list[UpstreamEvent] = []
    async with aclosing(provider.complete(call)) as batches:
        async for batch in batches:
            assert batch, "no batch is empty"
            events += batch
    return events


async def failure_of(
    provider: ChatProvider, call: UpstreamCall = STREAMED
) -> tuple[list[UpstreamEvent], UpstreamError]:
    """The events before the failure, and the failure."""
    events: list[UpstreamEvent] = []
    try:
        async for batch in provider.complete(call):
            events += batch
    except UpstreamError as failure:
        return events, failure
    pytest.fail("the call did not fail")


async def test_the_request_is_sent_byte_for_byte(open_provider: OpenProvider) -> None:
    """Head and body of a streamed call are exactly these."""
    async with ScriptedUpstream((ReadRequest(), Send(STREAM))) as upstream:
        provider = open_provider(
            ProviderSettings(
                name="p",
                base_url=upstream.base_url + "/",
                api_key=Secret(KEY),
                headers=(("OpenAI-Organization", Secret("org-1")),),
            )
        )
        traced = UpstreamCall(upstream_model="gpt-x", conversation=HELLO, headers=(("traceparent", "00-aa-bb-01"),))
        assert await events_of(provider, traced) == EVENTS
        (request,) = upstream.connections[0].requests
    body = (
        b'{"model":"gpt-x","messages":[{"role":"user","content":"Hello"}],"stream":true,'
        b'"stream_options":{"include_usage":true}}'
    )
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\n"
        b"Host: 127.0.0.1:%d\r\n"
        b"Accept: */*\r\n"
        b"Connection: keep-alive\r\n"
        b"user-agent: pointsman\r\n"
        b"accept-encoding: identity\r\n"
        b"authorization: Bearer sk-test-0123456789\r\n"
        b"OpenAI-Organization: org-1\r\n"
        b"content-type: application/json\r\n"
        b"traceparent: 00-aa-bb-01\r\n"
        b"Content-Length: %d\r\n"
        b"\r\n"
    )
    assert body == request.body
    assert sorted((head % (upstream.port, len(body))).split(b"\r\n")) == sorted(request.head.split(b"\r\n"))


async def test_without_a_key_no_authorization_is_sent(open_provider: OpenProvider) -> None:
    """Local servers want none."""
    async with ScriptedUpstream((ReadRequest(), Send(STREAM))) as upstream:
        await events_of(open_provider(settings_for(upstream)))
        assert b"authorization" not in upstream.connections[0].requests[0].head.lower()


async def test_a_whole_answer_comes_as_one_batch(open_provider: OpenProvider) -> None:
    """Unstreamed, the request says so and everything arrives at once."""
    async with ScriptedUpstream((ReadRequest(), Send(whole_answer(ANSWER)))) as upstream:
        provider = open_provider(settings_for(upstream))
        batches = [batch async for batch in provider.complete(WHOLE)]
        assert [(TextDelta("a"), Finished(FinishReason.STOP))] == batches
        assert b'"stream":false' in upstream.connections[0].requests[0].body


async def test_a_provider_that_cannot_stream_is_understood(open_provider: OpenProvider) -> None:
    """It answers a streamed call with a whole document, and its content type says so."""
    async with ScriptedUpstream((ReadRequest(), Send(whole_answer(ANSWER)))) as upstream:
        events = await events_of(open_provider(settings_for(upstream)))
        assert [TextDelta("a"), Finished(FinishReason.STOP)] == events


async def test_events_that_arrive_together_come_as_one_batch(open_provider: OpenProvider) -> None:
    """What one piece of the body brought is one batch, and the end is there without waiting for the connection's."""
    both = chunk(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"choices":[{"delta":{"content":"b"}}]}\n\n')
    more = asyncio.Event()
    script: Script = (ReadRequest(), Send(stream_head() + both), WaitFor(more), Send(STOP + DONE), Hang())
    async with ScriptedUpstream(script) as upstream:
        provider = open_provider(settings_for(upstream))
        async with aclosing(provider.complete(STREAMED)) as batches:
            assert (TextDelta("a"), TextDelta("b")) == await anext(batches)
            more.set()
            assert (Finished(FinishReason.STOP),) == await anext(batches)


async def test_a_stream_cut_at_every_byte_gives_the_same_events(open_provider: OpenProvider) -> None:
    """However the network parts the bytes, the events are the same."""
    cuts = range(0, len(STREAM), 7)
    scripts: list[Script] = [(ReadRequest(), Send(STREAM[:at]), Send(STREAM[at:])) for at in cuts]
    async with ScriptedUpstream(*scripts) as upstream:
        for _ in cuts:
            provider = open_provider(settings_for(upstream))
            assert await events_of(provider) == EVENTS


async def test_the_connection_serves_again_after_a_complete_answer(open_provider: OpenProvider) -> None:
    """Ten calls, streamed and whole, go over one connection."""
    script: Script = (ReadRequest(), Send(STREAM), ReadRequest(), Send(whole_answer(ANSWER))) * 5
    async with ScriptedUpstream(script) as upstream:
        provider = open_provider(settings_for(upstream))
        for _ in range(5):
            await events_of(provider)
            await events_of(provider, WHOLE)
        assert len(upstream.connections) == 1


async def test_the_connection_serves_again_after_an_error_status(open_provider: OpenProvider) -> None:
    """An error answer that was read to its end costs no connection."""
    refused = whole_answer('{"error":{}}', status=503)
    script: Script = (ReadRequest(), Send(refused), ReadRequest(), Send(STREAM))
    async with ScriptedUpstream(script) as upstream:
        provider = open_provider(settings_for(upstream))
        await failure_of(provider)
        assert await events_of(provider) == EVENTS
        assert len(upstream.connections) == 1


async def test_leaving_early_closes_the_connection(open_provider: OpenProvider) -> None:
    """Whoever closes the generator midway closes the upstream's connection with it."""
    async with ScriptedUpstream((ReadRequest(), Send(stream_head() + A), Hang())) as upstream:
        provider = open_provider(settings_for(upstream))
        async with aclosing(provider.complete(STREAMED)) as batches:
            assert (TextDelta("a"),) == await anext(batches)
        await asyncio.wait_for(upstream.connections[0].client_closed.wait(), 5.0)


@pytest.mark.parametrize("sent", [b"", stream_head(), stream_head() + A], ids=["nothing", "head", "event"])
async def test_cancelling_closes_the_connection(open_provider: OpenProvider, sent: bytes) -> None:
    """A call that is cancelled while it waits closes the connection, whatever it waits for."""
    async with ScriptedUpstream((ReadRequest(), Send(sent), Hang())) as upstream:
        call = asyncio.create_task(events_of(open_provider(settings_for(upstream))))
        connection = await upstream.connection(0)
        await connection.requested(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(connection.client_closed.wait(), 5.0)


async def test_nothing_is_left_over(open_provider: OpenProvider) -> None:
    """After streams completed, broken, refused, left and cancelled, the pool is empty and no task is left."""
    scripts: list[Script] = [
        (ReadRequest(), Send(STREAM)),
        (ReadRequest(), Send(stream_head() + A), Reset()),
        (ReadRequest(), Send(whole_answer("{}", status=500)), Close()),
        (ReadRequest(), Send(stream_head() + A), Hang()),
        (ReadRequest(), Hang()),
    ]
    async with ScriptedUpstream(*scripts) as upstream:
        provider = open_provider(
            ProviderSettings(name="p", base_url=upstream.base_url, connection_count_max=1, connect_timeout_s=5.0)
        )
        await events_of(provider)
        await upstream.connections[0].script_done.wait()
        await failure_of(provider)
        await failure_of(provider)
        async with aclosing(provider.complete(STREAMED)) as batches:
            await anext(batches)
        call = asyncio.create_task(events_of(provider))
        await (await upstream.connection(4)).requested(1)
        call.cancel()
        await asyncio.wait([call])
        gc.collect()
        await asyncio.sleep(0.05)
        names = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert [name for name in names if name != "scripted upstream"] == []
    # The pool has one place: that every call got it shows that each before had given it back.
    assert len(upstream.connections) == 5


async def test_a_refused_connection_is_a_connect_error(open_provider: OpenProvider) -> None:
    """Nobody listens there, so nothing was sent."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        provider = open_provider(ProviderSettings(name="p", base_url=f"http://127.0.0.1:{bound.getsockname()[1]}/v1"))
        _, failure = await failure_of(provider)
    assert isinstance(failure, UpstreamConnectError)


async def test_an_unknown_host_is_a_connect_error(open_provider: OpenProvider) -> None:
    """A name that does not resolve; `.invalid` never does (RFC 2606)."""
    _, failure = await failure_of(open_provider(ProviderSettings(name="p", base_url="http://pointsman.invalid/v1")))
    assert isinstance(failure, UpstreamConnectError)


async def test_a_tls_failure_is_a_connect_error(open_provider: OpenProvider) -> None:
    """The peer does not speak TLS."""
    async with ScriptedUpstream((Send(b"not TLS at all\r\n"), Close())) as upstream:
        provider = open_provider(ProviderSettings(name="p", base_url=f"https://127.0.0.1:{upstream.port}/v1"))
        _, failure = await failure_of(provider)
    assert isinstance(failure, UpstreamConnectError)


async def test_a_full_pool_is_a_connect_error(open_provider: OpenProvider) -> None:
    """A call waits for a free connection no longer than for a new one."""
    async with ScriptedUpstream((ReadRequest(), Send(stream_head() + A), Hang())) as upstream:
        provider = open_provider(
            ProviderSettings(name="p", base_url=upstream.base_url, connection_count_max=1, connect_timeout_s=0.02)
        )
        async with aclosing(provider.complete(STREAMED)) as batches:
            await anext(batches)
            _, failure = await failure_of(provider)
        assert isinstance(failure, UpstreamConnectError)
        assert len(upstream.connections) == 1


@pytest.mark.parametrize("sent", [b"", stream_head() + A], ids=["before the head", "within the stream"])
async def test_silence_is_a_timeout(open_provider: OpenProvider, sent: bytes) -> None:
    """A provider that says nothing for the idle timeout has stalled; the connection is closed."""
    async with ScriptedUpstream((ReadRequest(), Send(sent), Hang())) as upstream:
        provider = open_provider(ProviderSettings(name="p", base_url=upstream.base_url, idle_timeout_s=0.05))
        events, failure = await failure_of(provider)
        assert isinstance(failure, UpstreamTimeoutError)
        assert ([TextDelta("a")] if sent else []) == events
        await asyncio.wait_for(upstream.connections[0].client_closed.wait(), 5.0)


@pytest.mark.parametrize("sent", [b"", stream_head() + A], ids=["before the head", "within the stream"])
async def test_the_deadline_is_a_timeout(open_provider: OpenProvider, sent: bytes) -> None:
    """What is left of the deadline bounds the whole attempt; the connection is closed."""
    async with ScriptedUpstream((ReadRequest(), Send(sent), Hang())) as upstream:
        provider = open_provider(settings_for(upstream))
        call = UpstreamCall(upstream_model="m", conversation=HELLO, timeout_s=0.05)
        _, failure = await failure_of(provider, call)
        assert isinstance(failure, UpstreamTimeoutError)
        await asyncio.wait_for(upstream.connections[0].client_closed.wait(), 5.0)


async def test_a_slow_reader_is_not_a_silent_provider(open_provider: OpenProvider) -> None:
    """The idle timeout counts the provider's silence, not the time that the user takes between batches."""
    async with ScriptedUpstream((ReadRequest(), Send(STREAM))) as upstream:
        provider = open_provider(ProviderSettings(name="p", base_url=upstream.base_url, idle_timeout_s=0.2))
        events: list[UpstreamEvent] = []
        async for batch in provider.complete(STREAMED):
            events += batch
            await asyncio.sleep(0.25)
        assert events == EVENTS


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((Reset(),), UpstreamDisconnectedError),
        ((Close(),), UpstreamDisconnectedError),
        ((HalfClose(), Hang()), UpstreamDisconnectedError),
        ((Send(b"HTTP/1.1 200 OK\r\ncontent-ty"), Close()), UpstreamDisconnectedError),
        ((Send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), Close()), UpstreamProtocolError),
        ((Send(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 30_000), Hang()), UpstreamProtocolError),
        ((Send(stream_head()), Reset()), UpstreamDisconnectedError),
        ((Send(stream_head() + A), Reset()), UpstreamDisconnectedError),
        ((Send(stream_head() + A), Close()), UpstreamDisconnectedError),
        ((Send(stream_head() + A + LAST_CHUNK),), UpstreamDisconnectedError),
        ((Send(stream_head() + A + b"zz\r\n"), Hang()), UpstreamProtocolError),
        ((Send(stream_head() + A + event("{")), Hang()), UpstreamProtocolError),
        ((Send(stream_head() + A + event('{"error":{"message":"diary"}}')), Hang()), UpstreamProtocolError),
        ((Send(stream_head() + A + event('{"error":{"code":529}}')), Hang()), UpstreamStatusError),
        ((Send(stream_head(("content-encoding", "gzip")) + A), Hang()), UpstreamProtocolError),
        ((Send(stream_head() + chunk(b"data: " + b"x" * 2_000_000)), Hang()), UpstreamProtocolError),
        ((Send(whole_answer("{}")),), UpstreamProtocolError),
        ((Send(whole_answer("<html>")),), UpstreamProtocolError),
    ],
)
async def test_each_broken_answer_has_its_error(
    open_provider: OpenProvider, steps: Script, expected: type[UpstreamError]
) -> None:
    """What came whole before the break is given, then the failure is raised and the connection closed."""
    async with ScriptedUpstream((ReadRequest(), *steps)) as upstream:
        events, failure = await failure_of(open_provider(settings_for(upstream, api_key=KEY)))
        assert expected is type(failure)
        assert events in ([], [TextDelta("a")])
        assert "diary" not in str(failure)
        await asyncio.wait_for(upstream.connections[0].script_done.wait(), 5.0)


async def test_text_and_failure_in_one_read_are_both_seen(open_provider: OpenProvider) -> None:
    """An event that is whole is not lost because the next one is broken."""
    sent = chunk(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {\n\n')
    async with ScriptedUpstream((ReadRequest(), Send(stream_head() + sent), Hang())) as upstream:
        events, failure = await failure_of(open_provider(settings_for(upstream)))
        assert ([TextDelta("a")], UpstreamProtocolError) == (events, type(failure))


@pytest.mark.parametrize("end", [(Reset(),), (Close(),), (Send(LAST_CHUNK),)], ids=["reset", "close", "end"])
async def test_a_break_after_the_reason_to_stop_loses_nothing(open_provider: OpenProvider, end: Script) -> None:
    """The answer is complete once the model has said why it stopped, though the end mark is missing."""
    seen = asyncio.Event()
    script: Script = (ReadRequest(), Send(stream_head() + A + STOP), WaitFor(seen), *end)
    async with ScriptedUpstream(script) as upstream:
        events: list[UpstreamEvent] = []
        async for batch in open_provider(settings_for(upstream)).complete(STREAMED):
            events += batch
            seen.set()
        assert [TextDelta("a"), Finished(FinishReason.STOP)] == events


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, UpstreamErrorKind.REJECTED),
        (401, UpstreamErrorKind.AUTHENTICATION),
        (403, UpstreamErrorKind.AUTHENTICATION),
        (404, UpstreamErrorKind.REJECTED),
        (408, UpstreamErrorKind.TIMEOUT),
        (429, UpstreamErrorKind.RATE_LIMITED),
        (500, UpstreamErrorKind.SERVER_ERROR),
        (502, UpstreamErrorKind.SERVER_ERROR),
        (504, UpstreamErrorKind.TIMEOUT),
    ],
)
async def test_each_error_status_is_told_with_its_code_alone(
    open_provider: OpenProvider, status: int, kind: UpstreamErrorKind
) -> None:
    """The provider's own words, which may quote prompt and key, go nowhere; its machine code does."""
    body = json.dumps({"error": {"message": f"Incorrect key {KEY}: Hello", "code": "some_code"}})
    async with ScriptedUpstream((ReadRequest(), Send(whole_answer(body, status=status)))) as upstream:
        _, failure = await failure_of(open_provider(settings_for(upstream, api_key=KEY)))
    assert isinstance(failure, UpstreamStatusError)
    assert (status, kind, None) == (failure.http_status, failure.kind, failure.retry_after_s)
    assert f"the provider answered HTTP {status} (some_code)" == str(failure)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (("Retry-After", "7"), 7.0),
        (("Retry-After", "Sun, 06 Nov 1994 08:49:47 GMT"), 10.0),
        (("retry-after-ms", "125"), 0.125),
        (("Retry-After", "whenever"), None),
    ],
)
async def test_a_rate_limit_says_how_long(
    open_provider: OpenProvider, header: tuple[str, str], expected: float | None
) -> None:
    """Retry-After in each of its forms comes with the error."""
    answer = whole_answer('{"error":{"code":"rate_limit_exceeded"}}', status=429, headers=(header,))
    async with ScriptedUpstream((ReadRequest(), Send(answer))) as upstream:
        _, failure = await failure_of(open_provider(settings_for(upstream)))
    assert (UpstreamErrorKind.RATE_LIMITED, expected) == (failure.kind, failure.retry_after_s)


@pytest.mark.parametrize("status", [200, 429])
async def test_headers_tell_what_is_left(open_provider: OpenProvider, status: int) -> None:
    """Answer or refusal: what the headers say of further requests reaches the caller, typed."""
    told: list[RequestAllowance] = []
    headers = (
        ("X-RateLimit-Limit-Requests", "60"),
        ("X-RateLimit-Remaining-Requests", "3"),
        ("X-RateLimit-Reset-Requests", "1m30s"),
    )
    answer = whole_answer("{}", status=status, headers=headers)
    async with ScriptedUpstream((ReadRequest(), Send(answer))) as upstream:
        call = UpstreamCall(upstream_model="m", conversation=HELLO, on_allowance=told.append)
        with pytest.raises(UpstreamError):
            await events_of(open_provider(settings_for(upstream)), call)
    assert told == [RequestAllowance(limit_count=60, remaining_count=3, reset_s=90.0)]


async def test_an_endless_error_body_is_not_read(open_provider: OpenProvider) -> None:
    """A status is known without its body: one that is too long, or never ends, costs its connection."""
    page = b"HTTP/1.1 500 Oops\r\ncontent-length: 999999999\r\n\r\n" + b"<p>sorry</p>" * (ERROR_BYTES_MAX // 8)
    for body in (page, b"HTTP/1.1 500 Oops\r\ncontent-length: 10\r\n\r\n{"):
        async with ScriptedUpstream((ReadRequest(), Send(body), Hang())) as upstream:
            _, failure = await failure_of(open_provider(settings_for(upstream)))
            assert str(failure) == "the provider answered HTTP 500"
            await asyncio.wait_for(upstream.connections[0].client_closed.wait(), 5.0)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(open_provider: OpenProvider, status: int) -> None:
    """The key never goes to another host."""
    async with ScriptedUpstream((ReadRequest(), Send(STREAM))) as elsewhere:
        moved = whole_answer("", status=status, headers=(("location", elsewhere.base_url + "/chat/completions"),))
        async with ScriptedUpstream((ReadRequest(), Send(moved))) as upstream:
            _, failure = await failure_of(open_provider(settings_for(upstream, api_key=KEY)))
            assert UpstreamProtocolError is type(failure)
        assert elsewhere.connections == []


@pytest.mark.parametrize(
    ("call", "kind"), [(STREAMED, "a stream"), (WHOLE, "an answer in one piece")], ids=["streamed", "whole"]
)
async def test_an_answer_that_is_too_long_is_refused(
    open_provider: OpenProvider, call: UpstreamCall, kind: str
) -> None:
    """The bound holds on the bytes that arrive, whatever they say, and the failure names it."""
    comment = chunk(b": x\n" * 64)
    async with ScriptedUpstream((ReadRequest(), Send(stream_head() + comment * 10), Hang())) as upstream:
        provider = open_provider(
            ProviderSettings(
                name="p",
                base_url=upstream.base_url,
                whole_bytes_max=1000,
                stream_bytes_max=1000 if call.stream else 1_000_000,
            )
        )
        _, failure = await failure_of(provider, call)
        assert str(failure) == f"the provider's answer is too long: {kind} may have 1000 bytes"


async def test_a_key_that_no_header_can_carry_is_not_quoted(open_provider: OpenProvider) -> None:
    """A header that HTTP refuses fails the attempt without its value in the text or the chain of causes."""
    async with ScriptedUpstream((ReadRequest(), Send(STREAM))) as upstream:
        call = UpstreamCall(upstream_model="m", conversation=HELLO, headers=(("x-a", f"{KEY}\r\nx-b: 1"),))
        _, failure = await failure_of(open_provider(settings_for(upstream)), call)
    assert UpstreamProtocolError is type(failure)
    assert failure.__cause__ is None
    assert failure.__suppress_context__
    assert KEY not in str(failure)


async def test_an_adapter_shows_no_key(open_provider: OpenProvider) -> None:
    """Its repr names the provider and masks the key."""
    settings = ProviderSettings(name="north", base_url="http://127.0.0.1/v1", api_key=Secret(KEY))
    shown = repr(open_provider(settings))
    assert "north" in shown
    assert KEY not in shown


async def test_proxies_of_the_environment_are_not_used(
    open_provider: OpenProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key goes to the configured host and nowhere else."""
    async with ScriptedUpstream((ReadRequest(), Send(STREAM))) as upstream:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert await events_of(open_provider(settings_for(upstream))) == EVENTS
