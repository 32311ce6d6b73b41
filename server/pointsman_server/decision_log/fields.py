"""Parts of records as JSON values, one small function each way. What has its default is left out, so that lines stay short.

Every number is written so that reading it gives the very same number: Python prints the shortest text that does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pointsman_server.decision.metrics import METRIC_SPECS, Metric
from pointsman_server.decision.resolve import NamedRouter
from pointsman_server.decision.risk import RiskTable
from pointsman_server.decision.router_string import RouterAlternative
from pointsman_server.decision.types import (
    Arm,
    Bound,
    BoundChange,
    BreakerState,
    Candidate,
    Capability,
    Comparison,
    Direction,
    Endpoint,
    EndpointRuntime,
    Exploration,
    Latency,
    Objective,
    Policy,
    Preference,
    QualityPrediction,
    Rejection,
    RejectionReason,
    Relaxation,
    RequestFacts,
    RequestFeature,
    RuntimeSnapshot,
    SearchSpace,
    UtilityColumn,
    Weights,
)

Fields = dict[str, Any]
"""A JSON object. It goes no further than this module and `codec`."""

REMEMBERED_COUNT_MAX = 8192
"""Latencies and names whose texts are remembered: two of each endpoint of the largest catalog."""
SPACE_FIELDS = ("models", "providers", "endpoints", "skip_models", "skip_providers", "skip_endpoints")
PRICE_FIELDS = (
    "input_price_usd_per_mtok",
    "output_price_usd_per_mtok",
    "cached_input_price_usd_per_mtok",
    "cache_write_price_usd_per_mtok",
)
COUNT_FIELDS = ("context_token_count_max", "output_token_count_max")
_RUNTIME_DEFAULTS = EndpointRuntime()
_LATENCY_FIELDS = frozenset({"ttft_s", "inter_token_latency_s"})


def endpoint_fields(endpoint: Endpoint) -> Fields:
    """An endpoint of the catalog."""
    fields: Fields = {"model": endpoint.model, "provider": endpoint.provider}
    known = {name: getattr(endpoint, name) for name in (*PRICE_FIELDS, *COUNT_FIELDS)}
    fields |= {name: value for name, value in known.items() if value is not None}
    return fields | _sets(endpoint.capabilities, endpoint.labels) | _features("lacks", endpoint.lacks)


def endpoint_of(fields: Fields) -> Endpoint:
    """The same back."""
    known = {name: fields.get(name) for name in (*PRICE_FIELDS, *COUNT_FIELDS)}
    capabilities, labels = _sets_of(fields)
    return Endpoint(
        fields["model"],
        fields["provider"],
        **known,
        capabilities=capabilities,
        labels=labels,
        lacks=_features_of(fields, "lacks"),
    )


def _features(name: str, features: frozenset[RequestFeature]) -> Fields:
    return {name: sorted(features)} if features else {}


def _features_of(fields: Fields, name: str) -> frozenset[RequestFeature]:
    return frozenset(RequestFeature(feature) for feature in fields.get(name, ()))


def _sets(capabilities: frozenset[Capability], labels: frozenset[tuple[str, str]]) -> Fields:
    fields: Fields = {}
    if capabilities:
        fields["capabilities"] = sorted(capabilities)
    if labels:
        fields["labels"] = sorted(labels)
    return fields


def _sets_of(fields: Fields) -> tuple[frozenset[Capability], frozenset[tuple[str, str]]]:
    capabilities = frozenset(Capability(name) for name in fields.get("capabilities", ()))
    return capabilities, frozenset((key, value) for key, value in fields.get("labels", ()))


def bound_fields(bound: Bound) -> list[Any]:
    """A bound as [metric, comparison, limit, quantile]."""
    return [bound.metric, bound.comparison, bound.limit, bound.quantile]


def bound_of(fields: Sequence[Any]) -> Bound:
    """The same back."""
    metric, comparison, limit, quantile = fields
    return Bound(Metric(metric), Comparison(comparison), limit, quantile)


def preference_fields(preference: Preference) -> Fields:
    """Weights by metric, or the one metric that is sought."""
    match preference:
        case Weights(by_metric):
            return {"weights": dict(by_metric)}
        case Objective(metric, direction):
            return {"objective": [metric, direction]}


def preference_of(fields: Fields) -> Preference:
    """The same back."""
    if "weights" in fields:
        return Weights(tuple((Metric(metric), weight) for metric, weight in fields["weights"].items()))
    metric, direction = fields["objective"]
    return Objective(Metric(metric), Direction(direction))


def alternative_fields(alternative: Policy | RouterAlternative) -> Fields:
    """What one alternative demands and prefers; of a router string also what it names."""
    fields: Fields = {"head": alternative.head} if isinstance(alternative, RouterAlternative) else {}
    fields |= {name: sorted(names) for name in SPACE_FIELDS if (names := getattr(alternative.space, name))}
    if alternative.bounds:
        fields["bounds"] = [bound_fields(bound) for bound in alternative.bounds]
    fields |= _sets(alternative.capabilities, alternative.labels)
    return fields if alternative.preference is None else fields | preference_fields(alternative.preference)


def policy_of(fields: Fields) -> Policy:
    """A policy back."""
    capabilities, labels = _sets_of(fields)
    return Policy(_space_of(fields), _bounds_of(fields), capabilities, labels, preference_of(fields))


def router_alternative_of(fields: Fields) -> RouterAlternative:
    """An alternative of a router string back."""
    capabilities, labels = _sets_of(fields)
    preference = preference_of(fields) if fields.keys() & {"weights", "objective"} else None
    return RouterAlternative(fields["head"], _space_of(fields), _bounds_of(fields), capabilities, labels, preference)


def _space_of(fields: Fields) -> SearchSpace:
    return SearchSpace(**{name: frozenset(fields.get(name, ())) for name in SPACE_FIELDS})


def _bounds_of(fields: Fields) -> tuple[Bound, ...]:
    return tuple(bound_of(bound) for bound in fields.get("bounds", ()))


def exploration_fields(exploration: Exploration) -> Fields:
    """How much chance entered."""
    return {
        "rate": exploration.rate,
        "stale_after_s": exploration.stale_after_s,
        "near_tie_width": exploration.near_tie_width,
    }


def router_fields(router: NamedRouter) -> Fields:
    """A named router."""
    fields: Fields = {
        "alternatives": [alternative_fields(policy) for policy in router.alternatives],
        "exploration": exploration_fields(router.exploration),
    }
    if router.split:
        fields["split"] = [[arm.router_name, arm.share] for arm in router.split]
    return fields


def router_of(name: str, fields: Fields) -> NamedRouter:
    """The same back, without what no decision depends on."""
    return NamedRouter(
        name,
        tuple(policy_of(policy) for policy in fields["alternatives"]),
        Exploration(**fields["exploration"]),
        split=tuple(Arm(router_name, share) for router_name, share in fields.get("split", ())),
    )


def risk_table_fields(table: RiskTable) -> Fields:
    """What held-out prompts have shown of falling short."""
    return {
        "model_counts": table.model_counts,
        "shares": table.shares,
        "risks": table.risks,
        "gap_max": table.gap_max,
        "prompt_count": table.prompt_count,
    }


def risk_table_of(fields: Fields) -> RiskTable:
    """The same back."""
    return RiskTable(
        model_counts=tuple(fields["model_counts"]),
        shares=tuple(fields["shares"]),
        risks=tuple(fields["risks"]),
        gap_max=tuple(tuple(tuple(row) for row in table) for table in fields["gap_max"]),
        prompt_count=fields["prompt_count"],
    )


def facts_fields(facts: RequestFacts) -> Fields:
    """What the decision knew of the request."""
    fields: Fields = {"input_token_count": facts.input_token_count}
    if facts.output_token_count_max is not None:
        fields["output_token_count_max"] = facts.output_token_count_max
    return fields | _sets(facts.capabilities, frozenset()) | _features("features", facts.features)


def facts_of(fields: Fields) -> RequestFacts:
    """The same back."""
    return RequestFacts(
        fields["input_token_count"],
        fields.get("output_token_count_max"),
        _sets_of(fields)[0],
        _features_of(fields, "features"),
    )


class SnapshotWriter:
    """Writes the runtime state of every endpoint that was known of as JSON; latencies as [mean, p50, p90, p95, p99].

    The latencies of an endpoint are the same objects until it is observed again, so their texts are remembered: numbers
    are most of what a line costs. Memory: 0.5 kB for each of at most `REMEMBERED_COUNT_MAX`.
    """

    def __init__(self) -> None:
        self._latencies: dict[int, tuple[Latency, str]] = {}
        self._names: dict[str, str] = {}

    def text(self, snapshot: RuntimeSnapshot) -> str:
        """A JSON object by endpoint."""
        parts = [f"{self._name(name)}:{self._runtime(runtime)}" for name, runtime in snapshot.by_endpoint.items()]
        return f"{{{','.join(parts)}}}"

    def _runtime(self, runtime: EndpointRuntime) -> str:
        parts, values = [], tuple[object, ...](runtime)
        for name, value, usual in zip(EndpointRuntime._fields, values, _RUNTIME_DEFAULTS, strict=True):
            if value == usual:
                continue
            if isinstance(value, Latency):
                text = self._latency(value)
            elif isinstance(value, float):
                text = float.__repr__(value)
            elif type(value) is int:
                # As JSON has it, without a call of its encoder.
                text = int.__repr__(value)
            else:
                text = json.dumps(value)
            parts.append(f'"{name}":{text}')
        return f"{{{','.join(parts)}}}"

    def _name(self, name: str) -> str:
        known = self._names.get(name)
        if known is None:
            if len(self._names) >= REMEMBERED_COUNT_MAX:
                self._names.clear()
            known = self._names[name] = json.dumps(name)
        return known

    def _latency(self, latency: Latency) -> str:
        known = self._latencies.get(id(latency))
        if known is None:
            if len(self._latencies) >= REMEMBERED_COUNT_MAX:
                self._latencies.clear()
            # Holding the latency keeps its identity from being given to another one.
            known = self._latencies[id(latency)] = (latency, json.dumps(latency, separators=(",", ":")))
        return known[1]


def snapshot_of(fields: Fields) -> RuntimeSnapshot:
    """The same back."""
    return RuntimeSnapshot({name: _runtime_of(runtime) for name, runtime in fields.items()})


def _runtime_of(fields: Fields) -> EndpointRuntime:
    values: Fields = {name: latency_of(value) if name in _LATENCY_FIELDS else value for name, value in fields.items()}
    if "breaker" in values:
        values["breaker"] = BreakerState(values["breaker"])
    return EndpointRuntime(**values)


def latency_of(values: Sequence[float] | None) -> Latency | None:
    """A latency back."""
    return None if values is None else Latency(*values)


def candidate_fields(
    candidate: Candidate, runtime: EndpointRuntime, quality: QualityPrediction | None, weights: SignedWeights
) -> Fields:
    """A candidate. What it repeats of the snapshot, of the predictions and of the preference is left out."""
    fields: Fields = {"endpoint": candidate.endpoint.name}
    known: Fields = {
        "output_token_count": candidate.output_token_count,
        "cost_usd": candidate.cost_usd,
        "end_to_end_latency_s": candidate.end_to_end_latency_s,
        "utility": candidate.utility,
        "shortfall_risk": candidate.shortfall_risk,
    }
    fields |= {name: value for name, value in known.items() if value is not None}
    for name, value, usual in (
        ("quality", candidate.quality, quality),
        ("ttft_s", candidate.ttft_s, runtime.ttft_s),
        ("inter_token_latency_s", candidate.inter_token_latency_s, runtime.inter_token_latency_s),
        ("error_rate", candidate.error_rate, runtime.error_rate),
        ("runtime_age_s", candidate.runtime_age_s, runtime.age_s),
        ("alternative", candidate.alternative, 0),
        ("probability", candidate.probability, 0.0),
        ("cached_input_token_count", candidate.cached_input_token_count, 0.0),
    ):
        if value != usual:
            fields[name] = value
    if candidate.columns:
        fields["terms"] = [_term_fields(column, candidate.row, weights) for column in candidate.columns]
    if candidate.rejections:
        fields["rejections"] = [rejection_fields(rejection) for rejection in candidate.rejections]
    return fields


def candidate_of(
    fields: Fields,
    endpoint: Endpoint,
    runtime: EndpointRuntime,
    quality: QualityPrediction | None,
    weights: SignedWeights,
) -> Candidate:
    """The same back."""
    return Candidate(
        endpoint=endpoint,
        quality=_quality_of(fields["quality"]) if "quality" in fields else quality,
        output_token_count=fields.get("output_token_count"),
        cost_usd=fields.get("cost_usd"),
        ttft_s=latency_of(fields["ttft_s"]) if "ttft_s" in fields else runtime.ttft_s,
        inter_token_latency_s=(
            latency_of(fields["inter_token_latency_s"])
            if "inter_token_latency_s" in fields
            else runtime.inter_token_latency_s
        ),
        end_to_end_latency_s=fields.get("end_to_end_latency_s"),
        error_rate=fields.get("error_rate", runtime.error_rate),
        runtime_age_s=fields.get("runtime_age_s", runtime.age_s),
        alternative=fields.get("alternative", 0),
        utility=fields.get("utility"),
        columns=tuple(_column_of(term, weights) for term in fields.get("terms", ())),
        probability=fields.get("probability", 0.0),
        rejections=tuple(rejection_of(rejection) for rejection in fields.get("rejections", ())),
        shortfall_risk=fields.get("shortfall_risk"),
        cached_input_token_count=fields.get("cached_input_token_count", 0.0),
    )


SignedWeights = Mapping[Metric, tuple[float, float]]
"""Of each metric that is weighed its weight, and the same with the sign of its contribution."""


def signed_weights(preference: Preference) -> SignedWeights:
    """What the terms of a utility follow from, beside their values."""
    match preference:
        case Weights(by_metric):
            return {
                metric: (weight, weight if METRIC_SPECS[metric].higher_is_better else -weight)
                for metric, weight in by_metric
            }
        case Objective(metric, direction):
            return {metric: (1.0, 1.0 if direction is Direction.HIGHEST else -1.0)}


def _term_fields(column: UtilityColumn, row: int, weights: SignedWeights) -> Sequence[Any]:
    """A summand of the utility as [metric, value], with true behind them for a value that is assumed; whole where its
    weight and contribution do not follow from the preference. Read off its column: to make the terms would take longer."""
    metric, weight, values, assumed, contributions = column
    value = values[row]
    known, signed = weights.get(metric, (math.nan, math.nan))
    if weight != known or contributions[row] != signed * value:
        return (metric, weight, value, assumed[row], contributions[row])
    return (metric, value, True) if assumed[row] else (metric, value)


def _column_of(fields: Sequence[Any], weights: SignedWeights) -> UtilityColumn:
    """The same back, as a column of one row."""
    metric, *rest = fields
    if len(rest) > 2:
        weight, value, assumed, contribution = rest
    else:
        weight, signed = weights[Metric(metric)]
        value, assumed = rest[0], len(rest) == 2
        contribution = signed * value
    return UtilityColumn(Metric(metric), weight, (value,), (assumed,), (contribution,))


def _quality_of(values: Sequence[float] | None) -> QualityPrediction | None:
    return None if values is None else QualityPrediction(*values)


def rejection_fields(rejection: Rejection) -> Fields:
    """One reason against a candidate."""
    fields: Fields = {"reason": rejection.reason, "constraint": rejection.constraint}
    if rejection.bound is not None:
        fields["bound"] = bound_fields(rejection.bound)
    if rejection.actual is not None:
        fields["actual"] = rejection.actual
    return fields


def rejection_of(fields: Fields) -> Rejection:
    """The same back."""
    bound = bound_of(fields["bound"]) if "bound" in fields else None
    return Rejection(RejectionReason(fields["reason"]), fields["constraint"], bound, fields.get("actual"))


def relaxation_fields(relaxation: Relaxation) -> Fields:
    """A change of bounds that would do."""
    changes = [[bound_fields(change.bound), bound_fields(change.relaxed)] for change in relaxation.changes]
    return {"endpoint": relaxation.endpoint_name, "changes": changes, "distance": relaxation.distance}


def relaxation_of(fields: Fields) -> Relaxation:
    """The same back."""
    changes = tuple(BoundChange(bound_of(bound), bound_of(relaxed)) for bound, relaxed in fields["changes"])
    return Relaxation(fields["endpoint"], changes, fields["distance"])


def qualities_of(fields: Mapping[str, Sequence[float]]) -> dict[str, QualityPrediction]:
    """What the quality model expected of each model, [mean, standard error, output tokens]."""
    return {model: QualityPrediction(*values) for model, values in fields.items()}
