"""Labelled prompts as training and evaluation read them, checked early.

A data directory holds two tables, as `prompts.parquet` and `outcomes.parquet` or as `prompts.jsonl` and
`outcomes.jsonl`; or one table in RouterBench's wide format (see `wide`).

    prompts   prompt_id, prompt; optional: source, dataset, category, dedupe_key, tags, split (train, val or test)
    outcomes  prompt_id, model, quality (0..1); optional: source, cost_usd, input_tokens, output_tokens, output_chars,
              latency_s, weight

docs/training.md is the reader's version. Nothing is imputed: what a table does not tell is NaN.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pointsman_server.training.tables import (
    SUFFIXES,
    DatasetError,
    Doubles,
    Faults,
    Strings,
    Table,
    read_table,
    row_name,
    shown,
)
from pointsman_server.training.wide import read_wide

__all__ = (
    "CHARACTERS_PER_TOKEN",
    "OWN_SOURCE",
    "SPLITS",
    "Dataset",
    "DatasetError",
    "Matrix",
    "Strings",
    "joined",
    "load_dataset",
)

PROMPTS = "prompts"
OUTCOMES = "outcomes"
"""The two tables, without their suffix."""
TABLE_SUFFIXES = (".parquet", ".jsonl")

PROMPT_REQUIRED = ("prompt_id", "prompt")
PROMPT_OPTIONAL = ("source", "dataset", "category", "dedupe_key", "tags", "split")
OUTCOME_REQUIRED = ("prompt_id", "model", "quality")
OUTCOME_MEASURES = ("cost_usd", "input_tokens", "output_tokens", "output_chars", "latency_s")
OUTCOME_OPTIONAL = ("source", "weight", *OUTCOME_MEASURES)

OWN_SOURCE = "own"
"""The source of data that names none."""

SPLITS = ("train", "val", "test")
VAL_SHARE = 0.1
TEST_SHARE = 0.2
"""Shares of questions held back where the data brings no split of its own."""

CHARACTERS_PER_TOKEN = 4.0
"""Turns lengths in characters into tokens where a source gives only characters: English prose has 4 to 5 characters
per token, mathematics and code 3 to 4."""

_WHAT_A_DIRECTORY_HOLDS = "a data directory holds prompts.parquet and outcomes.parquet, or both as .jsonl, or one table in RouterBench's format"

LABEL_WEIGHT_MAX = 1000.0
"""A label that counts for more would be all that its model is known by."""
CELL_COUNT_MAX = 100_000_000
"""Prompts times endpoints: 100 million cells are 400 MB for each of the five measured matrices."""

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Prompts and what each endpoint made of them. Rows are prompts, columns are endpoints; NaN is unknown.

    Memory: 20 bytes per prompt and endpoint, and the prompts themselves.
    """

    prompt_ids: Strings
    texts: Strings = field(repr=False)
    sources: Strings
    datasets: Strings
    """The data set within its source that each prompt is from; empty where it has none."""
    categories: Strings
    """The data set and the category, as far as they are told."""
    dedupe_keys: Strings
    """The same question in two wordings or sources has the same key, and one split."""
    tags: Strings
    """What else is known of each prompt, such as `contaminated`; several are separated by commas."""
    splits: Strings
    endpoints: tuple[tuple[str, str], ...]
    """(source, model): the same name in two sources was prompted differently."""
    quality: Matrix
    """(prompts, endpoints), 0..1."""
    cost_usd: Matrix
    """(prompts, endpoints): what each call cost."""
    input_tokens: Matrix
    """(prompts, endpoints), as the provider counted them."""
    output_tokens: Matrix
    """(prompts, endpoints), estimated from characters where only these are known."""
    latency_s: Matrix
    """(prompts, endpoints): until the end of the answer."""
    weight: Matrix | None = None
    """(prompts, endpoints): how many labels each one counts as when profiles are fitted; None: each counts as one."""

    @property
    def groups(self) -> Strings:
        """Of each prompt, the source and the category: what was asked and scored alike."""
        return np.array([f"{s}/{c}" for s, c in zip(self.sources, self.categories, strict=True)], dtype=object)

    def where(self, mask: npt.NDArray[np.bool_]) -> Dataset:
        """The prompts for which `mask` holds, with every endpoint."""
        rows = {name: getattr(self, name)[mask] for name in _ROW_FIELDS}
        return replace(self, **rows, weight=None if self.weight is None else self.weight[mask])

    def in_split(self, split: str) -> Dataset:
        """The prompts of one split."""
        return self.where(self.splits == split)

    def from_sources(self, sources: Sequence[str]) -> Dataset:
        """The prompts and the endpoints of these sources."""
        rows = self.where(np.isin(self.sources, list(sources)))
        return rows.of_endpoints([index for index, (source, _) in enumerate(self.endpoints) if source in sources])

    def from_known_sources(self, sources: Sequence[str]) -> Dataset:
        """Likewise, of sources that somebody named.

        Raises:
            DatasetError: there is no such source.
        """
        present = sorted(set(self.sources))
        for name in sources:
            if name not in present:
                raise DatasetError(f"the data has no source {name}; it has {', '.join(present)}")
        return self.from_sources(sources)

    def of_endpoints(self, columns: Sequence[int]) -> Dataset:
        """Every prompt, with these columns alone."""
        matrices = {name: getattr(self, name)[:, columns] for name in _MATRIX_FIELDS}
        endpoints = tuple(self.endpoints[index] for index in columns)
        weight = None if self.weight is None else self.weight[:, columns]
        return replace(self, endpoints=endpoints, **matrices, weight=weight)

    def tagged(self, tag: str) -> npt.NDArray[np.bool_]:
        """Which prompts have this tag."""
        return np.array([tag in tags.split(",") for tags in self.tags], dtype=np.bool_)

    def without_questions(self, dedupe_keys: frozenset[str]) -> Dataset:
        """Everything but these questions, in whatever wording or source."""
        return self.where(np.array([key not in dedupe_keys for key in self.dedupe_keys], dtype=np.bool_))

    def crossing_questions(self) -> frozenset[str]:
        """The keys of questions that stand in more than one split, so that one has seen what another is to hold back."""
        splits: dict[str, set[str]] = {}
        for key, split in zip(self.dedupe_keys, self.splits, strict=True):
            splits.setdefault(key, set()).add(split)
        return frozenset(key for key, found in splits.items() if len(found) > 1)


_MATRIX_FIELDS = ("quality", "cost_usd", "input_tokens", "output_tokens", "latency_s")
_ROW_FIELDS = tuple(each.name for each in fields(Dataset) if each.name not in {"endpoints", "weight"})
_TEXT_FIELDS = tuple(name for name in _ROW_FIELDS if name not in _MATRIX_FIELDS)


def load_dataset(directory: Path) -> Dataset:
    """The data in `directory`.

    Raises:
        DatasetError: a file or a column is missing, or values are not valid.
    """
    prompts_path, outcomes_path = _table_path(directory, PROMPTS), _table_path(directory, OUTCOMES)
    if prompts_path is None and outcomes_path is None:
        prompts, outcomes = read_wide(_wide_path(directory))
    else:
        for found, name in ((prompts_path, PROMPTS), (outcomes_path, OUTCOMES)):
            if found is None:
                raise DatasetError(f"{directory / name}.parquet is missing; {_WHAT_A_DIRECTORY_HOLDS}")
        assert prompts_path is not None
        assert outcomes_path is not None
        prompts = read_table(prompts_path, required=PROMPT_REQUIRED, optional=PROMPT_OPTIONAL)
        outcomes = read_table(outcomes_path, required=OUTCOME_REQUIRED, optional=OUTCOME_OPTIONAL)
    return assembled(prompts, outcomes)


def _table_path(directory: Path, name: str) -> Path | None:
    """The file of a table, None where there is none."""
    found = [path for suffix in TABLE_SUFFIXES if (path := directory / f"{name}{suffix}").is_file()]
    if len(found) > 1:
        raise DatasetError(f"{directory}: has both {found[0].name} and {found[1].name}; keep the one that counts")
    return found[0] if found else None


def _wide_path(directory: Path) -> Path:
    """The one table in a directory, or the table that was named in its place."""
    if directory.is_file():
        return directory
    if not directory.is_dir():
        raise DatasetError(f"{directory} is no directory; {_WHAT_A_DIRECTORY_HOLDS}")
    files = sorted(path for path in directory.iterdir() if path.is_file())
    tables = [path for path in files if path.suffix in SUFFIXES]
    if len(tables) == 1:
        return tables[0]
    if tables:
        raise DatasetError(f"{directory}: has several tables, {tables[0].name} and {tables[1].name}; name one of them")
    if pickles := [path for path in files if path.suffix in {".pkl", ".pickle"}]:
        raise DatasetError(
            f"{pickles[0]}: a pickle can run any code when it is opened, so it is not read; with pandas, once: "
            f"pandas.read_pickle({pickles[0].name!r}).to_parquet({pickles[0].with_suffix('.parquet').name!r})"
        )
    raise DatasetError(f"{directory / PROMPTS}.parquet is missing; {_WHAT_A_DIRECTORY_HOLDS}")


def assembled(prompts: Table, outcomes: Table) -> Dataset:
    """The dataset of two tables.

    Raises:
        DatasetError: values are not valid; the faults of a table are told together.
    """
    faults = Faults()
    ids = prompts.texts("prompt_id", faults)
    texts = prompts.texts("prompt", faults)
    prompts.check_prompts(texts, faults)
    keys = _or_else(prompts.texts("dedupe_key", faults, absent=""), (_digest(text) for text in texts))
    splits = _splits(prompts, keys, faults)
    row_of = _unique_rows(prompts, ids, faults)
    told = {column: prompts.texts(column, faults, absent="") for column in ("source", "dataset", "category", "tags")}
    faults.raise_if_any()
    rows = _rows_of_outcomes(outcomes, row_of, prompts.file, faults)
    sources = _sources(outcomes, rows, told["source"], faults)
    endpoints, columns = _endpoints(outcomes, rows, sources, faults)
    measured = _measured(outcomes, faults)
    weight = outcomes.measurements("weight", faults, value_max=LABEL_WEIGHT_MAX)
    faults.raise_if_any()
    shape = (len(ids), len(endpoints))
    return Dataset(
        prompt_ids=ids,
        texts=texts,
        sources=sources,
        datasets=told["dataset"],
        categories=_joined(told["dataset"], told["category"]),
        dedupe_keys=keys,
        tags=np.array([",".join(tags.replace(",", " ").split()) for tags in told["tags"]], dtype=np.object_),
        splits=splits,
        endpoints=endpoints,
        **{name: _matrix(values, rows, columns, shape) for name, values in measured.items()},
        weight=None if np.isnan(weight).all() else np.nan_to_num(_matrix(weight, rows, columns, shape), nan=1.0),
    )


def _splits(prompts: Table, keys: Strings, faults: Faults) -> Strings:
    """Of each prompt its split: as told, or by its question where the table tells of none."""
    if "split" not in prompts.columns:
        return np.array([_split_of(key) for key in keys], dtype=np.object_)
    splits = prompts.texts("split", faults)
    prompts.check(np.isin(splits, (*SPLITS, "?")), "split", f"one of {', '.join(SPLITS)}", faults)
    return splits


def _unique_rows(prompts: Table, ids: Strings, faults: Faults) -> dict[str, int]:
    if not prompts.row_count:
        faults.add(f"{prompts.file}: has no prompt")
    row_of: dict[str, int] = {}
    for row, prompt_id in enumerate(ids):
        first = row_of.setdefault(prompt_id, row)
        if first != row and prompt_id != "?":
            faults.add(
                f"{prompts.place(row, 'prompt_id')}: {shown(prompt_id, 'prompt_id')} "
                f"is already in {row_name(prompts.file, prompts.numbers[first])}"
            )
    return row_of


def _rows_of_outcomes(
    outcomes: Table, row_of: Mapping[str, int], prompts_file: str, faults: Faults
) -> npt.NDArray[np.intp]:
    """Of each outcome the row of its prompt, -1 where that is a fault."""
    if not outcomes.row_count:
        faults.add(f"{outcomes.file}: has no outcome")
    ids = outcomes.texts("prompt_id", faults)
    rows = np.array([row_of.get(prompt_id, -1) for prompt_id in ids], dtype=np.intp)
    outcomes.check((rows >= 0) | (ids == "?"), "prompt_id", f"a prompt_id of {prompts_file}", faults)
    return rows


def _sources(outcomes: Table, rows: npt.NDArray[np.intp], told: Strings, faults: Faults) -> Strings:
    """Of each prompt its source: as its own table tells, else as that of its outcomes does, else our name for it."""
    sources = told.copy()
    if "source" in outcomes.columns:
        found = outcomes.texts("source", faults, absent="")
        for row, source in zip(rows.tolist(), found, strict=True):
            if row >= 0 and source and not sources[row]:
                sources[row] = source
        same = np.array(
            [row < 0 or not source or source == sources[row] for row, source in zip(rows.tolist(), found, strict=True)],
            dtype=np.bool_,
        )
        outcomes.check(same, "source", "the source of its prompt", faults)
    return _or_else(sources, repeat(OWN_SOURCE, len(sources)))


def _endpoints(
    outcomes: Table, rows: npt.NDArray[np.intp], sources: Strings, faults: Faults
) -> tuple[tuple[tuple[str, str], ...], npt.NDArray[np.intp]]:
    """All endpoints, and of each outcome the column of its own."""
    models = outcomes.texts("model", faults)
    outcomes.check(np.array([bool(model.strip()) for model in models], dtype=np.bool_), "model", "a name", faults)
    pairs = list(zip(sources[rows].tolist(), models.tolist(), strict=True)) if len(sources) else []
    endpoints = tuple(sorted(set(pairs)))
    column_of = {endpoint: column for column, endpoint in enumerate(endpoints)}
    columns = np.array([column_of[pair] for pair in pairs], dtype=np.intp)
    is_first = np.zeros(len(rows), dtype=np.bool_)
    is_first[np.unique(rows * max(1, len(endpoints)) + columns, return_index=True)[1]] = True
    outcomes.check(is_first | (rows < 0), "prompt_id", "at most one outcome per prompt and model", faults)
    if len(sources) * len(endpoints) > CELL_COUNT_MAX:
        faults.add(
            f"{outcomes.file}: {len(sources):,} prompts times {len(endpoints):,} models are more than "
            f"{CELL_COUNT_MAX:,}; split the data by source"
        )
    return endpoints, columns


def _measured(outcomes: Table, faults: Faults) -> dict[str, Doubles]:
    """What was measured of each outcome, by the name of its matrix."""
    quality = outcomes.measurements("quality", faults, value_max=1.0, known=True)
    found = {name: outcomes.measurements(name, faults) for name in OUTCOME_MEASURES}
    estimated = found.pop("output_chars") / CHARACTERS_PER_TOKEN
    found["output_tokens"] = np.where(np.isnan(found["output_tokens"]), estimated, found["output_tokens"])
    return {"quality": quality} | found


def _matrix(
    values: Doubles, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], shape: tuple[int, int]
) -> Matrix:
    matrix = np.full(shape, np.nan, dtype=np.float32)
    matrix[rows, columns] = values
    return matrix


def joined(one: Dataset, other: Dataset) -> Dataset:
    """Both together; a model of one source that both have is one endpoint.

    Raises:
        DatasetError: a prompt_id is in both.
    """
    if shared := set(one.prompt_ids) & set(other.prompt_ids):
        raise DatasetError(f"{len(shared)} prompt_ids are in both sets of data, {min(shared)} for one")
    endpoints = tuple(sorted({*one.endpoints, *other.endpoints}))
    column_of = {endpoint: column for column, endpoint in enumerate(endpoints)}
    columns = [[column_of[endpoint] for endpoint in part.endpoints] for part in (one, other)]

    def stacked(matrices: Sequence[Matrix]) -> Matrix:
        both = np.full((len(one.texts) + len(other.texts), len(endpoints)), np.nan, dtype=np.float32)
        both[: len(one.texts), columns[0]], both[len(one.texts) :, columns[1]] = matrices
        return both

    weights = [np.ones_like(part.quality) if part.weight is None else part.weight for part in (one, other)]
    texts = {name: np.concatenate((getattr(one, name), getattr(other, name))) for name in _TEXT_FIELDS}
    matrices = {name: stacked((getattr(one, name), getattr(other, name))) for name in _MATRIX_FIELDS}
    has_weights = one.weight is not None or other.weight is not None
    fields_of_both: dict[str, Any] = texts | matrices
    return Dataset(
        endpoints=endpoints,
        weight=np.nan_to_num(stacked(weights), nan=1.0) if has_weights else None,
        **fields_of_both,
    )


def _or_else(texts: Strings, others: Iterable[str]) -> Strings:
    """Each text, or the other one where it is empty."""
    return np.array([text or other for text, other in zip(texts, others, strict=True)], dtype=np.object_)


def _joined(datasets: Strings, categories: Strings) -> Strings:
    return np.array([f"{d}/{c}".strip("/") for d, c in zip(datasets, categories, strict=True)], dtype=np.object_)


def _digest(text: str) -> str:
    return hashlib.sha256(" ".join(text.lower().split()).encode("utf-8", "replace")).hexdigest()[:16]


def _split_of(dedupe_key: str) -> str:
    """A split that depends on the question alone, so that it never crosses and stays when data is added."""
    share = int(hashlib.sha256(dedupe_key.encode("utf-8", "replace")).hexdigest()[:8], 16) / 2**32
    if share < TEST_SHARE:
        return "test"
    return "val" if share < TEST_SHARE + VAL_SHARE else "train"
