"""What the tests of providers share."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable

import pytest
from pointsman_server.providers.base import ChatProvider, ProviderSettings
from pointsman_server.providers.http_client import default_tls
from pointsman_server.providers.registry import create_provider

NOW_UNIX_S = 784111777.0
"""Sun, 06 Nov 1994 08:49:37 GMT: the time of day in these tests."""


@pytest.fixture(scope="session")
def tls() -> ssl.SSLContext:
    """One context for all, because loading the authorities takes a while."""
    return default_tls()


@pytest.fixture
async def open_provider(tls: ssl.SSLContext) -> AsyncIterator[Callable[[ProviderSettings], ChatProvider]]:
    """Makes OpenAI-compatible providers that are closed when the test ends."""
    opened: list[ChatProvider] = []

    def open_one(settings: ProviderSettings) -> ChatProvider:
        opened.append(create_provider("openai_compatible", settings, unix_s=lambda: NOW_UNIX_S, tls=tls))
        return opened[-1]

    yield open_one
    for provider in opened:
        await provider.aclose()
