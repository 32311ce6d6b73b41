"""A real Envoy, with the configuration that ships, in front of a whole server."""

from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from e2e.harness import Running, config_of, endpoints, running, streaming, urls_of
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from pointsman_server.providers.scripted import Script, ScriptedUpstream
from toolchains import tool

from conformance import envoy
from conformance.clients import ENVOY

ROOT = Path(__file__).parents[2]
SERVICE = "/pointsman.v1.RouterService"
IN_ORDER = "a@first->a@second"
PATIENCE_S = 60.0
"""For what must happen at once; reached by a fault alone."""


@asynccontextmanager
async def proxied(folder: Path, *, port: int) -> AsyncIterator[str]:
    """Runs Envoy in front of the server at `port`; gives its address as a URL."""
    tool(ENVOY)
    async with envoy.proxied(folder, port=port) as own_port:
        yield f"http://127.0.0.1:{own_port}"


@dataclass(frozen=True, slots=True)
class Proxied:
    """A server behind Envoy."""

    url: str
    server: Running
    upstreams: list[ScriptedUpstream]
    client: httpx.AsyncClient
    """A plain HTTP client of Envoy."""


@asynccontextmanager
async def behind_envoy(folder: Path, *scripts: Script, server: str = "") -> AsyncIterator[Proxied]:
    """A server with one model at two providers, of which each plays one script, behind Envoy; `server` are further lines of
    its [server] table."""
    filled = [*scripts, *([streaming("never")] * (2 - len(scripts)))]
    async with ScriptedUpstream(filled[0]) as first, ScriptedUpstream(filled[1]) as second:
        text = endpoints({"first": ["a"], "second": ["a"]}, urls_of(first=first, second=second))
        async with (
            running(config_of(text, {"KEYS": "sk-one"}, server=server)) as started,
            proxied(folder, port=started.application.port) as url,
            httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client,
        ):
            yield Proxied(url, started, [first, second], client)


# gRPC-Web by hand: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md

WEB_HEADERS = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
TRAILERS = 0x80


def framed(message: Message) -> bytes:
    """A message with its five bytes of head."""
    serialised = message.SerializeToString()
    return struct.pack(">BI", 0, len(serialised)) + serialised


def frames(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The flags and the content of each frame."""
    while body:
        flags, length = struct.unpack(">BI", body[:5])
        yield flags, body[5 : 5 + length]
        body = body[5 + length :]


def messages(body: bytes) -> list[bytes]:
    """The serialised messages of a response."""
    return [content for flags, content in frames(body) if not flags & TRAILERS]


def trailers(body: bytes) -> dict[str, str]:
    """The trailers, which gRPC-Web sends as the last frame."""
    *_, (flags, content) = frames(body)
    assert flags == TRAILERS
    return dict(line.split(":", 1) for line in content.decode().split("\r\n") if line)


def status_of(told: dict[str, str]) -> Status:
    """The status with its details, as a trailer or a header has it."""
    coded = told["grpc-status-details-bin"].strip()
    return Status.FromString(b64decode(coded + "=" * (-len(coded) % 4)))
