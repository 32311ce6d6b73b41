"""The configuration: what the file says, checked as a whole, in frozen settings with units in their names.

A fault never comes alone: all of them are listed, each with its path, what is wrong and what would be right. Secrets
are never in the file: it names environment variables, and the environment is an argument. docs/configuration.md is
the reader's version.
"""

from pointsman_server.config.load import load_config, parse_config
from pointsman_server.config.settings import (
    DEFAULT_ROUTER,
    Config,
    OpenAiDoorSettings,
    RouterSettings,
    ServerSettings,
    TelemetrySettings,
    TlsSettings,
)

__all__ = [
    "DEFAULT_ROUTER",
    "Config",
    "OpenAiDoorSettings",
    "RouterSettings",
    "ServerSettings",
    "TelemetrySettings",
    "TlsSettings",
    "load_config",
    "parse_config",
]
