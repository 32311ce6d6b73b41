"""The oracle: it knows the state of every endpoint at every moment, though not what chance will bring to a request.

It charges a request what it takes itself and what it takes from the calls that are already there, knows which endpoint
is down, failing or at its limit, and starts a second call when the first one is late.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from benchmarks.drift.arrivals import Request
from benchmarks.drift.sites import STRAGGLER_FACTOR
from benchmarks.drift.truth import expected_s, is_hanging
from benchmarks.drift.world import LiveSite, Upstream

HEDGE_SHARE = 0.05
"""Second calls per request, as many as the shipped rules may make."""
HEDGE_BURST = 5.0
HEDGE_SIGMA = 2.5
"""A first token this many deviations late is probably a straggler: one in 160 of the usual ones is as late."""
MARGIN = 1.75
"""What a request takes from others counts so many times what it takes from the calls already there: those that are still
to come find it there too. Of several factors the one that costs least, on seeds that are not reported."""


class Oracle:
    """Chooses with the true state of `upstream`."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._hedge_tokens = HEDGE_BURST
        self._end_s: dict[tuple[int, int], float] = {}

    def choose(self, request: Request, now_s: float, *, tried: Collection[int]) -> int:
        """The endpoint where the request costs all requests together least."""
        return min(
            (
                live.index
                for live in self._upstream.live
                if live.index not in tried or len(tried) == len(self._upstream.live)
            ),
            key=lambda index: self.cost_s(self._upstream.live[index], request, now_s),
        )

    def cost_s(self, live: LiveSite, request: Request, now_s: float) -> float:
        """What the request costs there, with what it costs the others."""
        if live.bucket_at(now_s) < 1.0:
            return math.inf
        tokens, site = request.expected_output_token_count, live.site
        count = live.in_flight_count
        own_s = expected_s(site, request.input_token_count, tokens, now_s, in_flight_count=count + 1)
        load = site.weather.load
        if not load.slope or count < load.knee_count or math.isinf(own_s):
            return own_s
        # Each call there is slowed by a share of itself for as long as both are under way.
        factor = load.factor_at(count + 1)
        shared_s = sum(
            min(own_s, max(0.0, end_s - now_s)) for (index, _), end_s in self._end_s.items() if index == live.index
        )
        return own_s + MARGIN * load.slope * shared_s / factor

    def started(self, index: int, request: Request, now_s: float) -> None:
        """A call starts: until when it will be under way."""
        live = self._upstream.live[index]
        tokens = request.expected_output_token_count
        takes_s = expected_s(
            live.site, request.input_token_count, tokens, now_s, in_flight_count=live.in_flight_count + 1
        )
        self._end_s[index, request.number] = now_s + (0.0 if math.isinf(takes_s) else takes_s)

    def ended(self, index: int, request: Request) -> None:
        """A call is over."""
        self._end_s.pop((index, request.number), None)

    def hedge_after_s(self, index: int, request: Request, now_s: float) -> float:
        """How long to wait for the first token before a second call."""
        live = self._upstream.live[index]
        factor = live.site.weather.latency_factor(now_s, in_flight_count=live.in_flight_count + 1)
        spread = math.exp(HEDGE_SIGMA * live.site.weather.ttft_s.sigma)
        return factor * live.site.ttft_s(request.input_token_count) * spread

    def earn(self) -> None:
        """A request comes: it adds to what may be hedged."""
        self._hedge_tokens = min(HEDGE_BURST, self._hedge_tokens + HEDGE_SHARE)

    def hedge(
        self, index: int, request: Request, now_s: float, *, waited_s: float, tried: Collection[int]
    ) -> int | None:
        """Where to start a second call now; None if that is not worth it, or not allowed.

        Worth it if the other answer is expected to be complete sooner. One whose endpoint hangs always is, and costs no
        token: the first call is as good as failed.
        """
        live = self._upstream.live[index]
        other = self.choose(request, now_s, tried=tried)
        if is_hanging(live.site, now_s):
            return other
        if self._hedge_tokens < 1.0:
            return None
        factor = live.site.weather.latency_factor(now_s, in_flight_count=live.in_flight_count)
        gaps_s = max(0.0, request.expected_output_token_count - 1.0) * live.site.mean_gap_s
        left_s = max(0.0, factor * STRAGGLER_FACTOR * live.site.ttft_s(request.input_token_count) - waited_s)
        if self.cost_s(self._upstream.live[other], request, now_s) >= left_s + factor * gaps_s:
            return None
        self._hedge_tokens -= 1.0
        return other
