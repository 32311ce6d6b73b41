"""A real Chromium without a window, driven by its DevTools protocol."""

from __future__ import annotations

import asyncio
import itertools
import json
from asyncio.subprocess import DEVNULL
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from conformance.clients import CHROMIUM

START_PATIENCE_S = 60.0
"""A browser on a busy machine takes its time to begin; reached by a fault alone."""
LOOK_INTERVAL_S = 0.02
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-dev-shm-usage",
)


class Tab:
    """One page, as a person would see it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command, and waits for its result; events that come meanwhile are passed over."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            answer: dict[str, Any] = await self._socket.receive_json()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    async def value(self, expression: str) -> Any:
        """What a piece of JavaScript gives; if that is a promise, what that does. None: it throws."""
        result = await self.tell("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return result["result"].get("value")

    async def until(self, expression: str, *, patience_s: float) -> Any:
        """Waits until a piece of JavaScript gives something true, and gives that."""
        async with asyncio.timeout(patience_s):
            while True:
                if value := await self.value(expression):
                    return value
                await asyncio.sleep(LOOK_INTERVAL_S)

    async def screenshot(self) -> bytes:
        """What the page looks like, as PNG."""
        return b64decode((await self.tell("Page.captureScreenshot"))["data"])


@asynccontextmanager
async def hosted(folder: Path) -> AsyncIterator[str]:
    """Serves the files of a folder; gives their origin, which is one of its own."""
    application = web.Application()
    application.router.add_static("/", folder)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site.port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def opened_page(url: str, folder: Path, *flags: str, width: int = 900, height: int = 760) -> AsyncIterator[Tab]:
    """Opens a page in a browser of its own, whose profile is in `folder`; `flags` are further ones of Chromium's."""
    port_file = folder / "profile" / "DevToolsActivePort"
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *FLAGS,
        *flags,
        "--remote-debugging-port=0",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},{height}",
        "about:blank",
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:
        async with asyncio.timeout(START_PATIENCE_S):
            while not (port := _port(port_file)):
                assert process.returncode is None, "the browser ended at its start"
                await asyncio.sleep(LOOK_INTERVAL_S)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                targets = json.loads(await response.text())
            address = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                tab = Tab(socket)
                await tab.tell(
                    "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
                )
                await tab.tell("Page.navigate", url=url)
                yield tab
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _port(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0] if path.exists() else ""
