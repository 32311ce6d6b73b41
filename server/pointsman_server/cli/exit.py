"""How a command ends before its end."""

from __future__ import annotations

EXIT_FAILURE = 1
"""The command could not do what it was asked for."""
EXIT_USAGE = 2
"""It was asked wrongly; argparse's own code."""
EXIT_INTERRUPTED = 130
"""Somebody pressed Ctrl-C: what shells report for SIGINT, 128 + 2."""


class CommandError(Exception):
    """A command gives up. The message is for people, on one or more lines; empty where all has been said."""

    def __init__(self, message: str = "", *, exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
