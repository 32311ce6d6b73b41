"""OpenAI's format: every mapping, there and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from pointsman_server.chat import (
    Conversation,
    Finished,
    FinishReason,
    ImageDetail,
    ImagePart,
    Message,
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
    Usage,
    UsageReported,
)
from pointsman_server.errors import (
    InvalidRequestError,
    UpstreamDisconnectedError,
    UpstreamError,
    UpstreamErrorKind,
    UpstreamProtocolError,
    UpstreamStatusError,
)
from pointsman_server.providers.base import UpstreamCall
from pointsman_server.providers.dialects import MaxTokensField
from pointsman_server.providers.openai_wire import StreamDecoder, answer_events, error_code, request_body
from providers.foreign_json import ANY_JSON, listed, shaped, words

HELLO = (Message(Role.USER, (TextPart("Hello"),)),)
WEATHER = Tool("weather", "Weather of a city", '{"type": "object", "properties": {"city": {"type": "string"}}}')


def body_of(
    conversation: Conversation, *, stream: bool = False, max_tokens_field: MaxTokensField = "max_tokens"
) -> str:
    """The request as text."""
    call = UpstreamCall(upstream_model="m", conversation=conversation, stream=stream)
    return request_body(call, max_tokens_field=max_tokens_field).decode()


def with_messages(*messages: str) -> str:
    """The least request around these messages."""
    return '{"model":"m","messages":[' + ",".join(messages) + '],"stream":false}'


def test_the_least_request_holds_nothing_that_was_not_asked_for() -> None:
    """Defaults are left to the provider."""
    expected = with_messages('{"role":"user","content":"Hello"}')
    assert expected == body_of(Conversation(HELLO))


def test_a_stream_asks_for_its_usage() -> None:
    """Without stream_options a stream would not say what it cost."""
    expected = (
        '{"model":"m","messages":[{"role":"user","content":"Hello"}],"stream":true,'
        '"stream_options":{"include_usage":true}}'
    )
    assert expected == body_of(Conversation(HELLO), stream=True)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (Message(Role.SYSTEM, (TextPart("Be brief"),)), '{"role":"system","content":"Be brief"}'),
        (Message(Role.USER, (TextPart('é 🚂 \u2028 "\n'),)), '{"role":"user","content":"é 🚂 \u2028 \\"\\n"}'),
        (Message(Role.USER, (TextPart("a"),), name="Ann"), '{"role":"user","content":"a","name":"Ann"}'),
        (
            Message(Role.USER, (TextPart("a"), TextPart("b"))),
            '{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}',
        ),
        (
            Message(Role.USER, (ImagePart(url="https://x.test/a.png", detail=ImageDetail.HIGH), TextPart("?"))),
            (
                '{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x.test/a.png","detail":"high"}},'
                '{"type":"text","text":"?"}]}'
            ),
        ),
        (
            Message(Role.USER, (ImagePart(content=b"\x89PNG", media_type="image/png"),)),
            '{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw=="}}]}',
        ),
        (Message(Role.USER), '{"role":"user","content":""}'),
        (
            Message(
                Role.ASSISTANT, tool_calls=(ToolCall("c1", "weather", '{"city": "Bern"}'), ToolCall("c2", "f", ""))
            ),
            (
                '{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":'
                '{"name":"weather","arguments":"{\\"city\\": \\"Bern\\"}"}},'
                '{"id":"c2","type":"function","function":{"name":"f","arguments":""}}]}'
            ),
        ),
        (
            Message(Role.TOOL, (TextPart("sunny"),), tool_call_id="c1"),
            '{"role":"tool","content":"sunny","tool_call_id":"c1"}',
        ),
    ],
)
def test_each_message_has_its_exact_form(message: Message, expected: str) -> None:
    """Roles, names, parts, images, tool calls and their results."""
    assert with_messages(expected) == body_of(Conversation((message,)))


@pytest.mark.parametrize(
    ("conversation", "expected"),
    [
        (
            Conversation(HELLO, tools=(WEATHER, Tool("now", strict=True))),
            (
                '"tools":[{"type":"function","function":{"name":"weather","description":"Weather of a city",'
                '"parameters":{"type":"object","properties":{"city":{"type":"string"}}}}},'
                '{"type":"function","function":{"name":"now","strict":true}}]'
            ),
        ),
        (
            Conversation(HELLO, tools=(Tool("f"),), tool_choice=ToolChoice(ToolChoiceMode.REQUIRED)),
            '"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"required"',
        ),
        (
            Conversation(HELLO, tools=(Tool("f"),), tool_choice=ToolChoice(ToolChoiceMode.NONE)),
            '"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"none"',
        ),
        (
            Conversation(
                HELLO,
                tools=(Tool("f"),),
                tool_choice=ToolChoice(ToolChoiceMode.NAMED, "f"),
                sampling=SamplingOptions(parallel_tool_calls=False),
            ),
            (
                '"tools":[{"type":"function","function":{"name":"f"}}],'
                '"tool_choice":{"type":"function","function":{"name":"f"}},"parallel_tool_calls":false'
            ),
        ),
        (
            Conversation(HELLO, response_format=ResponseFormat(ResponseFormatKind.JSON_OBJECT)),
            '"response_format":{"type":"json_object"}',
        ),
        (
            Conversation(
                HELLO, response_format=ResponseFormat(ResponseFormatKind.JSON_SCHEMA, "s", '{"type":"object"}', True)
            ),
            '"response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{"type":"object"},"strict":true}}',
        ),
        (
            Conversation(
                HELLO,
                sampling=SamplingOptions(
                    temperature=0.0,
                    top_p=0.5,
                    top_k=40,
                    output_token_count_max=7,
                    stop=("a", "b"),
                    seed=0,
                    presence_penalty=-1.5,
                    frequency_penalty=2.0,
                    reasoning_effort=ReasoningEffort.LOW,
                ),
            ),
            (
                '"temperature":0.0,"top_p":0.5,"top_k":40,"max_tokens":7,"stop":["a","b"],"seed":0,"presence_penalty":-1.5,'
                '"frequency_penalty":2.0,"reasoning_effort":"low"'
            ),
        ),
    ],
)
def test_each_option_has_its_exact_form(conversation: Conversation, expected: str) -> None:
    """Tools, the choice among them, response formats and sampling; zero is sent, absence is not."""
    least = with_messages('{"role":"user","content":"Hello"}')
    assert least[:-1] + "," + expected + "}" == body_of(conversation)


def test_options_of_tools_are_not_sent_without_tools() -> None:
    """OpenAI refuses a tool choice and parallel_tool_calls where there are no tools."""
    conversation = Conversation(HELLO, sampling=SamplingOptions(parallel_tool_calls=True))
    assert body_of(Conversation(HELLO)) == body_of(conversation)


def test_the_limit_on_the_answer_goes_by_the_name_that_the_provider_knows() -> None:
    """OpenAI's reasoning models accept max_completion_tokens alone."""
    conversation = Conversation(HELLO, sampling=SamplingOptions(output_token_count_max=7))
    body = body_of(conversation, max_tokens_field="max_completion_tokens")
    assert '"max_completion_tokens":7' in body
    assert '"max_tokens"' not in body


@pytest.mark.parametrize("schema", ["{", "NaN", '{"a": Infinity}', "[" * 100_000, '{"title": "\\ud83d"}'])
def test_a_schema_that_is_not_json_is_the_requests_fault(schema: str) -> None:
    """It names the field, and no upstream is blamed."""
    tools = Conversation(HELLO, tools=(Tool("f", parameters_json_schema=schema),))
    answer = Conversation(HELLO, response_format=ResponseFormat(ResponseFormatKind.JSON_SCHEMA, "s", schema))
    for conversation in (tools, answer):
        with pytest.raises(InvalidRequestError) as raised:
            body_of(conversation)
        assert raised.value.violations[0].field.startswith("conversation")


def decoded(*chunks: str) -> list[UpstreamEvent]:
    """The events of a whole stream."""
    decoder = StreamDecoder()
    events = [event for chunk in chunks for event in decoder.events_of(chunk)]
    return events + decoder.end()


def chunk(delta: object, **rest: object) -> str:
    """A chunk with one choice."""
    return json.dumps({"choices": [{"index": 0, "delta": delta, **rest}]})


STOP = chunk({}, finish_reason="stop")
STOPPED = Finished(FinishReason.STOP)


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        ({"content": "Hi"}, [TextDelta("Hi")]),
        ({"role": "assistant", "content": ""}, []),
        ({"content": None}, []),
        (None, []),
        ({"reasoning_content": "Hm", "content": None}, [ReasoningDelta("Hm")]),
        ({"reasoning": "Hm", "content": ""}, [ReasoningDelta("Hm")]),
        ({"reasoning": "Hm", "reasoning_content": "Hm", "content": "A"}, [ReasoningDelta("Hm"), TextDelta("A")]),
        ({"refusal": "No."}, [TextDelta("No.")]),
        ({"content": "a\ud83d"}, [TextDelta("a\ufffd")]),
        ({"content": "\ud83d\ude82é"}, [TextDelta("🚂é")]),
        (
            {"tool_calls": [{"index": 1, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}]},
            [ToolCallDelta(1, "c", "f", "{")],
        ),
        ({"tool_calls": [{"index": 0, "id": "", "function": {"arguments": "}"}}]}, [ToolCallDelta(0, None, None, "}")]),
        ({"tool_calls": None}, []),
    ],
)
def test_each_delta_gives_its_events(delta: object, expected: list[UpstreamEvent]) -> None:
    """Text, reasoning under either name, refusals, pieces of tool calls; nothing for what is empty."""
    assert [*expected, STOPPED] == decoded(chunk(delta), STOP, "[DONE]")


def test_parallel_calls_without_index_are_told_apart_by_their_ids() -> None:
    """Where a provider leaves the index out, an id starts the next call."""
    pieces = [
        {"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"function": {"arguments": "{}"}}]},
        {"tool_calls": [{"id": "b", "function": {"name": "g"}}, {"id": "c", "function": {"name": "h"}}]},
    ]
    events = decoded(*(chunk(piece) for piece in pieces), STOP)
    assert [event.index for event in events if isinstance(event, ToolCallDelta)] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("tool_calls", FinishReason.TOOL_CALLS),
        ("function_call", FinishReason.TOOL_CALLS),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("eos", FinishReason.STOP),
        ("model_length", FinishReason.LENGTH),
        ("insufficient_system_resource", FinishReason.OTHER),
        ("tomorrow's", FinishReason.OTHER),
    ],
)
def test_each_finish_reason_is_mapped(wire: str, expected: FinishReason) -> None:
    """Also those that nobody documents."""
    assert [Finished(expected)] == decoded(chunk({}, finish_reason=wire), "[DONE]")


def test_finished_comes_last_with_the_model_and_after_the_usage() -> None:
    """Usage arrives in a chunk without choices, after the reason; the model's name from the first chunk that has it."""
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 5,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    events = decoded(
        '{"model":"m-2024","choices":[{"delta":{"content":"Hi"}}]}',
        STOP,
        json.dumps({"choices": [], "usage": usage}),
        "[DONE]",
    )
    assert [TextDelta("Hi"), UsageReported(Usage(9, 5, 4, 2)), Finished(FinishReason.STOP, "m-2024")] == events


@pytest.mark.parametrize("usage", [None, {}])
def test_an_empty_usage_says_nothing(usage: object) -> None:
    """Absent counts are unknown, not zero."""
    assert decoded(json.dumps({"choices": [], "usage": usage}), STOP, "[DONE]") == [STOPPED]
    partial = json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "prompt_tokens_details": None}})
    assert [UsageReported(Usage(input_token_count=3)), STOPPED] == decoded(STOP, partial)


def test_a_missing_end_mark_is_forgiven_once_the_reason_is_known() -> None:
    """The answer is complete then."""
    assert [TextDelta("a"), STOPPED] == decoded(chunk({"content": "a"}), STOP)


def test_a_missing_reason_is_forgiven_where_the_end_mark_is_there() -> None:
    """Why the model stopped is then not known."""
    assert [TextDelta("a"), Finished(FinishReason.OTHER)] == decoded(chunk({"content": "a"}), "[DONE]")


def test_a_stream_with_neither_is_broken() -> None:
    """What ends without a reason and without a mark has broken off."""
    with pytest.raises(UpstreamDisconnectedError):
        decoded(chunk({"content": "a"}))
    with pytest.raises(UpstreamDisconnectedError):
        decoded()


def test_an_end_mark_alone_is_no_answer() -> None:
    """It would pass for an empty success."""
    with pytest.raises(UpstreamProtocolError):
        decoded("[DONE]")


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        ({"code": 429, "message": "my diary"}, 429, UpstreamErrorKind.RATE_LIMITED),
        ({"code": 502, "message": "my diary"}, 502, UpstreamErrorKind.SERVER_ERROR),
        ({"code": "rate_limit_exceeded", "message": "my diary"}, 429, UpstreamErrorKind.RATE_LIMITED),
        ({"type": "server_error", "code": None, "message": "my diary"}, 500, UpstreamErrorKind.SERVER_ERROR),
        ({"code": "my diary", "message": "my diary"}, None, UpstreamErrorKind.PROTOCOL),
        ({"code": 7}, None, UpstreamErrorKind.PROTOCOL),
        ("my diary", None, UpstreamErrorKind.PROTOCOL),
        ([], None, UpstreamErrorKind.PROTOCOL),
    ],
)
def test_an_error_in_place_of_an_answer_is_raised_without_its_words(
    error: object, status: int | None, kind: UpstreamErrorKind
) -> None:
    """Streams report errors after a head that promised success; whole answers do it too."""
    sent = json.dumps({"error": error})
    for streamed in (True, False):
        with pytest.raises(UpstreamError) as raised:
            decoded(chunk({"content": "a"}), sent) if streamed else answer_events(sent.encode())
        assert kind == raised.value.kind
        assert status == (raised.value.http_status if isinstance(raised.value, UpstreamStatusError) else None)
        assert "diary" not in str(raised.value)


def test_a_null_error_is_none() -> None:
    """Some providers send the field always."""
    assert [TextDelta("a"), STOPPED] == decoded('{"error":null,"choices":[{"delta":{"content":"a"}}]}', STOP)


BROKEN = [
    "",
    "{",
    "[]",
    "null",
    '"x"',
    "[" * 100_000,
    '{"choices":' + "9" * 5000 + "}",
    '{"choices":{}}',
    '{"choices":[1]}',
    '{"choices":[{"delta":[]}]}',
    '{"choices":[{"delta":{"content":1}}]}',
    '{"choices":[{"delta":{"content":["a"]}}]}',
    '{"choices":[{"delta":{}},{"delta":{}}]}',
    '{"choices":[{"delta":{"tool_calls":[{"index":-1}]}}]}',
    '{"choices":[{"delta":{"tool_calls":[{"index":true}]}}]}',
    '{"choices":[{"delta":{"tool_calls":[{"index":99999999}]}}]}',
    '{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":{}}}]}}]}',
    '{"choices":[{"finish_reason":1}]}',
    '{"model":1}',
    '{"usage":[]}',
    '{"usage":{"prompt_tokens":-1}}',
    '{"usage":{"prompt_tokens":NaN}}',
    '{"usage":{"prompt_tokens":1e3}}',
    '{"usage":{"prompt_tokens":1,"prompt_tokens_details":3}}',
]


@pytest.mark.parametrize("sent", BROKEN, ids=range(len(BROKEN)))
def test_json_of_a_wrong_shape_is_a_protocol_error(sent: str) -> None:
    """Never a KeyError, TypeError or RecursionError."""
    with pytest.raises(UpstreamProtocolError):
        decoded(sent)
    with pytest.raises(UpstreamProtocolError):
        answer_events(sent.encode())


SHAPED = shaped(
    {
        "error": ANY_JSON,
        "model": words("m"),
        "usage": shaped({"prompt_tokens": ANY_JSON, "prompt_tokens_details": ANY_JSON}),
        "x_groq": shaped({"usage": ANY_JSON, "error": ANY_JSON}),
        "choices": listed(
            shaped(
                {
                    "finish_reason": words("stop"),
                    "delta": shaped(
                        {
                            "content": listed(shaped({"type": words("text", "thinking"), "thinking": ANY_JSON})),
                            "reasoning": words("a"),
                            "tool_calls": listed(shaped({"index": ANY_JSON, "function": ANY_JSON})),
                        }
                    ),
                    "message": ANY_JSON,
                    "usage": ANY_JSON,
                }
            )
        ),
    }
)


@given(SHAPED)
def test_any_json_gives_events_or_an_upstream_error(sent: object) -> None:
    """Foreign JSON of any shape never causes another exception, and text that comes through is whole UTF-8."""
    text = json.dumps(sent)
    for streamed in (True, False):
        try:
            events = decoded(text, STOP) if streamed else answer_events(text.encode())
        except UpstreamError:
            continue
        for event in events:
            if isinstance(event, TextDelta | ReasoningDelta):
                event.text.encode()
    error_code(text.encode())


def test_a_whole_answer_gives_the_same_kinds_of_events() -> None:
    """Reasoning, text, calls, usage, and Finished at the end."""
    answer = {
        "model": "m-2024",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hi",
                    "reasoning_content": "Hm",
                    "tool_calls": [
                        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                    ],
                },
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    assert (
        ReasoningDelta("Hm"),
        TextDelta("Hi"),
        ToolCallDelta(0, "a", "f", "{}"),
        ToolCallDelta(1, "b", "g", "{}"),
        UsageReported(Usage(1, 2)),
        Finished(FinishReason.TOOL_CALLS, "m-2024"),
    ) == answer_events(json.dumps(answer).encode())


@pytest.mark.parametrize("sent", [b"{}", b'{"choices":[]}', b'{"choices":[{}]}', b'{"choices":[{"message":null}]}'])
def test_a_whole_answer_without_a_message_is_none(sent: bytes) -> None:
    """It would pass for an empty success."""
    with pytest.raises(UpstreamProtocolError):
        answer_events(sent)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error":{"code":"insufficient_quota","type":"x"}}', "insufficient_quota"),
        (b'{"error":{"code":null,"type":"invalid_request_error"}}', "invalid_request_error"),
        (b'{"error":{"code":400,"type":"BadRequestError"}}', ""),
        (b'{"error":{"code":"You said: my diary"}}', ""),
        (b'{"error":"my diary"}', ""),
        (b'{"object":"error","message":"my diary","type":"not_found"}', "not_found"),
        (b"<html>my diary</html>", ""),
        (b'{"error":{"code":"' + b"a" * 65 + b'"}}', ""),
        (b"\xff\xfe", ""),
        (b"[" * 100_000, ""),
        (b"", ""),
    ],
)
def test_of_an_error_body_only_a_machine_code_is_quoted(body: bytes, expected: str) -> None:
    """Free text may quote the prompt or the key."""
    assert expected == error_code(body)
