"""How long to wait: for a first token before someone else is asked too, or instead, and for the next piece of an answer.

All of it follows from what is expected of the endpoint for this request, so that a provider that answers within 300 ms is
left after 2 s, and one that takes 5 s is not.
"""

from __future__ import annotations

import math

from pointsman_server.decision.types import Latency

HEDGE_DELAY_S_UNKNOWN = 2.0
"""Of an endpoint that was never seen: by then nearly all hosted models have begun to answer a prompt of usual length."""
HEDGE_DELAY_S_MIN = 0.05
"""A quantile below that is a server nearby, whose hiccups last longer than its answers take; hedging them wins nothing."""

TTFT_TIMEOUT_P99_FACTOR = 2.0
"""A call that has waited for twice its 99th percentile is lost: with a spread of 1.65, which is common, one good call in
ten thousand takes longer."""
TTFT_TIMEOUT_S_MIN = 2.0
"""However fast the endpoint: a new connection may lose a packet, which is sent again after 1 s."""
TTFT_TIMEOUT_S_PER_INPUT_TOKEN = 1.0 / 2000.0
"""What is added to the least for the length of the input, so that a long prompt is not given up for being long before it is
known what long prompts take: slow servers read 2,000 tokens per second."""
DEADLINE_SHARE = 0.5
"""Of what is left of the deadline, as long as another endpoint could still answer in the rest."""

STALL_GAP_FACTOR = 100.0
"""A stream has stalled after so many gaps of its 99th percentile: 5 s at 20 tokens per second."""
STALL_S_MIN = 5.0
"""However fast the stream: servers under load pause for a second or two, to make room for other answers."""
STALL_S_MIN_COMMITTED = 10.0
"""The same where no other endpoint may begin anew: nothing is gained by haste then, and an answer can be lost."""
STALL_S_MIN_THINKING = 30.0
"""The same for a model that can reason: some do so unseen between two pieces of their answer."""
STALL_S_UNKNOWN = 30.0
"""Of an endpoint whose speed was never seen: as long as a provider's connection may be silent by default."""
STALL_PAUSE_FACTOR = 4.0
"""A stream that comes in bursts has shown its pauses: four of the longest one are no pause any more."""


def hedge_delay_s(ttft_s: Latency | None) -> float:
    """After how long without a token a second endpoint may be asked beside one of which `ttft_s` is expected.

    The 95th percentile: one call in twenty takes longer, which is what the budget has room for.
    """
    return HEDGE_DELAY_S_UNKNOWN if ttft_s is None else max(HEDGE_DELAY_S_MIN, ttft_s.p95)


def ttft_timeout_s(
    ttft_s: Latency | None, *, input_token_count: int, cap_s: float, left_s: float | None, has_successor: bool
) -> float:
    """After how long without a token an attempt gives way to the next candidate, at most `cap_s`.

    Args:
        ttft_s: What is expected of the endpoint for this request; None: it is not known.
        input_token_count: Length of the prompt.
        cap_s: What the caller or the configuration allows at most.
        left_s: What is left of the deadline; None without one.
        has_successor: Whether anyone would be asked next. Where nobody would, waiting on is all that can be done.
    """
    if not has_successor:
        return cap_s
    timeout_s = cap_s
    if ttft_s is not None:
        least_s = TTFT_TIMEOUT_S_MIN + TTFT_TIMEOUT_S_PER_INPUT_TOKEN * input_token_count
        timeout_s = min(cap_s, max(least_s, TTFT_TIMEOUT_P99_FACTOR * ttft_s.p99))
    if left_s is None:
        return timeout_s
    return min(timeout_s, max(DEADLINE_SHARE * left_s, 0.0 if ttft_s is None else ttft_s.p99))


def whole_answer_timeout_s(
    answer_s: Latency | None, *, input_token_count: int, left_s: float | None, has_successor: bool
) -> float:
    """The same for an endpoint that answers as a whole, of which `answer_s` is expected. How long that takes is not what a
    caller limits who limits the wait for a first token, so nothing is known where the endpoint is not: infinite then, and
    where nobody would be asked next; the provider's own timeout holds besides."""
    if answer_s is None:
        return math.inf
    return ttft_timeout_s(
        answer_s, input_token_count=input_token_count, cap_s=math.inf, left_s=left_s, has_successor=has_successor
    )


def stall_timeout_s(inter_token_latency_s: Latency | None, *, can_restart: bool, thinks: bool) -> float:
    """After how long without a further piece an answer that has begun counts as stalled, as long as it has not paused.

    Unlike the provider's `idle_timeout_s` it is not about silence: what only keeps a connection alive is no piece.

    Args:
        inter_token_latency_s: What is expected of the endpoint; None: it is not known.
        can_restart: Whether another endpoint would begin anew.
        thinks: Whether the model can reason.
    """
    if inter_token_latency_s is None:
        return STALL_S_UNKNOWN
    least_s = STALL_S_MIN if can_restart else STALL_S_MIN_COMMITTED
    if thinks:
        least_s = max(least_s, STALL_S_MIN_THINKING)
    return max(least_s, STALL_GAP_FACTOR * inter_token_latency_s.p99)


def patience_s(stall_s: float, *, longest_pause_s: float) -> float:
    """The same for a stream that has shown pauses of up to `longest_pause_s`."""
    return max(stall_s, STALL_PAUSE_FACTOR * longest_pause_s)
