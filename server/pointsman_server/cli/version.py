"""`pointsman version`."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version


def run(_arguments: Namespace, _environment: Mapping[str, str]) -> int:
    """Prints the version of the installed distribution."""
    try:
        installed = version("pointsman")
    except PackageNotFoundError:
        installed = "(not installed: running from its sources)"
    sys.stdout.write(f"pointsman {installed}\n")
    return 0
