"""How long is waited, by what is expected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.decision.types import Latency
from pointsman_server.execution.patience import (
    STALL_S_MIN,
    STALL_S_MIN_COMMITTED,
    STALL_S_MIN_THINKING,
    STALL_S_UNKNOWN,
    TTFT_TIMEOUT_S_MIN,
    hedge_delay_s,
    patience_s,
    stall_timeout_s,
    ttft_timeout_s,
)
from strategies import latencies

QUICK = Latency(mean=0.3, p50=0.25, p90=0.5, p95=0.6, p99=0.9)
SLOW = Latency(mean=6.0, p50=5.0, p90=8.0, p95=9.0, p99=12.0)


def timeout_s(
    ttft_s: Latency | None,
    *,
    input_token_count: int = 0,
    cap_s: float = 30.0,
    left_s: float | None = None,
    has_successor: bool = True,
) -> float:
    """The timeout of an attempt at an endpoint, with a candidate to come after it."""
    return ttft_timeout_s(
        ttft_s, input_token_count=input_token_count, cap_s=cap_s, left_s=left_s, has_successor=has_successor
    )


def test_a_hedge_comes_when_nineteen_in_twenty_calls_have_begun_to_answer() -> None:
    """The delay is the 95th percentile of what is expected; a fixed one where nothing is, and never next to nothing."""
    assert hedge_delay_s(SLOW) == 9.0
    assert hedge_delay_s(None) == 2.0
    assert hedge_delay_s(Latency(0.001, 0.001, 0.001, 0.001, 0.001)) == 0.05


def test_an_attempt_is_given_up_at_twice_its_99th_percentile() -> None:
    """A quick endpoint is left after the least time, a slow one later, one that is not known at the cap."""
    assert timeout_s(QUICK) == TTFT_TIMEOUT_S_MIN
    assert timeout_s(SLOW) == 24.0
    assert timeout_s(None) == 30.0


def test_a_long_prompt_is_not_given_up_for_its_length() -> None:
    """An endpoint of which only short prompts are known gets a second for each 2,000 tokens more."""
    assert timeout_s(QUICK, input_token_count=20_000) == pytest.approx(12.0)


def test_where_nobody_comes_after_it_an_attempt_has_all_the_time_there_is() -> None:
    """The last candidate is waited for up to the cap: to give it up would only make a failure of a slow answer."""
    assert timeout_s(QUICK, has_successor=False) == 30.0


def test_half_of_the_deadline_is_kept_for_whoever_comes_after() -> None:
    """An endpoint that is not known gets half of what is left; one that is, at least its 99th percentile."""
    assert timeout_s(None, left_s=4.0) == 2.0
    assert timeout_s(SLOW, left_s=20.0) == 12.0
    assert timeout_s(SLOW, left_s=30.0) == 15.0


@given(
    ttft_s=st.none() | latencies(0.001, 100.0),
    input_token_count=st.integers(0, 1_000_000),
    cap_s=st.floats(0.001, 100.0),
    left_s=st.none() | st.floats(0.0, 1000.0),
    has_successor=st.booleans(),
)
def test_the_cap_holds_whatever_is_expected(
    *, ttft_s: Latency | None, input_token_count: int, cap_s: float, left_s: float | None, has_successor: bool
) -> None:
    """No attempt waits longer than the caller or the configuration allows."""
    assert (
        timeout_s(ttft_s, input_token_count=input_token_count, cap_s=cap_s, left_s=left_s, has_successor=has_successor)
        <= cap_s
    )


def test_a_stream_stalls_after_a_hundred_gaps_and_no_sooner_than_some_seconds() -> None:
    """The least depends on what there is to lose, and on whether the model may be thinking; an endpoint of unknown speed
    is given half a minute."""
    fast = Latency(0.01, 0.01, 0.015, 0.018, 0.02)
    slow = Latency(0.1, 0.1, 0.15, 0.18, 0.2)
    assert stall_timeout_s(fast, can_restart=True, thinks=False) == STALL_S_MIN
    assert stall_timeout_s(fast, can_restart=False, thinks=False) == STALL_S_MIN_COMMITTED
    assert stall_timeout_s(fast, can_restart=True, thinks=True) == STALL_S_MIN_THINKING
    assert stall_timeout_s(slow, can_restart=True, thinks=False) == 20.0
    assert stall_timeout_s(None, can_restart=True, thinks=False) == STALL_S_UNKNOWN


def test_a_stream_in_bursts_is_allowed_its_pauses() -> None:
    """A stream that has paused for 3 s before counts as stalled after 12 s, not after 5."""
    assert patience_s(5.0, longest_pause_s=3.0) == 12.0
    assert patience_s(5.0, longest_pause_s=0.1) == 5.0
