"""One pass over a log: is every decision repeated, and what would another router have given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pointsman_server.decision_log.reader import DecisionLogReader
from pointsman_server.replay.again import Challenger, ChallengerDecisions, differences, logging_probabilities
from pointsman_server.replay.estimate import Estimates, estimates
from pointsman_server.replay.evidence import Gatherer, Outcome, Support
from pointsman_server.replay.verdict import warnings

SHOWN_COUNT_MAX = 20
"""Decisions whose differences are told; the others are counted."""


@dataclass(frozen=True, slots=True)
class Different:
    """A decision that is not repeated."""

    decision_id: str
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What another router would have given."""

    support: Support
    same_choice_count: int
    """Decisions in which it chooses, by the same seed, whom the log did."""
    stale_prediction_count: int
    """Decisions of which its quality model could not see the prompt."""
    estimates: dict[Outcome, Estimates]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a replay has found."""

    decision_count: int
    identical_count: int
    different: tuple[Different, ...]
    """The first of them."""
    damaged_line_count: int
    damaged_places: tuple[str, ...]
    comparison: Comparison | None
    """None where no other router was asked about."""


def replay(log: DecisionLogReader, challenger: Challenger | None, *, progress: Callable[[], None]) -> Replay:
    """Decides every decision of the log again, and as the challenger would have.

    Args:
        log: Whose decisions.
        challenger: Another router; None asks about none.
        progress: Told of each decision that is done.

    Raises:
        DecisionLogError: the log can't be read.
        InvalidRequestError: the challenger names what is not there.
    """
    count = identical = same = 0
    different: list[Different] = []
    decisions = None if challenger is None else ChallengerDecisions(challenger)
    gatherer = Gatherer()
    for request in log.requests():
        count += 1
        if found := differences(request.decision):
            if len(different) < SHOWN_COUNT_MAX:
                different.append(Different(request.decision.decision_id, found))
        else:
            identical += 1
        if decisions is not None:
            other, chosen = decisions.decide(request.decision), request.decision.decision.chosen
            same += (
                chosen is not None and other.chosen is not None and chosen.endpoint.name == other.chosen.endpoint.name
            )
            probabilities, whole = logging_probabilities(request.decision)
            gatherer.add(request, other, probabilities, whole=whole)
        progress()
    comparison = None if decisions is None else _comparison(gatherer, decisions, same)
    return Replay(
        decision_count=count,
        identical_count=identical,
        different=tuple(different),
        damaged_line_count=log.damage.line_count,
        damaged_places=tuple(log.damage.places),
        comparison=comparison,
    )


def _comparison(gatherer: Gatherer, decisions: ChallengerDecisions, same_choice_count: int) -> Comparison:
    found = {outcome: estimates(evidence) for outcome, evidence in gatherer.evidence().items()}
    return Comparison(
        support=gatherer.support,
        same_choice_count=same_choice_count,
        stale_prediction_count=decisions.stale_prediction_count,
        estimates=found,
        warnings=warnings(gatherer, found),
    )
