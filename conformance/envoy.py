"""A real Envoy, with the configuration that ships, in front of a server."""

from __future__ import annotations

import asyncio
import re
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from conformance.clients import ENVOY, REPOSITORY

FOLDER = REPOSITORY / "deploy" / "envoy"
START_PATIENCE_S = 60.0
"""Until it has opened its port on a busy machine; reached by a fault alone."""
LOOK_INTERVAL_S = 0.02


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What the blocks on TLS name, on either side."""

    certificate_file: Path
    """Of Envoy itself."""
    key_file: Path
    authority_file: Path
    """Signed the server's certificate."""
    server_name: str
    """For which that was made."""


def configured(*, port: int, tls: TlsFiles | None = None) -> str:
    """The shipped configuration with a free port, and Pointsman at `port` of this machine; with `tls` its blocks on TLS are
    no longer comments."""
    text = (FOLDER / "envoy.yaml").read_text(encoding="utf-8")
    changes = {
        "address: 127.0.0.1, port_value: 50061": f"address: 127.0.0.1, port_value: {port}",
        "address: 127.0.0.1, port_value: 8080": "address: 127.0.0.1, port_value: 0",
        "proto_descriptor: pointsman.binpb": f"proto_descriptor: {FOLDER / 'pointsman.binpb'}",
    }
    if tls is not None:
        text = _with_tls(text)
        changes |= {
            "filename: tls.crt": f"filename: {tls.certificate_file}",
            "filename: tls.key": f"filename: {tls.key_file}",
            "filename: ca.crt": f"filename: {tls.authority_file}",
            "sni: pointsman": f"sni: {tls.server_name}",
        }
    for shipped, ours in changes.items():
        assert text.count(shipped) == 1, shipped
        text = text.replace(shipped, ours)
    return text + "admin: { address: { socket_address: { address: 127.0.0.1, port_value: 0 } } }\n"


def _with_tls(text: str) -> str:
    """The configuration with its comments on TLS taken for what they say."""
    lines, within = [], False
    for line in text.splitlines():
        begins = bool(re.match(r" *# TLS ", line))
        lines.append(re.sub(r"^( *)# ", r"\1", line) if within and not begins else line)
        within = begins or (within and line.lstrip().startswith("#"))
    return "\n".join(lines) + "\n"


@asynccontextmanager
async def proxied(folder: Path, *, port: int, tls: TlsFiles | None = None) -> AsyncIterator[int]:
    """Runs Envoy in front of the server at `port`; gives the port that it has itself. `folder` is for its files."""
    config, admin = folder / "envoy.yaml", folder / "admin"
    config.write_text(configured(port=port, tls=tls), encoding="utf-8")
    admin.unlink(missing_ok=True)
    command = (ENVOY, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
    process = await asyncio.create_subprocess_exec(
        *command, "--admin-address-path", str(admin), stdout=DEVNULL, stderr=PIPE
    )
    try:
        async with asyncio.timeout(START_PATIENCE_S):
            own_port = await _listening(admin, process)
        yield own_port
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _listening(admin: Path, process: asyncio.subprocess.Process) -> int:
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
                return int(match[1])
            await asyncio.sleep(LOOK_INTERVAL_S)


def _written(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
