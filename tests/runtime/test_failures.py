"""What failures are expected to cost: soon when a bad spell begins, little for a single one, and soon over."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.errors import UpstreamErrorKind
from pointsman_server.runtime.failures import SEEN_S, SHARE_MAX, FailureOdds
from pointsman_server.runtime.tracker import RuntimeTracker

SEEDS = range(10)
FLAKY, STEADY = "flaky@north", "steady@south"
TTFT_S, RIVAL_TTFT_S = 0.4, 0.5


def fed(odds: FailureOdds, rng: random.Random, *, share: float, count: int, now_s: float, gap_s: float = 0.5) -> float:
    """Feed so many calls, of which that share fails at the cost of a second; when the last one ended."""
    for _ in range(count):
        now_s += gap_s
        if rng.random() < share:
            odds.add_failure(lost_s=1.0, now_s=now_s)
        else:
            odds.add_success(now_s=now_s)
    return now_s


class Pair:
    """Two endpoints of which the one with the lower expected time to first token is called, twice a second."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.tracker = RuntimeTracker()
        self.now_s = 0.0
        for _ in range(60):
            self.call(FLAKY, TTFT_S, 0.0)
            self.call(STEADY, RIVAL_TTFT_S, 0.0)

    def call(self, name: str, ttft_s: float, error_share: float) -> None:
        """One call, half a second after the last."""
        self.now_s += 0.5
        attempt = self.tracker.start(name, input_token_count=100, now_s=self.now_s)
        if self.rng.random() < error_share:
            attempt.fail(UpstreamErrorKind.SERVER_ERROR, retry_after_s=None, now_s=self.now_s + 0.01)
        else:
            attempt.first_token(self.now_s + ttft_s * self.rng.lognormvariate(0.0, 0.1))
            attempt.succeed(output_token_count=50, now_s=self.now_s + 1.0)

    @property
    def best(self) -> str:
        """What would be called now. An open breaker keeps away too."""
        snapshot = self.tracker.snapshot(self.now_s + 0.5)
        flaky, steady = snapshot.of(FLAKY), snapshot.of(STEADY)
        assert flaky.ttft_s is not None
        assert steady.ttft_s is not None
        is_open = flaky.breaker_open_s is not None
        return STEADY if is_open or flaky.ttft_s.mean > steady.ttft_s.mean else FLAKY

    def step(self, error_share: float) -> str:
        """One call of the best, and which that was."""
        best = self.best
        self.call(best, *((TTFT_S, error_share) if best == FLAKY else (RIVAL_TTFT_S, 0.0)))
        return best


@pytest.mark.parametrize("seed", SEEDS)
def test_forty_percent_of_fast_errors_drive_traffic_away(seed: int) -> None:
    """At two calls a second an endpoint with 40 % fast errors, a fifth faster otherwise, is left within 5 s of the
    first of them, and gets less than a third of it from then on."""
    pair = Pair(seed)
    assert pair.best == FLAKY
    chosen = [pair.step(0.4) for _ in range(60)]
    first_error = chosen.index(FLAKY)
    assert STEADY in chosen[first_error : first_error + 14], f"seed {seed}"
    assert chosen[14:].count(FLAKY) < 15, f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_traffic_comes_back_after_a_bad_spell(seed: int) -> None:
    """Within 90 s of its end the endpoint is preferred again, though nobody has called it in between."""
    pair = Pair(seed)
    for _ in range(40):
        pair.step(0.4)
    chosen = [pair.step(0.0) for _ in range(240)]
    assert chosen[180:].count(FLAKY) > 30, f"seed {seed}"


@pytest.mark.parametrize(("share", "charge_s"), [(0.1, 0.2), (0.2, 0.75), (0.4, 4.4)])
def test_the_charge_is_right_in_the_long_run(share: float, charge_s: float) -> None:
    """Failures at a second each are charged with their odds, and 10 s for those beyond one in five: of ten per cent about
    0.1 s, and as much again for what looks like more by chance; of forty 4.4 s, of 5.3 s in truth."""
    costs = []
    for seed in SEEDS:
        odds, rng, now_s = FailureOdds(), random.Random(seed), 0.0
        for number in range(400):
            now_s = fed(odds, rng, share=share, count=1, now_s=now_s)
            costs += [odds.cost_s(now_s)] * (number >= 100)
    assert sum(costs) / len(costs) == pytest.approx(charge_s, rel=0.2)


def test_a_spell_that_is_over_is_not_taken_for_the_usual() -> None:
    """A minute of nothing but failures of ten seconds each, and then a dozen good calls: what is left costs little."""
    odds = FailureOdds()
    now_s = fed(odds, random.Random(1), share=0.0, count=100, now_s=0.0)
    for _ in range(60):
        now_s += 1.0
        odds.add_failure(lost_s=10.0, now_s=now_s)
    assert odds.cost_s(now_s) > 20.0
    for _ in range(12):
        now_s += 0.5
        odds.add_success(now_s=now_s)
    assert odds.cost_s(now_s) < 1.0


def test_one_failure_among_many_costs_little() -> None:
    """A single failure costs less than a fifth of what it lost, two in a row most of it."""
    odds = FailureOdds()
    now_s = fed(odds, random.Random(1), share=0.0, count=100, now_s=0.0)
    assert odds.cost_s(now_s) == 0.0
    odds.add_failure(lost_s=1.0, now_s=now_s)
    single_s = odds.cost_s(now_s)
    odds.add_failure(lost_s=1.0, now_s=now_s)
    assert 0.0 < single_s < 0.2
    assert odds.cost_s(now_s) > 0.5


@given(st.lists(st.tuples(st.floats(0.0, 100.0), st.none() | st.floats(1.0, 3600.0)), max_size=80), st.floats(0.0, 1e6))
def test_the_cost_is_bounded_and_fades(calls: list[tuple[float, float | None]], later_s: float) -> None:
    """Whatever happens, failures cost at most nine times what one lost and what callers see, and time alone never makes it
    more."""
    odds, now_s = FailureOdds(), 0.0
    for gap_s, lost_s in calls:
        now_s += gap_s
        if lost_s is None:
            odds.add_success(now_s=now_s)
        else:
            odds.add_failure(lost_s=lost_s, now_s=now_s)
    cost_s = odds.cost_s(now_s)
    assert 0.0 <= cost_s <= (3600.0 + SEEN_S) * SHARE_MAX / (1.0 - SHARE_MAX) + 1e-6
    assert odds.cost_s(now_s + later_s) <= cost_s + 1e-9
