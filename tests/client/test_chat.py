"""The short ways to write a conversation."""

from __future__ import annotations

import pointsman
import pytest
from pointsman.v1.chat_pb2 import (
    IMAGE_DETAIL_LOW,
    RESPONSE_FORMAT_KIND_JSON_SCHEMA,
    ROLE_ASSISTANT,
    ROLE_SYSTEM,
    ROLE_TOOL,
    ROLE_USER,
    TOOL_CHOICE_MODE_REQUIRED,
    Conversation,
    ImagePart,
    Message,
    Part,
    ResponseFormat,
    SamplingOptions,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)


def _text(text: str) -> Part:
    return Part(text=TextPart(text=text))


def test_each_role_has_its_turn() -> None:
    """Every role's turn is written with a function of its name."""
    call = ToolCall(id="c1", name="clock")
    assert pointsman.system("Be brief.") == Message(role=ROLE_SYSTEM, parts=[_text("Be brief.")])
    assert pointsman.user("Hi", name="ada") == Message(role=ROLE_USER, parts=[_text("Hi")], name="ada")
    assert pointsman.assistant(tool_calls=[call]) == Message(role=ROLE_ASSISTANT, tool_calls=[call])
    assert pointsman.tool_result("c1", "12:00") == Message(role=ROLE_TOOL, parts=[_text("12:00")], tool_call_id="c1")


def test_images_stand_among_text() -> None:
    """An image by address or by bytes is a part of a turn, in its place."""
    turn = pointsman.user(
        "Compare",
        pointsman.image("https://example.com/a.png", detail="low"),
        pointsman.image(b"\x89PNG", media_type="image/png"),
    )
    assert list(turn.parts) == [
        _text("Compare"),
        Part(image=ImagePart(url="https://example.com/a.png", detail=IMAGE_DETAIL_LOW)),
        Part(image=ImagePart(inline_content=b"\x89PNG", media_type="image/png")),
    ]


@pytest.mark.parametrize(
    "prompt", ["Hi", pointsman.user("Hi"), [pointsman.user("Hi")], pointsman.conversation("Hi")], ids=str
)
def test_every_kind_of_prompt_is_a_conversation(prompt: pointsman.Prompt) -> None:
    """A text, a message, several, and a conversation all say the same."""
    assert pointsman.conversation(prompt) == Conversation(messages=[Message(role=ROLE_USER, parts=[_text("Hi")])])


def test_conversation_takes_what_shapes_the_answer() -> None:
    """Tools, the choice among them, the answer's shape and its sampling stand in the conversation."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = pointsman.tool("weather", "Tells the weather.", parameters=schema, strict=True)
    whole = pointsman.conversation(
        [pointsman.system("Be brief."), pointsman.user("Hi")],
        tools=[tool],
        tool_choice="required",
        response_format=pointsman.json_schema("place", schema, strict=True),
        sampling=SamplingOptions(temperature=0.0),
    )
    schema_text = '{"type": "object", "properties": {"city": {"type": "string"}}}'
    assert whole == Conversation(
        messages=[pointsman.system("Be brief."), pointsman.user("Hi")],
        tools=[Tool(name="weather", description="Tells the weather.", parameters_json_schema=schema_text, strict=True)],
        tool_choice=ToolChoice(mode=TOOL_CHOICE_MODE_REQUIRED),
        response_format=ResponseFormat(
            kind=RESPONSE_FORMAT_KIND_JSON_SCHEMA, schema_name="place", json_schema=schema_text, strict=True
        ),
        sampling=SamplingOptions(temperature=0.0),
    )


def test_schema_as_text_is_sent_as_it_is() -> None:
    """A JSON Schema that is text already is not touched."""
    assert pointsman.tool("f", parameters='{"type":"object"}').parameters_json_schema == '{"type":"object"}'


def test_conversation_of_a_conversation_is_a_copy() -> None:
    """Adding to a conversation leaves the original as it was."""
    original = pointsman.conversation("Hi", sampling=SamplingOptions(top_k=5))
    warmer = pointsman.conversation(original, sampling=SamplingOptions(temperature=1.0))
    assert warmer.sampling == SamplingOptions(top_k=5, temperature=1.0)
    assert original.sampling == SamplingOptions(top_k=5)
