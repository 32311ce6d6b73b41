"""Which adapters there are, by the name that the configuration uses."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Protocol

from pointsman_server.providers.anthropic import AnthropicProvider
from pointsman_server.providers.base import ChatProvider, ProviderSettings
from pointsman_server.providers.gemini import GeminiProvider
from pointsman_server.providers.openai_compatible import OpenAICompatibleProvider


class Adapter(Protocol):
    """Makes a provider from its settings."""

    def __call__(self, settings: ProviderSettings, *, unix_s: Callable[[], float], tls: ssl.SSLContext) -> ChatProvider:
        """See `create_provider`."""
        ...


ADAPTERS: dict[str, Adapter] = {
    "anthropic": AnthropicProvider,
    "gemini": GeminiProvider,
    "openai_compatible": OpenAICompatibleProvider,
}


def create_provider(
    adapter: str, settings: ProviderSettings, *, unix_s: Callable[[], float], tls: ssl.SSLContext
) -> ChatProvider:
    """The provider that these settings describe; it opens no connection before its first call.

    Args:
        adapter: One of `ADAPTERS`; configuration is validated before it comes here.
        settings: Where the provider is, its key, its limits.
        unix_s: The time of day in seconds since 1970, for Retry-After dates.
        tls: Which certificates are trusted, see `http_client.default_tls`.
    """
    return ADAPTERS[adapter](settings, unix_s=unix_s, tls=tls)
