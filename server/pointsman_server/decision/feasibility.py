"""Which endpoints may be chosen, and every reason why the others may not.

Bounds are checked one by one and all violations are kept, because the caller wants to know them all. What is unknown
is rejected wherever it is bounded, with that reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from operator import add
from typing import NamedTuple

from pointsman_server.decision.estimate import EXPECTATIONS, Column, Drafts, pessimistic
from pointsman_server.decision.metrics import METRIC_SPECS, Metric
from pointsman_server.decision.risk import RiskTable, is_accepted
from pointsman_server.decision.types import (
    QUANTILE_MIN,
    Bound,
    BoundChange,
    BreakerState,
    Candidate,
    Capability,
    Endpoint,
    EndpointRuntime,
    Policy,
    QualityPrediction,
    Rejection,
    RejectionReason,
    Relaxation,
    RequestFacts,
    RequestFeature,
    SearchSpace,
)

RELAXATION_COUNT_MAX = 3
"""How many relaxations are offered: more would be a list to study, not an answer."""
NEGLIGIBLE = 1e-30
"""Values below it are relaxed to 0, and a best quality below it counts as none: no metric of ours is that small, and powers of ten stay within the range of floats."""
EVERYWHERE = SearchSpace()
"""The search space that allows every endpoint."""
LISTED_NAME_COUNT = 4
"""How many names of an allow list a rejection repeats: enough to recognise the list by."""
RELAXED_DIGIT_COUNT = 3
"""Significant digits of a relaxed limit: rounded outward, so that a person can type it."""
RELAXED_RISK_DIGIT_COUNT = 9
"""Decimals of a relaxed quantile: enough to take off the noise of 1 - risk."""
BOUND_REASONS = frozenset({RejectionReason.BOUND_VIOLATED, RejectionReason.RISK_TOO_HIGH})
"""Reasons that a change of the bound takes away."""


class Verdicts(NamedTuple):
    """What an alternative says of drafts, side by side with them."""

    rejections: Sequence[tuple[Rejection, ...]]
    """Every reason why each is not eligible; empty where it is."""
    shortfall_risks: Sequence[float | None]
    """See `Candidate.shortfall_risk`."""

    def where(self, kept: Sequence[object]) -> Verdicts:
        """Those on the drafts at whose place something true is kept."""
        return self if all(kept) else Verdicts._make([list(compress(column, kept)) for column in self])


class Reference(NamedTuple):
    """The best candidate, which relative quality is relative to."""

    model: str
    quality: float
    model_count: int
    """Different models of known quality that it is the best of, itself included."""


def judge(
    drafts: Drafts,
    policy: Policy,
    facts: RequestFacts,
    *,
    risk_table: RiskTable | None = None,
    tolerated_open_s: float | None = None,
) -> Verdicts:
    """For each draft every reason why it is not eligible under `policy`.

    Breakers that stay open for no longer than `tolerated_open_s` are no reason; without it, every open one is.
    "The best candidate" of a bound on relative quality is the best that the request could use at all: within the
    search space, with the capabilities, labels and context it needs. Health and the other bounds don't move it, so
    that tightening one of them never makes another endpoint eligible.
    """
    structural = _structurals(drafts.endpoints, policy, facts)
    ills = _ills(drafts, tolerated_open_s=tolerated_open_s)
    if not policy.bounds:
        return Verdicts(list(map(add, structural, ills)) if any(ills) else structural, [None] * len(ills))
    reference = _reference(drafts.where([not rejections for rejections in structural]))
    violations = _violations(drafts, policy.bounds, None if reference is None else reference.quality)
    risks = [
        _risks(endpoint.model, quality, policy.bounds, reference, risk_table)
        for endpoint, quality in zip(drafts.endpoints, drafts.qualities, strict=True)
    ]
    rejections = [
        one + violated + too_risky + ill
        for one, violated, (too_risky, _), ill in zip(structural, violations, risks, ills, strict=True)
    ]
    return Verdicts(rejections, [highest for _, highest in risks])


def _reference(drafts: Drafts) -> Reference | None:
    """The model of the highest predicted quality, of equals the first by name; None if no quality is known."""
    known = [
        (-quality.mean, endpoint.model)
        for endpoint, quality in zip(drafts.endpoints, drafts.qualities, strict=True)
        if quality is not None
    ]
    if not known:
        return None
    loss, model = min(known)
    return Reference(model, -loss, len({model for _, model in known}))


def _structurals(endpoints: Sequence[Endpoint], policy: Policy, facts: RequestFacts) -> list[tuple[Rejection, ...]]:
    """For each endpoint the reasons that lie in what it is, not in what is expected of it."""
    needed = sorted(policy.capabilities | facts.capabilities)
    lengths = _lengths(endpoints, facts)
    if policy.space == EVERYWHERE and not needed and not policy.labels and not facts.features:
        return lengths
    places = [() if rejection is None else (rejection,) for rejection in outside(endpoints, policy.space)]
    if needed or policy.labels or facts.features:
        lacks = [_lacks(endpoint, policy, needed, facts.features) for endpoint in endpoints]
        places = list(map(add, places, lacks))
    return list(map(add, places, lengths))


def _lacks(
    endpoint: Endpoint, policy: Policy, needed: Sequence[Capability], asked: frozenset[RequestFeature]
) -> tuple[Rejection, ...]:
    """Reasons in its capabilities, in what else it can't do of the request, and in its labels."""
    rejections = [
        Rejection(RejectionReason.MISSING_CAPABILITY, f"capabilities:{capability.value}")
        for capability in needed
        if capability not in endpoint.capabilities
    ]
    if asked and endpoint.lacks:
        rejections += [
            Rejection(RejectionReason.MISSING_CAPABILITY, f"request:{feature.value}")
            for feature in sorted(asked & endpoint.lacks)
        ]
    if policy.labels:
        rejections += _label_mismatches(endpoint, policy.labels)
    return tuple(rejections)


def _lengths(endpoints: Sequence[Endpoint], facts: RequestFacts) -> list[tuple[Rejection, ...]]:
    """Reasons in the output that is wanted, if the caller limits it, and in the tokens of input and output together."""
    wanted = facts.output_token_count_max
    context = facts.input_token_count + (1 if wanted is None else wanted)
    return [
        ()  # The usual case.
        if wanted is None and ((context_max := endpoint.context_token_count_max) is None or context <= context_max)
        else _length(endpoint, wanted, context)
        for endpoint in endpoints
    ]


def _length(endpoint: Endpoint, wanted: int | None, context: int) -> tuple[Rejection, ...]:
    output_max, context_max = endpoint.output_token_count_max, endpoint.context_token_count_max
    rejections = []
    if output_max is not None and wanted is not None and wanted > output_max:
        constraint = f"max_output_token_count={wanted}"
        rejections.append(Rejection(RejectionReason.OUTPUT_TOO_SHORT, constraint, actual=float(output_max)))
    if context_max is not None and context > context_max:
        constraint = f"context_token_count>={context}"
        rejections.append(Rejection(RejectionReason.CONTEXT_TOO_SHORT, constraint, actual=float(context_max)))
    return tuple(rejections)


def outside(endpoints: Sequence[Endpoint], space: SearchSpace) -> list[Rejection | None]:
    """Why each endpoint does not belong to a search space; None where it does."""
    found: list[Rejection | None] = [None] * len(endpoints)
    if space == EVERYWHERE:
        return found
    models = [endpoint.model for endpoint in endpoints]
    providers = [endpoint.provider for endpoint in endpoints]
    names = [endpoint.name for endpoint in endpoints]
    # Of several reasons the first is told: it is written last.
    for key, skipped, column in (
        ("skip_endpoints", space.skip_endpoints, names),
        ("skip_providers", space.skip_providers, providers),
        ("skip_models", space.skip_models, models),
    ):
        if skipped:
            found = [
                Rejection(RejectionReason.SKIPPED, f"{key}:{name}") if name in skipped else later
                for name, later in zip(column, found, strict=True)
            ]
    for key, allowed, column in (
        ("endpoints", space.endpoints, names),
        ("providers", space.providers, providers),
        ("models", space.models, models),
    ):
        if allowed:
            unlisted = Rejection(RejectionReason.NOT_IN_SEARCH_SPACE, f"{key}:{_listed(allowed)}")
            found = [later if name in allowed else unlisted for name, later in zip(column, found, strict=True)]
    return found


def _listed(names: frozenset[str]) -> str:
    """The first few names of a list, which may hold thousands."""
    shown = sorted(names)[:LISTED_NAME_COUNT]
    return ",".join(shown) + (f",... ({len(names)})" if len(names) > len(shown) else "")


def _label_mismatches(endpoint: Endpoint, labels: frozenset[tuple[str, str]]) -> list[Rejection]:
    rejections = []
    for key in sorted({key for key, _ in labels}):
        wanted = sorted(pair for pair in labels if pair[0] == key)
        if not any(pair in endpoint.labels for pair in wanted):
            constraint = "labels:" + ",".join(f"{key}={value}" for key, value in wanted)
            rejections.append(Rejection(RejectionReason.LABEL_MISMATCH, constraint))
    return rejections


def _violations(drafts: Drafts, bounds: Sequence[Bound], best_quality: float | None) -> list[tuple[Rejection, ...]]:
    """For each draft the bounds that it violates, or of which it is unknown whether it does."""
    by_bound = [
        [_violation(bound, actual) for actual in bounded_values(drafts, bound, best_quality)] for bound in bounds
    ]
    return [tuple([found for found in row if found is not None]) for row in zip(*by_bound, strict=True)]


def _violation(bound: Bound, actual: float | None) -> Rejection | None:
    if actual is None:
        return Rejection(RejectionReason.UNKNOWN_VALUE, str(bound), bound)
    if not bound.limits_risk and not bound.comparison.holds(actual, bound.limit):
        return Rejection(RejectionReason.BOUND_VIOLATED, str(bound), bound, actual)
    return None


def _risks(
    model: str,
    quality: QualityPrediction | None,
    bounds: Sequence[Bound],
    reference: Reference | None,
    table: RiskTable | None,
) -> tuple[tuple[Rejection, ...], float | None]:
    """The bounds whose risk of falling short of the reference is too high or unknown, and the highest such risk.

    A model of unknown quality has no risk: the bound itself rejects it.
    """
    if reference is None or quality is None:
        return (), None
    rejections: list[Rejection] = []
    highest: float | None = None
    for bound in bounds:
        if not bound.limits_risk:
            continue
        assert bound.quantile is not None, "a bound that limits a risk states it"
        if model == reference.model or bound.limit <= 0.0:
            # Nobody falls short of oneself, or of nothing.
            risk = 0.0
        elif table is None:
            rejections.append(Rejection(RejectionReason.RISK_UNKNOWN, str(bound), bound))
            continue
        else:
            gap = max(0.0, reference.quality - quality.mean)
            risk = table.risk_of(gap, share=bound.limit, model_count=reference.model_count)
        highest = risk if highest is None else max(highest, risk)
        if not is_accepted(risk, quantile=bound.quantile):
            rejections.append(Rejection(RejectionReason.RISK_TOO_HIGH, str(bound), bound, risk))
    return tuple(rejections), highest


def bounded_values(drafts: Drafts, bound: Bound, best_quality: float | None) -> Column:
    """The values that `bound` limits, in the metric's canonical unit; None where unknown. Of a bound that limits the
    risk of falling short they are expectations, which tell no more than that something is known."""
    if bound.quantile is None or bound.limits_risk:
        values = EXPECTATIONS[bound.metric](drafts)
    else:
        values = pessimistic(drafts, bound.metric, quantile=bound.quantile, upper=bound.comparison.is_upper)
    if bound.metric is Metric.RELATIVE_QUALITY:
        return [None if value is None else _relative(value, best_quality) for value in values]
    return values


def _relative(quality: float, best_quality: float | None) -> float | None:
    """The quality as a share of the best one. Where even that is worth nothing, every candidate is as good as the best."""
    return None if best_quality is None else quality / best_quality if best_quality > NEGLIGIBLE else 1.0


def _ills(drafts: Drafts, *, tolerated_open_s: float | None) -> list[tuple[Rejection, ...]]:
    """For each draft the reasons in the state of its endpoint."""
    if BreakerState.OPEN not in drafts.breakers and not any(drafts.retries_after_s):
        return [()] * len(drafts.runtimes)  # The usual case.
    return [
        _health(runtime, tolerated_open_s=tolerated_open_s) if retry_s or breaker is BreakerState.OPEN else ()
        for runtime, breaker, retry_s in zip(drafts.runtimes, drafts.breakers, drafts.retries_after_s, strict=True)
    ]


def _health(runtime: EndpointRuntime, *, tolerated_open_s: float | None) -> tuple[Rejection, ...]:
    """Reasons in the state of an endpoint; breakers that stay open for no longer than `tolerated_open_s` are none."""
    rejections: tuple[Rejection, ...] = ()
    if runtime.breaker is BreakerState.OPEN:
        open_s = runtime.breaker_open_s
        if tolerated_open_s is None or (open_s or 0.0) > tolerated_open_s:
            rejections = (Rejection(RejectionReason.BREAKER_OPEN, "breaker", actual=open_s),)
    if is_limited(runtime):
        rejections += (Rejection(RejectionReason.RATE_LIMITED, "rate limit", actual=runtime.retry_after_s),)
    return rejections


def is_limited(runtime: EndpointRuntime) -> bool:
    """Whether a limit of our rate keeps the endpoint from being called now."""
    return (runtime.retry_after_s or 0.0) > 0.0


def relaxations(candidates: Sequence[Candidate]) -> tuple[Relaxation, ...]:
    """The smallest changes of bounds that would each make one endpoint eligible, nearest first.

    Only endpoints whose every rejection is a violated bound, or too high a risk, are within reach of a change of bounds.
    """
    found = []
    for candidate in candidates:
        rejections = candidate.rejections
        if rejections and BOUND_REASONS.issuperset([one.reason for one in rejections]):
            relaxed: dict[Bound, Bound] = {}
            distance = 0.0
            for rejection in rejections:
                bound, actual = rejection.bound, rejection.actual
                assert bound is not None, "a violated bound is named"
                assert actual is not None, "a violated bound has a value"
                if rejection.reason is RejectionReason.RISK_TOO_HIGH:
                    relaxed[bound] = _with_risk(bound, actual)
                    distance += _relative_change(actual, 1.0 - (bound.quantile or 0.0))
                else:
                    relaxed[bound] = loosened(bound, actual)
                    distance += _relative_change(actual, bound.limit)
            changes = tuple(BoundChange(bound, loose) for bound, loose in relaxed.items())
            found.append(Relaxation(candidate.endpoint.name, changes, distance))
    found.sort(key=lambda relaxation: (relaxation.distance, relaxation.endpoint_name))
    return tuple(found[:RELAXATION_COUNT_MAX])


def _relative_change(actual: float, limit: float) -> float:
    return abs(actual - limit) / limit if limit > 0.0 else 1.0


def _with_risk(bound: Bound, risk: float) -> Bound:
    """`bound` with this risk; where it is more than a bound can state, of a share of nothing, which all reach."""
    if not is_accepted(risk, quantile=QUANTILE_MIN):
        return replace(bound, limit=0.0)
    return replace(bound, quantile=round(1.0 - risk, RELAXED_RISK_DIGIT_COUNT))


def loosened(bound: Bound, actual: float) -> Bound:
    """`bound` with a limit, rounded outward, that `actual` satisfies."""
    if actual < NEGLIGIBLE:
        rounded = 0.0
    else:
        step = 10.0 ** (math.floor(math.log10(actual)) - RELAXED_DIGIT_COUNT + 1)
        outward = math.ceil if bound.comparison.is_upper else math.floor
        # The round-trip through text takes off the noise of the multiplication.
        rounded = float(f"{outward(actual / step) * step:.{RELAXED_DIGIT_COUNT}g}")
    value_max = METRIC_SPECS[bound.metric].value_max
    rounded = rounded if value_max is None else min(rounded, value_max)
    if bound.comparison.holds(actual, rounded):
        return replace(bound, limit=rounded)
    inclusive = type(bound.comparison)("<=" if bound.comparison.is_upper else ">=")
    return replace(bound, comparison=inclusive, limit=rounded if inclusive.holds(actual, rounded) else actual)
