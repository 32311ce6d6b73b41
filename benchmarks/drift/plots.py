"""The pictures of docs/runtime.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from benchmarks.drift.figures import Summary
from benchmarks.drift.policies import BASELINES
from benchmarks.drift.shipped import SHIPPED
from benchmarks.drift.simulate import ORACLE
from benchmarks.drift.traces import BEFORE_S, EVENT_WEATHERS, SHARE_BIN_S, SPEED_BIN_S, TTFT_BIN_S, Traces
from benchmarks.drift.weathers import Event, Weather

COLORS = {
    SHIPPED: "#c2185b",
    ORACLE: "#212121",
    "LiteLLM latency-based": "#1f77b4",
    "LiteLLM least-busy": "#17a2b8",
    "P2C peak-EWMA": "#2e7d32",
    "Thompson sampling": "#f28e2b",
    "periodic benchmark": "#8d6e63",
}
SHOWN = (SHIPPED, ORACLE, "LiteLLM latency-based", "P2C peak-EWMA", "Thompson sampling")
"""In plots over time; more lines would hide each other."""
REGRET_WEATHERS = (Weather.STEADY, Weather.REGIMES, Weather.LOAD, Weather.ALL, Weather.FAST_DRIFT)
REGRET_MAX = 10.0
"""Bars end here: a policy that is ten times as bad needs no finer reading."""
REGRET_MIN = 0.005
DPI = 110


def draw(summaries: Sequence[Summary], traces: Traces, events: Sequence[Event], folder: Path) -> list[Path]:
    """Draws all of them into `folder`."""
    mpl.use("Agg")
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True})
    plt.rcParams.update({"grid.alpha": 0.25, "axes.axisbelow": True, "legend.frameon": False})
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, size, columns in (
        ("regret", (11.0, 4.6), len(REGRET_WEATHERS)),
        ("reactions", (11.0, 5.6), 2),
        ("ttft", (11.0, 5.2), 1),
        ("speed", (11.0, 4.4), 1),
    ):
        rows = 2 if name in {"reactions", "ttft"} else 1
        figure, grid = plt.subplots(
            rows, columns, figsize=size, squeeze=False, layout="constrained", sharex=name != "regret"
        )
        axes = [axis for row in grid for axis in row]
        match name:
            case "regret":
                _regret(axes, summaries)
            case "reactions":
                _reactions(axes, traces)
            case "ttft":
                _ttft(axes, traces, events)
            case _:
                _speed(axes[0], traces)
        path = folder / f"runtime-{name}.png"
        figure.savefig(path, dpi=DPI, metadata={"Software": ""})
        plt.close(figure)
        drawn.append(path)
    return drawn


def _color(policy: str) -> str:
    return COLORS.get(policy, "#b0b0b0")


def _regret(axes: Sequence[Axes], summaries: Sequence[Summary]) -> None:
    """A bar per policy, on a scale of powers: the differences are of that kind."""
    policies = [SHIPPED, *BASELINES][::-1]
    for axis, weather in zip(axes, REGRET_WEATHERS, strict=True):
        by_policy = {one.policy: one for one in summaries if one.weather == weather.value}
        for place, policy in enumerate(policies):
            one = by_policy[policy]
            shown = min(REGRET_MAX, max(REGRET_MIN, one.regret))
            axis.barh(place, shown, left=0.0, color=_color(policy), height=0.7)
            low, high = (min(REGRET_MAX, max(REGRET_MIN, value)) for value in (one.regret_low, one.regret_high))
            axis.plot([low, high], [place, place], color="#00000088", linewidth=1.0)
            bold = "bold" if policy == SHIPPED else "normal"
            axis.text(max(shown, high) * 1.15, place, _percent(one.regret), va="center", fontsize=7.5, fontweight=bold)
        axis.set_xscale("log")
        axis.set_xlim(REGRET_MIN, REGRET_MAX * 4)
        axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.set_xticks([0.01, 0.1, 1.0, 10.0])
        axis.minorticks_off()
        axis.grid(visible=False, axis="y")
        axis.axvline(0.08 if weather is Weather.FAST_DRIFT else 0.05, color="#c62828", linewidth=0.9, linestyle=":")
        axis.set_title(weather.value, fontsize=10)
        axis.set_yticks(range(len(policies)), policies if axis is axes[0] else [""] * len(policies))
    figure = axes[0].figure
    figure.suptitle("Cost beyond the oracle's (median and range over the seeds; dotted: the bar)", fontsize=11)


def _percent(share: float) -> str:
    """Without a sign before nothing."""
    return f"{share:.1%}" if abs(share) < 0.095 else f"{share:.0%}"


def _reactions(axes: Sequence[Axes], traces: Traces) -> None:
    """The share of traffic of the endpoint to which something happens."""
    for axis, weather in zip(axes, EVENT_WEATHERS, strict=True):
        for policy in SHOWN:
            bins = traces.shares[weather.value, policy]
            times = [(place + 0.5) * SHARE_BIN_S - BEFORE_S for place in range(len(bins))]
            values = [there / total if total else math.nan for there, total in bins]
            width = 2.2 if policy == SHIPPED else 1.3
            style = "--" if policy == ORACLE else "-"
            axis.plot(times, values, color=_color(policy), linewidth=width, linestyle=style, label=policy)
        axis.axvline(0.0, color="#999999", linewidth=1.0)
        axis.set_ylim(-0.02, 1.02)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        what = "that becomes the best" if weather is Weather.NEWCOMER else f"struck: {weather.value}"
        axis.set_title(f"traffic of the endpoint {what}", fontsize=10)
    for axis in axes[-2:]:
        axis.set_xlabel("seconds since the event")
    axes[0].legend(fontsize=8, loc="center right")


def _ttft(axes: Sequence[Axes], traces: Traces, events: Sequence[Event]) -> None:
    """Median and 95th percentile of the time to first token over a run in which everything happens."""
    for axis, percent in zip(axes, (50, 95), strict=True):
        for policy in SHOWN:
            columns = traces.ttfts_s[policy]
            times = [(place + 0.5) * TTFT_BIN_S for place in range(len(columns))]
            values = [quantiles(column, n=100)[percent - 1] if len(column) > 1 else math.nan for column in columns]
            width = 2.2 if policy == SHIPPED else 1.3
            style = "--" if policy == ORACLE else "-"
            axis.plot(times, values, color=_color(policy), linewidth=width, linestyle=style, label=policy)
        axis.set_yscale("log")
        axis.set_ylabel(f"TTFT p{percent}, s")
        for event in events:
            axis.axvspan(event.at_s, event.to_s, color="#000000", alpha=0.06, linewidth=0)
            if percent == 50:
                axis.text(
                    event.at_s + 3, axis.get_ylim()[1], event.weather.value, va="top", fontsize=8, color="#555555"
                )
    axes[0].legend(fontsize=8, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes[-1].set_xlabel("seconds (load, rate limits and drift all the time)")


def _speed(axis: Axes, traces: Traces) -> None:
    """Output tokens per second of every provider, and of what users of the router got."""
    palette = plt.get_cmap("tab10")
    for place, (name, values) in enumerate(sorted(traces.speeds.items(), key=lambda item: item[0] == SHIPPED)):
        times = [(index + 0.5) * SPEED_BIN_S for index in range(len(values))]
        if name == SHIPPED:
            axis.plot(times, values, color=_color(SHIPPED), linewidth=2.6, label=f"{name}, as its users saw it")
        else:
            axis.plot(times, values, color=palette(place), linewidth=1.1, alpha=0.8, label=name)
    axis.set_ylim(bottom=0.0)
    axis.set_ylabel("output tokens per second")
    axis.set_xlabel("seconds (fast drift)")
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
