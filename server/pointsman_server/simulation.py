"""A configuration of simulated providers, for a first look without keys or network."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from pointsman_server.config.load import parse_config
from pointsman_server.config.settings import Config

SOURCE = "the simulated providers' configuration"


def simulated_config_text(origin: str) -> str:
    """The configuration for simulated providers at `origin`, such as http://127.0.0.1:40000."""
    template = files("pointsman_server").joinpath("simulated.toml").read_text(encoding="utf-8")
    return template.replace("{origin}", origin)


def simulated_config(origin: str, environment: Mapping[str, str]) -> Config:
    """The same, parsed."""
    return parse_config(simulated_config_text(origin), source=SOURCE, directory=Path(), environment=environment)
