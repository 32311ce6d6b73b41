"""Pointsman's client: sends every prompt to the best model at the best provider.

    from pointsman import Client

    with Client() as client:
        answer = client.complete_text("Why is the sky blue?", router="router@q:1|c:0.02|ttft<800")
        print(answer.text, answer.endpoint, answer.cost_usd)

`Client` blocks, `AsyncClient` is for asyncio; both have the same methods. What goes in and comes out are the messages
of `pointsman.v1`, with short ways to write them here (`user`, `image`, `constraints`, `weights`, ...). What fails raises
a `PointsmanError`.
"""

from pointsman.channel import DEFAULT_TARGET, TlsSettings
from pointsman.chat import Prompt, assistant, conversation, image, json_schema, system, tool, tool_result, user
from pointsman.client import AsyncClient, Client
from pointsman.durations import seconds
from pointsman.errors import (
    AttemptsExhaustedError,
    CallStatus,
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    NoEligibleEndpointError,
    NotFoundError,
    PointsmanError,
    ResourceExhaustedError,
    StreamBrokenError,
    UnauthenticatedError,
    UnavailableError,
    Violation,
)
from pointsman.events import Answer, AnswerCollector, Event
from pointsman.explanation import explain
from pointsman.options import outcome
from pointsman.routing import constraints, objective, weights
from pointsman.v1.chat_pb2 import (
    Conversation,
    Delta,
    FinishReason,
    Message,
    Part,
    ResponseFormat,
    SamplingOptions,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    Usage,
)
from pointsman.v1.router_service_pb2 import Done, ReportOutcomesResponse, WatchEndpointsResponse
from pointsman.v1.routing_pb2 import (
    AttemptFailed,
    AttemptFailureKind,
    AttemptStarted,
    Candidate,
    Constraints,
    Decision,
    EndpointStatus,
    Outcome,
    Preferences,
    Router,
    ShadowDecision,
)

__all__ = [
    "DEFAULT_TARGET",
    "Answer",
    "AnswerCollector",
    "AsyncClient",
    "AttemptFailed",
    "AttemptFailureKind",
    "AttemptStarted",
    "AttemptsExhaustedError",
    "CallStatus",
    "Candidate",
    "Client",
    "Constraints",
    "Conversation",
    "DeadlineExceededError",
    "Decision",
    "Delta",
    "Done",
    "EndpointStatus",
    "Event",
    "FinishReason",
    "InternalError",
    "InvalidRequestError",
    "Message",
    "NoEligibleEndpointError",
    "NotFoundError",
    "Outcome",
    "Part",
    "PointsmanError",
    "Preferences",
    "Prompt",
    "ReportOutcomesResponse",
    "ResourceExhaustedError",
    "ResponseFormat",
    "Router",
    "SamplingOptions",
    "ShadowDecision",
    "StreamBrokenError",
    "TlsSettings",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "UnauthenticatedError",
    "UnavailableError",
    "Usage",
    "Violation",
    "WatchEndpointsResponse",
    "assistant",
    "constraints",
    "conversation",
    "explain",
    "image",
    "json_schema",
    "objective",
    "outcome",
    "seconds",
    "system",
    "tool",
    "tool_result",
    "user",
    "weights",
]
