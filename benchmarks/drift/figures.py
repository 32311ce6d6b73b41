"""What is read off the runs: regret, reaction times, errors, latencies, load."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from benchmarks.drift.simulate import Run
from benchmarks.drift.weathers import Event, Weather

REACTION_WINDOW_S = 10.0
"""Shares of traffic are taken over windows of this length."""
LEFT_SHARE = 0.1
"""An endpoint is left once less than this share of the traffic goes there."""
ADOPTED_SHARE = 0.5
"""An endpoint is adopted once at least this share of the traffic goes there."""
SETTLED_S = 2.0
"""A window needs so much of its time left before the event ends, to say anything."""
THERE_SHARE = 0.3
"""Of the traffic before an event: with less a policy was not at the endpoint."""


@dataclass(frozen=True, slots=True)
class Reaction:
    """How long it took to leave, or to adopt, the endpoint to which something happened."""

    weather: str
    """The kind of the event."""
    after_s: float | None
    """None: not before the event was over, or before the run's end."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One policy under one weather with one seed."""

    weather: str
    seed: int
    policy: str
    request_count: int
    mean_cost_s: float
    regret: float
    """Cost beyond the oracle's, as a share of it."""
    cold_regret: float
    """The same of the first minute, when nothing is known yet."""
    error_share: float
    """Requests that ended without a token, 0..1."""
    broken_share: float
    """Requests whose answer broke off, 0..1."""
    ttft_s_p50: float
    ttft_s_p99: float
    ttft_p99_ratio: float
    """To the oracle's."""
    load_p99: float
    """Calls under way over capacity."""
    load_p99_ratio: float
    """To the oracle's."""
    limited_share: float
    """Calls that were answered with 429, 0..1."""
    hedge_share: float
    """Second calls beside a first one, per request."""
    probe_token_share: float
    reactions: tuple[Reaction, ...]


def figures(run: Run, oracle: Run, *, seed: int) -> Figures:
    """The figures of a run, held against the oracle's in the same weather."""
    served = run.judged
    ttft_s_p99, load_p99 = _ttft_s(run, 0.99), _quantile(run.loads, 0.99)
    return Figures(
        weather=run.scene.weather.value,
        seed=seed,
        policy=run.policy,
        request_count=len(served),
        mean_cost_s=run.mean_cost_s,
        regret=run.mean_cost_s / oracle.mean_cost_s - 1.0,
        cold_regret=run.cold_cost_s / oracle.cold_cost_s - 1.0,
        error_share=sum(one.failed and not one.broke for one in served) / len(served),
        broken_share=sum(one.broke for one in served) / len(served),
        ttft_s_p50=_ttft_s(run, 0.5),
        ttft_s_p99=ttft_s_p99,
        ttft_p99_ratio=ttft_s_p99 / _ttft_s(oracle, 0.99),
        load_p99=load_p99,
        load_p99_ratio=load_p99 / max(1e-9, _quantile(oracle.loads, 0.99)),
        limited_share=run.limited_count / len(run.calls),
        hedge_share=sum(call.is_hedge for call in run.calls) / len(run.served),
        probe_token_share=run.probe_token_share,
        reactions=reactions(run),
    )


def _ttft_s(run: Run, share: float) -> float:
    """A quantile over all requests; one without a token waited for as long as it lasted."""
    return _quantile([one.duration_s if one.ttft_s is None else one.ttft_s for one in run.judged], share)


def _quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so many of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


def reactions(run: Run) -> tuple[Reaction, ...]:
    """How the policy reacted to each event. Who was hardly at an endpoint before can't leave it, and has no reaction."""
    return tuple(
        Reaction(event.weather.value, reaction_s(run, event))
        for event in run.scene.events
        if event.weather is Weather.NEWCOMER or _share_before(run, event) >= THERE_SHARE
    )


def _share_before(run: Run, event: Event) -> float:
    before = [
        call.endpoint_index == event.endpoint_index
        for call in run.calls
        if event.at_s - REACTION_WINDOW_S <= call.at_s < event.at_s
    ]
    return fmean(before) if before else 0.0


def reaction_s(run: Run, event: Event) -> float | None:
    """Time from an event until its endpoint has lost, or for a newcomer won, the traffic of the following seconds."""
    wanted = event.weather is Weather.NEWCOMER
    end_s = run.scene.duration_s if wanted else event.to_s
    inside = [
        (call.at_s, call.endpoint_index == event.endpoint_index)
        for call in run.calls
        if call.request_number is not None and event.at_s <= call.at_s < end_s
    ]
    # The share can only come to be right behind a call that makes it wrong.
    moments = [event.at_s, *(math.nextafter(at_s, math.inf) for at_s, there in inside if there != wanted)]
    for moment in moments:
        window = [there for at_s, there in inside if moment <= at_s < moment + REACTION_WINDOW_S]
        if moment + SETTLED_S > end_s or not window:
            break
        share = fmean(window)
        if (share >= ADOPTED_SHARE) if wanted else (share < LEFT_SHARE):
            return moment - event.at_s
    return None


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians over the seeds of one policy under one weather, with the lowest and the highest."""

    weather: str
    policy: str
    regret: float
    regret_low: float
    regret_high: float
    cold_regret: float
    error_share: float
    """Mean over the seeds, as for the other shares of what is rare."""
    broken_share: float
    ttft_p99_ratio: float
    load_p99_ratio: float
    limited_share: float
    hedge_share: float
    probe_token_share: float
    reactions_s: Mapping[str, float | None]
    """Median by kind of event; None when most runs never reacted, missing where the policy was never there."""


def summaries(found: Sequence[Figures]) -> list[Summary]:
    """Medians over the seeds."""
    groups: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    for one in found:
        groups[one.weather, one.policy].append(one)
    return [_summary(weather, policy, group) for (weather, policy), group in groups.items()]


def _summary(weather: str, policy: str, group: Sequence[Figures]) -> Summary:
    times_s: dict[str, list[float]] = defaultdict(list)
    for one in group:
        for reaction in one.reactions:
            times_s[reaction.weather].append(math.inf if reaction.after_s is None else reaction.after_s)
    medians = {kind: median(times) for kind, times in times_s.items()}
    return Summary(
        weather,
        policy,
        median(one.regret for one in group),
        min(one.regret for one in group),
        max(one.regret for one in group),
        median(one.cold_regret for one in group),
        fmean(one.error_share for one in group),
        fmean(one.broken_share for one in group),
        median(one.ttft_p99_ratio for one in group),
        median(one.load_p99_ratio for one in group),
        fmean(one.limited_share for one in group),
        fmean(one.hedge_share for one in group),
        fmean(one.probe_token_share for one in group),
        {kind: None if math.isinf(value) else value for kind, value in medians.items()},
    )
