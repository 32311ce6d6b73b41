"""OpenAI's own Python client against the door: what it asks for, what it gets, what it raises."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from e2e.harness import END, delta_event, refusing, streaming
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from openai_door.harness import IN_ORDER, PATIENCE_S, opened
from pointsman_server.providers.scripted import Hang, ReadRequest, Reset, Script, Send, event, stream_head, whole_answer
from pydantic import BaseModel

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the weather in Oslo?"}]
TOOLS: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells the weather.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


def pieces(*tool_calls: dict[str, Any]) -> Script:
    """A stream of these pieces of tool calls."""
    sent = [
        Send(event(json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}))) for call in tool_calls
    ]
    finish = event(json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}))
    return (ReadRequest(), Send(stream_head()), *sent, Send(finish + event("[DONE]")))


TWO_CALLS = pieces(
    {"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": ""}},
    {"index": 0, "function": {"arguments": '{"city": '}},
    {"index": 1, "id": "call_2", "function": {"name": "weather", "arguments": '{"city": "Bergen"}'}},
    {"index": 0, "function": {"arguments": '"Oslo"}'}},
)


async def test_an_answer_comes_whole() -> None:
    """Text, model, finish reason and usage stand where OpenAI's client looks for them, and the decision in headers."""
    async with opened(streaming("Hel", "lo")) as door:
        raw = await door.client.chat.completions.with_raw_response.create(model=IN_ORDER, messages=MESSAGES)
        answer = raw.parse()
        (choice,) = answer.choices
        assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Hello", "stop")
        assert answer.model == "a"
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (11, 3, 14)
        assert answer.usage.prompt_tokens_details is not None
        assert answer.usage.prompt_tokens_details.cached_tokens == 4
        decision_id = raw.headers["x-pointsman-decision-id"]
        assert answer.id == f"chatcmpl-{decision_id}"
        assert answer._request_id == decision_id
        assert raw.headers["x-pointsman-endpoint"] == raw.headers["x-pointsman-chosen-endpoint"] == "a@first"
        assert raw.headers["x-pointsman-attempt-count"] == "1"
        assert float(raw.headers["x-pointsman-cost-usd"]) == pytest.approx((11 * 1.0 + 3 * 2.0) / 1e6)
        assert float(raw.headers["x-pointsman-expected-cost-usd"]) > 0.0
        assert "pointsman" not in answer.to_dict()


async def test_an_answer_streams() -> None:
    """Chunks arrive as the provider sends them; the first says who speaks, the last why it stopped, then the usage."""
    async with opened(streaming("Hel", "lo")) as door:
        stream = await door.client.chat.completions.create(
            model=IN_ORDER, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        assert stream.response.headers["x-pointsman-endpoint"] == "a@first"
        chunks = [chunk async for chunk in stream]
        *told, last, usage = chunks
        assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == "Hello"
        assert told[0].choices[0].delta.role == "assistant"
        assert (last.choices[0].finish_reason, last.choices[0].delta.content) == ("stop", None)
        assert usage.choices == []
        assert usage.usage is not None
        assert usage.usage.total_tokens == 14
        assert [chunk.usage for chunk in chunks[:-1]] == [None] * len(chunks[:-1])
        assert {chunk.model for chunk in chunks} == {"a"}
        assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_that_was_not_asked_for_its_usage_has_none() -> None:
    """The last chunk is the one with the finish reason."""
    async with opened(streaming("Hello")) as door:
        stream = await door.client.chat.completions.create(model=IN_ORDER, messages=MESSAGES, stream=True)
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert "usage" not in chunks[-1].to_dict()


async def test_tools_are_called_and_answered() -> None:
    """Two calls at once come back whole, with their ids, and go on to the provider with their results."""
    async with opened(TWO_CALLS, streaming("Rain.")) as door:
        answer = await door.client.chat.completions.create(
            model="a@first", messages=MESSAGES, tools=TOOLS, tool_choice="required", parallel_tool_calls=True
        )
        message = answer.choices[0].message
        assert (answer.choices[0].finish_reason, message.content) == ("tool_calls", None)
        assert message.tool_calls is not None
        calls = [
            (call.id, call.function.name, call.function.arguments)
            for call in message.tool_calls
            if call.type == "function"
        ]
        assert calls == [
            ("call_1", "weather", '{"city": "Oslo"}'),
            ("call_2", "weather", '{"city": "Bergen"}'),
        ]
        turns: list[Any] = [*MESSAGES, message]
        turns += [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in message.tool_calls]
        again = await door.client.chat.completions.create(model="a@second", messages=turns, tools=TOOLS)
        assert again.choices[0].message.content == "Rain."
        asked = json.loads(door.upstreams[0].connections[0].requests[0].body)
        assert (asked["tool_choice"], asked["parallel_tool_calls"], asked["tools"]) == ("required", True, TOOLS)
        sent = json.loads(door.upstreams[1].connections[0].requests[0].body)["messages"]
        assert [turn["role"] for turn in sent] == ["user", "assistant", "tool", "tool"]
        assert [call["id"] for call in sent[1]["tool_calls"]] == ["call_1", "call_2"]


async def test_tool_calls_stream() -> None:
    """The client's own helper puts the pieces of two interleaved calls together."""
    async with (
        opened(TWO_CALLS) as door,
        door.client.chat.completions.stream(model=IN_ORDER, messages=MESSAGES, tools=TOOLS) as stream,
    ):
        kinds = [event.type async for event in stream]
        final = await stream.get_final_completion()
        assert "tool_calls.function.arguments.delta" in kinds
        assert final.choices[0].message.tool_calls is not None
        assert [call.function.arguments for call in final.choices[0].message.tool_calls] == [
            '{"city": "Oslo"}',
            '{"city": "Bergen"}',
        ]


class Town(BaseModel):
    """What a structured answer is to be."""

    name: str
    people: int


async def test_a_structured_answer_is_parsed() -> None:
    """The client's helper sends a schema of its own making, which arrives, and reads the answer by it."""
    async with opened(streaming('{"name": "Oslo", ', '"people": 7}')) as door:
        answer = await door.client.chat.completions.parse(model=IN_ORDER, messages=MESSAGES, response_format=Town)
        assert answer.choices[0].message.parsed == Town(name="Oslo", people=7)
        sent = json.loads(door.upstreams[0].connections[0].requests[0].body)["response_format"]
        assert (sent["type"], sent["json_schema"]["name"], sent["json_schema"]["strict"]) == (
            "json_schema",
            "Town",
            True,
        )
        assert sent["json_schema"]["schema"]["required"] == ["name", "people"]


async def test_images_reach_the_provider() -> None:
    """An address and a data URL arrive as they were sent."""
    urls = ["https://example.com/a.png", "data:image/png;base64,aGk="]
    async with opened(streaming("Two.")) as door:
        content: Any = [{"type": "text", "text": "How many?"}]
        content += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        await door.client.chat.completions.create(model=IN_ORDER, messages=[{"role": "user", "content": content}])
        (sent,) = json.loads(door.upstreams[0].connections[0].requests[0].body)["messages"]
        assert [part["image_url"]["url"] for part in sent["content"][1:]] == urls


async def test_reasoning_comes_beside_the_text() -> None:
    """What a model thinks stands in `reasoning_content`, whole and streamed, and never within the text."""
    thought = event(json.dumps({"choices": [{"index": 0, "delta": {"reasoning_content": "2 + 2"}}]}))
    script: Script = (ReadRequest(), Send(stream_head() + thought), Send(delta_event("4") + END))
    async with opened(script, script) as door:
        whole = await door.client.chat.completions.create(model="a@first", messages=MESSAGES, reasoning_effort="low")
        message = whole.choices[0].message
        assert (message.content, (message.model_extra or {})["reasoning_content"]) == ("4", "2 + 2")
        assert json.loads(door.upstreams[0].connections[0].requests[0].body)["reasoning_effort"] == "low"
        stream = await door.client.chat.completions.create(model="a@second", messages=MESSAGES, stream=True)
        deltas = [chunk.choices[0].delta async for chunk in stream]
        assert [(delta.model_extra or {}).get("reasoning_content") for delta in deltas] == ["2 + 2", None, None]
        assert "".join(delta.content or "" for delta in deltas) == "4"


async def test_the_decision_comes_along_when_asked_for() -> None:
    """By a field or by a header, whole and streamed: the decision with its candidates, and what became of it."""
    async with opened(streaming("fine"), streaming("fine")) as door:
        whole = await door.client.chat.completions.create(
            model="a@first", messages=MESSAGES, extra_body={"pointsman": {"include_decision": True}}
        )
        told = (whole.model_extra or {})["pointsman"]
        assert told["decision"]["endpoint"] == "a@first"
        assert len(told["decision"]["candidates"]) == 3
        assert (told["done"]["endpoint"], told["done"]["finish_reason"]) == ("a@first", "FINISH_REASON_STOP")
        assert (told["usages"][0]["output_token_count"], told["failed_attempts"]) == ("3", [])
        stream = await door.client.chat.completions.create(
            model="a@second",
            messages=MESSAGES,
            stream=True,
            extra_headers={"x-pointsman-include-decision": "true"},
        )
        extras: list[Any] = [(chunk.model_extra or {}).get("pointsman") async for chunk in stream]
        assert extras[0]["decision"]["endpoint"] == "a@second"
        assert extras[-1]["done"]["endpoint"] == "a@second"
        assert extras[1:-1] == [None] * len(extras[1:-1])


async def test_a_failover_is_unseen() -> None:
    """What fails before the first token is followed by the next candidate; the headers tell who answered in the end."""
    async with opened(refusing(503), streaming("fine")) as door:
        stream = await door.client.chat.completions.create(model=IN_ORDER, messages=MESSAGES, stream=True)
        assert stream.response.headers["x-pointsman-chosen-endpoint"] == "a@first"
        assert stream.response.headers["x-pointsman-endpoint"] == "a@second"
        assert stream.response.headers["x-pointsman-attempt-count"] == "2"
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "fine"


async def test_while_two_race_nobody_is_said_to_answer() -> None:
    """With a hedge under way the head of a stream names no endpoint, and the chunks the model that was asked for; the end
    tells who it was."""
    async with opened((ReadRequest(), Hang()), streaming("fine")) as door:
        stream = await door.client.chat.completions.create(
            model=IN_ORDER,
            messages=MESSAGES,
            stream=True,
            extra_body={"pointsman": {"include_decision": True, "execution": {"allow_hedging": True}}},
        )
        assert "x-pointsman-endpoint" not in stream.response.headers
        assert stream.response.headers["x-pointsman-attempt-count"] == "2"
        chunks = [chunk async for chunk in stream]
        assert [chunk.model for chunk in chunks] == [IN_ORDER, "a"]
        told: Any = (chunks[-1].model_extra or {})["pointsman"]
        assert told["done"]["endpoint"] == "a@second"
        assert [usage["endpoint"] for usage in told["usages"]] == ["a@first", "a@second"]


BREAKING: Script = (ReadRequest(), Send(stream_head()), Send(delta_event("Hel")), Reset())


async def test_a_whole_answer_that_breaks_off_is_begun_anew() -> None:
    """Nothing of it has been sent, so the next candidate's answer is all that the client sees."""
    async with opened(BREAKING, streaming("fine")) as door:
        answer = await door.client.chat.completions.create(
            model=IN_ORDER, messages=MESSAGES, extra_body={"pointsman": {"include_decision": True}}
        )
        assert answer.choices[0].message.content == "fine"
        told = (answer.model_extra or {})["pointsman"]
        assert [failed["endpoint"] for failed in told["failed_attempts"]] == ["a@first"]


async def test_a_stream_that_breaks_off_is_an_error_and_no_end() -> None:
    """After text was sent the stream ends in an error event, which the client raises, with what was sent counted."""
    async with opened(BREAKING) as door:
        stream = await door.client.chat.completions.create(model=IN_ORDER, messages=MESSAGES, stream=True)
        assert (await anext(stream)).choices[0].delta.content == "Hel"
        with pytest.raises(openai.APIError) as caught:
            await anext(stream)
        body: Any = caught.value.body
        assert (body["code"], body["type"]) == ("stream_broken", "server_error")
        assert body["pointsman"]["metadata"] == {
            "endpoint": "a@first",
            "delta_count": "1",
            "character_count": "3",
            "cause": "disconnected",
        }


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "kind", "status", "code"),
    [
        (refusing(503), openai.InternalServerError, 503, "attempts_exhausted"),
        (refusing(429, "rate_limit_exceeded", ("retry-after", "7")), openai.RateLimitError, 429, "attempts_exhausted"),
        (refusing(400, "context_length_exceeded"), openai.BadRequestError, 400, "attempts_exhausted"),
    ],
)
async def test_failures_of_all_providers_have_the_clients_own_classes(
    script: Script, kind: type[openai.APIStatusError], status: int, code: str, *, stream: bool
) -> None:
    """Before the first token a failure is an HTTP status, also of a stream, and says nothing of the provider's words."""
    async with opened(script, script, script) as door:
        with pytest.raises(kind) as caught:
            await door.client.chat.completions.create(model=IN_ORDER, messages=MESSAGES, stream=stream)
        assert (caught.value.status_code, caught.value.code) == (status, code)
        assert "secret detail" not in str(caught.value.body)
        assert ("retry-after-ms" in caught.value.response.headers) == (status != 400)


UNSERVABLE: list[tuple[dict[str, Any], type[openai.APIStatusError], str | None, str]] = [
    ({"model": "nothing-like-it"}, openai.NotFoundError, "model", "model_not_found"),
    ({"model": "a@nowhere"}, openai.NotFoundError, "model", "model_not_found"),
    (
        {"extra_body": {"pointsman": {"routing": {"constraints": {"models": ["none"]}}}}},
        openai.BadRequestError,
        "pointsman.routing.constraints.models",
        "invalid_value",
    ),
    ({"model": "router@q:x"}, openai.BadRequestError, "model", "invalid_value"),
    ({"model": "router@c<0.001"}, openai.BadRequestError, None, "no_eligible_endpoint"),
    ({"n": 2}, openai.BadRequestError, "n", "unsupported_value"),
    ({"temperature": 3}, openai.BadRequestError, "temperature", "invalid_value"),
    ({"logit_bias": {"1": 2}}, openai.BadRequestError, "logit_bias", "unsupported_value"),
    ({"extra_body": {"best_of": 2}}, openai.BadRequestError, "best_of", "unsupported_parameter"),
]


async def test_a_request_that_cannot_be_served_says_why() -> None:
    """Each refusal has the client's class, the field and the code, and reaches no provider."""
    async with opened() as door:
        for asked, kind, param, code in UNSERVABLE:
            with pytest.raises(kind) as caught:
                await door.client.chat.completions.create(**({"model": "default", "messages": MESSAGES} | asked))
            assert (caught.value.param, caught.value.code) == (param, code)
        assert [upstream.connections for upstream in door.upstreams] == [[], [], []]


async def test_impossible_constraints_are_answered_with_what_would_do() -> None:
    """The error carries each rejection and the nearest relaxation, as gRPC's details have them."""
    async with opened() as door:
        with pytest.raises(openai.BadRequestError) as caught:
            await door.client.chat.completions.create(model="router@c<0.001", messages=MESSAGES)
        body: Any = caught.value.body
        (detail,) = body["pointsman"]["details"]
        assert detail["@type"] == "type.googleapis.com/pointsman.v1.NoEligibleEndpoint"
        assert len(detail["candidates"]) == 3
        assert detail["relaxations"][0]["changes"][0]["relaxed_bound"] == "c<=1.25"


async def test_a_key_is_asked_for_where_there_are_any() -> None:
    """The server's keys hold for the door; the door's own hold in their place."""
    environment = {"KEYS": "sk-one,sk-two", "DOOR_KEYS": "sk-three"}
    async with opened(
        streaming("fine"), server='api_keys_env = "KEYS"', environment=environment, api_key="sk-two"
    ) as door:
        answer = await door.client.chat.completions.create(model="a@first", messages=MESSAGES)
        assert answer.choices[0].message.content == "fine"
        with pytest.raises(openai.AuthenticationError) as caught:
            await door.client.with_options(api_key="sk-three").models.list()
        assert caught.value.code == "invalid_api_key"
    both = {"server": 'api_keys_env = "KEYS"', "door": 'api_keys_env = "DOOR_KEYS"'}
    async with opened(environment=environment, api_key="sk-three", **both) as door:
        assert (await door.client.models.list()).data
        with pytest.raises(openai.AuthenticationError):
            await door.client.with_options(api_key="sk-one").models.list()


async def test_whatever_a_model_may_be_is_listed() -> None:
    """Routers, models and endpoints, each to be asked for by its id; anything else is not found."""
    async with opened() as door:
        listed = {
            model.id: (model.owned_by, (model.model_extra or {})["pointsman"]["kind"])
            async for model in door.client.models.list()
        }
        assert listed == {
            "default": ("pointsman", "router"),
            "a": ("pointsman", "model"),
            "a@first": ("first", "endpoint"),
            "a@second": ("second", "endpoint"),
            "a@third": ("third", "endpoint"),
        }
        assert (await door.client.models.retrieve("a@second")).owned_by == "second"
        with pytest.raises(openai.NotFoundError) as caught:
            await door.client.models.retrieve("meta/llama")
        assert caught.value.code == "model_not_found"


SILENT: Script = (ReadRequest(), Hang())
BEGUN: Script = (ReadRequest(), Send(stream_head()), Send(delta_event("Hel")), Hang())


async def test_a_client_that_leaves_a_stream_closes_the_call_upstream() -> None:
    """Closing the client's stream closes the provider's connection at once, and the endpoint is not blamed."""
    async with opened(BEGUN) as door:
        stream = await door.client.chat.completions.create(model=IN_ORDER, messages=MESSAGES, stream=True)
        async for _ in stream:
            break
        await stream.close()
        await asyncio.wait_for(door.upstreams[0].connections[0].client_closed.wait(), PATIENCE_S)
        (status,) = [s for s in await door.server.client.list_endpoints() if s.endpoint.name == "a@first"]
        assert status.runtime.in_flight_count == 0
        assert not status.runtime.HasField("error_rate")
        assert len(door.upstreams[1].connections) == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_stops_waiting_closes_the_call_upstream(*, stream: bool) -> None:
    """Also before anything was sent: a cancelled request leaves nothing behind."""
    async with opened(SILENT) as door:
        asking = asyncio.create_task(
            door.client.chat.completions.create(model="a@first", messages=MESSAGES, stream=stream)
        )
        await (await door.upstreams[0].connection(0)).requested(1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.wait_for(door.upstreams[0].connections[0].client_closed.wait(), PATIENCE_S)


async def test_a_time_limit_of_the_clients_goes_upstream() -> None:
    """`pointsman.timeout_s` ends the call, and the provider's connection, in a status of its own."""
    async with opened(SILENT) as door:
        with pytest.raises(openai.InternalServerError) as caught:
            await door.client.chat.completions.create(
                model="a@first", messages=MESSAGES, extra_body={"pointsman": {"timeout_s": 0.3}}
            )
        assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")
        await asyncio.wait_for(door.upstreams[0].connections[0].client_closed.wait(), PATIENCE_S)


async def test_an_endpoint_that_answers_whole_is_streamed_all_the_same() -> None:
    """What the provider gives in one piece is one chunk."""
    body = json.dumps({"choices": [{"message": {"content": "whole"}, "finish_reason": "length"}]})
    async with opened((ReadRequest(), Send(whole_answer(body)))) as door:
        answer = await door.client.chat.completions.create(
            model="a@first", messages=MESSAGES, extra_body={"pointsman": {"execution": {"max_attempt_count": 1}}}
        )
        assert answer.choices[0].finish_reason == "length"
