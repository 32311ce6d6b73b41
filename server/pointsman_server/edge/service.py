"""The methods of RouterService. Each validates, converts, calls, converts, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import Message
from pointsman.v1 import chat_pb2, router_service_pb2, router_service_pb2_grpc, routing_pb2

from pointsman_server.attempt import UsageCounted
from pointsman_server.chat import ReasoningDelta, TextDelta, ToolCallDelta
from pointsman_server.config.settings import ServerSettings
from pointsman_server.decision.types import EndpointRuntime
from pointsman_server.edge import convert
from pointsman_server.edge.decision_message import fill_decision
from pointsman_server.edge.interceptors import current_span, remaining_s
from pointsman_server.edge.outlasting import outlasting
from pointsman_server.edge.validate import (
    validate_complete,
    validate_outcome,
    validate_page,
    validate_route,
    validate_watch,
)
from pointsman_server.errand import Execution
from pointsman_server.errors import AttemptFailure, InvalidRequestError, UnknownDecisionError
from pointsman_server.race import AttemptStarted
from pointsman_server.router import (
    Completed,
    CompletionEvent,
    Decided,
    ReportedOutcome,
    Router,
    RoutingRequest,
)

PAGE_SIZE_DEFAULT = 100
REFUSAL_COUNT_MAX = 100
"""Refused outcomes that are listed; the rest is counted."""
WATCH_INTERVAL_DEFAULT_S = 1.0

SERVICE_NAME: str = router_service_pb2.DESCRIPTOR.services_by_name["RouterService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]


class RouterServicer(router_service_pb2_grpc.RouterServiceServicer):
    """RouterService over a `Router`."""

    def __init__(
        self,
        router: Router,
        settings: ServerSettings,
        *,
        clock_s: Callable[[], float],
        unix_s: Callable[[], float],
    ) -> None:
        self._router = router
        self._settings = settings
        self._clock_s = clock_s
        self._unix_s = unix_s
        self._stopping = asyncio.Event()

    def stop_watching(self) -> None:
        """Ends every WatchEndpoints stream: they never end by themselves, and a drain would wait for them."""
        self._stopping.set()

    async def Route(
        self, request: router_service_pb2.RouteRequest, context: Context
    ) -> router_service_pb2.RouteResponse:
        """See the proto."""
        validate_route(request)
        decided = self._router.route(routing_request(request), current_span())
        response = router_service_pb2.RouteResponse()
        self._fill_decision(response.decision, decided, with_shadows=request.routing.include_shadows)
        return response

    async def Complete(  # type: ignore[override]  # grpc.aio takes a coroutine that writes, its types do not say so
        self, request: router_service_pb2.CompleteRequest, context: Context
    ) -> None:
        """See the proto. Writes rather than yields: grpc.aio leaks three times as much of a cancelled generator."""
        validate_complete(request)
        events = self._router.complete(routing_request(request), self._execution(request, context), current_span())
        async with aclosing(events):
            async for event in events:
                await _write(context, self._event(event, request))

    async def ReportOutcome(
        self, request: router_service_pb2.ReportOutcomeRequest, context: Context
    ) -> router_service_pb2.ReportOutcomeResponse:
        """See the proto."""
        validate_outcome(request.outcome)
        self._router.report(_reported_outcome(request.outcome))
        return router_service_pb2.ReportOutcomeResponse()

    async def ReportOutcomes(
        self, requests: AsyncIterator[router_service_pb2.ReportOutcomesRequest], context: Context
    ) -> router_service_pb2.ReportOutcomesResponse:
        """See the proto."""
        response = router_service_pb2.ReportOutcomesResponse()
        index = -1
        async for request in requests:
            index += 1
            try:
                validate_outcome(request.outcome)
                self._router.report(_reported_outcome(request.outcome))
                response.accepted_count += 1
            except (InvalidRequestError, UnknownDecisionError) as error:
                response.refused_count += 1
                if len(response.refusals) < REFUSAL_COUNT_MAX:
                    decision_id = request.outcome.decision_id[:64]
                    response.refusals.add(index=index, decision_id=decision_id, description=str(error))
        return response

    async def ListEndpoints(
        self, request: router_service_pb2.ListEndpointsRequest, context: Context
    ) -> router_service_pb2.ListEndpointsResponse:
        """See the proto."""
        validate_page(request)
        names = list(self._router.world.catalog.by_name)
        page, next_page_token = _page(names, request.page_size, request.page_token)
        return router_service_pb2.ListEndpointsResponse(endpoints=self._statuses(page), next_page_token=next_page_token)

    async def WatchEndpoints(  # type: ignore[override]  # as Complete
        self, request: router_service_pb2.WatchEndpointsRequest, context: Context
    ) -> None:
        """See the proto."""
        validate_watch(request)
        interval_s = (
            convert.seconds(request.min_interval) if request.HasField("min_interval") else WATCH_INTERVAL_DEFAULT_S
        )
        wanted = frozenset(request.endpoints)
        sent: dict[str, tuple[object, ...]] = {}
        while not self._stopping.is_set():
            snapshot = self._router.tracker.snapshot(self._clock_s())
            current = {
                entry.endpoint.name: (entry.endpoint, *_visible(snapshot.of(entry.endpoint.name)))
                for entry in self._router.world.catalog.entries
                if not wanted or entry.endpoint.name in wanted
            }
            changed = [name for name, state in current.items() if sent.get(name) != state]
            removed = [name for name in sent if name not in current]
            if changed or removed or not sent:
                response = router_service_pb2.WatchEndpointsResponse(
                    endpoints=self._statuses(changed),
                    removed_endpoints=removed,
                    snapshot_time=convert.timestamp(self._unix_s()),
                )
                await _write(context, response)
            sent = current
            await _wait(self._stopping, interval_s)

    async def ListRouters(
        self, request: router_service_pb2.ListRoutersRequest, context: Context
    ) -> router_service_pb2.ListRoutersResponse:
        """See the proto."""
        validate_page(request)
        routers = self._router.world.routers
        page, next_page_token = _page(sorted(routers), request.page_size, request.page_token)
        return router_service_pb2.ListRoutersResponse(
            routers=[convert.router_to_proto(routers[name]) for name in page], next_page_token=next_page_token
        )

    def _fill_decision(
        self, message: routing_pb2.Decision, decided: Decided, *, with_shadows: bool, with_candidates: bool = True
    ) -> None:
        fill_decision(
            message,
            decided.decision,
            input_token_count=decided.facts.input_token_count,
            decide_time_s=self._unix_s(),
            router_text=decided.router_text,
            shadows=decided.shadows if with_shadows else (),
            with_candidates=with_candidates,
        )

    def _execution(self, request: router_service_pb2.CompleteRequest, context: Context) -> Execution:
        left_s = remaining_s(context)
        deadline_s = None if left_s is None else self._clock_s() + left_s
        return asked_execution(request.execution, self._settings, deadline_s=deadline_s)

    def _event(
        self, event: CompletionEvent, request: router_service_pb2.CompleteRequest
    ) -> router_service_pb2.CompleteResponse:
        match event:
            case TextDelta(text):
                return router_service_pb2.CompleteResponse(delta=chat_pb2.Delta(text=text))
            case ReasoningDelta(text):
                return router_service_pb2.CompleteResponse(delta=chat_pb2.Delta(reasoning=text))
            case ToolCallDelta():
                return router_service_pb2.CompleteResponse(tool_call_delta=convert.tool_call_delta_to_proto(event))
            case Decided():
                response = router_service_pb2.CompleteResponse()
                self._fill_decision(
                    response.decision,
                    event,
                    with_shadows=request.routing.include_shadows,
                    with_candidates=not request.execution.omit_candidates,
                )
                return response
            case AttemptStarted(attempt_number, endpoint_name):
                started = routing_pb2.AttemptStarted(attempt_number=attempt_number, endpoint=endpoint_name)
                return router_service_pb2.CompleteResponse(attempt_started=started)
            case AttemptFailure():
                failed = convert.attempt_failed_to_proto(event)
                return router_service_pb2.CompleteResponse(attempt_failed=failed)
            case UsageCounted():
                return router_service_pb2.CompleteResponse(usage=convert.usage_to_proto(event))
            case Completed():
                return router_service_pb2.CompleteResponse(done=convert.done_to_proto(event))

    def _statuses(self, names: Sequence[str]) -> list[routing_pb2.EndpointStatus]:
        by_name = self._router.world.catalog.by_name
        snapshot = self._router.tracker.snapshot(self._clock_s())
        snapshot_time = convert.timestamp(self._unix_s())
        return [
            routing_pb2.EndpointStatus(
                endpoint=convert.endpoint_to_proto(by_name[name].endpoint),
                runtime=convert.runtime_to_proto(snapshot.of(name)),
                snapshot_time=snapshot_time,
            )
            for name in names
            if name in by_name
        ]


async def _write(context: Context, message: Message) -> None:
    """Sends a message once there is room for it: as slowly as the caller reads.

    A caller who leaves while it waits ends this with an error of gRPC's own, which comes before the cancellation; it is one.
    """
    try:
        await outlasting(context.write(message))
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None


def routing_request(
    request: router_service_pb2.RouteRequest | router_service_pb2.CompleteRequest,
) -> RoutingRequest:
    """What a request, which has been validated, asks to decide."""
    routing = request.routing
    return RoutingRequest(
        conversation=convert.conversation_from_proto(request.conversation),
        asked=convert.router_string_from_text(routing.router),
        overlay=convert.overlay_from_proto(routing),
        seed=routing.seed if routing.HasField("seed") else None,
        conversation_id=routing.conversation_id,
        assignment_key=routing.assignment_key,
    )


def asked_execution(
    asked: router_service_pb2.Execution, settings: ServerSettings, *, deadline_s: float | None
) -> Execution:
    """How a completion is to be carried out, with the server's defaults where the caller says nothing. The deadline is
    monotonic."""
    return Execution(
        attempt_count_max=(
            asked.max_attempt_count if asked.HasField("max_attempt_count") else settings.attempt_count_max
        ),
        ttft_timeout_s=(
            convert.seconds(asked.ttft_timeout) if asked.HasField("ttft_timeout") else settings.ttft_timeout_s
        ),
        deadline_s=deadline_s,
        restart_after_break=asked.break_policy == router_service_pb2.BREAK_POLICY_RESTART,
        allow_hedging=asked.allow_hedging,
    )


def _reported_outcome(outcome: routing_pb2.Outcome) -> ReportedOutcome:
    return ReportedOutcome(
        decision_id=outcome.decision_id,
        endpoint_name=outcome.endpoint or None,
        ttft_s=convert.seconds(outcome.ttft) if outcome.HasField("ttft") else None,
        duration_s=convert.seconds(outcome.duration) if outcome.HasField("duration") else None,
        input_token_count=outcome.input_token_count if outcome.HasField("input_token_count") else None,
        output_token_count=outcome.output_token_count if outcome.HasField("output_token_count") else None,
        failure=convert.FAILURE_KIND_FROM_PROTO.get(outcome.failure),
        quality=outcome.quality if outcome.HasField("quality") else None,
        quality_source=outcome.quality_source,
    )


def _page(names: Sequence[str], page_size: int, page_token: str) -> tuple[Sequence[str], str]:
    """One page of names in order; a token is the last name of the page before, so a page never shifts under a reload."""
    rest = [name for name in names if name > page_token]
    size = page_size or PAGE_SIZE_DEFAULT
    page = rest[:size]
    return page, page[-1] if len(rest) > size else ""


def _visible(runtime: EndpointRuntime) -> tuple[object, ...]:
    """What makes a state worth sending again: ages and decaying averages move by themselves."""
    return (runtime.observation_count, runtime.in_flight_count, runtime.breaker, runtime.left_alone_s is None)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event, but no longer."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
