"""Whether a request is right in itself: every violation at once, each with its path and what would be right.

Bounds on counts keep any request, however hostile, from costing more than a bounded amount of work. What depends on
the catalog (an unknown model, say) is found later, in `decision.resolve`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage
from pointsman.v1 import chat_pb2, router_service_pb2, routing_pb2

from pointsman_server.decision.router_string import (
    ENDPOINT_NAME_PATTERN,
    LABEL_PATTERN,
    NAME_PATTERN,
    RouterStringError,
)
from pointsman_server.decision.types import QUANTILE_MAX, QUANTILE_MIN
from pointsman_server.edge.convert import router_string_from_text
from pointsman_server.errors import FieldViolation, InvalidRequestError

VIOLATION_COUNT_MAX = 100
"""A request with more faults than this gets the first hundred: enough to mend it by, and a bounded answer."""
MESSAGE_COUNT_MAX = 1024
PART_COUNT_MAX = 64
TOOL_COUNT_MAX = 128
STOP_COUNT_MAX = 16
NAME_LENGTH_MAX = 64
URL_LENGTH_MAX = 2048
MODEL_COUNT_MAX = 1024
PROVIDER_COUNT_MAX = 256
ENDPOINT_COUNT_MAX = 4096
LABEL_COUNT_MAX = 64
CAPABILITY_COUNT_MAX = 16
ATTEMPT_COUNT_MAX = 10
DECISION_ID_LENGTH_MAX = 64
SIGNATURE_LENGTH_MAX = 2 * 1024 * 1024
"""Twice the longest that an answer can bring."""
ASSIGNMENT_KEY_LENGTH_MAX = 256
"""Room for any user's or conversation's id; what is longer is no id."""
CONVERSATION_ID_LENGTH_MAX = 256
"""Likewise."""
WATCH_INTERVAL_MIN_S = 0.1
WATCH_INTERVAL_MAX_S = 3600.0
DURATION_MAX_S = 86_400.0
"""No latency or budget of a completion is longer than a day."""
PAGE_SIZE_MAX = 1000
PAGE_TOKEN_LENGTH_MAX = 300
JSON_DEPTH_MAX = 64
"""Deeper JSON than any schema needs; also far from Python's own recursion limit."""
PLAIN_ROLES = (chat_pb2.ROLE_USER, chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_ASSISTANT)
"""Of turns that a text alone makes whole; a tool's also names its call."""
RISK_MIN = 0.01
RISK_MAX = 0.5

_IDENTIFIER = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MEDIA_TYPE = re.compile(r"[a-z]{1,32}/[a-z0-9.+-]{1,64}")


@dataclass(slots=True)
class Violations:
    """The violations found so far, and where the reader is."""

    found: list[FieldViolation] = field(default_factory=list)

    def add(self, path: str, description: str) -> None:
        """Notes one violation; beyond the maximum they are dropped."""
        if len(self.found) < VIOLATION_COUNT_MAX:
            self.found.append(FieldViolation(path, description))

    def check(self) -> None:
        """Ends the validation.

        Raises:
            InvalidRequestError: something was found.
        """
        if self.found:
            raise InvalidRequestError(tuple(self.found))

    def count(self, path: str, listed: Sequence[object], maximum: int) -> bool:
        """Whether a list is within its maximum; its elements are not looked at otherwise."""
        if len(listed) > maximum:
            self.add(path, f"has {len(listed)} entries; at most {maximum} are taken")
            return False
        return True

    def number(self, path: str, message: ProtoMessage, name: str, low: float, high: float) -> float | None:
        """An optional number of `message`, if it is set and within its range."""
        if not message.HasField(name):
            return None
        value: float = getattr(message, name)
        if not math.isfinite(value) or not low <= value <= high:
            span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
            self.add(f"{path}.{name}", f"is {value:g}; expected a finite number {span}")
            return None
        return value

    def duration_s(self, path: str, message: ProtoMessage, name: str, *, low_s: float = 0.0) -> float | None:
        """An optional duration of `message` in seconds, if it is set and within its range."""
        if not message.HasField(name):
            return None
        duration: Duration = getattr(message, name)
        value_s = duration.seconds + duration.nanos / 1e9
        if not low_s <= value_s <= DURATION_MAX_S:
            self.add(f"{path}.{name}", f"is {value_s:g} s; expected {low_s:g} s to {DURATION_MAX_S:g} s")
            return None
        return value_s


def validate_route(request: router_service_pb2.RouteRequest) -> None:
    """Checks a RouteRequest.

    Raises:
        InvalidRequestError: with every violation.
    """
    violations = Violations()
    _conversation(request, violations)
    _routing(request.routing, violations)
    violations.check()


def validate_complete(request: router_service_pb2.CompleteRequest) -> None:
    """Checks a CompleteRequest.

    Raises:
        InvalidRequestError: with every violation.
    """
    violations = Violations()
    _conversation(request, violations)
    _routing(request.routing, violations)
    violations.number("execution", request.execution, "max_attempt_count", 1, ATTEMPT_COUNT_MAX)
    violations.duration_s("execution", request.execution, "ttft_timeout", low_s=0.001)
    _enum("execution.break_policy", request.execution.break_policy, router_service_pb2.BreakPolicy, violations)
    violations.check()


def validate_outcome(outcome: routing_pb2.Outcome) -> None:
    """Checks an Outcome.

    Raises:
        InvalidRequestError: with every violation.
    """
    violations = Violations()
    if not 1 <= len(outcome.decision_id) <= DECISION_ID_LENGTH_MAX:
        violations.add("outcome.decision_id", f"is required, with at most {DECISION_ID_LENGTH_MAX} characters")
    ttft_s = violations.duration_s("outcome", outcome, "ttft")
    duration_s = violations.duration_s("outcome", outcome, "duration")
    if ttft_s is not None and duration_s is not None and ttft_s > duration_s:
        violations.add("outcome.ttft", f"is {ttft_s:g} s, longer than the whole duration of {duration_s:g} s")
    violations.number("outcome", outcome, "input_token_count", 0, 1e9)
    violations.number("outcome", outcome, "output_token_count", 0, 1e9)
    violations.number("outcome", outcome, "quality", 0.0, 1.0)
    _enum("outcome.failure", outcome.failure, routing_pb2.AttemptFailureKind, violations)
    if len(outcome.quality_source) > NAME_LENGTH_MAX:
        violations.add("outcome.quality_source", f"has more than {NAME_LENGTH_MAX} characters")
    violations.check()


def validate_watch(request: router_service_pb2.WatchEndpointsRequest) -> None:
    """Checks a WatchEndpointsRequest.

    Raises:
        InvalidRequestError: with every violation.
    """
    violations = Violations()
    violations.count("endpoints", request.endpoints, ENDPOINT_COUNT_MAX)
    if request.HasField("min_interval"):
        interval_s = request.min_interval.seconds + request.min_interval.nanos / 1e9
        if not WATCH_INTERVAL_MIN_S <= interval_s <= WATCH_INTERVAL_MAX_S:
            violations.add("min_interval", f"is {interval_s:g} s; expected 0.1 s to 3600 s")
    violations.check()


def validate_page(
    request: router_service_pb2.ListEndpointsRequest | router_service_pb2.ListRoutersRequest,
) -> None:
    """Checks what asks for a page.

    Raises:
        InvalidRequestError: with every violation.
    """
    violations = Violations()
    if not 0 <= request.page_size <= PAGE_SIZE_MAX:
        violations.add("page_size", f"is {request.page_size}; expected 0 to {PAGE_SIZE_MAX}")
    if len(request.page_token) > PAGE_TOKEN_LENGTH_MAX:
        violations.add("page_token", "is no next_page_token of an earlier response")
    violations.check()


def _conversation(
    request: router_service_pb2.RouteRequest | router_service_pb2.CompleteRequest, violations: Violations
) -> None:
    conversation = request.conversation
    if not conversation.messages:
        violations.add("conversation.messages", "is empty; expected at least one message")
    if violations.count("conversation.messages", conversation.messages, MESSAGE_COUNT_MAX):
        for index, message in enumerate(conversation.messages):
            if not _is_plain(message):
                _message(f"conversation.messages[{index}]", message, violations)
        if conversation.messages and conversation.messages[-1].role not in (
            chat_pb2.ROLE_USER,
            chat_pb2.ROLE_TOOL,
            chat_pb2.ROLE_UNSPECIFIED,  # Reported by the message itself.
        ):
            violations.add("conversation.messages", "must end with a turn of the user or of a tool")
    if conversation.messages and len(conversation.ListFields()) == 1:
        return  # The usual case: a conversation of messages alone.
    tool_names = _tools(conversation, violations)
    if conversation.HasField("tool_choice"):
        _tool_choice(conversation.tool_choice, tool_names, violations)
    if conversation.HasField("response_format"):
        _response_format(conversation.response_format, violations)
    if conversation.HasField("sampling"):
        _sampling(conversation.sampling, violations)


def _is_plain(message: chat_pb2.Message) -> bool:
    """Whether it is what most messages are, a role and one text, in which nothing can be wrong."""
    if message.role not in PLAIN_ROLES or len(message.ListFields()) != 2 or len(message.parts) != 1:
        return False
    return bool(message.parts[0].text.text)


def _message(path: str, message: chat_pb2.Message, violations: Violations) -> None:
    if message.role == chat_pb2.ROLE_UNSPECIFIED:
        violations.add(f"{path}.role", "is required: ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT or ROLE_TOOL")
    else:
        _enum(f"{path}.role", message.role, chat_pb2.Role, violations)
    if not message.parts and not message.tool_calls and message.role != chat_pb2.ROLE_TOOL:
        violations.add(f"{path}.parts", "is empty; only a tool, or an assistant that calls tools, may say nothing")
    if violations.count(f"{path}.parts", message.parts, PART_COUNT_MAX):
        for index, part in enumerate(message.parts):
            _part(f"{path}.parts[{index}]", part, violations)
    if len(message.name) > NAME_LENGTH_MAX:
        violations.add(f"{path}.name", f"has more than {NAME_LENGTH_MAX} characters")
    if message.tool_calls and message.role != chat_pb2.ROLE_ASSISTANT:
        violations.add(f"{path}.tool_calls", "may stand only on an assistant's turn")
    if violations.count(f"{path}.tool_calls", message.tool_calls, TOOL_COUNT_MAX):
        for index, call in enumerate(message.tool_calls):
            if not call.id:
                violations.add(f"{path}.tool_calls[{index}].id", "is required")
            if not call.name:
                violations.add(f"{path}.tool_calls[{index}].name", "is required")
            if len(call.signature) > SIGNATURE_LENGTH_MAX:
                violations.add(
                    f"{path}.tool_calls[{index}].signature", f"has more than {SIGNATURE_LENGTH_MAX} characters"
                )
    if (message.role == chat_pb2.ROLE_TOOL) != bool(message.tool_call_id):
        violations.add(f"{path}.tool_call_id", "is required on a tool's turn, and must be empty on every other")


def _part(path: str, part: chat_pb2.Part, violations: Violations) -> None:
    match part.WhichOneof("content"):
        case "text":
            if not part.text.text:
                violations.add(f"{path}.text.text", "is empty")
        case "image":
            _image(f"{path}.image", part.image, violations)
        case _:
            violations.add(path, "has no content; expected text or image")


def _image(path: str, image: chat_pb2.ImagePart, violations: Violations) -> None:
    _enum(f"{path}.detail", image.detail, chat_pb2.ImageDetail, violations)
    match image.WhichOneof("source"):
        case "url":
            if not image.url.startswith(("http://", "https://")) or len(image.url) > URL_LENGTH_MAX:
                violations.add(
                    f"{path}.url", f"must be an http or https address of at most {URL_LENGTH_MAX} characters"
                )
        case "inline_content":
            if not image.inline_content:
                violations.add(f"{path}.inline_content", "is empty")
            if _MEDIA_TYPE.fullmatch(image.media_type) is None:
                violations.add(f"{path}.media_type", "is required with inline_content, such as image/png")
        case _:
            violations.add(path, "has no source; expected url or inline_content")


def _tools(conversation: chat_pb2.Conversation, violations: Violations) -> set[str]:
    """Checks the tools; returns their names."""
    names: set[str] = set()
    if not violations.count("conversation.tools", conversation.tools, TOOL_COUNT_MAX):
        return names
    for index, tool in enumerate(conversation.tools):
        path = f"conversation.tools[{index}]"
        if _IDENTIFIER.fullmatch(tool.name) is None:
            violations.add(f"{path}.name", "must be 1 to 64 of a-z, A-Z, 0-9, _ and -")
        elif tool.name in names:
            violations.add(f"{path}.name", "stands twice; each tool has its own name")
        names.add(tool.name)
        if tool.parameters_json_schema:
            _json_object(f"{path}.parameters_json_schema", tool.parameters_json_schema, violations)
    return names


def _tool_choice(choice: chat_pb2.ToolChoice, tool_names: set[str], violations: Violations) -> None:
    path = "conversation.tool_choice"
    _enum(f"{path}.mode", choice.mode, chat_pb2.ToolChoiceMode, violations)
    if choice.mode == chat_pb2.TOOL_CHOICE_MODE_NAMED:
        if choice.name not in tool_names:
            violations.add(f"{path}.name", "must be the name of one of the conversation's tools")
    elif choice.name:
        violations.add(f"{path}.name", "is only taken with TOOL_CHOICE_MODE_NAMED")
    if choice.mode == chat_pb2.TOOL_CHOICE_MODE_REQUIRED and not tool_names:
        violations.add(f"{path}.mode", "requires a tool call, but the conversation has no tools")


def _response_format(response_format: chat_pb2.ResponseFormat, violations: Violations) -> None:
    path = "conversation.response_format"
    _enum(f"{path}.kind", response_format.kind, chat_pb2.ResponseFormatKind, violations)
    if response_format.kind == chat_pb2.RESPONSE_FORMAT_KIND_JSON_SCHEMA:
        if _IDENTIFIER.fullmatch(response_format.schema_name) is None:
            violations.add(f"{path}.schema_name", "must be 1 to 64 of a-z, A-Z, 0-9, _ and -")
        _json_object(f"{path}.json_schema", response_format.json_schema, violations)
    elif response_format.schema_name or response_format.json_schema:
        violations.add(path, "takes a schema only with RESPONSE_FORMAT_KIND_JSON_SCHEMA")


def _json_object(path: str, text: str, violations: Violations) -> None:
    """Whether `text` is JSON of an object that is not absurdly deep."""
    if text.count("{") + text.count("[") > JSON_DEPTH_MAX and _depth(text) > JSON_DEPTH_MAX:
        violations.add(path, f"is nested deeper than {JSON_DEPTH_MAX} levels")
        return
    try:
        parsed = json.loads(text)
    except ValueError:
        violations.add(path, "is not JSON")
        return
    if not isinstance(parsed, dict):
        violations.add(path, "is JSON, but not an object")


def _depth(text: str) -> int:
    """The deepest nesting of brackets, those within strings counted too: never less than the true depth."""
    depth = deepest = 0
    for character in text:
        if character in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "}]":
            depth -= 1
    return deepest


def _sampling(sampling: chat_pb2.SamplingOptions, violations: Violations) -> None:
    path = "conversation.sampling"
    violations.number(path, sampling, "temperature", 0.0, 2.0)
    if violations.number(path, sampling, "top_p", 0.0, 1.0) == 0.0:
        violations.add(f"{path}.top_p", "is 0; expected a number above 0 to 1")
    violations.number(path, sampling, "top_k", 1, math.inf)
    violations.number(path, sampling, "max_output_token_count", 1, math.inf)
    violations.number(path, sampling, "presence_penalty", -2.0, 2.0)
    violations.number(path, sampling, "frequency_penalty", -2.0, 2.0)
    _enum(f"{path}.reasoning_effort", sampling.reasoning_effort, chat_pb2.ReasoningEffort, violations)
    if violations.count(f"{path}.stop", sampling.stop, STOP_COUNT_MAX) and not all(sampling.stop):
        violations.add(f"{path}.stop", "holds an empty text")


def _routing(routing: routing_pb2.Routing, violations: Violations) -> None:
    try:
        router_string_from_text(routing.router)
    except RouterStringError as error:
        violations.add("routing.router", str(error))
    if len(routing.assignment_key) > ASSIGNMENT_KEY_LENGTH_MAX:
        violations.add("routing.assignment_key", f"has more than {ASSIGNMENT_KEY_LENGTH_MAX} characters")
    if len(routing.conversation_id) > CONVERSATION_ID_LENGTH_MAX:
        violations.add("routing.conversation_id", f"has more than {CONVERSATION_ID_LENGTH_MAX} characters")
    if routing.HasField("constraints"):
        _constraints("routing.constraints", routing.constraints, violations)
    if routing.HasField("preferences"):
        _preferences("routing.preferences", routing.preferences, violations)


def _constraints(path: str, constraints: routing_pb2.Constraints, violations: Violations) -> None:
    for name, maximum, pattern in (
        ("models", MODEL_COUNT_MAX, NAME_PATTERN),
        ("providers", PROVIDER_COUNT_MAX, NAME_PATTERN),
        ("endpoints", ENDPOINT_COUNT_MAX, ENDPOINT_NAME_PATTERN),
        ("skip_models", MODEL_COUNT_MAX, NAME_PATTERN),
        ("skip_providers", PROVIDER_COUNT_MAX, NAME_PATTERN),
        ("skip_endpoints", ENDPOINT_COUNT_MAX, ENDPOINT_NAME_PATTERN),
    ):
        listed = getattr(constraints, name)
        if violations.count(f"{path}.{name}", listed, maximum):
            for index, each in enumerate(listed):
                if pattern.fullmatch(each) is None:
                    violations.add(f"{path}.{name}[{index}]", "is not a name that a catalog can have")
    for name in ("quality", "relative_quality"):
        bound = getattr(constraints, name)
        _range(f"{path}.{name}", bound, 1.0, violations)
        violations.number(f"{path}.{name}", bound, "risk", RISK_MIN, RISK_MAX)
    for name in (
        "request_cost_usd",
        "price_usd_per_million_tokens",
        "input_price_usd_per_million_tokens",
        "output_price_usd_per_million_tokens",
    ):
        _range(f"{path}.{name}", getattr(constraints, name), math.inf, violations)
    _range(f"{path}.error_rate", constraints.error_rate, 1.0, violations)
    _range(f"{path}.output_tokens_per_second", constraints.output_tokens_per_second, math.inf, violations)
    _quantile(f"{path}.output_tokens_per_second", constraints.output_tokens_per_second, violations)
    for name in ("ttft", "inter_token_latency", "end_to_end_latency"):
        duration = getattr(constraints, name)
        low_s = violations.duration_s(f"{path}.{name}", duration, "min")
        high_s = violations.duration_s(f"{path}.{name}", duration, "max")
        _order(f"{path}.{name}", low_s, high_s, violations)
        _quantile(f"{path}.{name}", duration, violations)
    if violations.count(f"{path}.capabilities", constraints.capabilities, CAPABILITY_COUNT_MAX):
        for index, capability in enumerate(constraints.capabilities):
            if capability == routing_pb2.CAPABILITY_UNSPECIFIED:
                violations.add(f"{path}.capabilities[{index}]", "is unspecified")
            _enum(f"{path}.capabilities[{index}]", capability, routing_pb2.Capability, violations)
    if violations.count(f"{path}.labels", constraints.labels, LABEL_COUNT_MAX):
        for index, label in enumerate(constraints.labels):
            if LABEL_PATTERN.fullmatch(f"{label.key}={label.value}") is None:
                violations.add(f"{path}.labels[{index}]", "needs a key and a value that a catalog can have")


def _range(
    path: str,
    bound: routing_pb2.QualityBound | routing_pb2.ValueBound | routing_pb2.QuantileBound,
    high: float,
    violations: Violations,
) -> None:
    _order(
        path,
        violations.number(path, bound, "min", 0.0, high),
        violations.number(path, bound, "max", 0.0, high),
        violations,
    )


def _order(path: str, low: float | None, high: float | None, violations: Violations) -> None:
    if low is not None and high is not None and low > high:
        violations.add(path, f"contradicts itself: min {low:g} is above max {high:g}")


def _quantile(path: str, bound: routing_pb2.QuantileBound | routing_pb2.DurationBound, violations: Violations) -> None:
    violations.number(path, bound, "quantile", QUANTILE_MIN, QUANTILE_MAX)


def _preferences(path: str, preferences: routing_pb2.Preferences, violations: Violations) -> None:
    match preferences.WhichOneof("ranking"):
        case "weights":
            values = {
                item.name: getattr(preferences.weights, item.name) for item in preferences.weights.DESCRIPTOR.fields
            }
            for name, value in values.items():
                if not math.isfinite(value) or value < 0.0:
                    violations.add(f"{path}.weights.{name}", f"is {value:g}; expected a finite number of at least 0")
            if not any(values.values()):
                violations.add(f"{path}.weights", "are all 0; at least one must be above 0")
        case "objective":
            objective = preferences.objective
            if objective.metric == routing_pb2.METRIC_UNSPECIFIED:
                violations.add(f"{path}.objective.metric", "is required")
            elif objective.metric == routing_pb2.METRIC_RELATIVE_QUALITY:
                violations.add(f"{path}.objective.metric", "is relative; seek METRIC_QUALITY instead")
            _enum(f"{path}.objective.metric", objective.metric, routing_pb2.Metric, violations)
            _enum(f"{path}.objective.direction", objective.direction, routing_pb2.Direction, violations)
        case _:
            violations.add(path, "has no ranking; expected weights or objective")


def _enum(path: str, value: int, enum: object, violations: Violations) -> None:
    """Enums of proto3 are open: a number that this version does not know may arrive."""
    known = _names_by_number(enum)
    if value not in known:
        names = ", ".join(known.values())
        violations.add(path, f"is {value}, which this version does not know; known are {names}")


@cache
def _names_by_number(enum: object) -> Mapping[int, str]:
    """The values of one of the protocol's enums; to ask its descriptor takes as long as all else about a message."""
    descriptors = enum.DESCRIPTOR.values_by_number  # type: ignore[attr-defined]  # EnumTypeWrapper, which its stub can't name
    return {number: descriptor.name for number, descriptor in descriptors.items()}
