"""The runner on the Python clients: `python -m conformance.python_client blocking`, or `asyncio`."""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import BadRequest, QuotaFailure
from pointsman import (
    AsyncClient,
    AttemptFailed,
    AttemptStarted,
    Client,
    Decision,
    Delta,
    Done,
    Event,
    PointsmanError,
    TlsSettings,
    ToolCallDelta,
    Usage,
    seconds,
)
from pointsman.options import CallOptions, CompleteOptions, ReportOutcomeOptions, RouteOptions
from pointsman.v1.router_service_pb2 import (
    BREAK_POLICY_RESTART,
    CompleteRequest,
    CompleteResponse,
    ListEndpointsResponse,
    ReportOutcomeRequest,
    ReportOutcomesRequest,
    RouteRequest,
    RouteResponse,
    WatchEndpointsRequest,
)
from pointsman.v1.routing_pb2 import AttemptsExhausted, NoEligibleEndpoint, Outcome

from conformance.scenario import METHODS, JsonObject

Responses: TypeAlias = AsyncGenerator[Message, None]
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Job:
    """One line of the harness, decoded."""

    client: tuple[str, str | None, str | None]
    """Target, file of the authority to trust, key: what a client is made with."""
    method: str
    requests: tuple[Message, ...]
    options: CallOptions
    cancel_after: int | None

    @classmethod
    def of(cls, line: str) -> Job:
        """Reads it."""
        job = json.loads(line)
        request_class = GetMessageClass(METHODS[job["method"]].input_type)
        return cls(
            client=(job["target"], job["authority_file"], job["api_key"]),
            method=job["method"],
            requests=tuple(request_class.FromString(b64decode(each)) for each in job["requests"]),
            options=CallOptions(metadata=job["metadata"], timeout_s=job["timeout_s"]),
            cancel_after=job["cancel_after"],
        )


def tls_of(authority_file: str | None) -> TlsSettings | None:
    """How a client is to connect."""
    return None if authority_file is None else TlsSettings(root_certificates_pem=Path(authority_file).read_bytes())


def route_options(request: RouteRequest | CompleteRequest, options: CallOptions) -> RouteOptions:
    """The keyword arguments that make the request's routing."""
    routing = request.routing
    return RouteOptions(
        router=routing.router,
        constraints=routing.constraints if routing.HasField("constraints") else None,
        preferences=routing.preferences if routing.HasField("preferences") else None,
        seed=routing.seed if routing.HasField("seed") else None,
        assignment_key=routing.assignment_key,
        include_shadows=routing.include_shadows,
        conversation_id=routing.conversation_id,
        **options,
    )


def complete_options(request: CompleteRequest, options: CallOptions) -> CompleteOptions:
    """The keyword arguments that make the request's routing and execution."""
    execution = request.execution
    return CompleteOptions(
        max_attempt_count=execution.max_attempt_count if execution.HasField("max_attempt_count") else None,
        ttft_timeout_s=seconds(execution.ttft_timeout) if execution.HasField("ttft_timeout") else None,
        on_break="restart" if execution.break_policy == BREAK_POLICY_RESTART else "fail",
        allow_hedging=execution.allow_hedging,
        omit_candidates=execution.omit_candidates,
        **route_options(request, options),
    )


def outcome_options(outcome: Outcome, options: CallOptions) -> ReportOutcomeOptions:
    """The keyword arguments that make the outcome; the suite reports what was judged, not what was measured."""
    return ReportOutcomeOptions(
        endpoint=outcome.endpoint,
        ttft_s=None,
        duration_s=None,
        input_token_count=None,
        output_token_count=None,
        failure=None,
        quality=outcome.quality if outcome.HasField("quality") else None,
        quality_source=outcome.quality_source,
        **options,
    )


def response_of(event: Event) -> CompleteResponse:
    """The response that an event came in."""
    match event:
        case Delta():
            return CompleteResponse(delta=event)
        case ToolCallDelta():
            return CompleteResponse(tool_call_delta=event)
        case Decision():
            return CompleteResponse(decision=event)
        case AttemptStarted():
            return CompleteResponse(attempt_started=event)
        case AttemptFailed():
            return CompleteResponse(attempt_failed=event)
        case Usage():
            return CompleteResponse(usage=event)
        case Done():
            return CompleteResponse(done=event)


async def asyncio_responses(client: AsyncClient, job: Job) -> Responses:
    """What the asynchronous client gets."""
    match job.requests[0]:
        case RouteRequest() as request:
            options = route_options(request, job.options)
            yield RouteResponse(decision=await client.route(request.conversation, **options))
        case CompleteRequest() as request:
            events = client.complete(request.conversation, **complete_options(request, job.options))
            async with aclosing(events):
                async for event in events:
                    yield response_of(event)
        case ReportOutcomeRequest(outcome=outcome):
            await client.report_outcome(outcome.decision_id, **outcome_options(outcome, job.options))
        case ReportOutcomesRequest():
            yield await client.report_outcomes(outcomes_of(job), **job.options)
        case WatchEndpointsRequest() as request:
            changes = client.watch_endpoints(endpoints=request.endpoints, **job.options)
            async with aclosing(changes):
                async for change in changes:
                    yield change
        case _:
            yield ListEndpointsResponse(endpoints=await client.list_endpoints(**job.options))


async def blocking_responses(client: Client, job: Job) -> Responses:
    """What the blocking client gets. It may block: nothing else is going on."""
    match job.requests[0]:
        case RouteRequest() as request:
            yield RouteResponse(decision=client.route(request.conversation, **route_options(request, job.options)))
        case CompleteRequest() as request:
            with closing(client.complete(request.conversation, **complete_options(request, job.options))) as events:
                for event in events:
                    yield response_of(event)
        case ReportOutcomeRequest(outcome=outcome):
            client.report_outcome(outcome.decision_id, **outcome_options(outcome, job.options))
        case ReportOutcomesRequest():
            yield client.report_outcomes(outcomes_of(job), **job.options)
        case WatchEndpointsRequest() as request:
            with closing(client.watch_endpoints(endpoints=request.endpoints, **job.options)) as changes:
                for change in changes:
                    yield change
        case _:
            yield ListEndpointsResponse(endpoints=client.list_endpoints(**job.options))


def outcomes_of(job: Job) -> list[Outcome]:
    """The outcomes of a stream of reports."""
    return [request.outcome for request in job.requests if isinstance(request, ReportOutcomesRequest)]


async def seen(responses: Responses, cancel_after: int | None) -> JsonObject:
    """Takes the responses of one call to their end, or leaves after so many."""
    got: list[str] = []
    result: JsonObject = {"status": "OK"}
    try:
        async with aclosing(responses):
            async for response in responses:
                got.append(encoded(response))
                if len(got) == cancel_after:
                    result = {"status": "CANCELLED"}
                    break
    except PointsmanError as error:
        result = failure_of(error)
    return {**result, "responses": [*got]}


def encoded(message: Message) -> str:
    """A message as it goes into a line."""
    return b64encode(message.SerializeToString()).decode()


def failure_of(error: PointsmanError) -> JsonObject:
    """What the error's own attributes tell."""
    status = error.status
    metadata: JsonObject = dict(status.metadata)
    bad_request = status.detail(BadRequest) or BadRequest()
    quota_failure = status.detail(QuotaFailure) or QuotaFailure()
    no_eligible_endpoint = status.detail(NoEligibleEndpoint)
    attempts_exhausted = status.detail(AttemptsExhausted)
    return {
        "status": status.code.name,
        "message": status.message,
        "reason": status.reason,
        "metadata": metadata,
        "violations": [
            *(violation(each.field, each.description) for each in bad_request.field_violations),
            *(violation(each.subject, each.description) for each in quota_failure.violations),
        ],
        "no_eligible_endpoint": None if no_eligible_endpoint is None else encoded(no_eligible_endpoint),
        "attempts_exhausted": None if attempts_exhausted is None else encoded(attempts_exhausted),
        "retry_after_s": status.retry_after_s,
    }


def violation(subject: str, description: str) -> JsonObject:
    """One fault of a request, or one exhausted quota."""
    return {"subject": subject, "description": description}


async def run_asyncio() -> None:
    """Answers each line with the asynchronous client."""
    clients: dict[tuple[str, str | None, str | None], AsyncClient] = {}
    async with AsyncExitStack() as stack:
        while line := await asyncio.to_thread(sys.stdin.readline):
            job = Job.of(line)
            if job.client not in clients:
                target, authority_file, api_key = job.client
                client = AsyncClient(target, tls=tls_of(authority_file), api_key=api_key)
                clients[job.client] = await stack.enter_async_context(client)
            answer(await seen(asyncio_responses(clients[job.client], job), job.cancel_after))


async def run_blocking() -> None:
    """Answers each line with the blocking client."""
    clients: dict[tuple[str, str | None, str | None], Client] = {}
    async with AsyncExitStack() as stack:
        for line in sys.stdin:
            job = Job.of(line)
            if job.client not in clients:
                target, authority_file, api_key = job.client
                clients[job.client] = stack.enter_context(Client(target, tls=tls_of(authority_file), api_key=api_key))
            answer(await seen(blocking_responses(clients[job.client], job), job.cancel_after))


def answer(result: JsonObject) -> None:
    """One line, at once."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


RUNS: dict[str, Callable[[], object]] = {
    "asyncio": lambda: asyncio.run(run_asyncio()),
    "blocking": lambda: asyncio.run(run_blocking()),
}

if __name__ == "__main__":
    RUNS[sys.argv[1]]()
