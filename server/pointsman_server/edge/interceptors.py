"""What every call of the service passes through: key, admission, decoding, trace, errors.

One interceptor rather than a stack, because their order is the point: a call without a key costs nothing, a refused
call is still traced, and whatever happens inside ends in exactly one status with its details. It wraps the handlers once,
when they are registered: grpc.aio's own interceptors would wrap them anew for every call, at a tenth of the cost of Route.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import traceback
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError
from pointsman.v1.router_service_pb2_grpc import RouterServiceServicer, add_RouterServiceServicer_to_server

from pointsman_server.edge.errors import Failure, failure_of, internal_failure
from pointsman_server.errors import (
    MessageTooLargeError,
    OverloadedError,
    PointsmanError,
    UnauthenticatedError,
    UndecodableMessageError,
)
from pointsman_server.providers.base import Secret
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.spans import RequestSpan, Tracing

logger = logging.getLogger(__name__)

OVERLOAD_RETRY_S = 0.5
"""A request that found no room may find some after the time in which a short completion ends."""
DEADLINE_SLACK_S_MAX = 0.3
DEADLINE_SLACK_SHARE = 0.2
"""A call that its caller ends with so little left of its deadline is taken to have ended by that: a round trip around the
globe, and no more than the last fifth."""
BEARER = "bearer "

Metadata = Sequence[tuple[str, str]]

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic for the type checker alone


class AioHandler(Protocol):
    """A method's handler as grpc.aio has it; the published types describe the blocking one."""

    request_streaming: bool
    response_streaming: bool
    request_deserializer: Callable[[bytes], Any]
    response_serializer: Callable[[Any], bytes]
    unary_unary: Callable[[Any, Context], Awaitable[Any]]
    unary_stream: Callable[[Any, Context], Awaitable[None]]
    """A coroutine that writes, not a generator."""
    stream_unary: Callable[[AsyncIterator[Any], Context], Awaitable[Any]]


_current_span: ContextVar[RequestSpan] = ContextVar("current_span")


def current_span() -> RequestSpan:
    """The span of the call that this task serves. Each call has a task and a context of its own."""
    return _current_span.get()


class Keyring:
    """The API keys that a door admits callers by; without any it admits everyone."""

    def __init__(self, api_keys: Sequence[Secret]) -> None:
        self._api_keys = tuple(key.reveal().encode() for key in api_keys)

    def check(self, metadata: Metadata) -> None:
        """Sees whether the caller has shown one of the keys.

        Raises:
            UnauthenticatedError: it has not.
        """
        if self._api_keys and not self._has_key(metadata):
            raise UnauthenticatedError

    def _has_key(self, metadata: Metadata) -> bool:
        sent = next((value for key, value in metadata if key == "authorization"), "")
        if not sent.lower().startswith(BEARER):
            return False
        # A header of HTTP/1.1 may hold bytes that are no text; gRPC's metadata are ASCII.
        key = sent[len(BEARER) :].encode("utf-8", "surrogateescape")
        # Every key is compared, in constant time, so that the time taken tells nothing.
        matches = [hmac.compare_digest(key, known) for known in self._api_keys]
        return True in matches


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call ended: with a result, or with what failed and the status that tells of it."""

    result: Any = None
    failure: Failure | None = None
    error: PointsmanError | None = None
    """None for a bug too, of which nothing is told."""


class _Recorder:
    """Stands for a server when a servicer is registered, to learn its handlers."""

    def __init__(self) -> None:
        self.service_name = ""
        self.handlers: Mapping[str, Handler] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The same handlers behind a lookup; the other method gives them plainly."""

    def add_registered_method_handlers(self, service_name: str, handlers: Mapping[str, Handler]) -> None:
        """The handlers by method."""
        self.service_name, self.handlers = service_name, handlers


class Guard:
    """Guards the methods of RouterService, through whichever door they are called; other services (health, reflection)
    need none of it."""

    def __init__(
        self,
        *,
        tracing: Tracing,
        metrics: Metrics,
        clock_s: Callable[[], float],
        api_keys: Sequence[Secret],
        request_count_max: int,
        message_bytes_max: int,
    ) -> None:
        self._tracing = tracing
        self._metrics = metrics
        self._clock_s = clock_s
        self.keyring = Keyring(api_keys)
        self._request_count_max = request_count_max
        self._message_bytes_max = message_bytes_max
        self.in_flight_count = 0
        """Calls of the service under way."""
        self.idle = asyncio.Event()
        """Set while there are none."""
        self.idle.set()

    def register(self, servicer: RouterServiceServicer, server: grpc.aio.Server) -> None:
        """Adds the servicer's methods to the server, guarded."""
        recorder = _Recorder()
        # The generated function asks no more of a server than what the recorder has.
        add_RouterServiceServicer_to_server(servicer, cast("grpc.aio.Server", recorder))
        guarded = {
            name: self._guarded(cast("AioHandler", handler), f"{recorder.service_name}/{name}")
            for name, handler in recorder.handlers.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(recorder.service_name, guarded),))

    def _guarded(self, handler: AioHandler, method: str) -> Handler:
        """The same handler, fed with bytes: what can't be decoded must end in a status of ours."""
        decode = self._decoder(handler.request_deserializer, method)

        async def unary_unary(received: bytes, context: Context) -> Any:
            ended = await self._run(method, context, lambda: handler.unary_unary(decode(received), context))
            return await _result_of(ended, context)

        async def unary_stream(received: bytes, context: Context) -> None:
            ended = await self._run(method, context, lambda: handler.unary_stream(decode(received), context))
            if (failure := ended.failure) is not None:
                # A stream may end in a status without an exception, which would take a twentieth of a refusal's time.
                context.set_code(failure.code)
                context.set_details(failure.message)
                context.set_trailing_metadata(failure.trailing_metadata())

        async def stream_unary(received: AsyncIterator[bytes], context: Context) -> Any:
            decoded = (decode(message) async for message in received)
            ended = await self._run(method, context, lambda: handler.stream_unary(decoded, context))
            return await _result_of(ended, context)

        serializer = handler.response_serializer
        if handler.request_streaming:
            assert not handler.response_streaming, "the service has no bidirectional method"
            return grpc.stream_unary_rpc_method_handler(stream_unary, None, serializer)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(unary_stream, None, serializer)
        return grpc.unary_unary_rpc_method_handler(unary_unary, None, serializer)

    def _decoder(self, deserialize: Callable[[bytes], Any], method: str) -> Callable[[bytes], Any]:
        message_name = f"{method.rpartition('/')[2]}Request"

        def decode(received: bytes) -> Any:
            if len(received) > self._message_bytes_max:
                raise MessageTooLargeError(actual_bytes=len(received), limit_bytes=self._message_bytes_max)
            try:
                return deserialize(received)
            except DecodeError:
                raise UndecodableMessageError(message_name) from None

        return decode

    async def _run(self, method: str, context: Context, call: Callable[[], Awaitable[Any]]) -> Ended:
        """Runs a call of gRPC's."""
        allowed_s = remaining_s(context)

        def is_late() -> bool:
            return _deadline_passed(context, allowed_s)

        return await self.run(method, _text_metadata(context), call, is_late=is_late)

    async def run(
        self,
        method: str,
        metadata: Metadata,
        call: Callable[[], Awaitable[Any]],
        *,
        keyring: Keyring | None = None,
        door: str = "",
        is_late: Callable[[], bool] = lambda: False,
    ) -> Ended:
        """Runs a call to its end, whatever that is.

        Args:
            method: package.Service/Method.
            metadata: What came with the call: the key, the trace to join. Keys are in lower case.
            call: What to do.
            keyring: Who is admitted; None: by the keys of the server.
            door: Through which door but gRPC's the call came.
            is_late: Whether the caller's deadline has passed.
        """
        started_s = self._clock_s()
        span = self._tracing.request(method, metadata, door=door)
        _current_span.set(span)
        ended: Ended | None = None
        error_id: str | None = None
        self.in_flight_count += 1
        self.idle.clear()
        try:
            (keyring or self.keyring).check(metadata)
            self._admit()
            ended = Ended(await call())
        except PointsmanError as error:
            failure = failure_of(error)
            if failure is None:
                error_id = _log_bug(method, error)
                ended = Ended(failure=internal_failure(error_id))
            else:
                # Its frames hold what it ends in: without them there is no cycle.
                ended = Ended(failure=failure, error=error.with_traceback(None))
        except Exception as error:  # noqa: BLE001 - the one place where a bug ends: with an id, and nothing of its text
            error_id = _log_bug(method, error)
            ended = Ended(failure=internal_failure(error_id))
        finally:
            self.in_flight_count -= 1
            if self.in_flight_count == 0:
                self.idle.set()
            status, reason = _told(ended, is_late=is_late)
            span.end(status=status.name, reason=reason, error_id=error_id)
            duration_s = self._clock_s() - started_s
            self._metrics.served(method, status=status.name, duration_s=duration_s, example=span.recorded)
        return ended

    def _admit(self) -> None:
        """Raises OverloadedError where there is no room for the call."""
        if self.in_flight_count > self._request_count_max:
            raise OverloadedError(limit=self._request_count_max, retry_after_s=OVERLOAD_RETRY_S)


async def _result_of(ended: Ended, context: Context) -> Any:
    """The one message of a call that succeeded. One that failed has none but its status."""
    if (failure := ended.failure) is not None:
        try:
            await context.abort(failure.code, failure.message, failure.trailing_metadata())
        except grpc.aio.AbortError as told:
            # All is told. The context keeps the error, whose frames keep the context, and hundreds of refusals a second
            # would stop the server twice a second for the garbage collector to find such cycles.
            told.with_traceback(None)
    return ended.result


def _told(ended: Ended | None, *, is_late: Callable[[], bool]) -> tuple[grpc.StatusCode, str | None]:
    """Status and reason of a call's end. One that ended in neither a result nor a failure was cancelled: by the caller,
    or by its deadline."""
    if ended is None:
        return grpc.StatusCode.DEADLINE_EXCEEDED if is_late() else grpc.StatusCode.CANCELLED, None
    if ended.failure is None:
        return grpc.StatusCode.OK, None
    return ended.failure.code, ended.failure.reason


def _text_metadata(context: Context) -> Metadata:
    return [(key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)]


def remaining_s(context: Context) -> float | None:
    """What is left of the call's deadline; None without one, which the published types leave out."""
    return context.time_remaining()


def _deadline_passed(context: Context, allowed_s: float | None) -> bool:
    """Whether it was the deadline that ended a call for which so much time was allowed when it arrived.

    A caller counts from when it asked, we from when that arrived: where it gives up at its deadline, ours is still to come.
    """
    left_s = remaining_s(context)
    if left_s is None or allowed_s is None:
        return False
    return left_s <= min(DEADLINE_SLACK_S_MAX, DEADLINE_SLACK_SHARE * allowed_s)


def _log_bug(method: str, error: Exception) -> str:
    """Logs where a bug happened, under an id that the caller is given. Its message stays out: it may quote a prompt."""
    error_id = uuid.uuid4().hex[:16]
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("error_id=%s method=%s type=%s\n%s", error_id, method, type(error).__name__, frames)
    return error_id
