"""The drift benchmark: virtual time, the weather, the rules that it compares, and what it reads off them."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from pointsman_server.chat import Finished, TextDelta, UpstreamEvent, UsageReported
from pointsman_server.errors import UpstreamError, UpstreamErrorKind
from pointsman_server.providers.base import UpstreamCall

from benchmarks.drift.arrivals import Request, made_up, replayed
from benchmarks.drift.fastest import sparse_figures
from benchmarks.drift.figures import Figures, figures, reaction_s, summaries
from benchmarks.drift.loop import StalledError, run_virtually
from benchmarks.drift.policies import (
    BASELINES,
    Ended,
    EpsilonGreedy,
    LiteLlm,
    LiteLlmLatency,
    LiteLlmLeastBusy,
    PeakEwma,
    PeriodicBenchmark,
    RandomChoice,
    RoundRobin,
    StaticBest,
    ThompsonSampling,
)
from benchmarks.drift.report import PROMISES, Results, as_json, bars, markdown
from benchmarks.drift.shipped import SHIPPED, conversation_of
from benchmarks.drift.simulate import ORACLE, POLICIES, Run, Served, hindsight, run
from benchmarks.drift.sites import MEASURED, FailureWindow, Site, sites
from benchmarks.drift.speed import DecisionSpeed
from benchmarks.drift.truth import ERROR_PRICE_S, RETRY_BUDGET, expected_s
from benchmarks.drift.weathers import DESCRIPTIONS, WARM_UP_S, Event, Scene, Weather, ranked, scene
from benchmarks.drift.world import CallStarted, SimulatedProvider, Upstream
from benchmarks.harness.machine import this_machine

ROOT = Path(__file__).resolve().parents[2]
SEED = 7
DURATION_S = 150.0
TIMEOUT_S = 300.0
NOISE = 0.03
"""The oracle knows no more of chance than anyone: within so much another rule may be luckier."""


@cache
def staged(weather: Weather, seed: int = SEED) -> Scene:
    """A short scene over the measured endpoints."""
    return scene(weather, sites(MEASURED, seed=seed), seed=seed, duration_s=DURATION_S)


@cache
def requests(seed: int = SEED) -> tuple[Request, ...]:
    """Its arrivals."""
    return made_up(seed=seed, duration_s=DURATION_S, per_s=3.0)


@cache
def ran(policy: str, weather: Weather) -> Run:
    """A run of it."""
    return run(policy, staged(weather), requests(), seed=SEED)


class TestVirtualTime:
    """The loop whose clock jumps."""

    def test_an_hour_passes_in_the_order_of_the_timers(self) -> None:
        """Sleepers wake in the order of their times, exactly then, whatever the order in which they went to sleep."""
        woken: list[tuple[float, float]] = []

        async def sleep(until_s: float) -> None:
            await asyncio.sleep(until_s)
            woken.append((until_s, asyncio.get_running_loop().time()))

        async def main() -> float:
            await asyncio.gather(*(sleep(until_s) for until_s in (3600.0, 0.25, 900.0, 0.5)))
            return asyncio.get_running_loop().time()

        assert run_virtually(main()) == 3600.0
        assert woken == [(until_s, until_s) for until_s in (0.25, 0.5, 900.0, 3600.0)]

    def test_timeouts_hold_in_virtual_time(self) -> None:
        """Asyncio's own timeout ends a wait at its virtual moment."""

        async def main() -> float:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(30.0):
                    await asyncio.Event().wait()
            return asyncio.get_running_loop().time()

        assert run_virtually(main()) == 30.0

    def test_a_wait_for_nothing_is_an_error(self) -> None:
        """Where no timer is set, nothing can happen any more: that is said, instead of waiting for ever."""
        with pytest.raises(StalledError):
            run_virtually(asyncio.Event().wait())

    def test_what_is_left_running_is_cancelled(self) -> None:
        """A task that the main one leaves behind gets to clean up."""
        cleaned = []

        async def left() -> None:
            try:
                await asyncio.sleep(1e6)
            finally:
                cleaned.append(True)

        async def main() -> None:
            task = asyncio.create_task(left())
            await asyncio.sleep(0.0)
            assert not task.done()

        run_virtually(main())
        assert cleaned == [True]


class TestRuns:
    """Whole runs."""

    @pytest.mark.parametrize("policy", [SHIPPED, ORACLE, "LiteLLM latency-based", "Thompson sampling"])
    def test_equal_arguments_give_equal_runs(self, policy: str) -> None:
        """A run with everything in it can be repeated to the last bit."""
        again = run(policy, staged(Weather.ALL), requests(), seed=SEED)
        assert again == ran(policy, Weather.ALL)

    def test_another_seed_is_another_run(self) -> None:
        """Levels, arrivals and chance all come from the seed."""
        other = run(SHIPPED, staged(Weather.STEADY, SEED + 1), requests(SEED + 1), seed=SEED + 1)
        assert other.served != ran(SHIPPED, Weather.STEADY).served

    def test_chance_is_the_endpoints_and_not_the_policys(self) -> None:
        """Without load, a request takes equally long at an endpoint, whichever policy has sent it there."""
        one, other = ran("random", Weather.STEADY), ran("round robin", Weather.STEADY)
        same = [(a, b) for a, b in zip(one.served, other.served, strict=True) if a.endpoint_index == b.endpoint_index]
        assert len(same) > 20
        assert all(a.duration_s == pytest.approx(b.duration_s) for a, b in same)

    @pytest.mark.parametrize(
        "weather", [Weather.STEADY, Weather.BROWN_OUT, Weather.FAST_ERRORS, Weather.LOAD, Weather.FAST_DRIFT]
    )
    def test_the_oracle_is_not_beaten(self, weather: Weather) -> None:
        """No rule that keeps to the oracle's budget of further tries is cheaper than it by more than luck."""
        oracle_s = ran(ORACLE, weather).mean_cost_s
        within = [policy for policy in POLICIES if _further_tries(ran(policy, weather)) <= RETRY_BUDGET]
        assert SHIPPED in within
        assert len(within) >= len(POLICIES) / 2
        costs = {policy: ran(policy, weather).mean_cost_s / oracle_s for policy in within}
        assert min(costs.values()) > 1.0 - NOISE, costs

    def test_every_request_is_served_once(self) -> None:
        """Nothing is lost under the worst weather, by the shipped router and by the others."""
        for policy in POLICIES:
            served = ran(policy, Weather.ALL).served
            assert [one.number for one in served] == [request.number for request in requests()]
            assert all(one.failed or one.ttft_s is not None for one in served)

    def test_the_shipped_router_fails_over(self) -> None:
        """Where one endpoint alone answers, the router finds it: it tries others, and users see next to nothing of it."""
        calm = staged(Weather.STEADY)
        broken = [site.with_failures(FailureWindow(0.0, math.inf, error_rate=0.999)) for site in calm.sites[1:]]
        found = run(SHIPPED, replace(calm, sites=(calm.sites[0], *broken)), requests(), seed=SEED)
        assert sum(one.failed for one in found.judged) < 0.02 * len(found.judged)
        assert len(found.calls) > len(found.served)

    def test_replicas_share_the_requests(self) -> None:
        """A herd of four gateways serves the same requests as one."""
        assert staged(Weather.HERD).replica_count == 4
        assert len(ran(SHIPPED, Weather.HERD).served) == len(requests())


def _further_tries(found: Run) -> float:
    """Per request, while the event lasts."""
    events = found.scene.events or (Event(Weather.STEADY, WARM_UP_S, DURATION_S, 0),)
    made = [call for call in found.calls if call.request_number is not None]
    inside = [events[0].at_s <= call.at_s < events[0].to_s for call in made]
    arrived = sum(events[0].at_s <= one.arrival_s < events[0].to_s for one in found.served)
    return sum(inside) / arrived - 1.0


class TestWeathers:
    """Each does what its description says."""

    def test_all_are_described(self) -> None:
        """The report explains every weather."""
        assert set(DESCRIPTIONS) == set(Weather)

    @pytest.mark.parametrize(
        ("weather", "least", "most"),
        [(Weather.BROWN_OUT, 5.9, 6.1), (Weather.SLOW_DOWN, 1.59, 1.61), (Weather.HANG, math.inf, math.inf)],
    )
    def test_the_best_endpoint_is_struck(self, weather: Weather, least: float, most: float) -> None:
        """What the best endpoint costs grows by the stated factor when the event begins, and all others stay."""
        event, listed = staged(weather).events[0], staged(weather).sites
        assert event.endpoint_index == ranked(listed)[0]
        assert event.at_s > WARM_UP_S
        for index, site in enumerate(listed):
            before_s, after_s = (expected_s(site, 1000, 200.0, at_s) for at_s in (event.at_s - 1, event.at_s + 1))
            factor = after_s / before_s
            assert (least <= factor <= most) if index == event.endpoint_index else factor == 1.0
        if weather is not Weather.SLOW_DOWN:
            struck = listed[event.endpoint_index]
            assert expected_s(struck, 1000, 200.0, event.to_s + 1) == pytest.approx(expected_s(struck, 1000, 200.0, 0))

    def test_the_newcomer_becomes_the_best(self) -> None:
        """The worst endpoint comes to cost 60 % of what the best one costs."""
        event, listed = staged(Weather.NEWCOMER).events[0], staged(Weather.NEWCOMER).sites
        assert ranked(listed)[-1] == event.endpoint_index
        first, second = ranked(listed, event.at_s + 1)[:2]
        assert first == event.endpoint_index
        costs = [expected_s(listed[index], 1000, 200.0, event.at_s + 1) for index in (first, second)]
        assert costs[0] / costs[1] == pytest.approx(0.6)

    def test_a_region_goes_down_as_a_whole(self) -> None:
        """Every endpoint of the region answers nobody, and no other."""
        event, listed = staged(Weather.REGION).events[0], staged(Weather.REGION).sites
        region = listed[event.endpoint_index].region
        down = [math.isinf(expected_s(site, 10, 10.0, event.at_s + 1)) for site in listed]
        assert down == [site.region == region for site in listed]
        assert 1 < sum(down) < len(listed)

    def test_errors_and_breaks_come_at_their_rates(self) -> None:
        """Of calls of the struck endpoint, 40 % fail before a token under fast errors, 15 % after one under breaks."""
        assert _ended(Weather.FAST_ERRORS)[UpstreamErrorKind.SERVER_ERROR] == pytest.approx(0.4, abs=0.06)
        assert _ended(Weather.BREAKS)[UpstreamErrorKind.DISCONNECTED] == pytest.approx(0.15, abs=0.05)

    def test_rate_limits_refuse_what_is_too_much(self) -> None:
        """Of twenty requests at once the bucket lets four through; every second endpoint says when to come back."""
        listed = staged(Weather.RATE_LIMITS).sites

        async def refused(index: int) -> list[UpstreamError]:
            upstream = Upstream(listed, requests(), seed=SEED)
            outcomes = await asyncio.gather(
                *(_drain(upstream, index, request) for request in requests()[:20]), return_exceptions=True
            )
            return [outcome for outcome in outcomes if isinstance(outcome, UpstreamError)]

        said = [run_virtually(refused(index)) for index in (0, 1)]
        assert [len(errors) for errors in said] == [16, 16]
        assert {error.kind for error in said[0]} == {UpstreamErrorKind.RATE_LIMITED}
        assert [errors[0].retry_after_s for errors in said] == [2.0, None]

    def test_load_slows_down_beyond_the_knee(self) -> None:
        """As many calls as the knee cost nothing; each more costs all of them its share."""
        site = staged(Weather.LOAD).sites[0]
        costs = [expected_s(site, 1000, 200.0, 0.0, in_flight_count=count) for count in (1, 6, 7, 16)]
        assert costs[0] == costs[1]
        assert [cost / costs[0] for cost in costs[2:]] == pytest.approx([1.08, 1.8])

    def test_day_and_night_swap_the_best(self) -> None:
        """Of the two best endpoints one is the best by day and the other by night."""
        listed = staged(Weather.DAY_NIGHT).sites
        assert ranked(listed, DURATION_S * 0.25)[0] != ranked(listed, DURATION_S * 0.75)[0]

    def test_fast_drift_changes_who_is_best(self) -> None:
        """Within minutes several endpoints have been the best."""
        listed = staged(Weather.FAST_DRIFT).sites
        assert len({ranked(listed, float(at_s))[0] for at_s in range(0, 900, 5)}) >= 2

    def test_regimes_and_all_come_in_sequence(self) -> None:
        """Their events don't overlap, and lie within the run."""
        for weather in (Weather.REGIMES, Weather.ALL):
            events = staged(weather).events
            assert len({event.weather for event in events}) == len(events) >= 4
            ends = [WARM_UP_S, *(event.to_s for event in events)]
            assert all(end_s <= event.at_s for end_s, event in zip(ends, events, strict=False))
            assert events[-1].to_s <= DURATION_S
            for event in events:
                before_s, after_s = (
                    _alone_s(staged(weather).sites[event.endpoint_index], at_s)
                    for at_s in (event.at_s - 0.1, event.at_s + 0.1)
                )
                assert (after_s < 0.8 * before_s) if event.weather is Weather.NEWCOMER else (after_s > 1.3 * before_s)


def _alone_s(site: Site, now_s: float) -> float:
    return expected_s(site, 1000, 200.0, now_s)


def _ended(weather: Weather) -> dict[UpstreamErrorKind, float]:
    """Shares of the ways in which calls of the struck endpoint end during the event."""
    event = staged(weather).events[0]

    async def main() -> dict[UpstreamErrorKind, float]:
        upstream = Upstream(staged(weather).sites, requests(), seed=SEED)
        await asyncio.sleep(event.at_s)
        outcomes = await asyncio.gather(
            *(_drain(upstream, event.endpoint_index, request) for request in requests()), return_exceptions=True
        )
        kinds = [outcome.kind for outcome in outcomes if isinstance(outcome, UpstreamError)]
        return {kind: kinds.count(kind) / len(outcomes) for kind in kinds}

    return run_virtually(main())


async def _drain(upstream: Upstream, index: int, request: Request) -> int:
    return sum([count async for count in upstream.live[index].answer(request)])


class TestProvider:
    """The simulated provider, as the router calls it."""

    def test_an_answer_has_its_tokens_usage_and_end(self) -> None:
        """The prompt tells the request, whose tokens come in pieces, then their count, then the finish."""
        request = requests()[3]

        async def main() -> tuple[int, tuple[UpstreamEvent, ...]]:
            upstream = Upstream(staged(Weather.STEADY).sites, requests(), seed=SEED)
            provider = SimulatedProvider(upstream.live[0], upstream)
            call = UpstreamCall(upstream_model="m", conversation=conversation_of(request))
            batches = [batch async for batch in provider.complete(call)]
            text = "".join(event.text for batch in batches for event in batch if isinstance(event, TextDelta))
            return len(text) // 4, batches[-1]

        token_count, (usage, finished) = run_virtually(main())
        assert token_count == request.output_token_count
        assert isinstance(usage, UsageReported)
        assert (usage.usage.input_token_count, usage.usage.output_token_count) == (
            request.input_token_count, request.output_token_count,
        )  # fmt: skip
        assert isinstance(finished, Finished)

    def test_a_second_call_beside_the_first_is_a_hedge(self) -> None:
        """Calls of one request that overlap are told from those that follow each other."""

        async def main() -> list[bool]:
            upstream = Upstream(staged(Weather.STEADY).sites, requests(), seed=SEED)
            await asyncio.gather(*(_drain(upstream, index, requests()[0]) for index in (0, 1)))
            await _drain(upstream, 2, requests()[0])
            return [call.is_hedge for call in upstream.calls]

        assert run_virtually(main()) == [False, True, False]


def policy_of(kind: type[LiteLlm | RandomChoice], count: int = 3) -> LiteLlm | RandomChoice:
    """A policy over the first endpoints."""
    return kind(staged(Weather.STEADY).sites[:count], Random(SEED))


def ended(
    *, duration_s: float = 2.0, ttft_s: float | None = 0.3, tokens: int = 100, failure: UpstreamErrorKind | None = None
) -> Ended:
    """A call as a gateway sees it."""
    return Ended(requests()[0], duration_s, None if failure else ttft_s, 0 if failure else tokens, failure)


class TestBaselines:
    """They behave as what they are named after."""

    SITES: Sequence[Site] = staged(Weather.STEADY).sites[:4]

    def test_round_robin_takes_turns(self) -> None:
        """Each endpoint in turn, and those alone that may be called."""
        policy = RoundRobin(self.SITES, Random(SEED))
        assert [policy.pick(requests()[0], 0.0, range(4)) for _ in range(6)] == [0, 1, 2, 3, 0, 1]
        assert [policy.pick(requests()[0], 0.0, [0, 3]) for _ in range(3)] == [3, 0, 3]

    def test_hindsight_ranks_by_the_whole_run(self) -> None:
        """The static choice is the endpoint that costs all requests least, and after its failure the second."""
        ranking = hindsight(staged(Weather.STEADY), requests())
        assert ranking == ranked(staged(Weather.STEADY).sites) or ranking[0] == ranked(staged(Weather.STEADY).sites)[0]
        policy = StaticBest(staged(Weather.STEADY).sites, Random(SEED), ranking=ranking)
        assert policy.choose(requests()[0], 0.0, tried=()) == ranking[0]
        assert policy.choose(requests()[0], 0.0, tried=ranking[:1]) == ranking[1]

    def test_the_benchmark_is_repeated_after_its_period_alone(self) -> None:
        """What happens between two benchmarks goes unnoticed."""
        event = staged(Weather.HANG).events[0]
        policy = PeriodicBenchmark(staged(Weather.HANG).sites, Random(SEED))
        every = range(len(staged(Weather.HANG).sites))
        before = policy.pick(requests()[0], 0.0, every)
        assert policy.pick(requests()[0], event.at_s + 1, every) == before
        policy = PeriodicBenchmark(staged(Weather.HANG).sites, Random(SEED))
        assert policy.pick(requests()[0], event.at_s + 1, every) != event.endpoint_index

    def test_litellm_keeps_the_first_nine_latencies(self) -> None:
        """Once its list is full, an endpoint that has become ten times slower hardly looks slower."""
        policy = LiteLlmLatency(self.SITES[:2], Random(SEED))
        for _ in range(10):
            policy.learn(0, ended(ttft_s=0.2), 0.0)
            policy.learn(1, ended(ttft_s=0.3), 0.0)
        for _ in range(50):
            policy.learn(0, ended(ttft_s=1.1), 0.0)
        assert policy.pick(requests()[0], 0.0, [0, 1]) == 0
        policy.learn(0, ended(ttft_s=1.3), 0.0)
        assert policy.pick(requests()[0], 0.0, [0, 1]) == 1

    def test_litellm_tries_what_it_never_called_first(self) -> None:
        """An endpoint without a latency counts as 0."""
        policy = LiteLlmLatency(self.SITES[:2], Random(SEED))
        policy.learn(0, ended(ttft_s=0.01), 0.0)
        assert policy.pick(requests()[0], 0.0, [0, 1]) == 1

    @pytest.mark.parametrize(
        ("kinds", "cools"),
        [
            ([UpstreamErrorKind.RATE_LIMITED], True),
            ([UpstreamErrorKind.SERVER_ERROR] * 4, False),
            ([UpstreamErrorKind.SERVER_ERROR] * 5, True),
            ([None] * 5 + [UpstreamErrorKind.SERVER_ERROR] * 5, False),
        ],
    )
    def test_litellm_cools_down(self, kinds: list[UpstreamErrorKind | None], *, cools: bool) -> None:
        """For 5 s after a 429, or when more than half of at least five calls of the minute failed."""
        policy = LiteLlmLeastBusy(self.SITES[:2], Random(SEED))
        for kind in kinds:
            policy.started(0, 1.0)
            policy.ended(0, ended(failure=kind), 1.0)
        policy.in_flight[1] = 5
        assert policy.choose(requests()[0], 5.9, tried=()) == (1 if cools else 0)
        assert policy.choose(requests()[0], 6.1, tried=()) == 0

    def test_litellm_may_retry_where_it_failed_and_others_do_not(self) -> None:
        """A retry excludes the endpoint that failed, but for LiteLLM's, which leaves that to the cooldown."""
        assert LiteLlmLeastBusy(self.SITES, Random(SEED)).choose(requests()[0], 0.0, tried=[0]) == 0
        for seed in range(20):
            assert RandomChoice(self.SITES, Random(seed)).choose(requests()[0], 0.0, tried=[0]) != 0

    def test_peak_ewma_takes_the_better_of_two(self) -> None:
        """A slow answer counts at once, a fast one slowly, and calls under way multiply."""
        policy = PeakEwma(self.SITES[:2], Random(SEED))
        policy.learn(0, ended(duration_s=20.0), 0.0)
        assert policy.pick(requests()[0], 0.0, [0, 1]) == 1
        policy.learn(0, ended(duration_s=1.0), 1.0)
        assert policy.pick(requests()[0], 1.0, [0, 1]) == 1
        policy.in_flight[1] = 50
        assert policy.pick(requests()[0], 1.0, [0, 1]) == 0

    def test_linkerds_rule_leaves_five_failures_in_a_row_alone(self) -> None:
        """For five seconds, then it is tried again."""
        policy = RandomChoice(self.SITES[:2], Random(SEED))
        for _ in range(5):
            policy.started(0, 1.0)
            policy.ended(0, ended(failure=UpstreamErrorKind.TIMEOUT), 1.0)
        assert {policy.choose(requests()[0], 5.9, tried=()) for _ in range(20)} == {1}
        assert {policy.choose(requests()[0], 6.1, tried=()) for _ in range(20)} == {0, 1}

    def test_thompson_settles_and_forgets(self) -> None:
        """It takes the better endpoint nearly always while it remembers, and any once its window is over."""
        policy = ThompsonSampling(self.SITES[:2], Random(SEED))
        for _ in range(20):
            policy.learn(0, ended(duration_s=1.0), 0.0)
            policy.learn(1, ended(duration_s=4.0), 0.0)
        picked = [policy.pick(requests()[0], 10.0, [0, 1]) for _ in range(50)]
        assert picked.count(0) == 50
        later = [policy.pick(requests()[0], 100.0, [0, 1]) for _ in range(50)]
        assert 5 < later.count(0) < 45

    def test_epsilon_explores_one_in_twenty(self) -> None:
        """Half of what it explores is the other one of two."""
        policy = EpsilonGreedy(self.SITES[:2], Random(SEED))
        policy.learn(0, ended(duration_s=1.0), 0.0)
        policy.learn(1, ended(duration_s=40.0), 0.0)
        picked = [policy.pick(requests()[0], 0.0, [0, 1]) for _ in range(4000)]
        assert picked.count(1) / 4000 == pytest.approx(0.025, abs=0.01)

    def test_all_of_the_issue_are_there(self) -> None:
        """Ten rules beside the shipped router and the oracle."""
        assert len(BASELINES) == 10
        assert {SHIPPED, ORACLE, *BASELINES} == set(POLICIES)


def made_run(starts: Sequence[tuple[float, int]], weather: Weather = Weather.BROWN_OUT, **changes: float) -> Run:
    """A run with these calls: when, and of which endpoint."""
    event = Event(weather, 100.0, 130.0, 0)
    calls = tuple(CallStarted(at_s, index, number, is_hedge=False) for number, (at_s, index) in enumerate(starts))
    served = tuple(
        Served(number, at_s, 0.5, changes.get("duration_s", 2.0), failed=False, broke=False, endpoint_index=index, token_count=9)
        for number, (at_s, index) in enumerate(starts)
    )  # fmt: skip
    base = Scene(weather, staged(Weather.STEADY).sites, 150.0, (event,))
    return Run("made", base, served, calls, (0.5, 1.0), limited_count=0, probe_token_share=0.0)


class TestFigures:
    """What is read off a run."""

    def test_leaving_takes_until_the_traffic_is_gone(self) -> None:
        """The time of the call after which fewer than one in ten of the next seconds go there: here the last but one."""
        starts = [(90.0 + 0.5 * number, 0 if number <= 30 else 1) for number in range(100)]
        assert reaction_s(made_run(starts), made_run(starts).scene.events[0]) == pytest.approx(4.5)

    def test_who_never_leaves_has_no_time(self) -> None:
        """And one that comes back has not left."""
        stays = [(90.0 + 0.5 * number, 0) for number in range(100)]
        assert reaction_s(made_run(stays), made_run(stays).scene.events[0]) is None

    def test_adopting_takes_until_half_of_the_traffic_is_there(self) -> None:
        """A newcomer is adopted when most calls of the next seconds go to it."""
        starts = [(90.0 + 0.5 * number, 1 if number < 60 else 0) for number in range(100)]
        found = reaction_s(made_run(starts, Weather.NEWCOMER), made_run(starts, Weather.NEWCOMER).scene.events[0])
        assert found is not None
        assert 14.0 <= found <= 20.0

    def test_regret_is_cost_beyond_the_oracles(self) -> None:
        """Half as long again is a regret of 50 %; an error costs its price on top."""
        starts = [(30.0 + number, 0) for number in range(100)]
        found = figures(made_run(starts, duration_s=3.0), made_run(starts), seed=SEED)
        assert found.regret == pytest.approx(0.5)
        assert replace(made_run(starts).served[0], failed=True).cost_s == 2.0 + ERROR_PRICE_S

    def test_the_warm_up_is_not_judged(self) -> None:
        """What happens in the first minute has a figure of its own."""
        cold = made_run([(1.0, 0), (70.0, 0)])
        slow = replace(cold, served=(replace(cold.served[0], duration_s=20.0), cold.served[1]))
        found = figures(slow, cold, seed=SEED)
        assert found.regret == 0.0
        assert found.cold_regret == pytest.approx(9.0)

    def test_medians_are_taken_over_the_seeds(self) -> None:
        """One bad seed in three does not decide."""
        starts = [(30.0 + number, 0) for number in range(100)]
        one = figures(made_run(starts), made_run(starts), seed=1)
        found = summaries([replace(one, seed=seed, regret=regret) for seed, regret in ((1, 0.1), (2, 0.2), (3, 9.0))])
        assert [(summary.regret, summary.regret_low, summary.regret_high) for summary in found] == [(0.2, 0.1, 9.0)]


@cache
def results() -> Results:
    """The results of one short weather."""
    oracle = ran(ORACLE, Weather.STEADY)
    found: list[Figures] = [figures(ran(policy, Weather.STEADY), oracle, seed=SEED) for policy in POLICIES]
    speed = DecisionSpeed(90.0, 60.0, 6.0, middle_us=120.0, busy_us=130.0)
    return Results(this_machine(), (SEED,), "made up", 1.0, tuple(found), tuple(summaries(found)), None, speed)


class TestReport:
    """The pages."""

    def test_bars_say_whether_they_hold(self) -> None:
        """A figure holds when it is at most its bar, and what was not run is left out."""
        found = {bar.name: bar for bar in bars(results())}
        steady = found["cost beyond the oracle's: steady"]
        assert steady.holds == (steady.value is not None and steady.value <= 0.05)
        assert found["decision over 20 endpoints with the snapshot"].holds
        assert "cost beyond the oracle's: load" not in found

    def test_the_pages_have_every_policy(self) -> None:
        """People read of every rule and every assumption, programs get numbers that JSON has."""
        page = markdown(results())
        for policy in POLICIES:
            assert f"| {policy} |" in page
        assert "prefill" in page
        told = json.loads(json.dumps(as_json(results()), allow_nan=False))
        assert {summary["policy"] for summary in told["summaries"]} == set(POLICIES)

    def test_every_promise_names_its_bar_and_aim(self) -> None:
        """An aim is never easier than its bar."""
        assert len({promise.name for promise in PROMISES}) == len(PROMISES) == 15
        assert all(promise.aim <= promise.value_max for promise in PROMISES)


def test_replayed_arrivals_keep_their_order_and_lengths(tmp_path: Path) -> None:
    """A part of a trace is taken as it is; expected lengths are right in the middle."""
    rows = [f"{0.1 * number:.3f},{number % 50 + 1},{number % 40}" for number in range(34_000)]
    path = tmp_path / "arrivals.csv"
    path.write_text("\n".join(("t_s,input_tokens,output_tokens", *rows)) + "\n", encoding="utf-8")
    found = replayed(path, seed=1, duration_s=200.0)
    assert len(found) == pytest.approx(2000, abs=2)
    assert all(0.0 <= one.arrival_s < 200.0 and one.output_token_count >= 1 for one in found)
    assert all(one.arrival_s <= other.arrival_s for one, other in pairwise(found))
    errors = sorted(one.expected_output_token_count / one.output_token_count for one in found)
    assert errors[len(errors) // 2] == pytest.approx(1.0, abs=0.05)
    assert replayed(path, seed=2, duration_s=200.0) != found


def test_sparse_sessions_are_judged_against_the_best_fixed_provider(tmp_path: Path) -> None:
    """Where one provider is always twice as fast, every rule finds it, and chance is half as good again."""
    header = "time_utc,region,provider,model,ttr_s,ttft_s,tps,output_tokens,total_s,error"
    rows = [
        f"2024-04-{day:02d}T0{hour}:00:00,iad,{provider},llama-3-70b-chat,0,{ttft_s},50,100,1,"
        for day in range(1, 11)
        for hour in (1, 5)
        for provider, ttft_s in (("fireworks.ai", 0.2), ("groq.com", 0.4), ("octo.ai", 0.4))
    ]
    path = tmp_path / "sessions.csv"
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    found = sparse_figures(path, seed_count=2)
    assert (found.series_count, found.choice_count) == (1, 15)
    assert found.ratio["last benchmark"] == found.ratio["mean of the last 5"] == 1.0
    assert found.ratio[SHIPPED] == pytest.approx(1.0, abs=0.05)
    assert found.ratio["random"] > 1.3
    assert found.capped_ratio == found.ratio


def test_a_quick_run_works_without_data_and_writes_nothing(tmp_path: Path) -> None:
    """The command as the Makefile calls it, on one weather."""
    command = [sys.executable, "-m", "benchmarks.drift", "--quick", "--weathers", "steady", "--processes", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "| cost beyond the oracle's: steady |" in done.stdout
    assert not list(tmp_path.iterdir())
