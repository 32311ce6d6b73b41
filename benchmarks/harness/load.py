"""The callers: a child that makes the requests of a case when it is told to, and says how long each took."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection

import grpc
import httpx
import pointsman
import uvloop
from pointsman.chat import conversation
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest
from pointsman.v1.router_service_pb2_grpc import RouterServiceStub
from pointsman.v1.routing_pb2 import Routing

from benchmarks.harness.cases import Case
from benchmarks.harness.servers import BARE_SERVICE
from benchmarks.harness.workload import (
    ANSWER,
    CHUNK_COUNT,
    ECHO_BYTES,
    ENDPOINT_COUNT,
    PROMPT_COUNT,
    UPSTREAM_PATH,
    marked,
    prompts,
    upstream_request,
)

TIMEOUT_S = 30.0
"""Deadline of each request, also of the bare ones: real callers set one, and it costs a little."""
OUTCOME_COUNT = 5
"""Reported for each endpoint before a round, so that every decision sees runtime data of every endpoint."""

COMPLETES = (Case.COMPLETE_1, Case.COMPLETE_50_BURST, Case.COMPLETE_50_PACED)
DIRECTS = (Case.HTTPX_WHOLE, Case.HTTPX_50_BURST, Case.HTTPX_50_PACED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the servers listen, on 127.0.0.1."""

    bare: int
    bare_uvloop: int
    router: int
    upstream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """So many callers that make one request after the other, until a limit is reached."""

    case: Case
    concurrency: int
    count_max: int
    seconds_max: float


class WrongAnswerError(Exception):
    """An answer was not what the case expects, so its cost would mean nothing."""


class Callers:
    """The connections, and one function for each case: given a number, it makes that request and checks the answer.

    Requests are built beforehand and answers are read raw, as far as the protocol allows, so that the latency is the
    servers'.
    """

    def __init__(self, ports: Ports, *, seed: int, stack: AsyncExitStack) -> None:
        self._ports = ports
        self._stack = stack
        self._prompts = prompts(seed)
        self._echoed = bytes(ECHO_BYTES)
        self._seed = seed
        self.calls: dict[Case, Callable[[int], Awaitable[None]]] = {}

    async def connect(self) -> None:
        """Opens everything and fills `calls`."""
        bare = await self._stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{self._ports.bare}"))
        router = await self._stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{self._ports.router}"))
        self._http = await self._stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._ports.upstream}", timeout=TIMEOUT_S, trust_env=False)
        )
        on_uvloop = await self._stack.enter_async_context(
            grpc.aio.insecure_channel(f"127.0.0.1:{self._ports.bare_uvloop}")
        )
        self._stub = RouterServiceStub(router)
        self.calls[Case.ECHO] = self._echo_call(bare)
        self.calls[Case.ECHO_UVLOOP] = self._echo_call(on_uvloop)
        self.calls[Case.STREAM] = self._stream_call(bare, "Stream")
        self.calls[Case.STREAM_UVLOOP] = self._stream_call(on_uvloop, "Stream")
        self.calls[Case.STREAM_PACED] = self._stream_call(bare, "StreamPaced")
        self.calls[Case.STREAM_PACED_UVLOOP] = self._stream_call(on_uvloop, "StreamPaced")
        self.calls[Case.ROUTE] = self._route_call()
        for case in COMPLETES:
            self.calls[case] = self._complete_call(case)
        for case in DIRECTS:
            self.calls[case] = self._whole_call() if case is Case.HTTPX_WHOLE else self._events_call(case)

    def _echo_call(self, bare: grpc.aio.Channel) -> Callable[[int], Awaitable[None]]:
        echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = bare.unary_unary(f"/{BARE_SERVICE}/Echo", None, None)

        async def call(_number: int) -> None:
            _expect(await echo(self._echoed, timeout=TIMEOUT_S), self._echoed)

        return call

    def _stream_call(self, bare: grpc.aio.Channel, method: str) -> Callable[[int], Awaitable[None]]:
        stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = bare.unary_stream(
            f"/{BARE_SERVICE}/{method}", None, None
        )

        async def call(_number: int) -> None:
            _expect(len([None async for _ in stream(self._echoed, timeout=TIMEOUT_S)]), CHUNK_COUNT)

        return call

    def _routing(self, index: int) -> Routing:
        """The draw among near-ties is fixed, so that every run decides alike as far as latencies allow."""
        return Routing(seed=self._seed + index)

    def _route_call(self) -> Callable[[int], Awaitable[None]]:
        requests = [
            RouteRequest(conversation=conversation(prompt), routing=self._routing(index))
            for index, prompt in enumerate(self._prompts)
        ]

        async def call(number: int) -> None:
            response = await self._stub.Route(requests[number % PROMPT_COUNT], timeout=TIMEOUT_S)
            _expect(len(response.decision.candidates), ENDPOINT_COUNT)

        return call

    def _complete_call(self, case: Case) -> Callable[[int], Awaitable[None]]:
        requests = [
            CompleteRequest(conversation=conversation(marked(prompt, case)), routing=self._routing(index))
            for index, prompt in enumerate(self._prompts)
        ]

        async def call(number: int) -> None:
            character_count = 0
            event = None
            async for event in self._stub.Complete(requests[number % PROMPT_COUNT], timeout=TIMEOUT_S):
                character_count += len(event.delta.text)
            _expect(character_count, len(ANSWER))
            _expect(event is not None and event.done.attempt_count, 1)

        return call

    def _whole_call(self) -> Callable[[int], Awaitable[None]]:
        requests = [upstream_request(marked(prompt, Case.HTTPX_WHOLE), streamed=False) for prompt in self._prompts]

        async def call(number: int) -> None:
            response = await self._http.post(UPSTREAM_PATH, content=requests[number % PROMPT_COUNT])
            _expect(response.json()["choices"][0]["message"]["content"], ANSWER)

        return call

    def _events_call(self, case: Case) -> Callable[[int], Awaitable[None]]:
        requests = [upstream_request(marked(prompt, case), streamed=True) for prompt in self._prompts]

        async def call(number: int) -> None:
            text = ""
            async with self._http.stream("POST", UPSTREAM_PATH, content=requests[number % PROMPT_COUNT]) as response:
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        for choice in json.loads(line[6:])["choices"]:
                            text += choice["delta"].get("content", "")
            _expect(text, ANSWER)

        return call

    async def report(self) -> None:
        """Tells the router how fast each endpoint is, each a little different."""
        async with pointsman.AsyncClient(f"127.0.0.1:{self._ports.router}") as client:
            decision = await client.route(self._prompts[0])
            outcomes = [
                pointsman.outcome(
                    decision.id,
                    endpoint=candidate.endpoint,
                    ttft_s=0.2 + 0.01 * index + 0.02 * number,
                    duration_s=2.0 + 0.1 * index + 0.2 * number,
                    output_token_count=100,
                )
                for index, candidate in enumerate(sorted(decision.candidates, key=lambda item: item.endpoint))
                for number in range(OUTCOME_COUNT)
            ]
            _expect((await client.report_outcomes(outcomes)).accepted_count, len(outcomes))


def _expect(actual: object, expected: object) -> None:
    if actual != expected:
        raise WrongAnswerError(f"expected {expected!r:.200}, got {actual!r:.200}")


async def carried_out(call: Callable[[int], Awaitable[None]], order: Order) -> list[float]:
    """The latencies in seconds of the requests that the order asked for."""
    latencies_s: list[float] = []
    numbers = iter(range(order.count_max))
    end_s = time.perf_counter() + order.seconds_max

    async def caller() -> None:
        for number in numbers:
            started_s = time.perf_counter()
            await call(number)
            ended_s = time.perf_counter()
            latencies_s.append(ended_s - started_s)
            if ended_s > end_s:
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(order.concurrency):
            group.create_task(caller())
    return latencies_s


def serve_load(pipe: Connection, ports: Ports, seed: int) -> None:
    """A child: for each order that the pipe brings, tells the latencies; for None, reports outcomes to the router."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stack = AsyncExitStack()
        callers = Callers(ports, seed=seed, stack=stack)
        runner.run(callers.connect())
        while True:
            try:
                order: Order | None = pipe.recv()
            except EOFError:
                break
            if order is None:
                pipe.send(runner.run(callers.report()))
            else:
                pipe.send(runner.run(carried_out(callers.calls[order.case], order)))
        runner.run(stack.aclose())
