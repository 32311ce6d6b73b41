"""A page in a real browser, with a client generated from the protocol, through a real Envoy."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import pytest
from e2e.harness import delta_event, streaming
from pointsman_server.app import Application
from pointsman_server.providers.scripted import Hang, ReadRequest, Reset, Script, Send, WaitFor, stream_head
from pointsman_server.providers.simulated import SimulatedProviders
from pointsman_server.providers.weather import demo_weather
from pointsman_server.simulation import simulated_config
from proxy.harness import IN_ORDER, PATIENCE_S, ROOT, behind_envoy, proxied
from toolchains import node_modules, tool

from conformance.browser import hosted, opened_page
from conformance.clients import CHROMIUM

FOLDER = ROOT / "client" / "web"
SCREENSHOT_VARIABLE = "POINTSMAN_SCREENSHOT"
"""Names a file for a picture of the page; docs/browser.png was made so."""


@pytest.fixture(scope="module")
def page() -> Path:
    """The page, generated, checked and built as `make web` does it."""
    tool("node")
    tool(CHROMIUM)
    node_modules(FOLDER)
    spec = importlib.util.spec_from_file_location("generate_web_client", ROOT / "tools/generate_web_client.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    generator.generate(FOLDER / "src" / "gen")
    for script in ("check", "build"):
        done = subprocess.run(
            (tool("npm"), "run", "--silent", script), cwd=FOLDER, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return FOLDER / "dist"


async def test_a_page_streams_tokens(page: Path, tmp_path: Path) -> None:
    """The first token stands on the page while the second is not there yet; then the answer, the decision and its end."""
    gate = asyncio.Event()
    script = (ReadRequest(), Send(stream_head()), Send(delta_event("be")), WaitFor(gate), *streaming("fore")[2:])
    async with behind_envoy(tmp_path, script) as proxy, hosted(page) as origin:
        asked = urlencode({"server": proxy.url, "router": IN_ORDER, "prompt": "hi", "ask": "1"})
        async with opened_page(f"{origin}/index.html?{asked}", tmp_path) as tab:
            answer = "document.getElementById('answer')?.textContent"
            assert await tab.until(answer, patience_s=PATIENCE_S) == "be"
            assert await tab.value("document.body.dataset.state") == "streaming"
            gate.set()
            await tab.until("document.body.dataset.state == 'done'", patience_s=PATIENCE_S)
            assert await tab.value(answer) == "before"
            assert "a@first, by default" in await tab.value("document.getElementById('decision').textContent")
            assert "a@first: first token after" in await tab.value("document.getElementById('outcome').textContent")


@pytest.mark.parametrize(
    ("script", "router", "reason"),
    [
        (
            (ReadRequest(), Send(stream_head()), Send(delta_event("be")), Reset()),
            IN_ORDER,
            "ERROR_REASON_STREAM_BROKEN",
        ),
        (streaming("never"), "router@c<0.001", "ERROR_REASON_NO_ELIGIBLE_ENDPOINT"),
    ],
)
async def test_a_page_is_told_why_a_call_failed(
    page: Path, tmp_path: Path, script: Script, router: str, reason: str
) -> None:
    """The details of a status cross Envoy and CORS: before anything was sent, and after."""
    async with behind_envoy(tmp_path, script) as proxy, hosted(page) as origin:
        asked = urlencode({"server": proxy.url, "router": router, "ask": "1"})
        async with opened_page(f"{origin}/index.html?{asked}", tmp_path) as tab:
            await tab.until("document.body.dataset.state == 'failed'", patience_s=PATIENCE_S)
            assert (await tab.value("document.getElementById('outcome').textContent")).startswith(reason)


async def test_a_page_that_stops_closes_the_call_upstream(page: Path, tmp_path: Path) -> None:
    """The button aborts the stream, and the provider's connection closes."""
    script: Script = (ReadRequest(), Send(stream_head()), Send(delta_event("be")), Hang())
    async with behind_envoy(tmp_path, script) as proxy, hosted(page) as origin:
        asked = urlencode({"server": proxy.url, "router": IN_ORDER, "ask": "1"})
        async with opened_page(f"{origin}/index.html?{asked}", tmp_path) as tab:
            await tab.until("document.body.dataset.state == 'streaming'", patience_s=PATIENCE_S)
            await tab.value("document.getElementById('stop').click()")
            await tab.until("document.body.dataset.state == 'left'", patience_s=PATIENCE_S)
            await asyncio.wait_for(proxy.upstreams[0].connections[0].client_closed.wait(), PATIENCE_S)


async def test_the_page_at_work_on_simulated_providers(page: Path, tmp_path: Path) -> None:
    """A whole answer with its candidates; a picture of it in the middle goes where POINTSMAN_SCREENSHOT says."""
    wall_s = asyncio.get_running_loop().time
    simulated = SimulatedProviders(demo_weather(), seed=1, clock_s=wall_s, sleep=asyncio.sleep, time_scale=3.0)
    async with simulated:
        config = simulated_config(f"http://127.0.0.1:{simulated.port}", {})
        config = replace(config, server=replace(config.server, listen="127.0.0.1:0"))
        async with (
            Application(config) as application,
            proxied(tmp_path, port=application.port) as url,
            hosted(page) as origin,
        ):
            asked = urlencode({"server": url, "prompt": "Why is the sky blue?", "ask": "1"})
            async with opened_page(f"{origin}/index.html?{asked}", tmp_path) as tab:
                await tab.until("document.getElementById('answer')?.textContent.length > 300", patience_s=PATIENCE_S)
                picture = await tab.screenshot()
                await tab.until("document.body.dataset.state == 'done'", patience_s=PATIENCE_S)
                assert await tab.value("document.getElementById('candidates').rows.length") == 5
                assert (await tab.value("document.getElementById('answer').textContent")).startswith("[simulated]")
    assert picture.startswith(b"\x89PNG")
    if path := os.environ.get(SCREENSHOT_VARIABLE):
        Path(path).write_bytes(picture)  # noqa: ASYNC240 - nothing else is going on any more
