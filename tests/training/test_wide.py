"""RouterBench's published table."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from pointsman_server.training.dataset import CHARACTERS_PER_TOKEN, Dataset, DatasetError, load_dataset
from pointsman_server.training.wide import as_prompt, model_columns

ROWS: list[dict[str, object]] = [
    {
        "sample_id": "mbpp.dev.1",
        "prompt": "['Write a function.\\nIn Python.']",
        "eval_name": "mbpp",
        "gpt-4": 1.0,
        "mistralai/mixtral-8x7b-chat": 0.0,
        "gpt-4|model_response": "['def f(): pass']",
        "mistralai/mixtral-8x7b-chat|model_response": "no",
        "gpt-4|total_cost": 0.01,
        "mistralai/mixtral-8x7b-chat|total_cost": 0.0001,
        "oracle_model_to_route_to": "gpt-4",
    },
    {
        "sample_id": "arc.2",
        "prompt": 'Which, of "these"?\nA or B',
        "eval_name": "arc-challenge",
        "gpt-4": 0.25,
        "mistralai/mixtral-8x7b-chat": None,
        "gpt-4|model_response": None,
        "mistralai/mixtral-8x7b-chat|model_response": None,
        "gpt-4|total_cost": 0.02,
        "mistralai/mixtral-8x7b-chat|total_cost": None,
        "oracle_model_to_route_to": "no_model_correct",
    },
]  # fmt: skip


def written(directory: Path, kind: str, rows: list[dict[str, object]]) -> Path:
    """The table as a file of this kind, in a directory."""
    path = directory / f"routerbench_0shot.{kind}"
    if kind == "parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def fault_of(directory: Path) -> str:
    """What is said of bad data."""
    with pytest.raises(DatasetError) as caught:
        load_dataset(directory)
    return str(caught.value)


class TestRead:
    """The table as it is published, converted."""

    @pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
    def test_every_kind_of_file_holds_the_same(self, tmp_path: Path, kind: str) -> None:
        """Scores, costs and lengths of answers land under prompt and model, and what is empty is unknown."""
        written(tmp_path, kind, ROWS)
        dataset = load_dataset(tmp_path)
        assert dataset.prompt_ids.tolist() == ["mbpp.dev.1", "arc.2"]
        assert dataset.texts.tolist() == ["Write a function.\nIn Python.", 'Which, of "these"?\nA or B']
        assert dataset.categories.tolist() == ["mbpp", "arc-challenge"]
        assert dataset.endpoints == (("routerbench", "gpt-4"), ("routerbench", "mistralai/mixtral-8x7b-chat"))
        unknown = pytest.approx(math.nan, nan_ok=True)
        assert dataset.quality.tolist() == [[1.0, 0.0], [0.25, unknown]]
        assert dataset.cost_usd.tolist() == [
            [pytest.approx(0.01), pytest.approx(0.0001)],
            [pytest.approx(0.02), unknown],
        ]
        lengths = [[len("def f(): pass") / CHARACTERS_PER_TOKEN, 2 / CHARACTERS_PER_TOKEN], [unknown, unknown]]
        assert dataset.output_tokens.tolist() == lengths

    def test_the_file_itself_may_be_named(self, tmp_path: Path) -> None:
        """In place of its directory the table can be given."""
        path = written(tmp_path, "parquet", ROWS)
        assert len(load_dataset(path).texts) == 2

    def test_columns_of_our_own_may_stand_beside(self, tmp_path: Path) -> None:
        """A split and a key of the question are taken as in the other form; an embedding is passed over."""
        rows = [row | {"split": "val", "dedupe_key": "k", "embedding": [0.5, 0.5]} for row in ROWS]
        written(tmp_path, "parquet", rows)
        dataset: Dataset = load_dataset(tmp_path)
        assert dataset.splits.tolist() == ["val", "val"]
        assert dataset.dedupe_keys.tolist() == ["k", "k"]
        assert np.isfinite(dataset.quality).sum() == 3

    def test_a_model_is_known_by_its_columns(self) -> None:
        """A column is a model where its cost or its answer stands beside it."""
        names = ("sample_id", "prompt", "a", "a|total_cost", "b", "b|model_response", "c", "oracle_model_to_route_to")
        assert model_columns(names) == ("a", "b")

    @pytest.mark.parametrize(
        ("cell", "expected"),
        [
            ("['one', 'two']", "one\ntwo"),
            ('["it\'s"]', "it's"),
            (["one", "two"], "one\ntwo"),
            ("['not closed", "['not closed"),
            ("['a', 1]", "['a', 1]"),
            (r"['\d+']", r"\d+"),
            ("['" + "(" * 20_000 + "]", "['" + "(" * 20_000 + "]"),
            ("[1, 2]", "[1, 2]"),
            (None, None),
        ],
    )
    def test_turns_are_joined(self, cell: object, expected: object) -> None:
        """A list of turns, or one that Python printed, is their text; anything else is as it is."""
        assert as_prompt(cell) == expected


class TestFaults:
    """Bad tables."""

    @pytest.mark.parametrize(
        ("kind", "row", "expected"),
        [
            ("parquet", {"gpt-4": 1.5}, "routerbench_0shot.parquet row 1, column gpt-4: '1.5' is not a number from 0 to 1"),
            ("csv", {"gpt-4": "good"}, "routerbench_0shot.csv line 3, column gpt-4: 'good' is not a number from 0 to 1"),
            (
                "jsonl",
                {"gpt-4|total_cost": -1},
                "routerbench_0shot.jsonl line 2, column gpt-4|total_cost: '-1' is not a number of at least 0",
            ),
            (
                "parquet",
                {"sample_id": "mbpp.dev.1"},
                "routerbench_0shot.parquet row 1, column sample_id: 'mbpp.dev.1' is already in row 0",
            ),
            ("jsonl", {"prompt": None}, "routerbench_0shot.jsonl line 2, column prompt: null is not text"),
        ],
    )  # fmt: skip
    def test_a_bad_cell_is_named(self, tmp_path: Path, kind: str, row: dict[str, object], expected: str) -> None:
        """File, row and column are those of the table, under its own names."""
        written(tmp_path, kind, [ROWS[0], ROWS[1] | row])
        assert fault_of(tmp_path) == expected

    def test_a_pickle_is_not_opened(self, tmp_path: Path) -> None:
        """A pickle is refused, with how to convert it."""
        (tmp_path / "routerbench_0shot.pkl").write_bytes(b"anything")
        told = fault_of(tmp_path)
        assert told.startswith(f"{tmp_path / 'routerbench_0shot.pkl'}: a pickle can run any code")
        assert "pandas.read_pickle('routerbench_0shot.pkl').to_parquet('routerbench_0shot.parquet')" in told

    def test_one_of_several_tables_is_to_be_named(self, tmp_path: Path) -> None:
        """Which of two tables is meant is not guessed."""
        written(tmp_path, "parquet", ROWS)
        written(tmp_path, "csv", ROWS)
        assert fault_of(tmp_path) == (
            f"{tmp_path}: has several tables, routerbench_0shot.csv and routerbench_0shot.parquet; name one of them"
        )

    @pytest.mark.parametrize(
        ("row", "expected"),
        [
            ({"sample_id": "a", "prompt": "x", "gpt-4": 1.0}, "has no model: a column MODEL with its score beside"),
            ({"id": "a", "gpt-4": 1.0, "gpt-4|total_cost": 0.1}, "column sample_id is missing;"),
        ],
    )
    def test_another_table_is_refused(self, tmp_path: Path, row: dict[str, object], expected: str) -> None:
        """What has not the columns of the format is told which one is missing."""
        path = written(tmp_path, "jsonl", [row])
        assert fault_of(tmp_path).startswith(f"{path}: {expected}")

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("sample_id,prompt,m,m|total_cost\na,b\n", "line 2: has 2 cells, its first line 4"),
            ('sample_id,prompt,m,m|total_cost\na,"b\n', "line 2: is not CSV"),
        ],
    )
    def test_bad_csv_is_named(self, tmp_path: Path, text: str, expected: str) -> None:
        """A row of another length, or a quotation that never ends, is found."""
        (tmp_path / "table.csv").write_text(text, encoding="utf-8")
        assert expected in fault_of(tmp_path)
