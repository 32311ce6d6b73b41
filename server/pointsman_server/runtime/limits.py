"""What an endpoint admits, learned from its refusals and its headers, so that we stay below it instead of running into it.

Three limits, each unknown until something speaks of it:

* requests per second: from a refusal (HTTP 429), the rate that was admitted before it; a little less is sent from then
  on, evenly but for as many at once as a second once admitted (GCRA, ITU-T I.371), and more by and by. The wait before
  more is dared doubles each time it fails, so that a limit that stands is touched ever more rarely (as CUBIC does, RFC
  9438).
* calls under way: from a refusal that names no time to wait, which only a limit on calls under way has no use for;
  additive increase, multiplicative decrease (Chiu and Jain 1989).
* an allowance that the provider's headers state, with what has been started since, and refilled evenly.
"""

from __future__ import annotations

import math

from pointsman_server.chat import RequestAllowance
from pointsman_server.runtime.summary import LimitSummary

WINDOW_S_MAX = 60
"""Most limits are by the minute; the ring of starts is as long."""
WINDOW_S_DEFAULT = 10.0
"""The time that a rate is taken over when the provider names none: long against a burst, short against a change."""
RATE_SHARE = 0.95
"""Of the rate that was admitted this much is sent: below it by more than two clocks differ."""
RATE_DECREASE = 0.8
"""A refusal below the learned rate takes a fifth off: the first figure may be that of a burst that was let pass, three
times as high as the limit, and five refusals mend that."""
RATE_MIN_PER_S = 1.0 / 60.0
"""One a minute keeps us informed."""
QUIET_S = 60.0
QUIET_DOUBLING_COUNT_MAX = 2
"""How long nothing more is dared after a refusal: a minute, as most limits are by the minute, and doubled with each in vain
up to four, so that even at one request per second the refusals stay near one in a hundred."""
GROWTH_S = 120.0
"""The time after which twice the rate is dared; it grows with the third power of time, little at first, since a limit by
the minute answers late, and then fast, since it may be gone."""
GROWTH_S_MAX = 1200.0
"""A thousand times the rate is no limit any more."""
BURST_S = 0.3
"""As much as is due in this time may always be sent at once: requests don't come evenly. With a second's worth, two of
them could meet within one second, and only half of a limit by the second could be used."""
CONCURRENCY_DECREASE = 0.9
CONCURRENCY_RETRY_S = 0.25
"""When to ask again while all places are taken: one may be free at any moment."""
ROOM_ROUNDING = 1e-6
"""Of a call: a place that comes at the last instant is one."""
ALLOWANCE_S_MAX = 3600.0
"""A reset further away is a limit of the day; it is heard of again with each answer."""


class RateLimits:
    """The limits of one endpoint. A ring of 60 counts and a few numbers."""

    __slots__ = (
        "_admitted_since",
        "_allowance",
        "_allowance_at_s",
        "_allowance_last",
        "_allowance_number",
        "_concurrency",
        "_counts",
        "_doublings",
        "_due_s",
        "_most_per_s",
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
        self._most_per_s = 0
        self._concurrency: float | None = None
        self._allowance: RequestAllowance | None = None
        self._allowance_at_s = 0.0
        self._allowance_number = -1
        self._allowance_last = math.inf

    @property
    def may_bind(self) -> bool:
        """Whether `wait_s` may be anything but 0."""
        return (
            self._rate_per_s is not None or self._concurrency is not None or self.started_count >= self._allowance_last
        )

    @property
    def concurrency(self) -> float | None:
        """Calls that may be under way at one time; None: no limit is known."""
        return self._concurrency

    def rate_per_s(self, now_s: float) -> float | None:
        """Requests per second that are sent at most; None: no limit is known."""
        if self._rate_per_s is None:
            return None
        growing_s = now_s - self._refused_s - QUIET_S * 2.0**self._doublings
        if growing_s <= 0.0:
            return self._rate_per_s
        return self._rate_per_s * (1.0 + (min(GROWTH_S_MAX, growing_s) / GROWTH_S) ** 3)

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
        if retry_after_s is None:
            admitted_per_s = self._guessed_per_s(now_s)
        else:
            admitted_per_s = self._admitted_per_s(max(1.0, 2.0 * retry_after_s), now_s)
        known_per_s, most_per_s = self._rate_per_s, max(self._counts)
        self._rate_per_s = max(RATE_MIN_PER_S, self._lowered(admitted_per_s, now_s))
        self._refused_s = now_s
        self._admitted_since = 0
        # What was once admitted at once is no less since we hold back, but where the limit is tighter than it was.
        is_tighter = known_per_s is not None and self._rate_per_s < known_per_s
        self._most_per_s = most_per_s if is_tighter else max(self._most_per_s, most_per_s)
        # But for the next call nothing is left of what may be sent at once.
        self._due_s = now_s + self._burst_s(self._rate_per_s) - 1.0 / self._rate_per_s
        if retry_after_s is None and self._allowance is None and load > 0:
            known = load if self._concurrency is None else min(float(load), self._concurrency)
            self._concurrency = max(1.0, CONCURRENCY_DECREASE * known)

    def reported(self, allowance: RequestAllowance, *, number: int, now_s: float) -> None:
        """The headers of the answer to call `number` said what is left."""
        if number >= self._allowance_number:
            self._allowance, self._allowance_number, self._allowance_at_s = allowance, number, now_s
            self._allowance_last = number + allowance.remaining_count

    def wait_s(self, now_s: float, *, in_flight_count: int) -> float:
        """How long the next call should wait; 0 when it may start."""
        wait_s = 0.0
        rate = self.rate_per_s(now_s)
        if rate is not None:
            wait_s = max(wait_s, self._due_s + 1.0 / rate - self._burst_s(rate) - now_s)
        if self._concurrency is not None and in_flight_count >= math.floor(self._concurrency):
            wait_s = max(wait_s, CONCURRENCY_RETRY_S)
        if self._allowance is not None:
            wait_s = max(wait_s, self._allowance_wait_s(self._allowance, now_s))
        return wait_s

    def room(self, from_s: float, until_s: float) -> float:
        """How many calls may start within that time, if none starts before: infinite where nothing limits them, and where
        what limits them may end at any moment, as calls under way do."""
        count, rate = math.inf, self.rate_per_s(until_s)
        if rate is not None:
            count = (until_s - max(from_s, self._due_s) + self._burst_s(rate)) * rate
        if self._allowance is not None:
            count = min(count, self._allowance_room(self._allowance, until_s))
        return max(0.0, math.floor(count + ROOM_ROUNDING)) if math.isfinite(count) else count

    def summary(self, *, unix_offset_s: float) -> LimitSummary | None:
        """What is known, to be kept; None without a limit."""
        if self._rate_per_s is None and self._concurrency is None:
            return None
        return LimitSummary(
            rate_per_s=self._rate_per_s,
            refused_unix_s=self._refused_s + unix_offset_s,
            doubling_count=self._doublings,
            concurrency=self._concurrency,
        )

    def restore(self, summary: LimitSummary, *, now_s: float, unix_offset_s: float) -> None:
        """Go on from what was known."""
        self._rate_per_s, self._concurrency = summary.rate_per_s, summary.concurrency
        self._refused_s = min(now_s, summary.refused_unix_s - unix_offset_s)
        self._doublings = min(QUIET_DOUBLING_COUNT_MAX, summary.doubling_count)

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

    def _allowance_room(self, allowance: RequestAllowance, until_s: float) -> float:
        passed_s = max(0.0, until_s - self._allowance_at_s)
        if passed_s >= min(ALLOWANCE_S_MAX, allowance.reset_s):
            return math.inf
        left = allowance.remaining_count - (self.started_count - self._allowance_number)
        return left + max(0, allowance.limit_count - allowance.remaining_count) / allowance.reset_s * passed_s

    def _burst_s(self, rate: float) -> float:
        """As much as is due in this time may be sent at once: with what is due in the following second no more than was
        once admitted within one, so that a bucket that is full is used, and a limit by the second is not overrun."""
        return max(BURST_S, 1.0 / rate, self._most_per_s / rate - 1.0)

    def _turn(self, now_s: float) -> None:
        """Bring the ring up to this second."""
        second = math.floor(now_s)
        if second <= self._newest:
            return
        for passed in range(max(self._newest + 1, second - WINDOW_S_MAX + 1), second + 1):
            self._counts[passed % WINDOW_S_MAX] = 0
        self._newest = second

    def _admitted_per_s(self, window_s: float, now_s: float) -> float:
        """The rate at which calls were admitted in the window that ends now, of whole seconds and the one under way."""
        second_count = min(WINDOW_S_MAX - 1, math.ceil(window_s))
        seconds = range(self._newest - second_count, self._newest + 1)
        passed_s = max(0.0, now_s - math.floor(now_s))
        return sum(self._counts[second % WINDOW_S_MAX] for second in seconds) / (second_count + passed_s)

    def _guessed_per_s(self, now_s: float) -> float:
        """What a limit of which nothing is told admits: between the mean of the last seconds, which counts those without
        a call, and their most, which counts a burst that was let pass. Both are wrong by a factor."""
        return math.sqrt(max(self._counts) * self._admitted_per_s(WINDOW_S_DEFAULT, now_s))

    def _lowered(self, admitted_per_s: float, now_s: float) -> float:
        """The rate to be sent after a refusal."""
        rate, learned = self.rate_per_s(now_s), self._rate_per_s
        if rate is None or learned is None:
            return RATE_SHARE * admitted_per_s
        if rate > learned:
            # More was dared, in vain; or the limit has been raised since, and this is another one. It lies between what
            # was admitted all the while and what was sent at last.
            is_same = rate < 2.0 * learned
            self._doublings = min(QUIET_DOUBLING_COUNT_MAX, self._doublings + 1) if is_same else 0
            since_per_s = self._admitted_since / max(1.0, now_s - self._refused_s)
            return RATE_SHARE * math.sqrt(rate * max(learned, since_per_s))
        # Refused although less was sent than is thought to be admitted: that was measured during a burst, or others
        # share the limit. Where nothing was admitted since, the last refusal still lasts, and this is no other one.
        return RATE_DECREASE * rate if self._admitted_since else rate
