"""How a decision is carried out, in virtual time: failover, hedges, budgets, timeouts, waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from dataclasses import replace

import pytest
from execution.played import (
    HANG,
    NEVER,
    STOP,
    Played,
    Script,
    Stage,
    always,
    answer,
    by_number,
    refusal,
    told,
)
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from pointsman_server.attempt import UsageCounted, token_count
from pointsman_server.catalog.catalog import Catalog
from pointsman_server.chat import TextDelta
from pointsman_server.errors import (
    AttemptsExhaustedError,
    DeadlineExceededError,
    EndpointsUnavailableError,
    StreamBrokenError,
    UpstreamDisconnectedError,
    UpstreamErrorKind,
)
from pointsman_server.execution.budgets import HEDGE_REQUEST_COUNT
from pointsman_server.execution.patience import HEDGE_DELAY_S_UNKNOWN, STALL_S_MIN, STALL_S_MIN_COMMITTED
from pointsman_server.race import AttemptStarted
from pointsman_server.router import Completed, Decided
from pointsman_server.telemetry import names
from pointsman_server.telemetry.setup import TelemetrySettings, configure_telemetry
from telemetry.test_metrics import of, points

from benchmarks.drift.loop import run_virtually


def play(scenario: Coroutine[None, None, None]) -> None:
    """In virtual time."""
    run_virtually(scenario)


# Hedges.


def test_a_hedge_wins_against_a_hang() -> None:
    """The second endpoint is asked once the first is slow, answers, and the first one's connection is closed before the
    first delta goes out. Both are told to start, both are counted, and there is one end."""

    async def scenario() -> None:
        stage = Stage(x=always(HANG), y=always(answer()))
        events = []
        async for event in stage.events(stage.execution(hedge=True)):
            if isinstance(event, TextDelta):
                assert stage.providers["x"].open_count == 0
            events.append(event)
        assert told(events) == [
            "1. a@x",
            "2. a@y",
            "text fine",
            "UsageCounted 1",
            "UsageCounted 2",
            "done a@y after 2",
        ]
        loser, _ = [event for event in events if isinstance(event, UsageCounted)]
        assert loser.estimated
        assert loser.usage.output_token_count == 0
        done = events[-1]
        assert isinstance(done, Completed)
        assert done.ttft_s == pytest.approx(HEDGE_DELAY_S_UNKNOWN + 0.2)
        assert done.cost_estimated

    play(scenario())


def test_a_hedges_loser_counts_as_cancelled() -> None:
    """The endpoint that was left has no failure against it, and nothing in flight; its wait is remembered."""

    async def scenario() -> None:
        stage = Stage(x=Played(lambda number: answer() if number < 30 else HANG), y=always(answer()))
        await stage.warm_up()
        before = stage.runtime("x")
        assert told(await stage.complete(stage.execution(hedge=True)))[-1] == "done a@y after 2"
        after = stage.runtime("x")
        assert after.in_flight_count == stage.runtime("y").in_flight_count == 0
        assert after.error_rate == before.error_rate
        assert after.observation_count == before.observation_count
        assert before.ttft_s is not None
        assert after.ttft_s is not None
        assert after.ttft_s.p50 > before.ttft_s.p50

    play(scenario())


def test_what_a_hedges_loser_was_asked_is_paid_for() -> None:
    """Tokens and cost of the endpoint that was left are in the metrics and in the traffic, by our own estimate."""

    async def scenario() -> None:
        reader = InMemoryMetricReader()
        telemetry = configure_telemetry(TelemetrySettings(), metric_reader=reader)
        stage = Stage(telemetry, x=always(HANG), y=always(answer()))
        usages = [e for e in await stage.complete(stage.execution(hedge=True)) if isinstance(e, UsageCounted)]
        found = points(reader)
        loser, winner = usages
        counted = found[names.GEN_AI_CLIENT_TOKEN_USAGE]
        assert loser.usage.input_token_count == of(counted, pointsman_endpoint="a@x", gen_ai_token_type="input") > 0
        assert loser.cost_usd == pytest.approx(of(found[names.COST], pointsman_endpoint="a@x"))
        assert stage.router.traffic.at(stage.clock_s()) == sum(token_count(used.usage) for used in (loser, winner))

    play(scenario())


def test_the_first_attempt_may_win_after_all() -> None:
    """If its token comes before the hedge's it answers, and the hedge is left."""

    async def scenario() -> None:
        stage = Stage(x=always(answer(after_s=HEDGE_DELAY_S_UNKNOWN + 0.1)), y=always(answer()))
        told_events = told(await stage.complete(stage.execution(hedge=True)))
        assert told_events == [
            "1. a@x",
            "2. a@y",
            "text fine",
            "UsageCounted 2",
            "UsageCounted 1",
            "done a@x after 2",
        ]
        assert stage.providers["y"].open_count == 0

    play(scenario())


def test_a_tie_has_one_winner() -> None:
    """Two first tokens at the same instant: one answer, one end, and no piece of the other text."""

    async def scenario() -> None:
        stage = Stage(x=always(answer("xx", after_s=HEDGE_DELAY_S_UNKNOWN + 0.5)), y=always(answer("yy", after_s=0.5)))
        lines = told(await stage.complete(stage.execution(hedge=True)))
        assert lines[:2] == ["1. a@x", "2. a@y"]
        assert lines[2] in {"text xx", "text yy"}
        assert [line for line in lines if line.startswith("done")] == [lines[-1]]
        assert [provider.open_count for provider in stage.providers.values()] == [0, 0]

    play(scenario())


def test_an_answer_in_time_is_not_hedged() -> None:
    """An attempt that begins to answer within its delay is alone."""

    async def scenario() -> None:
        stage = Stage(x=always(answer()), y=always(answer()))
        assert told(await stage.complete(stage.execution(hedge=True)))[0:2] == ["1. a@x", "text fine"]
        assert stage.providers["y"].call_count == 0

    play(scenario())


def test_the_delay_follows_what_is_known_of_the_endpoint() -> None:
    """Once the first endpoint is known to answer within 0.2 s, a hang is noticed far sooner than when it is not known."""

    async def scenario() -> None:
        stage = Stage(x=Played(lambda number: answer() if number < 50 else HANG), y=always(answer()))
        await stage.warm_up(50)
        done = (await stage.complete(stage.execution(hedge=True)))[-1]
        assert isinstance(done, Completed)
        assert done.endpoint_name == "a@y"
        assert done.ttft_s is not None
        assert 0.4 < done.ttft_s < 1.0

    play(scenario())


def test_a_failure_while_the_hedge_runs_leaves_the_hedge() -> None:
    """The first attempt's failure is told when it happens, and the hedge answers."""

    async def scenario() -> None:
        stage = Stage(x=always(refusal(after_s=2.05)), y=always(answer()))
        assert told(await stage.complete(stage.execution(hedge=True))) == [
            "1. a@x",
            "2. a@y",
            "AttemptFailure 1",
            "text fine",
            "UsageCounted 2",
            "done a@y after 2",
        ]

    play(scenario())


def test_if_both_fail_the_next_candidate_is_tried() -> None:
    """Two failures, in whatever order, and the third endpoint answers."""

    async def scenario() -> None:
        stage = Stage(x=always(refusal(after_s=2.5)), y=always(refusal(after_s=0.1)), z=always(answer()))
        assert told(await stage.complete(stage.execution(hedge=True))) == [
            "1. a@x",
            "2. a@y",
            "AttemptFailure 2",
            "AttemptFailure 1",
            "3. a@z",
            "text fine",
            "UsageCounted 3",
            "done a@z after 3",
        ]

    play(scenario())


def test_nobody_is_hedged_who_does_not_allow_it() -> None:
    """Without leave, with one attempt allowed, and at one provider alone, a slow attempt is waited for."""

    async def scenario() -> None:
        slow = answer(after_s=10.0)
        stage = Stage(x=always(slow), y=always(answer()))
        for execution, asked in (
            (stage.execution(), None),
            (stage.execution(hedge=True, attempts=1), None),
            (stage.execution(hedge=True), "a@x"),
        ):
            stage.router.tracker.retain(())
            assert told(await stage.complete(execution, asked=asked))[-1] == "done a@x after 1"
        assert stage.providers["y"].call_count == 0

    play(scenario())


def test_a_caller_who_leaves_ends_both() -> None:
    """Whether the caller cancels or just stops reading, both connections are closed and nothing is in flight."""

    async def scenario() -> None:
        stage = Stage(x=always(HANG), y=always(HANG))
        async with aclosing(stage.events(stage.execution(hedge=True))) as events:
            async for event in events:
                if isinstance(event, AttemptStarted) and event.attempt_number == 2:
                    assert stage.providers["x"].open_count == 1
                    break
        assert [provider.open_count for provider in stage.providers.values()] == [0, 0]
        for _ in range(2 * HEDGE_REQUEST_COUNT):
            await _left_after(stage, 0.1)
        task = asyncio.create_task(_drained(stage))
        await asyncio.sleep(HEDGE_DELAY_S_UNKNOWN + 1.0)
        assert [provider.open_count for provider in stage.providers.values()] == [1, 1]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [provider.open_count for provider in stage.providers.values()] == [0, 0]
        assert [stage.runtime(name).in_flight_count for name in "xy"] == [0, 0]

    async def _drained(stage: Stage) -> None:
        stage.router.tracker.retain(())
        await stage.complete(stage.execution(hedge=True))

    async def _left_after(stage: Stage, wait_s: float) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(wait_s):
                await stage.complete(stage.execution())

    play(scenario())


def test_of_a_thousand_slow_calls_fifty_are_hedged() -> None:
    """However many calls are slow, 5 % of the requests get a second call, and no more."""

    async def scenario() -> None:
        reader = InMemoryMetricReader()
        telemetry = configure_telemetry(TelemetrySettings(), metric_reader=reader)
        stage = Stage(telemetry, x=always(answer(after_s=5.0)), y=always(answer()))
        for _ in range(10):
            # Each wave meets endpoints that nobody knows, so that all of its calls are slow for what is expected.
            stage.router.tracker.retain(())
            await asyncio.gather(*(stage.complete(stage.execution(hedge=True)) for _ in range(100)))
        assert stage.providers["x"].call_count == 1000
        assert stage.providers["y"].call_count == 50
        assert of(points(reader)[names.HEDGES], pointsman_endpoint="a@x", pointsman_hedge_result="won") == 50

    play(scenario())


# Failover under a budget.


def test_when_every_provider_fails_the_budget_bounds_the_calls() -> None:
    """A thousand requests in ten seconds that nobody answers cost a fifth more calls and ten, not two thousand more; who
    is not tried elsewhere is told so."""

    async def scenario() -> None:
        reader = InMemoryMetricReader()
        telemetry = configure_telemetry(TelemetrySettings(), metric_reader=reader)
        # What a provider calls wrong opens no breaker, so that nothing else holds the calls down.
        stage = Stage(telemetry, x=always(refusal(400)), y=always(refusal(400)), z=always(refusal(400)))
        errors = []
        for _ in range(1000):
            with pytest.raises(AttemptsExhaustedError) as caught:
                await stage.complete()
            errors.append(caught.value)
            await asyncio.sleep(0.01)
        assert sum(provider.call_count for provider in stage.providers.values()) == 1210
        assert sum(len(error.failures) - 1 for error in errors) == 210
        stopped = [error for error in errors if error.is_budget_spent]
        assert stopped
        assert all(len(error.failures) < 3 for error in stopped)
        assert "the retry budget is spent" in str(stopped[0])
        assert sum(points(reader)[names.FAILOVERS_REFUSED].values()) == len(stopped)

    play(scenario())


def test_while_one_provider_is_healthy_no_caller_sees_a_failure() -> None:
    """A provider that fails every time costs no request its answer, however many there are."""

    async def scenario() -> None:
        stage = Stage(x=always(refusal(400)), y=always(answer()))
        for _ in range(300):
            assert told(await stage.complete())[-1] == "done a@y after 2"

    play(scenario())


def test_endpoints_that_became_limited_meanwhile_are_passed_over() -> None:
    """A failover asks nobody who has asked to be left alone since the decision was made."""

    async def scenario() -> None:
        stage = Stage(x=always(refusal(after_s=1.0)), y=by_number({0: refusal(429)}, answer()), z=always(answer()))
        first = asyncio.create_task(stage.complete())
        await asyncio.sleep(0.5)
        with pytest.raises(AttemptsExhaustedError):
            await stage.complete(asked="a@y")
        assert told(await first)[-1] == "done a@z after 2"
        assert stage.providers["y"].call_count == 1

    play(scenario())


# Retry-After.


def test_the_only_endpoint_that_asks_for_a_moment_is_waited_for() -> None:
    """After a 429 with a short Retry-After, and nobody else to ask, the same endpoint answers once its time is over."""

    async def scenario() -> None:
        stage = Stage(x=by_number({0: refusal(429, retry_after_s=1.0)}, answer()))
        events = await stage.complete()
        assert told(events) == [
            "1. a@x",
            "AttemptFailure 1",
            "2. a@x",
            "text fine",
            "UsageCounted 2",
            "done a@x after 2",
        ]
        done = events[-1]
        assert isinstance(done, Completed)
        assert done.ttft_s is not None
        assert 1.2 <= done.ttft_s <= 1.45

    play(scenario())


def test_a_long_retry_after_is_the_callers_to_wait_for() -> None:
    """Beyond the bound, or beyond the deadline, the failure comes at once and says when to come back."""

    async def scenario() -> None:
        for retry_after_s, timeout_s in ((10.0, None), (2.0, 2.1)):
            stage = Stage(x=always(refusal(429, retry_after_s=retry_after_s)))
            before_s = stage.clock_s()
            with pytest.raises(AttemptsExhaustedError) as caught:
                await stage.complete(stage.execution(timeout_s=timeout_s))
            assert stage.clock_s() == before_s
            assert caught.value.retry_after_s == pytest.approx(retry_after_s)
            assert stage.providers["x"].call_count == 1

    play(scenario())


def test_a_decision_waits_for_the_only_endpoint_too() -> None:
    """A request that comes while its only endpoint limits our rate is decided when the time is over, if that is short."""

    async def scenario() -> None:
        stage = Stage(x=by_number({0: refusal(429, retry_after_s=2.5), 1: refusal(429, retry_after_s=9.0)}, answer()))
        with pytest.raises(AttemptsExhaustedError):
            await stage.complete(stage.execution(attempts=1))
        before_s = stage.clock_s()
        with pytest.raises(AttemptsExhaustedError):
            await stage.complete(stage.execution(attempts=1))
        assert 2.5 <= stage.clock_s() - before_s <= 3.2
        with pytest.raises(EndpointsUnavailableError):
            await stage.complete()
        assert stage.providers["x"].call_count == 2

    play(scenario())


# Timeouts.


def test_a_hang_is_left_after_a_time_that_follows_from_the_estimate() -> None:
    """A known, quick endpoint that hangs is left after 2 s; the caller's timeout of 30 s is only the most."""

    async def scenario() -> None:
        stage = Stage(x=Played(lambda number: answer() if number < 30 else HANG), y=always(answer()))
        await stage.warm_up()
        events = await stage.complete()
        done = events[-1]
        assert isinstance(done, Completed)
        assert done.ttft_s == pytest.approx(2.2, abs=0.3)
        assert told(events)[:4] == ["1. a@x", "UsageCounted 1", "AttemptFailure 1", "2. a@y"]

    play(scenario())


def test_an_endpoint_that_answers_as_a_whole_is_left_by_what_its_answers_take() -> None:
    """It has twice the 99th percentile of those, not what a first token may take; where nothing is known, or nobody else is
    left, it has what its provider allows."""

    async def scenario() -> None:
        whole = answer("fine", after_s=5.0, gap_s=0.0)
        stage = Stage(x=Played(lambda number: whole if number < 30 else HANG), y=always((100.0, "late", STOP)))
        catalog = stage.router.world.catalog
        entries = Catalog.of(replace(entry, stream=False) for entry in catalog.entries)
        stage.router.world = replace(stage.router.world, catalog=entries)
        for _ in range(30):
            assert told(await stage.complete(stage.execution(ttft_timeout_s=1.0)))[-1] == "done a@x after 1"
        before_s = stage.clock_s()
        assert told(await stage.complete(stage.execution(ttft_timeout_s=1.0)))[-1] == "done a@y after 2"
        assert 110.0 < stage.clock_s() - before_s < 125.0

    play(scenario())


def test_the_callers_timeout_is_the_most() -> None:
    """A shorter timeout of the caller's holds, whatever is expected of the endpoint."""

    async def scenario() -> None:
        stage = Stage(x=always(HANG), y=always(answer()))
        done = (await stage.complete(stage.execution(ttft_timeout_s=0.5)))[-1]
        assert isinstance(done, Completed)
        assert done.ttft_s == pytest.approx(0.7)

    play(scenario())


def test_the_last_candidate_is_given_the_time_that_there_is() -> None:
    """An endpoint that has become slow is waited for up to the timeout when there is nobody else to ask."""

    async def scenario() -> None:
        stage = Stage(x=Played(lambda number: answer() if number < 30 else answer(after_s=20.0)))
        await stage.warm_up()
        assert told(await stage.complete())[-1] == "done a@x after 1"

    play(scenario())


def test_the_deadline_leaves_time_for_a_second_attempt() -> None:
    """Half of it goes to an endpoint that hangs, and the other half is enough for the next one."""

    async def scenario() -> None:
        stage = Stage(x=always(HANG), y=always(answer()))
        done = (await stage.complete(stage.execution(timeout_s=4.0)))[-1]
        assert isinstance(done, Completed)
        assert done.ttft_s == pytest.approx(2.2)

    play(scenario())


@pytest.mark.parametrize("hedge", [False, True])
def test_the_deadline_ends_everything(hedge: bool) -> None:  # noqa: FBT001 - a case
    """If nobody answers the call ends at its deadline, no sooner and no later, and every connection is closed."""

    async def scenario() -> None:
        stage = Stage(x=always(HANG), y=always(HANG))
        with pytest.raises(DeadlineExceededError):
            await stage.complete(stage.execution(timeout_s=4.5, hedge=hedge))
        assert stage.clock_s() == pytest.approx(4.5)
        assert [provider.open_count for provider in stage.providers.values()] == [0, 0]

    play(scenario())


LONG = "word" * 50
STALLED: Script = (0.2, "a", 0.01, "b", 0.01, "c", NEVER)


def test_a_stalled_stream_ends_and_is_begun_anew_on_request() -> None:
    """Without a further piece for some seconds the attempt has failed as a timeout, and the next candidate answers."""

    async def scenario() -> None:
        stage = Stage(x=Played(lambda number: answer(LONG) if number < 30 else STALLED), y=always(answer()))
        await stage.warm_up()
        before_s = stage.clock_s()
        events = await stage.complete(stage.execution(restart=True))
        assert told(events) == [
            "1. a@x",
            "text abc",
            "UsageCounted 1",
            "AttemptFailure 1",
            "2. a@y",
            "text fine",
            "UsageCounted 2",
            "done a@y after 2",
        ]
        assert stage.clock_s() - before_s == pytest.approx(0.22 + STALL_S_MIN + 0.24, abs=0.05)
        assert stage.providers["x"].open_count == 0

    play(scenario())


def test_a_stalled_stream_that_may_not_be_begun_anew_is_broken() -> None:
    """The caller is told that the answer broke off, by a timeout, and how much of it came."""

    async def scenario() -> None:
        stage = Stage(x=Played(lambda number: answer(LONG) if number < 30 else STALLED), y=always(answer()))
        await stage.warm_up()
        before_s = stage.clock_s()
        with pytest.raises(StreamBrokenError) as caught:
            await stage.complete()
        assert caught.value.failure.kind is UpstreamErrorKind.TIMEOUT
        assert (caught.value.delta_count, caught.value.character_count) == (3, 3)
        assert stage.clock_s() - before_s == pytest.approx(0.22 + STALL_S_MIN_COMMITTED, abs=0.05)
        assert stage.providers["y"].call_count == 0

    play(scenario())


def test_a_stream_in_bursts_does_not_stall() -> None:
    """A provider that sends a hundred tokens every four seconds, then every twelve, is slow but not stalled."""

    async def scenario() -> None:
        bursts = (0.2, "a" * 400, 4.0, "b" * 400, 12.0, "c" * 400, STOP)
        stage = Stage(x=Played(lambda number: answer(LONG) if number < 30 else bursts), y=always(answer()))
        await stage.warm_up()
        assert told(await stage.complete(stage.execution(restart=True)))[-1] == "done a@x after 1"

    play(scenario())


def test_a_callers_pause_is_none_of_the_streams() -> None:
    """A caller that takes a piece every five seconds makes no endpoint look slow, and wins no stalled stream more time."""

    async def scenario() -> None:
        pieces = [step for _ in range(30) for step in (0.01, "four")]
        stage = Stage(x=by_number({1: (0.2, *pieces, NEVER)}, (0.2, *pieces, STOP)))
        await stage.warm_up(1)
        before = stage.runtime("x").inter_token_latency_s
        assert before is not None
        taken_s = 0.0

        async def take_slowly() -> None:
            nonlocal taken_s
            async for event in stage.events(stage.execution()):
                if isinstance(event, TextDelta):
                    await asyncio.sleep(5.0)
                    taken_s = stage.clock_s()

        with pytest.raises(StreamBrokenError):
            await take_slowly()
        assert stage.clock_s() - taken_s == pytest.approx(STALL_S_MIN_COMMITTED, abs=0.1)
        after = stage.runtime("x").inter_token_latency_s
        assert after is not None
        assert after.p50 == pytest.approx(before.p50, rel=0.2)

    play(scenario())


# What is learned.


def test_a_stream_that_breaks_or_is_left_tells_its_speed() -> None:
    """The tokens that came until then are known to the tracker, although the answer never ended."""

    async def scenario() -> None:
        pieces = [step for _ in range(50) for step in (0.05, "four")]
        breaking = (0.2, *pieces, UpstreamDisconnectedError("it broke"))
        stage = Stage(x=always(breaking), y=always((0.2, *pieces, NEVER)))
        with pytest.raises(StreamBrokenError):
            await stage.complete(asked="a@x")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.0):
                await stage.complete(asked="a@y")
        for name in "xy":
            latency = stage.runtime(name).inter_token_latency_s
            assert latency is not None
            assert latency.p50 == pytest.approx(0.05, rel=0.05)
        assert stage.runtime("y").error_rate is None

    play(scenario())


def test_who_has_waited_looks_again_before_the_call() -> None:
    """Two requests wait for the time that an endpoint asked for: one within its own attempts, one in line. The one in line
    calls first, and is told to stay away for another second: the other waits for that, too, and is served."""

    async def scenario() -> None:
        stage = Stage(
            x=by_number({0: refusal(429, retry_after_s=1.0), 1: refusal(429, retry_after_s=1.0)}, answer("fine"))
        )
        first = asyncio.create_task(stage.complete())
        await asyncio.sleep(0.5)
        second = asyncio.create_task(stage.complete(stage.execution(attempts=1)))
        await asyncio.sleep(0.8)
        assert stage.providers["x"].call_count == 2
        with pytest.raises(AttemptsExhaustedError):
            await second
        assert told(await first)[-1] == "done a@x after 2"
        assert stage.clock_s() >= 2.0

    play(scenario())


def test_a_wait_that_has_become_too_long_ends_without_a_call() -> None:
    """As before, but the one in line is told to stay away for ten seconds: the other one's wait ends without a second
    attempt, its caller is told when to come back, and nobody has been called before the time."""

    async def scenario() -> None:
        refusals = {0: refusal(429, retry_after_s=1.0), 1: refusal(429, retry_after_s=10.0)}
        stage = Stage(x=by_number(refusals, answer("fine")))
        first = asyncio.create_task(stage.complete())
        await asyncio.sleep(0.5)
        with pytest.raises(AttemptsExhaustedError):
            await stage.complete(stage.execution(attempts=1))
        with pytest.raises(AttemptsExhaustedError) as caught:
            await first
        assert len(caught.value.failures) == 1
        assert caught.value.retry_after_s == pytest.approx(11.0 - stage.clock_s(), abs=0.01)
        assert stage.providers["x"].call_count == 2

    play(scenario())


def test_a_wait_that_came_to_nothing_is_no_attempt() -> None:
    """The place that was waited for is gone for ten seconds; the next one that is waited for answers, as the third of the
    three attempts that a request has."""

    async def scenario() -> None:
        x = by_number({0: refusal(429, retry_after_s=1.0), 1: refusal(429, retry_after_s=10.0)}, answer("fine"))
        stage = Stage(x=x, y=by_number({0: refusal(429, retry_after_s=1.6)}, answer("fine")))
        first = asyncio.create_task(stage.complete(stage.execution(attempts=3)))
        await asyncio.sleep(0.5)
        with pytest.raises(AttemptsExhaustedError):
            await stage.complete(stage.execution(attempts=1))
        assert told(await first)[-1] == "done a@y after 3"

    play(scenario())


def test_a_request_that_comes_too_late_is_not_even_decided() -> None:
    """With less left of its deadline than a call takes, nobody is chosen and nobody is called: a server that is behind
    spends its time on those who can still be served."""

    async def scenario() -> None:
        reader = InMemoryMetricReader()
        stage = Stage(configure_telemetry(TelemetrySettings(), metric_reader=reader), x=always(answer()))
        with pytest.raises(DeadlineExceededError):
            await stage.complete(stage.execution(timeout_s=0.009))
        assert stage.providers["x"].call_count == 0
        assert names.DECISIONS not in points(reader)

    play(scenario())


def test_a_prompt_is_not_assessed_where_limits_refuse_it() -> None:
    """While an endpoint may be called, a quality is predicted; once all limit our rate, the refusal tells each with its
    limit, and no prediction is made for it."""

    async def scenario() -> None:
        stage = Stage(x=always(refusal(429, retry_after_s=30.0)), y=always(refusal(429, retry_after_s=40.0)))
        world = stage.router.world
        known = world.routers["default"].quality.profiles[0].model
        stage.router.world = replace(world, quality_names={"a": known})
        decided = await anext(stage.events())
        assert isinstance(decided, Decided)
        assert all(candidate.quality is not None for candidate in decided.decision.candidates)
        with pytest.raises(AttemptsExhaustedError):
            await stage.complete()
        with pytest.raises(EndpointsUnavailableError) as refused:
            await stage.complete()
        assert refused.value.rate_limited
        assert refused.value.retry_after_s == pytest.approx(30.0)
        candidates = refused.value.decision.candidates
        assert [candidate.rejections[0].actual for candidate in candidates] == pytest.approx([30.0, 40.0])
        assert [candidate.quality for candidate in candidates] == [None, None]

    play(scenario())
