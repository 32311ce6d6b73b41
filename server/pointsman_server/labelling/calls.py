"""One attempt at one call, through the same adapters that the server uses, and when to try again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from pointsman_server.chat import Finished, TextDelta, ToolCallDelta, UpstreamEvent, Usage, UsageReported
from pointsman_server.decision.cost import cost_usd
from pointsman_server.decision.facts import estimated_token_count, request_facts, utf8_length
from pointsman_server.errors import (
    UpstreamDisconnectedError,
    UpstreamError,
    UpstreamErrorKind,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from pointsman_server.labelling.plan import Call
from pointsman_server.labelling.records import Answered, Failed
from pointsman_server.providers.base import ChatProvider, UpstreamCall
from pointsman_server.providers.wire import check_sayable

ANSWER_BYTES_MAX = 4 * 1024 * 1024
"""Answers are kept in memory and in the journal; a million tokens are more than any model gives."""

BACKOFF_FIRST_S = 1.0
"""A server that was restarted, or a limit that is counted by the second, is back after it."""
BACKOFF_S_MAX = 60.0
"""Limits are counted by the minute, so nothing is gained by waiting longer."""

RETRIED = frozenset(UpstreamErrorKind) - {UpstreamErrorKind.AUTHENTICATION, UpstreamErrorKind.REJECTED}
"""Failures that may not come again when the same is asked again."""
PAID = (UpstreamTimeoutError, UpstreamDisconnectedError, UpstreamProtocolError)
"""Failures in the middle of an answer: the input is paid for, and what had arrived. A refusal and a missing connection are
not."""


@dataclass(slots=True)
class _Received:
    """What has come of an answer so far."""

    texts: list[str]
    byte_count: int = 0
    """Of all that the model wrote, its reasoning included: what is paid for where the provider does not count."""
    usage: Usage = Usage()
    finished: Finished | None = None
    first_delta_s: float | None = None
    finished_s: float = 0.0


async def attempt(
    call: Call, provider: ChatProvider, *, timeout_s: float, clock_s: Callable[[], float]
) -> Answered | tuple[UpstreamError, float | None]:
    """Makes the call once. Gives the answer; or why there is none, and what the attempt cost (None: the catalog has no
    price).

    Args:
        call: What is asked of whom.
        provider: The endpoint's provider.
        timeout_s: How long it may take in all.
        clock_s: A monotonic clock.
    """
    upstream = UpstreamCall(
        upstream_model=call.entry.upstream_model,
        conversation=call.conversation,
        output_token_count_max=call.entry.endpoint.output_token_count_max,
        reasoning_control=call.entry.reasoning_control,
        stream=call.entry.stream,
        timeout_s=timeout_s,
    )
    started_s, received = clock_s(), _Received([])
    try:
        check_sayable(call.conversation, call.entry.endpoint.lacks)
        async with aclosing(provider.complete(upstream)) as batches:
            async for batch in batches:
                for event in batch:
                    _take(event, received, clock_s)
        if received.finished is None:
            raise UpstreamDisconnectedError("the provider's answer ended without a finish")
    except UpstreamError as error:
        return error, _cost_usd(call, received) if isinstance(error, PAID) else 0.0
    usage, first_delta_s = received.usage, received.first_delta_s
    return Answered(
        key=call.key,
        text="".join(received.texts),
        finish_reason=received.finished.reason.value,
        input_token_count=usage.input_token_count,
        output_token_count=usage.output_token_count,
        cost_usd=_cost_usd(call, received),
        is_cost_estimated=usage.input_token_count is None or usage.output_token_count is None,
        ttft_s=first_delta_s - started_s if first_delta_s is not None and call.entry.stream else None,
        latency_s=received.finished_s - started_s,
    )


def _take(event: UpstreamEvent, received: _Received, clock_s: Callable[[], float]) -> None:
    if isinstance(event, UsageReported):
        received.usage = event.usage
        return
    if isinstance(event, Finished):
        received.finished, received.finished_s = event, clock_s()
        return
    if received.first_delta_s is None:
        received.first_delta_s = clock_s()
    text = event.arguments_json_fragment if isinstance(event, ToolCallDelta) else event.text
    received.byte_count += utf8_length(text)
    if received.byte_count > ANSWER_BYTES_MAX:
        raise UpstreamProtocolError(f"the answer has more than {ANSWER_BYTES_MAX} bytes")
    if isinstance(event, TextDelta):
        received.texts.append(text)


def _cost_usd(call: Call, received: _Received) -> float | None:
    """By the provider's count, or by our estimate where it gave none."""
    usage = received.usage
    input_token_count, output_token_count = usage.input_token_count, usage.output_token_count
    if input_token_count is None:
        input_token_count = request_facts(call.conversation).input_token_count
    if output_token_count is None:
        output_token_count = estimated_token_count(received.byte_count)
    return cost_usd(
        call.entry.endpoint,
        input_token_count=input_token_count,
        output_token_count=output_token_count,
        cached_input_token_count=usage.cached_input_token_count or 0,
        cache_write_input_token_count=usage.cache_write_input_token_count or 0,
    )


def failure_record(call: Call, error: UpstreamError, *, spent_usd: float | None) -> Failed:
    """What the journal holds of a failure."""
    return Failed(key=call.key, kind=error.kind.value, message=str(error), cost_usd=spent_usd)


def backoff_s(retry_number: int, *, chance: float, retry_after_s: float | None) -> float:
    """How long to wait before a retry: what the provider asks for; or from try to try twice as long, the half of it by
    chance, so that calls that failed together don't come back together. Never less than half a second.

    Args:
        retry_number: From 0.
        chance: 0..1.
        retry_after_s: What the provider asked for; None where it did not.
    """
    spread = 0.5 + 0.5 * chance
    if retry_after_s is not None:
        return max(retry_after_s, BACKOFF_FIRST_S * spread)
    return min(BACKOFF_S_MAX, BACKOFF_FIRST_S * 2.0 ** min(retry_number, 16)) * spread
