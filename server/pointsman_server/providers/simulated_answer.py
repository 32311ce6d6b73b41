"""What a simulated provider answers, in OpenAI's format: text that says it is simulated, calls, JSON, usage. Pure.

An answer depends on the seed, the model, the provider and the request alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from pointsman_server.providers.weather import Draws

CHARACTERS_PER_TOKEN = 4
"""The usual rule of thumb for English."""
TOKENS_PER_MESSAGE = 4
"""What the format of a chat adds to each message."""
OUTPUT_SIGMA = 0.4
"""Spread of answers' lengths, as the logarithm's standard deviation."""
OUTPUT_TOKENS_MAX = 4096
"""Longest simulated answer, as of many hosted models."""
SCHEMA_DEPTH_MAX = 16
"""Deeper parts of a JSON schema are filled with null."""

FILLER = (
    "it has the pace and the length of a real one",
    "none of its words were written by a model",
    "the router treats it like any other answer",
    "its speed follows the simulated weather of this endpoint",
    "the same prompt and seed give the same text",
    "a catalog with real providers brings real answers",
)
"""Clauses that make up the length, each true."""


class BadRequestError(Exception):
    """The request is one that a provider answers with 400; `parameter` names what is wrong."""

    def __init__(self, parameter: str) -> None:
        self.parameter = parameter
        super().__init__(f"the value of {parameter} is missing or not valid")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRequest:
    """The part of a request that a simulated provider looks at."""

    model: str
    stream: bool
    include_usage: bool
    prompt_hash: str
    prompt_token_count: int
    output_token_count_max: int | None
    tool: Mapping[str, object] | None
    """The function that must be called; None when text will do."""
    json_schema: object
    """The schema that the answer must have; None for plain text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedAnswer:
    """One answer, token by token."""

    id: str
    model: str
    tokens: tuple[str, ...] = field(repr=False)
    tool_name: str | None
    """When set, the tokens are the arguments of a call of this tool."""
    finish_reason: str
    prompt_token_count: int

    @property
    def usage(self) -> dict[str, int]:
        """The token counts, as they are reported."""
        output = len(self.tokens)
        return {
            "prompt_tokens": self.prompt_token_count,
            "completion_tokens": output,
            "total_tokens": self.prompt_token_count + output,
        }


def parsed_request(body: bytes) -> SimulatedRequest:
    """Reads a chat completion request.

    Raises:
        BadRequestError: It is not one.
    """
    try:
        request: object = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequestError("body") from None
    if not isinstance(request, dict):
        raise BadRequestError("body")
    model, messages = request.get("model"), request.get("messages")
    if not isinstance(model, str):
        raise BadRequestError("model")
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("messages")
    prompt = json.dumps(messages, sort_keys=True)
    options = request.get("stream_options")
    return SimulatedRequest(
        model=model,
        stream=request.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        prompt_hash=blake2b(prompt.encode(), digest_size=16).hexdigest(),
        prompt_token_count=len(prompt) // CHARACTERS_PER_TOKEN + TOKENS_PER_MESSAGE * len(messages),
        output_token_count_max=_output_limit(request),
        tool=_required_tool(request),
        json_schema=_wanted_schema(request),
    )


def _output_limit(request: Mapping[str, object]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        limit = request.get(name)
        if limit is not None:
            if not isinstance(limit, int) or limit < 1:
                raise BadRequestError(name)
            return limit
    return None


def _required_tool(request: Mapping[str, object]) -> Mapping[str, object] | None:
    tools, choice = request.get("tools"), request.get("tool_choice")
    functions = [_function(tool, "tools") for tool in tools] if isinstance(tools, list) else []
    if choice == "required" and functions:
        return functions[0]
    if isinstance(choice, dict):
        wanted = _function(choice, "tool_choice")["name"]
        for function in functions:
            if function["name"] == wanted:
                return function
        raise BadRequestError("tool_choice")
    return None


def _function(tool: object, parameter: str) -> Mapping[str, object]:
    function: object = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRequestError(parameter)
    return function


def _wanted_schema(request: Mapping[str, object]) -> object:
    wanted = request.get("response_format")
    if not isinstance(wanted, dict) or wanted.get("type") not in ("json_object", "json_schema"):
        return None
    named = wanted.get("json_schema")
    schema: object = named.get("schema") if isinstance(named, dict) else None
    return schema if isinstance(schema, dict) else {"type": "object", "properties": {"simulated": {"type": "boolean"}}}


def answer_to(
    request: SimulatedRequest, *, provider: str, seed: int, output_token_count_mean: float
) -> SimulatedAnswer:
    """The answer, the same for the same arguments."""
    draws = Draws(seed, "answer", provider, request.model, request.prompt_hash)
    if request.tool is not None:
        text = json.dumps(_example_of(request.tool.get("parameters")))
        tokens, name, reason = tuple(_pieces(text)), str(request.tool["name"]), "tool_calls"
    elif request.json_schema is not None:
        tokens, name, reason = tuple(_pieces(json.dumps(_example_of(request.json_schema)))), None, "stop"
    else:
        growth = 1.0 + 0.25 * math.log(max(request.prompt_token_count, 1) / 100.0)
        mean = output_token_count_mean * max(growth, 0.25)
        count = min(OUTPUT_TOKENS_MAX, max(1, round(mean * math.exp(OUTPUT_SIGMA * draws.normal()))))
        tokens, name, reason = _words(request.model, provider, draws, count), None, "stop"
    limit = request.output_token_count_max
    if limit is not None and len(tokens) > limit:
        tokens, reason = tokens[:limit], "length"
    return SimulatedAnswer(
        id=f"simulated-{request.prompt_hash}",
        model=request.model,
        tokens=tokens,
        tool_name=name,
        finish_reason=reason,
        prompt_token_count=request.prompt_token_count,
    )


def _words(model: str, provider: str, draws: Draws, count: int) -> tuple[str, ...]:
    """So many words, one for a token, the first of which say what this is."""
    words = f"[simulated] This is a stand-in answer from {model} at {provider}: no model was asked.".split()
    while len(words) < count:
        clause = FILLER[draws.index(len(FILLER))]
        words += f"{clause[0].upper()}{clause[1:]}.".split()
    return tuple(word if index == 0 else f" {word}" for index, word in enumerate(words[:count]))


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), CHARACTERS_PER_TOKEN):
        yield text[start : start + CHARACTERS_PER_TOKEN]


def _example_of(schema: object, depth: int = 0) -> object:
    """A small value of the common kinds of JSON schema."""
    if not isinstance(schema, dict) or depth >= SCHEMA_DEPTH_MAX:
        return {} if depth == 0 else None
    choices: object = schema.get("enum")
    if isinstance(choices, list) and choices:
        return choices[0]
    match schema.get("type", "object"):
        case "object":
            properties: object = schema.get("properties")
            named = properties if isinstance(properties, dict) else {}
            return {name: _example_of(inner, depth + 1) for name, inner in named.items()}
        case "array":
            return [_example_of(schema.get("items"), depth + 1)] if "items" in schema else []
        case "string":
            return "simulated"
        case "integer" | "number":
            return 1
        case "boolean":
            return True
        case _:
            return None


def whole_body(answer: SimulatedAnswer) -> bytes:
    """The answer as one JSON document."""
    text = "".join(answer.tokens)
    message: dict[str, object] = {"role": "assistant", "content": text}
    if answer.tool_name is not None:
        function = {"name": answer.tool_name, "arguments": text}
        call = {"id": f"call-{answer.id}", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
    return _json({**_envelope(answer, "chat.completion"), "choices": [choice], "usage": answer.usage})


def stream_events(answer: SimulatedAnswer, *, include_usage: bool) -> Iterator[bytes]:
    """The answer as server-sent events: one for each token, then what belongs to its end as one last piece."""
    envelope = _envelope(answer, "chat.completion.chunk")
    for index, token in enumerate(answer.tokens):
        delta: dict[str, object] = {"content": token}
        if answer.tool_name is not None:
            delta = {"tool_calls": [_call_piece(answer, answer.tool_name, token, is_first=index == 0)]}
        if index == 0:
            delta["role"] = "assistant"
        yield _event({**envelope, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    end = _event({**envelope, "choices": [{"index": 0, "delta": {}, "finish_reason": answer.finish_reason}]})
    usage = _event({**envelope, "choices": [], "usage": answer.usage}) if include_usage else b""
    yield end + usage + b"data: [DONE]\n\n"


def _call_piece(answer: SimulatedAnswer, name: str, token: str, *, is_first: bool) -> dict[str, object]:
    if is_first:
        function = {"name": name, "arguments": token}
        return {"index": 0, "id": f"call-{answer.id}", "type": "function", "function": function}
    return {"index": 0, "function": {"arguments": token}}


def error_body(*, code: str, kind: str, message: str) -> bytes:
    """An error as OpenAI shapes it."""
    return _json({"error": {"message": message, "type": kind, "param": None, "code": code}})


def models_body(models: tuple[str, ...]) -> bytes:
    """The list of a provider's models."""
    listed = [{"id": model, "object": "model", "created": 0, "owned_by": "simulated"} for model in models]
    return _json({"object": "list", "data": listed})


def _envelope(answer: SimulatedAnswer, kind: str) -> dict[str, object]:
    """`created` is zero: an answer does not depend on the clock."""
    return {"id": answer.id, "object": kind, "created": 0, "model": answer.model}


def _event(content: Mapping[str, object]) -> bytes:
    return b"data: " + _json(content) + b"\n\n"


def _json(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
