"""Rebuilds the artifact that ships with the package: `python -m pointsman_server.training.build --data DIR --out DIR`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from importlib.metadata import version as package_version
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from pointsman_server.quality.artifact import Provenance, Source, save
from pointsman_server.quality.model import QualityModel
from pointsman_server.training.card import model_card
from pointsman_server.training.dataset import Dataset, DatasetError, load_dataset
from pointsman_server.training.evaluate import evaluate
from pointsman_server.training.train import TrainingSettings, train

NAME = "builtin"
VERSION = "2026.11.25"

TRAINED_SOURCES = (
    Source("mmlu_pro", "Apache-2.0", "trained: knowledge and reasoning, 10-way multiple choice"),
    Source("zeroeval", "Apache-2.0", "trained: mathematics, code reasoning, number sense"),
    Source("llmrouter", "MIT", "trained: 11 of its 14 tasks; its labels mix ability with format failures"),
    Source("wordllama", "MIT", "word embedding, projected and quantised"),
)
YARDSTICK_SOURCES = ("routellm", "routerarena")
"""Public yardsticks: none of their questions, in any wording or source, is trained on or calibrated with."""

OVERLAP_SCORED_CATEGORIES = ("trivia_qa/f1_score", "natural_qa/f1_score", "commongen/commongen_coverage")
"""Tasks of llmrouter scored by the overlap of words, which punishes a good answer for being a sentence: the best model
reaches 0.2 to 0.5, so whoever was measured there would look poor at short factual questions. Not trained on."""

MMLU_PRO_CHAT_MODELS = (
    "Meta-Llama-3_1-70B-Instruct", "Meta-Llama-3_1-8B-Instruct", "Mistral-7B-Instruct-v0.1",
    "Mistral-7B-Instruct-v0.2", "Mixtral-8x7B-Instruct-v0.1", "Phi-3-mini-4k-instruct", "Qwen1.5-72B-Chat",
    "Qwen1.5-7B-Chat", "Yi-6b-Chat", "c4ai-command-r-v01", "gemini-1.5-flash-002", "gemini-1.5-pro-002",
    "jamba-1.5-large", "mathstral-7B",
)  # fmt: skip
"""The instruction-tuned models of mmlu_pro: nobody routes to a base model."""

SETTINGS = TrainingSettings(sees_categories=False, loading_variance=0.02, ease_variance=1.0)
"""Both tight and tied: most models are measured in one source only, on its prompts only, so what they can do elsewhere
rests on how they compare with the others on the same prompts (docs/quality.md)."""

PACKAGES = ("numpy", "tokenizers", "wordllama", "xgboost-cpu")
DEFAULT_SEED = 20261124
STEPS = ("features", "latents", "wording", "booster", "profiles")


def training_part(dataset: Dataset) -> Dataset:
    """What the shipped artifact may learn from: the permissive sources, without any question of a yardstick and without
    the tasks that are scored by the overlap of words."""
    yardsticks = frozenset(dataset.from_sources(YARDSTICK_SOURCES).dedupe_keys)
    part = dataset.from_sources([source.name for source in TRAINED_SOURCES]).without_questions(yardsticks)
    return part.where(~np.isin(part.categories, OVERLAP_SCORED_CATEGORIES))


def build(data: Path, out: Path, *, created: date, seed: int, console: Console) -> Mapping[str, Mapping[str, float]]:
    """Train on the data in `data`, measure on its test split, write the artifact to `out`; returns the metrics."""
    dataset = load_dataset(data)
    with Progress(TextColumn("{task.description:10}"), BarColumn(), TimeElapsedColumn(), console=console) as bars:
        tasks: dict[str, TaskID] = {step: bars.add_task(step, total=1.0) for step in STEPS}
        model = train(
            training_part(dataset),
            settings=SETTINGS,
            seed=seed,
            progress=lambda step, share: bars.update(tasks[step], completed=share),
            name=NAME,
            version=VERSION,
        )
    metrics = test_metrics(model, dataset)
    provenance = Provenance(
        created=created.isoformat(),
        sources=TRAINED_SOURCES,
        settings={"seed": seed, **_flat(asdict(SETTINGS))},
        metrics=metrics,
        packages={name: package_version(name) for name in PACKAGES},
    )
    save(out, model, provenance, card=model_card(model, provenance))
    return metrics


def test_metrics(model: QualityModel, dataset: Dataset) -> dict[str, dict[str, float]]:
    """The test split by source: the questions of the kind that was trained on, and all of them.

    All of them includes the yardsticks' questions and the tasks scored by overlap, which are of other kinds than what is
    left after their removal: a measure of how well the model meets what it has not seen.
    """
    trained = dataset.from_sources([source.name for source in TRAINED_SOURCES])
    models_of = {"mmlu_pro": MMLU_PRO_CHAT_MODELS}
    usual = evaluate(model, training_part(dataset), split="test", models_of=models_of)
    whole = evaluate(model, trained, split="test", models_of=models_of)
    return usual | {f"{source}, all questions": metrics for source, metrics in whole.items()}


def _flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, float | int | str]:
    """Nested settings with dotted names."""
    flat: dict[str, float | int | str] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            assert isinstance(value, float | int | str), name
            flat[f"{prefix}{name}"] = value
    return flat


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, build, show the metrics."""
    parser = argparse.ArgumentParser(prog="python -m pointsman_server.training.build", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory with prompts.parquet and outcomes.parquet")
    parser.add_argument("--out", type=Path, required=True, help="directory to write the artifact to")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument(
        "--created", type=date.fromisoformat, default=datetime.now(UTC).date(), help="date of the build"
    )
    options = parser.parse_args(arguments)
    console = Console()
    try:
        metrics = build(options.data, options.out, created=options.created, seed=options.seed, console=console)
    except DatasetError as error:
        console.print(f"[red]{error}[/red]")
        return 2
    table = Table("test split", *sorted(metrics))
    for name in {name: None for values in metrics.values() for name in values}:
        table.add_row(name, *(f"{metrics[source].get(name, float('nan')):.4g}" for source in sorted(metrics)))
    console.print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
