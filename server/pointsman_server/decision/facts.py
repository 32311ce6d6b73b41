"""What a decision needs to know of a request, read off the conversation without keeping any of its text."""

from __future__ import annotations

from pointsman_server.chat import Conversation, ImagePart, ResponseFormatKind, TextPart, ToolChoiceMode
from pointsman_server.decision.types import Capability, RequestFacts

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
    return RequestFacts(
        input_token_count=input_token_counts(conversation)[-1],
        output_token_count_max=conversation.sampling.output_token_count_max,
        capabilities=frozenset(needed),
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


def estimated_token_count(byte_count: int) -> int:
    """Tokens of an answer whose provider does not count them, by its length in UTF-8."""
    return -(-byte_count // BYTES_PER_TOKEN)


def utf8_length(text: str) -> int:
    """Length in UTF-8, without encoding what is ASCII already."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
