"""Tables as Parquet. Apart from the rest because pyarrow comes with the `[train]` extra alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from pointsman_server.labelling.outcomes import OutcomeRow, PromptRow

_TEXTS = frozenset({"prompt_id", "prompt", "category", "split", "model"})
"""Columns of text; the others hold numbers."""


def write_parquet(path: Path, rows: Sequence[PromptRow | OutcomeRow], columns: tuple[str, ...]) -> None:
    """Writes these columns of the rows; the types are the same whatever is null in them."""
    arrays = {
        name: pa.array([getattr(row, name) for row in rows], pa.string() if name in _TEXTS else pa.float64())
        for name in columns
    }
    pa.parquet.write_table(pa.table(arrays), path)
