"""The one function that turns what failed into a gRPC status, and the details that go with it.

Every status carries a google.rpc.ErrorInfo of the domain `pointsman`; docs/errors.md lists them. The text of a foreign
exception never gets here: adapters have put it into words of our own, and a bug is answered by an id that the log has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, singledispatch

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status
from pointsman.v1 import error_reason_pb2, routing_pb2

from pointsman_server.decision.types import Candidate
from pointsman_server.edge.convert import (
    attempt_failed_to_proto,
    duration,
    rejection_to_proto,
    relaxation_to_proto,
)
from pointsman_server.errors import (
    AttemptsExhaustedError,
    DeadlineExceededError,
    EndpointsUnavailableError,
    InvalidRequestError,
    MessageTooLargeError,
    NoEligibleEndpointError,
    OverloadedError,
    PointsmanError,
    StreamBrokenError,
    UnauthenticatedError,
    UndecodableMessageError,
    UnknownDecisionError,
    UpstreamErrorKind,
)

DOMAIN = "pointsman"
DETAILS_BYTES_MAX = 5_000
"""Details travel base64-coded in a trailer, and gRPC clients take 8 KiB of metadata by default."""
MESSAGE_LENGTH_MAX = 1_000
"""Characters of a status message, so that the details still fit beside it."""
TYPE_PREFIX = "type.googleapis.com/"
"""What the type of a packed message is known by."""
QUOTA_COUNT_MAX = 16
"""Providers that a refusal names."""
KEPT_QUOTA_COUNT_MAX = 64
"""Sets of providers of which is kept how they are told; 2 kB each."""
PROVIDER_LIMITS = "this provider limits our rate for now"
STATUS_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class Failure:
    """A status, ready to be sent."""

    code: grpc.StatusCode
    message: str
    reason: str
    """Name of the `ErrorReason`."""
    details: tuple[Message, ...]

    def trailing_metadata(self) -> tuple[tuple[str, bytes]]:
        """The details as a serialised google.rpc.Status. What no longer fits is left out, the last first."""
        status = Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            packed = AnyMessage(
                type_url=f"{TYPE_PREFIX}{detail.DESCRIPTOR.full_name}", value=detail.SerializeToString()
            )
            if status.ByteSize() + packed.ByteSize() <= DETAILS_BYTES_MAX:
                status.details.append(packed)
        return ((STATUS_DETAILS_KEY, status.SerializeToString()),)


def failure_of(error: PointsmanError) -> Failure | None:
    """The status that `error` is answered with; None for an error that no call should end in, which is a bug."""
    return _failure(error)


def internal_failure(error_id: str) -> Failure:
    """The status of a bug: opaque, with an id that the server's log has."""
    return _status(
        grpc.StatusCode.INTERNAL,
        f"internal error {error_id}",
        error_reason_pb2.ERROR_REASON_INTERNAL,
        {"error_id": error_id},
    )


def _status(
    code: grpc.StatusCode,
    message: str,
    reason: error_reason_pb2.ErrorReason.ValueType,
    metadata: dict[str, str],
    *details: Message,
) -> Failure:
    name = error_reason_pb2.ErrorReason.Name(reason)
    information = ErrorInfo(reason=name, domain=DOMAIN, metadata=metadata)
    short = message if len(message) <= MESSAGE_LENGTH_MAX else f"{message[:MESSAGE_LENGTH_MAX]}..."
    return Failure(code, short, name, (information, *details))


@singledispatch
def _failure(_error: PointsmanError) -> Failure | None:
    """An error that no caller should ever see has no status of its own."""
    return None


@_failure.register
def _(error: InvalidRequestError) -> Failure:
    violations = [
        BadRequest.FieldViolation(field=violation.field, description=violation.description)
        for violation in error.violations
    ]
    noun = "field is" if len(violations) == 1 else "fields are"
    return _status(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"{len(violations)} {noun} not valid; the first: {violations[0].field} {violations[0].description}",
        error_reason_pb2.ERROR_REASON_INVALID_REQUEST,
        {"violation_count": str(len(violations))},
        _fitting_violations(violations),
    )


def _fitting_violations(
    violations: Sequence[BadRequest.FieldViolation],
) -> BadRequest:
    """As many violations as fit; the ErrorInfo has the number of all."""
    request = BadRequest()
    size = 0
    for violation in violations:
        size += violation.ByteSize() + 4
        if size > DETAILS_BYTES_MAX - 500:
            break
        request.field_violations.append(violation)
    return request


@_failure.register
def _(error: MessageTooLargeError) -> Failure:
    return _status(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        str(error),
        error_reason_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
        {"limit_bytes": str(error.limit_bytes), "actual_bytes": str(error.actual_bytes)},
    )


@_failure.register
def _(error: UndecodableMessageError) -> Failure:
    return _status(grpc.StatusCode.INVALID_ARGUMENT, str(error), error_reason_pb2.ERROR_REASON_UNDECODABLE_MESSAGE, {})


@_failure.register
def _(error: NoEligibleEndpointError) -> Failure:
    decision = error.decision
    nearest = [relaxation_to_proto(relaxation) for relaxation in decision.relaxations]
    hint = ""
    if nearest:
        changes = ", ".join(f"{change.bound} to {change.relaxed_bound}" for change in nearest[0].changes)
        hint = f"; nearest is {nearest[0].endpoint}, with {changes}"
    return _status(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"{error}{hint}",
        error_reason_pb2.ERROR_REASON_NO_ELIGIBLE_ENDPOINT,
        {"decision_id": decision.decision_id, "candidate_count": str(len(decision.candidates))},
        _fitting_candidates(decision.decision_id, decision.candidates, nearest),
    )


def _fitting_candidates(
    decision_id: str, candidates: Iterable[Candidate], relaxations: Iterable[routing_pb2.Relaxation]
) -> routing_pb2.NoEligibleEndpoint:
    """The relaxations, and as many rejected candidates as fit beside them, nearest to eligible first."""
    detail = routing_pb2.NoEligibleEndpoint(decision_id=decision_id, relaxations=relaxations)
    size = detail.ByteSize()
    for candidate in sorted(candidates, key=lambda candidate: (len(candidate.rejections), candidate.endpoint.name)):
        message = routing_pb2.Candidate(
            endpoint=candidate.endpoint.name,
            rejections=[rejection_to_proto(rejection) for rejection in candidate.rejections],
        )
        size += message.ByteSize() + 4
        if size > DETAILS_BYTES_MAX - 500:
            break
        detail.candidates.append(message)
    return detail


@_failure.register
def _(error: EndpointsUnavailableError) -> Failure:
    retry = RetryInfo(retry_delay=duration(error.retry_after_s))
    metadata = {"decision_id": error.decision.decision_id}
    if not error.rate_limited:
        return _status(
            grpc.StatusCode.UNAVAILABLE,
            str(error),
            error_reason_pb2.ERROR_REASON_ENDPOINTS_DOWN,
            metadata,
            retry,
        )
    names = tuple(sorted({candidate.endpoint.provider for candidate in error.waiting}))
    return _status(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        str(error),
        error_reason_pb2.ERROR_REASON_ENDPOINTS_RATE_LIMITED,
        metadata,
        retry,
        _kept_provider_quota(names[:QUOTA_COUNT_MAX]),
    )


def _quota(subjects: Iterable[str], description: str) -> QuotaFailure:
    violations = [QuotaFailure.Violation(subject=subject, description=description) for subject in subjects]
    return QuotaFailure(violations=violations[:QUOTA_COUNT_MAX])


@lru_cache(maxsize=KEPT_QUOTA_COUNT_MAX)
def _kept_provider_quota(providers: tuple[str, ...]) -> QuotaFailure:
    """What limits our rate for now. Not to be changed: who is refused a hundred times a second is told the same each time."""
    return _quota(providers, PROVIDER_LIMITS)


@_failure.register
def _(error: OverloadedError) -> Failure:
    return _status(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        str(error),
        error_reason_pb2.ERROR_REASON_OVERLOADED,
        {"limit": str(error.limit)},
        RetryInfo(retry_delay=duration(error.retry_after_s)),
        _quota(("router",), f"at most {error.limit} concurrent requests"),
    )


@_failure.register
def _(error: UnauthenticatedError) -> Failure:
    return _status(grpc.StatusCode.UNAUTHENTICATED, str(error), error_reason_pb2.ERROR_REASON_UNAUTHENTICATED, {})


@_failure.register
def _(error: UnknownDecisionError) -> Failure:
    return _status(
        grpc.StatusCode.NOT_FOUND,
        str(error),
        error_reason_pb2.ERROR_REASON_UNKNOWN_DECISION,
        {"decision_id": error.decision_id},
    )


@_failure.register
def _(error: DeadlineExceededError) -> Failure:
    return _status(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        str(error),
        error_reason_pb2.ERROR_REASON_DEADLINE_EXCEEDED,
        {"delta_count": str(error.delta_count)},
    )


@_failure.register
def _(error: AttemptsExhaustedError) -> Failure:
    kinds = {failure.kind for failure in error.failures}
    code = grpc.StatusCode.UNAVAILABLE
    details: list[Message] = []
    if kinds == {UpstreamErrorKind.RATE_LIMITED}:
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        providers = dict.fromkeys(failure.endpoint_name.rpartition("@")[2] for failure in error.failures)
        details.append(_quota(providers, PROVIDER_LIMITS))
    elif kinds <= {UpstreamErrorKind.REJECTED, UpstreamErrorKind.AUTHENTICATION} and not error.is_budget_spent:
        # Trying again changes nothing until the request or the configuration does.
        code = grpc.StatusCode.FAILED_PRECONDITION
    if code is not grpc.StatusCode.FAILED_PRECONDITION:
        details.append(RetryInfo(retry_delay=duration(error.retry_after_s)))
    attempts = routing_pb2.AttemptsExhausted(
        decision_id=error.decision_id, attempts=[attempt_failed_to_proto(failure) for failure in error.failures]
    )
    return _status(
        code,
        str(error),
        error_reason_pb2.ERROR_REASON_ATTEMPTS_EXHAUSTED,
        {"decision_id": error.decision_id, "attempt_count": str(len(error.failures))}
        | ({"stopped_by": "retry_budget"} if error.is_budget_spent else {}),
        attempts,
        *details,
    )


@_failure.register
def _(error: StreamBrokenError) -> Failure:
    return _status(
        grpc.StatusCode.UNAVAILABLE,
        str(error),
        error_reason_pb2.ERROR_REASON_STREAM_BROKEN,
        {
            "endpoint": error.failure.endpoint_name,
            "delta_count": str(error.delta_count),
            "character_count": str(error.character_count),
            "cause": error.failure.kind.value,
        },
    )
