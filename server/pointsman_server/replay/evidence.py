"""From logged requests to what can be estimated: of each decision its weight, what came of it, and what was predicted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from pointsman_server.decision.cost import cost_usd
from pointsman_server.decision.types import Candidate, Decision, Endpoint
from pointsman_server.decision_log.reader import LoggedRequest
from pointsman_server.decision_log.records import CompletionResult, LoggedReport
from pointsman_server.replay.estimate import Evidence

CERTAIN = 0.999
"""A propensity from which on a choice counts as certain: no other one would be seen in a thousand such decisions."""
_FAILURES = frozenset({CompletionResult.EXHAUSTED, CompletionResult.BROKEN, CompletionResult.DEADLINE})


class Outcome(StrEnum):
    """What of a request is estimated."""

    QUALITY = "quality"
    """As it was reported, 0..1."""
    COST = "cost_usd"
    """Of all attempts, at list prices."""
    TTFT = "ttft_s"
    """Of those with an answer."""
    DURATION = "duration_s"
    """Likewise."""
    FAILED = "failed"
    """Share of requests without a whole answer."""


def _expected(candidate: Candidate) -> Mapping[Outcome, float | None]:
    """What was predicted of a candidate."""
    return {
        Outcome.QUALITY: None if candidate.quality is None else candidate.quality.mean,
        Outcome.COST: candidate.cost_usd,
        Outcome.TTFT: None if candidate.ttft_s is None else candidate.ttft_s.mean,
        Outcome.DURATION: candidate.end_to_end_latency_s,
        Outcome.FAILED: candidate.error_rate,
    }


def seen(request: LoggedRequest, endpoints: Mapping[str, Endpoint]) -> Mapping[Outcome, float | None]:
    """What came of a request, as far as it is known. Costs are at the prices of `endpoints`."""
    told = _last_call(request)
    failed = _failed(request, told)
    answer = (request.completion or told) if failed == 0.0 else None
    return {
        Outcome.QUALITY: request.quality,
        Outcome.COST: _cost_usd(request, told, endpoints),
        Outcome.TTFT: None if answer is None else answer.ttft_s,
        Outcome.DURATION: None if answer is None else answer.duration_s,
        Outcome.FAILED: failed,
    }


def _last_call(request: LoggedRequest) -> LoggedReport | None:
    """The last report that tells how a call of the caller's own went."""
    told = [report for report in request.reports if report.duration_s is not None or report.failure is not None]
    return told[-1] if told else None


def _failed(request: LoggedRequest, told: LoggedReport | None) -> float | None:
    if request.completion is not None:
        result = request.completion.result
        if result is CompletionResult.DONE:
            return 0.0
        return 1.0 if result in _FAILURES else None
    return None if told is None else float(told.failure is not None)


def _cost_usd(request: LoggedRequest, told: LoggedReport | None, endpoints: Mapping[str, Endpoint]) -> float | None:
    if request.completion is None:
        if told is None or told.failure is not None:
            return None
        input_count = told.input_token_count or request.decision.given.facts.input_token_count
        return _price(endpoints, told.endpoint_name, input_count, told.output_token_count)
    logged = {endpoint.name: endpoint for endpoint in request.decision.given.endpoints}
    attempts = request.completion.attempts
    if all(endpoints.get(attempt.endpoint_name) == logged.get(attempt.endpoint_name) for attempt in attempts):
        return request.completion.cost_usd
    costs = [
        _price(
            endpoints,
            attempt.endpoint_name,
            attempt.input_token_count,
            attempt.output_token_count,
            cached_count=attempt.cached_input_token_count or 0,
        )
        for attempt in attempts
        if attempt.output_token_count is not None
    ]
    return None if None in costs else math.fsum(cost for cost in costs if cost is not None)


def _price(
    endpoints: Mapping[str, Endpoint],
    name: str,
    input_count: int | None,
    output_count: int | None,
    *,
    cached_count: int = 0,
) -> float | None:
    endpoint = endpoints.get(name)
    if endpoint is None or input_count is None or output_count is None:
        return None
    return cost_usd(
        endpoint,
        input_token_count=input_count,
        output_token_count=output_count,
        cached_input_token_count=cached_count,
    )


@dataclass(slots=True)
class _Column:
    """What is known of one outcome, a row for each decision that it is known of; NaN where nothing was predicted."""

    weights: list[float] = field(default_factory=list)
    outcomes: list[float] = field(default_factory=list)
    direct: list[float] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)

    def evidence(self) -> Evidence | None:
        """None without a row."""
        if not self.outcomes:
            return None
        outcomes = np.array(self.outcomes)
        # Any number does for what was not predicted, as long as it is the same for all choices of a decision.
        direct, predicted = np.array(self.direct), np.array(self.predicted)
        unknown = np.isnan(direct) | np.isnan(predicted)
        mean = outcomes.mean()
        weights = np.array(self.weights)
        return Evidence(
            weights=weights,
            outcomes=outcomes,
            direct=np.where(unknown, mean, direct),
            predicted=np.where(unknown, mean, predicted),
        )


@dataclass(slots=True)
class Support:
    """Whether the log can tell of another router at all."""

    decision_count: int = 0
    """With somebody chosen, by the log and by the other router."""
    refused_count: int = 0
    """Left out: the other router would have turned them away."""
    certain_count: int = 0
    """Nobody else could have been chosen."""
    unseen_share_sum: float = 0.0
    """Of each decision, with what probability the other router chooses who could not have been chosen."""
    unseen: dict[str, float] = field(default_factory=dict)
    """The same in all, by endpoint."""
    apart_count: int = 0
    """Of a split, weighed by the acting arm alone."""
    weights: list[float] = field(default_factory=list)
    caller_seeded_count: int = 0
    """Left out: their seeds are the callers' own, so their propensities say nothing."""
    impossible_count: int = 0
    """Left out: what was chosen has no propensity, so the log is not of the routers that it tells of."""

    @property
    def unseen_share(self) -> float:
        """Of the other router's choices, the share of which the log has nothing."""
        return self.unseen_share_sum / max(1, self.decision_count)


class Gatherer:
    """Takes request after request, each with the other router's decision. Memory: 40 bytes for each outcome of each."""

    def __init__(self) -> None:
        self.support = Support()
        self.judged: Counter[str] = Counter()
        """Decisions with a reported quality, by the endpoint that was chosen."""
        self.chosen: Counter[str] = Counter()
        """Decisions, likewise."""
        self._columns = {outcome: _Column() for outcome in Outcome}

    def add(self, request: LoggedRequest, other: Decision, probabilities: Mapping[str, float], *, whole: bool) -> None:
        """One more.

        Args:
            request: what was logged.
            other: what the other router would have decided.
            probabilities: with which each endpoint was chosen; those of a split are of its arms together, if `whole`.
            whole: whether they are.
        """
        chosen, support = request.decision.decision.chosen, self.support
        if chosen is None:
            return
        if request.decision.caller_seeded:
            support.caller_seeded_count += 1
            return
        if other.chosen is None:
            support.refused_count += 1
            return
        name = chosen.endpoint.name
        if not probabilities.get(name):
            support.impossible_count += 1
            return
        wanted = {candidate.endpoint.name: candidate for candidate in other.candidates if candidate.probability}
        weight = (wanted[name].probability if name in wanted else 0.0) / probabilities[name]
        self._add_support(wanted, probabilities, name=name, weight=weight, whole=whole)
        self.chosen[name] += 1
        self.judged[name] += request.quality is not None
        endpoints = {candidate.endpoint.name: candidate.endpoint for candidate in other.candidates}
        predicted = _expected(_candidate(other, name) or chosen)
        for outcome, value in seen(request, endpoints).items():
            if value is not None:
                column = self._columns[outcome]
                column.weights.append(weight)
                column.outcomes.append(value)
                column.direct.append(_mean_expected(wanted, outcome))
                known = predicted[outcome]
                column.predicted.append(math.nan if known is None else known)

    def evidence(self) -> dict[Outcome, Evidence]:
        """Of each outcome that anything is known of."""
        found = {outcome: column.evidence() for outcome, column in self._columns.items()}
        return {outcome: evidence for outcome, evidence in found.items() if evidence is not None}

    def _add_support(
        self,
        wanted: Mapping[str, Candidate],
        probabilities: Mapping[str, float],
        *,
        name: str,
        weight: float,
        whole: bool,
    ) -> None:
        support = self.support
        support.decision_count += 1
        support.certain_count += probabilities[name] >= CERTAIN
        support.apart_count += not whole
        support.weights.append(weight)
        for other_name, candidate in wanted.items():
            if probabilities.get(other_name, 0.0) <= 0.0:
                support.unseen_share_sum += candidate.probability
                support.unseen[other_name] = support.unseen.get(other_name, 0.0) + candidate.probability


def _candidate(decision: Decision, name: str) -> Candidate | None:
    return next((candidate for candidate in decision.candidates if candidate.endpoint.name == name), None)


def _mean_expected(wanted: Mapping[str, Candidate], outcome: Outcome) -> float:
    """What is predicted of the other router's choice; NaN where that is not known of each that it may choose."""
    found = [(candidate.probability, _expected(candidate)[outcome]) for candidate in wanted.values()]
    if any(value is None for _, value in found):
        return math.nan
    total = math.fsum(probability for probability, _ in found)
    return math.fsum(probability * value for probability, value in found if value is not None) / total
