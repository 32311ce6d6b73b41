"""Artifacts that differ from the built-in one in their version and in what they predict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from pointsman_server.quality.artifact import Provenance, builtin_artifact_path, load, save
from pointsman_server.quality.model import QualityModel

PROVENANCE = Provenance(created="2026-11-24", sources=(), settings={}, metrics={}, packages={})
MODELS = ("gpt-4o", "gpt-4o-mini")
"""Two models that the built-in artifact knows."""


@cache
def builtin() -> QualityModel:
    """The built-in model."""
    return load(builtin_artifact_path())


def written_variant(path: Path, version: str, *, shift: float = 0.0) -> QualityModel:
    """Writes the built-in model to the directory `path` under this version, every model better by `shift` log-odds."""
    weights = builtin().table.weights.copy()
    weights[:, 0] += shift
    variant = replace(builtin(), version=version, table=replace(builtin().table, weights=weights))
    save(path, variant, PROVENANCE, card="card")
    return variant


def swapped_link(link: Path, target: Path) -> None:
    """Points a symbolic link elsewhere, in one step."""
    beside = link.with_name("beside")
    beside.symlink_to(target)
    beside.replace(link)


def _half_written(path: Path) -> None:
    booster = path / "booster.ubj"
    booster.write_bytes(booster.read_bytes()[:-100])


def _foreign_schema(path: Path) -> None:
    (path / "manifest.json").write_text('{"schema_version": 99}', encoding="utf-8")


def _without_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def _bottomless_manifest(path: Path) -> None:
    (path / "manifest.json").write_text("[" * 100_000, encoding="utf-8")


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "half-written": (_half_written, "booster.ubj has sha256"),
    "foreign schema": (_foreign_schema, "schema version is 99"),
    "without manifest": (_without_manifest, "manifest.json can't be read"),
    "bottomless": (_bottomless_manifest, "can't be read as an artifact (RecursionError)"),
}
"""Ways to spoil an artifact, and how its refusal begins."""
