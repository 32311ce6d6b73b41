"""The decision: feasibility, then utility, then pick. A pure function of its input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import NamedTuple

from pointsman_server.decision.choice import choose
from pointsman_server.decision.estimate import Draft, drafts_of
from pointsman_server.decision.feasibility import Verdict, judge, relaxations
from pointsman_server.decision.types import (
    Candidate,
    Decision,
    DecisionInput,
    DecisionReason,
    RejectionReason,
    UtilityColumn,
)
from pointsman_server.decision.utility import rank

PANIC_OPEN_S_MAX = 60.0
"""Longer than failures keep a breaker open (`runtime.breaker.BreakerRules`). One that stays open for longer was opened by a
refused key, which trying does not mend."""
PANIC_WAIT_S = 3.0
"""An endpoint that is well and limits our rate for no longer than this is waited for (`execution.lineup.WAIT_S_MAX`)."""


_new_candidate: Callable[[tuple[object, ...]], Candidate] = partial(tuple.__new__, Candidate)


class Worths(NamedTuple):
    """What eligible candidates are worth, side by side in the order of their ranking."""

    utilities: Iterable[float | None]
    columns: Iterable[tuple[UtilityColumn, ...]]
    rows: Iterable[int]
    probabilities: Iterable[float]
    """With which each is chosen."""


WORTHLESS = Worths(repeat(None), repeat(()), repeat(0), repeat(0.0))
"""Of candidates that are not eligible."""


def decide(given: DecisionInput) -> Decision:
    """Ranks every endpoint for the request and picks one; model and provider are chosen together.

    The alternatives are worked off in order: the first that leaves an eligible endpoint supplies the choice, the later
    ones supply further candidates to fail over to. Where only open breakers stand against every endpoint that would
    do, they are left out of account: the calls that opened them may have failed for a reason that is over, and to try
    is better than to refuse (Envoy calls this its panic threshold). What an endpoint asked for, it gets all the same;
    and where one that is well will be free in a moment, no ill one is tried in its place.
    """
    decision = _decided(given)
    # Where no breaker is open there is nothing to leave out of account, and a refusal costs half as much.
    if (
        decision.reason is None
        and any(map(_waits_for_breaker, decision.candidates))
        and not any(map(_is_soon_free, decision.candidates))
    ):
        tried = _decided(given, tolerated_open_s=PANIC_OPEN_S_MAX)
        if tried.reason is not None:
            return replace(tried, reason=DecisionReason.PANIC)
    return decision


def _waits_for_breaker(candidate: Candidate) -> bool:
    reasons = [rejection.reason for rejection in candidate.rejections]
    return RejectionReason.BREAKER_OPEN in reasons and candidate.healthy_but_for_time


def _is_soon_free(candidate: Candidate) -> bool:
    return bool(candidate.rejections) and all(
        one.reason is RejectionReason.RATE_LIMITED and one.actual is not None and one.actual <= PANIC_WAIT_S
        for one in candidate.rejections
    )


def _decided(given: DecisionInput, *, tolerated_open_s: float | None = None) -> Decision:
    remaining = drafts_of(
        given.endpoints, given.qualities, given.snapshot, given.facts, given.cached_input_token_counts
    )
    reason: DecisionReason | None = None
    eligible: list[Candidate] = []
    rejected: dict[str, Candidate] = {}
    for index, policy in enumerate(given.alternatives):
        verdicts = judge(remaining, policy, given.facts, risk_table=given.risk_table, tolerated_open_s=tolerated_open_s)
        judged = list(zip(remaining, verdicts, strict=True))
        passed = [(draft, verdict) for draft, verdict in judged if not verdict.rejections]
        if passed:
            ranking = rank([draft for draft, _ in passed], policy.preference)
            first, probabilities = 0, [0.0] * len(passed)
            if reason is None:
                first, choice_reason, probabilities = choose(ranking, given.exploration, given.seed)
                reason = DecisionReason.FALLBACK if index > 0 else choice_reason
            found = [passed[row][1] for row in ranking.rows]
            worths = Worths(ranking.utilities, repeat(ranking.columns), ranking.rows, probabilities)
            ranked = _candidates(ranking.drafts, found, index, worths)
            # The chosen one comes first, whatever its rank.
            eligible += [ranked.pop(first), *ranked]
        failed = [(draft, verdict) for draft, verdict in judged if verdict.rejections]
        remaining = [draft for draft, _ in failed]
        for candidate in _candidates(remaining, [verdict for _, verdict in failed], index):
            # Of several alternatives that reject a draft, the one that comes nearest (with the fewest reasons) tells why.
            shown = rejected.get(candidate.endpoint.name)
            if shown is None or len(candidate.rejections) < len(shown.rejections):
                rejected[candidate.endpoint.name] = candidate
        if not remaining:
            break
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


def _candidates(
    drafts: Sequence[Draft], verdicts: Sequence[Verdict], alternative: int, worths: Worths = WORTHLESS
) -> list[Candidate]:
    """The drafts with all that was found of them."""
    if not drafts:
        return []
    # By column: twenty of these are made for a decision, and a call into Python for each costs as much as all else here.
    endpoints, qualities, runtimes, ttfts_s, output_token_counts, costs_usd, durations_s, cached_counts = zip(
        *drafts, strict=True
    )
    rejections, shortfall_risks = zip(*verdicts, strict=True)
    rows = zip(
        endpoints,
        qualities,
        output_token_counts,
        costs_usd,
        ttfts_s,
        [runtime.inter_token_latency_s for runtime in runtimes],
        durations_s,
        [runtime.error_rate for runtime in runtimes],
        [runtime.age_s for runtime in runtimes],
        repeat(alternative),
        *worths,
        rejections,
        shortfall_risks,
        cached_counts,
        strict=False,
    )
    return list(map(_new_candidate, rows))
