"""What `pointsman benchmark` shows: the estimate, a bar, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pointsman.explanation import UNKNOWN, usd
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pointsman_server.cli.output import console, print_json
from pointsman_server.cli.tables import Row, fitting_table
from pointsman_server.labelling.judge import RUBRIC_VERSION
from pointsman_server.labelling.outcomes import (
    EndpointSummary,
    Labelled,
    PositionBias,
    endpoint_summary,
    outcome_rows,
    position_bias,
)
from pointsman_server.labelling.plan import EndpointEstimate, Plan
from pointsman_server.labelling.records import Ledger
from pointsman_server.labelling.run import Missing

_SHOWN_PROMPT_COUNT = 3
"""Prompts named for each kind of failure: examples, not the list."""


@dataclass(frozen=True, slots=True)
class Labelling:
    """A benchmark that is done, as far as it goes."""

    plan: Plan
    ledger: Ledger
    labelled: tuple[Labelled, ...]
    missing: tuple[Missing, ...]
    """What could not be had in this run."""
    paths: tuple[Path, Path]
    """Where prompts and outcomes were written."""


class RunProgress:
    """A bar on standard error, where a person looks: a step for every prompt and endpoint."""

    def __init__(self, plan: Plan) -> None:
        total = sum(plan.asks(prompt, entry) for prompt in plan.prompts for entry in plan.answering)
        screen = console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=screen,
            disable=not screen.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("asking", total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        del kind, error
        self._progress.stop()

    def finished(self) -> None:
        """One step."""
        self._progress.advance(self._task)

    def paused(self, endpoint_name: str, wait_s: float) -> None:
        """A line above the bar."""
        self._progress.console.print(f"{endpoint_name}: asks to wait {wait_s:.3g} s", style="yellow")


def show_estimates(missing: Sequence[EndpointEstimate], ledger: Ledger, *, budget_usd: float | None) -> None:
    """On standard error: what is still to be asked, what it will cost by the catalog's prices, and what was spent before."""
    screen = console(stderr=True)
    if ledger.skipped_line_numbers:
        numbers = ", ".join(str(number) for number in ledger.skipped_line_numbers[:10])
        screen.print(
            f"{len(ledger.skipped_line_numbers)} lines of the journal can't be read and are passed over: {numbers}",
            style="yellow",
        )
    if not missing:
        screen.print("every answer is there; nothing is asked", style="dim")
        return
    rows: list[Row] = [
        (
            (
                f"{estimate.endpoint_name} (judge)" if estimate.is_judge else estimate.endpoint_name,
                f"{estimate.call_count:,}",
                f"{estimate.input_token_count:,}",
                _usd(estimate.cost_usd),
            ),
            "",
        )
        for estimate in missing
    ]
    screen.print(fitting_table(screen, ("to be asked", "calls", "input tokens", "likely cost"), rows))
    known = [estimate.cost_usd for estimate in missing if estimate.cost_usd is not None]
    more = "" if len(known) == len(missing) else " and what has no price"
    budget = "" if budget_usd is None else f", the budget is {_usd(budget_usd)}"
    screen.print(f"in all {_usd(sum(known))}{more}; {_usd(ledger.spent_usd)} spent before{budget}")


def print_report(labelling: Labelling, *, as_json: bool) -> None:
    """On standard output: what came of each endpoint; on standard error: what is missing, and why."""
    summaries = [endpoint_summary(entry, labelling.labelled) for entry in labelling.plan.entries]
    missing_counts = Counter(missing.endpoint_name for missing in labelling.missing)
    bias = position_bias(labelling.labelled)
    if as_json:
        print_json(_fields(labelling, summaries, missing_counts, bias))
    else:
        screen = console()
        columns = ("endpoint", "labels", "quality (95 %)", "missing", "cost", "latency p50")
        rows: list[Row] = [(_cells(summary, missing_counts[summary.endpoint_name]), "") for summary in summaries]
        screen.print(fitting_table(screen, columns, rows))
        screen.print()
        for line in _notes(labelling, bias):
            screen.print(line)
    errors = console(stderr=True)
    for line in _missing_lines(labelling):
        errors.print(line, style="yellow")


def _cells(summary: EndpointSummary, missing_count: int) -> tuple[str, ...]:
    quality = UNKNOWN
    if summary.quality_mean is not None:
        quality = f"{summary.quality_mean:.3f} ({summary.quality_low:.3f}-{summary.quality_high:.3f})"
    about = "~" if summary.is_cost_estimated else ""
    latency = UNKNOWN if summary.latency_s_median is None else f"{summary.latency_s_median:.3g} s"
    return (
        summary.endpoint_name,
        f"{summary.label_count:,}",
        quality,
        f"{missing_count:,}" if missing_count else "",
        f"{about}{_usd(summary.cost_usd)}",
        latency,
    )


def _notes(labelling: Labelling, bias: PositionBias | None) -> Iterator[str]:
    """What the table does not say."""
    ledger, plan = labelling.ledger, labelling.plan
    yield f"spent {_usd(ledger.spent_usd)}, of it {_usd(ledger.judge_usd)} on the judge and {_usd(ledger.failed_usd)} in vain"
    if plan.judge is not None:
        yield f"judged by {plan.judge.endpoint.name} with rubric {RUBRIC_VERSION}"
    if ledger.unreadable_verdict_count:
        yield f"{ledger.unreadable_verdict_count} verdicts could not be read"
    if bias is not None:
        yield (
            f"the order changed the judge's preference in {bias.flipped_count} of {bias.pair_count} pairs;"
            f" the first place is worth {bias.first_grade_advantage:+.2f} grades"
        )
    if plan.judge is not None and plan.judge.endpoint.model in {entry.endpoint.model for entry in plan.entries}:
        yield f"note: {plan.judge.endpoint.name} judges answers of its own model; judges tend to prefer those"
    shared = Counter(entry.endpoint.model for entry in plan.entries)
    for model in sorted(model for model, count in shared.items() if count > 1):
        yield f"note: {model} was asked at {shared[model]} providers; its outcomes are their means"
    for path in labelling.paths:
        yield f"written: {path}"


def _missing_lines(labelling: Labelling) -> Iterator[str]:
    """One line for each kind of failure, with examples in the order of the file."""
    line_of = {prompt.prompt_id: prompt.line_number for prompt in labelling.plan.prompts}
    prompts: dict[tuple[str, str, str], list[str]] = {}
    for each in sorted(labelling.missing, key=lambda missing: line_of[missing.prompt_id]):
        prompts.setdefault((each.endpoint_name, each.reason, each.detail), []).append(each.prompt_id)
    for (endpoint_name, reason, detail), prompt_ids in prompts.items():
        examples = ", ".join(prompt_ids[:_SHOWN_PROMPT_COUNT])
        more = ", ..." if len(prompt_ids) > _SHOWN_PROMPT_COUNT else ""
        yield f"{endpoint_name}: {len(prompt_ids)} without a label, {reason}: {detail} ({examples}{more})"
    if prompts:
        yield "the same command asks again for what is missing, and for nothing else"


def _fields(
    labelling: Labelling, summaries: Iterable[EndpointSummary], missing_counts: Counter[str], bias: PositionBias | None
) -> dict[str, object]:
    ledger = labelling.ledger
    return {
        "endpoints": [
            {**asdict(summary), "missing_count": missing_counts[summary.endpoint_name]} for summary in summaries
        ],
        "missing": [asdict(missing) for missing in labelling.missing],
        "outcome_count": len(outcome_rows(labelling.labelled)),
        "rubric_version": RUBRIC_VERSION,
        "spent_usd": ledger.spent_usd,
        "judge_usd": ledger.judge_usd,
        "failed_usd": ledger.failed_usd,
        "unreadable_verdict_count": ledger.unreadable_verdict_count,
        "position_bias": None if bias is None else asdict(bias),
        "files": [str(path) for path in labelling.paths],
    }


def _usd(cost_usd: float | None) -> str:
    return UNKNOWN if cost_usd is None else usd(cost_usd)
