"""Telemetry as a whole: built once, passed down, shut down in bounded time.

Providers are objects of ours and never the process-wide ones of OpenTelemetry, so that two servers in one process, or a
server in someone else's, keep theirs apart. Bounds and timeouts are passed, whatever the environment says; headers and
certificates for the collector come from OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_HEADERS.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Thread

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NoOpTracerProvider

from pointsman_server.telemetry import names
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.spans import CANDIDATE_EVENT_COUNT_MAX, Tracing

EXPORT_TIMEOUT_S = 2.0
"""One export, retries included. A collector stands nearby and answers in milliseconds, or is not there."""
SHUTDOWN_S_MAX = 3.0
"""For the last exports: one timeout and something. By default a dead collector would hold up a shutdown for 30 s."""
SPAN_QUEUE_COUNT_MAX = 4096
"""Spans that wait for export; beyond it the oldest are dropped. About 10 MB, or a second of a busy server."""
SPAN_BATCH_COUNT_MAX = 512
"""Spans in one export: half a megabyte, well below gRPC's 4 MiB."""
SPAN_EXPORT_INTERVAL_S = 1.0
"""How long a span waits for others, at most."""
METRIC_EXPORT_INTERVAL_S = 15.0
"""How old the figures on a dashboard are, at most."""
ATTRIBUTE_COUNT_MAX = 64
"""Three times what a span of ours has."""
ATTRIBUTE_CHARACTER_COUNT_MAX = 512
"""Names and constraints fit; nothing longer belongs into a trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """Where telemetry goes, and how much of it."""

    otlp_endpoint: str | None = None
    """URL of an OTLP/gRPC collector, http or https; None records and exports nothing."""
    sample_ratio: float = 1.0
    """Share of traces that are recorded, 0..1, where the caller has not decided already."""
    service_name: str = "pointsman"
    export_timeout_s: float = EXPORT_TIMEOUT_S
    shutdown_s_max: float = SHUTDOWN_S_MAX

    def __post_init__(self) -> None:
        assert 0.0 <= self.sample_ratio <= 1.0, self.sample_ratio
        assert min(self.export_timeout_s, self.shutdown_s_max) > 0.0, "timeouts are positive"


class Telemetry:
    """Traces and metrics of one server."""

    def __init__(
        self,
        tracer_provider: TracerProvider | NoOpTracerProvider,
        meter_provider: MeterProvider | NoOpMeterProvider,
        *,
        exporters: tuple[SpanExporter | MetricExporter, ...] = (),
        shutdown_s_max: float = SHUTDOWN_S_MAX,
    ) -> None:
        self._providers = [
            provider
            for provider in (tracer_provider, meter_provider)
            if isinstance(provider, TracerProvider | MeterProvider)
        ]
        self._exporters = exporters
        self._shutdown_s_max = shutdown_s_max
        self.tracing = Tracing(tracer_provider.get_tracer(names.SCOPE_NAME, schema_url=names.SCHEMA_URL))
        self.metrics = Metrics(meter_provider.get_meter(names.SCOPE_NAME, schema_url=names.SCHEMA_URL))

    def shutdown(self) -> None:
        """Export what is left and stop, within `shutdown_s_max`: what a dead collector has not taken by then is lost.

        Blocks; call it from a thread.
        """
        # The SDK has no time limit here that it passes down, so the wait is ours to end. Both close at the same time.
        closing = [Thread(target=provider.shutdown, daemon=True) for provider in self._providers]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join(self._shutdown_s_max / len(closing))
        if any(thread.is_alive() for thread in closing):
            for exporter in self._exporters:
                exporter.shutdown()


def configure_telemetry(
    settings: TelemetrySettings, *, span_exporter: SpanExporter | None = None, metric_reader: MetricReader | None = None
) -> Telemetry:
    """The telemetry of one server.

    Args:
        settings: With an OTLP endpoint, traces and metrics go there.
        span_exporter: Also gets every span, as soon as it ends.
        metric_reader: Also reads the metrics.
    """
    resource = Resource({names.SERVICE_NAME: settings.service_name}, schema_url=names.SCHEMA_URL)
    processors: list[SpanProcessor] = [] if span_exporter is None else [SimpleSpanProcessor(span_exporter)]
    readers: list[MetricReader] = [] if metric_reader is None else [metric_reader]
    exporters: list[SpanExporter | MetricExporter] = []
    if settings.otlp_endpoint is not None:
        spans = OTLPSpanExporter(settings.otlp_endpoint, timeout=settings.export_timeout_s)
        metrics = OTLPMetricExporter(settings.otlp_endpoint, timeout=settings.export_timeout_s)
        exporters += [spans, metrics]
        processors.append(_batching(spans, settings))
        readers.append(
            PeriodicExportingMetricReader(
                metrics,
                export_interval_millis=METRIC_EXPORT_INTERVAL_S * 1000.0,
                export_timeout_millis=settings.export_timeout_s * 1000.0,
            )
        )
    return Telemetry(
        _tracer_provider(processors, resource, sample_ratio=settings.sample_ratio),
        _meter_provider(readers, resource),
        exporters=tuple(exporters),
        shutdown_s_max=settings.shutdown_s_max,
    )


def _batching(exporter: SpanExporter, settings: TelemetrySettings) -> SpanProcessor:
    return BatchSpanProcessor(
        exporter,
        max_queue_size=SPAN_QUEUE_COUNT_MAX,
        schedule_delay_millis=SPAN_EXPORT_INTERVAL_S * 1000.0,
        max_export_batch_size=SPAN_BATCH_COUNT_MAX,
        export_timeout_millis=settings.export_timeout_s * 1000.0,
    )


def _tracer_provider(
    processors: list[SpanProcessor], resource: Resource, *, sample_ratio: float
) -> TracerProvider | NoOpTracerProvider:
    if not processors:
        return NoOpTracerProvider()
    limits = SpanLimits(
        max_attributes=ATTRIBUTE_COUNT_MAX,
        max_events=CANDIDATE_EVENT_COUNT_MAX,
        max_links=0,
        max_attribute_length=ATTRIBUTE_CHARACTER_COUNT_MAX,
    )
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
        resource=resource,
        shutdown_on_exit=False,
        span_limits=limits,
    )
    for processor in processors:
        provider.add_span_processor(processor)
    return provider


def _meter_provider(readers: list[MetricReader], resource: Resource) -> MeterProvider | NoOpMeterProvider:
    if not readers:
        return NoOpMeterProvider()
    return MeterProvider(readers, resource, AlwaysOffExemplarFilter(), shutdown_on_exit=False)
