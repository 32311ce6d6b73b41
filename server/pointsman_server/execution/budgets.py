"""How many calls may be made beyond one per request.

Trying again is what turns a fault of some providers into an overload of all. Two budgets hold it down: one of failovers
over a sliding window (as Finagle's RetryBudget, which Linkerd took over), one of hedges as a bucket of tokens that the
requests themselves fill (Dean, Barroso: "The Tail at Scale", 2013, which found 2 to 5 % to be enough).
"""

from __future__ import annotations

from pointsman_server.execution.sliding import SlidingSum

RETRY_SHARE = 0.2
"""Failovers without success, as a share of the requests: an outage of everything costs the providers a fifth more calls,
not twice or three times as many. Finagle's and Linkerd's default."""
RETRY_COUNT_MIN = 10
"""So many are allowed in a window however few the requests are: one a second, or else a quiet server could not fail over."""
RETRY_BUCKET_S = 1.0
RETRY_BUCKET_COUNT = 10
"""The window: 10 s, Finagle's default. Long enough to save up for a burst, short enough to forget what the good times left."""

HEDGE_REQUEST_COUNT = 20
"""Each hedge is paid for by so many requests: at most 5 % more calls."""
HEDGE_COUNT_MAX = 10
"""Hedges that quiet times may save up: enough for the calls that hang when a provider does, no load to speak of."""


class RetryGrant:
    """Leave for one failover."""

    __slots__ = ("_epoch", "_retries")

    def __init__(self, retries: SlidingSum, epoch: int) -> None:
        self._retries = retries
        self._epoch: int | None = epoch

    def give_back(self) -> None:
        """The failover was worth it, or not made after all; saying so twice says no more."""
        if self._epoch is not None:
            self._retries.take_back(1.0, epoch=self._epoch)
            self._epoch = None


class RetryBudget:
    """Allows failovers as long as those of the last 10 s that have not (yet) got a token are at most 20 % of the requests
    of that time, and 10 more.

    One that gets an answer is given back, as gRPC's retry throttling does (gRFC A6): it has cost the provider that answers
    one call for one request, which is no multiple of anything. So a healthy endpoint takes over from an ill one without
    limit, and where all are ill the failovers dry up. Memory: two windows of 10 buckets.
    """

    __slots__ = ("_requests", "_retries")

    def __init__(self) -> None:
        self._requests = SlidingSum(bucket_s=RETRY_BUCKET_S, bucket_count=RETRY_BUCKET_COUNT)
        self._retries = SlidingSum(bucket_s=RETRY_BUCKET_S, bucket_count=RETRY_BUCKET_COUNT)

    def add_request(self, *, now_s: float) -> None:
        """A request is about to be served."""
        self._requests.add(1.0, now_s=now_s)

    def has_room(self, now_s: float) -> bool:
        """Whether one more failover would be allowed."""
        allowed = RETRY_COUNT_MIN + RETRY_SHARE * self._requests.at(now_s)
        return self._retries.at(now_s) + 1.0 <= allowed

    def take(self, *, now_s: float) -> RetryGrant | None:
        """Leave for one failover, or None: the budget is spent."""
        if not self.has_room(now_s):
            return None
        return RetryGrant(self._retries, self._retries.add(1.0, now_s=now_s))


class HedgeBudget:
    """Allows a hedge for every 20 requests; up to 10 can be saved up. So of n requests at most 5 % are hedged, but for the
    very first hedge, which is an advance: who tries it out need not send 20 requests before. Constant memory."""

    __slots__ = ("_has_hedged", "_saved_request_count")

    def __init__(self) -> None:
        self._saved_request_count = 0
        self._has_hedged = False

    def __repr__(self) -> str:
        return f"HedgeBudget({self._saved_request_count} of {HEDGE_REQUEST_COUNT} requests for the next hedge)"

    def add_request(self) -> None:
        """A request is about to be served, whether it allows hedging or not: what is bounded is the providers' load."""
        self._saved_request_count = min(HEDGE_COUNT_MAX * HEDGE_REQUEST_COUNT, self._saved_request_count + 1)

    @property
    def has_room(self) -> bool:
        """Whether a hedge may be made."""
        return not self._has_hedged or self._saved_request_count >= HEDGE_REQUEST_COUNT

    def take(self) -> None:
        """A hedge is made."""
        assert self.has_room, "nobody hedges beyond the budget"
        self._saved_request_count -= HEDGE_REQUEST_COUNT
        self._has_hedged = True
