"""Counters, histograms and gauges: the figures themselves, and how they are read.

OpenTelemetry's SDK takes some ten microseconds to record one value, and a request records twenty. Here each series is an
object: who records the same ones again and again keeps hold of them, and pays for an addition. Read they are in the SDK's
own form, so that its exporter and whoever else takes that are served as they are used to.

Values are recorded by one thread and may be read by another: a reading may miss what is recorded meanwhile, no more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Protocol, TypeAlias, TypeVar

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource

from pointsman_server.telemetry import names
from pointsman_server.telemetry.span_record import SCOPE
from pointsman_server.telemetry.trace_context import TraceContext

SERIES_COUNT_MAX = 20_000
"""Of one instrument: a thousand endpoints under twenty routers. What is beyond shares one series (OVERFLOW)."""

Key: TypeAlias = tuple[tuple[str, str], ...]
"""The attributes of a series."""
Reading: TypeAlias = Callable[[], Iterable[tuple[Key, float]]]
"""Asks whoever knows for a figure's present values."""

_InstrumentT = TypeVar("_InstrumentT", bound="Instrument")

OVERFLOW: Key = ((names.METRIC_OVERFLOW, "true"),)
"""By the OpenTelemetry specification, the series of all that found no place of their own."""

_CUMULATIVE = AggregationTemporality.CUMULATIVE


class Instrument(Protocol):
    """Something that can be read."""

    name: str

    def read(self, *, start_unix_ns: int, now_unix_ns: int) -> Metric | None:
        """All its series; None while it has none."""


class Total:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float | None = None
        """None: nothing was added yet, and there is nothing to show."""

    def __repr__(self) -> str:
        return f"Total({self.value})"

    def add(self, value: float) -> None:
        """Adds to the sum."""
        self.value = value if self.value is None else self.value + value


class CounterSeries:
    """Sums that only grow, by their attributes."""

    def __init__(self, name: str, unit: str, description: str) -> None:
        self.name = name
        self._unit = unit
        self._description = description
        self._totals: dict[Key, Total] = {}

    def __repr__(self) -> str:
        return f"CounterSeries({self.name!r}, {self._totals})"

    def at(self, key: Key) -> Total:
        """The series of these attributes."""
        totals = self._totals
        if key not in totals and len(totals) >= SERIES_COUNT_MAX:
            key = OVERFLOW
        return totals.get(key) or totals.setdefault(key, Total())

    def add(self, value: float, key: Key = ()) -> None:
        """Adds to the sum of these attributes."""
        self.at(key).add(value)

    def read(self, *, start_unix_ns: int, now_unix_ns: int) -> Metric | None:
        """See `Instrument`."""
        points = [
            NumberDataPoint(dict(key), start_unix_ns, now_unix_ns, total.value)
            for key, total in list(self._totals.items())
            if total.value is not None
        ]
        if not points:
            return None
        return Metric(self.name, self._description, self._unit, Sum(points, _CUMULATIVE, is_monotonic=True))


class Distribution:
    """One series of a histogram."""

    __slots__ = ("_bounds", "_unix_ns", "counts", "examples", "maximum", "minimum", "total")

    def __init__(self, bounds: Sequence[float], unix_ns: Callable[[], int]) -> None:
        self._bounds = bounds
        self._unix_ns = unix_ns
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.minimum, self.maximum = inf, -inf
        self.examples: dict[int, tuple[float, int, TraceContext]] = {}
        """By bucket, the last value that a recorded span stands behind, when it came about, and that span."""

    def __repr__(self) -> str:
        return f"Distribution({self.counts})"

    def record(self, value: float, example: TraceContext | None = None) -> None:
        """Adds a value. `example` is the span in which it came about, if that is recorded."""
        if value < self.minimum:  # noqa: PLR1730  # to call `min` would take as long as all of the rest
            self.minimum = value
        if value > self.maximum:  # noqa: PLR1730  # likewise
            self.maximum = value
        self.total += value
        bucket = bisect_left(self._bounds, value)
        self.counts[bucket] += 1
        if example is not None:
            self.examples[bucket] = (value, self._unix_ns(), example)


class HistogramSeries:
    """Distributions by their attributes."""

    def __init__(
        self, name: str, unit: str, description: str, bounds: Sequence[float], *, unix_ns: Callable[[], int]
    ) -> None:
        """Nothing is recorded yet. `bounds` are the greatest values of all buckets but the last, which has none."""
        self.name = name
        self._unit = unit
        self._description = description
        self._bounds = tuple(bounds)
        self._unix_ns = unix_ns
        self._distributions: dict[Key, Distribution] = {}

    def __repr__(self) -> str:
        return f"HistogramSeries({self.name!r}, {self._distributions})"

    def at(self, key: Key) -> Distribution:
        """The series of these attributes."""
        distributions = self._distributions
        if key not in distributions and len(distributions) >= SERIES_COUNT_MAX:
            key = OVERFLOW
        return distributions.get(key) or distributions.setdefault(key, Distribution(self._bounds, self._unix_ns))

    def record(self, value: float, key: Key) -> None:
        """Adds a value to the series of these attributes."""
        self.at(key).record(value)

    def read(self, *, start_unix_ns: int, now_unix_ns: int) -> Metric | None:
        """See `Instrument`."""
        points = []
        for key, distribution in list(self._distributions.items()):
            counts = tuple(distribution.counts)
            if not any(counts):
                continue
            points.append(
                HistogramDataPoint(
                    dict(key),
                    start_unix_ns,
                    now_unix_ns,
                    count=sum(counts),
                    sum=distribution.total,
                    bucket_counts=counts,
                    explicit_bounds=self._bounds,
                    min=distribution.minimum,
                    max=distribution.maximum,
                    exemplars=[
                        Exemplar({}, value, unix_ns, span.span_id, span.trace_id)
                        for _, (value, unix_ns, span) in sorted(distribution.examples.copy().items())
                    ],
                )
            )
        if not points:
            return None
        return Metric(self.name, self._description, self._unit, Histogram(points, _CUMULATIVE))


class ObservedSeries:
    """Figures that stand somewhere else and are asked for when they are read."""

    def __init__(self, name: str, unit: str, description: str, *, only_grows: bool) -> None:
        self.name = name
        self._unit = unit
        self._description = description
        self._only_grows = only_grows
        self.reading: Reading | None = None
        """Who knows; None: nobody."""

    def read(self, *, start_unix_ns: int, now_unix_ns: int) -> Metric | None:
        """See `Instrument`."""
        points = [
            NumberDataPoint(dict(key), start_unix_ns, now_unix_ns, value)
            for key, value in (() if self.reading is None else self.reading())
        ]
        if not points:
            return None
        shown = Sum(points, _CUMULATIVE, is_monotonic=True) if self._only_grows else Gauge(points)
        return Metric(self.name, self._description, self._unit, shown)


class Registry:
    """All instruments of a server, made once and read together."""

    def __init__(self, resource: Resource, *, unix_ns: Callable[[], int]) -> None:
        self._resource = resource
        self._unix_ns = unix_ns
        self._start_unix_ns = unix_ns()
        self._instruments: list[Instrument] = []
        self.before_reading: list[Callable[[], None]] = []
        """Called each time before the instruments are read."""

    def counter(self, name: str, unit: str, description: str) -> CounterSeries:
        """A new counter."""
        return self._kept(CounterSeries(name, unit, description))

    def histogram(self, name: str, unit: str, description: str, bounds: Sequence[float]) -> HistogramSeries:
        """A new histogram; see there for its bounds."""
        return self._kept(HistogramSeries(name, unit, description, bounds, unix_ns=self._unix_ns))

    def observed(self, name: str, unit: str, description: str, *, only_grows: bool = False) -> ObservedSeries:
        """A new figure that is asked for when it is read; nobody answers for it yet."""
        return self._kept(ObservedSeries(name, unit, description, only_grows=only_grows))

    def collect(self) -> MetricsData | None:
        """What all instruments show now; None while none shows anything."""
        for prepare in self.before_reading:
            prepare()
        now_unix_ns = self._unix_ns()
        read = [
            metric
            for instrument in self._instruments
            if (metric := instrument.read(start_unix_ns=self._start_unix_ns, now_unix_ns=now_unix_ns)) is not None
        ]
        if not read:
            return None
        return MetricsData(
            [ResourceMetrics(self._resource, [ScopeMetrics(SCOPE, read, names.SCHEMA_URL)], names.SCHEMA_URL)]
        )

    def _kept(self, instrument: _InstrumentT) -> _InstrumentT:
        assert all(instrument.name != other.name for other in self._instruments), instrument.name
        self._instruments.append(instrument)
        return instrument
