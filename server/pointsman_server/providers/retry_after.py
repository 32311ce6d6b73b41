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
    """Seconds to wait, 0..`RETRY_AFTER_S_MAX`; None when the headers say nothing that can be read.

    `retry-after-ms`, OpenAI's finer form, comes before `retry-after`, which is seconds or an HTTP date (RFC 9110, section
    10.2.3). The headers' names are looked up in lower case. A date in the past is zero.
    """
    milliseconds = headers.get("retry-after-ms", "").strip()
    if NUMBER.fullmatch(milliseconds):
        return min(float(milliseconds) / 1000.0, RETRY_AFTER_S_MAX)
    seconds = headers.get("retry-after", "").strip()
    if NUMBER.fullmatch(seconds):
        return min(float(seconds), RETRY_AFTER_S_MAX)
    unix_s = _unix_s_of_http_date(seconds)
    return None if unix_s is None else min(max(unix_s - now_unix_s, 0.0), RETRY_AFTER_S_MAX)


def _unix_s_of_http_date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        unix_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return unix_s if math.isfinite(unix_s) else None
