"""Where output goes and how: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from pointsman import PointsmanError
from rich.console import Console

_WIDTH_WITHOUT_TERMINAL = 240
"""Columns where no terminal sets a limit: wide enough that no table is cut in a file or a pipe."""

# What a terminal would obey: control characters but for newline and tab. A model's text is not to move the cursor.
_CONTROL_CHARACTERS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])


def console(*, stderr: bool = False) -> Console:
    """Standard output or error for people: colours only on a terminal, none with NO_COLOR; texts are not markup."""
    found = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not found.is_terminal:
        found.width = _WIDTH_WITHOUT_TERMINAL
    return found


def print_json(fields: Mapping[str, Any]) -> None:
    """Prints an object on a line of its own, at once."""
    sys.stdout.write(json.dumps(fields, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_text(text: str) -> None:
    """Prints a piece of a model's text, at once; a terminal is spared its control characters."""
    sys.stdout.write(text.translate(_CONTROL_CHARACTERS) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def message_fields(message: Message) -> dict[str, Any]:
    """A message as the JSON mapping of protobuf has it, with the names of the contract.

    A field that is absent is unknown; a field that can't be absent is always there, whatever its value.
    """
    fields: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return fields


def error_fields(error: PointsmanError) -> dict[str, Any]:
    """A failed call as JSON: code, reason, message, metadata, and the details that are known here."""
    return {
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "metadata": dict(error.metadata),
        "details": [fields for detail in error.status.details if (fields := _detail_fields(detail))],
    }


def _detail_fields(detail: Message) -> dict[str, Any]:
    try:
        return message_fields(detail)
    except TypeError:  # what json_format raises for a kind of detail that is not known here
        return {}
