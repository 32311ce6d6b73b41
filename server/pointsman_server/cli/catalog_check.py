"""`pointsman catalog check`: every fault of a configuration."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from pointsman_server.cli.catalog_show import read_config
from pointsman_server.cli.output import console


def run(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Says that the file is right, with what an operator should know; or lists its faults."""
    config = read_config(arguments.file, environment)
    screen = console()
    catalog = config.catalog
    screen.print(
        f"{arguments.file} is valid: {len(catalog.endpoints)} endpoints at {len(catalog.providers)} providers, "
        f"routers {', '.join(sorted(config.routers))}"
    )
    for notice in config.notices:
        screen.print(f"  note: {notice}", style="yellow")
    return 0
