"""The rules that the shipped router is compared with, each written from how its original behaves.

They see what a gateway sees: that a call started, its first token, its end, its failure. They choose before every try;
how often one may try, and when an endpoint is left alone, goes by the original too.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

from pointsman_server.errors import UpstreamErrorKind

from benchmarks.drift.arrivals import Request
from benchmarks.drift.sites import Site
from benchmarks.drift.truth import expected_s

FAILURE_PRICE_S = 10.0
"""What a learning rule without an idea of its own about failures counts one as: the price that users put on it."""
PRIOR_TTFT_S, PRIOR_GAP_S = 0.4, 0.03
"""Where learning rules begin: the middle of what is measured of providers."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call went, as the gateway saw it."""

    request: Request
    duration_s: float
    ttft_s: float | None
    """None: there was no first token."""
    token_count: int
    failure: UpstreamErrorKind | None

    @property
    def gap_s(self) -> float | None:
        """Mean inter-token latency; None with fewer than two tokens."""
        if self.ttft_s is None or self.token_count < 2:
            return None
        return (self.duration_s - self.ttft_s) / (self.token_count - 1)


class Policy(ABC):
    """Chooses among endpoints, by their index, and learns from calls. One replica of a gateway has one."""

    try_count_max = 3
    """Calls for one request, the first included."""
    repeats_failed = False
    """Whether a retry may go to the endpoint that has just failed."""

    def __init__(self, sites: Sequence[Site], random: Random) -> None:
        self.sites = sites
        self.random = random
        self.in_flight = [0] * len(sites)
        self.fail_streak = [0] * len(sites)
        self.left_alone_until_s = [-math.inf] * len(sites)

    def choose(self, request: Request, now_s: float, *, tried: Collection[int]) -> int:
        """The endpoint of the next try."""
        every = range(len(self.sites))
        healthy = [index for index in every if self.left_alone_until_s[index] <= now_s] or list(every)
        open_to = healthy if self.repeats_failed else [index for index in healthy if index not in tried] or healthy
        return self.pick(request, now_s, open_to)

    @abstractmethod
    def pick(self, request: Request, now_s: float, among: Sequence[int]) -> int:
        """The endpoint, of those that may be called; never empty."""

    def started(self, index: int, now_s: float) -> None:
        """A call starts."""
        del now_s
        self.in_flight[index] += 1

    def ended(self, index: int, seen: Ended, now_s: float) -> None:
        """A call is over."""
        self.in_flight[index] -= 1
        self.judge(index, seen, now_s)
        self.learn(index, seen, now_s)

    def judge(self, index: int, seen: Ended, now_s: float) -> None:
        """When to leave an endpoint alone: by default five failures in a row, for 5 s, as linkerd does."""
        self.fail_streak[index] = 0 if seen.failure is None else self.fail_streak[index] + 1
        if self.fail_streak[index] >= 5:
            self.left_alone_until_s[index] = now_s + 5.0

    def learn(self, index: int, seen: Ended, now_s: float) -> None:  # noqa: B027 - most learn nothing
        """What a call teaches; nothing by default."""


class RandomChoice(Policy):
    """Any endpoint, and another one if it fails."""

    def pick(self, request: Request, now_s: float, among: Sequence[int]) -> int:
        """Any."""
        del request, now_s
        return self.random.choice(among)


class RoundRobin(Policy):
    """Each in turn."""

    _next = 0

    def pick(self, request: Request, now_s: float, among: Sequence[int]) -> int:
        """The next."""
        del request, now_s
        while self._next % len(self.sites) not in among:
            self._next += 1
        self._next += 1
        return (self._next - 1) % len(self.sites)


class StaticBest(Policy):
    """Always the endpoint that is best over the whole run, known in hindsight; the others in that order if it fails."""

    def __init__(self, sites: Sequence[Site], random: Random, *, ranking: Sequence[int]) -> None:
        super().__init__(sites, random)
        self._place = {index: place for place, index in enumerate(ranking)}

    def pick(self, request: Request, now_s: float, among: Sequence[int]) -> int:
        """The highest in the ranking."""
        del request, now_s
        return min(among, key=self._place.__getitem__)


class PeriodicBenchmark(Policy):
    """The endpoint that was best when all were last measured, three calls each.

    Unify's router measured every three hours. Five minutes are kinder, and give a run more than one benchmark.
    """

    PERIOD_S = 300.0
    CALL_COUNT = 3

    def __init__(self, sites: Sequence[Site], random: Random) -> None:
        super().__init__(sites, random)
        self._measured_s = -math.inf
        self._ttft_s = [0.0] * len(sites)
        self._gap_s = [0.0] * len(sites)

    def pick(self, request: Request, now_s: float, among: Sequence[int]) -> int:
        """The fastest for an answer of this length, as last measured."""
        if now_s - self._measured_s >= self.PERIOD_S:
            self._measured_s = math.floor(now_s / self.PERIOD_S) * self.PERIOD_S
            for index, site in enumerate(self.sites):
                self._ttft_s[index], self._gap_s[index] = self._measure(site, now_s)
        tokens = request.expected_output_token_count
        return min(among, key=lambda index: self._ttft_s[index] + tokens * self._gap_s[index])

    def _measure(self, site: Site, now_s: float) -> tuple[float, float]:
        if math.isinf(expected_s(site, 100, 100.0, now_s)):
            return math.inf, math.inf
        weather = site.weather
        factor = weather.latency_factor(now_s, in_flight_count=1)
        spreads = [
            (self.random.gauss(0.0, weather.ttft_s.sigma), self.random.gauss(0.0, weather.inter_token_latency_s.sigma))
            for _ in range(self.CALL_COUNT)
        ]
        ttft_s = fmean(site.ttft_s(100) * math.exp(ttft_z) for ttft_z, _ in spreads)
        gap_s = fmean(weather.inter_token_latency_s.median_s * math.exp(gap_z) for _, gap_z in spreads)
        return factor * ttft_s, factor * gap_s


class LiteLlm(Policy):
    """What LiteLLM's three strategies share: two retries, the failed endpoint not excluded, and cooldowns.

    An endpoint cools down for 5 s after a 429, or when more than half of at least five calls of the running minute failed.
    """

    repeats_failed = True
    COOLDOWN_S = 5.0
    FAILED_SHARE = 0.5
    CALL_COUNT_MIN = 5

    def __init__(self, sites: Sequence[Site], random: Random) -> None:
        super().__init__(sites, random)
        self._minute = [-1] * len(sites)
        self._call_count = [0] * len(sites)
        self._failed_count = [0] * len(sites)

    def judge(self, index: int, seen: Ended, now_s: float) -> None:
        """The cooldown."""
        minute = int(now_s // 60.0)
        if self._minute[index] != minute:
            self._minute[index], self._call_count[index], self._failed_count[index] = minute, 0, 0
        self._call_count[index] += 1
        if seen.failure is None:
            return
        self._failed_count[index] += 1
        enough = self._call_count[index] >= self.CALL_COUNT_MIN
        most_fail = enough and self._failed_count[index] > self.FAILED_SHARE * self._call_count[index]
        if seen.failure is UpstreamErrorKind.RATE_LIMITED or most_fail:
            self.left_alone_until_s[index] = now_s + self.COOLDOWN_S


class LiteLlmShuffle(LiteLlm):
    """`simple-shuffle`, the default: any healthy endpoint."""

    def pick(self, request: Request, now_s: float, among: Sequence[int]) -> int:
        """Any."""
        del request, now_s
        return self.random.choice(among)


class LiteLlmLeastBusy(LiteLlm):
    """`least-busy`: the endpoint with the fewest calls under way, the first of equals."""

    def pick(self, request: Request, now_s: float, among: Sequence[int]) -> int:
        """The least busy."""
        del request, now_s
        return min(among, key=self.in_flight.__getitem__)


class LiteLlmLatency(LiteLlm):
    """`latency-based-routing` with streams: the lowest mean of time to first token per token of the answer.

    The list of an endpoint holds ten values, of which a full list replaces only the last: the first nine stay for an
    hour. An endpoint that was never called counts as 0. A timeout adds 1000 s, but to the list of whole answers, which
    streams don't read once they have one of their own.
    """

    VALUE_COUNT_MAX = 10

    def __init__(self, sites: Sequence[Site], random: Random) -> None:
        super().__init__(sites, random)
        self._values: list[list[float]] = [[] for _ in sites]

    def pick(self, request: Request, now_s: float, among: Sequence[int]) -> int:
        """The lowest mean."""
        del request, now_s
        means = {index: fmean(self._values[index]) if self._values[index] else 0.0 for index in among}
        lowest = min(means.values())
        return self.random.choice([index for index, mean in means.items() if mean <= lowest])

    def learn(self, index: int, seen: Ended, now_s: float) -> None:
        """The list of values."""
        del now_s
        values = self._values[index]
        if seen.failure is None and seen.ttft_s is not None:
            kept = values if len(values) < self.VALUE_COUNT_MAX else values[: self.VALUE_COUNT_MAX - 1]
            self._values[index] = [*kept, seen.ttft_s / seen.token_count]
        elif seen.failure is UpstreamErrorKind.TIMEOUT and not values:
            self._values[index] = [1000.0]


class PeakEwma(Policy):
    """Power of two choices by peak-EWMA, as finagle and linkerd balance: of two drawn at random the one whose latency
    times calls under way is lower. A slower answer than the average counts at once, a faster one with a decay of 10 s."""

    DECAY_S = 10.0

    def __init__(self, sites: Sequence[Site], random: Random) -> None:
        super().__init__(sites, random)
        self._cost_s = [PRIOR_TTFT_S + 100.0 * PRIOR_GAP_S] * len(sites)
        self._seen_s = [0.0] * len(sites)

    def pick(self, request: Request, now_s: float, among: Sequence[int]) -> int:
        """The better of two."""
        del request, now_s
        drawn = self.random.sample(among, min(2, len(among)))
        return min(drawn, key=lambda index: self._cost_s[index] * (self.in_flight[index] + 1))

    def learn(self, index: int, seen: Ended, now_s: float) -> None:
        """The peak-sensitive average."""
        if seen.duration_s > self._cost_s[index]:
            self._cost_s[index] = seen.duration_s
        else:
            weight = math.exp(-(now_s - self._seen_s[index]) / self.DECAY_S)
            self._cost_s[index] = weight * self._cost_s[index] + (1.0 - weight) * seen.duration_s
        self._seen_s[index] = now_s


class ThompsonSampling(Policy):
    """Thompson sampling over a sliding window: normal posteriors of log time to first token and log inter-token latency,
    over the last 50 calls of the last minute; failures count as a first token after 10 s."""

    WINDOW_S = 60.0
    CALL_COUNT_MAX = 50
    PRIOR_SIGMA = 0.8

    def __init__(self, sites: Sequence[Site], random: Random) -> None:
        super().__init__(sites, random)
        self._ttft: list[deque[tuple[float, float]]] = [deque(maxlen=self.CALL_COUNT_MAX) for _ in sites]
        self._gap: list[deque[tuple[float, float]]] = [deque(maxlen=self.CALL_COUNT_MAX) for _ in sites]

    def pick(self, request: Request, now_s: float, among: Sequence[int]) -> int:
        """The lowest of one draw each."""

        def drawn(index: int) -> float:
            ttft = self._drawn(self._ttft[index], math.log(PRIOR_TTFT_S), now_s)
            gap = self._drawn(self._gap[index], math.log(PRIOR_GAP_S), now_s)
            return math.exp(ttft) + request.expected_output_token_count * math.exp(gap)

        return min(among, key=drawn)

    def learn(self, index: int, seen: Ended, now_s: float) -> None:
        """The windows."""
        ttft_s = FAILURE_PRICE_S if seen.failure is not None or seen.ttft_s is None else seen.ttft_s
        self._ttft[index].append((now_s, math.log(ttft_s)))
        if seen.gap_s is not None and seen.gap_s > 0.0:
            self._gap[index].append((now_s, math.log(seen.gap_s)))

    def _drawn(self, window: deque[tuple[float, float]], prior: float, now_s: float) -> float:
        while window and now_s - window[0][0] > self.WINDOW_S:
            window.popleft()
        if not window:
            return self.random.gauss(prior, self.PRIOR_SIGMA)
        mean = fmean(value for _, value in window)
        variance = sum((value - mean) ** 2 for _, value in window) / max(1, len(window) - 1)
        spread = math.sqrt(variance) if len(window) > 1 else self.PRIOR_SIGMA
        return self.random.gauss(mean, spread / math.sqrt(len(window)))


class EpsilonGreedy(Policy):
    """The best by moving averages, and any endpoint in one of twenty calls."""

    EPSILON = 0.05
    WEIGHT = 0.2

    def __init__(self, sites: Sequence[Site], random: Random) -> None:
        super().__init__(sites, random)
        self._ttft_s = [PRIOR_TTFT_S] * len(sites)
        self._gap_s = [PRIOR_GAP_S] * len(sites)

    def pick(self, request: Request, now_s: float, among: Sequence[int]) -> int:
        """The best, or any."""
        del now_s
        if self.random.random() < self.EPSILON:
            return self.random.choice(among)
        tokens = request.expected_output_token_count
        return min(among, key=lambda index: self._ttft_s[index] + tokens * self._gap_s[index])

    def learn(self, index: int, seen: Ended, now_s: float) -> None:
        """The averages."""
        del now_s
        ttft_s = FAILURE_PRICE_S if seen.failure is not None or seen.ttft_s is None else seen.ttft_s
        self._ttft_s[index] += self.WEIGHT * (ttft_s - self._ttft_s[index])
        if seen.gap_s is not None:
            self._gap_s[index] += self.WEIGHT * (seen.gap_s - self._gap_s[index])


BASELINES: dict[str, type[Policy]] = {
    "random": RandomChoice,
    "round robin": RoundRobin,
    "static best (hindsight)": StaticBest,
    "periodic benchmark": PeriodicBenchmark,
    "LiteLLM latency-based": LiteLlmLatency,
    "LiteLLM least-busy": LiteLlmLeastBusy,
    "LiteLLM simple-shuffle": LiteLlmShuffle,
    "P2C peak-EWMA": PeakEwma,
    "Thompson sampling": ThompsonSampling,
    "epsilon-greedy": EpsilonGreedy,
}
"""By the name that they have in the results."""
