"""Everything that servers tell in tests is searched for what they must never tell.

Secrets in tests, such as keys, prompts and what providers say of themselves, hold one of the words of `SECRETS`. Whatever
the server logs, at whatever level, and whatever the servers of `watched_telemetry` record in spans and metrics goes past
`WATCH`; a test during which one of the words came by fails (see conftest.py).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from pointsman_server.telemetry.exposition import exposition
from pointsman_server.telemetry.setup import Telemetry, TelemetrySettings, configure_telemetry

SECRETS = re.compile(r"canary|a secret detail|sk-[a-z0-9]|never-to-be-told")
"""In small letters only: a provider's error code, which callers are told, may be the same in capitals."""
LOGGERS = ("pointsman", "pointsman_server", "opentelemetry")


class Watch(logging.Handler):
    """Searches what is told, and keeps where it found something."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: list[str] = []
        self.looked_count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Searches a line of a log, with the exception that it may carry."""
        self.look(f"the log of {record.name}", self.format(record))

    def look(self, where: str, told: str) -> None:
        """Searches a text."""
        self.looked_count += 1
        if (secret := SECRETS.search(told)) is not None:
            self.found.append(f"{secret[0]!r} in {where}: {told[max(0, secret.start() - 60) : secret.end() + 60]}")

    def taken(self) -> list[str]:
        """What has been found since the last time."""
        found, self.found = self.found, []
        return found


WATCH = Watch()


def watch_logs() -> None:
    """From now on, at every level."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger(name).addHandler(WATCH)


class WatchedSpans(SpanExporter):
    """Searches spans as they end."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Searches all that they hold."""
        for span in spans:
            WATCH.look(f"the span {span.name}", span.to_json())
        return SpanExportResult.SUCCESS


@contextmanager
def watched_telemetry() -> Iterator[Telemetry]:
    """Telemetry that records everything for nobody else."""
    telemetry = configure_telemetry(
        TelemetrySettings(), span_exporter=WatchedSpans(), metric_reader=InMemoryMetricReader()
    )
    yield telemetry
    WATCH.look("the metrics", exposition(telemetry.collect(), openmetrics=True))
