"""`pointsman predict`: what an artifact expects of some models on many prompts, in bounded memory."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from pointsman_server.cli.exit import EXIT_USAGE, CommandError
from pointsman_server.cli.offline import counting_bar, faults_told, loaded, written_beside
from pointsman_server.cli.output import console
from pointsman_server.training.dataset import DatasetError
from pointsman_server.training.names import ModelNames
from pointsman_server.training.predictions import Predictions, predictions
from pointsman_server.training.tables import Faults, Row, Table, column_names, read_rows, row_count

FORMATS = (".parquet", ".jsonl")
"""Of what is read and of what is written."""
REQUIRED = ("prompt_id", "prompt")
BATCH_SIZE = 512
"""Prompts that are in memory together, with their predictions."""

SCHEMA = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("quality", pa.float64(), nullable=False),
        pa.field("quality_low", pa.float64(), nullable=False),
        pa.field("quality_high", pa.float64(), nullable=False),
        pa.field("output_tokens", pa.float64()),
    ]
)
"""What is written; the names are a contract, docs/training.md has their meaning."""

Columns = Mapping[str, list[str] | list[float] | list[float | None]]
Write = Callable[[Columns], None]


def run(arguments: Namespace, _environment: Mapping[str, str]) -> int:
    """Writes a row for each prompt and model; the file is there when all are."""
    source, target = arguments.input, arguments.out
    for option, path in (("--input", source), ("--out", target)):
        if path.suffix not in FORMATS:
            raise CommandError(f"{option} {path}: its name has to end in {' or '.join(FORMATS)}", exit_code=EXIT_USAGE)
    if target.exists() and source.exists() and target.samefile(source):
        raise CommandError(f"--out {target} is the input; name another file", exit_code=EXIT_USAGE)
    with faults_told():
        model = loaded(arguments.artifact)
        known = ModelNames.of(model)
        names = {asked: known.of_text(asked) for asked in arguments.models}
        total = row_count(source)
        prompt_count = 0
        with counting_bar() as bar, written_beside(target) as temporary, _writer(temporary) as write:
            task = bar.add_task("predicting", total=total)
            for ids, texts in _batches(source):
                found = predictions(model, texts, tuple(names.values()), lambda count: bar.advance(task, count))
                write(_columns(ids, tuple(names), found))
                prompt_count += len(ids)
    console(stderr=True).print(f"{prompt_count:,} prompts, {prompt_count * len(names):,} predictions", style="dim")
    return 0


def _batches(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    """The ids and the prompts, some at a time.

    Raises:
        DatasetError: a column is missing, or a value is not valid; the faults of a batch are told together.
    """
    if missing := [column for column in REQUIRED if column not in column_names(path)]:
        raise DatasetError(f"{path}: column {missing[0]} is missing; required are {', '.join(REQUIRED)}")
    rows = read_rows(path, lambda _present: REQUIRED)
    while batch := list(islice(rows, BATCH_SIZE)):
        yield _checked(path, batch)


def _checked(path: Path, batch: Sequence[Row]) -> tuple[list[str], list[str]]:
    faults = Faults()
    columns = {column: [cells.get(column) for _, cells in batch] for column in REQUIRED}
    table = Table(path.name, columns, [number for number, _ in batch])
    ids, texts = (table.texts(column, faults) for column in REQUIRED)
    table.check_prompts(texts, faults)
    faults.raise_if_any()
    return ids.tolist(), texts.tolist()


def _columns(ids: Sequence[str], models: Sequence[str], found: Predictions) -> Columns:
    """A row for each prompt and model: the models of the first prompt, those of the second, ..."""
    low, high = found.interval
    tokens = found.output_tokens.ravel().tolist()
    return {
        "prompt_id": [prompt_id for prompt_id in ids for _ in models],
        "model": [model for _ in ids for model in models],
        "quality": found.quality.ravel().tolist(),
        "quality_low": low.ravel().tolist(),
        "quality_high": high.ravel().tolist(),
        "output_tokens": [None if math.isnan(count) else count for count in tokens],
    }


@contextmanager
def _writer(path: Path) -> Iterator[Write]:
    """Takes rows, some at a time, for a file whose name says its format."""
    if path.suffix == ".parquet":
        with pyarrow.parquet.ParquetWriter(path, SCHEMA) as writer:
            yield lambda columns: writer.write_table(pa.table(dict(columns), schema=SCHEMA))
        return
    with path.open("w", encoding="utf-8") as file:
        yield lambda columns: file.writelines(_lines(columns))


def _lines(columns: Columns) -> Iterable[str]:
    for cells in zip(*columns.values(), strict=True):
        yield json.dumps(dict(zip(columns, cells, strict=True)), ensure_ascii=False) + "\n"
