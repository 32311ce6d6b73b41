"""`pointsman train`: from labelled prompts to an artifact."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from rich.progress import TaskID

from pointsman_server.cli.evaluation_tables import evaluation_report
from pointsman_server.cli.exit import EXIT_USAGE, CommandError
from pointsman_server.cli.labelled import read_labelled
from pointsman_server.cli.offline import counting_bar, faults_told, folder_beside, step_bars
from pointsman_server.cli.output import console
from pointsman_server.quality.artifact import CONTENT_FILES, MANIFEST_FILE, save
from pointsman_server.quality.model import QualityModel
from pointsman_server.training.checkpoints import Checkpoints
from pointsman_server.training.dataset import Dataset
from pointsman_server.training.evaluate import EvaluationSettings, evaluated, main_metrics, measure
from pointsman_server.training.figures import Evaluation
from pointsman_server.training.own import Selection, card_of, provenance_of, selected, train_own, training_digest

BUILD_DATE_VARIABLE = "SOURCE_DATE_EPOCH"
"""The environment variable that holds the date to write into the manifest, in seconds, so that two builds are equal
(https://reproducible-builds.org/docs/source-date-epoch/)."""
VAL_SPLIT = "val"


def run(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Trains, measures on the val split, and puts the artifact in its place when it is whole."""
    out: Path = arguments.out.absolute()
    created = _build_date(environment)
    with faults_told():
        check_replaceable(out)
        with folder_beside(out):
            pass  # A place that can't be written to is told before anything is trained.
        dataset = read_labelled(arguments)
        part = selected(dataset, Selection(arguments.sources, arguments.exclude_questions_of))
        tell_about(part)
        kept = Checkpoints(out.with_name(f"{out.name}.unfinished-{training_digest(part, seed=arguments.seed)}"))
        if kept.folder.is_dir():
            console(stderr=True).print(
                f"going on where a training of the same data stopped: {kept.folder}", style="dim"
            )
        model = _trained(part, arguments, kept)
        evaluation = _measured(model, part, arguments.seed)
        provenance = provenance_of(part, seed=arguments.seed, created=created, metrics=main_metrics(evaluation))
        with folder_beside(out) as folder:
            save(folder / "new", model, provenance, card=card_of(model, provenance))
            put_in_place(folder, out)
        kept.remove()
    screen = console()
    screen.print(evaluation_report(screen, evaluation))
    sys.stdout.write(
        f"\n{out} holds {model.name} {model.version}, for {len(model.profiles)} models. To route by it, configure\n\n"
        f"[quality]\nartifact = {json.dumps(str(out), ensure_ascii=False)}\n"
    )
    return 0


def tell_about(part: Dataset) -> None:
    """What is trained on, and what is odd about it, on standard error."""
    screen = console(stderr=True)
    counts = ", ".join(f"{int((part.splits == split).sum()):,} {split}" for split in ("train", "val", "test"))
    screen.print(f"{len(part.texts):,} prompts ({counts}), {len(part.endpoints)} models", style="dim")
    if crossing := part.crossing_questions():
        screen.print(
            f"note: {len(crossing):,} questions stand in several splits, so what is measured looks better than it is",
            style="yellow",
        )


def _trained(part: Dataset, arguments: Namespace, kept: Checkpoints) -> QualityModel:
    with step_bars() as bars:
        tasks: dict[str, TaskID] = {}

        def progress(step: str, share: float) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=1.0)
            bars.update(tasks[step], completed=share)

        return train_own(part, seed=arguments.seed, name=arguments.name, progress=progress, recall=kept)


def _measured(model: QualityModel, part: Dataset, seed: int) -> Evaluation:
    settings = EvaluationSettings(split=VAL_SPLIT, seed=seed)
    with counting_bar() as bar:
        task = bar.add_task("measuring", total=int(evaluated(part, VAL_SPLIT).sum()))
        return measure(model, part, settings, lambda count: bar.advance(task, count))


def check_replaceable(out: Path) -> None:
    """Only an artifact may be replaced, or nothing.

    Raises:
        CommandError: there is something else.
    """
    if not out.exists() and not out.is_symlink():
        return
    entries = {entry.name for entry in out.iterdir()} if out.is_dir() else {""}
    if entries and not (MANIFEST_FILE in entries and entries <= {MANIFEST_FILE, *CONTENT_FILES}):
        raise CommandError(
            f"{out} is there already and is no artifact, so it is not replaced; name another folder",
            exit_code=EXIT_USAGE,
        )


def put_in_place(folder: Path, out: Path) -> None:
    """Renames the artifact `new` in a folder beside `out` to `out`; what was there is away first, and back if that fails."""
    old = folder / "old"
    replaced = out.exists()
    if replaced:
        out.rename(old)
    try:
        (folder / "new").rename(out)
    except OSError:
        if replaced:
            old.rename(out)
        raise


def _build_date(environment: Mapping[str, str]) -> str:
    told = environment.get(BUILD_DATE_VARIABLE)
    if told is None:
        return datetime.now(UTC).date().isoformat()
    try:
        return datetime.fromtimestamp(int(told), UTC).date().isoformat()
    except (ValueError, OverflowError, OSError) as error:
        raise CommandError(f"{BUILD_DATE_VARIABLE} is not a time in seconds", exit_code=EXIT_USAGE) from error
