"""The journal on disk: appended to by one process at a time, each line safe before the next step depends on it."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pointsman_server.labelling.errors import JournalError
from pointsman_server.labelling.records import HEADER, Ledger, Record, to_line

JOURNAL_FILE = "journal.jsonl"


class Journal:
    """An open journal, locked against every other process. Holds its content as a `Ledger`."""

    def __init__(self, descriptor: int, ledger: Ledger) -> None:
        self.ledger = ledger
        self._descriptor = descriptor

    async def append(self, record: Record) -> None:
        """Adds a call that has ended. The line is written before anything else happens, so that it outlives this process
        however that ends; the method returns once it is on disk, so that it outlives the machine too.
        """
        _write(self._descriptor, to_line(record))
        self.ledger.add(record)
        await asyncio.to_thread(os.fsync, self._descriptor)


@contextmanager
def opened_journal(directory: Path) -> Iterator[Journal]:
    """The journal of a folder, which is made where it is missing, until the block ends.

    Raises:
        JournalError: another process is at work in this folder, or what lies there is no journal of this version.
        OSError: the folder or the file can't be made, read or written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / JOURNAL_FILE
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # The kernel lets go of the lock with the process, however that ends.
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(
                f"another run is at work in {directory}: wait for its end, or choose another --out"
            ) from None
        yield Journal(descriptor, _read(path, descriptor))
    finally:
        os.close(descriptor)


def _read(path: Path, descriptor: int) -> Ledger:
    """What the journal says; one that is empty gets its header, and a half-written last line its end."""
    content = path.read_bytes()
    if HEADER.encode().startswith(content):
        # Empty, or the machine stopped in its first line.
        os.ftruncate(descriptor, 0)
        _write(descriptor, HEADER)
        _sync_folder(path.parent)
        return Ledger()
    lines = content.decode("utf-8", "replace").split("\n")
    has_unfinished = lines[-1] != ""
    if not has_unfinished:
        lines.pop()
    try:
        ledger = Ledger.read(lines)
    except JournalError as failed:
        raise JournalError(f"{path}: {failed}") from None
    if has_unfinished:
        # What is added must not become part of it. Where nothing but its end is missing, it is a line like any other.
        _write(descriptor, "")
    return ledger


def _write(descriptor: int, line: str) -> None:
    """Writes a whole line. A write that the system cuts short, such as on a full disk, is gone on with or fails."""
    left = memoryview(f"{line}\n".encode())
    while left:
        left = left[os.write(descriptor, left) :]


def _sync_folder(directory: Path) -> None:
    """Has the disk know that the file is there."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
