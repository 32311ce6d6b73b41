"""The weather of simulated providers: what its parts promise."""

from __future__ import annotations

import math
from statistics import fmean, median, stdev

import pytest
from pointsman_server.providers.weather import (
    Draws,
    Duration,
    EndpointWeather,
    LoadResponse,
    Outage,
    OutageKind,
    RegimeChange,
    Wave,
    demo_weather,
    outage_at,
)

QUICK = Duration(median_s=0.1, sigma=0.0)


def test_draws_depend_on_their_key_alone() -> None:
    """The same key gives the same numbers, another one others, and no stream disturbs another."""
    first, second, other = Draws(1, "a"), Draws(1, "a"), Draws(1, "b")
    drawn = [first.uniform() for _ in range(5)]
    others = [other.uniform() for _ in range(5)]
    assert [second.uniform() for _ in range(5)] == drawn
    assert others != drawn
    assert Draws(2, "a").uniform() != drawn[0]


def test_draws_are_uniform_and_normal() -> None:
    """Moments of 20,000 draws are those of the distributions; numbers stay within the open interval."""
    draws = Draws("moments")
    uniforms = [draws.uniform() for _ in range(20_000)]
    normals = [draws.normal() for _ in range(20_000)]
    assert all(0.0 < number < 1.0 for number in uniforms)
    assert fmean(uniforms) == pytest.approx(0.5, abs=0.01)
    assert stdev(uniforms) == pytest.approx(math.sqrt(1 / 12), abs=0.01)
    assert fmean(normals) == pytest.approx(0.0, abs=0.03)
    assert stdev(normals) == pytest.approx(1.0, abs=0.03)
    assert {draws.index(3) for _ in range(100)} == {0, 1, 2}


def test_a_duration_has_its_median() -> None:
    """Half of the draws are shorter."""
    draws = Draws("median")
    drawn = [Duration(median_s=0.2, sigma=0.5).draw(draws) for _ in range(10_000)]
    assert median(drawn) == pytest.approx(0.2, rel=0.03)


def test_latency_drifts_and_answers_to_load() -> None:
    """A wave swings, a regime change holds, load counts beyond the knee, and all of them multiply."""
    weather = EndpointWeather(
        model="m",
        ttft_s=QUICK,
        inter_token_latency_s=QUICK,
        drifts=(Wave(period_s=100.0, factor=2.0), RegimeChange(at_s=1000.0, factor=3.0)),
        load=LoadResponse(knee_count=4, slope=0.5),
    )
    assert weather.latency_factor(0.0, in_flight_count=4) == pytest.approx(1.0)
    assert weather.latency_factor(25.0, in_flight_count=0) == pytest.approx(2.0)
    assert weather.latency_factor(75.0, in_flight_count=0) == pytest.approx(0.5)
    assert weather.latency_factor(0.0, in_flight_count=6) == pytest.approx(2.0)
    assert weather.latency_factor(1025.0, in_flight_count=6) == pytest.approx(12.0)


def test_an_outage_has_a_beginning_and_an_end() -> None:
    """It holds from its first moment until just before its last."""
    outages = (Outage(from_s=10.0, to_s=20.0, kind=OutageKind.HANG),)
    kinds = [outage_at(outages, now_s) for now_s in (9.9, 10.0, 19.9, 20.0)]
    assert kinds == [None, OutageKind.HANG, OutageKind.HANG, None]


def test_the_demo_has_variety() -> None:
    """Four providers whose names say that they are simulated, six endpoints or more, some models at several providers."""
    weather = demo_weather()
    models = [endpoint.model for provider in weather for endpoint in provider.endpoints]
    assert len(weather) >= 4
    assert all(provider.name.startswith("sim-") for provider in weather)
    assert len(models) >= 6
    assert len(models) > len(set(models))
