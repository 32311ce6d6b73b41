"""The wire format of OpenAI's chat completions, which most providers speak: conversation to request, answer to events.

Pure. What a provider wants otherwise in requests is its `Dialect`; answers are read whatever dialect they are in.
"""

from __future__ import annotations

import base64
from urllib.parse import quote

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
from pointsman_server.errors import UpstreamError, UpstreamProtocolError
from pointsman_server.providers.base import ProviderSettings, UpstreamCall
from pointsman_server.providers.dialects import GENERIC, Dialect, MaxTokensField
from pointsman_server.providers.wire import (
    CALL_COUNT_MAX,
    SIGNATURE_CHARACTER_COUNT_MAX,
    EndingDecoder,
    ErrorAnswer,
    JsonObject,
    WireRequest,
    check_sayable,
    count_in,
    encoded,
    error_object_of,
    fields_of,
    machine_code,
    object_in,
    object_of,
    objects_in,
    reported_error,
    schema_of,
    signature_content,
    signed,
    text_in,
    wrong_type,
)

PATH = "/chat/completions"
STREAM_END = "[DONE]"
SIGNATURE_TAG = "reasoning_content"
"""Reasoning that goes back to the provider with the tool call that it led to."""

FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
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
    "engine_overloaded_error": 503,
    "insufficient_balance": 402,
    "over_capacity": 503,
}
"""The status that these codes come with when the failure is found before the answer's head has been sent."""


class OpenAIWire:
    """The `WireFormat` of one OpenAI-compatible provider."""

    def __init__(self, settings: ProviderSettings) -> None:
        self._dialect = settings.dialect
        self._max_tokens_field = settings.max_tokens_field or settings.dialect.max_tokens_field
        self._query = "" if settings.api_version is None else f"?api-version={quote(settings.api_version)}"
        key = settings.api_key
        if key is None:
            self.headers: tuple[tuple[str, str], ...] = ()
        elif self._dialect.key_header == "authorization":
            self.headers = (("authorization", f"Bearer {key.reveal()}"),)
        else:
            self.headers = ((self._dialect.key_header, key.reveal()),)

    def request(self, call: UpstreamCall) -> WireRequest:
        """See `WireFormat.request`."""
        body = request_body(call, dialect=self._dialect, max_tokens_field=self._max_tokens_field)
        if not self._dialect.model_in_path:
            return WireRequest(PATH, body)
        return WireRequest(f"/deployments/{quote(call.upstream_model, safe='')}{PATH}{self._query}", body)

    def decoder(self, call: UpstreamCall) -> StreamDecoder:
        """See `WireFormat.decoder`."""
        del call  # Everything is in the answer.
        return StreamDecoder(keep_reasoning=self._dialect.reasoning_comes_back)

    def answer_events(self, call: UpstreamCall, body: bytes) -> tuple[UpstreamEvent, ...]:
        """See `WireFormat.answer_events`."""
        del call
        return answer_events(body, keep_reasoning=self._dialect.reasoning_comes_back)

    def error_answer(self, body: bytes) -> ErrorAnswer:
        """See `WireFormat.error_answer`."""
        return ErrorAnswer(error_code(body))


def request_body(
    call: UpstreamCall, *, dialect: Dialect = GENERIC, max_tokens_field: MaxTokensField = "max_tokens"
) -> bytes:
    """The request as JSON in UTF-8, see `WireFormat.request`."""
    conversation = call.conversation
    check_sayable(conversation, dialect.lacks)
    payload: dict[str, object] = {
        "model": call.upstream_model,
        "messages": [_message(message, dialect) for message in conversation.messages],
        "stream": call.stream,
    }
    if call.stream and dialect.asks_for_usage:
        payload["stream_options"] = {"include_usage": True}
    payload |= _tools(conversation)
    payload |= _response_format(conversation.response_format)
    payload |= _sampling(conversation.sampling, dialect, max_tokens_field=max_tokens_field)
    if dialect.wants_strictness:
        payload["provider"] = {"require_parameters": True}
    return encoded(payload)


def _message(message: Message, dialect: Dialect) -> dict[str, object]:
    wire: dict[str, object] = {"role": message.role.value, "content": _content(message)}
    if message.name is not None:
        wire["name"] = message.name
    if message.tool_calls:
        wire["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}
            for call in message.tool_calls
        ]
        if dialect.reasoning_comes_back and (reasoning := _returned_reasoning(message)) is not None:
            wire["reasoning_content"] = reasoning
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    return wire


def _returned_reasoning(message: Message) -> str | None:
    signatures = (signature_content(call.signature, SIGNATURE_TAG) for call in message.tool_calls)
    return next((reasoning for reasoning in signatures if reasoning is not None), None)


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
        function["parameters"] = schema_of(tool.parameters_json_schema, path)
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
            wire["schema"] = schema_of(response_format.json_schema or "", "conversation.response_format.json_schema")
            if response_format.strict:
                wire["strict"] = True
            return {"response_format": {"type": "json_schema", "json_schema": wire}}


def _sampling(sampling: SamplingOptions, dialect: Dialect, *, max_tokens_field: str) -> dict[str, object]:
    effort = None if sampling.reasoning_effort is None else sampling.reasoning_effort.value
    wire = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        max_tokens_field: sampling.output_token_count_max,
        "stop": list(sampling.stop) or None,
        dialect.seed_field: sampling.seed,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "reasoning_effort": None if dialect.effort_in_object else effort,
        "reasoning": {"effort": effort} if effort is not None and dialect.effort_in_object else None,
    }
    return {name: value for name, value in wire.items() if value is not None}


class StreamDecoder(EndingDecoder):
    """Turns the events of one streamed answer into ours; holds back `Finished` until the stream has ended.

    Providers send the reason first, then the usage, then the end mark. A missing end mark is forgiven once the reason is
    known, a missing reason once the end mark is there. Memory: constant, but for the reasoning that is to come back.
    """

    __slots__ = ("_answered", "_kept", "_tool_call_count")

    def __init__(self, *, keep_reasoning: bool = False) -> None:
        super().__init__()
        self._answered = False
        """Some choice has been seen."""
        self._tool_call_count = 0
        self._kept = _KeptReasoning() if keep_reasoning else None
        """Until it has gone out with a tool call."""

    def events_of(self, sent: str) -> list[UpstreamEvent]:
        """See `Decoder.events_of`."""
        if sent == STREAM_END:
            if not self._answered:
                raise UpstreamProtocolError("the provider ended its answer without giving one")
            return [self._finished()]
        chunk = _answer_of(sent)
        self._response_model = self._response_model or text_in(chunk, "model")
        events: list[UpstreamEvent] = []
        choice = _only_choice(chunk)
        if choice is not None:
            self._answered = True
            delta = object_in(choice, "delta") or {}
            events += _texts(delta)
            if self._kept is not None:
                self._kept.add(events)
            events += [self._tool_call_piece(piece) for piece in objects_in(delta, "tool_calls")]
            self._finish_reason = _finish_reason(choice) or self._finish_reason
        return events + _usage(chunk, choice)

    def _tool_call_piece(self, piece: JsonObject) -> ToolCallDelta:
        """A piece without an index, as some providers send it, starts a call if it has an id, else continues the last."""
        starts = bool(text_in(piece, "id"))
        index = count_in(piece, "index", maximum=CALL_COUNT_MAX)
        if index is None:
            index = self._tool_call_count if starts else max(self._tool_call_count - 1, 0)
        self._tool_call_count = max(self._tool_call_count, index + 1)
        signature = None if self._kept is None else self._kept.signature()
        self._kept = None
        return _tool_call(piece, index, signature=signature)


class _KeptReasoning:
    """The reasoning so far, for a provider that wants it back. Memory: as long as a signature may be."""

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._size = 0

    def add(self, events: list[UpstreamEvent]) -> None:
        """What one chunk brought."""
        for event in events:
            if isinstance(event, ReasoningDelta) and self._size <= SIGNATURE_CHARACTER_COUNT_MAX:
                self._pieces.append(event.text)
                self._size += len(event.text)

    def signature(self) -> str | None:
        """All of it, None if there was none."""
        return signed(SIGNATURE_TAG, "".join(self._pieces)) if self._pieces else None


def answer_events(body: bytes, *, keep_reasoning: bool = False) -> tuple[UpstreamEvent, ...]:
    """The events of an answer that came as a whole, see `WireFormat.answer_events`."""
    answer = _answer_of(body)
    choice = _only_choice(answer)
    message = None if choice is None else object_in(choice, "message")
    if choice is None or message is None:
        raise UpstreamProtocolError("the provider's answer holds no message")
    texts = _texts(message)
    kept = _KeptReasoning()
    if keep_reasoning:
        kept.add(texts)
    calls = [
        _tool_call(call, index, signature=kept.signature() if index == 0 else None)
        for index, call in enumerate(objects_in(message, "tool_calls"))
    ]
    finished = Finished(_finish_reason(choice) or FinishReason.OTHER, text_in(answer, "model"))
    return (*texts, *calls, *_usage(answer, choice), finished)


def error_code(body: bytes) -> str:
    """The machine-readable code of an error answer, or empty; never any of its free text."""
    return machine_code(error_object_of(body), "code", "type")


def _answer_of(sent: str | bytes) -> JsonObject:
    """The JSON object that was sent; an error within it is raised."""
    answer = object_of(sent)
    error = answer.get("error")
    if error is not None:
        raise _error_within(error)
    if answer.get("object") == "error":
        raise _error_within(answer)
    groq = answer.get("x_groq")
    if isinstance(groq, dict) and groq.get("error") is not None:
        raise _error_within({"code": groq["error"]})
    return answer


def _error_within(error: object) -> UpstreamError:
    fields = fields_of(error)
    return reported_error(
        fields, ErrorAnswer(machine_code(fields, "code", "type")), status_of_code=STATUS_OF_ERROR_CODE
    )


def _only_choice(answer: JsonObject) -> JsonObject | None:
    choices = objects_in(answer, "choices")
    if len(choices) > 1:
        raise UpstreamProtocolError("the provider sent several choices where one was asked for")
    return choices[0] if choices else None


def _texts(delta: JsonObject) -> list[UpstreamEvent]:
    """Reasoning comes before the text it leads to. A refusal is what the model says instead of an answer."""
    reasoning = text_in(delta, "reasoning_content") or text_in(delta, "reasoning")
    events: list[UpstreamEvent] = [ReasoningDelta(reasoning)] if reasoning else []
    if isinstance(delta.get("content"), list):
        events += _content_parts(delta)
    elif text := text_in(delta, "content"):
        events.append(TextDelta(text))
    if refusal := text_in(delta, "refusal"):
        events.append(TextDelta(refusal))
    return events


def _content_parts(delta: JsonObject) -> list[UpstreamEvent]:
    """Content in parts, as Mistral's reasoning models send it."""
    events: list[UpstreamEvent] = []
    for part in objects_in(delta, "content"):
        match part.get("type"):
            case "text":
                events.append(TextDelta(text_in(part, "text") or ""))
            case "thinking":
                events += [ReasoningDelta(text_in(piece, "text") or "") for piece in objects_in(part, "thinking")]
            case _:
                raise wrong_type("part of the content", "text or thinking")
    return [event for event in events if event not in (TextDelta(""), ReasoningDelta(""))]


def _tool_call(call: JsonObject, index: int, *, signature: str | None) -> ToolCallDelta:
    function = object_in(call, "function") or {}
    return ToolCallDelta(
        index=index,
        id=text_in(call, "id") or None,
        name=text_in(function, "name") or None,
        arguments_json_fragment=text_in(function, "arguments") or "",
        signature=signature,
    )


def _finish_reason(choice: JsonObject) -> FinishReason | None:
    reason = text_in(choice, "finish_reason")
    return FINISH_REASONS.get(reason, FinishReason.OTHER) if reason else None


def _usage(answer: JsonObject, choice: JsonObject | None) -> list[UpstreamEvent]:
    """Counts stand in the answer; Groq's streams have them in a field of its own, Moonshot's in the choice."""
    usage = object_in(answer, "usage")
    if not usage and "x_groq" in answer:
        usage = object_in(object_in(answer, "x_groq") or {}, "usage")
    if not usage and choice is not None:
        usage = object_in(choice, "usage")
    if not usage:
        return []
    details = object_in(usage, "prompt_tokens_details") or {}
    counted = Usage(
        input_token_count=count_in(usage, "prompt_tokens"),
        output_token_count=count_in(usage, "completion_tokens"),
        cached_input_token_count=_first_count(
            (details, "cached_tokens"), (usage, "prompt_cache_hit_tokens"), (usage, "cached_tokens")
        ),
        reasoning_token_count=count_in(object_in(usage, "completion_tokens_details") or {}, "reasoning_tokens"),
        cache_write_input_token_count=count_in(details, "cache_write_tokens"),
    )
    return [UsageReported(counted)]


def _first_count(*places: tuple[JsonObject, str]) -> int | None:
    """The first of them that is there."""
    counts = (count_in(parent, name) for parent, name in places)
    return next((count for count in counts if count is not None), None)
