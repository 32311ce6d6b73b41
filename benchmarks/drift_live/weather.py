"""The providers and what happens to them: one model at four, a brown-out of the best, then a hang of it."""

from __future__ import annotations

from dataclasses import dataclass

from pointsman_server.providers.weather import (
    Duration,
    EndpointWeather,
    Outage,
    OutageKind,
    ProviderWeather,
    RegimeChange,
)

MODEL = "m"
TTFT_S = {"first": 0.25, "second": 0.4, "third": 0.6, "fourth": 0.9}
"""Median by provider: three of them are a choice that a user would notice."""
TTFT_SIGMA = 0.2
"""Within a run the real traces have a median deviation of 0.05 to 0.25 of the logarithm."""
GAP_S = 0.008
OUTPUT_TOKEN_COUNT = 40.0
"""Short answers, so that minutes hold many; what is compared is mostly the wait for the first token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """When what happens to the first provider, seconds from the start of the load."""

    slow_from_s: float = 50.0
    slow_to_s: float = 110.0
    slow_factor: float = 8.0
    hang_from_s: float = 150.0
    hang_to_s: float = 190.0
    end_s: float = 230.0

    def phases(self) -> tuple[tuple[str, float, float], ...]:
        """Name, beginning and end of each phase."""
        return (
            ("calm", 0.0, self.slow_from_s),
            ("brown-out", self.slow_from_s, self.slow_to_s),
            ("calm again", self.slow_to_s, self.hang_from_s),
            ("hang", self.hang_from_s, self.hang_to_s),
            ("calm at last", self.hang_to_s, self.end_s),
        )


def weather(timeline: Timeline) -> tuple[ProviderWeather, ...]:
    """The simulated providers, whose clock starts with the load."""
    slow = (
        RegimeChange(at_s=timeline.slow_from_s, factor=timeline.slow_factor),
        RegimeChange(at_s=timeline.slow_to_s, factor=1.0 / timeline.slow_factor),
    )
    hang = (Outage(from_s=timeline.hang_from_s, to_s=timeline.hang_to_s, kind=OutageKind.HANG),)
    return tuple(
        ProviderWeather(
            name=name,
            endpoints=(
                EndpointWeather(
                    model=MODEL,
                    ttft_s=Duration(median_s=ttft_s, sigma=TTFT_SIGMA),
                    inter_token_latency_s=Duration(median_s=GAP_S, sigma=0.2),
                    drifts=slow if name == "first" else (),
                    output_token_count_mean=OUTPUT_TOKEN_COUNT,
                ),
            ),
            outages=hang if name == "first" else (),
        )
        for name, ttft_s in TTFT_S.items()
    )
