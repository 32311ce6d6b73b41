"""Tools that are no Python package: where they are missing CI fails, and a person is told what was not tested."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

INSTALL_TIMEOUT_S = 300.0
"""Ends an installation that hangs; no test waits for it."""


def tool(*names: str) -> str:
    """The path of the first of these programs that is there."""
    for name in names:
        if (path := shutil.which(name)) is not None:
            return path
    return missing(names[0])


def missing(what: str) -> NoReturn:
    """Ends the test: by a failure in CI, elsewhere by a skip that says what is missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing, and CI must have it")
    pytest.skip(f"{what} is missing: install it to run this test")


def node_modules(folder: Path) -> Path:
    """The packages of a folder's package-lock.json, installed there if they are not."""
    npm = tool("npm")
    installed, stamp = folder / "node_modules", folder / "node_modules" / ".package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < (folder / "package-lock.json").stat().st_mtime:
        command = [npm, "ci", "--ignore-scripts", "--silent"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        stamp.touch()
    return installed
