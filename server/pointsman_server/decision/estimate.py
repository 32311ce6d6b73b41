"""What is expected of sending one request to one endpoint: the candidate before it is judged.

A draft is private to `decide`: mutable, so that each step adds its part without copying, and frozen into a
`Candidate` at the end.
"""

from __future__ import annotations

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

    def frozen(self) -> Candidate:
        """The candidate, finished."""
        runtime = self.runtime
        return Candidate(
            endpoint=self.endpoint,
            quality=self.quality,
            output_token_count=self.output_token_count,
            cost_usd=self.cost_usd,
            ttft_s=runtime.ttft_s,
            inter_token_latency_s=runtime.inter_token_latency_s,
            end_to_end_latency_s=self.end_to_end_latency_s,
            error_rate=runtime.error_rate,
            runtime_age_s=runtime.age_s,
            alternative=self.alternative,
            utility=self.utility,
            terms=self.terms,
            probability=self.probability,
            rejections=self.rejections,
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
    runtime, endpoint = draft.runtime, draft.endpoint
    match metric:
        case Metric.QUALITY | Metric.RELATIVE_QUALITY:
            return None if draft.quality is None else draft.quality.mean
        case Metric.REQUEST_COST:
            return draft.cost_usd
        case Metric.PRICE:
            return endpoint.blended_price_usd_per_mtok
        case Metric.INPUT_PRICE:
            return endpoint.input_price_usd_per_mtok
        case Metric.OUTPUT_PRICE:
            return endpoint.output_price_usd_per_mtok
        case Metric.TTFT:
            return None if runtime.ttft_s is None else runtime.ttft_s.mean
        case Metric.INTER_TOKEN_LATENCY:
            return None if runtime.inter_token_latency_s is None else runtime.inter_token_latency_s.mean
        case Metric.END_TO_END_LATENCY:
            return draft.end_to_end_latency_s
        case Metric.OUTPUT_TOKENS_PER_SECOND:
            return _speed(None if runtime.inter_token_latency_s is None else runtime.inter_token_latency_s.mean)
        case Metric.ERROR_RATE:
            return runtime.error_rate


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
