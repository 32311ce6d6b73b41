"""Artifacts in force: renewed when their directory changes, and kept when it is spoilt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pointsman_server.artifacts import renewed_artifacts
from pointsman_server.errors import ArtifactError
from swap.variants import DAMAGES, swapped_link, written_variant


def test_an_unchanged_directory_is_not_read_again(tmp_path: Path) -> None:
    """The very same model stays, and a new configuration costs no load."""
    written_variant(tmp_path / "a", "1")
    held = renewed_artifacts([tmp_path / "a"], {})
    assert renewed_artifacts([tmp_path / "a"], held)[tmp_path / "a"] is held[tmp_path / "a"]
    assert held[tmp_path / "a"].name.endswith("@1")


def test_a_replaced_directory_is_read(tmp_path: Path) -> None:
    """Another artifact in the same place, by a rename, by a symbolic link or file by file, is taken up."""
    place = tmp_path / "place"
    for number in range(4):
        written_variant(tmp_path / str(number), str(number), shift=number / 10)
    place.symlink_to(tmp_path / "0")
    held = renewed_artifacts([place], {})
    swapped_link(place, tmp_path / "1")
    by_link = renewed_artifacts([place], held)
    place.unlink()
    (tmp_path / "2").rename(place)
    by_rename = renewed_artifacts([place], by_link)
    shutil.copytree(tmp_path / "3", place, dirs_exist_ok=True)
    by_file = renewed_artifacts([place], by_rename)
    versions = [artifacts[place].model.version for artifacts in (held, by_link, by_rename, by_file)]
    assert versions == ["0", "1", "2", "3"]
    assert len({artifacts[place].digest for artifacts in (held, by_link, by_rename, by_file)}) == 4


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_spoilt_artifact_is_refused_and_the_old_one_stays(tmp_path: Path, damage: str) -> None:
    """The model in force stays, with the reason beside it; once the directory is sound again, it is taken up."""
    spoil, reason = DAMAGES[damage]
    place = tmp_path / "place"
    written_variant(place, "1")
    held = renewed_artifacts([place], {})
    spoil(place)
    refused = renewed_artifacts([place], held)
    assert refused[place].model is held[place].model
    assert refused[place].refusal.startswith(reason)
    shutil.rmtree(place)
    written_variant(place, "2")
    mended = renewed_artifacts([place], refused)
    assert (mended[place].model.version, mended[place].refusal) == ("2", "")


def test_one_refused_artifact_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """Each directory stands for itself."""
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        written_variant(path, "1")
    held = renewed_artifacts(paths, {})
    DAMAGES["half-written"][0](paths[0])
    written_variant(paths[1], "2")
    now = renewed_artifacts(paths, held)
    assert [now[path].model.version for path in paths] == ["1", "2"]
    assert [bool(now[path].refusal) for path in paths] == [True, False]


def test_what_was_never_in_force_can_not_stay(tmp_path: Path) -> None:
    """A directory that is named for the first time must hold an artifact, and the error names the directory."""
    for content in ("absent", "empty", "text"):
        path = tmp_path / content
        if content == "empty":
            path.mkdir()
        if content == "text":
            path.write_text("no artifact", encoding="utf-8")
        with pytest.raises(ArtifactError, match=f"{content}: manifest.json can't be read"):
            renewed_artifacts([path], {})
