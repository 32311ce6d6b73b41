"""Which endpoints may be chosen, and every reason why the others may not.

Bounds are checked one by one and all violations are kept, because the caller wants to know them all. What is unknown
is rejected wherever it is bounded, with that reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from pointsman_server.decision.estimate import Draft, expectation, pessimistic
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


class Verdict(NamedTuple):
    """What an alternative says of a draft."""

    rejections: tuple[Rejection, ...]
    """Every reason why it is not eligible; empty where it is."""
    shortfall_risk: float | None
    """See `Candidate.shortfall_risk`."""


class Reference(NamedTuple):
    """The best candidate, which relative quality is relative to."""

    model: str
    quality: float
    model_count: int
    """Different models of known quality that it is the best of, itself included."""


PASSED = Verdict((), None)


def judge(
    drafts: Sequence[Draft],
    policy: Policy,
    facts: RequestFacts,
    *,
    risk_table: RiskTable | None = None,
    tolerated_open_s: float | None = None,
) -> list[Verdict]:
    """For each draft every reason why it is not eligible under `policy`.

    Breakers that stay open for no longer than `tolerated_open_s` are no reason; without it, every open one is.
    "The best candidate" of a bound on relative quality is the best that the request could use at all: within the
    search space, with the capabilities, labels and context it needs. Health and the other bounds don't move it, so
    that tightening one of them never makes another endpoint eligible.
    """
    structural = _structurals(drafts, policy, facts)
    ills = [health(draft.runtime, tolerated_open_s=tolerated_open_s) for draft in drafts]
    if not policy.bounds:
        return [Verdict(one + ill, None) if one or ill else PASSED for one, ill in zip(structural, ills, strict=True)]
    reference = _reference([draft for draft, rejections in zip(drafts, structural, strict=True) if not rejections])
    best_quality = None if reference is None else reference.quality
    verdicts = []
    for draft, rejections, ill in zip(drafts, structural, ills, strict=True):
        risks, shortfall_risk = _risks(draft, policy.bounds, reference, risk_table)
        verdicts.append(Verdict(rejections + _bounds(draft, policy.bounds, best_quality) + risks + ill, shortfall_risk))
    return verdicts


def _reference(drafts: Sequence[Draft]) -> Reference | None:
    """The model of the highest predicted quality, of equals the first by name; None if no quality is known."""
    known = [(-draft.quality.mean, draft.endpoint.model) for draft in drafts if draft.quality is not None]
    if not known:
        return None
    loss, model = min(known)
    return Reference(model, -loss, len({model for _, model in known}))


def _structurals(drafts: Sequence[Draft], policy: Policy, facts: RequestFacts) -> list[tuple[Rejection, ...]]:
    """For each draft the reasons that lie in what the endpoint is, not in what is expected of it."""
    needed = sorted(policy.capabilities | facts.capabilities)
    wanted = facts.output_token_count_max
    context = facts.input_token_count + (1 if wanted is None else wanted)
    lengths = [_lengths(draft.endpoint, wanted, context) for draft in drafts]
    if policy.space == EVERYWHERE and not needed and not policy.labels and not facts.features:
        return lengths
    places = [_place(draft.endpoint, policy, needed, facts.features) for draft in drafts]
    return [place + length for place, length in zip(places, lengths, strict=True)]


def _place(
    endpoint: Endpoint, policy: Policy, needed: Sequence[Capability], asked: frozenset[RequestFeature]
) -> tuple[Rejection, ...]:
    """Reasons in its place in the search space, its capabilities, what it lacks, and its labels."""
    rejections: list[Rejection] = []
    if rejection := outside(endpoint, policy.space):
        rejections.append(rejection)
    rejections += [
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


def _lengths(endpoint: Endpoint, wanted: int | None, context: int) -> tuple[Rejection, ...]:
    """Reasons in the output that is wanted, if the caller limits it, and in the tokens of input and output together."""
    output_max, context_max = endpoint.output_token_count_max, endpoint.context_token_count_max
    if wanted is None and (context_max is None or context <= context_max):
        return ()  # The usual case.
    rejections = []
    if output_max is not None and wanted is not None and wanted > output_max:
        constraint = f"max_output_token_count={wanted}"
        rejections.append(Rejection(RejectionReason.OUTPUT_TOO_SHORT, constraint, actual=float(output_max)))
    if context_max is not None and context > context_max:
        constraint = f"context_token_count>={context}"
        rejections.append(Rejection(RejectionReason.CONTEXT_TOO_SHORT, constraint, actual=float(context_max)))
    return tuple(rejections)


def outside(endpoint: Endpoint, space: SearchSpace) -> Rejection | None:
    """Why an endpoint does not belong to a search space; None where it does."""
    for key, allowed, name in (
        ("models", space.models, endpoint.model),
        ("providers", space.providers, endpoint.provider),
        ("endpoints", space.endpoints, endpoint.name),
    ):
        if allowed and name not in allowed:
            return Rejection(RejectionReason.NOT_IN_SEARCH_SPACE, f"{key}:{_listed(allowed)}")
    for key, skipped, name in (
        ("skip_models", space.skip_models, endpoint.model),
        ("skip_providers", space.skip_providers, endpoint.provider),
        ("skip_endpoints", space.skip_endpoints, endpoint.name),
    ):
        if name in skipped:
            return Rejection(RejectionReason.SKIPPED, f"{key}:{name}")
    return None


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


def _bounds(draft: Draft, bounds: Sequence[Bound], best_quality: float | None) -> tuple[Rejection, ...]:
    rejections = []
    for bound in bounds:
        actual = bounded_value(draft, bound, best_quality)
        if actual is None:
            rejections.append(Rejection(RejectionReason.UNKNOWN_VALUE, str(bound), bound))
        elif not bound.limits_risk and not bound.comparison.holds(actual, bound.limit):
            rejections.append(Rejection(RejectionReason.BOUND_VIOLATED, str(bound), bound, actual))
    return tuple(rejections)


def _risks(
    draft: Draft, bounds: Sequence[Bound], reference: Reference | None, table: RiskTable | None
) -> tuple[tuple[Rejection, ...], float | None]:
    """The bounds whose risk of falling short of the reference is too high or unknown, and the highest such risk.

    A draft of unknown quality has no risk: the bound itself rejects it.
    """
    if reference is None or draft.quality is None:
        return (), None
    rejections: list[Rejection] = []
    highest: float | None = None
    for bound in bounds:
        if not bound.limits_risk:
            continue
        assert bound.quantile is not None, "a bound that limits a risk states it"
        if draft.endpoint.model == reference.model or bound.limit <= 0.0:
            # Nobody falls short of oneself, or of nothing.
            risk = 0.0
        elif table is None:
            rejections.append(Rejection(RejectionReason.RISK_UNKNOWN, str(bound), bound))
            continue
        else:
            gap = max(0.0, reference.quality - draft.quality.mean)
            risk = table.risk_of(gap, share=bound.limit, model_count=reference.model_count)
        highest = risk if highest is None else max(highest, risk)
        if not is_accepted(risk, quantile=bound.quantile):
            rejections.append(Rejection(RejectionReason.RISK_TOO_HIGH, str(bound), bound, risk))
    return tuple(rejections), highest


def bounded_value(draft: Draft, bound: Bound, best_quality: float | None) -> float | None:
    """The value that `bound` limits, in the metric's canonical unit; None when it is unknown. Of a bound that limits the
    risk of falling short it is the expectation, which tells no more than that something is known."""
    if bound.quantile is None or bound.limits_risk:
        value = expectation(draft, bound.metric)
    else:
        value = pessimistic(draft, bound.metric, quantile=bound.quantile, upper=bound.comparison.is_upper)
    if bound.metric is Metric.RELATIVE_QUALITY and value is not None:
        # Where even the best candidate is worth nothing, every candidate is as good as the best.
        return None if best_quality is None else value / best_quality if best_quality > NEGLIGIBLE else 1.0
    return value


def health(runtime: EndpointRuntime, *, tolerated_open_s: float | None = None) -> tuple[Rejection, ...]:
    """Reasons in the state of an endpoint; breakers that stay open for no longer than `tolerated_open_s` are none."""
    rejections: tuple[Rejection, ...] = ()
    if runtime.breaker is BreakerState.OPEN:
        open_s = runtime.breaker_open_s
        if tolerated_open_s is None or (open_s or 0.0) > tolerated_open_s:
            rejections = (Rejection(RejectionReason.BREAKER_OPEN, "breaker", actual=open_s),)
    retry_after_s = runtime.retry_after_s
    if retry_after_s is not None and retry_after_s > 0.0:
        rejections += (Rejection(RejectionReason.RATE_LIMITED, "rate limit", actual=retry_after_s),)
    return rejections


def relaxations(candidates: Sequence[Candidate]) -> tuple[Relaxation, ...]:
    """The smallest changes of bounds that would each make one endpoint eligible, nearest first.

    Only endpoints whose every rejection is a violated bound, or too high a risk, are within reach of a change of bounds.
    """
    found = []
    for candidate in candidates:
        if candidate.rejections and all(rejection.reason in BOUND_REASONS for rejection in candidate.rejections):
            relaxed: dict[Bound, Bound] = {}
            distance = 0.0
            for rejection in candidate.rejections:
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
