"""Between protobuf and the domain: one small function each way. Protobuf goes no further in than this.

Everything that comes in here has been validated, so nothing is checked twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from pointsman.v1 import chat_pb2, router_service_pb2, routing_pb2

from pointsman_server import chat
from pointsman_server.attempt import UsageCounted
from pointsman_server.decision.metrics import METRIC_SPECS, Metric
from pointsman_server.decision.router_string import RouterAlternative, RouterString, parse_router_string
from pointsman_server.decision.types import (
    Affinity,
    Bound,
    BoundChange,
    BreakerState,
    Capability,
    Comparison,
    DecisionReason,
    Direction,
    Endpoint,
    EndpointRuntime,
    Latency,
    Objective,
    Preference,
    Rejection,
    RejectionReason,
    Relaxation,
    SearchSpace,
    Weights,
)
from pointsman_server.errors import AttemptFailure, UpstreamErrorKind
from pointsman_server.router import Completed
from pointsman_server.world import ServedRouter

KEPT_STRING_COUNT_MAX = 256
KEPT_STRING_LENGTH_MAX = 256
"""Router strings that are kept as read, and characters of each: callers ask by a few, again and again. In all at most a few
megabytes."""

METRIC_TO_PROTO: Mapping[Metric, routing_pb2.Metric.ValueType] = {
    Metric.QUALITY: routing_pb2.METRIC_QUALITY,
    Metric.RELATIVE_QUALITY: routing_pb2.METRIC_RELATIVE_QUALITY,
    Metric.REQUEST_COST: routing_pb2.METRIC_REQUEST_COST,
    Metric.PRICE: routing_pb2.METRIC_PRICE,
    Metric.INPUT_PRICE: routing_pb2.METRIC_INPUT_PRICE,
    Metric.OUTPUT_PRICE: routing_pb2.METRIC_OUTPUT_PRICE,
    Metric.TTFT: routing_pb2.METRIC_TTFT,
    Metric.INTER_TOKEN_LATENCY: routing_pb2.METRIC_INTER_TOKEN_LATENCY,
    Metric.END_TO_END_LATENCY: routing_pb2.METRIC_END_TO_END_LATENCY,
    Metric.OUTPUT_TOKENS_PER_SECOND: routing_pb2.METRIC_OUTPUT_TOKENS_PER_SECOND,
    Metric.ERROR_RATE: routing_pb2.METRIC_ERROR_RATE,
}
METRIC_FROM_PROTO = {number: metric for metric, number in METRIC_TO_PROTO.items()}

WEIGHT_FIELDS: Mapping[str, Metric] = {
    "quality": Metric.QUALITY,
    "request_cost_usd": Metric.REQUEST_COST,
    "price_usd_per_million_tokens": Metric.PRICE,
    "input_price_usd_per_million_tokens": Metric.INPUT_PRICE,
    "output_price_usd_per_million_tokens": Metric.OUTPUT_PRICE,
    "ttft_seconds": Metric.TTFT,
    "inter_token_latency_seconds": Metric.INTER_TOKEN_LATENCY,
    "end_to_end_latency_seconds": Metric.END_TO_END_LATENCY,
    "error_rate": Metric.ERROR_RATE,
}
BOUND_FIELDS: Mapping[str, Metric] = {
    "quality": Metric.QUALITY,
    "relative_quality": Metric.RELATIVE_QUALITY,
    "request_cost_usd": Metric.REQUEST_COST,
    "price_usd_per_million_tokens": Metric.PRICE,
    "input_price_usd_per_million_tokens": Metric.INPUT_PRICE,
    "output_price_usd_per_million_tokens": Metric.OUTPUT_PRICE,
    "ttft": Metric.TTFT,
    "inter_token_latency": Metric.INTER_TOKEN_LATENCY,
    "end_to_end_latency": Metric.END_TO_END_LATENCY,
    "output_tokens_per_second": Metric.OUTPUT_TOKENS_PER_SECOND,
    "error_rate": Metric.ERROR_RATE,
}

CAPABILITY_TO_PROTO: Mapping[Capability, routing_pb2.Capability.ValueType] = {
    Capability.TOOLS: routing_pb2.CAPABILITY_TOOLS,
    Capability.IMAGE_INPUT: routing_pb2.CAPABILITY_IMAGE_INPUT,
    Capability.JSON_OBJECT: routing_pb2.CAPABILITY_JSON_OBJECT,
    Capability.JSON_SCHEMA: routing_pb2.CAPABILITY_JSON_SCHEMA,
    Capability.REASONING: routing_pb2.CAPABILITY_REASONING,
}
CAPABILITY_FROM_PROTO = {number: capability for capability, number in CAPABILITY_TO_PROTO.items()}

DECISION_REASON_TO_PROTO: Mapping[DecisionReason, routing_pb2.DecisionReason.ValueType] = {
    DecisionReason.ONLY_CANDIDATE: routing_pb2.DECISION_REASON_ONLY_CANDIDATE,
    DecisionReason.BEST_UTILITY: routing_pb2.DECISION_REASON_BEST_UTILITY,
    DecisionReason.NEAR_TIE: routing_pb2.DECISION_REASON_NEAR_TIE,
    DecisionReason.FALLBACK: routing_pb2.DECISION_REASON_FALLBACK,
    DecisionReason.EXPLORATION: routing_pb2.DECISION_REASON_EXPLORATION,
    DecisionReason.PANIC: routing_pb2.DECISION_REASON_PANIC,
}
AFFINITY_TO_PROTO: Mapping[Affinity, routing_pb2.Affinity.ValueType] = {
    Affinity.NONE: routing_pb2.AFFINITY_UNSPECIFIED,
    Affinity.KEPT: routing_pb2.AFFINITY_KEPT,
    Affinity.LEFT: routing_pb2.AFFINITY_LEFT,
}
REJECTION_REASON_TO_PROTO: Mapping[RejectionReason, routing_pb2.RejectionReason.ValueType] = {
    RejectionReason.NOT_IN_SEARCH_SPACE: routing_pb2.REJECTION_REASON_NOT_IN_SEARCH_SPACE,
    RejectionReason.SKIPPED: routing_pb2.REJECTION_REASON_SKIPPED,
    RejectionReason.BOUND_VIOLATED: routing_pb2.REJECTION_REASON_BOUND_VIOLATED,
    RejectionReason.UNKNOWN_VALUE: routing_pb2.REJECTION_REASON_UNKNOWN_VALUE,
    RejectionReason.MISSING_CAPABILITY: routing_pb2.REJECTION_REASON_MISSING_CAPABILITY,
    RejectionReason.CONTEXT_TOO_SHORT: routing_pb2.REJECTION_REASON_CONTEXT_TOO_SHORT,
    RejectionReason.OUTPUT_TOO_SHORT: routing_pb2.REJECTION_REASON_OUTPUT_TOO_SHORT,
    RejectionReason.LABEL_MISMATCH: routing_pb2.REJECTION_REASON_LABEL_MISMATCH,
    RejectionReason.BREAKER_OPEN: routing_pb2.REJECTION_REASON_BREAKER_OPEN,
    RejectionReason.RATE_LIMITED: routing_pb2.REJECTION_REASON_RATE_LIMITED,
    RejectionReason.RISK_TOO_HIGH: routing_pb2.REJECTION_REASON_RISK_TOO_HIGH,
    RejectionReason.RISK_UNKNOWN: routing_pb2.REJECTION_REASON_RISK_UNKNOWN,
}
BREAKER_STATE_TO_PROTO: Mapping[BreakerState, routing_pb2.BreakerState.ValueType] = {
    BreakerState.CLOSED: routing_pb2.BREAKER_STATE_CLOSED,
    BreakerState.HALF_OPEN: routing_pb2.BREAKER_STATE_HALF_OPEN,
    BreakerState.OPEN: routing_pb2.BREAKER_STATE_OPEN,
}
FAILURE_KIND_TO_PROTO: Mapping[UpstreamErrorKind, routing_pb2.AttemptFailureKind.ValueType] = {
    UpstreamErrorKind.CONNECT: routing_pb2.ATTEMPT_FAILURE_KIND_CONNECT,
    UpstreamErrorKind.TIMEOUT: routing_pb2.ATTEMPT_FAILURE_KIND_TIMEOUT,
    UpstreamErrorKind.RATE_LIMITED: routing_pb2.ATTEMPT_FAILURE_KIND_RATE_LIMITED,
    UpstreamErrorKind.AUTHENTICATION: routing_pb2.ATTEMPT_FAILURE_KIND_AUTHENTICATION,
    UpstreamErrorKind.REJECTED: routing_pb2.ATTEMPT_FAILURE_KIND_REJECTED,
    UpstreamErrorKind.SERVER_ERROR: routing_pb2.ATTEMPT_FAILURE_KIND_SERVER_ERROR,
    UpstreamErrorKind.PROTOCOL: routing_pb2.ATTEMPT_FAILURE_KIND_PROTOCOL,
    UpstreamErrorKind.DISCONNECTED: routing_pb2.ATTEMPT_FAILURE_KIND_DISCONNECTED,
}
FAILURE_KIND_FROM_PROTO = {number: kind for kind, number in FAILURE_KIND_TO_PROTO.items()}

_ROLE_FROM_PROTO: Mapping[int, chat.Role] = {
    chat_pb2.ROLE_SYSTEM: chat.Role.SYSTEM,
    chat_pb2.ROLE_USER: chat.Role.USER,
    chat_pb2.ROLE_ASSISTANT: chat.Role.ASSISTANT,
    chat_pb2.ROLE_TOOL: chat.Role.TOOL,
}
_IMAGE_DETAIL_FROM_PROTO: Mapping[int, chat.ImageDetail] = {
    chat_pb2.IMAGE_DETAIL_UNSPECIFIED: chat.ImageDetail.AUTO,
    chat_pb2.IMAGE_DETAIL_LOW: chat.ImageDetail.LOW,
    chat_pb2.IMAGE_DETAIL_HIGH: chat.ImageDetail.HIGH,
}
_TOOL_CHOICE_FROM_PROTO: Mapping[int, chat.ToolChoiceMode] = {
    chat_pb2.TOOL_CHOICE_MODE_UNSPECIFIED: chat.ToolChoiceMode.AUTO,
    chat_pb2.TOOL_CHOICE_MODE_AUTO: chat.ToolChoiceMode.AUTO,
    chat_pb2.TOOL_CHOICE_MODE_NONE: chat.ToolChoiceMode.NONE,
    chat_pb2.TOOL_CHOICE_MODE_REQUIRED: chat.ToolChoiceMode.REQUIRED,
    chat_pb2.TOOL_CHOICE_MODE_NAMED: chat.ToolChoiceMode.NAMED,
}
_FORMAT_FROM_PROTO: Mapping[int, chat.ResponseFormatKind] = {
    chat_pb2.RESPONSE_FORMAT_KIND_UNSPECIFIED: chat.ResponseFormatKind.TEXT,
    chat_pb2.RESPONSE_FORMAT_KIND_TEXT: chat.ResponseFormatKind.TEXT,
    chat_pb2.RESPONSE_FORMAT_KIND_JSON_OBJECT: chat.ResponseFormatKind.JSON_OBJECT,
    chat_pb2.RESPONSE_FORMAT_KIND_JSON_SCHEMA: chat.ResponseFormatKind.JSON_SCHEMA,
}
_EFFORT_FROM_PROTO: Mapping[int, chat.ReasoningEffort | None] = {
    chat_pb2.REASONING_EFFORT_UNSPECIFIED: None,
    chat_pb2.REASONING_EFFORT_MINIMAL: chat.ReasoningEffort.MINIMAL,
    chat_pb2.REASONING_EFFORT_LOW: chat.ReasoningEffort.LOW,
    chat_pb2.REASONING_EFFORT_MEDIUM: chat.ReasoningEffort.MEDIUM,
    chat_pb2.REASONING_EFFORT_HIGH: chat.ReasoningEffort.HIGH,
}
FINISH_REASON_TO_PROTO: Mapping[chat.FinishReason, chat_pb2.FinishReason.ValueType] = {
    chat.FinishReason.STOP: chat_pb2.FINISH_REASON_STOP,
    chat.FinishReason.LENGTH: chat_pb2.FINISH_REASON_LENGTH,
    chat.FinishReason.TOOL_CALLS: chat_pb2.FINISH_REASON_TOOL_CALLS,
    chat.FinishReason.CONTENT_FILTER: chat_pb2.FINISH_REASON_CONTENT_FILTER,
    chat.FinishReason.OTHER: chat_pb2.FINISH_REASON_OTHER,
}


def router_string_from_text(text: str) -> RouterString:
    """Reads a router string, those that were read lately without reading them again.

    Raises:
        RouterStringError: as `parse_router_string`.
    """
    return _kept_router_string(text) if len(text) <= KEPT_STRING_LENGTH_MAX else parse_router_string(text)


_kept_router_string = lru_cache(maxsize=KEPT_STRING_COUNT_MAX)(parse_router_string)


def conversation_from_proto(message: chat_pb2.Conversation) -> chat.Conversation:
    """What the model is asked."""
    messages = tuple([_message_from_proto(item) for item in message.messages])
    if messages and len(message.ListFields()) == 1:
        return chat.Conversation(messages)  # The usual case: a conversation of messages alone.
    return chat.Conversation(
        messages,
        tools=tuple(
            chat.Tool(item.name, item.description, item.parameters_json_schema, item.strict) for item in message.tools
        ),
        tool_choice=chat.ToolChoice(
            _TOOL_CHOICE_FROM_PROTO[message.tool_choice.mode], message.tool_choice.name or None
        ),
        response_format=chat.ResponseFormat(
            _FORMAT_FROM_PROTO[message.response_format.kind],
            message.response_format.schema_name or None,
            message.response_format.json_schema or None,
            message.response_format.strict,
        ),
        sampling=_sampling_from_proto(message.sampling),
    )


def _message_from_proto(message: chat_pb2.Message) -> chat.Message:
    return chat.Message(
        role=_ROLE_FROM_PROTO[message.role],
        parts=tuple([_part_from_proto(part) for part in message.parts]),
        name=message.name or None,
        tool_calls=tuple(
            [
                chat.ToolCall(call.id, call.name, call.arguments_json, call.signature or None)
                for call in message.tool_calls
            ]
        ),
        tool_call_id=message.tool_call_id or None,
    )


def _part_from_proto(part: chat_pb2.Part) -> chat.Part:
    if part.HasField("text"):
        return chat.TextPart(part.text.text)
    image = part.image
    detail = _IMAGE_DETAIL_FROM_PROTO[image.detail]
    if image.HasField("url"):
        return chat.ImagePart(url=image.url, detail=detail)
    return chat.ImagePart(content=image.inline_content, media_type=image.media_type, detail=detail)


def _sampling_from_proto(message: chat_pb2.SamplingOptions) -> chat.SamplingOptions:
    return chat.SamplingOptions(
        temperature=message.temperature if message.HasField("temperature") else None,
        top_p=message.top_p if message.HasField("top_p") else None,
        top_k=message.top_k if message.HasField("top_k") else None,
        output_token_count_max=(message.max_output_token_count if message.HasField("max_output_token_count") else None),
        stop=tuple(message.stop),
        seed=message.seed if message.HasField("seed") else None,
        presence_penalty=message.presence_penalty if message.HasField("presence_penalty") else None,
        frequency_penalty=message.frequency_penalty if message.HasField("frequency_penalty") else None,
        parallel_tool_calls=message.parallel_tool_calls if message.HasField("parallel_tool_calls") else None,
        reasoning_effort=_EFFORT_FROM_PROTO[message.reasoning_effort],
    )


def overlay_from_proto(routing: routing_pb2.Routing) -> RouterAlternative:
    """The caller's typed constraints and preferences, as something to lay over what the router says."""
    if not routing.HasField("constraints"):
        return RouterAlternative(head="", preference=_preference_from_proto(routing.preferences))
    constraints = routing.constraints
    return RouterAlternative(
        head="",
        space=SearchSpace(
            models=frozenset(constraints.models),
            providers=frozenset(constraints.providers),
            endpoints=frozenset(constraints.endpoints),
            skip_models=frozenset(constraints.skip_models),
            skip_providers=frozenset(constraints.skip_providers),
            skip_endpoints=frozenset(constraints.skip_endpoints),
        ),
        bounds=bounds_from_proto(constraints),
        capabilities=frozenset(CAPABILITY_FROM_PROTO[item] for item in constraints.capabilities),
        labels=frozenset((label.key, label.value) for label in constraints.labels),
        preference=_preference_from_proto(routing.preferences),
    )


def bounds_from_proto(constraints: routing_pb2.Constraints) -> tuple[Bound, ...]:
    """Every bound that is set, in the order of the message's fields."""
    bounds: list[Bound] = []
    for name, metric in BOUND_FIELDS.items():
        if not constraints.HasField(name):  # type: ignore[arg-type]  # the stub lists the names as literals
            continue
        message = getattr(constraints, name)
        if isinstance(message, routing_pb2.DurationBound):
            low = seconds(message.min) if message.HasField("min") else None
            high = seconds(message.max) if message.HasField("max") else None
        else:
            low = message.min if message.HasField("min") else None
            high = message.max if message.HasField("max") else None
        quantile = high_quantile = None
        if isinstance(message, routing_pb2.DurationBound | routing_pb2.QuantileBound):
            quantile = high_quantile = message.quantile if message.HasField("quantile") else None
        elif isinstance(message, routing_pb2.QualityBound):
            # The risk is that quality falls short; an upper bound on quality bounds the expectation.
            quantile = 1.0 - message.risk if message.HasField("risk") else None
        if low is not None:
            bounds.append(Bound(metric, Comparison.GREATER_EQUAL, low, quantile))
        if high is not None:
            bounds.append(Bound(metric, Comparison.LESS_EQUAL, high, high_quantile))
    return tuple(bounds)


def _preference_from_proto(preferences: routing_pb2.Preferences) -> Preference | None:
    match preferences.WhichOneof("ranking"):
        case "weights":
            return Weights.of({metric: getattr(preferences.weights, name) for name, metric in WEIGHT_FIELDS.items()})
        case "objective":
            metric = METRIC_FROM_PROTO[preferences.objective.metric]
            return Objective(metric, _direction(metric, preferences.objective.direction))
        case _:
            return None


def _direction(metric: Metric, direction: routing_pb2.Direction.ValueType) -> Direction:
    if direction == routing_pb2.DIRECTION_UNSPECIFIED:
        return Direction.HIGHEST if METRIC_SPECS[metric].higher_is_better else Direction.LOWEST
    return Direction.HIGHEST if direction == routing_pb2.DIRECTION_HIGHEST else Direction.LOWEST


def rejection_to_proto(rejection: Rejection) -> routing_pb2.Rejection:
    """One reason why an endpoint is not eligible."""
    bound = rejection.bound
    return routing_pb2.Rejection(
        reason=REJECTION_REASON_TO_PROTO[rejection.reason],
        constraint=rejection.constraint,
        metric=routing_pb2.METRIC_UNSPECIFIED if bound is None else METRIC_TO_PROTO[bound.metric],
        limit=None if bound is None else bound.limit,
        actual=rejection.actual,
    )


def attempt_failed_to_proto(failure: AttemptFailure) -> routing_pb2.AttemptFailed:
    """A failed attempt, as an event or as a detail of an error."""
    return routing_pb2.AttemptFailed(
        attempt_number=failure.attempt_number,
        endpoint=failure.endpoint_name,
        kind=FAILURE_KIND_TO_PROTO[failure.kind],
        message=failure.message,
        duration=duration(failure.duration_s),
    )


def relaxation_to_proto(relaxation: Relaxation) -> routing_pb2.Relaxation:
    """A change of bounds that would be enough."""
    return routing_pb2.Relaxation(
        endpoint=relaxation.endpoint_name,
        changes=[_bound_change_to_proto(change) for change in relaxation.changes],
        distance=relaxation.distance,
    )


def _bound_change_to_proto(change: BoundChange) -> routing_pb2.BoundChange:
    return routing_pb2.BoundChange(
        metric=METRIC_TO_PROTO[change.bound.metric],
        bound=str(change.bound),
        relaxed_bound=str(change.relaxed),
        relaxed_limit=change.relaxed.limit,
    )


def endpoint_to_proto(endpoint: Endpoint) -> routing_pb2.Endpoint:
    """A catalog entry."""
    return routing_pb2.Endpoint(
        name=endpoint.name,
        model=endpoint.model,
        provider=endpoint.provider,
        input_price_usd_per_million_tokens=endpoint.input_price_usd_per_mtok,
        output_price_usd_per_million_tokens=endpoint.output_price_usd_per_mtok,
        cached_input_price_usd_per_million_tokens=endpoint.cached_input_price_usd_per_mtok,
        max_context_token_count=endpoint.context_token_count_max,
        max_output_token_count=endpoint.output_token_count_max,
        capabilities=sorted(CAPABILITY_TO_PROTO[capability] for capability in endpoint.capabilities),
        labels=labels_to_proto(endpoint.labels),
        cache_write_input_price_usd_per_million_tokens=endpoint.cache_write_price_usd_per_mtok,
        lacks=sorted(feature.value for feature in endpoint.lacks),
    )


def labels_to_proto(labels: Iterable[tuple[str, str]]) -> list[routing_pb2.Label]:
    """Labels by key and value."""
    return [routing_pb2.Label(key=key, value=value) for key, value in sorted(labels)]


def runtime_to_proto(runtime: EndpointRuntime) -> routing_pb2.EndpointRuntime:
    """The runtime state of an endpoint."""
    latency = runtime.inter_token_latency_s
    return routing_pb2.EndpointRuntime(
        ttft=latency_to_proto(runtime.ttft_s),
        inter_token_latency=latency_to_proto(latency),
        output_tokens_per_second=None if latency is None or latency.mean <= 0.0 else 1.0 / latency.mean,
        error_rate=runtime.error_rate,
        in_flight_count=runtime.in_flight_count,
        breaker_state=BREAKER_STATE_TO_PROTO[runtime.breaker],
        retry_after=_optional_duration(runtime.left_alone_s),
        observation_count=runtime.observation_count,
        age=_optional_duration(runtime.age_s),
    )


def constraints_to_proto(
    space: SearchSpace,
    bounds: Iterable[Bound],
    capabilities: Iterable[Capability],
    labels: Iterable[tuple[str, str]],
) -> routing_pb2.Constraints:
    """Constraints as a message. It has one bound a side of each metric, so of several the tightest is shown; the text
    form has them all."""
    message = routing_pb2.Constraints(
        models=sorted(space.models),
        providers=sorted(space.providers),
        endpoints=sorted(space.endpoints),
        skip_models=sorted(space.skip_models),
        skip_providers=sorted(space.skip_providers),
        skip_endpoints=sorted(space.skip_endpoints),
        capabilities=sorted(CAPABILITY_TO_PROTO[capability] for capability in capabilities),
        labels=labels_to_proto(labels),
    )
    names = {metric: name for name, metric in BOUND_FIELDS.items()}
    # From loose to tight, so that the tightest is written last.
    for bound in sorted(bounds, key=lambda bound: -bound.limit if bound.comparison.is_upper else bound.limit):
        target = getattr(message, names[bound.metric])
        side = "max" if bound.comparison.is_upper else "min"
        if isinstance(target, routing_pb2.DurationBound):
            getattr(target, side).CopyFrom(duration(bound.limit))
        else:
            setattr(target, side, bound.limit)
        if bound.quantile is not None:
            if isinstance(target, routing_pb2.QualityBound):
                target.risk = 1.0 - bound.quantile
            else:
                target.quantile = bound.quantile
    return message


def preferences_to_proto(preference: Preference) -> routing_pb2.Preferences:
    """Preferences as a message."""
    match preference:
        case Objective(metric, direction):
            end = routing_pb2.DIRECTION_HIGHEST if direction is Direction.HIGHEST else routing_pb2.DIRECTION_LOWEST
            objective = routing_pb2.Objective(metric=METRIC_TO_PROTO[metric], direction=end)
            return routing_pb2.Preferences(objective=objective)
        case Weights(by_metric):
            names = {metric: name for name, metric in WEIGHT_FIELDS.items()}
            weights = routing_pb2.Weights()
            for metric, weight in by_metric:
                setattr(weights, names[metric], weight)
            return routing_pb2.Preferences(weights=weights)


def latency_to_proto(latency: Latency | None) -> routing_pb2.LatencyEstimate | None:
    """What a latency is expected to be."""
    if latency is None:
        return None
    return routing_pb2.LatencyEstimate(
        mean=duration(latency.mean), p50=duration(latency.p50), p95=duration(latency.p95), p99=duration(latency.p99)
    )


def seconds(message: Duration) -> float:
    """A protobuf duration in seconds."""
    return message.seconds + message.nanos / 1e9


def duration(value_s: float) -> Duration:
    """A protobuf duration, to the nanosecond."""
    whole = int(value_s)
    return Duration(seconds=whole, nanos=int((value_s - whole) * 1e9))


def fill_duration(message: Duration, value_s: float) -> None:
    """The same, into an empty message."""
    whole = int(value_s)
    message.seconds = whole
    message.nanos = int((value_s - whole) * 1e9)


def _optional_duration(value_s: float | None) -> Duration | None:
    return None if value_s is None else duration(value_s)


def timestamp(unix_s: float) -> Timestamp:
    """A protobuf timestamp, to the microsecond that a float of Unix time can hold."""
    whole = int(unix_s)
    return Timestamp(seconds=whole, nanos=int((unix_s - whole) * 1e6) * 1000)


def tool_call_delta_to_proto(delta: chat.ToolCallDelta) -> chat_pb2.ToolCallDelta:
    """A piece of a tool call."""
    return chat_pb2.ToolCallDelta(
        index=delta.index,
        id=delta.id or "",
        name=delta.name or "",
        arguments_json_fragment=delta.arguments_json_fragment,
        signature=delta.signature or "",
    )


def usage_to_proto(counted: UsageCounted) -> chat_pb2.Usage:
    """Tokens and money of an attempt."""
    usage = counted.usage
    return chat_pb2.Usage(
        attempt_number=counted.attempt_number,
        endpoint=counted.endpoint_name,
        input_token_count=usage.input_token_count or 0,
        output_token_count=usage.output_token_count or 0,
        cached_input_token_count=usage.cached_input_token_count,
        reasoning_token_count=usage.reasoning_token_count,
        cost_usd=counted.cost_usd,
        estimated=counted.estimated,
        cache_write_input_token_count=usage.cache_write_input_token_count,
    )


def done_to_proto(completed: Completed) -> router_service_pb2.Done:
    """The end of an answer."""
    return router_service_pb2.Done(
        finish_reason=FINISH_REASON_TO_PROTO[completed.finished.reason],
        endpoint=completed.endpoint_name,
        attempt_count=completed.attempt_count,
        ttft=_optional_duration(completed.ttft_s),
        duration=duration(completed.duration_s),
        cost_usd=completed.cost_usd,
        cost_estimated=completed.cost_estimated,
        response_model=completed.finished.response_model or "",
    )


def router_to_proto(served: ServedRouter) -> routing_pb2.Router:
    """A named router with the quality artifact that it predicts by."""
    router, quality = served.router, served.quality
    first = router.alternatives[0]
    return routing_pb2.Router(
        name=router.name,
        version=served.version,
        description=router.description,
        text=served.text,
        quality_artifact=routing_pb2.QualityArtifact(
            name=quality.name,
            version=quality.version,
            models=sorted(quality.models),
            refused_update=served.refused_update,
        ),
        constraints=constraints_to_proto(first.space, first.bounds, first.capabilities, first.labels),
        preferences=preferences_to_proto(first.preference),
        split=[routing_pb2.Arm(router=arm.router_name, share=arm.share) for arm in router.split],
        shadows=router.shadow_names,
    )
