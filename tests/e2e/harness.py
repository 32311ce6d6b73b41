"""A whole server in the test's own loop, over real gRPC and HTTP on loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from pointsman import AsyncClient
from pointsman.v1.router_service_pb2_grpc import RouterServiceStub
from pointsman_server.app import Application
from pointsman_server.config import Config, parse_config
from pointsman_server.providers.scripted import (
    LAST_CHUNK,
    ReadRequest,
    Script,
    ScriptedUpstream,
    Send,
    event,
    stream_head,
    whole_answer,
)
from pointsman_server.telemetry.setup import Telemetry
from watched import watched_telemetry

if TYPE_CHECKING:
    # A flavour of the stub that exists for type checkers alone.
    from pointsman.v1.router_service_pb2_grpc import RouterServiceAsyncStub


@dataclass(frozen=True, slots=True)
class Running:
    """A running server, and ways to talk to it."""

    application: Application
    client: AsyncClient
    stub: RouterServiceAsyncStub
    channel: grpc.aio.Channel

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.application.port}"


def config_of(text: str, environment: Mapping[str, str] | None = None, *, server: str = "") -> Config:
    """A configuration that listens on any free port; `server` are further lines of its [server] table."""
    source = f'[server]\nlisten = "127.0.0.1:0"\nshutdown_grace_s = 5\n{server}\n{text}'
    return parse_config(source, source="the test's configuration", directory=Path(), environment=environment or {})


@asynccontextmanager
async def running(config: Config, *, api_key: str | None = None) -> AsyncIterator[Running]:
    """Serves `config` until the block ends."""
    with watched_telemetry() as telemetry:
        async with running_with(telemetry, config, api_key=api_key) as server:
            yield server


@asynccontextmanager
async def running_with(telemetry: Telemetry, config: Config, *, api_key: str | None = None) -> AsyncIterator[Running]:
    """The same, telling that telemetry."""
    async with Application(config, telemetry=telemetry) as application:
        address = f"127.0.0.1:{application.port}"
        async with (
            AsyncClient(address, api_key=api_key, timeout_s=30.0) as client,
            grpc.aio.insecure_channel(address) as channel,
        ):
            yield Running(application, client, RouterServiceStub(channel), channel)


def endpoints(models_by_provider: Mapping[str, Sequence[str]], urls: Mapping[str, str], *, extra: str = "") -> str:
    """TOML of providers at `urls` with one endpoint per model; `extra` are further lines of every endpoint."""
    lines = []
    for provider, models in models_by_provider.items():
        lines += [f"[providers.{provider}]", 'adapter = "openai_compatible"', f'base_url = "{urls[provider]}"']
        for model in models:
            lines += ["[[endpoints]]", f'model = "{model}"', f'provider = "{provider}"']
            lines += ["input_price_usd_per_mtok = 1.0", "output_price_usd_per_mtok = 2.0", extra]
    return "\n".join(lines)


def delta_event(content: str) -> bytes:
    """A chunk of an OpenAI stream that carries text."""
    return event(json.dumps({"choices": [{"index": 0, "delta": {"content": content}}]}))


FINISH_EVENT = event(json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
USAGE_EVENT = event(
    json.dumps(
        {
            "choices": [],
            "usage": {
                "prompt_tokens": 11,
                "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 4},
            },
        }
    )
)
DONE_EVENT = event("[DONE]")
END = FINISH_EVENT + USAGE_EVENT + DONE_EVENT + LAST_CHUNK


def streaming(*texts: str) -> Script:
    """A script that answers one request with these deltas, in a stream that ends well."""
    return (ReadRequest(), Send(stream_head()), *(Send(delta_event(text)) for text in texts), Send(END))


def refusing(status: int, code: str = "", *headers: tuple[str, str]) -> Script:
    """A script that answers one request with an error."""
    body = json.dumps({"error": {"message": "a secret detail of the provider", "code": code}})
    return (ReadRequest(), Send(whole_answer(body, status=status, headers=headers)))


def urls_of(**upstreams: ScriptedUpstream) -> dict[str, str]:
    """The base URLs of upstreams by provider."""
    return {name: upstream.base_url for name, upstream in upstreams.items()}
