"""The file in which the runtime aggregator's knowledge survives a restart.

A file that is too old does no harm, since what is in it is as doubtful as it is old; one that can't be read is refused,
and the server starts afresh. It is replaced as a whole, so that a crash leaves the last one.
"""

from __future__ import annotations

import os
from pathlib import Path

from pointsman_server.runtime.summary import RuntimeStateError, RuntimeSummary, parse_summary, summary_text

FILE_BYTES_MAX = 32 * 1024 * 1024
"""Twice what 4,096 endpoints take."""


def read_state(path: Path) -> RuntimeSummary | None:
    """What was saved there; None when there is no such file.

    Raises:
        RuntimeStateError: What is there can't be read or used.
    """
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RuntimeStateError(f"it can't be read ({type(error).__name__})") from None
    if len(content) > FILE_BYTES_MAX:
        raise RuntimeStateError(f"it is larger than {FILE_BYTES_MAX} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise RuntimeStateError("it is not UTF-8") from None
    return parse_summary(text)


def write_state(path: Path, summary: RuntimeSummary) -> None:
    """Saves it there in place of what was there before.

    Raises:
        RuntimeStateError: It can't be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(summary_text(summary))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise RuntimeStateError(f"it can't be written ({type(error).__name__})") from None
