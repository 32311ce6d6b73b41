"""The quality models in force: where each came from, and why a newer one in its place was refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pointsman_server.errors import ArtifactError
from pointsman_server.quality.artifact import MANIFEST_FILE, load
from pointsman_server.quality.model import QualityModel
from pointsman_server.watch import Fingerprint, fingerprint

FOREIGN_CONTENT = (OSError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What reading a directory may end in that was never an artifact, or is being replaced while it is read."""


@dataclass(frozen=True, slots=True)
class HeldArtifact:
    """A quality model, and the state of the directory that it was loaded from."""

    model: QualityModel
    digest: str
    """SHA-256 of the manifest, which has the checksum of every other file."""
    fingerprint: Fingerprint
    """Of the directory, from before it was read."""
    refusal: str = ""
    """Why what now lies in the directory is not used. Empty: the model is what lies there."""

    @property
    def name(self) -> str:
        """The model's name and version, as decisions carry them: `name@version`."""
        return f"{self.model.name}@{self.model.version}"


def renewed_artifacts(paths: Iterable[Path], held: Mapping[Path, HeldArtifact]) -> dict[Path, HeldArtifact]:
    """The artifacts in these directories: those that are held, unless their directory has changed and can be used.

    Each stands for itself: where one is refused its old model stays, and the others are renewed. Takes about 0.3 s for
    each that has changed.

    Raises:
        ArtifactError: a directory without a held model can't be used.
    """
    return {path: _renewed(path, held.get(path)) for path in dict.fromkeys(paths)}


def _renewed(path: Path, held: HeldArtifact | None) -> HeldArtifact:
    seen = fingerprint(path)
    if held is not None and held.fingerprint == seen and not held.refusal:
        return held
    # A symbolic link may be pointed elsewhere at any time; what it leads to now is read to the end.
    real = path.resolve()
    try:
        model = load(real)
        return HeldArtifact(model, hashlib.sha256((real / MANIFEST_FILE).read_bytes()).hexdigest(), seen)
    except ArtifactError as error:
        reason = str(error).removeprefix(f"{real}: ")
    except FOREIGN_CONTENT as error:
        reason = f"can't be read as an artifact ({type(error).__name__}); restore or rebuild it"
    if held is None:
        raise ArtifactError(f"{path}: {reason}")
    return replace(held, refusal=reason)
