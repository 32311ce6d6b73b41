"""Figures: how they add up, what they refer to, and that there are never too many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import Gauge, Histogram, HistogramDataPoint, NumberDataPoint, Sum
from opentelemetry.sdk.resources import Resource
from pointsman_server.telemetry import series
from pointsman_server.telemetry.series import OVERFLOW, Registry
from pointsman_server.telemetry.trace_context import TraceContext

KEY = (("endpoint", "a@b"),)
SPAN = TraceContext(0xABC, 0xDEF, is_sampled=True)


def a_registry() -> Registry:
    """A registry in which no time passes."""
    return Registry(Resource({}), unix_ns=lambda: 7)


def histogram_points(registry: Registry) -> list[HistogramDataPoint]:
    """The points of the registry's one instrument."""
    collected = registry.collect()
    assert collected is not None
    (metric,) = collected.resource_metrics[0].scope_metrics[0].metrics
    assert isinstance(metric.data, Histogram)
    return list(metric.data.data_points)


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 100.0]), min_size=1))
def test_a_histogram_counts_each_value_in_its_bucket(recorded: list[float]) -> None:
    """A bucket holds what is above the bound before and not above its own; sum, least and greatest are those of all."""
    registry = a_registry()
    histogram = registry.histogram("h", "s", "", (0.0, 1.0, 2.0))
    for value in recorded:
        histogram.record(value, KEY)
    (point,) = histogram_points(registry)
    edges = ((float("-inf"), 0.0), (0.0, 1.0), (1.0, 2.0), (2.0, float("inf")))
    assert list(point.bucket_counts) == [sum(low < value <= high for value in recorded) for low, high in edges]
    assert (point.count, point.sum) == (len(recorded), sum(recorded))
    assert (point.min, point.max) == (min(recorded), max(recorded))


def test_a_figure_refers_to_the_last_recorded_span_of_each_bucket() -> None:
    """A value that came about in a recorded span is the example of its bucket until another one is."""
    registry = a_registry()
    histogram = registry.histogram("h", "s", "", (1.0,))
    for value, example in ((0.25, SPAN), (0.5, SPAN), (0.75, None), (5.0, SPAN._replace(trace_id=2))):
        histogram.at(KEY).record(value, example)
    (point,) = histogram_points(registry)
    assert [(each.value, each.trace_id, each.span_id) for each in point.exemplars] == [(0.5, 0xABC, 0xDEF), (5.0, 2, 0xDEF)]  # fmt: skip


def test_series_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What finds no place of its own is counted together, in the series that OpenTelemetry names for it."""
    monkeypatch.setattr(series, "SERIES_COUNT_MAX", 2)
    registry = a_registry()
    counter, histogram = registry.counter("c", "1", ""), registry.histogram("h", "1", "", (1.0,))
    for number in range(5):
        counter.add(1, (("key", str(number)),))
        histogram.record(1.0, (("key", str(number)),))
    collected = registry.collect()
    assert collected is not None
    counted, distributed = collected.resource_metrics[0].scope_metrics[0].metrics
    assert isinstance(counted.data, Sum)
    assert isinstance(distributed.data, Histogram)
    assert {str(point.attributes): point.value for point in counted.data.data_points} == {
        "{'key': '0'}": 1,
        "{'key': '1'}": 1,
        str(dict(OVERFLOW)): 3,
    }
    assert [point.count for point in distributed.data.data_points] == [1, 1, 3]


def test_what_is_observed_is_asked_for_when_it_is_read() -> None:
    """A figure that stands elsewhere shows what it is then; nobody asked, nothing shown."""
    registry = a_registry()
    gauge, total = registry.observed("g", "1", ""), registry.observed("t", "1", "", only_grows=True)
    assert registry.collect() is None
    present = [1.0]
    gauge.reading = lambda: [(KEY, present[0])]
    total.reading = lambda: [((), 5)]
    present[0] = 2.0
    collected = registry.collect()
    assert collected is not None
    shown, grown = collected.resource_metrics[0].scope_metrics[0].metrics
    assert isinstance(shown.data, Gauge)
    assert isinstance(grown.data, Sum)
    (point,) = shown.data.data_points
    assert isinstance(point, NumberDataPoint)
    assert (point.value, dict(point.attributes or {}), point.time_unix_nano) == (2.0, dict(KEY), 7)


def test_two_instruments_of_one_name_are_a_mistake() -> None:
    """Whoever names a second one like a first is told."""
    registry = a_registry()
    registry.counter("c", "1", "")
    with pytest.raises(AssertionError, match="c"):
        registry.counter("c", "1", "")
