"""`pointsman evaluate`: how good an artifact is on labelled prompts."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from pointsman_server.cli.evaluation_tables import evaluation_report
from pointsman_server.cli.exit import EXIT_USAGE, CommandError
from pointsman_server.cli.offline import counting_bar, faults_told, loaded, written_beside
from pointsman_server.cli.output import console
from pointsman_server.cli.prompt import STANDARD_INPUT
from pointsman_server.training.costs import read_prices
from pointsman_server.training.dataset import load_dataset
from pointsman_server.training.evaluate import EvaluationSettings, evaluated, measure
from pointsman_server.training.figures import as_json

STANDARD_OUTPUT = STANDARD_INPUT
"""The dash, in place of a file."""


def run(arguments: Namespace, _environment: Mapping[str, str]) -> int:
    """Prints the figures as tables, and writes them as JSON."""
    if arguments.pair is not None and len(arguments.pair) != 2:
        raise CommandError("--pair takes two models, the strong one first: STRONG,WEAK", exit_code=EXIT_USAGE)
    with faults_told():
        model = loaded(arguments.artifact)
        settings = EvaluationSettings(
            split=arguments.split,
            models=arguments.models,
            pair=arguments.pair,
            prices=None if arguments.prices is None else read_prices(arguments.prices),
            seed=arguments.seed,
            resample_count=arguments.resamples,
        )
        dataset = load_dataset(arguments.data)
        if arguments.sources is not None:
            dataset = dataset.from_known_sources(arguments.sources)
        count = int(evaluated(dataset, settings.split).sum())
        if not count:
            raise CommandError(f"the data has no prompt in the split {settings.split}")
        with counting_bar() as bar:
            task = bar.add_task("measuring", total=count)
            evaluation = measure(model, dataset, settings, lambda done: bar.advance(task, done))
        written = json.dumps(as_json(evaluation), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        if arguments.json == Path(STANDARD_OUTPUT):
            sys.stdout.write(written)
            return 0
        if arguments.json is not None:
            with written_beside(arguments.json) as file:
                file.write_text(written, encoding="utf-8")
    screen = console()
    screen.print(evaluation_report(screen, evaluation))
    if settings.pair is not None and not any(part.pair for part in evaluation.parts):
        note = "note: no source has prompts that both models of the pair answered, or the artifact does not know them"
        console(stderr=True).print(note, style="yellow")
    return 0
