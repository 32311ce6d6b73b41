"""The breaker: every sequence of events of a bounded length, against the rules written as invariants."""

from __future__ import annotations

from itertools import product

import pytest
from pointsman_server.decision.decide import PANIC_OPEN_S_MAX, PANIC_WAIT_S
from pointsman_server.decision.types import BreakerState
from pointsman_server.execution.lineup import WAIT_S_MAX
from pointsman_server.runtime.breaker import Admission, Breaker, BreakerRules

RULES = BreakerRules(
    consecutive_failure_count=2,
    failure_share=0.5,
    failure_share_call_count=4,
    failure_share_s=60.0,
    open_s_first=10.0,
    open_s_max=40.0,
    open_s_min=3.0,
    open_s_authentication=100.0,
    forgiven_after_s=50.0,
    trial_s_max=5.0,
)
EVENTS = ("start", "succeed", "fail", "refuse_key", "release", "wait_1", "wait_11")
SEQUENCE_LENGTH = 6


class Play:
    """A breaker, its calls under way, and what must hold after every event."""

    def __init__(self) -> None:
        self.breaker = Breaker(RULES)
        self.now_s = 0.0
        self.calls: list[Admission] = []

    def apply(self, event: str) -> None:
        """Let one thing happen: calls end in the order in which they started."""
        before = self.breaker.state(self.now_s)
        if event == "start":
            admission = self.breaker.start(self.now_s)
            assert admission.is_trial == (before is BreakerState.HALF_OPEN)
            self.calls.append(admission)
        elif event.startswith("wait"):
            self.now_s += float(event.removeprefix("wait_"))
        elif self.calls:
            self.end(event, self.calls.pop(0), before)
        self.check(event, before)

    def end(self, event: str, admission: Admission, before: BreakerState) -> None:
        """End a call; a call of an earlier era must leave no trace."""
        is_late = admission.era != self.breaker.admission_of(float("inf")).era
        if event == "succeed":
            self.breaker.succeed(admission, now_s=self.now_s)
        elif event == "release":
            self.breaker.release(admission)
        else:
            self.breaker.fail(admission, is_authentication=event == "refuse_key", now_s=self.now_s)
        after = self.breaker.state(self.now_s)
        if is_late:
            assert after is before
        elif event == "refuse_key":
            assert self.breaker.retry_after_s(self.now_s) == RULES.open_s_authentication
        elif admission.is_trial:
            expected = {
                "succeed": BreakerState.CLOSED,
                "fail": BreakerState.OPEN,
                "release": BreakerState.HALF_OPEN,
            }
            assert after is expected[event]

    def check(self, event: str, before: BreakerState) -> None:
        """What holds after any event."""
        after, retry_after_s = self.breaker.state(self.now_s), self.breaker.retry_after_s(self.now_s)
        assert (retry_after_s is not None) == (after is BreakerState.OPEN)
        assert retry_after_s is None or 0.0 < retry_after_s <= RULES.open_s_authentication
        if before is BreakerState.CLOSED and after is not BreakerState.CLOSED:
            assert (event, after) in {("fail", BreakerState.OPEN), ("refuse_key", BreakerState.OPEN)}
        if after is BreakerState.CLOSED and before is not BreakerState.CLOSED:
            assert event == "succeed"
        if before is BreakerState.HALF_OPEN and event == "start":
            assert after is BreakerState.OPEN, "one trial at a time"
        if after is BreakerState.HALF_OPEN and before is BreakerState.OPEN:
            assert event.startswith("wait") or event == "release"


@pytest.mark.parametrize("first", EVENTS)
def test_every_short_history_keeps_the_rules(first: str) -> None:
    """From any start, in every order of starts, ends and waits, the transitions are the ones that are drawn."""
    for state in ("closed", "open", "half_open"):
        for rest in product(EVENTS, repeat=SEQUENCE_LENGTH - 2):
            play = Play()
            if state != "closed":
                for event in ("start", "start", "fail", "fail"):
                    play.apply(event)
            if state == "half_open":
                play.apply("wait_11")
            assert play.breaker.state(play.now_s).value == state
            for event in (first, *rest):
                play.apply(event)


def failed(breaker: Breaker, now_s: float, *, count: int = 2) -> None:
    """Fail so many calls."""
    for _ in range(count):
        breaker.fail(breaker.start(now_s), is_authentication=False, now_s=now_s)


def test_each_failed_trial_doubles_the_time_up_to_a_cap() -> None:
    """An endpoint that stays dead is tried after 10, 20, 40 and then every 40 seconds."""
    breaker, now_s, waits = Breaker(RULES), 0.0, []
    failed(breaker, now_s)
    for _ in range(5):
        wait_s = breaker.retry_after_s(now_s)
        assert wait_s is not None
        waits.append(wait_s)
        now_s += wait_s
        failed(breaker, now_s, count=1)
    assert waits == [10.0, 20.0, 40.0, 40.0, 40.0]


@pytest.mark.parametrize(("healthy_s", "open_s"), [(49.0, 20.0), (50.0, 10.0)])
def test_a_relapse_is_remembered_until_it_is_forgiven(healthy_s: float, open_s: float) -> None:
    """Who fails again soon after recovering stays out for longer; after a healthy while it starts afresh."""
    breaker = Breaker(RULES)
    failed(breaker, 0.0)
    breaker.succeed(breaker.start(10.0), now_s=10.0)
    assert breaker.state(10.0) is BreakerState.CLOSED
    failed(breaker, 10.0 + healthy_s)
    assert breaker.retry_after_s(10.0 + healthy_s) == open_s


def test_a_share_of_failures_opens_it_without_two_in_a_row() -> None:
    """What answers every other call opens it as soon as enough calls stand behind the share."""
    breaker = Breaker(RULES)
    states = []
    for number in range(4):
        admission = breaker.start(0.0)
        if number % 2 == 0:
            breaker.succeed(admission, now_s=0.0)
        else:
            breaker.fail(admission, is_authentication=False, now_s=0.0)
        states.append(breaker.state(0.0))
    assert states == [BreakerState.CLOSED] * 3 + [BreakerState.OPEN]


def test_the_share_is_taken_of_recent_calls() -> None:
    """Failures that lie more than a minute back don't add up with those of today."""
    breaker = Breaker(RULES)
    for now_s in (0.0, 60.0, 120.0, 180.0, 240.0):
        breaker.succeed(breaker.start(now_s), now_s=now_s)
        failed(breaker, now_s + 30.0, count=1)
        assert breaker.state(now_s + 30.0) is BreakerState.CLOSED


def test_one_good_trial_does_not_make_up_for_what_fails_now_and_then() -> None:
    """After the trial the next failure opens it again, for longer; after as many good calls as the share is taken of, no
    single one does."""
    breaker = Breaker(RULES)
    for failing in (False, True, False, True):
        admission = breaker.start(0.0)
        if failing:
            breaker.fail(admission, is_authentication=False, now_s=0.0)
        else:
            breaker.succeed(admission, now_s=0.0)
    assert breaker.retry_after_s(0.0) == 10.0
    breaker.succeed(breaker.start(10.0), now_s=10.0)
    assert breaker.state(10.0) is BreakerState.CLOSED
    failed(breaker, 11.0, count=1)
    assert breaker.retry_after_s(11.0) == 20.0
    for now_s in (31.0, 32.0, 33.0):
        breaker.succeed(breaker.start(now_s), now_s=now_s)
    failed(breaker, 34.0, count=1)
    assert breaker.state(34.0) is BreakerState.CLOSED


@pytest.mark.parametrize(("failure_count", "state"), [(11, BreakerState.CLOSED), (12, BreakerState.OPEN)])
def test_what_mostly_fails_is_closed_off_and_what_often_does_is_not(failure_count: int, state: BreakerState) -> None:
    """By the rules that are shipped, of twenty calls twelve may fail, one of which is the last, and never five in a row."""
    breaker = Breaker(BreakerRules())
    failures = [number % 5 < 3 for number in range(20)][::-1]
    failures[failures.index(True)] = failure_count == 12
    assert sum(failures) == failure_count
    for number, fails in enumerate(failures):
        call = breaker.start(float(number))
        if fails:
            breaker.fail(call, is_authentication=False, now_s=float(number))
        else:
            breaker.succeed(call, now_s=float(number))
    assert breaker.state(20.0) is state


def test_a_trial_that_fails_late_was_part_of_the_time() -> None:
    """The time to the next trial counts from the start of this one, but that is never made at once."""
    breaker = Breaker(RULES)
    failed(breaker, 0.0)
    failed(breaker, 10.0, count=1)
    assert breaker.retry_after_s(10.0) == 20.0
    trial = breaker.start(30.0)
    breaker.fail(trial, is_authentication=False, now_s=34.0)
    assert breaker.retry_after_s(34.0) == 36.0
    trial = breaker.start(70.0)
    breaker.fail(trial, is_authentication=False, now_s=108.0)
    assert breaker.retry_after_s(108.0) == 3.0


def test_a_lost_trial_leaves_its_place() -> None:
    """A trial that never ends blocks the next one for a bounded time."""
    breaker = Breaker(RULES)
    failed(breaker, 0.0)
    assert breaker.start(10.0).is_trial
    assert not breaker.start(14.9).is_trial
    assert breaker.retry_after_s(14.0) == pytest.approx(1.0)
    assert breaker.start(15.0).is_trial


def test_calls_from_before_say_nothing_of_after() -> None:
    """A crowd of calls that hung in the outage and fail after it do not open the breaker again."""
    breaker = Breaker(RULES)
    hung = [breaker.start(0.0) for _ in range(10)]
    failed(breaker, 0.0)
    breaker.succeed(breaker.start(10.0), now_s=10.0)
    for admission in hung:
        breaker.fail(admission, is_authentication=False, now_s=11.0)
    assert breaker.state(11.0) is BreakerState.CLOSED


def test_reports_from_outside_can_be_the_trial() -> None:
    """Where callers make the calls themselves, a reported success of a call that began since then closes it."""
    breaker = Breaker(RULES)
    failed(breaker, 0.0)
    breaker.succeed(breaker.admission_of(-1.0), now_s=11.0)
    assert breaker.state(11.0) is BreakerState.HALF_OPEN
    breaker.succeed(breaker.admission_of(10.5), now_s=11.0)
    assert breaker.state(11.0) is BreakerState.CLOSED


def test_its_repr_shows_its_state() -> None:
    """A person who prints it sees whether it is open and how near it is to opening."""
    breaker = Breaker(RULES)
    failed(breaker, 0.0, count=1)
    assert repr(breaker) == "Breaker(closed, failures in a row: 1)"
    failed(breaker, 0.0, count=1)
    assert repr(breaker) == "Breaker(open until 10.0, failures in a row: 0)"


def test_a_panic_tells_failures_from_a_refused_key_by_how_long_the_breaker_stays_open() -> None:
    """What failures and a trial can take is tolerated, what a refused key takes at first is not."""
    rules = BreakerRules()
    assert max(rules.open_s_max, rules.trial_s_max) < PANIC_OPEN_S_MAX < rules.open_s_authentication


def test_no_panic_is_for_whom_a_request_would_wait() -> None:
    """What a decision takes for soon free is what a request has the patience for: else it would be refused instead."""
    assert PANIC_WAIT_S == WAIT_S_MAX
