"""How long a provider asks to be left alone, read from its response headers. Pure: the time of day is an argument."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

RETRY_AFTER_S_MAX = 3600.0
"""A longer wait is a provider's mistake or a daily quota; an hour later one trial call finds out which."""

NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
"""Seconds are whole by RFC 9110, but providers send fractions. No sign, no exponent, no infinity."""


def retry_after_s(headers: Mapping[str, str], *, now_unix_s: float) -> float | None:
    """Seconds to wait, up to `RETRY_AFTER_S_MAX`; None when the headers name no time.

    `retry-after-ms`, OpenAI's finer form, comes before `retry-after`, which is seconds or an HTTP date (RFC 9110, section
    10.2.3). The headers' names are looked up in lower case.
    """
    return time_to_wait_s(_asked_s(headers, now_unix_s))


def time_to_wait_s(asked_s: float | None) -> float | None:
    """What a provider asked for, bounded. Zero and a date in the past are no time to wait: who refuses a call and would take
    the next one at once has not said when, and to believe it would be to call again and again in vain."""
    return min(asked_s, RETRY_AFTER_S_MAX) if asked_s is not None and asked_s > 0.0 else None


def _asked_s(headers: Mapping[str, str], now_unix_s: float) -> float | None:
    milliseconds = headers.get("retry-after-ms", "").strip()
    if NUMBER.fullmatch(milliseconds):
        return float(milliseconds) / 1000.0
    seconds = headers.get("retry-after", "").strip()
    if NUMBER.fullmatch(seconds):
        return float(seconds)
    unix_s = _unix_s_of_http_date(seconds)
    return None if unix_s is None else unix_s - now_unix_s


def _unix_s_of_http_date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        unix_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return unix_s if math.isfinite(unix_s) else None
