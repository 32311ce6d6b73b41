"""What the client's tests share: a scripted server, and one way to drive both clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from client.scripted_server import ScriptedServer, scripted_server


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A scripted server of this test's own."""
    with scripted_server() as scripted:
        yield scripted
