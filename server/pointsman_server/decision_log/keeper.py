"""The log as the router sees it: told of what happens, at the cost of handing it over; a task writes it down.

What waits to be written is bounded. Beyond the bound, and where the disk takes nothing, records are dropped and counted:
a request never waits for the log, and never fails by it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

from pointsman_server.decision.resolve import NamedRouter
from pointsman_server.decision.router_string import RouterAlternative, RouterString
from pointsman_server.decision.types import Decision, DecisionInput
from pointsman_server.decision_log.codec import LineWriter, header_line
from pointsman_server.decision_log.records import (
    LoggedCompletion,
    LoggedDecision,
    LoggedReport,
    PromptTraits,
    Record,
    Setting,
)
from pointsman_server.decision_log.segments import Segments
from pointsman_server.decision_log.settings import DecisionLogSettings
from pointsman_server.quality.features import SURFACE_NAMES, Window, surface
from pointsman_server.world import World

logger = logging.getLogger("pointsman")

WAITING_COUNT_MAX = 4096
"""Records that wait to be written: some seconds of a busy server, and about 50 kB each with all that they hold on to."""
WAKE_COUNT = 256
"""So many that wait are written at once, however long ago the last time was."""
PIECE_COUNT = 16
"""Records that are appended together. A file grows beyond its size by no more."""
BREATH_COUNT = 4
"""Records after which requests get their turn: within about 2 ms. More often would give the machine away too often
where it is busy with other things."""
PROMPT_CHARACTERS_MAX = 32_768
"""Of a prompt that is kept: ten times what the quality model reads of it."""
_WINDOW = Window()


class DropReason(StrEnum):
    """Why a record was not written."""

    QUEUE_FULL = "queue_full"
    """More is decided than can be written."""
    WRITE_FAILED = "write_failed"
    """The disk is full, or may not be written to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A decision as the router hands it over; the rest is worked out when it is written."""

    time_unix_s: float
    given: DecisionInput
    decision: Decision
    asked: RouterString
    overlay: RouterAlternative
    served: bool
    caller_seeded: bool
    world: World
    text: str = field(repr=False)
    character_count: int


class DecisionLog:
    """Takes records on the event loop's thread. `run` writes them down until it is `closed`."""

    def __init__(
        self,
        settings: DecisionLogSettings,
        *,
        unix_s: Callable[[], float],
        on_drop: Callable[[int, DropReason], None],
    ) -> None:
        """Makes the directory where it is missing.

        Raises:
            OSError: it can't be made or written to.
        """
        self._settings = settings
        self._unix_s = unix_s
        self._on_drop = on_drop
        self._segments = Segments(
            settings.directory, file_bytes_max=settings.file_bytes_max, total_bytes_max=settings.total_bytes_max
        )
        self._header = header_line(SURFACE_NAMES)
        self._writer = LineWriter()
        self._setting: tuple[World, Setting] | None = None
        self._waiting: list[_Entry | Record] = []
        self._wake = asyncio.Event()
        self._is_closed = False
        self._is_failing = False

    def decided(
        self,
        given: DecisionInput,
        decision: Decision,
        *,
        asked: RouterString,
        overlay: RouterAlternative,
        served: bool,
        caller_seeded: bool,
        world: World,
        text: str,
    ) -> None:
        """A decision was made on a prompt with this text."""
        kept = PROMPT_CHARACTERS_MAX if self._settings.keep_prompts else 0
        self._add(
            _Entry(
                time_unix_s=self._unix_s(),
                given=given,
                decision=decision,
                asked=asked,
                overlay=overlay,
                served=served,
                caller_seeded=caller_seeded,
                world=world,
                text=text if len(text) <= kept else _both_ends(text, kept),
                character_count=len(text),
            )
        )

    def add(self, record: LoggedCompletion | LoggedReport) -> None:
        """Something has come of a decision."""
        self._add(record)

    def now_unix_s(self) -> float:
        """The time that records of this moment tell."""
        return self._unix_s()

    def close(self) -> None:
        """No record comes any more; `run` writes what waits, and ends."""
        self._is_closed = True
        self._wake.set()

    async def run(self) -> None:
        """Writes until it is closed, at least every so often."""
        try:
            while not self._is_closed:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._settings.flush_interval_s)
                self._wake.clear()
                await self._flush()
            await self._flush()
        finally:
            self._segments.close()

    def _add(self, entry: _Entry | Record) -> None:
        waiting = self._waiting
        if len(waiting) >= WAITING_COUNT_MAX:
            self._on_drop(1, DropReason.QUEUE_FULL)
            return
        waiting.append(entry)
        if len(waiting) == WAKE_COUNT:
            self._wake.set()

    async def _flush(self) -> None:
        """Writes what waits, in a thread of its own."""
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        lost_count, error = await asyncio.to_thread(self._write, batch)
        if lost_count:
            self._on_drop(lost_count, DropReason.WRITE_FAILED)
        if error and not self._is_failing:
            logger.warning("decision log %s not written: %s", self._settings.directory, error)
        elif self._is_failing and not error:
            logger.info("decision log %s is written again", self._settings.directory)
        self._is_failing = bool(error)

    def _write(self, batch: list[_Entry | Record]) -> tuple[int, str]:
        """How many of the batch could not be written, and the kind of error; empty when all were."""
        for first in range(0, len(batch), PIECE_COUNT):
            try:
                self._write_piece(batch[first : first + PIECE_COUNT])
            except OSError as error:
                # What these lines would have brought to the file is not there: a new one will have it.
                self._segments.close()
                return len(batch) - first, type(error).__name__
        return 0, ""

    def _write_piece(self, piece: list[_Entry | Record]) -> None:
        lines: list[bytes] = []
        if self._segments.wants_new_file():
            self._segments.begin_file(now_unix_s=self._unix_s())
            self._writer.begin_file()
            lines.append(self._header)
        for number, entry in enumerate(piece, start=1):
            lines += self._writer.lines(self._described(entry) if isinstance(entry, _Entry) else entry)
            if number % BREATH_COUNT == 0:
                # Lets requests go on: Python would only change threads after 5 ms by itself.
                time.sleep(0)
        self._segments.append(lines)

    def _described(self, entry: _Entry) -> LoggedDecision:
        return LoggedDecision(
            time_unix_s=entry.time_unix_s,
            given=entry.given,
            decision=entry.decision,
            asked=entry.asked,
            overlay=entry.overlay,
            served=entry.served,
            caller_seeded=entry.caller_seeded,
            setting=self._setting_of(entry.world),
            prompt=PromptTraits(
                entry.character_count,
                tuple(surface(_WINDOW.of(entry.text), character_count=entry.character_count).tolist()),
                entry.text if self._settings.keep_prompts else None,
            ),
        )

    def _setting_of(self, world: World) -> Setting:
        """What was configured, as one object until a reload."""
        if self._setting is None or self._setting[0] is not world:
            routers: dict[str, NamedRouter] = dict(world.named_routers)
            artifacts = {name: served.quality_artifact for name, served in world.routers.items()}
            setting = Setting(world.catalog.endpoints, dict(world.quality_names), routers, artifacts)
            self._setting = (world, setting)
        return self._setting[1]


def _both_ends(text: str, kept: int) -> str:
    """What of a text is held on to: what the features read of it, or more where more is to be kept."""
    head, tail = max(_WINDOW.head_characters, kept // 2), max(_WINDOW.tail_characters, kept // 2)
    return text if len(text) <= head + tail else f"{text[:head]}\n{text[len(text) - tail :]}"
