"""An artifact on disk: written, read back, and refused when it is not what it should be."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xgboost
from pointsman_server.errors import ArtifactError
from pointsman_server.quality.artifact import (
    BOOSTER_FILE,
    CARD_FILE,
    CONTENT_FILES,
    MANIFEST_FILE,
    TENSORS_FILE,
    Provenance,
    builtin_artifact_path,
    load,
    read_manifest,
    save,
)
from pointsman_server.quality.model import QualityModel
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

PROMPTS = ("", "What is 17 * 23?", "def f(x):\n    return x\n" * 400, "\u4f60\u597d\u4e16\u754c")
PROVENANCE = Provenance(created="2026-11-24", sources=(), settings={}, metrics={}, packages={})
SIZE_MAX = 10_000_000


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the built-in artifact, to be damaged."""
    return Path(shutil.copytree(builtin_artifact_path(), tmp_path / "artifact"))


class TestBuiltin:
    """The artifact that ships."""

    def test_it_is_at_most_ten_megabytes(self) -> None:
        """The package stays small."""
        assert sum(file.stat().st_size for file in builtin_artifact_path().iterdir()) <= SIZE_MAX

    def test_it_holds_exactly_its_files(self) -> None:
        """Nothing is missing and nothing is left over."""
        assert {file.name for file in builtin_artifact_path().iterdir()} == CONTENT_FILES | {MANIFEST_FILE}

    def test_its_manifest_tells_where_it_comes_from(self) -> None:
        """Sources with licences, metrics and package versions are all there, and the card names every source."""
        manifest = read_manifest(builtin_artifact_path())
        card = (builtin_artifact_path() / CARD_FILE).read_text(encoding="utf-8")
        assert manifest["metrics"]
        assert manifest["packages"]
        assert {source["licence"] for source in manifest["sources"]} == {"Apache-2.0", "MIT"}
        assert all(source["name"] in card for source in manifest["sources"])

    def test_it_promises_what_held_out_prompts_show(self) -> None:
        """Its table of risks rests on enough prompts that even a risk of 1 % lets some candidate pass."""
        table = load(builtin_artifact_path()).risk_table
        assert table is not None
        assert table.prompt_count >= 100
        assert all(0.0 < gap <= 1.0 for rows in table.gap_max for row in rows for gap in row)

    def test_loading_needs_no_training_package(self) -> None:
        """A server loads and uses the artifact without pyarrow and wordllama."""
        script = (
            "import sys\n"
            "from pointsman_server.quality.artifact import builtin_artifact_path, load\n"
            "load(builtin_artifact_path()).predict('Hello', ['gpt-4o'])\n"
            "print(sorted({'pyarrow', 'wordllama'} & set(sys.modules)))\n"
        )
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert ran.stdout == "[]\n"


class TestSaveAndLoad:
    """The round trip."""

    def test_it_changes_no_prediction(self, builtin: QualityModel, tmp_path: Path) -> None:
        """A saved and loaded model predicts the same to the last bit."""
        save(tmp_path / "a", builtin, PROVENANCE, card="card")
        loaded = load(tmp_path / "a")
        for prompt in PROMPTS:
            expected = dict(builtin.predict(prompt, sorted(builtin.models)))
            assert dict(loaded.predict(prompt, sorted(builtin.models))) == expected

    def test_it_keeps_names(self, builtin: QualityModel, tmp_path: Path) -> None:
        """Name, version, profiles, calibration and the table of risks survive."""
        save(tmp_path / "a", builtin, PROVENANCE, card="card")
        loaded = load(tmp_path / "a")
        assert (loaded.name, loaded.version, loaded.models) == (builtin.name, builtin.version, builtin.models)
        assert (loaded.profiles, loaded.calibration) == (builtin.profiles, builtin.calibration)
        assert loaded.risk_table == builtin.risk_table

    def test_no_table_of_risks_stays_none(self, builtin: QualityModel, tmp_path: Path) -> None:
        """What too few held-out prompts could not show is not there after loading either."""
        save(tmp_path / "a", replace(builtin, risk_table=None), PROVENANCE, card="card")
        assert load(tmp_path / "a").risk_table is None

    def test_the_same_model_gives_the_same_bytes(self, builtin: QualityModel, tmp_path: Path) -> None:
        """Saving twice writes identical files."""
        for name in ("a", "b"):
            save(tmp_path / name, builtin, PROVENANCE, card="card")
        for file in CONTENT_FILES | {MANIFEST_FILE}:
            assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def _edit_manifest(**changes: object) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        manifest = json.loads((path / MANIFEST_FILE).read_bytes())
        (path / MANIFEST_FILE).write_text(json.dumps(manifest | changes), encoding="utf-8")

    return damage


def _replace(path: Path, name: str, content: bytes) -> None:
    (path / name).write_bytes(content)
    files = json.loads((path / MANIFEST_FILE).read_bytes())["files"]
    _edit_manifest(files=files | {name: {"sha256": hashlib.sha256(content).hexdigest()}})(path)


def _without_risks(tensors: bytes) -> bytes:
    return save_tensors({name: value for name, value in load_tensors(tensors).items() if "risk" not in name})


SCALAR_BOOSTER = xgboost.train({"nthread": 1}, xgboost.DMatrix(np.eye(2), np.arange(2)), num_boost_round=1)

DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing directory": (
        shutil.rmtree,
        "{path}: manifest.json can't be read; an artifact is a directory that contains it",
    ),
    "missing file": (
        lambda path: (path / "booster.ubj").unlink(),
        "{path}: booster.ubj is missing; the manifest lists it, so restore it or rebuild",
    ),
    "extra file": (
        lambda path: (path / "model.pkl").write_bytes(b""),
        "{path}: unknown file model.pkl; an artifact holds only what its manifest lists",
    ),
    "no JSON": (
        lambda path: (path / MANIFEST_FILE).write_bytes(b"\xff{"),
        "{path}: manifest.json is not valid JSON; restore or rebuild the artifact",
    ),
    "not an object": (
        lambda path: (path / MANIFEST_FILE).write_bytes(b"[]"),
        (
            "{path}: schema version is None, this version of pointsman reads 3; "
            "rebuild the artifact or install the version that wrote it"
        ),
    ),
    "other schema": (
        _edit_manifest(schema_version=1),
        (
            "{path}: schema version is 1, this version of pointsman reads 3; "
            "rebuild the artifact or install the version that wrote it"
        ),
    ),
    "fewer files listed": (
        _edit_manifest(files={}),
        (
            "{path}: manifest.json must list exactly the files "
            "MODEL_CARD.md, booster.ubj, profiles.json, tensors.safetensors, vocabulary.json"
        ),
    ),
    "other features": (
        _edit_manifest(features={"names": [], "window_head_characters": 1, "window_tail_characters": 1}),
        (
            "{path}: the artifact was built for other features than this version of pointsman reads; "
            "rebuild it or install the version that wrote it"
        ),
    ),
    "another booster": (
        lambda path: _replace(path, BOOSTER_FILE, bytes(SCALAR_BOOSTER.save_raw("ubj"))),
        "{path}: booster.ubj: a leaf of the booster holds one output alone; train it with multi_output_tree",
    ),
    "a table of risks without its numbers": (
        lambda path: _replace(path, TENSORS_FILE, _without_risks((path / TENSORS_FILE).read_bytes())),
        (
            "{path}: the files match their checksums but do not form a model (KeyError); "
            "rebuild the artifact with the same version of pointsman that loads it"
        ),
    ),
    "incomplete calibration": (
        _edit_manifest(calibration={}),
        (
            "{path}: the files match their checksums but do not form a model (TypeError); "
            "rebuild the artifact with the same version of pointsman that loads it"
        ),
    ),
}


class TestRefusal:
    """What is not an intact artifact is not loaded."""

    @pytest.mark.parametrize("damage", sorted(DAMAGES))
    def test_a_damaged_artifact_says_what_is_wrong(self, copy: Path, damage: str) -> None:
        """The text names the file, what is wrong with it and what would be right."""
        break_it, expected = DAMAGES[damage]
        break_it(copy)
        with pytest.raises(ArtifactError) as caught:
            load(copy)
        assert str(caught.value) == expected.format(path=copy)

    @pytest.mark.parametrize("name", sorted(CONTENT_FILES))
    def test_a_flipped_bit_is_found_in_every_file(self, copy: Path, name: str) -> None:
        """Each file is checked against its checksum before anything reads it."""
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(ArtifactError) as caught:
            load(copy)
        assert re.fullmatch(
            f"{re.escape(str(copy))}: {re.escape(name)} has sha256 [0-9a-f]{{64}}, the manifest says [0-9a-f]{{64}}; "
            "the file is corrupted or edited",
            str(caught.value),
        )
