"""What the shipped model must never have seen."""

import os
from pathlib import Path

import pytest
from pointsman_server.training.build import OVERLAP_SCORED_CATEGORIES, TRAINED_SOURCES, YARDSTICK_SOURCES, training_part
from pointsman_server.training.dataset import Dataset, load_dataset

DATA = Path(os.environ.get("POINTSMAN_DATA", Path(__file__).parents[3] / "shared" / "data")) / "quality"


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """The public data on which the shipped model is built."""
    if not (DATA / "prompts.parquet").is_file():
        pytest.skip(f"no data in {DATA}; set POINTSMAN_DATA to the directory that contains quality/prompts.parquet")
    return load_dataset(DATA)


def test_no_question_of_a_yardstick_is_trained_on(dataset: Dataset) -> None:
    """No question of RouteLLM or RouterArena is in the training part, in any wording or source."""
    yardsticks = set(dataset.from_sources(YARDSTICK_SOURCES).dedupe_keys)
    assert yardsticks
    assert not yardsticks & set(training_part(dataset).dedupe_keys)


def test_only_permissive_sources_are_trained_on(dataset: Dataset) -> None:
    """The training part holds the sources that the manifest names, and no other."""
    sources = set(training_part(dataset).sources)
    assert sources == {"mmlu_pro", "zeroeval", "llmrouter"}
    assert sources <= {source.name for source in TRAINED_SOURCES}


def test_no_question_crosses_splits(dataset: Dataset) -> None:
    """A question of the test split is nowhere in the train or val split."""
    part = training_part(dataset)
    keys = {split: set(part.in_split(split).dedupe_keys) for split in ("train", "val", "test")}
    assert not keys["train"] & keys["test"]
    assert not keys["val"] & keys["test"]
    assert not keys["train"] & keys["val"]


def test_tasks_scored_by_overlap_are_left_out(dataset: Dataset) -> None:
    """Every category that is left out exists in the data, and none of them is trained on."""
    assert set(OVERLAP_SCORED_CATEGORIES) <= set(dataset.categories)
    assert not set(OVERLAP_SCORED_CATEGORIES) & set(training_part(dataset).categories)
