"""One endpoint in virtual time, with calls that overlap: what is true of it is known, so what is learned can be judged."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pointsman_server.decision.types import EndpointRuntime
from pointsman_server.runtime.tracker import RuntimeTracker

NAME = "small@north"
PIECE_COUNT = 5
"""An answer comes in so many pieces, each as fast as the load of its moment allows."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What an endpoint is like at a moment."""

    ttft_s: float = 0.4
    """Median without load, for an empty input."""
    gap_s: float = 0.01
    load_slope: float = 0.0
    """Both are multiplied by 1 + slope x calls under way beyond `knee_count`."""
    knee_count: int = 0
    s_per_input_token: float = 0.0
    spread: float = 0.3
    straggler_share: float = 0.02
    """Of the calls so many take five times as long."""

    def slowed(self, load: int) -> float:
        """By what durations are multiplied while so many other calls are under way."""
        return 1.0 + self.load_slope * max(0, load - self.knee_count)


class Lane:
    """Calls that arrive at random and are answered by what is true then."""

    def __init__(
        self,
        seed: int,
        truth_at: Callable[[float], Truth],
        *,
        rate_at: Callable[[float], float],
        replica_count: int = 1,
    ) -> None:
        self.rng = random.Random(seed)
        self.tracker = RuntimeTracker(replica_count=replica_count)
        self.now_s = 0.0
        self._truth_at = truth_at
        self._rate_at = rate_at
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._ties = itertools.count()
        self._in_flight_count = 0

    def run(self, duration_s: float) -> Iterator[EndpointRuntime]:
        """The state before each call of so long a time."""
        for arrival_s in self._arrivals(duration_s):
            yield self.tracker.snapshot(arrival_s).of(NAME)

    def ran(self, duration_s: float) -> EndpointRuntime:
        """The state after so long a time."""
        for _ in self._arrivals(duration_s):
            pass
        return self.tracker.snapshot(self.now_s).of(NAME)

    def finish(self) -> None:
        """Every call under way ends; no other begins."""
        while self._due:
            at_s, _, event = heapq.heappop(self._due)
            event(at_s)
            self.now_s = max(self.now_s, at_s)

    def _arrivals(self, duration_s: float) -> Iterator[float]:
        """When each call is about to begin."""
        end_s = self.now_s + duration_s
        while self.now_s < end_s:
            arrival_s = self.now_s + self.rng.expovariate(self._rate_at(self.now_s))
            while self._due and self._due[0][0] <= arrival_s:
                at_s, _, event = heapq.heappop(self._due)
                event(at_s)
            self.now_s = arrival_s
            yield arrival_s
            self._call()

    def _call(self) -> None:
        truth, rng = self._truth_at(self.now_s), self.rng
        input_token_count = round(rng.lognormvariate(6.5, 1.0))
        slowed = truth.slowed(self._in_flight_count)
        ttft_s = (truth.ttft_s + truth.s_per_input_token * input_token_count) * slowed
        ttft_s *= math.exp(rng.gauss(0.0, truth.spread))
        if rng.random() < truth.straggler_share:
            ttft_s *= 5.0
        token_count = max(2, round(rng.lognormvariate(5.0, 0.6)))
        attempt = self.tracker.start(NAME, input_token_count=input_token_count, now_s=self.now_s)
        self._in_flight_count += 1
        piece_s = (token_count - 1) / PIECE_COUNT * truth.gap_s * math.exp(rng.gauss(0.0, 0.2))

        def stream(at_s: float, left: int) -> None:
            if left:
                slowed_s = piece_s * truth.slowed(self._in_flight_count - 1)
                self._later(at_s + slowed_s, lambda later_s: stream(later_s, left - 1))
            else:
                self._in_flight_count -= 1
                attempt.succeed(output_token_count=token_count, now_s=at_s)

        def begin(at_s: float) -> None:
            attempt.first_token(at_s)
            stream(at_s, PIECE_COUNT)

        self._later(self.now_s + ttft_s, begin)

    def _later(self, at_s: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._due, (at_s, next(self._ties), event))


def waves(now_s: float) -> float:
    """Three calls a second, more and less in turns of three minutes, as real traffic is."""
    return 3.0 * (1.0 + 0.6 * math.sin(now_s / 30.0))


def fair_share(slope: float) -> Callable[[float], float]:
    """As many calls, in the same waves, as an endpoint of that load slope bears: at the peak it is half busy with them."""
    return lambda now_s: min(1.0, 0.05 / slope) * waves(now_s)


def charged(lane: Lane, load: int) -> float:
    """What one more call takes from others while `load` calls are under way, as a multiple of its own latency."""
    lane.finish()
    for _ in range(load):
        lane.tracker.start(NAME, input_token_count=1000, now_s=lane.now_s)
    runtime = lane.tracker.snapshot(lane.now_s).of(NAME)
    assert (runtime.in_flight_count, runtime.ttft_s is None) == (load, False)
    assert runtime.ttft_s is not None
    return runtime.marginal_load_s / runtime.ttft_s.mean
