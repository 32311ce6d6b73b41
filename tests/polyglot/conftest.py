"""A server that the examples of all languages call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from pointsman_server.app import Application
from pointsman_server.providers.simulated import SimulatedProviders
from pointsman_server.providers.weather import demo_weather
from pointsman_server.simulation import simulated_config


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """A server as `pointsman serve --simulate` runs it, but on a free port and ten times as fast."""
    loop = asyncio.get_running_loop()
    simulated = SimulatedProviders(demo_weather(), seed=1, clock_s=loop.time, sleep=asyncio.sleep, time_scale=10.0)
    async with simulated:
        config = simulated_config(f"http://127.0.0.1:{simulated.port}", {})
        config = replace(config, server=replace(config.server, listen="127.0.0.1:0"))
        async with Application(config) as application:
            yield f"127.0.0.1:{application.port}"
