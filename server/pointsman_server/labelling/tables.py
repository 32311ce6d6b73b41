"""The files that training reads: `prompts` and `outcomes`, each replaced as a whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from pointsman_server.labelling.errors import LabellingError
from pointsman_server.labelling.outcomes import OutcomeRow, PromptRow

PROMPTS_NAME = "prompts"
OUTCOMES_NAME = "outcomes"

Row = PromptRow | OutcomeRow
WriteRows = Callable[[Path, Sequence[Row], tuple[str, ...]], None]
"""Writes these columns of the rows to a file."""


class TableFormat(StrEnum):
    """How tables are stored; the value is the file's ending."""

    PARQUET = "parquet"
    JSONL = "jsonl"


def chosen_format(wanted: TableFormat | None, directory: Path) -> TableFormat:
    """The format that is asked for; else Parquet where it can be written, and JSONL elsewhere.

    Raises:
        LabellingError: Parquet is asked for and pyarrow is missing, or the folder has tables in the other format, beside
            which new ones would leave two truths.
    """
    has_parquet = find_spec("pyarrow") is not None
    if wanted is TableFormat.PARQUET and not has_parquet:
        raise LabellingError("Parquet needs pyarrow: pip install 'pointsman[train]', or give --format jsonl")
    chosen = wanted or (TableFormat.PARQUET if has_parquet else TableFormat.JSONL)
    other = TableFormat.JSONL if chosen is TableFormat.PARQUET else TableFormat.PARQUET
    stale = directory / f"{OUTCOMES_NAME}.{other}"
    if stale.exists():
        raise LabellingError(f"{stale} is there already: give --format {other}, remove it, or choose another --out")
    return chosen


def table_paths(directory: Path, table_format: TableFormat) -> tuple[Path, Path]:
    """Where prompts and outcomes are written."""
    return directory / f"{PROMPTS_NAME}.{table_format}", directory / f"{OUTCOMES_NAME}.{table_format}"


def write_tables(
    directory: Path, table_format: TableFormat, prompts: Sequence[PromptRow], outcomes: Sequence[OutcomeRow]
) -> None:
    """Replaces both tables. `split` is a column only where the prompts have one: training then makes its own.

    Raises:
        OSError: a file can't be written; the old one stays.
    """
    write = _writer(table_format)
    prompts_path, outcomes_path = table_paths(directory, table_format)
    has_split = any(row.split is not None for row in prompts)
    columns = tuple(field.name for field in fields(PromptRow) if has_split or field.name != "split")
    _replace(prompts_path, lambda path: write(path, prompts, columns))
    _replace(outcomes_path, lambda path: write(path, outcomes, tuple(field.name for field in fields(OutcomeRow))))


def _writer(table_format: TableFormat) -> WriteRows:
    if table_format is TableFormat.JSONL:
        return write_jsonl
    # Loaded only where it is used: pyarrow takes a third of a second, and the server's installation has none.
    write: WriteRows = import_module("pointsman_server.labelling.parquet").write_parquet
    return write


def write_jsonl(path: Path, rows: Iterable[Row], columns: tuple[str, ...]) -> None:
    """Writes a JSON object a line; what is unknown is null."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            content = {name: getattr(row, name) for name in columns}
            file.write(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file beside the old one and puts it in its place once it is on disk."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        write(fresh)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
