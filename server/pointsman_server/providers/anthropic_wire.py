"""The wire format of Anthropic's Messages API: conversation to request, answer to events. Pure.

What its models think before they call a tool has to come back, unchanged, with the call: it travels in the call's
signature, so that whoever keeps the conversation keeps it as well.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pointsman_server.chat import (
    Conversation,
    Finished,
    FinishReason,
    ImagePart,
    Message,
    Part,
    ReasoningControl,
    ReasoningDelta,
    ReasoningEffort,
    ResponseFormatKind,
    Role,
    SamplingOptions,
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
    UpstreamProtocolError,
    UpstreamUnsupportedError,
)
from pointsman_server.providers.base import ProviderSettings, UpstreamCall
from pointsman_server.providers.wire import (
    CALL_COUNT_MAX,
    SIGNATURE_CHARACTER_COUNT_MAX,
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

PATH = "/messages"
API_VERSION = "2023-06-01"
"""The only version there is; new fields come without a new one."""
SIGNATURE_TAG = "anthropic"
THOUGHT_BUDGET_MIN = 1024
"""The least budget for thinking that the API takes."""
BLOCK_COUNT_MAX = 4096
"""Blocks of one answer: four for each tool call that there can be."""

LACKS = frozenset(
    {
        RequestFeature.IMAGE_DETAIL,
        RequestFeature.JSON_OBJECT,
        RequestFeature.PENALTIES,
        RequestFeature.SEED,
        RequestFeature.SPEAKER_NAMES,
        RequestFeature.SYSTEM_IMAGES,
        RequestFeature.TEMPERATURE_ABOVE_ONE,
    }
)
"""What the API has no field for."""

EFFORTS = {
    ReasoningEffort.MINIMAL: "low",
    ReasoningEffort.LOW: "low",
    ReasoningEffort.MEDIUM: "medium",
    ReasoningEffort.HIGH: "high",
}
"""There is nothing below low."""
THOUGHT_BUDGETS = {
    ReasoningEffort.MINIMAL: THOUGHT_BUDGET_MIN,
    ReasoningEffort.LOW: 4_096,
    ReasoningEffort.MEDIUM: 8_192,
    ReasoningEffort.HIGH: 24_576,
}
"""Tokens to think with, for models that are told so."""
TOOL_CHOICES = {
    ToolChoiceMode.AUTO: "auto",
    ToolChoiceMode.NONE: "none",
    ToolChoiceMode.REQUIRED: "any",
    ToolChoiceMode.NAMED: "tool",
}
FINISH_REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}
"""Any other reason is OTHER."""
STATUS_OF_ERROR_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The status that these types come with when the failure is found before the answer's head has been sent."""


class AnthropicWire:
    """The `WireFormat` of Anthropic's messages."""

    def __init__(self, settings: ProviderSettings) -> None:
        key = () if settings.api_key is None else (("x-api-key", settings.api_key.reveal()),)
        self._caches_prompts = settings.caches_prompts
        self.headers: tuple[tuple[str, str], ...] = (("anthropic-version", API_VERSION), *key)

    def request(self, call: UpstreamCall) -> WireRequest:
        """See `WireFormat.request`."""
        return WireRequest(PATH, request_body(call, caches_prompts=self._caches_prompts))

    def decoder(self, call: UpstreamCall) -> AnthropicDecoder:
        """See `WireFormat.decoder`."""
        del call  # Everything is in the answer.
        return AnthropicDecoder()

    def answer_events(self, call: UpstreamCall, body: bytes) -> tuple[UpstreamEvent, ...]:
        """See `WireFormat.answer_events`."""
        del call
        return answer_events(body)

    def error_answer(self, body: bytes) -> ErrorAnswer:
        """See `WireFormat.error_answer`."""
        return ErrorAnswer(machine_code(error_object_of(body), "type"))


def request_body(call: UpstreamCall, *, caches_prompts: bool = False) -> bytes:
    """The request as JSON in UTF-8, see `WireFormat.request`."""
    conversation = call.conversation
    check_sayable(conversation, LACKS)
    script = script_of(conversation.messages)
    limit = conversation.sampling.output_token_count_max or call.output_token_count_max
    if limit is None:
        raise UpstreamUnsupportedError("an answer without a limit, and the catalog does not know the model's own")
    payload: dict[str, object] = {
        "model": call.upstream_model,
        "max_tokens": limit,
        "messages": [turn for role, group in script.turns for turn in _turns(role, group)],
        "stream": call.stream,
    }
    if caches_prompts:
        # Marks the end of the conversation, so that its next turn finds all of it.
        payload["cache_control"] = {"type": "ephemeral"}
    if script.system:
        payload["system"] = [_part(part) for part in script.system]
    payload |= _tools(conversation)
    payload |= _output(conversation, call.reasoning_control, limit=limit)
    payload |= _sampling(conversation.sampling)
    return encoded(payload)


def _turns(role: Role, group: Sequence[Message]) -> list[dict[str, object]]:
    """Turns of one role in a row. The results of all calls of a turn stand together in the turn that follows it."""
    if role is Role.TOOL:
        return [{"role": "user", "content": [_tool_result(message) for message in group]}]
    return [{"role": role.value, "content": _content(message)} for message in group]


def _content(message: Message) -> object:
    match message:
        case Message(parts=(TextPart(text=text),), tool_calls=()):
            return text
        case _:
            thoughts = [block for call in message.tool_calls for block in _thoughts(call)]
            calls = [_tool_use(call) for call in message.tool_calls]
            return [*thoughts, *(_part(part) for part in message.parts), *calls]


def _thoughts(call: ToolCall) -> list[JsonObject]:
    """What the model thought before this call, as it came; nothing if the call is another provider's."""
    content = signature_content(call.signature, SIGNATURE_TAG)
    if content is None:
        return []
    try:
        blocks: object = json.loads(base64.b64decode(content, validate=True))
    except (ValueError, binascii.Error, RecursionError):
        blocks = None
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise UpstreamUnsupportedError("a tool call whose signature is damaged")
    return blocks


def _tool_use(call: ToolCall) -> dict[str, object]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments_of(call.arguments_json)}


def _tool_result(message: Message) -> dict[str, object]:
    return {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": _content(message)}


def _part(part: Part) -> dict[str, object]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "image", "source": _image_source(part)}


def _image_source(image: ImagePart) -> dict[str, object]:
    if image.content is None:
        return {"type": "url", "url": image.url}
    return {"type": "base64", "media_type": image.media_type, "data": base64.b64encode(image.content).decode()}


def _tools(conversation: Conversation) -> dict[str, object]:
    """Without tools their options have no meaning, and the API refuses them."""
    if not conversation.tools:
        return {}
    wire: dict[str, object] = {"tools": [_tool(tool, index) for index, tool in enumerate(conversation.tools)]}
    choice = conversation.tool_choice
    chosen: dict[str, object] = {"type": TOOL_CHOICES[choice.mode]}
    if choice.mode is ToolChoiceMode.NAMED:
        chosen["name"] = choice.name
    if conversation.sampling.parallel_tool_calls is False and choice.mode is not ToolChoiceMode.NONE:
        chosen["disable_parallel_tool_use"] = True
    if chosen != {"type": "auto"}:
        wire["tool_choice"] = chosen
    return wire


def _tool(tool: Tool, index: int) -> dict[str, object]:
    wire: dict[str, object] = {"name": tool.name}
    if tool.description:
        wire["description"] = tool.description
    path = f"conversation.tools[{index}].parameters_json_schema"
    wire["input_schema"] = schema_of(tool.parameters_json_schema or '{"type":"object","properties":{}}', path)
    if tool.strict:
        wire["strict"] = True
    return wire


def _output(conversation: Conversation, control: ReasoningControl, *, limit: int) -> dict[str, object]:
    """How long to think, and the shape of the answer."""
    effort = conversation.sampling.reasoning_effort
    wire: dict[str, object] = {}
    output: dict[str, object] = {}
    if effort is not None and control is ReasoningControl.BUDGET:
        wire["thinking"] = {"type": "enabled", "budget_tokens": _thought_budget(effort, limit=limit)}
    elif effort is not None:
        # Some models leave their thoughts out unless they are asked for.
        wire["thinking"] = {"type": "adaptive", "display": "summarized"}
        output["effort"] = EFFORTS[effort]
    shape = conversation.response_format
    if shape.kind is ResponseFormatKind.JSON_SCHEMA:
        schema = schema_of(shape.json_schema or "", "conversation.response_format.json_schema")
        output["format"] = {"type": "json_schema", "schema": schema}
    return wire | ({"output_config": output} if output else {})


def _thought_budget(effort: ReasoningEffort, *, limit: int) -> int:
    """Thoughts count against the limit, and at least one token must be left for the answer."""
    budget = min(THOUGHT_BUDGETS[effort], limit - 1)
    if budget < THOUGHT_BUDGET_MIN:
        raise UpstreamUnsupportedError(f"reasoning in an answer of at most {limit} tokens")
    return budget


def _sampling(sampling: SamplingOptions) -> dict[str, object]:
    wire = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "stop_sequences": list(sampling.stop) or None,
    }
    return {name: value for name, value in wire.items() if value is not None}


class AnthropicDecoder(EndingDecoder):
    """The `Decoder` of Anthropic's streams: an answer is a row of blocks, each begun, filled by deltas, and closed.

    Memory: what the model thinks before its first tool call, as long as a signature may be.
    """

    __slots__ = ("_blocks", "_calls_by_block", "_usage")

    def __init__(self) -> None:
        super().__init__()
        self._blocks = _Blocks()
        self._calls_by_block: dict[int, int] = {}
        """Which of the answer's tool calls the block of that index is."""
        self._usage = _Counts()

    def events_of(self, sent: str) -> list[UpstreamEvent]:
        """See `Decoder.events_of`. Kinds of events that are not known are passed over, as the API asks."""
        event = object_of(sent)
        match event.get("type"):
            case "content_block_delta":
                return self._delta(event)
            case "content_block_start":
                return self._block(event)
            case "message_start":
                message = object_in(event, "message") or {}
                self._response_model = text_in(message, "model")
                # What it says of the output is the first token of it.
                return self._usage.reported(object_in(message, "usage"), with_output=False)
            case "message_delta":
                self._finish_reason = _finish_reason(object_in(event, "delta") or {}) or self._finish_reason
                return self._usage.reported(object_in(event, "usage"), with_output=True)
            case "message_stop":
                if not self.answer_complete:
                    raise UpstreamProtocolError("the provider ended its answer without saying why")
                return [self._finished()]
            case "error":
                raise _error_within(event)
            case _:
                return []

    def _block(self, event: JsonObject) -> list[UpstreamEvent]:
        block = object_in(event, "content_block") or {}
        events = self._blocks.events_of(block)
        for begun in events:
            if isinstance(begun, ToolCallDelta):
                index = count_in(event, "index", maximum=BLOCK_COUNT_MAX)
                self._calls_by_block[-1 if index is None else index] = begun.index
        return events

    def _delta(self, event: JsonObject) -> list[UpstreamEvent]:
        delta = object_in(event, "delta") or {}
        match delta.get("type"):
            case "text_delta":
                text = text_in(delta, "text")
                return [TextDelta(text)] if text else []
            case "thinking_delta":
                return self._blocks.thought(text_in(delta, "thinking") or "")
            case "signature_delta":
                self._blocks.sign(text_in(delta, "signature") or "")
                return []
            case "input_json_delta":
                index = count_in(event, "index", maximum=BLOCK_COUNT_MAX)
                call = self._calls_by_block.get(-1 if index is None else index)
                fragment = text_in(delta, "partial_json")
                if call is None:
                    raise UpstreamProtocolError("the provider sent arguments of a tool call that it did not begin")
                return [ToolCallDelta(call, arguments_json_fragment=fragment)] if fragment else []
            case "citations_delta":
                # Where a text is from, which is told only to who sends documents.
                return []
            case _:
                raise UpstreamProtocolError("the provider sent a piece of an answer of a kind that is not known")


class _Blocks:
    """The blocks of an answer so far: counts the tool calls, and keeps the thoughts until one takes them along."""

    __slots__ = ("_call_count", "_size", "_thoughts")

    def __init__(self) -> None:
        self._call_count = 0
        self._thoughts: list[_Thought] = []
        self._size = 0
        """Characters of the thoughts. Once they are more than a signature holds, no more are kept."""

    def events_of(self, block: JsonObject) -> list[UpstreamEvent]:
        """A block as it begins; in an answer that comes as a whole, all of it."""
        match block.get("type"):
            case "text":
                text = text_in(block, "text")
                return [TextDelta(text)] if text else []
            case "thinking":
                self._begin(_Thought())
                self.sign(text_in(block, "signature") or "")
                return self.thought(text_in(block, "thinking") or "")
            case "redacted_thinking":
                self._begin(_Thought(redacted=self._kept(text_in(block, "data") or "")))
                return []
            case "tool_use":
                return [self._call(block)]
            case _:
                raise UpstreamProtocolError("the provider sent a block of a kind that was not asked for")

    def thought(self, text: str) -> list[UpstreamEvent]:
        """More of the thought that began last."""
        if not text:
            return []
        self._last_thought().pieces.append(self._kept(text))
        return [ReasoningDelta(text)]

    def sign(self, signature: str) -> None:
        """The signature of the thought that began last."""
        if signature:
            self._last_thought().signature = self._kept(signature)

    def _begin(self, thought: _Thought) -> None:
        if len(self._thoughts) == BLOCK_COUNT_MAX:
            raise UpstreamProtocolError(f"the provider's answer holds more than {BLOCK_COUNT_MAX} thoughts")
        self._thoughts.append(thought)

    def _kept(self, text: str) -> str:
        """The text while there is room. What is cut off makes the signature too long, hence an error, and never wrong."""
        if self._size > SIGNATURE_CHARACTER_COUNT_MAX:
            return ""
        self._size += len(text)
        return text

    def _last_thought(self) -> _Thought:
        if not self._thoughts:
            raise UpstreamProtocolError("the provider sent a thought that it did not begin")
        return self._thoughts[-1]

    def _call(self, block: JsonObject) -> ToolCallDelta:
        if self._call_count == CALL_COUNT_MAX:
            raise UpstreamProtocolError(f"the provider's answer holds more than {CALL_COUNT_MAX} tool calls")
        arguments = object_in(block, "input")
        began = ToolCallDelta(
            index=self._call_count,
            id=text_in(block, "id") or None,
            name=text_in(block, "name") or None,
            arguments_json_fragment=json_text(arguments) if arguments else "",
            signature=_signature(self._thoughts),
        )
        self._call_count += 1
        self._thoughts.clear()
        self._size = 0
        return began


@dataclass(slots=True)
class _Thought:
    """One block of thinking."""

    redacted: str | None = None
    """Its content where only the provider can read it."""
    pieces: list[str] = field(default_factory=list)
    signature: str = ""

    def block(self) -> JsonObject:
        """As the provider wants it back."""
        if self.redacted is not None:
            return {"type": "redacted_thinking", "data": self.redacted}
        return {"type": "thinking", "thinking": "".join(self.pieces), "signature": self.signature}


def _signature(thoughts: Iterable[_Thought]) -> str | None:
    blocks = [thought.block() for thought in thoughts]
    if not blocks:
        return None
    return signed(SIGNATURE_TAG, base64.b64encode(json.dumps(blocks, separators=(",", ":")).encode()).decode())


class _Counts:
    """Tokens as they become known: counts of an answer are cumulative, and one that is not repeated still holds."""

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        self._latest: dict[str, int] = {}

    def reported(self, usage: JsonObject | None, *, with_output: bool) -> list[UpstreamEvent]:
        """What is known with this report; nothing if it says nothing."""
        if not usage:
            return []
        for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens"):
            if (count := count_in(usage, name)) is not None and (with_output or name != "output_tokens"):
                self._latest[name] = count
        details = object_in(usage, "output_tokens_details") or {}
        if with_output and (thought := count_in(details, "thinking_tokens")) is not None:
            self._latest["thinking_tokens"] = thought
        return [UsageReported(self._usage())]

    def _usage(self) -> Usage:
        """To us, what is read from a cache or written to it is a part of the input; to them it is not."""
        known = self._latest
        read, written = known.get("cache_read_input_tokens"), known.get("cache_creation_input_tokens")
        plain = known.get("input_tokens")
        return Usage(
            input_token_count=None if plain is None else plain + (read or 0) + (written or 0),
            output_token_count=known.get("output_tokens"),
            cached_input_token_count=read,
            reasoning_token_count=known.get("thinking_tokens"),
            cache_write_input_token_count=written,
        )


def answer_events(body: bytes) -> tuple[UpstreamEvent, ...]:
    """The events of an answer that came as a whole, see `WireFormat.answer_events`."""
    answer = object_of(body)
    if answer.get("type") == "error":
        raise _error_within(answer)
    if "content" not in answer:
        raise UpstreamProtocolError("the provider's answer holds no content")
    blocks = _Blocks()
    events = [event for block in objects_in(answer, "content") for event in blocks.events_of(block)]
    usage = _Counts().reported(object_in(answer, "usage"), with_output=True)
    finished = Finished(_finish_reason(answer) or FinishReason.OTHER, text_in(answer, "model"))
    return (*events, *usage, finished)


def _finish_reason(parent: JsonObject) -> FinishReason | None:
    reason = text_in(parent, "stop_reason")
    return FINISH_REASONS.get(reason, FinishReason.OTHER) if reason else None


def _error_within(event: JsonObject) -> UpstreamError:
    error = fields_of(event.get("error"))
    return reported_error(error, ErrorAnswer(machine_code(error, "type")), status_of_code=STATUS_OF_ERROR_TYPE)
