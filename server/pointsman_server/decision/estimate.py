"""What is expected of sending one request to each endpoint, before anything is judged or weighed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import NormalDist
from typing import NamedTuple

from pointsman_server.decision.cost import expected_costs_usd
from pointsman_server.decision.metrics import Metric
from pointsman_server.decision.types import (
    NEVER_OBSERVED,
    Endpoint,
    EndpointRuntime,
    Latency,
    QualityPrediction,
    RequestFacts,
    RuntimeSnapshot,
)

_STANDARD_NORMAL = NormalDist()
TTFT_SHARE_MIN = 0.1
"""However short the input, the first token takes this share of what it usually takes: the line that length adds up to is
learned from inputs of the usual length, and ends somewhere before theirs."""


class Draft(NamedTuple):
    """A candidate before it is judged."""

    endpoint: Endpoint
    quality: QualityPrediction | None
    runtime: EndpointRuntime
    ttft_s: Latency | None
    """Of this request's input."""
    output_token_count: float | None
    cost_usd: float | None
    end_to_end_latency_s: float | None
    cached_input_token_count: float
    """Of this request's input, in the endpoint's prompt cache."""


_DraftRow = tuple[
    Endpoint, QualityPrediction | None, EndpointRuntime, Latency | None, float | None, float | None, float | None, float
]
_new_draft: Callable[[_DraftRow], Draft] = partial(tuple.__new__, Draft)


def drafts_of(
    endpoints: Sequence[Endpoint],
    qualities: Mapping[str, QualityPrediction],
    snapshot: RuntimeSnapshot,
    facts: RequestFacts,
    cached_input_token_counts: Mapping[str, float],
) -> list[Draft]:
    """What is expected of each of these endpoints for a request with these facts. What an endpoint has in its prompt
    cache it reads for less, and at once."""
    runtimes = [snapshot.by_endpoint.get(endpoint.name, NEVER_OBSERVED) for endpoint in endpoints]
    predictions = [qualities.get(endpoint.model) for endpoint in endpoints]
    output_counts = [
        _expected_output(quality, facts.output_token_count_max, endpoint.output_token_count_max)
        for endpoint, quality in zip(endpoints, predictions, strict=True)
    ]
    cached_counts = [0.0] * len(endpoints)
    if cached_input_token_counts:
        found = [cached_input_token_counts.get(endpoint.name, 0.0) for endpoint in endpoints]
        cached_counts = [min(count, float(facts.input_token_count)) for count in found]
    costs_usd = expected_costs_usd(
        endpoints,
        input_token_count=facts.input_token_count,
        output_token_counts=output_counts,
        cached_input_token_counts=cached_counts,
    )
    ttfts_s = [
        _ttft_of(runtime, facts.input_token_count - cached) if runtime.ttft_s_per_input_token else runtime.ttft_s
        for runtime, cached in zip(runtimes, cached_counts, strict=True)
    ]
    durations_s = [
        None
        if count is None or ttft_s is None or (gap_s := runtime.inter_token_latency_s) is None
        else ttft_s.mean + max(0.0, count - 1.0) * gap_s.mean
        for runtime, ttft_s, count in zip(runtimes, ttfts_s, output_counts, strict=True)
    ]
    return list(
        map(
            _new_draft,
            zip(
                endpoints,
                predictions,
                runtimes,
                ttfts_s,
                output_counts,
                costs_usd,
                durations_s,
                cached_counts,
                strict=True,
            ),
        )
    )


def _expected_output(
    quality: QualityPrediction | None, wanted_max: int | None, possible_max: int | None
) -> float | None:
    """The predicted length, but no more than the caller wants and the endpoint can give."""
    expected = None if quality is None else quality.output_token_count
    if expected is None:
        return None
    if wanted_max is not None and wanted_max < expected:
        expected = float(wanted_max)
    if possible_max is not None and possible_max < expected:
        expected = float(possible_max)
    return expected


def _ttft_of(runtime: EndpointRuntime, input_token_count: float) -> Latency | None:
    """The time to first token for an input of that length."""
    usual_s = runtime.ttft_s
    if usual_s is None:
        return None
    longer_s = runtime.ttft_s_per_input_token * (input_token_count - runtime.reference_input_token_count)
    return Latency(*[max(TTFT_SHARE_MIN * figure_s, figure_s + longer_s) for figure_s in usual_s])


def expectation(draft: Draft, metric: Metric) -> float | None:
    """The expected value of a metric in its canonical unit, or None when it is unknown.

    Relative quality has no value of its own: `feasibility` derives it from the best candidate's.
    """
    (value,) = EXPECTATIONS[metric]([draft])
    return value


def _qualities(drafts: Sequence[Draft]) -> list[float | None]:
    return [None if draft.quality is None else draft.quality.mean for draft in drafts]


def _ttfts_s(drafts: Sequence[Draft]) -> list[float | None]:
    return [None if draft.ttft_s is None else draft.ttft_s.mean for draft in drafts]


def _inter_token_latencies_s(drafts: Sequence[Draft]) -> list[float | None]:
    return [None if (latency := draft.runtime.inter_token_latency_s) is None else latency.mean for draft in drafts]


EXPECTATIONS: Mapping[Metric, Callable[[Sequence[Draft]], list[float | None]]] = {
    Metric.QUALITY: _qualities,
    Metric.RELATIVE_QUALITY: _qualities,
    Metric.REQUEST_COST: lambda drafts: [draft.cost_usd for draft in drafts],
    Metric.PRICE: lambda drafts: [draft.endpoint.blended_price_usd_per_mtok for draft in drafts],
    Metric.INPUT_PRICE: lambda drafts: [draft.endpoint.input_price_usd_per_mtok for draft in drafts],
    Metric.OUTPUT_PRICE: lambda drafts: [draft.endpoint.output_price_usd_per_mtok for draft in drafts],
    Metric.TTFT: _ttfts_s,
    Metric.INTER_TOKEN_LATENCY: _inter_token_latencies_s,
    Metric.END_TO_END_LATENCY: lambda drafts: [draft.end_to_end_latency_s for draft in drafts],
    Metric.OUTPUT_TOKENS_PER_SECOND: lambda drafts: [_speed(gap_s) for gap_s in _inter_token_latencies_s(drafts)],
    Metric.ERROR_RATE: lambda drafts: [draft.runtime.error_rate for draft in drafts],
}
"""How each metric is read off drafts: of all at once, since a call for each would be a fifth of a decision's time."""


def _charged_ttfts_s(drafts: Sequence[Draft]) -> list[float | None]:
    return [None if draft.ttft_s is None else draft.ttft_s.mean + draft.runtime.marginal_load_s for draft in drafts]


def _charged_inter_token_latencies_s(drafts: Sequence[Draft]) -> list[float | None]:
    return [
        None
        if (latency := draft.runtime.inter_token_latency_s) is None
        else latency.mean + draft.runtime.marginal_load_s_per_token
        for draft in drafts
    ]


def _charged_durations_s(drafts: Sequence[Draft]) -> list[float | None]:
    return [
        None
        if (duration_s := draft.end_to_end_latency_s) is None or (count := draft.output_token_count) is None
        else duration_s
        + draft.runtime.marginal_load_s
        + max(0.0, count - 1.0) * draft.runtime.marginal_load_s_per_token
        for draft in drafts
    ]


CHARGES: Mapping[Metric, Callable[[Sequence[Draft]], list[float | None]]] = {
    **EXPECTATIONS,
    Metric.TTFT: _charged_ttfts_s,
    Metric.INTER_TOKEN_LATENCY: _charged_inter_token_latencies_s,
    Metric.END_TO_END_LATENCY: _charged_durations_s,
}
"""What is weighed instead of expected: of a latency also what this request adds to those of the others that are under
way at the endpoint. Who decides for many callers must not gain for one what the others lose."""


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
            return _side(draft.ttft_s, quantile, slow=upper)
        case Metric.INTER_TOKEN_LATENCY:
            return _side(runtime.inter_token_latency_s, quantile, slow=upper)
        case Metric.OUTPUT_TOKENS_PER_SECOND:
            return _speed(_side(runtime.inter_token_latency_s, quantile, slow=not upper))
        case Metric.END_TO_END_LATENCY:
            ttft_s = _side(draft.ttft_s, quantile, slow=upper)
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
