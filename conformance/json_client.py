"""The runner on plain HTTP: `python -m conformance.json_client` sends JSON through Envoy, and reads lines of JSON.

There is no client here, so nothing is done by itself. It stands on h11, because httpx drops the trailers, and they tell
what became of a stream that had begun.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from base64 import b64decode
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from urllib.parse import unquote

import grpc
import h11
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from pointsman import PointsmanError
from pointsman.errors import CallStatus

from conformance.python_client import Job, Responses, answer, seen
from conformance.scenario import METHODS

READ_BYTES = 64 * 1024
CODES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class Exchange:
    """One request on a connection of its own, and its response as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.CLIENT)
        self.trailers: Mapping[str, str] = {}
        """Once the body has ended."""

    async def post(self, path: str, headers: Mapping[str, str], body: bytes) -> int:
        """Sends the request; gives the HTTP status."""
        head = h11.Request(method="POST", target=path, headers=[*headers.items(), ("content-length", str(len(body)))])
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self._writer.write(self._http.send(event) or b"")
        await self._writer.drain()
        response = await self._event()
        assert isinstance(response, h11.Response)
        return response.status_code

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """The lines of the body, each as soon as it is whole."""
        rest = b""
        while isinstance(event := await self._event(), h11.Data):
            *whole, rest = (rest + event.data).split(b"\n")
            for line in whole:
                yield line
        assert isinstance(event, h11.EndOfMessage)
        self.trailers = {name.decode(): value.decode() for name, value in event.headers}
        if rest:
            yield rest

    async def _event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(READ_BYTES))
        return event


@asynccontextmanager
async def connected(target: str, authority_file: str | None) -> AsyncIterator[Exchange]:
    """A connection, which is closed with the block."""
    host, _, port = target.partition(":")
    context = None if authority_file is None else ssl.create_default_context(cafile=authority_file)
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        yield Exchange(reader, writer)
    finally:
        writer.close()


async def responses(job: Job) -> Responses:
    """What the call gives, each message as its line comes.

    Raises:
        PointsmanError: it failed, by the HTTP status and its body or, once the stream had begun, by the trailers.
    """
    method = METHODS[job.method]
    target, authority_file, api_key = job.client
    headers = {"host": target, "content-type": "application/json"}
    headers |= {name: str(value) for name, value in (job.options["metadata"] or {}).items()}
    if api_key is not None:
        headers["authorization"] = f"Bearer {api_key}"
    if (timeout_s := job.options["timeout_s"]) is not None:
        headers["grpc-timeout"] = f"{timeout_s * 1e3:.0f}m"
    requests = [json_format.MessageToJson(request, indent=None) for request in job.requests]
    body = f"[{','.join(requests)}]" if method.client_streaming else requests[0]
    async with connected(target, authority_file) as exchange:
        path = f"/{method.containing_service.full_name}/{method.name}"
        http_status = await exchange.post(path, headers, body.encode())
        async with aclosing(exchange.lines()) as lines:
            if http_status != HTTPStatus.OK:
                failure = b"\n".join([line async for line in lines])
                raise error_of(json_format.Parse(failure, Status()))
            async for line in lines:
                yield json_format.Parse(line, GetMessageClass(method.output_type)())
        if (code := exchange.trailers.get("grpc-status", "0")) != "0":
            coded = exchange.trailers.get("grpc-status-details-bin", "")
            status = Status.FromString(b64decode(coded + "=" * (-len(coded) % 4)))
            status.code, status.message = int(code), unquote(exchange.trailers.get("grpc-message", ""))
            raise error_of(status)


def error_of(status: Status) -> PointsmanError:
    """The error with everything that the status tells."""
    told = CallStatus(CODES[status.code], status.message, details=tuple(status.details))
    info = told.detail(ErrorInfo) or ErrorInfo()
    return PointsmanError(CallStatus(told.code, told.message, info.reason, dict(info.metadata), told.details))


async def run() -> None:
    """Answers each line."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        job = Job.of(line)
        answer(await seen(responses(job), job.cancel_after))


if __name__ == "__main__":
    asyncio.run(run())
