"""The committed stubs of every client are what its generator gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from polyglot.toolchains import require

from tools.generate_clients import GENERATORS, TOOLS


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", GENERATORS)
def test_the_stubs_are_what_the_generator_gives(name: str, tmp_path: Path) -> None:
    """The committed files are, byte for byte, what tools/generate_clients.py makes of proto/ and of the Python client's
    service config; `make clients` renews them."""
    generator = GENERATORS[name]
    require(name, generator.missing_tools())
    TOOLS.mkdir(exist_ok=True)
    generator.generate(tmp_path)
    generated, committed = contents(tmp_path), contents(generator.folder)
    assert sorted(generated) == sorted(committed)
    assert [path for path in generated if generated[path] != committed[path]] == []
