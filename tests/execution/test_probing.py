"""Which endpoint is probed when, and what that may cost."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.decision.types import BreakerState, EndpointRuntime, Latency, RuntimeSnapshot
from pointsman_server.execution.probing import (
    AHEAD_COUNT,
    FASTEST_DOUBLING_S,
    GAP_S,
    JITTER,
    PROBE_TOKEN_COUNT,
    TRAFFIC_SHARE,
    ProbeSchedule,
    ProbeSettings,
    ProbeTarget,
)

AFTER_S = 100.0
PLENTY = ProbeSettings(after_s=AFTER_S, tokens_per_hour_max=10**9, usd_per_day_max=10**9)
ONE_S, FOUR_S = Latency(1.0, 1.0, 1.0, 1.0, 1.0), Latency(4.0, 4.0, 4.0, 4.0, 4.0)
BUSY = 1e9
"""Tokens of a traffic that limits nothing."""


def target(name: str, settings: ProbeSettings = PLENTY, *, cost_usd: float = 0.0) -> ProbeTarget:
    """An endpoint that may be probed."""
    return ProbeTarget(endpoint_name=name, provider=name.rpartition("@")[2], cost_usd=cost_usd, settings=settings)


def seen(age_s: float) -> EndpointRuntime:
    """An endpoint that was seen so long ago."""
    return EndpointRuntime(age_s=age_s)


def probed(
    schedule: ProbeSchedule, *targets: ProbeTarget, now_s: float, traffic: float = BUSY, **states: EndpointRuntime
) -> str | None:
    """Whom the schedule names; `states` are of endpoints at provider `x`, by model."""
    snapshot = RuntimeSnapshot({f"{model}@x": state for model, state in states.items()})
    chosen = schedule.next(targets, snapshot, traffic_token_count=traffic, now_s=now_s)
    return None if chosen is None else chosen.endpoint_name


def without_jitter() -> ProbeSchedule:
    """A schedule whose draws are all 0."""
    return ProbeSchedule(lambda: 0.0)


def test_an_endpoint_is_probed_once_it_is_unseen_for_long() -> None:
    """Not before its time, counted from the last observation; of one that was never seen, from when it came into sight."""
    schedule = without_jitter()
    assert probed(schedule, target("a@x"), now_s=1000.0) is None
    assert probed(schedule, target("a@x"), now_s=1099.0) is None
    assert probed(schedule, target("a@x"), now_s=1100.0, a=seen(50.0)) is None
    assert probed(schedule, target("a@x"), now_s=1150.0, a=seen(100.0)) == "a@x"


def test_a_probe_that_shows_nothing_is_not_made_again_at_once() -> None:
    """Also where the age stays, because the provider refused the question, the next probe comes a whole time later."""
    schedule = without_jitter()
    probed(schedule, target("a@x"), now_s=0.0)
    assert probed(schedule, target("a@x"), now_s=100.0) == "a@x"
    assert probed(schedule, target("a@x"), now_s=199.0) is None
    assert probed(schedule, target("a@x"), now_s=200.0) == "a@x"


def test_who_is_called_anyway_or_wants_to_be_left_alone_is_not_probed() -> None:
    """A call under way, a limit and an open breaker stand against it; a half-open breaker does not."""
    for state, expected in (
        (seen(500.0)._replace(in_flight_count=1), None),
        (seen(500.0)._replace(retry_after_s=3.0), None),
        (seen(500.0)._replace(breaker=BreakerState.OPEN), None),
        (seen(500.0)._replace(breaker=BreakerState.HALF_OPEN), "a@x"),
    ):
        schedule = without_jitter()
        probed(schedule, target("a@x"), now_s=0.0)
        assert probed(schedule, target("a@x"), now_s=500.0, a=state) == expected


def test_a_breaker_that_waits_for_a_trial_is_probed_at_once() -> None:
    """However short the time since it was seen: but not again before five seconds, should the probe say nothing."""
    schedule, half_open = without_jitter(), seen(1.0)._replace(breaker=BreakerState.HALF_OPEN)
    probed(schedule, target("a@x"), now_s=0.0)
    assert probed(schedule, target("a@x"), now_s=4.0, a=half_open) is None
    assert probed(schedule, target("a@x"), now_s=5.0, a=half_open) == "a@x"
    assert probed(schedule, target("a@x"), now_s=9.0, a=half_open) is None
    assert probed(schedule, target("a@x"), now_s=10.0, a=half_open) == "a@x"


def test_the_one_that_is_overdue_for_longest_comes_first_and_one_at_a_time() -> None:
    """Two that are due are probed one after the other, and not at once."""
    schedule, both = without_jitter(), (target("a@x"), target("b@x"))
    probed(schedule, *both, now_s=0.0)
    assert probed(schedule, *both, now_s=200.0, a=seen(150.0), b=seen(170.0)) == "b@x"
    assert probed(schedule, *both, now_s=200.0 + 0.9 * GAP_S, a=seen(150.0)) is None
    assert probed(schedule, *both, now_s=200.0 + GAP_S, a=seen(150.0)) == "a@x"


def test_jitter_spreads_endpoints_that_started_together() -> None:
    """A hundred endpoints that came into sight at once are probed over half their time, each at one of its own."""
    schedule = ProbeSchedule(random.Random(7).random)
    targets = [target(f"m{number}@x") for number in range(40)]
    times: dict[str, float] = {}
    for tick in range(2000):
        name = probed(schedule, *targets, now_s=0.1 * tick)
        if name is not None:
            times.setdefault(name, 0.1 * tick)
    assert len(times) == 40
    assert min(times.values()) >= AFTER_S
    assert max(times.values()) - min(times.values()) > 0.8 * JITTER * AFTER_S
    gaps = sorted(times.values())
    assert min(later - earlier for earlier, later in pairwise(gaps)) >= GAP_S


def test_the_same_draws_give_the_same_schedule() -> None:
    """Two schedules of one seed name the same endpoints at the same times."""

    def run() -> list[tuple[float, str | None]]:
        schedule = ProbeSchedule(random.Random(3).random)
        targets = [target(f"m{number}@x") for number in range(5)]
        return [(now_s, probed(schedule, *targets, now_s=now_s)) for now_s in range(0, 1000, 3)]

    assert run() == run()


def test_without_traffic_nothing_is_probed() -> None:
    """Probes are at most 1 % of the tokens of the traffic, so an idle server makes none."""
    schedule = without_jitter()
    least = PROBE_TOKEN_COUNT / TRAFFIC_SHARE
    for traffic, expected in ((0.0, None), (least - 1.0, None), (least, "a@x")):
        probed(schedule, target("a@x"), now_s=0.0, traffic=traffic)
        assert probed(schedule, target("a@x"), now_s=500.0, traffic=traffic) == expected


@given(
    seed=st.integers(0, 2**32),
    tokens_per_hour_max=st.integers(PROBE_TOKEN_COUNT, 200),
    usd_per_day_max=st.floats(0.0, 0.2),
    cost_usd=st.floats(0.001, 0.05),
    traffic=st.floats(0.0, 100_000.0),
)
def test_every_budget_holds_at_any_time(
    *, seed: int, tokens_per_hour_max: int, usd_per_day_max: float, cost_usd: float, traffic: float
) -> None:
    """Within any hour a provider's probes take at most its tokens and all probes 1 % of the traffic's; within any day
    they cost at most its USD. Windows are kept to the minute and to the hour."""
    settings = ProbeSettings(after_s=10.0, tokens_per_hour_max=tokens_per_hour_max, usd_per_day_max=usd_per_day_max)
    targets = [target(f"{model}@{provider}", settings, cost_usd=cost_usd) for model in "ab" for provider in "xy"]
    schedule = ProbeSchedule(random.Random(seed).random)
    made: list[tuple[float, str]] = []
    for tick in range(400):
        now_s = tick * 60.0
        chosen = schedule.next(targets, RuntimeSnapshot(), traffic_token_count=traffic, now_s=now_s)
        if chosen is None:
            continue
        made.append((now_s, chosen.provider))
        hour = [provider for at_s, provider in made if at_s > now_s - 3600.0]
        day = [provider for at_s, provider in made if at_s > now_s - 86_400.0 + 3600.0]
        assert hour.count(chosen.provider) * PROBE_TOKEN_COUNT <= tokens_per_hour_max
        assert len(hour) * PROBE_TOKEN_COUNT <= TRAFFIC_SHARE * traffic
        assert day.count(chosen.provider) * cost_usd <= usd_per_day_max + 1e-9


def test_what_a_probe_costs_beyond_the_estimate_is_taken_off_later() -> None:
    """An endpoint that thinks before its few tokens uses up more than was reserved, and the budget knows."""
    schedule = without_jitter()
    dear = target("a@x", replace(PLENTY, tokens_per_hour_max=100), cost_usd=0.01)
    probed(schedule, dear, now_s=0.0)
    assert probed(schedule, dear, now_s=100.0) == "a@x"
    schedule.settle(dear, token_count=90, cost_usd=0.02, now_s=101.0)
    assert probed(schedule, dear, now_s=300.0) is None
    assert probed(schedule, dear, now_s=100.0 + 3660.0) == "a@x"


def test_a_surprise_is_asked_again_at_once() -> None:
    """What answers much faster than expected is probed again without waiting for its turn, once."""
    schedule = without_jitter()
    first = target("a@x")
    probed(schedule, first, target("b@x"), now_s=0.0)
    assert probed(schedule, first, target("b@x"), now_s=100.0) == "a@x"
    schedule.settle(first, token_count=10, cost_usd=0.0, is_surprise=True, now_s=100.5)
    assert probed(schedule, first, target("b@x"), now_s=100.6) == "a@x"
    schedule.settle(first, token_count=10, cost_usd=0.0, now_s=101.0)
    assert probed(schedule, first, target("b@x"), now_s=103.0) == "b@x"


def test_surprises_run_ahead_of_the_traffic_but_not_far() -> None:
    """Two probes more than 1 % of the traffic's tokens pays for, and no others before those are saved; each provider's own
    budgets hold all the same."""
    schedule, poor = without_jitter(), without_jitter()
    paid = PROBE_TOKEN_COUNT / TRAFFIC_SHARE
    asked = target("a@x")
    frugal = target("a@x", replace(PLENTY, tokens_per_hour_max=PROBE_TOKEN_COUNT))
    probed(schedule, asked, now_s=0.0)
    probed(poor, frugal, now_s=0.0)
    assert (
        probed(schedule, asked, now_s=100.0, traffic=paid) == probed(poor, frugal, now_s=100.0, traffic=paid) == "a@x"
    )
    made = 0
    for tick in range(1, 100):
        now_s = 100.0 + tick
        schedule.settle(asked, token_count=10, cost_usd=0.0, is_surprise=True, now_s=now_s)
        made += probed(schedule, asked, now_s=now_s, traffic=paid) is not None
        poor.settle(frugal, token_count=10, cost_usd=0.0, is_surprise=True, now_s=now_s)
        assert probed(poor, frugal, now_s=now_s, traffic=paid) is None
    assert made == AHEAD_COUNT
    schedule.settle(asked, token_count=10, cost_usd=0.0, now_s=200.0)
    other = target("b@x")
    assert probed(schedule, other, now_s=200.0, traffic=3.0 * paid) is None
    assert probed(schedule, other, now_s=300.0, traffic=4.0 * paid - 1.0) is None
    assert probed(schedule, other, now_s=300.0, traffic=4.0 * paid) == "b@x"


def test_where_the_traffic_does_not_pay_for_all_the_one_that_could_be_fast_comes_first() -> None:
    """What has been four times as fast as another within the hour gets four times as many probes, be it slow now; what was
    never seen as many as the fastest."""
    schedule, count = without_jitter(), dict.fromkeys(("fast@x", "slow@x", "new@x"), 0)
    targets = [target(name, replace(PLENTY, after_s=10.0)) for name in count]
    slow = EndpointRuntime(ttft_s=FOUR_S, age_s=1e9)
    was_fast = EndpointRuntime(ttft_s=ONE_S, age_s=1e9)
    probed(schedule, *targets, now_s=0.0, traffic=0.0, fast=was_fast, slow=slow)
    for now_s in range(20, 620, 5):
        # As much as one probe each time costs.
        traffic = (sum(count.values()) + 1) * PROBE_TOKEN_COUNT / TRAFFIC_SHARE
        name = probed(schedule, *targets, now_s=now_s, traffic=traffic, fast=slow, slow=slow)
        assert name is not None
        count[name] += 1
    assert count["fast@x"] > 2.5 * count["slow@x"] > 0
    assert abs(count["new@x"] - count["fast@x"]) < 0.5 * count["new@x"]


def test_where_the_traffic_pays_for_all_that_are_due_how_fast_they_were_says_nothing() -> None:
    """The one that is overdue for longest comes first."""
    for traffic, expected in ((2.0, "slow@x"), (1.9, "fast@x")):
        schedule, both = without_jitter(), (target("fast@x"), target("slow@x"))
        states = {
            "fast": EndpointRuntime(ttft_s=ONE_S, age_s=150.0),
            "slow": EndpointRuntime(ttft_s=FOUR_S, age_s=170.0),
        }
        probed(schedule, *both, now_s=0.0, traffic=0.0)
        paid = traffic * PROBE_TOKEN_COUNT / TRAFFIC_SHARE
        assert probed(schedule, *both, now_s=200.0, traffic=paid, **states) == expected


def test_how_fast_an_endpoint_was_is_forgotten() -> None:
    """What showed nothing of it for half an hour is taken for half as fast."""
    schedule = without_jitter()
    both, paid = (target("a@x"), target("b@x")), PROBE_TOKEN_COUNT / TRAFFIC_SHARE
    one, two = EndpointRuntime(ttft_s=ONE_S, age_s=1e9), EndpointRuntime(ttft_s=ONE_S._replace(mean=1.9), age_s=1e9)
    four = EndpointRuntime(ttft_s=FOUR_S, age_s=1e9)
    probed(schedule, *both, now_s=0.0, traffic=0.0, a=one, b=four)
    assert probed(schedule, *both, now_s=0.9 * FASTEST_DOUBLING_S, traffic=paid, a=four, b=two) == "a@x"
    schedule = without_jitter()
    probed(schedule, *both, now_s=0.0, traffic=0.0, a=one, b=four)
    assert probed(schedule, *both, now_s=1.1 * FASTEST_DOUBLING_S, traffic=paid, a=four, b=two) == "b@x"


def test_a_clock_may_start_anywhere_and_leap() -> None:
    """A monotonic clock counts from when the machine started, be that years ago, and goes on while a process is stopped."""
    schedule, state, years_s = without_jitter(), EndpointRuntime(ttft_s=ONE_S, age_s=1e9), 1e9
    for now_s in (years_s, 2.0 * years_s):
        probed(schedule, target("a@x"), target("b@x"), now_s=now_s, traffic=0.0, a=state, b=state)
    paid = PROBE_TOKEN_COUNT / TRAFFIC_SHARE
    assert (
        probed(schedule, target("a@x"), target("b@x"), now_s=3.0 * years_s, traffic=paid, a=state, b=state) is not None
    )


def test_one_that_has_left_the_configuration_is_forgotten() -> None:
    """An endpoint that comes back counts as new: its time starts again."""
    schedule = without_jitter()
    probed(schedule, target("a@x"), now_s=0.0)
    probed(schedule, target("b@x"), now_s=50.0)
    assert probed(schedule, target("a@x"), now_s=149.0) is None
    assert probed(schedule, target("a@x"), now_s=249.0) == "a@x"
