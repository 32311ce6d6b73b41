"""What is configured of the decision log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionLogSettings:
    """Where decisions are logged, and how much of it is kept."""

    directory: Path
    """Made where it is missing, in a folder that exists. It belongs to one server."""
    file_bytes_max: int = 64 * 1024 * 1024
    """A file that has reached this is followed by the next."""
    total_bytes_max: int = 1024 * 1024 * 1024
    """Of all files together; the oldest are deleted for new ones."""
    flush_interval_s: float = 1.0
    """The longest time that a record waits to be written: what a killed server loses at most."""
    keep_prompts: bool = False
    """Whether the text of prompts is written too. Training from the log needs it."""
