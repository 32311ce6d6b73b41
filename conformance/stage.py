"""What a scenario plays on: the real server, and providers that do what the scenario says, all on loopback."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from pointsman_server.app import Application
from pointsman_server.config import Config, parse_config
from pointsman_server.providers.scripted import (
    LAST_CHUNK,
    Hang,
    ReadRequest,
    Reset,
    ScriptedUpstream,
    Send,
    Step,
    event,
    stream_head,
    whole_answer,
)
from pointsman_server.providers.simulated import SimulatedProviders
from pointsman_server.providers.weather import Duration, EndpointWeather, Outage, OutageKind, ProviderWeather

from conformance.envoy import TlsFiles, proxied
from conformance.scenario import JsonObject, JsonValue, Scenario
from conformance.standin import Standin

TLS_FOLDER = Path(__file__).with_name("tls")
AUTHORITY_FILE = TLS_FOLDER / "authority.pem"
"""Signed the server's certificate. Not itself that certificate: rustls takes no authority for a server."""
TLS_FILES = TlsFiles(
    certificate_file=TLS_FOLDER / "localhost.pem",
    key_file=TLS_FOLDER / "localhost.key",
    authority_file=AUTHORITY_FILE,
    server_name="localhost",
)
"""Envoy has the certificate of the server behind it: both are localhost."""
KEYS_VARIABLE = "CONFORMANCE_KEYS"
OUTAGE_S = 1e9
"""Longer than any test."""
ENDPOINT_DEFAULTS: JsonObject = {
    "input_price_usd_per_mtok": 1.0,
    "output_price_usd_per_mtok": 2.0,
    "capabilities": ["tools"],
}
"""Of each endpoint, as far as its scenario does not say otherwise."""
USAGE: JsonObject = {"prompt_tokens": 11, "completion_tokens": 3}


@dataclass(frozen=True, slots=True)
class Stage:
    """A running server, and the scripted providers behind it by name."""

    target: str
    """host:port. With TLS the host is localhost: not every language sends an address as the server's name."""
    authority_file: Path | None
    """What to trust. None: the server speaks plain HTTP/2."""
    upstreams: Mapping[str, ScriptedUpstream]
    standin: Standin | None


@asynccontextmanager
async def staged(scenario: Scenario, *, behind_envoy: bool = False) -> AsyncIterator[Stage]:
    """Sets the scene until the block ends. Behind Envoy what the client calls is that, with TLS if the server has it."""
    async with served(scenario) as stage:
        if not behind_envoy:
            yield stage
            return
        host, _, port = stage.target.partition(":")
        tls = None if stage.authority_file is None else TLS_FILES
        with TemporaryDirectory() as folder:
            async with proxied(Path(folder), port=int(port), tls=tls) as own_port:
                yield replace(stage, target=f"{host}:{own_port}")


@asynccontextmanager
async def served(scenario: Scenario) -> AsyncIterator[Stage]:
    """The server alone, and the providers behind it."""
    async with AsyncExitStack() as stack:
        if scenario.standin is not None:
            standin = await stack.enter_async_context(standin_of(scenario.standin))
            yield Stage(f"127.0.0.1:{standin.port}", None, {}, standin)
            return
        upstreams = {
            name: await stack.enter_async_context(ScriptedUpstream(script_of(steps)))
            for name, steps in scenario.upstreams.items()
        }
        urls = {name: upstream.base_url for name, upstream in upstreams.items()}
        if scenario.weather is not None:
            simulated = await stack.enter_async_context(_simulated(scenario.weather))
            urls |= {str(name): simulated.base_url(str(name)) for name in _providers(scenario.weather)}
        application = await stack.enter_async_context(Application(_config(scenario.server, urls)))
        if scenario.server.get("tls"):
            yield Stage(f"localhost:{application.port}", AUTHORITY_FILE, upstreams, None)
        else:
            yield Stage(f"127.0.0.1:{application.port}", None, upstreams, None)


def standin_of(value: JsonObject) -> Standin:
    """The stand-in that a scenario wants."""
    return Standin(
        unavailable_count=cast("int", value.get("unavailable_count", 0)),
        router_text=str(value.get("router_text", "")),
    )


def script_of(steps: JsonValue) -> tuple[Step, ...]:
    """What a provider does with a connection, after it has read the request."""
    script: list[Step] = [ReadRequest()]
    for step in cast("list[JsonObject]", steps):
        ((kind, value),) = step.items()
        script += _steps(kind, value)
    return tuple(script)


def _steps(kind: str, value: JsonValue) -> list[Step]:
    match kind:
        case "refuse":
            body = json.dumps({"error": {"message": "a secret detail of the provider", "code": "refused"}})
            return [Send(whole_answer(body, status=cast("int", value)))]
        case "begin":
            return [Send(stream_head())]
        case "text":
            return [Send(_chunk({"content": value}))]
        case "tool_call":
            return [Send(_chunk({"tool_calls": [value]}))]
        case "finish":
            return [Send(_chunk({}, finish_reason=str(value)))]
        case "end":
            usage = event(json.dumps({"choices": [], "usage": USAGE}))
            return [Send(usage + event("[DONE]") + LAST_CHUNK)]
        case "hang":
            return [Hang()]
        case "reset":
            return [Reset()]
    raise ValueError(f"there is no step {kind}")


def _chunk(delta: JsonObject, *, finish_reason: str | None = None) -> bytes:
    return event(json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}))


def _providers(weather: JsonObject) -> JsonObject:
    return cast("JsonObject", weather["providers"])


def _simulated(weather: JsonObject) -> SimulatedProviders:
    providers = tuple(_provider_weather(name, cast("JsonObject", value)) for name, value in _providers(weather).items())
    seed = cast("int", weather["seed"])
    return SimulatedProviders(providers, seed=seed, clock_s=time.monotonic, sleep=asyncio.sleep)


def _provider_weather(name: str, value: JsonObject) -> ProviderWeather:
    """One model `a`, which answers at once unless the provider is down."""
    at_once = Duration(median_s=0.0, sigma=0.0)
    endpoint = EndpointWeather(
        model="a",
        ttft_s=at_once,
        inter_token_latency_s=at_once,
        break_rate=cast("float", value.get("break_rate", 0.0)),
        output_token_count_mean=cast("float", value.get("output_token_count_mean", 20.0)),
    )
    outage = value.get("outage")
    outages = () if outage is None else (Outage(from_s=0.0, to_s=OUTAGE_S, kind=OutageKind(str(outage))),)
    return ProviderWeather(name=name, endpoints=(endpoint,), outages=outages)


def _config(server: JsonObject, urls: Mapping[str, str]) -> Config:
    """The server's configuration: unless the scenario names endpoints, each provider has the model `a`."""
    lines = ["[server]", 'listen = "127.0.0.1:0"']
    if "api_keys" in server:
        lines.append(f'api_keys_env = "{KEYS_VARIABLE}"')
    if server.get("tls"):
        lines += ["[server.tls]", 'certificate_file = "localhost.pem"', 'key_file = "localhost.key"']
    for name, url in urls.items():
        lines += [f"[providers.{name}]", 'adapter = "openai_compatible"', f'base_url = "{url}"']
    named = cast("dict[str, JsonObject]", server.get("endpoints") or {f"a@{name}": {} for name in urls})
    for endpoint, settings in named.items():
        model, _, provider = endpoint.partition("@")
        values = {"model": model, "provider": provider, **ENDPOINT_DEFAULTS, **settings}
        # Texts, numbers and lists of texts are written alike in JSON and in TOML.
        lines += ["[[endpoints]]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    environment = {KEYS_VARIABLE: str(server.get("api_keys", ""))}
    return parse_config("\n".join(lines), source="the scenario", directory=TLS_FOLDER, environment=environment)
