"""Every way in which a request can fail, in one tree that knows no transport.

    PointsmanError
    +- InvalidRequestError          the request itself is wrong; lists every violation
    +- MessageTooLargeError         the request is larger than this server takes
    +- UndecodableMessageError      the request is not the protobuf that the method takes
    +- NoEligibleEndpointError      no endpoint satisfies the constraints; carries the decision with its rejections
    +- EndpointsUnavailableError    some endpoint would satisfy them, but all are down or rate limited for now
    +- OverloadedError              this router has no room for the request
    +- UnauthenticatedError         the caller did not prove who it is
    +- UnknownDecisionError         an outcome names a decision that this server does not remember
    +- UpstreamError                one attempt failed
    |  +- UpstreamConnectError      no connection, so nothing was sent
    |  +- UpstreamTimeoutError      no first token, or no further token, in time
    |  +- UpstreamStatusError       the provider answered with an error status
    |  +- UpstreamProtocolError     the answer is not what the protocol says
    |  +- UpstreamDisconnectedError the answer broke off
    |  +- UpstreamUnsupportedError  the provider can't do what is asked, so it was not called
    +- DeadlineExceededError        the caller's deadline passed, or leaves no time for an attempt
    +- AttemptsExhaustedError       every attempt failed before the stream was committed
    +- StreamBrokenError            an attempt failed after text had been sent
    +- ConfigError                  the configuration is wrong; lists every fault with its path
    +- ArtifactError                a quality artifact can't be loaded

`edge/errors.py` turns these into gRPC statuses; nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pointsman_server.decision.types import Candidate, Decision


class PointsmanError(Exception):
    """Base of everything that is raised on purpose. Its text is safe to show: no secret, no prompt."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One fault in a request or a configuration."""

    field: str
    """Path of the field, such as `constraints.ttft.max` or `endpoints[2].provider`."""
    description: str
    """What is wrong and what would be right."""


class InvalidRequestError(PointsmanError):
    """The request is wrong in itself; every violation is listed."""

    def __init__(self, violations: tuple[FieldViolation, ...]) -> None:
        assert violations, "an invalid request has at least one violation"
        self.violations = violations
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))


class MessageTooLargeError(PointsmanError):
    """The request is larger than this server takes."""

    def __init__(self, *, actual_bytes: int, limit_bytes: int) -> None:
        self.actual_bytes = actual_bytes
        self.limit_bytes = limit_bytes
        super().__init__(f"the request has {actual_bytes} bytes; this server takes at most {limit_bytes}")


class UndecodableMessageError(PointsmanError):
    """The request is not the protobuf message that the method takes."""

    def __init__(self, message_name: str) -> None:
        super().__init__(f"the request is not a serialised {message_name}")


class NoEligibleEndpointError(PointsmanError):
    """No endpoint satisfies the constraints. The decision says why, for each, and what change would be enough."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        super().__init__(f"none of {len(decision.candidates)} endpoints satisfies the constraints")


class EndpointsUnavailableError(PointsmanError):
    """At least one endpoint satisfies the constraints, but every such one is down or rate limited."""

    def __init__(
        self, decision: Decision, *, waiting: tuple[Candidate, ...], retry_after_s: float, rate_limited: bool
    ) -> None:
        self.decision = decision
        self.waiting = waiting
        """Those that satisfy the constraints."""
        self.retry_after_s = retry_after_s
        self.rate_limited = rate_limited
        """Whether every one of them is rate limited, rather than down."""
        super().__init__("every endpoint that satisfies the constraints is unavailable at the moment")

    @property
    def waited_for(self) -> frozenset[str]:
        """The names of the endpoints that satisfy the constraints."""
        return frozenset([one.endpoint.name for one in self.waiting])


class OverloadedError(PointsmanError):
    """This router is at its own limit."""

    def __init__(self, *, limit: int, retry_after_s: float) -> None:
        self.limit = limit
        self.retry_after_s = retry_after_s
        super().__init__(f"the router is serving its limit of {limit} concurrent requests")


class UnauthenticatedError(PointsmanError):
    """The call carries no valid API key."""

    def __init__(self) -> None:
        super().__init__("this server wants an API key: send it as `authorization: Bearer KEY`")


class UnknownDecisionError(PointsmanError):
    """An outcome names a decision that this server does not remember."""

    def __init__(self, decision_id: str) -> None:
        self.decision_id = decision_id
        super().__init__("this server remembers no decision with that id")


class UpstreamErrorKind(StrEnum):
    """What kind of failure an attempt met; the value is the `error.type` of telemetry."""

    CONNECT = "connect"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    AUTHENTICATION = "authentication"
    REJECTED = "rejected"
    """The provider calls the request wrong: another provider may accept it, the same one won't."""
    SERVER_ERROR = "server_error"
    PROTOCOL = "protocol"
    DISCONNECTED = "disconnected"


class UpstreamError(PointsmanError):
    """One attempt failed. The text never holds the provider's own words: they may quote the prompt or the key."""

    def __init__(self, kind: UpstreamErrorKind, message: str, *, retry_after_s: float | None = None) -> None:
        self.kind = kind
        self.retry_after_s = retry_after_s
        super().__init__(message)


class UpstreamConnectError(UpstreamError):
    """No connection to the provider, so it has seen nothing of the request."""

    def __init__(self, message: str) -> None:
        super().__init__(UpstreamErrorKind.CONNECT, message)


class UpstreamTimeoutError(UpstreamError):
    """The provider was silent for too long."""

    def __init__(self, message: str) -> None:
        super().__init__(UpstreamErrorKind.TIMEOUT, message)


class UpstreamStatusError(UpstreamError):
    """The provider answered with an error status."""

    def __init__(
        self,
        http_status: int,
        *,
        retry_after_s: float | None = None,
        detail: str = "",
        kind: UpstreamErrorKind | None = None,
    ) -> None:
        self.http_status = http_status
        suffix = f" ({detail})" if detail else ""
        super().__init__(
            kind_of_status(http_status) if kind is None else kind,
            f"the provider answered HTTP {http_status}{suffix}",
            retry_after_s=retry_after_s,
        )


def kind_of_status(http_status: int) -> UpstreamErrorKind:
    """What an HTTP error status says of the provider's health."""
    if http_status in (401, 403):
        return UpstreamErrorKind.AUTHENTICATION
    if http_status == 429:
        return UpstreamErrorKind.RATE_LIMITED
    if http_status in (408, 504):
        return UpstreamErrorKind.TIMEOUT
    return UpstreamErrorKind.REJECTED if 400 <= http_status < 500 else UpstreamErrorKind.SERVER_ERROR


class UpstreamProtocolError(UpstreamError):
    """The provider's answer is not what its protocol says."""

    def __init__(self, message: str) -> None:
        super().__init__(UpstreamErrorKind.PROTOCOL, message)


class UpstreamDisconnectedError(UpstreamError):
    """The provider's answer broke off."""

    def __init__(self, message: str) -> None:
        super().__init__(UpstreamErrorKind.DISCONNECTED, message)


class UpstreamUnsupportedError(UpstreamError):
    """The provider's API has no way to say what the request asks for. Nothing was sent: leaving it out would change what
    is asked."""

    def __init__(self, what: str) -> None:
        super().__init__(UpstreamErrorKind.REJECTED, f"the provider's API can't be asked for {what}")


class DeadlineExceededError(PointsmanError):
    """The caller's deadline has passed, or leaves too little time for an attempt."""

    def __init__(self, *, delta_count: int) -> None:
        self.delta_count = delta_count
        super().__init__("the deadline passed before the answer was complete")


@dataclass(frozen=True, slots=True)
class AttemptFailure:
    """One failed attempt, as shown to the caller."""

    attempt_number: int
    endpoint_name: str
    kind: UpstreamErrorKind
    message: str
    duration_s: float


class AttemptsExhaustedError(PointsmanError):
    """Every attempt failed, and nothing had been sent to the caller yet."""

    def __init__(
        self,
        failures: tuple[AttemptFailure, ...],
        *,
        decision_id: str,
        retry_after_s: float,
        is_budget_spent: bool = False,
    ) -> None:
        assert failures, "without an attempt there is nothing to exhaust"
        self.failures = failures
        self.decision_id = decision_id
        self.retry_after_s = retry_after_s
        self.is_budget_spent = is_budget_spent
        """Another endpoint could have been tried, but so many failovers have come to nothing that no more are made."""
        text = f"all {len(failures)} attempts failed, the last with: {failures[-1].message}"
        super().__init__(f"{text}; no other endpoint was tried, the retry budget is spent" if is_budget_spent else text)


class StreamBrokenError(PointsmanError):
    """An attempt failed after part of its answer had been sent; the stream can't be restarted unseen."""

    def __init__(self, failure: AttemptFailure, *, delta_count: int, character_count: int) -> None:
        self.failure = failure
        self.delta_count = delta_count
        self.character_count = character_count
        super().__init__(f"the answer broke off after {character_count} characters: {failure.message}")


class ConfigError(PointsmanError):
    """The configuration is wrong; every fault is listed with its path."""

    def __init__(self, source: str, violations: tuple[FieldViolation, ...]) -> None:
        assert violations, "a wrong configuration has at least one fault"
        self.source = source
        self.violations = violations
        lines = "\n".join(f"  {v.field}: {v.description}" for v in violations)
        super().__init__(f"{source} is not valid:\n{lines}")


class ArtifactError(PointsmanError):
    """A quality artifact is missing, corrupted, or of another schema."""
