"""Which endpoint is worth a probe: a call of a few tokens, made for no caller, to one that has not been seen for a while.

Traffic tells what is in use; an endpoint that is not, because it was slow an hour ago, may have become the best since. A
probe asks it. It is opt-in by provider, since it costs money, and held down by three budgets at once: the provider's
tokens of an hour, its USD of a day, and 1 % of the tokens of the traffic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pointsman_server.decision.types import BreakerState, EndpointRuntime, RuntimeSnapshot
from pointsman_server.execution.sliding import SlidingSum

TRAFFIC_SHARE = 0.01
"""Tokens of probes, as a share of those of the traffic of the last hour: without traffic nobody needs to know."""
PROBE_OUTPUT_TOKEN_COUNT = 8
"""The answer's length: one token shows no speed, and the gaps between eight tell it within a third."""
PROBE_TOKEN_COUNT = 24
"""What a probe is taken to cost until it is known: a few words, what a chat template adds to them, and the answer."""
JITTER = 0.5
"""An endpoint is probed after 1 to 1.5 times its `after_s`, drawn anew each time: replicas and endpoints that start
together drift apart."""
TRIAL_AFTER_S = 5.0
"""A half-open breaker is probed so soon after the last probe: that one may have been refused, which is no verdict."""
AHEAD_COUNT = 2
"""So many more probes than the traffic pays for may tell chance from a change, since the return to an endpoint that is fast again
waits for them; they are saved later."""
FASTEST_DOUBLING_S = 1800.0
"""How fast an endpoint has been is forgotten in this time: what it did not show for half an hour is taken for half as fast."""
DOUBLING_COUNT_MAX = 32.0
"""By then nothing is left of it."""
GAP_S = 0.5
"""Between two probes at least, and up to twice as long: a start with a hundred endpoints takes a minute, not an instant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """What probes a provider's endpoints may get."""

    after_s: float = 300.0
    """An endpoint is probed once it has not been seen for so long."""
    tokens_per_hour_max: int = 2000
    """Input and output of all probes of the provider."""
    usd_per_day_max: float = 0.05
    """Cost of all probes of the provider, at list prices."""

    def __post_init__(self) -> None:
        assert self.after_s > 0.0, self.after_s
        assert min(self.tokens_per_hour_max, self.usd_per_day_max) >= 0, "budgets are not negative"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTarget:
    """An endpoint that may be probed."""

    endpoint_name: str
    provider: str
    cost_usd: float
    """Of one probe of `PROBE_TOKEN_COUNT` tokens, at the most."""
    settings: ProbeSettings


class _Spending:
    """What the probes of one provider have cost."""

    def __init__(self) -> None:
        self.hour = SlidingSum(bucket_s=60.0, bucket_count=60)
        """Tokens."""
        self.day = SlidingSum(bucket_s=3600.0, bucket_count=24)
        """USD."""

    def add(self, *, token_count: float, cost_usd: float, now_s: float) -> None:
        self.hour.add(token_count, now_s=now_s)
        self.day.add(cost_usd, now_s=now_s)


class ProbeSchedule:
    """Says who is to be probed next, and keeps the budgets. Chance comes in as `draw`, which gives numbers from 0 to 1.

    Memory: a line for each endpoint that may be probed, two windows for each provider.
    """

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._touched_s: dict[str, float] = {}
        """When each target was probed last, or came into sight."""
        self._stretch: dict[str, float] = {}
        """By how much each target's `after_s` is stretched this time."""
        self._fastest_s: dict[str, float] = {}
        """The shortest time to first token that was lately expected of each target."""
        self._looked_s = 0.0
        self._surprises: set[str] = set()
        """Targets whose last probe was much faster than expected."""
        self._spending: dict[str, _Spending] = {}
        self._tokens = SlidingSum(bucket_s=60.0, bucket_count=60)
        self._free_at_s = 0.0

    def next(
        self,
        targets: Sequence[ProbeTarget],
        snapshot: RuntimeSnapshot,
        *,
        traffic_token_count: float,
        now_s: float,
    ) -> ProbeTarget | None:
        """The target to probe now, whose cost is taken off the budgets with that; None while there is none.

        Args:
            targets: All that may be probed; the others are forgotten.
            snapshot: The runtime state of this moment.
            traffic_token_count: Tokens of the calls that were made for callers within the last hour.
            now_s: When this is.
        """
        self._follow(targets, snapshot, now_s)
        paid_count = (TRAFFIC_SHARE * traffic_token_count - self._tokens.at(now_s)) / PROBE_TOKEN_COUNT
        if paid_count < 1 - AHEAD_COUNT:
            return None
        payable = [
            target
            for target in targets
            if _may_be_asked(snapshot.of(target.endpoint_name)) and self._can_pay(target, now_s)
        ]
        overdue_s = {t.endpoint_name: self._overdue_s(t, snapshot.of(t.endpoint_name), now_s) for t in payable}
        due = [target for target in payable if target.endpoint_name in self._surprises]
        if not due and paid_count >= 1 and now_s >= self._free_at_s:
            due = [target for target in payable if overdue_s[target.endpoint_name] >= 0.0]
        if not due:
            return None
        if paid_count >= len(due):
            chosen = max(due, key=lambda target: overdue_s[target.endpoint_name])
        else:
            best_s = min(self._fastest_s.values(), default=0.0)
            chosen = max(due, key=lambda target: self._worth(target, overdue_s[target.endpoint_name], best_s))
        self._touched_s[chosen.endpoint_name] = now_s
        self._stretch[chosen.endpoint_name] = self._drawn_stretch()
        self._surprises.discard(chosen.endpoint_name)
        self._free_at_s = now_s + GAP_S * (1.0 + self._draw())
        self._book(chosen, token_count=PROBE_TOKEN_COUNT, cost_usd=chosen.cost_usd, now_s=now_s)
        return chosen

    def settle(
        self, target: ProbeTarget, *, token_count: int, cost_usd: float, is_surprise: bool = False, now_s: float
    ) -> None:
        """A probe used so much; what it was not taken to cost beforehand is taken off now. Where what it showed is a
        surprise, another one follows at once, to tell chance from a change: one fast answer is no proof."""
        if is_surprise:
            self._surprises.add(target.endpoint_name)
        more_tokens = max(0, token_count - PROBE_TOKEN_COUNT)
        self._book(target, token_count=more_tokens, cost_usd=max(0.0, cost_usd - target.cost_usd), now_s=now_s)

    def _follow(self, targets: Sequence[ProbeTarget], snapshot: RuntimeSnapshot, now_s: float) -> None:
        names = {target.endpoint_name for target in targets}
        # The exponent is bounded, so that a clock that starts anywhere doesn't overflow.
        slower = 2.0 ** min(DOUBLING_COUNT_MAX, max(0.0, now_s - self._looked_s) / FASTEST_DOUBLING_S)
        self._looked_s = now_s
        fastest_s = {name: slower * fastest_s for name, fastest_s in _only(self._fastest_s, names).items()}
        for name in names:
            if (ttft_s := snapshot.of(name).ttft_s) is not None:
                fastest_s[name] = min(ttft_s.mean, fastest_s.get(name, math.inf))
        self._fastest_s = fastest_s
        for name in names - self._touched_s.keys():
            self._touched_s[name] = now_s
        self._touched_s = _only(self._touched_s, names)
        self._stretch = _only(self._stretch, names)
        self._surprises &= names
        for target in targets:
            if target.endpoint_name not in self._stretch:
                self._stretch[target.endpoint_name] = self._drawn_stretch()

    def _drawn_stretch(self) -> float:
        return 1.0 + JITTER * self._draw()

    def _worth(self, target: ProbeTarget, overdue_s: float, best_s: float) -> float:
        """What a probe of it is worth to know where not all can be had: as much the more as it was not seen for longer, and
        as it could be faster. Of one that was never seen nothing is known against it."""
        fastest_s = self._fastest_s.get(target.endpoint_name)
        could_be = 1.0 if fastest_s is None else best_s / fastest_s
        return could_be * (overdue_s + target.settings.after_s)

    def _overdue_s(self, target: ProbeTarget, runtime: EndpointRuntime, now_s: float) -> float:
        """For how long the target should have been probed already; negative before."""
        unseen_s = now_s - self._touched_s[target.endpoint_name]
        if runtime.breaker is BreakerState.HALF_OPEN:
            # It is time for a trial, and better that nobody waits for it.
            return unseen_s - TRIAL_AFTER_S
        if runtime.age_s is not None:
            unseen_s = min(unseen_s, runtime.age_s)
        return unseen_s - target.settings.after_s * self._stretch[target.endpoint_name]

    def _can_pay(self, target: ProbeTarget, now_s: float) -> bool:
        spent = self._spending.get(target.provider) or _Spending()
        return (
            spent.hour.at(now_s) + PROBE_TOKEN_COUNT <= target.settings.tokens_per_hour_max
            and spent.day.at(now_s) + target.cost_usd <= target.settings.usd_per_day_max
        )

    def _book(self, target: ProbeTarget, *, token_count: float, cost_usd: float, now_s: float) -> None:
        # Kept when a provider leaves the configuration: a reload does not give it a new budget.
        spending = self._spending.setdefault(target.provider, _Spending())
        spending.add(token_count=token_count, cost_usd=cost_usd, now_s=now_s)
        self._tokens.add(token_count, now_s=now_s)


def _may_be_asked(runtime: EndpointRuntime) -> bool:
    """Whether a probe could tell anything that a call under way does not, and is not what the endpoint wants to be spared.

    A half-open breaker may: a probe is the better trial, since nobody waits for it."""
    return runtime.breaker is not BreakerState.OPEN and runtime.retry_after_s is None and runtime.in_flight_count == 0


def _only(values: Mapping[str, float], names: set[str]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name in names}
