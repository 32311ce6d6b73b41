"""Where and with what a benchmark ran."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("grpcio", "h11", "httpx", "numpy", "opentelemetry-sdk", "protobuf", "uvloop", "xgboost-cpu")
"""Those whose cost is a part of what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The circumstances of one run."""

    date: str
    """UTC, ISO 8601."""
    git_commit: str | None
    """None outside a repository."""
    git_dirty: bool | None
    """Whether there was anything uncommitted."""
    cpu_model: str
    core_count: int
    """Cores that this process may use."""
    kernel: str
    python: str
    packages: dict[str, str]
    """Version by name, of those that are installed."""


def this_machine() -> Machine:
    """The circumstances of now."""
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    return Machine(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        git_commit=commit,
        git_dirty=None if changes is None else bool(changes),
        cpu_model=_cpu_model(),
        core_count=len(os.sched_getaffinity(0)),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages={name: found for name in PACKAGES if (found := _version(name)) is not None},
    )


def stolen_s(counted: Path = Path("/proc/stat")) -> float:
    """CPU time since the machine started that its hypervisor gave to others while a program here wanted it, all cores
    together; 0 where nobody counts it."""
    try:
        return int(counted.read_text(encoding="ascii").split(maxsplit=9)[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


def _git(*arguments: str) -> str | None:
    try:
        run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10.0, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


def _cpu_model() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return platform.machine() if found is None else found[1].strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
