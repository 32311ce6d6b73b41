"""The way out: what waits for the collector, how much of it at most, and the thread that sends it.

A collector that is dead, slow or frozen costs the requests nothing: what ends is encoded and put into a queue, and where
that is full the newest spans are dropped and counted, not even encoded.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from threading import Event, Thread
from time import monotonic

import grpc
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from pointsman_server.telemetry.otlp import SpanEncoder
from pointsman_server.telemetry.span_record import SpanRecord, readable

logger = logging.getLogger("pointsman")

SPAN_QUEUE_COUNT_MAX = 8192
"""Spans that wait; about 6 MB, or some seconds of a busy server."""
SPAN_BATCH_COUNT_MAX = 512
"""Spans in one message: a third of a megabyte, well below gRPC's 4 MiB."""
SPAN_EXPORT_INTERVAL_S = 1.0
"""How long a span waits for others, at most, while the collector takes them."""
EXPORT_PAUSE_S_MAX = 8.0
"""How long a collector that takes nothing is left alone, at most. To call in vain takes as much as some requests do."""
METRIC_EXPORT_INTERVAL_S = 15.0
"""How old the figures on a dashboard are, at most."""

TRACE_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class _EncodedTraceService:
    """The collector's service, called with messages that are bytes already."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.Export: grpc.UnaryUnaryMultiCallable[bytes, ExportTraceServiceResponse] = channel.unary_unary(
            TRACE_EXPORT, None, ExportTraceServiceResponse.FromString
        )


class _EncodedSpanExporter(OTLPSpanExporter):
    """OpenTelemetry's exporter, with its connection, headers, certificates and retries, for spans that are bytes already."""

    def __init__(self, endpoint: str, *, timeout_s: float) -> None:
        super().__init__(endpoint, timeout=timeout_s)

    def send(self, request: bytes) -> bool:
        """Whether the collector took an ExportTraceServiceRequest."""
        return self._export([request]) is SpanExportResult.SUCCESS  # type: ignore[list-item]  # see _translate_data

    def _initialize_channel_and_stub(self) -> None:
        """What the exporter calls to connect, and to do so anew."""
        super()._initialize_channel_and_stub()  # type: ignore[no-untyped-call]
        self._client = _EncodedTraceService(self._channel)  # type: ignore[assignment, arg-type]  # None in types alone

    def _translate_data(self, data: Sequence[object]) -> bytes:  # type: ignore[override]  # what its client is given
        """What the exporter calls to make a message of what it was given."""
        (request,) = data
        assert isinstance(request, bytes)
        return request


class SpanQueue:
    """Spans that wait for the collector, encoded. At most `count_max`; further ones are dropped and counted."""

    def __init__(self, encoder: SpanEncoder, *, count_max: int = SPAN_QUEUE_COUNT_MAX) -> None:
        self._encoder = encoder
        self._count_max = count_max
        self._waiting: deque[bytes] = deque()
        self._batch_count = 0
        # One for each thread that counts: who ends spans, and who sends them.
        self._refused_count = 0
        self._lost_count = 0
        self.sent_count = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def dropped_count(self) -> int:
        """Spans that found no room, or that the collector did not take."""
        return self._refused_count + self._lost_count

    def add(self, span: SpanRecord) -> None:
        """Takes a span, or counts it where there is no room."""
        if len(self._waiting) >= self._count_max:
            self._refused_count += 1
        else:
            self._waiting.append(self._encoder.span(span))

    def take(self) -> bytes | None:
        """The next message for the collector and what it holds leaves the queue; None when nothing waits."""
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), SPAN_BATCH_COUNT_MAX))]
        self._batch_count = len(batch)
        return self._encoder.request(batch) if batch else None

    def settle(self, *, taken: bool) -> None:
        """Counts what `take` gave last as sent, or as dropped."""
        if taken:
            self.sent_count += self._batch_count
        else:
            self._lost_count += self._batch_count


class OtlpExport:
    """Sends spans every second and metrics every 15, from a thread of its own; more rarely where they are not taken."""

    def __init__(
        self, endpoint: str, spans: SpanQueue, collect: Callable[[], MetricsData | None] | None, *, timeout_s: float
    ) -> None:
        """Nothing is sent before `start`.

        Args:
            endpoint: URL of an OTLP/gRPC collector.
            spans: Where finished spans wait.
            collect: Reads the metrics; None sends none.
            timeout_s: Of one message, retries included.
        """
        self._spans = spans
        self._collect = collect
        self._timeout_s = timeout_s
        self._span_exporter = _EncodedSpanExporter(endpoint, timeout_s=timeout_s)
        self._metric_exporter = OTLPMetricExporter(endpoint, timeout=timeout_s)
        self.exporters = (self._span_exporter, self._metric_exporter)
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="telemetry", daemon=True)
        self._untaken: set[str] = set()
        """What the collector did not take the last time."""

    def start(self) -> None:
        """From now on."""
        self._thread.start()

    def shutdown(self, *, timeout_s: float) -> None:
        """Sends what is left and ends, within the time: what the collector has not taken by then is lost. Blocks."""
        self._stopping.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            # It waits for an answer or to try again, which this cuts short; as a daemon it can't hold up the process.
            for exporter in self.exporters:
                exporter.shutdown(timeout_millis=0.0)

    def _run(self) -> None:
        metrics_due_s = monotonic() + METRIC_EXPORT_INTERVAL_S
        wait_s = SPAN_EXPORT_INTERVAL_S
        while not self._stopping.wait(wait_s):
            wait_s = next_wait_s(wait_s, taken=self._send_spans())
            if monotonic() >= metrics_due_s:
                self._send_metrics()
                metrics_due_s = monotonic() + METRIC_EXPORT_INTERVAL_S
        self._send_spans()
        self._send_metrics()
        for exporter in self.exporters:
            exporter.shutdown(timeout_millis=0.0)

    def _send_spans(self) -> bool:
        """What waits now; after a failure the rest stays, as far as there is room. Whether there was none."""
        while (request := self._spans.take()) is not None:
            taken = self._span_exporter.send(request)
            self._spans.settle(taken=taken)
            self._tell("spans", taken=taken)
            if not taken:
                return False
        return True

    def _send_metrics(self) -> None:
        collected = None if self._collect is None else self._collect()
        if collected is not None:
            exported = self._metric_exporter.export(collected, timeout_millis=self._timeout_s * 1000.0)
            self._tell("metrics", taken=exported is MetricExportResult.SUCCESS)

    def _tell(self, signal: str, *, taken: bool) -> None:
        """Logs a change for the worse or the better, once."""
        if taken and signal in self._untaken:
            self._untaken.remove(signal)
            logger.info("the collector takes %s again", signal)
        elif not taken and signal not in self._untaken:
            self._untaken.add(signal)
            logger.warning("the collector does not take %s, which are dropped for now", signal)


def next_wait_s(wait_s: float, *, taken: bool) -> float:
    """After waiting so long and sending: how long to wait before the next time. Each failure doubles it."""
    return min(2.0 * wait_s, EXPORT_PAUSE_S_MAX) if not taken else SPAN_EXPORT_INTERVAL_S


class ReadableSink:
    """Hands each span to an exporter of OpenTelemetry's SDK as it ends."""

    def __init__(self, exporter: SpanExporter, resource: Resource) -> None:
        self._exporter = exporter
        self._resource = resource

    def add(self, span: SpanRecord) -> None:
        """Exports the span at once."""
        self._exporter.export((readable(span, self._resource),))
