"""`pointsman frontier`: the star plot, of endpoints and of the routers that a user could choose."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pointsman_server.cli.exit import EXIT_USAGE, CommandError
from pointsman_server.cli.frontier_catalog import ListedCatalog, configured, served
from pointsman_server.cli.output import console
from pointsman_server.cli.tables import Row, fitting_table
from pointsman_server.decision.resolve import DEFAULT_ROUTER_NAME
from pointsman_server.decision.router_string import RouterStringError
from pointsman_server.errors import ArtifactError, InvalidRequestError
from pointsman_server.quality.artifact import builtin_artifact_path, load
from pointsman_server.training.costs import read_prices
from pointsman_server.training.dataset import DatasetError, load_dataset
from pointsman_server.training.frontier import Frontier, Plan, compute
from pointsman_server.training.frontier_fields import frontier_fields
from pointsman_server.training.frontier_latencies import read_latencies
from pointsman_server.training.frontier_page import page_html
from pointsman_server.training.frontier_picture import picture_png, picture_svg
from pointsman_server.training.frontier_pool import Axis, FrontierError, Pool, build_pool, choose_source, summary_of
from pointsman_server.training.frontier_words import (
    AXIS_WORDS,
    endpoint_labels,
    is_beyond_doubt,
    percent,
    points,
    quality_range,
    x_text,
)
from pointsman_server.training.resampling import Measured

BUILTIN = "builtin"
"""In place of a folder: the artifact that ships with the package, as in the configuration."""
ALL_ENDPOINTS = "default"
"""What --pool says for everything that can be drawn."""

DRAWERS: Mapping[str, Callable[[Frontier], bytes]] = {
    ".html": lambda frontier: page_html(frontier).encode("utf-8"),
    ".svg": lambda frontier: picture_svg(frontier).encode("utf-8"),
    ".png": picture_png,
}
"""How each kind of file is drawn."""


def run(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Draws the plot, and prints the routers in it as a table."""
    draw = DRAWERS.get(arguments.out.suffix.lower())
    if draw is None:
        raise CommandError(f"{arguments.out}: its name must end in {', '.join(DRAWERS)}", exit_code=EXIT_USAGE)
    catalog = _catalog(arguments, environment)
    try:
        frontier = _computed(arguments, catalog)
    except (ArtifactError, DatasetError, FrontierError) as failed:
        raise CommandError(str(failed)) from failed
    except (RouterStringError, InvalidRequestError) as failed:
        raise CommandError(f"--router: {failed}", exit_code=EXIT_USAGE) from failed
    _write(arguments.out, draw(frontier))
    if arguments.json is not None:
        text = json.dumps(frontier_fields(frontier), indent=2, ensure_ascii=False, allow_nan=False)
        _write(arguments.json, f"{text}\n".encode())
    _show(frontier)
    console(stderr=True).print(f"drawn: {arguments.out}", style="dim")
    return 0


def _catalog(arguments: Namespace, environment: Mapping[str, str]) -> ListedCatalog | None:
    """The endpoints that the user named; None takes those of the data."""
    if arguments.config is not None:
        return configured(arguments, environment)
    return None if arguments.server is None else served(arguments, environment)


def _computed(arguments: Namespace, catalog: ListedCatalog | None) -> Frontier:
    shipped = str(arguments.artifact) == BUILTIN and not arguments.artifact.exists()
    model = load(builtin_artifact_path() if shipped else arguments.artifact)
    data = load_dataset(arguments.data)
    axis, source = Axis(arguments.x), choose_source(data, arguments.source)
    names = () if arguments.pool == ALL_ENDPOINTS else arguments.pool.split(",")
    pool = build_pool(
        data,
        source,
        model,
        listed=None if catalog is None else catalog.listed,
        prices={} if arguments.prices is None else read_prices(arguments.prices),
        latencies={} if arguments.latency is None else read_latencies(arguments.latency),
        chosen=frozenset(names),
        axis=axis,
    )
    _tell_left_out(pool, catalog)
    routers = {} if catalog is None else catalog.routers
    plan = Plan(
        axis=axis,
        source=source,
        split=arguments.split,
        given=(*(arguments.router or ()), *(name for name in routers if name != DEFAULT_ROUTER_NAME)),
        routers=routers,
        prompt_count_max=arguments.prompts,
        seed=arguments.seed,
    )
    screen = console(stderr=True)
    columns = (TextColumn("deciding"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        return compute(data, pool, model, plan, lambda share: bar.update(task, completed=share))


def _tell_left_out(pool: Pool, catalog: ListedCatalog | None) -> None:
    screen = console(stderr=True)
    for notice in catalog.notices if catalog is not None else ():
        screen.print(f"note: {notice}", style="yellow")
    for line in summary_of(pool.left_out):
        screen.print(f"left out, {line}", style="dim")


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as failed:
        raise CommandError(f"can't write {path}: {failed.strerror}", exit_code=EXIT_USAGE) from failed


def _show(frontier: Frontier) -> None:
    """The best single endpoint and the oracle, and every router in the plot."""
    screen = console()
    axis = frontier.axis
    best = frontier.endpoints[frontier.best_single]
    for words, at in (
        (f"best single endpoint, {endpoint_labels(frontier)[frontier.best_single]}", best.at),
        ("oracle", frontier.oracle),
        ("any endpoint by chance", frontier.random),
    ):
        screen.print(f"{words}: {quality_range(at.quality)} at {x_text(axis, at.x.value)}")
    screen.print()
    short = AXIS_WORDS[axis].short
    columns = (
        "",
        "router",
        "quality, %",
        short,
        "of best single's",
        "over best single, points",
        "over random mix, points",
    )
    rows: list[Row] = [
        (
            (
                router.letter,
                router.text,
                quality_range(router.at.quality),
                x_text(axis, router.at.x.value),
                percent(router.x_share_of_best_single.value),
                _gain(router.gain_over_best_single),
                _gain(router.gain_over_mix),
            ),
            "bold" if router.letter else "",
        )
        for router in frontier.routers
    ]
    screen.print(fitting_table(screen, columns, rows))
    screen.print("* beyond its interval of 95 %; lettered routers were chosen on other prompts than these", style="dim")


def _gain(gain: Measured) -> str:
    return points(gain) + (" *" if is_beyond_doubt(gain) else "  ")
