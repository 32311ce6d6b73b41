"""Labelled prompts as training and evaluation read them: `prompts.parquet` and `outcomes.parquet`, checked early.

    prompts   prompt_id, prompt; optional: source, dataset, category, dedupe_key, split (train, val or test)
    outcomes  prompt_id, model, quality (0..1); optional: source, output_tokens, output_chars

Every fault names the file, the row (counted from 0) and the column.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from pointsman_server.errors import PointsmanError

PROMPTS_FILE = "prompts.parquet"
OUTCOMES_FILE = "outcomes.parquet"

OWN_SOURCE = "own"
"""The source of data that names none."""

SPLITS = ("train", "val", "test")
VAL_SHARE = 0.1
TEST_SHARE = 0.2
"""Shares of questions held back where the data brings no split of its own."""

CHARACTERS_PER_TOKEN = 4.0
"""Turns lengths in characters into tokens where a source gives only characters: English prose has 4 to 5 characters
per token, mathematics and code 3 to 4."""

Matrix = npt.NDArray[np.float32]
Strings = npt.NDArray[np.object_]


class DatasetError(PointsmanError):
    """Training or evaluation data is not what it should be; the text names the file, the row and the column."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Prompts and what each endpoint made of them. Rows are prompts, columns are endpoints; NaN is unknown."""

    prompt_ids: Strings
    texts: Strings = field(repr=False)
    sources: Strings
    categories: Strings
    dedupe_keys: Strings
    """The same question in two wordings or sources has the same key, and one split."""
    splits: Strings
    endpoints: tuple[tuple[str, str], ...]
    """(source, model): the same name in two sources was prompted differently."""
    quality: Matrix
    """(prompts, endpoints), 0..1."""
    output_tokens: Matrix
    """(prompts, endpoints), estimated from characters where only these are known."""

    @property
    def groups(self) -> Strings:
        """Of each prompt, the source and the category: what was asked and scored alike."""
        return np.array([f"{s}/{c}" for s, c in zip(self.sources, self.categories, strict=True)], dtype=object)

    def where(self, mask: npt.NDArray[np.bool_]) -> Dataset:
        """The prompts for which `mask` holds, with every endpoint."""
        return replace(
            self,
            prompt_ids=self.prompt_ids[mask],
            texts=self.texts[mask],
            sources=self.sources[mask],
            categories=self.categories[mask],
            dedupe_keys=self.dedupe_keys[mask],
            splits=self.splits[mask],
            quality=self.quality[mask],
            output_tokens=self.output_tokens[mask],
        )

    def in_split(self, split: str) -> Dataset:
        """The prompts of one split."""
        return self.where(self.splits == split)

    def from_sources(self, sources: Sequence[str]) -> Dataset:
        """The prompts and the endpoints of these sources."""
        rows = self.where(np.isin(self.sources, list(sources)))
        kept = [index for index, (source, _) in enumerate(self.endpoints) if source in sources]
        return replace(
            rows,
            endpoints=tuple(self.endpoints[index] for index in kept),
            quality=rows.quality[:, kept],
            output_tokens=rows.output_tokens[:, kept],
        )

    def without_questions(self, dedupe_keys: frozenset[str]) -> Dataset:
        """Everything but these questions, in whatever wording or source."""
        return self.where(np.array([key not in dedupe_keys for key in self.dedupe_keys], dtype=np.bool_))


def load_dataset(directory: Path) -> Dataset:
    """The data in `directory`.

    Raises:
        DatasetError: a file or a column is missing, or a value is not valid.
    """
    prompts = _read(directory / PROMPTS_FILE, required=("prompt_id", "prompt"))
    outcomes = _read(directory / OUTCOMES_FILE, required=("prompt_id", "model", "quality"))
    prompt_ids = _strings(prompts, "prompt_id", PROMPTS_FILE)
    row_of = _unique_rows(prompt_ids, PROMPTS_FILE)
    texts = _strings(prompts, "prompt", PROMPTS_FILE)
    sources = _strings(prompts, "source", PROMPTS_FILE, default=lambda _: OWN_SOURCE)
    keys = _strings(prompts, "dedupe_key", PROMPTS_FILE, default=lambda row: _digest(texts[row]))
    splits = _strings(prompts, "split", PROMPTS_FILE, default=lambda row: _split_of(keys[row]))
    _check(np.isin(splits, SPLITS), PROMPTS_FILE, "split", splits, "one of train, val, test")
    endpoints, quality, tokens = _outcome_matrices(outcomes, row_of, sources)
    return Dataset(
        prompt_ids=prompt_ids,
        texts=texts,
        sources=sources,
        categories=_categories(prompts),
        dedupe_keys=keys,
        splits=splits,
        endpoints=endpoints,
        quality=quality,
        output_tokens=tokens,
    )


def _outcome_matrices(
    outcomes: pa.Table, row_of: Mapping[str, int], sources: Strings
) -> tuple[tuple[tuple[str, str], ...], Matrix, Matrix]:
    """Endpoints, quality and output tokens."""
    ids = _strings(outcomes, "prompt_id", OUTCOMES_FILE)
    rows = np.array([row_of.get(prompt_id, -1) for prompt_id in ids], dtype=np.intp)
    _check(rows >= 0, OUTCOMES_FILE, "prompt_id", ids, f"a prompt_id of {PROMPTS_FILE}")
    models = _strings(outcomes, "model", OUTCOMES_FILE)
    quality = _numbers(outcomes, "quality", OUTCOMES_FILE)
    _check((quality >= 0.0) & (quality <= 1.0), OUTCOMES_FILE, "quality", quality, "a number from 0 to 1")
    pairs = list(zip(sources[rows].tolist(), models.tolist(), strict=True))
    endpoints = tuple(sorted(set(pairs)))
    column_of = {endpoint: column for column, endpoint in enumerate(endpoints)}
    columns = np.array([column_of[pair] for pair in pairs], dtype=np.intp)
    _, first = np.unique(rows * len(endpoints) + columns, return_index=True)
    is_first = np.zeros(len(rows), dtype=np.bool_)
    is_first[first] = True
    _check(is_first, OUTCOMES_FILE, "prompt_id", ids, "at most one outcome per prompt and model")
    shape = (len(row_of), len(endpoints))
    quality_matrix = np.full(shape, np.nan, dtype=np.float32)
    quality_matrix[rows, columns] = quality
    tokens = np.full(shape, np.nan, dtype=np.float32)
    tokens[rows, columns] = _output_tokens(outcomes)
    return endpoints, quality_matrix, tokens


def _categories(prompts: pa.Table) -> Strings:
    """What kind of prompt each is: its dataset and category, as far as they are told."""
    datasets = _strings(prompts, "dataset", PROMPTS_FILE, default=lambda _: "")
    categories = _strings(prompts, "category", PROMPTS_FILE, default=lambda _: "")
    return np.array([f"{d}/{c}".strip("/") for d, c in zip(datasets, categories, strict=True)], dtype=np.object_)


def _output_tokens(outcomes: pa.Table) -> npt.NDArray[np.float64]:
    counted = _numbers(outcomes, "output_tokens", OUTCOMES_FILE)
    characters = _numbers(outcomes, "output_chars", OUTCOMES_FILE)
    return np.where(np.isnan(counted), characters / CHARACTERS_PER_TOKEN, counted)


def _read(path: Path, *, required: tuple[str, ...]) -> pa.Table:
    if not path.is_file():
        raise DatasetError(f"{path} is missing; the data directory holds {PROMPTS_FILE} and {OUTCOMES_FILE}")
    try:
        table = pa.parquet.read_table(path)
    except pa.ArrowInvalid as error:
        raise DatasetError(f"{path} is not a parquet file") from error
    missing = [column for column in required if column not in table.column_names]
    if missing:
        raise DatasetError(f"{path}: column {missing[0]} is missing; required are {', '.join(required)}")
    return table


def _strings(table: pa.Table, column: str, file: str, *, default: Callable[[int], str] | None = None) -> Strings:
    """A column of text; a missing column takes its default, a null is a fault."""
    if column not in table.column_names and default is not None:
        return np.array([default(row) for row in range(table.num_rows)], dtype=np.object_)
    values = np.array(table[column].to_pylist(), dtype=np.object_)
    _check(np.array([isinstance(value, str) for value in values], dtype=np.bool_), file, column, values, "text")
    return values


def _numbers(table: pa.Table, column: str, file: str) -> npt.NDArray[np.float64]:
    """A column of numbers, NaN where null; a missing column is all NaN."""
    if column not in table.column_names:
        return np.full(table.num_rows, np.nan)
    try:
        values = pa.compute.cast(table[column], pa.float64())
    except pa.ArrowInvalid as error:
        raise DatasetError(f"{file}: column {column} must hold numbers, not {table[column].type}") from error
    return np.array(values.fill_null(float("nan")).to_numpy(), dtype=np.float64)


def _unique_rows(prompt_ids: Strings, file: str) -> dict[str, int]:
    row_of: dict[str, int] = {}
    for row, prompt_id in enumerate(prompt_ids):
        if prompt_id in row_of:
            raise DatasetError(
                f"{file} row {row}, column prompt_id: {prompt_id!r} is already in row {row_of[prompt_id]}"
            )
        row_of[prompt_id] = row
    return row_of


def _check(
    valid: npt.NDArray[np.bool_],
    file: str,
    column: str,
    values: Strings | npt.NDArray[np.float64],
    expected: str,
) -> None:
    """Fail on the first row that is not valid."""
    if not valid.all():
        row = int(np.argmin(valid))
        raise DatasetError(f"{file} row {row}, column {column}: {str(values[row])[:80]!r} is not {expected}")


def _digest(text: str) -> str:
    return hashlib.sha256(" ".join(text.lower().split()).encode("utf-8", "replace")).hexdigest()[:16]


def _split_of(dedupe_key: str) -> str:
    """A split that depends on the question alone, so that it never crosses and stays when data is added."""
    share = int(hashlib.sha256(dedupe_key.encode("utf-8", "replace")).hexdigest()[:8], 16) / 2**32
    if share < TEST_SHARE:
        return "test"
    return "val" if share < TEST_SHARE + VAL_SHARE else "train"
