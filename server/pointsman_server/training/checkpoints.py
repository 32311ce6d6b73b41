"""What a training has finished, kept on disk, so that one that was killed goes on where it was.

Every expensive piece of a training is an array with a name. A folder belongs to one training: its name holds the digest
of the data, the settings and the seed, and of the packages that take part.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Recall = Callable[[str, Callable[[], Array]], Array]
"""Gives the array of that name: as it was kept, else as computed now."""

ARRAY_SUFFIX = ".npy"


def computed(name: str, compute: Callable[[], Array]) -> Array:  # noqa: ARG001 - nothing is looked up
    """Keeps nothing."""
    return compute()


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Keeps arrays in a folder, which is made with the first of them."""

    folder: Path

    def __call__(self, name: str, compute: Callable[[], Array]) -> Array:
        """The array of that name. One that can't be read is computed anew."""
        path = self.folder / f"{name}{ARRAY_SUFFIX}"
        try:
            return np.asarray(np.load(path, allow_pickle=False))
        except (OSError, ValueError, EOFError):
            array = compute()
        self.folder.mkdir(parents=True, exist_ok=True)
        # Under another name until it is whole: a kill leaves no half of it.
        descriptor, partial = tempfile.mkstemp(dir=self.folder, suffix=".partial")
        with os.fdopen(descriptor, "wb") as file:
            np.save(file, array, allow_pickle=False)
        Path(partial).replace(path)
        return array

    def remove(self) -> None:
        """Forgets everything: the training is done."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if path.suffix in {ARRAY_SUFFIX, ".partial"}:
                    path.unlink()
            if not any(self.folder.iterdir()):
                self.folder.rmdir()
