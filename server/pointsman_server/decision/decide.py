"""The decision: feasibility, then utility, then pick. A pure function of its input."""

from __future__ import annotations

from collections.abc import Sequence

from pointsman_server.decision.choice import choose
from pointsman_server.decision.estimate import Draft, draft_candidate
from pointsman_server.decision.feasibility import judge, relaxations
from pointsman_server.decision.types import Decision, DecisionInput, DecisionReason
from pointsman_server.decision.utility import rank


def decide(given: DecisionInput) -> Decision:
    """Ranks every endpoint for the request and picks one; model and provider are chosen together.

    The alternatives are worked off in order: the first that leaves an eligible endpoint supplies the choice, the later
    ones supply further candidates to fail over to.
    """
    drafts = [
        draft_candidate(endpoint, given.qualities.get(endpoint.model), given.snapshot.of(endpoint.name), given.facts)
        for endpoint in given.endpoints
    ]
    reason: DecisionReason | None = None
    ordered: list[Draft] = []
    remaining = drafts
    for index, policy in enumerate(given.alternatives):
        eligible = _take_eligible(remaining, given, index)
        ranked = rank(eligible, policy.preference)
        if ranked and reason is None:
            choice = choose(ranked, given.exploration, given.seed)
            reason = DecisionReason.FALLBACK if index > 0 else choice.reason
            ranked.insert(0, ranked.pop(choice.index))
        ordered += ranked
        remaining = [draft for draft in remaining if draft.rejections]
    rejected = sorted(remaining, key=lambda draft: draft.endpoint.name)
    return Decision(
        decision_id=given.decision_id,
        router_name=given.router_name,
        router_version=given.router_version,
        seed=given.seed,
        reason=reason,
        candidates=tuple(draft.frozen() for draft in (*ordered, *rejected)),
        relaxations=() if ordered else relaxations(rejected),
        runtime_age_s=ordered[0].runtime.age_s if ordered else None,
        quality_artifact=given.quality_artifact,
        assignment=given.assignment,
    )


def _take_eligible(drafts: Sequence[Draft], given: DecisionInput, index: int) -> list[Draft]:
    """The drafts that satisfy alternative `index`. Of several alternatives that reject a draft, the one that comes
    nearest (with the fewest reasons) explains it."""
    eligible = []
    verdicts = judge(drafts, given.alternatives[index], given.facts, risk_table=given.risk_table)
    for draft, (rejections, shortfall_risk) in zip(drafts, verdicts, strict=True):
        if not rejections:
            eligible.append(draft)
        if not rejections or index == 0 or len(rejections) < len(draft.rejections):
            draft.rejections, draft.alternative, draft.shortfall_risk = rejections, index, shortfall_risk
    return eligible
