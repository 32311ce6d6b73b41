"""Bounds that state a risk: how likely an answer may fall short of the best candidate's."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.decision.decide import decide
from pointsman_server.decision.metrics import Metric
from pointsman_server.decision.risk import ONLY_REFERENCE, UNSHOWN, RiskTable, is_accepted
from pointsman_server.decision.types import (
    Bound,
    Candidate,
    Comparison,
    Decision,
    DecisionInput,
    DecisionReason,
    Endpoint,
    EndpointRuntime,
    Policy,
    QualityPrediction,
    RejectionReason,
    RequestFacts,
    RuntimeSnapshot,
)
from strategies import decision_inputs

TABLE = RiskTable(
    model_counts=(2, 4),
    shares=(0.5, 0.9, 1.0),
    risks=(0.01, 0.05, 0.1, 0.5),
    gap_max=(
        ((0.04, 0.12, 0.4, 0.8), (0.02, 0.1, 0.2, 0.7), (0.02, 0.1, 0.2, 0.7)),
        ((0.02, 0.06, 0.2, 0.6), (ONLY_REFERENCE, 0.05, 0.1, 0.5), (ONLY_REFERENCE, 0.03, 0.1, 0.4)),
    ),
    prompt_count=200,
)
MODELS = {"best": 0.9, "close": 0.86, "near": 0.82, "far": 0.45}
"""Predicted qualities: gaps of 0, 0.04, 0.08 and 0.45."""

RISK_REASONS = frozenset({RejectionReason.RISK_TOO_HIGH, RejectionReason.RISK_UNKNOWN})

limits = st.floats(0.0, 1.0)
quantiles = st.integers(50, 99).map(lambda percent: percent / 100)


def floor(limit: float, quantile: float | None) -> Bound:
    """At least this share of the best candidate's quality, in that share of cases."""
    return Bound(Metric.RELATIVE_QUALITY, Comparison.GREATER_EQUAL, limit, quantile)


def bounded(given_input: DecisionInput, *bounds: Bound) -> DecisionInput:
    """The same, with nothing but these bounds asked."""
    return given_input._replace(alternatives=(Policy(bounds=bounds),))


def given_models(*bounds: Bound, table: RiskTable | None = TABLE) -> DecisionInput:
    """`MODELS`, each at one provider, under these bounds."""
    return DecisionInput(
        decision_id="d-1",
        facts=RequestFacts(input_token_count=10),
        alternatives=(Policy(bounds=bounds),),
        endpoints=tuple(Endpoint(model, "p") for model in MODELS),
        qualities={model: QualityPrediction(mean, 0.05) for model, mean in MODELS.items()},
        snapshot=RuntimeSnapshot(),
        seed=1,
        risk_table=table,
    )


def eligible(decision: Decision) -> set[str]:
    """The endpoints that may be chosen."""
    return {candidate.endpoint.name for candidate in decision.eligible}


def of_model(decision: Decision, model: str) -> Candidate:
    """What is said of that model."""
    (candidate,) = [candidate for candidate in decision.candidates if candidate.endpoint.model == model]
    return candidate


class TestTable:
    """From a gap to a risk."""

    @pytest.mark.parametrize(
        ("gap", "share", "risk"),
        [
            (0.0, 0.5, 0.01),
            (0.0, 1.0, 0.05),
            (0.02, 0.5, 0.01),
            (0.020001, 0.5, 0.05),
            (0.04, 0.9, 0.05),
            (0.04, 1.0, 0.1),
            (0.45, 0.9, 0.5),
            (0.45, 1.0, UNSHOWN),
        ],
    )
    def test_it_gives_the_smallest_risk_that_lets_a_gap_pass(self, gap: float, share: float, risk: float) -> None:
        """Read off the row of the share; what no level lets pass is not shown to be better than certain."""
        assert TABLE.risk_of(gap, share=share, model_count=4) == risk

    @pytest.mark.parametrize(("between", "level"), [(0.01, 0.5), (0.3, 0.5), (0.51, 0.9), (0.95, 1.0)])
    def test_a_share_between_two_levels_counts_as_the_larger(self, between: float, level: float) -> None:
        """What has not been calibrated is judged by what is stricter."""
        asked, counted = (TABLE.risk_of(0.04, share=share, model_count=4) for share in (between, level))
        assert asked == counted

    @pytest.mark.parametrize(("model_count", "risk"), [(1, 0.01), (2, 0.01), (3, 0.05), (4, 0.05), (50, 0.05)])
    def test_more_models_to_choose_among_are_a_higher_risk(self, model_count: int, risk: float) -> None:
        """A number of models between two levels counts as the larger, and one beyond the largest as that."""
        assert TABLE.risk_of(0.03, share=0.5, model_count=model_count) == risk

    @pytest.mark.parametrize("percent", range(1, 51))
    def test_a_risk_is_accepted_at_its_own_level(self, percent: int) -> None:
        """1 - 0.9 is less than 0.1 as computers count, and means it; half a percent more is too much."""
        quantile = 1.0 - percent / 100
        assert is_accepted(percent / 100, quantile=quantile)
        assert not is_accepted(percent / 100 + 0.005, quantile=quantile)


@pytest.mark.parametrize(
    ("limit", "quantile", "expected"),
    [
        (0.9, None, {"best@p", "close@p", "near@p"}),
        (0.9, 0.9, {"best@p", "close@p", "near@p"}),
        (0.9, 0.95, {"best@p", "close@p"}),
        (0.95, 0.95, {"best@p"}),
        (0.9, 0.97, {"best@p"}),
        (0.5, 0.95, {"best@p", "close@p"}),
        (0.5, 0.5, {"best@p", "close@p", "near@p", "far@p"}),
        (0.9, 0.5, {"best@p", "close@p", "near@p", "far@p"}),
        (1.0, 0.9, {"best@p", "close@p", "near@p"}),
        (0.0, 0.99, {"best@p", "close@p", "near@p", "far@p"}),
    ],
)
def test_a_risk_takes_away_who_falls_short_too_often(limit: float, quantile: float | None, expected: set[str]) -> None:
    """Who passes falls short no more often than accepted, whatever its expected share; a risk below what the held-out
    prompts can show leaves the best alone; a share of nothing is no demand."""
    assert eligible(decide(given_models(floor(limit, quantile)))) == expected


def test_the_rejection_says_what_the_risk_is_and_what_was_allowed() -> None:
    """The bound states the accepted risk, the rejection has the candidate's own; so have those that pass."""
    decision = decide(given_models(floor(0.9, 0.95)))
    (rejection,) = of_model(decision, "near").rejections
    assert (rejection.reason, rejection.constraint, rejection.actual) == (
        RejectionReason.RISK_TOO_HIGH,
        "rq.p95>=0.9",
        0.1,
    )
    risks = {model: of_model(decision, model).shortfall_risk for model in MODELS}
    assert risks == {"best": 0.0, "close": 0.05, "near": 0.1, "far": 0.5}


def test_without_a_stated_risk_none_is_told() -> None:
    """Candidates carry a risk only where a bound asks for it."""
    decision = decide(given_models(floor(0.9, None)))
    assert [candidate.shortfall_risk for candidate in decision.candidates] == [None] * len(MODELS)


def test_without_held_out_prompts_only_the_best_is_left() -> None:
    """A model that can't tell the risk promises none: everything but the best candidate is rejected, with that reason."""
    decision = decide(given_models(floor(0.9, 0.5), table=None))
    assert eligible(decision) == {"best@p"}
    assert [r.reason for r in of_model(decision, "close").rejections] == [RejectionReason.RISK_UNKNOWN]
    assert of_model(decision, "close").shortfall_risk is None
    assert eligible(decide(given_models(floor(0.0, 0.99), table=None))) == {f"{model}@p" for model in MODELS}


def test_the_best_model_passes_at_every_provider() -> None:
    """The reference is a model: each of its endpoints gives the answer that nothing falls short of."""
    base = given_models(floor(1.0, 0.99), table=None)
    twice = base._replace(endpoints=(*base.endpoints, Endpoint("best", "q")))
    assert eligible(decide(twice)) == {"best@p", "best@q"}


def test_fewer_models_to_choose_among_leave_more_of_them() -> None:
    """Two models alone are judged as two, so that a risk that is too high among four is not among them; a second
    provider makes no further model."""
    base = given_models(floor(0.9, 0.95))
    assert "near@p" not in eligible(decide(base))
    pair = (Endpoint("best", "p"), Endpoint("near", "p"), Endpoint("near", "q"))
    assert eligible(decide(base._replace(endpoints=pair))) == {"best@p", "near@p", "near@q"}


def with_prices(given_input: DecisionInput, **prices: float) -> DecisionInput:
    """The same models, at these input prices."""
    endpoints = tuple(Endpoint(model, "p", input_price_usd_per_mtok=price) for model, price in prices.items())
    return given_input._replace(endpoints=endpoints)


def test_the_nearest_relaxation_is_a_higher_risk() -> None:
    """Where the best candidate is out for its price, the answer says with which risk the next ones would do."""
    asked = given_models(floor(0.9, 0.97), Bound(Metric.INPUT_PRICE, Comparison.LESS, 1.0))
    decision = decide(with_prices(asked, best=5.0, close=0.5, near=0.5, far=0.5))
    assert decision.chosen is None
    assert [
        (relaxation.endpoint_name, [str(change.relaxed) for change in relaxation.changes])
        for relaxation in decision.relaxations
    ] == [("close@p", ["rq.p95>=0.9"]), ("near@p", ["rq.p90>=0.9"]), ("best@p", ["ic<=5"])]


def test_a_risk_that_no_bound_can_state_is_relaxed_to_no_demand() -> None:
    """An endpoint that falls short in more than half the cases, or for all that is known, passes only a floor of 0."""
    asked = given_models(floor(1.0, 0.97), Bound(Metric.INPUT_PRICE, Comparison.LESS, 1.0))
    nearest, *_ = decide(with_prices(asked, best=99.0, close=99.0, near=99.0, far=0.5)).relaxations
    assert nearest.endpoint_name == "far@p"
    assert [str(change.relaxed) for change in nearest.changes] == ["rq.p97>=0"]


@given(decision_inputs(alternative_count_max=1), st.tuples(limits, limits), st.tuples(quantiles, quantiles))
def test_tightening_share_or_risk_never_adds_a_candidate(
    given_input: DecisionInput, shares: tuple[float, float], confidences: tuple[float, float]
) -> None:
    """A larger share at the same risk, and a smaller risk for the same share, only take away."""
    loose, tight = sorted(shares)
    unsure, sure = sorted(confidences)
    for chain in (
        [floor(loose, unsure), floor(loose, sure), floor(tight, sure), floor(tight, 0.99)],
        [floor(loose, unsure), floor(tight, unsure), floor(tight, sure)],
    ):
        decisions = [decide(bounded(given_input, bound)) for bound in chain]
        for looser, stricter in pairwise(decisions):
            # Where a bound leaves none that is healthy, ill ones are tried: no candidates of the bound's adding.
            assert stricter.reason is DecisionReason.PANIC or eligible(stricter) <= eligible(looser)


@given(decision_inputs(alternative_count_max=1), limits, quantiles)
def test_the_reference_always_passes(given_input: DecisionInput, limit: float, quantile: float) -> None:
    """Whoever is predicted best among those that the request could use is never rejected for what it may score."""
    healthy = given_input._replace(facts=RequestFacts(input_token_count=1), snapshot=RuntimeSnapshot())
    decision = decide(bounded(healthy, floor(limit, quantile)))
    usable = [c for c in decision.candidates if c.quality is not None and (c.endpoint.context_token_count_max or 2) > 1]
    if usable:
        best = max(c.quality.mean for c in usable if c.quality is not None)
        references = [c for c in usable if c.quality is not None and c.quality.mean == best]
        assert any(candidate.eligible for candidate in references)


@given(decision_inputs(alternative_count_max=1), limits, quantiles)
def test_who_passes_has_at_most_the_accepted_risk(given_input: DecisionInput, limit: float, quantile: float) -> None:
    """Every eligible candidate carries a risk within the bound, whatever else is asked."""
    for candidate in decide(bounded(given_input, floor(limit, quantile))).eligible:
        assert candidate.shortfall_risk is not None
        assert candidate.shortfall_risk <= 1.0 - quantile + 1e-6


@given(decision_inputs(alternative_count_max=1), limits, quantiles, st.randoms(use_true_random=False))
def test_the_order_of_the_catalog_is_irrelevant_to_the_reference(
    given_input: DecisionInput, limit: float, quantile: float, random: object
) -> None:
    """Among equals the same model is the reference, however the endpoints are listed."""
    level = bounded(given_input, floor(limit, quantile))._replace(
        qualities=dict.fromkeys(given_input.qualities, QualityPrediction(0.5, 0.1)),
    )
    shuffled = list(level.endpoints)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types its Random as object-like
    assert decide(level._replace(endpoints=tuple(shuffled))) == decide(level)


@given(decision_inputs(alternative_count_max=1), st.lists(st.tuples(limits, quantiles), min_size=1, max_size=3))
def test_a_relaxation_of_risks_is_enough(given_input: DecisionInput, floors: list[tuple[float, float]]) -> None:
    """Whoever accepts the risk that is offered, or lowers the share, gets the endpoint that it names."""
    dear = Bound(Metric.INPUT_PRICE, Comparison.LESS, 1.0)
    asked = (*(floor(limit, quantile) for limit, quantile in floors), dear)
    decision = decide(bounded(given_input, *asked))
    for relaxation in decision.relaxations:
        relaxed = {change.bound: change.relaxed for change in relaxation.changes}
        again = decide(bounded(given_input, *(relaxed.get(bound, bound) for bound in asked)))
        assert relaxation.endpoint_name in eligible(again)


def test_health_does_not_move_the_reference() -> None:
    """When the best candidate is left alone for a while, the others are still measured against it."""
    base = given_models(floor(0.9, 0.97))
    down = base._replace(snapshot=RuntimeSnapshot({"best@p": EndpointRuntime(retry_after_s=5.0)}))
    assert eligible(decide(down)) == set()
