"""A failed call as OpenAI's clients understand it: an HTTP status, an error object, and when to come back.

What the status is follows from the gRPC status of `edge.errors`, by google.rpc's own table, so that both doors fail alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import json_format
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from pointsman.v1.error_reason_pb2 import ErrorReason

from pointsman_server.edge.convert import seconds
from pointsman_server.edge.interceptors import Ended
from pointsman_server.openai_door.json_object import FaultCode, RefusedRequestError
from pointsman_server.openai_door.request import EXTENSION

HTTP_STATUSES: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
"""google/rpc/code.proto, for the codes that `edge.errors` gives."""
TYPES: Mapping[int, str] = {401: "authentication_error", 429: "rate_limit_error"}
"""Further ones are the client's fault below 500, and else the server's."""
CODES: Mapping[str, str] = {
    ErrorReason.Name(ErrorReason.ERROR_REASON_UNAUTHENTICATED): "invalid_api_key",
    ErrorReason.Name(ErrorReason.ERROR_REASON_MESSAGE_TOO_LARGE): "request_too_large",
}
"""Where OpenAI has a word of its own."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error, ready to be sent: as an answer of its own, or as the last event of a stream."""

    http_status: int
    body: dict[str, Any]
    headers: Mapping[str, str]


def refusal_of(ended: Ended) -> Refusal:
    """What a call that ended in a failure is answered with."""
    failure = ended.failure
    assert failure is not None, "only a failure is a refusal"
    http_status = _http_status(ended)
    param, code, message = None, CODES.get(failure.reason) or _word(failure.reason), failure.message
    if isinstance(ended.error, RefusedRequestError):
        first, *others = ended.error.violations
        param, code = first.field, ended.error.code.value
        message = f"{first.field}: {first.description}" + (f" (and {len(others)} more faults)" if others else "")
    error: dict[str, Any] = {
        "message": message,
        "type": TYPES.get(http_status) or ("invalid_request_error" if http_status < 500 else "server_error"),
        "param": param,
        "code": code,
        EXTENSION: _details(ended),
    }
    return Refusal(http_status, {"error": error}, _retry_headers(ended))


def plain_refusal(http_status: int, code: str, message: str) -> Refusal:
    """The answer to what is no call of ours, such as an unknown path."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return Refusal(http_status, {"error": error}, {})


def _http_status(ended: Ended) -> int:
    failure, error = ended.failure, ended.error
    assert failure is not None, "only a failure is a refusal"
    if failure.reason == ErrorReason.Name(ErrorReason.ERROR_REASON_MESSAGE_TOO_LARGE):
        return 413
    if isinstance(error, RefusedRequestError) and error.code is FaultCode.UNKNOWN_MODEL:
        return 404
    return HTTP_STATUSES[failure.code]


def _word(reason: str) -> str:
    return reason.removeprefix("ERROR_REASON_").lower()


def _details(ended: Ended) -> dict[str, Any]:
    """Reason, metadata and further details, as the gRPC status has them, in proto3 JSON."""
    assert ended.failure is not None, "only a failure is a refusal"
    shown: dict[str, Any] = {"reason": ended.failure.reason, "metadata": {}, "details": []}
    for detail in ended.failure.details:
        if isinstance(detail, ErrorInfo):
            shown["metadata"] = dict(detail.metadata)
        else:
            value = json_format.MessageToDict(detail, preserving_proto_field_name=True)
            shown["details"].append({"@type": f"type.googleapis.com/{detail.DESCRIPTOR.full_name}", **value})
    return shown


def _retry_headers(ended: Ended) -> dict[str, str]:
    """When to come back, where that is known: in whole seconds (RFC 9110), and to the millisecond as OpenAI's clients
    read it first."""
    assert ended.failure is not None, "only a failure is a refusal"
    for detail in ended.failure.details:
        if isinstance(detail, RetryInfo):
            wait_s = seconds(detail.retry_delay)
            return {"retry-after": str(math.ceil(wait_s)), "retry-after-ms": str(math.ceil(wait_s * 1e3))}
    return {}
