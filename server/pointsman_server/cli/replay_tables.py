"""A replay for people: is it repeated, what would have been, and may one believe it."""

from __future__ import annotations

import math

from rich.console import Console, Group, RenderableType
from rich.text import Text

from pointsman_server.cli.tables import Row, fitting_table
from pointsman_server.replay.estimate import Estimate
from pointsman_server.replay.evidence import Outcome
from pointsman_server.replay.session import Comparison, Replay

UNDEFINED = "-"
_WORDS = {
    Outcome.QUALITY: "quality",
    Outcome.COST: "cost, USD",
    Outcome.TTFT: "first token, s",
    Outcome.DURATION: "whole answer, s",
    Outcome.FAILED: "share that failed",
}


def replay_report(screen: Console, found: Replay) -> RenderableType:
    """What a replay has found."""
    parts: list[RenderableType] = [_repeated(found)]
    for different in found.different:
        parts += [Text(f"  {different.decision_id}: {'; '.join(different.differences)}", style="red")]
    if found.damaged_line_count:
        places = ", ".join(found.damaged_places)
        parts.append(Text(f"note: {found.damaged_line_count} damaged lines are skipped ({places})", style="yellow"))
    if found.comparison is not None:
        parts += ["", *_comparison_report(screen, found.comparison)]
    return Group(*parts)


def _repeated(found: Replay) -> Text:
    count, identical = found.decision_count, found.identical_count
    if identical == count:
        return Text(f"all {count:,} decisions are repeated byte for byte", style="bold")
    return Text(f"{count - identical:,} of {count:,} decisions are not repeated:", style="bold red")


def _comparison_report(screen: Console, comparison: Comparison) -> list[RenderableType]:
    support = comparison.support
    refused = f"; {support.refused_count:,} it would turn away, and they are left out" if support.refused_count else ""
    parts: list[RenderableType] = [
        Text(f"the other router chooses alike in {comparison.same_choice_count:,} of them{refused}"),
    ]
    if support.caller_seeded_count:
        parts.append(
            Text(
                f"note: {support.caller_seeded_count:,} decisions by seeds of the callers' own are left out",
                style="yellow",
            )
        )
    if comparison.stale_prediction_count:
        parts.append(
            Text(
                f"note: {comparison.stale_prediction_count:,} decisions rest on the logged predictions, because the log has"
                " no prompts to predict from anew",
                style="yellow",
            )
        )
    rows: list[Row] = [
        (
            (
                _WORDS[outcome],
                f"{found.decision_count:,}",
                f"{found.effective_count:,.0f}",
                _number(found.as_logged.value),
                _interval(_possible(found.doubly_robust, outcome)),
                _interval(found.difference, signed=True),
                _interval(found.self_normalised),
                _interval(_possible(found.inverse_propensity, outcome)),
            ),
            "",
        )
        for outcome, found in comparison.estimates.items()
    ]
    columns = (
        *("mean", "outcomes", "worth", "as logged", "other router (95 %)", "difference (95 %)"),
        *("self-normalised", "inverse propensity"),
    )
    parts += ["", fitting_table(screen, columns, rows)]
    if comparison.warnings:
        parts += ["", Text("What this log does not support:", style="bold yellow")]
        parts += [Text(f"- {warning}", style="yellow") for warning in comparison.warnings]
    return parts


def _possible(estimate: Estimate, outcome: Outcome) -> Estimate:
    """The estimate as far as there can be such a mean: none of these is negative, and a share is at most 1."""
    limit = 1.0 if outcome in {Outcome.QUALITY, Outcome.FAILED} else math.inf
    value, low, high = (min(limit, max(0.0, end)) for end in (estimate.value, estimate.low, estimate.high))
    return Estimate(value, low, high)


def _interval(estimate: Estimate, *, signed: bool = False) -> str:
    if math.isnan(estimate.value):
        return UNDEFINED
    return (
        f"{_number(estimate.value, signed=signed)} ({_number(estimate.low, signed=signed)} to"
        f" {_number(estimate.high, signed=signed)})"
    )


def _number(value: float, *, signed: bool = False) -> str:
    """Three significant digits."""
    if not math.isfinite(value):
        return "unbounded"
    return f"{value:+.3g}" if signed else f"{value:.3g}"
