"""`pointsman calibrate`: a model joins the shipped artifact."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from cli.conftest import Pointsman
from pointsman_server.quality.artifact import CARD_FILE, MANIFEST_FILE, load, read_provenance

PROMPTS = tuple(f"What is {first} * {second}?" for first in range(3, 11) for second in range(11, 15))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Labels of a model that nobody knows, and of one that the artifact has labels of."""
    ids = [f"p{index}" for index in range(len(PROMPTS))]
    folder = tmp_path / "labels"
    folder.mkdir()
    pa.parquet.write_table(pa.table({"prompt_id": ids, "prompt": PROMPTS}), folder / "prompts.parquet")
    outcomes = {
        "prompt_id": ids * 2,
        "model": ["in-house-7b"] * len(ids) + ["gpt-4o"] * len(ids),
        "quality": [float(index % 4 == 0) for index in range(len(ids))] + [1.0] * len(ids),
        "output_tokens": [200] * len(ids) * 2,
    }
    pa.parquet.write_table(pa.table(outcomes), folder / "outcomes.parquet")
    return folder


def calibrate(pointsman: Pointsman, data: Path, model: str, out: Path, *more: str, artifact: str = "builtin") -> str:
    """What a calibration prints; it has to succeed."""
    options = ("--artifact", artifact, "--data", str(data), "--model", model, "--out", str(out))
    done = pointsman("calibrate", *options, "--created", "2026-11-25", *more)
    assert (done.exit_code, done.err) == (0, "")
    return done.out


def test_a_new_artifact_has_the_model(pointsman: Pointsman, data: Path, tmp_path: Path) -> None:
    """What is written loads, knows the newcomer, and tells of it in manifest and card; nothing else is left behind."""
    printed = calibrate(pointsman, data, "in-house-7b", tmp_path / "out" / "a")
    model = load(tmp_path / "out" / "a")
    assert printed == (
        "in-house-7b has joined, by 32 labels with a mean of 0.25, 32 of them with a length: "
        f"{tmp_path / 'out' / 'a'} is builtin {model.version}, {len(model.profiles)} models\n"
    )
    found = model.predict(PROMPTS[0], ["in-house-7b", "gpt-4o"])
    assert found["in-house-7b"].mean < 0.5 < found["gpt-4o"].mean
    (joined,) = read_provenance(tmp_path / "out" / "a").joined
    assert (joined.model, joined.label_count, joined.created) == ("in-house-7b", 32, "2026-11-25")
    assert "| in-house-7b | 2026-11-25 | 32 |  |" in (tmp_path / "out" / "a" / CARD_FILE).read_text(encoding="utf-8")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


def test_the_same_labels_give_the_same_bytes(pointsman: Pointsman, data: Path, tmp_path: Path) -> None:
    """Calibrating twice writes identical files."""
    for name in ("a", "b"):
        calibrate(pointsman, data, "in-house-7b", tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_models_join_one_after_another(pointsman: Pointsman, data: Path, tmp_path: Path) -> None:
    """The second joins what the first has joined: both are known, and listed in their order."""
    calibrate(pointsman, data, "in-house-7b", tmp_path / "a")
    calibrate(pointsman, data, "gpt-4o", tmp_path / "b", "--replace", artifact=str(tmp_path / "a"))
    joined = read_provenance(tmp_path / "b").joined
    assert [one.model for one in joined] == ["in-house-7b", "gpt-4o"]
    assert joined[1].joined_version == load(tmp_path / "a").version
    card = (tmp_path / "b" / CARD_FILE).read_text(encoding="utf-8")
    assert card.count("## Joined since") == 1
    assert card.index("| in-house-7b |") < card.index("| gpt-4o |")
    assert "in-house-7b" in load(tmp_path / "b").models


def test_the_rest_of_the_artifact_is_kept(pointsman: Pointsman, data: Path, tmp_path: Path) -> None:
    """Sources, metrics, settings and the booster are those of the artifact that was joined."""
    calibrate(pointsman, data, "in-house-7b", tmp_path / "a")
    calibrate(pointsman, data, "gpt-4o", tmp_path / "b", "--stand-in-of", "gpt-4-turbo", "--replace")
    before, after = (json.loads((tmp_path / name / MANIFEST_FILE).read_bytes()) for name in ("a", "b"))
    kept = ("sources", "metrics", "settings", "packages", "features", "calibration", "created", "benchmarks")
    assert {key: before[key] for key in kept} == {key: after[key] for key in kept}
    assert before["files"]["booster.ubj"] == after["files"]["booster.ubj"]
    assert after["joined"][0]["relative"] == "gpt-4-turbo"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"--model": "gpt-4o"}, (1, "the artifact knows gpt-4o by its labels already, as gpt-4o-2024-08-06; --replace takes these instead")),
        ({"--model": "in-house"}, (1, "there are no outcomes of in-house, only of gpt-4o, in-house-7b")),
        ({"--stand-in-of": "gpt-3"}, (1, "the artifact does not know gpt-3, of which in-house-7b is to be a relative")),
        ({"--out": "."}, (2, "--out . is there already; name a new folder")),
        ({"--artifact": "/absent"}, (1, "/absent: manifest.json can't be read; an artifact is a directory that contains it")),
    ],
)  # fmt: skip
def test_what_can_not_be_done_is_said(
    pointsman: Pointsman, data: Path, tmp_path: Path, changes: dict[str, str], said: tuple[int, str]
) -> None:
    """A refusal says what is wrong, without a traceback, and writes nothing."""
    options = {"--artifact": "builtin", "--data": str(data), "--model": "in-house-7b", "--out": str(tmp_path / "a")}
    done = pointsman("calibrate", *(word for option in (options | changes).items() for word in option))
    exit_code, message = said
    assert (done.exit_code, done.out, done.err) == (exit_code, "", f"pointsman: {message}\n")
    assert not (tmp_path / "a").exists()


def test_too_few_labels(pointsman: Pointsman, data: Path, tmp_path: Path) -> None:
    """Nineteen are not enough, and it says how many are."""
    table = pyarrow.parquet.read_table(data / "outcomes.parquet").slice(0, 19)
    pa.parquet.write_table(table, data / "outcomes.parquet")
    done = pointsman(
        "calibrate",
        "--artifact",
        "builtin",
        "--data",
        str(data),
        "--model",
        "in-house-7b",
        "--out",
        str(tmp_path / "a"),
    )
    assert (done.exit_code, done.err) == (
        1,
        "pointsman: 19 labels of in-house-7b are too few: at least 20 are needed\n",
    )
