"""Metrics for Prometheus: read by its own parsers, and over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource
from pointsman_server.telemetry.exposition import OPENMETRICS, PLAIN, exposition, prometheus_name
from pointsman_server.telemetry.scrape import CONNECTION_COUNT_MAX, ScrapeServer
from pointsman_server.telemetry.series import Registry
from pointsman_server.telemetry.trace_context import TraceContext
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as plain_families
from prometheus_client.samples import Timestamp

NAME = 'a "name"\n\\ of an endpoint'


@pytest.fixture
def collected() -> MetricsData | None:
    """A counter, a histogram and a gauge, one of them with an awkward label."""
    registry = Registry(Resource({}), unix_ns=lambda: 1_500_000_000)
    registry.counter("points.cost", "USD", "What\nit cost.").add(1.5, (("points.endpoint", NAME),))
    durations = registry.histogram("points.duration", "s", "How long.", (0.1, 1.0))
    durations.record(0.05, ())
    durations.at(()).record(0.5, TraceContext(0xABC, 0xDEF, is_sampled=True))
    durations.record(7.0, ())
    registry.observed("points.in_flight", "{call}", "Now.").reading = lambda: [((), 3)]
    return registry.collect()


def samples(families: Iterable[Any]) -> Iterator[tuple[str, dict[str, str], float, Any]]:
    """Name, labels, value and exemplar of everything that was read."""
    for family in families:
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value, sample.exemplar


@pytest.mark.parametrize("openmetrics", [True, False])
def test_prometheus_reads_what_was_recorded(collected: MetricsData | None, *, openmetrics: bool) -> None:
    """Both formats say the same in the words of Prometheus; the newer one names the trace behind a value."""
    text = exposition(collected, openmetrics=openmetrics)
    families = list(openmetrics_families(text) if openmetrics else plain_families(text))  # type: ignore[no-untyped-call]
    read = list(samples(families))
    assert [(name, labels, value) for name, labels, value, _ in read] == [
        ("points_cost_usd_total", {"points_endpoint": NAME}, 1.5),
        ("points_duration_seconds_bucket", {"le": "0.1"}, 1.0),
        ("points_duration_seconds_bucket", {"le": "1.0"}, 2.0),
        ("points_duration_seconds_bucket", {"le": "+Inf"}, 3.0),
        ("points_duration_seconds_sum", {}, 7.55),
        ("points_duration_seconds_count", {}, 3.0),
        ("points_in_flight", {}, 3.0),
    ]
    assert [family.type for family in families] == ["counter", "histogram", "gauge"]
    exemplars = [exemplar for *_, exemplar in read if exemplar]
    if openmetrics:
        (exemplar,) = exemplars
        assert exemplar.labels == {"trace_id": f"{0xABC:032x}", "span_id": f"{0xDEF:016x}"}
        assert (exemplar.value, exemplar.timestamp) == (0.5, Timestamp(1, 500_000_000))
    else:
        assert exemplars == []


def test_names_follow_the_rules_of_opentelemetry() -> None:
    """Dots become underscores, and the unit stands at the end once."""
    assert prometheus_name("pointsman.routing.duration", "s", is_counter=False) == "pointsman_routing_duration_seconds"
    assert prometheus_name("pointsman.cost", "USD", is_counter=True) == "pointsman_cost_usd_total"
    assert prometheus_name("pointsman.hedges", "{hedge}", is_counter=True) == "pointsman_hedges_total"
    assert prometheus_name("pointsman.probe.tokens", "{token}", is_counter=True) == "pointsman_probe_tokens_total"


async def test_metrics_are_served_over_http(collected: MetricsData | None) -> None:
    """Who accepts OpenMetrics gets it, others the older format; nothing else is served, and nothing can be changed."""
    async with ScrapeServer("127.0.0.1", 0, lambda: collected) as server, httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{server.port}"
        accepted = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
        newer = await client.get(f"{url}/metrics?x=1", headers={"accept": accepted})
        older = await client.get(f"{url}/metrics")
        head = await client.head(f"{url}/metrics")
        refused = [(await client.get(url)).status_code, (await client.post(f"{url}/metrics")).status_code]
    assert (newer.headers["content-type"], newer.text) == (OPENMETRICS, exposition(collected, openmetrics=True))
    assert (older.headers["content-type"], older.text) == (PLAIN, exposition(collected, openmetrics=False))
    assert (head.status_code, head.content) == (200, b"")
    assert refused == [404, 405]


async def test_what_is_no_http_is_left_alone() -> None:
    """Noise ends its own connection; connections beyond the bound are closed at once, and those within it still serve."""
    async with ScrapeServer("127.0.0.1", 0, lambda: None) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"\x16\x03\x01 no request\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(CONNECTION_COUNT_MAX)]
        refused, refused_writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await refused.read() == b""
        refused_writer.close()
        first, first_writer = held[0]
        first_writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await first.read()).startswith(b"HTTP/1.1 200 ")
        for _, opened in held:
            opened.close()
