"""Who is asked next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.decision.types import (
    BreakerState,
    Candidate,
    Endpoint,
    EndpointRuntime,
    Latency,
    RuntimeSnapshot,
)
from pointsman_server.errors import AttemptFailure, UpstreamErrorKind
from pointsman_server.execution.lineup import WAIT_S_MAX, Lineup, Turn, may_wait, stretched_s
from strategies import runtimes

LIMITED = UpstreamErrorKind.RATE_LIMITED
HEALTHY = RuntimeSnapshot()


def candidate(name: str, *, alternative: int = 0, ttft_s: Latency | None = None) -> Candidate:
    """A candidate of which nothing else matters."""
    model, _, provider = name.partition("@")
    return Candidate(Endpoint(model, provider), None, None, None, ttft_s, None, None, None, None, alternative)


def lineup(*names: str) -> Lineup:
    """Candidates of one alternative."""
    return Lineup((candidate(name) for name in names), HEALTHY)


def failure(name: str, kind: UpstreamErrorKind = UpstreamErrorKind.SERVER_ERROR) -> AttemptFailure:
    """An attempt that failed."""
    return AttemptFailure(1, name, kind, "it failed", 0.1)


def limited_for(**waits_s: float) -> RuntimeSnapshot:
    """A snapshot in which the model `a` is limited so long at these providers."""
    return RuntimeSnapshot({f"a@{name}": EndpointRuntime(retry_after_s=wait_s) for name, wait_s in waits_s.items()})


def name_of(turn: Turn | None) -> str | None:
    """Whose turn it is."""
    return None if turn is None else turn.candidate.endpoint.name


def test_the_first_is_the_decisions_whatever_its_state() -> None:
    """The chosen endpoint is called first, also with an open breaker: the decision knew."""
    ill = RuntimeSnapshot({"a@x": EndpointRuntime(breaker=BreakerState.OPEN, breaker_open_s=2.0)})
    assert lineup("a@x", "a@y").next((), ill, left_s=None) == Turn(candidate("a@x"), 0.0)


def test_a_chosen_endpoint_that_limits_our_rate_is_waited_for_if_that_is_short() -> None:
    """A wait that fits comes before the first call; a longer one is not made, and the call is."""
    assert lineup("a@x").next((), limited_for(x=1.5), left_s=None) == Turn(candidate("a@x"), 1.5)
    assert lineup("a@x").next((), limited_for(x=60.0), left_s=None) == Turn(candidate("a@x"), 0.0)


def test_an_ill_provider_is_passed_over_with_all_its_models() -> None:
    """After a server error another provider comes first; after a refusal the order stands."""
    line = lineup("a@x", "b@x", "a@y")
    line.next((), HEALTHY, left_s=None)
    assert name_of(line.next((failure("a@x"),), HEALTHY, left_s=None)) == "a@y"
    line = lineup("a@x", "b@x", "a@y")
    line.next((), HEALTHY, left_s=None)
    assert name_of(line.next((failure("a@x", UpstreamErrorKind.REJECTED),), HEALTHY, left_s=None)) == "b@x"


def test_a_chain_of_fallbacks_keeps_its_order() -> None:
    """Another provider further down the chain does not overtake the next link."""
    line = Lineup([candidate("a@x"), candidate("b@x", alternative=1), candidate("a@y", alternative=2)], HEALTHY)
    line.next((), HEALTHY, left_s=None)
    assert name_of(line.next((failure("a@x"),), HEALTHY, left_s=None)) == "b@x"


def test_who_became_limited_or_ill_meanwhile_is_passed_over() -> None:
    """A failover skips endpoints that limit our rate or whose breaker has opened since the decision."""
    line = lineup("a@x", "a@y", "a@z", "a@v")
    line.next((), HEALTHY, left_s=None)
    now = RuntimeSnapshot(
        {
            "a@y": EndpointRuntime(retry_after_s=0.5),
            "a@z": EndpointRuntime(breaker=BreakerState.OPEN, breaker_open_s=0.1),
        }
    )
    assert name_of(line.next((failure("a@x"),), now, left_s=None)) == "a@v"
    assert line.next((failure("a@x"), failure("a@v")), now, left_s=None) == Turn(candidate("a@y"), 0.5)
    assert line.next((failure("a@x"), failure("a@v"), failure("a@y")), now, left_s=None) is None


def test_where_the_decision_made_light_of_open_breakers_failovers_do_too() -> None:
    """When everything looked ill the second candidate is tried like the first; one that became ill since is not."""
    ill = EndpointRuntime(breaker=BreakerState.OPEN, breaker_open_s=4.0)
    panic = RuntimeSnapshot({"a@x": ill, "a@y": ill})
    line = Lineup([candidate("a@x"), candidate("a@y"), candidate("a@z")], panic)
    line.next((), panic, left_s=None)
    now = RuntimeSnapshot({"a@x": ill, "a@y": ill, "a@z": ill})
    assert line.has_more(now)
    assert name_of(line.next((failure("a@x"),), now, left_s=None)) == "a@y"
    assert not line.has_more(now)
    assert line.next((failure("a@x"), failure("a@y")), now, left_s=None) is None


def test_an_ill_endpoint_that_asks_for_a_moment_gets_it_too() -> None:
    """Where an open breaker is no reason, Retry-After still is: others come first, and then it is waited for."""
    ill = EndpointRuntime(breaker=BreakerState.OPEN, breaker_open_s=4.0)
    panic = RuntimeSnapshot({"a@x": ill, "a@y": ill, "a@z": ill})
    line = Lineup([candidate("a@x"), candidate("a@y"), candidate("a@z")], panic)
    line.next((), panic, left_s=None)
    now = RuntimeSnapshot({"a@x": ill, "a@y": ill._replace(retry_after_s=1.5), "a@z": ill})
    assert line.next((failure("a@x"),), now, left_s=None) == Turn(candidate("a@z"), 0.0)
    assert not line.has_more(now)
    assert line.next((failure("a@x"), failure("a@z")), now, left_s=None) == Turn(candidate("a@y"), 1.5)


def test_the_only_endpoint_that_asks_for_a_moment_gets_it_once() -> None:
    """An endpoint that answered 429 is called again when its time is over, and not a third time."""
    line = lineup("a@x")
    line.next((), HEALTHY, left_s=None)
    once = (failure("a@x", LIMITED),)
    assert line.next(once, limited_for(x=1.2), left_s=10.0) == Turn(candidate("a@x"), 1.2)
    assert line.next((*once, *once), limited_for(x=1.2), left_s=10.0) is None


def test_of_several_that_limit_us_the_soonest_is_waited_for() -> None:
    """The shortest wait wins, be it of one that was asked or of one that was not."""
    line = lineup("a@x", "a@y")
    line.next((), HEALTHY, left_s=None)
    assert line.next((failure("a@x", LIMITED),), limited_for(x=2.0, y=0.3), left_s=None) == Turn(candidate("a@y"), 0.3)


def test_a_wait_must_be_short_and_leave_time_to_answer() -> None:
    """Longer than the bound, or too long for the deadline, is no wait but a failure."""
    line = lineup("a@x")
    line.next((), HEALTHY, left_s=None)
    assert line.next((failure("a@x", LIMITED),), limited_for(x=WAIT_S_MAX + 0.1), left_s=None) is None
    slow = Latency(5.0, 5.0, 5.0, 5.0, 5.0)
    line = Lineup([candidate("a@x", ttft_s=slow)], HEALTHY)
    line.next((), HEALTHY, left_s=None)
    assert line.next((failure("a@x", LIMITED),), limited_for(x=1.0), left_s=6.0) is None
    assert may_wait(1.0, left_s=1.3, answer_s=0.05)
    assert not may_wait(1.0, left_s=1.2, answer_s=0.05)


@given(st.floats(0.0, WAIT_S_MAX), st.floats(0.0, 1.0))
def test_a_stretched_wait_is_no_shorter_and_at_most_a_quarter_longer(wait_s: float, drawn: float) -> None:
    """Nobody comes before the time that was asked for, and the deadline was checked with the longest stretch."""
    assert wait_s <= stretched_s(wait_s, drawn=drawn) <= 1.25 * wait_s


def test_a_rival_is_at_another_provider_and_may_be_called_now() -> None:
    """The same provider, a limited and an ill one are no rivals; without any other there is none."""
    line = lineup("a@x", "b@x", "a@y", "a@z", "a@v")
    first = line.next((), HEALTHY, left_s=None)
    assert first is not None
    now = RuntimeSnapshot(
        {"a@y": EndpointRuntime(retry_after_s=0.5), "a@z": EndpointRuntime(breaker=BreakerState.OPEN)}
    )
    rival = line.rival(first.candidate, (), now)
    assert rival == candidate("a@v")
    assert line.rival(first.candidate, (), now) is None


names = st.sampled_from([f"{model}@{provider}" for model in "abc" for provider in "xyz"])


@given(
    st.lists(names, min_size=1, max_size=9, unique=True),
    st.dictionaries(names, runtimes),
    st.lists(st.sampled_from(list(UpstreamErrorKind)), min_size=20, max_size=20),
)
def test_nobody_is_asked_twice_but_for_a_limit_that_is_over(
    line_names: list[str], states: dict[str, EndpointRuntime], kinds: list[UpstreamErrorKind]
) -> None:
    """However attempts fail, each endpoint has one turn, and a second one only after it limited our rate."""
    line = lineup(*line_names)
    failures: list[AttemptFailure] = []
    for kind in kinds:
        turn = line.next(failures, RuntimeSnapshot(states), left_s=None)
        if turn is None:
            break
        failures.append(failure(turn.candidate.endpoint.name, kind))
    asked = [failed.endpoint_name for failed in failures]
    assert len(asked) < len(kinds)
    for name in line_names:
        assert asked.count(name) <= 2
        if asked.count(name) == 2:
            assert failures[asked.index(name)].kind is LIMITED
