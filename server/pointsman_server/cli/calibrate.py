"""`pointsman calibrate`: an LLM joins a trained artifact with a few labelled prompts, without retraining."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pointsman_server.cli.exit import EXIT_USAGE, CommandError
from pointsman_server.cli.labelled import read_labelled
from pointsman_server.cli.offline import artifact_folder, faults_told, folder_beside
from pointsman_server.cli.output import console
from pointsman_server.quality.artifact import CARD_FILE, Joined, load, read_provenance, save
from pointsman_server.quality.model import QualityModel
from pointsman_server.training.card import with_joined
from pointsman_server.training.joining import Calibration, calibrate


def run(arguments: Namespace, _environment: Mapping[str, str]) -> int:
    """Writes the artifact with the model in it, and says what its profile rests on."""
    source = artifact_folder(arguments.artifact)
    if arguments.out.exists():
        raise CommandError(f"--out {arguments.out} is there already; name a new folder", exit_code=EXIT_USAGE)
    with faults_told():
        model = load(source)
        calibration = calibrate(
            model,
            read_labelled(arguments),
            name=arguments.model,
            relative=arguments.stand_in_of,
            replace=arguments.replace,
        )
        _write(arguments, source, joined_version=model.version, calibration=calibration)
    console().print(_said(calibration, arguments.out))
    return 0


def _write(arguments: Namespace, source: Path, *, joined_version: str, calibration: Calibration) -> None:
    """The whole artifact or nothing: it takes its name when all of it is there."""
    created = arguments.created or datetime.now(UTC).date()
    joined = Joined(
        model=calibration.joined,
        created=created.isoformat(),
        label_count=calibration.label_count,
        length_count=calibration.length_count,
        relative=calibration.relative,
        joined_version=joined_version,
    )
    before = read_provenance(source)
    provenance = replace(before, joined=(*before.joined, joined))
    card = with_joined((source / CARD_FILE).read_text(encoding="utf-8"), provenance)
    out: Path = arguments.out
    with folder_beside(out) as folder:
        save(folder / out.name, calibration.model, provenance, card=card)
        (folder / out.name).rename(out)


def _said(calibration: Calibration, out: Path) -> str:
    model: QualityModel = calibration.model
    return (
        f"{calibration.joined} has joined, by {calibration.label_count} labels with a mean of "
        f"{calibration.quality_mean:.2f}, {calibration.length_count} of them with a length: "
        f"{out} is {model.name} {model.version}, {len(model.profiles)} models"
    )
