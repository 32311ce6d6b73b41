"""Providers that send what no provider should: the caller gets a typed error, and the server stays as it was."""

from __future__ import annotations

import gzip
import itertools
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from e2e.harness import Running, config_of, running
from pointsman import AttemptsExhaustedError
from pointsman_server.providers.scripted import (
    LAST_CHUNK,
    Close,
    ReadRequest,
    Script,
    ScriptedUpstream,
    Send,
    chunk,
    stream_head,
    whole_answer,
)

KEY = "sk-never-to-be-seen"
ADAPTERS = {"openai_compatible": "authorization", "anthropic": "x-api-key", "gemini": "x-goog-api-key"}
"""With the header that carries the key."""


@asynccontextmanager
async def serving(adapter: str, *scripts: Script) -> AsyncIterator[tuple[Running, ScriptedUpstream]]:
    """A server whose only endpoint is at one provider that plays these scripts."""
    async with ScriptedUpstream(*scripts) as upstream:
        toml = f"""
            [providers.only]
            adapter = "{adapter}"
            base_url = "{upstream.base_url}"
            api_key_env = "KEY"
            [[endpoints]]
            model = "m"
            provider = "only"
            output_token_count_max = 100
        """
        async with running(config_of(toml, {"KEY": KEY})) as server:
            yield server, upstream


async def failure_of(server: Running) -> str:
    """Why a completion failed."""
    with pytest.raises(AttemptsExhaustedError) as raised:
        await server.client.complete_text("hi", router="m@only")
    return str(raised.value)


def streaming(*bodies: bytes) -> Script:
    """Answers one request with a stream of these pieces."""
    return (ReadRequest(), Send(stream_head()), *(Send(chunk(body)) for body in bodies), Send(LAST_CHUNK), Close())


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_64_mb_event_is_refused_at_1_mib_without_growing(adapter: str) -> None:
    """The rest of it is never read: the connection is closed, and at most 4 MB were used."""
    piece = chunk(b"x" * 65_536)
    endless: Script = (ReadRequest(), Send(stream_head() + chunk(b"data: ")), *itertools.repeat(Send(piece), 1024))
    async with serving(adapter, endless) as (server, upstream):
        tracemalloc.start()
        try:
            failure = await failure_of(server)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert "an event of more than 1048576 bytes" in failure
        assert peak < 4_000_000
        await upstream.connections[0].client_closed.wait()


BOMBS = {
    "nested arrays": b"[" * 900_000,
    "nested objects": b'{"a":' * 180_000,
    "a number of a million digits": b'{"usage":{"prompt_tokens":' + b"9" * 1_000_000 + b"}}",
    "a number beyond floats": b'{"choices":1e999999,"candidates":1e999999,"type":1e999999}',
    "not a number": b'{"usage":{"prompt_tokens":NaN},"usageMetadata":{"promptTokenCount":NaN}}',
    "a key a hundred thousand times": b'{"error":{' + b",".join([b'"a":0'] * 100_000) + b"}}",
    "half an escape": b'{"a":"\\ud8',
    "no JSON": b"<html>",
    "nothing": b"",
}


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", BOMBS)
async def test_a_json_bomb_is_a_typed_error(adapter: str, name: str) -> None:
    """Whatever is sent in place of an event or an answer, the attempt fails, and the server serves the next request."""
    stream = streaming(b"data: " + BOMBS[name] + b"\n\n")
    whole = (ReadRequest(), Send(whole_answer(BOMBS[name].decode())), Close())
    async with serving(adapter, stream, whole) as (server, _):
        for _ in range(2):
            failure = await failure_of(server)
            assert "the provider" in failure
            assert "internal" not in failure


HELLO = {
    "openai_compatible": b'{"choices":[{"delta":{"content":"a\xff\xe2\x82b"},"finish_reason":"stop"}]}',
    "anthropic": (
        b'{"type":"content_block_start","content_block":{"type":"text","text":"a\xff\xe2\x82b"}}\n\n'
        b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}'
    ),
    "gemini": b'{"candidates":[{"content":{"parts":[{"text":"a\xff\xe2\x82b"}]},"finishReason":"STOP"}]}',
}


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_broken_utf8_becomes_replacement_characters(adapter: str) -> None:
    """One byte that is none, and a character that is cut off, are told as such; the answer goes on."""
    async with serving(adapter, streaming(b"data: " + HELLO[adapter] + b"\n\n")) as (server, _):
        answer = await server.client.complete_text("hi", router="m@only")
    assert answer.text == "a\ufffd\ufffdb"


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_the_key_never_follows_a_redirect(adapter: str, status: int) -> None:
    """It goes to the provider's own host alone: where another is named, nobody calls."""
    async with ScriptedUpstream((ReadRequest(),)) as elsewhere:
        moved = whole_answer("{}", status=status, headers=(("location", f"{elsewhere.base_url}/steal"),))
        async with serving(adapter, (ReadRequest(), Send(moved), Close())) as (server, upstream):
            failure = await failure_of(server)
        assert f"HTTP {status} in place of an answer" in failure
        assert KEY not in failure
        (request,) = upstream.connections[0].requests
        assert f"\r\n{ADAPTERS[adapter]}: " in request.head.decode()
        assert elsewhere.connections == []


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("status", [200, 500])
async def test_a_gzip_bomb_is_never_unpacked(adapter: str, status: int) -> None:
    """Nothing was asked to be compressed, so an answer that is is refused, and of an error nothing is read."""
    bomb = gzip.compress(b" " * 32_000_000)
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n"
    answer = head.encode() + b"content-length: %d\r\n\r\n" % len(bomb) + bomb
    async with serving(adapter, (ReadRequest(), Send(answer), Close())) as (server, upstream):
        tracemalloc.start()
        try:
            failure = await failure_of(server)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert ("compressed its answer unasked" if status == 200 else "HTTP 500") in failure
        assert peak < 4_000_000
        assert b"accept-encoding: identity\r\n" in upstream.connections[0].requests[0].head
