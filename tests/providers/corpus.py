"""The corpus of provider's answers, and what is asked for each: written by us after the providers' documentation.

`corpus/PROVIDER/NAME.sse` is a stream's body, byte for byte; `NAME.json` an answer as a whole, `error_STATUS*.json` the body
of an error. Beside them stand what comes of each (`*.events`) and, where it is more than a greeting, the request that it
answers (`*.request`). POINTSMAN_UPDATE_GOLDEN=1 writes both anew: read the difference.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from pointsman_server.chat import UpstreamEvent
from pointsman_server.errors import UpstreamError
from pointsman_server.providers.anthropic_wire import AnthropicWire
from pointsman_server.providers.base import ProviderSettings, Secret
from pointsman_server.providers.dialects import DIALECTS, GENERIC
from pointsman_server.providers.gemini_wire import GeminiWire
from pointsman_server.providers.openai_wire import OpenAIWire
from pointsman_server.providers.wire import WireFormat

FOLDER = Path(__file__).parent / "corpus"
PROVIDERS = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
UPDATE = "POINTSMAN_UPDATE_GOLDEN" in os.environ
KEY = "sk-corpus"
API_VERSION = "2024-10-21"

_ERROR = re.compile(r"error_([0-9]{3})\w*\.json")


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of the corpus."""

    provider: str
    path: Path

    @property
    def name(self) -> str:
        """For the test's id."""
        return f"{self.provider}/{self.path.name}"

    @property
    def body(self) -> bytes:
        """What the provider sends."""
        return self.path.read_bytes()

    @property
    def is_stream(self) -> bool:
        """Server-sent events, rather than an answer as a whole."""
        return self.path.suffix == ".sse"

    @property
    def error_status(self) -> int | None:
        """The HTTP status that it comes with, if that is an error."""
        status = _ERROR.fullmatch(self.path.name)
        return None if status is None or status[1] == "200" else int(status[1])

    @property
    def events_path(self) -> Path:
        """Where it stands what comes of it."""
        return self.path.with_name(f"{self.path.name}.events")

    @property
    def request_path(self) -> Path:
        """Where the request stands that it answers."""
        return self.path.with_name(f"{self.path.name}.request")

    @property
    def settings(self) -> ProviderSettings:
        """Of its provider."""
        dialect = DIALECTS.get(self.provider, GENERIC)
        return ProviderSettings(
            name=self.provider,
            base_url="http://127.0.0.1/v1",
            api_key=Secret(KEY),
            dialect=dialect,
            api_version=API_VERSION if dialect.model_in_path else None,
        )

    @property
    def wire(self) -> WireFormat:
        """Its provider's format."""
        match self.provider:
            case "anthropic":
                return AnthropicWire(self.settings)
            case "gemini":
                return GeminiWire(self.settings)
            case _:
                return OpenAIWire(self.settings)

    @property
    def provider_toml(self) -> str:
        """How a configuration declares its provider, but for the address."""
        if self.provider in ("anthropic", "gemini"):
            return f'adapter = "{self.provider}"'
        version = f'\napi_version = "{API_VERSION}"' if DIALECTS[self.provider].model_in_path else ""
        return f'dialect = "{self.provider}"{version}'


def samples() -> list[Sample]:
    """All of them, by provider and name."""
    return [
        Sample(provider, path)
        for provider in PROVIDERS
        for path in sorted((FOLDER / provider).iterdir())
        if path.suffix in {".sse", ".json"}
    ]


def written(events: Iterable[UpstreamEvent], failure: UpstreamError | None) -> str:
    """Events, and the failure that ends them, one to a line."""
    lines = [json.dumps({type(event).__name__: asdict(event)}, ensure_ascii=False) for event in events]
    if failure is not None:
        told = {"kind": failure.kind, "message": str(failure), "retry_after_s": failure.retry_after_s}
        lines.append(json.dumps({type(failure).__name__: told}))
    return "\n".join([*lines, ""])


def golden(path: Path, content: str) -> str:
    """What is expected to be `content`."""
    if UPDATE:
        path.write_text(content, encoding="utf-8")
    return path.read_text(encoding="utf-8")
