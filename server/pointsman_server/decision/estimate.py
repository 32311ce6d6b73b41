"""What is expected of sending one request to each endpoint, before anything is judged or weighed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import compress, repeat
from statistics import NormalDist
from typing import NamedTuple

from pointsman_server.decision.cost import expected_costs_usd
from pointsman_server.decision.metrics import Metric
from pointsman_server.decision.types import (
    NEVER_OBSERVED,
    BreakerState,
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


class Drafts(NamedTuple):
    """Candidates before they are judged, by column: each has the same place in all of them.

    A decision makes twenty of them, and a call for each of them in every step would take most of its time.
    """

    endpoints: Sequence[Endpoint]
    qualities: Sequence[QualityPrediction | None]
    output_token_counts: Sequence[float | None]
    gap_counts: Sequence[float | None]
    """Of the times between two output tokens: one less than there are tokens."""
    costs_usd: Sequence[float | None]
    ttfts_s: Sequence[Latency | None]
    """Of this request's input."""
    inter_token_latencies_s: Sequence[Latency | None]
    end_to_end_latencies_s: Sequence[float | None]
    cached_input_token_counts: Sequence[float]
    """Of this request's input, in the endpoint's prompt cache."""
    runtimes: Sequence[EndpointRuntime]
    error_rates: Sequence[float | None]
    ages_s: Sequence[float | None]
    breakers: Sequence[BreakerState]
    retries_after_s: Sequence[float | None]
    marginal_loads_s: Sequence[float]
    marginal_loads_s_per_token: Sequence[float]

    def where(self, kept: Sequence[object]) -> Drafts:
        """Those at whose place something true is kept."""
        return self if all(kept) else Drafts._make([list(compress(column, kept)) for column in self])


def drafts_of(
    endpoints: Sequence[Endpoint],
    qualities: Mapping[str, QualityPrediction],
    snapshot: RuntimeSnapshot,
    facts: RequestFacts,
    cached_input_token_counts: Mapping[str, float],
) -> Drafts:
    """What is expected of each of these endpoints for a request with these facts. What an endpoint has in its prompt
    cache it reads for less, and at once."""
    runtimes = [snapshot.by_endpoint.get(endpoint.name, NEVER_OBSERVED) for endpoint in endpoints]
    # In the order of the fields of `EndpointRuntime`; those that no decision depends on are passed over.
    columns = zip(*runtimes, strict=True) if runtimes else repeat((), len(EndpointRuntime._fields))
    usual_ttfts_s, gaps_s, errors, _, breakers, retries_s, _, ages_s, slopes, _, loads_s, loads_s_per_token, _ = columns
    predictions = [qualities.get(endpoint.model) for endpoint in endpoints]
    output_counts = _expected_outputs(endpoints, predictions, facts.output_token_count_max)
    gap_counts = [None if count is None else count - 1.0 if count > 1.0 else 0.0 for count in output_counts]
    cached_counts = [0.0] * len(endpoints)
    if cached_input_token_counts:
        found = [cached_input_token_counts.get(endpoint.name, 0.0) for endpoint in endpoints]
        cached_counts = [min(count, float(facts.input_token_count)) for count in found]
    ttfts_s: Sequence[Latency | None] = usual_ttfts_s
    if any(slopes):
        ttfts_s = _ttfts_of(runtimes, [facts.input_token_count - cached for cached in cached_counts])
    costs_usd = expected_costs_usd(
        endpoints,
        input_token_count=facts.input_token_count,
        output_token_counts=output_counts,
        cached_input_token_counts=cached_counts,
    )
    durations_s = [
        None if count is None or ttft_s is None or gap_s is None else ttft_s.mean + count * gap_s.mean
        for count, ttft_s, gap_s in zip(gap_counts, ttfts_s, gaps_s, strict=True)
    ]
    return Drafts(
        endpoints=endpoints,
        qualities=predictions,
        output_token_counts=output_counts,
        gap_counts=gap_counts,
        costs_usd=costs_usd,
        ttfts_s=ttfts_s,
        inter_token_latencies_s=gaps_s,
        end_to_end_latencies_s=durations_s,
        cached_input_token_counts=cached_counts,
        runtimes=runtimes,
        error_rates=errors,
        ages_s=ages_s,
        breakers=breakers,
        retries_after_s=retries_s,
        marginal_loads_s=loads_s,
        marginal_loads_s_per_token=loads_s_per_token,
    )


def _expected_outputs(
    endpoints: Sequence[Endpoint], predictions: Sequence[QualityPrediction | None], wanted_max: int | None
) -> list[float | None]:
    """The predicted lengths, but no more than the caller wants and the endpoint can give."""
    expected = [
        None
        if prediction is None or (count := prediction.output_token_count) is None
        else count
        if (limit := endpoint.output_token_count_max) is None or count <= limit
        else float(limit)
        for endpoint, prediction in zip(endpoints, predictions, strict=True)
    ]
    if wanted_max is None:
        return expected
    return [count if count is None or count <= wanted_max else float(wanted_max) for count in expected]


def _ttfts_of(runtimes: Sequence[EndpointRuntime], input_token_counts: Sequence[float]) -> list[Latency | None]:
    """The times to first token for inputs of these lengths."""
    return [
        usual_s
        if (usual_s := runtime.ttft_s) is None or not (slope := runtime.ttft_s_per_input_token)
        else _longer(usual_s, slope * (count - runtime.reference_input_token_count))
        for runtime, count in zip(runtimes, input_token_counts, strict=True)
    ]


def _longer(usual_s: Latency, more_s: float) -> Latency:
    return Latency(
        *[
            longer_s if (longer_s := figure_s + more_s) > (least_s := TTFT_SHARE_MIN * figure_s) else least_s
            for figure_s in usual_s
        ]
    )


Column = Sequence[float | None]


def _means(estimates: Sequence[Latency | QualityPrediction | None]) -> Column:
    return [None if estimate is None else estimate.mean for estimate in estimates]


EXPECTATIONS: Mapping[Metric, Callable[[Drafts], Column]] = {
    Metric.QUALITY: lambda drafts: _means(drafts.qualities),
    Metric.RELATIVE_QUALITY: lambda drafts: _means(drafts.qualities),
    Metric.REQUEST_COST: lambda drafts: drafts.costs_usd,
    Metric.PRICE: lambda drafts: [endpoint.blended_price_usd_per_mtok for endpoint in drafts.endpoints],
    Metric.INPUT_PRICE: lambda drafts: [endpoint.input_price_usd_per_mtok for endpoint in drafts.endpoints],
    Metric.OUTPUT_PRICE: lambda drafts: [endpoint.output_price_usd_per_mtok for endpoint in drafts.endpoints],
    Metric.TTFT: lambda drafts: _means(drafts.ttfts_s),
    Metric.INTER_TOKEN_LATENCY: lambda drafts: _means(drafts.inter_token_latencies_s),
    Metric.END_TO_END_LATENCY: lambda drafts: drafts.end_to_end_latencies_s,
    Metric.OUTPUT_TOKENS_PER_SECOND: lambda drafts: list(map(_speed, _means(drafts.inter_token_latencies_s))),
    Metric.ERROR_RATE: lambda drafts: drafts.error_rates,
}
"""The expected value of each metric in its canonical unit, or None where it is unknown.

Relative quality has no value of its own: `feasibility` derives it from the best candidate's.
"""


def _charged(values_s: Column, charges_s: Sequence[float]) -> Column:
    return [
        None if value_s is None else value_s + charge_s for value_s, charge_s in zip(values_s, charges_s, strict=True)
    ]


def _charged_durations_s(drafts: Drafts) -> Column:
    return [
        None if duration_s is None or count is None else duration_s + charge_s + count * charge_s_per_token
        for duration_s, count, charge_s, charge_s_per_token in zip(
            drafts.end_to_end_latencies_s,
            drafts.gap_counts,
            drafts.marginal_loads_s,
            drafts.marginal_loads_s_per_token,
            strict=True,
        )
    ]


CHARGES: Mapping[Metric, Callable[[Drafts], Column]] = {
    **EXPECTATIONS,
    Metric.TTFT: lambda drafts: _charged(_means(drafts.ttfts_s), drafts.marginal_loads_s),
    Metric.INTER_TOKEN_LATENCY: lambda drafts: _charged(
        _means(drafts.inter_token_latencies_s), drafts.marginal_loads_s_per_token
    ),
    Metric.END_TO_END_LATENCY: _charged_durations_s,
}
"""What is weighed instead of expected: of a latency also what this request adds to those of the others that are under
way at the endpoint. Who decides for many callers must not gain for one what the others lose."""


def pessimistic(drafts: Drafts, metric: Metric, *, quantile: float, upper: bool) -> Column:
    """The values that a bound must face to hold in that share of cases: for an upper limit the high quantile, for a
    lower limit the low one. None where it is unknown."""
    match metric:
        case Metric.QUALITY | Metric.RELATIVE_QUALITY:
            at_quantile = _STANDARD_NORMAL.inv_cdf(quantile)
            errors = -at_quantile if upper else at_quantile
            return [None if quality is None else quality.lower(errors) for quality in drafts.qualities]
        case Metric.TTFT:
            return _sides(drafts.ttfts_s, quantile, slow=upper)
        case Metric.INTER_TOKEN_LATENCY:
            return _sides(drafts.inter_token_latencies_s, quantile, slow=upper)
        case Metric.OUTPUT_TOKENS_PER_SECOND:
            return list(map(_speed, _sides(drafts.inter_token_latencies_s, quantile, slow=not upper)))
        case Metric.END_TO_END_LATENCY:
            ttfts_s = _sides(drafts.ttfts_s, quantile, slow=upper)
            gaps_s = _sides(drafts.inter_token_latencies_s, quantile, slow=upper)
            # Both parts at their own quantile: an upper bound of the quantile of the sum where they move together.
            return [
                None if count is None or ttft_s is None or gap_s is None else ttft_s + count * gap_s
                for count, ttft_s, gap_s in zip(drafts.gap_counts, ttfts_s, gaps_s, strict=True)
            ]
        case _:
            msg = f"{metric} has no distribution"
            raise AssertionError(msg)


def _sides(latencies: Sequence[Latency | None], quantile: float, *, slow: bool) -> Column:
    """The latencies at `quantile`, or at its mirror image on the fast side: latencies are near enough log-symmetric."""
    return [None if latency is None else _side(latency, quantile, slow=slow) for latency in latencies]


def _side(latency: Latency, quantile: float, *, slow: bool) -> float:
    at_quantile_s = latency.at(quantile)
    if slow:
        return at_quantile_s
    return latency.p50 * latency.p50 / at_quantile_s if at_quantile_s > 0.0 else 0.0


def _speed(inter_token_latency_s: float | None) -> float | None:
    return None if inter_token_latency_s is None or inter_token_latency_s <= 0.0 else 1.0 / inter_token_latency_s
