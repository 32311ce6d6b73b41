"""What providers' headers say of further requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.chat import RequestAllowance
from pointsman_server.providers.request_allowance import RESET_S_MAX, RESET_S_MIN, request_allowance

NOW_UNIX_S = 1_700_000_000.0
"""2023-11-14T22:13:20Z."""


def openai(limit: str, remaining: str, reset: str) -> dict[str, str]:
    """As OpenAI and those who follow it send them."""
    return {
        "x-ratelimit-limit-requests": limit,
        "x-ratelimit-remaining-requests": remaining,
        "x-ratelimit-reset-requests": reset,
    }


@pytest.mark.parametrize(
    ("reset", "reset_s"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("120ms", 0.12),
        ("1h0m0.5s", 3600.5),
        ("2m59.56s", 179.56),
        ("23h1m", 82_860.0),
        ("7.66s", 7.66),
        ("0s", RESET_S_MIN),
        ("60", 60.0),
        ("2023-11-14T22:13:50Z", 30.0),
        ("2023-11-14T22:13:50", 30.0),
        ("2023-11-14T22:13:00Z", RESET_S_MIN),
        ("2043-11-14T22:13:00Z", RESET_S_MAX),
    ],
)
def test_each_form_of_the_reset_is_read(reset: str, reset_s: float) -> None:
    """Durations in any units, plain seconds and moments; what is over is over at once, what is far is cut to a day."""
    allowance = request_allowance(openai("60", "59", reset), now_unix_s=NOW_UNIX_S)
    assert allowance is not None
    assert (allowance.limit_count, allowance.remaining_count) == (60, 59)
    assert allowance.reset_s == pytest.approx(reset_s)


def test_anthropic_names_them_in_another_order() -> None:
    """The same three figures, the reset as a moment."""
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2023-11-14T22:14:20Z",
    }
    expected = RequestAllowance(limit_count=50, remaining_count=0, reset_s=60.0)
    assert request_allowance(headers, now_unix_s=NOW_UNIX_S) == expected


@pytest.mark.parametrize(
    "headers",
    [
        {},
        openai("", "5", "1s"),
        openai("60", "-1", "1s"),
        openai("60", "5", ""),
        openai("60", "5", "soon"),
        openai("60", "5", "1sm"),
        openai("60", "٣", "1s"),
        openai("99999999999", "5", "1s"),
        {"x-ratelimit-remaining-requests": "5"},
    ],
)
def test_what_is_incomplete_says_nothing(headers: dict[str, str]) -> None:
    """A rest without its limit or its reset, and nonsense, limit nothing."""
    assert request_allowance(headers, now_unix_s=NOW_UNIX_S) is None


def test_nobody_has_more_left_than_is_admitted() -> None:
    """A provider that counts differently is taken at its lower figure."""
    allowance = request_allowance(openai("10", "12", "1s"), now_unix_s=NOW_UNIX_S)
    assert allowance == RequestAllowance(limit_count=10, remaining_count=10, reset_s=1.0)


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=40) | st.from_regex(r"[0-9hms.]{1,20}"))
def test_nothing_a_provider_sends_breaks_it(limit: str, remaining: str, reset: str) -> None:
    """Any text gives None or an allowance within the bounds."""
    allowance = request_allowance(openai(limit, remaining, reset), now_unix_s=NOW_UNIX_S)
    assert allowance is None or RESET_S_MIN <= allowance.reset_s <= RESET_S_MAX
