"""What is expected of sending one request to one endpoint: the candidate before it is judged.

A draft is private to `decide`: mutable, so that each step adds its part without copying, and frozen into a
`Candidate` at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

from pointsman_server.decision.cost import cost_usd
from pointsman_server.decision.metrics import Metric
from pointsman_server.decision.types import (
    Candidate,
    Endpoint,
    EndpointRuntime,
    Latency,
    QualityPrediction,
    Rejection,
    RequestFacts,
    UtilityTerm,
)

_STANDARD_NORMAL = NormalDist()


@dataclass(slots=True)
class Draft:
    """A candidate in the making."""

    endpoint: Endpoint
    quality: QualityPrediction | None
    runtime: EndpointRuntime
    output_token_count: float | None
    cost_usd: float | None
    end_to_end_latency_s: float | None
    alternative: int = 0
    utility: float | None = None
    terms: tuple[UtilityTerm, ...] = ()
    probability: float = 0.0
    rejections: tuple[Rejection, ...] = ()
    shortfall_risk: float | None = None

    def frozen(self) -> Candidate:
        """The candidate, finished."""
        runtime = self.runtime
        # By position: twenty of these are made for a decision, and keywords cost a third of it.
        return Candidate(
            self.endpoint,
            self.quality,
            self.output_token_count,
            self.cost_usd,
            runtime.ttft_s,
            runtime.inter_token_latency_s,
            self.end_to_end_latency_s,
            runtime.error_rate,
            runtime.age_s,
            self.alternative,
            self.utility,
            self.terms,
            self.probability,
            self.rejections,
            self.shortfall_risk,
        )


def draft_candidate(
    endpoint: Endpoint, quality: QualityPrediction | None, runtime: EndpointRuntime, facts: RequestFacts
) -> Draft:
    """What is expected of `endpoint` for a request with these facts."""
    output_token_count = _expected_output(endpoint, quality, facts)
    cost = None
    if output_token_count is not None:
        cost = cost_usd(endpoint, input_token_count=facts.input_token_count, output_token_count=output_token_count)
    end_to_end_s = None
    if output_token_count is not None and runtime.ttft_s is not None and runtime.inter_token_latency_s is not None:
        gap_count = max(0.0, output_token_count - 1.0)
        end_to_end_s = runtime.ttft_s.mean + gap_count * runtime.inter_token_latency_s.mean
    return Draft(endpoint, quality, runtime, output_token_count, cost, end_to_end_s)


def _expected_output(endpoint: Endpoint, quality: QualityPrediction | None, facts: RequestFacts) -> float | None:
    if quality is None or quality.output_token_count is None:
        return None
    expected = quality.output_token_count
    if facts.output_token_count_max is not None:
        expected = min(expected, facts.output_token_count_max)
    if endpoint.output_token_count_max is not None:
        expected = min(expected, endpoint.output_token_count_max)
    return expected


def expectation(draft: Draft, metric: Metric) -> float | None:
    """The expected value of a metric in its canonical unit, or None when it is unknown.

    Relative quality has no value of its own: `feasibility` derives it from the best candidate's.
    """
    return EXPECTATIONS[metric](draft)


def _quality(draft: Draft) -> float | None:
    return None if draft.quality is None else draft.quality.mean


def _ttft(draft: Draft) -> float | None:
    return None if draft.runtime.ttft_s is None else draft.runtime.ttft_s.mean


def _inter_token_latency(draft: Draft) -> float | None:
    return None if draft.runtime.inter_token_latency_s is None else draft.runtime.inter_token_latency_s.mean


EXPECTATIONS: Mapping[Metric, Callable[[Draft], float | None]] = {
    Metric.QUALITY: _quality,
    Metric.RELATIVE_QUALITY: _quality,
    Metric.REQUEST_COST: lambda draft: draft.cost_usd,
    Metric.PRICE: lambda draft: draft.endpoint.blended_price_usd_per_mtok,
    Metric.INPUT_PRICE: lambda draft: draft.endpoint.input_price_usd_per_mtok,
    Metric.OUTPUT_PRICE: lambda draft: draft.endpoint.output_price_usd_per_mtok,
    Metric.TTFT: _ttft,
    Metric.INTER_TOKEN_LATENCY: _inter_token_latency,
    Metric.END_TO_END_LATENCY: lambda draft: draft.end_to_end_latency_s,
    Metric.OUTPUT_TOKENS_PER_SECOND: lambda draft: _speed(_inter_token_latency(draft)),
    Metric.ERROR_RATE: lambda draft: draft.runtime.error_rate,
}
"""How each metric is read off a draft."""


def pessimistic(draft: Draft, metric: Metric, *, quantile: float, upper: bool) -> float | None:
    """The value that a bound must face to hold in that share of cases: for an upper limit the high quantile, for a
    lower limit the low one. None when it is unknown."""
    runtime = draft.runtime
    match metric:
        case Metric.QUALITY | Metric.RELATIVE_QUALITY:
            if draft.quality is None:
                return None
            normal_quantile = _STANDARD_NORMAL.inv_cdf(quantile)
            return draft.quality.lower(-normal_quantile if upper else normal_quantile)
        case Metric.TTFT:
            return _side(runtime.ttft_s, quantile, slow=upper)
        case Metric.INTER_TOKEN_LATENCY:
            return _side(runtime.inter_token_latency_s, quantile, slow=upper)
        case Metric.OUTPUT_TOKENS_PER_SECOND:
            return _speed(_side(runtime.inter_token_latency_s, quantile, slow=not upper))
        case Metric.END_TO_END_LATENCY:
            ttft_s = _side(runtime.ttft_s, quantile, slow=upper)
            gap_s = _side(runtime.inter_token_latency_s, quantile, slow=upper)
            if draft.output_token_count is None or ttft_s is None or gap_s is None:
                return None
            # Both parts at their own quantile: an upper bound of the quantile of the sum where they move together.
            return ttft_s + max(0.0, draft.output_token_count - 1.0) * gap_s
        case _:
            msg = f"{metric} has no distribution"
            raise AssertionError(msg)


def _side(latency: Latency | None, quantile: float, *, slow: bool) -> float | None:
    """The latency at `quantile`, or at its mirror image on the fast side: latencies are near enough log-symmetric."""
    if latency is None:
        return None
    at_quantile_s = latency.at(quantile)
    if slow:
        return at_quantile_s
    return latency.p50 * latency.p50 / at_quantile_s if at_quantile_s > 0.0 else 0.0


def _speed(inter_token_latency_s: float | None) -> float | None:
    return None if inter_token_latency_s is None or inter_token_latency_s <= 0.0 else 1.0 / inter_token_latency_s
