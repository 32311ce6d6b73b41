"""The adapter for Anthropic's Messages API, and whoever else speaks it."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from pointsman_server.providers.anthropic_wire import AnthropicWire
from pointsman_server.providers.base import ProviderSettings
from pointsman_server.providers.http_chat import HttpChatProvider


class AnthropicProvider(HttpChatProvider):
    """A `ChatProvider` over Anthropic's messages."""

    def __init__(self, settings: ProviderSettings, *, unix_s: Callable[[], float], tls: ssl.SSLContext) -> None:
        super().__init__(settings, AnthropicWire(settings), unix_s=unix_s, tls=tls)
