"""What docs/openai.md shows works as it stands, and says what the code does."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from pointsman_server.app import Application
from pointsman_server.config.settings import OpenAiDoorSettings
from pointsman_server.openai_door.refusal import HTTP_STATUSES
from pointsman_server.providers.simulated import SimulatedProviders
from pointsman_server.providers.weather import demo_weather
from pointsman_server.simulation import simulated_config
from toolchains import node_modules, tool

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/openai.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = "127.0.0.1:50062"
PATIENCE_S = 120.0
"""Ends a test that hangs; no test waits for it."""


def block(name: str, text: str = PAGE) -> str:
    """The code block that follows the comment with that name."""
    match = re.search(rf"<!-- test: {name} -->\n```[a-z]+\n(.*?)```", text, re.DOTALL)
    assert match is not None, name
    return match[1]


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """The door of a server as the page starts it, but on a free port and ten times as fast."""
    simulated = SimulatedProviders(demo_weather(), seed=1, clock_s=time.monotonic, sleep=asyncio.sleep, time_scale=10.0)
    async with simulated:
        config = simulated_config(f"http://127.0.0.1:{simulated.port}", {})
        config = replace(
            config,
            server=replace(config.server, listen="127.0.0.1:0"),
            openai_door=OpenAiDoorSettings(listen="127.0.0.1:0"),
        )
        async with Application(config) as application:
            yield f"127.0.0.1:{application.openai_port}"


async def output_of(*command: str, folder: Path | None = None) -> str:
    """What a command prints; it must end with 0."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=PIPE, stderr=PIPE, env=environment)
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_the_examples_for_curl_run(address: str) -> None:
    """The page's line prints a completion, README's the headers too."""
    tool("curl")
    answer = json.loads(await output_of("sh", "-c", block("curl").replace(ADDRESS, address)))
    assert answer["choices"][0]["message"]["content"].startswith("[simulated]")
    printed = await output_of("sh", "-c", block("openai curl", README).replace(ADDRESS, address))
    assert "x-pointsman-decision-id: " in printed
    assert "x-pointsman-expected-cost-usd: 0." in printed


async def test_the_examples_in_python_run(address: str) -> None:
    """Whole with the decision, streamed, and with constraints."""
    first, second = (await output_of(sys.executable, "-c", block("python").replace(ADDRESS, address))).split("\n")[:2]
    assert first.startswith("[simulated]")
    assert re.match(r"\S+ of \['\S+@sim-\w+'", second)
    printed = await output_of(sys.executable, "-c", block("constraints").replace(ADDRESS, address))
    assert re.fullmatch(r"\S+@sim-(east|west|south) 0\.\d+\n", printed)
    assert "[simulated]" in await output_of(sys.executable, "-c", block("openai", README).replace(ADDRESS, address))


async def test_the_example_in_node_runs(address: str, tmp_path: Path) -> None:
    """The stream is printed as it comes."""
    node = tool("node")
    (tmp_path / "node_modules").symlink_to(node_modules(ROOT / "tests/openai_door/node"))
    (tmp_path / "example.mjs").write_text(block("node").replace(ADDRESS, address), encoding="utf-8")
    assert (await output_of(node, "example.mjs", folder=tmp_path)).startswith("[simulated]")


def test_the_page_has_each_status_once_for_its_code() -> None:
    """The table of errors pairs HTTP and gRPC as the code does; 404 and 413 are told apart by more than the code."""
    shown = re.findall(r"^\| (\d{3}) \|.*\| ([A-Z_]+) \|$", PAGE, re.MULTILINE)
    assert {(int(status), code) for status, code in shown} - {
        (404, "INVALID_ARGUMENT"),
        (413, "RESOURCE_EXHAUSTED"),
    } == {(status, code.name) for code, status in HTTP_STATUSES.items() if code.name != "NOT_FOUND"}
