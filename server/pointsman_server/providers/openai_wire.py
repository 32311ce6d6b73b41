"""The wire format of OpenAI's chat completions, which most providers speak: conversation to request, answer to events.

Pure. Whatever JSON a provider sends, the outcome is events or an `UpstreamError`, never another exception. Unknown fields
are ignored, as the API's own compatibility rules ask; known fields of a wrong type are errors.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping

from pointsman_server.chat import (
    Conversation,
    Finished,
    FinishReason,
    ImageDetail,
    ImagePart,
    Message,
    Part,
    ReasoningDelta,
    ResponseFormat,
    ResponseFormatKind,
    Role,
    SamplingOptions,
    TextDelta,
    TextPart,
    Tool,
    ToolCallDelta,
    ToolChoice,
    ToolChoiceMode,
    UpstreamEvent,
    Usage,
    UsageReported,
)
from pointsman_server.errors import (
    FieldViolation,
    InvalidRequestError,
    UpstreamDisconnectedError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamStatusError,
)
from pointsman_server.providers.base import UpstreamCall

JsonObject = Mapping[str, object]

STREAM_END = "[DONE]"
TOOL_CALL_COUNT_MAX = 1024
"""Indices beyond are a provider's mistake; requests allow at most 128 tools, and a turn rarely calls ten."""
TOKEN_COUNT_MAX = 1_000_000_000
"""A thousand times the longest context: a larger count is not a count."""

MACHINE_CODE = re.compile(r"[a-z0-9_.-]{1,64}")
"""What may be quoted of a provider's error: a code such as insufficient_quota. Free text may quote the prompt."""

FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}
"""Any other reason is OTHER."""

STATUS_OF_ERROR_CODE = {
    "insufficient_quota": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "internal_error": 500,
    "internal_server_error": 500,
    "server_error": 500,
    "overloaded": 503,
    "overloaded_error": 503,
}
"""The status that these codes come with when the failure is found before the answer's head has been sent."""


def request_body(call: UpstreamCall, *, max_tokens_field: str) -> bytes:
    """The request as JSON in UTF-8; the same call always gives the same bytes. What is unset is not sent.

    Raises:
        InvalidRequestError: A JSON schema in the conversation is not JSON.
    """
    conversation = call.conversation
    payload: dict[str, object] = {
        "model": call.upstream_model,
        "messages": [_message(message) for message in conversation.messages],
        "stream": call.stream,
    }
    if call.stream:
        payload["stream_options"] = {"include_usage": True}
    payload |= _tools(conversation)
    payload |= _response_format(conversation.response_format)
    payload |= _sampling(conversation.sampling, max_tokens_field=max_tokens_field)
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Text from protobuf is whole; only an escape within a JSON schema can name half a surrogate pair.
        raise _invalid_schema("conversation", "holds half of a surrogate pair, which is no character") from None


def _message(message: Message) -> dict[str, object]:
    wire: dict[str, object] = {"role": message.role.value, "content": _content(message)}
    if message.name is not None:
        wire["name"] = message.name
    if message.tool_calls:
        wire["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    return wire


def _content(message: Message) -> object:
    """A string where one is enough, because some servers accept arrays only from users."""
    match message.parts:
        case ():
            return None if message.role is Role.ASSISTANT and message.tool_calls else ""
        case (TextPart(text=text),):
            return text
        case parts:
            return [_part(part) for part in parts]


def _part(part: Part) -> dict[str, object]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    image: dict[str, object] = {"url": _image_url(part)}
    if part.detail is not ImageDetail.AUTO:
        image["detail"] = part.detail.value
    return {"type": "image_url", "image_url": image}


def _image_url(image: ImagePart) -> str:
    if image.content is None:
        assert image.url is not None, "an image has a url or a content"
        return image.url
    assert image.media_type is not None, "an image's content has a media type"
    return f"data:{image.media_type};base64,{base64.b64encode(image.content).decode()}"


def _tools(conversation: Conversation) -> dict[str, object]:
    """Without tools their options have no meaning, and OpenAI refuses them."""
    if not conversation.tools:
        return {}
    wire: dict[str, object] = {"tools": [_tool(tool, index) for index, tool in enumerate(conversation.tools)]}
    if conversation.tool_choice.mode is not ToolChoiceMode.AUTO:
        wire["tool_choice"] = _tool_choice(conversation.tool_choice)
    if conversation.sampling.parallel_tool_calls is not None:
        wire["parallel_tool_calls"] = conversation.sampling.parallel_tool_calls
    return wire


def _tool(tool: Tool, index: int) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters_json_schema:
        path = f"conversation.tools[{index}].parameters_json_schema"
        function["parameters"] = _schema(tool.parameters_json_schema, path)
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> object:
    if choice.mode is ToolChoiceMode.NAMED:
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode.value


def _response_format(response_format: ResponseFormat) -> dict[str, object]:
    match response_format.kind:
        case ResponseFormatKind.TEXT:
            return {}
        case ResponseFormatKind.JSON_OBJECT:
            return {"response_format": {"type": "json_object"}}
        case ResponseFormatKind.JSON_SCHEMA:
            wire: dict[str, object] = {"name": response_format.schema_name}
            wire["schema"] = _schema(response_format.json_schema or "", "conversation.response_format.json_schema")
            if response_format.strict:
                wire["strict"] = True
            return {"response_format": {"type": "json_schema", "json_schema": wire}}


def _sampling(sampling: SamplingOptions, *, max_tokens_field: str) -> dict[str, object]:
    effort = sampling.reasoning_effort
    wire = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        max_tokens_field: sampling.output_token_count_max,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "reasoning_effort": None if effort is None else effort.value,
    }
    return {name: value for name, value in wire.items() if value is not None}


def _schema(text: str, path: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _invalid_schema(path, "is not JSON") from None


def _no_constant(name: str) -> object:
    """Refuses NaN and the infinities, which Python reads though JSON has none."""
    raise ValueError(name)


def _invalid_schema(path: str, description: str) -> InvalidRequestError:
    return InvalidRequestError((FieldViolation(path, f"the JSON schema {description}"),))


class StreamDecoder:
    """Turns the events of one streamed answer into ours; holds back `Finished` until the stream has ended.

    Providers send the reason first, then the usage, then the end mark. A missing end mark is forgiven once the reason is
    known, a missing reason once the end mark is there.
    """

    __slots__ = ("_answered", "_finish_reason", "_response_model", "_tool_call_count", "ended")

    def __init__(self) -> None:
        self._answered = False
        """Some choice has been seen."""
        self._finish_reason: FinishReason | None = None
        self._response_model: str | None = None
        self._tool_call_count = 0
        self.ended = False
        """`Finished` has been given; nothing may follow."""

    @property
    def answer_complete(self) -> bool:
        """The model has said why it stopped, so only usage and the end mark can be missing."""
        return self._finish_reason is not None

    def events_of(self, sent: str) -> list[UpstreamEvent]:
        """What the data of one server-sent event says.

        Raises:
            UpstreamError: It is not what the format says, or reports an error.
        """
        if sent == STREAM_END:
            if not self._answered:
                raise UpstreamProtocolError("the provider ended its answer without giving one")
            return [self._finished()]
        chunk = _answer_of(sent)
        self._response_model = self._response_model or _text(chunk, "model")
        events: list[UpstreamEvent] = []
        choice = _only_choice(chunk)
        if choice is not None:
            self._answered = True
            delta = _object(choice, "delta") or {}
            events += _texts(delta)
            events += [self._tool_call_piece(piece) for piece in _objects(delta, "tool_calls")]
            self._finish_reason = _finish_reason(choice) or self._finish_reason
        return events + _usage(chunk)

    def end(self) -> list[UpstreamEvent]:
        """What is left to say when the provider closes the stream.

        Raises:
            UpstreamDisconnectedError: The answer was not complete.
        """
        if self.ended:
            return []
        if self._finish_reason is None:
            raise UpstreamDisconnectedError("the provider closed the stream before the answer was complete")
        return [self._finished()]

    def _finished(self) -> Finished:
        self.ended = True
        return Finished(self._finish_reason or FinishReason.OTHER, self._response_model)

    def _tool_call_piece(self, piece: JsonObject) -> ToolCallDelta:
        """A piece without an index, as some providers send it, starts a call if it has an id, else continues the last."""
        starts = bool(_text(piece, "id"))
        index = _count(piece, "index", maximum=TOOL_CALL_COUNT_MAX)
        if index is None:
            index = self._tool_call_count if starts else max(self._tool_call_count - 1, 0)
        self._tool_call_count = max(self._tool_call_count, index + 1)
        return _tool_call(piece, index)


def answer_events(body: bytes) -> tuple[UpstreamEvent, ...]:
    """The events of an answer that came as a whole, `Finished` last.

    Raises:
        UpstreamError: It is not what the format says, or reports an error.
    """
    answer = _answer_of(body)
    choice = _only_choice(answer)
    message = None if choice is None else _object(choice, "message")
    if choice is None or message is None:
        raise UpstreamProtocolError("the provider's answer holds no message")
    calls = [_tool_call(call, index) for index, call in enumerate(_objects(message, "tool_calls"))]
    finished = Finished(_finish_reason(choice) or FinishReason.OTHER, _text(answer, "model"))
    return (*_texts(message), *calls, *_usage(answer), finished)


def error_code(body: bytes) -> str:
    """The machine-readable code of an error answer, or empty; never any of its free text."""
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return _error_code(parsed.get("error", parsed)) if isinstance(parsed, dict) else ""


def _error_code(error: object) -> str:
    if not isinstance(error, dict):
        return ""
    for name in ("code", "type"):
        code: object = error.get(name)
        if isinstance(code, str) and MACHINE_CODE.fullmatch(code):
            return code
    return ""


def _answer_of(sent: str | bytes) -> JsonObject:
    """The JSON object that was sent; an error within it is raised."""
    try:
        parsed: object = json.loads(sent)
    except (ValueError, RecursionError):
        raise UpstreamProtocolError("the provider sent something that is not JSON") from None
    if not isinstance(parsed, dict):
        raise UpstreamProtocolError("the provider sent JSON that is not an object")
    error: object = parsed.get("error")
    if error is not None:
        raise _reported_error(error)
    return parsed


def _reported_error(error: object) -> UpstreamError:
    """An error that came in place of an answer, after a head that promised one."""
    code = _error_code(error)
    number: object = error.get("code") if isinstance(error, dict) else None
    status = number if isinstance(number, int) and 400 <= number <= 599 else STATUS_OF_ERROR_CODE.get(code)
    if status is not None:
        return UpstreamStatusError(status, detail=code)
    return UpstreamProtocolError(f"the provider reported an error within its answer ({code or 'without a code'})")


def _only_choice(answer: JsonObject) -> JsonObject | None:
    choices = _objects(answer, "choices")
    if len(choices) > 1:
        raise UpstreamProtocolError("the provider sent several choices where one was asked for")
    return choices[0] if choices else None


def _texts(delta: JsonObject) -> list[UpstreamEvent]:
    """Reasoning comes before the text it leads to. A refusal is what the model says instead of an answer."""
    reasoning = _text(delta, "reasoning_content") or _text(delta, "reasoning")
    text = _text(delta, "content")
    refusal = _text(delta, "refusal")
    events: list[UpstreamEvent] = [ReasoningDelta(reasoning)] if reasoning else []
    return events + [TextDelta(said) for said in (text, refusal) if said]


def _tool_call(call: JsonObject, index: int) -> ToolCallDelta:
    function = _object(call, "function") or {}
    return ToolCallDelta(
        index=index,
        id=_text(call, "id") or None,
        name=_text(function, "name") or None,
        arguments_json_fragment=_text(function, "arguments") or "",
    )


def _finish_reason(choice: JsonObject) -> FinishReason | None:
    reason = _text(choice, "finish_reason")
    return FINISH_REASONS.get(reason, FinishReason.OTHER) if reason else None


def _usage(answer: JsonObject) -> list[UpstreamEvent]:
    usage = _object(answer, "usage")
    if not usage:
        return []
    counted = Usage(
        input_token_count=_count(usage, "prompt_tokens"),
        output_token_count=_count(usage, "completion_tokens"),
        cached_input_token_count=_count(_object(usage, "prompt_tokens_details") or {}, "cached_tokens"),
        reasoning_token_count=_count(_object(usage, "completion_tokens_details") or {}, "reasoning_tokens"),
    )
    return [UsageReported(counted)]


def _text(parent: JsonObject, name: str) -> str | None:
    value = parent.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong_type(name, "text")
    if value.isascii():
        return value
    # An escape may name half a surrogate pair, which no UTF-8 can carry onwards: U+FFFD in its place.
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _count(parent: JsonObject, name: str, *, maximum: int = TOKEN_COUNT_MAX) -> int | None:
    value = parent.get(name)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= maximum:
        return value
    raise _wrong_type(name, "a count")


def _object(parent: JsonObject, name: str) -> JsonObject | None:
    value = parent.get(name)
    if value is None or isinstance(value, dict):
        return value
    raise _wrong_type(name, "an object")


def _objects(parent: JsonObject, name: str) -> list[JsonObject]:
    value = parent.get(name)
    if value is None:
        return []
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    raise _wrong_type(name, "an array of objects")


def _wrong_type(name: str, expected: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(f"the provider sent a {name} that is not {expected}")
