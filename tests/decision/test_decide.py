"""The decision: its laws, each for any catalog, snapshot, prediction, policy and seed."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pointsman_server.decision import choice
from pointsman_server.decision.choice import dominates, uniform
from pointsman_server.decision.decide import PANIC_WAIT_S, decide
from pointsman_server.decision.estimate import Drafts, drafts_of
from pointsman_server.decision.feasibility import bounded_values
from pointsman_server.decision.metrics import METRIC_SPECS, Metric
from pointsman_server.decision.types import (
    Affinity,
    Bound,
    BreakerState,
    Candidate,
    Capability,
    Comparison,
    Decision,
    DecisionInput,
    DecisionReason,
    Direction,
    Endpoint,
    EndpointRuntime,
    Exploration,
    Latency,
    Objective,
    Policy,
    QualityPrediction,
    RejectionReason,
    RequestFacts,
    RuntimeSnapshot,
    SearchSpace,
    UtilityColumn,
    Weights,
)
from strategies import NO_EXPLORATION, bounds, decision_inputs

FLAT = Latency(0.1, 0.1, 0.1, 0.1, 0.1)


def draft_of(given_input: DecisionInput, endpoint: Endpoint) -> Drafts:
    """The draft that a decision starts from."""
    return drafts_of([endpoint], given_input.qualities, given_input.snapshot, given_input.facts, {})


def names(candidates: tuple[Candidate, ...]) -> set[str]:
    """The endpoints of candidates."""
    return {candidate.endpoint.name for candidate in candidates}


@given(decision_inputs())
def test_every_eligible_candidate_satisfies_every_constraint(given_input: DecisionInput) -> None:
    """What is eligible lies in the search space, can do what is needed, carries the labels, and meets each bound."""
    decision = decide(given_input)
    for candidate in decision.eligible:
        endpoint, policy = candidate.endpoint, given_input.alternatives[candidate.alternative]
        space = policy.space
        assert not space.models or endpoint.model in space.models
        assert not space.providers or endpoint.provider in space.providers
        assert not space.endpoints or endpoint.name in space.endpoints
        assert endpoint.model not in space.skip_models
        assert endpoint.provider not in space.skip_providers
        assert endpoint.name not in space.skip_endpoints
        assert policy.capabilities | given_input.facts.capabilities <= endpoint.capabilities
        for key in {key for key, _ in policy.labels}:
            assert {pair for pair in policy.labels if pair[0] == key} & endpoint.labels
        for bound in policy.bounds:
            if bound.metric is not Metric.RELATIVE_QUALITY:
                (value,) = bounded_values(draft_of(given_input, endpoint), bound, None)
                assert value is not None
                assert bound.comparison.holds(value, bound.limit)
        runtime = given_input.snapshot.of(endpoint.name)
        if decision.reason is not DecisionReason.PANIC:
            assert runtime.breaker is not BreakerState.OPEN
        assert not runtime.retry_after_s


@given(decision_inputs(alternative_count_max=1), bounds())
def test_a_further_bound_never_adds_a_candidate(given_input: DecisionInput, bound: Bound) -> None:
    """Tightening can only take candidates away."""
    (policy,) = given_input.alternatives
    tighter = given_input._replace(alternatives=(replace(policy, bounds=(*policy.bounds, bound)),))
    decision = decide(tighter)
    # Where the bound leaves none that is healthy, ill ones are tried: no candidates of the bound's adding.
    assume(decision.reason is not DecisionReason.PANIC)
    assert names(decision.eligible) <= names(decide(given_input).eligible)


@given(decision_inputs(alternative_count_max=1), st.data())
def test_a_narrower_search_never_adds_a_candidate(given_input: DecisionInput, data: st.DataObject) -> None:
    """Nor does a smaller search space, unless quality is bounded relative to the best that is in it."""
    (policy,) = given_input.alternatives
    assume(all(bound.metric is not Metric.RELATIVE_QUALITY for bound in policy.bounds))
    skipped = data.draw(st.sampled_from([endpoint.name for endpoint in given_input.endpoints]))
    space = replace(policy.space, skip_endpoints=policy.space.skip_endpoints | {skipped})
    decision = decide(given_input._replace(alternatives=(replace(policy, space=space),)))
    assume(decision.reason is not DecisionReason.PANIC)
    assert names(decision.eligible) <= names(decide(given_input).eligible) - {skipped}


@given(decision_inputs(), st.randoms(use_true_random=False))
def test_the_order_of_the_catalog_is_irrelevant(given_input: DecisionInput, random: object) -> None:
    """Shuffling the endpoints changes no byte of the decision."""
    shuffled = list(given_input.endpoints)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types its Random as object-like
    assert decide(given_input._replace(endpoints=tuple(shuffled))) == decide(given_input)


@given(decision_inputs())
def test_same_input_same_bytes(given_input: DecisionInput) -> None:
    """A decision repeats itself byte for byte."""
    assert pickle.dumps(decide(given_input)) == pickle.dumps(decide(given_input))


@given(decision_inputs(exploration=NO_EXPLORATION))
def test_a_dominated_endpoint_never_wins(given_input: DecisionInput) -> None:
    """Whoever is picked, no eligible rival of its alternative is as good in all that is weighed and better in some."""
    decision = decide(given_input)
    chosen = decision.chosen
    if chosen is None:
        return
    rivals = [c for c in decision.eligible if c.alternative == chosen.alternative and c is not chosen]
    for rival in rivals:
        dominated = dominates(chosen.columns, better=rival.row, worse=chosen.row)
        assert not dominated or (rival.utility or 0.0) <= (chosen.utility or 0.0)


@given(
    decision_inputs(exploration=NO_EXPLORATION, alternative_count_max=1),
    st.sampled_from([0.01, 0.2, 1.0]),
)
def test_who_shares_the_traffic_is_near_the_best_and_dominated_by_nobody_near(
    given_input: DecisionInput, width: float
) -> None:
    """Every candidate against every other one, as the definition says."""
    assume(not given_input.cached_input_token_counts)
    decision = decide(given_input._replace(exploration=Exploration(rate=0.0, near_tie_width=width)))
    eligible = decision.eligible
    if not eligible:
        return
    columns = eligible[0].columns
    utility_best = max(c.utility or 0.0 for c in eligible)
    best = next(c for c in eligible if c.utility == utility_best)
    threshold = utility_best - width * math.fsum(abs(column.contributions[best.row]) for column in columns)
    near = [c for c in eligible if (c.utility or 0.0) > threshold]
    free = {
        c.endpoint.name for c in near if not any(dominates(columns, better=other.row, worse=c.row) for other in near)
    }
    drawn = {c.endpoint.name for c in eligible if c.probability > 0.0}
    assert free <= drawn
    # The best shares in any case, though another be better within its tolerances.
    assert len(drawn - free) <= 1


def test_hundreds_of_endpoints_alike_are_not_compared_each_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred make 40,000 pairs, for which every other request would wait."""
    compared = 0

    def counting(columns: Sequence[UtilityColumn], *, better: int, worse: int) -> bool:
        nonlocal compared
        compared += 1
        return dominates(columns, better=better, worse=worse)

    monkeypatch.setattr(choice, "dominates", counting)
    endpoints = tuple(Endpoint("m", f"p{number}", 1.0, 2.0 + number % 2 / 1000.0) for number in range(200))
    # The dearer half is dominated, whether latencies are known or missing for all alike.
    for runtime in (EndpointRuntime(), EndpointRuntime(ttft_s=FLAT, inter_token_latency_s=FLAT, age_s=1.0)):
        decision = decide(
            DecisionInput(
                decision_id="",
                facts=RequestFacts(input_token_count=100),
                alternatives=(Policy(),),
                endpoints=endpoints,
                qualities={"m": QualityPrediction(0.8, 0.1, 100.0)},
                snapshot=RuntimeSnapshot({endpoint.name: runtime for endpoint in endpoints}),
                seed=1,
                exploration=NO_EXPLORATION,
            )
        )
        assert sum(c.probability > 0.0 for c in decision.candidates) == 100
    assert compared <= len(endpoints)


@given(decision_inputs())
def test_probabilities_are_a_distribution_that_the_choice_obeys(given_input: DecisionInput) -> None:
    """They sum to one over the alternative that chooses, and what is chosen was possible."""
    decision = decide(given_input)
    if decision.chosen is None:
        assert all(candidate.probability == 0.0 for candidate in decision.candidates)
        return
    assert math.isclose(sum(candidate.probability for candidate in decision.candidates), 1.0)
    assert decision.chosen.probability > 0.0


@given(decision_inputs())
def test_utilities_are_finite_and_the_order_is_theirs(given_input: DecisionInput) -> None:
    """Unknown values make no infinity, and after the pick the rest stands by utility within its alternative."""
    rest = decide(given_input).eligible[1:]
    assert all(c.utility is not None and math.isfinite(c.utility) for c in rest)
    for one, other in pairwise(rest):
        if one.alternative == other.alternative:
            assert (one.utility or 0.0) >= (other.utility or 0.0)


@given(decision_inputs(alternative_count_max=1))
def test_an_assumed_value_is_one_that_another_candidate_shows(given_input: DecisionInput) -> None:
    """Where a value is unknown, the utility takes one that is known of a rival: never zero, never infinity."""
    terms = [term for candidate in decide(given_input).eligible for term in candidate.terms]
    for term in terms:
        shown = {rival.value for rival in terms if rival.metric is term.metric and not rival.assumed}
        assert not term.assumed or term.value in shown or not shown


@given(decision_inputs(alternative_count_max=1), bounds())
def test_a_bound_on_the_unknown_rejects_and_says_so(given_input: DecisionInput, bound: Bound) -> None:
    """An endpoint of which the bounded value is unknown is rejected with that reason, however loose the bound."""
    (policy,) = given_input.alternatives
    bounded = given_input._replace(alternatives=(replace(policy, bounds=(bound,)),))
    decision = decide(bounded)
    for candidate in decision.candidates:
        unknown = [r for r in candidate.rejections if r.reason is RejectionReason.UNKNOWN_VALUE]
        known = bounded_values(draft_of(bounded, candidate.endpoint), bound, 1.0) != [None]
        if not known:
            assert [r.bound for r in unknown] == [bound]
            assert all(r.actual is None for r in unknown)


@given(decision_inputs(alternative_count_max=1))
def test_a_relaxation_is_enough(given_input: DecisionInput) -> None:
    """Whoever follows an offered relaxation gets the endpoint that it names."""
    decision = decide(given_input)
    (policy,) = given_input.alternatives
    for relaxation in decision.relaxations:
        relaxed = {change.bound: change.relaxed for change in relaxation.changes}
        loosened = replace(policy, bounds=tuple(relaxed.get(bound, bound) for bound in policy.bounds))
        again = decide(given_input._replace(alternatives=(loosened,)))
        assert relaxation.endpoint_name in names(again.eligible)


@given(decision_inputs())
def test_every_endpoint_is_accounted_for(given_input: DecisionInput) -> None:
    """Each endpoint of the catalog appears exactly once, as a candidate or with its reasons."""
    decision = decide(given_input)
    listed = [candidate.endpoint.name for candidate in decision.candidates]
    assert sorted(listed) == sorted(endpoint.name for endpoint in given_input.endpoints)
    assert (decision.reason is None) == (not decision.eligible)


def two_providers(*, slow_s: float, quality: float = 0.8, seed: int = 0, exploration: Exploration) -> Decision:
    """One model at a fast provider (100 ms) and at a slow one, all else equal."""
    endpoints = tuple(
        Endpoint("m", provider, input_price_usd_per_mtok=1.0, output_price_usd_per_mtok=2.0)
        for provider in ("fast", "slow")
    )
    slow = Latency(slow_s, slow_s, slow_s, slow_s, slow_s)
    return decide(
        DecisionInput(
            decision_id="d-1",
            facts=RequestFacts(input_token_count=100),
            alternatives=(Policy(preference=Weights.of({Metric.QUALITY: 1.0, Metric.TTFT: 1.0})),),
            endpoints=endpoints,
            qualities={"m": QualityPrediction(quality, 0.05, 200.0)},
            snapshot=RuntimeSnapshot(
                {
                    "m@fast": EndpointRuntime(ttft_s=FLAT, age_s=1.0),
                    "m@slow": EndpointRuntime(ttft_s=slow, age_s=1.0),
                }
            ),
            seed=seed,
            exploration=exploration,
        )
    )


def test_near_ties_share_the_traffic() -> None:
    """Two endpoints within the noise both serve, the better one more often, in the stated proportion."""
    picked = [two_providers(slow_s=0.103, seed=seed, exploration=NO_EXPLORATION).chosen for seed in range(2000)]
    slow_count = sum(1 for chosen in picked if chosen is not None and chosen.endpoint.name == "m@slow")
    decision = two_providers(slow_s=0.103, exploration=NO_EXPLORATION)
    stated = {candidate.endpoint.name: candidate.probability for candidate in decision.candidates}
    assert 0.2 < stated["m@slow"] < 0.5
    assert abs(slow_count / 2000 - stated["m@slow"]) < 0.04


def test_a_trade_off_is_a_tie_and_a_mere_loss_is_not() -> None:
    """Of two close rivals the one that is cheaper but worse shares the traffic; the one that is only worse gets none."""
    endpoints = tuple(
        Endpoint(model, "p", input_price_usd_per_mtok=price)
        for model, price in (("best", 2.0), ("cheaper", 1.0), ("only-worse", 2.0))
    )
    decision = decide(
        DecisionInput(
            decision_id="d-1",
            facts=RequestFacts(input_token_count=100),
            alternatives=(Policy(preference=Weights.of({Metric.QUALITY: 1.0, Metric.INPUT_PRICE: 0.01})),),
            endpoints=endpoints,
            qualities={
                "best": QualityPrediction(0.800, 0.05),
                "cheaper": QualityPrediction(0.788, 0.05),
                "only-worse": QualityPrediction(0.798, 0.05),
            },
            snapshot=RuntimeSnapshot(),
            seed=1,
            exploration=NO_EXPLORATION,
        )
    )
    shares = {candidate.endpoint.model: candidate.probability for candidate in decision.candidates}
    assert shares["only-worse"] == 0.0
    assert 0.2 < shares["cheaper"] < 0.5 < shares["best"]


def test_a_clear_winner_takes_all() -> None:
    """Beyond the noise the better endpoint always wins, and the decision says so."""
    decisions = [two_providers(slow_s=0.2, seed=seed, exploration=NO_EXPLORATION) for seed in range(50)]
    assert {d.chosen.endpoint.name for d in decisions if d.chosen} == {"m@fast"}
    assert {d.reason for d in decisions} == {DecisionReason.BEST_UTILITY}


def stale_rival(*, seed: int, rate: float, rival_quality: float) -> Decision:
    """A known endpoint and one of another model that was never called."""
    return decide(
        DecisionInput(
            decision_id="d-1",
            facts=RequestFacts(input_token_count=100),
            alternatives=(Policy(preference=Weights.of({Metric.QUALITY: 1.0, Metric.TTFT: 0.1})),),
            endpoints=(Endpoint("known", "p"), Endpoint("also", "p"), Endpoint("rival", "p")),
            qualities={
                "known": QualityPrediction(0.8, 0.05),
                "also": QualityPrediction(0.5, 0.05),
                "rival": QualityPrediction(rival_quality, 0.05),
            },
            snapshot=RuntimeSnapshot(
                {
                    "known@p": EndpointRuntime(ttft_s=Latency(0.5, 0.5, 0.5, 0.5, 0.5), age_s=1.0),
                    "also@p": EndpointRuntime(ttft_s=FLAT, age_s=1.0),
                }
            ),
            seed=seed,
            exploration=Exploration(rate=rate),
        )
    )


def test_exploration_tries_what_could_win_at_its_rate() -> None:
    """An endpoint without data that would win if it were fast is tried in that share of decisions, and only then."""
    reasons = [stale_rival(seed=seed, rate=0.1, rival_quality=0.77).reason for seed in range(2000)]
    share = sum(reason is DecisionReason.EXPLORATION for reason in reasons) / 2000
    assert abs(share - 0.1) < 0.03


def test_what_was_never_called_is_tried_where_latency_alone_is_weighed() -> None:
    """Somebody unknown may be faster than everyone who is known, even if he is assumed to be like the slower ones."""
    fast = EndpointRuntime(ttft_s=FLAT, age_s=1.0)
    slow = EndpointRuntime(ttft_s=Latency(0.5, 0.5, 0.5, 0.5, 0.5), age_s=1.0)
    decision = decide(
        DecisionInput(
            decision_id="d-1",
            facts=RequestFacts(input_token_count=10),
            alternatives=(Policy(preference=Weights.of({Metric.TTFT: 1.0})),),
            endpoints=(Endpoint("m", "fast"), Endpoint("m", "slow"), Endpoint("m", "unknown")),
            qualities={},
            snapshot=RuntimeSnapshot({"m@fast": fast, "m@slow": slow}),
            seed=1,
            exploration=Exploration(rate=0.1),
        )
    )
    shares = {candidate.endpoint.provider: candidate.probability for candidate in decision.candidates}
    assert shares == {"fast": pytest.approx(0.9), "slow": 0.0, "unknown": pytest.approx(0.1)}


def test_what_was_slow_is_tried_again_more_seldom_than_what_was_nearly_as_good() -> None:
    """To look again costs what is expected to be lost, so ten times as slow is looked at a fraction as often."""

    def share(slow_s: float) -> float:
        known = EndpointRuntime(ttft_s=FLAT, age_s=1.0)
        slow = EndpointRuntime(ttft_s=Latency(slow_s, slow_s, slow_s, slow_s, slow_s), age_s=1000.0)
        decision = loaded(RequestFacts(10), known, slow, exploration=Exploration(rate=0.1))
        return next(c.probability for c in decision.candidates if c.endpoint.name == "m@second")

    assert share(0.12) == pytest.approx(0.1)
    assert 0.0 < share(1.0) < 0.2 * share(0.12)


def test_exploration_leaves_alone_what_cannot_win() -> None:
    """An endpoint whose quality is hopeless is not tried just because its latency is unknown."""
    reasons = {stale_rival(seed=seed, rate=0.5, rival_quality=0.3).reason for seed in range(200)}
    assert reasons == {DecisionReason.BEST_UTILITY}


def test_fallbacks_are_tried_in_their_order() -> None:
    """With nothing eligible in the first alternative the second supplies the choice, and the decision says so."""
    base = DecisionInput(
        decision_id="d-1",
        facts=RequestFacts(input_token_count=10),
        alternatives=(
            Policy(SearchSpace(models=frozenset({"a"})), capabilities=frozenset({Capability.TOOLS})),
            Policy(SearchSpace(models=frozenset({"b"}))),
        ),
        endpoints=(Endpoint("a", "p"), Endpoint("b", "p")),
        qualities={},
        snapshot=RuntimeSnapshot(),
        seed=1,
    )
    decision = decide(base)
    assert decision.chosen is not None
    assert (decision.chosen.endpoint.name, decision.reason) == ("b@p", DecisionReason.FALLBACK)
    able = base._replace(endpoints=(Endpoint("a", "p", capabilities=frozenset({Capability.TOOLS})), Endpoint("b", "p")))
    assert [c.endpoint.name for c in decide(able).eligible] == ["a@p", "b@p"]


def loaded(
    facts: RequestFacts,
    first: EndpointRuntime,
    second: EndpointRuntime,
    bound: Bound | None = None,
    *,
    exploration: Exploration = NO_EXPLORATION,
) -> Decision:
    """One model at two providers, of which the faster one is wanted."""
    return decide(
        DecisionInput(
            decision_id="d-1",
            facts=facts,
            alternatives=(Policy(bounds=() if bound is None else (bound,), preference=Weights.of({Metric.TTFT: 1.0})),),
            endpoints=(Endpoint("m", "first"), Endpoint("m", "second")),
            qualities={},
            snapshot=RuntimeSnapshot({"m@first": first, "m@second": second}),
            seed=1,
            exploration=exploration,
        )
    )


def test_the_time_to_first_token_is_that_of_this_input() -> None:
    """Where each input token costs time, a long prompt goes elsewhere than a short one; bounds and figures say the same."""
    by_length = EndpointRuntime(
        ttft_s=Latency(0.2, 0.2, 0.2, 0.2, 0.2), ttft_s_per_input_token=0.001, reference_input_token_count=100.0
    )
    constant = EndpointRuntime(ttft_s=Latency(0.5, 0.5, 0.5, 0.5, 0.5))
    short = loaded(RequestFacts(input_token_count=10), by_length, constant)
    long = loaded(RequestFacts(input_token_count=1000), by_length, constant)
    assert [c.endpoint.name for c in short.eligible] == ["m@first", "m@second"]
    assert [c.endpoint.name for c in long.eligible] == ["m@second", "m@first"]
    shown = [c.ttft_s for c in (short.candidates[0], long.candidates[1])]
    assert [latency and latency.mean for latency in shown] == [0.2 - 0.09, 0.2 + 0.9]
    bound = Bound(Metric.TTFT, Comparison.LESS, 1.0, 0.95)
    bounded = loaded(RequestFacts(input_token_count=1000), by_length, constant, bound)
    assert [c.endpoint.name for c in bounded.eligible] == ["m@second"]


def test_an_input_of_nothing_still_takes_time() -> None:
    """The line that length adds up to ends at a tenth of the usual time, not below zero."""
    steep = EndpointRuntime(
        ttft_s=Latency(0.2, 0.2, 0.2, 0.2, 0.2), ttft_s_per_input_token=0.01, reference_input_token_count=1000.0
    )
    decision = loaded(RequestFacts(input_token_count=1), steep, EndpointRuntime(ttft_s=FLAT))
    shown = decision.candidates[0].ttft_s
    assert shown is not None
    assert shown.mean == pytest.approx(0.02)


def test_what_a_request_costs_the_others_is_weighed_and_not_shown() -> None:
    """The faster endpoint loses where one more request delays those under way by more than it gains; its time stays as it
    is for bounds and for the eye."""
    crowded = EndpointRuntime(ttft_s=FLAT, marginal_load_s=0.5, in_flight_count=9)
    idle = EndpointRuntime(ttft_s=Latency(0.3, 0.3, 0.3, 0.3, 0.3))
    decision = loaded(RequestFacts(input_token_count=10), crowded, idle)
    assert [c.endpoint.name for c in decision.eligible] == ["m@second", "m@first"]
    loser = decision.candidates[1]
    assert loser.ttft_s == FLAT
    assert [term.value for term in loser.terms] == [0.6]
    bounded = loaded(RequestFacts(10), crowded, idle, Bound(Metric.TTFT, Comparison.LESS, 0.2))
    assert [c.endpoint.name for c in bounded.eligible] == ["m@first"]


@pytest.mark.parametrize("metric", [Metric.INTER_TOKEN_LATENCY, Metric.END_TO_END_LATENCY])
def test_the_answers_of_the_others_count_as_much_as_their_first_tokens(metric: Metric) -> None:
    """Whatever latency is weighed, the one with what this request adds to it for the others decides; an answer of 101
    tokens has a hundred gaps."""
    crowded = EndpointRuntime(
        ttft_s=FLAT,
        inter_token_latency_s=Latency(0.01, 0.01, 0.01, 0.01, 0.01),
        marginal_load_s=0.5,
        marginal_load_s_per_token=0.02,
    )
    idle = EndpointRuntime(ttft_s=FLAT, inter_token_latency_s=Latency(0.02, 0.02, 0.02, 0.02, 0.02))
    decision = decide(
        DecisionInput(
            decision_id="d-1",
            facts=RequestFacts(input_token_count=10),
            alternatives=(Policy(preference=Weights.of({metric: 1.0})),),
            endpoints=(Endpoint("m", "crowded"), Endpoint("m", "idle")),
            qualities={"m": QualityPrediction(0.8, 0.05, 101.0)},
            snapshot=RuntimeSnapshot({"m@crowded": crowded, "m@idle": idle}),
            seed=1,
            exploration=NO_EXPLORATION,
        )
    )
    values = {candidate.endpoint.provider: candidate.terms[0].value for candidate in decision.eligible}
    expected = {
        Metric.INTER_TOKEN_LATENCY: {"idle": 0.02, "crowded": 0.01 + 0.02},
        Metric.END_TO_END_LATENCY: {"idle": 0.1 + 2.0, "crowded": 0.1 + 1.0 + 0.5 + 2.0},
    }
    assert values == pytest.approx(expected[metric])
    assert decision.candidates[0].endpoint.provider == "idle"


def ill(*, open_s: float | None, second: EndpointRuntime, bounds: tuple[Bound, ...] = ()) -> Decision:
    """One model at a provider whose breaker is open for so long, and at a second one."""
    first = EndpointRuntime(ttft_s=FLAT, age_s=1.0, breaker=BreakerState.OPEN, breaker_open_s=open_s)
    return decide(
        DecisionInput(
            decision_id="d-1",
            facts=RequestFacts(input_token_count=10),
            alternatives=(Policy(bounds=bounds, preference=Weights.of({Metric.TTFT: 1.0})),),
            endpoints=(Endpoint("m", "first"), Endpoint("m", "second")),
            qualities={},
            snapshot=RuntimeSnapshot({"m@first": first, "m@second": second}),
            seed=1,
            exploration=NO_EXPLORATION,
        )
    )


def test_where_every_breaker_is_open_the_best_endpoint_is_tried() -> None:
    """Rather than to refuse, the decision takes the best of the ill, says so, and keeps the other to fail over to."""
    slower = EndpointRuntime(ttft_s=Latency(1.0, 1.0, 1.0, 1.0, 1.0), breaker=BreakerState.OPEN, breaker_open_s=2.0)
    decision = ill(open_s=30.0, second=slower)
    assert decision.reason is DecisionReason.PANIC
    assert [candidate.endpoint.name for candidate in decision.eligible] == ["m@first", "m@second"]


def test_what_is_healthy_is_never_passed_over_for_what_is_not() -> None:
    """While one endpoint is left that may be called, an open breaker stays closed to all, however fast it was."""
    slow = EndpointRuntime(ttft_s=Latency(9.0, 9.0, 9.0, 9.0, 9.0), age_s=1.0)
    decision = ill(open_s=5.0, second=slow)
    assert [candidate.endpoint.name for candidate in decision.eligible] == ["m@second"]
    assert decision.reason is DecisionReason.ONLY_CANDIDATE


def test_panic_spares_refused_keys_rate_limits_and_constraints() -> None:
    """A key that was refused is refused again, a provider that asks for time gets it, and a bound holds whatever comes."""
    limited = EndpointRuntime(ttft_s=FLAT, retry_after_s=30.0)
    refused = EndpointRuntime(ttft_s=FLAT, breaker=BreakerState.OPEN, breaker_open_s=250.0)
    assert ill(open_s=250.0, second=limited).chosen is None
    assert [c.endpoint.name for c in ill(open_s=5.0, second=limited).eligible] == ["m@first"]
    assert ill(open_s=250.0, second=refused).chosen is None
    assert [c.endpoint.name for c in ill(open_s=5.0, second=refused).eligible] == ["m@first"]
    assert ill(open_s=5.0, second=refused, bounds=(Bound(Metric.TTFT, Comparison.LESS, 0.05),)).chosen is None


@pytest.mark.parametrize(
    ("retry_after_s", "expected"), [(0.1, None), (PANIC_WAIT_S, None), (PANIC_WAIT_S + 0.1, DecisionReason.PANIC)]
)
def test_no_ill_endpoint_is_tried_while_a_healthy_one_is_soon_free(
    retry_after_s: float, expected: DecisionReason | None
) -> None:
    """Who limits our rate for a moment is waited for; for longer than a request may wait, trying is better."""
    decision = ill(open_s=5.0, second=EndpointRuntime(ttft_s=FLAT, retry_after_s=retry_after_s))
    assert decision.reason is expected


def test_panic_gives_an_ill_endpoint_the_time_that_it_asked_for() -> None:
    """An open breaker is made light of, a Retry-After beside it is not; both are told as reasons."""
    asked = EndpointRuntime(ttft_s=FLAT, breaker=BreakerState.OPEN, breaker_open_s=2.0, retry_after_s=3.0)
    assert asked.left_alone_s == 3.0
    refused = EndpointRuntime(ttft_s=FLAT, breaker=BreakerState.OPEN, breaker_open_s=250.0)
    decision = ill(open_s=250.0, second=asked)
    assert decision.chosen is None
    reasons = {c.endpoint.name: [(r.reason, r.actual) for r in c.rejections] for c in decision.candidates}
    assert reasons == {
        "m@first": [(RejectionReason.BREAKER_OPEN, 250.0)],
        "m@second": [(RejectionReason.BREAKER_OPEN, 2.0), (RejectionReason.RATE_LIMITED, 3.0)],
    }
    assert [c.endpoint.name for c in ill(open_s=5.0, second=asked).eligible] == ["m@first"]
    assert ill(open_s=None, second=refused).reason is DecisionReason.PANIC


def test_an_objective_seeks_its_end_and_ranks_the_unknown_last() -> None:
    """lowest-cost takes the cheapest price that is known; an unknown price never wins."""
    base = DecisionInput(
        decision_id="d-1",
        facts=RequestFacts(input_token_count=10),
        alternatives=(Policy(preference=Objective(Metric.PRICE, Direction.LOWEST)),),
        endpoints=(
            Endpoint("dear", "p", input_price_usd_per_mtok=9.0, output_price_usd_per_mtok=9.0),
            Endpoint("cheap", "p", input_price_usd_per_mtok=1.0, output_price_usd_per_mtok=1.0),
            Endpoint("unknown", "p"),
        ),
        qualities={},
        snapshot=RuntimeSnapshot(),
        seed=1,
        exploration=NO_EXPLORATION,
    )
    assert [c.endpoint.model for c in decide(base).eligible] == ["cheap", "dear", "unknown"]


def test_qualities_of_next_to_nothing_are_as_good_as_the_best() -> None:
    """Where even the best quality is a rounding error, a share of it is 1, not a number beyond all bounds."""
    base = DecisionInput(
        decision_id="d-1",
        facts=RequestFacts(input_token_count=10),
        alternatives=(Policy(bounds=(Bound(Metric.RELATIVE_QUALITY, Comparison.LESS, 0.5, 0.51),)),),
        endpoints=(Endpoint("m", "p"),),
        qualities={"m": QualityPrediction(2.2e-311, 0.25, None)},
        snapshot=RuntimeSnapshot(),
        seed=1,
    )
    (rejection,) = decide(base).candidates[0].rejections
    assert (rejection.reason, rejection.actual) == (RejectionReason.BOUND_VIOLATED, 1.0)


def test_what_is_unknown_is_assumed_to_be_like_the_others() -> None:
    """An unknown quality counts as the worse of the two middle ones, an unknown price as the higher of the two."""
    prices = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 8.0, "unknown": None}
    decision = decide(
        DecisionInput(
            decision_id="d-1",
            facts=RequestFacts(input_token_count=10),
            alternatives=(Policy(preference=Weights.of({Metric.QUALITY: 1.0, Metric.INPUT_PRICE: 0.01})),),
            endpoints=tuple(Endpoint(name, "p", input_price_usd_per_mtok=price) for name, price in prices.items()),
            qualities={
                name: QualityPrediction(mean, 0.05) for name, mean in (("a", 0.2), ("b", 0.4), ("c", 0.6), ("d", 0.8))
            },
            snapshot=RuntimeSnapshot(),
            seed=1,
            exploration=NO_EXPLORATION,
        )
    )
    (candidate,) = [c for c in decision.candidates if c.endpoint.model == "unknown"]
    assert [(term.metric, term.value, term.assumed) for term in candidate.terms] == [
        (Metric.QUALITY, 0.4, True),
        (Metric.INPUT_PRICE, 4.0, True),
    ]


@given(st.integers(0, 2**64 - 1))
def test_the_draw_is_a_share(seed: int) -> None:
    """The seed's draw lies in [0, 1)."""
    assert 0.0 <= uniform(seed) < 1.0


def test_the_draw_is_spread_evenly() -> None:
    """Consecutive seeds, as a counter would give, fall evenly over ten bins."""
    counts = [0] * 10
    for seed in range(10_000):
        counts[int(uniform(seed) * 10)] += 1
    assert all(850 < count < 1150 for count in counts)


def test_every_metric_has_a_spec() -> None:
    """No metric without names, unit and direction."""
    assert set(METRIC_SPECS) == set(Metric)


def test_candidates_are_equal_by_what_they_tell() -> None:
    """Where the terms of a candidate stand among those of the others is no part of it; what they say is."""
    endpoints = (Endpoint("a", "x"), Endpoint("b", "x"))
    qualities = {"a": QualityPrediction(0.6, 0.1), "b": QualityPrediction(0.9, 0.1)}

    def ranked(order: tuple[Endpoint, ...], better: float) -> tuple[Candidate, ...]:
        predicted = qualities | {"b": QualityPrediction(better, 0.1)}
        return decide(
            DecisionInput(
                decision_id="d",
                facts=RequestFacts(10),
                alternatives=(Policy(),),
                endpoints=order,
                qualities=predicted,
                snapshot=RuntimeSnapshot(),
                seed=1,
            )
        ).candidates

    one, other, better = ranked(endpoints, 0.9), ranked(endpoints[::-1], 0.9), ranked(endpoints, 0.95)
    assert one == other
    assert set(one) == set(other)
    assert one[0].row != other[0].row
    assert one[0] != better[0]
    assert "columns" not in repr(one[0])


def cached_input(cached: dict[str, float], *, mean_ttft_s: tuple[float, float] = (0.5, 0.5)) -> DecisionInput:
    """Two endpoints of one model at the same price, each with this mean time to first token, that cost a tenth for input
    that they have in their prompt cache."""
    latencies = [Latency(mean_s, mean_s, mean_s, mean_s, mean_s) for mean_s in mean_ttft_s]
    runtimes = {
        f"m@{provider}": EndpointRuntime(
            ttft_s=latency, inter_token_latency_s=Latency(0.01, 0.01, 0.01, 0.01, 0.01), age_s=1.0,
            ttft_s_per_input_token=latency.mean / 20_000, reference_input_token_count=10_000,
        )
        for provider, latency in zip("xy", latencies, strict=True)
    }  # fmt: skip
    return DecisionInput(
        decision_id="d",
        facts=RequestFacts(10_000),
        alternatives=(Policy(),),
        endpoints=(Endpoint("m", "x", 2.0, 2.0, 0.2), Endpoint("m", "y", 2.0, 2.0, 0.2)),
        qualities={"m": QualityPrediction(0.8, 0.1, 100.0)},
        snapshot=RuntimeSnapshot(runtimes),
        seed=1,
        exploration=NO_EXPLORATION,
        cached_input_token_counts=cached,
    )


def test_a_conversation_stays_where_it_has_been_read_for_as_long_as_that_pays() -> None:
    """What an endpoint has in its prompt cache costs less and comes sooner, so it wins among equals, and the decision says
    so; where the other one has become fast enough to outweigh that, the conversation moves, and the decision says that."""
    kept = decide(cached_input({"m@y": 8_000.0}))
    assert kept.chosen is not None
    assert (kept.chosen.endpoint.name, kept.affinity) == ("m@y", Affinity.KEPT)
    assert kept.chosen.cached_input_token_count == 8_000.0
    assert kept.chosen.cost_usd == pytest.approx((8_000 * 0.2 + 2_000 * 2.0 + 100 * 2.0) / 1e6)
    assert kept.chosen.ttft_s is not None
    assert kept.chosen.ttft_s.mean == pytest.approx(0.5 - 8_000 * 0.5 / 20_000)
    left = decide(cached_input({"m@y": 8_000.0}, mean_ttft_s=(0.5, 30.0)))
    assert left.chosen is not None
    assert (left.chosen.endpoint.name, left.affinity) == ("m@x", Affinity.LEFT)
    assert decide(cached_input({})).affinity is Affinity.NONE


def test_a_conversation_draws_no_lots_with_who_has_not_read_it() -> None:
    """A near-tie of an endpoint that has read the conversation gets none of it; a second reader shares it."""
    wide = Exploration(rate=0.0, near_tie_width=0.5)
    for cached, shared in (({"m@y": 8_000.0}, False), ({"m@x": 8_000.0, "m@y": 8_000.0}, True), ({}, True)):
        # Each is better in something, so that neither dominates the other: x by its speed, y by its price.
        given_input = cached_input(cached, mean_ttft_s=(0.45, 0.5) if cached.keys() != {"m@y"} else (0.2, 0.5))
        x, y = given_input.endpoints
        endpoints = (x, replace(y, output_price_usd_per_mtok=1.0))
        decision = decide(given_input._replace(endpoints=endpoints, exploration=wide))
        assert (decision.candidates[1].probability > 0.0) is shared, cached


@given(decision_inputs(), st.floats(0.0, 1e6))
def test_what_is_cached_never_makes_an_endpoint_dearer_or_slower(given_input: DecisionInput, count: float) -> None:
    """With any number of tokens in the cache of one endpoint, all that is expected of the others stays as it is, and its
    own cost and time to first token do not rise, where cached input is no dearer than other input."""
    first = given_input.endpoints[0]
    assume((first.cached_input_price_usd_per_mtok or 0.0) <= (first.input_price_usd_per_mtok or 0.0))
    with_cache = {
        c.endpoint.name: c
        for c in decide(given_input._replace(cached_input_token_counts={first.name: count})).candidates
    }
    for candidate in decide(given_input._replace(cached_input_token_counts={})).candidates:
        other = with_cache[candidate.endpoint.name]
        if candidate.endpoint.name != first.name:
            assert (other.cost_usd, other.ttft_s) == (candidate.cost_usd, candidate.ttft_s)
            continue
        assert other.cached_input_token_count <= given_input.facts.input_token_count
        if candidate.cost_usd is not None and other.cost_usd is not None:
            assert other.cost_usd <= candidate.cost_usd * (1.0 + 1e-12)
        if candidate.ttft_s is not None and other.ttft_s is not None:
            assert all(a <= b for a, b in zip(other.ttft_s, candidate.ttft_s, strict=True))
