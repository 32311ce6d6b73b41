"""Reads a log back: decisions in their order, each with what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pointsman_server.decision_log.codec import DECISION_PREFIX, DamagedLineError, LineReader, decision_prefix
from pointsman_server.decision_log.records import (
    DecisionLogError,
    LoggedCompletion,
    LoggedDecision,
    LoggedReport,
    Record,
)
from pointsman_server.decision_log.segments import FILE_PREFIX, FILE_SUFFIX, segment_paths

PLACE_COUNT_MAX = 5
"""Damaged lines whose places are remembered; the others are counted."""


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """A decision with what came of it."""

    decision: LoggedDecision
    completion: LoggedCompletion | None = None
    """None: the caller made the call, or the server did not live to its end."""
    reports: tuple[LoggedReport, ...] = ()
    """In their order."""

    @property
    def quality(self) -> float | None:
        """The last that was reported of the answer, 0..1; None when it was not judged."""
        judged = [report.quality for report in self.reports if report.quality is not None]
        return judged[-1] if judged else None

    @property
    def answered_by(self) -> str | None:
        """The endpoint whose answer the caller got, as far as is known."""
        if self.completion is not None:
            return self.completion.endpoint_name
        if self.reports:
            return self.reports[-1].endpoint_name
        chosen = self.decision.decision.chosen
        return None if chosen is None else chosen.endpoint.name


@dataclass(slots=True)
class Damage:
    """Lines that were skipped."""

    line_count: int = 0
    places: list[str] = field(default_factory=list)
    """`file:line` of the first of them."""

    def add(self, path: Path, number: int) -> None:
        """One more."""
        self.line_count += 1
        if len(self.places) < PLACE_COUNT_MAX:
            self.places.append(f"{path}:{number}")


@dataclass(frozen=True, slots=True)
class _Aftermath:
    """What came of all decisions, by their ids. Memory: about 0.6 kB for each completion and report."""

    completions: dict[str, LoggedCompletion] = field(default_factory=dict)
    reports: dict[str, list[LoggedReport]] = field(default_factory=dict)


class DecisionLogReader:
    """A log in a directory. `damage` counts what was skipped by the last reading."""

    def __init__(self, directory: Path) -> None:
        """Looks which files there are.

        Raises:
            DecisionLogError: there is none.
        """
        self.damage = Damage()
        self._paths = segment_paths(directory)
        if not self._paths:
            raise DecisionLogError(f"{directory}: there is no decision log here, no {FILE_PREFIX}*{FILE_SUFFIX}")

    def requests(self) -> Iterator[LoggedRequest]:
        """Every decision with what came of it, the oldest file first. Reads the log twice, and holds one decision at a
        time.

        Raises:
            DecisionLogError: the log is of another version.
        """
        yield from self._requests(DECISION_PREFIX)

    def find(self, decision_id: str) -> LoggedRequest | None:
        """The decision with that id, or None. The lines of others are not read, and so not known to be whole.

        Raises:
            DecisionLogError: the log is of another version.
        """
        return next(self._requests(decision_prefix(decision_id)), None)

    def _requests(self, prefix: bytes) -> Iterator[LoggedRequest]:
        """The decisions whose lines begin so, each with what came of it."""
        aftermath = self._aftermath()
        self.damage = Damage()
        for record in self._records(prefix):
            if isinstance(record, LoggedDecision):
                found = record.decision_id
                reports = tuple(aftermath.reports.get(found, ()))
                yield LoggedRequest(record, aftermath.completions.get(found), reports)

    def _aftermath(self) -> _Aftermath:
        aftermath = _Aftermath()
        for record in self._records(None):
            match record:
                case LoggedCompletion():
                    aftermath.completions[record.decision_id] = record
                case LoggedReport():
                    aftermath.reports.setdefault(record.decision_id, []).append(record)
        return aftermath

    def _records(self, prefix: bytes | None) -> Iterator[Record]:
        """All records, but of decisions those alone whose lines begin so; None: none of them."""
        for path in self._paths:
            reader = LineReader()
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if line.startswith(DECISION_PREFIX) and not (prefix and line.startswith(prefix)):
                        continue
                    try:
                        record = reader.read(line)
                    except DamagedLineError:
                        self.damage.add(path, number)
                        continue
                    if record is not None:
                        yield record
