"""The metrics that constraints bound and preferences weigh, with their names, units and directions.

Canonical units, used everywhere inside the server: quality 0..1, USD, USD per million tokens, seconds, tokens per
second, fraction 0..1. The text form of a router writes latencies in milliseconds; `text_exponent` converts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Metric(StrEnum):
    """One measurable property of sending this request to an endpoint. The value is its name in the text form."""

    QUALITY = "quality"
    """Predicted probability that the answer is good, 0..1."""
    RELATIVE_QUALITY = "relative-quality"
    """Predicted quality as a share of the best eligible candidate's, 0 and up."""
    REQUEST_COST = "request-cost"
    """Expected cost of this request in USD: its input tokens and its predicted output tokens."""
    PRICE = "cost"
    """Blended list price, USD per million tokens, three input tokens to one output token."""
    INPUT_PRICE = "input-cost"
    """List price of input, USD per million tokens."""
    OUTPUT_PRICE = "output-cost"
    """List price of output, USD per million tokens."""
    TTFT = "time-to-first-token"
    """Time from sending the request upstream to the first token, seconds."""
    INTER_TOKEN_LATENCY = "inter-token-latency"
    """Mean time between two output tokens, seconds."""
    END_TO_END_LATENCY = "end-to-end-latency"
    """Time to the last predicted token, seconds."""
    OUTPUT_TOKENS_PER_SECOND = "tks-per-sec"
    """Output speed after the first token, tokens per second."""
    ERROR_RATE = "error-rate"
    """Share of recent calls that failed, 0..1."""

    # Equal to the enum's own, which is written in Python and would be a tenth of a decision's time.
    __hash__ = str.__hash__


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """How a metric is named, written and compared."""

    aliases: tuple[str, ...]
    """Short names that the text form also accepts; weights are printed with the first, bounds with the last."""
    higher_is_better: bool
    text_exponent: int
    """A value in text units is the canonical value x 10^text_exponent: 3 where the text says milliseconds."""
    weighable: bool
    """Whether preferences may weigh it; speed is weighed as latency, relative quality as quality."""
    has_quantile: bool
    """Whether a bound may say in which share of cases it must hold."""
    value_max: float | None = None
    """Largest meaningful value; the smallest is always 0."""


METRIC_SPECS: dict[Metric, MetricSpec] = {
    Metric.QUALITY: MetricSpec(("q",), True, 0, True, True, 1.0),
    Metric.RELATIVE_QUALITY: MetricSpec(("rq",), True, 0, False, True, 1.0),
    Metric.REQUEST_COST: MetricSpec(("rc",), False, 0, True, False),
    Metric.PRICE: MetricSpec(("c",), False, 0, True, False),
    Metric.INPUT_PRICE: MetricSpec(("ic",), False, 0, True, False),
    Metric.OUTPUT_PRICE: MetricSpec(("oc",), False, 0, True, False),
    Metric.TTFT: MetricSpec(("t", "ttft"), False, 3, True, True),
    Metric.INTER_TOKEN_LATENCY: MetricSpec(("i", "itl"), False, 3, True, True),
    Metric.END_TO_END_LATENCY: MetricSpec(("e", "e2e"), False, 3, True, True),
    Metric.OUTPUT_TOKENS_PER_SECOND: MetricSpec(("ots",), True, 0, False, True),
    Metric.ERROR_RATE: MetricSpec(("er",), False, 0, True, False, 1.0),
}

METRIC_BY_NAME: dict[str, Metric] = {
    name: metric for metric, spec in METRIC_SPECS.items() for name in (metric.value, *spec.aliases)
}
