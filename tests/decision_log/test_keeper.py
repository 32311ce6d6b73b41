"""The log is written beside the requests, bounded in every way, and what is on disk survives a crash."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from decision_log.samples import COMPLETION, REPORT, SAMPLE, logged
from pointsman_server.decision_log.codec import LineWriter
from pointsman_server.decision_log.keeper import WAITING_COUNT_MAX, DecisionLog, DropReason
from pointsman_server.decision_log.reader import DecisionLogReader
from pointsman_server.decision_log.records import DecisionLogError
from pointsman_server.decision_log.segments import Segments, segment_paths
from pointsman_server.decision_log.settings import DecisionLogSettings

NOW_UNIX_S = 1764133042.5


class Drops:
    """Counts what was dropped."""

    def __init__(self) -> None:
        self.counts: dict[DropReason, int] = {}

    def __call__(self, count: int, reason: DropReason) -> None:
        """So many for that reason."""
        self.counts[reason] = self.counts.get(reason, 0) + count

    def are(self, counts: dict[DropReason, int]) -> bool:
        """Whether that is all that was dropped."""
        return self.counts == counts


async def until(condition: Callable[[], bool]) -> None:
    """Waits for something that happens elsewhere."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.005)


@asynccontextmanager
async def opened(
    settings: DecisionLogSettings, drops: Callable[[int, DropReason], None] | None = None
) -> AsyncIterator[DecisionLog]:
    """A log that is written until the block ends."""
    log = DecisionLog(settings, unix_s=lambda: NOW_UNIX_S, on_drop=drops or Drops())
    running = asyncio.create_task(log.run())
    try:
        yield log
    finally:
        log.close()
        await running


async def test_what_was_added_is_on_disk_when_the_log_is_closed(tmp_path: Path) -> None:
    """Completions and reports of a decision are found by its id, whatever file they are in."""
    directory = tmp_path / "log"
    async with opened(DecisionLogSettings(directory=directory)) as log:
        log.add(COMPLETION)
        log.add(REPORT)
    with pytest.raises(DecisionLogError, match="there is no decision log here"):
        DecisionLogReader(tmp_path)
    _append(directory / "decisions-3.jsonl", LineWriter().lines(logged(SAMPLE)))
    (found,) = DecisionLogReader(directory).requests()
    assert (found.completion, found.reports) == (COMPLETION, (REPORT,))
    assert (found.quality, found.answered_by) == (0.75, "large@north")
    (first, _) = segment_paths(directory)
    assert (first.name[:31], first.stat().st_mode & 0o777) == ("decisions-20251126T045722.50000", 0o600)
    assert directory.stat().st_mode & 0o777 == 0o700


async def test_records_are_written_within_the_interval(tmp_path: Path) -> None:
    """Without being closed, and without another record, the log comes to have what was added."""
    async with opened(DecisionLogSettings(directory=tmp_path / "log", flush_interval_s=0.01)) as log:
        log.add(REPORT)
        await until(lambda: any(b'"report"' in path.read_bytes() for path in segment_paths(tmp_path / "log")))


async def test_what_does_not_fit_the_queue_is_dropped_and_counted(tmp_path: Path) -> None:
    """Beyond the bound nothing waits; what waited before is written."""
    drops = Drops()
    settings = DecisionLogSettings(directory=tmp_path / "log", flush_interval_s=60.0)
    async with opened(settings, drops) as log:
        for _ in range(WAITING_COUNT_MAX + 3):
            log.add(REPORT)
    assert drops.counts == {DropReason.QUEUE_FULL: 3}
    written = b"".join(path.read_bytes() for path in segment_paths(tmp_path / "log"))
    assert written.count(b'"report"') == WAITING_COUNT_MAX


async def test_a_disk_that_takes_nothing_is_a_counted_drop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Records are dropped and told of once; where the disk takes them again, the next ones are there, and whole."""
    drops, directory = Drops(), tmp_path / "log"
    settings = DecisionLogSettings(directory=directory, flush_interval_s=0.005)
    with caplog.at_level(logging.INFO, logger="pointsman"):
        async with opened(settings, drops) as log:
            directory.rename(tmp_path / "elsewhere")
            for count in (1, 2):
                log.add(REPORT)
                await until(partial(drops.are, {DropReason.WRITE_FAILED: count}))
            (tmp_path / "elsewhere").rename(directory)
            log.add(COMPLETION)
    (path,) = segment_paths(directory)
    assert [b'"completion"' in line for line in path.read_bytes().splitlines()] == [False, True]
    assert [record.getMessage() for record in caplog.records] == [
        f"decision log {directory} not written: FileNotFoundError",
        f"decision log {directory} is written again",
    ]


def test_lines_that_the_disk_cuts_short_leave_nothing_behind(tmp_path: Path) -> None:
    """Where a write fails half-way the file ends as it did before, so that the next line is whole."""
    import resource

    segments = Segments(tmp_path, file_bytes_max=10_000, total_bytes_max=100_000)
    segments.begin_file(now_unix_s=NOW_UNIX_S)
    segments.append([b"first"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            segments.append([b"x" * 100])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    segments.append([b"second"])
    segments.close()
    (path,) = segment_paths(tmp_path)
    assert path.read_bytes() == b"first\nsecond\n"


def test_a_file_that_nothing_was_written_to_is_not_left_behind(tmp_path: Path) -> None:
    """It is deleted when it is closed, so that a full disk does not fill with empty files."""
    segments = Segments(tmp_path, file_bytes_max=10, total_bytes_max=100)
    segments.begin_file(now_unix_s=NOW_UNIX_S)
    segments.close()
    assert list(tmp_path.iterdir()) == []


def test_files_are_bounded_one_by_one_and_together(tmp_path: Path) -> None:
    """A full file is followed by another; the oldest give way, so that all together never exceed their bound."""
    segments = Segments(tmp_path, file_bytes_max=30, total_bytes_max=90)
    for second in range(10):
        if segments.wants_new_file():
            segments.begin_file(now_unix_s=NOW_UNIX_S + second)
        segments.append([b"%014d" % second])
        assert sum(path.stat().st_size for path in segment_paths(tmp_path)) <= 90
    segments.close()
    assert [path.read_bytes().split()[0] for path in segment_paths(tmp_path)] == [b"%014d" % n for n in (4, 6, 8)]


async def test_many_records_at_once_go_to_files_of_their_size(tmp_path: Path) -> None:
    """A batch does not make one file of everything: each ends within sixteen records of its size, and is whole."""
    directory = tmp_path / "log"
    settings = DecisionLogSettings(
        directory=directory, file_bytes_max=20_000, total_bytes_max=1_000_000, flush_interval_s=60.0
    )
    async with opened(settings) as log:
        for _ in range(400):
            log.add(REPORT)
    sizes = [path.stat().st_size for path in segment_paths(directory)]
    assert len(sizes) >= 2
    assert max(sizes) < 20_000 + 16 * 200
    assert len(list(DecisionLogReader(directory)._records(None))) == 400


async def test_each_file_can_be_read_by_itself(tmp_path: Path) -> None:
    """Every file begins with its header and has what its decisions share."""
    writer, directory = LineWriter(), tmp_path / "log"
    directory.mkdir()
    for index in range(3):
        writer.begin_file()
        given = SAMPLE._replace(decision_id=f"d-{index}")
        _append(directory / f"decisions-{index}.jsonl", writer.lines(logged(given)))
    (directory / "decisions-0.jsonl").unlink()
    assert [found.decision.decision_id for found in DecisionLogReader(directory).requests()] == ["d-1", "d-2"]


def test_a_decision_is_found_by_its_id_alone(tmp_path: Path) -> None:
    """Its whole id, in whatever file, with what came of it; no part of an id, and no other text, finds one."""
    writer = LineWriter()
    for index in range(3):
        writer.begin_file()
        given = SAMPLE._replace(decision_id=f"d-{index}")
        _append(tmp_path / f"decisions-{index}.jsonl", writer.lines(logged(given)))
    _append(tmp_path / "decisions-2.jsonl", writer.lines(COMPLETION))
    reader = DecisionLogReader(tmp_path)
    found = reader.find("d-1")
    assert found is not None
    assert (found.decision.decision_id, found.completion) == ("d-1", COMPLETION)
    assert [reader.find(text) for text in ("d-", "d-10", "", 'd-1"', "large@north")] == [None] * 5


def test_a_half_written_line_is_skipped_and_counted(tmp_path: Path) -> None:
    """What comes before and in other files is read; the places of what was skipped are told."""
    lines = LineWriter().lines(logged(SAMPLE))
    _append(tmp_path / "decisions-1.jsonl", lines)
    with (tmp_path / "decisions-1.jsonl").open("ab") as file:
        file.write(lines[-1][:300])
    _append(tmp_path / "decisions-2.jsonl", lines)
    reader = DecisionLogReader(tmp_path)
    assert len(list(reader.requests())) == 2
    assert (reader.damage.line_count, reader.damage.places) == (1, [f"{tmp_path}/decisions-1.jsonl:4"])


_WRITES_FOR_EVER = """
import asyncio, sys
from pathlib import Path
from decision_log.samples import REPORT
from pointsman_server.decision_log.keeper import DecisionLog
from pointsman_server.decision_log.settings import DecisionLogSettings

async def main():
    settings = DecisionLogSettings(directory=Path(sys.argv[1]), flush_interval_s=0.01)
    log = DecisionLog(settings, unix_s=lambda: 0.0, on_drop=print)
    running = asyncio.create_task(log.run())
    while True:
        log.add(REPORT)
        await asyncio.sleep(0.001)

asyncio.run(main())
"""


async def test_what_a_killed_server_has_flushed_is_there(tmp_path: Path) -> None:
    """After kill -9 every line but perhaps the last is a whole record."""
    directory = tmp_path / "log"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITES_FOR_EVER, str(directory), env=environment
    )
    try:
        await until(lambda: sum(path.stat().st_size for path in segment_paths(directory)) > 10_000)
    finally:
        process.kill()
        await process.wait()
    reader = DecisionLogReader(directory)
    assert list(reader.requests()) == []
    assert reader.damage.line_count <= 1
    assert len(list(reader._records(None))) > 10


def _append(path: Path, lines: list[bytes]) -> None:
    with path.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))
