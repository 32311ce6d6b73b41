"""The door's sockets and connections: aiohttp's server within our own loop, which knows no signals and no exit."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from aiohttp import web

from pointsman_server.config.settings import OpenAiDoorSettings, TlsSettings
from pointsman_server.errors import ConfigError, FieldViolation
from pointsman_server.openai_door.door import Door
from pointsman_server.providers.loopback import reset

HEADER_COUNT_MAX = 64
"""OpenAI's clients send about twenty."""
IDLE_S_MAX = 75.0
"""A connection without a whole request for so long is closed: longer than proxies keep theirs."""
LINGER_S = 2.0
"""After a refusal the rest of a body is read for so long, so that the client gets to read the answer."""
LAST_GRACE_S = 0.05
"""For a call to end after the server's own grace is over: aiohttp takes 0 for as long as it lasts."""
BACKLOG = 1024
"""A burst of connections waits in the kernel."""


class Listener:
    """Serves a door from `start` to `aclose`."""

    def __init__(self, door: Door, settings: OpenAiDoorSettings, tls: TlsSettings | None) -> None:
        self._settings = settings
        self._tls = tls
        self._runner = web.AppRunner(
            door.application(),
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=IDLE_S_MAX,
            lingering_time=LINGER_S,
            max_line_size=settings.header_bytes_max,
            max_field_size=settings.header_bytes_max,
            max_headers=HEADER_COUNT_MAX,
            shutdown_timeout=LAST_GRACE_S,
        )
        self._sockets: asyncio.Server | None = None

    async def start(self) -> int:
        """Opens the port, and returns its number.

        Raises:
            ConfigError: it is taken, or the address is not of this machine.
        """
        await self._runner.setup()
        server = self._runner.server
        assert server is not None, "it is set up"
        host, _, port = self._settings.listen.rpartition(":")
        try:
            self._sockets = await asyncio.get_running_loop().create_server(
                _Bounded(server, self._settings.connection_count_max),
                host.strip("[]"),
                int(port),
                ssl=None if self._tls is None else _tls_context(self._tls),
                backlog=BACKLOG,
            )
        except OSError:
            description = (
                f"can't listen on {self._settings.listen}: the port is taken, or the address is not of this machine"
            )
            raise ConfigError("the configuration", (FieldViolation("openai_door.listen", description),)) from None
        bound: int = self._sockets.sockets[0].getsockname()[1]
        return bound

    def stop_accepting(self) -> None:
        """Closes the port. What is under way goes on, on the connections that there are; idle ones are closed."""
        assert self._sockets is not None, "it was started"
        self._sockets.close()
        if self._runner.server is not None:
            self._runner.server.pre_shutdown()

    async def aclose(self) -> None:
        """Ends every connection, and the calls on them."""
        await self._runner.cleanup()


class _Bounded:
    """Makes the protocol of each new connection, as long as there is room for one."""

    def __init__(self, server: web.Server, count_max: int) -> None:
        self._server = server
        self._count_max = count_max

    def __call__(self) -> asyncio.Protocol:
        if len(self._server.connections) < self._count_max:
            return cast("Callable[[], asyncio.Protocol]", self._server)()
        return _Refused()


class _Refused(asyncio.Protocol):
    """A connection too many: closed at once, with a reset, so that nothing of it is kept."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        reset(cast("asyncio.Transport", transport))


def _tls_context(tls: TlsSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.certificate_file, tls.key_file)
    if tls.client_ca_file is not None:
        context.load_verify_locations(tls.client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
