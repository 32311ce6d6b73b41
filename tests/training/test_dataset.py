"""Reading labelled prompts, and finding what is wrong with them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pointsman_server.training import tables
from pointsman_server.training.dataset import CHARACTERS_PER_TOKEN, OWN_SOURCE, SPLITS, DatasetError, load_dataset
from training.conftest import Write

PROMPTS: dict[str, list[object]] = {"prompt_id": ["a", "b"], "prompt": ["One?", "Two?"]}
OUTCOMES: dict[str, list[object]] = {"prompt_id": ["a", "b", "b"], "model": ["m", "m", "n"], "quality": [1.0, 0.5, 0.0]}
SECRET = "my secret is 12345"


def as_jsonl(columns: Mapping[str, list[object]]) -> str:
    """A table, one object per row; a null is left out."""
    rows = zip(*columns.values(), strict=True)
    cells = [{name: cell for name, cell in zip(columns, row, strict=True) if cell is not None} for row in rows]
    return "".join(json.dumps(row) + "\n" for row in cells)


def fault_of(directory: Path) -> str:
    """What is said of bad data."""
    with pytest.raises(DatasetError) as caught:
        load_dataset(directory)
    return str(caught.value)


class TestLoad:
    """Good data."""

    def test_the_required_columns_are_enough(self, write: Write) -> None:
        """Prompts, models and qualities alone make a dataset, unknown where nothing was measured."""
        dataset = load_dataset(write(PROMPTS, OUTCOMES))
        assert dataset.endpoints == ((OWN_SOURCE, "m"), (OWN_SOURCE, "n"))
        assert dataset.quality.tolist() == [[1.0, pytest.approx(np.nan, nan_ok=True)], [0.5, 0.0]]
        for matrix in (dataset.output_tokens, dataset.input_tokens, dataset.cost_usd, dataset.latency_s):
            assert np.isnan(matrix).all()
        assert set(dataset.splits) <= set(SPLITS)
        assert dataset.tags.tolist() == ["", ""]

    def test_every_optional_column_is_read(self, write: Write) -> None:
        """What the tables tell beyond the required is where it belongs."""
        prompts = PROMPTS | {
            "source": ["s", "s"],
            "dataset": ["d", None],
            "category": ["c", "e"],
            "dedupe_key": ["k", "l"],
            "tags": ["contaminated, old", None],
            "split": ["train", "test"],
        }
        outcomes = OUTCOMES | {
            "source": ["s", "s", "s"],
            "cost_usd": [0.5, None, 0.25],
            "input_tokens": [10, 20, None],
            "output_tokens": [1, 2, 3],
            "latency_s": [None, 1.5, 2.5],
        }
        dataset = load_dataset(write(prompts, outcomes))
        assert dataset.datasets.tolist() == ["d", ""]
        assert dataset.categories.tolist() == ["d/c", "e"]
        assert dataset.dedupe_keys.tolist() == ["k", "l"]
        assert dataset.tagged("contaminated").tolist() == [True, False]
        assert dataset.tagged("old").tolist() == [True, False]
        assert dataset.splits.tolist() == ["train", "test"]
        assert dataset.endpoints == (("s", "m"), ("s", "n"))
        unknown = pytest.approx(math.nan, nan_ok=True)
        assert dataset.cost_usd.tolist() == [[0.5, unknown], [unknown, 0.25]]
        assert dataset.input_tokens.tolist() == [[10.0, unknown], [20.0, unknown]]
        assert dataset.output_tokens.tolist() == [[1.0, unknown], [2.0, 3.0]]
        assert dataset.latency_s.tolist() == [[unknown, unknown], [1.5, 2.5]]

    def test_json_lines_hold_the_same(self, write: Write, tmp_path_factory: pytest.TempPathFactory) -> None:
        """The same two tables as JSON Lines make the same dataset; blank lines and other keys are passed over."""
        prompts = PROMPTS | {"category": ["c", None], "split": ["train", "test"], "note": ["x", "y"]}
        outcomes = OUTCOMES | {"cost_usd": [0.5, None, 0.25], "output_chars": [100, 40, None]}
        expected = load_dataset(write(prompts, outcomes))
        directory = tmp_path_factory.mktemp("lines")
        (directory / "prompts.jsonl").write_text(as_jsonl(prompts).replace("\n", "\n\n"), encoding="utf-8")
        (directory / "outcomes.jsonl").write_text(as_jsonl(outcomes), encoding="utf-8")
        found = load_dataset(directory)
        assert found.endpoints == expected.endpoints
        for name in ("prompt_ids", "texts", "sources", "categories", "dedupe_keys", "splits"):
            assert getattr(found, name).tolist() == getattr(expected, name).tolist()
        for name in ("quality", "cost_usd", "output_tokens"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), nan_ok=True)

    def test_ids_may_be_numbers(self, write: Write) -> None:
        """Whole numbers as ids stand for their digits in both tables, and true and false for 1 and 0."""
        dataset = load_dataset(
            write(PROMPTS | {"prompt_id": [7, 8]}, OUTCOMES | {"prompt_id": [7, 8, 8], "quality": [True, False, True]})
        )
        assert dataset.prompt_ids.tolist() == ["7", "8"]
        assert dataset.quality[:, 0].tolist() == [1.0, 0.0]

    def test_outcomes_may_tell_the_source(self, write: Write) -> None:
        """Where the prompts name no source, that of their outcomes counts; without either, the data is the user's own."""
        prompts = PROMPTS | {"prompt_id": ["a", "b"]}
        dataset = load_dataset(write(prompts, OUTCOMES | {"source": ["s", None, "t"]}))
        assert dataset.sources.tolist() == ["s", "t"]
        assert dataset.endpoints == (("s", "m"), ("t", "m"), ("t", "n"))

    def test_the_same_question_has_one_split(self, write: Write) -> None:
        """Prompts that differ in case and white space only are the same question, so they share key and split."""
        dataset = load_dataset(write(PROMPTS | {"prompt": ["What  is it?", "what is IT?"]}, OUTCOMES))
        assert dataset.dedupe_keys[0] == dataset.dedupe_keys[1]
        assert dataset.splits[0] == dataset.splits[1]
        assert dataset.crossing_questions() == frozenset()

    def test_a_question_in_two_splits_is_found(self, write: Write) -> None:
        """Where the data itself puts one question into two splits, its key is told."""
        prompts = PROMPTS | {"dedupe_key": ["k", "k"], "split": ["train", "test"]}
        assert load_dataset(write(prompts, OUTCOMES)).crossing_questions() == {"k"}

    def test_tokens_come_from_characters_where_only_these_are_known(self, write: Write) -> None:
        """A counted length is taken as it is; characters are converted."""
        outcomes = OUTCOMES | {"output_tokens": [7, None, None], "output_chars": [100, 80, None]}
        tokens = load_dataset(write(PROMPTS, outcomes)).output_tokens
        assert tokens[0, 0] == 7
        assert tokens[1, 0] == 80 / CHARACTERS_PER_TOKEN
        assert np.isnan(tokens[1, 1])

    def test_parts_keep_rows_and_columns_together(self, write: Write) -> None:
        """The part of one source has that source's prompts and endpoints, in every matrix."""
        prompts = PROMPTS | {"source": ["s", "t"]}
        outcomes = OUTCOMES | {"cost_usd": [0.5, 0.25, 0.125]}
        part = load_dataset(write(prompts, outcomes)).from_sources(["t"])
        assert part.endpoints == (("t", "m"), ("t", "n"))
        assert part.quality.tolist() == [[0.5, 0.0]]
        assert part.cost_usd.tolist() == [[0.25, 0.125]]
        assert part.latency_s.shape == (1, 2)

    def test_questions_can_be_removed(self, write: Write) -> None:
        """Without a question, nothing of it is left."""
        dataset = load_dataset(write(PROMPTS | {"dedupe_key": ["k", "l"]}, OUTCOMES))
        left = dataset.without_questions(frozenset({"k"}))
        assert left.prompt_ids.tolist() == ["b"]
        assert left.quality.tolist() == [[0.5, 0.0]]


class TestFaults:
    """Bad data: each fault names the file, the row and the column."""

    @pytest.mark.parametrize(
        ("prompts", "outcomes", "expected"),
        [
            ({"prompt_id": ["a", "a"]}, {}, "prompts.parquet row 1, column prompt_id: 'a' is already in row 0"),
            ({"prompt": ["x", None]}, {}, "prompts.parquet row 1, column prompt: null is not text"),
            (
                {"prompt": ["x", " \n"]},
                {},
                "prompts.parquet row 1, column prompt: a value of the type str is not a prompt",
            ),
            (
                {"split": ["train", "dev"]},
                {},
                "prompts.parquet row 1, column split: 'dev' is not one of train, val, test",
            ),
            ({"category": [["c"], ["d"]]}, {}, "2 faults:"),
            (
                {},
                {"quality": [1.0, 1.5, 0.0]},
                "outcomes.parquet row 1, column quality: '1.5' is not a number from 0 to 1",
            ),
            (
                {},
                {"quality": [1.0, 0.5, None]},
                "outcomes.parquet row 2, column quality: 'nan' is not a number from 0 to 1",
            ),
            (
                {},
                {"quality": [1.0, math.inf, 0.0]},
                "outcomes.parquet row 1, column quality: 'inf' is not a number from 0 to 1",
            ),
            (
                {},
                {"quality": ["good", "bad", "bad"]},
                "outcomes.parquet row 0, column quality: 'good' is not a number from 0 to 1",
            ),
            (
                {},
                {"cost_usd": [0.1, -0.1, None]},
                "outcomes.parquet row 1, column cost_usd: '-0.1' is not a number of at least 0",
            ),
            (
                {},
                {"latency_s": [0.1, math.inf, None]},
                "outcomes.parquet row 1, column latency_s: 'inf' is not a number of at least 0",
            ),
            (
                {},
                {"prompt_id": ["a", "b", "c"]},
                "outcomes.parquet row 2, column prompt_id: 'c' is not a prompt_id of prompts.parquet",
            ),
            (
                {},
                {"model": ["m", "m", "m"]},
                "outcomes.parquet row 2, column prompt_id: 'b' is not at most one outcome per prompt and model",
            ),
            ({}, {"model": ["m", "", "n"]}, "outcomes.parquet row 1, column model: '' is not a name"),
            (
                {"source": ["s", "s"]},
                {"source": ["s", "s", "t"]},
                "outcomes.parquet row 2, column source: 't' is not the source of its prompt",
            ),
            (
                {},
                {"source": ["s", "s", "t"]},
                "outcomes.parquet row 2, column source: 't' is not the source of its prompt",
            ),
            ({"prompt_id": [], "prompt": []}, {}, "prompts.parquet: has no prompt"),
            ({}, {"prompt_id": [], "model": [], "quality": []}, "outcomes.parquet: has no outcome"),
        ],
    )
    def test_a_bad_value_is_named(
        self, write: Write, prompts: dict[str, list[object]], outcomes: dict[str, list[object]], expected: str
    ) -> None:
        """The first fault is reported with its place."""
        assert expected in fault_of(write(PROMPTS | prompts, OUTCOMES | outcomes)).replace("\n  ", "\n")

    def test_all_faults_of_a_file_are_told_together(self, write: Write) -> None:
        """Several bad rows are listed at once."""
        told = fault_of(write(PROMPTS | {"prompt_id": ["a", "a"], "prompt": ["", "x"]}, OUTCOMES))
        assert told == (
            "2 faults:\n"
            "  prompts.parquet row 0, column prompt: a value of the type str is not a prompt\n"
            "  prompts.parquet row 1, column prompt_id: 'a' is already in row 0"
        )

    def test_the_list_of_faults_is_bounded(self, write: Write) -> None:
        """Of a thousand bad rows some are shown, and the rest is counted."""
        count = 1000
        outcomes: dict[str, list[object]] = {
            "prompt_id": ["a"] * count,
            "model": [f"m{row}" for row in range(count)],
            "quality": [2.0] * count,
        }
        lines = fault_of(write(PROMPTS, outcomes)).splitlines()
        assert lines[0] == f"{count} faults:"
        assert lines[-1] == f"  ... and {count - tables.FAULT_COUNT_MAX} more"
        assert len(lines) == tables.FAULT_COUNT_MAX + 2

    def test_no_fault_shows_a_prompt(self, tmp_path: Path) -> None:
        """Whatever is wrong with a prompt, its text is not part of what is said."""
        (tmp_path / "outcomes.jsonl").write_text(as_jsonl(OUTCOMES), encoding="utf-8")
        for bad in ([SECRET], {"role": SECRET}, f"{SECRET}\ud800"):
            lines = [json.dumps({"prompt_id": "a", "prompt": bad}), json.dumps({"prompt_id": "b", "prompt": "x"})]
            (tmp_path / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
            told = fault_of(tmp_path)
            assert told.startswith("prompts.jsonl line 1, column prompt: ")
            assert "secret" not in told

    def test_long_values_are_cut(self, write: Write) -> None:
        """Of a long bad value the start is shown."""
        told = fault_of(write(PROMPTS | {"split": ["x" * 5000, "train"]}, OUTCOMES))
        assert len(told) < 300
        assert "xxx...'" in told

    def test_a_missing_column_is_named(self, write: Write) -> None:
        """The text lists what is required."""
        directory = write(PROMPTS, {"prompt_id": ["a"], "model": ["m"]})
        expected = (
            f"{directory / 'outcomes.parquet'}: column quality is missing; required are prompt_id, model, quality"
        )
        assert fault_of(directory) == expected

    @pytest.mark.parametrize("name", ["prompts", "outcomes"])
    def test_a_missing_file_is_named(self, write: Write, name: str) -> None:
        """The text says what a data directory holds."""
        directory = write(PROMPTS, OUTCOMES)
        (directory / f"{name}.parquet").unlink()
        assert fault_of(directory) == (
            f"{directory / name}.parquet is missing; a data directory holds prompts.parquet and outcomes.parquet, or both "
            "as .jsonl, or one table in RouterBench's format"
        )

    def test_an_empty_directory_and_none_are_told_apart(self, tmp_path: Path) -> None:
        """In an empty directory the first table is missing; what is no directory is called none."""
        assert fault_of(tmp_path).startswith(f"{tmp_path / 'prompts.parquet'} is missing; a data directory holds ")
        assert fault_of(tmp_path / "there").startswith(f"{tmp_path / 'there'} is no directory; a data directory holds ")

    def test_two_tables_of_one_name_are_refused(self, write: Write) -> None:
        """Which of two files would count is not guessed."""
        directory = write(PROMPTS, OUTCOMES)
        (directory / "outcomes.jsonl").write_text(as_jsonl(OUTCOMES), encoding="utf-8")
        assert fault_of(directory) == (
            f"{directory}: has both outcomes.parquet and outcomes.jsonl; keep the one that counts"
        )

    def test_a_file_of_another_kind_is_named(self, write: Write) -> None:
        """What is no parquet file is said to be none."""
        directory = write(PROMPTS, OUTCOMES)
        (directory / "prompts.parquet").write_bytes(b"prompt_id,prompt\n")
        assert fault_of(directory) == f"{directory / 'prompts.parquet'} is not a parquet file, or a damaged one"

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("{", "prompts.jsonl line 2: is not JSON"),
            ("[" * 100_000, "prompts.jsonl line 2: is not JSON"),
            ("[]", "prompts.jsonl line 2: is not a JSON object, one of which stands on every line"),
            ('{"prompt": "x"}', "prompts.jsonl line 2, column prompt_id: is missing; required are prompt_id, prompt"),
            (
                '{"prompt_id": "b", "prompt": "x", "split": 3}',
                "prompts.jsonl line 2, column split: '3' is not one of train, val, test",
            ),
        ],
    )
    def test_a_bad_line_is_named(self, tmp_path: Path, line: str, expected: str) -> None:
        """Lines are counted as an editor counts them."""
        first = '{"prompt_id": "a", "prompt": "x", "split": "train"}'
        (tmp_path / "prompts.jsonl").write_text(f"{first}\n{line}\n", encoding="utf-8")
        (tmp_path / "outcomes.jsonl").write_text(as_jsonl(OUTCOMES), encoding="utf-8")
        assert expected in fault_of(tmp_path)

    def test_what_is_not_utf8_is_named(self, tmp_path: Path) -> None:
        """A text file in another encoding is refused."""
        (tmp_path / "prompts.jsonl").write_bytes(b'{"prompt_id": "\xff"}\n')
        (tmp_path / "outcomes.jsonl").write_text(as_jsonl(OUTCOMES), encoding="utf-8")
        assert fault_of(tmp_path) == f"{tmp_path / 'prompts.jsonl'}: is not UTF-8"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
"""Whatever JSON can hold, and Python's NaN and Infinity besides."""
FILE_OF_ONE_TEST = [HealthCheck.function_scoped_fixture]


class TestFuzz:
    """Whatever a file holds, it is read or refused."""

    @settings(suppress_health_check=FILE_OF_ONE_TEST, max_examples=100)
    @given(rows=st.lists(st.fixed_dictionaries({}, optional={
        name: JSON_VALUES | st.sampled_from(("a", "b", "train", 0.5))
        for name in ("prompt_id", "prompt", "split", "source", "tags", "model", "quality", "cost_usd", "output_tokens")
    }), max_size=4))  # fmt: skip
    def test_any_json_is_read_or_refused(self, tmp_path: Path, rows: list[dict[str, object]]) -> None:
        """Objects with any values under our names give a dataset whose qualities are in range, or a DatasetError."""
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "prompts.jsonl").write_text(lines, encoding="utf-8")
        (tmp_path / "outcomes.jsonl").write_text(lines, encoding="utf-8")
        try:
            dataset = load_dataset(tmp_path)
        except DatasetError:
            return
        known = dataset.quality[~np.isnan(dataset.quality)]
        assert np.all((known >= 0.0) & (known <= 1.0))
        assert len(known) == len(rows)
        assert all(text.strip() for text in dataset.texts)

    @settings(suppress_health_check=FILE_OF_ONE_TEST, max_examples=100)
    @given(content=st.binary(max_size=200), suffix=st.sampled_from(tables.SUFFIXES))
    def test_any_bytes_are_refused(self, tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str) -> None:
        """Bytes that are no table give a DatasetError, whatever the file is called."""
        directory = tmp_path_factory.mktemp("bytes")
        (directory / f"table{suffix}").write_bytes(content)
        assert fault_of(directory)

    @settings(suppress_health_check=FILE_OF_ONE_TEST, max_examples=100)
    @given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
    def test_a_damaged_parquet_file_is_read_or_refused(
        self, tmp_path_factory: pytest.TempPathFactory, position: int, byte: int
    ) -> None:
        """With any one byte changed, a file is read, or refused with a DatasetError."""
        directory = tmp_path_factory.mktemp("damaged")
        for name, columns in (("prompts", PROMPTS), ("outcomes", OUTCOMES)):
            pa.parquet.write_table(pa.table(columns), directory / f"{name}.parquet")
        path = directory / "prompts.parquet"
        content = bytearray(path.read_bytes())
        content[position % len(content)] = byte
        path.write_bytes(bytes(content))
        try:
            dataset = load_dataset(directory)
        except DatasetError:
            return
        assert len(dataset.texts) == 2

    @settings(max_examples=60)
    @given(
        qualities=st.lists(
            st.tuples(st.integers(0, 5), st.integers(0, 4), st.floats(0.0, 1.0)),
            min_size=1,
            max_size=20,
            unique_by=lambda outcome: outcome[:2],
        )
    )
    def test_what_is_written_is_read(
        self, tmp_path_factory: pytest.TempPathFactory, qualities: list[tuple[int, int, float]]
    ) -> None:
        """Each outcome is found under its prompt and model, and nothing else is known."""
        directory = tmp_path_factory.mktemp("written")
        prompts = pa.table({"prompt_id": [f"p{row}" for row in range(6)], "prompt": [f"{row}?" for row in range(6)]})
        pa.parquet.write_table(prompts, directory / "prompts.parquet")
        outcomes = {
            "prompt_id": [f"p{row}" for row, _, _ in qualities],
            "model": [f"m{column}" for _, column, _ in qualities],
            "quality": [quality for _, _, quality in qualities],
        }
        pa.parquet.write_table(pa.table(outcomes), directory / "outcomes.parquet")
        dataset = load_dataset(directory)
        names = [model for _, model in dataset.endpoints]
        for row, column, quality in qualities:
            assert dataset.quality[row, names.index(f"m{column}")] == pytest.approx(quality, abs=1e-6)
        assert np.isfinite(dataset.quality).sum() == len(qualities)
