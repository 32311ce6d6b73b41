"""The keyword arguments of the clients' calls, written once for both, and the requests that they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, TypedDict, Unpack

from pointsman.chat import Prompt, conversation
from pointsman.durations import duration
from pointsman.v1.router_service_pb2 import BreakPolicy, CompleteRequest, Execution, RouteRequest
from pointsman.v1.routing_pb2 import AttemptFailureKind, Constraints, Outcome, Preferences, Routing

Metadata: TypeAlias = Mapping[str, str | bytes]
"""Headers of a call, such as `traceparent`: lower-case keys; bytes only where the key ends in -bin."""

FailureName: TypeAlias = Literal[
    "connect", "timeout", "rate_limited", "authentication", "rejected", "server_error", "protocol", "disconnected"
]
"""What kind of failure a caller met; `AttemptFailureKind` says what each one means."""


class CallOptions(TypedDict, total=False):
    """What every call takes."""

    timeout_s: float | None
    """The deadline, from now. None: the client's default."""
    metadata: Metadata | None
    """Headers to send along. None: none."""


class RouteOptions(CallOptions, total=False):
    """What `route` takes."""

    router: str
    """A named router, a model, an endpoint, or a router as text. Empty: "default"."""
    constraints: Constraints | None
    """What must hold, in addition to what the router demands. None: nothing more."""
    preferences: Preferences | None
    """What is wished, in place of the router's own: what `weights` or `objective` give. None: the router's."""
    seed: int | None
    """Seed of the draw among near-ties, for decisions that can be repeated. None: the server draws one."""
    assignment_key: str
    """What belongs together, such as a user or a conversation: where a router shares its requests with others, all with
    the same key get the same one. At most 256 characters; hashed, never recorded. Empty: the seed decides."""
    conversation_id: str
    """What the turns of one conversation share, for prompt caches: needed only where its beginning changes from turn to
    turn, so that the text alone does not tell. At most 256 characters; hashed, never recorded."""
    include_shadows: bool
    """Whether the decision shows what each shadow of the router would have chosen. False by default."""


class CompleteOptions(RouteOptions, total=False):
    """What `complete` takes."""

    max_attempt_count: int | None
    """The most endpoints to try, 1 to 10. None: the server's default."""
    ttft_timeout_s: float | None
    """How long to wait at most for an attempt's first token before the next candidate is tried. None: the server's
    default."""
    on_break: Literal["fail", "restart"]
    """What happens when an answer breaks off after text was sent: `StreamBrokenError` (the default), or the next
    candidate answers from the start, and its AttemptStarted tells that what came before is void."""
    allow_hedging: bool
    """Whether a slow attempt may be raced by a second one at another provider, which can cost tokens twice. False by
    default."""
    omit_candidates: bool
    """Leaves the candidates out of the stream's decision. False by default."""


class OutcomeOptions(TypedDict, total=False):
    """What is known of an outcome. Everything that is absent or None was not measured."""

    endpoint: str
    """The endpoint that was called, model@provider. Empty: the chosen one."""
    ttft_s: float | None
    """Time to the first token."""
    duration_s: float | None
    """Time to the end of the answer, or to the failure."""
    input_token_count: int | None
    output_token_count: int | None
    failure: FailureName | None
    """What kind of failure it was. None: it did not fail."""
    quality: float | None
    """How good the answer was, 0 to 1. None: not judged."""
    quality_source: str
    """Who judged: "user", "judge:gpt-4o", "unit-test", ..."""


class ReportOutcomeOptions(OutcomeOptions, CallOptions, total=False):
    """What `report_outcome` takes."""


def reject_unknown(options: Mapping[str, object], taken: type) -> None:
    """Refuses a misspelt keyword argument, as a written-out signature would.

    Args:
        options: the arguments as they came.
        taken: the TypedDict of those that there are.

    Raises:
        TypeError: there is an argument that is not taken.
    """
    known = taken.__annotations__.keys()
    unknown = sorted(options.keys() - known)
    if unknown:
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}; there are {', '.join(sorted(known))}")


def route_request(prompt: Prompt, options: RouteOptions) -> RouteRequest:
    """The request for a decision."""
    reject_unknown(options, RouteOptions)
    return RouteRequest(conversation=conversation(prompt), routing=_routing(options))


def complete_request(prompt: Prompt, options: CompleteOptions) -> CompleteRequest:
    """The request for an answer."""
    reject_unknown(options, CompleteOptions)
    ttft_timeout_s = options.get("ttft_timeout_s")
    execution = Execution(
        max_attempt_count=options.get("max_attempt_count"),
        ttft_timeout=None if ttft_timeout_s is None else duration(ttft_timeout_s),
        break_policy=BreakPolicy.Value(f"BREAK_POLICY_{options.get('on_break', 'fail').upper()}"),
        allow_hedging=options.get("allow_hedging", False),
        omit_candidates=options.get("omit_candidates", False),
    )
    return CompleteRequest(conversation=conversation(prompt), routing=_routing(options), execution=execution)


def outcome(decision_id: str, **options: Unpack[OutcomeOptions]) -> Outcome:
    """What a caller saw of the call that it made after the decision with that id, or learned of its answer later."""
    reject_unknown(options, OutcomeOptions)
    return outcome_of(decision_id, options)


def outcome_of(decision_id: str, options: OutcomeOptions) -> Outcome:
    """The outcome that the options tell, whatever else they hold."""
    ttft_s = options.get("ttft_s")
    duration_s = options.get("duration_s")
    failure = options.get("failure") or "unspecified"
    return Outcome(
        decision_id=decision_id,
        endpoint=options.get("endpoint", ""),
        ttft=None if ttft_s is None else duration(ttft_s),
        duration=None if duration_s is None else duration(duration_s),
        input_token_count=options.get("input_token_count"),
        output_token_count=options.get("output_token_count"),
        failure=AttemptFailureKind.Value(f"ATTEMPT_FAILURE_KIND_{failure.upper()}"),
        quality=options.get("quality"),
        quality_source=options.get("quality_source", ""),
    )


def _routing(options: RouteOptions) -> Routing:
    return Routing(
        router=options.get("router", ""),
        constraints=options.get("constraints"),
        preferences=options.get("preferences"),
        seed=options.get("seed"),
        assignment_key=options.get("assignment_key", ""),
        conversation_id=options.get("conversation_id", ""),
        include_shadows=options.get("include_shadows", False),
    )
