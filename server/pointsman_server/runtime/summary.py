"""What the aggregator knows for longer than a minute, as it is saved and restored: levels, what they grow with, the hours
of the day, limits. Pure: text in, text out.

Times are seconds since 1970, so that they mean the same after a restart, and what is restored is as old as it is: the
doubt about a level grows with the age of its last observation. What is of the moment (calls under way, the last minute's
outcomes, breakers) is not kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from pointsman_server.errors import PointsmanError

SCHEMA = "pointsman.runtime/3"
"""Another number for whatever can't be read as this one."""
ENDPOINT_COUNT_MAX = 4096
"""As many as a tracker keeps."""
NAME_LENGTH_MAX = 512
"""Of an endpoint; the catalog's names are shorter."""
FIGURE_MAX = 1e12
"""No figure here is as large, seconds since 1970 included."""
SIGNIFICANT_DIGIT_COUNT = 10
"""Of what is written: seconds since 1970 to the second, and all else better than it is known."""
HOUR_COUNT = 24

JsonValue = None | bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]


class RuntimeStateError(PointsmanError):
    """A saved state can't be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthSummary:
    """See `level.Growth`."""

    scale: float
    exponent: float
    variance: float
    usual: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsSummary:
    """See `sessions.Sessions`."""

    count: int
    mean: float
    mean_s: float
    squares: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelSummary:
    """See `level.LevelFilter`."""

    observation_count: int
    intercept: float
    intercept_variance: float
    cross_load: float
    cross_length: float
    cross_slopes: float
    spread: float
    seen_unix_s: float
    load: GrowthSummary
    length: GrowthSummary
    sessions: SessionsSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class DurationSummary:
    """See `estimators.DurationEstimator`."""

    level: LevelSummary
    hour_means: tuple[float, ...]
    hour_day_counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSummary:
    """See `limits.RateLimits`."""

    rate_per_s: float | None
    refused_unix_s: float
    doubling_count: int
    concurrency: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSummary:
    """What is kept of one endpoint. None: nothing is known."""

    name: str
    observed_unix_s: float
    gap_count: float
    ttft: DurationSummary | None
    inter_token: DurationSummary | None
    limit: LimitSummary | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSummary:
    """What is kept of all, those last that were called last."""

    endpoints: tuple[EndpointSummary, ...]


def summary_text(summary: RuntimeSummary) -> str:
    """The summary as JSON, about 2 kB for each endpoint."""
    root = {"schema": SCHEMA, "endpoints": _rounded([asdict(endpoint) for endpoint in summary.endpoints])}
    return json.dumps(root, separators=(",", ":"), allow_nan=False)


def parse_summary(text: str) -> RuntimeSummary:
    """The summary in a text that `summary_text` made.

    Raises:
        RuntimeStateError: It is none, of another schema, or holds impossible figures; the first fault is named.
    """
    try:
        root = _Object(json.loads(text), "")
    except (ValueError, RecursionError):
        raise RuntimeStateError("it is not JSON") from None
    if root.text("schema") != SCHEMA:
        raise RuntimeStateError(f"schema must be {SCHEMA!r}")
    endpoints = root.items("endpoints", count_max=ENDPOINT_COUNT_MAX)
    found = tuple(_endpoint(_Object(value, f"endpoints[{index}]")) for index, value in enumerate(endpoints))
    if len({endpoint.name for endpoint in found}) < len(found):
        raise RuntimeStateError("endpoints has one name twice")
    return RuntimeSummary(endpoints=found)


def _rounded(value: JsonValue) -> JsonValue:
    """The same with figures as long as they mean something."""
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGIT_COUNT}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value


class _Object:
    """A JSON object that is read strictly: each member by its type and range."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise RuntimeStateError(f"{path or 'it'} must be an object")
        self._members: dict[str, object] = value
        self._path = path

    def __bool__(self) -> bool:
        return True

    def _fault(self, key: str, wanted: str) -> RuntimeStateError:
        return RuntimeStateError(f"{self._path}.{key} must be {wanted}".removeprefix("."))

    def text(self, key: str) -> str:
        value = self._members.get(key)
        if not isinstance(value, str) or not 0 < len(value) <= NAME_LENGTH_MAX:
            raise self._fault(key, "a text")
        return value

    def figure(self, key: str, *, low: float = -FIGURE_MAX, high: float = FIGURE_MAX) -> float:
        return _figure(self._members.get(key), low, high, self._fault(key, f"a number from {low:g} to {high:g}"))

    def count(self, key: str) -> int:
        value = self._members.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= FIGURE_MAX:
            raise self._fault(key, "a count")
        return value

    def optional_figure(self, key: str, *, low: float) -> float | None:
        return None if self._members.get(key) is None else self.figure(key, low=low)

    def items(self, key: str, *, count_max: int) -> list[object]:
        value = self._members.get(key)
        if not isinstance(value, list) or len(value) > count_max:
            raise self._fault(key, f"a list of at most {count_max}")
        return value

    def figures(self, key: str, *, low: float, high: float) -> tuple[float, ...]:
        values = self.items(key, count_max=HOUR_COUNT)
        fault = self._fault(key, f"{HOUR_COUNT} numbers from {low:g} to {high:g}")
        if len(values) != HOUR_COUNT:
            raise fault
        return tuple(_figure(value, low, high, fault) for value in values)

    def object(self, key: str) -> _Object:
        return _Object(self._members.get(key), f"{self._path}.{key}")

    def optional_object(self, key: str) -> _Object | None:
        return None if self._members.get(key) is None else self.object(key)


def _figure(value: object, low: float, high: float, fault: RuntimeStateError) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise fault
    return float(value)


def _endpoint(read: _Object) -> EndpointSummary:
    ttft, inter_token, limit = (read.optional_object(key) for key in ("ttft", "inter_token", "limit"))
    return EndpointSummary(
        name=read.text("name"),
        observed_unix_s=read.figure("observed_unix_s"),
        gap_count=read.figure("gap_count", low=0.0),
        ttft=None if ttft is None else _duration(ttft),
        inter_token=None if inter_token is None else _duration(inter_token),
        limit=None if limit is None else _limit(limit),
    )


def _duration(read: _Object) -> DurationSummary:
    return DurationSummary(
        level=_level(read.object("level")),
        hour_means=read.figures("hour_means", low=-50.0, high=50.0),
        hour_day_counts=tuple(math.floor(count) for count in read.figures("hour_day_counts", low=0.0, high=1e6)),
    )


def _level(read: _Object) -> LevelSummary:
    return LevelSummary(
        observation_count=read.count("observation_count"),
        intercept=read.figure("intercept", low=-1e3, high=1e3),
        intercept_variance=read.figure("intercept_variance", low=0.0),
        cross_load=read.figure("cross_load"),
        cross_length=read.figure("cross_length"),
        cross_slopes=read.figure("cross_slopes"),
        spread=read.figure("spread", low=1e-6, high=1e3),
        seen_unix_s=read.figure("seen_unix_s"),
        load=_growth(read.object("load")),
        length=_growth(read.object("length")),
        sessions=_sessions(read.object("sessions")),
    )


def _sessions(read: _Object) -> SessionsSummary:
    return SessionsSummary(
        count=read.count("count"),
        mean=read.figure("mean", low=-1e3, high=1e3),
        mean_s=read.figure("mean_s", low=1e-100, high=1e100),
        squares=read.figure("squares", low=0.0, high=1e6),
    )


def _growth(read: _Object) -> GrowthSummary:
    return GrowthSummary(
        scale=read.figure("scale", low=1e-3, high=1e9),
        exponent=read.figure("exponent", low=-1e3, high=1e3),
        variance=read.figure("variance", low=0.0),
        usual=read.figure("usual", low=0.0),
    )


def _limit(read: _Object) -> LimitSummary:
    return LimitSummary(
        rate_per_s=read.optional_figure("rate_per_s", low=1e-6),
        refused_unix_s=read.figure("refused_unix_s"),
        doubling_count=read.count("doubling_count"),
        concurrency=read.optional_figure("concurrency", low=1.0),
    )
