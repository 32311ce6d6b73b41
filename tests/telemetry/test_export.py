"""The way out: what reaches a collector, and what happens when there is none or it does not answer."""

from __future__ import annotations

import logging

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData, NumberDataPoint
from opentelemetry.trace import SpanKind
from pointsman_server.telemetry import names
from pointsman_server.telemetry.export import (
    EXPORT_PAUSE_S_MAX,
    SPAN_BATCH_COUNT_MAX,
    SPAN_EXPORT_INTERVAL_S,
    Answer,
    OtlpExport,
    SpanQueue,
    next_wait_s,
)
from pointsman_server.telemetry.otlp import SpanEncoder
from pointsman_server.telemetry.setup import Telemetry, TelemetrySettings, configure_telemetry
from pointsman_server.telemetry.span_record import SpanRecord
from pointsman_server.telemetry.trace_context import TraceContext

from benchmarks.telemetry.collector import Collector, Manner


def a_queue(*, span_count: int, count_max: int) -> SpanQueue:
    """A queue to which so many spans were added."""
    queue = SpanQueue(SpanEncoder({names.SERVICE_NAME: "pointsman"}), count_max=count_max)
    for number in range(span_count):
        queue.add(a_span(f"s{number}"))
    return queue


def a_span(name: str) -> SpanRecord:
    """A span of no meaning."""
    return SpanRecord(name, TraceContext(1, 1, True), None, SpanKind.INTERNAL, start_unix_ns=1, attributes={})


def dropped(telemetry: Telemetry) -> float:
    """What the metric of dropped spans says."""
    collected = telemetry.collect()
    assert collected is not None
    (scope,) = collected.resource_metrics[0].scope_metrics
    (metric,) = [metric for metric in scope.metrics if metric.name == names.SPANS_DROPPED]
    (point,) = metric.data.data_points
    assert isinstance(point, NumberDataPoint)
    return point.value


def nothing() -> MetricsData | None:
    """No metrics."""
    return None


def test_spans_and_metrics_reach_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was recorded is there after the shutdown, under the names of the service, with the headers that
    OpenTelemetry's own variable names."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=points")
    with Collector() as collector:
        telemetry = configure_telemetry(TelemetrySettings(otlp_endpoint=collector.url, service_name="points-eu"))
        request = telemetry.tracing.request("S/Route", [])
        request.end(status="OK", reason=None)
        telemetry.metrics.served("S/Route", status="OK", duration_s=0.1, example=request.recorded)
        telemetry.shutdown()
        (span,) = collector.spans
        (message,) = collector.metrics
    assert span.name == "S/Route"
    assert collector.metadata["x-tenant"] == "points"
    (resource,) = message.resource_metrics
    assert [attribute.value.string_value for attribute in resource.resource.attributes] == ["points-eu"]
    by_name = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    (point,) = by_name[names.RPC_SERVER_CALL_DURATION].histogram.data_points
    assert (point.count, point.sum) == (1, 0.1)
    (exemplar,) = point.exemplars
    assert (exemplar.trace_id, exemplar.span_id) == (span.trace_id, span.span_id)


def test_the_queue_is_bounded_and_counts_what_it_drops() -> None:
    """Beyond its size it drops the newest, without a word to whoever ends a span."""
    queue = a_queue(span_count=30, count_max=10)
    assert (len(queue), queue.dropped_count) == (10, 20)
    assert queue.take() is not None
    queue.settle(Answer.TAKEN)
    assert (len(queue), queue.sent_count, queue.dropped_count) == (0, 10, 20)


def test_a_message_holds_no_more_than_a_batch() -> None:
    """A long queue leaves in several messages, and each that is refused counts as dropped."""
    queue = a_queue(span_count=SPAN_BATCH_COUNT_MAX + 1, count_max=10_000)
    assert queue.take() is not None
    queue.settle(Answer.REFUSED)
    assert (len(queue), queue.dropped_count) == (1, SPAN_BATCH_COUNT_MAX)
    assert queue.take() is not None
    assert queue.take() is None


def test_what_did_not_arrive_waits_in_its_place() -> None:
    """A message that found nobody is the next one again; the bound holds for what is new, and giving up counts all."""
    queue = a_queue(span_count=4, count_max=4)
    request = queue.take()
    queue.settle(Answer.UNREACHABLE)
    queue.add(a_span("one too many"))
    assert queue.take() == request
    queue.settle(Answer.UNREACHABLE)
    assert (len(queue), queue.sent_count, queue.dropped_count) == (4, 0, 1)
    queue.give_up()
    assert (len(queue), queue.dropped_count) == (0, 5)


def test_a_collector_that_comes_back_gets_what_it_missed() -> None:
    """While nobody listens nothing is lost, as far as there is room, and nothing stays connected; then all of it arrives."""
    queue = a_queue(span_count=1, count_max=10)
    with Collector() as collector:
        export = OtlpExport(collector.url, queue, nothing, timeout_s=5.0)
        assert export._send_spans()
    queue.add(a_span("missed"))
    assert not export._send_spans()
    assert not export._send_spans()
    assert export._span_exporter._client is None
    queue.add(a_span("later"))
    with Collector(port=collector.port) as again:
        assert export._send_spans()
    assert [span.name for span in collector.spans] == ["s0"]
    assert [span.name for span in again.spans] == ["missed", "later"]
    assert (queue.sent_count, queue.dropped_count) == (3, 0)


@pytest.mark.parametrize("is_there", [True, False])
def test_what_a_collector_does_not_take_is_counted_and_told_once(
    caplog: pytest.LogCaptureFixture, *, is_there: bool
) -> None:
    """A frozen collector and a dead one: spans are dropped, counted and told of, and the end comes in time."""
    caplog.set_level(logging.WARNING, "pointsman")
    with Collector(Manner.FROZEN) as collector:
        url = collector.url if is_there else "http://127.0.0.1:1"
        queue = a_queue(span_count=3, count_max=10)
        export = OtlpExport(url, queue, nothing, timeout_s=0.2)
        export.start()
        export.shutdown(timeout_s=30.0)
        assert not export._thread.is_alive()
    assert (queue.sent_count, queue.dropped_count) == (0, 3)
    assert [record.levelname for record in caplog.records if record.name == "pointsman"] == ["WARNING"]


def test_a_collector_that_takes_nothing_is_called_more_rarely() -> None:
    """Each failure doubles the time to the next try, up to a bound; the first success is as if there had been none."""
    waits_s = [SPAN_EXPORT_INTERVAL_S]
    for taken in (True, False, False, False, False, True, False):
        waits_s.append(next_wait_s(waits_s[-1], taken=taken))
    assert waits_s == [1.0, 1.0, 2.0, 4.0, 8.0, EXPORT_PAUSE_S_MAX, 1.0, 2.0]


def test_a_shutdown_does_not_wait_for_a_frozen_collector() -> None:
    """An export that would wait for ten minutes is left behind when the time is up."""
    with Collector(Manner.FROZEN) as collector:
        settings = TelemetrySettings(otlp_endpoint=collector.url, export_timeout_s=600.0, shutdown_s_max=0.1)
        telemetry = configure_telemetry(settings)
        telemetry.tracing.request("S/Route", []).end(status="OK", reason=None)
        telemetry.shutdown()
        assert telemetry._export is not None
        # Cut short, it ends by itself.
        telemetry._export._thread.join()


def test_dropped_spans_are_a_metric() -> None:
    """What the queue drops is read like any other figure."""
    telemetry = configure_telemetry(
        TelemetrySettings(otlp_endpoint="http://127.0.0.1:1", export_timeout_s=0.1, shutdown_s_max=5.0),
        metric_reader=InMemoryMetricReader(),
    )
    assert dropped(telemetry) == 0
    telemetry.tracing.request("S/Route", []).end(status="OK", reason=None)
    telemetry.shutdown()
    assert dropped(telemetry) == 1
