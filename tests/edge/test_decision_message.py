"""Decisions as messages: fast to write, and still what they would be if each part were built by itself."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st
from pointsman.v1 import routing_pb2
from pointsman_server.decision.decide import decide
from pointsman_server.decision.types import Candidate, DecisionInput, Latency
from pointsman_server.edge.convert import METRIC_TO_PROTO, rejection_to_proto
from pointsman_server.edge.decision_message import INTERVAL_NORMAL_QUANTILE, fill_decision
from strategies import decision_inputs


def a_duration(value_s: float | None) -> Duration | None:
    """To the nanosecond below."""
    return None if value_s is None else Duration(seconds=int(value_s), nanos=int((value_s - int(value_s)) * 1e9))


def an_estimate(latency: Latency | None) -> routing_pb2.LatencyEstimate | None:
    """What a latency is expected to be."""
    if latency is None:
        return None
    return routing_pb2.LatencyEstimate(
        mean=a_duration(latency.mean),
        p50=a_duration(latency.p50),
        p95=a_duration(latency.p95),
        p99=a_duration(latency.p99),
    )


def plainly(candidate: Candidate, rank: int) -> routing_pb2.Candidate:
    """The message of a candidate, every field given to its constructor."""
    quality = None
    if candidate.quality is not None:
        spread = INTERVAL_NORMAL_QUANTILE * candidate.quality.standard_error
        quality = routing_pb2.QualityPrediction(
            mean=candidate.quality.mean,
            low=max(0.0, candidate.quality.mean - spread),
            high=min(1.0, candidate.quality.mean + spread),
        )
    return routing_pb2.Candidate(
        endpoint=candidate.endpoint.name,
        model=candidate.endpoint.model,
        provider=candidate.endpoint.provider,
        rank=0 if candidate.utility is None else rank,
        utility=candidate.utility,
        probability=candidate.probability,
        quality=quality,
        output_token_count=candidate.output_token_count,
        cost_usd=candidate.cost_usd,
        ttft=an_estimate(candidate.ttft_s),
        inter_token_latency=an_estimate(candidate.inter_token_latency_s),
        end_to_end_latency=a_duration(candidate.end_to_end_latency_s),
        error_rate=candidate.error_rate,
        runtime_age=a_duration(candidate.runtime_age_s),
        utility_terms=[
            routing_pb2.UtilityTerm(
                metric=METRIC_TO_PROTO[term.metric],
                weight=term.weight,
                value=term.value,
                assumed=term.assumed,
                contribution=term.contribution,
            )
            for term in candidate.terms
        ],
        rejections=[rejection_to_proto(rejection) for rejection in candidate.rejections],
        alternative=candidate.alternative,
        shortfall_risk=candidate.shortfall_risk,
        cached_input_token_count=candidate.cached_input_token_count,
    )


@given(inputs=st.lists(decision_inputs(), min_size=1, max_size=4))
def test_nothing_of_one_decision_is_left_in_the_next(inputs: list[DecisionInput]) -> None:
    """Decisions over endpoints of the same names, one after the other, twice, are each written as if there were no other,
    whatever was known, assumed or rejected in those before; and what was written before does not change."""
    written = []
    for decision in map(decide, [*inputs, *inputs]):
        message = routing_pb2.Decision()
        fill_decision(message, decision, input_token_count=1, decide_time_s=0.0, router_text="")
        expected = [plainly(candidate, rank) for rank, candidate in enumerate(decision.candidates, start=1)]
        written.append((message, expected))
    for message, expected in written:
        assert list(message.candidates) == expected
