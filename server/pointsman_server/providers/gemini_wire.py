"""The wire format of Google's generateContent and streamGenerateContent: conversation to request, answer to events. Pure.

A model that thinks signs its tool calls, and wants the signatures back. One is good for the model that made it alone, so
that its name goes along.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlsplit

from pointsman_server.chat import (
    Conversation,
    Finished,
    FinishReason,
    ImageDetail,
    ImagePart,
    Message,
    Part,
    ReasoningControl,
    ReasoningDelta,
    ReasoningEffort,
    ResponseFormat,
    ResponseFormatKind,
    Role,
    TextDelta,
    TextPart,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoiceMode,
    UpstreamEvent,
    Usage,
    UsageReported,
)
from pointsman_server.decision.types import RequestFeature
from pointsman_server.errors import (
    UpstreamError,
    UpstreamErrorKind,
    UpstreamProtocolError,
    UpstreamUnsupportedError,
)
from pointsman_server.providers.base import ProviderSettings, UpstreamCall
from pointsman_server.providers.retry_after import time_to_wait_s
from pointsman_server.providers.wire import (
    CALL_COUNT_MAX,
    ERROR_DETAIL_COUNT_MAX,
    EndingDecoder,
    ErrorAnswer,
    JsonObject,
    WireRequest,
    arguments_of,
    check_sayable,
    count_in,
    encoded,
    error_object_of,
    fields_of,
    json_text,
    machine_code,
    object_in,
    object_of,
    objects_in,
    reported_error,
    schema_of,
    script_of,
    signature_content,
    signed,
    text_in,
)

SEED_MAX = 2**31 - 1
"""Seeds are 32-bit numbers."""
NO_SIGNATURE = "skip_thought_signature_validator"
"""What stands for the signature of a call that another model made: documented for histories that come from elsewhere."""

LACKS = frozenset(
    {
        RequestFeature.LATE_SYSTEM_TURNS,
        RequestFeature.SINGLE_TOOL_CALL,
        RequestFeature.SPEAKER_NAMES,
        RequestFeature.SYSTEM_IMAGES,
    }
)
"""What the API has no field for."""

THOUGHT_BUDGETS = {
    ReasoningEffort.MINIMAL: 512,
    ReasoningEffort.LOW: 1_024,
    ReasoningEffort.MEDIUM: 8_192,
    ReasoningEffort.HIGH: 24_576,
}
"""Tokens to think with, for models that are told so: 512 is the least that all of them take, 24,576 the most."""
TOOL_MODES = {
    ToolChoiceMode.AUTO: "AUTO",
    ToolChoiceMode.NONE: "NONE",
    ToolChoiceMode.REQUIRED: "ANY",
    ToolChoiceMode.NAMED: "ANY",
}
MEDIA_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "heic": "image/heic",
    "heif": "image/heif",
    "gif": "image/gif",
}
"""By the ending of an address. The API wants to know before it fetches; where the ending tells nothing it looks itself."""
FINISH_REASONS = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "SAFETY": FinishReason.CONTENT_FILTER,
    "RECITATION": FinishReason.CONTENT_FILTER,
    "BLOCKLIST": FinishReason.CONTENT_FILTER,
    "PROHIBITED_CONTENT": FinishReason.CONTENT_FILTER,
    "SPII": FinishReason.CONTENT_FILTER,
    "IMAGE_SAFETY": FinishReason.CONTENT_FILTER,
    "MODEL_ARMOR": FinishReason.CONTENT_FILTER,
}
"""Any other reason is OTHER."""
STATUS_OF_CODE = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""The status that these codes come with when the failure is found before the answer's head has been sent."""
KIND_OF_REASON = {
    "API_KEY_INVALID": UpstreamErrorKind.AUTHENTICATION,
    "API_KEY_EXPIRED": UpstreamErrorKind.AUTHENTICATION,
}
"""Reasons that come with a status that says something else (400)."""
RETRY_DELAY = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")
"""A duration as protobuf's JSON writes it."""


class GeminiWire:
    """The `WireFormat` of Google's generateContent."""

    def __init__(self, settings: ProviderSettings) -> None:
        key = settings.api_key
        self.headers: tuple[tuple[str, str], ...] = () if key is None else (("x-goog-api-key", key.reveal()),)

    def request(self, call: UpstreamCall) -> WireRequest:
        """See `WireFormat.request`."""
        method = "streamGenerateContent?alt=sse" if call.stream else "generateContent"
        # A tuned model is called by its whole name, which is a path of its own.
        name = call.upstream_model if "/" in call.upstream_model else f"models/{call.upstream_model}"
        return WireRequest(f"/{quote(name, safe='/@')}:{method}", request_body(call))

    def decoder(self, call: UpstreamCall) -> GeminiDecoder:
        """See `WireFormat.decoder`."""
        return GeminiDecoder(call.upstream_model)

    def answer_events(self, call: UpstreamCall, body: bytes) -> tuple[UpstreamEvent, ...]:
        """See `WireFormat.answer_events`."""
        decoder = GeminiDecoder(call.upstream_model)
        events = decoder.events_of(body)
        if not decoder.answer_complete:
            raise UpstreamProtocolError("the provider's answer holds no candidate that has finished")
        return (*events, *decoder.end())

    def error_answer(self, body: bytes) -> ErrorAnswer:
        """See `WireFormat.error_answer`."""
        return _error_answer(error_object_of(body))


def request_body(call: UpstreamCall) -> bytes:
    """The request as JSON in UTF-8, see `WireFormat.request`."""
    conversation = call.conversation
    check_sayable(conversation, LACKS)
    script = script_of(conversation.messages)
    names = {tool.id: tool.name for message in conversation.messages for tool in message.tool_calls}
    history = _History(call.upstream_model, call.reasoning_control, names)
    payload: dict[str, object] = {
        "contents": [turn for role, group in script.turns for turn in history.turns(role, group)]
    }
    if script.system:
        payload["systemInstruction"] = {"parts": [_part(part) for part in script.system]}
    payload |= _tools(conversation)
    if generation := _generation(conversation, call.reasoning_control):
        payload["generationConfig"] = generation
    return encoded(payload)


class _History:
    """Writes the turns of a conversation."""

    def __init__(self, model: str, control: ReasoningControl, names: Mapping[str, str]) -> None:
        self._tag = _signature_tag(model)
        self._wants_signatures = control is ReasoningControl.EFFORT
        """Models that are told by a word how long to think refuse calls that nobody signed."""
        self._names = names
        """Of the tools that were called, by the calls' ids."""

    def turns(self, role: Role, group: Sequence[Message]) -> list[dict[str, object]]:
        """Turns of one role in a row. The results of all calls of a turn stand together in the turn that follows it."""
        match role:
            case Role.TOOL:
                return [{"role": "user", "parts": [self._tool_result(message) for message in group]}]
            case Role.ASSISTANT:
                return [{"role": "model", "parts": [*self._said(message)]} for message in group]
            case _:
                return [{"role": "user", "parts": [_part(part) for part in message.parts]} for message in group]

    def _said(self, message: Message) -> list[dict[str, object]]:
        calls = [self._call(call, is_first=index == 0) for index, call in enumerate(message.tool_calls)]
        return [*(_part(part) for part in message.parts), *calls]

    def _call(self, call: ToolCall, *, is_first: bool) -> dict[str, object]:
        """Of the calls of one turn only the first is signed."""
        arguments = arguments_of(call.arguments_json)
        wire: dict[str, object] = {"functionCall": {"id": call.id, "name": call.name, "args": arguments}}
        signature = signature_content(call.signature, self._tag)
        if signature is None and is_first and self._wants_signatures:
            signature = NO_SIGNATURE
        return wire if signature is None else wire | {"thoughtSignature": signature}

    def _tool_result(self, message: Message) -> dict[str, object]:
        id_ = message.tool_call_id
        assert id_ is not None, "a tool's turn names the call that it answers"
        name = self._names.get(id_)
        if name is None:
            raise UpstreamUnsupportedError("the result of a tool call that is not in the conversation")
        wire: dict[str, object] = {"id": id_, "name": name, "response": {"output": message.text}}
        images = [_part(part) for part in message.parts if isinstance(part, ImagePart)]
        return {"functionResponse": wire | ({"parts": images} if images else {})}


def _signature_tag(model: str) -> str:
    return f"gemini/{model}"


def _part(part: Part) -> dict[str, object]:
    if isinstance(part, TextPart):
        return {"text": part.text}
    wire = _image(part)
    if part.detail is not ImageDetail.AUTO:
        wire["mediaResolution"] = {"level": f"MEDIA_RESOLUTION_{part.detail.value.upper()}"}
    return wire


def _image(image: ImagePart) -> dict[str, object]:
    if image.content is not None:
        return {
            "inlineData": {"mimeType": image.media_type, "data": base64.b64encode(image.content).decode()},
        }
    assert image.url is not None, "an image has a url or a content"
    wire: dict[str, object] = {"fileUri": image.url}
    media_type = MEDIA_TYPES.get(_path_of(image.url).rpartition(".")[2].lower())
    return {"fileData": wire if media_type is None else {"mimeType": media_type} | wire}


def _path_of(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        return ""


def _tools(conversation: Conversation) -> dict[str, object]:
    """Without tools their options have no meaning."""
    if not conversation.tools:
        return {}
    declared = [_tool(tool, index) for index, tool in enumerate(conversation.tools)]
    wire: dict[str, object] = {"tools": [{"functionDeclarations": declared}]}
    choice = conversation.tool_choice
    mode = TOOL_MODES[choice.mode]
    if choice.mode is ToolChoiceMode.AUTO and any(tool.strict for tool in conversation.tools):
        # Calls or text, and what it calls follows the schema; ANY checks it without being told.
        mode = "VALIDATED"
    calling: dict[str, object] = {"mode": mode}
    if choice.mode is ToolChoiceMode.NAMED:
        calling["allowedFunctionNames"] = [choice.name]
    if mode != "AUTO":
        wire["toolConfig"] = {"functionCallingConfig": calling}
    return wire


def _tool(tool: Tool, index: int) -> dict[str, object]:
    wire: dict[str, object] = {"name": tool.name}
    if tool.description:
        wire["description"] = tool.description
    if tool.parameters_json_schema:
        path = f"conversation.tools[{index}].parameters_json_schema"
        wire["parametersJsonSchema"] = schema_of(tool.parameters_json_schema, path)
    return wire


def _generation(conversation: Conversation, control: ReasoningControl) -> dict[str, object]:
    sampling = conversation.sampling
    if sampling.seed is not None and not -SEED_MAX - 1 <= sampling.seed <= SEED_MAX:
        raise UpstreamUnsupportedError("a seed beyond 32 bits")
    wire = {
        "temperature": sampling.temperature,
        "topP": sampling.top_p,
        "topK": sampling.top_k,
        "maxOutputTokens": sampling.output_token_count_max,
        "stopSequences": list(sampling.stop) or None,
        "seed": sampling.seed,
        "presencePenalty": sampling.presence_penalty,
        "frequencyPenalty": sampling.frequency_penalty,
        "thinkingConfig": None if sampling.reasoning_effort is None else _thinking(sampling.reasoning_effort, control),
        **_shape(conversation.response_format),
    }
    return {name: value for name, value in wire.items() if value is not None}


def _thinking(effort: ReasoningEffort, control: ReasoningControl) -> dict[str, object]:
    """Thoughts are shown only to who asks for them."""
    if control is ReasoningControl.BUDGET:
        return {"thinkingBudget": THOUGHT_BUDGETS[effort], "includeThoughts": True}
    return {"thinkingLevel": effort.value, "includeThoughts": True}


def _shape(shape: ResponseFormat) -> dict[str, object]:
    match shape.kind:
        case ResponseFormatKind.TEXT:
            return {}
        case ResponseFormatKind.JSON_OBJECT:
            return {"responseMimeType": "application/json"}
        case ResponseFormatKind.JSON_SCHEMA:
            schema = schema_of(shape.json_schema or "", "conversation.response_format.json_schema")
            return {"responseMimeType": "application/json", "responseJsonSchema": schema}


class GeminiDecoder(EndingDecoder):
    """The `Decoder` of Google's streams: each event is an answer of its own that goes on where the last one stopped.

    There is no end mark: the answer has ended when the stream does, after a reason was given.
    """

    __slots__ = ("_answer_id", "_call_count", "_tag")

    def __init__(self, model: str) -> None:
        super().__init__()
        self._tag = _signature_tag(model)
        self._answer_id = ""
        self._call_count = 0

    def events_of(self, sent: str | bytes) -> list[UpstreamEvent]:
        """See `Decoder.events_of`."""
        answer = object_of(sent)
        error = answer.get("error")
        if error is not None:
            raise _error_within(error)
        self._response_model = text_in(answer, "modelVersion") or self._response_model
        self._answer_id = text_in(answer, "responseId") or self._answer_id
        events: list[UpstreamEvent] = []
        candidates = objects_in(answer, "candidates")
        if len(candidates) > 1:
            raise UpstreamProtocolError("the provider sent several candidates where one was asked for")
        for candidate in candidates:
            content = object_in(candidate, "content") or {}
            events += [event for part in objects_in(content, "parts") for event in self._part(part)]
            reason = text_in(candidate, "finishReason")
            if reason:
                self._finish_reason = FINISH_REASONS.get(reason, FinishReason.OTHER)
        if text_in(object_in(answer, "promptFeedback") or {}, "blockReason"):
            self._finish_reason = FinishReason.CONTENT_FILTER
        return events + _usage(answer)

    def _finished(self) -> Finished:
        """Who stopped after a call waits for its result, which the format has no reason of its own for."""
        if self._finish_reason is FinishReason.STOP and self._call_count > 0:
            self._finish_reason = FinishReason.TOOL_CALLS
        return super()._finished()

    def _part(self, part: JsonObject) -> list[UpstreamEvent]:
        call = object_in(part, "functionCall")
        if call is not None:
            return [self._call(call, text_in(part, "thoughtSignature"))]
        text = text_in(part, "text")
        if text is None and set(part) - {"thought", "thoughtSignature"}:
            raise UpstreamProtocolError("the provider sent a part of a kind that was not asked for")
        if not text:
            return []
        return [ReasoningDelta(text) if part.get("thought") is True else TextDelta(text)]

    def _call(self, call: JsonObject, signature: str | None) -> ToolCallDelta:
        """Calls come whole. One without an id, as older models send it, is named after the answer it stands in."""
        if self._call_count == CALL_COUNT_MAX:
            raise UpstreamProtocolError(f"the provider's answer holds more than {CALL_COUNT_MAX} tool calls")
        index = self._call_count
        self._call_count += 1
        return ToolCallDelta(
            index=index,
            id=text_in(call, "id") or f"call-{self._answer_id or 'answer'}-{index}",
            name=text_in(call, "name") or None,
            arguments_json_fragment=json_text(object_in(call, "args") or {}),
            signature=signed(self._tag, signature) if signature else None,
        )


def _usage(answer: JsonObject) -> list[UpstreamEvent]:
    """Counts are those up to this event, and one of 0 is left out. To us, thoughts are a part of the output; to them they
    are not."""
    usage = object_in(answer, "usageMetadata")
    if not usage:
        return []
    prompt, tool_prompt = count_in(usage, "promptTokenCount"), count_in(usage, "toolUsePromptTokenCount")
    said, thought = count_in(usage, "candidatesTokenCount"), count_in(usage, "thoughtsTokenCount")
    counted = Usage(
        input_token_count=None if prompt is None else prompt + (tool_prompt or 0),
        output_token_count=None if prompt is None and said is None else (said or 0) + (thought or 0),
        cached_input_token_count=count_in(usage, "cachedContentTokenCount"),
        reasoning_token_count=thought,
    )
    return [UsageReported(counted)]


def _error_within(error: object) -> UpstreamError:
    fields = fields_of(error)
    code = machine_code(fields, "status")
    return reported_error(fields, _error_answer(fields), status_of_code=STATUS_OF_CODE, code=code)


def _error_answer(error: JsonObject) -> ErrorAnswer:
    """A code from the status, a finer one and a time to wait from the details (google.rpc.ErrorInfo, RetryInfo)."""
    code = machine_code(error, "status")
    reason, retry_after_s = "", None
    details = error.get("details")
    for detail in details[:ERROR_DETAIL_COUNT_MAX] if isinstance(details, list) else []:
        if not isinstance(detail, dict):
            continue
        reason = reason or machine_code(detail, "reason")
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and (seconds := RETRY_DELAY.fullmatch(delay)):
            retry_after_s = time_to_wait_s(float(seconds[1]))
    return ErrorAnswer(reason or code, retry_after_s, KIND_OF_REASON.get(reason))
