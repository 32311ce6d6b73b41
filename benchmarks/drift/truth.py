"""What a call of an endpoint really costs at a moment: known to the oracle, and to hindsight."""

from __future__ import annotations

import math

from pointsman_server.providers.weather import OutageKind, outage_at

from benchmarks.drift.sites import Site
from benchmarks.drift.world import FAST_ERROR_S

ERROR_PRICE_S = 10.0
"""What an error that the user sees costs beyond the time it took: to notice it, to ask again. An assumption."""
RETRY_S = 1.0
"""About what a failed try costs beyond its own time: the next endpoint is a little worse."""
RETRY_BUDGET = 0.2
"""Further tries per request that anyone should make: a service in trouble is not helped by more. What fails beyond that
is an error that the user sees, so that it does not pay to stay where many calls fail fast."""


def expected_s(
    site: Site, input_token_count: int, output_token_count: float, now_s: float, *, in_flight_count: int = 1
) -> float:
    """Expected seconds of a request at a site if it starts now and `in_flight_count` calls, itself included, share it;
    infinite while the site answers nobody."""
    if outage_at(site.weather.outages, now_s) is not None:
        return math.inf
    factor = site.weather.latency_factor(now_s, in_flight_count=in_flight_count)
    gaps = max(0.0, output_token_count - 1.0)
    cost_s = factor * (site.mean_ttft_s(input_token_count) + gaps * site.mean_gap_s)
    failing = site.failing_at(now_s)
    if failing is not None:
        fails = failing.error_rate
        if fails >= 1.0:
            return math.inf
        # A failed try is followed by another one, here or elsewhere; a broken answer is an error in sight.
        retries = fails / (1.0 - fails)
        cost_s += retries * (FAST_ERROR_S + RETRY_S) + max(0.0, retries - RETRY_BUDGET) * ERROR_PRICE_S
        cost_s += failing.break_rate * ERROR_PRICE_S
    return cost_s


def is_hanging(site: Site, now_s: float) -> bool:
    """Whether calls sent there now would wait in vain."""
    return outage_at(site.weather.outages, now_s) is OutageKind.HANG
