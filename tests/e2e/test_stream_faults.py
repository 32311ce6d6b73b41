"""The contract of docs/streams.md over real sockets: a provider's answer is broken off at every byte, in every way."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import grpc
import pytest
from e2e.harness import (
    DONE_EVENT,
    END,
    FINISH_EVENT,
    USAGE_EVENT,
    Running,
    config_of,
    delta_event,
    endpoints,
    refusing,
    running,
    streaming,
)
from execution.played import Stage, always, answer
from pointsman import (
    AttemptFailed,
    AttemptStarted,
    DeadlineExceededError,
    Decision,
    Delta,
    Done,
    Event,
    StreamBrokenError,
    Usage,
    conversation,
)
from pointsman.v1 import routing_pb2
from pointsman.v1.router_service_pb2 import CompleteRequest, CompleteResponse
from pointsman_server.attempt import UsageCounted
from pointsman_server.chat import TextDelta
from pointsman_server.errors import StreamBrokenError as BrokenError
from pointsman_server.providers.base import ProviderSettings
from pointsman_server.providers.registry import create_provider
from pointsman_server.providers.scripted import (
    LAST_CHUNK,
    UNKNOWN_HOST,
    Close,
    DeafPort,
    HalfClose,
    Hang,
    ReadAnything,
    ReadRequest,
    Reset,
    Script,
    ScriptedConnection,
    ScriptedUpstream,
    Send,
    Step,
    stream_head,
)
from pointsman_server.router import Completed, CompletionEvent

PATIENCE_S = 20.0
"""For what must happen at once; reached by a fault alone."""
CERTIFICATE = Path(__file__).parents[1] / "providers" / "localhost.pem"
PIECES = ("Hel", "lo, ", "wörld")
PARTS = (stream_head(), *(delta_event(piece) for piece in PIECES), FINISH_EVENT, USAGE_EVENT, DONE_EVENT, LAST_CHUNK)
"""An answer as it goes over the wire, with the ends of its events between the parts."""
WIRE = b"".join(PARTS)
ENDS = tuple(accumulate(len(part) for part in PARTS))
RESET_STRIDE = 7
"""Bytes between two places where an answer is reset."""
CRLF_SIZE = 2
"""What ends a chunk; the event in it is complete without."""


def text_within(byte_count: int) -> str:
    """The text whose events are complete after so many bytes of the answer."""
    ends = ENDS[1 : 1 + len(PIECES)]
    return "".join(piece for piece, end in zip(PIECES, ends, strict=True) if end - CRLF_SIZE <= byte_count)


async def broken_off(upstream: ScriptedUpstream, count: int) -> list[tuple[list[CompletionEvent], BrokenError | None]]:
    """What a completion tells, for as many connections one after the other; whenever it may, another provider answers "fine"."""
    async with AsyncExitStack() as stack:
        settings = ProviderSettings(name="x", base_url=upstream.base_url)
        provider = create_provider(
            "openai_compatible", settings, unix_s=lambda: 0.0, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        )
        stack.push_async_callback(provider.aclose)
        found: list[tuple[list[CompletionEvent], BrokenError | None]] = []
        for _ in range(count):
            # Each time as if the providers were seen for the first time: no breaker is open.
            stage = Stage(x=always(answer()), y=always(answer(after_s=0.0, gap_s=0.0)))
            stage.router.world = replace(stage.router.world, providers={**stage.providers, "x": provider})
            events: list[CompletionEvent] = []
            error = None
            try:
                async for event in stage.events():
                    events.append(event)  # noqa: PERF401 - those before an error count
            except BrokenError as caught:
                error = caught
            found.append((events, error))
    return found


def text_of(events: list[CompletionEvent]) -> str:
    """What the deltas add up to."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_an_answer_that_ends_after_any_byte_is_whole_or_replaced_or_counted() -> None:
    """With all of the text and its finish it is whole; with none of it another provider answers; else it has broken off,
    with exactly what came, all of it counted."""
    scripts = [(ReadRequest(), Send(WIRE[:size]), Close()) for size in range(len(WIRE) + 1)]
    async with ScriptedUpstream(*scripts) as upstream:
        found = await asyncio.wait_for(broken_off(upstream, len(scripts)), PATIENCE_S * 5)
        assert len(upstream.connections) == len(scripts)
    finish_end = ENDS[PARTS.index(FINISH_EVENT)] - CRLF_SIZE
    for size, (events, error) in enumerate(found):
        text = text_within(size)
        if size >= finish_end:
            assert (text_of(events), type(events[-1])) == ("Hello, wörld", Completed)
        elif not text:
            assert text_of(events) == "fine"
            assert isinstance(events[-1], Completed)
            assert events[-1].attempt_count == 2
        else:
            assert text_of(events) == text
            assert error is not None
            assert (error.character_count, error.failure.endpoint_name) == (len(text), "a@x")
            (usage,) = [event for event in events if isinstance(event, UsageCounted)]
            assert usage.estimated
            assert usage.usage.output_token_count is not None
            assert usage.usage.output_token_count > 0


async def test_an_answer_that_is_reset_is_whole_or_replaced_or_counted() -> None:
    """A reset may take back what was sent and not read yet: what came is a part of it, from the start on."""
    sizes = range(0, len(WIRE) + 1, RESET_STRIDE)
    scripts = [(ReadRequest(), Send(WIRE[:size]), Reset()) for size in sizes]
    async with ScriptedUpstream(*scripts) as upstream:
        found = await asyncio.wait_for(broken_off(upstream, len(scripts)), PATIENCE_S * 5)
    for size, (events, error) in zip(sizes, found, strict=True):
        text = text_of(events)
        if error is not None:
            assert text
            assert text_within(size).startswith(text)
            assert error.character_count == len(text)
        else:
            assert text in {"fine", "Hello, wörld"}
            assert isinstance(events[-1], Completed)
            assert events[-1].attempt_count == (2 if text == "fine" else 1)


@asynccontextmanager
async def serving(urls: Mapping[str, str], *, models: int = 1, provider_lines: str = "") -> AsyncIterator[Running]:
    """A server over the same models `m0`, `m1`, ... at each of these providers."""
    toml = endpoints({name: [f"m{number}" for number in range(models)] for name in urls}, urls)
    for name in urls:
        toml = toml.replace(f"[providers.{name}]\n", f"[providers.{name}]\n{provider_lines}\n")
    async with running(config_of(toml)) as server:
        yield server


async def told(server: Running, router: str) -> tuple[list[Event], StreamBrokenError | None]:
    """The events of one completion, and how it broke off."""
    events: list[Event] = []
    try:
        async for event in server.client.complete("hi", router=router):
            events.append(event)  # noqa: PERF401 - those before an error count
    except StreamBrokenError as error:
        return events, error
    return events, None


@pytest.mark.parametrize(
    ("end", "cause"),
    [((Reset(),), "disconnected"), ((Close(),), "disconnected"), ((Hang(),), "timeout")],
    ids=["reset", "close", "stall"],
)
async def test_a_break_after_the_first_delta_is_told_with_what_was_sent(end: tuple[Step, ...], cause: str) -> None:
    """Whether the provider resets, closes or falls silent: UNAVAILABLE counts what the caller has, which is what the
    provider sent, and the usage of it was told before. Nobody else is asked."""
    cuts = (1, 2, 3)
    scripts = [(ReadRequest(), *(Send(part) for part in PARTS[: 1 + cut]), *end) for cut in cuts]
    async with ScriptedUpstream(*scripts) as first, ScriptedUpstream(streaming("never")) as second:
        urls = {"first": first.base_url, "second": second.base_url}
        async with serving(urls, models=len(cuts), provider_lines="idle_timeout_s = 0.25") as server:
            for number, cut in enumerate(cuts):
                events, error = await told(server, f"m{number}@first->m{number}@second")
                text = "".join(event.text for event in events if isinstance(event, Delta))
                assert error is not None
                assert error.code is grpc.StatusCode.UNAVAILABLE
                assert (error.character_count, error.cause, error.endpoint) == (len(text), cause, f"m{number}@first")
                assert "".join(PIECES[:cut]).startswith(text)
                if not isinstance(end[0], Reset):
                    assert text == "".join(PIECES[:cut])
                *_, usage, failed = events
                assert isinstance(usage, Usage)
                assert isinstance(failed, AttemptFailed)
                assert usage.estimated
                assert usage.output_token_count > 0
                assert not any(isinstance(event, Done) for event in events)
            for connection in first.connections:
                await asyncio.wait_for(connection.script_done.wait(), PATIENCE_S)
        assert second.connections == []


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ((Reset(),), routing_pb2.ATTEMPT_FAILURE_KIND_DISCONNECTED),
        ((ReadRequest(), Reset()), routing_pb2.ATTEMPT_FAILURE_KIND_DISCONNECTED),
        ((ReadRequest(), Close()), routing_pb2.ATTEMPT_FAILURE_KIND_DISCONNECTED),
        ((ReadRequest(), HalfClose(), Hang()), routing_pb2.ATTEMPT_FAILURE_KIND_DISCONNECTED),
        ((ReadRequest(), Send(stream_head()), Close()), routing_pb2.ATTEMPT_FAILURE_KIND_DISCONNECTED),
        ((ReadRequest(), Send(b"\x16\x03\x01 what is this?"), Hang()), routing_pb2.ATTEMPT_FAILURE_KIND_PROTOCOL),
        ((ReadRequest(), Send(stream_head()), Hang()), routing_pb2.ATTEMPT_FAILURE_KIND_TIMEOUT),
        (refusing(502), routing_pb2.ATTEMPT_FAILURE_KIND_SERVER_ERROR),
    ],
    ids=["reset", "reset-later", "close", "half-close", "head-alone", "no-http", "silence", "502"],
)
async def test_the_next_candidate_answers_after_any_failure_of_http(
    script: Script, kind: routing_pb2.AttemptFailureKind.ValueType
) -> None:
    """Before the first delta nothing of it is seen but an event that tells the kind."""
    async with ScriptedUpstream(script) as first, ScriptedUpstream(streaming("fine")) as second:
        urls = {"first": first.base_url, "second": second.base_url}
        async with serving(urls, provider_lines="idle_timeout_s = 0.25") as server:
            await check_served_by_second(server, kind)


async def check_served_by_second(server: Running, kind: routing_pb2.AttemptFailureKind.ValueType) -> None:
    """One attempt fails, of that kind; the second one answers in full. What a provider was asked that fell silent counts."""
    events, error = await told(server, "m0@first->m0@second")
    assert error is None
    asked = [event for event in events[:4] if isinstance(event, Usage)]
    assert [(usage.estimated, usage.output_token_count) for usage in asked] == (
        [(True, 0)] if kind == routing_pb2.ATTEMPT_FAILURE_KIND_TIMEOUT else []
    )
    rest = [event for event in events if event not in asked]
    assert [type(event) for event in rest] == [
        Decision, AttemptStarted, AttemptFailed, AttemptStarted, Delta, Usage, Done,
    ]  # fmt: skip
    failed, delta = rest[2], rest[4]
    assert isinstance(failed, AttemptFailed)
    assert (failed.endpoint, failed.kind) == ("m0@first", kind)
    assert isinstance(delta, Delta)
    assert delta.text == "fine"


@pytest.mark.parametrize(
    ("script", "has_certificate"),
    [
        ((Hang(),), True),
        ((ReadAnything(), Send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Hang()), False),
        ((ReadAnything(), Reset()), False),
        ((ReadAnything(), Close()), False),
        ((Hang(),), False),
    ],
    ids=["nobody-vouches", "no-tls", "reset-in-handshake", "close-in-handshake", "silent-in-handshake"],
)
async def test_the_next_candidate_answers_where_tls_fails(script: Script, *, has_certificate: bool) -> None:
    """A certificate that no authority vouches for, or a handshake that goes wrong, is no connection; no request is sent."""
    identity = None
    if has_certificate:
        identity = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        identity.load_cert_chain(CERTIFICATE)
    async with (
        ScriptedUpstream(script, tls=identity) as first,
        ScriptedUpstream(streaming("fine")) as second,
    ):
        urls = {"first": f"https://localhost:{first.port}/v1", "second": second.base_url}
        async with serving(urls, provider_lines="connect_timeout_s = 0.5") as server:
            await check_served_by_second(server, routing_pb2.ATTEMPT_FAILURE_KIND_CONNECT)
        assert [connection.requests for connection in first.connections if connection.requests] == []


async def test_the_next_candidate_answers_where_there_is_no_connection() -> None:
    """A port that is deaf until the connect timeout, and a host without an address."""
    with DeafPort() as deaf:
        for url in (deaf.base_url, f"http://{UNKNOWN_HOST}/v1"):
            async with ScriptedUpstream(streaming("fine")) as second:
                urls = {"first": url, "second": second.base_url}
                async with serving(urls, provider_lines="connect_timeout_s = 0.5") as server:
                    await check_served_by_second(server, routing_pb2.ATTEMPT_FAILURE_KIND_CONNECT)


async def stands_still(server: Running, connection: ScriptedConnection) -> int:
    """How many bytes the connection has been able to send, once that does not change while the server answers calls."""
    quiet_count, taken = 0, -1
    while quiet_count < 50:
        await server.client.list_endpoints()
        quiet_count = quiet_count + 1 if connection.taken_byte_count == taken else 0
        taken = connection.taken_byte_count
    return taken


async def test_a_caller_who_does_not_read_stops_the_provider(caplog: pytest.LogCaptureFixture) -> None:
    """Of 64 MB only as much is taken as the buffers on the way hold; what waits meanwhile comes together, and nothing of
    it is lost. When the caller leaves in the middle the provider's connection is closed, which is no bug to be logged."""
    piece = "0123456789abcdef" * 512
    count = 64 * 1024 * 1024 // len(piece)
    sends = [Send(delta_event(piece)) for _ in range(count)]
    async with (
        ScriptedUpstream((ReadRequest(), Send(stream_head()), *sends, Send(END))) as upstream,
        serving({"first": upstream.base_url}) as server,
    ):
        call = server.stub.Complete(CompleteRequest(conversation=conversation("hi")), timeout=PATIENCE_S * 3)
        connection = await upstream.connection(0)
        taken = await asyncio.wait_for(stands_still(server, connection), PATIENCE_S)
        assert taken < 32 * 1024 * 1024
        text, delta_count = "", 0
        while len(text) < taken:
            response = await call.read()
            assert isinstance(response, CompleteResponse)
            delta_count += bool(response.delta.text)
            text += response.delta.text
        assert text == piece * (len(text) // len(piece)), "in order, nothing lost"
        assert delta_count < len(text) // len(piece) / 2, "what waited came together"
        await asyncio.wait_for(stands_still(server, connection), PATIENCE_S)
        call.cancel()
        await asyncio.wait_for(connection.client_closed.wait(), PATIENCE_S)
    assert [record.getMessage() for record in caplog.records if "error_id" in record.getMessage()] == []


async def test_with_too_little_time_no_provider_is_called() -> None:
    """5 ms before the deadline no connection is opened any more."""
    async with ScriptedUpstream(streaming("late")) as upstream:
        async with serving({"first": upstream.base_url}) as server:
            with pytest.raises(DeadlineExceededError):
                await server.client.complete_text("hi", router="m0@first", timeout_s=0.005)
            # The server has dealt with it when it answers a later call.
            await server.client.list_endpoints()
        assert upstream.connections == []


def held() -> Counter[str]:
    """How many objects there are of each class of the server and of its HTTP parser, once garbage is collected, and how
    many tasks; what the scripted provider keeps of its connections is none of them."""
    gc.collect()
    # Of a class that defines `__module__` as a property it is no text.
    names = [f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects()]
    ours = Counter(
        name for name in names if name.startswith(("pointsman_server.", "h11.")) and ".scripted." not in name
    )
    return ours + Counter(tasks=len(asyncio.all_tasks()))


async def cancel_streams(server: Running, upstream: ScriptedUpstream, count: int) -> None:
    """So many streams that are cancelled in their middle, each until the provider has seen its connection closed."""
    for _ in range(count):
        number = len(upstream.connections)
        async with asyncio.timeout(PATIENCE_S):
            call = server.stub.Complete(CompleteRequest(conversation=conversation("hi")))
            async for response in call:
                if response.HasField("delta"):
                    break
            call.cancel()
            await (await upstream.connection(number)).client_closed.wait()


async def test_a_cancelled_stream_leaves_nothing_behind() -> None:
    """Sixty more of them add no object to any class of the server for each; a few may wait to be exported."""
    script = (ReadRequest(), Send(stream_head()), Send(delta_event("on and on")), Hang())
    async with ScriptedUpstream(script) as upstream:
        toml = endpoints({"first": ["m0"]}, {"first": upstream.base_url})
        async with running(config_of(toml, server="decision_memory_count = 1")) as server:
            await cancel_streams(server, upstream, 10)
            before = held()
            await cancel_streams(server, upstream, 60)
            more = held() - before
    assert {kind: count for kind, count in more.items() if count >= 30} == {}
