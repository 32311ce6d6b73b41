"""A decision in plain text: what each endpoint would give for this request, and why the others are out."""

from __future__ import annotations

import math
from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration

from pointsman.durations import seconds
from pointsman.v1.routing_pb2 import (
    Affinity,
    Candidate,
    Decision,
    DecisionReason,
    LatencyEstimate,
    Metric,
    Rejection,
    RejectionReason,
    ShadowDecision,
)

UNKNOWN = "?"
"""Stands for a value that is not known: neither zero nor infinite."""

HIGHEST_RISK = 0.5
"""The highest risk that a bound can state, and that is told apart."""

CANDIDATE_COLUMNS = ("rank", "endpoint", "quality", "cost", "ttft p50/p95", "itl", "utility", "chance")
"""What `candidate_cells` gives, in order."""

_REASONS: Mapping[DecisionReason.ValueType, str] = {
    DecisionReason.DECISION_REASON_ONLY_CANDIDATE: "nothing else is eligible",
    DecisionReason.DECISION_REASON_BEST_UTILITY: "it ranks first",
    DecisionReason.DECISION_REASON_NEAR_TIE: "drawn among near-ties of the best",
    DecisionReason.DECISION_REASON_FALLBACK: "the earlier alternatives have nothing eligible",
    DecisionReason.DECISION_REASON_EXPLORATION: "drawn to refresh what is known of it",
    DecisionReason.DECISION_REASON_PANIC: "all that would do fail of late; the best of them is tried",
}

_AFFINITIES: Mapping[Affinity.ValueType, str] = {
    Affinity.AFFINITY_KEPT: ", and has read the conversation before",
    Affinity.AFFINITY_LEFT: ", though others have read the conversation before",
}

_REJECTIONS: Mapping[RejectionReason.ValueType, str] = {
    RejectionReason.REJECTION_REASON_NOT_IN_SEARCH_SPACE: "not among what is allowed",
    RejectionReason.REJECTION_REASON_SKIPPED: "to be skipped",
    RejectionReason.REJECTION_REASON_BOUND_VIOLATED: "bound violated",
    RejectionReason.REJECTION_REASON_UNKNOWN_VALUE: "value unknown",
    RejectionReason.REJECTION_REASON_MISSING_CAPABILITY: "can't do it",
    RejectionReason.REJECTION_REASON_CONTEXT_TOO_SHORT: "context too short",
    RejectionReason.REJECTION_REASON_OUTPUT_TOO_SHORT: "output too short",
    RejectionReason.REJECTION_REASON_LABEL_MISMATCH: "lacks a label",
    RejectionReason.REJECTION_REASON_BREAKER_OPEN: "failed of late, left alone for now",
    RejectionReason.REJECTION_REASON_RATE_LIMITED: "limits our rate for now",
    RejectionReason.REJECTION_REASON_RISK_TOO_HIGH: "falls short of the best too often",
    RejectionReason.REJECTION_REASON_RISK_UNKNOWN: "how often it falls short of the best is unknown",
}

_LATENCIES = (Metric.METRIC_TTFT, Metric.METRIC_INTER_TOKEN_LATENCY, Metric.METRIC_END_TO_END_LATENCY)


def explain(decision: Decision) -> str:
    """The decision as lines of text: the choice with its reason, then a row for each candidate."""
    eligible = [candidate for candidate in decision.candidates if not candidate.rejections]
    rows = [CANDIDATE_COLUMNS, *map(candidate_cells, eligible)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(CANDIDATE_COLUMNS))]
    lines = [headline(decision)]
    if decision.candidates:
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
    lines += [
        f"{'-'.ljust(widths[0])}  {candidate.endpoint.ljust(widths[1])}  {rejection_text(candidate)}"
        for candidate in decision.candidates
        if candidate.rejections
    ]
    lines += [shadow_text(decision, shadow) for shadow in decision.shadows]
    return "\n".join(lines)


def headline(decision: Decision) -> str:
    """The choice in one line: the endpoint, why, by which router and quality model, and on how old an observation."""
    router = f"router {decision.router} {decision.router_version}"
    if decision.HasField("assignment"):
        asked = decision.assignment.asked_router
        whose = "its own" if asked == decision.router else f"{asked}'s"
        router += f", {_chance(decision.assignment.probability)} of {whose} split"
    if decision.quality_artifact:
        router += f", quality by {decision.quality_artifact}"
    if not decision.endpoint:
        return f"no endpoint is eligible ({router})"
    age = seconds(decision.runtime_age)
    observed = f"last observed {age:.1f} s ago" if decision.HasField("runtime_age") else "never observed"
    reason = _REASONS.get(decision.reason, "for an unknown reason") + _AFFINITIES.get(decision.affinity, "")
    return f"{decision.endpoint}: {reason} ({router}, {decision.input_token_count} input tokens, {observed})"


def shadow_text(decision: Decision, shadow: ShadowDecision) -> str:
    """What a shadow would have chosen, in one line."""
    router = f"shadow {shadow.router} {shadow.router_version}"
    if not shadow.endpoint:
        return f"{router}: no endpoint is eligible"
    choice = "the same" if shadow.endpoint == decision.endpoint else shadow.endpoint
    quality = f"{shadow.quality.mean:.2f}" if shadow.HasField("quality") else UNKNOWN
    cost = usd(shadow.cost_usd) if shadow.HasField("cost_usd") else UNKNOWN
    return f"{router}: {choice}, at quality {quality} and cost {cost}"


def candidate_cells(candidate: Candidate) -> tuple[str, ...]:
    """What is expected of an eligible candidate, as short texts in the order of `CANDIDATE_COLUMNS`."""
    quality = candidate.quality
    return (
        str(candidate.rank),
        candidate.endpoint,
        f"{quality.mean:.2f} ({quality.low:.2f}-{quality.high:.2f})" if candidate.HasField("quality") else UNKNOWN,
        usd(candidate.cost_usd) if candidate.HasField("cost_usd") else UNKNOWN,
        latency_range(candidate.ttft),
        milliseconds(candidate.inter_token_latency.mean) if candidate.inter_token_latency.HasField("mean") else UNKNOWN,
        f"{candidate.utility:.4f}" if candidate.HasField("utility") else UNKNOWN,
        _chance(candidate.probability),
    )


def _chance(probability: float) -> str:
    return "<1%" if 0 < probability < 0.005 else f"{probability:.0%}"


def rejection_text(candidate: Candidate) -> str:
    """Every reason why a candidate is rejected, such as "bound violated: time-to-first-token<500 (812 ms)"."""
    return "; ".join(_rejection_text(rejection) for rejection in candidate.rejections)


def _rejection_text(rejection: Rejection) -> str:
    reason = _REJECTIONS.get(rejection.reason, "for an unknown reason")
    constraint = f": {rejection.constraint}" if rejection.constraint else ""
    return f"{reason}{constraint}{_actual_text(rejection)}"


def _actual_text(rejection: Rejection) -> str:
    """What violates the constraint, in parentheses, such as " (812 ms)" or " (risk 13%)"."""
    if not rejection.HasField("actual"):
        return ""
    if rejection.reason == RejectionReason.REJECTION_REASON_RISK_TOO_HIGH:
        return (
            f" (risk above {HIGHEST_RISK:.0%})"
            if rejection.actual > HIGHEST_RISK
            else f" (risk {rejection.actual:.0%})"
        )
    return f" ({_metric_text(rejection.metric, rejection.actual)})"


def _metric_text(metric: Metric.ValueType, value: float) -> str:
    """A value with its unit where it is not obvious; latencies in ms, as router strings write them."""
    return f"{value * 1000:.4g} ms" if metric in _LATENCIES else f"{value:.4g}"


def latency_range(latency: LatencyEstimate) -> str:
    """Median and 95th percentile, such as "310/920 ms"."""
    if not (latency.HasField("p50") and latency.HasField("p95")):
        return UNKNOWN
    return f"{seconds(latency.p50) * 1000:.0f}/{milliseconds(latency.p95)}"


def milliseconds(value: Duration) -> str:
    """A latency, such as "310 ms"; to a tenth below 10 ms, where inter-token latencies live."""
    value_ms = seconds(value) * 1000
    return f"{value_ms:.1f} ms" if value_ms < 10 else f"{value_ms:.0f} ms"


def usd(value: float) -> str:
    """An amount of money to three significant digits, since one request costs a fraction of a cent."""
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 2
    return f"${value:.{max(decimals, 2)}f}"
