"""The decision: feasibility, then utility, then pick. A pure function of its input."""

from __future__ import annotations

from dataclasses import replace

from pointsman_server.decision.choice import choose
from pointsman_server.decision.estimate import Draft, drafts_of
from pointsman_server.decision.feasibility import PASSED, Verdict, judge, relaxations
from pointsman_server.decision.types import Candidate, Decision, DecisionInput, DecisionReason
from pointsman_server.decision.utility import Terms, rank

PANIC_OPEN_S_MAX = 60.0
"""Longer than failures keep a breaker open (`runtime.breaker.BreakerRules`). One that stays open for longer was opened by a
refused key, which trying does not mend."""

Worth = tuple[float | None, Terms, float]
"""Of a candidate: its utility, the terms of that, and the probability with which it is chosen."""
WORTHLESS: Worth = (None, (), 0.0)
"""What is not eligible."""


def decide(given: DecisionInput) -> Decision:
    """Ranks every endpoint for the request and picks one; model and provider are chosen together.

    The alternatives are worked off in order: the first that leaves an eligible endpoint supplies the choice, the later
    ones supply further candidates to fail over to. Where only open breakers stand against every endpoint that would
    do, they are left out of account: the calls that opened them may have failed for a reason that is over, and to try
    is better than to refuse (Envoy calls this its panic threshold). What an endpoint asked for, it gets all the same.
    """
    decision = _decided(given)
    if decision.reason is None and any(candidate.healthy_but_for_time for candidate in decision.candidates):
        tried = _decided(given, tolerated_open_s=PANIC_OPEN_S_MAX)
        if tried.reason is not None:
            return replace(tried, reason=DecisionReason.PANIC)
    return decision


def _decided(given: DecisionInput, *, tolerated_open_s: float | None = None) -> Decision:
    remaining = drafts_of(given.endpoints, given.qualities, given.snapshot, given.facts)
    reason: DecisionReason | None = None
    eligible: list[Candidate] = []
    rejected: dict[str, Candidate] = {}
    for index, policy in enumerate(given.alternatives):
        verdicts = judge(remaining, policy, given.facts, risk_table=given.risk_table, tolerated_open_s=tolerated_open_s)
        judged = list(zip(remaining, verdicts, strict=True))
        ranking = rank([draft for draft, verdict in judged if not verdict.rejections], policy.preference)
        first, probabilities = 0, [0.0] * len(ranking.drafts)
        if ranking.drafts and reason is None:
            first, choice_reason, probabilities = choose(ranking, given.exploration, given.seed)
            reason = DecisionReason.FALLBACK if index > 0 else choice_reason
        risky = {draft.endpoint.name: verdict for draft, verdict in judged if verdict.shortfall_risk is not None}
        worths = zip(ranking.utilities, ranking.terms, probabilities, strict=True)
        ranked = [
            _candidate(draft, risky.get(draft.endpoint.name, PASSED), index, worth)
            for draft, worth in zip(ranking.drafts, worths, strict=True)
        ]
        # The chosen one comes first, whatever its rank.
        eligible += [*ranked[first : first + 1], *ranked[:first], *ranked[first + 1 :]]
        remaining = [draft for draft, verdict in judged if verdict.rejections]
        for draft, verdict in judged:
            # Of several alternatives that reject a draft, the one that comes nearest (with the fewest reasons) tells why.
            shown = rejected.get(draft.endpoint.name)
            if verdict.rejections and (shown is None or len(verdict.rejections) < len(shown.rejections)):
                rejected[draft.endpoint.name] = _candidate(draft, verdict, index)
    out = [rejected[name] for name in sorted([draft.endpoint.name for draft in remaining])]
    return Decision(
        decision_id=given.decision_id,
        router_name=given.router_name,
        router_version=given.router_version,
        seed=given.seed,
        reason=reason,
        candidates=(*eligible, *out),
        relaxations=() if eligible else relaxations(out),
        runtime_age_s=eligible[0].runtime_age_s if eligible else None,
        quality_artifact=given.quality_artifact,
        assignment=given.assignment,
    )


def _candidate(draft: Draft, verdict: Verdict, alternative: int, worth: Worth = WORTHLESS) -> Candidate:
    """The draft with all that was found of it."""
    endpoint, quality, runtime, ttft_s, output_token_count, cost_usd, end_to_end_latency_s = draft
    utility, terms, probability = worth
    rejections, shortfall_risk = verdict
    # By position: twenty of these are made for a decision, and keywords cost a third of it.
    return Candidate(
        endpoint,
        quality,
        output_token_count,
        cost_usd,
        ttft_s,
        runtime.inter_token_latency_s,
        end_to_end_latency_s,
        runtime.error_rate,
        runtime.age_s,
        alternative,
        utility,
        terms,
        probability,
        rejections,
        shortfall_risk,
    )
