"""Anthropic's format: what the corpus does not show, and what it can't say."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from pointsman_server.chat import (
    Conversation,
    Finished,
    FinishReason,
    ImageDetail,
    ImagePart,
    Message,
    ReasoningControl,
    ReasoningDelta,
    ReasoningEffort,
    ResponseFormat,
    ResponseFormatKind,
    Role,
    SamplingOptions,
    TextDelta,
    TextPart,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolChoiceMode,
    UpstreamEvent,
)
from pointsman_server.decision.types import RequestFeature
from pointsman_server.errors import (
    InvalidRequestError,
    UpstreamDisconnectedError,
    UpstreamError,
    UpstreamErrorKind,
    UpstreamProtocolError,
    UpstreamUnsupportedError,
)
from pointsman_server.providers.anthropic_wire import (
    BLOCK_COUNT_MAX,
    LACKS,
    AnthropicDecoder,
    AnthropicWire,
    answer_events,
    request_body,
)
from pointsman_server.providers.base import ProviderSettings, UpstreamCall
from pointsman_server.providers.wire import CALL_COUNT_MAX, SIGNATURE_CHARACTER_COUNT_MAX
from providers.foreign_json import ANY_JSON, listed, shaped, words

USER = Message(Role.USER, (TextPart("Hello"),))
HELLO = Conversation((USER,))
CALL = UpstreamCall(upstream_model="m", conversation=HELLO, stream=False, output_token_count_max=5000)


def body_of(conversation: Conversation, control: ReasoningControl = ReasoningControl.EFFORT) -> dict[str, object]:
    """The request, read back."""
    body: dict[str, object] = json.loads(
        request_body(replace(CALL, conversation=conversation, reasoning_control=control))
    )
    return body


def decoded(*events: object) -> list[UpstreamEvent]:
    """The events of a whole stream."""
    decoder = AnthropicDecoder()
    return [event for sent in events for event in decoder.events_of(json.dumps(sent))] + decoder.end()


def began(index: int, block: object) -> object:
    """The start of a block."""
    return {"type": "content_block_start", "index": index, "content_block": block}


def went_on(index: int, delta: object) -> object:
    """A piece of a block."""
    return {"type": "content_block_delta", "index": index, "delta": delta}


ENDED = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}


@pytest.mark.parametrize(
    ("conversation", "feature"),
    [
        (replace(HELLO, sampling=SamplingOptions(seed=1)), RequestFeature.SEED),
        (replace(HELLO, sampling=SamplingOptions(presence_penalty=1.0)), RequestFeature.PENALTIES),
        (replace(HELLO, sampling=SamplingOptions(temperature=1.5)), RequestFeature.TEMPERATURE_ABOVE_ONE),
        (
            replace(HELLO, response_format=ResponseFormat(ResponseFormatKind.JSON_OBJECT)),
            RequestFeature.JSON_OBJECT,
        ),
        (Conversation((replace(USER, name="Ann"),)), RequestFeature.SPEAKER_NAMES),
        (
            Conversation((replace(USER, parts=(ImagePart(url="http://a", detail=ImageDetail.LOW),)),)),
            RequestFeature.IMAGE_DETAIL,
        ),
        (
            Conversation((replace(USER, role=Role.SYSTEM, parts=(ImagePart(url="http://a"),)), USER)),
            RequestFeature.SYSTEM_IMAGES,
        ),
    ],
)
def test_what_cannot_be_said_is_not_left_out(conversation: Conversation, feature: RequestFeature) -> None:
    """The call is not made, and the reason names what is asked for."""
    assert feature in LACKS
    with pytest.raises(UpstreamUnsupportedError, match=feature.value) as raised:
        body_of(conversation)
    assert raised.value.kind is UpstreamErrorKind.REJECTED


def test_everything_it_lacks_is_tested_above() -> None:
    """Seven things, one line each."""
    assert len(LACKS) == 7


def test_an_answer_needs_a_limit() -> None:
    """The caller's, or else the model's own; without either nothing is sent."""
    assert body_of(HELLO)["max_tokens"] == 5000
    assert body_of(replace(HELLO, sampling=SamplingOptions(output_token_count_max=7)))["max_tokens"] == 7
    with pytest.raises(UpstreamUnsupportedError, match="without a limit"):
        request_body(replace(CALL, output_token_count_max=None))


def test_a_prompt_is_kept_only_where_that_is_asked_for() -> None:
    """Keeping it costs more than reading it, so that nobody is charged unasked."""
    assert "cache_control" not in body_of(HELLO)
    kept = json.loads(request_body(CALL, caches_prompts=True))
    assert kept == body_of(HELLO) | {"cache_control": {"type": "ephemeral"}}
    settings = ProviderSettings(name="p", base_url="http://a", caches_prompts=True)
    assert AnthropicWire(settings).request(CALL).body == request_body(CALL, caches_prompts=True)


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (ToolChoice(), None, None),
        (ToolChoice(), True, None),
        (ToolChoice(), False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice(ToolChoiceMode.NONE), False, {"type": "none"}),
        (ToolChoice(ToolChoiceMode.REQUIRED), None, {"type": "any"}),
        (ToolChoice(ToolChoiceMode.NAMED, "f"), None, {"type": "tool", "name": "f"}),
    ],
)
def test_each_choice_of_tools_has_its_form(choice: ToolChoice, parallel: bool | None, expected: object) -> None:  # noqa: FBT001
    """What is the default is not sent."""
    sampling = SamplingOptions(parallel_tool_calls=parallel)
    body = body_of(Conversation((USER,), tools=(Tool("f", strict=True),), tool_choice=choice, sampling=sampling))
    assert body.get("tool_choice") == expected
    assert body["tools"] == [{"name": "f", "input_schema": {"type": "object", "properties": {}}, "strict": True}]


@pytest.mark.parametrize(
    ("effort", "limit", "budget"),
    [
        (ReasoningEffort.MINIMAL, 5000, 1024),
        (ReasoningEffort.LOW, 5000, 4096),
        (ReasoningEffort.HIGH, 5000, 4999),
        (ReasoningEffort.HIGH, 100_000, 24_576),
        (ReasoningEffort.HIGH, 1025, 1024),
    ],
)
def test_a_budget_of_thoughts_leaves_room_for_the_answer(effort: ReasoningEffort, limit: int, budget: int) -> None:
    """Thoughts count against the limit of the answer."""
    sampling = SamplingOptions(reasoning_effort=effort, output_token_count_max=limit)
    body = body_of(replace(HELLO, sampling=sampling), ReasoningControl.BUDGET)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert "output_config" not in body


def test_an_answer_too_short_to_think_in_is_not_asked_for() -> None:
    """The API takes no budget below 1024."""
    sampling = SamplingOptions(reasoning_effort=ReasoningEffort.LOW, output_token_count_max=1024)
    with pytest.raises(UpstreamUnsupportedError, match="at most 1024 tokens"):
        body_of(replace(HELLO, sampling=sampling), ReasoningControl.BUDGET)


def after_call(call: ToolCall) -> Conversation:
    """A conversation with the result of that call."""
    answer = Message(Role.TOOL, (TextPart("r"),), tool_call_id=call.id)
    return Conversation((USER, Message(Role.ASSISTANT, tool_calls=(call,)), answer))


@pytest.mark.parametrize("arguments", ["[1]", "{", '"a"', "NaN", '{"a": NaN}', '{"a": 1e999}', "[" * 100_000])
def test_arguments_that_are_no_object_cannot_be_said(arguments: str) -> None:
    """Other formats carry any text there."""
    with pytest.raises(UpstreamUnsupportedError, match="no JSON object"):
        body_of(after_call(ToolCall("1", "f", arguments)))


@pytest.mark.parametrize("content", ["%%%", base64.b64encode(b"{}").decode(), base64.b64encode(b"[1]").decode(), "é"])
def test_a_damaged_signature_is_told(content: str) -> None:
    """It is not left out: the provider would refuse to go on, or think anew."""
    with pytest.raises(UpstreamUnsupportedError, match="damaged"):
        body_of(after_call(ToolCall("1", "f", "{}", f"anthropic:{content}")))


def test_thoughts_come_back_as_they_came() -> None:
    """Those before the first call in its signature, those between two calls in that of the second."""
    signed = [
        began(0, {"type": "thinking", "thinking": "", "signature": ""}),
        went_on(0, {"type": "thinking_delta", "thinking": "é\ud83d"}),
        went_on(0, {"type": "signature_delta", "signature": "s1"}),
        began(1, {"type": "redacted_thinking", "data": "r"}),
        began(2, {"type": "tool_use", "id": "a", "name": "f", "input": {}}),
        began(3, {"type": "thinking", "thinking": "more", "signature": "s2"}),
        began(4, {"type": "tool_use", "id": "b", "name": "f", "input": {"x": 1}}),
        ENDED,
    ]
    calls = [event for event in decoded(*signed) if isinstance(event, ToolCallDelta)]
    assert [call.arguments_json_fragment for call in calls] == ["", '{"x":1}']
    turn = Message(
        Role.ASSISTANT,
        tool_calls=tuple(
            ToolCall(call.id or "", call.name or "", call.arguments_json_fragment, call.signature) for call in calls
        ),
    )
    messages = body_of(Conversation((USER, turn, USER)))["messages"]
    assert isinstance(messages, list)
    assert messages[1]["content"] == [
        {"type": "thinking", "thinking": "é\ufffd", "signature": "s1"},
        {"type": "redacted_thinking", "data": "r"},
        {"type": "thinking", "thinking": "more", "signature": "s2"},
        {"type": "tool_use", "id": "a", "name": "f", "input": {}},
        {"type": "tool_use", "id": "b", "name": "f", "input": {"x": 1}},
    ]


def test_a_tool_may_answer_with_an_image() -> None:
    """It stands within the result."""
    answer = Message(Role.TOOL, (TextPart("see"), ImagePart(url="http://a")), tool_call_id="1")
    asked = Conversation((USER, Message(Role.ASSISTANT, tool_calls=(ToolCall("1", "f", ""),)), answer))
    messages = body_of(asked)["messages"]
    assert isinstance(messages, list)
    assert messages[2]["content"][0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image", "source": {"type": "url", "url": "http://a"}},
    ]


def test_a_schema_that_is_not_json_is_the_requests_fault() -> None:
    """It names the field."""
    with pytest.raises(InvalidRequestError, match=r"tools\[0\]"):
        body_of(Conversation((USER,), tools=(Tool("f", parameters_json_schema="{"),)))


def test_a_missing_end_is_forgiven_once_the_reason_is_known() -> None:
    """The answer is complete then; without a reason it has broken off."""
    assert decoded(ENDED) == [Finished(FinishReason.TOOL_CALLS)]
    with pytest.raises(UpstreamDisconnectedError):
        decoded({"type": "message_start", "message": {}})


@pytest.mark.parametrize(
    "events",
    [
        [began(0, {"type": "server_tool_use", "id": "a", "name": "web_search", "input": {}})],
        [began(0, {"type": "text"}), went_on(0, {"type": "tomorrow"})],
        [went_on(0, {"type": "input_json_delta", "partial_json": "{"})],
        [went_on(0, {"type": "thinking_delta", "thinking": "?"})],
        [went_on(0, {"type": "signature_delta", "signature": "?"})],
        [began(0, {"type": "tool_use", "input": {}})] * (CALL_COUNT_MAX + 1),
        [began(0, {"type": "thinking"})] * (BLOCK_COUNT_MAX + 1),
        ["text"],
        [None],
        [{"type": "message_delta", "delta": {"stop_reason": 1}}],
        [{"type": "message_delta", "usage": {"output_tokens": -1}}],
        [{"type": "message_stop"}],
        [{"type": "error", "error": "my diary"}],
        [{"type": "error"}],
    ],
)
def test_what_the_format_does_not_say_is_a_protocol_error(events: list[object]) -> None:
    """Pieces that can't be handed on are never passed over in silence."""
    with pytest.raises(UpstreamProtocolError) as raised:
        decoded(*events)
    assert "diary" not in str(raised.value)


def test_thoughts_that_no_signature_holds_are_shown_and_end_in_an_error_at_the_call() -> None:
    """Their text has gone out by then; a call without them would be refused in the next turn."""
    decoder = AnthropicDecoder()
    decoder.events_of(json.dumps(began(0, {"type": "thinking"})))
    piece = json.dumps(went_on(0, {"type": "thinking_delta", "thinking": "x" * 65_536}))
    for _ in range(SIGNATURE_CHARACTER_COUNT_MAX // 65_536 + 2):
        assert len(decoder.events_of(piece)) == 1
    with pytest.raises(UpstreamProtocolError, match="reasoning is longer"):
        decoder.events_of(json.dumps(began(1, {"type": "tool_use", "id": "a", "name": "f"})))


BLOCK = shaped(
    {
        "type": words("text", "thinking", "redacted_thinking", "tool_use", "other"),
        "text": words("a", "\ud83d"),
        "thinking": words("b", "\udc00"),
        "signature": words("s"),
        "input": ANY_JSON,
    }
)
EVENT = shaped(
    {
        "type": words(
            "message_start", "content_block_start", "content_block_delta", "message_delta", "message_stop", "x"
        ),
        "index": words("0"),
        "message": shaped({"usage": ANY_JSON, "model": words("m")}),
        "content_block": BLOCK,
        "delta": shaped(
            {
                "type": words("text_delta", "thinking_delta", "signature_delta", "input_json_delta"),
                "text": words("a"),
                "thinking": words("b"),
                "partial_json": words("{"),
                "stop_reason": words("end_turn"),
            }
        ),
        "usage": shaped({"input_tokens": ANY_JSON, "output_tokens": ANY_JSON}),
    }
)


@given(listed(EVENT))
def test_any_json_gives_events_or_an_upstream_error(events: list[object]) -> None:
    """Foreign JSON of any shape never causes another exception, and text that comes through is whole UTF-8."""
    try:
        given_events = decoded(*events, ENDED)
    except UpstreamError:
        return
    for event in given_events:
        if isinstance(event, TextDelta | ReasoningDelta):
            event.text.encode()


@given(shaped({"type": words("message", "error"), "content": listed(BLOCK), "usage": ANY_JSON, "error": ANY_JSON}))
def test_any_whole_answer_gives_events_or_an_upstream_error(answer: object) -> None:
    """Likewise where it does not stream."""
    with suppress(UpstreamError):
        assert isinstance(answer_events(json.dumps(answer).encode())[-1], Finished)


def test_arguments_nested_too_deeply_to_be_written_cannot_be_said() -> None:
    """What can just be read may be too deep to write: that is told, and is no crash."""
    for depth in range(850, 1000):
        deep = '{"a":' * depth + "1" + "}" * depth
        try:
            body_of(after_call(ToolCall("1", "f", deep)))
        except UpstreamUnsupportedError:
            return
    pytest.fail("no depth was too deep")


def test_arguments_nested_too_deeply_to_be_handed_on_are_a_protocol_error() -> None:
    """Likewise in an answer."""
    for depth in range(850, 1000):
        deep = '{"a":' * depth + "1" + "}" * depth
        answer = f'{{"content":[{{"type":"tool_use","id":"a","name":"f","input":{deep}}}]}}'
        try:
            answer_events(answer.encode())
        except UpstreamProtocolError:
            return
    pytest.fail("no depth was too deep")
