"""Telemetry as a whole: how it is built, and that it ends."""

from __future__ import annotations

import socket
import threading

import pytest
from opentelemetry import metrics as global_metrics
from opentelemetry import trace as global_trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, rpc_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes
from opentelemetry.semconv.schemas import Schemas
from pointsman_server.telemetry import names
from pointsman_server.telemetry.setup import Telemetry, TelemetrySettings, configure_telemetry


def unused_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def with_some_telemetry(telemetry: Telemetry) -> Telemetry:
    """Has something to export."""
    request = telemetry.tracing.request("S/Route", [])
    request.end(status="OK", reason=None)
    telemetry.metrics.served("S/Route", status="OK", duration_s=0.1)
    return telemetry


def test_a_dead_collector_does_not_hold_up_the_shutdown() -> None:
    """With nobody listening, telemetry is taken, and shutdown comes back; a second one does nothing."""
    settings = TelemetrySettings(
        otlp_endpoint=f"http://127.0.0.1:{unused_port()}", export_timeout_s=0.2, shutdown_s_max=0.5
    )
    with_some_telemetry(configure_telemetry(settings)).shutdown()


def test_a_silent_collector_does_not_hold_up_the_shutdown() -> None:
    """Nor does one that accepts connections and never answers, even where an export may take longer than a shutdown."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = TelemetrySettings(otlp_endpoint=endpoint, export_timeout_s=600.0, shutdown_s_max=0.2)
        with_some_telemetry(configure_telemetry(settings)).shutdown()


def test_the_export_timeout_is_the_configured_one() -> None:
    """The exporters get the timeout of the settings, not the SDK's ten seconds."""
    settings = TelemetrySettings(otlp_endpoint=f"http://127.0.0.1:{unused_port()}", export_timeout_s=1.25)
    telemetry = configure_telemetry(settings)
    assert telemetry._export is not None
    assert [exporter._timeout for exporter in telemetry._export.exporters] == [1.25, 1.25]
    telemetry.shutdown()


def test_off_builds_nothing_and_starts_no_thread() -> None:
    """Without an endpoint there is nothing to collect and nothing to shut down."""
    threads = set(threading.enumerate())
    telemetry = with_some_telemetry(configure_telemetry(TelemetrySettings()))
    assert set(threading.enumerate()) == threads
    assert telemetry.collect() is None
    telemetry.shutdown()


def test_the_process_wide_providers_stay_untouched() -> None:
    """Two servers in one process, or a server in an instrumented one, don't share telemetry by accident."""
    exporters = InMemorySpanExporter(), InMemorySpanExporter()
    servers = [configure_telemetry(TelemetrySettings(), span_exporter=exporter) for exporter in exporters]
    with_some_telemetry(servers[0])
    assert [len(exporter.get_finished_spans()) for exporter in exporters] == [1, 0]
    assert not isinstance(global_trace.get_tracer_provider(), TracerProvider)
    assert not isinstance(global_metrics.get_meter_provider(), MeterProvider)


def test_spans_and_metrics_name_their_service_and_schema() -> None:
    """The resource is the configured service; the scope says which semantic conventions the names are from."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    telemetry = configure_telemetry(
        TelemetrySettings(service_name="points-eu", service_version="1.2"), span_exporter=exporter, metric_reader=reader
    )
    with_some_telemetry(telemetry)
    (span,) = exporter.get_finished_spans()
    assert dict(span.resource.attributes) == {"service.name": "points-eu", "service.version": "1.2"}
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.schema_url == names.SCHEMA_URL
    read = reader.get_metrics_data()
    assert read is not None
    assert [dict(metrics.resource.attributes) for metrics in read.resource_metrics] == [dict(span.resource.attributes)]
    telemetry.shutdown()


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_a_ratio_lies_between_nothing_and_everything(ratio: float) -> None:
    """A share of traces outside 0..1 is refused."""
    with pytest.raises(AssertionError):
        TelemetrySettings(sample_ratio=ratio)


def test_the_names_are_those_of_the_semantic_conventions() -> None:
    """What is written out in `names` is what the installed conventions say."""
    for name in filter(str.isupper, dir(names)):
        for module in (gen_ai_attributes, rpc_attributes, error_attributes, http_attributes, server_attributes):
            if hasattr(module, name):
                assert getattr(names, name) == getattr(module, name), name
    assert any(schema.value == names.SCHEMA_URL for schema in Schemas)
    assert names.GEN_AI_PROVIDER_NAME == gen_ai_attributes.GEN_AI_PROVIDER_NAME


def test_an_exporter_is_given_what_the_collector_needs() -> None:
    """An https endpoint is called with TLS, an http one without: the URL decides, not the environment."""
    for scheme, insecure in (("http", True), ("https", False)):
        settings = TelemetrySettings(otlp_endpoint=f"{scheme}://127.0.0.1:{unused_port()}", export_timeout_s=0.1)
        telemetry = configure_telemetry(settings)
        assert telemetry._export is not None
        assert [exporter._insecure for exporter in telemetry._export.exporters] == [insecure, insecure]
        telemetry.shutdown()
