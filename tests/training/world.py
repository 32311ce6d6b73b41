"""A small world in which the truth is known: who is good at what, how long answers are, what they cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

TOPICS = {
    "mathematics": [
        "equation",
        "integral",
        "triangle",
        "polynomial",
        "theorem",
        "angle",
        "fraction",
        "matrix",
        "derivative",
        "sum",
    ],
    "history": ["king", "revolution", "empire", "treaty", "century", "war", "queen", "parliament", "dynasty", "colony"],
}
TRUTH = {
    "mathematician": {"mathematics": 0.9, "history": 0.2},
    "historian": {"mathematics": 0.2, "history": 0.9},
    "average": {"mathematics": 0.5, "history": 0.5},
}
"""Probability of a good answer by model and topic."""
LENGTHS = {"mathematician": 400, "historian": 100, "average": 200}
PROMPT_COUNT = 600


def write_world(directory: Path) -> None:
    """Prompts on two topics, answered by three models of known ability, as a data directory."""
    rng = np.random.default_rng(7)
    topics = [str(topic) for topic in rng.choice(sorted(TOPICS), size=PROMPT_COUNT)]
    prompts = [f"{index}: " + " ".join(rng.choice(TOPICS[topic], size=8)) for index, topic in enumerate(topics)]
    ids = [f"p{index}" for index in range(PROMPT_COUNT)]
    outcomes = [
        (prompt_id, model, float(rng.random() < truth[topic]), LENGTHS[model])
        for prompt_id, topic in zip(ids, topics, strict=True)
        for model, truth in TRUTH.items()
    ]
    pa.parquet.write_table(
        pa.table({"prompt_id": ids, "prompt": prompts, "category": topics}), directory / "prompts.parquet"
    )
    columns = ("prompt_id", "model", "quality", "output_tokens")
    pa.parquet.write_table(
        pa.table({name: [outcome[index] for outcome in outcomes] for index, name in enumerate(columns)}),
        directory / "outcomes.parquet",
    )
