"""Events of a completion as OpenAI's objects: one chat completion, or the chunks of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message as ProtoMessage
from pointsman.v1 import routing_pb2

from pointsman_server.attempt import UsageCounted
from pointsman_server.chat import FinishReason, ReasoningDelta, TextDelta, ToolCallDelta
from pointsman_server.decision.types import Candidate
from pointsman_server.edge import convert
from pointsman_server.edge.decision_message import fill_decision
from pointsman_server.errors import AttemptFailure, StreamBrokenError, UpstreamErrorKind
from pointsman_server.openai_door.request import EXTENSION, Asked
from pointsman_server.race import AttemptStarted
from pointsman_server.router import Completed, CompletionEvent, Decided

WHOLE_CHARACTER_COUNT_MAX = 16 * 1024 * 1024
"""A whole answer is put together here. 128k tokens are half a million characters; more than this is no answer."""

FINISH_REASONS: Mapping[FinishReason, str] = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TOOL_CALLS: "tool_calls",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.OTHER: "stop",
}
"""OpenAI has no word for a reason that only the provider knows; `pointsman.done` tells it."""

JsonValue = dict[str, Any]
"""An object on its way out, of which json.dumps makes text."""


@dataclass(slots=True)
class Answer:
    """One completion, as far as it has come."""

    asked: Asked
    created_unix_s: int
    decided: Decided | None = None
    started: list[AttemptStarted] = field(default_factory=list)
    failures: list[AttemptFailure] = field(default_factory=list)
    usages: list[UsageCounted] = field(default_factory=list)
    completed: Completed | None = None

    def note(self, event: CompletionEvent) -> None:
        """Takes what happened; deltas are for `Whole` or `Chunks`."""
        match event:
            case Decided():
                self.decided = event
            case AttemptStarted():
                self.started.append(event)
            case AttemptFailure():
                self.failures.append(event)
            case UsageCounted():
                self.usages.append(event)
            case Completed():
                self.completed = event

    @property
    def id(self) -> str:
        """The decision's id, as OpenAI writes ids."""
        return f"chatcmpl-{self.decided.decision.decision_id if self.decided else ''}"

    @property
    def endpoint_name(self) -> str:
        """Who answers; empty as long as two are asked at the same time."""
        if self.completed is not None:
            return self.completed.endpoint_name
        failed = {failure.attempt_number for failure in self.failures}
        running = {started.endpoint_name for started in self.started if started.attempt_number not in failed}
        return running.pop() if len(running) == 1 else ""

    @property
    def model(self) -> str:
        """The model that answers; as long as that is not known, what was asked for."""
        return self.endpoint_name.rpartition("@")[0] or self.asked.model

    def usage(self) -> JsonValue | None:
        """Tokens of the attempt that answered; None when neither the provider nor we could count any."""
        counted = [usage for usage in self.usages if usage.endpoint_name == self.endpoint_name]
        if not counted:
            return None
        usage = counted[-1].usage
        input_count, output_count = usage.input_token_count or 0, usage.output_token_count or 0
        return {
            "prompt_tokens": input_count,
            "completion_tokens": output_count,
            "total_tokens": input_count + output_count,
            "prompt_tokens_details": {"cached_tokens": usage.cached_input_token_count or 0},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning_token_count or 0},
        }

    def headers(self) -> dict[str, str]:
        """What is known by now, for the head of the answer."""
        if self.decided is None:
            return {}
        decision, completed = self.decided.decision, self.completed
        chosen = decision.chosen
        values: dict[str, object] = {
            "x-request-id": decision.decision_id,
            "x-pointsman-decision-id": decision.decision_id,
            "x-pointsman-router": decision.router_name,
            "x-pointsman-router-version": decision.router_version,
            "x-pointsman-endpoint": self.endpoint_name or None,
            "x-pointsman-attempt-count": len(self.started) or None,
            "x-pointsman-cost-usd": None if completed is None else _number(completed.cost_usd),
            "x-pointsman-left-out": ",".join(self.asked.left_out[:LEFT_OUT_COUNT_MAX]) or None,
        }
        if chosen is not None:
            values |= _expectations(chosen)
        return {name: str(value) for name, value in values.items() if value is not None}

    def decision_json(self, *, decide_unix_s: float) -> JsonValue:
        """The decision as gRPC's `Complete` has it first, in proto3 JSON."""
        decided = self.decided
        assert decided is not None, "the decision comes first"
        message = routing_pb2.Decision()
        fill_decision(
            message,
            decided.decision,
            input_token_count=decided.facts.input_token_count,
            decide_time_s=decide_unix_s,
            router_text=decided.router_text,
            shadows=decided.shadows if self.asked.request.routing.include_shadows else (),
            with_candidates=not self.asked.request.execution.omit_candidates,
        )
        return _json(message)

    def outcome_json(self) -> JsonValue:
        """How the decision was carried out, in proto3 JSON."""
        assert self.completed is not None, "the answer has ended"
        return {
            "done": _json(convert.done_to_proto(self.completed)),
            "usages": [_json(convert.usage_to_proto(usage)) for usage in self.usages],
            "failed_attempts": [_json(convert.attempt_failed_to_proto(failure)) for failure in self.failures],
        }

    @property
    def finish_reason(self) -> str:
        """Why the model stopped, in OpenAI's words."""
        assert self.completed is not None, "the answer has ended"
        return FINISH_REASONS[self.completed.finished.reason]


LEFT_OUT_COUNT_MAX = 16
"""Fields that a header names; a conversation may have a thousand turns."""


def _expectations(chosen: Candidate) -> dict[str, object]:
    """What was expected of the endpoint that was chosen, which a failover may have left since."""
    return {
        "x-pointsman-chosen-endpoint": chosen.endpoint.name,
        "x-pointsman-expected-cost-usd": _number(chosen.cost_usd),
        "x-pointsman-expected-ttft-s": None if chosen.ttft_s is None else _number(chosen.ttft_s.mean),
        "x-pointsman-predicted-quality": None if chosen.quality is None else _number(chosen.quality.mean),
    }


class Whole:
    """Puts a whole answer together."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._forget()

    def take(self, event: CompletionEvent) -> None:
        """Takes the next event.

        Raises:
            StreamBrokenError: the answer is longer than any answer.
        """
        self._answer.note(event)
        match event:
            case TextDelta(text):
                self._add(self._texts, text)
            case ReasoningDelta(text):
                self._add(self._reasoning, text)
            case ToolCallDelta():
                call = self._calls.setdefault(event.index, _PartialCall())
                call.id, call.name = call.id or event.id or "", call.name or event.name or ""
                call.signature = call.signature or event.signature
                self._add(call.arguments, event.arguments_json_fragment)
            case AttemptFailure():
                # Nothing has been sent, so the next attempt begins with a clean sheet.
                self._forget()

    def _forget(self) -> None:
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, _PartialCall] = {}
        self._piece_count = self._character_count = 0

    def _add(self, pieces: list[str], piece: str) -> None:
        self._piece_count += 1
        self._character_count += len(piece)
        if self._character_count > WHOLE_CHARACTER_COUNT_MAX:
            failure = AttemptFailure(
                len(self._answer.started),
                self._answer.endpoint_name,
                UpstreamErrorKind.PROTOCOL,
                f"the answer has more than {WHOLE_CHARACTER_COUNT_MAX} characters",
                0.0,
            )
            raise StreamBrokenError(failure, delta_count=self._piece_count, character_count=self._character_count)
        pieces.append(piece)

    def completion(self, *, decide_unix_s: float) -> JsonValue:
        """The chat completion, once all is there."""
        answer = self._answer
        text = "".join(self._texts)
        message: JsonValue = {"role": "assistant", "content": text or (None if self._calls else ""), "refusal": None}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._calls:
            message["tool_calls"] = [call.json() for _, call in sorted(self._calls.items())]
        completion: JsonValue = {
            "id": answer.id,
            "object": "chat.completion",
            "created": answer.created_unix_s,
            "model": answer.model,
            "choices": [
                {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason},
            ],
        }
        if (usage := answer.usage()) is not None:
            completion["usage"] = usage
        if answer.asked.include_decision:
            completion[EXTENSION] = {"decision": answer.decision_json(decide_unix_s=decide_unix_s)}
            completion[EXTENSION] |= answer.outcome_json()
        return completion


@dataclass(slots=True)
class _PartialCall:
    """A tool call whose arguments are still coming."""

    id: str = ""
    name: str = ""
    signature: str | None = None
    arguments: list[str] = field(default_factory=list)

    def json(self) -> JsonValue:
        function = {"name": self.name, "arguments": "".join(self.arguments)}
        call: JsonValue = {"id": self.id, "type": "function", "function": function}
        return call if self.signature is None else call | {"signature": self.signature}


class Chunks:
    """Tells a stream chunk by chunk."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._has_begun = False

    def of(self, event: CompletionEvent, *, decide_unix_s: float) -> list[JsonValue]:
        """The chunks that an event gives: none for what OpenAI's stream has no words for."""
        self._answer.note(event)
        match event:
            case TextDelta(text):
                return [self._chunk({"content": text}, decide_unix_s)]
            case ReasoningDelta(text):
                return [self._chunk({"reasoning_content": text}, decide_unix_s)]
            case ToolCallDelta():
                return [self._chunk({"tool_calls": [_call_piece(event)]}, decide_unix_s)]
            case Completed():
                last = self._chunk({}, decide_unix_s, finish_reason=self._answer.finish_reason)
                if self._answer.asked.include_decision:
                    last[EXTENSION] = last.get(EXTENSION, {}) | self._answer.outcome_json()
                return [last, self._usage()] if self._answer.asked.include_usage else [last]
            case _:
                return []

    def _chunk(self, delta: JsonValue, decide_unix_s: float, *, finish_reason: str | None = None) -> JsonValue:
        chunk = self._head()
        if not self._has_begun:
            self._has_begun = True
            delta = {"role": "assistant"} | delta
            if self._answer.asked.include_decision:
                chunk[EXTENSION] = {"decision": self._answer.decision_json(decide_unix_s=decide_unix_s)}
        chunk["choices"] = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]
        if self._answer.asked.include_usage:
            chunk["usage"] = None
        return chunk

    def _usage(self) -> JsonValue:
        return self._head() | {"choices": [], "usage": self._answer.usage()}

    def _head(self) -> JsonValue:
        answer = self._answer
        return {
            "id": answer.id,
            "object": "chat.completion.chunk",
            "created": answer.created_unix_s,
            "model": answer.model,
        }


def _call_piece(delta: ToolCallDelta) -> JsonValue:
    function: JsonValue = {"arguments": delta.arguments_json_fragment}
    if delta.name is not None:
        function = {"name": delta.name} | function
    piece: JsonValue = {"index": delta.index, "function": function}
    if delta.id:
        piece = {"index": delta.index, "id": delta.id, "type": "function", "function": function}
    return piece if delta.signature is None else piece | {"signature": delta.signature}


def _number(value: float | None) -> str | None:
    """A number as a header has it: no exponent, nine digits behind the point at most."""
    return None if value is None else f"{value:.9f}".rstrip("0").rstrip(".") or "0"


def _json(message: ProtoMessage) -> JsonValue:
    value: JsonValue = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return value
