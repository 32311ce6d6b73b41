"""Tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.duration_pb2 import Duration
from pointsman import Candidate, Decision, EndpointStatus, Router, seconds
from pointsman.explanation import (
    CANDIDATE_COLUMNS,
    UNKNOWN,
    candidate_cells,
    headline,
    latency_range,
    rejection_text,
    shadow_text,
)
from pointsman.v1.routing_pb2 import BreakerState, Endpoint, EndpointRuntime
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

_KEPT_COLUMN_COUNT = 2
"""Columns that are shown on the narrowest terminal, wrapped if need be: of what, and the first thing about it."""

_WIDTH_MAX = 10_000
"""More than any table needs, to learn how much that is."""

_BREAKER_WORDS = {
    BreakerState.BREAKER_STATE_CLOSED: ("closed", "green"),
    BreakerState.BREAKER_STATE_HALF_OPEN: ("half-open", "yellow"),
    BreakerState.BREAKER_STATE_OPEN: ("open", "red"),
}
"""Each state with its word and colour."""


Row = tuple[Sequence[str | Text], str]
"""The cells of a row, and its style."""


def fitting_table(screen: Console, columns: Sequence[str], rows: Sequence[Row]) -> Table:
    """A table without a frame, of as many columns as fit: a narrow terminal loses whole ones, the last first."""
    unlimited = screen.options.update(width=_WIDTH_MAX)
    for count in range(len(columns), _KEPT_COLUMN_COUNT, -1):
        table = _table(columns[:count], rows)
        if screen.measure(table, options=unlimited).maximum <= screen.width:
            return table
    return _table(columns[:_KEPT_COLUMN_COUNT], rows)


def _table(columns: Sequence[str], rows: Sequence[Row]) -> Table:
    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for cells, style in rows:
        table.add_row(*cells[: len(columns)], style=style)
    return table


def decision_report(screen: Console, decision: Decision) -> RenderableType:
    """The choice in one line, what each candidate would give, and dimmed why the others are out."""
    rows: list[Row] = [
        (candidate_cells(candidate), "bold green" if candidate.endpoint == decision.endpoint else "")
        for candidate in decision.candidates
        if not candidate.rejections
    ]
    rejected = [candidate for candidate in decision.candidates if candidate.rejections]
    parts: list[RenderableType] = [Text(headline(decision), style="bold")]
    if rows:
        parts += ["", fitting_table(screen, CANDIDATE_COLUMNS, rows)]
    if rejected:
        parts += ["", rejections_table(screen, rejected)]
    if decision.shadows:
        parts += ["", *(Text(shadow_text(decision, shadow)) for shadow in decision.shadows)]
    return Group(*parts)


def rejections_table(screen: Console, candidates: Iterable[Candidate]) -> Table:
    """Why each of these is out."""
    rows: list[Row] = [((candidate.endpoint, rejection_text(candidate)), "dim") for candidate in candidates]
    return fitting_table(screen, ("rejected", "why"), rows)


def endpoints_table(screen: Console, endpoints: Iterable[EndpointStatus]) -> Table:
    """What was observed of each endpoint of late, and what it costs."""
    columns = (
        *("endpoint", "ttft p50/p95", "itl p50/p95", "errors", "breaker", "busy", "$/M in", "$/M out"),
        *("observed", "tokens/s", "context"),
    )
    return fitting_table(screen, columns, [(_endpoint_cells(status), "") for status in endpoints])


def _endpoint_cells(status: EndpointStatus) -> tuple[str | Text, ...]:
    endpoint, runtime = status.endpoint, status.runtime
    breaker, colour = _BREAKER_WORDS.get(runtime.breaker_state, (UNKNOWN, ""))
    pause = f" {seconds(runtime.retry_after):.0f} s" if runtime.HasField("retry_after") else ""
    return (
        endpoint.name,
        latency_range(runtime.ttft),
        latency_range(runtime.inter_token_latency),
        _optional(runtime, "error_rate", ".1%"),
        Text(f"{breaker}{pause}", style=colour),
        str(runtime.in_flight_count),
        _optional(endpoint, "input_price_usd_per_million_tokens", "g"),
        _optional(endpoint, "output_price_usd_per_million_tokens", "g"),
        f"{_age(runtime.age)} ago" if runtime.HasField("age") else "never",
        _optional(runtime, "output_tokens_per_second", ".0f"),
        _optional(endpoint, "max_context_token_count", ","),
    )


def routers_report(screen: Console, routers: Sequence[Router]) -> RenderableType:
    """The named routers, and below them which updates of their quality artifacts were refused, and why."""
    refused = [
        Text(f"{router.name}: an update of its quality model was refused: {router.quality_artifact.refused_update}")
        for router in routers
        if router.quality_artifact.refused_update
    ]
    return Group(_routers_table(screen, routers), *refused)


def _routers_table(screen: Console, routers: Iterable[Router]) -> Table:
    rows: list[Row] = []
    for router in routers:
        artifact = router.quality_artifact
        named = f"{artifact.name}@{artifact.version}" if router.HasField("quality_artifact") else "none"
        split = ", ".join(f"{arm.share:.4g} {arm.router}" for arm in router.split)
        shadows = ", ".join(router.shadows)
        rows.append(((router.name, router.text, router.description, router.version, named, split, shadows), ""))
    columns = ("router", "what it does", "description", "version", "quality model", "split", "shadows")
    return fitting_table(screen, columns, rows)


def _optional(message: Endpoint | EndpointRuntime, field: str, form: str) -> str:
    """A number that may be absent."""
    present = any(each.name == field for each, _ in message.ListFields())
    return format(getattr(message, field), form) if present else UNKNOWN


def _age(age: Duration) -> str:
    age_s = seconds(age)
    return f"{age_s:.1f} s" if age_s < 60 else f"{age_s / 60:.0f} min"
