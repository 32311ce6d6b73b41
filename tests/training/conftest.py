"""A small world, and a model that was trained on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from pointsman_server.quality.model import QualityModel
from pointsman_server.training.dataset import Dataset, load_dataset
from pointsman_server.training.train import BoosterSettings, TrainingSettings, train
from training.world import write_world

SMALL_SETTINGS = TrainingSettings(
    embedding_dimension_count=4, latent_count=2, booster=BoosterSettings(round_count=40, depth=3, learning_rate=0.2)
)

Write = Callable[[dict[str, list[object]], dict[str, list[object]]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes prompts and outcomes, given by column, as a data directory."""

    def written(prompts: dict[str, list[object]], outcomes: dict[str, list[object]]) -> Path:
        pa.parquet.write_table(pa.table(prompts), tmp_path / "prompts.parquet")
        pa.parquet.write_table(pa.table(outcomes), tmp_path / "outcomes.parquet")
        return tmp_path

    return written


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Prompts on two topics, answered by three models of known ability."""
    directory = tmp_path_factory.mktemp("small_world")
    write_world(directory)
    return load_dataset(directory)


@pytest.fixture(scope="session")
def small_model(small_world: Dataset) -> QualityModel:
    """A model of the small world."""
    return train(
        small_world, settings=SMALL_SETTINGS, seed=1, progress=lambda _step, _share: None, name="small", version="1"
    )
