"""From somebody's own labelled prompts to an artifact, without a decision that only they could make.

What is trained on is the sources that are asked for, without the questions of those that are to stay yardsticks and
without prompts that their owner marks as being for evaluation only. The same data and seed give the same model, under
the same version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version as package_version

from pointsman_server.quality.artifact import Provenance, Source
from pointsman_server.quality.model import QualityModel
from pointsman_server.training.build import SETTINGS as SETTINGS_OF_SEVERAL_SOURCES
from pointsman_server.training.checkpoints import Recall, computed
from pointsman_server.training.dataset import Dataset, DatasetError
from pointsman_server.training.own_names import by_llm, llms_of, named
from pointsman_server.training.train import Progress, TrainingSettings, train

DEFAULT_NAME = "own"
DEFAULT_SEED = 1
EVALUATION_ONLY_TAG = "eval_only"
"""Marks prompts that nothing may be trained on."""
VERSION_LENGTH = 12
"""Hexadecimal digits of the data's and settings' digest: no two builds of one person will share them."""
PACKAGES = ("numpy", "tokenizers", "wordllama", "xgboost-cpu")
"""Whose versions may change what comes out."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of a data set is trained on."""

    sources: tuple[str, ...] | None = None
    """None: all."""
    yardsticks: tuple[str, ...] = ()
    """Sources of which no question, in any wording or source, is trained on."""


def selected(dataset: Dataset, selection: Selection) -> Dataset:
    """The part of the data that may be trained on.

    Raises:
        DatasetError: a source is not in the data, or nothing is left to train on.
    """
    sources = selection.sources or tuple(set(dataset.sources))
    held_back = frozenset(dataset.from_known_sources(selection.yardsticks).dedupe_keys)
    left = dataset.from_known_sources(sources).without_questions(held_back)
    left = left.where(~left.tagged(EVALUATION_ONLY_TAG))
    left = left.from_sources(sorted(set(left.sources)))
    if not (left.splits == "train").any():
        raise DatasetError("no prompt is left in the train split to train on")
    return left


def train_own(dataset: Dataset, *, seed: int, name: str, progress: Progress, recall: Recall = computed) -> QualityModel:
    """A model of everything in `dataset`; `recall` is for this very data and seed.

    Raises:
        DatasetError: too few training prompts or labels.
    """
    settings = settings_for(dataset)
    members = llms_of(dataset.endpoints)
    model = train(
        by_llm(dataset, members),
        settings=settings,
        seed=seed,
        progress=progress,
        name=name,
        version=version_of(dataset, settings, seed=seed),
        recall=recall,
    )
    return named(model, members)


def settings_for(dataset: Dataset) -> TrainingSettings:
    """One source in which every model was asked the same speaks for itself; several are tied together."""
    return TrainingSettings() if len(set(dataset.sources)) == 1 else SETTINGS_OF_SEVERAL_SOURCES


def training_digest(dataset: Dataset, *, seed: int) -> str:
    """What tells one training from another, in whatever a killed one has left: its version, and those of the packages."""
    versions = [f"{name}={package_version(name)}" for name in ("pointsman", *PACKAGES)]
    told = " ".join((version_of(dataset, settings_for(dataset), seed=seed), *versions))
    return hashlib.sha256(told.encode()).hexdigest()[:VERSION_LENGTH]


def version_of(dataset: Dataset, settings: TrainingSettings, *, seed: int) -> str:
    """A digest of everything that decides what comes out, but for the versions of packages."""
    digest = hashlib.sha256(repr((seed, settings, dataset.endpoints)).encode())
    for column in (dataset.texts, dataset.sources, dataset.categories, dataset.dedupe_keys, dataset.splits):
        for text in column:
            digest.update(f"{len(text)}:{text}".encode("utf-8", "replace"))
    for matrix in (dataset.quality, dataset.output_tokens):
        digest.update(matrix.tobytes())
    if dataset.weight is not None:
        digest.update(dataset.weight.tobytes())
    return digest.hexdigest()[:VERSION_LENGTH]


def provenance_of(
    dataset: Dataset, *, seed: int, created: str, metrics: Mapping[str, Mapping[str, float]]
) -> Provenance:
    """What the manifest tells of a model that was trained on this data."""
    used = [
        Source(source, "not stated", f"trained: {int((dataset.sources == source).sum())} prompts")
        for source in sorted(set(dataset.sources))
    ]
    return Provenance(
        created=created,
        sources=(*used, Source("wordllama", "MIT", "word embedding, projected and quantised")),
        settings={"seed": seed, **_flat(asdict(settings_for(dataset)))},
        metrics=metrics,
        packages={name: package_version(name) for name in PACKAGES},
    )


def card_of(model: QualityModel, provenance: Provenance) -> str:
    """The model card: what it was trained on, how good it is on its own val split, and what that is worth."""
    rows = [
        f"| {source} | {name} | {value:.4g} |"
        for source, values in sorted(provenance.metrics.items())
        for name, value in values.items()
    ]
    return "\n".join(
        (
            f"# Quality model `{model.name}`, version {model.version}",
            "",
            (
                f"Trained on {provenance.created} with `pointsman train` for {len(model.profiles)} LLMs. It predicts, for a "
                "prompt and each of them, the probability of a good answer, its uncertainty, and the answer's length."
            ),
            "",
            "## Sources",
            "",
            *(f"- {source.name}: {source.use}" for source in provenance.sources),
            "",
            "## Measured on the val split",
            "",
            "Its intervals were calibrated on the same prompts, so their coverage looks better than it is.",
            "",
            "| source | metric | value |",
            "|---|---|---|",
            *rows,
            "",
            "Settings, seed, package versions and checksums are in `manifest.json`.",
            "",
        )
    )


def _flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, float | int | str]:
    """Nested settings with dotted names."""
    flat: dict[str, float | int | str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, float | int | str):
            flat[f"{prefix}{name}"] = value
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat
