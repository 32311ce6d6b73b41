"""How the providers that speak OpenAI's chat completions differ: one row each, and nothing of it anywhere else.

What a row says holds for requests. Answers are read by one reader that knows all of their shapes (`openai_wire`), because
gateways mix them. Facts are those of the providers' public documentation in November 2026; docs/providers.md shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pointsman_server.decision.types import RequestFeature

MaxTokensField = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What one provider wants other than OpenAI's documentation says."""

    name: str
    max_tokens_field: MaxTokensField = "max_tokens"
    """How it calls the limit on the answer."""
    key_header: Literal["authorization", "api-key"] = "authorization"
    """Where the key goes: as a bearer token, or as it is."""
    model_in_path: bool = False
    """The model is a part of the path (Azure's deployments) and needs an `api_version`."""
    asks_for_usage: bool = True
    """A stream tells its usage only when it is asked to by `stream_options`; without it usage comes unasked."""
    seed_field: str = "seed"
    effort_in_object: bool = False
    """The effort of reasoning is `reasoning.effort`, not `reasoning_effort`."""
    reasoning_comes_back: bool = False
    """The reasoning that led to a tool call must be in the history as `reasoning_content`."""
    wants_strictness: bool = False
    """Only by `provider.require_parameters` does it stay away from hosts that ignore a part of what is asked."""
    lacks: frozenset[RequestFeature] = frozenset()
    """What it refuses or, worse, ignores."""


_NO_TOOL_IMAGES = frozenset({RequestFeature.SYSTEM_IMAGES, RequestFeature.TOOL_RESULT_IMAGES})
_OPENAI_LACKS = _NO_TOOL_IMAGES | {RequestFeature.TOP_K}

GENERIC = Dialect(name="generic")

DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        dialect.name: dialect
        for dialect in (
            GENERIC,
            # Its reasoning models refuse `max_tokens`; all others take the newer name, too.
            Dialect(name="openai", max_tokens_field="max_completion_tokens", lacks=_OPENAI_LACKS),
            Dialect(
                name="azure",
                max_tokens_field="max_completion_tokens",
                key_header="api-key",
                model_in_path=True,
                lacks=_OPENAI_LACKS,
            ),
            Dialect(name="vllm"),
            Dialect(
                name="openrouter",
                effort_in_object=True,
                wants_strictness=True,
            ),
            Dialect(
                name="groq",
                max_tokens_field="max_completion_tokens",
                lacks=_OPENAI_LACKS | {RequestFeature.PENALTIES, RequestFeature.SPEAKER_NAMES},
            ),
            Dialect(
                name="mistral",
                asks_for_usage=False,
                seed_field="random_seed",
                lacks=_OPENAI_LACKS | {RequestFeature.SPEAKER_NAMES},
            ),
            Dialect(
                name="deepseek",
                reasoning_comes_back=True,
                lacks=_OPENAI_LACKS | {RequestFeature.SEED, RequestFeature.PENALTIES, RequestFeature.SINGLE_TOOL_CALL},
            ),
            Dialect(name="together", lacks=_NO_TOOL_IMAGES),
            Dialect(
                name="ollama",
                lacks=_OPENAI_LACKS
                | {
                    RequestFeature.IMAGE_URLS,
                    RequestFeature.IMAGE_DETAIL,
                    RequestFeature.SINGLE_TOOL_CALL,
                    RequestFeature.SPEAKER_NAMES,
                    RequestFeature.STRICT_TOOLS,
                    RequestFeature.FORBIDDEN_TOOL_CALL,
                    RequestFeature.FORCED_TOOL_CALL,
                },
            ),
        )
    }
)
