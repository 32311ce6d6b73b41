"""What the loopback servers for demo and tests have in common."""

from __future__ import annotations

import asyncio
import socket
import struct

NO_LINGER = struct.pack("ii", 1, 0)
"""Linger on, for zero seconds: closing discards what is unsent and resets."""


def reset(transport: asyncio.WriteTransport) -> None:
    """Close a connection with a TCP reset, as a crashed host or an impatient load balancer does."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    transport.abort()
