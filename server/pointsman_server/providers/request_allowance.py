"""How many more requests a provider admits, read from its response headers. Pure: the time of day is an argument.

OpenAI, Azure, Groq, Together and vLLM's gateways send `x-ratelimit-{limit,remaining,reset}-requests`, the reset as a
duration such as `6m0s` or `120ms`; Anthropic sends `anthropic-ratelimit-requests-{limit,remaining,reset}`, the reset as a
moment (RFC 3339).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from pointsman_server.chat import RequestAllowance

RESET_S_MIN = 0.001
"""A reset that is over, or due now, is taken for this: an allowance lasts for some time."""
RESET_S_MAX = 86_400.0
"""No limit is counted over more than a day; what says more is a mistake."""
COUNT_MAX = 10_000_000
"""Requests; more is no limit, and might be meant as none."""

_NAMES = (
    ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    (
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    ),
)
_COUNT = re.compile(r"[0-9]{1,12}")
_DURATION = re.compile(
    r"(?:(?P<d>[0-9]{1,3})d)?(?:(?P<h>[0-9]{1,4})h)?(?:(?P<m>[0-9]{1,6})m(?!s))?"
    r"(?:(?P<s>[0-9]{1,9}(?:\.[0-9]{1,9})?)s)?(?:(?P<ms>[0-9]{1,9}(?:\.[0-9]{1,9})?)ms)?",
    re.ASCII,
)
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_UNIT_S = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def request_allowance(headers: Mapping[str, str], *, now_unix_s: float) -> RequestAllowance | None:
    """What the headers say of further requests; None when they say nothing that can be read.

    The headers' names are looked up in lower case. All three must be there: a rest without its reset limits nothing.
    """
    for limit_name, remaining_name, reset_name in _NAMES:
        remaining = _count(headers.get(remaining_name))
        if remaining is None:
            continue
        limit, reset_s = _count(headers.get(limit_name)), _reset_s(headers.get(reset_name, ""), now_unix_s)
        if limit is not None and reset_s is not None and limit <= COUNT_MAX:
            return RequestAllowance(
                limit_count=limit,
                remaining_count=min(limit, remaining),
                reset_s=max(RESET_S_MIN, min(RESET_S_MAX, reset_s)),
            )
    return None


def _count(text: str | None) -> int | None:
    text = "" if text is None else text.strip()
    return int(text) if _COUNT.fullmatch(text) and text.isascii() else None


def _reset_s(text: str, now_unix_s: float) -> float | None:
    """Seconds from now, of a duration, a number of seconds, or a moment."""
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    duration = _DURATION.fullmatch(text)
    if text and duration is not None:
        return sum(float(value) * _UNIT_S[unit] for unit, value in duration.groupdict().items() if value is not None)
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now_unix_s
    except (ValueError, OverflowError):
        return None
