"""Router strings that are kept as read."""

from __future__ import annotations

import pytest
from pointsman_server.decision.router_string import RouterStringError, parse_router_string
from pointsman_server.edge.convert import KEPT_STRING_LENGTH_MAX, router_string_from_text


def test_what_is_kept_is_what_was_read() -> None:
    """Asked for again, a string gives the very same thing; one that is too long to be kept is read each time, alike."""
    short = "router@q:1|c:4.65e-03|ttft<500"
    long = "router@q:1|models:" + ",".join(f"model-{number}" for number in range(KEPT_STRING_LENGTH_MAX // 4))
    for text in (short, long):
        assert router_string_from_text(text) == router_string_from_text(text) == parse_router_string(text)
    assert router_string_from_text(short) is router_string_from_text(short)
    assert router_string_from_text(long) is not router_string_from_text(long)


def test_what_can_not_be_read_is_refused_each_time() -> None:
    """A fault is not forgotten."""
    for _ in range(2):
        with pytest.raises(RouterStringError):
            router_string_from_text("router@@")
