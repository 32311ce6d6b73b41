"""Decisions as messages, written fast: one has hundreds of sub-messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration
from pointsman.v1 import routing_pb2

from pointsman_server.decision.metrics import Metric
from pointsman_server.decision.types import Candidate, Decision, Latency, QualityPrediction, UtilityColumn
from pointsman_server.edge.convert import (
    AFFINITY_TO_PROTO,
    DECISION_REASON_TO_PROTO,
    METRIC_TO_PROTO,
    duration,
    fill_duration,
    latency_to_proto,
    rejection_to_proto,
    timestamp,
)

INTERVAL_NORMAL_QUANTILE = 1.6448536269514722
"""Standard normal quantile at 0.95: mean -+ this many standard errors is the 90 % interval that is shown."""
TEMPLATE_COUNT_MAX = 4096
"""Endpoints of which `_Templates` keeps something; beyond them it begins anew."""


def fill_decision(
    message: routing_pb2.Decision,
    decision: Decision,
    *,
    input_token_count: int,
    decide_time_s: float,
    router_text: str,
    shadows: Iterable[Decision] = (),
    with_candidates: bool = True,
) -> None:
    """Writes the decision as it is shown into an empty message; `decide_time_s` is Unix time."""
    message.id = decision.decision_id
    message.router = decision.router_name
    message.router_version = decision.router_version
    message.input_token_count = input_token_count
    message.seed = decision.seed
    message.decide_time.CopyFrom(timestamp(decide_time_s))
    message.quality_artifact = decision.quality_artifact
    message.router_text = router_text
    if decision.runtime_age_s is not None:
        message.runtime_age.CopyFrom(duration(decision.runtime_age_s))
    if (chosen := decision.chosen) is not None and decision.reason is not None:
        message.endpoint = chosen.endpoint.name
        message.model = chosen.endpoint.model
        message.provider = chosen.endpoint.provider
        message.reason = DECISION_REASON_TO_PROTO[decision.reason]
        message.probability = chosen.probability
    assigned = decision.assignment
    if assigned.split_name:
        message.assignment.asked_router = assigned.split_name
        message.assignment.probability = assigned.probability
        message.assignment.keyed = assigned.keyed
    message.affinity = AFFINITY_TO_PROTO[decision.affinity]
    if with_candidates:
        _fill_candidates(message, decision.candidates)
    message.shadows.extend([_shadow_to_proto(shadow) for shadow in shadows])


def _shadow_to_proto(shadow: Decision) -> routing_pb2.ShadowDecision:
    message = routing_pb2.ShadowDecision(
        router=shadow.router_name,
        router_version=shadow.router_version,
        quality_artifact=shadow.quality_artifact,
    )
    if (chosen := shadow.chosen) is not None and shadow.reason is not None:
        message.endpoint = chosen.endpoint.name
        message.reason = DECISION_REASON_TO_PROTO[shadow.reason]
        if chosen.quality is not None:
            _fill_quality(message.quality, chosen.quality)
        if chosen.cost_usd is not None:
            message.cost_usd = chosen.cost_usd
    return message


def _fill_candidates(message: routing_pb2.Decision, candidates: Iterable[Candidate]) -> None:
    """Adds candidates in their order, ranked from 1 where eligible.

    A decision has hundreds of sub-messages, and to build each on its own takes six times as long as this: what most
    candidates have is written into messages that are kept, and copied as a whole (make bench-overhead).
    """
    add = message.candidates.add
    columns: tuple[UtilityColumn, ...] | None = None
    weights: _Weights = ()
    is_any_assumed = False
    for rank, candidate in enumerate(candidates, start=1):
        if candidate.columns is not columns:
            columns = candidate.columns
            weights = tuple([(column.metric, column.weight) for column in columns])
            is_any_assumed = any(any(column.assumed) for column in columns)
        added = add()
        added.CopyFrom(_templates.filled(candidate, weights))
        if candidate.utility is not None:
            added.rank = rank
            added.utility = candidate.utility
            added.probability = candidate.probability
        if candidate.output_token_count is not None:
            added.output_token_count = candidate.output_token_count
        if candidate.cost_usd is not None:
            added.cost_usd = candidate.cost_usd
        if candidate.error_rate is not None:
            added.error_rate = candidate.error_rate
        # What few have.
        if is_any_assumed:
            for term, column in zip(added.utility_terms, candidate.columns, strict=True):
                term.assumed = column.assumed[candidate.row]
        if candidate.alternative:
            added.alternative = candidate.alternative
        if candidate.cached_input_token_count:
            added.cached_input_token_count = candidate.cached_input_token_count
        if candidate.shortfall_risk is not None:
            added.shortfall_risk = candidate.shortfall_risk
        if candidate.rejections:
            added.rejections.extend([rejection_to_proto(rejection) for rejection in candidate.rejections])


_Weights = tuple[tuple[Metric, float], ...]
"""What makes up the terms of a utility."""


class _Template(NamedTuple):
    """A candidate's message that is kept, with the sub-messages that are written anew for each decision."""

    weights: _Weights
    ttft_s: Latency | None
    inter_token_latency_s: Latency | None
    message: routing_pb2.Candidate
    quality: routing_pb2.QualityPrediction | None
    end_to_end_latency: Duration | None
    runtime_age: Duration | None
    terms: list[routing_pb2.UtilityTerm]


class _Templates:
    """A template for each endpoint, made anew when the endpoint was observed or its candidates have other parts; 2 kB each."""

    def __init__(self) -> None:
        self._by_endpoint: dict[str, _Template] = {}

    def filled(self, candidate: Candidate, weights: _Weights) -> routing_pb2.Candidate:
        """The names, predictions, latencies and terms of the candidate, whose columns have these weights; good until the next
        one of the same endpoint."""
        # Read at once: one by one takes as long as the writing.
        endpoint, quality, _, _, ttft_s, gap_s, duration_s, _, age_s, _, _, columns, row, *_ = candidate
        template = self._by_endpoint.get(endpoint.name)
        if (
            template is None
            # The very same latencies tell that nothing is new: to compare them by value would take as long as to write them.
            or template.ttft_s is not ttft_s
            or template.inter_token_latency_s is not gap_s
            or (template.quality is None) is not (quality is None)
            or (template.end_to_end_latency is None) is not (duration_s is None)
            or (template.runtime_age is None) is not (age_s is None)
            or template.weights != weights
        ):
            template = self._new(candidate, weights)
        _, _, _, message, quality_part, duration_part, age_part, terms = template
        if quality is not None and quality_part is not None:
            _fill_quality(quality_part, quality)
        if duration_s is not None and duration_part is not None:
            fill_duration(duration_part, duration_s)
        if age_s is not None and age_part is not None:
            fill_duration(age_part, age_s)
        for term, (_, _, values, _, contributions) in zip(terms, columns, strict=True):
            term.value = values[row]
            term.contribution = contributions[row]
        return message

    def _new(self, candidate: Candidate, weights: _Weights) -> _Template:
        if len(self._by_endpoint) >= TEMPLATE_COUNT_MAX:
            self._by_endpoint.clear()
        endpoint = candidate.endpoint
        message = routing_pb2.Candidate(
            endpoint=endpoint.name,
            model=endpoint.model,
            provider=endpoint.provider,
            ttft=latency_to_proto(candidate.ttft_s),
            inter_token_latency=latency_to_proto(candidate.inter_token_latency_s),
            quality=None if candidate.quality is None else routing_pb2.QualityPrediction(),
            end_to_end_latency=None if candidate.end_to_end_latency_s is None else Duration(),
            runtime_age=None if candidate.runtime_age_s is None else Duration(),
            utility_terms=[
                routing_pb2.UtilityTerm(metric=METRIC_TO_PROTO[metric], weight=weight) for metric, weight in weights
            ],
        )
        template = _Template(
            weights=weights,
            ttft_s=candidate.ttft_s,
            inter_token_latency_s=candidate.inter_token_latency_s,
            message=message,
            quality=message.quality if message.HasField("quality") else None,
            end_to_end_latency=message.end_to_end_latency if message.HasField("end_to_end_latency") else None,
            runtime_age=message.runtime_age if message.HasField("runtime_age") else None,
            terms=list(message.utility_terms),
        )
        self._by_endpoint[endpoint.name] = template
        return template


_templates = _Templates()


def _fill_quality(message: routing_pb2.QualityPrediction, quality: QualityPrediction) -> None:
    mean = quality.mean
    spread = INTERVAL_NORMAL_QUANTILE * quality.standard_error
    low, high = mean - spread, mean + spread
    message.mean = mean
    # Calls of `max` and `min` would take as long as writing the message.
    message.low = low if low > 0.0 else 0.0  # noqa: FURB136
    message.high = high if high < 1.0 else 1.0  # noqa: FURB136
