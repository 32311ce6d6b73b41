"""Reading labelled prompts, and finding what is wrong with them."""

from pathlib import Path

import numpy as np
import pytest
from pointsman_server.training.dataset import CHARACTERS_PER_TOKEN, SPLITS, DatasetError, load_dataset
from training.conftest import Write

PROMPTS: dict[str, list[object]] = {"prompt_id": ["a", "b"], "prompt": ["One?", "Two?"]}
OUTCOMES: dict[str, list[object]] = {"prompt_id": ["a", "b", "b"], "model": ["m", "m", "n"], "quality": [1.0, 0.5, 0.0]}


class TestLoad:
    """Good data."""

    def test_the_required_columns_are_enough(self, write: Write) -> None:
        """Prompts, models and qualities alone make a dataset, unknown where nothing was measured."""
        dataset = load_dataset(write(PROMPTS, OUTCOMES))
        assert dataset.endpoints == (("own", "m"), ("own", "n"))
        assert dataset.quality.tolist() == [[1.0, pytest.approx(np.nan, nan_ok=True)], [0.5, 0.0]]
        assert np.isnan(dataset.output_tokens).all()
        assert set(dataset.splits) <= set(SPLITS)

    def test_the_same_question_has_one_split(self, write: Write) -> None:
        """Prompts that differ in case and white space only are the same question, so they share key and split."""
        dataset = load_dataset(write(PROMPTS | {"prompt": ["What  is it?", "what is IT?"]}, OUTCOMES))
        assert dataset.dedupe_keys[0] == dataset.dedupe_keys[1]
        assert dataset.splits[0] == dataset.splits[1]

    def test_tokens_come_from_characters_where_only_these_are_known(self, write: Write) -> None:
        """A counted length is taken as it is; characters are converted."""
        outcomes = OUTCOMES | {"output_tokens": [7, None, None], "output_chars": [100, 80, None]}
        tokens = load_dataset(write(PROMPTS, outcomes)).output_tokens
        assert tokens[0, 0] == 7
        assert tokens[1, 0] == 80 / CHARACTERS_PER_TOKEN
        assert np.isnan(tokens[1, 1])

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
            ({"prompt": ["x", None]}, {}, "prompts.parquet row 1, column prompt: 'None' is not text"),
            (
                {"split": ["train", "dev"]},
                {},
                "prompts.parquet row 1, column split: 'dev' is not one of train, val, test",
            ),
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
                {"prompt_id": ["a", "b", "c"]},
                "outcomes.parquet row 2, column prompt_id: 'c' is not a prompt_id of prompts.parquet",
            ),
            (
                {},
                {"model": ["m", "m", "m"]},
                "outcomes.parquet row 2, column prompt_id: 'b' is not at most one outcome per prompt and model",
            ),
            (
                {},
                {"quality": ["good", "bad", "bad"]},
                "outcomes.parquet: column quality must hold numbers, not string",
            ),
        ],
    )
    def test_a_bad_value_is_named(
        self, write: Write, prompts: dict[str, list[object]], outcomes: dict[str, list[object]], expected: str
    ) -> None:
        """The first fault is reported with its place."""
        with pytest.raises(DatasetError) as caught:
            load_dataset(write(PROMPTS | prompts, OUTCOMES | outcomes))
        assert str(caught.value) == expected

    def test_a_missing_column_is_named(self, write: Write) -> None:
        """The text lists what is required."""
        directory = write(PROMPTS, {"prompt_id": ["a"], "model": ["m"]})
        with pytest.raises(DatasetError) as caught:
            load_dataset(directory)
        expected = (
            f"{directory / 'outcomes.parquet'}: column quality is missing; required are prompt_id, model, quality"
        )
        assert str(caught.value) == expected

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        """The text says what a data directory holds."""
        with pytest.raises(DatasetError) as caught:
            load_dataset(tmp_path)
        assert str(caught.value) == (
            f"{tmp_path / 'prompts.parquet'} is missing; the data directory holds prompts.parquet and outcomes.parquet"
        )

    def test_a_file_of_another_kind_is_named(self, tmp_path: Path) -> None:
        """What is no parquet file is said to be none."""
        (tmp_path / "prompts.parquet").write_bytes(b"prompt_id,prompt\n")
        with pytest.raises(DatasetError) as caught:
            load_dataset(tmp_path)
        assert str(caught.value) == f"{tmp_path / 'prompts.parquet'} is not a parquet file"
