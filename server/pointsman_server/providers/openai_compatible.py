"""The adapter for every provider that speaks OpenAI's chat completions over HTTP: OpenAI itself, vLLM, and most others."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from pointsman_server.providers.base import ProviderSettings
from pointsman_server.providers.http_chat import HttpChatProvider
from pointsman_server.providers.openai_wire import OpenAIWire


class OpenAICompatibleProvider(HttpChatProvider):
    """A `ChatProvider` over OpenAI's chat completions."""

    def __init__(self, settings: ProviderSettings, *, unix_s: Callable[[], float], tls: ssl.SSLContext) -> None:
        super().__init__(settings, OpenAIWire(settings), unix_s=unix_s, tls=tls)
