"""The W3C trace context (https://www.w3.org/TR/trace-context/): which trace a call belongs to, as headers carry it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from opentelemetry.trace import TraceState

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
_SAMPLED = 0x01
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACEPARENT_CHARACTER_COUNT_MAX = 512
"""Later versions of the format may append fields; this leaves room for them and no more."""


class TraceContext(NamedTuple):
    """One span, as others refer to it."""

    trace_id: int
    """128 bits, not 0."""
    span_id: int
    """64 bits, not 0."""
    is_sampled: bool
    """Whether whoever began the trace records it."""
    state: str = ""
    """What other tracing systems have to say, as `tracestate` writes it; empty where there is nothing."""

    def headers(self) -> tuple[tuple[str, str], ...]:
        """What a called service is sent."""
        parent = f"00-{self.trace_id:032x}-{self.span_id:016x}-{'01' if self.is_sampled else '00'}"
        return ((TRACEPARENT, parent), (TRACESTATE, self.state)) if self.state else ((TRACEPARENT, parent),)


def trace_context(metadata: Iterable[tuple[str, str]]) -> TraceContext | None:
    """The caller's span, of a call's metadata with its keys in lower case; None where it names none that can be read.

    Nothing else of the metadata is read.
    """
    parent, states = None, []
    for key, value in metadata:
        if key == TRACEPARENT:
            if parent is not None:
                return None
            parent = value
        elif key == TRACESTATE:
            states.append(value)
    if parent is None or len(parent) > _TRACEPARENT_CHARACTER_COUNT_MAX:
        return None
    found = _TRACEPARENT.fullmatch(parent)
    if found is None or (found[1] == "00" and found[5] is not None):
        return None
    # What the format does not allow is left out.
    state = TraceState.from_header(states).to_header() if states else ""
    return TraceContext(int(found[2], 16), int(found[3], 16), bool(int(found[4], 16) & _SAMPLED), state)
