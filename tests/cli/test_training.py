"""`pointsman train`, `evaluate` and `predict`, and docs/training.md: every command and sample in it does what it shows."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from cli.conftest import Pointsman
from pointsman_server.cli import main
from pointsman_server.cli.predict import BATCH_SIZE, SCHEMA
from pointsman_server.quality.artifact import load, read_manifest
from pointsman_server.training.dataset import load_dataset
from pointsman_server.training.figures import FORMAT, FORMAT_VERSION
from training.test_logged import write as write_log
from training.world import PROMPT_COUNT, TRUTH, write_world

_PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
_FILES = {"booster.ubj", "manifest.json", "MODEL_CARD.md", "profiles.json", "tensors.safetensors", "vocabulary.json"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world with a signal that can be learned."""
    directory = tmp_path_factory.mktemp("data")
    write_world(directory)
    return directory


@pytest.fixture(scope="module")
def artifact(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `train` makes of it."""
    out = tmp_path_factory.mktemp("trained") / "deep" / "artifact"
    assert main(["train", "--data", str(data), "--out", str(out), "--seed", "5", "--name", "mine"]) == 0
    return out


@dataclass(frozen=True, slots=True)
class Trained:
    """A small world and what was made of it."""

    data: str
    artifact: str


@pytest.fixture(scope="module")
def trained(data: Path, artifact: Path) -> Trained:
    """Both, as arguments."""
    return Trained(str(data), str(artifact))


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def blocks(opening: str) -> list[str]:
    """The blocks of the page below such a comment."""
    return re.findall(rf"^<!-- test: {opening} -->\n```\w+\n(.*?)^```$", _PAGE, re.DOTALL | re.MULTILINE)


class TestTrain:
    """From data to an artifact."""

    def test_it_says_how_to_use_it(self, pointsman: Pointsman, data: Path, artifact: Path, tmp_path: Path) -> None:
        """On standard output stand the val split's figures and the very configuration that names the artifact; nothing
        is left over beside it, and the same data and seed give the same bytes in every file."""
        out = tmp_path / "artifact"
        done = pointsman("train", "--data", str(data), "--out", str(out), "--seed", "5", "--name", "mine")
        assert done.exit_code == 0
        assert done.out.startswith("own: ")
        assert "prompts of the split val" in done.out
        assert "best model per category" in done.out
        assert tomllib.loads(done.out[done.out.index("[quality]") :]) == {"quality": {"artifact": str(out)}}
        assert set(contents(out)) == _FILES
        assert contents(out) == contents(artifact)
        assert [path.name for path in tmp_path.iterdir()] == ["artifact"]
        model = load(out)
        assert (model.name, model.models) == ("mine", frozenset(TRUTH))
        assert read_manifest(out)["metrics"]["own"]["models"] == 3.0

    @pytest.mark.parametrize("content", ["notes.txt", "manifest.json"])
    def test_anything_else_is_not_replaced(
        self, pointsman: Pointsman, data: Path, artifact: Path, tmp_path: Path, content: str
    ) -> None:
        """A folder with something of its own, and a file, stay as they are; that is told before anything is done."""
        out = tmp_path / "folder"
        out.mkdir()
        if content == "manifest.json":
            shutil.copytree(artifact, out, dirs_exist_ok=True)
        (out / "notes.txt").write_text("mine", encoding="utf-8")
        before = contents(out)
        done = pointsman("train", "--data", str(data), "--out", str(out))
        assert (done.exit_code, done.out) == (2, "")
        assert done.err == (
            f"pointsman: {out} is there already and is no artifact, so it is not replaced; name another folder\n"
        )
        assert contents(out) == before

    def test_bad_data_leaves_nothing_behind(self, pointsman: Pointsman, tmp_path: Path) -> None:
        """A fault of the data is told with its place, and no artifact and no other file is made."""
        folder = tmp_path / "data"
        folder.mkdir()
        (folder / "prompts.jsonl").write_text('{"prompt_id": "a", "prompt": "x"}\n', encoding="utf-8")
        (folder / "outcomes.jsonl").write_text('{"prompt_id": "a", "model": "m", "quality": 2}\n', encoding="utf-8")
        done = pointsman("train", "--data", str(folder), "--out", str(tmp_path / "artifact"))
        assert (done.exit_code, done.out) == (1, "")
        assert done.err == "pointsman: outcomes.jsonl line 1, column quality: '2' is not a number from 0 to 1\n"
        assert [path.name for path in tmp_path.iterdir()] == ["data"]

    def test_too_little_data_is_told(self, pointsman: Pointsman, tmp_path: Path) -> None:
        """Too few prompts to train on are refused with the number that it takes."""
        folder = tmp_path / "data"
        folder.mkdir()
        (folder / "prompts.jsonl").write_text('{"prompt_id": "a", "prompt": "x", "split": "train"}\n', encoding="utf-8")
        (folder / "outcomes.jsonl").write_text('{"prompt_id": "a", "model": "m", "quality": 1}\n', encoding="utf-8")
        done = pointsman("train", "--data", str(folder), "--out", str(tmp_path / "artifact"))
        assert done.exit_code == 1
        assert "50" in done.err
        assert "Traceback" not in done.err

    @pytest.mark.parametrize(
        ("extra", "message"),
        [
            (("--sources", "won"), "the data has no source won; it has own"),
            (("--exclude-questions-of", "own"), "no prompt is left in the train split to train on"),
        ],
    )
    def test_a_part_that_can_not_be_trained_on_is_told(
        self, pointsman: Pointsman, trained: Trained, tmp_path: Path, extra: tuple[str, ...], message: str
    ) -> None:
        """A source that is not there, or nothing left after yardsticks are taken out, ends the command at once."""
        done = pointsman("train", "--data", trained.data, "--out", str(tmp_path / "artifact"), *extra)
        assert (done.exit_code, done.out, done.err) == (1, "", f"pointsman: {message}\n")
        assert list(tmp_path.iterdir()) == []


class TestEvaluate:
    """How good an artifact is."""

    def test_the_router_beats_the_best_single_model(
        self, pointsman: Pointsman, data: Path, artifact: Path, tmp_path: Path
    ) -> None:
        """On held-out prompts of a world with a signal, routing is far better than the best single model, certainly so;
        the JSON file says what the tables say."""
        file = tmp_path / "figures.json"
        done = pointsman("evaluate", "--artifact", str(artifact), "--data", str(data), "--json", str(file))
        assert done.exit_code == 0
        figures = json.loads(file.read_text(encoding="utf-8"))
        assert (figures["format"], figures["format_version"]) == (FORMAT, FORMAT_VERSION)
        assert (figures["artifact_name"], figures["split"]) == ("mine", "test")
        (part,) = figures["parts"]
        router, single = (part["routing"]["policies"][name]["accuracy"] for name in ("router", "best_single"))
        assert router["value"] > single["value"] + 0.2
        assert router["low"] < router["value"] < router["high"]
        assert part["routing"]["gain_over_best_single"]["low"] > 0.0
        assert f"{100 * router['value']:.1f} % ({100 * router['low']:.1f} to {100 * router['high']:.1f})" in done.out

    def test_everything_can_be_asked_for(
        self, pointsman: Pointsman, data: Path, artifact: Path, tmp_path: Path
    ) -> None:
        """With prices, a pair and all splits, the tables have costs, AIQ and APGR; - prints the JSON alone."""
        prices = tmp_path / "prices.csv"
        prices.write_text(
            "model,usd_per_1m_input,usd_per_1m_output\nmathematician,10,30\nhistorian,1,3\naverage,0.1,0.1\n",
            encoding="utf-8",
        )
        command = (
            *("evaluate", "--artifact", str(artifact), "--data", str(data), "--split", "all", "--resamples", "50"),
            *("--pair", "mathematician,average", "--prices", str(prices), "--sources", "own", "--seed", "3"),
        )
        done = pointsman(*command)
        assert done.exit_code == 0
        for words in ("$ per 1,000", "quality against cost, by list prices", "APGR", "of all splits", "arena score"):
            assert words in done.out
        printed = json.loads(pointsman(*command, "--json", "-").out)
        (part,) = printed["parts"]
        assert part["prompt_count"] == PROMPT_COUNT
        assert part["cost"]["basis"] == "list_price"
        assert part["pair"]["routers"]["router"]["apgr"]["value"] is not None
        assert (printed["seed"], printed["resample_count"]) == (3, 50)

    @pytest.mark.parametrize(
        ("extra", "exit_code", "message"),
        [
            (("--pair", "mathematician"), 2, "--pair takes two models, the strong one first: STRONG,WEAK"),
            (("--pair", "mathematician,averige"), 2, "the data has no model averige; near it: average"),
            (("--models", "historan"), 2, "the data has no model historan; near it: historian"),
            (("--models", "a,,b"), 2, "'a,,b' is not a list of names with commas between them"),
            (("--sources", "there"), 1, "the data has no source there; it has own"),
            (("--prices", "none.csv"), 1, "none.csv: can't be read (No such file or directory)"),
            (("--split", "dev"), 2, "invalid choice: 'dev'"),
            (("--resamples", "-1"), 2, "'-1' is not a whole number from 0 to 100000"),
            (("--artifact", "none"), 1, "manifest.json can't be read"),
        ],
    )
    def test_what_is_wrong_is_told(
        self, pointsman: Pointsman, trained: Trained, extra: tuple[str, ...], exit_code: int, message: str
    ) -> None:
        """A wrong argument or file ends the command with one clear line and without a traceback."""
        done = pointsman("evaluate", "--artifact", trained.artifact, "--data", trained.data, *extra)
        assert (done.exit_code, done.out) == (exit_code, "")
        assert message in done.err
        assert "Traceback" not in done.err

    def test_the_shipped_artifact_has_a_name(self, pointsman: Pointsman, data: Path) -> None:
        """`builtin` measures the artifact that ships; of data of strangers it says so, and why a pair is missing."""
        pair = ("--pair", "mathematician,average")
        done = pointsman("evaluate", "--artifact", "builtin", "--data", str(data), "--resamples", "0", *pair)
        assert done.exit_code == 0
        assert "the artifact does not know average, historian, mathematician" in done.out
        assert done.err.startswith("note: no source has prompts that both models of the pair answered")


class TestPredict:
    """What an artifact expects."""

    @pytest.mark.parametrize("kinds", ["parquet to jsonl", "jsonl to parquet"])
    def test_predictions_are_what_the_model_says(
        self, pointsman: Pointsman, trained: Trained, tmp_path: Path, kinds: str
    ) -> None:
        """Joined back to the prompts, each row is what the artifact predicts for that prompt and model, over more than
        one batch and in the input's order."""
        assert PROMPT_COUNT > BATCH_SIZE
        source, target = kinds.split(" to ")
        given = Path(trained.data) / "prompts.parquet"
        prompts = pyarrow.parquet.read_table(given).to_pylist()
        if source == "jsonl":
            given = tmp_path / "prompts.jsonl"
            given.write_text("\n".join(json.dumps(row) + "\n" for row in prompts), encoding="utf-8")
        out = tmp_path / f"out.{target}"
        done = pointsman(
            "predict", "--artifact", trained.artifact, "--input", str(given), "--out", str(out),
            "--models", "historian,own/mathematician",
        )  # fmt: skip
        assert (done.exit_code, done.out) == (0, "")
        assert done.err == f"{PROMPT_COUNT:,} prompts, {2 * PROMPT_COUNT:,} predictions\n"
        rows: list[dict[str, Any]] = (
            pyarrow.parquet.read_table(out).to_pylist()
            if target == "parquet"
            else [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        )
        names = {"historian": "historian", "own/mathematician": "mathematician"}
        assert [(row["prompt_id"], row["model"]) for row in rows] == [
            (prompt["prompt_id"], name) for prompt in prompts for name in names
        ]
        assert list(rows[0]) == SCHEMA.names
        model = load(Path(trained.artifact))
        text_of = {prompt["prompt_id"]: prompt["prompt"] for prompt in prompts}
        for row in rows[:: PROMPT_COUNT // 20]:
            name = names[row["model"]]
            expected = model.predict(text_of[row["prompt_id"]], list(names.values()))[name]
            half = 1.645 * expected.standard_error
            assert row["quality"] == expected.mean
            assert row["quality_low"] == max(0.0, expected.mean - half)
            assert row["quality_high"] == min(1.0, expected.mean + half)
            assert row["output_tokens"] == expected.output_token_count

    def test_they_are_as_good_as_evaluated(
        self, pointsman: Pointsman, data: Path, artifact: Path, tmp_path: Path
    ) -> None:
        """Choosing by the written predictions gives the accuracy that `evaluate` tells."""
        out = tmp_path / "out.parquet"
        models = sorted(TRUTH)
        command = ("--artifact", str(artifact), "--models", ",".join(models))
        pointsman("predict", *command, "--input", str(data / "prompts.parquet"), "--out", str(out))
        told = pointsman("evaluate", *command, "--data", str(data), "--resamples", "0", "--json", "-").out
        dataset = load_dataset(data)
        table = pyarrow.parquet.read_table(out)
        predicted = np.array(table["quality"].to_numpy()).reshape(-1, len(models))
        choice = predicted.argmax(axis=1)
        test = dataset.splits == "test"
        routed = dataset.quality[np.arange(len(choice)), choice][test].mean()
        (part,) = json.loads(told)["parts"]
        assert part["routing"]["policies"]["router"]["accuracy"]["value"] == pytest.approx(float(routed))

    @pytest.mark.parametrize(
        ("extra", "exit_code", "message"),
        [
            (("--models", "historien"), 2, "the artifact does not know historien; near it: historian"),
            (("--out", "out.csv"), 2, "--out out.csv: its name has to end in .parquet or .jsonl"),
            (("--input", "in.csv"), 2, "--input in.csv: its name has to end in .parquet or .jsonl"),
            (("--input", "none.parquet"), 1, "none.parquet: can't be read (No such file or directory)"),
            (("--out", "nowhere/out.jsonl"), 2, "can't write nowhere/out.jsonl: No such file or directory"),
        ],
    )
    @pytest.mark.usefixtures("_elsewhere")
    def test_what_is_wrong_is_told(
        self, pointsman: Pointsman, trained: Trained, extra: tuple[str, ...], exit_code: int, message: str
    ) -> None:
        """A wrong argument or file ends the command with one clear line, and nothing is written."""
        done = pointsman(
            "predict", "--artifact", trained.artifact, "--input", f"{trained.data}/prompts.parquet", "--models", "historian",
            "--out", "out.jsonl", *extra,
        )  # fmt: skip
        assert (done.exit_code, done.out) == (exit_code, "")
        assert message in done.err
        assert "Traceback" not in done.err
        assert list(Path().iterdir()) == []

    def test_a_bad_line_leaves_the_old_file(self, pointsman: Pointsman, artifact: Path, tmp_path: Path) -> None:
        """When a line far into the input is bad, its place is told, the prompt is not, and what was there before stays."""
        given, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
        lines = [json.dumps({"prompt_id": number, "prompt": "the king"}) for number in range(BATCH_SIZE + 10)]
        lines.append(json.dumps({"prompt_id": "x", "prompt": ["my secret"]}))
        given.write_text("\n".join(lines), encoding="utf-8")
        out.write_text("before", encoding="utf-8")
        done = pointsman(
            "predict", "--artifact", str(artifact), "--input", str(given), "--models", "historian", "--out", str(out)
        )
        assert (done.exit_code, done.out) == (1, "")
        assert done.err == (
            f"pointsman: prompts.jsonl line {BATCH_SIZE + 11}, column prompt: a value of the type list is not text\n"
        )
        assert out.read_text(encoding="utf-8") == "before"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "prompts.jsonl"]

    def test_the_input_is_not_overwritten(self, pointsman: Pointsman, artifact: Path, tmp_path: Path) -> None:
        """Input and output may not be one file."""
        given = tmp_path / "prompts.jsonl"
        given.write_text('{"prompt_id": "a", "prompt": "x"}\n', encoding="utf-8")
        done = pointsman(
            "predict", "--artifact", str(artifact), "--input", str(given), "--models", "historian", "--out", str(given)
        )
        assert (done.exit_code, done.err) == (2, f"pointsman: --out {given} is the input; name another file\n")


class TestPage:
    """docs/training.md."""

    @pytest.mark.usefixtures("_elsewhere")
    def test_a_decision_log_is_learned_from(self, pointsman: Pointsman, data: Path) -> None:
        """The two commands run on a log with prompts, and say how many of its labels they weighed; without anything to
        learn from they say what to give."""
        shutil.copytree(data, "my-data")
        Path("decisions").mkdir()
        write_log(Path("decisions"), count=300)
        (script,) = blocks("log")
        for line in script.replace("in-house-7b", "mathematician").splitlines():
            done = pointsman(*shlex.split(line)[1:])
            assert done.exit_code == 0
            assert re.match(r"300 labels of the log, weighed by their propensities worth 2\d\d; of 300", done.err)
        assert load(Path("my-artifact")).models == frozenset(TRUTH)
        assert "mathematician" in load(Path("with-in-house")).models
        done = pointsman("train", "--out", "another")
        assert (done.exit_code, done.err) == (2, "pointsman: give --data, --log, or both\n")

    @pytest.mark.usefixtures("_elsewhere")
    def test_its_commands_run(self, pointsman: Pointsman, data: Path, artifact: Path) -> None:
        """The three commands run one after the other on data with the models that they name; an artifact that was there
        before gives way to another one, of another version."""
        shutil.copytree(data, "my-data")
        shutil.copytree(artifact, "my-artifact")
        table = pyarrow.parquet.read_table(data / "outcomes.parquet").to_pylist()
        names = {"mathematician": "openai/gpt-4o", "historian": "llama-3.3-70b-instruct", "average": "other"}
        renamed = [row | {"model": names[row["model"]]} for row in table]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(renamed), "my-data/outcomes.parquet")
        Path("prompts.jsonl").write_text('{"prompt_id": "a", "prompt": "a king"}\n', encoding="utf-8")
        (script,) = blocks("commands")
        commands = [shlex.split(line) for line in script.splitlines()]
        assert [words[1] for words in commands] == ["train", "evaluate", "predict"]
        for words in commands:
            assert pointsman(*words[1:]).exit_code == 0
        rows = pyarrow.parquet.read_table("predictions.parquet").to_pylist()
        assert [row["model"] for row in rows] == ["gpt-4o", "llama-3.3-70b-instruct"]
        assert tomllib.loads(blocks("configuration")[0])["quality"]["artifact"] == "my-artifact"
        assert load(Path("my-artifact")).models == {"gpt-4o", "llama-3.3-70b-instruct", "other"}
        assert read_manifest(Path("my-artifact"))["version"] != read_manifest(artifact)["version"]
        assert contents(Path("my-artifact"))["booster.ubj"] != contents(artifact)["booster.ubj"]
        assert sorted(path.name for path in Path().iterdir()) == [
            "figures.json", "my-artifact", "my-data", "predictions.parquet", "prompts.jsonl",
        ]  # fmt: skip

    def test_its_samples_are_read(self, tmp_path: Path) -> None:
        """The two tables that it shows are a dataset."""
        for name, block in zip(("prompts", "outcomes"), blocks("data"), strict=True):
            (tmp_path / f"{name}.jsonl").write_text(block, encoding="utf-8")
        dataset = load_dataset(tmp_path)
        assert dataset.quality.shape == (2, 2)
        assert np.isfinite(dataset.quality).sum() == 3

    def test_it_names_every_field(self, pointsman: Pointsman, data: Path, artifact: Path, tmp_path: Path) -> None:
        """Each field of the JSON, and each column of the predictions, stands on the page."""
        prices = tmp_path / "prices.csv"
        prices.write_text(
            "model,usd_per_1m_input,usd_per_1m_output\nmathematician,10,30\nhistorian,1,3\n", encoding="utf-8"
        )
        done = pointsman(
            *("evaluate", "--artifact", str(artifact), "--data", str(data), "--resamples", "2", "--json", "-"),
            *("--pair", "mathematician,average", "--prices", str(prices)),
        )
        fields: set[str] = set()

        def gather(value: object) -> None:
            if isinstance(value, dict):
                fields.update(value)
            for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
                gather(inner)

        gather(json.loads(done.out))
        prose = re.sub(r"^```.*?^```$", "", _PAGE, flags=re.DOTALL | re.MULTILINE)
        named = set(re.findall(r"[a-z0-9_]+", " ".join(re.findall(r"`([^`]+)`", prose))))
        assert fields - named == set()
        assert set(SCHEMA.names) <= named
