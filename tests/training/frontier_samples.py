"""Labelled prompts in which the truth is known: easy ones that every model answers, and hard ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

KINDS = {
    "easy": ["What is the capital of", "Name the largest city in", "Which river flows through", "Who rules"],
    "hard": ["Prove the inequality for all reals in", "Evaluate the integral over", "Count the lattice paths in"],
}
PLACES = ("France", "Peru", "Japan", "Kenya", "Norway", "Chile", "Egypt", "Nepal", "Cuba", "Ghana")
GOOD = {
    "gpt-4o": {"easy": 0.95, "hard": 0.8},
    "gpt-4o-mini": {"easy": 0.93, "hard": 0.5},
    "llama-3.1-8b-instruct": {"easy": 0.75, "hard": 0.1},
}
"""Probability of a good answer by model and kind. The shipped artifact knows these models."""
PROMPT_COUNT = 480


def prompt_columns(count: int = PROMPT_COUNT) -> dict[str, list[object]]:
    """Prompts of both kinds, two fifths of them in the val split and the rest in test."""
    rng = np.random.default_rng(5)
    kinds = [str(kind) for kind in rng.choice(sorted(KINDS), size=count)]
    texts = [f"{rng.choice(KINDS[kind])} {rng.choice(PLACES)}, case {row}?" for row, kind in enumerate(kinds)]
    return {
        "prompt_id": [f"p{row}" for row in range(count)],
        "prompt": list(texts),
        "category": list(kinds),
        "split": ["val" if row % 5 < 2 else "test" for row in range(count)],
    }


def outcome_columns(prompts: dict[str, list[object]]) -> dict[str, list[object]]:
    """What each model made of the prompts: good or bad, and at what length."""
    rng = np.random.default_rng(6)
    rows = [
        (prompt_id, model, float(rng.random() < good[str(kind)]), int(rng.integers(50, 600)))
        for prompt_id, kind in zip(prompts["prompt_id"], prompts["category"], strict=True)
        for model, good in GOOD.items()
    ]
    names = ("prompt_id", "model", "quality", "output_tokens")
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}


def write_questions(directory: Path, *, count: int = PROMPT_COUNT, **outcomes: list[object]) -> Path:
    """Writes the prompts and outcomes as a data directory; `outcomes` are further columns of the outcomes."""
    directory.mkdir(parents=True, exist_ok=True)
    prompts = prompt_columns(count)
    pa.parquet.write_table(pa.table(prompts), directory / "prompts.parquet")
    pa.parquet.write_table(pa.table({**outcome_columns(prompts), **outcomes}), directory / "outcomes.parquet")
    return directory
