"""Messages that several tests answer with."""

from __future__ import annotations

from pointsman.durations import duration
from pointsman.v1.chat_pb2 import FINISH_REASON_STOP, Delta, Usage
from pointsman.v1.router_service_pb2 import Done
from pointsman.v1.routing_pb2 import (
    Arm,
    Assignment,
    AttemptFailed,
    AttemptFailureKind,
    AttemptStarted,
    BreakerState,
    Candidate,
    Decision,
    DecisionReason,
    Endpoint,
    EndpointRuntime,
    EndpointStatus,
    LatencyEstimate,
    Metric,
    QualityArtifact,
    QualityPrediction,
    Rejection,
    RejectionReason,
    Router,
    ShadowDecision,
)


def latency(*, mean_s: float, p50_s: float, p95_s: float) -> LatencyEstimate:
    """A latency without its 99th percentile."""
    return LatencyEstimate(mean=duration(mean_s), p50=duration(p50_s), p95=duration(p95_s))


RUNNER = Candidate(
    endpoint="small@north",
    model="small",
    provider="north",
    rank=1,
    utility=0.7312,
    probability=0.9,
    quality=QualityPrediction(mean=0.74, low=0.61, high=0.85),
    output_token_count=180,
    cost_usd=0.00021,
    ttft=latency(mean_s=0.25, p50_s=0.21, p95_s=0.48),
    inter_token_latency=latency(mean_s=0.0084, p50_s=0.008, p95_s=0.011),
)
"""Everything is known of it."""

NEWCOMER = Candidate(
    endpoint="large@south",
    model="large",
    provider="south",
    rank=2,
    utility=0.6987,
    probability=0.1,
    quality=QualityPrediction(mean=0.91, low=0.84, high=0.96),
    cost_usd=0.0123,
)
"""It was never observed, so its latencies are unknown."""

REJECTED = Candidate(
    endpoint="large@west",
    model="large",
    provider="west",
    rejections=[
        Rejection(
            reason=RejectionReason.REJECTION_REASON_BOUND_VIOLATED,
            constraint="time-to-first-token.p95<500",
            metric=Metric.METRIC_TTFT,
            limit=0.5,
            actual=0.812,
        )
    ],
)
"""Too slow."""

DECISION = Decision(
    id="0193f2a0-0001",
    endpoint="small@north",
    model="small",
    provider="north",
    reason=DecisionReason.DECISION_REASON_BEST_UTILITY,
    probability=0.9,
    candidates=[RUNNER, NEWCOMER, REJECTED],
    router="default",
    router_version="7c1e",
    runtime_age=duration(1.5),
    input_token_count=12,
    seed=7,
    quality_artifact="builtin@1.0",
)
"""A choice among three."""

SPLIT_DECISION = Decision()
SPLIT_DECISION.CopyFrom(DECISION)
SPLIT_DECISION.MergeFrom(
    Decision(
        assignment=Assignment(asked_router="default", probability=0.9, keyed=True),
        shadows=[
            ShadowDecision(
                router="cheap",
                router_version="55d0",
                quality_artifact="builtin@1.0",
                endpoint="large@south",
                reason=DecisionReason.DECISION_REASON_BEST_UTILITY,
                quality=NEWCOMER.quality,
                cost_usd=NEWCOMER.cost_usd,
            ),
        ],
    )
)
"""The same choice, by the router's own share of a split, beside a shadow that would have chosen otherwise."""

ANSWER_EVENTS = (
    DECISION,
    AttemptStarted(attempt_number=1, endpoint="small@north"),
    AttemptFailed(
        attempt_number=1,
        endpoint="small@north",
        kind=AttemptFailureKind.ATTEMPT_FAILURE_KIND_RATE_LIMITED,
        message="the provider answered HTTP 429",
        duration=duration(0.05),
    ),
    AttemptStarted(attempt_number=2, endpoint="large@south"),
    Delta(text="Signals "),
    Delta(text="are set.", reasoning="short"),
    Usage(attempt_number=2, endpoint="large@south", input_token_count=12, output_token_count=4, cost_usd=0.0101),
    Done(
        finish_reason=FINISH_REASON_STOP,
        endpoint="large@south",
        attempt_count=2,
        ttft=duration(0.31),
        duration=duration(0.62),
        cost_usd=0.0101,
    ),
)
"""An answer that came from the second endpoint."""

ENDPOINTS = [
    EndpointStatus(
        endpoint=Endpoint(
            name="large@south",
            model="large",
            provider="south",
            input_price_usd_per_million_tokens=2.5,
            output_price_usd_per_million_tokens=10,
            max_context_token_count=128_000,
        ),
        runtime=EndpointRuntime(breaker_state=BreakerState.BREAKER_STATE_CLOSED),
    ),
    EndpointStatus(
        endpoint=Endpoint(name="small@north", model="small", provider="north"),
        runtime=EndpointRuntime(
            ttft=RUNNER.ttft,
            inter_token_latency=RUNNER.inter_token_latency,
            output_tokens_per_second=119.5,
            error_rate=0.02,
            in_flight_count=3,
            breaker_state=BreakerState.BREAKER_STATE_OPEN,
            retry_after=duration(4),
            observation_count=57,
            age=duration(1.5),
        ),
    ),
]
"""One that was never observed, and one that is left alone for now."""

BUILTIN = QualityArtifact(name="builtin", version="1.0")

ROUTERS = [
    Router(
        name="cheap",
        version="7c1e",
        description="Good enough for less.",
        text="router@q:1|c:0.05",
        quality_artifact=BUILTIN,
    ),
    Router(
        name="default",
        version="7c1e",
        text="router@q:1|c:0.01",
        quality_artifact=BUILTIN,
        split=[Arm(router="cheap", share=0.1)],
        shadows=["cheap"],
    ),
]
"""Two named routers, one of which is tried out in the other's place, and beside it."""
