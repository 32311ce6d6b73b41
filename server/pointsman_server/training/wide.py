"""RouterBench's published table: one row per prompt, a few columns per model (https://arxiv.org/abs/2403.12031).

    sample_id, prompt, eval_name, oracle_model_to_route_to
    MODEL, MODEL|total_cost, MODEL|model_response      for each model: its score 0..1, its cost in USD, what it answered

It is published as a pickle, which is not read because opening one can run any code; converted to Parquet, CSV or JSON
Lines it is. A column is a model where one of the other two columns of its name is there too. Of answers only their
length is kept. The optional columns of `prompts` may stand beside these.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

from pointsman_server.training.tables import (
    DatasetError,
    Faults,
    Table,
    as_number,
    column_names,
    place,
    read_rows,
    shown,
)

SOURCE = "routerbench"
"""The source of a table that names none."""
COST_SUFFIX = "|total_cost"
ANSWER_SUFFIX = "|model_response"

REQUIRED = ("sample_id", "prompt")
RENAMED = {"prompt_id": "sample_id", "category": "eval_name"}
"""Our name of a column and theirs."""
OPTIONAL = ("eval_name", "source", "dedupe_key", "tags", "split")
ORACLE_COLUMN = "oracle_model_to_route_to"


def read_wide(path: Path) -> tuple[Table, Table]:
    """The prompts and the outcomes of a table in RouterBench's format.

    Raises:
        DatasetError: it can't be read, has no model, or a score or cost is not valid.
    """
    names = column_names(path)
    models = model_columns(names)
    if missing := [column for column in REQUIRED if column not in names]:
        raise DatasetError(
            f"{path}: column {missing[0]} is missing; a table that is not called prompts is read in RouterBench's format"
        )
    if not models:
        raise DatasetError(f"{path}: has no model: a column MODEL with its score beside MODEL{COST_SUFFIX}")
    kept = [column for column in (*REQUIRED, *OPTIONAL) if column in names]
    ours = {theirs: our for our, theirs in RENAMED.items()}
    prompts: dict[str, list[object]] = {ours.get(column, column): [] for column in kept}
    outcomes: dict[str, list[object]] = {
        name: [] for name in ("prompt_id", "model", "quality", "cost_usd", "output_chars")
    }
    prompt_numbers: list[int] = []
    outcome_numbers: list[int] = []
    faults = Faults()
    for number, cells in read_rows(path, lambda present: _wanted(present, kept, models)):
        prompt_numbers.append(number)
        for column in kept:
            cell = cells.get(column)
            prompts[ours.get(column, column)].append(as_prompt(cell) if column == "prompt" else cell)
        for model in models:
            quality = _measured(path, number, model, cells.get(model), faults, value_max=1.0)
            if math.isnan(quality):
                continue
            cost = f"{model}{COST_SUFFIX}"
            outcome_numbers.append(number)
            outcomes["prompt_id"].append(cells.get("sample_id"))
            outcomes["model"].append(model)
            outcomes["quality"].append(quality)
            outcomes["cost_usd"].append(_measured(path, number, cost, cells.get(cost), faults))
            outcomes["output_chars"].append(_length(cells.get(f"{model}{ANSWER_SUFFIX}")))
    faults.raise_if_any()
    prompts.setdefault("source", [SOURCE] * len(prompt_numbers))
    return (
        Table(path.name, prompts, prompt_numbers, RENAMED),
        Table(path.name, outcomes, outcome_numbers, RENAMED),
    )


def model_columns(names: Sequence[str]) -> tuple[str, ...]:
    """The models of a table with these columns."""
    taken = {*REQUIRED, *OPTIONAL, ORACLE_COLUMN}
    present = set(names)
    return tuple(
        name
        for name in names
        if name not in taken
        and not name.endswith((COST_SUFFIX, ANSWER_SUFFIX))
        and (f"{name}{COST_SUFFIX}" in present or f"{name}{ANSWER_SUFFIX}" in present)
    )


def _wanted(present: Sequence[str], kept: Sequence[str], models: Sequence[str]) -> list[str]:
    per_model = (f"{model}{suffix}" for model in models for suffix in ("", COST_SUFFIX, ANSWER_SUFFIX))
    return [column for column in (*kept, *per_model) if column in present]


def as_prompt(cell: object) -> object:
    """The prompt in a cell: RouterBench writes a list of turns, or that list as Python would print it."""
    turns = cell
    if isinstance(cell, str) and cell.startswith(("['", '["')) and cell.endswith("]"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it is a prompt, not a program: odd escapes are nobody's mistake
                turns = ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return cell
    if isinstance(turns, list) and turns and all(isinstance(turn, str) for turn in turns):
        return "\n".join(turns)
    return cell


def _measured(
    path: Path, number: int, column: str, cell: object, faults: Faults, *, value_max: float = math.inf
) -> float:
    """A cell as a number from 0 to `value_max`, NaN where it is unknown or a fault."""
    value = as_number(_parsed(cell))
    if value is not None and (math.isnan(value) or (0.0 <= value <= value_max and math.isfinite(value))):
        return value
    limit = f"from 0 to {value_max:g}" if math.isfinite(value_max) else "of at least 0"
    faults.add(f"{place(path.name, number, column)}: {shown(cell, column)} is not a number {limit}")
    return math.nan


def _parsed(cell: object) -> object:
    """The number that a cell of CSV spells, else the cell."""
    if not isinstance(cell, str):
        return cell
    try:
        return float(cell)
    except ValueError:
        return cell


def _length(cell: object) -> int | None:
    """How many characters an answer has; None where it is unknown."""
    text = as_prompt(cell)
    return len(text) if isinstance(text, str) else None
