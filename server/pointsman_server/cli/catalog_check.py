"""`pointsman catalog check`: every fault of a configuration."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from pointsman_server.cli.catalog_show import read_config
from pointsman_server.cli.exit import CommandError
from pointsman_server.cli.output import console
from pointsman_server.config import Config
from pointsman_server.errors import ArtifactError, ConfigError


def run(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Says that the file is right, with what an operator should know; or lists its faults."""
    config = read_config(arguments.file, environment)
    if any(entry.benchmark_scores for entry in config.catalog.entries):
        _check_benchmarks(config)
    screen = console()
    catalog = config.catalog
    screen.print(
        f"{arguments.file} is valid: {len(catalog.endpoints)} endpoints at {len(catalog.providers)} providers, "
        f"routers {', '.join(sorted(config.routers))}"
    )
    for notice in config.notices:
        screen.print(f"  note: {notice}", style="yellow")
    return 0


def _check_benchmarks(config: Config) -> None:
    """Sees whether the artifacts in service know the benchmarks of the published scores.

    Raises:
        CommandError: they do not, or an artifact can't be read.
    """
    # What reads artifacts loads XGBoost, which nobody should wait for who has no scores to check.
    from pointsman_server.published import check_benchmarks  # noqa: PLC0415
    from pointsman_server.quality.artifact import builtin_artifact_path, read_benchmarks  # noqa: PLC0415

    paths = {settings.artifact or config.quality_artifact for settings in config.routers.values()}
    try:
        known = {name for path in paths for name in read_benchmarks(path or builtin_artifact_path())}
        check_benchmarks(config.catalog, known)
    except (ArtifactError, ConfigError) as failed:
        raise CommandError(str(failed)) from failed
