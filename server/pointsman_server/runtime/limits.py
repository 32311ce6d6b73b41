"""What an endpoint admits, learned from its refusals and its headers, so that we stay below it instead of running into it.

Three limits, each unknown until something speaks of it:

* requests per second: from a refusal (HTTP 429), the rate that was admitted before it; a little less is sent from then
  on, evenly (GCRA, ITU-T I.371), and more by and by. The wait before more is dared doubles each time it fails, so that a
  limit that stands is touched ever more rarely (compare CUBIC, RFC 9438, which lingers below its last loss).
* calls under way: from a refusal that names no time to wait, which only a limit on calls under way has no use for;
  additive increase, multiplicative decrease (Chiu and Jain 1989).
* an allowance that the provider's headers state, with what has been started since, and refilled evenly.
"""

from __future__ import annotations

import math

from pointsman_server.chat import RequestAllowance

WINDOW_S_MAX = 60
"""Most limits are by the minute; the ring of starts is as long."""
WINDOW_S_DEFAULT = 10.0
"""The time that a rate is taken over when the provider names none: long against a burst, short against a change."""
RATE_SHARE = 0.95
"""Of the rate that was admitted this much is sent: below it by more than two clocks differ."""
RATE_DECREASE = 0.9
RATE_DECREASE_MAX = 0.5
"""A refusal below the learned rate takes a tenth off, or up to half where much less was admitted since the last one: the
first figure may be that of a burst that the provider let pass."""
RATE_MIN_PER_S = 1.0 / 60.0
"""One a minute keeps us informed."""
RATE_GROWTH_PER_S = 0.01
"""How fast more is dared: the margin is regained within five seconds, twice the rate within 70."""
QUIET_S = 30.0
QUIET_DOUBLING_COUNT_MAX = 5
"""How long nothing more is dared after a refusal: 30 s, and doubled with each in vain up to 16 minutes: at one request
per second the refusals stay below one in a hundred."""
BURST_S = 1.0
"""As much as is due in a second may be sent at once: requests don't come evenly."""
CONCURRENCY_DECREASE = 0.9
CONCURRENCY_RETRY_S = 0.25
"""When to ask again while all places are taken: one may be free at any moment."""
ALLOWANCE_S_MAX = 3600.0
"""A reset further away is a limit of the day; it is heard of again with each answer."""


class RateLimits:
    """The limits of one endpoint. A ring of 60 counts and a few numbers."""

    __slots__ = (
        "_admitted_since",
        "_allowance",
        "_allowance_at_s",
        "_allowance_number",
        "_concurrency",
        "_counts",
        "_doublings",
        "_due_s",
        "_newest",
        "_rate_per_s",
        "_refused_s",
        "started_count",
    )

    def __init__(self) -> None:
        self.started_count = 0
        """Calls ever started: gives each its number."""
        self._counts = [0] * WINDOW_S_MAX
        self._newest = 0
        self._admitted_since = 0
        self._rate_per_s: float | None = None
        self._refused_s = -math.inf
        self._doublings = 0
        self._due_s = -math.inf
        self._concurrency: float | None = None
        self._allowance: RequestAllowance | None = None
        self._allowance_at_s = 0.0
        self._allowance_number = -1

    @property
    def is_known(self) -> bool:
        """Whether there is any limit to be asked for."""
        return self._rate_per_s is not None or self._concurrency is not None or self._allowance is not None

    @property
    def concurrency(self) -> float | None:
        """Calls that may be under way at one time; None: no limit is known."""
        return self._concurrency

    def rate_per_s(self, now_s: float) -> float | None:
        """Requests per second that are sent at most; None: no limit is known."""
        if self._rate_per_s is None:
            return None
        quiet_s = QUIET_S * 2.0**self._doublings
        growing_s = min(600.0, max(0.0, now_s - self._refused_s - quiet_s))
        return self._rate_per_s * math.exp(RATE_GROWTH_PER_S * growing_s)

    def started(self, now_s: float) -> int:
        """A call begins; its number."""
        self._turn(now_s)
        self._counts[self._newest % WINDOW_S_MAX] += 1
        self._admitted_since += 1
        rate = self.rate_per_s(now_s)
        if rate is not None:
            self._due_s = max(self._due_s, now_s) + 1.0 / rate
        self.started_count += 1
        return self.started_count

    def succeeded(self, in_flight_count: int) -> None:
        """A call succeeded with so many others under way."""
        if self._concurrency is not None and in_flight_count + 1 >= math.floor(self._concurrency):
            self._concurrency += 1.0 / self._concurrency

    def refused(self, *, started_s: float, load: int, retry_after_s: float | None, now_s: float) -> None:
        """A call was refused for a limit.

        Args:
            started_s: When it began: what began before the last refusal was sent in ignorance of it.
            load: The other calls that were under way then.
            retry_after_s: What the provider asked for.
            now_s: Now.
        """
        self._turn(now_s)
        index = self._newest % WINDOW_S_MAX
        self._counts[index] = max(0, self._counts[index] - 1)
        self._admitted_since = max(0, self._admitted_since - 1)
        if started_s < self._refused_s:
            return
        window_s = WINDOW_S_DEFAULT if retry_after_s is None else 2.0 * retry_after_s
        admitted_per_s = self._admitted_per_s(max(1.0, min(float(WINDOW_S_MAX), window_s)))
        self._rate_per_s = max(RATE_MIN_PER_S, self._lowered(admitted_per_s, now_s))
        self._refused_s = now_s
        self._admitted_since = 0
        self._due_s = now_s
        if retry_after_s is None and self._allowance is None and load > 0:
            known = load if self._concurrency is None else min(float(load), self._concurrency)
            self._concurrency = max(1.0, CONCURRENCY_DECREASE * known)

    def reported(self, allowance: RequestAllowance, *, number: int, now_s: float) -> None:
        """The headers of the answer to call `number` said what is left."""
        if number >= self._allowance_number:
            self._allowance, self._allowance_number, self._allowance_at_s = allowance, number, now_s

    def wait_s(self, now_s: float, *, in_flight_count: int) -> float:
        """How long the next call should wait; 0 when it may start."""
        wait_s = 0.0
        rate = self.rate_per_s(now_s)
        if rate is not None:
            wait_s = max(wait_s, self._due_s + 1.0 / rate - max(BURST_S, 1.0 / rate) - now_s)
        if self._concurrency is not None and in_flight_count >= math.floor(self._concurrency):
            wait_s = max(wait_s, CONCURRENCY_RETRY_S)
        if self._allowance is not None:
            wait_s = max(wait_s, self._allowance_wait_s(self._allowance, now_s))
        return wait_s

    def _allowance_wait_s(self, allowance: RequestAllowance, now_s: float) -> float:
        reset_s = min(ALLOWANCE_S_MAX, allowance.reset_s)
        passed_s = max(0.0, now_s - self._allowance_at_s)
        if passed_s >= reset_s:
            return 0.0
        left = allowance.remaining_count - (self.started_count - self._allowance_number)
        refill_per_s = max(0, allowance.limit_count - allowance.remaining_count) / allowance.reset_s
        missing = 1.0 - left - refill_per_s * passed_s
        if missing <= 0.0:
            return 0.0
        return min(reset_s - passed_s, missing / refill_per_s) if refill_per_s > 0.0 else reset_s - passed_s

    def _turn(self, now_s: float) -> None:
        """Bring the ring up to this second."""
        second = math.floor(now_s)
        for passed in range(max(self._newest + 1, second - WINDOW_S_MAX + 1), second + 1):
            self._counts[passed % WINDOW_S_MAX] = 0
        self._newest = max(self._newest, second)

    def _admitted_per_s(self, window_s: float) -> float:
        """The rate at which calls were admitted in the window that ends now."""
        seconds = range(self._newest - math.ceil(window_s) + 1, self._newest + 1)
        return sum(self._counts[second % WINDOW_S_MAX] for second in seconds) / window_s

    def _lowered(self, admitted_per_s: float, now_s: float) -> float:
        """The rate to be sent after a refusal."""
        rate, learned = self.rate_per_s(now_s), self._rate_per_s
        if rate is None or learned is None:
            return RATE_SHARE * admitted_per_s
        if rate > learned:
            # More was dared, in vain; or the limit has been raised since, and this is another one.
            is_same = rate < 2.0 * learned
            self._doublings = min(QUIET_DOUBLING_COUNT_MAX, self._doublings + 1) if is_same else 0
            return RATE_SHARE * min(rate, max(admitted_per_s, learned))
        # The last limit was too high: it was measured during a burst, or others share it.
        since_per_s = self._admitted_since / max(1.0, now_s - self._refused_s)
        return max(RATE_DECREASE_MAX * rate, min(RATE_DECREASE * rate, RATE_SHARE * since_per_s))
