"""Who is asked next when an attempt has failed or hesitates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pointsman_server.decision.types import BreakerState, Candidate, EndpointRuntime, RuntimeSnapshot
from pointsman_server.errors import AttemptFailure, UpstreamErrorKind

PROVIDER_FAILURES = frozenset(UpstreamErrorKind) - {UpstreamErrorKind.REJECTED, UpstreamErrorKind.RATE_LIMITED}
"""Failures that are probably the provider's as a whole; the others concern the request, or one model's limit."""
ATTEMPT_TIME_MIN_S = 0.01
"""With less than this left of the deadline no provider can be reached and answer: no call is made, none is paid for."""
WAIT_S_MAX = 3.0
"""An endpoint that limits our rate is waited for so long at most, where nobody else is left: limits by the second pass
within that, those by the minute are better left to the caller, who is told when to come back."""
WAIT_SHARE = 0.5
"""Of what is left of the deadline: the other half is for the answer. A call that begins just before its deadline is cut off,
so that the place is lost, and with it what a refusal would have said of the next one."""
WAIT_STRETCH = 0.25
"""Of a wait, drawn by the seed and added to it: not all who wait should come back at the same instant."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose turn it is."""

    candidate: Candidate
    wait_s: float = 0.0
    """To be waited first: the endpoint asked for it."""


class Lineup:
    """The candidates of one decision in the order in which they are to be tried. Memory: the candidates."""

    def __init__(self, candidates: Iterable[Candidate], snapshot: RuntimeSnapshot) -> None:
        """`snapshot` is the one that was decided by: a breaker that was open then is no reason now, since the decision
        made light of it."""
        self._remaining = list(candidates)
        self._decided_by = snapshot
        self._limited: list[Candidate] = []
        """Were asked and limited our rate: worth a second call once their time is over."""
        self._taken: dict[str, Candidate] = {}

    def next(
        self, failures: Sequence[AttemptFailure], snapshot: RuntimeSnapshot, *, left_s: float | None
    ) -> Turn | None:
        """The candidate to ask now; None when there is none that it makes sense to ask.

        The first is the decision's, whatever its state. After a failure endpoints that have become ill or limited
        meanwhile are passed over; if nobody else is left, the one that may be called soonest is waited for, if that is
        short and leaves time to answer.

        Args:
            failures: Of the attempts so far.
            snapshot: The runtime state of this moment.
            left_s: What is left of the deadline; None without one.
        """
        if not failures and self._remaining:
            first = self._remaining[0]
            wait_s = self._wait_s(first, snapshot)
            return self._take(first, wait_s if wait_s is not None and _fits(first, wait_s, left_s) else 0.0)
        self._note_limited(failures)
        free = [candidate for candidate in self._remaining if self._may_be_asked(candidate, snapshot)]
        if free:
            return self._take(next_to_try(free, failures))
        waits = [
            (wait_s, candidate)
            for candidate in (*self._remaining, *self._limited)
            if (wait_s := self._wait_s(candidate, snapshot)) is not None and _fits(candidate, wait_s, left_s)
        ]
        if not waits:
            return None
        wait_s, candidate = min(waits, key=lambda wait: wait[0])
        return self._take(candidate, wait_s)

    def rival(
        self, first: Candidate, failures: Sequence[AttemptFailure], snapshot: RuntimeSnapshot
    ) -> Candidate | None:
        """The candidate to ask beside `first`: the next one at another provider that may be called now."""
        provider = first.endpoint.provider
        others = [
            candidate
            for candidate in self._remaining
            if candidate.endpoint.provider != provider and _is_free(snapshot.of(candidate.endpoint.name))
        ]
        return self._take(next_to_try(others, failures)).candidate if others else None

    def wait_s(self, candidate: Candidate, snapshot: RuntimeSnapshot, *, left_s: float | None) -> float | None:
        """How long a candidate that was taken is to be left alone: 0 when it may be called, None when its breaker is open or
        so long a wait does not fit into what is left."""
        wait_s = self._wait_s(candidate, snapshot)
        return None if wait_s is None or not (wait_s == 0.0 or _fits(candidate, wait_s, left_s)) else wait_s

    def has_more(self, snapshot: RuntimeSnapshot) -> bool:
        """Whether anyone is left who was not asked, and may be called now."""
        return any(self._may_be_asked(candidate, snapshot) for candidate in self._remaining)

    def _may_be_asked(self, candidate: Candidate, snapshot: RuntimeSnapshot) -> bool:
        return self._wait_s(candidate, snapshot) == 0.0

    def _wait_s(self, candidate: Candidate, snapshot: RuntimeSnapshot) -> float | None:
        """How long the endpoint is to be left alone: 0 when it may be called, None while its breaker is open, unless the
        decision made light of that."""
        runtime = snapshot.of(candidate.endpoint.name)
        if runtime.breaker is BreakerState.OPEN:
            decided_by = self._decided_by.of(candidate.endpoint.name)
            if decided_by.breaker is not BreakerState.OPEN:
                return None
        return runtime.retry_after_s or 0.0

    def _take(self, candidate: Candidate, wait_s: float = 0.0) -> Turn:
        if candidate in self._remaining:
            self._remaining.remove(candidate)
            self._taken[candidate.endpoint.name] = candidate
        else:
            self._limited.remove(candidate)
        return Turn(candidate, wait_s)

    def _note_limited(self, failures: Sequence[AttemptFailure]) -> None:
        """Those who limited our rate at their first call get a second one, and no third."""
        for failure in failures:
            if failure.kind is UpstreamErrorKind.RATE_LIMITED and failure.endpoint_name in self._taken:
                self._limited.append(self._taken.pop(failure.endpoint_name))


def next_to_try(candidates: Sequence[Candidate], failures: Sequence[AttemptFailure]) -> Candidate:
    """The best of `candidates` at a provider that has not just shown itself ill, if there is one; else the best.

    A provider that is down takes all its models with it, and attempts are few. A chain of fallbacks keeps its order.
    """
    ill = {failure.endpoint_name.rpartition("@")[2] for failure in failures if failure.kind in PROVIDER_FAILURES}
    alternative = candidates[0].alternative
    others = (c for c in candidates if c.alternative == alternative and c.endpoint.provider not in ill)
    return next(others, candidates[0])


def stretched_s(wait_s: float, *, drawn: float) -> float:
    """A wait with its share of chance, `drawn` from 0 to 1."""
    return wait_s * (1.0 + WAIT_STRETCH * drawn)


def may_wait(wait_s: float, *, left_s: float | None, answer_s: float = ATTEMPT_TIME_MIN_S) -> bool:
    """Whether so long a wait, stretched by chance, is worth it: it is short, and leaves `answer_s` of the deadline."""
    return wait_s <= WAIT_S_MAX and (left_s is None or stretched_s(wait_s, drawn=1.0) + answer_s <= left_s)


def patience_s(*, left_s: float | None) -> float:
    """How long a request waits at most for an endpoint that it may be sent to: `WAIT_S_MAX`, or `WAIT_SHARE` of what is left
    of the deadline; below 0 where no call would be made."""
    if left_s is None:
        return WAIT_S_MAX
    return min(WAIT_S_MAX, WAIT_SHARE * left_s, left_s - ATTEMPT_TIME_MIN_S)


def _fits(candidate: Candidate, wait_s: float, left_s: float | None) -> bool:
    answer_s = ATTEMPT_TIME_MIN_S if candidate.ttft_s is None else max(ATTEMPT_TIME_MIN_S, candidate.ttft_s.p50)
    return may_wait(wait_s, left_s=left_s, answer_s=answer_s)


def _is_free(runtime: EndpointRuntime) -> bool:
    return runtime.breaker is not BreakerState.OPEN and runtime.retry_after_s is None
