"""What a decision needs to know of a request, read off the conversation without keeping any of its text."""

from __future__ import annotations

from pointsman_server.chat import (
    Conversation,
    ImageDetail,
    ImagePart,
    Message,
    ReasoningEffort,
    ResponseFormatKind,
    Role,
    SamplingOptions,
    TextPart,
    ToolChoiceMode,
)
from pointsman_server.decision.types import Capability, RequestFacts, RequestFeature

BYTES_PER_TOKEN = 4
"""UTF-8 bytes to a token: 4 to 5 for English and code, 3 to 4 for most other languages, whatever the tokenizer."""
MESSAGE_TOKEN_COUNT = 4
"""What chat templates add to each turn: its role and its ends."""
IMAGE_TOKEN_COUNT = 765
"""OpenAI's price of a 1024 x 1024 image in high detail; other providers are within a factor of two."""


def request_facts(conversation: Conversation) -> RequestFacts:
    """The facts of a request: its estimated input tokens, its limit on output, what it needs an endpoint to be able to.

    The count of tokens is an estimate, because each model has its own tokenizer; costs are settled by real usage.
    """
    needed: set[Capability] = set()
    if any(isinstance(part, ImagePart) for message in conversation.messages for part in message.parts):
        needed.add(Capability.IMAGE_INPUT)
    if conversation.tools and conversation.tool_choice.mode is not ToolChoiceMode.NONE:
        needed.add(Capability.TOOLS)
    match conversation.response_format.kind:
        case ResponseFormatKind.JSON_OBJECT:
            needed.add(Capability.JSON_OBJECT)
        case ResponseFormatKind.JSON_SCHEMA:
            needed.add(Capability.JSON_SCHEMA)
        case ResponseFormatKind.TEXT:
            pass
    if conversation.sampling.reasoning_effort is not None:
        needed.add(Capability.REASONING)
    return RequestFacts(
        input_token_count=input_token_counts(conversation)[-1],
        output_token_count_max=conversation.sampling.output_token_count_max,
        capabilities=frozenset(needed),
        features=request_features(conversation),
    )


def input_token_counts(conversation: Conversation) -> list[int]:
    """Estimated input tokens, those of tools and of the response format included: without any message, then up to the
    end of each."""
    byte_count = utf8_length(conversation.response_format.json_schema or "")
    for tool in conversation.tools:
        byte_count += len(tool.name) + utf8_length(tool.description) + utf8_length(tool.parameters_json_schema)
    token_count = 0
    counts = [estimated_token_count(byte_count)]
    for message in conversation.messages:
        token_count += MESSAGE_TOKEN_COUNT
        byte_count += sum([len(call.name) + utf8_length(call.arguments_json) for call in message.tool_calls])
        for part in message.parts:
            match part:
                case TextPart(text):
                    byte_count += utf8_length(text)
                case ImagePart():
                    token_count += IMAGE_TOKEN_COUNT
        counts.append(token_count + estimated_token_count(byte_count))
    return counts


def request_features(conversation: Conversation) -> frozenset[RequestFeature]:
    """What the conversation asks for that not every provider can do."""
    asked = _sampling_features(conversation.sampling)
    if conversation.tools:
        if conversation.tool_choice.mode is ToolChoiceMode.NONE:
            asked.add(RequestFeature.FORBIDDEN_TOOL_CALL)
        elif conversation.tool_choice.mode is not ToolChoiceMode.AUTO:
            asked.add(RequestFeature.FORCED_TOOL_CALL)
        if conversation.sampling.parallel_tool_calls is False:
            asked.add(RequestFeature.SINGLE_TOOL_CALL)
        if any(tool.strict for tool in conversation.tools):
            asked.add(RequestFeature.STRICT_TOOLS)
    if conversation.response_format.kind is ResponseFormatKind.JSON_OBJECT:
        asked.add(RequestFeature.JSON_OBJECT)
    system_is_over = False
    for message in conversation.messages:
        if message.name is not None:
            asked.add(RequestFeature.SPEAKER_NAMES)
        if message.role is not Role.SYSTEM:
            system_is_over = True
        elif system_is_over:
            asked.add(RequestFeature.LATE_SYSTEM_TURNS)
        asked |= _image_features(message)
    return frozenset(asked)


def _sampling_features(sampling: SamplingOptions) -> set[RequestFeature]:
    asked: set[RequestFeature] = set()
    if sampling.temperature not in (None, 1.0):
        asked.add(RequestFeature.TEMPERATURE)
    if sampling.top_p not in (None, 1.0):
        asked.add(RequestFeature.TOP_P)
    if sampling.top_k is not None:
        asked.add(RequestFeature.TOP_K)
    if sampling.seed is not None:
        asked.add(RequestFeature.SEED)
    if sampling.presence_penalty or sampling.frequency_penalty:
        asked.add(RequestFeature.PENALTIES)
    if sampling.temperature is not None and sampling.temperature > 1.0:
        asked.add(RequestFeature.TEMPERATURE_ABOVE_ONE)
    if sampling.reasoning_effort is ReasoningEffort.MINIMAL:
        asked.add(RequestFeature.MINIMAL_REASONING)
    return asked


def _image_features(message: Message) -> set[RequestFeature]:
    asked: set[RequestFeature] = set()
    for part in message.parts:
        if isinstance(part, TextPart):
            continue
        if part.url is not None:
            asked.add(RequestFeature.IMAGE_URLS)
        if part.detail is not ImageDetail.AUTO:
            asked.add(RequestFeature.IMAGE_DETAIL)
        if message.role is Role.SYSTEM:
            asked.add(RequestFeature.SYSTEM_IMAGES)
        elif message.role is Role.TOOL:
            asked.add(RequestFeature.TOOL_RESULT_IMAGES)
    return asked


def estimated_token_count(byte_count: int) -> int:
    """Tokens of an answer whose provider does not count them, by its length in UTF-8."""
    return -(-byte_count // BYTES_PER_TOKEN)


def utf8_length(text: str) -> int:
    """Length in UTF-8, without encoding what is ASCII already."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
