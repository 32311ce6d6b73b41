"""The prompt of a command."""

from __future__ import annotations

import sys

from pointsman_server.cli.exit import EXIT_USAGE, CommandError

STANDARD_INPUT = "-"
"""Stands for standard input where a prompt or a file is named."""


def read_prompt(argument: str) -> str:
    """The prompt as it was given, or from standard input without its last newline.

    Raises:
        CommandError: it is empty, or standard input is not UTF-8.
    """
    try:
        prompt = sys.stdin.read().removesuffix("\n") if argument == STANDARD_INPUT else argument
    except UnicodeDecodeError as failed:
        raise CommandError("standard input is not UTF-8", exit_code=EXIT_USAGE) from failed
    if not prompt:
        raise CommandError("the prompt is empty", exit_code=EXIT_USAGE)
    return prompt
