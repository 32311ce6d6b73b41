"""What docs/browsers.md shows works as it stands."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from asyncio.subprocess import PIPE
from dataclasses import replace
from pathlib import Path

from pointsman_server.app import Application
from pointsman_server.providers.simulated import SimulatedProviders
from pointsman_server.providers.weather import demo_weather
from pointsman_server.simulation import simulated_config
from proxy.harness import PATIENCE_S, ROOT, proxied
from toolchains import tool

PAGE = (ROOT / "docs/browsers.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    """The code block that follows the comment with that name."""
    match = re.search(rf"<!-- test: {name} -->\n```[a-z]+\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None, name
    return match[1]


async def output_of(script: str) -> str:
    """What a shell script prints; it must end with 0."""
    environment = {"PATH": os.environ["PATH"]}
    process = await asyncio.create_subprocess_exec("sh", "-c", script, stdout=PIPE, stderr=PIPE, env=environment)
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_the_examples_for_curl_run(tmp_path: Path) -> None:
    """A decision, and a stream of lines with the events that the page shows."""
    tool("curl")
    simulated = SimulatedProviders(demo_weather(), seed=1, clock_s=time.monotonic, sleep=asyncio.sleep, time_scale=10.0)
    async with simulated:
        config = simulated_config(f"http://127.0.0.1:{simulated.port}", {})
        config = replace(config, server=replace(config.server, listen="127.0.0.1:0"))
        async with Application(config) as application, proxied(tmp_path, port=application.port) as url:
            decided = json.loads(await output_of(block("route").replace("http://127.0.0.1:8080", url)))
            streamed = await output_of(block("complete").replace("http://127.0.0.1:8080", url))
    assert decided["decision"]["router_text"] == "router@q:1|rc:5|c<=5"
    kinds = [next(iter(json.loads(line))) for line in streamed.splitlines()]
    assert (kinds[:3], kinds[-1]) == (["decision", "attempt_started", "delta"], "done")


def test_the_excerpt_is_one() -> None:
    """The lines of TypeScript that the page shows stand in the page's own code."""
    code = [line.strip() for line in (ROOT / "client/web/src/page.ts").read_text(encoding="utf-8").splitlines()]
    shown = [line.strip() for line in block("excerpt").splitlines()]
    assert "\n".join(shown) in "\n".join(code)
