"""Google's format: what the corpus does not show, and what it can't say."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from pointsman_server.chat import (
    Conversation,
    Finished,
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
    ToolChoice,
    ToolChoiceMode,
    UpstreamEvent,
)
from pointsman_server.decision.types import RequestFeature
from pointsman_server.errors import (
    UpstreamDisconnectedError,
    UpstreamError,
    UpstreamErrorKind,
    UpstreamProtocolError,
    UpstreamUnsupportedError,
)
from pointsman_server.providers.base import ProviderSettings, UpstreamCall
from pointsman_server.providers.gemini_wire import LACKS, NO_SIGNATURE, GeminiDecoder, GeminiWire, request_body
from pointsman_server.providers.retry_after import RETRY_AFTER_S_MAX
from pointsman_server.providers.wire import CALL_COUNT_MAX, ErrorAnswer
from providers.foreign_json import ANY_JSON, listed, shaped, words

USER = Message(Role.USER, (TextPart("Hello"),))
HELLO = Conversation((USER,))
CALL = UpstreamCall(upstream_model="m", conversation=HELLO, stream=False)
WIRE = GeminiWire(ProviderSettings(name="p", base_url="http://a/v1beta"))


def body_of(conversation: Conversation, control: ReasoningControl = ReasoningControl.EFFORT) -> dict[str, object]:
    """The request, read back."""
    body: dict[str, object] = json.loads(
        request_body(replace(CALL, conversation=conversation, reasoning_control=control))
    )
    return body


def decoded(*answers: object) -> list[UpstreamEvent]:
    """The events of a whole stream."""
    decoder = GeminiDecoder("m")
    return [event for sent in answers for event in decoder.events_of(json.dumps(sent))] + decoder.end()


def candidate(*parts: object, reason: str | None = None) -> dict[str, object]:
    """An answer of one candidate."""
    return {"candidates": [{"content": {"parts": list(parts)}, "finishReason": reason}]}


STOPPED = candidate(reason="STOP")


@pytest.mark.parametrize(
    ("conversation", "feature"),
    [
        (
            Conversation((USER,), tools=(Tool("f"),), sampling=SamplingOptions(parallel_tool_calls=False)),
            RequestFeature.SINGLE_TOOL_CALL,
        ),
        (Conversation((USER, replace(USER, role=Role.SYSTEM), USER)), RequestFeature.LATE_SYSTEM_TURNS),
        (Conversation((replace(USER, name="Ann"),)), RequestFeature.SPEAKER_NAMES),
        (
            Conversation((replace(USER, role=Role.SYSTEM, parts=(ImagePart(url="http://a"),)), USER)),
            RequestFeature.SYSTEM_IMAGES,
        ),
    ],
)
def test_what_cannot_be_said_is_not_left_out(conversation: Conversation, feature: RequestFeature) -> None:
    """The call is not made, and the reason names what is asked for."""
    assert feature in LACKS
    with pytest.raises(UpstreamUnsupportedError, match=feature.value):
        body_of(conversation)


def test_everything_it_lacks_is_tested_above() -> None:
    """Four things, one line each."""
    assert len(LACKS) == 4


@pytest.mark.parametrize("seed", [2**31, -(2**31) - 1])
def test_a_seed_beyond_32_bits_cannot_be_said(seed: int) -> None:
    """Cut to 32 bits it would be another."""
    with pytest.raises(UpstreamUnsupportedError, match="32 bits"):
        body_of(replace(HELLO, sampling=SamplingOptions(seed=seed)))


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        ("m-1.5", True, "/models/m-1.5:streamGenerateContent?alt=sse"),
        ("m-1.5", False, "/models/m-1.5:generateContent"),
        ("tunedModels/mine", False, "/tunedModels/mine:generateContent"),
        ("a?b#c", False, "/models/a%3Fb%23c:generateContent"),
        ("m@001", False, "/models/m@001:generateContent"),
    ],
)
def test_the_model_is_in_the_path(model: str, stream: bool, path: str) -> None:  # noqa: FBT001
    """A whole name stays as it is; nothing in it can leave the path."""
    assert WIRE.request(replace(CALL, upstream_model=model, stream=stream)).path == path


@pytest.mark.parametrize(
    ("choice", "strict", "expected"),
    [
        (ToolChoice(), False, None),
        (ToolChoice(), True, {"mode": "VALIDATED"}),
        (ToolChoice(ToolChoiceMode.NONE), True, {"mode": "NONE"}),
        (ToolChoice(ToolChoiceMode.REQUIRED), True, {"mode": "ANY"}),
        (ToolChoice(ToolChoiceMode.NAMED, "f"), False, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
def test_each_choice_of_tools_has_its_form(choice: ToolChoice, strict: bool, expected: object) -> None:  # noqa: FBT001
    """What is the default is not sent; a strict tool wants its arguments checked."""
    body = body_of(Conversation((USER,), tools=(Tool("f", strict=strict),), tool_choice=choice))
    config = body.get("toolConfig")
    assert (config["functionCallingConfig"] if isinstance(config, dict) else None) == expected


def test_an_older_model_is_told_a_budget() -> None:
    """By the number that Google's own OpenAI-compatible API takes for the word."""
    sampling = SamplingOptions(reasoning_effort=ReasoningEffort.MEDIUM)
    body = body_of(replace(HELLO, sampling=sampling), ReasoningControl.BUDGET)
    assert body["generationConfig"] == {"thinkingConfig": {"thinkingBudget": 8192, "includeThoughts": True}}


def test_any_json_is_asked_for_by_its_type() -> None:
    """Without a schema."""
    body = body_of(replace(HELLO, response_format=ResponseFormat(ResponseFormatKind.JSON_OBJECT)))
    assert body["generationConfig"] == {"responseMimeType": "application/json"}


def parts_after(*calls: ToolCall, control: ReasoningControl = ReasoningControl.EFFORT) -> list[dict[str, object]]:
    """How these calls of one turn are told."""
    contents = body_of(Conversation((USER, Message(Role.ASSISTANT, tool_calls=calls), USER)), control)["contents"]
    assert isinstance(contents, list)
    parts: list[dict[str, object]] = contents[1]["parts"]
    return parts


def test_a_signature_goes_back_to_the_model_that_made_it_alone() -> None:
    """Newer models want some signature on the first call of a turn; older ones get none that is not theirs."""
    mine, theirs = ToolCall("1", "f", "", "gemini/m:S="), ToolCall("2", "f", "", "gemini/other:S=")
    assert parts_after(mine, theirs)[0]["thoughtSignature"] == "S="
    assert parts_after(theirs, mine)[0]["thoughtSignature"] == NO_SIGNATURE
    assert parts_after(theirs, mine)[1]["thoughtSignature"] == "S="
    assert "thoughtSignature" not in parts_after(mine, theirs)[1]
    assert "thoughtSignature" not in parts_after(theirs, control=ReasoningControl.BUDGET)[0]


def test_a_result_needs_the_call_that_it_answers() -> None:
    """The API wants the tool's name, which stands with the call alone."""
    answer = Message(Role.TOOL, (TextPart("r"),), tool_call_id="1")
    with pytest.raises(UpstreamUnsupportedError, match="not in the conversation"):
        body_of(Conversation((USER, answer)))


def test_a_tool_may_answer_with_an_image() -> None:
    """It stands beside the text of the result."""
    answer = Message(Role.TOOL, (TextPart("see"), ImagePart(url="http://a/b.webp")), tool_call_id="1")
    asked = Conversation((USER, Message(Role.ASSISTANT, tool_calls=(ToolCall("1", "f", ""),)), answer))
    contents = body_of(asked)["contents"]
    assert isinstance(contents, list)
    assert contents[2]["parts"][0]["functionResponse"] == {
        "id": "1",
        "name": "f",
        "response": {"output": "see"},
        "parts": [{"fileData": {"mimeType": "image/webp", "fileUri": "http://a/b.webp"}}],
    }


def test_an_address_that_is_none_is_the_providers_to_refuse() -> None:
    """Whatever begins like an address goes out as it is."""
    contents = body_of(Conversation((replace(USER, parts=(ImagePart(url="http://[a.png"),)),)))["contents"]
    assert contents == [{"role": "user", "parts": [{"fileData": {"fileUri": "http://[a.png"}}]}]


@pytest.mark.parametrize(
    "answer",
    [
        candidate({"inlineData": {"mimeType": "image/png", "data": ""}}, reason="STOP"),
        candidate({"executableCode": {"code": "1"}}),
        candidate({"text": 1}),
        candidate({"functionCall": {"args": []}}),
        candidate(*[{"functionCall": {"name": "f"}}] * (CALL_COUNT_MAX + 1)),
        {"candidates": [{}, {}]},
        {"usageMetadata": {"promptTokenCount": 1.5}},
        {"error": "my diary"},
        [],
        None,
    ],
)
def test_what_the_format_does_not_say_is_a_protocol_error(answer: object) -> None:
    """Parts that can't be handed on are never passed over in silence."""
    with pytest.raises(UpstreamProtocolError) as raised:
        decoded(answer)
    assert "diary" not in str(raised.value)


def test_an_answer_without_a_reason_has_broken_off() -> None:
    """Streamed it is a break, as a whole it is none."""
    with pytest.raises(UpstreamDisconnectedError):
        decoded(candidate({"text": "a"}))
    with pytest.raises(UpstreamProtocolError):
        WIRE.answer_events(CALL, json.dumps(candidate({"text": "a"})).encode())


def test_nothing_follows_the_end() -> None:
    """A second end says nothing."""
    decoder = GeminiDecoder("m")
    decoder.events_of(json.dumps(STOPPED))
    assert len(decoder.end()) == 1
    assert decoder.end() == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"status": "RESOURCE_EXHAUSTED"}, ErrorAnswer("RESOURCE_EXHAUSTED")),
        (
            {"status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "99999s"}]},
            ErrorAnswer("RESOURCE_EXHAUSTED", RETRY_AFTER_S_MAX),
        ),
        ({"status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "-1s"}]}, ErrorAnswer("RESOURCE_EXHAUSTED")),
        ({"status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": 5}, 7]}, ErrorAnswer("RESOURCE_EXHAUSTED")),
        ({"status": "X", "details": [{"reason": "my diary"}]}, ErrorAnswer("")),
        (
            {"status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_EXPIRED"}]},
            ErrorAnswer("API_KEY_EXPIRED", None, UpstreamErrorKind.AUTHENTICATION),
        ),
        ({"details": {}}, ErrorAnswer("")),
    ],
)
def test_of_an_error_only_codes_and_times_are_told(error: object, expected: ErrorAnswer) -> None:
    """Whatever its details hold."""
    assert WIRE.error_answer(json.dumps({"error": error}).encode()) == expected
    assert WIRE.error_answer(json.dumps([{"error": error}]).encode()) == expected


PART = shaped(
    {
        "text": words("a", "\ud83d"),
        "thought": ANY_JSON,
        "thoughtSignature": words("s"),
        "functionCall": shaped({"name": words("f"), "args": ANY_JSON}),
    }
)
ANSWER = shaped(
    {
        "candidates": listed(
            shaped({"content": shaped({"parts": listed(PART)}), "finishReason": words("STOP", "SAFETY", "X")})
        ),
        "usageMetadata": shaped({"promptTokenCount": ANY_JSON, "candidatesTokenCount": ANY_JSON}),
        "promptFeedback": shaped({"blockReason": words("SAFETY")}),
        "error": shaped({"code": ANY_JSON, "status": words("INTERNAL"), "details": listed(ANY_JSON)}),
        "modelVersion": words("m"),
    }
)


@given(listed(ANSWER))
def test_any_json_gives_events_or_an_upstream_error(answers: list[object]) -> None:
    """Foreign JSON of any shape never causes another exception, and text that comes through is whole UTF-8."""
    try:
        events = decoded(*answers, STOPPED)
    except UpstreamError:
        return
    assert isinstance(events[-1], Finished)
    for event in events:
        if isinstance(event, TextDelta | ReasoningDelta):
            event.text.encode()


@given(ANSWER)
def test_any_error_answer_is_read_without_an_exception(answer: object) -> None:
    """What a proxy puts in the provider's place says nothing, at worst."""
    WIRE.error_answer(json.dumps(answer).encode())
