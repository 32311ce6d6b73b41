"""The model card: what the manifest says, in words for the people who choose and audit a model."""

from __future__ import annotations

from pointsman_server.quality.artifact import Provenance
from pointsman_server.quality.model import QualityModel

METRIC_WORDS = {
    "prompts": "prompts",
    "models": "models",
    "accuracy": "accuracy, routed by predicted quality",
    "accuracy_random": "accuracy, random model",
    "accuracy_best_single": "accuracy, best single model",
    "accuracy_best_per_category": "accuracy, best model per category",
    "accuracy_oracle": "accuracy, oracle",
    "routing_prompts": "prompts answered by every routed model",
    "routing_models": "routed models",
    "auc_within_model": "AUC within a model, mean",
    "brier": "Brier score",
    "ece": "expected calibration error",
    "cells": "cells (model x category)",
    "coverage_90": "coverage of the 90 % interval over cells",
}
"""How each metric is called in the table; one that is not listed is shown under its own name."""

COUNTS = frozenset({"prompts", "models", "routing_prompts", "routing_models", "cells"})


def model_card(model: QualityModel, provenance: Provenance) -> str:
    """The card in Markdown."""
    return "\n".join(
        (
            f"# Quality model `{model.name}`, version {model.version}",
            "",
            (
                f"Built on {provenance.created}. It predicts, for a prompt and each of {len(model.profiles)} LLMs "
                f"({len(model.models)} names), the probability of a good answer, its uncertainty, and the answer's length."
            ),
            "",
            "## Sources and licences",
            "",
            "| source | licence | use |",
            "|---|---|---|",
            *(f"| {source.name} | {source.licence} | {source.use} |" for source in provenance.sources),
            "",
            (
                "Questions that also occur in RouteLLM's evaluation sets or in RouterArena, in any wording, were removed "
                "before training and calibration, so that both stay yardsticks. So were the tasks of llmrouter that are scored by "
                "the overlap of words, which says little about whether an answer is good."
            ),
            "",
            "## Measured on held-out test prompts",
            "",
            (
                "The columns `all questions` include the removed ones, which are of kinds that the model has hardly seen: "
                "their calibration error and coverage are what to expect on prompts unlike the training data."
            ),
            "",
            *_metric_table(provenance),
            "",
            *_USE_AND_LIMITS,
            "",
            "## How to rebuild",
            "",
            "```",
            "python -m pointsman_server.training.build --data DIR --out DIR",
            "```",
            "",
            (
                "`DIR` of `--data` holds `prompts.parquet` and `outcomes.parquet`. Settings, seed, package versions and "
                "checksums are in `manifest.json`; which name leads to which profile is in `profiles.json`."
            ),
            "",
        )
    )


def with_joined(card: str, provenance: Provenance) -> str:
    """The card of an artifact which models have joined by their labels; the last section lists them."""
    written = card.partition(_JOINED_HEADING)[0].rstrip("\n")
    rows = (
        f"| {one.model} | {one.created} | {one.label_count} | {one.relative or ''} | {one.joined_version} |"
        for one in provenance.joined
    )
    return "\n".join(
        (
            written,
            "",
            _JOINED_HEADING,
            "",
            "Since the build these have joined, each by its own labels. All that is measured above is from before.",
            "",
            "| model | on | labels | started from | joined version |",
            "|---|---|---|---|---|",
            *rows,
            "",
        )
    )


_JOINED_HEADING = "## Joined since"


def _metric_table(provenance: Provenance) -> list[str]:
    sources = sorted(provenance.metrics)
    names = list({name: None for source in sources for name in provenance.metrics[source]})
    lines = [f"| | {' | '.join(sources)} |", f"|---|{'---|' * len(sources)}"]
    for name in names:
        values = (provenance.metrics[source].get(name) for source in sources)
        shown = ("" if value is None else f"{value:.0f}" if name in COUNTS else f"{value:.3f}" for value in values)
        lines.append(f"| {METRIC_WORDS.get(name, name)} | {' | '.join(shown)} |")
    return lines


_USE_AND_LIMITS = (
    "## Intended use",
    "",
    (
        "Ranking candidate models for a prompt inside the router, together with price and live latency; bounds on predicted "
        "quality. English questions, mathematics, code, knowledge and reasoning are what it has seen."
    ),
    "",
    "## Limits",
    "",
    (
        "- The labels come from public benchmarks of 2023 and 2024, mostly with one right answer. Open conversation, long "
        "documents, tools, images and other languages are extrapolation."
    ),
    (
        "- A name listed under `stand_ins` in `profiles.json` is a newer LLM without training data: it borrows the profile "
        "of a trained relative, so its own strengths are unknown; its interval is wider."
    ),
    (
        "- Most models were measured in one source only. What they would do elsewhere is inferred from what models have in "
        "common, and the interval says so."
    ),
    (
        "- Lengths were measured in characters and divided by four. Hidden reasoning tokens are not in them. Where a source "
        "gives no lengths, a prompt counts as one of usual length."
    ),
    "- Of a prompt longer than the window, the middle is not read.",
    "- The interval is about expected quality over prompts of a kind, not about a single answer.",
    "- Train on your own labelled prompts where you can: relative strengths depend on the prompts.",
)
