"""Every way in which a call of the client can fail, in one tree.

    PointsmanError                 any failed call: its gRPC code, reason, message and metadata
    +- InvalidRequestError         the request is wrong in itself; every violation
    +- NoEligibleEndpointError     no endpoint satisfies the constraints; each rejection, the nearest relaxations
    +- AttemptsExhaustedError      every attempt failed before anything was sent; what each one met
    +- StreamBrokenError           the answer broke off after a part of it was sent
    +- UnavailableError            nobody can serve the call for now, or the server stopped; when to try again
    +- ResourceExhaustedError      a limit is reached; when to try again, which quota
    +- UnauthenticatedError        the call has no valid API key
    +- NotFoundError               what the call names does not exist (any more)
    +- DeadlineExceededError       the deadline passed
    +- InternalError               a bug of the server; the id under which its log has it

An error is chosen by the reason that the server sends, and by the gRPC code where there is none or an unknown one (a
proxy in between, a newer server), so that an `except` clause works in both cases. Whatever is not in the tree is a
plain `PointsmanError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from pointsman.durations import seconds
from pointsman.v1.routing_pb2 import (
    AttemptFailed,
    AttemptsExhausted,
    Candidate,
    NoEligibleEndpoint,
    Relaxation,
)

ERROR_DOMAIN = "pointsman"
"""Domain of the ErrorInfo whose reasons are names of `ErrorReason`; a proxy's own ErrorInfo has another."""

_DETAILS_KEY = "grpc-status-details-bin"
"""The trailer in which gRPC carries a google.rpc.Status."""

_M = TypeVar("_M", bound=Message)


@dataclass(frozen=True, slots=True)
class CallStatus:
    """How a failed call ended, decoded as far as this client knows the details."""

    code: grpc.StatusCode
    message: str = ""
    """The server's words, for people. Empty: it sent none."""
    reason: str = ""
    """Name of the `ErrorReason`, such as ERROR_REASON_OVERLOADED. Empty: the failure did not come from Pointsman."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Facts that belong to the reason; `ErrorReason` documents them."""
    details: tuple[AnyMessage, ...] = field(default=(), repr=False)
    """Every detail as it came, also those that this client does not know."""

    def detail(self, kind: type[_M]) -> _M | None:
        """The first detail of that kind. None: there is none, or it can't be decoded."""
        for packed in self.details:
            if packed.TypeName() == kind.DESCRIPTOR.full_name:
                found = kind()
                try:
                    packed.Unpack(found)
                except DecodeError:
                    return None
                return found
        return None

    def count(self, key: str) -> int | None:
        """A whole number in the metadata. None: it is not there, or not one."""
        value = self.metadata.get(key, "")
        return int(value) if value.isdecimal() else None

    @property
    def retry_after_s(self) -> float | None:
        """How long to wait before trying again. None: the server did not say."""
        retry = self.detail(RetryInfo)
        return None if retry is None else seconds(retry.retry_delay)


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault of a request, or one exhausted quota."""

    field: str
    """Path of the field, such as `routing.constraints.ttft.max`, or the subject of the quota."""
    description: str
    """What is wrong."""


class PointsmanError(Exception):
    """A call failed. Its text is the server's message."""

    def __init__(self, status: CallStatus) -> None:
        self.status = status
        """How the call ended, with every detail."""
        self.code = status.code
        self.reason = status.reason
        self.message = status.message or status.code.name
        self.metadata = status.metadata
        super().__init__(self.message)


class InvalidRequestError(PointsmanError):
    """The request is wrong in itself."""

    def __init__(self, status: CallStatus) -> None:
        super().__init__(status)
        found = status.detail(BadRequest) or BadRequest()
        self.violations = tuple(Violation(each.field, each.description) for each in found.field_violations)
        """Every fault at once. Empty: the message could not be decoded at all."""


class NoEligibleEndpointError(PointsmanError):
    """No endpoint satisfies the constraints, and none would if it were healthy."""

    def __init__(self, status: CallStatus) -> None:
        super().__init__(status)
        found = status.detail(NoEligibleEndpoint) or NoEligibleEndpoint()
        self.decision_id = found.decision_id
        self.candidates: tuple[Candidate, ...] = tuple(found.candidates)
        """Each endpoint with its rejections; at most 256."""
        self.relaxations: tuple[Relaxation, ...] = tuple(found.relaxations)
        """The smallest changes of bounds that would be enough, nearest first. Empty: no change of bounds would."""


class AttemptsExhaustedError(PointsmanError):
    """Every attempt failed, and nothing had been sent: the call may be made again as it is."""

    def __init__(self, status: CallStatus) -> None:
        super().__init__(status)
        found = status.detail(AttemptsExhausted) or AttemptsExhausted()
        self.decision_id = found.decision_id
        self.attempts: tuple[AttemptFailed, ...] = tuple(found.attempts)
        """What each attempt met, in order."""
        self.retry_after_s = status.retry_after_s


class StreamBrokenError(PointsmanError):
    """The answer broke off after a part of it was sent; what came stays valid as far as it goes."""

    def __init__(self, status: CallStatus) -> None:
        super().__init__(status)
        self.endpoint = status.metadata.get("endpoint", "")
        """The endpoint that was answering, model@provider."""
        self.delta_count = status.count("delta_count")
        self.character_count = status.count("character_count")
        self.cause = status.metadata.get("cause", "")
        """What the attempt met: timeout, disconnected, ..."""


class UnavailableError(PointsmanError):
    """Nobody can serve the call for now: no server, one that shuts down, or every fitting endpoint is down."""

    def __init__(self, status: CallStatus) -> None:
        super().__init__(status)
        self.retry_after_s = status.retry_after_s
        """How long to wait before trying again. None: nobody said."""


class ResourceExhaustedError(PointsmanError):
    """A limit is reached: the server's own, every fitting endpoint's rate, or the size of a message."""

    def __init__(self, status: CallStatus) -> None:
        super().__init__(status)
        found = status.detail(QuotaFailure) or QuotaFailure()
        self.violations = tuple(Violation(each.subject, each.description) for each in found.violations)
        """The exhausted quotas. Empty: the limit is not a quota."""
        self.retry_after_s = status.retry_after_s
        """How long to wait before trying again. None: waiting does not help, or nobody said."""


class UnauthenticatedError(PointsmanError):
    """The call has no valid API key."""


class NotFoundError(PointsmanError):
    """What the call names does not exist (any more), such as the decision of an outcome."""


class DeadlineExceededError(PointsmanError):
    """The deadline passed, on the server or here."""

    def __init__(self, status: CallStatus) -> None:
        super().__init__(status)
        self.delta_count = status.count("delta_count")
        """How many deltas the server had sent. None: it did not say."""


class InternalError(PointsmanError):
    """A bug of the server."""

    def __init__(self, status: CallStatus) -> None:
        super().__init__(status)
        self.error_id = status.metadata.get("error_id", "")
        """Where the server's log has it. Empty: the failure did not come from Pointsman."""


ERROR_BY_REASON: Mapping[str, type[PointsmanError]] = {
    "ERROR_REASON_INVALID_REQUEST": InvalidRequestError,
    "ERROR_REASON_MESSAGE_TOO_LARGE": ResourceExhaustedError,
    "ERROR_REASON_UNDECODABLE_MESSAGE": InvalidRequestError,
    "ERROR_REASON_NO_ELIGIBLE_ENDPOINT": NoEligibleEndpointError,
    "ERROR_REASON_ENDPOINTS_DOWN": UnavailableError,
    "ERROR_REASON_ENDPOINTS_RATE_LIMITED": ResourceExhaustedError,
    "ERROR_REASON_ATTEMPTS_EXHAUSTED": AttemptsExhaustedError,
    "ERROR_REASON_STREAM_BROKEN": StreamBrokenError,
    "ERROR_REASON_OVERLOADED": ResourceExhaustedError,
    "ERROR_REASON_UNAUTHENTICATED": UnauthenticatedError,
    "ERROR_REASON_UNKNOWN_DECISION": NotFoundError,
    "ERROR_REASON_DEADLINE_EXCEEDED": DeadlineExceededError,
    "ERROR_REASON_INTERNAL": InternalError,
}
"""The error of every reason that the contract has."""

_ERROR_BY_CODE: Mapping[grpc.StatusCode, type[PointsmanError]] = {
    # What a caller cancels is never read to its end, so this one was cut off by a server that was just stopping.
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.INTERNAL: InternalError,
}
"""The error of a code without a known reason."""


def error_of(status: CallStatus) -> PointsmanError:
    """The error that stands for a status."""
    by_code = _ERROR_BY_CODE.get(status.code, PointsmanError)
    return ERROR_BY_REASON.get(status.reason, by_code)(status)


def status_of(call: grpc.RpcError) -> CallStatus:
    """Decodes how a call ended. Details that can't be decoded are left out: the code and the message always count."""
    # Pairs in truth; the published types know only the named ones of blocking calls. None: the server was not reached.
    trailers = dict(cast("Iterable[tuple[str, str | bytes]]", call.trailing_metadata() or ()))
    try:
        details = tuple(Status.FromString(cast("bytes", trailers.get(_DETAILS_KEY, b""))).details)
    except DecodeError:
        details = ()
    status = CallStatus(call.code(), call.details() or "", details=details)
    info = status.detail(ErrorInfo)
    if info is None or info.domain != ERROR_DOMAIN:
        return status
    return CallStatus(status.code, status.message, info.reason, dict(info.metadata), details)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raises the error of the tree in place of grpc's own, in blocking and in asynchronous code alike."""
    try:
        yield
    except grpc.RpcError as failed:
        raise error_of(status_of(failed)) from failed
