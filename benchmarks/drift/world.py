"""The simulated upstream: endpoints that answer, slow down under load, refuse, fail, hang and break off.

Draws depend on seed, endpoint, request and how often that request has called there, and on nothing else: two policies
that send the same request to the same endpoint at the same load get the same answer, so what differs is theirs.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

from pointsman_server.chat import Finished, FinishReason, TextDelta, UpstreamEvent, Usage, UsageReported, prompt_text
from pointsman_server.errors import UpstreamDisconnectedError, UpstreamStatusError, UpstreamTimeoutError
from pointsman_server.providers.base import IDLE_TIMEOUT_S, UpstreamCall
from pointsman_server.providers.weather import Draws, OutageKind, outage_at

from benchmarks.drift.arrivals import Request
from benchmarks.drift.sites import STRAGGLER_FACTOR, STRAGGLER_RATE, Site

REFUSAL_S = 0.05
"""A refused connection, a 503 and a 429 take one round trip."""
FAST_ERROR_S = 0.15
"""A 500 comes back sooner than any answer: what makes failing endpoints look fast."""
PIECE_S = 1.0
"""An answer is handed over in pieces of about this: load is felt again with each, and a loop step per token is spared."""
PIECE_COUNT_MAX = 40
RETRY_AFTER_S = 2.0
"""What an endpoint asks for with a 429, where it says anything."""
TOKEN_TEXT = "word"
"""A token of four bytes."""


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A line of the log that figures are read off: which endpoint was called, when, and for what."""

    at_s: float
    endpoint_index: int
    request_number: int | None
    """None: a probe, which belongs to no request."""
    is_hedge: bool
    """Another call for the same request was under way."""


class LiveSite:
    """One endpoint in motion."""

    def __init__(self, index: int, site: Site, upstream: Upstream) -> None:
        self.index = index
        self.site = site
        self.in_flight_count = 0
        self.request_count = 0
        self.limited_count = 0
        self._upstream = upstream
        self._visits: Counter[int] = Counter()
        limit = site.weather.rate_limit
        self._bucket = math.inf if limit is None else float(limit.burst)
        self._bucket_s = 0.0

    def bucket_at(self, now_s: float) -> float:
        """Requests that the rate limit lets through at once."""
        limit = self.site.weather.rate_limit
        if limit is None:
            return math.inf
        return min(float(limit.burst), self._bucket + (now_s - self._bucket_s) * limit.requests_per_s)

    async def answer(self, request: Request, *, is_probe: bool = False) -> AsyncGenerator[int, None]:
        """Yields how many tokens came at a time, the first one by itself.

        Raises:
            UpstreamError: what the weather brings.
        """
        upstream, site = self._upstream, self.site
        clock_s = upstream.clock_s
        started_s = clock_s()
        visit = self._visits[request.number]
        self._visits[request.number] += 1
        draws = Draws(upstream.seed, site.provider, request.number, visit, is_probe)
        wait_z, gap_z, straggles = draws.normal(), draws.normal(), draws.uniform() < STRAGGLER_RATE
        error_u, break_u, break_at = draws.uniform(), draws.uniform(), draws.uniform()
        upstream.note(started_s, self.index, None if is_probe else request.number)
        self.request_count += 1
        self.in_flight_count += 1
        try:
            await self._admit(started_s, error_u)
            weather = site.weather
            wait_s = site.ttft_s(request.input_token_count) * math.exp(weather.ttft_s.sigma * wait_z)
            wait_s *= STRAGGLER_FACTOR if straggles else 1.0
            await self._pass(wait_s * weather.latency_factor(started_s, in_flight_count=self.in_flight_count))
            yield 1
            left = request.output_token_count - 1
            piece_min = 1 + left // PIECE_COUNT_MAX
            gap = weather.inter_token_latency_s
            gap_s = gap.median_s * math.exp(gap.sigma * gap_z)
            failing = site.failing_at(started_s)
            breaks = failing is not None and break_u < failing.break_rate
            breaks_at = int(break_at * left) if breaks else -1
            while left > 0:
                factor = weather.latency_factor(clock_s(), in_flight_count=self.in_flight_count)
                count = min(left, max(piece_min, int(PIECE_S / (gap_s * factor))))
                await self._pass(count * gap_s * factor)
                if breaks and left - count <= breaks_at:
                    raise UpstreamDisconnectedError("the connection was reset midway")
                left -= count
                yield count
        finally:
            self.in_flight_count -= 1
            upstream.done(None if is_probe else request.number)

    async def _admit(self, now_s: float, error_u: float) -> None:
        """Refuses what can't be served at all."""
        site = self.site
        outage = outage_at(site.weather.outages, now_s)
        if outage is OutageKind.HANG:
            await asyncio.sleep(IDLE_TIMEOUT_S)
            raise UpstreamTimeoutError(f"silent for {IDLE_TIMEOUT_S:g} s")
        if outage is not None:
            await asyncio.sleep(REFUSAL_S)
            if outage is OutageKind.REFUSE:
                raise UpstreamStatusError(503)
            raise UpstreamDisconnectedError("the connection was reset")
        if site.weather.rate_limit is not None:
            self._bucket, self._bucket_s = self.bucket_at(now_s), now_s
            if self._bucket < 1.0:
                self.limited_count += 1
                await asyncio.sleep(REFUSAL_S)
                raise UpstreamStatusError(429, retry_after_s=RETRY_AFTER_S if site.says_retry_after else None)
            self._bucket -= 1.0
        failing = site.failing_at(now_s)
        if failing is not None and error_u < failing.error_rate:
            await asyncio.sleep(FAST_ERROR_S)
            raise UpstreamStatusError(500)

    async def _pass(self, duration_s: float) -> None:
        """Lets so much time pass, unless an outage begins meanwhile that reaches calls under way."""
        clock_s = self._upstream.clock_s
        begun_s = clock_s()
        until_s = begun_s + duration_s
        for outage in self.site.weather.outages:
            reaches = outage.kind is not OutageKind.REFUSE and begun_s < outage.to_s and until_s > outage.from_s
            if not reaches:
                continue
            await asyncio.sleep(max(0.0, outage.from_s - begun_s))
            if outage.kind is OutageKind.RESET:
                raise UpstreamDisconnectedError("the connection was reset")
            await asyncio.sleep(IDLE_TIMEOUT_S)
            raise UpstreamTimeoutError(f"silent for {IDLE_TIMEOUT_S:g} s")
        await asyncio.sleep(duration_s)


class Upstream:
    """All endpoints of a run, and the log of their calls. Belongs to the running loop."""

    def __init__(self, sites: Sequence[Site], requests: Sequence[Request], *, seed: int) -> None:
        self.seed = seed
        self.clock_s = asyncio.get_running_loop().time
        self.requests = requests
        self.live = tuple(LiveSite(index, site, self) for index, site in enumerate(sites))
        self.by_name: Mapping[str, LiveSite] = {live.site.name: live for live in self.live}
        self.calls: list[CallStarted] = []
        self.token_count = 0
        self.probe_token_count = 0
        self._under_way: defaultdict[int, int] = defaultdict(int)

    def note(self, at_s: float, endpoint_index: int, request_number: int | None) -> None:
        """Logs that a call starts."""
        is_hedge = False
        if request_number is not None:
            is_hedge = self._under_way[request_number] > 0
            self._under_way[request_number] += 1
        self.calls.append(CallStarted(at_s, endpoint_index, request_number, is_hedge))

    def done(self, request_number: int | None) -> None:
        """Notes that a call is over."""
        if request_number is not None:
            self._under_way[request_number] -= 1
            if not self._under_way[request_number]:
                del self._under_way[request_number]


class SimulatedProvider:
    """One provider's side as the router calls it: a `ChatProvider` in the same process.

    A prompt that begins with the number of a request is that request; any other is a probe.
    """

    def __init__(self, live: LiveSite, upstream: Upstream) -> None:
        self._live = live
        self._upstream = upstream
        self._probe_count = 0

    async def complete(self, call: UpstreamCall) -> AsyncGenerator[tuple[UpstreamEvent, ...], None]:
        """As `ChatProvider` says."""
        request = self._request(call)
        is_probe = request.number < 0
        answer = self._live.answer(request, is_probe=is_probe)
        token_count = 0
        try:
            async for count in answer:
                token_count += count
                yield (TextDelta(TOKEN_TEXT * count),)
            usage = Usage(input_token_count=request.input_token_count, output_token_count=token_count)
            yield (UsageReported(usage), Finished(FinishReason.STOP))
        finally:
            await answer.aclose()
            used = request.input_token_count + token_count
            self._upstream.token_count += used
            self._upstream.probe_token_count += used if is_probe else 0

    async def aclose(self) -> None:
        """Nothing is open."""

    def _request(self, call: UpstreamCall) -> Request:
        number = prompt_text(call.conversation).partition(":")[0]
        if number.isdecimal():
            return self._upstream.requests[int(number)]
        self._probe_count += 1
        most = call.conversation.sampling.output_token_count_max or 1
        return Request(-self._probe_count, self._upstream.clock_s(), 16, most, most)
