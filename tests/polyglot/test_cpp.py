"""C++, whose client is generated where it is built: by hand on few machines, so this runs where the tools are there."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conformance.clients import REPOSITORY

FOLDER = REPOSITORY / "client" / "cpp"
EXAMPLES = ("route", "complete")
BUILD_TIMEOUT_S = 600.0
"""Ends a build that hangs; no test waits for it."""
TOOLS = ("c++", "cmake", "pkg-config", "protoc", "grpc_cpp_plugin")


def run(*command: str | Path) -> str:
    """What a command prints; it must end with 0."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built examples."""
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing or subprocess.run(["pkg-config", "--exists", "grpc++", "protobuf"], check=False).returncode:
        pytest.skip(f"C++: {' and '.join(missing) or 'the libraries grpc++ and protobuf'} not found")
    folder = tmp_path_factory.mktemp("cpp")
    run("cmake", "-S", FOLDER, "-B", folder)
    run("cmake", "--build", folder, "--parallel", "2")
    return folder


async def test_the_examples_run(built: Path, address: str) -> None:
    """One asks for a decision and prints the ranks, the other prints a whole answer as it streams."""
    routed, completed = [await asyncio.to_thread(run, built / name, address) for name in EXAMPLES]
    assert re.match(r"1\. \S+@sim-\w+, quality 0\.\d\d\n2\. ", routed)
    assert re.fullmatch(r"-> \S+@sim-\w+\n(.*\n)*?\[simulated\] .*\n\S+@sim-\w+, \$0\.\d{6}\n", completed)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_readme_shows_the_example_as_it_is(name: str) -> None:
    """Each example stands in the README, word for word."""
    shown = re.search(
        rf"<!-- examples/{name}\.cpp -->\n```cpp\n(.*?)```",
        (FOLDER / "README.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert shown is not None
    assert shown[1] == (FOLDER / "examples" / f"{name}.cpp").read_text(encoding="utf-8")
