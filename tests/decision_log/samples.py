"""Records for the tests of the decision log."""

from __future__ import annotations

from pointsman_server.decision.decide import decide
from pointsman_server.decision.resolve import NamedRouter
from pointsman_server.decision.router_string import RouterAlternative, parse_router_string
from pointsman_server.decision.types import (
    Arm,
    DecisionInput,
    Endpoint,
    EndpointRuntime,
    Latency,
    Policy,
    QualityPrediction,
    RequestFacts,
    RuntimeSnapshot,
)
from pointsman_server.decision_log.records import (
    CompletionResult,
    LoggedAttempt,
    LoggedCompletion,
    LoggedDecision,
    LoggedReport,
    PromptTraits,
    Setting,
)
from pointsman_server.errors import UpstreamErrorKind

_LATENCY = Latency(0.5, 0.4, 0.8, 0.9, 1.5)
SAMPLE = DecisionInput(
    decision_id="d-1",
    facts=RequestFacts(11),
    alternatives=(Policy(),),
    endpoints=(Endpoint("large", "north", 1.0, 2.0), Endpoint("small", "north", 0.1, 0.2)),
    qualities={"large": QualityPrediction(0.9, 0.05, 200.0), "small": QualityPrediction(0.6, 0.05, 150.0)},
    snapshot=RuntimeSnapshot({"large@north": EndpointRuntime(_LATENCY, _LATENCY, 0.01, age_s=3.0)}),
    seed=7,
)
"""Two endpoints, one of which was never called."""

COMPLETION = LoggedCompletion(
    decision_id="d-1",
    time_unix_s=1764133042.125,
    result=CompletionResult.DONE,
    endpoint_name="large@north",
    ttft_s=0.25,
    duration_s=1.5,
    cost_usd=0.00125,
    attempt_count=2,
    attempts=(
        LoggedAttempt(number=1, endpoint_name="small@north", failure=UpstreamErrorKind.TIMEOUT),
        LoggedAttempt(
            number=2,
            endpoint_name="large@north",
            input_token_count=7,
            output_token_count=9,
            cached_input_token_count=4,
            cost_usd=0.1,
        ),
    ),
)
REPORT = LoggedReport(
    decision_id="d-1", time_unix_s=1764133050.0, endpoint_name="large@north", quality=0.75, quality_source="user"
)


def logged(
    given: DecisionInput,
    *,
    overlay: RouterAlternative | None = None,
    setting: Setting | None = None,
    prompt: PromptTraits | None = None,
    caller_seeded: bool = False,
) -> LoggedDecision:
    """A record of a decision on this input."""
    return LoggedDecision(
        time_unix_s=1764133042.0625,
        given=given,
        decision=decide(given),
        asked=parse_router_string("cheap@q:1|ttft.p95<800->router"),
        overlay=overlay or RouterAlternative(head=""),
        served=True,
        setting=setting
        or Setting(
            given.endpoints,
            {"large": "large-1"},
            {"default": NamedRouter("default", split=(Arm("cheap", 0.25),)), "cheap": NamedRouter("cheap")},
            {"default": "builtin@1"},
        ),
        prompt=prompt or PromptTraits(11, (0.5, 0.25)),
        caller_seeded=caller_seeded,
    )
