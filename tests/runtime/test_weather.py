"""The tracker in named weather: virtual clock, seeded; a failure prints its seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from pointsman_server.decision.types import BreakerState, EndpointRuntime
from pointsman_server.errors import UpstreamErrorKind
from pointsman_server.runtime.tracker import RuntimeTracker

NAME = "small@north"
SEEDS = range(8)
TTFT_S = 0.4
GAP_S = 0.02
INTERVAL_S = 0.5
"""Between two calls: a modest load of two calls a second."""


@dataclass(frozen=True)
class Weather:
    """What an endpoint is like for a while."""

    ttft_s: float = TTFT_S
    error_share: float = 0.0
    error_after_s: float = 0.01


FAIR = Weather()
DEAD = Weather(error_share=1.0)
FLAKY = Weather(error_share=0.4)
SLOW = Weather(ttft_s=4.0)


class Simulation:
    """One endpoint under load. Callers obey the breaker, as the router does."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.tracker = RuntimeTracker()
        self.now_s = 1000.0
        self.call_count = 0
        """Calls that were made: an open breaker holds the others back."""

    def step(self, weather: Weather) -> EndpointRuntime:
        """One interval: a call, if the endpoint may be called. The state afterwards."""
        self.now_s += INTERVAL_S
        if self.tracker.snapshot(self.now_s).of(NAME).breaker is not BreakerState.OPEN:
            self.call(weather)
        return self.tracker.snapshot(self.now_s).of(NAME)

    def call(self, weather: Weather) -> None:
        """One call. The clock stays with the caller: calls overlap, but end in the order of their starts."""
        self.call_count += 1
        started_s = self.now_s
        attempt = self.tracker.start(NAME, input_token_count=500, now_s=started_s)
        if self.rng.random() < weather.error_share:
            attempt.fail(UpstreamErrorKind.SERVER_ERROR, retry_after_s=None, now_s=started_s + weather.error_after_s)
            return
        first_s = started_s + self.rng.lognormvariate(0.0, 0.4) * weather.ttft_s
        attempt.first_token(first_s)
        token_count = self.rng.randint(50, 500)
        gap_s = self.rng.lognormvariate(0.0, 0.2) * GAP_S
        attempt.succeed(output_token_count=token_count, now_s=first_s + gap_s * (token_count - 1))

    def run(self, weather: Weather, *, step_count: int) -> Iterator[EndpointRuntime]:
        """The state after each of so many intervals."""
        return (self.step(weather) for _ in range(step_count))

    def settled(self) -> EndpointRuntime:
        """The state after two minutes of fair weather."""
        return list(self.run(FAIR, step_count=240))[-1]


def ttft_p50(runtime: EndpointRuntime) -> float:
    """The median time to first token, which must be known."""
    assert runtime.ttft_s is not None
    return runtime.ttft_s.p50


@pytest.mark.parametrize("seed", SEEDS)
def test_cold_start(seed: int) -> None:
    """Ten calls are enough to know a new endpoint's latencies within a third, and its breaker stays closed."""
    runtime = list(Simulation(seed).run(FAIR, step_count=10))[-1]
    assert runtime.inter_token_latency_s is not None
    assert ttft_p50(runtime) == pytest.approx(TTFT_S, rel=0.4), f"seed {seed}"
    assert runtime.inter_token_latency_s.p50 == pytest.approx(GAP_S, rel=0.33), f"seed {seed}"
    assert runtime.breaker is BreakerState.CLOSED


@pytest.mark.parametrize("seed", SEEDS)
def test_slow_middle(seed: int) -> None:
    """A brown-out to ten times the latency is seen within ten calls, and its end within fifteen."""
    simulation = Simulation(seed)
    simulation.settled()
    slow = list(simulation.run(SLOW, step_count=10))[-1]
    assert ttft_p50(slow) > 0.5 * SLOW.ttft_s, f"seed {seed}"
    list(simulation.run(SLOW, step_count=100))
    recovered = list(simulation.run(FAIR, step_count=15))[-1]
    assert ttft_p50(recovered) < 2.0 * TTFT_S, f"seed {seed}"
    assert recovered.ttft_s is not None
    assert recovered.ttft_s.p95 < SLOW.ttft_s, f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_brief_outage(seed: int) -> None:
    """An outage costs five calls; within eight seconds of its end the endpoint is back, as fast as before."""
    simulation = Simulation(seed)
    before = simulation.settled()
    call_count = simulation.call_count
    during = list(simulation.run(DEAD, step_count=12))
    assert during[4].breaker is BreakerState.OPEN, f"seed {seed}"
    assert simulation.call_count - call_count == 5, f"seed {seed}"
    after = list(simulation.run(FAIR, step_count=16))[-1]
    assert after.breaker is BreakerState.CLOSED, f"seed {seed}"
    assert ttft_p50(after) == pytest.approx(ttft_p50(before), rel=0.5), f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_dead_provider(seed: int) -> None:
    """A provider that never comes back costs five calls and then one in ten seconds at the most: under seventy in ten minutes."""
    simulation = Simulation(seed)
    simulation.settled()
    call_count = simulation.call_count
    states = {runtime.breaker for runtime in list(simulation.run(DEAD, step_count=1200))[5:]}
    assert BreakerState.CLOSED not in states, f"seed {seed}"
    assert simulation.call_count - call_count < 70, f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_forty_percent_fast_errors(seed: int) -> None:
    """Fast errors in two of five calls come to cost seconds within twenty calls; after them the breaker is closed."""
    simulation = Simulation(seed)
    before = simulation.settled()
    states = list(simulation.run(FLAKY, step_count=40))
    assert before.ttft_s is not None
    means = [runtime.ttft_s.mean for runtime in states[:20] if runtime.ttft_s is not None]
    assert max(means) > before.ttft_s.mean + 2.0, f"seed {seed}"
    calm = list(simulation.run(FAIR, step_count=300))
    assert calm[-1].breaker is BreakerState.CLOSED, f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_fair_weather(seed: int) -> None:
    """With one call in a hundred failing, the breaker stays closed for half an hour and the error rate is known."""
    runtimes = list(Simulation(seed).run(Weather(error_share=0.01), step_count=3600))
    assert {runtime.breaker for runtime in runtimes} == {BreakerState.CLOSED}, f"seed {seed}"
    rates = [runtime.error_rate for runtime in runtimes if runtime.error_rate is not None]
    assert sum(rates) / len(rates) == pytest.approx(0.01, abs=0.01), f"seed {seed}"
