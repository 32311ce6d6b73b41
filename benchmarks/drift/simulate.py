"""One run: the requests of a scene, served by one policy in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from random import Random
from statistics import fmean

from pointsman_server.errors import UpstreamError, UpstreamErrorKind
from pointsman_server.providers.base import IDLE_TIMEOUT_S

from benchmarks.drift.arrivals import Request
from benchmarks.drift.loop import run_virtually
from benchmarks.drift.oracle import Oracle
from benchmarks.drift.policies import BASELINES, Ended, Policy, StaticBest
from benchmarks.drift.shipped import SHIPPED, ShippedRouter
from benchmarks.drift.truth import ERROR_PRICE_S, expected_s
from benchmarks.drift.weathers import WARM_UP_S, Scene
from benchmarks.drift.world import CallStarted, Upstream

ORACLE = "oracle"
POLICIES = (SHIPPED, *BASELINES, ORACLE)
LOAD_SAMPLE_S = 0.5


@dataclass(frozen=True, slots=True)
class Served:
    """What became of one request."""

    number: int
    arrival_s: float
    ttft_s: float | None
    duration_s: float
    failed: bool
    broke: bool
    endpoint_index: int | None
    """Where the answer came from; None where that is not known or there was none."""
    token_count: int

    @property
    def cost_s(self) -> float:
        """Seconds to the last token; an error costs the time it took and its price."""
        return self.duration_s + (ERROR_PRICE_S if self.failed else 0.0)


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that figures are read off."""

    policy: str
    scene: Scene
    served: tuple[Served, ...]
    """By number of the request."""
    calls: tuple[CallStarted, ...]
    loads: tuple[float, ...]
    """Calls under way over capacity, of every endpoint, every half second while judged requests come."""
    limited_count: int
    """Calls that were answered with 429, the warm-up's included."""
    probe_token_share: float

    @property
    def judged(self) -> tuple[Served, ...]:
        """What came after the warm-up."""
        return tuple(one for one in self.served if one.arrival_s >= WARM_UP_S)

    @property
    def mean_cost_s(self) -> float:
        """Of the judged requests."""
        return fmean(one.cost_s for one in self.judged)

    @property
    def cold_cost_s(self) -> float:
        """The mean of the others: of the first minute, when nothing is known."""
        return fmean(one.cost_s for one in self.served if one.arrival_s < WARM_UP_S)


def run(policy: str, scene: Scene, requests: Sequence[Request], *, seed: int) -> Run:
    """Serves all requests by one policy. Equal arguments give equal runs, to the last bit."""
    return run_virtually(_run(policy, scene, requests, seed=seed))


async def _run(policy: str, scene: Scene, requests: Sequence[Request], *, seed: int) -> Run:
    upstream = Upstream(scene.sites, requests, seed=seed)
    serve = _server(policy, scene, upstream, seed=seed)
    loads: list[float] = []
    sampling = asyncio.create_task(_sample(upstream, loads))
    tasks: list[asyncio.Task[Served]] = []
    for request in requests:
        await asyncio.sleep(request.arrival_s - upstream.clock_s())
        tasks.append(asyncio.create_task(serve(request)))
    sampling.cancel()
    served = await asyncio.gather(*tasks)
    return Run(
        policy,
        scene,
        tuple(served),
        tuple(upstream.calls),
        tuple(loads),
        limited_count=sum(live.limited_count for live in upstream.live),
        probe_token_share=upstream.probe_token_count / max(1, upstream.token_count),
    )


async def _sample(upstream: Upstream, loads: list[float]) -> None:
    await asyncio.sleep(WARM_UP_S)
    while True:
        await asyncio.sleep(LOAD_SAMPLE_S)
        loads += [live.in_flight_count / live.site.knee_count for live in upstream.live]


def _server(
    policy: str, scene: Scene, upstream: Upstream, *, seed: int
) -> Callable[[Request], Coroutine[None, None, Served]]:
    """How the policy serves a request: each replica of the gateway gets its share of them, and knows of those alone."""
    if policy == ORACLE:
        oracle = Oracle(upstream)
        return lambda request: serve_with_oracle(oracle, upstream, request)
    count = scene.replica_count
    if policy == SHIPPED:
        routers = [ShippedRouter(upstream, seed=seed * 1000 + replica, replica_count=count) for replica in range(count)]
        return lambda request: _serve_shipped(routers[request.number % count], upstream, request)
    replicas = [_baseline(policy, scene, upstream.requests, Random(f"{seed}/{replica}")) for replica in range(count)]
    return lambda request: serve_with_policy(replicas[request.number % count], upstream, request)


def _baseline(policy: str, scene: Scene, requests: Sequence[Request], random: Random) -> Policy:
    kind = BASELINES[policy]
    if issubclass(kind, StaticBest):
        return kind(scene.sites, random, ranking=hindsight(scene, requests))
    return kind(scene.sites, random)


def hindsight(scene: Scene, requests: Sequence[Request]) -> list[int]:
    """Indices of the endpoints by what all requests would have cost there, each alone with it, the best first."""
    cap_s = IDLE_TIMEOUT_S + ERROR_PRICE_S

    def total_s(index: int) -> float:
        return sum(
            min(cap_s, expected_s(scene.sites[index], one.input_token_count, one.output_token_count, one.arrival_s))
            for one in requests
        )

    return sorted(range(len(scene.sites)), key=total_s)


async def _serve_shipped(router: ShippedRouter, upstream: Upstream, request: Request) -> Served:
    arrived_s = upstream.clock_s()
    answered = await router.serve(request)
    duration_s = upstream.clock_s() - arrived_s
    return _served(request, answered.ttft_s, duration_s, failed=answered.failed, broke=answered.broke, endpoint=None)


def _served(
    request: Request, ttft_s: float | None, duration_s: float, *, failed: bool, broke: bool, endpoint: int | None
) -> Served:
    return Served(
        request.number, request.arrival_s, ttft_s, duration_s, failed, broke, endpoint, request.output_token_count
    )


async def serve_with_policy(policy: Policy, upstream: Upstream, request: Request) -> Served:
    """Tries as often as the policy's original does, as long as nothing has been shown to the user."""
    arrived_s, tried = upstream.clock_s(), list[int]()
    for _ in range(policy.try_count_max):
        started_s = upstream.clock_s()
        index = policy.choose(request, started_s, tried=tried)
        tried.append(index)
        policy.started(index, started_s)
        ttft_s, token_count, failure = None, 0, None
        try:
            async with aclosing(upstream.live[index].answer(request)) as answer:
                async for count in answer:
                    if ttft_s is None:
                        ttft_s = upstream.clock_s() - started_s
                    token_count += count
        except UpstreamError as error:
            failure = error.kind
        now_s = upstream.clock_s()
        policy.ended(index, Ended(request, now_s - started_s, ttft_s, token_count, failure), now_s)
        if failure is None or ttft_s is not None:
            since_arrival_s = None if ttft_s is None else started_s - arrived_s + ttft_s
            failed = failure is not None
            return _served(request, since_arrival_s, now_s - arrived_s, failed=failed, broke=failed, endpoint=index)
    return _served(request, None, upstream.clock_s() - arrived_s, failed=True, broke=False, endpoint=None)


async def serve_with_oracle(oracle: Oracle, upstream: Upstream, request: Request) -> Served:
    """Calls where the oracle says, a second time elsewhere when the first token is late, and again after a failure."""
    oracle.earn()
    arrived_s, tried = upstream.clock_s(), set[int]()
    for _ in range(len(upstream.live)):
        now_s = upstream.clock_s()
        index = oracle.choose(request, now_s, tried=tried)
        tried.add(index)
        call = _OracleCall(oracle, upstream, request, index)
        winner = await _first_of(oracle, upstream, request, call, tried)
        if winner is None:
            continue
        ttft_s = upstream.clock_s() - arrived_s
        failure = await winner.finish()
        duration_s = upstream.clock_s() - arrived_s
        if failure is UpstreamErrorKind.TIMEOUT:
            # It knows at once that nothing more will come.
            duration_s -= IDLE_TIMEOUT_S
        failed = failure is not None
        return _served(request, ttft_s, duration_s, failed=failed, broke=failed, endpoint=winner.index)
    return _served(request, None, upstream.clock_s() - arrived_s, failed=True, broke=False, endpoint=None)


class _OracleCall:
    """One call of the oracle's: `begun` is done with the first token or the failure."""

    def __init__(self, oracle: Oracle, upstream: Upstream, request: Request, index: int) -> None:
        self.index = index
        self.started_s = upstream.clock_s()
        self._oracle, self._request = oracle, request
        oracle.started(index, request, self.started_s)
        self._answer = upstream.live[index].answer(request)
        self.begun = asyncio.create_task(self._begin())

    async def _begin(self) -> bool:
        try:
            await anext(self._answer)
        except UpstreamError:
            self._oracle.ended(self.index, self._request)
            return False
        return True

    async def finish(self) -> UpstreamErrorKind | None:
        """The rest of the answer; how it failed, if it did."""
        try:
            async with aclosing(self._answer) as answer:
                async for _ in answer:
                    pass
        except UpstreamError as error:
            return error.kind
        finally:
            self._oracle.ended(self.index, self._request)
        return None

    async def drop(self) -> None:
        """Ends it, whatever it is doing."""
        self.begun.cancel()
        await asyncio.wait([self.begun])
        await self._answer.aclose()
        self._oracle.ended(self.index, self._request)


async def _first_of(
    oracle: Oracle, upstream: Upstream, request: Request, call: _OracleCall, tried: set[int]
) -> _OracleCall | None:
    """The call whose first token comes first, of this one and, if it is late, a second one; None if none comes."""
    late_s = oracle.hedge_after_s(call.index, request, call.started_s)
    await asyncio.wait([call.begun], timeout=late_s)
    calls = [call]
    if not call.begun.done():
        index = oracle.hedge(call.index, request, upstream.clock_s(), waited_s=late_s, tried=tried)
        if index is not None:
            tried.add(index)
            calls.append(_OracleCall(oracle, upstream, request, index))
    waiting = list(calls)
    while waiting:
        await asyncio.wait([one.begun for one in waiting], return_when=asyncio.FIRST_COMPLETED)
        for one in [one for one in waiting if one.begun.done()]:
            waiting.remove(one)
            if one.begun.result():
                for other in waiting:
                    await other.drop()
                return one
    return None
