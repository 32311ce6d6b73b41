"""`pointsman catalog show`: the endpoints that a server would have."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from pointsman.explanation import UNKNOWN

from pointsman_server.catalog.catalog import CatalogEntry
from pointsman_server.cli.exit import CommandError
from pointsman_server.cli.output import console
from pointsman_server.cli.tables import fitting_table
from pointsman_server.config import Config, load_config
from pointsman_server.errors import ConfigError

_COLUMNS = ("endpoint", "$/M in", "$/M out", "context", "can", "labels", "provider's name")


def run(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Shows each endpoint with its prices and what it can do."""
    config = read_config(arguments.config, environment)
    screen = console()
    rows = [(_cells(entry), "") for entry in config.catalog.entries]
    screen.print(fitting_table(screen, _COLUMNS, rows))
    for notice in config.notices:
        console(stderr=True).print(f"note: {notice}", style="yellow")
    return 0


def read_config(path: Path | None, environment: Mapping[str, str]) -> Config:
    """The configuration of a file, or the one that holds without a file.

    Raises:
        CommandError: it has faults; all are listed.
    """
    try:
        return load_config(path, environment)
    except ConfigError as failed:
        raise CommandError(str(failed)) from failed


def _cells(entry: CatalogEntry) -> tuple[str, ...]:
    endpoint = entry.endpoint
    return (
        endpoint.name,
        _number(endpoint.input_price_usd_per_mtok),
        _number(endpoint.output_price_usd_per_mtok),
        _number(endpoint.context_token_count_max),
        ", ".join(sorted(endpoint.capabilities)),
        ", ".join(f"{key}={value}" for key, value in sorted(endpoint.labels)),
        entry.upstream_model,
    )


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.10g}"
