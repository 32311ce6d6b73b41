"""The results as pages: for programs, for people, and the section of docs/runtime.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from benchmarks.drift.fastest import PATIENCE_S, SparseFigures
from benchmarks.drift.figures import Figures, Summary
from benchmarks.drift.policies import BASELINES
from benchmarks.drift.shipped import SHIPPED
from benchmarks.drift.simulate import ORACLE
from benchmarks.drift.sites import ASSUMPTIONS
from benchmarks.drift.speed import REPEAT_COUNT, ROUND_COUNT, DecisionSpeed
from benchmarks.drift.truth import ERROR_PRICE_S
from benchmarks.drift.weathers import DESCRIPTIONS, Weather
from benchmarks.harness.machine import Machine

MAIN = (Weather.STEADY, Weather.REGIMES, Weather.LOAD, Weather.ALL)
PEERS = ("LiteLLM latency-based", "LiteLLM least-busy", "P2C peak-EWMA", "Thompson sampling")


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that was measured."""

    machine: Machine
    seeds: tuple[int, ...]
    traces_from: str
    """Where arrivals and levels came from."""
    seconds: float
    figures: tuple[Figures, ...]
    summaries: tuple[Summary, ...]
    sparse: SparseFigures | None
    """None without the data."""
    speed: DecisionSpeed

    def of(self, weather: Weather, policy: str = SHIPPED) -> Summary | None:
        """The summary of one policy under one weather; None where that was not run."""
        return next((s for s in self.summaries if (s.weather, s.policy) == (weather.value, policy)), None)


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure that is promised."""

    name: str
    value: float | None
    """None: it never happened. Not a number: it could not be measured."""
    value_max: float
    aim: float
    unit: str
    """What a value is shown in: %, s, x or us."""
    peers: Mapping[str, float | None]

    @property
    def holds(self) -> bool:
        """Whether the figure is within the bar."""
        return self.value is not None and self.value <= self.value_max


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A figure of the table, and how it is read off the summaries."""

    name: str
    weathers: tuple[Weather, ...]
    read: Callable[[Summary], float | None]
    value_max: float
    aim: float
    unit: str
    pooled: Callable[[Sequence[float]], float] = max
    """Of several weathers."""

    def of(self, results: Results, policy: str) -> float | None:
        """The figure of a policy; None when it never happened."""
        found = [self.read(one) for weather in self.weathers if (one := results.of(weather, policy)) is not None]
        known = [value for value in found if value is not None]
        return self.pooled(known) if known and len(known) == len(found) else None


def _regret(weather: Weather, value_max: float, aim: float) -> Promise:
    return Promise(
        name=f"cost beyond the oracle's: {weather}",
        weathers=(weather,),
        read=lambda summary: summary.regret,
        value_max=value_max,
        aim=aim,
        unit="%",
    )


def _reaction(name: str, weather: Weather, value_max: float, aim: float) -> Promise:
    return Promise(
        name=name,
        weathers=(weather,),
        read=lambda summary: summary.reactions_s.get(weather.value, math.nan),
        value_max=value_max,
        aim=aim,
        unit="s",
    )


PROMISES = (
    *(_regret(weather, 0.05, 0.03) for weather in MAIN),
    _regret(Weather.FAST_DRIFT, 0.08, 0.05),
    _reaction("time to leave a brown-out", Weather.BROWN_OUT, 5.0, 3.0),
    _reaction("time to leave a hang", Weather.HANG, 5.0, 2.0),
    _reaction("time to adopt an endpoint that became best", Weather.NEWCOMER, 60.0, 30.0),
    _reaction("time to leave an endpoint with 40 % fast errors", Weather.FAST_ERRORS, 10.0, 5.0),
    Promise(
        name="errors before the first token, mean of all weathers",
        weathers=tuple(Weather),
        read=lambda summary: summary.error_share,
        value_max=1e-4,
        aim=0.0,
        unit="%",
        pooled=fmean,
    ),
    Promise(
        name="p99 TTFT against the oracle's, worst of the four",
        weathers=MAIN,
        read=lambda summary: summary.ttft_p99_ratio,
        value_max=1.35,
        aim=1.15,
        unit="x",
    ),
    Promise(
        name="herd: p99 of calls over capacity against the oracle's",
        weathers=(Weather.HERD,),
        read=lambda summary: summary.load_p99_ratio,
        value_max=1.15,
        aim=1.05,
        unit="x",
    ),
    Promise(
        name="calls answered with 429, worst weather",
        weathers=tuple(Weather),
        read=lambda summary: summary.limited_share,
        value_max=0.01,
        aim=0.01,
        unit="%",
    ),
    Promise(
        name="hedges, worst weather",
        weathers=tuple(Weather),
        read=lambda summary: summary.hedge_share,
        value_max=0.05,
        aim=0.05,
        unit="%",
    ),
    Promise(
        name="probe tokens, worst weather",
        weathers=tuple(Weather),
        read=lambda summary: summary.probe_token_share,
        value_max=0.01,
        aim=0.01,
        unit="%",
    ),
)
"""In the order of the table."""


def bars(results: Results) -> list[Bar]:
    """The figures of the table, those whose weathers were run."""
    found = [
        Bar(
            promise.name,
            promise.of(results, SHIPPED),
            promise.value_max,
            promise.aim,
            promise.unit,
            {policy: promise.of(results, policy) for policy in PEERS},
        )
        for promise in PROMISES
        if any(results.of(weather) is not None for weather in promise.weathers)
    ]
    if results.sparse is not None:
        name = "mean TTFT on thefastest.ai's series, beyond the best fixed provider"
        found.append(Bar(name, results.sparse.ratio[SHIPPED] - 1.0, 0.03, 0.0, "%", {}))
    decided_us = results.speed.snapshot_and_decide_us
    return [*found, Bar("decision over 20 endpoints with the snapshot", decided_us, 100.0, 50.0, "us", {})]


def shown(value: float | None, unit: str) -> str:
    """A figure for people."""
    if value is None:
        return "never"
    if math.isnan(value):
        return "was not there"
    match unit:
        case "%":
            return f"{100.0 * value:.2f} %" if abs(value) < 0.01 and value else f"{100.0 * value:.1f} %"
        case "x":
            return f"{value:.2f} x"
        case "us":
            return f"{value:.0f} us"
        case _:
            return f"{value:.1f} s"


def bar_table(results: Results) -> list[str]:
    """The promised figures."""
    lines = [
        f"| figure | {SHIPPED} | bar | aim | holds | {' | '.join(PEERS)} |",
        "|---|--:|--:|--:|---|" + "--:|" * len(PEERS),
    ]
    for bar in bars(results):
        peers = " | ".join(shown(bar.peers[name], bar.unit) if name in bar.peers else "" for name in PEERS)
        holds = "yes" if bar.holds else "**no**"
        value_max, aim = (shown(value, bar.unit) for value in (bar.value_max, bar.aim))
        lines.append(f"| {bar.name} | {shown(bar.value, bar.unit)} | {value_max} | {aim} | {holds} | {peers} |")
    if results.sparse is not None:
        told = [
            ", ".join(f"{name} {shown(value - 1.0, '%')}" for name, value in ratio.items())
            for ratio in (results.sparse.ratio, results.sparse.capped_ratio)
        ]
        lines += [
            "",
            f"On thefastest.ai's {results.sparse.series_count} series of a region and a model ({results.sparse.choice_count} choices), beyond the best fixed provider: {told[0]}. With everything beyond {PATIENCE_S:g} s cut to that: {told[1]}.",
        ]
    speed = results.speed
    lines += [
        "",
        f"A decision with its snapshot takes {speed.ratio:.0f} times what the lowest of twenty expected durations takes in plain Python ({speed.plain_us:.1f} us); without the snapshot it takes {speed.decide_us:.0f} us. Medians of {REPEAT_COUNT} in the quickest of {2 * ROUND_COUNT} rounds, before and after the simulations: a machine that others share takes longer at other moments, {speed.middle_us:.0f} us in the middle one of the {ROUND_COUNT} among which that was. Where between two decisions a call begins, another is answered and a third ends, {speed.busy_us:.0f} us.",
    ]
    return lines


def policy_table(results: Results, title: str, unit: str, read: Callable[[Summary], float]) -> list[str]:
    """One figure, policies by weather."""
    weathers = [w for w in Weather if results.of(w) is not None]
    lines = [f"### {title}", "", f"| | {' | '.join(weathers)} |", "|---|" + "--:|" * len(weathers)]
    for policy in (SHIPPED, *BASELINES, ORACLE):
        cells = []
        for weather in weathers:
            summary = results.of(weather, policy)
            cells.append("" if summary is None else shown(read(summary), unit))
        lines.append(f"| {policy} | {' | '.join(cells)} |")
    return [*lines, ""]


def regret_table(results: Results) -> list[str]:
    """What everything else is judged by."""
    return policy_table(results, "Cost beyond the oracle's", "%", lambda summary: summary.regret)


def document(results: Results) -> str:
    """The section of docs/runtime.md."""
    lines = [
        f"{len(results.seeds)} seeds; {results.traces_from}. Medians over the seeds; the peers are in the same runs. [All figures](../benchmarks/results/drift.md).",
        "",
        *bar_table(results),
        "",
        "![cost beyond the oracle's, by policy and weather](runtime-regret.png)",
        "",
        "![share of the traffic of an endpoint around an event](runtime-reactions.png)",
        "",
        "![time to first token over time](runtime-ttft.png)",
        "",
        "![output tokens per second by provider, and of the router](runtime-speed.png)",
    ]
    return "\n".join(lines) + "\n"


def markdown(results: Results) -> str:
    """The whole report for people."""
    machine = results.machine
    changed = " and uncommitted changes" if machine.git_dirty else ""
    lines = [
        "# Routing while providers drift",
        "",
        f"- {machine.date}, commit {machine.git_commit or 'unknown'}{changed}",
        f"- {machine.core_count} cores of {machine.cpu_model}, {machine.kernel}, Python {machine.python}; {results.seconds:.0f} s",
        f"- seeds {', '.join(map(str, results.seeds))}; {results.traces_from}",
        "",
        "How to read it: [README](../README.md).",
        "",
        "## What is promised",
        "",
        *bar_table(results),
        "",
        "## By weather",
        "",
        *regret_table(results),
        *policy_table(results, "The same in the first minute, when nothing is known", "%", lambda s: s.cold_regret),
        *policy_table(results, "Errors before the first token", "%", lambda summary: summary.error_share),
        *policy_table(results, "Answers that broke off", "%", lambda summary: summary.broken_share),
        *policy_table(results, "p99 of the time to first token, against the oracle's", "x", lambda s: s.ttft_p99_ratio),
        *policy_table(
            results, "p99 of calls under way over capacity, against the oracle's", "x", lambda s: s.load_p99_ratio
        ),
        *policy_table(results, "Calls answered with 429", "%", lambda summary: summary.limited_share),
        *policy_table(results, "Second calls beside a first one", "%", lambda summary: summary.hedge_share),
        "## The weathers",
        "",
        *(f"- *{weather}*: {description}" for weather, description in DESCRIPTIONS.items()),
        "",
        "## What is assumed, because no public trace shows it",
        "",
        *(f"- {assumption}" for assumption in (*ASSUMPTIONS, f"an error that the user sees costs {ERROR_PRICE_S:g} s")),
        "",
    ]
    return "\n".join(lines)


def as_json(results: Results) -> dict[str, Any]:
    """The whole report for programs."""
    return {
        "machine": asdict(results.machine),
        "seeds": results.seeds,
        "traces_from": results.traces_from,
        "seconds": round(results.seconds, 1),
        "bars": [asdict(bar) | {"holds": bar.holds} for bar in bars(results)],
        "summaries": [_rounded(asdict(summary)) for summary in results.summaries],
        "figures": [_rounded(asdict(one)) for one in results.figures if one.policy in (SHIPPED, ORACLE)],
        "sparse": None if results.sparse is None else asdict(results.sparse),
        "decision_us": asdict(results.speed) | {"ratio": results.speed.ratio},
        "assumptions": [*ASSUMPTIONS, f"an error that the user sees costs {ERROR_PRICE_S:g} s"],
    }


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Six digits are more than any of this is known to."""
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()}
