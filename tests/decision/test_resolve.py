"""Routers merged with wishes: the caller narrows and prefers, the router's demands stay, and every fault has a name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pointsman_server.decision.decide import decide
from pointsman_server.decision.metrics import Metric
from pointsman_server.decision.resolve import (
    KnownNames,
    NamedRouter,
    ResolvedRouting,
    effective_router_string,
    resolve,
)
from pointsman_server.decision.router_string import (
    RouterAlternative,
    RouterString,
    parse_router_string,
)
from pointsman_server.decision.types import (
    Bound,
    Capability,
    Comparison,
    DecisionInput,
    Direction,
    Endpoint,
    Objective,
    Policy,
    SearchSpace,
    Weights,
)
from pointsman_server.errors import FieldViolation, InvalidRequestError
from strategies import (
    MODELS,
    NO_EXPLORATION,
    PROVIDERS,
    bounds,
    capabilities,
    decision_inputs,
    labels,
    policies,
    preferences,
    spaces,
)

KNOWN = KnownNames.of(Endpoint(model, provider) for model in MODELS for provider in PROVIDERS)
NOTHING_MORE = RouterAlternative("")

UNHURRIED = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
"""For properties whose examples are whole catalogs, and which leave out those where nothing is left to decide."""

CHEAP_AND_GOOD = Weights.of({Metric.QUALITY: 1.0, Metric.REQUEST_COST: 9.0})
QUICK = Objective(Metric.TTFT, Direction.LOWEST)
BEST = Objective(Metric.QUALITY, Direction.HIGHEST)
SOON = Bound(Metric.TTFT, Comparison.LESS, 0.5)
ROUTERS = {
    "default": NamedRouter("default", (Policy(SearchSpace(providers=frozenset({"north"})), (SOON,)),)),
    "european": NamedRouter(
        "european",
        (
            Policy(labels=frozenset({("region", "eu")}), preference=CHEAP_AND_GOOD),
            Policy(SearchSpace(models=frozenset({"tiny"})), labels=frozenset({("region", "eu")}), preference=BEST),
        ),
    ),
}

# Bounds on relative quality are left out where search spaces change: they are relative to the best within the space.
absolute_bounds = st.lists(bounds().filter(lambda bound: bound.metric is not Metric.RELATIVE_QUALITY), max_size=3)
overlays = st.builds(
    RouterAlternative,
    head=st.just(""),
    space=st.just(SearchSpace()) | spaces(),
    bounds=absolute_bounds.map(tuple),
    capabilities=st.just(frozenset[Capability]()) | capabilities,
    labels=st.just(frozenset[tuple[str, str]]()) | labels,
    preference=st.none() | preferences,
)


def resolved_or_skipped(
    asked: RouterString, overlay: RouterAlternative, routers: dict[str, NamedRouter]
) -> ResolvedRouting:
    """What `resolve` gives; an example in which the two leave nothing is not one for this property."""
    try:
        return resolve(asked, overlay, routers=routers, known=KNOWN)
    except InvalidRequestError:
        assume(False)
        raise


def eligible_names(given_input: DecisionInput, alternatives: Iterable[Policy]) -> set[str]:
    """The endpoints that may be chosen under these policies."""
    decided = decide(given_input._replace(alternatives=tuple(alternatives), exploration=NO_EXPLORATION))
    return {candidate.endpoint.name for candidate in decided.eligible}


def without_relative_bounds(policy: Policy) -> Policy:
    """The policy without its bounds on relative quality."""
    return replace(policy, bounds=tuple(b for b in policy.bounds if b.metric is not Metric.RELATIVE_QUALITY))


def violations_of(
    asked: str, overlay: RouterAlternative = NOTHING_MORE, routers: dict[str, NamedRouter] = ROUTERS
) -> tuple[FieldViolation, ...]:
    """What is wrong with asking so."""
    with pytest.raises(InvalidRequestError) as caught:
        resolve(parse_router_string(asked), overlay, routers=routers, known=KNOWN)
    return caught.value.violations


@UNHURRIED
@given(decision_inputs(), overlays, overlays)
def test_a_caller_can_narrow_what_a_router_demands_but_never_widen_it(
    given_input: DecisionInput, text: RouterAlternative, typed: RouterAlternative
) -> None:
    """Whatever space, bounds, capabilities and labels a caller asks for, as text or typed, an endpoint that the router
    itself would reject stays rejected."""
    policies_of_router = tuple(without_relative_bounds(policy) for policy in given_input.alternatives)
    routers = {"default": NamedRouter("default", policies_of_router)}
    asked = RouterString((replace(text, head="router"),))
    resolved = resolved_or_skipped(asked, typed, routers)
    assert eligible_names(given_input, resolved.alternatives) <= eligible_names(given_input, policies_of_router)


@UNHURRIED
@given(decision_inputs(), overlays, overlays)
def test_what_a_caller_demands_holds_too(
    given_input: DecisionInput, text: RouterAlternative, typed: RouterAlternative
) -> None:
    """An endpoint that the caller's own demands reject, in the text or typed, is never eligible."""
    policies_of_router = tuple(without_relative_bounds(policy) for policy in given_input.alternatives)
    routers = {"default": NamedRouter("default", policies_of_router)}
    resolved = resolved_or_skipped(RouterString((replace(text, head="router"),)), typed, routers)
    eligible = eligible_names(given_input, resolved.alternatives)
    for wish in (text, typed):
        alone = Policy(wish.space, wish.bounds, wish.capabilities, wish.labels)
        assert eligible <= eligible_names(given_input, (alone,))


@UNHURRIED
@given(policies, overlays)
def test_to_ask_twice_for_the_same_is_to_ask_once(policy: Policy, wish: RouterAlternative) -> None:
    """What stands in the text and again in the typed constraints changes nothing a second time."""
    routers = {"default": NamedRouter("default", (policy,))}
    asked = RouterString((replace(wish, head="router"),))
    once = resolved_or_skipped(asked, NOTHING_MORE, routers)
    assert resolve(asked, wish, routers=routers, known=KNOWN) == once


@UNHURRIED
@given(st.lists(policies, min_size=1, max_size=3), overlays)
def test_the_effective_router_reads_back_as_the_same_policies(
    alternatives: list[Policy], wish: RouterAlternative
) -> None:
    """The text that a decision shows is complete: read again, over a default router that demands nothing, it gives the
    very policies that were decided by."""
    routers = {"default": NamedRouter("default", tuple(alternatives))}
    resolved = resolved_or_skipped(parse_router_string("router"), wish, routers)
    shown = str(effective_router_string(resolved.alternatives))
    read = resolve(parse_router_string(shown), NOTHING_MORE, routers={"default": NamedRouter("default")}, known=KNOWN)
    assert read.alternatives == resolved.alternatives


def test_a_request_that_names_nothing_gets_the_default_router() -> None:
    """Without a text and without wishes the default router decides, as it is configured."""
    resolved = resolve(parse_router_string(""), NOTHING_MORE, routers=ROUTERS, known=KNOWN)
    assert resolved == ResolvedRouting(ROUTERS["default"], ROUTERS["default"].alternatives)


def test_a_named_router_keeps_its_fallbacks_and_each_gets_the_wishes() -> None:
    """Both alternatives of a named router stay, in order, and the caller's bound lies on each."""
    overlay = RouterAlternative("", bounds=(SOON,))
    resolved = resolve(parse_router_string("european"), overlay, routers=ROUTERS, known=KNOWN)
    assert resolved.router is ROUTERS["european"]
    assert resolved.alternatives == tuple(
        replace(policy, bounds=(SOON,)) for policy in ROUTERS["european"].alternatives
    )


def test_naming_a_model_leaves_the_default_routers_constraints_behind_but_keeps_its_preference() -> None:
    """A model stands for itself at any provider; among those, the default router's preference chooses."""
    routers = {"default": replace(ROUTERS["default"], alternatives=(Policy(bounds=(SOON,), preference=QUICK),))}
    resolved = resolve(parse_router_string("tiny"), NOTHING_MORE, routers=routers, known=KNOWN)
    assert resolved.router is routers["default"]
    assert resolved.alternatives == (Policy(SearchSpace(models=frozenset({"tiny"})), preference=QUICK),)


def test_an_endpoint_is_a_model_at_one_provider() -> None:
    """`model@provider` allows that endpoint alone."""
    resolved = resolve(parse_router_string("tiny@south"), NOTHING_MORE, routers=ROUTERS, known=KNOWN)
    space = SearchSpace(models=frozenset({"tiny"}), providers=frozenset({"south"}))
    assert [policy.space for policy in resolved.alternatives] == [space]


def test_a_router_goes_before_a_model_of_the_same_name() -> None:
    """Where a router and a model share a name, the name means the router."""
    routers = {**ROUTERS, "tiny": NamedRouter("tiny", (Policy(preference=BEST),))}
    resolved = resolve(parse_router_string("tiny"), NOTHING_MORE, routers=routers, known=KNOWN)
    assert resolved == ResolvedRouting(routers["tiny"], routers["tiny"].alternatives)


@pytest.mark.parametrize(
    ("text", "typed", "expected"),
    [
        ("european", None, CHEAP_AND_GOOD),
        ("european@lowest-ttft", None, QUICK),
        ("european", BEST, BEST),
        ("european@lowest-ttft", BEST, BEST),
    ],
)
def test_the_nearest_preference_holds(text: str, typed: Objective | None, expected: Weights | Objective) -> None:
    """A typed preference goes before the text's, and that before the router's."""
    overlay = RouterAlternative("", preference=typed)
    resolved = resolve(parse_router_string(text), overlay, routers=ROUTERS, known=KNOWN)
    assert resolved.alternatives[0].preference == expected


def test_fallbacks_stand_in_the_order_of_the_text_and_the_first_head_gives_the_router() -> None:
    """The decision carries the name, version and exploration of the router that the text names first."""
    resolved = resolve(parse_router_string("european->small->router"), NOTHING_MORE, routers=ROUTERS, known=KNOWN)
    assert resolved.router is ROUTERS["european"]
    assert resolved.alternatives == (
        *ROUTERS["european"].alternatives,
        Policy(SearchSpace(models=frozenset({"small"})), preference=ROUTERS["default"].alternatives[0].preference),
        *ROUTERS["default"].alternatives,
    )


def test_lists_of_what_is_allowed_are_intersected_and_lists_of_what_is_skipped_are_joined() -> None:
    """Of the text's and the typed lists, what both allow remains, and what either skips is skipped."""
    asked = "large@models:large,small|skip_providers:north"
    overlay = RouterAlternative("", SearchSpace(models=frozenset({"large"}), skip_providers=frozenset({"south"})))
    resolved = resolve(parse_router_string(asked), overlay, routers=ROUTERS, known=KNOWN)
    assert [policy.space for policy in resolved.alternatives] == [
        SearchSpace(models=frozenset({"large"}), skip_providers=frozenset({"north", "south"}))
    ]


def test_of_a_label_that_both_name_what_both_allow_remains() -> None:
    """Values of one key are alternatives, so joining them would widen; keys that one side names are kept."""
    routers = {"default": NamedRouter("default", (Policy(labels=frozenset({("region", "eu"), ("region", "us")})),))}
    overlay = RouterAlternative("", labels=frozenset({("region", "us"), ("region", "ap"), ("retention", "none")}))
    resolved = resolve(parse_router_string(""), overlay, routers=routers, known=KNOWN)
    assert resolved.alternatives[0].labels == frozenset({("region", "us"), ("retention", "none")})


def test_every_unknown_name_is_a_violation_with_near_ones() -> None:
    """Typing errors are told all at once, each with its field and what was probably meant."""
    overlay = RouterAlternative(
        "", SearchSpace(providers=frozenset({"weast"}), endpoints=frozenset({"tiny@nort", "zzz@qqq"}))
    )
    assert violations_of("medum->router@models:smal", overlay, {"default": NamedRouter("default")}) == (
        FieldViolation("routing.router", "the catalog has no model 'smal'; did you mean small?"),
        FieldViolation("routing.constraints.providers", "the catalog has no provider 'weast'; did you mean east?"),
        FieldViolation(
            "routing.constraints.endpoints",
            "the catalog has no endpoint 'tiny@nort'; did you mean tiny@north or tiny@south or tiny@east?",
        ),
        FieldViolation("routing.constraints.endpoints", "the catalog has no endpoint 'zzz@qqq'"),
        FieldViolation("routing.router", "no router and no model is named 'medum'; did you mean medium?"),
    )


def test_near_names_of_a_head_include_routers() -> None:
    """A head may be a router or a model, so both are offered."""
    (violation,) = violations_of("europaen")
    assert violation == FieldViolation(
        "routing.router", "no router and no model is named 'europaen'; did you mean european?"
    )


def test_to_skip_what_does_not_exist_is_no_fault() -> None:
    """A list of what is skipped may outlive what it names."""
    overlay = RouterAlternative("", SearchSpace(skip_models=frozenset({"gone"}), skip_endpoints=frozenset({"a@b"})))
    resolved = resolve(parse_router_string("router@skip_providers:gone"), overlay, routers=ROUTERS, known=KNOWN)
    assert resolved.alternatives[0].space == SearchSpace(
        providers=frozenset({"north"}),
        skip_models=frozenset({"gone"}),
        skip_providers=frozenset({"gone"}),
        skip_endpoints=frozenset({"a@b"}),
    )


@pytest.mark.parametrize(
    ("text", "overlay", "expected"),
    [
        (
            "router@providers:south",
            NOTHING_MORE,
            FieldViolation("routing.router", "providers leave nothing: the router allows only north"),
        ),
        (
            "router",
            RouterAlternative("", SearchSpace(providers=frozenset({"south", "east"}))),
            FieldViolation("routing.constraints", "providers leave nothing: the router allows only north"),
        ),
        (
            "tiny",
            RouterAlternative("", SearchSpace(models=frozenset({"large"}))),
            FieldViolation("routing.constraints", "models leave nothing: the router allows only tiny"),
        ),
        (
            "european@labels:region=us",
            NOTHING_MORE,
            FieldViolation("routing.router", "labels leave nothing: the router demands region = eu"),
        ),
        (
            "european",
            RouterAlternative("", labels=frozenset({("region", "us")})),
            FieldViolation("routing.constraints", "labels leave nothing: the router demands region = eu"),
        ),
    ],
)
def test_a_search_space_with_nothing_left_says_what_the_router_allows(
    text: str, overlay: RouterAlternative, expected: FieldViolation
) -> None:
    """Lists and labels that contradict the router's are a fault of the request, told once, with what would be right."""
    assert violations_of(text, overlay) == (expected,)
