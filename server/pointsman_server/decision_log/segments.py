"""The files of the log: appended to by one process, begun anew at a size, the oldest deleted.

A file is only ever appended to by the process that made it, so a line that a crash cut off is the last of its file.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

FILE_PREFIX = "decisions-"
FILE_SUFFIX = ".jsonl"

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC


def segment_paths(directory: Path) -> list[Path]:
    """The files of the log, the oldest first."""
    return sorted(directory.glob(f"{FILE_PREFIX}*{FILE_SUFFIX}"))


class Segments:
    """Where lines are appended. Every method may block, and belongs in a thread.

    Raises:
        OSError: the directory can't be made, or nothing can be written there.
    """

    def __init__(self, directory: Path, *, file_bytes_max: int, total_bytes_max: int) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self._directory = directory
        self._file_bytes_max = file_bytes_max
        self._total_bytes_max = total_bytes_max
        self._descriptor: int | None = None
        self._path = directory
        self._byte_count = 0
        # What can't be written to is told at the start.
        probe = directory / f".{FILE_PREFIX}{secrets.token_hex(8)}"
        os.close(os.open(probe, _NEW_FILE, 0o600))
        probe.unlink(missing_ok=True)

    def wants_new_file(self) -> bool:
        """Whether the next lines are to go to a file of their own: at the start, and when one is full."""
        return self._descriptor is None or self._byte_count >= self._file_bytes_max

    def begin_file(self, *, now_unix_s: float) -> None:
        """Begins a file, and deletes the oldest ones as far as all together would take more than they may."""
        self.close()
        self._delete_oldest()
        moment = datetime.fromtimestamp(now_unix_s, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self._path = self._directory / f"{FILE_PREFIX}{moment}-{secrets.token_hex(4)}{FILE_SUFFIX}"
        self._descriptor = os.open(self._path, _NEW_FILE, 0o600)
        self._byte_count = 0

    def append(self, lines: Sequence[bytes]) -> None:
        """Appends whole lines. Once this returns the operating system has them, so that they outlive this process.

        Raises:
            OSError: the disk is full, for one; none of them is there then.
        """
        assert self._descriptor is not None, "a file is begun first"
        content = b"".join([line + b"\n" for line in lines])
        left = memoryview(content)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            # What was written of it must not become the beginning of another line.
            os.ftruncate(self._descriptor, self._byte_count)
            raise
        self._byte_count += len(content)

    def close(self) -> None:
        """Ends the file that is being written, if there is one; an empty one is not left behind."""
        if self._descriptor is None:
            return
        os.close(self._descriptor)
        self._descriptor = None
        if not self._byte_count:
            self._path.unlink(missing_ok=True)

    def _delete_oldest(self) -> None:
        """Makes room for a file of full size."""
        sizes = {path: _size(path) for path in segment_paths(self._directory)}
        total = sum(sizes.values()) + self._file_bytes_max
        for path, byte_count in sizes.items():
            if total <= self._total_bytes_max:
                return
            path.unlink(missing_ok=True)
            total -= byte_count


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # Another process, or a person, was faster.
        return 0
