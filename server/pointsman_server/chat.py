"""The conversation that a caller sends and the events that an upstream answers with, free of any wire format.

`edge/convert.py` maps these to and from protobuf; each adapter in `providers/` maps them to and from its provider's
wire format. Nothing here reads a clock, opens a socket or knows a provider.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class ImageDetail(StrEnum):
    """How closely the model should look at an image; providers price it."""

    AUTO = "auto"
    LOW = "low"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text within a message."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image within a message: exactly one of `url` and `content` is set."""

    url: str | None = None
    content: bytes | None = field(default=None, repr=False)
    media_type: str | None = None
    """IANA media type of `content`, such as image/png; required with `content`."""
    detail: ImageDetail = ImageDetail.AUTO

    def __post_init__(self) -> None:
        assert (self.url is None) != (self.content is None), "an image has a url or a content, never both"


Part = TextPart | ImagePart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that the model asked for."""

    id: str
    name: str
    arguments_json: str
    """The arguments as the model wrote them: JSON by convention, not by guarantee."""
    signature: str | None = field(default=None, repr=False)
    """See `ToolCallDelta.signature`."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    parts: tuple[Part, ...] = field(default=(), repr=False)
    name: str | None = None
    """Name of the speaker, where several share a role."""
    tool_calls: tuple[ToolCall, ...] = field(default=(), repr=False)
    """Only on assistant turns: the calls that were asked for."""
    tool_call_id: str | None = None
    """Only on tool turns: the call that this answers."""

    @property
    def text(self) -> str:
        """The text parts, joined by newlines; images have none."""
        return "\n".join(part.text for part in self.parts if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str = ""
    parameters_json_schema: str = ""
    """JSON Schema of the arguments as JSON text; empty means no arguments."""
    strict: bool = False


class ToolChoiceMode(StrEnum):
    """Whether the model may, must or must not call a tool."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """How tools may be used; `name` is set exactly when the mode is NAMED."""

    mode: ToolChoiceMode = ToolChoiceMode.AUTO
    name: str | None = None


class ResponseFormatKind(StrEnum):
    """The shape that the answer must have."""

    TEXT = "text"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The shape of the answer; the schema fields are set exactly when the kind is JSON_SCHEMA."""

    kind: ResponseFormatKind = ResponseFormatKind.TEXT
    schema_name: str | None = None
    json_schema: str | None = None
    strict: bool = False


class ReasoningEffort(StrEnum):
    """How long a reasoning model should think."""

    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class ReasoningControl(StrEnum):
    """How a model wants to be told how long to think, where its API knows two ways."""

    EFFORT = "effort"
    """By a word, as newer models want it."""
    BUDGET = "budget"
    """By a number of tokens."""


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How the answer is drawn. None means: not sent, the provider's own default holds."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    output_token_count_max: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: ReasoningEffort | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the model is asked. Prompt text is kept out of `repr`, so that it can't reach a log."""

    messages: tuple[Message, ...] = field(repr=False)
    tools: tuple[Tool, ...] = field(default=(), repr=False)
    tool_choice: ToolChoice = ToolChoice()
    response_format: ResponseFormat = field(default=ResponseFormat(), repr=False)
    sampling: SamplingOptions = SamplingOptions()


class FinishReason(StrEnum):
    """Why the model stopped."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one attempt. None means that the provider did not say."""

    input_token_count: int | None = None
    output_token_count: int | None = None
    cached_input_token_count: int | None = None
    """The part of `input_token_count` that was read from the provider's prompt cache."""
    reasoning_token_count: int | None = None
    """The part of `output_token_count` that was spent on reasoning."""
    cache_write_input_token_count: int | None = None
    """The part of `input_token_count` that was written to the provider's prompt cache, which some charge extra for."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer's text."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the model's reasoning text, where the provider shows it."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call. The first piece of an index carries its id and name."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments_json_fragment: str = field(default="", repr=False)
    signature: str | None = field(default=None, repr=False)
    """What the provider wants back with this call in later turns, such as the reasoning that led to it; on the first
    piece. It starts with the name of the wire format that can read it; every other one leaves it out."""


@dataclass(frozen=True, slots=True)
class UsageReported:
    """The provider's own count of tokens; the last one of a stream holds."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class RequestAllowance:
    """How many more requests a provider admits for now, as the headers of an answer say."""

    limit_count: int
    """Requests that are admitted between two resets."""
    remaining_count: int
    """What is left of them, 0..`limit_count`."""
    reset_s: float
    """Until all of them are available again, above 0. They are taken to come back evenly."""

    def __post_init__(self) -> None:
        assert 0 <= self.remaining_count <= self.limit_count, "nobody has more left than is admitted"
        assert self.reset_s > 0.0, "what is over limits nothing"


@dataclass(frozen=True, slots=True)
class Finished:
    """The model has stopped. An upstream stream without it is broken, not finished."""

    reason: FinishReason
    response_model: str | None = None
    """The model's name as the provider reports it."""


UpstreamEvent = TextDelta | ReasoningDelta | ToolCallDelta | UsageReported | Finished


def prompt_text(conversation: Conversation) -> str:
    """The text that assesses the prompt: the last user turn after the system text, as the quality model reads it."""
    system = [message.text for message in conversation.messages if message.role is Role.SYSTEM]
    users = [message.text for message in conversation.messages if message.role is Role.USER]
    return "\n".join(text for text in (*system, *users[-1:]) if text)
