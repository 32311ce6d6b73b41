"""What the configuration has to know of the wire formats before anything is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pointsman_server.decision.types import RequestFeature
from pointsman_server.providers import anthropic_wire, gemini_wire


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterTraits:
    """One wire format, as far as it concerns what is configured."""

    has_dialects: bool = False
    """Its providers differ: see `dialects`."""
    caches_when_asked: bool = False
    """Its prompt cache is written to only by requests that ask for it."""
    wants_output_limit: bool = False
    """Every request carries a limit on the answer, so the catalog must know what the model can give."""
    lacks: frozenset[RequestFeature] = frozenset()
    """What it can't say of what a request may ask for."""


ADAPTER_TRAITS: Mapping[str, AdapterTraits] = MappingProxyType(
    {
        "anthropic": AdapterTraits(caches_when_asked=True, wants_output_limit=True, lacks=anthropic_wire.LACKS),
        "gemini": AdapterTraits(lacks=gemini_wire.LACKS),
        "openai_compatible": AdapterTraits(has_dialects=True),
    }
)
"""By the name that the configuration uses."""
