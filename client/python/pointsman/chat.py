"""Short ways to write a conversation. Each function gives the protobuf message that it is named after."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias, overload

from pointsman.v1.chat_pb2 import (
    RESPONSE_FORMAT_KIND_JSON_SCHEMA,
    ROLE_ASSISTANT,
    ROLE_SYSTEM,
    ROLE_TOOL,
    ROLE_USER,
    Conversation,
    ImageDetail,
    ImagePart,
    Message,
    Part,
    ResponseFormat,
    SamplingOptions,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
)

Prompt: TypeAlias = str | Message | Sequence[Message] | Conversation
"""What a model is asked: a user's text, one message, several, or a whole conversation."""

Content: TypeAlias = str | Part
"""A piece of a message: text as it is, or what `image` gives."""

JsonSchema: TypeAlias = Mapping[str, object] | str
"""A JSON Schema: as Python values, or as JSON text that is sent as it is."""


def user(*content: Content, name: str = "") -> Message:
    """A turn of the person or program that asks; `name` tells several of them apart."""
    return Message(role=ROLE_USER, parts=_parts(content), name=name)


def system(text: str) -> Message:
    """Instructions of the application."""
    return Message(role=ROLE_SYSTEM, parts=_parts((text,)))


def assistant(*content: Content, tool_calls: Iterable[ToolCall] = ()) -> Message:
    """A turn of the model, with the tools that it asked for (`Answer.tool_calls`)."""
    return Message(role=ROLE_ASSISTANT, parts=_parts(content), tool_calls=tool_calls)


def tool_result(tool_call_id: str, text: str) -> Message:
    """What a tool gave, in answer to the call with that id."""
    return Message(role=ROLE_TOOL, parts=_parts((text,)), tool_call_id=tool_call_id)


@overload
def image(source: str, *, detail: Literal["low", "high"] | None = None) -> Part: ...
@overload
def image(source: bytes, *, media_type: str, detail: Literal["low", "high"] | None = None) -> Part: ...
def image(source: str | bytes, *, media_type: str = "", detail: Literal["low", "high"] | None = None) -> Part:
    """An image within a turn.

    Args:
        source: its http or https address, or its bytes.
        media_type: IANA media type of the bytes, such as image/png.
        detail: how closely the model should look. None: the provider decides.
    """
    look = ImageDetail.Value(f"IMAGE_DETAIL_{(detail or 'unspecified').upper()}")
    if isinstance(source, str):
        return Part(image=ImagePart(url=source, detail=look))
    return Part(image=ImagePart(inline_content=source, media_type=media_type, detail=look))


def tool(name: str, description: str = "", *, parameters: JsonSchema = "", strict: bool = False) -> Tool:
    """A function that the model may call.

    Args:
        name: 1 to 64 of [a-zA-Z0-9_-].
        description: what it does, for the model to read.
        parameters: JSON Schema of its arguments. Empty: it takes none.
        strict: whether the arguments must follow the schema exactly.
    """
    return Tool(name=name, description=description, parameters_json_schema=_json_text(parameters), strict=strict)


def json_schema(name: str, schema: JsonSchema, *, strict: bool = False) -> ResponseFormat:
    """The demand that the answer is JSON that follows a schema; `name` is 1 to 64 of [a-zA-Z0-9_-]."""
    kind = RESPONSE_FORMAT_KIND_JSON_SCHEMA
    return ResponseFormat(kind=kind, schema_name=name, json_schema=_json_text(schema), strict=strict)


def conversation(
    prompt: Prompt,
    *,
    tools: Iterable[Tool] = (),
    tool_choice: ToolChoice | Literal["auto", "none", "required"] | None = None,
    response_format: ResponseFormat | None = None,
    sampling: SamplingOptions | None = None,
) -> Conversation:
    """What a model is asked, with all that shapes the answer.

    Args:
        prompt: the turns, oldest first; a text is one turn of the user. A whole conversation is copied, and what the
            other arguments set is set in the copy.
        tools: the functions that the model may call.
        tool_choice: whether it may, must or must not call one. None: it decides.
        response_format: the shape that the answer must have, such as `json_schema` gives. None: text.
        sampling: how the answer is drawn. None: the provider's defaults.
    """
    if isinstance(tool_choice, str):
        tool_choice = ToolChoice(mode=ToolChoiceMode.Value(f"TOOL_CHOICE_MODE_{tool_choice.upper()}"))
    whole = Conversation(tools=tools, tool_choice=tool_choice, response_format=response_format, sampling=sampling)
    if isinstance(prompt, Conversation):
        copy = Conversation()
        copy.CopyFrom(prompt)
        copy.MergeFrom(whole)
        return copy
    whole.messages.extend(_messages(prompt))
    return whole


def _messages(prompt: str | Message | Sequence[Message]) -> Sequence[Message]:
    if isinstance(prompt, str):
        return (user(prompt),)
    return (prompt,) if isinstance(prompt, Message) else prompt


def _parts(content: Iterable[Content]) -> list[Part]:
    return [Part(text=TextPart(text=piece)) if isinstance(piece, str) else piece for piece in content]


def _json_text(schema: JsonSchema) -> str:
    return schema if isinstance(schema, str) else json.dumps(schema)
