"""What a star plot reads from small files: list prices, and latencies that somebody measured or assumes."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from pathlib import Path

from pointsman_server.quality.model import normalised
from pointsman_server.training.frontier_pool import MS_PER_S, AssumedLatency, TokenPrices
from pointsman_server.training.tables import DatasetError, Faults, place, read_rows, shown

PRICE_COLUMNS = ("model", "usd_per_1m_input", "usd_per_1m_output")
LATENCY_COLUMNS = ("endpoint", "ttft_ms", "inter_token_latency_ms")


def read_prices(path: Path) -> dict[str, TokenPrices]:
    """List prices by normalised name of the model; of two lines for a model the last counts.

    Raises:
        DatasetError: the file can't be read, lacks a column, or a value is not valid.
    """
    return {normalised(name): TokenPrices(*values) for name, values in _rows(path, PRICE_COLUMNS).items()}


def read_latencies(path: Path) -> dict[str, AssumedLatency]:
    """Latencies by the name of an endpoint, or by the normalised name of a model; of two lines the last counts.

    Raises:
        DatasetError: the file can't be read, lacks a column, or a value is not valid.
    """
    return {
        name if "@" in name else normalised(name): AssumedLatency(ttft_ms / MS_PER_S, gap_ms / MS_PER_S)
        for name, (ttft_ms, gap_ms) in _rows(path, LATENCY_COLUMNS).items()
    }


def _rows(path: Path, columns: tuple[str, str, str]) -> Mapping[str, tuple[float, float]]:
    """A name and two numbers a line."""
    found: dict[str, tuple[float, float]] = {}
    faults = Faults()
    for number, cells in read_rows(path):
        if missing := [column for column in columns if column not in cells]:
            raise DatasetError(f"{path}: column {missing[0]} is missing; required are {', '.join(columns)}")
        name = cells[columns[0]]
        first, second = (_number(path, number, column, cells[column], faults) for column in columns[1:])
        if isinstance(name, str):
            found[name] = (first, second)
        else:
            faults.add(f"{place(path.name, number, columns[0])}: {shown(name, columns[0])} is not a name")
    faults.raise_if_any()
    if not found:
        raise DatasetError(f"{path}: has no line below its first, which names the columns {', '.join(columns)}")
    return found


def _number(path: Path, number: int, column: str, cell: object, faults: Faults) -> float:
    try:
        value = float(cell) if isinstance(cell, str | int | float) else inf
    except ValueError:
        value = inf
    if not (isfinite(value) and value >= 0.0):
        faults.add(f"{place(path.name, number, column)}: {shown(cell, column)} is not a number from 0 up")
    return value
