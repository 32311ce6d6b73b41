"""An evaluation for people: by source what comes of each way to choose, and what that says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.text import Text

from pointsman_server.cli.tables import Row, fitting_table
from pointsman_server.training.costs import ASSUMED_OUTPUT_TOKENS, CostBasis
from pointsman_server.training.figures import (
    ChosenOn,
    CostFigures,
    Evaluation,
    PairFigures,
    PartFigures,
    PolicyFigures,
    PredictionFigures,
    RoutingFigures,
)
from pointsman_server.training.resampling import INTERVAL_LEVEL, Measured

UNDEFINED = "-"
SHOWN_MODEL_COUNT = 6
"""Models that are named where some are left out."""

_WORDS = {
    "router": "this router",
    "best_single": "best single model",
    "best_per_category": "best model per category",
    "prompt_length": "by prompt length",
    "cheapest": "cheapest model",
    "random": "random model",
    "zero_router": "mix of single models",
    "oracle": "oracle",
}
"""What people call each way to choose, in the order of the tables."""

_BASIS_WORDS = {
    CostBasis.MEASURED: "as measured",
    CostBasis.LIST_PRICE: "by list prices",
    CostBasis.LIST_PRICE_ASSUMED_LENGTH: f"by list prices, answers taken to have {ASSUMED_OUTPUT_TOKENS:.0f} tokens",
}


def evaluation_report(screen: Console, evaluation: Evaluation) -> RenderableType:
    """Everything that was found, source by source, and at last the pair of models."""
    parts: list[RenderableType] = []
    for part in evaluation.parts:
        if part.dataset is None:
            parts += [*_part_report(screen, part, evaluation.split), ""]
    pairs = [(part, part.pair) for part in evaluation.parts if part.pair is not None]
    if pairs:
        parts += [*_pair_report(screen, pairs), ""]
    if evaluation.crossing_question_count:
        note = f"note: {evaluation.crossing_question_count:,} questions stand in several splits of the data"
        parts.append(Text(note, style="yellow"))
    if evaluation.resample_count:
        parts.append(Text(f"in brackets: {100 * INTERVAL_LEVEL:.0f} % intervals, questions resampled", style="dim"))
    return Group(*parts)


def _part_report(screen: Console, part: PartFigures, split: str) -> Iterator[RenderableType]:
    models = part.models
    heading = f"{part.source}: {part.prompt_count:,} prompts of {_split_name(split)}, {len(models.known)} models"
    yield Text(heading, style="bold")
    if part.routing is not None:
        routed = (
            f"routing among {len(models.routed)} models, on {part.routing.prompt_count:,} prompts that all answered"
        )
        yield Text(routed, style="dim")
        yield ""
        yield _policy_table(screen, part.routing)
        yield ""
        yield f"gain over the better of single and per category: {_points(part.routing.gain)}"
    if part.cost is not None:
        yield ""
        yield from _cost_report(screen, part.cost, priced_count=len(models.priced), routed_count=len(models.routed))
        yield ""
    if part.predictions is not None:
        yield _prediction_line(part.predictions)
    if part.chosen_on is ChosenOn.EVALUATED:
        yield Text("note: without a train split, the single models and tables were chosen on these prompts", "yellow")
    if part.contaminated_count:
        yield Text(f"note: {part.contaminated_count:,} contaminated prompts are left out", style="yellow")
    if models.unknown:
        yield Text(f"note: the artifact does not know {_some(models.unknown)}", style="yellow")


def _policy_table(screen: Console, routing: RoutingFigures) -> RenderableType:
    """One row for each way to choose."""
    reference = routing.policies["best_single"].cost_usd
    named = {"best_single": routing.best_single_model, "cheapest": routing.cheapest_model}
    rows: list[Row] = []
    for name, words in _WORDS.items():
        if name in routing.policies:
            model = f" ({named[name]})" if named.get(name) else ""
            cells = _policy_cells(routing.policies[name], reference)
            rows.append(((words + model, *cells), "bold green" if name == "router" else ""))
    costly = any(policy.cost_usd is not None for policy in routing.policies.values())
    columns = ("every prompt to", "accuracy", "$ per 1,000", "of best single", "arena score")
    return fitting_table(screen, columns if costly else columns[:2], rows)


def _policy_cells(policy: PolicyFigures, reference: Measured | None) -> Sequence[str]:
    if policy.cost_usd is None or policy.arena_score is None or reference is None:
        return (_percent(policy.accuracy),)
    share = policy.cost_usd.value / reference.value if reference.value > 0.0 else math.nan
    return (
        _percent(policy.accuracy),
        f"{1000.0 * policy.cost_usd.value:.4g}",
        f"{_bare(100.0 * share, '.0f')} %",
        _with_interval(policy.arena_score, ".3f"),
    )


def _cost_report(
    screen: Console, cost: CostFigures, *, priced_count: int, routed_count: int
) -> Iterator[RenderableType]:
    among = "" if priced_count == routed_count else f"among the {priced_count} models with a known cost, "
    low, high = (1000.0 * end for end in cost.cost_range_usd)
    heading = (
        f"quality against cost, {among}{_BASIS_WORDS[cost.basis]}, from ${low:.3g} to ${high:.3g} per 1,000 prompts"
    )
    yield Text(heading, style="dim")
    yield ""
    names = [name for name in _WORDS if name in cost.aiq]
    rows: list[Row] = [
        ((_WORDS[name], _with_interval(cost.aiq[name], ".3f")), "bold green" if name == "router" else "")
        for name in names
    ]
    yield fitting_table(screen, ("mean over all costs", "AIQ"), rows)
    yield ""
    for share, quality in ((cost.share_of_cost_at_98, "98 %"), (cost.share_of_cost_at_100, "all")):
        reached = f"{_percent(share)} of its cost" if math.isfinite(share.value) else "no cost: it never does"
        yield f"reaches {quality} of the quality of {cost.best_single_model} at {reached}"


def _prediction_line(found: PredictionFigures) -> str:
    words = (
        f"predictions of {found.outcome_count:,} outcomes: AUC within model "
        f"{_with_interval(found.auc_within_model, '.3f')}, Brier {_with_interval(found.brier, '.3f')}, "
        f"ECE {_with_interval(found.ece, '.3f')}"
    )
    if not found.cell_count:
        return words
    return f"{words}, 90 % intervals hold in {_percent(found.coverage_90)} of {found.cell_count} cells"


def _pair_report(screen: Console, pairs: Sequence[tuple[PartFigures, PairFigures]]) -> Iterator[RenderableType]:
    strong, weak = pairs[0][1].strong, pairs[0][1].weak
    yield Text(f"prompts to {strong} (strong) or {weak} (weak)", style="bold")
    rows: list[Row] = []
    for part, pair in pairs:
        label = part.source if part.dataset is None else f"{part.source}/{part.dataset}"
        for name in (name for name in _WORDS if name in pair.routers):
            found = pair.routers[name]
            shares = (_percent(share) for share in (found.cpt_50, found.cpt_80, found.cpt_95))
            cells = (label, _WORDS[name], _with_interval(found.apgr, ".3f"), *shares, f"{pair.prompt_count:,}")
            rows.append((cells, "bold green" if name == "router" else ""))
    columns = ("data", "order", "APGR", "strong calls for 50 % of the gap", "80 %", "95 %", "prompts")
    yield fitting_table(screen, columns, rows)


def _split_name(split: str) -> str:
    return "all splits" if split == "all" else f"the split {split}"


def _some(models: Sequence[str]) -> str:
    more = f" and {len(models) - SHOWN_MODEL_COUNT} more" if len(models) > SHOWN_MODEL_COUNT else ""
    return f"{', '.join(models[:SHOWN_MODEL_COUNT])}{more}"


def _percent(found: Measured) -> str:
    return _with_interval(Measured(100.0 * found.value, 100.0 * found.low, 100.0 * found.high), ".1f", unit=" %")


def _points(found: Measured) -> str:
    return _with_interval(Measured(100.0 * found.value, 100.0 * found.low, 100.0 * found.high), "+.1f", unit=" points")


def _with_interval(found: Measured, form: str, *, unit: str = "") -> str:
    """A value, and in brackets the ends of its interval, where it has one."""
    value = _bare(found.value, form)
    if value == UNDEFINED or not math.isfinite(found.low):
        return f"{value}{unit}" if value != UNDEFINED else value
    return f"{value}{unit} ({found.low:{form}} to {found.high:{form}})"


def _bare(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else UNDEFINED
