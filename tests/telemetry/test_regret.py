"""Regret: what a choice gives up, by its own forecast and by what was seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from pointsman_server.decision.decide import decide
from pointsman_server.decision.metrics import Metric
from pointsman_server.decision.types import (
    Candidate,
    Decision,
    DecisionInput,
    Endpoint,
    EndpointRuntime,
    Exploration,
    Latency,
    Policy,
    QualityPrediction,
    RequestFacts,
    RuntimeSnapshot,
    Weights,
)
from pointsman_server.telemetry import regret
from pointsman_server.telemetry.regret import Seen, candidate_of, expected_regret, seen_regret
from strategies import decision_inputs

NOTHING = Seen(cost_usd=None, ttft_s=None, inter_token_latency_s=None, duration_s=None)
WEIGHTS = Weights.of({Metric.QUALITY: 1.0, Metric.REQUEST_COST: 10.0, Metric.TTFT: 0.5})


def a_decision(*, model_count: int = 2) -> Decision:
    """Model "a" of quality 0.8 and, where there are two, "b" of 0.7; both answer in 0.2 s and cost the same."""
    runtime = EndpointRuntime(Latency(0.2, 0.2, 0.2, 0.2, 0.2), age_s=1.0, observation_count=5)
    endpoints = tuple(Endpoint(model, "p", 1.0, 1.0) for model in "ab"[:model_count])
    return decide(
        DecisionInput(
            decision_id="d",
            facts=RequestFacts(input_token_count=1000),
            alternatives=(Policy(preference=WEIGHTS),),
            endpoints=endpoints,
            qualities={"a": QualityPrediction(0.8, 0.1, 0.0), "b": QualityPrediction(0.7, 0.1, 0.0)},
            snapshot=RuntimeSnapshot({endpoint.name: runtime for endpoint in endpoints}),
            seed=1,
            exploration=Exploration(rate=0.0),
        )
    )


def the_chosen(decision: Decision) -> Candidate:
    """Whom the decision chose."""
    assert decision.chosen is not None
    return decision.chosen


def test_the_best_choice_is_not_expected_to_be_regretted() -> None:
    """Who chooses the best by its own forecast gives nothing up; who draws the other gives up the difference."""
    decision = a_decision()
    assert expected_regret(decision) == 0.0
    other = decision._replace(candidates=decision.candidates[::-1])
    assert the_chosen(other).endpoint.model == "b"
    assert expected_regret(other) == pytest.approx(0.1)


def test_what_was_seen_takes_the_place_of_what_was_expected() -> None:
    """A first token 0.5 s late at a weight of 0.5 costs 0.25 of utility, of which 0.1 was in hand; cost likewise."""
    decision = a_decision()
    chosen = the_chosen(decision)
    assert chosen.cost_usd is not None
    late = Seen(cost_usd=chosen.cost_usd, ttft_s=0.7, inter_token_latency_s=None, duration_s=None)
    assert seen_regret(decision, chosen, late) == pytest.approx(0.15)
    dear = Seen(cost_usd=chosen.cost_usd + 0.02, ttft_s=0.2, inter_token_latency_s=None, duration_s=None)
    assert seen_regret(decision, chosen, dear) == pytest.approx(0.1)
    fine = Seen(cost_usd=chosen.cost_usd, ttft_s=0.2, inter_token_latency_s=1.0, duration_s=9.0)
    assert seen_regret(decision, chosen, fine) == 0.0


@given(decision_inputs())
def test_the_best_other_is_found_without_looking_at_all(given_input: DecisionInput) -> None:
    """Whatever is decided, the regret is against the highest utility of all other eligible candidates that can be
    compared."""
    decision = decide(given_input)
    for candidate in decision.eligible:
        others = [
            other.utility
            for other in decision.eligible
            if other is not candidate and other.alternative == candidate.alternative and other.utility is not None
        ]
        assert regret._best_other(decision, candidate) == max(others, default=float("-inf"))


def test_without_another_or_without_a_figure_there_is_none() -> None:
    """The only candidate is never regretted; an answer of which nothing weighed is known says nothing."""
    alone = a_decision(model_count=1)
    seen = Seen(cost_usd=9.0, ttft_s=9.0, inter_token_latency_s=None, duration_s=None)
    assert seen_regret(alone, the_chosen(alone), seen) == 0.0
    assert seen_regret(a_decision(), the_chosen(a_decision()), NOTHING) is None
    assert candidate_of(alone, Endpoint("b", "p")) is None
