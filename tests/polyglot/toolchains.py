"""Whether the toolchain of a language is there."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest


def require(name: str, missing_tools: Sequence[str]) -> None:
    """Skips where a program is missing, and says which; fails in CI, where none may be."""
    missing = " and ".join(missing_tools)
    if missing and os.environ.get("CI"):
        pytest.fail(f"{name}: {missing} not found, which CI must have")
    if missing:
        pytest.skip(f"{name}: {missing} not found")
