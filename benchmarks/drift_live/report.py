"""What both saw, as a table and as a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.drift_live.load import REQUESTS_PER_S, Seen
from benchmarks.drift_live.systems import REQUEST_TIMEOUT_S
from benchmarks.drift_live.weather import TTFT_S, Timeline
from benchmarks.harness.machine import Machine

LEFT_SHARE = 0.1
"""An endpoint is left when of the next ten requests at most this share still goes there."""
NEXT_COUNT = 10
BEFORE_S = 10.0
THERE_SHARE = 0.5
"""Of the requests of the ten seconds before an event: with less a system had nothing to leave."""
WINDOW_S = 5.0
"""Of the plotted shares and medians."""
COLOURS = {"first": "#4c72b0", "second": "#55a868", "third": "#c44e52", "fourth": "#8172b3"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One system in one phase."""

    system: str
    phase: str
    request_count: int
    failed_count: int
    ttft_mean_s: float
    """A request without an answer counts with its whole timeout."""
    ttft_p50_s: float
    ttft_p99_s: float
    first_share: float
    """Of requests that the first provider answered."""


def rows_of(seen: dict[str, list[Seen]], timeline: Timeline) -> list[Row]:
    """Every phase of every system."""
    return [
        _row(system, phase, [one for one in requests if from_s <= one.at_s < to_s])
        for phase, from_s, to_s in (*timeline.phases(), ("all", 0.0, timeline.end_s))
        for system, requests in seen.items()
    ]


def _row(system: str, phase: str, requests: Sequence[Seen]) -> Row:
    waits_s = [REQUEST_TIMEOUT_S if one.ttft_s is None else one.ttft_s for one in requests]
    return Row(
        system=system,
        phase=phase,
        request_count=len(requests),
        failed_count=sum(one.failed for one in requests),
        ttft_mean_s=fmean(waits_s),
        ttft_p50_s=float(np.quantile(waits_s, 0.5)),
        ttft_p99_s=float(np.quantile(waits_s, 0.99)),
        first_share=fmean(one.provider == "first" for one in requests),
    )


def left_after_s(requests: Sequence[Seen], *, from_s: float, to_s: float) -> float | None:
    """How long after `from_s` the first provider is left: from when on hardly any of the next ten requests go there.
    None if it never is until `to_s`; not a number if most requests of the ten seconds before were not there."""
    before = [one for one in requests if from_s - BEFORE_S <= one.at_s < from_s]
    if before and fmean(one.provider == "first" for one in before) < THERE_SHARE:
        return math.nan
    during = sorted((one for one in requests if from_s <= one.at_s < to_s), key=lambda one: one.at_s)
    for index, one in enumerate(during):
        following = during[index : index + NEXT_COUNT]
        # What nobody answered went to whoever hangs.
        there = [other.provider == "first" or (not other.provider and other.failed) for other in following]
        if len(following) == NEXT_COUNT and fmean(there) <= LEFT_SHARE:
            return one.at_s - from_s
    return None


def markdown(
    seen: dict[str, list[Seen]], timeline: Timeline, *, machine: Machine, versions: dict[str, str], seed: int
) -> str:
    """The results as a page."""
    lines = [
        "# Pointsman and LiteLLM's proxy on the same providers, in real time",
        "",
        f"- {machine.date}, commit {machine.git_commit}",
        f"- {machine.core_count} cores of {machine.cpu_model}, {machine.kernel}, Python {machine.python}",
        f"- {', '.join(f'{name} {version}' for name, version in versions.items())}",
        f"- seed {seed}; {REQUESTS_PER_S:g} requests per second to each, at the same moments",
        "",
        _story(timeline),
        "",
        "![TTFT and shares over time](drift_live.png)",
        "",
        "| phase | | requests | failed | mean TTFT, s | p50 | p99 | answered by the first |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row.phase} | {row.system} | {row.request_count} | {row.failed_count} | {row.ttft_mean_s:.2f} "
        f"| {row.ttft_p50_s:.2f} | {row.ttft_p99_s:.2f} | {row.first_share:.0%} |"
        for row in rows_of(seen, timeline)
    ]
    lines += ["", "| leaves the first provider after | brown-out | hang |", "|---|--:|--:|"]
    for system, requests in seen.items():
        slow_s = left_after_s(requests, from_s=timeline.slow_from_s, to_s=timeline.slow_to_s)
        hang_s = left_after_s(requests, from_s=timeline.hang_from_s, to_s=timeline.hang_to_s)
        lines.append(f"| {system} | {_seconds(slow_s)} | {_seconds(hang_s)} |")
    return "\n".join(lines) + "\n"


def _story(timeline: Timeline) -> str:
    medians = ", ".join(f"{median_s:g} s" for median_s in TTFT_S.values())
    return (
        f"One model at four simulated providers (median TTFT {medians}). The first is {timeline.slow_factor:g} times as slow "
        f"from {timeline.slow_from_s:g} to {timeline.slow_to_s:g} s, and hangs from {timeline.hang_from_s:g} to "
        f"{timeline.hang_to_s:g} s. Callers wait {REQUEST_TIMEOUT_S:g} s at most."
    )


def _seconds(value_s: float | None) -> str:
    if value_s is None:
        return "never"
    return "was not there" if math.isnan(value_s) else f"{value_s:.1f} s"


def as_json(
    seen: dict[str, list[Seen]], timeline: Timeline, *, machine: Machine, versions: dict[str, str], seed: int
) -> str:
    """The same for programs."""
    found = {
        "machine": asdict(machine),
        "versions": versions,
        "seed": seed,
        "requests_per_s": REQUESTS_PER_S,
        "timeline": asdict(timeline),
        "rows": [asdict(row) for row in rows_of(seen, timeline)],
        "left_after_s": {
            system: {
                "brown-out": _number(left_after_s(requests, from_s=timeline.slow_from_s, to_s=timeline.slow_to_s)),
                "hang": _number(left_after_s(requests, from_s=timeline.hang_from_s, to_s=timeline.hang_to_s)),
            }
            for system, requests in seen.items()
        },
    }
    return json.dumps(found, indent=1) + "\n"


def _number(value_s: float | None) -> float | str | None:
    """JSON has no word for what is not a number."""
    return "was not there" if value_s is not None and math.isnan(value_s) else value_s


def draw(seen: dict[str, list[Seen]], timeline: Timeline, path: Path) -> None:
    """TTFT of every request over time, and below it who answered."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        2, len(seen), figsize=(11, 6), sharex=True, sharey="row", squeeze=False, layout="constrained"
    )
    edges = np.arange(0.0, timeline.end_s + WINDOW_S, WINDOW_S)
    for column, (system, requests) in enumerate(seen.items()):
        upper, lower = axes[0, column], axes[1, column]
        for provider, colour in COLOURS.items():
            own = [one for one in requests if one.provider == provider and one.ttft_s is not None]
            upper.scatter(
                [o.at_s for o in own], [o.ttft_s for o in own], s=6, color=colour, label=provider, linewidths=0
            )
        failed = [one.at_s for one in requests if one.failed]
        upper.scatter(failed, [REQUEST_TIMEOUT_S] * len(failed), s=18, marker="x", color="black", label="failed")
        upper.set(title=system, yscale="log", ylim=(0.1, 1.3 * REQUEST_TIMEOUT_S))
        counts = np.array(
            [np.histogram([o.at_s for o in requests if o.provider == name], edges)[0] for name in COLOURS]
        )
        shares = counts / np.maximum(1, counts.sum(axis=0))
        lower.stackplot(edges[:-1] + WINDOW_S / 2, shares, colors=COLOURS.values(), linewidth=0)
        lower.set(xlabel="seconds", ylim=(0, 1), xlim=(0, timeline.end_s))
        for axis in (upper, lower):
            for from_s, to_s in (
                (timeline.slow_from_s, timeline.slow_to_s),
                (timeline.hang_from_s, timeline.hang_to_s),
            ):
                axis.axvspan(from_s, to_s, color="grey", alpha=0.15, linewidth=0)
        upper.text((timeline.slow_from_s + timeline.slow_to_s) / 2, 0.115, "first is slow", ha="center", fontsize=8)
        upper.text((timeline.hang_from_s + timeline.hang_to_s) / 2, 0.115, "first hangs", ha="center", fontsize=8)
    axes[0, 0].set_ylabel("time to first token, s")
    axes[1, 0].set_ylabel(f"share of answers, {WINDOW_S:g} s")
    axes[0, -1].legend(loc="upper right", fontsize=8, ncols=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)
