"""Telemetry as a whole: built once, passed down, shut down in bounded time.

Nothing here is process-wide, so that two servers in one process, or a server in someone else's, keep theirs apart. Bounds
and timeouts are passed, whatever the environment says; headers and certificates for the collector come from
OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_HEADERS.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random, SystemRandom

from opentelemetry.sdk.metrics.export import MetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExporter

from pointsman_server.telemetry import names
from pointsman_server.telemetry.export import OtlpExport, ReadableSink, SpanQueue
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.otlp import SpanEncoder
from pointsman_server.telemetry.series import Registry
from pointsman_server.telemetry.span_record import SpanRecorder, SpanSink
from pointsman_server.telemetry.spans import Tracing

EXPORT_TIMEOUT_S = 2.0
"""One message. A collector stands nearby and answers in milliseconds, or is not there."""
SHUTDOWN_S_MAX = 3.0
"""For the last exports: one timeout and something. By default a dead collector would hold up a shutdown for 30 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """Where telemetry goes, and how much of it."""

    otlp_endpoint: str | None = None
    """URL of an OTLP/gRPC collector, http or https; None sends nothing."""
    sends_metrics: bool = True
    """Whether metrics go to the collector too; one for traces alone, such as Jaeger, refuses them."""
    sample_ratio: float = 1.0
    """Share of traces that are recorded, 0..1, where the caller has not decided already."""
    service_name: str = "pointsman"
    service_version: str = ""
    """Of the server; empty leaves it out."""
    is_scraped: bool = False
    """Whether metrics are read from outside (`Telemetry.collect`), also where nothing is sent."""
    export_timeout_s: float = EXPORT_TIMEOUT_S
    shutdown_s_max: float = SHUTDOWN_S_MAX

    def __post_init__(self) -> None:
        assert 0.0 <= self.sample_ratio <= 1.0, self.sample_ratio
        assert min(self.export_timeout_s, self.shutdown_s_max) > 0.0, "timeouts are positive"

    @property
    def resource(self) -> dict[str, str]:
        """What tells this server from others."""
        version = {names.SERVICE_VERSION: self.service_version} if self.service_version else {}
        return {names.SERVICE_NAME: self.service_name} | version


class Telemetry:
    """Traces and metrics of one server."""

    def __init__(
        self,
        tracing: Tracing,
        registry: Registry | None,
        *,
        export: OtlpExport | None,
        shutdown_s_max: float,
    ) -> None:
        self.tracing = tracing
        self.metrics = Metrics(registry)
        self._registry = registry
        self._export = export
        self._shutdown_s_max = shutdown_s_max

    def collect(self) -> MetricsData | None:
        """All metrics as they stand; None while there are none, or where nobody reads them."""
        return None if self._registry is None else self._registry.collect()

    def shutdown(self) -> None:
        """Send what is left and stop, within `shutdown_s_max`: what a dead collector has not taken by then is lost.

        Blocks; call it from a thread.
        """
        if self._export is not None:
            self._export.shutdown(timeout_s=self._shutdown_s_max)


def configure_telemetry(
    settings: TelemetrySettings, *, span_exporter: SpanExporter | None = None, metric_reader: MetricReader | None = None
) -> Telemetry:
    """The telemetry of one server.

    Args:
        settings: With an OTLP endpoint, traces and metrics go there.
        span_exporter: Also gets every span, as soon as it ends.
        metric_reader: Also reads the metrics.
    """
    resource = Resource(settings.resource, schema_url=names.SCHEMA_URL)
    sends_metrics = settings.otlp_endpoint is not None and settings.sends_metrics
    has_metrics = sends_metrics or settings.is_scraped or metric_reader is not None
    registry = Registry(resource, unix_ns=time.time_ns) if has_metrics else None
    sinks: list[SpanSink] = [] if span_exporter is None else [ReadableSink(span_exporter, resource)]
    export = None
    if settings.otlp_endpoint is not None:
        queue = SpanQueue(SpanEncoder(settings.resource))
        sinks.append(queue)
        if registry is not None:
            dropped = registry.observed(
                names.SPANS_DROPPED, "{span}", "Spans that the collector could not be sent.", only_grows=True
            )
            dropped.reading = lambda: [((), queue.dropped_count)]
        collect = registry.collect if registry is not None and sends_metrics else None
        export = OtlpExport(settings.otlp_endpoint, queue, collect, timeout_s=settings.export_timeout_s)
        export.start()
    if metric_reader is not None:
        assert registry is not None, "what is read is recorded"
        _register(metric_reader, registry.collect)
    recorder = _recorder(sinks, settings) if sinks else None
    return Telemetry(
        Tracing(recorder, unix_ns=time.time_ns if has_metrics else None),
        registry,
        export=export,
        shutdown_s_max=settings.shutdown_s_max,
    )


def _recorder(sinks: list[SpanSink], settings: TelemetrySettings) -> SpanRecorder:
    # Ids must differ, not be secret: a seeded generator is ten times as fast as the system's.
    random = Random(SystemRandom().getrandbits(256))  # noqa: S311  # no secret is made of it
    return SpanRecorder(sinks, sample_ratio=settings.sample_ratio, unix_ns=time.time_ns, random_bits=random.getrandbits)


def _register(reader: MetricReader, collect: Callable[[], MetricsData | None]) -> None:
    """Has a reader of OpenTelemetry's SDK read our registry, by the door that the SDK's own provider takes."""

    def read(_reader: MetricReader, timeout_millis: float = 0.0) -> MetricsData | None:
        del timeout_millis
        return collect()

    reader._set_collect_callback(read)  # type: ignore[arg-type]  # noqa: SLF001  # its types are not what it calls
