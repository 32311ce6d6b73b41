"""The named weather: what happens to the endpoints of a run, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pointsman_server.providers.weather import (
    Draws,
    LoadResponse,
    Outage,
    OutageKind,
    RateLimit,
    RegimeChange,
    Wave,
)

from benchmarks.drift.sites import KNEE_COUNT, SLOPE, FailureWindow, Site
from benchmarks.drift.truth import expected_s

TYPICAL_INPUT_COUNT, TYPICAL_OUTPUT_COUNT = 1000, 200.0
"""Of the requests by which endpoints are ranked; the means of the conversations that are replayed."""
BROWN_OUT_FACTOR = 6.0
SLOW_DOWN_FACTOR = 1.6
ERROR_SHARE = 0.4
BREAK_SHARE = 0.15
NEWCOMER_SHARE = 0.6
"""What the endpoint that becomes the best costs, of what the best one costs."""
LIMIT_PER_S, LIMIT_BURST = 1.5, 4
DRIFT_FACTOR = 1.45
DRIFT_PERIOD_S = 100.0
"""The shortest. Who knew everything 10 s late would pay 3 to 5 % for it, 20 s late 10 to 17 %; with 40 s instead, being
late by 5 s alone would cost 6 to 11 %, and answers take about as long."""
CONVERSATIONS, LONG_CONVERSATIONS = "azure2023_conv_arrivals.csv", "mooncake_conversation_arrivals.csv"
WARM_UP_S = 60.0
"""Everyone starts without knowing anything, as a server does once in its life: what it knows survives a restart. Figures
begin here, but for the one about the start itself; so do events."""


class Weather(StrEnum):
    """What a run is called in the results."""

    STEADY = "steady"
    BROWN_OUT = "brown-out"
    HANG = "hang"
    FAST_ERRORS = "fast errors"
    NEWCOMER = "newly best"
    SLOW_DOWN = "slow-down"
    REGIMES = "regimes"
    RATE_LIMITS = "rate limits"
    LOAD = "load"
    HERD = "herd"
    ALL = "all"
    FAST_DRIFT = "fast drift"
    DAY_NIGHT = "day and night"
    BREAKS = "breaks"
    REGION = "region outage"
    LONG_PROMPTS = "long prompts"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that is done to one endpoint, by which reactions are timed."""

    weather: Weather
    """Of what kind."""
    at_s: float
    to_s: float
    endpoint_index: int


@dataclass(frozen=True, slots=True)
class Scene:
    """The endpoints of one run, with everything that will happen."""

    weather: Weather
    sites: tuple[Site, ...]
    duration_s: float
    """In which requests come; the first `WARM_UP_S` of it are not judged."""
    events: tuple[Event, ...] = ()
    replica_count: int = 1
    trace: str = CONVERSATIONS


DESCRIPTIONS: dict[Weather, str] = {
    Weather.STEADY: "nothing happens",
    Weather.BROWN_OUT: f"the best endpoint takes {BROWN_OUT_FACTOR:g} times as long for a while",
    Weather.HANG: "the best endpoint sends nothing any more for a while, and keeps connections open",
    Weather.FAST_ERRORS: f"{ERROR_SHARE:.0%} of the best endpoint's calls fail at once for a while",
    Weather.NEWCOMER: f"the worst endpoint comes to cost {NEWCOMER_SHARE:.0%} of what the best one costs",
    Weather.SLOW_DOWN: f"the best endpoint takes {SLOW_DOWN_FACTOR:g} times as long from some moment on",
    Weather.REGIMES: "brown-out, hang, fast errors, newly best and slow-down, one after the other",
    Weather.RATE_LIMITS: f"every endpoint lets {LIMIT_PER_S:g} requests a second through, {LIMIT_BURST} at once",
    Weather.LOAD: f"beyond {KNEE_COUNT} calls every endpoint gets slower by {SLOPE:.0%} with each",
    Weather.HERD: "load, and four replicas of the gateway that know no more of each other than how many they are",
    Weather.ALL: "load, rate limits, drift, brown-out, hang, fast errors and slow-down, two replicas",
    Weather.FAST_DRIFT: f"every endpoint swings by itself, with periods of {DRIFT_PERIOD_S:g} to 500 s",
    Weather.DAY_NIGHT: "the two best endpoints swap their places slowly and back",
    Weather.BREAKS: f"{BREAK_SHARE:.0%} of the best endpoint's answers break off midway for a while",
    Weather.REGION: "all endpoints of the best one's region reset their connections for a while",
    Weather.LONG_PROMPTS: "nothing happens, and prompts have 7,000 tokens in the middle (Mooncake's arrivals)",
}


def ranked(sites: Sequence[Site], now_s: float = 0.0) -> list[int]:
    """Indices of the sites, the one that costs a typical request least first."""
    return sorted(
        range(len(sites)),
        key=lambda index: expected_s(sites[index], TYPICAL_INPUT_COUNT, TYPICAL_OUTPUT_COUNT, now_s),
    )


def scene(weather: Weather, sites: Sequence[Site], *, seed: int, duration_s: float) -> Scene:
    """The scene of a named weather over these sites."""
    return SCENES[weather](weather, list(sites), seed, duration_s)


def _eventless(weather: Weather, sites: list[Site], seed: int, duration_s: float) -> Scene:
    del seed
    trace = LONG_CONVERSATIONS if weather is Weather.LONG_PROMPTS else CONVERSATIONS
    return Scene(weather, tuple(sites), duration_s, trace=trace)


def _one_event(weather: Weather, sites: list[Site], seed: int, duration_s: float) -> Scene:
    del seed
    judged_s = duration_s - WARM_UP_S
    event = happen(weather, sites, from_s=WARM_UP_S + 0.3 * judged_s, to_s=WARM_UP_S + 0.65 * judged_s)
    return Scene(weather, tuple(sites), duration_s, (event,))


def _regimes(weather: Weather, sites: list[Site], seed: int, duration_s: float) -> Scene:
    del seed
    events = _sequence(sites, REGIME_KINDS, duration_s)
    return Scene(weather, tuple(sites), duration_s, events)


REGIME_KINDS = (Weather.BROWN_OUT, Weather.HANG, Weather.FAST_ERRORS, Weather.NEWCOMER, Weather.SLOW_DOWN)


def _sequence(sites: list[Site], kinds: Sequence[Weather], duration_s: float) -> tuple[Event, ...]:
    """Events of these kinds one after the other, with a pause after each."""
    slot_s = (duration_s - WARM_UP_S) / (len(kinds) + 0.3)
    return tuple(
        happen(kind, sites, from_s=WARM_UP_S + (index + 0.2) * slot_s, to_s=WARM_UP_S + (index + 0.8) * slot_s)
        for index, kind in enumerate(kinds)
    )


def happen(kind: Weather, sites: list[Site], *, from_s: float, to_s: float) -> Event:
    """Puts an event of this kind into the sites, at the one that is then the best; the newcomer at the worst."""
    order = ranked(sites, from_s)
    struck = order[-1] if kind is Weather.NEWCOMER else order[0]
    site = sites[struck]
    match kind:
        case Weather.BROWN_OUT:
            sites[struck] = site.with_drift(
                RegimeChange(at_s=from_s, factor=BROWN_OUT_FACTOR), RegimeChange(at_s=to_s, factor=1 / BROWN_OUT_FACTOR)
            )
        case Weather.SLOW_DOWN:
            sites[struck] = site.with_drift(RegimeChange(at_s=from_s, factor=SLOW_DOWN_FACTOR))
        case Weather.NEWCOMER:
            costs = [
                expected_s(sites[index], TYPICAL_INPUT_COUNT, TYPICAL_OUTPUT_COUNT, from_s)
                for index in (order[0], struck)
            ]
            sites[struck] = site.with_drift(RegimeChange(at_s=from_s, factor=NEWCOMER_SHARE * costs[0] / costs[1]))
        case Weather.HANG:
            sites[struck] = site.with_outage(Outage(from_s=from_s, to_s=to_s, kind=OutageKind.HANG))
        case Weather.FAST_ERRORS:
            sites[struck] = site.with_failures(FailureWindow(from_s, to_s, error_rate=ERROR_SHARE))
        case Weather.BREAKS:
            sites[struck] = site.with_failures(FailureWindow(from_s, to_s, break_rate=BREAK_SHARE))
        case Weather.REGION:
            for index, other in enumerate(sites):
                if other.region == site.region:
                    sites[index] = other.with_outage(Outage(from_s=from_s, to_s=to_s, kind=OutageKind.RESET))
        case _:
            msg = f"{kind} is no event"
            raise AssertionError(msg)
    return Event(kind, from_s, to_s, struck)


def _limits(weather: Weather, sites: list[Site], seed: int, duration_s: float) -> Scene:
    del seed
    limit = RateLimit(requests_per_s=LIMIT_PER_S, burst=LIMIT_BURST)
    return Scene(weather, tuple(site.with_limit(limit) for site in sites), duration_s)


def _load(weather: Weather, sites: list[Site], seed: int, duration_s: float) -> Scene:
    del seed
    loaded = tuple(site.with_load(LoadResponse(knee_count=KNEE_COUNT, slope=SLOPE)) for site in sites)
    return Scene(weather, loaded, duration_s, replica_count=4 if weather is Weather.HERD else 1)


def _all(weather: Weather, sites: list[Site], seed: int, duration_s: float) -> Scene:
    limit = RateLimit(requests_per_s=2.0 * LIMIT_PER_S, burst=2 * LIMIT_BURST)
    load = LoadResponse(knee_count=KNEE_COUNT, slope=SLOPE)
    busy = [site.with_load(load).with_limit(limit).with_drift(*_swings(seed, site, 300.0, 1.2)) for site in sites]
    kinds = (Weather.BROWN_OUT, Weather.HANG, Weather.FAST_ERRORS, Weather.SLOW_DOWN)
    events = _sequence(busy, kinds, duration_s)
    return Scene(weather, tuple(busy), duration_s, events, replica_count=2)


def _fast_drift(weather: Weather, sites: list[Site], seed: int, duration_s: float) -> Scene:
    drifting = tuple(site.with_drift(*_swings(seed, site, DRIFT_PERIOD_S, DRIFT_FACTOR)) for site in sites)
    return Scene(weather, drifting, duration_s)


def _swings(seed: int, site: Site, period_s: float, factor: float) -> tuple[Wave, ...]:
    """Three waves whose periods have nothing in common, which to a router look like chance."""
    draws = Draws(seed, "swings", site.provider)
    return tuple(
        Wave(period_s=period_s * scale * (0.8 + 0.4 * draws.uniform()), factor=factor, phase=draws.uniform())
        for scale in (1.0, 2.3, 4.6)
    )


def _day_night(weather: Weather, sites: list[Site], seed: int, duration_s: float) -> Scene:
    del seed
    for place, index in enumerate(ranked(sites)[:2]):
        sites[index] = sites[index].with_drift(Wave(period_s=duration_s, factor=1.8, phase=0.5 * place))
    return Scene(weather, tuple(sites), duration_s)


SCENES: dict[Weather, Callable[[Weather, list[Site], int, float], Scene]] = {
    Weather.STEADY: _eventless,
    Weather.BROWN_OUT: _one_event,
    Weather.HANG: _one_event,
    Weather.FAST_ERRORS: _one_event,
    Weather.NEWCOMER: _one_event,
    Weather.SLOW_DOWN: _one_event,
    Weather.REGIMES: _regimes,
    Weather.RATE_LIMITS: _limits,
    Weather.LOAD: _load,
    Weather.HERD: _load,
    Weather.ALL: _all,
    Weather.FAST_DRIFT: _fast_drift,
    Weather.DAY_NIGHT: _day_night,
    Weather.BREAKS: _one_event,
    Weather.REGION: _one_event,
    Weather.LONG_PROMPTS: _eventless,
}
