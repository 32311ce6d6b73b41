"""What the plots are drawn from: counts over time, summed over the seeds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from benchmarks.drift.simulate import Run
from benchmarks.drift.weathers import Weather

BEFORE_S, AFTER_S = 20.0, 60.0
"""Around an event."""
SHARE_BIN_S = 2.0
TTFT_BIN_S = 20.0
SPEED_BIN_S = 8.0
TTFT_WEATHER = Weather.ALL
SPEED_WEATHER = Weather.FAST_DRIFT
EVENT_WEATHERS = (Weather.BROWN_OUT, Weather.HANG, Weather.FAST_ERRORS, Weather.NEWCOMER)


@dataclass(frozen=True, slots=True)
class Traces:
    """Of one run, or of several together."""

    shares: Mapping[tuple[str, str], tuple[tuple[int, int], ...]] = field(default_factory=dict)
    """By weather and policy: in each bin around the event the calls of its endpoint, and all calls."""
    ttfts_s: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    """By policy: every time to first token, in bins of the time of arrival."""
    speeds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """By provider what it gives at a moment, by policy what users got; tokens per second."""


def traces(run: Run, *, draw_speeds: bool) -> Traces:
    """What the plots need of a run."""
    weather, policy = run.scene.weather, run.policy
    return Traces(
        {(weather.value, policy): _shares(run)} if weather in EVENT_WEATHERS else {},
        {policy: _ttfts_s(run)} if weather is TTFT_WEATHER else {},
        _speeds(run) if weather is SPEED_WEATHER and draw_speeds else {},
    )


def together(listed: Iterable[Traces]) -> Traces:
    """Several runs' traces as one."""
    shares: dict[tuple[str, str], list[tuple[int, int]]] = {}
    ttfts_s: dict[str, list[tuple[float, ...]]] = {}
    speeds: dict[str, tuple[float, ...]] = {}
    for one in listed:
        for key, bins in one.shares.items():
            known = shares.get(key, [(0, 0)] * len(bins))
            shares[key] = [(a + c, b + d) for (a, b), (c, d) in zip(known, bins, strict=True)]
        for policy, columns in one.ttfts_s.items():
            before = ttfts_s.get(policy, [()] * len(columns))
            ttfts_s[policy] = [(*a, *b) for a, b in zip(before, columns, strict=True)]
        speeds |= one.speeds
    return Traces(
        {key: tuple(bins) for key, bins in shares.items()},
        {policy: tuple(columns) for policy, columns in ttfts_s.items()},
        speeds,
    )


def _shares(run: Run) -> tuple[tuple[int, int], ...]:
    event = run.scene.events[0]
    bins = [[0, 0] for _ in range(int((BEFORE_S + AFTER_S) / SHARE_BIN_S))]
    for call in run.calls:
        place = math.floor((call.at_s - event.at_s + BEFORE_S) / SHARE_BIN_S)
        if call.request_number is not None and 0 <= place < len(bins):
            bins[place][0] += call.endpoint_index == event.endpoint_index
            bins[place][1] += 1
    return tuple((there, total) for there, total in bins)


def _ttfts_s(run: Run) -> tuple[tuple[float, ...], ...]:
    bins: list[list[float]] = [[] for _ in range(math.ceil(run.scene.duration_s / TTFT_BIN_S))]
    for one in run.served:
        bins[int(one.arrival_s / TTFT_BIN_S)].append(one.duration_s if one.ttft_s is None else one.ttft_s)
    return tuple(tuple(column) for column in bins)


def _speeds(run: Run) -> dict[str, tuple[float, ...]]:
    """Of every provider and of the policy, in bins."""
    count = math.floor(run.scene.duration_s / SPEED_BIN_S)
    found = {
        site.provider: tuple(
            1.0 / (site.mean_gap_s * site.weather.latency_factor((place + 0.5) * SPEED_BIN_S, in_flight_count=1))
            for place in range(count)
        )
        for site in run.scene.sites
    }
    tokens, seconds = defaultdict[int, float](float), defaultdict[int, float](float)
    for one in run.served:
        if one.ttft_s is not None and not one.failed:
            # Where the middle of its answer fell.
            place = int((one.arrival_s + (one.ttft_s + one.duration_s) / 2.0) / SPEED_BIN_S)
            tokens[place] += one.token_count - 1
            seconds[place] += one.duration_s - one.ttft_s
    got = tuple(tokens[place] / seconds[place] if seconds[place] else math.nan for place in range(count))
    return {**found, run.policy: got}
