"""`pointsman demo`: a router at work."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

import uvloop

from pointsman_server import demo


def run(arguments: Namespace, _environment: Mapping[str, str]) -> int:
    """Runs the tour."""
    return uvloop.run(demo.run(once=arguments.once))
