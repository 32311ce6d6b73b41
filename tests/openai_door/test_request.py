"""What an OpenAI client sends is taken in full or refused by name: nothing is dropped on the way to the router."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import completion_create_params
from pointsman_server.chat import (
    Conversation,
    ImageDetail,
    ImagePart,
    Message,
    ReasoningEffort,
    ResponseFormat,
    ResponseFormatKind,
    Role,
    SamplingOptions,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
)
from pointsman_server.decision.metrics import Metric
from pointsman_server.edge.convert import conversation_from_proto
from pointsman_server.edge.service import routing_request
from pointsman_server.edge.validate import validate_complete
from pointsman_server.errors import FieldViolation, InvalidRequestError
from pointsman_server.openai_door.json_object import FAULT_COUNT_MAX, FaultCode, RefusedRequestError
from pointsman_server.openai_door.request import Asked, read_asked, renamed

USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}


def asked(**fields: Any) -> Asked:
    """What is read of a body with these fields, beside a model and a turn of the user."""
    return read_asked(json.dumps({"model": "default", "messages": [USER]} | fields).encode(), include_decision=False)


def conversation(**fields: Any) -> Conversation:
    """The conversation that such a body asks about."""
    return conversation_from_proto(asked(**fields).request.conversation)


def refused(**fields: Any) -> RefusedRequestError:
    """How such a body is refused."""
    with pytest.raises(RefusedRequestError) as caught:
        asked(**fields)
    return caught.value


def test_everything_that_a_conversation_has_arrives() -> None:
    """Turns, parts, images, tools and their calls, choice, format and sampling are what the client wrote."""
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
    read = conversation(
        messages=[
            {"role": "developer", "content": "Be brief.", "name": "house"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Which town?"},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "data:image/PNG;base64,aGk="}},
                ],
            },
            {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": []},
            {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
        ],
        tools=[
            {
                "type": "function",
                "function": {"name": "weather", "description": "Tells it.", "parameters": SCHEMA, "strict": True},
            }
        ],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        response_format={"type": "json_schema", "json_schema": {"name": "town", "schema": SCHEMA, "strict": True}},
        parallel_tool_calls=False,
        temperature=0.5,
        top_p=1,
        top_k=40,
        max_completion_tokens=64,
        stop=["END", "STOP"],
        seed=-(1 << 63),
        presence_penalty=-2,
        frequency_penalty=2.0,
        reasoning_effort="minimal",
    )
    schema = '{"type":"object","properties":{"city":{"type":"string"}}}'
    assert read == Conversation(
        messages=(
            Message(Role.SYSTEM, (TextPart("Be brief."),), name="house"),
            Message(
                Role.USER,
                (
                    TextPart("Which town?"),
                    ImagePart(url="https://example.com/a.png", detail=ImageDetail.LOW),
                    ImagePart(content=b"hi", media_type="image/png"),
                ),
            ),
            Message(Role.ASSISTANT, tool_calls=(ToolCall("call_1", "weather", '{"city":"Oslo"}'),)),
            Message(Role.TOOL, (TextPart("rain"),), tool_call_id="call_1"),
        ),
        tools=(Tool("weather", "Tells it.", schema, strict=True),),
        tool_choice=ToolChoice(ToolChoiceMode.NAMED, "weather"),
        response_format=ResponseFormat(ResponseFormatKind.JSON_SCHEMA, "town", schema, strict=True),
        sampling=SamplingOptions(
            temperature=0.5,
            top_p=1.0,
            top_k=40,
            output_token_count_max=64,
            stop=("END", "STOP"),
            seed=-(1 << 63),
            presence_penalty=-2.0,
            frequency_penalty=2.0,
            parallel_tool_calls=False,
            reasoning_effort=ReasoningEffort.MINIMAL,
        ),
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 7}, SamplingOptions(output_token_count_max=7)),
        ({"max_tokens": 7, "max_completion_tokens": 7}, SamplingOptions(output_token_count_max=7)),
        ({"stop": "END"}, SamplingOptions(stop=("END",))),
        ({"temperature": None, "stop": None, "seed": None, "tools": None}, SamplingOptions()),
    ],
)
def test_a_field_has_the_forms_that_openai_gives_it(fields: dict[str, Any], expected: SamplingOptions) -> None:
    """Older names, single values in place of lists, and null for what is not set."""
    assert conversation(**fields).sampling == expected


@pytest.mark.parametrize(
    ("choice", "mode"), [("none", ToolChoiceMode.NONE), ("auto", ToolChoiceMode.AUTO), ("required", "required")]
)
def test_a_tool_choice_may_be_a_word(choice: str, mode: str) -> None:
    """none, auto and required mean what they mean by gRPC."""
    assert conversation(tools=[WEATHER], tool_choice=choice).tool_choice == ToolChoice(ToolChoiceMode(mode))


def test_a_refusal_is_what_the_model_said() -> None:
    """A turn in which the model refused keeps its words, as a field or as a part."""
    turns = [USER, {"role": "assistant", "refusal": "No."}, USER]
    parts = [USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, USER]
    for messages in (turns, parts):
        assert conversation(messages=messages).messages[1] == Message(Role.ASSISTANT, (TextPart("No."),))


def test_a_tool_may_have_nothing_to_say() -> None:
    """The empty result of a tool, which agents send all the time, is a turn without parts."""
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    turns = [USER, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1", "content": ""}]
    assert conversation(messages=turns).messages[2] == Message(Role.TOOL, tool_call_id="1")


def test_what_requests_share_goes_by_openais_name() -> None:
    """`prompt_cache_key` is the conversation's id, and wrong under that name."""
    assert routing_request(asked(prompt_cache_key="c-1").request).conversation_id == "c-1"
    assert refused(prompt_cache_key="x" * 257).violations[0].field == "prompt_cache_key"


def test_what_a_provider_wants_back_comes_back() -> None:
    """The signature of a tool call is taken as it was given."""
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}, "signature": "s=="}
    turns = [USER, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1", "content": "x"}]
    assert conversation(messages=turns).messages[1].tool_calls[0].signature == "s=="


def test_what_a_model_thought_before_is_left_out_and_named() -> None:
    """An answer given back with its reasoning is taken; that no provider is sent the reasoning is said, not hidden."""
    read = asked(messages=[USER, {"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}, USER])
    assert read.left_out == ("messages[1].reasoning_content",)
    assert "2 + 2" not in str(read.request)


def test_the_typed_routing_and_execution_of_grpc_come_along() -> None:
    """`pointsman` has constraints, preferences and execution in proto3 JSON, in either spelling."""
    read = asked(
        model="cheap",
        user="ada",
        pointsman={
            "include_decision": True,
            "timeout_s": 2.5,
            "routing": {"constraints": {"ttft": {"max": "0.5s"}, "skipProviders": ["x"]}, "seed": "7"},
            "execution": {"max_attempt_count": 1, "allowHedging": True},
        },
    )
    assert (read.include_decision, read.timeout_s, read.model) == (True, 2.5, "cheap")
    routing = routing_request(read.request)
    assert [(bound.metric, bound.limit) for bound in routing.overlay.bounds] == [(Metric.TTFT, 0.5)]
    assert (routing.seed, routing.assignment_key) == (7, "ada")
    assert routing.overlay.space.skip_providers == frozenset({"x"})
    assert (read.request.execution.max_attempt_count, read.request.execution.allow_hedging) == (1, True)


@pytest.mark.parametrize(
    "model", ["default", "gpt-4o", "gpt-4o@openai", "router@q:1|c:4.65e-03->a@b", "meta/llama-3:70b"]
)
def test_the_model_is_a_router(model: str) -> None:
    """A router's name, a model, an endpoint or a router string goes to the router as it stands."""
    assert str(routing_request(asked(model=model).request).asked)
    assert asked(model=model).model == model


REFUSED: list[tuple[dict[str, Any], str, FaultCode]] = [
    ({"model": None}, "model", FaultCode.MISSING),
    ({"model": 7}, "model", FaultCode.INVALID_TYPE),
    ({"model": "a b"}, "model", FaultCode.INVALID_VALUE),
    ({"messages": None}, "messages", FaultCode.MISSING),
    ({"messages": []}, "messages", FaultCode.INVALID_VALUE),
    ({"messages": "hi"}, "messages", FaultCode.INVALID_TYPE),
    ({"messages": ["hi"]}, "messages[0]", FaultCode.INVALID_TYPE),
    ({"messages": [{"content": "hi"}]}, "messages[0].role", FaultCode.MISSING),
    ({"messages": [{"role": "function", "content": "hi"}]}, "messages[0].role", FaultCode.UNSUPPORTED_VALUE),
    ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content", FaultCode.INVALID_TYPE),
    ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content", FaultCode.INVALID_VALUE),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content", FaultCode.INVALID_VALUE),
    ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type", FaultCode.MISSING),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]},
        "messages[0].content[0].text",
        FaultCode.INVALID_VALUE,
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        "messages[0].content[0].type",
        FaultCode.UNSUPPORTED_VALUE,
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages[0].content[0].image_url",
        FaultCode.MISSING,
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://x/y"}}]}]},
        "messages[0].content[0].image_url.url",
        FaultCode.INVALID_VALUE,
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,x"}}]}]},
        "messages[0].content[0].image_url.url",
        FaultCode.INVALID_VALUE,
    ),
    (
        {
            "messages": [
                {"role": "system", "content": [{"type": "image_url", "image_url": {"url": "https://x/y"}}]},
                USER,
            ]
        },
        "messages[0].content[0].type",
        FaultCode.UNSUPPORTED_VALUE,
    ),
    ({"messages": [USER | {"audio": {"id": "a"}}]}, "messages[0].audio", FaultCode.UNSUPPORTED_PARAMETER),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", FaultCode.INVALID_VALUE),
    ({"messages": [USER, {"role": "assistant", "content": "x"}]}, "messages", FaultCode.INVALID_VALUE),
    (
        {"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "1", "type": "custom"}]}, USER]},
        "messages[1].tool_calls[0].type",
        FaultCode.UNSUPPORTED_VALUE,
    ),
    ({"tools": [{"type": "function"}]}, "tools[0].function", FaultCode.MISSING),
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", FaultCode.UNSUPPORTED_VALUE),
    ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name", FaultCode.INVALID_VALUE),
    (
        {"tools": [{"type": "function", "function": {"name": "x", "parameters": {"a": "\udc00"}}}]},
        "tools[0].function.parameters",
        FaultCode.INVALID_VALUE,
    ),
    ({"tool_choice": "required"}, "tool_choice", FaultCode.INVALID_VALUE),
    ({"tool_choice": "any"}, "tool_choice", FaultCode.UNSUPPORTED_VALUE),
    ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice", FaultCode.INVALID_VALUE),
    ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type", FaultCode.UNSUPPORTED_VALUE),
    ({"response_format": {}}, "response_format.type", FaultCode.MISSING),
    ({"response_format": {"type": "grammar"}}, "response_format.type", FaultCode.UNSUPPORTED_VALUE),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", FaultCode.MISSING),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}},
        "response_format.json_schema.name",
        FaultCode.INVALID_VALUE,
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
        "response_format.json_schema.schema",
        FaultCode.INVALID_VALUE,
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "description": "x"}}},
        "response_format.json_schema.description",
        FaultCode.UNSUPPORTED_VALUE,
    ),
    ({"temperature": "0.5"}, "temperature", FaultCode.INVALID_TYPE),
    ({"temperature": True}, "temperature", FaultCode.INVALID_TYPE),
    ({"temperature": 2.5}, "temperature", FaultCode.INVALID_VALUE),
    ({"temperature": 10**400}, "temperature", FaultCode.INVALID_VALUE),
    ({"max_tokens": 0}, "max_tokens", FaultCode.INVALID_VALUE),
    ({"max_completion_tokens": 0}, "max_completion_tokens", FaultCode.INVALID_VALUE),
    ({"max_tokens": 1.5}, "max_tokens", FaultCode.INVALID_TYPE),
    ({"max_tokens": 1 << 31}, "max_tokens", FaultCode.INVALID_VALUE),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", FaultCode.INVALID_VALUE),
    ({"seed": 1 << 63}, "seed", FaultCode.INVALID_VALUE),
    ({"stop": [7]}, "stop[0]", FaultCode.INVALID_TYPE),
    ({"stop": ["x"] * 17}, "stop", FaultCode.INVALID_VALUE),
    ({"stop": {}}, "stop", FaultCode.INVALID_TYPE),
    ({"reasoning_effort": "xhigh"}, "reasoning_effort", FaultCode.UNSUPPORTED_VALUE),
    ({"stream": "yes"}, "stream", FaultCode.INVALID_TYPE),
    ({"stream_options": {"include_usage": True}}, "stream_options", FaultCode.INVALID_VALUE),
    (
        {"stream": True, "stream_options": {"include_obfuscation": True}},
        "stream_options.include_obfuscation",
        FaultCode.UNSUPPORTED_VALUE,
    ),
    ({"n": 2}, "n", FaultCode.UNSUPPORTED_VALUE),
    ({"n": True}, "n", FaultCode.UNSUPPORTED_VALUE),
    ({"user": "x" * 257}, "user", FaultCode.INVALID_VALUE),
    ({"user": "x", "pointsman": {"routing": {"assignment_key": "y"}}}, "user", FaultCode.INVALID_VALUE),
    ({"pointsman": {"routing": {"router": "cheap"}}}, "pointsman.routing", FaultCode.INVALID_VALUE),
    ({"pointsman": {"routing": {"no_such": 1}}}, "pointsman.routing", FaultCode.INVALID_TYPE),
    ({"pointsman": {"routing": []}}, "pointsman.routing", FaultCode.INVALID_TYPE),
    (
        {"pointsman": {"routing": {"constraints": {"ttft": {"max": "-1s"}}}}},
        "pointsman.routing.constraints.ttft.max",
        FaultCode.INVALID_VALUE,
    ),
    (
        {"pointsman": {"execution": {"max_attempt_count": 99}}},
        "pointsman.execution.max_attempt_count",
        FaultCode.INVALID_VALUE,
    ),
    (
        {"stream": True, "pointsman": {"execution": {"break_policy": "BREAK_POLICY_RESTART"}}},
        "pointsman.execution.break_policy",
        FaultCode.UNSUPPORTED_VALUE,
    ),
    ({"pointsman": {"timeout_s": 0}}, "pointsman.timeout_s", FaultCode.INVALID_VALUE),
    ({"pointsman": {"explain": True}}, "pointsman.explain", FaultCode.UNSUPPORTED_PARAMETER),
]


@pytest.mark.parametrize(("fields", "path", "code"), REFUSED)
def test_what_is_wrong_is_named_as_the_client_wrote_it(fields: dict[str, Any], path: str, code: FaultCode) -> None:
    """Each fault has the path of the field in the client's own JSON, and OpenAI's word for its kind."""
    error = refused(**fields)
    assert (error.violations[0].field, error.code) == (path, code)


FIELD_NAMES = st.sampled_from(
    [
        "model",
        "messages",
        "role",
        "content",
        "type",
        "text",
        "image_url",
        "url",
        "detail",
        "tool_calls",
        "id",
        "function",
        "name",
        "arguments",
        "tools",
        "parameters",
        "tool_choice",
        "response_format",
        "json_schema",
        "schema",
        "strict",
        "stop",
        "stream",
        "stream_options",
        "include_usage",
        "n",
        "seed",
        "user",
        "temperature",
        "max_tokens",
        "pointsman",
        "routing",
        "execution",
        "constraints",
        "timeout_s",
        "x",
    ]
)

HONOURED = {
    "messages",
    "model",
    "frequency_penalty",
    "max_completion_tokens",
    "max_tokens",
    "parallel_tool_calls",
    "presence_penalty",
    "prompt_cache_key",
    "reasoning_effort",
    "response_format",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
    "user",
}


@pytest.mark.parametrize(
    "name",
    sorted(
        {
            *completion_create_params.CompletionCreateParamsBase.__annotations__,
            *completion_create_params.CompletionCreateParamsStreaming.__annotations__,
        }
        - HONOURED
    ),
)
def test_each_further_field_of_the_sdk_is_refused_by_name(name: str) -> None:
    """Whatever else OpenAI's own client can send is an error that names it, never dropped."""
    assert [v.field for v in refused(**{name: {"a": 1}}).violations] == [name]


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "logprobs": False, "top_logprobs": 0, "logit_bias": {}, "store": False, "metadata": {}},
        {"modalities": ["text"], "service_tier": "auto", "audio": None},
    ],
)
def test_a_field_that_asks_for_nothing_is_taken(fields: dict[str, Any]) -> None:
    """What holds anyway may be said."""
    assert asked(**fields).request == asked().request


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", FaultCode.INVALID_JSON),
        (b"{", FaultCode.INVALID_JSON),
        (b'{"temperature": NaN}', FaultCode.INVALID_JSON),
        (b'{"seed": ' + b"9" * 5000 + b"}", FaultCode.INVALID_JSON),
        (b"[" * 100_000, FaultCode.INVALID_JSON),
        (b"\xff\xfe", FaultCode.INVALID_JSON),
        (b"[]", FaultCode.INVALID_TYPE),
        (b'"hi"', FaultCode.INVALID_TYPE),
    ],
)
def test_a_body_that_is_no_object_is_refused(body: bytes, code: FaultCode) -> None:
    """Whatever the bytes, the answer is a refusal of the body."""
    with pytest.raises(RefusedRequestError) as caught:
        read_asked(body, include_decision=False)
    assert (caught.value.violations[0].field, caught.value.code) == ("body", code)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELD_NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(FIELD_NAMES, JSON, max_size=6))
def test_whatever_the_json_it_is_read_or_refused(body: dict[str, Any]) -> None:
    """No request, however odd, meets anything but a reading or a refusal; what is read is a valid request of gRPC's."""
    try:
        read = read_asked(json.dumps(body).encode(), include_decision=False)
    except RefusedRequestError:
        return
    validate_complete(read.request)


def test_every_fault_is_listed_up_to_a_bound() -> None:
    """All faults of a request come at once; a thousand of them are a hundred."""
    assert [v.field for v in refused(n=2, seed="x", best_of=3).violations] == ["seed", "n", "best_of"]
    assert len(refused(messages=[7] * 1000).violations) == FAULT_COUNT_MAX


def test_no_fault_quotes_the_prompt() -> None:
    """What a user wrote is in no error."""
    secret = "the prompt's own words"
    for content in (
        secret + "\ud800",
        [{"type": secret}],
        [{"type": "image_url", "image_url": {"url": "data:" + secret}}],
    ):
        assert secret not in str(refused(messages=[{"role": "user", "content": content}]))


def test_an_image_of_any_bytes_survives() -> None:
    """Base64 is decoded strictly, so that what arrives is what was sent."""
    content = bytes(range(256))
    url = "data:image/webp;base64," + base64.b64encode(content).decode()
    (message,) = conversation(
        messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    ).messages
    assert message.parts == (ImagePart(content=content, media_type="image/webp"),)


def test_a_violation_of_grpcs_request_has_the_name_that_its_field_has_here() -> None:
    """Also of the fields that only the router, or an adapter, finds wrong."""
    violations = (
        FieldViolation("routing.router", "x"),
        FieldViolation("conversation.tools[3].parameters_json_schema", "x"),
        FieldViolation("conversation.response_format.json_schema", "x"),
        FieldViolation("conversation", "x"),
    )
    fields = [v.field for v in renamed(InvalidRequestError(violations), FaultCode.INVALID_VALUE).violations]
    assert fields == ["model", "tools[3].function.parameters", "response_format.json_schema.schema", ""]
