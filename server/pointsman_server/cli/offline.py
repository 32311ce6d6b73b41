"""What the commands share that work on files and talk to no server."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pointsman_server.cli.exit import EXIT_USAGE, CommandError
from pointsman_server.cli.output import console
from pointsman_server.errors import PointsmanError
from pointsman_server.quality.artifact import builtin_artifact_path, load
from pointsman_server.quality.model import QualityModel
from pointsman_server.training.names import UnknownModelError

BUILTIN = "builtin"
"""In place of a folder: the artifact that ships with the package, as in the configuration."""


def artifact_folder(named: Path) -> Path:
    """The folder that is meant: the one that ships, if there is none of that name."""
    return builtin_artifact_path() if str(named) == BUILTIN and not named.exists() else named


def loaded(artifact: Path) -> QualityModel:
    """The artifact in a folder, or the one that ships.

    Raises:
        ArtifactError: there is none, or it is damaged.
    """
    return load(artifact_folder(artifact))


@contextmanager
def faults_told() -> Iterator[None]:
    """Turns what is wrong with data, artifacts and files into words.

    Raises:
        CommandError: something is; a name that is not known counts as a wrong argument, and so does a file that can't be
            read or written.
    """
    try:
        yield
    except UnknownModelError as failed:
        raise CommandError(str(failed), exit_code=EXIT_USAGE) from failed
    except PointsmanError as failed:
        raise CommandError(str(failed)) from failed
    except OSError as failed:
        raise CommandError(f"{failed.filename}: {failed.strerror}", exit_code=EXIT_USAGE) from failed


def counting_bar() -> Progress:
    """A bar that counts, on standard error, where a person looks; gone when it is done."""
    screen = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=screen, disable=not screen.is_terminal, transient=True)


@contextmanager
def spinning(description: str) -> Iterator[Callable[[], None]]:
    """Counts what is done, on standard error, where a person looks, for a work whose size is not known before."""
    screen = console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:,.0f}"))
    with Progress(*columns, console=screen, disable=not screen.is_terminal, transient=True) as bar:
        task = bar.add_task(description, total=None)
        yield lambda: bar.advance(task)


def step_bars() -> Progress:
    """A bar for each step of a long work, likewise."""
    screen = console(stderr=True)
    columns = (TextColumn("{task.description:10}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=screen, disable=not screen.is_terminal, transient=True)


@contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """A name beside `target` for a file that takes its place when all is written, and is gone if it never is.

    Raises:
        CommandError: nothing can be written there.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
    except OSError as failed:
        raise CommandError(f"can't write {target}: {failed.strerror}", exit_code=EXIT_USAGE) from failed
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """A folder beside `target`, for what is to take its place; gone at the end, whatever comes of it.

    Raises:
        CommandError: nothing can be written there.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as failed:
        raise CommandError(f"can't write {target}: {failed.strerror}", exit_code=EXIT_USAGE) from failed
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _umask() -> int:
    """What new files are not to be allowed; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
