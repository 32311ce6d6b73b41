"""`pointsman route --file`: every line of a JSONL file, a few at a time, answered in its order."""

from __future__ import annotations

import asyncio
import json
import sys
from argparse import Namespace
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO, Unpack

import grpc
from pointsman import (
    AsyncClient,
    CallStatus,
    Decision,
    InvalidRequestError,
    Message,
    PointsmanError,
    Prompt,
    UnavailableError,
    assistant,
    system,
    user,
)
from pointsman.options import RouteOptions
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pointsman_server.cli.connection import ClientArguments, failures_shown, route_options
from pointsman_server.cli.exit import EXIT_FAILURE, EXIT_USAGE, CommandError
from pointsman_server.cli.output import console, error_fields, message_fields, print_json
from pointsman_server.cli.prompt import STANDARD_INPUT

CONCURRENCY = 8
"""Lines under way at one time: they hide each other's waiting without crowding out other callers of the server."""

_TURNS: Mapping[str, Callable[[str], Message]] = {"system": system, "user": user, "assistant": assistant}
"""The roles that a line's messages can have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the file."""

    number: int
    """From 1."""
    prompt: Prompt | None = field(default=None, repr=False)
    """What to route. None: the line can't be routed."""
    fault: str = ""
    """Why not."""
    id: str | int | None = None
    """The caller's own name for it. None: it has none."""


async def route_file(arguments: Namespace, connection: ClientArguments) -> int:
    """Prints a JSON line for each line of the file; progress, and what could not be routed, on standard error."""
    failure_count = routed_count = 0
    with failures_shown(arguments), _opened(arguments.file) as (file, line_count), _progress(line_count) as progress:
        task = progress.add_task("routing", total=line_count)
        async with AsyncClient(**connection) as client:
            results = routed(client, read_lines(file), **route_options(arguments))
            async for line, result in results:
                named = {"line": line.number} | ({} if line.id is None else {"id": line.id})
                if isinstance(result, PointsmanError):
                    if isinstance(result, UnavailableError) and not result.reason and not routed_count:
                        raise result  # there is no server; the same for every line would be noise
                    failure_count += 1
                    progress.console.print(f"line {line.number}: {result.message}")
                    print_json({**named, "error": error_fields(result)})
                else:
                    routed_count += 1
                    print_json({**named, "decision": message_fields(result)})
                progress.advance(task)
    console(stderr=True).print(f"{routed_count} routed, {failure_count} failed", style="dim")
    return EXIT_FAILURE if failure_count else 0


def read_lines(file: Iterable[str]) -> Iterator[Line]:
    """The lines of a file but for blank ones, read as they are needed."""
    for number, text in enumerate(file, start=1):
        if text.strip():
            yield _read_line(number, text)


def _read_line(number: int, text: str) -> Line:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return Line(number=number, fault="is not JSON")
    if not isinstance(content, dict):
        return Line(number=number, fault="is not an object")
    name = content.get("id")
    if not isinstance(name, str | int | None):
        return Line(number=number, fault="id is neither a text nor a whole number")
    if ("prompt" in content) == ("messages" in content):
        return Line(number=number, id=name, fault="has to have either prompt or messages")
    prompt = content["prompt"] if "prompt" in content else _messages(content["messages"])
    if isinstance(prompt, str | list) and prompt:
        return Line(number=number, id=name, prompt=prompt)
    return Line(number=number, id=name, fault="has no text in prompt, or messages that are not {role, content} of text")


def _messages(entries: object) -> list[Message] | None:
    """The turns. None: one of them is not a text of a known role."""
    if not isinstance(entries, list):
        return None
    turns = []
    for entry in entries:
        turn = _TURNS.get(str(entry.get("role"))) if isinstance(entry, dict) else None
        if turn is None or not isinstance(entry.get("content"), str):
            return None
        turns.append(turn(entry["content"]))
    return turns


async def routed(
    client: AsyncClient, lines: Iterable[Line], **options: Unpack[RouteOptions]
) -> AsyncIterator[tuple[Line, Decision | PointsmanError]]:
    """The lines with what came of them, in their order; at most `CONCURRENCY` are under way."""
    pending: deque[tuple[Line, asyncio.Task[Decision | PointsmanError]]] = deque()
    try:
        for line in lines:
            pending.append((line, asyncio.create_task(_route(client, line, options))))
            if len(pending) == CONCURRENCY:
                oldest, task = pending.popleft()
                yield oldest, await task
        while pending:
            oldest, task = pending.popleft()
            yield oldest, await task
    finally:
        for _, task in pending:
            task.cancel()


async def _route(client: AsyncClient, line: Line, options: RouteOptions) -> Decision | PointsmanError:
    if line.prompt is None:
        return InvalidRequestError(CallStatus(grpc.StatusCode.INVALID_ARGUMENT, line.fault))
    try:
        return await client.route(line.prompt, **options)
    except PointsmanError as failed:
        return failed


@contextmanager
def _opened(name: str) -> Iterator[tuple[TextIO, int | None]]:
    """The file, and how many lines of it will be answered; None where that can't be known beforehand.

    Raises:
        CommandError: it can't be read as UTF-8.
    """
    try:
        if name == STANDARD_INPUT:
            yield sys.stdin, None
            return
        with Path(name).open(encoding="utf-8") as file:
            line_count = sum(1 for text in file if text.strip())
            file.seek(0)
            yield file, line_count
    except OSError as failed:
        raise CommandError(f"can't read {name}: {failed.strerror}", exit_code=EXIT_USAGE) from failed
    except UnicodeDecodeError as failed:
        raise CommandError(f"{name} is not UTF-8", exit_code=EXIT_USAGE) from failed


def _progress(line_count: int | None) -> Progress:
    """A bar on standard error, where a person looks."""
    screen = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = columns if line_count is not None else columns[:1]
    # Where both streams are one terminal, the lines are printed above the bar; elsewhere they are left alone.
    redirect = sys.stdout.isatty()
    return Progress(*shown, console=screen, disable=not screen.is_terminal, transient=True, redirect_stdout=redirect)
