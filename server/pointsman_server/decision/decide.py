"""The decision: feasibility, then utility, then pick. A pure function of its input."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import repeat
from typing import NamedTuple

from pointsman_server.decision.choice import choose
from pointsman_server.decision.estimate import Drafts, drafts_of
from pointsman_server.decision.feasibility import Verdicts, judge, relaxations
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
    """What eligible candidates are worth, side by side with their drafts."""

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
            return tried._replace(reason=DecisionReason.PANIC)
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
    drafts = drafts_of(given.endpoints, given.qualities, given.snapshot, given.facts, given.cached_input_token_counts)
    reason: DecisionReason | None = None
    eligible: list[Candidate] = []
    rejected: dict[str, Candidate] = {}
    for index, policy in enumerate(given.alternatives):
        verdicts = judge(drafts, policy, given.facts, risk_table=given.risk_table, tolerated_open_s=tolerated_open_s)
        is_unopposed = not any(verdicts.rejections)
        passed, found = drafts, verdicts
        if not is_unopposed:
            passes = [not rejections for rejections in verdicts.rejections]
            passed, found = drafts.where(passes), verdicts.where(passes)
        if passed.endpoints:
            ranking = rank(passed, policy.preference)
            order, probabilities = ranking.rows, [0.0] * len(ranking.rows)
            if reason is None:
                first, choice_reason, probabilities = choose(ranking, given.exploration, given.seed)
                reason = DecisionReason.FALLBACK if index > 0 else choice_reason
                if first != order[0]:
                    # The chosen one comes first, whatever its rank.
                    order = [first, *[row for row in order if row != first]]
            worths = Worths(ranking.utilities, repeat(ranking.columns), range(len(order)), probabilities)
            ranked = _candidates(passed, found, index, worths)
            eligible += [ranked[row] for row in order]
        if is_unopposed:
            rejected = {}
            break
        drafts, verdicts = drafts.where(verdicts.rejections), verdicts.where(verdicts.rejections)
        rejected = {
            candidate.endpoint.name: _nearer(candidate, rejected.get(candidate.endpoint.name))
            for candidate in _candidates(drafts, verdicts, index)
        }
    out = [rejected[name] for name in sorted(rejected)]
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


def _nearer(candidate: Candidate, shown: Candidate | None) -> Candidate:
    """Of two alternatives that reject an endpoint, the one that comes nearest (with the fewest reasons) tells why."""
    return candidate if shown is None or len(candidate.rejections) < len(shown.rejections) else shown


def _candidates(drafts: Drafts, verdicts: Verdicts, alternative: int, worths: Worths = WORTHLESS) -> list[Candidate]:
    """The drafts with all that was found of them."""
    rows = zip(
        drafts.endpoints,
        drafts.qualities,
        drafts.output_token_counts,
        drafts.costs_usd,
        drafts.ttfts_s,
        drafts.inter_token_latencies_s,
        drafts.end_to_end_latencies_s,
        drafts.error_rates,
        drafts.ages_s,
        repeat(alternative),
        *worths,
        verdicts.rejections,
        verdicts.shortfall_risks,
        drafts.cached_input_token_counts,
        strict=False,
    )
    return list(map(_new_candidate, rows))
