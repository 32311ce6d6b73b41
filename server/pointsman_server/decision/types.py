"""The words of the decision: what goes in, what comes out. Frozen, pure, and free of any transport.

Absence is written as None throughout and means *unknown*: an unknown price, latency or quality is never zero and
never infinity. A bound on it rejects; a weight on it falls back to what the other candidates show (see `utility`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from pointsman_server.decision.metrics import METRIC_SPECS, Metric
from pointsman_server.decision.risk import RiskTable

# What each decision makes anew is a named tuple, the rest a frozen dataclass: a tuple is as immutable, is made in a third of
# the time, and hashes in a fifth (make bench-overhead).

NUMBER_PATTERN = re.compile(r"-?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,3})?")
"""A decimal number of bounded length; nan and inf are not numbers here."""

QUANTILE_MIN = 0.5
"""Below the median a bound would hold in fewer than half the cases: not a bound worth stating."""
QUANTILE_MAX = 0.99
"""Windows hold a few hundred observations, which say nothing beyond the 99th percentile."""


class Capability(StrEnum):
    """Something an endpoint can or can't do. What a request needs is derived from it where possible."""

    TOOLS = "tools"
    IMAGE_INPUT = "image_input"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    REASONING = "reasoning"


class RequestFeature(StrEnum):
    """Something a request may ask for that some provider's API can't say. An endpoint can do all but what it `lacks`."""

    TEMPERATURE = "temperature"
    """A temperature other than 1."""
    TOP_P = "top_p"
    """A share other than 1."""
    TOP_K = "top_k"
    SEED = "seed"
    PENALTIES = "penalties"
    """A presence or frequency penalty other than 0."""
    TEMPERATURE_ABOVE_ONE = "temperature_above_one"
    MINIMAL_REASONING = "minimal_reasoning"
    """Reasoning that is shorter than a little."""
    FORCED_TOOL_CALL = "forced_tool_call"
    """That some tool, or a named one, must be called."""
    FORBIDDEN_TOOL_CALL = "forbidden_tool_call"
    """That none of the tools may be called."""
    SINGLE_TOOL_CALL = "single_tool_call"
    """At most one call of a tool in an answer."""
    STRICT_TOOLS = "strict_tools"
    """Arguments that follow their schema exactly."""
    JSON_OBJECT = "json_object"
    """An answer that is some JSON object, whatever its schema."""
    SPEAKER_NAMES = "speaker_names"
    IMAGE_URLS = "image_urls"
    """Images that the provider fetches itself."""
    IMAGE_DETAIL = "image_detail"
    """How closely to look at an image."""
    SYSTEM_IMAGES = "system_images"
    """Images in a system turn."""
    TOOL_RESULT_IMAGES = "tool_result_images"
    """Images in a tool's result."""
    LATE_SYSTEM_TURNS = "late_system_turns"
    """A system turn after another turn: moved to the front it would say something else."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model at a provider, as the catalog describes it."""

    model: str
    provider: str
    input_price_usd_per_mtok: float | None = None
    output_price_usd_per_mtok: float | None = None
    cached_input_price_usd_per_mtok: float | None = None
    """Of input that is read from the provider's prompt cache; None: what input costs."""
    cache_write_price_usd_per_mtok: float | None = None
    """Of input that is written to it; None: what input costs."""
    context_token_count_max: int | None = None
    """Input and output together."""
    output_token_count_max: int | None = None
    capabilities: frozenset[Capability] = frozenset()
    labels: frozenset[tuple[str, str]] = frozenset()
    """Data policy and anything else to constrain by: ("region", "eu"), ("retention", "none"). A key may repeat."""
    lacks: frozenset[RequestFeature] = frozenset()
    """What its provider's API or the model itself can't do of what a request may ask for."""
    name: str = field(init=False)
    """`model@provider`, unique in the catalog."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.model}@{self.provider}")

    @property
    def blended_price_usd_per_mtok(self) -> float | None:
        """Three input tokens to one output token, the convention of public price plots."""
        if self.input_price_usd_per_mtok is None or self.output_price_usd_per_mtok is None:
            return None
        return (3.0 * self.input_price_usd_per_mtok + self.output_price_usd_per_mtok) / 4.0


class QualityPrediction(NamedTuple):
    """What the quality model expects of one model on one prompt."""

    mean: float
    """Calibrated probability that the answer is good, 0..1."""
    standard_error: float
    """Half-width of the honest interval in units of the normal: mean -+ 1.645 of it covers 90 %."""
    output_token_count: float | None = None
    """Expected length of the answer in tokens; None where the model never saw this LLM's lengths."""

    def lower(self, normal_quantile: float) -> float:
        """The quality that is reached with the confidence of that standard normal quantile, clipped to 0..1."""
        return min(1.0, max(0.0, self.mean - normal_quantile * self.standard_error))


class Latency(NamedTuple):
    """A duration as a distribution: its expectation and the quantiles that constraints may name. Seconds."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float

    def at(self, quantile: float) -> float:
        """The duration not exceeded in that share of cases; between the known quantiles, linear in the share."""
        assert QUANTILE_MIN <= quantile <= QUANTILE_MAX, quantile
        knots = ((0.5, self.p50), (0.9, self.p90), (0.95, self.p95), (0.99, self.p99))
        for (left_q, left), (right_q, right) in pairwise(knots):
            if quantile <= right_q:
                return left + (right - left) * (quantile - left_q) / (right_q - left_q)
        return self.p99


class BreakerState(StrEnum):
    """Whether an endpoint may be called."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    """One trial call is allowed, and none is under way yet."""
    OPEN = "open"


class EndpointRuntime(NamedTuple):
    """What the runtime aggregator knows of one endpoint at an instant."""

    ttft_s: Latency | None = None
    """Of one more request at the present load, with an input of `reference_input_token_count`."""
    inter_token_latency_s: Latency | None = None
    """Likewise at the present load."""
    error_rate: float | None = None
    in_flight_count: int = 0
    breaker: BreakerState = BreakerState.CLOSED
    retry_after_s: float | None = None
    """How long the endpoint asked to be left alone, or a limit that is known leaves no room; None when neither holds. It
    is honoured whatever happens; an open breaker says nothing of it."""
    observation_count: int = 0
    """Attempts within the window."""
    age_s: float | None = None
    """Time since the last observation; None when there never was one."""
    ttft_s_per_input_token: float = 0.0
    """By how much each input token delays the first output token, not below 0; 0 as long as nothing of it is known."""
    reference_input_token_count: float = 0.0
    """Length of the input that `ttft_s` is about; 0 where `ttft_s_per_input_token` is."""
    marginal_load_s: float = 0.0
    """Seconds that one more request adds, in all, to the times to first token of those in flight here, and of as many for
    each further replica. A cost to weigh, no time to show."""
    marginal_load_s_per_token: float = 0.0
    """Likewise to the times between two tokens of them: what one output token of theirs takes longer, in all."""
    breaker_open_s: float | None = None
    """How long the breaker stays open, or the trial that is under way may take at most; None unless it is open."""

    @property
    def left_alone_s(self) -> float | None:
        """How long the endpoint is left alone, for whichever reason holds longer; None when it may be called now."""
        if self.breaker_open_s is None or self.retry_after_s is None:
            return self.retry_after_s if self.breaker_open_s is None else self.breaker_open_s
        return max(self.retry_after_s, self.breaker_open_s)


@dataclass(frozen=True, slots=True)
class RuntimeSnapshot:
    """The runtime state of every endpoint at one instant. An endpoint that is missing was never observed."""

    by_endpoint: Mapping[str, EndpointRuntime] = field(default_factory=dict)

    def of(self, endpoint_name: str) -> EndpointRuntime:
        """That endpoint's state, or the state of knowing nothing."""
        return self.by_endpoint.get(endpoint_name, NEVER_OBSERVED)


NEVER_OBSERVED = EndpointRuntime()


class Comparison(StrEnum):
    """How a bound compares."""

    LESS = "<"
    LESS_EQUAL = "<="
    GREATER = ">"
    GREATER_EQUAL = ">="

    @property
    def is_upper(self) -> bool:
        """Whether this limits from above."""
        return self in (Comparison.LESS, Comparison.LESS_EQUAL)

    def holds(self, actual: float, limit: float) -> bool:
        """Whether `actual` satisfies the limit."""
        match self:
            case Comparison.LESS:
                return actual < limit
            case Comparison.LESS_EQUAL:
                return actual <= limit
            case Comparison.GREATER:
                return actual > limit
            case Comparison.GREATER_EQUAL:
                return actual >= limit


@dataclass(frozen=True, slots=True)
class Bound:
    """A hard limit on one metric, in canonical units.

    `quantile` is the share of cases in which the bound must hold (for a latency its p95, for quality a confidence of
    95 %, so a risk of 5 %); None bounds the expectation. A lower bound on relative quality with a quantile is about the
    answers themselves: they fall short of it with at most that risk (see `risk`).
    """

    metric: Metric
    comparison: Comparison
    limit: float
    quantile: float | None = None

    def __str__(self) -> str:
        spec = METRIC_SPECS[self.metric]
        quantile = "" if self.quantile is None else f".p{number_text(self.quantile, exponent=2)}"
        return f"{spec.aliases[-1]}{quantile}{self.comparison}{number_text(self.limit, exponent=spec.text_exponent)}"

    @property
    def limits_risk(self) -> bool:
        """Whether this states how likely an answer may fall short of the best candidate's."""
        return self.quantile is not None and self.metric is Metric.RELATIVE_QUALITY and not self.comparison.is_upper


def number_text(value: float, *, exponent: int = 0) -> str:
    """`value` x 10^exponent in the shortest decimal that `parse_number` turns back into exactly `value`."""
    shifted = Decimal(repr(value)).scaleb(exponent).normalize()
    return f"{shifted:f}" if -7 < shifted.adjusted() < 15 else f"{shifted:e}"


def parse_number(text: str, *, exponent: int = 0) -> float:
    """The number that `text` writes, x 10^-exponent, exact to the last bit.

    Raises:
        ValueError: `text` is not a finite decimal number.
    """
    if NUMBER_PATTERN.fullmatch(text) is None:
        raise ValueError(text)
    value = float(Decimal(text).scaleb(-exponent))
    if not math.isfinite(value):
        raise ValueError(text)
    return value


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """Which endpoints may be considered at all. An empty list of what is allowed allows everything."""

    models: frozenset[str] = frozenset()
    providers: frozenset[str] = frozenset()
    endpoints: frozenset[str] = frozenset()
    skip_models: frozenset[str] = frozenset()
    skip_providers: frozenset[str] = frozenset()
    skip_endpoints: frozenset[str] = frozenset()


class Direction(StrEnum):
    """Which end of a metric an objective seeks."""

    HIGHEST = "highest"
    LOWEST = "lowest"


@dataclass(frozen=True, slots=True)
class Objective:
    """Seek one end of one metric; everything else only breaks ties."""

    metric: Metric
    direction: Direction


@dataclass(frozen=True, slots=True)
class Weights:
    """A linear utility: what one canonical unit of each metric is worth, as non-negative numbers.

    Utility adds what is better when higher (quality) and subtracts what is better when lower.
    """

    by_metric: tuple[tuple[Metric, float], ...]
    """In the order of `Metric`, each at most once, zero weights left out."""

    @classmethod
    def of(cls, weights: Mapping[Metric, float]) -> Weights:
        """Weights in canonical order."""
        assert all(value >= 0.0 and METRIC_SPECS[metric].weighable for metric, value in weights.items())
        return cls(tuple((metric, weights[metric]) for metric in Metric if weights.get(metric, 0.0) > 0.0))


Preference = Weights | Objective

DEFAULT_PREFERENCE = Weights.of(
    {Metric.QUALITY: 1.0, Metric.REQUEST_COST: 5.0, Metric.TTFT: 0.01, Metric.END_TO_END_LATENCY: 0.001}
)
"""Without any preference: one point of quality (1 %) is worth 0.2 US cents, 1 s to the first token or 10 s to the last.

A frontier answer of 1,000 tokens costs about 1 cent, so it must be expected to be 5 points better than a free one.
"""


@dataclass(frozen=True, slots=True)
class Policy:
    """One alternative: where to look, what must hold, what is preferred."""

    space: SearchSpace = SearchSpace()
    bounds: tuple[Bound, ...] = ()
    capabilities: frozenset[Capability] = frozenset()
    """Needed whatever the request itself shows."""
    labels: frozenset[tuple[str, str]] = frozenset()
    """Wanted labels; values of one key are alternatives, keys must all be met."""
    preference: Preference = DEFAULT_PREFERENCE


@dataclass(frozen=True, slots=True)
class Exploration:
    """How much chance enters a decision."""

    rate: float = 0.02
    """Share of decisions that try an eligible endpoint of which there is no fresh observation."""
    stale_after_s: float = 120.0
    """Age from which an endpoint's runtime data is no longer fresh."""
    near_tie_width: float = 0.01
    """Candidates within this share of the utility scale (see `choice`) of the best are near-ties, drawn by a soft
    minimum so that replicas with the same snapshot do not all stampede to one endpoint."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A router that decides for a share of the requests that ask for another one."""

    router_name: str
    share: float
    """Above 0, at most 1; the shares of one split add up to at most 1."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which router decides for a request, and by what chance it is that one."""

    asked_name: str
    """The router that the request asks for."""
    router_name: str
    """The router that decides: the same one, or an arm of its split."""
    probability: float = 1.0
    """With which this router gets such a request, above 0 to 1, given everything but key and seed."""
    keyed: bool = False
    """Whether the request's key decided, so that whatever shares the key shares the router; else its seed did."""

    @property
    def split_name(self) -> str:
        """The router whose split assigned the request; empty when it has none, so that no other could have decided."""
        return self.asked_name if self.probability < 1.0 or self.router_name != self.asked_name else ""


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What the decision needs to know of a request; never its text."""

    input_token_count: int
    output_token_count_max: int | None = None
    """The caller's own limit on the answer."""
    capabilities: frozenset[Capability] = frozenset()
    """Derived from the conversation: tools, images, response format, reasoning."""
    features: frozenset[RequestFeature] = frozenset()
    """What it asks for that not every provider can do."""


class DecisionInput(NamedTuple):
    """Everything that a decision depends on. Same input, same decision, byte for byte."""

    decision_id: str
    facts: RequestFacts
    alternatives: tuple[Policy, ...]
    """Tried in order: a later one only ranks what the earlier ones rejected. At least one."""
    endpoints: tuple[Endpoint, ...]
    qualities: Mapping[str, QualityPrediction]
    """By model name. A model that is missing has unknown quality."""
    snapshot: RuntimeSnapshot
    seed: int
    exploration: Exploration = Exploration()
    router_name: str = "default"
    router_version: str = ""
    quality_artifact: str = ""
    """What gave `qualities`, name@version; empty when nothing did."""
    assignment: Assignment = Assignment("default", "default")
    """Which router acts on this request, and how it came to; a shadow's decision has that of the acting one."""
    risk_table: RiskTable | None = None
    """What held-out prompts show of falling short of the best candidate; None: nothing, so that a bound with such a risk
    leaves the best candidate alone."""
    cached_input_token_counts: Mapping[str, float] = MappingProxyType({})
    """By endpoint, how many tokens of the input it is expected to have in its prompt cache; what is missing has none."""


class RejectionReason(StrEnum):
    """Why an endpoint is not eligible."""

    NOT_IN_SEARCH_SPACE = "not_in_search_space"
    SKIPPED = "skipped"
    BOUND_VIOLATED = "bound_violated"
    UNKNOWN_VALUE = "unknown_value"
    RISK_TOO_HIGH = "risk_too_high"
    RISK_UNKNOWN = "risk_unknown"
    MISSING_CAPABILITY = "missing_capability"
    CONTEXT_TOO_SHORT = "context_too_short"
    OUTPUT_TOO_SHORT = "output_too_short"
    LABEL_MISMATCH = "label_mismatch"
    BREAKER_OPEN = "breaker_open"
    RATE_LIMITED = "rate_limited"


HEALTH_REASONS = frozenset({RejectionReason.BREAKER_OPEN, RejectionReason.RATE_LIMITED})
"""Reasons that pass with time, whatever the caller asks for."""


class Rejection(NamedTuple):
    """One reason why one endpoint is not eligible."""

    reason: RejectionReason
    constraint: str
    """The constraint as the text form writes it, such as `ttft.p95<500`."""
    bound: Bound | None = None
    """The bound that is violated or can't be checked."""
    actual: float | None = None
    """The value that violates it, canonical unit; of a risk that is too high the risk, 0..1. None when unknown or not a
    number."""


class UtilityTerm(NamedTuple):
    """One summand of a candidate's utility."""

    metric: Metric
    weight: float
    value: float
    """In the metric's canonical unit; of a latency with what the request costs those under way at the endpoint."""
    assumed: bool
    """The value is unknown and was taken from the other candidates."""
    contribution: float
    """Signed: what this term adds to the utility."""


class UtilityColumn(NamedTuple):
    """One summand of the utility, for all eligible candidates of an alternative side by side."""

    metric: Metric
    weight: float
    values: Sequence[float]
    assumed: Sequence[bool]
    contributions: Sequence[float]

    def term(self, row: int) -> UtilityTerm:
        """The summand of one candidate."""
        return UtilityTerm(self.metric, self.weight, self.values[row], self.assumed[row], self.contributions[row])


class Candidate(NamedTuple):
    """An endpoint with what is expected of it for this request."""

    endpoint: Endpoint
    quality: QualityPrediction | None
    output_token_count: float | None
    cost_usd: float | None
    ttft_s: Latency | None
    inter_token_latency_s: Latency | None
    end_to_end_latency_s: float | None
    """Expectation."""
    error_rate: float | None
    runtime_age_s: float | None
    alternative: int = 0
    """Index of the alternative that ranks it."""
    utility: float | None = None
    """Comparable within one alternative of one decision; None when rejected."""
    columns: tuple[UtilityColumn, ...] = ()
    """What the utility is made of; shared by the candidates of one alternative, and read through `terms`."""
    row: int = 0
    """Where this candidate stands in `columns`."""
    probability: float = 0.0
    """With which this candidate is chosen, given everything but the seed."""
    rejections: tuple[Rejection, ...] = ()
    shortfall_risk: float | None = None
    """Of falling short of the best candidate's quality by more than the bound with a risk allows, 0..1 (of several such
    bounds the highest). None when no bound of its alternative states a risk, or when it is unknown."""
    cached_input_token_count: float = 0.0
    """Tokens of the input that the endpoint is expected to have in its prompt cache."""

    @property
    def terms(self) -> tuple[UtilityTerm, ...]:
        """The summands of the utility. Made when asked for: eighty of them would be a fifth of a decision's time."""
        return tuple([column.term(self.row) for column in self.columns])

    def __eq__(self, other: object) -> bool:
        """By what it tells: where its terms are kept is no part of that."""
        return isinstance(other, Candidate) and self._told() == other._told()

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._told())

    def __repr__(self) -> str:
        return f"Candidate{self._told()!r}"

    def _told(self) -> tuple[object, ...]:
        return (*self._replace(columns=(), row=0), self.terms)

    @property
    def eligible(self) -> bool:
        """Whether it satisfies every constraint of its alternative."""
        return not self.rejections

    @property
    def healthy_but_for_time(self) -> bool:
        """Whether only its health stands against it, which passes with time."""
        return bool(self.rejections) and HEALTH_REASONS.issuperset([one.reason for one in self.rejections])


@dataclass(frozen=True, slots=True)
class BoundChange:
    """One bound, loosened just enough."""

    bound: Bound
    relaxed: Bound


@dataclass(frozen=True, slots=True)
class Relaxation:
    """The smallest change of bounds that would make one endpoint eligible."""

    endpoint_name: str
    changes: tuple[BoundChange, ...]
    distance: float
    """Sum of the relative changes, 0.1 = one bound by 10 %."""


class DecisionReason(StrEnum):
    """Why the chosen endpoint was chosen."""

    ONLY_CANDIDATE = "only_candidate"
    BEST_UTILITY = "best_utility"
    NEAR_TIE = "near_tie"
    FALLBACK = "fallback"
    EXPLORATION = "exploration"
    PANIC = "panic"
    """Every endpoint that would do has an open breaker, and none was heeded."""


class Affinity(StrEnum):
    """Whether a decision stays where the conversation has been read before."""

    NONE = "none"
    """No endpoint is expected to have any of it in its prompt cache."""
    KEPT = "kept"
    """The chosen endpoint is."""
    LEFT = "left"
    """Others are, but the chosen one is better all the same, or they are not eligible."""


class Agreement(StrEnum):
    """Whether a shadow would have done as the acting router did."""

    SAME = "same"
    OTHER = "other"
    ONLY_ACTING = "only_acting"
    """The shadow had nothing eligible."""
    ONLY_SHADOW = "only_shadow"
    """The acting router had nothing eligible."""
    NEITHER = "neither"


class Decision(NamedTuple):
    """The ranking with its reasons. `candidates` holds every endpoint of the catalog: the chosen one first, then the
    other eligible ones in the order in which they would be tried, then the rejected ones by name."""

    decision_id: str
    router_name: str
    router_version: str
    seed: int
    reason: DecisionReason | None
    """None when nothing is eligible."""
    candidates: tuple[Candidate, ...]
    relaxations: tuple[Relaxation, ...] = ()
    """Nearest first; only when nothing is eligible."""
    runtime_age_s: float | None = None
    """Age of the chosen endpoint's last observation."""
    quality_artifact: str = ""
    """As in `DecisionInput`."""
    assignment: Assignment = Assignment("default", "default")
    """As in `DecisionInput`."""

    @property
    def eligible(self) -> tuple[Candidate, ...]:
        """The candidates in the order in which they are to be tried."""
        return tuple(candidate for candidate in self.candidates if candidate.eligible)

    @property
    def chosen(self) -> Candidate | None:
        """The winner, or None when nothing is eligible."""
        first = self.candidates[0] if self.candidates else None
        return first if first is not None and first.eligible else None

    @property
    def affinity(self) -> Affinity:
        """Whether the choice stays where the conversation has been read before."""
        chosen = self.chosen
        if chosen is not None and chosen.cached_input_token_count > 0.0:
            return Affinity.KEPT
        has_readers = any(candidate.cached_input_token_count > 0.0 for candidate in self.candidates)
        return Affinity.LEFT if has_readers else Affinity.NONE

    def agreement(self, shadow: Decision) -> Agreement:
        """How the choice of a shadow compares with this one."""
        acting, other = self.chosen, shadow.chosen
        if acting is None:
            return Agreement.NEITHER if other is None else Agreement.ONLY_SHADOW
        if other is None:
            return Agreement.ONLY_ACTING
        return Agreement.SAME if acting.endpoint.name == other.endpoint.name else Agreement.OTHER
