"""The resources of the door: chat completions, whole and streamed, and the models that can be asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing

from aiohttp import web
from pointsman.v1.router_service_pb2 import BREAK_POLICY_RESTART

from pointsman_server.config.settings import OpenAiDoorSettings, ServerSettings
from pointsman_server.config.text_rules import LOOPBACK_ADDRESS
from pointsman_server.decision.resolve import DEFAULT_ROUTER_NAME
from pointsman_server.edge.interceptors import Guard, Keyring, Metadata, current_span
from pointsman_server.edge.service import SERVICE_NAME, asked_execution, routing_request
from pointsman_server.errand import Execution
from pointsman_server.errors import FieldViolation, InvalidRequestError, MessageTooLargeError
from pointsman_server.openai_door.answer import Answer, Chunks, JsonValue, Whole
from pointsman_server.openai_door.json_object import FaultCode, RefusedRequestError
from pointsman_server.openai_door.refusal import Refusal, plain_refusal, refusal_of
from pointsman_server.openai_door.request import EXTENSION, Asked, read_asked, renamed
from pointsman_server.router import CompletionEvent, Router
from pointsman_server.world import World

DOOR = "openai"
"""Of the attribute that tells calls through this door from others."""
COMPLETE_METHOD = f"{SERVICE_NAME}/Complete"
MODELS_METHOD = f"{SERVICE_NAME}/ListEndpoints"
"""What a call is in traces and metrics: the RPC that does the same."""
INCLUDE_DECISION_HEADER = "x-pointsman-include-decision"
BODY_TIMEOUT_S = 60.0
"""For the whole body. The largest takes a second over a line of 256 Mbit/s; a client that is slower than this is none."""
JSON_TYPE = "application/json"
SERVER_HEADERS = {"server": "pointsman"}
"""In place of aiohttp's own, which tells its version."""
STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would gather the stream otherwise
}
STREAM_END = b"data: [DONE]\n\n"


class Door:
    """OpenAI's resources over a `Router`. Whoever leaves has their call cancelled, as the listener is told to do."""

    def __init__(
        self,
        router: Router,
        guard: Guard,
        settings: OpenAiDoorSettings,
        server: ServerSettings,
        *,
        clock_s: Callable[[], float],
        unix_s: Callable[[], float],
    ) -> None:
        self._router = router
        self._guard = guard
        self._keyring = Keyring(settings.api_keys) if settings.api_keys else guard.keyring
        self._is_private = not (settings.api_keys or server.api_keys) and _is_loopback(settings.listen)
        """Only who is on this machine may come in, and needs no key."""
        self._settings = settings
        self._server = server
        self._clock_s = clock_s
        self._unix_s = unix_s

    def application(self) -> web.Application:
        """The resources by their paths."""
        application = web.Application(client_max_size=self._settings.body_bytes_max, middlewares=[_errors_as_json])
        application.router.add_post("/v1/chat/completions", self._complete)
        application.router.add_get("/v1/models", self._list_models)
        application.router.add_get("/v1/models/{id:.+}", self._show_model)
        return application

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        reply = _Reply(request)

        async def call() -> web.StreamResponse:
            self._check_headers(request)
            asked = read_asked(await self._body(request), include_decision=_wants_decision(request))
            answer = Answer(asked, int(self._unix_s()))
            try:
                events = self._router.complete(routing_request(asked.request), self._execution(asked), current_span())
                async with aclosing(events):
                    await (self._stream if asked.stream else self._whole)(events, answer, reply)
            except InvalidRequestError as error:
                # The request has been validated, so what is wrong with its router is a name that is not there.
                names = {violation.field for violation in error.violations}
                is_unknown = names == {"routing.router"}
                raise renamed(error, FaultCode.UNKNOWN_MODEL if is_unknown else FaultCode.INVALID_VALUE) from None
            return reply.response()

        return await self._guarded(COMPLETE_METHOD, request, call, reply)

    async def _whole(self, events: AsyncGenerator[CompletionEvent, None], answer: Answer, reply: _Reply) -> None:
        whole = Whole(answer)
        async for event in events:
            whole.take(event)
        body = whole.completion(decide_unix_s=self._unix_s())
        reply.take(_json_response(200, body, answer.headers()))

    async def _stream(self, events: AsyncGenerator[CompletionEvent, None], answer: Answer, reply: _Reply) -> None:
        """The head waits for the first chunk: what fails before it is an error with a status of its own."""
        chunks = Chunks(answer)
        async for event in events:
            for chunk in chunks.of(event, decide_unix_s=self._unix_s()):
                await reply.send(_event(chunk), answer.headers)
        await reply.send(STREAM_END, answer.headers)
        await reply.end()

    def _check_headers(self, request: web.Request) -> None:
        """Refuses what a page in a browser could send in passing, and so spend credit: without asking first, only other
        types of content; and from a host whose name it has made to mean this machine, only that host's name."""
        if request.content_type != JSON_TYPE:
            violation = FieldViolation("content-type", f"must be {JSON_TYPE}")
        elif self._is_private and not _is_loopback(request.host):
            violation = FieldViolation("host", "must be localhost or 127.0.0.1, as long as no key is asked for")
        else:
            return
        raise RefusedRequestError((violation,), FaultCode.INVALID_VALUE)

    def _execution(self, asked: Asked) -> Execution:
        execution = asked.request.execution
        deadline_s = None if asked.timeout_s is None else self._clock_s() + asked.timeout_s
        if not asked.stream:
            execution.break_policy = BREAK_POLICY_RESTART
        return asked_execution(execution, self._server, deadline_s=deadline_s)

    async def _body(self, request: web.Request) -> bytes:
        limit_bytes = self._settings.body_bytes_max
        if (request.content_length or 0) > limit_bytes:
            raise MessageTooLargeError(actual_bytes=request.content_length or 0, limit_bytes=limit_bytes)
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise MessageTooLargeError(actual_bytes=limit_bytes + 1, limit_bytes=limit_bytes) from None
        except TimeoutError:
            violation = FieldViolation("body", f"has not arrived within {BODY_TIMEOUT_S:g} s")
        except web.RequestPayloadError:
            violation = FieldViolation("body", "is not coded as its headers say")
        except ConnectionError:
            raise asyncio.CancelledError from None  # The client has left: aiohttp tells the handler by both ways.
        raise RefusedRequestError((violation,), FaultCode.INVALID_VALUE)

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        async def call() -> web.StreamResponse:
            return _json_response(200, {"object": "list", "data": list(_models(self._router.world))}, {})

        return await self._guarded(MODELS_METHOD, request, call, _Reply(request))

    async def _show_model(self, request: web.Request) -> web.StreamResponse:
        async def call() -> web.StreamResponse:
            wanted = request.match_info["id"]
            for model in _models(self._router.world):
                if model["id"] == wanted:
                    return _json_response(200, model, {})
            violation = FieldViolation("model", "is no router, model or endpoint of this server")
            raise RefusedRequestError((violation,), FaultCode.UNKNOWN_MODEL)

        return await self._guarded(MODELS_METHOD, request, call, _Reply(request))

    async def _guarded(
        self, method: str, request: web.Request, call: Callable[[], Awaitable[web.StreamResponse]], reply: _Reply
    ) -> web.StreamResponse:
        """A call with all that goes for calls by gRPC: key, admission, trace, metrics, errors."""
        ended = await self._guard.run(method, _metadata(request), call, keyring=self._keyring, door=DOOR)
        if ended.failure is not None:
            return await reply.refuse(refusal_of(ended))
        response: web.StreamResponse = ended.result
        return response


class _Reply:
    """What a request is answered with: nothing yet, a whole answer, or a stream that has begun."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None

    def response(self) -> web.StreamResponse:
        """The answer, once it has been given."""
        assert self._response is not None, "the call has ended well, so it was answered"
        return self._response

    def take(self, response: web.Response) -> None:
        """Answers as a whole."""
        self._response = response

    async def send(self, event: bytes, headers: Callable[[], Mapping[str, str]]) -> None:
        """Sends an event of a stream, after its head if it is the first. Waits while the client does not read."""
        try:
            if self._response is None:
                response = web.StreamResponse(headers={**SERVER_HEADERS, **STREAM_HEADERS, **headers()})
                await response.prepare(self._request)
                self._response = response
            await self._response.write(event)
        except ConnectionError:
            raise asyncio.CancelledError from None  # As the handler is about to be: the client has left.

    async def end(self) -> None:
        """Ends a stream."""
        try:
            await self.response().write_eof()
        except ConnectionError:
            raise asyncio.CancelledError from None

    async def refuse(self, refusal: Refusal) -> web.StreamResponse:
        """Answers with an error; a stream that has begun ends with it, and without the mark of a good end."""
        if self._response is None:
            return _json_response(refusal.http_status, refusal.body, refusal.headers)
        await self.send(_event(refusal.body), dict)
        await self.end()
        return self._response


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """What aiohttp itself refuses, such as an unknown path, in the shape of OpenAI's errors."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        message = (
            f"this server has no {request.method} {request.path}; it has POST /v1/chat/completions, GET /v1/models"
        )
        refusal = plain_refusal(error.status, "unknown_url", message)
        allowed = {"allow": error.headers["allow"]} if "allow" in error.headers else {}
        return _json_response(refusal.http_status, refusal.body, allowed)


def _models(world: World) -> Iterator[JsonValue]:
    """Whatever `model` may name: routers, models, endpoints; a router string is a fourth thing, and has no end of them."""
    for name, served in sorted(world.routers.items(), key=lambda item: (item[0] != DEFAULT_ROUTER_NAME, item[0])):
        yield _model(name, "pointsman", {"kind": "router", "description": served.router.description})
    for name in sorted(world.known_names.models):
        yield _model(name, "pointsman", {"kind": "model"})
    for name in world.catalog.by_name:
        yield _model(name, name.rpartition("@")[2], {"kind": "endpoint"})


def _model(name: str, owner: str, extension: JsonValue) -> JsonValue:
    """`created` is required, and not known of any model."""
    return {"id": name, "object": "model", "created": 0, "owned_by": owner, EXTENSION: extension}


def _metadata(request: web.Request) -> Metadata:
    """The headers as gRPC's metadata are: names in lower case."""
    return [(name.lower(), value) for name, value in request.headers.items()]


def _is_loopback(host: str) -> bool:
    return LOOPBACK_ADDRESS.fullmatch(host) is not None


def _wants_decision(request: web.Request) -> bool:
    return request.headers.get(INCLUDE_DECISION_HEADER, "").lower() in ("1", "true")


def _json_response(http_status: int, body: JsonValue, headers: Mapping[str, str]) -> web.Response:
    return web.Response(
        status=http_status, body=_dumped(body), content_type=JSON_TYPE, headers={**SERVER_HEADERS, **headers}
    )


def _event(body: JsonValue) -> bytes:
    return b"data: " + _dumped(body) + b"\n\n"


def _dumped(body: JsonValue) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
