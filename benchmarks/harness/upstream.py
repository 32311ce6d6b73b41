"""A provider whose answers are ready as bytes: it speaks OpenAI's protocol and costs next to nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import cast

import uvloop
from pointsman_server.providers.scripted import CONTENT_LENGTH, HEAD_END, LAST_CHUNK, event, stream_head, whole_answer

from benchmarks.harness.cases import Case
from benchmarks.harness.children import until_closed
from benchmarks.harness.workload import ANSWER, PIECES

PACE_S = 0.001
"""Between two chunks of a paced answer: a thousand tokens per second, faster than any provider of today."""
USAGE = {"prompt_tokens": 250, "completion_tokens": len(PIECES), "total_tokens": 250 + len(PIECES)}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: its writes in order, `PACE_S` apart."""

    marker: bytes
    """What a request for it holds."""
    writes: tuple[bytes, ...]


def _chunk(choices: list[object], usage: object = None) -> bytes:
    """One event, with the fields that OpenAI sends."""
    envelope = {
        "id": "chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "benchmark-model",
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
        "choices": choices,
        "usage": usage,
    }
    return event(json.dumps(envelope, separators=(",", ":")))


def _delta(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    return _chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}])


def _streamed(pieces: Sequence[str]) -> tuple[bytes, ...]:
    """One write for each piece; the head goes with the first, the end with the last."""
    writes = [_delta({"content": piece}) for piece in pieces]
    writes[0] = stream_head() + _delta({"role": "assistant", "content": ""}) + writes[0]
    writes[-1] += _delta({}, "stop") + _chunk([], USAGE) + event("[DONE]") + LAST_CHUNK
    return tuple(writes)


def _whole() -> bytes:
    message = {"role": "assistant", "content": ANSWER, "refusal": None}
    return whole_answer(
        json.dumps(
            {
                "id": "chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012",
                "object": "chat.completion",
                "created": 1700000000,
                "model": "benchmark-model",
                "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
                "usage": USAGE,
            }
        )
    )


def answers() -> tuple[Answer, ...]:
    """What each case is answered."""
    paced = _streamed(PIECES)
    burst = (b"".join(paced),)
    by_case = {
        Case.COMPLETE_1: _streamed((ANSWER,)),
        Case.COMPLETE_50_BURST: burst,
        Case.COMPLETE_50_PACED: paced,
        Case.HTTPX_WHOLE: (_whole(),),
        Case.HTTPX_50_BURST: burst,
        Case.HTTPX_50_PACED: paced,
    }
    return tuple(Answer(f"[{case.value}]".encode(), writes) for case, writes in by_case.items())


class _Connection(asyncio.Protocol):
    """One connection: reads a request, writes its answer, and so on."""

    def __init__(self, known: tuple[Answer, ...]) -> None:
        self._known = known
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # By shape: uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()

    def data_received(self, received: bytes) -> None:
        self._received += received
        head, end, body = self._received.partition(HEAD_END)
        length = CONTENT_LENGTH.search(head + end)
        if end and length is not None and len(body) >= int(length[1]):
            self._received = b""
            self._write(next(answer for answer in self._known if answer.marker in body).writes, 0)

    def _write(self, writes: tuple[bytes, ...], index: int) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(writes[index])
        if index + 1 < len(writes):
            self._loop.call_later(PACE_S, self._write, writes, index + 1)


def serve_upstream(pipe: Connection) -> None:
    """A child: tells its port, and serves until the pipe closes."""
    uvloop.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    known = answers()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(known), "127.0.0.1", 0)
    async with server:
        pipe.send(server.sockets[0].getsockname()[1])
        await until_closed(pipe)
