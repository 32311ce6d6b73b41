"""The endpoints of the simulation: one model at several providers, calibrated on what was measured of real ones.

Levels (time to first token, tokens per second) come from thefastest.ai's sessions with 70B models, shapes (how requests
of one run spread) from llmperf's runs with Llama-2 70B. Without the files a table stands in that was read off them.
What no public trace shows is assumed, and named in `ASSUMPTIONS`.
"""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from pointsman_server.providers.weather import (
    Draws,
    Drift,
    Duration,
    EndpointWeather,
    LoadResponse,
    Outage,
    RateLimit,
)

MODEL = "llama-70b"
PROVIDER_OF = {
    "api.fireworks.ai": "fireworks", "fireworks.ai": "fireworks", "api.groq.com": "groq", "groq.com": "groq",
    "octo.ai": "octo", "octoai.run": "octo", "text.octoai.run": "octo", "together.ai": "together",
    "together.xyz": "together", "togethercomputer": "together", "perplexity.ai": "perplexity",
    "api.perplexity.ai": "perplexity", "anyscale.com": "anyscale", "databricks.com": "databricks",
    "azuredatabricks.net": "databricks",
}  # fmt: skip
"""thefastest.ai changed the names of providers twice within its three weeks."""
MODEL_PATTERN = re.compile(r"(llama)-?v?([23])-(7b|8b|13b|70b)|(mixtral-8x7b)")
BUFFERED_TOKENS_PER_S = 400.0
"""Faster than this the provider sends what it has buffered, and the figure is none of speed."""
SESSION_SIGMA = 0.26
"""Log standard deviation across sessions (the data's README): each seed's levels are one session's."""
SPREAD_OF_MAD = 1.4826
"""Standard deviation of a normal distribution in units of its median absolute deviation."""
STRAGGLER_RATE = 0.01
STRAGGLER_FACTOR = 4.0
"""p99/p50 is mostly 1.2 to 3 within a run, two runs have 50 and 100: every hundredth request takes four times as long."""
PREFILL_S_PER_KTOKEN = 0.12
KNEE_COUNT = 6
SLOPE = 0.08
ASSUMPTIONS = (
    f"load response: none up to a knee of {KNEE_COUNT} calls (where a weather has load), then latency grows by {SLOPE:.0%} a call",
    "rate limits: a token bucket per endpoint; every second endpoint says Retry-After, the others don't",
    f"prefill: {PREFILL_S_PER_KTOKEN:g} s to the first token per 1,000 input tokens, by the endpoint's level",
    f"stragglers: {STRAGGLER_RATE:.0%} of requests take {STRAGGLER_FACTOR:g} times as long to the first token",
    "the times, sizes and shapes of all events (brown-outs, hangs, errors, outages, drift)",
    "which providers share a region",
    "custom hardware (groq) left out: it would win every comparison and leave nothing to choose",
    "length prediction: right up to a factor whose log-sd is 0.5, the same for every policy and the oracle",
)


@dataclass(frozen=True, slots=True)
class Level:
    """What was measured of one provider."""

    provider: str
    region: str
    """Assumed."""
    ttft_s: float
    tokens_per_s: float
    ttft_sigma: float
    """Log standard deviation of the time to first token within a run."""
    gap_sigma: float
    """The same of a request's mean inter-token latency."""


MEASURED = (
    Level("anyscale", "west", 0.51, 15.6, 0.21, 0.16),
    Level("databricks", "east", 0.32, 85.0, 0.15, 0.07),
    Level("fireworks", "west", 0.24, 139.0, 0.24, 0.07),
    Level("octo", "east", 0.15, 24.6, 0.15, 0.07),
    Level("perplexity", "central", 0.17, 31.0, 0.15, 0.05),
    Level("together", "central", 0.39, 79.0, 0.16, 0.08),
    Level("bedrock", "east", 0.39, 21.6, 0.06, 0.02),
    Level("lepton", "west", 0.92, 33.1, 0.09, 0.03),
)
"""As `calibrated` finds them, rounded; bedrock and lepton are in llmperf alone."""


@dataclass(frozen=True, slots=True)
class FailureWindow:
    """A time in which a share of the calls fails."""

    from_s: float
    to_s: float
    error_rate: float = 0.0
    """Share of calls that are answered with 500 at once."""
    break_rate: float = 0.0
    """Share of answers that break off midway."""


@dataclass(frozen=True, slots=True)
class Site:
    """One endpoint with all that will happen to it. Everything but load is a function of time alone."""

    provider: str
    region: str
    weather: EndpointWeather
    """Levels, spread, drift, outages, load response and rate limit, in the words of the simulated providers."""
    failures: tuple[FailureWindow, ...] = ()
    says_retry_after: bool = True

    @property
    def name(self) -> str:
        """The endpoint's name in the catalog."""
        return f"{MODEL}@{self.provider}"

    @property
    def knee_count(self) -> int:
        """Calls that it serves at full speed: its capacity."""
        return self.weather.load.knee_count

    def failing_at(self, now_s: float) -> FailureWindow | None:
        """The window of failures that holds at a moment."""
        return next((window for window in self.failures if window.from_s <= now_s < window.to_s), None)

    def ttft_s(self, input_token_count: int) -> float:
        """Median time to first token without load and drift."""
        median_s = self.weather.ttft_s.median_s
        return median_s + PREFILL_S_PER_KTOKEN * input_token_count / 1000.0 * _relative_level(median_s)

    def mean_ttft_s(self, input_token_count: int) -> float:
        """The same on average, stragglers included."""
        spread = math.exp(0.5 * self.weather.ttft_s.sigma**2)
        return self.ttft_s(input_token_count) * spread * (1.0 + STRAGGLER_RATE * (STRAGGLER_FACTOR - 1.0))

    @property
    def mean_gap_s(self) -> float:
        """Mean inter-token latency without load and drift."""
        gap = self.weather.inter_token_latency_s
        return gap.median_s * math.exp(0.5 * gap.sigma**2)

    def with_drift(self, *drifts: Drift) -> Site:
        """The same site, drifting as well."""
        return replace(self, weather=replace(self.weather, drifts=(*self.weather.drifts, *drifts)))

    def with_outage(self, *outages: Outage) -> Site:
        """The same site, down for a while as well."""
        return replace(self, weather=replace(self.weather, outages=(*self.weather.outages, *outages)))

    def with_failures(self, *windows: FailureWindow) -> Site:
        """The same site, failing for a while as well."""
        return replace(self, failures=(*self.failures, *windows))

    def with_load(self, load: LoadResponse) -> Site:
        """The same site with a load response."""
        return replace(self, weather=replace(self.weather, load=load))

    def with_limit(self, limit: RateLimit) -> Site:
        """The same site with a rate limit."""
        return replace(self, weather=replace(self.weather, rate_limit=limit))


def _relative_level(ttft_s: float) -> float:
    """Prompts are read faster where answers begin sooner: the level in units of a typical one, its root."""
    return math.sqrt(ttft_s / 0.3)


def sites(levels: Sequence[Level], *, seed: int) -> tuple[Site, ...]:
    """The endpoints of one seed: the measured levels, each moved by what one session differs from the next."""
    drawn = []
    for index, level in enumerate(levels):
        draws = Draws(seed, "level", level.provider)
        ttft_s = level.ttft_s * math.exp(SESSION_SIGMA * draws.normal())
        gap_s = math.exp(SESSION_SIGMA * draws.normal()) / level.tokens_per_s
        weather = EndpointWeather(
            model=MODEL,
            ttft_s=Duration(median_s=ttft_s, sigma=level.ttft_sigma),
            inter_token_latency_s=Duration(median_s=gap_s, sigma=level.gap_sigma),
            load=LoadResponse(knee_count=KNEE_COUNT, slope=0.0),
        )
        drawn.append(Site(level.provider, level.region, weather, says_retry_after=index % 2 == 0))
    return tuple(drawn)


def calibrated(data: Path) -> tuple[Level, ...]:
    """The levels as the traces in `data` show them; a provider that a trace lacks keeps what the other one shows."""
    fastest = _fastest_levels(data / "thefastest_provider_time.csv")
    runs = _llmperf_runs(data / "llmperf_requests.csv")
    found = []
    for level in MEASURED:
        if level.provider in runs:
            ttft_s, gap_s = runs[level.provider]
            level = replace(  # noqa: PLW2901 - refined step by step
                level,
                ttft_s=median(ttft_s),
                tokens_per_s=1.0 / median(gap_s),
                ttft_sigma=_log_spread(ttft_s),
                gap_sigma=_log_spread(gap_s),
            )
        if level.provider in fastest:
            ttft, speed = fastest[level.provider]
            level = replace(level, ttft_s=ttft, tokens_per_s=speed)  # noqa: PLW2901 - likewise
        found.append(level)
    return tuple(found)


def normal_model(name: str) -> str | None:
    """A model's name without the spelling of its provider; None for one that no two providers have."""
    found = MODEL_PATTERN.match(name.lower())
    if found is None:
        return None
    return found[4] or f"{found[1]}-{found[2]}-{found[3]}"


def fastest_rows(path: Path) -> Iterator[Mapping[str, str]]:
    """The sessions of thefastest.ai that succeeded, at providers and of models that others have too."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            provider, model = PROVIDER_OF.get(row["provider"]), normal_model(row["model"])
            if provider is not None and model is not None and not row["error"] and row["ttft_s"]:
                yield {**row, "provider": provider, "model": model}


def _fastest_levels(path: Path) -> dict[str, tuple[float, float]]:
    """Median time to first token and tokens per second of every provider's 70B models."""
    rows = [row for row in fastest_rows(path) if row["model"].endswith("70b")]
    levels = {}
    for provider in {row["provider"] for row in rows}:
        own = [row for row in rows if row["provider"] == provider]
        speeds = [float(row["tps"]) for row in own if row["tps"] and float(row["tps"]) < BUFFERED_TOKENS_PER_S]
        if speeds:
            levels[provider] = (median(float(row["ttft_s"]) for row in own), median(speeds))
    return levels


def _llmperf_runs(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Times to first token and inter-token latencies of every provider's run of the 70B model."""
    runs: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["model"].endswith("70b") and not row["error_code"] and row["ttft_s"] and row["itl_s"]:
                runs[row["provider"]][0].append(float(row["ttft_s"]))
                runs[row["provider"]][1].append(float(row["itl_s"]))
    return runs


def _log_spread(values: Sequence[float]) -> float:
    """Robust standard deviation of the logarithm."""
    logs = [math.log(value) for value in values]
    middle = median(logs)
    return SPREAD_OF_MAD * median(abs(log - middle) for log in logs)
