"""What every attempt costs: by the provider's counts, and marked as an estimate where they are not the whole."""

from __future__ import annotations

import asyncio

import pytest
from execution.played import HANG, STOP, Script, Stage, always, answer, refusal
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from pointsman_server.attempt import UsageCounted
from pointsman_server.chat import Usage, UsageReported
from pointsman_server.errors import StreamBrokenError, UpstreamConnectError, UpstreamDisconnectedError
from pointsman_server.router import Completed, CompletionEvent
from pointsman_server.telemetry import names
from pointsman_server.telemetry.setup import TelemetrySettings, configure_telemetry
from telemetry.test_metrics import of, points

from benchmarks.drift.loop import run_virtually

COUNTED = UsageReported(Usage(input_token_count=100, output_token_count=7))
BEGUN = UsageReported(Usage(input_token_count=100, cached_input_token_count=60))
"""What a provider tells before its answer: output is not known yet."""
BREAK = UpstreamDisconnectedError("the connection broke")


def usages(events: list[CompletionEvent]) -> list[UsageCounted]:
    """What was told of tokens and money."""
    return [event for event in events if isinstance(event, UsageCounted)]


async def broken_off(script: Script) -> list[CompletionEvent]:
    """What happens before an answer that breaks off does."""
    events: list[CompletionEvent] = []
    try:
        async for event in Stage(x=always(script)).events():
            events += [event]
    except StreamBrokenError:
        return events
    pytest.fail("the answer did not break off")


def done(events: list[CompletionEvent]) -> Completed:
    """The terminal event."""
    assert isinstance(events[-1], Completed)
    return events[-1]


def test_the_providers_own_counts_are_no_estimate() -> None:
    """They are told as they are, at the catalog's prices."""

    async def scenario() -> None:
        events = await Stage(x=always((0.1, "fine", COUNTED, STOP))).complete()
        (used,) = usages(events)
        assert (used.usage, used.estimated) == (COUNTED.usage, False)
        assert used.cost_usd == pytest.approx((100 * 1.0 + 7 * 2.0) / 1e6)
        assert (done(events).cost_usd, done(events).cost_estimated) == (used.cost_usd, False)

    run_virtually(scenario())


def test_an_attempt_that_was_left_has_been_read() -> None:
    """The provider that hangs may be at work and will bill the input: it counts, as an estimate, in the end too."""

    async def scenario() -> None:
        events = await Stage(x=always(HANG), y=always((0.1, "fine", COUNTED, STOP))).complete()
        left, answered = usages(events)
        assert (left.attempt_number, left.usage.output_token_count, left.estimated) == (1, 0, True)
        assert left.cost_usd is not None
        assert left.cost_usd > 0.0
        assert answered.cost_usd is not None
        assert done(events).cost_usd == pytest.approx(left.cost_usd + answered.cost_usd)
        assert done(events).cost_estimated

    run_virtually(scenario())


@pytest.mark.parametrize(
    "script",
    [refusal(500), refusal(429), (0.1, UpstreamConnectError("no connection")), (0.1, BREAK)],
    ids=["error", "rate limit", "no connection", "broken connection"],
)
def test_who_refuses_or_never_began_is_not_paid(script: Script) -> None:
    """No tokens are told of an attempt that got nothing but a refusal."""

    async def scenario() -> None:
        events = await Stage(x=always(script), y=always((0.1, "fine", COUNTED, STOP))).complete()
        assert [used.attempt_number for used in usages(events)] == [2]
        assert not done(events).cost_estimated

    run_virtually(scenario())


def test_what_a_provider_counted_before_it_failed_is_paid() -> None:
    """Its count of the input holds, cached part included; as the answer never ended, it is an estimate of the whole."""

    async def scenario() -> None:
        events = await Stage(x=always((0.1, BEGUN, BREAK)), y=always((0.1, "fine", COUNTED, STOP))).complete()
        begun, _ = usages(events)
        assert begun.usage == Usage(input_token_count=100, output_token_count=0, cached_input_token_count=60)
        assert begun.estimated

    run_virtually(scenario())


def test_a_break_in_the_middle_counts_what_was_sent() -> None:
    """The output by its length, though the provider had counted less by then."""

    async def scenario() -> None:
        (broken,) = usages(await broken_off((0.1, BEGUN, "x" * 40, BREAK)))
        assert (broken.usage.input_token_count, broken.usage.output_token_count, broken.estimated) == (100, 10, True)

    run_virtually(scenario())


def test_a_count_that_came_before_a_break_is_marked() -> None:
    """Providers that count with every piece have counted what they sent, not what they bill."""

    async def scenario() -> None:
        (broken,) = usages(await broken_off((0.1, "fine", COUNTED, BREAK)))
        assert (broken.usage, broken.estimated) == (COUNTED.usage, True)

    run_virtually(scenario())


def test_a_caller_who_leaves_has_been_read_too() -> None:
    """Nobody is left to tell, but the metrics know what it cost."""

    async def scenario() -> None:
        reader = InMemoryMetricReader()
        stage = Stage(configure_telemetry(TelemetrySettings(), metric_reader=reader), x=always(answer(after_s=60.0)))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await stage.complete()
        found = points(reader)
        assert of(found[names.COST], pointsman_endpoint="a@x") > 0.0
        assert of(found[names.GEN_AI_CLIENT_TOKEN_USAGE], pointsman_endpoint="a@x", gen_ai_token_type="input") > 0

    run_virtually(scenario())
