"""The adapter for Google's generateContent, as the Gemini API and Vertex AI serve it."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from pointsman_server.providers.base import ProviderSettings
from pointsman_server.providers.gemini_wire import GeminiWire
from pointsman_server.providers.http_chat import HttpChatProvider


class GeminiProvider(HttpChatProvider):
    """A `ChatProvider` over Google's generateContent."""

    def __init__(self, settings: ProviderSettings, *, unix_s: Callable[[], float], tls: ssl.SSLContext) -> None:
        super().__init__(settings, GeminiWire(settings), unix_s=unix_s, tls=tls)
