"""What is compared: Pointsman as `pointsman serve` runs it, and LiteLLM's proxy, in front of the same providers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import uvloop
from pointsman_server.app import Application, settle_memory
from pointsman_server.config.load import parse_config
from pointsman_server.providers.simulated import SimulatedProviders

from benchmarks.drift_live.weather import MODEL, TTFT_S, Timeline, weather
from benchmarks.harness.children import until_closed

SEED = 1
START_TIMEOUT_S = 120.0
"""LiteLLM's proxy imports for 10 to 60 s, depending on the machine."""
END_TIMEOUT_S = 10.0
LITELLM_KEY = "sk-0123456789abcdef0123456789abcdef"
"""It does not start without one; it guards nothing here."""
LOG_CHARACTERS = 2000
"""Of the log's end that is shown where it does not come up."""
REQUEST_TIMEOUT_S = 20.0
"""Of every call, for both: after that a user has left."""


def pointsman_config(origin: str) -> str:
    """Pointsman's configuration, in TOML: defaults but for what is wanted, which is a fast answer, and probes, which are paid
    for by 1 % of the tokens and need a price."""
    lines = ['[server]\nlisten = "127.0.0.1:0"\n\n[routers.default]\npolicy = "router@t:1|e:0.2"\n']
    for provider in TTFT_S:
        lines.append(f'[providers.{provider}]\nadapter = "openai_compatible"\nbase_url = "{origin}/{provider}/v1"\n')
        lines.append(f"[providers.{provider}.probes]\nafter_s = 10\n")
        lines.append(f'[[endpoints]]\nmodel = "{MODEL}"\nprovider = "{provider}"\n')
        lines.append("input_price_usd_per_mtok = 1.0\noutput_price_usd_per_mtok = 1.0\n")
    return "\n".join(lines)


def litellm_config(origin: str) -> dict[str, object]:
    """LiteLLM's, as its documentation shows latency-based routing, with the same timeout as the callers'."""
    return {
        "model_list": [
            {
                "model_name": MODEL,
                "litellm_params": {
                    "model": f"openai/{MODEL}",
                    "api_base": f"{origin}/{provider}/v1",
                    "api_key": "none",
                },
                "model_info": {"id": provider},
            }
            for provider in TTFT_S
        ],
        "router_settings": {
            "routing_strategy": "latency-based-routing",
            "num_retries": 2,
            "timeout": REQUEST_TIMEOUT_S,
        },
        "litellm_settings": {"request_timeout": REQUEST_TIMEOUT_S},
        "general_settings": {"master_key": LITELLM_KEY},
    }


def serve_providers(pipe: Connection, timeline: Timeline, port: int) -> None:
    """A child: the providers, whose clock starts when it says their port."""
    uvloop.run(_serve_providers(pipe, timeline, port))


async def _serve_providers(pipe: Connection, timeline: Timeline, port: int) -> None:
    async with SimulatedProviders(
        weather(timeline), seed=SEED, clock_s=time.monotonic, sleep=asyncio.sleep, port=port
    ) as simulated:
        pipe.send(simulated.port)
        await until_closed(pipe)


def serve_pointsman(pipe: Connection, origin: str) -> None:
    """A child: Pointsman, which tells its port."""
    uvloop.run(_serve_pointsman(pipe, origin))


async def _serve_pointsman(pipe: Connection, origin: str) -> None:
    config = parse_config(
        pointsman_config(origin), source="the benchmark's configuration", directory=Path(), environment=os.environ
    )
    async with Application(config) as application:
        settle_memory()
        pipe.send(application.port)
        await until_closed(pipe)


@contextmanager
def litellm(program: Path, *, origin: str, port: int, folder: Path) -> Iterator[str]:
    """LiteLLM's proxy, installed as `program`, from its start to its end; gives its URL.

    Raises:
        RuntimeError: it did not come up.
    """
    config, log = folder / "litellm.yaml", folder / "litellm.log"
    # JSON is YAML too.
    config.write_text(json.dumps(litellm_config(origin)), encoding="utf-8")
    command = [
        str(program),
        "--config",
        str(config),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--telemetry",
        "False",
    ]
    # Prices play no part here, and need not be fetched.
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _await_live(process, url, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_live(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until_s = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < until_s:
        try:
            if httpx.get(f"{url}/health/liveliness", timeout=2.0, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"LiteLLM's proxy did not come up:\n{log.read_text(encoding='utf-8')[-LOG_CHARACTERS:]}")
