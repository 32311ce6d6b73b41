"""What an answer is made of: the events of its stream, and the whole that they add up to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

import grpc

from pointsman.durations import seconds
from pointsman.errors import CallStatus, PointsmanError
from pointsman.v1.chat_pb2 import Delta, ToolCall, ToolCallDelta, Usage
from pointsman.v1.router_service_pb2 import CompleteResponse, Done
from pointsman.v1.routing_pb2 import AttemptFailed, AttemptStarted, Decision

Event = Decision | AttemptStarted | Delta | ToolCallDelta | AttemptFailed | Usage | Done
"""One event of an answer. The decision is the first, `Done` the last; a failure is an exception in place of `Done`."""


def event_of(response: CompleteResponse) -> Event | None:
    """The event within a response. None: a newer server sent a kind that this client does not know."""
    name = response.WhichOneof("event")
    if name is None:
        return None
    event: Event = getattr(response, name)
    return event


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer. What the model wrote is kept out of `repr`, so that it can't reach a log."""

    text: str = field(repr=False)
    """Everything the model said. Empty: it only called tools."""
    reasoning: str = field(repr=False)
    """What the provider shows of the model's reasoning. Empty: nothing."""
    tool_calls: tuple[ToolCall, ...] = field(repr=False)
    """The tools that the model asks for; answer each with `tool_result`."""
    decision: Decision = field(repr=False)
    """Why this endpoint was asked first."""
    failed_attempts: tuple[AttemptFailed, ...]
    """What failed before the answer came. Empty: the first attempt answered."""
    usages: tuple[Usage, ...]
    """Tokens and money, one entry for each attempt that used any."""
    done: Done
    """How it ended: finish reason, endpoint, times, cost."""

    @property
    def endpoint(self) -> str:
        """The endpoint that answered, model@provider; after a failover not the decision's."""
        return self.done.endpoint

    @property
    def cost_usd(self) -> float | None:
        """What all attempts cost together. None: a price is unknown."""
        return self.done.cost_usd if self.done.HasField("cost_usd") else None

    @property
    def ttft_s(self) -> float | None:
        """From the arrival of the request to the first delta. None: there was none."""
        return seconds(self.done.ttft) if self.done.HasField("ttft") else None


class AnswerCollector:
    """Adds up the events of one answer. Memory: the answer's text once."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._reasonings: list[str] = []
        self._tool_calls: dict[int, ToolCall] = {}
        self._decision = Decision()
        self._failed_attempts: list[AttemptFailed] = []
        self._usages: list[Usage] = []
        self._done: Done | None = None

    def add(self, event: Event) -> None:
        """Takes the next event. A new attempt voids what the one before it said."""
        match event:
            case Delta():
                self._texts.append(event.text)
                self._reasonings.append(event.reasoning)
            case ToolCallDelta():
                call = self._tool_calls.setdefault(event.index, ToolCall())
                call.id = call.id or event.id
                call.name = call.name or event.name
                call.arguments_json += event.arguments_json_fragment
                call.signature = call.signature or event.signature
            case Decision():
                self._decision = event
            case AttemptStarted():
                self._texts.clear()
                self._reasonings.clear()
                self._tool_calls.clear()
            case AttemptFailed():
                self._failed_attempts.append(event)
            case Usage():
                self._usages.append(event)
            case Done():
                self._done = event
            case _:
                assert_never(event)

    def answer(self) -> Answer:
        """The whole.

        Raises:
            PointsmanError: the stream ended well, yet without `Done`, so nobody knows whether the answer is whole.
        """
        if self._done is None:
            raise PointsmanError(CallStatus(grpc.StatusCode.UNKNOWN, "the stream ended without its last event"))
        return Answer(
            text="".join(self._texts),
            reasoning="".join(self._reasonings),
            tool_calls=tuple(call for _, call in sorted(self._tool_calls.items())),
            decision=self._decision,
            failed_attempts=tuple(self._failed_attempts),
            usages=tuple(self._usages),
            done=self._done,
        )
