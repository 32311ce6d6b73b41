"""Latencies that somebody measured or assumes, from a small table."""

from __future__ import annotations

from math import inf, isfinite
from pathlib import Path

from pointsman_server.quality.model import normalised
from pointsman_server.training.frontier_pool import MS_PER_S, AssumedLatency
from pointsman_server.training.tables import DatasetError, Faults, place, read_rows, shown

COLUMNS = ("endpoint", "ttft_ms", "inter_token_latency_ms")


def read_latencies(path: Path) -> dict[str, AssumedLatency]:
    """Latencies by the name of an endpoint, or by the normalised name of a model; of two lines for one the last counts.

    Raises:
        DatasetError: the file can't be read, lacks a column, or a value is not valid.
    """
    found: dict[str, AssumedLatency] = {}
    faults = Faults()
    for number, cells in read_rows(path):
        if missing := [column for column in COLUMNS if column not in cells]:
            raise DatasetError(f"{path}: column {missing[0]} is missing; required are {', '.join(COLUMNS)}")
        name = cells[COLUMNS[0]]
        ttft_ms, gap_ms = (_number(path, number, column, cells[column], faults) for column in COLUMNS[1:])
        if isinstance(name, str):
            found[name if "@" in name else normalised(name)] = AssumedLatency(ttft_ms / MS_PER_S, gap_ms / MS_PER_S)
        else:
            faults.add(f"{place(path.name, number, COLUMNS[0])}: {shown(name, COLUMNS[0])} is not a name")
    faults.raise_if_any()
    if not found:
        raise DatasetError(f"{path}: has no line below its first, which names the columns {', '.join(COLUMNS)}")
    return found


def _number(path: Path, number: int, column: str, cell: object, faults: Faults) -> float:
    try:
        value = float(cell) if isinstance(cell, str | int | float) else inf
    except ValueError:
        value = inf
    if not (isfinite(value) and value >= 0.0):
        faults.add(f"{place(path.name, number, column)}: {shown(cell, column)} is not a number from 0 up")
    return value
