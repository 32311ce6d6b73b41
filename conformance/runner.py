"""A language's runner: a process that is given calls as lines of JSON and answers each with what its client saw.

It lives on between calls, with its channels open. So when it is checked that a cancelled call is closed upstream, nothing
but the client's own cancelling can have closed it.
"""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from pointsman.v1.routing_pb2 import AttemptsExhausted, NoEligibleEndpoint

from conformance.scenario import METHODS, JsonObject, Scenario
from conformance.stage import Stage

PATIENCE_S = 120.0
"""Ends a runner that hangs; no call takes a tenth of it."""
LINE_BYTES_MAX = 64 * 1024 * 1024
"""A line holds a prompt of several megabytes in base64."""


class RunnerError(Exception):
    """The runner itself failed: it ended, hung, or answered what is no result."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client saw of one call. Messages are proto3 JSON."""

    status: str
    """Name of the gRPC status, CANCELLED where the caller left."""
    message: str
    """The server's words."""
    reason: str
    """Name of the ErrorReason. Empty: there was none."""
    metadata: Mapping[str, str]
    """Of the ErrorInfo."""
    violations: tuple[JsonObject, ...]
    """`subject` and `description` of each field or quota."""
    no_eligible_endpoint: JsonObject | None
    attempts_exhausted: JsonObject | None
    retry_after_s: float | None
    responses: tuple[JsonObject, ...]
    """In the order in which they came."""


class Runner:
    """A running runner."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def call(self, scenario: Scenario, stage: Stage) -> Seen:
        """Has the scenario's call made, and waits for what came of it.

        Raises:
            RunnerError: nothing that makes sense came.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job_of(scenario, stage)).encode() + b"\n")
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._process.stdin.drain()
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise RunnerError(f"no answer within {PATIENCE_S:g} s") from None
        except ConnectionError:
            line = b""
        if not line:
            raise RunnerError("the runner has ended; its own words are above")
        try:
            return _seen(cast("JsonObject", json.loads(line)), scenario)
        except (ValueError, KeyError, TypeError) as error:
            raise RunnerError(f"not a result: {line[:200]!r} ({error})") from None


@asynccontextmanager
async def running(command: Sequence[str], *, folder: Path, environment: Mapping[str, str]) -> AsyncIterator[Runner]:
    """Starts a runner, and ends it with the block by closing its input."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdin=PIPE, stdout=PIPE, limit=LINE_BYTES_MAX
    )
    assert process.stdin is not None
    try:
        yield Runner(process)
        process.stdin.close()
        async with asyncio.timeout(PATIENCE_S):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def job_of(scenario: Scenario, stage: Stage) -> JsonObject:
    """The line for the runner. Requests travel in the wire format, which is what a client is made of; bytes in base64."""
    call = scenario.call
    return {
        "target": stage.target,
        "authority_file": None if stage.authority_file is None else str(stage.authority_file),
        "api_key": call.api_key,
        "metadata": dict(call.metadata),
        "timeout_s": call.timeout_s,
        "cancel_after": call.cancel_after,
        "method": call.method,
        "requests": [b64encode(request.SerializeToString()).decode() for request in call.requests],
    }


def _seen(result: JsonObject, scenario: Scenario) -> Seen:
    response_class = GetMessageClass(METHODS[scenario.call.method].output_type)
    no_eligible_endpoint = cast("str | None", result.get("no_eligible_endpoint"))
    attempts_exhausted = cast("str | None", result.get("attempts_exhausted"))
    return Seen(
        status=str(result["status"]),
        message=str(result.get("message", "")),
        reason=str(result.get("reason", "")),
        metadata=cast("dict[str, str]", result.get("metadata") or {}),
        violations=tuple(cast("list[JsonObject]", result.get("violations") or [])),
        no_eligible_endpoint=_decoded(NoEligibleEndpoint, no_eligible_endpoint),
        attempts_exhausted=_decoded(AttemptsExhausted, attempts_exhausted),
        retry_after_s=cast("float | None", result.get("retry_after_s")),
        responses=tuple(
            MessageToDict(response_class.FromString(b64decode(each))) for each in cast("list[str]", result["responses"])
        ),
    )


def _decoded(kind: type[NoEligibleEndpoint | AttemptsExhausted], encoded: str | None) -> JsonObject | None:
    return None if encoded is None else MessageToDict(kind.FromString(b64decode(encoded)))
