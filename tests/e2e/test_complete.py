"""Complete: the stream, its failovers and its ends, against upstreams that do exactly what a script says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Literal

import grpc
import pytest
from e2e.harness import (
    END,
    Running,
    config_of,
    delta_event,
    endpoints,
    refusing,
    running,
    streaming,
    urls_of,
)
from pointsman import (
    AttemptFailed,
    AttemptsExhaustedError,
    AttemptStarted,
    DeadlineExceededError,
    Decision,
    Delta,
    Done,
    Event,
    NoEligibleEndpointError,
    ResourceExhaustedError,
    StreamBrokenError,
    UnavailableError,
    Usage,
    conversation,
    system,
    tool,
    user,
)
from pointsman.v1 import chat_pb2, routing_pb2
from pointsman.v1.chat_pb2 import SamplingOptions
from pointsman_server.providers.scripted import (
    Hang,
    ReadRequest,
    Reset,
    Script,
    ScriptedUpstream,
    Send,
    event,
    stream_head,
    whole_answer,
)

IN_ORDER = "a@first->a@second->a@third"
"""A chain of fallbacks, so that the order of attempts is the test's."""


@asynccontextmanager
async def serving(*scripts: Script, extra: str = "") -> AsyncIterator[tuple[Running, list[ScriptedUpstream]]]:
    """A server with one model at three providers, of which each plays one script; missing ones answer in full."""
    names = ("first", "second", "third")
    filled = [*scripts, *([streaming("never")] * (len(names) - len(scripts)))]
    async with (
        ScriptedUpstream(filled[0]) as one,
        ScriptedUpstream(filled[1]) as two,
        ScriptedUpstream(filled[2]) as three,
    ):
        upstreams = [one, two, three]
        urls = urls_of(**dict(zip(names, upstreams, strict=True)))
        async with running(config_of(endpoints({name: ["a"] for name in names}, urls, extra=extra))) as server:
            yield server, upstreams


async def events_of(server: Running, *, on_break: Literal["fail", "restart"] = "fail") -> list[Event]:
    """All events of one completion."""
    return [event async for event in server.client.complete("hi", router=IN_ORDER, on_break=on_break)]


def kinds(events: list[Event]) -> list[str]:
    """The kinds of events, in order."""
    return [type(event).__name__ for event in events]


def text_of(events: list[Event]) -> str:
    """The text that the deltas add up to."""
    return "".join(event.text for event in events if isinstance(event, Delta))


async def test_an_answer_streams_from_decision_to_done() -> None:
    """The decision comes first, one terminal event last, and the usage in between is the provider's own count."""
    async with serving(streaming("Hel", "lo")) as (server, _):
        events = await events_of(server)
        assert isinstance(events[0], Decision)
        assert events[1] == AttemptStarted(attempt_number=1, endpoint="a@first")
        assert text_of(events) == "Hello"
        usage, done = events[-2:]
        assert isinstance(usage, Usage)
        assert (usage.input_token_count, usage.output_token_count, usage.cached_input_token_count) == (11, 3, 4)
        assert usage.cost_usd == pytest.approx((11 * 1.0 + 3 * 2.0) / 1e6)
        assert not usage.estimated
        assert isinstance(done, Done)
        assert (done.endpoint, done.attempt_count) == ("a@first", 1)
        assert done.finish_reason == chat_pb2.FINISH_REASON_STOP
        assert done.cost_usd == pytest.approx(usage.cost_usd)
        assert kinds(events).count("Done") == 1


async def test_the_upstream_gets_exactly_these_bytes() -> None:
    """With a key and a base URL in the environment the shipped catalog's OpenAI endpoint is called as OpenAI wants it."""
    async with ScriptedUpstream(streaming("ok")) as upstream:
        environment = {"OPENAI_API_KEY": "sk-test-1234567890", "OPENAI_BASE_URL": upstream.base_url}
        config = config_of('[catalog]\ninclude = ["well_known"]', environment)
        asked = conversation(
            [system("Be brief."), user("What is the weather in Oslo?")],
            tools=[
                tool(
                    "weather",
                    "Tells the weather.",
                    parameters={"type": "object", "properties": {"city": {"type": "string"}}},
                )
            ],
            sampling=SamplingOptions(temperature=0.5, max_output_token_count=64, stop=["END"], seed=42),
        )
        model = min(e.model for e in config.catalog.endpoints if e.provider == "openai")
        async with running(config) as server:
            answer = await server.client.complete_text(
                asked, router=f"{model}@openai", metadata={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
            )
        assert answer.text == "ok"
        (recorded,) = upstream.connections[0].requests
        head = recorded.head.decode()
        assert head.startswith("POST /v1/chat/completions HTTP/1.1\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        assert headers["authorization"] == "bearer sk-test-1234567890"
        assert headers["content-type"] == "application/json"
        assert recorded.body.decode() == json.dumps(
            {
                "model": config.catalog.by_name[f"{model}@openai"].upstream_model,
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "What is the weather in Oslo?"},
                ],
                "stream": True,
                "stream_options": {"include_usage": True},
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "weather",
                            "description": "Tells the weather.",
                            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                        },
                    }
                ],
                "temperature": 0.5,
                "max_completion_tokens": 64,
                "stop": ["END"],
                "seed": 42,
            },
            separators=(",", ":"),
        )


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ((Reset(),), routing_pb2.ATTEMPT_FAILURE_KIND_DISCONNECTED),
        ((ReadRequest(), Reset()), routing_pb2.ATTEMPT_FAILURE_KIND_DISCONNECTED),
        ((ReadRequest(), Send(stream_head()), Reset()), routing_pb2.ATTEMPT_FAILURE_KIND_DISCONNECTED),
        (refusing(503), routing_pb2.ATTEMPT_FAILURE_KIND_SERVER_ERROR),
        (refusing(429, "rate_limit_exceeded"), routing_pb2.ATTEMPT_FAILURE_KIND_RATE_LIMITED),
        (refusing(401, "invalid_api_key"), routing_pb2.ATTEMPT_FAILURE_KIND_AUTHENTICATION),
        (refusing(400, "context_length_exceeded"), routing_pb2.ATTEMPT_FAILURE_KIND_REJECTED),
        ((ReadRequest(), Send(whole_answer("{]"))), routing_pb2.ATTEMPT_FAILURE_KIND_PROTOCOL),
    ],
)
async def test_a_failure_before_the_first_delta_is_invisible_in_the_text(
    script: Script, kind: routing_pb2.AttemptFailureKind.ValueType
) -> None:
    """Whatever befalls the first attempt, the second one answers, and an event tells what happened."""
    async with serving(script, streaming("fine")) as (server, _):
        events = await events_of(server)
        assert text_of(events) == "fine"
        (failed,) = [event for event in events if isinstance(event, AttemptFailed)]
        assert (failed.attempt_number, failed.endpoint, failed.kind) == (1, "a@first", kind)
        assert "secret detail" not in failed.message
        done = events[-1]
        assert isinstance(done, Done)
        assert (done.endpoint, done.attempt_count) == ("a@second", 2)


async def test_a_provider_that_nobody_listens_at_is_passed_over() -> None:
    """No connection is a failed attempt like any other."""
    async with ScriptedUpstream(streaming("fine")) as up:
        urls = {"first": "http://127.0.0.1:9/v1", "second": up.base_url}
        async with running(config_of(endpoints({"first": ["a"], "second": ["a"]}, urls))) as server:
            answer = await server.client.complete_text("hi", router="a@first->a@second")
            assert (answer.text, answer.endpoint) == ("fine", "a@second")
            assert [f.kind for f in answer.failed_attempts] == [routing_pb2.ATTEMPT_FAILURE_KIND_CONNECT]


async def test_a_silent_provider_gives_way_after_the_ttft_timeout() -> None:
    """An attempt without a token in time is left, its connection closed, and the next candidate answers."""
    async with serving((ReadRequest(), Hang()), streaming("fine")) as (server, upstreams):
        answer = await server.client.complete_text("hi", router=IN_ORDER, ttft_timeout_s=0.05)
        assert (answer.text, answer.endpoint) == ("fine", "a@second")
        assert [f.kind for f in answer.failed_attempts] == [routing_pb2.ATTEMPT_FAILURE_KIND_TIMEOUT]
        await asyncio.wait_for(upstreams[0].connections[0].client_closed.wait(), 5.0)


async def test_a_committed_stream_is_never_restarted_unasked() -> None:
    """A break after the first delta ends in UNAVAILABLE that counts what was sent; nobody else is asked."""
    script: Script = (ReadRequest(), Send(stream_head()), Send(delta_event("Hel")), Send(delta_event("lo")), Reset())
    async with serving(script) as (server, upstreams):
        seen: list[Event] = []
        with pytest.raises(StreamBrokenError) as caught:
            seen.extend([event async for event in server.client.complete("hi", router=IN_ORDER)])
        error = caught.value
        assert error.code is grpc.StatusCode.UNAVAILABLE
        assert (error.endpoint, error.character_count, error.cause) == ("a@first", 5, "disconnected")
        assert upstreams[1].connections == []


async def test_a_broken_stream_is_restarted_on_request() -> None:
    """With the restart policy the next candidate answers from the start, in sight of the caller."""
    script: Script = (ReadRequest(), Send(stream_head()), Send(delta_event("Hel")), Reset())
    async with serving(script, streaming("Hello")) as (server, _):
        events = await events_of(server, on_break="restart")
        assert [event.attempt_number for event in events if isinstance(event, AttemptStarted)] == [1, 2]
        restart = next(i for i, e in enumerate(events) if isinstance(e, AttemptStarted) and e.attempt_number == 2)
        assert text_of(events[restart:]) == "Hello"
        broken, whole = [event for event in events if isinstance(event, Usage)]
        assert broken.estimated
        assert not whole.estimated
        done = events[-1]
        assert isinstance(done, Done)
        assert done.cost_usd == pytest.approx(broken.cost_usd + whole.cost_usd)
        assert done.cost_estimated


async def test_when_every_attempt_fails_the_error_tells_each() -> None:
    """UNAVAILABLE with what each attempt met, and when to come back."""
    async with serving(refusing(500), (ReadRequest(), Reset()), refusing(502)) as (server, _):
        with pytest.raises(AttemptsExhaustedError) as caught:
            await events_of(server)
        error = caught.value
        assert error.code is grpc.StatusCode.UNAVAILABLE
        assert [(a.endpoint, a.kind) for a in error.attempts] == [
            ("a@first", routing_pb2.ATTEMPT_FAILURE_KIND_SERVER_ERROR),
            ("a@second", routing_pb2.ATTEMPT_FAILURE_KIND_DISCONNECTED),
            ("a@third", routing_pb2.ATTEMPT_FAILURE_KIND_SERVER_ERROR),
        ]
        assert error.retry_after_s is not None


async def test_when_every_provider_refuses_its_key_nothing_is_to_be_retried() -> None:
    """A refused key is the operator's to mend: FAILED_PRECONDITION, without RetryInfo; then the breakers are open."""
    refusal = refusing(401, "invalid_api_key")
    async with serving(refusal, refusal, refusal) as (server, _):
        with pytest.raises(AttemptsExhaustedError) as caught:
            await events_of(server)
        assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
        assert caught.value.retry_after_s is None
        assert {a.kind for a in caught.value.attempts} == {routing_pb2.ATTEMPT_FAILURE_KIND_AUTHENTICATION}
        with pytest.raises(UnavailableError) as down:
            await events_of(server)
        assert down.value.reason == "ERROR_REASON_ENDPOINTS_DOWN"
        assert down.value.retry_after_s is not None


async def test_when_everyone_limits_our_rate_it_is_resource_exhausted() -> None:
    """429 from all: RESOURCE_EXHAUSTED with the quota, at once the next time, with the provider's own Retry-After."""
    limited = refusing(429, "rate_limit_exceeded", ("retry-after", "7"))
    async with serving(limited, limited, limited) as (server, upstreams):
        with pytest.raises(AttemptsExhaustedError) as caught:
            await events_of(server)
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(ResourceExhaustedError) as at_once:
            await events_of(server)
        assert at_once.value.reason == "ERROR_REASON_ENDPOINTS_RATE_LIMITED"
        assert {violation.field for violation in at_once.value.violations} == {"first", "second", "third"}
        assert at_once.value.retry_after_s is not None
        assert 0.0 < at_once.value.retry_after_s <= 7.0
        assert [len(upstream.connections) for upstream in upstreams] == [1, 1, 1]


async def test_the_number_of_attempts_is_the_callers() -> None:
    """With one attempt allowed, a failure is the end."""
    async with serving(refusing(500)) as (server, upstreams):
        with pytest.raises(AttemptsExhaustedError) as caught:
            await server.client.complete_text("hi", router=IN_ORDER, max_attempt_count=1)
        assert len(caught.value.attempts) == 1
        assert upstreams[1].connections == []


async def test_a_caller_who_leaves_closes_the_call_upstream() -> None:
    """Cancelling the stream closes the provider's connection, and the endpoint is not blamed."""
    script: Script = (ReadRequest(), Send(stream_head()), Send(delta_event("Hel")), Hang())
    async with serving(script) as (server, upstreams):
        async with aclosing(server.client.complete("hi", router=IN_ORDER)) as events:
            async for event in events:
                if isinstance(event, Delta):
                    break
        await asyncio.wait_for(upstreams[0].connections[0].client_closed.wait(), 5.0)
        (status,) = [s for s in await server.client.list_endpoints() if s.endpoint.name == "a@first"]
        assert status.runtime.in_flight_count == 0
        assert not status.runtime.HasField("error_rate")


async def test_the_deadline_ends_the_call_and_the_upstream() -> None:
    """The RPC's deadline is the latency budget: it ends in DEADLINE_EXCEEDED and closes the provider's connection."""
    script: Script = (ReadRequest(), Send(stream_head()), Send(delta_event("Hel")), Hang())
    async with serving(script) as (server, upstreams):
        with pytest.raises(DeadlineExceededError):
            await server.client.complete_text("hi", router=IN_ORDER, timeout_s=0.3)
        await asyncio.wait_for(upstreams[0].connections[0].client_closed.wait(), 5.0)


async def test_an_endpoint_that_does_not_stream_answers_whole() -> None:
    """An endpoint with stream = false is asked for the whole answer, which arrives as one delta."""
    body = json.dumps(
        {
            "model": "a-2024",
            "choices": [{"message": {"role": "assistant", "content": "whole"}, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 1},
        }
    )
    async with serving((ReadRequest(), Send(whole_answer(body))), extra="stream = false") as (server, upstreams):
        answer = await server.client.complete_text("hi", router=IN_ORDER)
        assert (answer.text, answer.done.finish_reason) == ("whole", chat_pb2.FINISH_REASON_LENGTH)
        assert answer.done.response_model == "a-2024"
        assert b'"stream":true' not in upstreams[0].connections[0].requests[0].body


async def test_deltas_that_arrive_together_leave_together() -> None:
    """What one read of the upstream brings goes out as one message."""
    burst = b"".join(delta_event(letter) for letter in "pointsman")
    async with serving((ReadRequest(), Send(stream_head() + burst + END))) as (server, _):
        events = await events_of(server)
        assert [event.text for event in events if isinstance(event, Delta)] == ["pointsman"]


async def test_tool_calls_stream_piece_by_piece() -> None:
    """Pieces of a tool call arrive in order and add up to its arguments."""
    pieces = [
        {"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city": '}},
        {"index": 0, "function": {"arguments": '"Oslo"}'}},
    ]
    sent = [Send(event(json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]}))) for piece in pieces]
    finish = Send(
        event(json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})) + event("[DONE]")
    )
    script: Script = (ReadRequest(), Send(stream_head()), *sent, finish)
    asked = conversation("weather in Oslo?", tools=[tool("weather", parameters={"type": "object"})])
    async with serving(script, extra='capabilities = ["tools"]') as (server, _):
        answer = await server.client.complete_text(asked, router=IN_ORDER)
        (call,) = answer.tool_calls
        assert (call.id, call.name, call.arguments_json) == ("call_1", "weather", '{"city": "Oslo"}')
        assert answer.done.finish_reason == chat_pb2.FINISH_REASON_TOOL_CALLS


async def test_nothing_is_called_when_nothing_fits() -> None:
    """A completion that no endpoint satisfies ends before any provider hears of it."""
    async with serving() as (server, upstreams):
        with pytest.raises(NoEligibleEndpointError):
            await server.client.complete_text("hi", router="router@c<0.001")
        assert [upstream.connections for upstream in upstreams] == [[], [], []]


async def test_attempts_teach_the_next_decision() -> None:
    """What an attempt showed is in the runtime state at once, and bounds on latency can be met from then on."""
    async with serving(streaming("one", "two")) as (server, _):
        with pytest.raises(NoEligibleEndpointError):
            await server.client.route("hi", router="router@ttft<60000")
        await events_of(server)
        decision = await server.client.route("hi", router="router@ttft<60000")
        assert decision.endpoint == "a@first"
        assert decision.HasField("runtime_age")
        (status,) = [s for s in await server.client.list_endpoints() if s.endpoint.name == "a@first"]
        assert status.runtime.observation_count == 1
        assert status.runtime.HasField("ttft")
        assert status.runtime.error_rate < 0.1


async def test_a_failing_endpoint_is_left_alone_after_a_while() -> None:
    """After enough failures in a row the breaker opens: the endpoint is rejected until its time is over."""
    async with serving(refusing(500), streaming("fine")) as (server, upstreams):
        for _ in range(5):
            # The scripted upstream closes after its one answer, so every attempt is a new connection.
            await server.client.complete_text("hi", router=IN_ORDER)
        decision = await server.client.route("hi", router=IN_ORDER)
        rejections = {c.endpoint: [r.reason for r in c.rejections] for c in decision.candidates}
        assert decision.endpoint == "a@second"
        assert rejections["a@first"] == [routing_pb2.REJECTION_REASON_BREAKER_OPEN]
        assert len(upstreams[0].connections) == 5


async def test_a_provider_that_is_down_does_not_use_up_the_attempts() -> None:
    """After a failure the candidates at other providers come first, however many models the failing one has."""
    down: Script = (ReadRequest(), Reset())
    async with ScriptedUpstream(down) as ill, ScriptedUpstream(streaming("fine")) as well:
        toml = endpoints({"down": ["a", "b", "c", "d"], "up": ["e"]}, urls_of(down=ill, up=well))
        dear = toml.replace(
            'provider = "up"\ninput_price_usd_per_mtok = 1.0', 'provider = "up"\ninput_price_usd_per_mtok = 9.0'
        )
        async with running(config_of(dear)) as server:
            answer = await server.client.complete_text("hi", router="router@lowest-cost", max_attempt_count=2)
            assert (answer.text, answer.endpoint) == ("fine", "e@up")
