"""The contract of docs/streams.md, in virtual time: whatever befalls whichever attempt, the stream is in order, has one end,
and its text is whole, or a counted part of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count

from execution.played import HANG, STOP, Played, Script, Stage, Step, always, answer, refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from pointsman_server.attempt import UsageCounted, merged
from pointsman_server.chat import (
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UpstreamEvent,
    Usage,
    UsageReported,
)
from pointsman_server.errors import (
    AttemptFailure,
    AttemptsExhaustedError,
    DeadlineExceededError,
    PointsmanError,
    StreamBrokenError,
    UpstreamDisconnectedError,
    UpstreamStatusError,
)
from pointsman_server.providers.base import UpstreamCall
from pointsman_server.race import AttemptStarted
from pointsman_server.router import Completed, CompletionEvent, Decided

from benchmarks.drift.loop import run_virtually

PROVIDERS = ("x", "y", "z")
LETTERS = {
    Decided: "D",
    AttemptStarted: "S",
    TextDelta: "d",
    UsageCounted: "u",
    AttemptFailure: "F",
    Completed: "E",
}
"""How the kinds of events are written where their order is told."""
IN_ORDER = re.compile(r"D(Su?F)*(Sd*(u?[FE]|!)|!)?")
"""Failures in silence, then at most one answer, which may break off; the deadline (!) ends it at any point."""
IN_ORDER_WITH_RESTARTS = re.compile(r"D(Sd*u?F)*(Sd*(u?E|!)|!)?")
"""Any attempt may have shown something before it failed."""


@dataclass(frozen=True, slots=True)
class Told:
    """A completion as its caller sees it: events, then possibly an error."""

    events: tuple[CompletionEvent, ...]
    error: PointsmanError | None

    @property
    def order(self) -> str:
        """The kinds of events in their order, a letter each, and ! if the deadline ended it."""
        letters = "".join(LETTERS[type(event)] for event in self.events)
        return f"{letters}!" if isinstance(self.error, DeadlineExceededError) else letters

    @property
    def text(self) -> str:
        """What the deltas since the last attempt began add up to: those before it are void."""
        text = ""
        for event in self.events:
            if isinstance(event, AttemptStarted):
                text = ""
            elif isinstance(event, TextDelta):
                text += event.text
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Played3:
    """A scenario: what each of three providers does, and how the completion is carried out."""

    scripts: tuple[Script, Script, Script]
    attempts: int
    hedge: bool
    restart: bool
    timeout_s: float | None

    def tell(self) -> Told:
        """What comes of it. Afterwards no provider has a call open."""
        told: list[Told] = []

        async def scenario() -> None:
            x, y, z = (always(script) for script in self.scripts)
            stage = Stage(x=x, y=y, z=z)
            execution = stage.execution(
                attempts=self.attempts, hedge=self.hedge, restart=self.restart, timeout_s=self.timeout_s
            )
            events: list[CompletionEvent] = []
            error = None
            try:
                async for event in stage.events(execution):
                    events.append(event)  # noqa: PERF401 - those before an error count
            except PointsmanError as caught:
                error = caught
            assert [provider.open_count for provider in stage.providers.values()] == [0, 0, 0]
            told.append(Told(tuple(events), error))

        run_virtually(scenario())
        return told[0]


@st.composite
def scripts(draw: st.DrawFn, name: str) -> Script:
    """What a provider may do: a wait, pieces that tell whose they are, a report of tokens, and some end."""
    steps: list[Step] = [draw(st.sampled_from([0.0, 0.3, 5.0]))]
    for number in range(draw(st.integers(0, 4))):
        steps += [f"{name}{number} ", draw(st.sampled_from([0.0, 0.2, 4.0]))]
    if draw(st.booleans()):
        steps.append(UsageReported(Usage(input_token_count=7, output_token_count=3)))
    ends: list[Script] = [
        (STOP,),
        (UpstreamDisconnectedError("the connection broke"),),
        (UpstreamStatusError(503),),
        (),  # The stream ends without a finish.
        HANG,
    ]
    return (*steps, *draw(st.sampled_from(ends)))


@st.composite
def scenarios(draw: st.DrawFn, *, hedge: bool) -> Played3:
    """Any behaviour of three providers, under any of the options."""
    x, y, z = (draw(scripts(name)) for name in PROVIDERS)
    return Played3(
        scripts=(x, y, z),
        attempts=draw(st.integers(1, 3)),
        hedge=hedge,
        restart=draw(st.booleans()),
        timeout_s=draw(st.sampled_from([None, 0.25, 1.0, 8.0])),
    )


def text_of(script: Script) -> str:
    """All text that a script has to give."""
    return "".join(step for step in script if isinstance(step, str))


def check_end(played: Played3, told: Told) -> None:
    """One end, of the kind that what happened calls for, which counts what the caller has."""
    *before, last = told.events
    assert not any(isinstance(event, Completed) for event in before)
    match told.error:
        case None:
            assert isinstance(last, Completed)
            script = played.scripts[PROVIDERS.index(last.endpoint_name.removeprefix("a@"))]
            assert told.text == text_of(script), "the whole text, once"
        case StreamBrokenError(delta_count=delta_count, character_count=character_count):
            assert not played.restart
            assert told.text
            assert (delta_count, character_count) == (told.order.count("d"), len(told.text))
        case AttemptsExhaustedError(failures=failures):
            assert played.restart or "d" not in told.order
            assert failures == tuple(event for event in told.events if isinstance(event, AttemptFailure))
        case DeadlineExceededError():
            assert played.timeout_s is not None
        case other:
            raise AssertionError(other)
    if told.error is not None:
        assert "E" not in told.order
        assert any(text_of(script).startswith(told.text) for script in played.scripts), "a part from the start on"


def check_accounts(told: Told) -> None:
    """Attempts are numbered as they begin, none is counted twice, and all that gave text are counted."""
    numbers = [event.attempt_number for event in told.events if isinstance(event, AttemptStarted)]
    assert numbers == list(range(1, len(numbers) + 1))
    counted = [event.attempt_number for event in told.events if isinstance(event, UsageCounted)]
    failed = [event.attempt_number for event in told.events if isinstance(event, AttemptFailure)]
    assert len(counted) == len(set(counted))
    assert len(failed) == len(set(failed))
    assert set(counted) | set(failed) <= set(numbers)
    if isinstance(last := told.events[-1], Completed):
        assert last.attempt_count == len(numbers)
        assert last.cost_usd == sum(e.cost_usd for e in told.events if isinstance(e, UsageCounted) and e.cost_usd)


@settings(max_examples=60)
@given(scenarios(hedge=False))
def test_any_attempts_make_a_stream_that_is_in_order_and_has_one_end(played: Played3) -> None:
    """Decision first; failures in silence, unless restarts were asked for; deltas, usage, one end. No text twice, none
    lost."""
    told = played.tell()
    assert (IN_ORDER_WITH_RESTARTS if played.restart else IN_ORDER).fullmatch(told.order) is not None, told.order
    check_end(played, told)
    check_accounts(told)
    if "d" in told.order and "!" not in told.order:
        assert "u" in told.order, "what gave text is counted"


@settings(max_examples=60)
@given(scenarios(hedge=True))
def test_a_hedge_changes_neither_the_end_nor_the_text(played: Played3) -> None:
    """With two attempts at a time the deltas are still of one of them, and all else holds as it does without."""
    told = played.tell()
    assert told.order.startswith("DS")
    # What one attempt shows comes in one go: nothing of another one is between two of its deltas.
    assert re.search(r"d[DSE]+d", told.order) is None or played.restart
    check_end(played, told)
    check_accounts(told)


def test_nothing_is_asked_of_a_provider_before_the_caller_has_taken_what_is_there() -> None:
    """A caller who does not go on reading stops the reading of the provider: one piece is under way, whatever is to come."""

    async def scenario() -> None:
        pulled = count()
        taken = 0

        class Endless(Played):
            """A provider that always has a further piece, and counts those that it was asked for."""

            async def complete(self, call: UpstreamCall) -> AsyncGenerator[tuple[UpstreamEvent, ...], None]:
                assert call.stream
                for number in pulled:
                    yield (TextDelta(f"{number}"),)

        stage = Stage(x=Endless(lambda _: ()))
        async with aclosing(stage.events()) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    taken += 1
                    # Time passes, and the caller does nothing.
                    await asyncio.sleep(100.0)
                    assert event.text == f"{taken - 1}"
                if taken == 5:
                    break
        assert next(pulled) == taken

    run_virtually(scenario())


def test_what_came_together_is_joined_as_far_as_it_is_of_one_kind() -> None:
    """Neighbouring pieces of text, of reasoning and of one tool call become one each; order, ids, names and signatures stay."""
    batch: list[UpstreamEvent] = [
        ReasoningDelta("so"),
        ReasoningDelta(" then"),
        TextDelta("a"),
        TextDelta("b"),
        ToolCallDelta(0, "call_1", "weather", "", "p:why"),
        ToolCallDelta(0, arguments_json_fragment='{"city": '),
        ToolCallDelta(0, arguments_json_fragment='"Oslo"}'),
        ToolCallDelta(1, "call_2", "time", "{}"),
        ToolCallDelta(1, "call_3", "time", "{}"),
        ToolCallDelta(1, signature="p:late"),
        ToolCallDelta(1, signature="p:another"),
        TextDelta("c"),
        STOP,
    ]
    assert merged(batch) == [
        ReasoningDelta("so then"),
        TextDelta("ab"),
        ToolCallDelta(0, "call_1", "weather", '{"city": "Oslo"}', "p:why"),
        ToolCallDelta(1, "call_2", "time", "{}"),
        ToolCallDelta(1, "call_3", "time", "{}", "p:late"),
        ToolCallDelta(1, signature="p:another"),
        TextDelta("c"),
        STOP,
    ]


def test_too_little_time_calls_nobody() -> None:
    """With less left than any provider could answer in, no call is made and none is paid for."""

    async def scenario() -> None:
        stage = Stage(x=always(answer()), y=always(refusal()))
        events: list[CompletionEvent] = []
        try:
            async for event in stage.events(stage.execution(timeout_s=0.005)):
                events.append(event)  # noqa: PERF401 - those before an error count
        except DeadlineExceededError:
            assert events == []
            assert [provider.call_count for provider in stage.providers.values()] == [0, 0]
            return
        raise AssertionError(events)

    run_virtually(scenario())
