"""The weather of simulated providers: how fast, how loaded and how broken each endpoint is at a moment. Pure and seeded.

Times are simulated seconds since the server's start. The same seed gives the same weather, whatever the order of calls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from statistics import NormalDist

from pointsman_server.providers.base import Secret

STANDARD_NORMAL = NormalDist()
DRIFT_FACTOR_MAX = 100.0
"""A drift slows down or speeds up by at most this; beyond, an outage says it better."""


class Draws:
    """A stream of chance that depends on its key alone: each draw is a hash of the key and the draw's number.

    After Salmon and others, "Parallel random numbers: as easy as 1, 2, 3" (2011): no state is shared, so concurrent
    requests can't change each other's draws.
    """

    __slots__ = ("_hash", "_number")

    def __init__(self, *key: object) -> None:
        self._hash = blake2b("/".join(str(part) for part in key).encode("utf-8", "surrogatepass"), digest_size=8)
        self._number = 0

    def uniform(self) -> float:
        """The next number, above 0 and below 1."""
        self._number += 1
        drawn = self._hash.copy()
        drawn.update(self._number.to_bytes(8))
        return (int.from_bytes(drawn.digest()[:6]) + 0.5) / 2**48

    def normal(self) -> float:
        """The next standard normal number."""
        return STANDARD_NORMAL.inv_cdf(self.uniform())

    def index(self, count: int) -> int:
        """The next number of 0..count-1."""
        assert count > 0, count
        return int(self.uniform() * count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """A lognormal duration: what latencies of servers look like."""

    median_s: float
    sigma: float
    """Standard deviation of the logarithm: 0 is constant, 0.5 has its p95 at 2.3 times the median."""

    def __post_init__(self) -> None:
        assert self.median_s >= 0.0, self
        assert 0.0 <= self.sigma <= 3.0, self

    def draw(self, draws: Draws) -> float:
        """One duration in seconds."""
        return self.median_s * math.exp(self.sigma * draws.normal())


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """Latency swings slowly, as between day and night."""

    period_s: float
    factor: float
    """At the crest latency is multiplied by this, in the trough divided."""
    phase: float = 0.0
    """Share of a period by which the wave is ahead."""

    def __post_init__(self) -> None:
        assert self.period_s > 0.0, self
        assert 1.0 <= self.factor <= DRIFT_FACTOR_MAX, self

    def factor_at(self, now_s: float) -> float:
        """The multiple of the usual latency."""
        return math.exp(math.log(self.factor) * math.sin(2.0 * math.pi * (now_s / self.period_s + self.phase)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RegimeChange:
    """From one moment on everything takes so many times as long, as after a deployment."""

    at_s: float
    factor: float

    def __post_init__(self) -> None:
        assert 1.0 / DRIFT_FACTOR_MAX <= self.factor <= DRIFT_FACTOR_MAX, self

    def factor_at(self, now_s: float) -> float:
        """The multiple of the usual latency."""
        return self.factor if now_s >= self.at_s else 1.0


Drift = Wave | RegimeChange


class OutageKind(StrEnum):
    """How a provider fails while it is down."""

    REFUSE = "refuse"
    """Answers 503 at once; streams under way go on."""
    RESET = "reset"
    """Resets every connection, also in the middle of a stream."""
    HANG = "hang"
    """Sends nothing any more, and keeps the connections open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A window of time in which a provider or an endpoint is down."""

    from_s: float
    to_s: float
    kind: OutageKind

    def __post_init__(self) -> None:
        assert self.from_s < self.to_s, self


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """A token bucket: so many requests per second, and so many at once after a rest."""

    requests_per_s: float
    burst: int

    def __post_init__(self) -> None:
        assert self.requests_per_s > 0.0, self
        assert self.burst >= 1, self


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResponse:
    """How latency grows with the calls in flight: not at all up to the knee, then by `slope` of itself for each."""

    knee_count: int = 0
    slope: float = 0.0

    def factor_at(self, in_flight_count: int) -> float:
        """The multiple of the latency without load."""
        return 1.0 + self.slope * max(0, in_flight_count - self.knee_count)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointWeather:
    """One model at one provider."""

    model: str
    """By the provider's own name."""
    ttft_s: Duration
    inter_token_latency_s: Duration
    drifts: tuple[Drift, ...] = ()
    """Their factors multiply."""
    outages: tuple[Outage, ...] = ()
    rate_limit: RateLimit | None = None
    load: LoadResponse = LoadResponse()
    error_rate: float = 0.0
    """Share of requests answered with 500."""
    break_rate: float = 0.0
    """Share of answers that end in a reset midway."""
    output_token_count_mean: float = 120.0
    """Of an answer to a prompt of 100 tokens; it grows with the logarithm of the prompt's length."""

    def __post_init__(self) -> None:
        assert 0.0 <= self.error_rate <= 1.0, self
        assert 0.0 <= self.break_rate <= 1.0, self
        assert self.output_token_count_mean >= 1.0, self

    def latency_factor(self, now_s: float, *, in_flight_count: int) -> float:
        """By what the drawn latencies are multiplied at this moment under this load."""
        factor = self.load.factor_at(in_flight_count)
        for drift in self.drifts:
            factor *= drift.factor_at(now_s)
        return factor


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderWeather:
    """One provider with its endpoints."""

    name: str
    """Goes into the path of its URL: letters, digits, hyphens."""
    endpoints: tuple[EndpointWeather, ...]
    outages: tuple[Outage, ...] = ()
    api_key: Secret | None = None
    """When set, requests with another key or none are answered with 401."""

    def __post_init__(self) -> None:
        assert self.name.replace("-", "").isalnum(), self.name
        assert len({endpoint.model for endpoint in self.endpoints}) == len(self.endpoints), "models are unique"


def outage_at(outages: tuple[Outage, ...], now_s: float) -> OutageKind | None:
    """The kind of outage at a moment, the first listed where several overlap; None while all is well."""
    return next((outage.kind for outage in outages if outage.from_s <= now_s < outage.to_s), None)


def demo_weather() -> tuple[ProviderWeather, ...]:
    """Four simulated providers with eleven endpoints that differ as real ones do: size, speed, load, moods.

    The figures are plausible, not measured: they describe no real provider.
    """
    return (
        ProviderWeather(
            name="sim-north",
            endpoints=(
                _endpoint("gpt-4o", ttft_s=0.45, inter_token_s=0.016, tokens=170),
                _endpoint("gpt-4o-mini", ttft_s=0.32, inter_token_s=0.011, tokens=150),
                _endpoint("deepseek-v3", ttft_s=0.90, inter_token_s=0.028, tokens=190),
            ),
        ),
        ProviderWeather(
            name="sim-east",
            endpoints=(
                _endpoint("claude-3-5-sonnet", ttft_s=0.70, inter_token_s=0.018, tokens=200),
                _endpoint("llama-3.1-70b-instruct", ttft_s=0.38, inter_token_s=0.014, tokens=150),
                _endpoint("qwen2.5-72b-instruct", ttft_s=0.50, inter_token_s=0.018, tokens=190),
            ),
        ),
        ProviderWeather(
            name="sim-west",
            endpoints=(
                _endpoint("llama-3.1-70b-instruct", ttft_s=0.20, inter_token_s=0.004, tokens=150, knee_count=8),
                _endpoint("llama-3.1-8b-instruct", ttft_s=0.12, inter_token_s=0.002, tokens=130, knee_count=16),
                _endpoint("qwen2.5-72b-instruct", ttft_s=0.22, inter_token_s=0.006, tokens=190, knee_count=8),
            ),
        ),
        ProviderWeather(
            name="sim-south",
            endpoints=(
                _endpoint("llama-3.1-8b-instruct", ttft_s=0.28, inter_token_s=0.009, tokens=130),
                _endpoint("deepseek-v3", ttft_s=0.60, inter_token_s=0.020, tokens=190, wave_factor=1.8),
            ),
        ),
    )


def _endpoint(
    model: str,
    *,
    ttft_s: float,
    inter_token_s: float,
    tokens: float,
    knee_count: int = 64,
    wave_factor: float = 1.2,
) -> EndpointWeather:
    return EndpointWeather(
        model=model,
        ttft_s=Duration(median_s=ttft_s, sigma=0.25),
        inter_token_latency_s=Duration(median_s=inter_token_s, sigma=0.35),
        drifts=(Wave(period_s=300.0, factor=wave_factor, phase=ttft_s),),
        load=LoadResponse(knee_count=knee_count, slope=0.08),
        output_token_count_mean=tokens,
    )
