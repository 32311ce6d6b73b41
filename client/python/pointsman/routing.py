"""Short ways to write by what a request is routed: hard constraints and soft preferences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias, TypedDict, Unpack, cast

from google.protobuf.message import Message

from pointsman.durations import duration
from pointsman.options import reject_unknown
from pointsman.v1.routing_pb2 import (
    Capability,
    Constraints,
    Direction,
    DurationBound,
    Label,
    Metric,
    Objective,
    Preferences,
    Weights,
)

CapabilityName: TypeAlias = Literal["tools", "image_input", "json_object", "json_schema", "reasoning"]
"""Something an endpoint can do."""

METRIC_NAMES: Mapping[str, Metric.ValueType] = {
    "quality": Metric.METRIC_QUALITY,
    "relative-quality": Metric.METRIC_RELATIVE_QUALITY,
    "request-cost": Metric.METRIC_REQUEST_COST,
    "cost": Metric.METRIC_PRICE,
    "input-cost": Metric.METRIC_INPUT_PRICE,
    "output-cost": Metric.METRIC_OUTPUT_PRICE,
    "ttft": Metric.METRIC_TTFT,
    "itl": Metric.METRIC_INTER_TOKEN_LATENCY,
    "e2e": Metric.METRIC_END_TO_END_LATENCY,
    "tks-per-sec": Metric.METRIC_OUTPUT_TOKENS_PER_SECOND,
    "error-rate": Metric.METRIC_ERROR_RATE,
}
"""The metrics by the names that router strings give them, with the short form of the three latencies."""


class ConstraintOptions(TypedDict, total=False):
    """What `constraints` takes. Everything that is absent or None is not constrained.

    A bound ends in `_min` or `_max`. `_quantile` says in which share of the calls a bound must hold, 0.5 to 0.99 (0.95
    bounds the p95); without it the expectation is bounded. `_risk` is the accepted probability that a least quality
    does not hold in truth, 0.01 to 0.5.
    """

    models: Iterable[str]
    """Models that may be considered; empty: all. Likewise the next two; an endpoint is model@provider."""
    providers: Iterable[str]
    endpoints: Iterable[str]
    skip_models: Iterable[str]
    """Models that may not be considered. Likewise the next two."""
    skip_providers: Iterable[str]
    skip_endpoints: Iterable[str]
    capabilities: Iterable[CapabilityName]
    """What the endpoint must be able to do, beyond what the conversation itself shows it must."""
    labels: Mapping[str, str | Iterable[str]]
    """Labels that the endpoint must carry; several values of one key are alternatives."""
    quality_min: float | None
    """Predicted quality, 0 to 1."""
    quality_max: float | None
    quality_risk: float | None
    relative_quality_min: float | None
    """Predicted quality as a share of the best candidate's, 0 to 1."""
    relative_quality_max: float | None
    relative_quality_risk: float | None
    request_cost_usd_min: float | None
    """Expected cost of this request."""
    request_cost_usd_max: float | None
    price_usd_per_million_tokens_min: float | None
    """Blended list price: three input tokens to one output token."""
    price_usd_per_million_tokens_max: float | None
    input_price_usd_per_million_tokens_min: float | None
    input_price_usd_per_million_tokens_max: float | None
    output_price_usd_per_million_tokens_min: float | None
    output_price_usd_per_million_tokens_max: float | None
    ttft_s_min: float | None
    """Time to the first token, seconds."""
    ttft_s_max: float | None
    ttft_quantile: float | None
    inter_token_latency_s_min: float | None
    """Time between two output tokens, seconds."""
    inter_token_latency_s_max: float | None
    inter_token_latency_quantile: float | None
    end_to_end_latency_s_min: float | None
    """Time to the last predicted token, seconds."""
    end_to_end_latency_s_max: float | None
    end_to_end_latency_quantile: float | None
    output_tokens_per_second_min: float | None
    """Output speed after the first token."""
    output_tokens_per_second_max: float | None
    output_tokens_per_second_quantile: float | None
    error_rate_min: float | None
    """Share of recent calls that failed, 0 to 1."""
    error_rate_max: float | None


def constraints(**options: Unpack[ConstraintOptions]) -> Constraints:
    """What must hold; an endpoint that violates it, or of which the value is not known, is rejected.

        constraints(models=["gpt-4o", "llama-3.3-70b"], ttft_s_max=0.5, ttft_quantile=0.95, labels={"region": "eu"})

    Raises:
        TypeError: an argument that there is not, or a single name where several are taken.
    """
    reject_unknown(options, ConstraintOptions)
    result = Constraints(
        models=_names(options.get("models", ())),
        providers=_names(options.get("providers", ())),
        endpoints=_names(options.get("endpoints", ())),
        skip_models=_names(options.get("skip_models", ())),
        skip_providers=_names(options.get("skip_providers", ())),
        skip_endpoints=_names(options.get("skip_endpoints", ())),
        capabilities=[Capability.Value(f"CAPABILITY_{name.upper()}") for name in options.get("capabilities", ())],
        labels=[
            Label(key=key, value=value)
            for key, values in options.get("labels", {}).items()
            for value in ((values,) if isinstance(values, str) else values)
        ],
    )
    for name, value in options.items():
        bounded, _, part = name.rpartition("_")
        if part in ("min", "max", "risk", "quantile") and value is not None:
            # The unit is a part of the argument's name, not of the message's, which carries durations as such.
            _set_bound(getattr(result, bounded.removesuffix("_s")), part, cast("float", value))
    return result


def weights(
    *,
    quality: float = 0.0,
    request_cost_usd: float = 0.0,
    price_usd_per_million_tokens: float = 0.0,
    input_price_usd_per_million_tokens: float = 0.0,
    output_price_usd_per_million_tokens: float = 0.0,
    ttft_s: float = 0.0,
    inter_token_latency_s: float = 0.0,
    end_to_end_latency_s: float = 0.0,
    error_rate: float = 0.0,
) -> Preferences:
    """What one unit of each metric is worth: quality adds, all else is subtracted, and only the ratios matter.

    `weights(quality=1, request_cost_usd=20, ttft_s=0.05)` pays a cent for 0.2 of quality, and a second of waiting for
    0.05 of it. Every weight is at least 0, and one is above it.
    """
    return Preferences(
        weights=Weights(
            quality=quality,
            request_cost_usd=request_cost_usd,
            price_usd_per_million_tokens=price_usd_per_million_tokens,
            input_price_usd_per_million_tokens=input_price_usd_per_million_tokens,
            output_price_usd_per_million_tokens=output_price_usd_per_million_tokens,
            ttft_seconds=ttft_s,
            inter_token_latency_seconds=inter_token_latency_s,
            end_to_end_latency_seconds=end_to_end_latency_s,
            error_rate=error_rate,
        )
    )


def objective(text: str) -> Preferences:
    """The wish for one metric alone, as router strings write it: "highest-quality", "lowest-cost", "lowest-ttft".

    Raises:
        ValueError: it is not `highest-` or `lowest-` and one of `METRIC_NAMES`.
    """
    direction, _, metric = text.partition("-")
    if direction not in ("highest", "lowest") or metric not in METRIC_NAMES:
        raise ValueError(f"{text!r} is not highest- or lowest- and one of {', '.join(METRIC_NAMES)}")
    sought = Direction.Value(f"DIRECTION_{direction.upper()}")
    return Preferences(objective=Objective(metric=METRIC_NAMES[metric], direction=sought))


def _names(values: Iterable[str]) -> Iterable[str]:
    """The names, after a check for the slip that Python's types don't catch: a text is an iterable of characters."""
    if isinstance(values, str):
        raise TypeError(f"{values!r} is one name where several are taken: write [{values!r}]")
    return values


def _set_bound(bound: Message, part: str, value: float) -> None:
    if isinstance(bound, DurationBound) and part in ("min", "max"):
        getattr(bound, part).CopyFrom(duration(value))
    else:
        setattr(bound, part, value)
