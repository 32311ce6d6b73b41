"""How failed calls become errors."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
import pointsman
import pytest
from client.samples import REJECTED
from client.scripted_server import Failure, ScriptedServer, events
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from hypothesis import given
from hypothesis import strategies as st
from pointsman import AsyncClient, Client, PointsmanError
from pointsman.durations import duration
from pointsman.errors import ERROR_BY_REASON, CallStatus, error_of
from pointsman.v1.chat_pb2 import Delta
from pointsman.v1.error_reason_pb2 import ErrorReason
from pointsman.v1.routing_pb2 import AttemptFailed, AttemptsExhausted, BoundChange, NoEligibleEndpoint, Relaxation

_RETRY = RetryInfo(retry_delay=duration(2.5))
_QUOTA = QuotaFailure(violations=[QuotaFailure.Violation(subject="concurrent requests", description="1000 at once")])
_VIOLATIONS = BadRequest(
    field_violations=[
        BadRequest.FieldViolation(field="conversation.messages", description="is empty"),
        BadRequest.FieldViolation(field="routing.seed", description="is too large"),
    ]
)
_ATTEMPTS = AttemptsExhausted(decision_id="d1", attempts=[AttemptFailed(attempt_number=1, endpoint="small@north")])
_NO_ENDPOINT = NoEligibleEndpoint(
    decision_id="d1",
    candidates=[REJECTED],
    relaxations=[
        Relaxation(
            endpoint="large@west", changes=[BoundChange(bound="ttft<500", relaxed_bound="ttft<812")], distance=0.624
        )
    ],
)
_BROKEN = {"endpoint": "small@north", "delta_count": "17", "character_count": "311", "cause": "timeout"}


def _failure(
    code: grpc.StatusCode, reason: str, *details: Message, metadata: Mapping[str, str] | None = None
) -> Failure:
    return Failure(code, f"about {reason}", f"ERROR_REASON_{reason}", metadata or {}, details)


_CODE = grpc.StatusCode


@pytest.mark.parametrize(
    ("failure", "kind", "attributes"),
    [
        (
            _failure(_CODE.INVALID_ARGUMENT, "INVALID_REQUEST", _VIOLATIONS),
            pointsman.InvalidRequestError,
            {
                "violations": (
                    pointsman.Violation("conversation.messages", "is empty"),
                    pointsman.Violation("routing.seed", "is too large"),
                )
            },
        ),
        (
            _failure(_CODE.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", metadata={"limit_bytes": "8388608"}),
            pointsman.ResourceExhaustedError,
            {"retry_after_s": None, "violations": (), "metadata": {"limit_bytes": "8388608"}},
        ),
        (
            _failure(_CODE.INVALID_ARGUMENT, "UNDECODABLE_MESSAGE"),
            pointsman.InvalidRequestError,
            {"violations": ()},
        ),
        (
            _failure(_CODE.FAILED_PRECONDITION, "NO_ELIGIBLE_ENDPOINT", _NO_ENDPOINT),
            pointsman.NoEligibleEndpointError,
            {
                "decision_id": "d1",
                "candidates": (REJECTED,),
                "relaxations": tuple(_NO_ENDPOINT.relaxations),
            },
        ),
        (
            _failure(_CODE.UNAVAILABLE, "ENDPOINTS_DOWN", _RETRY),
            pointsman.UnavailableError,
            {"retry_after_s": 2.5},
        ),
        (
            _failure(_CODE.RESOURCE_EXHAUSTED, "ENDPOINTS_RATE_LIMITED", _RETRY, _QUOTA),
            pointsman.ResourceExhaustedError,
            {"retry_after_s": 2.5, "violations": (pointsman.Violation("concurrent requests", "1000 at once"),)},
        ),
        (
            _failure(_CODE.UNAVAILABLE, "ATTEMPTS_EXHAUSTED", _ATTEMPTS, _RETRY),
            pointsman.AttemptsExhaustedError,
            {"decision_id": "d1", "attempts": tuple(_ATTEMPTS.attempts), "retry_after_s": 2.5},
        ),
        (
            _failure(_CODE.FAILED_PRECONDITION, "ATTEMPTS_EXHAUSTED", _ATTEMPTS),
            pointsman.AttemptsExhaustedError,
            {"retry_after_s": None},
        ),
        (
            _failure(_CODE.UNAVAILABLE, "STREAM_BROKEN", metadata=_BROKEN),
            pointsman.StreamBrokenError,
            {"endpoint": "small@north", "delta_count": 17, "character_count": 311, "cause": "timeout"},
        ),
        (
            _failure(_CODE.RESOURCE_EXHAUSTED, "OVERLOADED", _RETRY, _QUOTA),
            pointsman.ResourceExhaustedError,
            {"retry_after_s": 2.5},
        ),
        (_failure(_CODE.UNAUTHENTICATED, "UNAUTHENTICATED"), pointsman.UnauthenticatedError, {}),
        (
            _failure(_CODE.NOT_FOUND, "UNKNOWN_DECISION", metadata={"decision_id": "d1"}),
            pointsman.NotFoundError,
            {"metadata": {"decision_id": "d1"}},
        ),
        (
            _failure(_CODE.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", metadata={"delta_count": "17"}),
            pointsman.DeadlineExceededError,
            {"delta_count": 17},
        ),
        (
            _failure(_CODE.INTERNAL, "INTERNAL", metadata={"error_id": "5f2c"}),
            pointsman.InternalError,
            {"error_id": "5f2c"},
        ),
        # A newer server's reason, and none at all: the code decides.
        (_failure(_CODE.NOT_FOUND, "OF_TOMORROW"), pointsman.NotFoundError, {"reason": "ERROR_REASON_OF_TOMORROW"}),
        (_failure(_CODE.ABORTED, "OF_TOMORROW"), PointsmanError, {"code": _CODE.ABORTED}),
        (Failure(_CODE.UNAVAILABLE, "by a proxy"), pointsman.UnavailableError, {"reason": "", "retry_after_s": None}),
        (Failure(_CODE.CANCELLED, "by a stop"), pointsman.UnavailableError, {"code": _CODE.CANCELLED}),
        (Failure(_CODE.PERMISSION_DENIED, "by a proxy"), PointsmanError, {"message": "by a proxy"}),
        (Failure(_CODE.INTERNAL), pointsman.InternalError, {"error_id": "", "message": "INTERNAL"}),
        # A proxy's own ErrorInfo is not ours.
        (
            Failure(_CODE.INTERNAL, details=(ErrorInfo(domain="proxy", reason="ERROR_REASON_OVERLOADED"),)),
            pointsman.InternalError,
            {"reason": ""},
        ),
        # Details that can't be decoded leave the code and the message.
        (
            Failure(_CODE.UNAVAILABLE, "garbled", trailer=b"\xff\xff\xff"),
            pointsman.UnavailableError,
            {"reason": "", "message": "garbled"},
        ),
    ],
    ids=lambda value: value.reason or value.message or value.code.name if isinstance(value, Failure) else "",
)
async def test_every_failure_has_its_error(
    server: ScriptedServer, failure: Failure, kind: type[PointsmanError], attributes: Mapping[str, object]
) -> None:
    """A failed call raises, in both clients, the error of its reason with all that its details say."""
    server.on("Complete", [*events(Delta(text="Sig")), failure])
    server.on("ReportOutcome", failure)
    with Client(server.target) as client, pytest.raises(PointsmanError) as ours:
        client.complete_text("Hello")
    async with AsyncClient(server.target) as async_client:
        with pytest.raises(PointsmanError) as theirs:
            await async_client.complete_text("Hello")
        with pytest.raises(PointsmanError) as unary:
            await async_client.report_outcome("d1")
    for error in (ours.value, theirs.value, unary.value):
        assert type(error) is kind
        assert error.code is failure.code
        assert str(error) == error.message == (failure.message or failure.code.name)
        assert {name: getattr(error, name) for name in attributes} == attributes


def test_every_reason_of_the_contract_has_its_error() -> None:
    """No reason of the contract is without an error of its own, and there is none beyond the contract."""
    assert set(ERROR_BY_REASON) == set(ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}


def test_hundreds_of_rejections_arrive(server: ScriptedServer) -> None:
    """The details of a refusal arrive whole even with as many rejected candidates as there can be."""
    many = NoEligibleEndpoint(candidates=[REJECTED] * 256)
    server.on("Route", _failure(_CODE.FAILED_PRECONDITION, "NO_ELIGIBLE_ENDPOINT", many))
    with Client(server.target) as client, pytest.raises(pointsman.NoEligibleEndpointError) as caught:
        client.route("Hello")
    assert len(caught.value.candidates) == 256


@given(
    code=st.sampled_from(_CODE),
    reason=st.sampled_from(sorted(ERROR_BY_REASON)) | st.text(),
    metadata=st.dictionaries(st.sampled_from(["delta_count", "character_count", "error_id"]), st.text()),
)
def test_any_status_has_an_error(code: grpc.StatusCode, reason: str, metadata: dict[str, str]) -> None:
    """Whatever a status says, and whatever it leaves out, there is an error for it that keeps it."""
    error = error_of(CallStatus(code, "message", reason, metadata))
    assert (error.code, error.reason, error.metadata) == (code, reason, metadata)
