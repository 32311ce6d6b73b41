"""The way out: what waits for the collector, how much of it at most, and the thread that sends it.

A collector that is dead, slow or frozen costs the requests nothing: what ends is encoded and put into a queue, and where
that is full the newest spans are dropped and counted, not even encoded.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from enum import Enum
from threading import Event, Thread
from time import monotonic
from typing import Any, cast

import grpc
from opentelemetry.exporter.otlp.proto.grpc.exporter import OTLPExporterMixin
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExporter

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


class Answer(Enum):
    """What became of a message to the collector."""

    TAKEN = "taken"
    REFUSED = "refused"
    """Or not answered in time; it may have arrived."""
    UNREACHABLE = "unreachable"
    """It surely did not arrive."""


class _EncodedTraceService:
    """The collector's service, called with messages that are bytes already."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.Export: grpc.UnaryUnaryMultiCallable[bytes, ExportTraceServiceResponse] = channel.unary_unary(
            TRACE_EXPORT, None, ExportTraceServiceResponse.FromString
        )


class _OneTry(OTLPExporterMixin[Any, Any, Any, Any]):
    """OpenTelemetry's exporter, with its address, headers and certificates, but not its way to send.

    That tries several times, connects anew after failures, and has the connection go on trying in between, which takes
    5 ms of CPU a second for a collector that is not there. Here one call is one try, and nothing is left of one that
    found nobody; when to try again is up to `OtlpExport`.
    """

    # Their own types say that they are None for ever.
    _channel: Any
    _client: Any

    def offer(self, request: Any) -> Answer:
        """Calls the collector, once."""
        if self._shutdown:
            return Answer.REFUSED
        if self._client is None:
            self._initialize_channel_and_stub()  # type: ignore[no-untyped-call]  # OpenTelemetry's have no types
        try:
            self._client.Export(request, metadata=self._headers, timeout=self._timeout)
        except grpc.RpcError as error:
            if cast("grpc.Call", error).code() is not grpc.StatusCode.UNAVAILABLE:
                return Answer.REFUSED
            self._channel.close()
            self._client = None
            return Answer.UNREACHABLE
        return Answer.TAKEN


class _SpanExporter(_OneTry, OTLPSpanExporter):
    """For spans that are bytes already: an ExportTraceServiceRequest."""

    def _initialize_channel_and_stub(self) -> None:
        """What the exporter calls to connect."""
        super()._initialize_channel_and_stub()  # type: ignore[no-untyped-call]
        self._client = _EncodedTraceService(self._channel)


class _MetricExporter(_OneTry, OTLPMetricExporter):
    """For metrics as they stand."""

    def offer(self, metrics: MetricsData) -> Answer:
        """Calls the collector, once."""
        return super().offer(self._translate_data(metrics))


class SpanQueue:
    """Spans that wait for the collector, encoded. At most `count_max`; further ones are dropped and counted."""

    def __init__(self, encoder: SpanEncoder, *, count_max: int = SPAN_QUEUE_COUNT_MAX) -> None:
        self._encoder = encoder
        self._count_max = count_max
        self._waiting: deque[bytes] = deque()
        self._batch: list[bytes] = []
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
        """The next message for the collector, whose spans leave the queue until `settle` says what became of them; None when
        nothing waits."""
        self._batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), SPAN_BATCH_COUNT_MAX))]
        return self._encoder.request(self._batch) if self._batch else None

    def settle(self, answer: Answer) -> None:
        """Counts what `take` gave last as sent or as dropped; what did not arrive waits again, before all others."""
        match answer:
            case Answer.TAKEN:
                self.sent_count += len(self._batch)
            case Answer.REFUSED:
                self._lost_count += len(self._batch)
            case Answer.UNREACHABLE:
                # There was room for it; what came since may stand above the bound, by a batch at most.
                self._waiting.extendleft(reversed(self._batch))

    def give_up(self) -> None:
        """Drops what waits, and counts it."""
        while self._waiting:
            self._waiting.popleft()
            self._lost_count += 1


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
            timeout_s: Of one message.
        """
        self._spans = spans
        self._collect = collect
        self._span_exporter = _SpanExporter(endpoint, timeout=timeout_s)
        self._metric_exporter = _MetricExporter(endpoint, timeout=timeout_s)
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
        for exporter in self.exporters:
            # Cuts short what still waits for an answer; as a daemon the thread can't hold up the process.
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
        self._spans.give_up()
        self._send_metrics()

    def _send_spans(self) -> bool:
        """What waits now; after a failure the rest stays, as far as there is room. Whether there was none."""
        while (request := self._spans.take()) is not None:
            answer = self._span_exporter.offer(request)
            self._spans.settle(answer)
            self._tell("spans", taken=answer is Answer.TAKEN)
            if answer is not Answer.TAKEN:
                return False
        return True

    def _send_metrics(self) -> None:
        collected = None if self._collect is None else self._collect()
        if collected is not None:
            self._tell("metrics", taken=self._metric_exporter.offer(collected) is Answer.TAKEN)

    def _tell(self, signal: str, *, taken: bool) -> None:
        """Logs a change for the worse or the better, once."""
        if taken and signal in self._untaken:
            self._untaken.remove(signal)
            logger.info("the collector takes %s again", signal)
        elif not taken and signal not in self._untaken:
            self._untaken.add(signal)
            logger.warning("the collector does not take %s", signal)


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
