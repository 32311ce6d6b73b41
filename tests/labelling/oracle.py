"""A provider on loopback that answers by what it is asked, and remembers every question."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from pointsman_server.providers.scripted import whole_answer

USAGE = {"prompt_tokens": 100, "completion_tokens": 10}
"""What every answer of the oracle has used."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request, as the provider sees it."""

    model: str
    texts: tuple[str, ...]
    """Of its messages."""
    body: dict[str, Any] = field(repr=False)

    @property
    def prompt(self) -> str:
        """The last message."""
        return self.texts[-1]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the oracle says."""

    text: str = ""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    usage: dict[str, int] | None = field(default_factory=lambda: USAGE)

    def encoded(self) -> bytes:
        """As HTTP, whole."""
        if self.status != 200:
            return whole_answer('{"error": {"code": "refused"}}', status=self.status, headers=self.headers)
        message = {"role": "assistant", "content": self.text}
        content: dict[str, Any] = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        if self.usage is not None:
            content["usage"] = self.usage
        return whole_answer(json.dumps(content))


Answer = Callable[[Question], Reply | None]
"""None lets the question hang until its client leaves."""


class Oracle:
    """The server, from `async with` to its end. Any key and any model will do."""

    def __init__(self, answer: Answer) -> None:
        self.questions: list[Question] = []
        self.in_flight_count = 0
        self.in_flight_count_max = 0
        """The most that were under way at one time."""
        self._answer = answer
        self._arrived = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks)

    @property
    def base_url(self) -> str:
        """What a provider's settings name."""
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """How often each model was asked each prompt."""
        return Counter((question.model, question.prompt) for question in self.questions)

    async def asked(self, count: int) -> None:
        """Waits until so many questions have come."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.questions) >= count)

    async def asked_of(self, model: str, count: int) -> None:
        """Waits until a model has been asked so many questions."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: sum(question.model == model for question in self.questions) >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._reply(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def _reply(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        body = json.loads(await reader.readexactly(int(length)))
        question = Question(body["model"], tuple(message["content"] for message in body["messages"]), body)
        self.in_flight_count += 1
        self.in_flight_count_max = max(self.in_flight_count_max, self.in_flight_count)
        async with self._arrived:
            self.questions.append(question)
            self._arrived.notify_all()
        reply = self._answer(question)
        if reply is None:
            await reader.read()
            self.in_flight_count -= 1
            return
        # A turn of the loop, so that questions that are under way together are seen together.
        await asyncio.sleep(0)
        # Before the answer: its client may ask again as soon as it has it.
        self.in_flight_count -= 1
        writer.write(reply.encoded())
        await writer.drain()
