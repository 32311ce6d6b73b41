"""A chat completion as OpenAI's clients ask for it, read into the request that gRPC takes.

From there on it is one and the same: `edge.validate` checks it by the same limits, `edge.convert` hands it to the router.
What is taken is taken in full; a field that could not be honoured is refused by name, never dropped.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message as ProtoMessage
from pointsman.v1 import chat_pb2, router_service_pb2

from pointsman_server.edge.validate import DURATION_MAX_S, validate_complete
from pointsman_server.errors import FieldViolation, InvalidRequestError
from pointsman_server.openai_door.json_object import (
    FaultCode,
    Faults,
    JsonObject,
    RefusedRequestError,
    is_whole,
    kind,
)

EXTENSION = "pointsman"
"""The field of a request, and of an answer, that is not OpenAI's."""
TIMEOUT_MIN_S = 0.001
PARSE_ERROR_CHARACTER_COUNT_MAX = 200
"""What protobuf says of a message that it can't read may quote all of it."""

ROLES: Mapping[str, chat_pb2.Role.ValueType] = {
    "system": chat_pb2.ROLE_SYSTEM,
    "developer": chat_pb2.ROLE_SYSTEM,
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
    "tool": chat_pb2.ROLE_TOOL,
}
"""`developer` is the newer word for `system`."""
DETAILS: Mapping[str, chat_pb2.ImageDetail.ValueType] = {
    "auto": chat_pb2.IMAGE_DETAIL_UNSPECIFIED,
    "low": chat_pb2.IMAGE_DETAIL_LOW,
    "high": chat_pb2.IMAGE_DETAIL_HIGH,
}
TOOL_CHOICES: Mapping[str, chat_pb2.ToolChoiceMode.ValueType] = {
    "none": chat_pb2.TOOL_CHOICE_MODE_NONE,
    "auto": chat_pb2.TOOL_CHOICE_MODE_AUTO,
    "required": chat_pb2.TOOL_CHOICE_MODE_REQUIRED,
}
FORMATS: Mapping[str, chat_pb2.ResponseFormatKind.ValueType] = {
    "text": chat_pb2.RESPONSE_FORMAT_KIND_TEXT,
    "json_object": chat_pb2.RESPONSE_FORMAT_KIND_JSON_OBJECT,
    "json_schema": chat_pb2.RESPONSE_FORMAT_KIND_JSON_SCHEMA,
}
EFFORTS: Mapping[str, chat_pb2.ReasoningEffort.ValueType] = {
    "minimal": chat_pb2.REASONING_EFFORT_MINIMAL,
    "low": chat_pb2.REASONING_EFFORT_LOW,
    "medium": chat_pb2.REASONING_EFFORT_MEDIUM,
    "high": chat_pb2.REASONING_EFFORT_HIGH,
}

PATHS = tuple(
    (re.compile(pattern), path)
    for pattern, path in (
        (r"routing\.router", "model"),
        (r"((?:routing|execution)\b.*)", rf"{EXTENSION}.\1"),
        (r"conversation\.sampling\.max_output_token_count", "max_completion_tokens"),
        (r"conversation\.sampling\.(.*)", r"\1"),
        (r"conversation\.tool_choice\b.*", "tool_choice"),
        (r"conversation\.response_format\.schema_name", "response_format.json_schema.name"),
        (r"conversation\.response_format\.json_schema", "response_format.json_schema.schema"),
        (r"conversation\.(tools\[\d+\])\.parameters_json_schema", r"\1.function.parameters"),
        (r"conversation\.(tools\[\d+\])\.(name)", r"\1.function.\2"),
        (r"conversation\.(messages\[\d+\]\.tool_calls\[\d+\])\.(name)", r"\1.function.\2"),
        (r"conversation\.(messages\[\d+\])\.parts(\[\d+\])\.text\.text", r"\1.content\2.text"),
        (r"conversation\.(messages\[\d+\])\.parts(\[\d+\])\.image\b.*", r"\1.content\2.image_url.url"),
        (r"conversation\.(messages\[\d+\])\.parts(.*)", r"\1.content\2"),
        (r"conversation\.?(.*)", r"\1"),
    )
)
"""What a field of the gRPC request is called here; the first pattern that matches the whole path holds."""
ALIASES: Mapping[str, str] = {
    "max_completion_tokens": "max_tokens",
    f"{EXTENSION}.routing.assignment_key": "user",
    f"{EXTENSION}.routing.conversation_id": "prompt_cache_key",
}
"""What some of these are called as well."""

Chosen = TypeVar("Chosen")

_DATA_URL = re.compile(r"data:([^;,]{1,128});base64,(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a client asks for."""

    request: router_service_pb2.CompleteRequest = field(repr=False)
    """Validated."""
    stream: bool
    include_usage: bool
    """A stream ends with a chunk of usage."""
    include_decision: bool
    """The answer carries the decision, and how it was carried out."""
    timeout_s: float | None
    """For the whole answer; None: as long as the client waits."""
    left_out: tuple[str, ...]
    """Fields that no provider is sent, though the client sent them: what a model thought in an earlier turn."""

    @property
    def model(self) -> str:
        """The router, model or endpoint, as the client wrote it."""
        return self.request.routing.router


def read_asked(body: bytes, *, include_decision: bool) -> Asked:
    """Reads a request body; `include_decision` is what a header says of it.

    Raises:
        RefusedRequestError: with every fault.
    """
    faults = Faults()
    root = JsonObject(_parsed(body), "", faults)
    request = router_service_pb2.CompleteRequest()
    extension = root.inner(EXTENSION) or JsonObject({}, EXTENSION, faults)
    _read_extension(extension, request)
    request.routing.router = root.required_text("model")
    left_out: list[str] = []
    _read_messages(root, request.conversation, left_out)
    _read_tools(root, request.conversation)
    _read_response_format(root, request.conversation)
    _read_sampling(root, request.conversation.sampling)
    _read_user(root, request)
    stream = root.flag("stream") or False
    include_usage = _read_stream_options(root, stream=stream)
    asked = Asked(
        request=request,
        stream=stream,
        include_usage=include_usage,
        include_decision=extension.flag("include_decision") or include_decision,
        timeout_s=_read_timeout_s(extension),
        left_out=tuple(left_out),
    )
    extension.finish()
    _read_what_holds_anyway(root)
    root.finish()
    faults.check()
    _check_breaks(asked)
    try:
        validate_complete(request)
    except InvalidRequestError as error:
        aliases = {name: alias for name, alias in ALIASES.items() if root.has(alias) and not root.has(name)}
        raise renamed(error, FaultCode.INVALID_VALUE, aliases) from None
    return asked


def renamed(
    error: InvalidRequestError, code: FaultCode, aliases: Mapping[str, str] = MappingProxyType({})
) -> RefusedRequestError:
    """The violations of a gRPC request under the names that its fields have here; `aliases` has those that the client
    calls by another one."""
    paths = [(_path(violation.field), violation.description) for violation in error.violations]
    return RefusedRequestError(tuple(FieldViolation(aliases.get(path, path), text) for path, text in paths), code)


def _path(path: str) -> str:
    for pattern, renaming in PATHS:
        if (match := pattern.fullmatch(path)) is not None:
            return match.expand(renaming)
    return path


def _parsed(body: bytes) -> Mapping[str, object]:
    try:
        parsed: object = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise RefusedRequestError((FieldViolation("body", "is not JSON"),), FaultCode.INVALID_JSON) from None
    if isinstance(parsed, dict):
        return parsed
    violation = FieldViolation("body", f"must be an object, not {kind(parsed)}")
    raise RefusedRequestError((violation,), FaultCode.INVALID_TYPE)


def _no_constant(name: str) -> object:
    """Refuses NaN and the infinities, which Python reads though JSON has none."""
    raise ValueError(name)


def _read_messages(root: JsonObject, conversation: chat_pb2.Conversation, left_out: list[str]) -> None:
    if not root.has("messages"):
        root.fault("messages", "is required", FaultCode.MISSING)
    for turn in root.objects("messages"):
        message = conversation.messages.add()
        role = turn.required_text("role")
        if role in ROLES:
            message.role = ROLES[role]
        elif role:
            turn.fault("role", f"must be one of {', '.join(ROLES)}", FaultCode.UNSUPPORTED_VALUE)
        message.name = turn.text("name") or ""
        message.tool_call_id = turn.text("tool_call_id") or ""
        _read_content(turn, message)
        if (refusal := turn.text("refusal")) is not None and refusal:
            message.parts.add().text.text = refusal
        _read_tool_calls(turn, message)
        # What clients give back of an answer that they were given: nothing, but for what the model thought.
        turn.only("annotations", [], otherwise="is not supported; leave it out")
        turn.only("function_call", otherwise="is not supported; use tool_calls")
        left_out.extend(turn.child(name) for name in ("reasoning_content", "reasoning") if turn.text(name))
        turn.finish()


def _read_content(turn: JsonObject, message: chat_pb2.Message) -> None:
    content = turn.value("content")
    if isinstance(content, str):
        text = turn.text("content")
        if text:
            message.parts.add().text.text = text
    elif isinstance(content, list):
        for part in turn.objects("content"):
            _read_part(part, message)
            part.finish()
    elif content is not None:
        turn.fault("content", f"must be text or an array, not {kind(content)}", FaultCode.INVALID_TYPE)


def _read_part(part: JsonObject, message: chat_pb2.Message) -> None:
    match part.required_text("type"):
        case "text":
            message.parts.add().text.text = part.required_text("text")
        case "refusal":
            message.parts.add().text.text = part.required_text("refusal")
        case "image_url" if message.role == chat_pb2.ROLE_USER:
            _read_image(part, message.parts.add().image)
        case "image_url":
            part.fault("type", "may be image_url only on a turn of the user", FaultCode.UNSUPPORTED_VALUE)
        case "":
            pass
        case _:
            part.fault("type", "must be one of text, image_url, refusal", FaultCode.UNSUPPORTED_VALUE)


def _read_image(part: JsonObject, image: chat_pb2.ImagePart) -> None:
    source = part.inner("image_url")
    if source is None:
        if not part.has("image_url"):
            part.fault("image_url", "is required", FaultCode.MISSING)
        return
    url = source.required_text("url")
    if url.startswith("data:"):
        match = _DATA_URL.fullmatch(url)
        try:
            content = base64.b64decode(match[2], validate=True) if match else b""
        except (binascii.Error, ValueError):
            content = b""
        if match is None or not content:
            source.fault("url", "must be an http or https address, or data:image/TYPE;base64,CONTENT")
        else:
            image.media_type, image.inline_content = match[1].lower(), content
    else:
        image.url = url
    image.detail = _chosen(source, "detail", DETAILS) or chat_pb2.IMAGE_DETAIL_UNSPECIFIED
    source.finish()


def _read_tool_calls(turn: JsonObject, message: chat_pb2.Message) -> None:
    for call in turn.objects("tool_calls"):
        _only_functions(call)
        added = message.tool_calls.add(id=call.required_text("id"))
        if (function := _required_object(call, "function")) is not None:
            added.name = function.required_text("name")
            added.arguments_json = function.text("arguments") or ""
            function.finish()
        added.signature = call.text("signature") or ""
        call.value("index")  # Stands in calls that a client has put together from a stream.
        call.finish()


def _read_tools(root: JsonObject, conversation: chat_pb2.Conversation) -> None:
    for entry in root.objects("tools"):
        _only_functions(entry)
        tool = conversation.tools.add()
        if (function := _required_object(entry, "function")) is not None:
            tool.name = function.required_text("name")
            tool.description = function.text("description") or ""
            tool.strict = function.flag("strict") or False
            tool.parameters_json_schema = _schema(function, "parameters")
            function.finish()
        entry.finish()
    choice = root.value("tool_choice")
    if isinstance(choice, dict):
        named = root.inner("tool_choice")
        assert named is not None, "it is an object"
        _only_functions(named)
        if (function := _required_object(named, "function")) is not None:
            conversation.tool_choice.mode = chat_pb2.TOOL_CHOICE_MODE_NAMED
            conversation.tool_choice.name = function.required_text("name")
            function.finish()
        named.finish()
    elif (mode := _chosen(root, "tool_choice", TOOL_CHOICES)) is not None:
        conversation.tool_choice.mode = mode


def _only_functions(entry: JsonObject) -> None:
    if entry.required_text("type") not in ("function", ""):
        entry.fault("type", "must be function", FaultCode.UNSUPPORTED_VALUE)


def _read_response_format(root: JsonObject, conversation: chat_pb2.Conversation) -> None:
    wanted = root.inner("response_format")
    if wanted is None:
        return
    if not wanted.has("type"):
        wanted.fault("type", "is required", FaultCode.MISSING)
    shape = _chosen(wanted, "type", FORMATS)
    conversation.response_format.kind = shape or chat_pb2.RESPONSE_FORMAT_KIND_UNSPECIFIED
    schema = _required_object(wanted, "json_schema") if shape == FORMATS["json_schema"] else None
    if schema is not None:
        conversation.response_format.schema_name = schema.required_text("name")
        conversation.response_format.json_schema = _schema(schema, "schema")
        conversation.response_format.strict = schema.flag("strict") or False
        schema.only("description", "", otherwise="is not supported; put it into the schema")
        schema.finish()
    wanted.finish()


def _read_sampling(root: JsonObject, sampling: chat_pb2.SamplingOptions) -> None:
    for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty"):
        if (number := root.number(name)) is not None:
            setattr(sampling, name, number)
    for name, bits in (("top_k", 32), ("seed", 64)):
        if (whole := root.whole_number(name, bits=bits)) is not None:
            setattr(sampling, name, whole)
    if (parallel := root.flag("parallel_tool_calls")) is not None:
        sampling.parallel_tool_calls = parallel
    newer = root.whole_number("max_completion_tokens", bits=32)
    older = root.whole_number("max_tokens", bits=32)
    if newer is not None and older is not None and newer != older:
        root.fault("max_tokens", "contradicts max_completion_tokens; give one of them")
    if (limit := older if newer is None else newer) is not None:
        sampling.max_output_token_count = limit
    if isinstance(root.value("stop"), str):
        sampling.stop.append(root.text("stop") or "")
    else:
        for index, stop in enumerate(root.items("stop")):
            if isinstance(stop, str) and is_whole(stop):
                sampling.stop.append(stop)
            else:
                root.fault(f"stop[{index}]", "must be text", FaultCode.INVALID_TYPE)
    effort = _chosen(root, "reasoning_effort", EFFORTS)
    sampling.reasoning_effort = effort or chat_pb2.REASONING_EFFORT_UNSPECIFIED


def _read_user(root: JsonObject, request: router_service_pb2.CompleteRequest) -> None:
    """OpenAI's `user` is who the request is made for: here, what keeps a user with one arm of a split router. Its
    `prompt_cache_key` is what requests share that begin alike: here, the conversation."""
    request.routing.conversation_id = root.text("prompt_cache_key") or request.routing.conversation_id
    user = root.text("user")
    if user and request.routing.assignment_key:
        root.fault("user", f"stands for {EXTENSION}.routing.assignment_key, which is given too")
    elif user:
        request.routing.assignment_key = user


def _read_stream_options(root: JsonObject, *, stream: bool) -> bool:
    """Whether the stream is to end with its usage."""
    options = root.inner("stream_options")
    if options is None:
        return False
    if not stream:
        root.fault("stream_options", "is only taken with stream: true")
    include_usage = options.flag("include_usage") or False
    options.only("include_obfuscation", False, otherwise="is not supported; leave it out")
    options.finish()
    return include_usage


def _read_what_holds_anyway(root: JsonObject) -> None:
    """Fields that are taken only where they ask for nothing."""
    root.only("n", 1, otherwise="must be 1: one answer is given")
    root.only("logprobs", False, otherwise="is not supported; leave it out")
    root.only("top_logprobs", 0, otherwise="is not supported; leave it out")
    root.only("logit_bias", {}, otherwise="is not supported; leave it out")
    root.only("modalities", ["text"], otherwise='must be ["text"]: answers are text')
    root.only("store", False, otherwise="is not supported: answers are not stored")
    root.only("metadata", {}, otherwise="is not supported: answers are not stored")
    root.only("service_tier", "auto", "default", otherwise="must be auto: who answers is the router's choice")


def _read_extension(extension: JsonObject, request: router_service_pb2.CompleteRequest) -> None:
    """The typed routing and execution of gRPC's request, as proto3 JSON."""
    for name in ("routing", "execution"):
        if (given := extension.inner(name)) is None:
            continue
        message: ProtoMessage = getattr(request, name)
        try:
            json_format.ParseDict(dict(given.values), message)
        except json_format.ParseError as error:
            reason = str(error)[:PARSE_ERROR_CHARACTER_COUNT_MAX]
            full_name = message.DESCRIPTOR.full_name
            extension.fault(name, f"is not the proto3 JSON of {full_name}: {reason}", FaultCode.INVALID_TYPE)
    if request.routing.router:
        extension.fault("routing", "must not name a router: `model` does")


def _read_timeout_s(extension: JsonObject) -> float | None:
    timeout_s = extension.number("timeout_s")
    if timeout_s is not None and not TIMEOUT_MIN_S <= timeout_s <= DURATION_MAX_S:
        extension.fault("timeout_s", f"must be from {TIMEOUT_MIN_S:g} to {DURATION_MAX_S:g} seconds")
    return timeout_s


def _check_breaks(asked: Asked) -> None:
    """A whole answer is begun anew by itself when it breaks off, since nothing of it has been sent."""
    restarts = asked.request.execution.break_policy == router_service_pb2.BREAK_POLICY_RESTART
    if asked.stream and restarts:
        description = "can't be shown in a stream of chat completions: it has no way to take text back"
        violation = FieldViolation(f"{EXTENSION}.execution.break_policy", description)
        raise RefusedRequestError((violation,), FaultCode.UNSUPPORTED_VALUE)


def _chosen(parent: JsonObject, name: str, known: Mapping[str, Chosen]) -> Chosen | None:
    """The value that a word stands for; None when absent or wrong."""
    word = parent.text(name)
    if word is None:
        return None
    if word not in known:
        parent.fault(name, f"must be one of {', '.join(known)}", FaultCode.UNSUPPORTED_VALUE)
    return known.get(word)


def _required_object(parent: JsonObject, name: str) -> JsonObject | None:
    if not parent.has(name):
        parent.fault(name, "is required", FaultCode.MISSING)
    return parent.inner(name)


def _schema(parent: JsonObject, name: str) -> str:
    """A JSON schema as text; empty when absent or wrong."""
    if parent.inner(name) is None:
        return ""
    text = json.dumps(parent.value(name), ensure_ascii=False, separators=(",", ":"))
    if is_whole(text):
        return text
    parent.fault(name, "holds half of a surrogate pair, which is no character")
    return ""
