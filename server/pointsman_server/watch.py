"""Notices that a file or a folder has changed, however it was replaced.

Editors and deployments rename new files and folders over old ones, or point a symbolic link elsewhere, instead of
writing to what is there. So what is watched is the folder that holds a path as well as the folder that it leads to, and
what counts is not the event but that the content is another one than before.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import TypeAlias

from watchfiles import awatch

CHECK_INTERVAL_S = 2.0
"""How often one looks where nothing is told: on a network share, or behind a symbolic link further up the path."""

Fingerprint: TypeAlias = tuple[tuple[str, int, int, int], ...]
"""What tells one content from another: each file's name, inode, size and time of change. Empty: nothing is there."""


def fingerprint(path: Path) -> Fingerprint:
    """Of a file, or of all files of a folder, as they are now."""
    try:
        if path.is_dir():
            with os.scandir(path) as entries:
                found = [(entry.name, entry.stat()) for entry in entries]
        else:
            found = [(path.name, path.stat())]
    except OSError:  # It is being replaced.
        return ()
    return tuple(sorted((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found))


class Watch:
    """Follows some paths, each a file or a folder of files. Memory: a line for each file."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._seen = {path: fingerprint(path) for path in paths}

    @property
    def paths(self) -> tuple[Path, ...]:
        """What is followed."""
        return tuple(self._seen)

    def follow(self, paths: Iterable[Path]) -> None:
        """Follows these paths from now on. One that was not followed before counts as known as it is now."""
        self._seen = {path: self._seen[path] if path in self._seen else fingerprint(path) for path in paths}

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yields whenever the content of a path has changed. What is not there is being replaced: that is no change."""
        while True:
            if await asyncio.to_thread(self._has_changed):
                yield
            folders = await asyncio.to_thread(self._folders)
            try:
                async for _ in awatch(
                    *(folder for folder, _ in folders),
                    watch_filter=None,
                    recursive=False,
                    rust_timeout=int(CHECK_INTERVAL_S * 1000),
                    yield_on_timeout=True,
                ):
                    if await asyncio.to_thread(self._has_changed):
                        yield
                    if await asyncio.to_thread(self._folders) != folders:
                        break
            except (OSError, RuntimeError):  # A folder has just gone, or the system has no watch left.
                await asyncio.sleep(CHECK_INTERVAL_S)

    def _has_changed(self) -> bool:
        """Whether any content is another one than when this was asked before."""
        now = {path: fingerprint(path) for path in self._seen}
        changed = {path: content for path, content in now.items() if content not in (self._seen.get(path), ())}
        self._seen |= changed
        return bool(changed)

    def _folders(self) -> frozenset[tuple[Path, int]]:
        """The folders that tell of changes, each with its inode: one that took another's place is watched anew."""
        folders = {path.parent.resolve() for path in self._seen}
        folders |= {real if real.is_dir() else real.parent for real in (path.resolve() for path in self._seen)}
        return frozenset((folder, folder.stat().st_ino) for folder in folders if folder.is_dir())
