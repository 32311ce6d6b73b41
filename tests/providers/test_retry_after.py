"""Every form of Retry-After."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.providers.retry_after import RETRY_AFTER_S_MAX, retry_after_s

NOW_UNIX_S = 784111777.0
"""Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110."""


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 7 "}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "99999999"}, RETRY_AFTER_S_MAX),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:47 GMT"}, 10.0),
        ({"retry-after": "Sunday, 06-Nov-94 08:49:47 GMT"}, 10.0),
        ({"retry-after": "Sun Nov  6 08:49:47 1994"}, 10.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:27 GMT"}, None),
        ({"retry-after": "Sun, 06 Nov 2044 08:49:37 GMT"}, RETRY_AFTER_S_MAX),
        ({"retry-after-ms": "0"}, None),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"retry-after": ""}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e3"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "Sun, 99 Nov 1994 08:49:47 GMT"}, None),
        ({"retry-after": "Sun, 06 Nov 99999 08:49:47 GMT"}, None),
        ({"retry-after": "٣"}, None),
    ],
)
def test_each_form_gives_its_seconds(headers: dict[str, str], expected: float | None) -> None:
    """Seconds, fractions, milliseconds and the three dates of HTTP are read; nonsense says nothing, and no more does what asks for no wait."""
    assert expected == retry_after_s(headers, now_unix_s=NOW_UNIX_S)


@given(st.text(), st.text())
def test_nothing_a_provider_sends_breaks_it(seconds: str, milliseconds: str) -> None:
    """Any text gives None or a wait within the bounds."""
    wait_s = retry_after_s({"retry-after": seconds, "retry-after-ms": milliseconds}, now_unix_s=NOW_UNIX_S)
    assert wait_s is None or (math.isfinite(wait_s) and 0.0 < wait_s <= RETRY_AFTER_S_MAX)
