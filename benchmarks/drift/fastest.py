"""Sparse data: thefastest.ai's real sessions, hours apart, as the only thing that the shipped router ever sees.

At each session every provider of a model was measured from a region. Before the next one each rule names the provider
with the shortest time to first token, and is charged with what that provider then took.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from statistics import fmean

from pointsman_server.catalog.catalog import Catalog, CatalogEntry
from pointsman_server.chat import Conversation, Message, Role, TextPart
from pointsman_server.decision.metrics import Metric
from pointsman_server.decision.router_string import DEFAULT_HEAD, RouterAlternative, RouterString
from pointsman_server.decision.types import Endpoint, Weights
from pointsman_server.memory import DecisionMemory
from pointsman_server.router import Router, RoutingRequest
from pointsman_server.runtime.tracker import Observation, RuntimeTracker
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.spans import Tracing

from benchmarks.drift.shipped import METHOD, SHIPPED, world_of
from benchmarks.drift.sites import MODEL, fastest_rows

WARM_UP_COUNT = 5
"""Sessions that are only watched."""
COVERAGE_MIN = 0.8
"""A provider takes part where it has this share of the sessions of the one with most."""
PROVIDER_COUNT_MIN = 3
SESSION_COUNT_MIN = 10
RECENT_COUNT = 5
TTFT_S_MIN = 0.02
"""A shorter time is a fault of the measurement: light takes as long to the provider and back."""
PATIENCE_S = 2.0
"""The shipped rules ask someone else after so long, at the earliest."""

Session = tuple[float, Mapping[str, float]]
"""When, and the time to first token of every provider, seconds."""
Rule = Callable[[Sequence[Session], float], str]
"""From the sessions so far and the time to a provider."""


@dataclass(frozen=True, slots=True)
class SparseFigures:
    """Mean time to first token over all regions and models, each in units of its best fixed provider in hindsight."""

    series_count: int
    choice_count: int
    ratio: Mapping[str, float]
    """By rule; 1.03 is 3 % more than the best fixed provider."""
    capped_ratio: Mapping[str, float]
    """The same with everything beyond `PATIENCE_S` cut to it: one session in which the provider that was always the
    fastest took ten seconds is not to be foreseen, and decides the other figure."""


def series(path: Path) -> list[list[Session]]:
    """The sessions of every region and model in which all of its regular providers were measured."""
    measured: dict[tuple[str, str], dict[str, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in fastest_rows(path):
        at_s = datetime.fromisoformat(row["time_utc"] + "+00:00").timestamp()
        if float(row["ttft_s"]) >= TTFT_S_MIN:
            measured[row["region"], row["model"]][row["provider"]][at_s] = float(row["ttft_s"])
    found: list[list[Session]] = []
    for providers in measured.values():
        most = max(len(sessions) for sessions in providers.values())
        regular = {name: own for name, own in providers.items() if len(own) >= COVERAGE_MIN * most}
        times = sorted(set.intersection(*(set(own) for own in regular.values())))
        if len(regular) >= PROVIDER_COUNT_MIN and len(times) >= SESSION_COUNT_MIN:
            found.append([(at_s, {name: own[at_s] for name, own in regular.items()}) for at_s in times])
    return found


def sparse_figures(path: Path, *, seed_count: int) -> SparseFigures:
    """Every rule over every series."""
    listed = series(path)
    capped = [
        [(at_s, {name: min(PATIENCE_S, ttft_s) for name, ttft_s in taken.items()}) for at_s, taken in sessions]
        for sessions in listed
    ]
    choice_count = sum(len(sessions) - WARM_UP_COUNT for sessions in listed)
    ratios, capped_ratios = (_ratios(every, seed_count=seed_count) for every in (listed, capped))
    return SparseFigures(len(listed), choice_count, ratios, capped_ratios)


def _ratios(listed: Sequence[Sequence[Session]], *, seed_count: int) -> dict[str, float]:
    """Mean over the series of what each rule took, in units of the best fixed provider."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for sessions in listed:
        judged = sessions[WARM_UP_COUNT:]
        best = min(fmean(taken[name] for _, taken in judged) for name in judged[0][1])
        for name, rule in (("last benchmark", _last), (f"mean of the last {RECENT_COUNT}", _recent), ("random", _any)):
            ratios[name].append(_mean_ttft_s(sessions, rule) / best)
        shipped = [_mean_ttft_s(sessions, Watching(sessions[0][1], seed=seed)) for seed in range(seed_count)]
        ratios[SHIPPED].append(fmean(shipped) / best)
    return {name: fmean(values) for name, values in ratios.items()}


def _mean_ttft_s(sessions: Sequence[Session], rule: Rule) -> float:
    taken_s = []
    for number, (at_s, taken) in enumerate(sessions):
        chosen = rule(sessions[:number], at_s - 1.0)
        if number >= WARM_UP_COUNT:
            taken_s.append(taken[chosen])
    return fmean(taken_s)


def _last(known: Sequence[Session], now_s: float) -> str:
    del now_s
    return min(known[-1][1], key=known[-1][1].__getitem__) if known else ""


def _recent(known: Sequence[Session], now_s: float) -> str:
    del now_s
    if not known:
        return ""
    recent = known[-RECENT_COUNT:]
    return min(known[-1][1], key=lambda name: fmean(taken[name] for _, taken in recent))


def _any(known: Sequence[Session], now_s: float) -> str:
    return Random(now_s).choice(sorted(known[-1][1])) if known else ""


class Watching:
    """The shipped router, told of every session as of calls that others made."""

    def __init__(self, providers: Mapping[str, float], *, seed: int) -> None:
        self._now_s = 0.0
        self._told = 0
        random = Random(seed)
        catalog = Catalog.of(
            CatalogEntry(endpoint=Endpoint(MODEL, name), upstream_model=MODEL, quality_model=MODEL)
            for name in providers
        )
        self._router = Router(
            world_of(catalog, {}, Weights.of({Metric.TTFT: 1.0})),
            tracker=RuntimeTracker(),
            memory=DecisionMemory(1000),
            metrics=Metrics(None),
            clock_s=lambda: self._now_s,
            sleep=asyncio.sleep,
            new_decision_id=lambda: str(random.getrandbits(63)),
            new_seed=lambda: random.getrandbits(63),
        )
        self._tracing = Tracing(None, unix_ns=None)

    def __call__(self, known: Sequence[Session], now_s: float) -> str:
        """The provider that it chooses."""
        for at_s, taken in known[self._told :]:
            for name, ttft_s in taken.items():
                self._router.tracker.observe(
                    Observation(f"{MODEL}@{name}", ttft_s=ttft_s, duration_s=ttft_s), now_s=at_s
                )
        self._told = len(known)
        self._now_s = now_s
        asked = RoutingRequest(
            conversation=Conversation((Message(Role.USER, (TextPart("0:1:"),)),)),
            asked=RouterString((RouterAlternative(DEFAULT_HEAD),)),
            overlay=RouterAlternative(DEFAULT_HEAD),
        )
        decided = self._router.route(asked, self._tracing.request(METHOD, ()))
        chosen = decided.decision.chosen
        assert chosen is not None, "nothing is bounded, so something is chosen"
        return chosen.endpoint.provider
