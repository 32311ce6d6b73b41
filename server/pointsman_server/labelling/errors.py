"""What can be wrong with a benchmark before it asks anything. The texts quote no prompt and no answer."""

from __future__ import annotations

from dataclasses import dataclass

from pointsman_server.errors import PointsmanError

SHOWN_FAULT_COUNT_MAX = 20
"""A file of another format has a fault in every line; twenty say so as well as all."""


class LabellingError(PointsmanError):
    """The benchmark can't be run as it is asked for; the text says what would be right."""


class JournalError(LabellingError):
    """The journal can't be gone on with."""


@dataclass(frozen=True, slots=True)
class LineFault:
    """One fault of a prompt file."""

    line_number: int
    """From 1."""
    description: str
    """What is wrong and what would be right."""


class PromptFileError(LabellingError):
    """The prompt file is not what it should be; every fault is kept with its line, and the first twenty are shown."""

    def __init__(self, source: str, faults: tuple[LineFault, ...]) -> None:
        assert faults, "a wrong file has at least one fault"
        self.faults = faults
        shown = [f"  line {fault.line_number}: {fault.description}" for fault in faults[:SHOWN_FAULT_COUNT_MAX]]
        left_out_count = len(faults) - len(shown)
        more = [f"  and {left_out_count} more"] if left_out_count else []
        super().__init__("\n".join((f"{source} is not valid:", *shown, *more)))
