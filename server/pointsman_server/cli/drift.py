"""`pointsman drift`: does the quality model still fit the traffic, by a decision log."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict

from rich.console import Console, Group, RenderableType
from rich.text import Text

from pointsman_server.cli.exit import CommandError
from pointsman_server.cli.offline import faults_told
from pointsman_server.cli.output import console, print_json
from pointsman_server.cli.tables import Row, fitting_table
from pointsman_server.decision_log.reader import DecisionLogReader
from pointsman_server.replay.drift import DECISIONS_MIN, LABELS_MIN, Drift, drift

SHOWN_COUNT = 8
"""Traits of prompts that are shown; the others have moved less."""


def run(arguments: Namespace, _environment: Mapping[str, str]) -> int:
    """Prints what the log says of the model that it was last decided by."""
    with faults_told():
        reader = DecisionLogReader(arguments.log)
        found = drift(reader.requests())
    if not found.decision_count:
        raise CommandError(f"{arguments.log}: the log has no decision")
    if arguments.json:
        print_json(asdict(found) | {"fits": found.fits})
    else:
        screen = console()
        screen.print(drift_report(screen, found))
    return 0


def drift_report(screen: Console, found: Drift) -> RenderableType:
    """The verdict, what was reported against what was predicted, and what has moved."""
    others = f", {found.other_count:,} of other models are left out" if found.other_count else ""
    parts: list[RenderableType] = [
        _verdict(found),
        Text(f"{found.decision_count:,} decisions by {found.artifact or 'no quality model'}{others}", style="dim"),
        "",
    ]
    if found.biases:
        rows: list[Row] = [
            (
                (
                    bias.of,
                    f"{bias.label_count:,}",
                    f"{bias.predicted:.3f}",
                    f"{bias.reported:.3f}",
                    f"{bias.bias.value:+.3f} ({bias.bias.low:+.3f} to {bias.bias.high:+.3f})",
                    "off" if bias.is_off else "",
                ),
                "yellow" if bias.is_off else "",
            )
            for bias in found.biases
        ]
        columns = ("model", "judged", "predicted", "reported", "reported - predicted (95 %)", "")
        parts += [fitting_table(screen, columns, rows), ""]
    if found.shifts:
        rows = [
            (
                (
                    shift.of.replace("_", " "),
                    f"{shift.earlier:.3g}",
                    f"{shift.later:.3g}",
                    f"{shift.distance:.2f}",
                    "moved" if shift.has_shifted else "",
                ),
                "yellow" if shift.has_shifted else "",
            )
            for shift in found.shifts[:SHOWN_COUNT]
        ]
        parts.append(fitting_table(screen, ("of prompts", "earlier half", "later half", "distance", ""), rows))
    return Group(*parts)


def _verdict(found: Drift) -> Text:
    moved = sum(shift.has_shifted for shift in found.shifts)
    if found.fits is False:
        text = "the quality model does not fit the traffic: what is reported is not what it predicts"
        return Text(f"{text}, and the prompts have changed" if moved else text, style="bold yellow")
    if found.fits is None:
        text = f"whether the quality model fits can't be said with fewer than {LABELS_MIN} judged answers"
    else:
        text = "the quality model fits the traffic"
    if moved:
        return Text(f"{text}, but the prompts have changed: judge some of the new ones", style="bold yellow")
    if not found.shifts:
        text += f"; prompts are compared from {2 * DECISIONS_MIN} decisions on"
    return Text(text, style="bold")
