"""A training that was stopped goes on where it was."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pointsman_server.quality.model import QualityModel
from pointsman_server.training.checkpoints import Array, Checkpoints
from pointsman_server.training.dataset import Dataset
from pointsman_server.training.train import BoosterSettings, TrainingSettings, train

SETTINGS = TrainingSettings(embedding_dimension_count=4, latent_count=2, booster=BoosterSettings(round_count=20))


class StoppedError(Exception):
    """Stands for a kill."""


class Counting:
    """Checkpoints that tell what was computed, and stop before the piece of that name."""

    def __init__(self, folder: Path, *, stop_before: str = "") -> None:
        self.kept = Checkpoints(folder)
        self.computed: list[str] = []
        self._stop_before = stop_before

    def __call__(self, name: str, compute: Callable[[], Array]) -> Array:
        """As `Recall`."""

        def counted() -> Array:
            if name == self._stop_before:
                raise StoppedError
            self.computed.append(name)
            return compute()

        return self.kept(name, counted)


def _trained(dataset: Dataset, recall: Counting) -> QualityModel:
    return train(
        dataset,
        settings=SETTINGS,
        seed=1,
        progress=lambda _step, _share: None,
        name="small",
        version="1",
        recall=recall,
    )


def test_what_is_done_is_not_done_again(tmp_path: Path, small_world: Dataset) -> None:
    """Stopped between two boosters, a training computes only what was missing, and ends in the same bytes as a whole one."""
    whole = Counting(tmp_path / "whole")
    expected = _trained(small_world, whole)
    stopped = Counting(tmp_path / "stopped", stop_before="booster-3")
    with pytest.raises(StoppedError):
        _trained(small_world, stopped)
    resumed = Counting(tmp_path / "stopped")
    model = _trained(small_world, resumed)
    assert resumed.computed == ["booster-3", "booster-4", "booster"]
    assert stopped.computed + resumed.computed == whole.computed
    assert model.booster.save_raw("ubj") == expected.booster.save_raw("ubj")
    assert model.table.weights.tobytes() == expected.table.weights.tobytes()


def test_a_damaged_piece_is_computed_anew(tmp_path: Path) -> None:
    """What can't be read counts as missing, and is whole afterwards."""
    kept = Checkpoints(tmp_path / "kept")
    assert kept("piece", lambda: np.arange(3)).tolist() == [0, 1, 2]
    (tmp_path / "kept" / "piece.npy").write_bytes(b"\x93NUMPY half")
    assert kept("piece", lambda: np.arange(4)).tolist() == [0, 1, 2, 3]
    assert kept("piece", lambda: np.arange(5)).tolist() == [0, 1, 2, 3]


def test_nothing_is_left_at_the_end(tmp_path: Path) -> None:
    """Done, the folder goes, but never with somebody else's file in it."""
    kept = Checkpoints(tmp_path / "kept")
    kept("piece", lambda: np.arange(3))
    kept.remove()
    assert not (tmp_path / "kept").exists()
    kept("piece", lambda: np.arange(3))
    (tmp_path / "kept" / "notes.txt").write_text("mine")
    kept.remove()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["notes.txt"]
