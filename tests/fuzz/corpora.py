"""What fuzzing starts from: the corpus of the providers, and a folder of its own for each target."""

from __future__ import annotations

from pathlib import Path

from providers.corpus import samples

FOLDER = Path(__file__).parent / "corpus"

_OWN = ("anthropic", "gemini")
"""Providers with a format of their own; the others speak OpenAI's."""


def seeds(target: str) -> list[Path]:
    """The files that a target starts from. What once made it fail belongs among them."""
    answers = [
        sample.path
        for sample in samples()
        if target in {"sse", sample.provider if sample.provider in _OWN else "openai"}
    ]
    own = FOLDER / target
    return [*answers, *(sorted(own.iterdir()) if own.is_dir() else [])]
