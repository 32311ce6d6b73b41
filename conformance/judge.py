"""Whether what a client and the providers saw is what the scenario expects.

An expectation is a pattern: an object must have the keys that it names, with matching values, and may have others; a list
must have as many items, each matching; a text or number must be equal. Neighbouring deltas of a stream count as one,
because how an answer is cut into pieces is the network's business.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from pointsman_server.providers.scripted import RecordedRequest, ScriptedUpstream

from conformance.runner import Seen
from conformance.scenario import JsonObject, JsonValue, Scenario
from conformance.stage import Stage
from conformance.standin import Standin

CLOSE_PATIENCE_S = 30.0
"""How long it may take on a busy machine until a close arrives; a connection that is left open never closes."""
WIRE_ROUNDING = 1.01
"""gRPC sends a deadline with few digits, rounded up: 600 s may arrive as 601."""
TEXT_LENGTH_MAX = 80
"""Of a value that a difference shows."""
EXPECT_KEYS = frozenset(
    {
        "status",
        "message",
        "reason",
        "metadata",
        "violations",
        "no_eligible_endpoint",
        "attempts_exhausted",
        "retry_after",
        "responses",
    }
)
UPSTREAM_KEYS = frozenset({"connection_count", "closed", "prompt", "tools", "header_starts"})


async def differences(
    scenario: Scenario, seen: Seen, stage: Stage, *, close_patience_s: float = CLOSE_PATIENCE_S
) -> list[str]:
    """What is not as expected, one line each. Empty: all is well."""
    found = list(_caller_differences(scenario.expect, seen))
    for name, value in scenario.upstreams_see.items():
        expected, upstream = cast("JsonObject", value), stage.upstreams[name]
        found += _upstream_differences(name, expected, upstream)
        if expected.get("closed") and not await _closed(upstream, close_patience_s):
            found.append(f"{name}: the call upstream was left open")
    if stage.standin is not None:
        found += _standin_differences(scenario.standin_sees, stage.standin)
    return found


def _standin_differences(expected: JsonObject, standin: Standin) -> Iterable[str]:
    yield from mismatches(expected["call_count"], len(standin.calls), "calls that the stand-in got")
    deadline_s = cast("float", expected["deadline_s"])
    for number, call in enumerate(standin.calls, start=1):
        # Some of it may be used up when a call arrives, and of that of a call that is sent again some more.
        if call.remaining_s is None or not deadline_s / 2 < call.remaining_s <= deadline_s * WIRE_ROUNDING:
            yield f"call {number} of {call.method} has {call.remaining_s} s left, expected a deadline of {deadline_s:g} s"


def _caller_differences(expect: JsonObject, seen: Seen) -> Iterable[str]:
    if unknown := expect.keys() - EXPECT_KEYS:
        raise ValueError(f"there is no {', '.join(sorted(unknown))} to expect")
    got: dict[str, JsonValue] = {
        "status": seen.status,
        "message": seen.message,
        "reason": seen.reason,
        "metadata": dict(seen.metadata),
        "violations": list(seen.violations),
        "no_eligible_endpoint": seen.no_eligible_endpoint,
        "attempts_exhausted": seen.attempts_exhausted,
        "retry_after": seen.retry_after_s is not None,
        "responses": list(merged(seen.responses)),
    }
    # A failure is never a surprise: unless a scenario says otherwise, there is none, and no detail of one.
    wanted: JsonObject = {"status": "OK", "reason": "", "retry_after": False, "violations": [], **expect}
    for key, pattern in wanted.items():
        yield from mismatches(pattern, got[key], key)
    if seen.status != wanted["status"] and seen.message and "message" not in expect:
        yield f"message is {json.dumps(seen.message)}, which may say why"


async def _closed(upstream: ScriptedUpstream, patience_s: float) -> bool:
    """Whether the caller has closed every connection, or does so soon."""
    try:
        async with asyncio.timeout(patience_s):
            for connection in upstream.connections:
                await connection.client_closed.wait()
    except TimeoutError:
        return False
    return True


def _upstream_differences(name: str, expected: JsonObject, upstream: ScriptedUpstream) -> Iterable[str]:
    if unknown := expected.keys() - UPSTREAM_KEYS:
        raise ValueError(f"there is no {', '.join(sorted(unknown))} that a provider could see")
    connections = upstream.connections
    yield from mismatches(expected.get("connection_count"), len(connections), f"{name}: connections")
    for request in (request for connection in connections for request in connection.requests):
        yield from _request_differences(name, expected, request)


def _request_differences(name: str, expected: JsonObject, request: RecordedRequest) -> Iterable[str]:
    body = cast("JsonObject", json.loads(request.body))
    if "prompt" in expected:
        *_, last = cast("list[JsonObject]", body["messages"])
        yield from mismatches(expected["prompt"], last["content"], f"{name}: prompt")
    if "tools" in expected:
        yield from mismatches(expected["tools"], body.get("tools"), f"{name}: tools")
    headers = dict(line.split(": ", 1) for line in request.head.decode().split("\r\n")[1:] if line)
    for header, start in cast("Mapping[str, str]", expected.get("header_starts", {})).items():
        value = {key.lower(): value for key, value in headers.items()}.get(header, "")
        if not value.startswith(start):
            yield f"{name}: header {header} is {value!r}, expected it to start with {start!r}"


def merged(responses: Sequence[JsonObject]) -> Iterable[JsonObject]:
    """The same responses, in which neighbouring deltas of a text, or of one tool call, are one."""
    pending: JsonObject | None = None
    for response in responses:
        if pending is not None and (joined := _joined(pending, response)) is not None:
            pending = joined
            continue
        if pending is not None:
            yield pending
        pending = response
    if pending is not None:
        yield pending


def _joined(first: JsonObject, second: JsonObject) -> JsonObject | None:
    """Two responses as one. None: they are not two pieces of one thing."""
    for kind, texts in (("delta", ("text", "reasoning")), ("toolCallDelta", ("argumentsJsonFragment",))):
        if first.keys() == second.keys() == {kind}:
            one, two = cast("JsonObject", first[kind]), cast("JsonObject", second[kind])
            if one.get("index") == two.get("index"):
                sums = {key: str(one.get(key, "")) + str(two.get(key, "")) for key in texts if key in one or key in two}
                return {kind: {**one, **sums}}
    return None


def mismatches(pattern: JsonValue, got: JsonValue, path: str) -> Iterable[str]:
    """Where `got` does not match the pattern. A pattern of None matches all."""
    match pattern, got:
        case None, _:
            pass
        case dict(), dict():
            for key, each in pattern.items():
                yield from mismatches(each, got.get(key), f"{path}.{key}")
        case list(), list() if len(pattern) == len(got):
            for index, (each, other) in enumerate(zip(pattern, got, strict=True)):
                yield from mismatches(each, other, f"{path}[{index}]")
        case float(), float() | int() if math.isclose(pattern, got, rel_tol=1e-9):
            pass
        case _ if pattern != got:
            yield f"{path} is {_shown(got)}, expected {_shown(pattern)}"


def _shown(value: JsonValue) -> str:
    text = json.dumps(value)
    return text if len(text) <= TEXT_LENGTH_MAX else f"{text[:TEXT_LENGTH_MAX]}... ({len(text)} characters)"
