"""The shipped catalog of well-known models and list prices, dated in the file itself."""

from __future__ import annotations

from importlib.resources import files


def well_known_text() -> str:
    """The shipped catalog as TOML: `prices_as_of`, `[providers]` and `[[endpoints]]`."""
    return files(__package__).joinpath("well_known.toml").read_text(encoding="utf-8")
