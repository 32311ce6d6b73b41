"""What the README shows works as it stands, against the server that it tells to start."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from pointsman_server.app import Application
from pointsman_server.config import parse_config
from pointsman_server.providers.simulated import SimulatedProviders
from pointsman_server.providers.weather import demo_weather
from pointsman_server.simulation import simulated_config

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
ADDRESS = "127.0.0.1:50061"
PATIENCE_S = 60.0
"""Ends a test that hangs; no test waits for it."""


def block(name: str) -> str:
    """The code block that follows the comment with that name."""
    match = re.search(rf"<!-- test: {name} -->\n```[a-z]+\n(.*?)```", README, re.DOTALL)
    assert match is not None, name
    return match[1]


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """A server as `pointsman serve --simulate` runs it, but on a free port and ten times as fast."""
    simulated = SimulatedProviders(demo_weather(), seed=1, clock_s=time.monotonic, sleep=asyncio.sleep, time_scale=10.0)
    async with simulated:
        config = simulated_config(f"http://127.0.0.1:{simulated.port}", {})
        config = replace(config, server=replace(config.server, listen="127.0.0.1:0"))
        async with Application(config) as application:
            yield f"127.0.0.1:{application.port}"


async def output_of(*command: str) -> str:
    """What a command prints; it must end with 0."""
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/")}
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT, env=environment)
    output, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_the_blocking_example_runs(address: str) -> None:
    """A decision, an answer under constraints, and a reported outcome."""
    printed = await output_of(sys.executable, "-c", block("client").replace(ADDRESS, address))
    assert "[simulated]" in printed
    assert re.search(r"@sim-(east|west|south) \d", printed.splitlines()[-1])


async def test_the_asynchronous_example_runs(address: str) -> None:
    """The events of a stream, matched one by one."""
    printed = await output_of(sys.executable, "-c", block("async client").replace(ADDRESS, address))
    assert printed.startswith("-> ")
    assert "[simulated]" in printed


async def test_the_example_without_a_client_runs(address: str) -> None:
    """`buf curl` finds the service by reflection and gets a decision."""
    printed = await output_of("sh", "-c", block("buf curl").replace(ADDRESS, address))
    decision = json.loads(printed)["decision"]
    assert len(decision["candidates"]) == 11
    assert decision["routerText"] == "router@q:1|rc:5|c<=5"


def test_the_configuration_is_valid() -> None:
    """The example is read as it stands, with nothing but a key in the environment."""
    config = parse_config(
        block("configuration"), source="README", directory=Path(), environment={"OPENAI_API_KEY": "k"}
    )
    assert "llama-3.3-70b-instruct@in-house" in config.catalog.by_name
    assert "private" in config.routers
