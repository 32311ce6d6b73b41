"""Metrics as Prometheus reads them: OpenMetrics with its exemplars, or the older text format for those who ask for no other.

Names follow OpenTelemetry's rules for Prometheus: dots become underscores, the unit is the last word of the name, a
counter ends in _total. So `pointsman.routing.duration` in seconds is `pointsman_routing_duration_seconds`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import HistogramDataPoint, Metric, MetricsData, NumberDataPoint, Sum

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"

UNITS = {"s": "seconds", "USD": "usd", "1": "", "{token}": ""}
"""How a unit is written at the end of a name; what is counted, such as {call}, stands in the name already."""


def prometheus_name(name: str, unit: str, *, is_counter: bool) -> str:
    """What Prometheus calls a metric."""
    suffix = UNITS.get(unit, "")
    written = name.replace(".", "_")
    written = f"{written}_{suffix}" if suffix and not written.endswith(suffix) else written
    return f"{written}_total" if is_counter else written


def exposition(collected: MetricsData | None, *, openmetrics: bool) -> str:
    """All metrics, as text."""
    metrics = [
        metric
        for resource in (() if collected is None else collected.resource_metrics)
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]
    lines = [line for metric in metrics for line in _lines(metric, openmetrics=openmetrics)]
    return "\n".join([*lines, "# EOF", ""] if openmetrics else [*lines, ""])


def _lines(metric: Metric, *, openmetrics: bool) -> Iterator[str]:
    is_counter = isinstance(metric.data, Sum)
    name = prometheus_name(metric.name, metric.unit or "", is_counter=is_counter)
    # OpenMetrics names a counter's family without the suffix of its samples.
    family = name.removesuffix("_total") if openmetrics else name
    points: Sequence[object] = metric.data.data_points
    kind = "counter" if is_counter else "histogram" if isinstance(points[0], HistogramDataPoint) else "gauge"
    yield f"# HELP {family} {_escaped(metric.description or '')}"
    yield f"# TYPE {family} {kind}"
    for point in points:
        if isinstance(point, HistogramDataPoint):
            yield from _distribution(name, point, openmetrics=openmetrics)
        elif isinstance(point, NumberDataPoint):
            yield f"{name}{_labels(point.attributes or {})} {_number(point.value)}"


def _distribution(name: str, point: HistogramDataPoint, *, openmetrics: bool) -> Iterator[str]:
    attributes = point.attributes or {}
    bounds = (*point.explicit_bounds, inf)
    last_bound = -inf
    for bound, count in zip(bounds, accumulate(point.bucket_counts), strict=True):
        example = _example(point.exemplars, above=last_bound, up_to=bound) if openmetrics else ""
        labels = _labels(attributes, ("le", _number(bound)))
        yield f"{name}_bucket{labels} {count}{example}"
        last_bound = bound
    yield f"{name}_sum{_labels(attributes)} {_number(point.sum)}"
    yield f"{name}_count{_labels(attributes)} {point.count}"


def _example(exemplars: Iterable[Exemplar], *, above: float, up_to: float) -> str:
    """The exemplar of a bucket, which names the trace that a value stands for."""
    for exemplar in exemplars:
        if above < exemplar.value <= up_to and exemplar.trace_id is not None and exemplar.span_id is not None:
            link = f'{{trace_id="{exemplar.trace_id:032x}",span_id="{exemplar.span_id:016x}"}}'
            return f" # {link} {_number(exemplar.value)} {exemplar.time_unix_nano / 1e9:.3f}"
    return ""


def _labels(attributes: Mapping[str, object], *further: tuple[str, str]) -> str:
    pairs = [*((key.replace(".", "_"), str(value)) for key, value in attributes.items()), *further]
    return "{" + ",".join(f'{key}="{_escaped(value, quoted=True)}"' for key, value in pairs) + "}" if pairs else ""


def _escaped(text: str, *, quoted: bool = False) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quoted else escaped


def _number(value: float) -> str:
    return "+Inf" if value == inf else repr(value)
