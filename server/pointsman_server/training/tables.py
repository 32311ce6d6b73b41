"""Tables of labelled prompts as files hold them, Parquet, JSON Lines or CSV, and what is wrong with them.

Every fault names the file, the row (of Parquet counted from 0, of text files the line, from 1) and the column, and says
what would be right. A prompt's text never becomes part of it. The faults of a file are told together, up to a bound.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from pointsman_server.errors import PointsmanError

Strings = npt.NDArray[np.object_]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Row = tuple[int, Mapping[str, object]]
"""A row's number as its file counts, and its cells by column; a cell that is None or missing is unknown."""

ROW_COUNT_MAX = 20_000_000
"""Of a table: 20 million outcomes are a million prompts with twenty models each, and take about 10 GB to read."""
LINE_CHARACTERS_MAX = 16_000_000
"""Of a line of JSON Lines and of a cell of CSV: above the longest prompt that any model takes."""
BATCH_SIZE = 1024
"""Rows of Parquet that are in memory together where a table is read row by row."""
FAULT_COUNT_MAX = 20
"""Faults that are told: enough to see a pattern, few enough to read."""
SHOWN_LENGTH_MAX = 80
"""Characters of a bad value that are shown."""

TEXT_SUFFIXES = (".jsonl", ".csv")
SUFFIXES = (".parquet", *TEXT_SUFFIXES)
"""The kinds of files that `read_rows` reads."""

_READING_ERRORS = (OSError, ValueError, pa.ArrowException)
"""What Arrow raises over a damaged file; a ValueError also where a text in it is not UTF-8."""

NOT_SHOWN = frozenset({"prompt"})
"""Columns whose values are nobody's business but their owner's."""


class DatasetError(PointsmanError):
    """Training or evaluation data is not what it should be; the text names the file, the row and the column."""


@dataclass(slots=True)
class Faults:
    """What is wrong, as far as it was looked for. At most `FAULT_COUNT_MAX` are kept; the rest are counted."""

    told: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, fault: str) -> None:
        """One more."""
        self.count += 1
        if len(self.told) < FAULT_COUNT_MAX:
            self.told.append(fault)

    def raise_if_any(self) -> None:
        """Ends the reading where there is a fault.

        Raises:
            DatasetError: with all that are told.
        """
        if self.count == 1:
            raise DatasetError(self.told[0])
        if self.count:
            more = [f"... and {self.count - len(self.told)} more"] if self.count > len(self.told) else []
            raise DatasetError("\n".join((f"{self.count} faults:", *(f"  {fault}" for fault in [*self.told, *more]))))


@dataclass(frozen=True, slots=True)
class Table:
    """Some columns of a file, in memory."""

    file: str
    """Its name, for faults."""
    columns: Mapping[str, Sequence[object] | Doubles]
    """By name; a column of numbers may be an array, NaN where it is null."""
    numbers: Sequence[int]
    """Of each row, as its file counts."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What its file calls a column, where that is something else."""

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return len(self.numbers)

    def place(self, row: int, column: str) -> str:
        """Where a fault is."""
        return place(self.file, self.numbers[row], self.names.get(column, column))

    def texts(self, column: str, faults: Faults, *, absent: str | None = None) -> Strings:
        """A column of text, a whole number standing for its digits; whatever else is a fault, and a question mark here.

        `absent` stands where the column is missing or null; without it, that is a fault.
        """
        values = self.columns.get(column) if absent is not None else self.columns[column]
        if values is None:
            return np.full(self.row_count, absent, dtype=np.object_)
        found = np.empty(len(values), dtype=np.object_)
        for row, value in enumerate(values):
            text = _text(value)
            if text is None and absent is not None:
                text = absent
            if not isinstance(text, str):
                faults.add(f"{self.place(row, column)}: {shown(value, column)} is not text")
                text = "?"
            elif not _is_unicode(text):
                faults.add(f"{self.place(row, column)}: holds half a surrogate pair, which is no Unicode text")
                text = "?"
            found[row] = text
        return found

    def measurements(self, column: str, faults: Faults, *, value_max: float = math.inf, known: bool = False) -> Doubles:
        """A column of numbers from 0 to `value_max`, NaN where unknown or the column is missing; whatever else is a
        fault, and NaN here. With `known`, so is what is unknown."""
        values = self.columns.get(column)
        if values is None:
            return np.full(self.row_count, math.nan)
        if isinstance(values, np.ndarray):
            found, valid = values, np.ones(len(values), dtype=np.bool_)
        else:
            cells = [as_number(value) for value in values]
            valid = np.array([cell is not None for cell in cells], dtype=np.bool_)
            found = np.array([math.nan if cell is None else cell for cell in cells])
        inside = (found >= 0.0) & (found <= value_max) & np.isfinite(found)
        valid = valid & (inside if known else inside | np.isnan(found))
        limit = f"from 0 to {value_max:g}" if math.isfinite(value_max) else "of at least 0"
        self.check(valid, column, f"a number {limit}", faults)
        return np.where(valid, found, math.nan)

    def check(self, valid: Bools, column: str, expected: str, faults: Faults) -> None:
        """Adds a fault for each row that is not valid: its value is not what is expected."""
        for row in np.flatnonzero(~valid).tolist():
            faults.add(f"{self.place(row, column)}: {shown(self.columns[column][row], column)} is not {expected}")

    def check_prompts(self, texts: Strings, faults: Faults) -> None:
        """Adds a fault for each prompt without a word."""
        self.check(np.array([bool(text.strip()) for text in texts], dtype=np.bool_), "prompt", "a prompt", faults)


def place(file: str, number: int, column: str) -> str:
    """Where a fault is: the file, the row or the line, the column."""
    return f"{file} {row_name(file, number)}, column {column}"


def row_name(file: str, number: int) -> str:
    """How a row is called: people count lines of text from 1, and rows of arrays from 0."""
    return f"{'line' if file.endswith(TEXT_SUFFIXES) else 'row'} {number}"


def shown(value: object, column: str) -> str:
    """A bad value as a fault shows it; of a prompt only what kind of value it is."""
    if value is None:
        return "null"
    if column in NOT_SHOWN:
        return f"a value of the type {type(value).__name__}"
    text = str(value)
    return repr(text if len(text) <= SHOWN_LENGTH_MAX else f"{text[:SHOWN_LENGTH_MAX]}...")


def read_table(path: Path, *, required: Sequence[str], optional: Sequence[str]) -> Table:
    """These columns of a Parquet or JSON Lines file, as far as it has the optional ones.

    Raises:
        DatasetError: it can't be read, is too long, or lacks a required column.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path, required=required, optional=optional)
    columns: dict[str, list[object]] = {column: [] for column in (*required, *optional)}
    present = set(required)
    numbers: list[int] = []
    for number, cells in read_rows(path):
        if missing := [column for column in required if column not in cells]:
            raise DatasetError(f"{place(path.name, number, missing[0])}: is missing; {_requires(required)}")
        present.update(cells.keys() & columns.keys())
        numbers.append(number)
        for column, values in columns.items():
            values.append(cells.get(column))
    return Table(path.name, {column: columns[column] for column in columns if column in present}, numbers)


def _read_parquet(path: Path, *, required: Sequence[str], optional: Sequence[str]) -> Table:
    with _opened_parquet(path) as file:
        names = set(file.schema_arrow.names)
        if missing := [column for column in required if column not in names]:
            raise DatasetError(f"{path}: column {missing[0]} is missing; {_requires(required)}")
        wanted = [column for column in (*required, *optional) if column in names]
        try:
            table = file.read(columns=wanted)
            columns = {column: _cells(table[column]) for column in wanted}
        except _READING_ERRORS as error:
            raise _unreadable(path, error) from error
    return Table(path.name, columns, range(table.num_rows))


def _cells(column: pa.ChunkedArray) -> Sequence[object] | Doubles:
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        as_integers = column.cast(pa.int8()) if pa.types.is_boolean(kind) else column
        return np.array(as_integers.cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy(), dtype=np.float64)
    cells: list[object] = column.to_pylist()
    return cells


def read_rows(path: Path, columns: Callable[[Sequence[str]], Sequence[str]] | None = None) -> Iterator[Row]:
    """The rows of a Parquet, JSON Lines or CSV file one by one, in bounded memory.

    Args:
        path: of the file; its suffix says what it is.
        columns: which of a Parquet file's columns to read; None reads all. Other kinds are read whole.

    Raises:
        DatasetError: it can't be read, or is too long.
    """
    reader = {".parquet": _parquet_rows, ".csv": _csv_rows, ".jsonl": _json_rows}.get(path.suffix)
    if reader is None:
        raise DatasetError(f"{path}: is none of the kinds {', '.join(SUFFIXES)}")
    rows = _parquet_rows(path, columns) if reader is _parquet_rows else reader(path)
    for count, row in enumerate(rows):
        if count == ROW_COUNT_MAX:
            raise DatasetError(f"{path}: has more than {ROW_COUNT_MAX:,} rows")
        yield row


def column_names(path: Path) -> tuple[str, ...]:
    """The columns of a file: of JSON Lines those of its first line.

    Raises:
        DatasetError: it can't be read.
    """
    if path.suffix == ".parquet":
        with _opened_parquet(path) as file:
            return tuple(file.schema_arrow.names)
    return tuple(next((cells for _, cells in read_rows(path)), {}))


def row_count(path: Path) -> int:
    """How many rows a file has, blank lines aside; of CSV the lines.

    Raises:
        DatasetError: it can't be read.
    """
    if path.suffix == ".parquet":
        with _opened_parquet(path) as file:
            return int(file.metadata.num_rows)
    return sum(1 for line in _lines(path) if line.strip())


def _parquet_rows(path: Path, columns: Callable[[Sequence[str]], Sequence[str]] | None = None) -> Iterator[Row]:
    with _opened_parquet(path) as file:
        wanted = None if columns is None else list(columns(file.schema_arrow.names))
        number = 0
        try:
            for batch in file.iter_batches(batch_size=BATCH_SIZE, columns=wanted):
                for cells in batch.to_pylist():
                    yield number, cells
                    number += 1
        except _READING_ERRORS as error:
            raise _unreadable(path, error) from error


def _json_rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{path.name} line {number}: is not JSON") from error
        if not isinstance(cells, dict):
            raise DatasetError(f"{path.name} line {number}: is not a JSON object, one of which stands on every line")
        yield number, cells


def _csv_rows(path: Path) -> Iterator[Row]:
    # A limit of the module, not of a reader. What it guards against is guarded against by our own.
    csv.field_size_limit(LINE_CHARACTERS_MAX)
    reader = csv.reader(_lines(path), strict=True)
    try:
        names = next(reader, [])
        number = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(names):
                raise DatasetError(f"{path.name} line {number}: has {len(cells)} cells, its first line {len(names)}")
            if cells:
                yield number, {name: cell or None for name, cell in zip(names, cells, strict=True)}
            number = reader.line_num + 1
    except csv.Error as error:
        raise DatasetError(f"{path.name} line {reader.line_num}: is not CSV") from error


def _lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, none of them longer than `LINE_CHARACTERS_MAX`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            number = 0
            while line := file.readline(LINE_CHARACTERS_MAX + 1):
                number += 1
                if len(line) > LINE_CHARACTERS_MAX:
                    raise DatasetError(f"{path.name} line {number}: is longer than {LINE_CHARACTERS_MAX:,} characters")
                yield line
    except OSError as error:
        raise DatasetError(f"{path}: can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is not UTF-8") from error


def _opened_parquet(path: Path) -> pyarrow.parquet.ParquetFile:
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except _READING_ERRORS as error:
        raise _unreadable(path, error) from error
    if file.metadata.num_rows > ROW_COUNT_MAX:
        file.close()
        raise DatasetError(f"{path}: has {file.metadata.num_rows:,} rows, more than {ROW_COUNT_MAX:,}")
    return file


def _unreadable(path: Path, error: Exception) -> DatasetError:
    """Arrow raises an OSError without a number where a file is damaged."""
    if isinstance(error, OSError) and error.errno is not None:
        return DatasetError(f"{path}: can't be read ({os.strerror(error.errno)})")
    return DatasetError(f"{path} is not a parquet file, or a damaged one")


def _requires(columns: Iterable[str]) -> str:
    return f"required are {', '.join(columns)}"


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _text(value: object) -> object:
    """A cell as text where it is one or a whole number, None where it is unknown."""
    if isinstance(value, float) and value.is_integer():  # how a column of whole numbers arrives
        return str(int(value))
    if isinstance(value, float) and math.isnan(value):
        return None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def as_number(value: object) -> float | None:
    """A cell as a number, NaN where unknown, None where it is none."""
    if value is None:
        return math.nan
    if not isinstance(value, int | float | Decimal):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
