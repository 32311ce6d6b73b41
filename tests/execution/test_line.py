"""Requests that nobody may serve at once wait in line, in virtual time: in order, briefly, and not too many of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from contextlib import ExitStack

import pytest
from execution.played import Played, Stage, always, answer, by_number, refusal, told
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from pointsman_server.chat import RequestAllowance
from pointsman_server.errors import AttemptsExhaustedError, EndpointsUnavailableError
from pointsman_server.execution.lineup import WAIT_S_MAX
from pointsman_server.line import WAITER_COUNT_MAX, Lines
from pointsman_server.router import Completed
from pointsman_server.telemetry import names
from pointsman_server.telemetry.setup import TelemetrySettings, configure_telemetry
from telemetry.test_metrics import points

from benchmarks.drift.loop import run_virtually


def play(scenario: Coroutine[None, None, None]) -> None:
    """In virtual time."""
    run_virtually(scenario)


def limit(stage: Stage, provider: str, *, per_s: float, now_count: int = 0) -> None:
    """From now on the endpoint at this provider admits so many calls a second, and so many at once."""
    now_s = stage.clock_s()
    attempt = stage.router.tracker.start(f"a@{provider}", input_token_count=1, now_s=now_s)
    attempt.allowance(
        RequestAllowance(limit_count=now_count + round(60.0 * per_s), remaining_count=now_count, reset_s=60.0), now_s
    )
    attempt.cancel(now_s)


class Crowd:
    """Requests that come one after the other, and when each was answered or refused."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.answered: list[tuple[int, float]] = []
        """Each with the time from its arrival to its first token."""
        self.refused: list[tuple[int, float]] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def comes(self, count: int, *, apart_s: float = 0.01, asked: str | None = None) -> None:
        """So many requests, from now on."""
        for _ in range(count):
            self.tasks.append(asyncio.create_task(self._ask(len(self.tasks), asked)))
            await asyncio.sleep(apart_s)

    async def _ask(self, number: int, asked: str | None) -> None:
        arrived_s = self.stage.clock_s()
        try:
            done = (await self.stage.complete(asked=asked))[-1]
        except EndpointsUnavailableError:
            self.refused.append((number, self.stage.clock_s() - arrived_s))
        else:
            assert isinstance(done, Completed)
            assert done.ttft_s is not None
            self.answered.append((number, done.ttft_s))

    async def over(self) -> None:
        """All have been answered or refused."""
        await asyncio.wait(self.tasks)


def test_they_are_served_in_the_order_in_which_they_came() -> None:
    """Five requests for an endpoint with two places a second: each gets the next one, to the moment."""

    async def scenario() -> None:
        stage = Stage(x=always(answer(after_s=0.2)))
        limit(stage, "x", per_s=2.0)
        crowd = Crowd(stage)
        await crowd.comes(5)
        await crowd.over()
        assert [number for number, _ in crowd.answered] == [0, 1, 2, 3, 4]
        begun_s = [ttft_s + 0.01 * number - 0.2 for number, ttft_s in crowd.answered]
        assert begun_s == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.5], abs=0.01)
        assert not crowd.refused

    play(scenario())


def test_only_the_first_looks() -> None:
    """However many wait, each decides when it comes, when its turn has come and when its time is over: no stampede."""

    async def scenario() -> None:
        reader = InMemoryMetricReader()
        stage = Stage(configure_telemetry(TelemetrySettings(), metric_reader=reader), x=always(answer()))
        limit(stage, "x", per_s=20.0)
        crowd = Crowd(stage)
        await crowd.comes(50, apart_s=0.001)
        await crowd.over()
        assert [number for number, _ in crowd.answered] == list(range(50))
        assert sum(points(reader)[names.DECISIONS].values()) < 4 * 50

    play(scenario())


def test_nobody_waits_for_longer_than_the_bound() -> None:
    """Of ten requests at two places a second those are served whose place comes within 3 s; the others are told by then."""

    async def scenario() -> None:
        stage = Stage(x=always(answer(after_s=0.2)))
        limit(stage, "x", per_s=2.0)
        crowd = Crowd(stage)
        await crowd.comes(10)
        await crowd.over()
        assert [number for number, _ in crowd.answered] == [0, 1, 2, 3, 4, 5]
        assert [number for number, _ in crowd.refused] == [6, 7, 8, 9]
        assert max(waited_s for _, waited_s in crowd.answered) <= WAIT_S_MAX + 0.2
        assert max(waited_s for _, waited_s in crowd.refused) <= WAIT_S_MAX + 0.001

    play(scenario())


def test_a_deadline_that_is_nearer_is_the_bound() -> None:
    """Who has a second waits for a place in half a second, and for none in two: half of the time is for the answer."""

    async def scenario() -> None:
        for per_s, is_served in ((2.0, True), (1.9, False), (0.5, False)):
            stage = Stage(x=always(answer(after_s=0.2)))
            limit(stage, "x", per_s=per_s)
            if is_served:
                assert told(await stage.complete(stage.execution(timeout_s=1.0)))[-1] == "done a@x after 1"
                continue
            before_s = stage.clock_s()
            with pytest.raises(EndpointsUnavailableError) as caught:
                await stage.complete(stage.execution(timeout_s=1.0))
            assert stage.clock_s() == before_s
            assert caught.value.retry_after_s == pytest.approx(1.0 / per_s, abs=0.01)

    play(scenario())


def test_nobody_waits_for_a_place_that_others_will_have() -> None:
    """At two places a second six come within the 3 s that a request may wait: of a hundred that come at once six wait, and
    are served; all others are told at once."""

    async def scenario() -> None:
        stage = Stage(x=always(answer()))
        limit(stage, "x", per_s=2.0)
        crowd = Crowd(stage)
        await crowd.comes(100, apart_s=0.0)
        assert [waited_s for _, waited_s in crowd.refused] == [0.0] * 94
        await crowd.over()
        assert [number for number, _ in crowd.answered] == list(range(6))
        assert len(crowd.refused) == 94

    play(scenario())


def test_nobody_stands_in_line_for_a_refusal() -> None:
    """An endpoint refused all it was asked, and asks for 5 s. Shortly before that is over one request waits, since one may
    be let in; it is refused. Those who came with it were told at once, and so is who comes after it."""

    async def scenario() -> None:
        stage = Stage(x=always(refusal(429, after_s=0.01)))
        with pytest.raises(AttemptsExhaustedError):
            await stage.complete(stage.execution(attempts=1))
        await asyncio.sleep(4.95)
        trying = asyncio.create_task(stage.complete(stage.execution(attempts=1, timeout_s=0.2)))
        await asyncio.sleep(0.01)
        for pause_s in (0.01, 0.01, 0.2):
            before_s = stage.clock_s()
            with pytest.raises(EndpointsUnavailableError):
                await stage.complete(stage.execution(timeout_s=0.2))
            assert stage.clock_s() == before_s
            await asyncio.sleep(pause_s)
        with pytest.raises(AttemptsExhaustedError):
            await trying
        assert stage.providers["x"].call_count == 2

    play(scenario())


def test_not_too_many_wait() -> None:
    """However much room there will be, 200 requests wait at one time, in all lines together; when one leaves, another may."""

    async def scenario() -> None:
        lines = Lines()
        names = [frozenset({f"a@{number}"}) for number in range(WAITER_COUNT_MAX + 5)]
        with ExitStack() as waiting:
            places = [waiting.enter_context(lines.place()) for _ in names]
            entered = [place.enter(line, room=math.inf) for place, line in zip(places, names, strict=True)]
            assert entered == [True] * WAITER_COUNT_MAX + [False] * 5
            places[0].leave()
            assert places[-1].enter(names[-1], room=math.inf)

    play(scenario())


def test_who_comes_last_does_not_overtake() -> None:
    """When room comes sooner than was known, the one who waits for it is served before the one who finds it."""

    async def scenario() -> None:
        stage = Stage(x=always(answer(after_s=0.2)))
        limit(stage, "x", per_s=0.5)
        crowd = Crowd(stage)
        await crowd.comes(1, apart_s=0.5)
        limit(stage, "x", per_s=1.0, now_count=1)
        await crowd.comes(1)
        await crowd.over()
        (first, first_s), (second, second_s) = crowd.answered
        assert (first, second) == (0, 1)
        assert (first_s, second_s) == pytest.approx((0.7, 1.2), abs=0.01)

    play(scenario())


def test_who_leaves_the_line_leaves_the_place_to_the_next() -> None:
    """A caller who goes while it waits costs nobody anything."""

    async def scenario() -> None:
        stage = Stage(x=always(answer(after_s=0.2)))
        limit(stage, "x", per_s=2.0)
        crowd = Crowd(stage)
        await crowd.comes(3)
        crowd.tasks[0].cancel()
        await crowd.over()
        assert [number for number, _ in crowd.answered] == [1, 2]
        assert crowd.answered[0][1] == pytest.approx(0.5 - 0.01 + 0.2, abs=0.01)

    play(scenario())


def test_who_may_be_served_elsewhere_does_not_wait() -> None:
    """A line for one endpoint holds nobody up who has another."""

    async def scenario() -> None:
        stage = Stage(x=always(answer()), y=always(answer()))
        limit(stage, "x", per_s=0.4)
        crowd = Crowd(stage)
        await crowd.comes(1, asked="a@x")
        await crowd.comes(1)
        await crowd.over()
        assert [number for number, _ in crowd.answered] == [1, 0]
        assert crowd.answered[0][1] == pytest.approx(0.2)

    play(scenario())


def test_where_all_are_ill_a_retry_after_is_waited_for() -> None:
    """With its breaker open and a Retry-After of a moment, the only endpoint is called when that is over: neither before,
    nor as late as its breaker says."""

    async def scenario() -> None:
        failing = {number: refusal(500) for number in range(5)}
        stage = Stage(x=Played(lambda number: {**failing, 5: refusal(429, retry_after_s=1.0)}.get(number, answer())))
        for _ in range(5):
            with pytest.raises(AttemptsExhaustedError):
                await stage.complete(stage.execution(attempts=1))
        with pytest.raises(AttemptsExhaustedError):
            await stage.complete(stage.execution(attempts=1))
        opened_s = stage.clock_s()
        runtime = stage.runtime("x")
        assert runtime.breaker_open_s == pytest.approx(5.0)
        assert runtime.retry_after_s == pytest.approx(1.0)
        assert told(await stage.complete())[-1] == "done a@x after 1"
        assert stage.clock_s() == pytest.approx(opened_s + 1.0 + 0.24, abs=0.01)

    play(scenario())


def test_an_ill_endpoint_may_be_waited_for_within_one_request_too() -> None:
    """A panic that is answered with 429 and a short Retry-After is followed by a second call when that is over."""

    async def scenario() -> None:
        stage = Stage(
            x=by_number({**{n: refusal(500) for n in range(5)}, 5: refusal(429, retry_after_s=1.0)}, answer())
        )
        for _ in range(5):
            with pytest.raises(AttemptsExhaustedError):
                await stage.complete(stage.execution(attempts=1))
        assert told(await stage.complete())[-1] == "done a@x after 2"

    play(scenario())


def test_a_line_shows_how_long_it_is() -> None:
    """A person who prints it sees how many wait in each line."""

    async def scenario() -> None:
        lines = Lines()
        with lines.place() as one, lines.place() as other:
            assert one.enter(frozenset({"a@x"}), room=1.0)
            assert other.goes_behind("a@x")
            assert repr(lines) == "Lines([2])"
            one.leave()
            assert repr(lines) == "Lines([1])"
        assert repr(lines) == "Lines([])"

    play(scenario())
