"""The door for Prometheus: GET /metrics over HTTP, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

import h11
from opentelemetry.sdk.metrics.export import MetricsData

from pointsman_server.telemetry.exposition import OPENMETRICS, PLAIN, exposition

PATH = b"/metrics"
REQUEST_TIMEOUT_S = 5.0
"""A request is a few hundred bytes, and its answer is read at once: who takes longer is no scraper."""
CONNECTION_COUNT_MAX = 8
"""Open at one time: two Prometheus servers and a person."""
READ_BYTES = 4096
_BACKLOG = 16


class ScrapeServer:
    """Serves metrics on one address, from `async with` to its end."""

    def __init__(self, host: str, port: int, collect: Callable[[], MetricsData | None]) -> None:
        """Nothing is opened yet. Port 0 takes a free one; `collect` reads the metrics, in the loop's own thread."""
        self._host = host
        self.port = port
        """Once started, the one that it listens on."""
        self._collect = collect
        self._connection_count = 0

    async def __aenter__(self) -> Self:
        """Raises OSError where the address can't be listened on."""
        self._server = await asyncio.start_server(self._serve, self._host, self.port, backlog=_BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, then the connection closes: a scrape comes every few seconds at most."""
        self._connection_count += 1
        try:
            if self._connection_count <= CONNECTION_COUNT_MAX:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    await self._answer(reader, writer)
        except (OSError, TimeoutError, h11.RemoteProtocolError):
            pass  # Whoever it was has left, or speaks no HTTP.
        finally:
            self._connection_count -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(await reader.read(READ_BYTES))
        if not isinstance(event, h11.Request):
            return
        status, content_type, body = self._page(event)
        head = h11.Response(
            status_code=status,
            headers=[("content-type", content_type), ("content-length", str(len(body))), ("connection", "close")],
        )
        pieces = [connection.send(head)]
        if event.method != b"HEAD":
            pieces.append(connection.send(h11.Data(data=body)))
        pieces.append(connection.send(h11.EndOfMessage()))
        writer.write(b"".join(piece for piece in pieces if piece))
        await writer.drain()

    def _page(self, request: h11.Request) -> tuple[int, str, bytes]:
        """Status, type and body."""
        if request.method not in (b"GET", b"HEAD"):
            return 405, PLAIN, b"only GET is served here\n"
        if request.target.partition(b"?")[0] != PATH:
            return 404, PLAIN, b"metrics are at /metrics\n"
        accepted = b",".join(value for name, value in request.headers if name == b"accept")
        openmetrics = b"application/openmetrics-text" in accepted
        body = exposition(self._collect(), openmetrics=openmetrics)
        return 200, OPENMETRICS if openmetrics else PLAIN, body.encode()
