"""Turns the public `model_prices_and_context_window.json`, which LiteLLM's users have, into our TOML.

Only what a provider with a known address can serve is taken over; everything else is counted, with the reason. Facts in that file are other people's work and change in type from one release to the next, so a wrong value
costs one model, never the import.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pointsman_server.catalog.entry_table import (
    ENDPOINT_COUNT_MAX,
    MODEL_RULE,
    PRICE_USD_PER_MTOK_MAX,
    TOKEN_COUNT_MAX,
    UPSTREAM_MODEL_RULE,
)
from pointsman_server.catalog.well_known import well_known_text
from pointsman_server.chat import ReasoningControl
from pointsman_server.decision.types import Capability, RequestFeature
from pointsman_server.errors import ConfigError, FieldViolation

TEXT_CHARACTER_COUNT_MAX = 32 * 1024 * 1024
"""Ten times the file's size in November 2026."""
SOURCE = "the file of model prices"
SAMPLE_ENTRY = "sample_spec"
"""Documents the format under a model's place."""

PROVIDER_BY_LITELLM_NAME = {"fireworks_ai": "fireworks", "together_ai": "together"}
"""Where that file calls a provider otherwise than the shipped catalog does."""
CAPABILITIES_BY_FLAG: Mapping[str, tuple[Capability, ...]] = {
    "supports_function_calling": (Capability.TOOLS,),
    "supports_vision": (Capability.IMAGE_INPUT,),
    # Who can follow a schema can write any JSON; the file has no flag for that alone.
    "supports_response_schema": (Capability.JSON_OBJECT, Capability.JSON_SCHEMA),
    "supports_reasoning": (Capability.REASONING,),
}
CAPABILITIES_BY_PROVIDER = {"anthropic": frozenset(Capability) - {Capability.JSON_OBJECT}}
"""What is left of a model's capabilities where the provider's API has no way to ask for all of them: Anthropic's knows
answers that follow a schema, but none that are just any JSON."""
LACKS_BY_FLAG: Mapping[str, tuple[RequestFeature, ...]] = {
    "supports_sampling_params": (RequestFeature.TEMPERATURE, RequestFeature.TOP_P, RequestFeature.TOP_K),
    "supports_forced_tool_use": (RequestFeature.FORCED_TOOL_CALL,),
    "supports_minimal_reasoning_effort": (RequestFeature.MINIMAL_REASONING,),
}
"""What a model lacks where the flag is false; where it is absent nothing is known."""
LACKS_WITHOUT_FLAG = {("anthropic", "supports_mid_conversation_system"): RequestFeature.LATE_SYSTEM_TURNS}
"""What a provider's model lacks unless the flag is true."""
PRICE_KEYS = {
    "input_price_usd_per_mtok": "input_cost_per_token",
    "output_price_usd_per_mtok": "output_cost_per_token",
    "cached_input_price_usd_per_mtok": "cache_read_input_token_cost",
    "cache_write_price_usd_per_mtok": "cache_creation_input_token_cost",
}


@dataclass(frozen=True, slots=True)
class Skipped:
    """Models that were not taken over, for one reason."""

    reason: str
    models: tuple[str, ...]
    """As the file names them, in its order."""


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What came of an import."""

    toml: str
    """`[providers]` and `[[endpoints]]`, for `catalog.import_files` or to paste into a configuration."""
    endpoint_count: int
    skipped: tuple[Skipped, ...]
    """The reason with the most models first."""


class _SkipError(Exception):
    """This model can't be taken over; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Endpoint:
    """One endpoint on its way into TOML."""

    model: str
    provider: str
    upstream_model: str
    facts: tuple[str, ...]
    """Its further lines."""


def import_litellm_prices(text: str, *, providers: frozenset[str] | None = None) -> ImportResult:
    """The endpoints that a file of model prices describes.

    A model is named by the last part of its path in lower case, so that one open model has one name at every provider
    that spells it alike; `upstream_model` keeps the provider's own spelling.

    Args:
        text: JSON of the format of LiteLLM's `model_prices_and_context_window.json`.
        providers: Which to take, by our name or by LiteLLM's; None takes every one whose address is known.

    Raises:
        ConfigError: The text is not of that format, or nothing in it can be taken over.
    """
    addresses = tomllib.loads(well_known_text())["providers"]
    endpoints: dict[tuple[str, str], _Endpoint] = {}
    skipped: dict[str, list[str]] = {}
    for name, facts in _parse(text).items():
        if name == SAMPLE_ENTRY:
            continue
        try:
            _add(endpoints, _read(name, facts, addresses=addresses, wanted=providers))
        except _SkipError as reason:
            skipped.setdefault(str(reason), []).append(name)
    if not endpoints:
        raise _no_import("holds no chat model of a provider whose address is known and that was asked for")
    used = {endpoint.provider: addresses[endpoint.provider] for endpoint in endpoints.values()}
    return ImportResult(
        toml=_print(used, list(endpoints.values())),
        endpoint_count=len(endpoints),
        skipped=tuple(
            Skipped(reason, tuple(names))
            for reason, names in sorted(skipped.items(), key=lambda item: (-len(item[1]), item[0]))
        ),
    )


def _parse(text: str) -> dict[str, object]:
    if len(text) > TEXT_CHARACTER_COUNT_MAX:
        raise _no_import(f"must be at most {TEXT_CHARACTER_COUNT_MAX} characters long")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise _no_import("is no JSON") from None
    if not isinstance(content, dict):
        raise _no_import("must be an object with one member for each model")
    return content


def _no_import(reason: str) -> ConfigError:
    return ConfigError(SOURCE, (FieldViolation("file", reason),))


def _read(name: str, facts: object, *, addresses: Mapping[str, object], wanted: frozenset[str] | None) -> _Endpoint:
    if not isinstance(facts, dict):
        raise _SkipError("is no object")
    mode = facts.get("mode")
    if mode != "chat":
        raise _SkipError(f"mode is {_word(mode)}, not chat")
    litellm_provider = facts.get("litellm_provider")
    provider = PROVIDER_BY_LITELLM_NAME.get(str(litellm_provider), str(litellm_provider))
    if wanted is not None and not wanted & {provider, str(litellm_provider)}:
        raise _SkipError("provider was not asked for")
    if provider not in addresses:
        raise _SkipError(f"no address is known for the provider {_word(litellm_provider)}")
    upstream_model = name.removeprefix(f"{litellm_provider}/")
    if upstream_model.startswith("ft:"):
        raise _SkipError("fine-tuned: its name is only a prefix")
    model = upstream_model.rpartition("/")[2].lower()
    if provider == "fireworks":
        # It writes glm-5p3 where everyone else writes glm-5.3.
        model = re.sub(r"(?<=[0-9])p(?=[0-9])", ".", model)
    if MODEL_RULE.pattern.fullmatch(model) is None or UPSTREAM_MODEL_RULE.pattern.fullmatch(upstream_model) is None:
        raise _SkipError("name can't be written in a router string")
    return _Endpoint(
        model=model, provider=provider, upstream_model=upstream_model, facts=_fact_lines(facts, provider, model)
    )


def _word(value: object) -> str:
    """A foreign value in a reason: short, on one line."""
    return value[:40] if isinstance(value, str) and value.isprintable() and value else "unknown"


def _fact_lines(facts: dict[str, object], provider: str, model: str) -> tuple[str, ...]:
    prices = {key: _price(facts.get(litellm_key)) for key, litellm_key in PRICE_KEYS.items()}
    output_token_count_max = _token_count(facts.get("max_output_tokens"))
    # `max_tokens` is the older name of either limit. The input alone is the safe reading of a context that counts both.
    context_token_count_max = _token_count(facts.get("max_input_tokens")) or _token_count(facts.get("max_tokens"))
    if context_token_count_max is not None and (output_token_count_max or 0) > context_token_count_max:
        output_token_count_max = None
    capabilities = [
        capability.value
        for flag, flagged in CAPABILITIES_BY_FLAG.items()
        if facts.get(flag) is True
        for capability in flagged
        if capability in CAPABILITIES_BY_PROVIDER.get(provider, flagged)
    ]
    if provider == "anthropic" and output_token_count_max is None:
        raise _SkipError("longest answer is not told, which Anthropic's API wants to know")
    # A cache that is written to for nothing is written as 0 there, though what is written costs what input costs.
    if not prices["cache_write_price_usd_per_mtok"]:
        del prices["cache_write_price_usd_per_mtok"]
    lines = [f"{key} = {price!r}" for key, price in prices.items() if price is not None]
    if context_token_count_max is not None:
        lines.append(f"context_token_count_max = {context_token_count_max}")
    if output_token_count_max is not None:
        lines.append(f"output_token_count_max = {output_token_count_max}")
    if capabilities:
        lines.append(f"capabilities = {json.dumps(capabilities)}")
    if lacks := _lacks(facts, provider):
        lines.append(f"lacks = {json.dumps(lacks)}")
    if Capability.REASONING.value in capabilities and _counts_thoughts(facts, provider, model):
        lines.append(f'reasoning_control = "{ReasoningControl.BUDGET.value}"')
    return tuple(lines)


def _lacks(facts: dict[str, object], provider: str) -> list[str]:
    lacks = {feature for flag, flagged in LACKS_BY_FLAG.items() if facts.get(flag) is False for feature in flagged}
    lacks |= {
        feature
        for (whose, flag), feature in LACKS_WITHOUT_FLAG.items()
        if provider == whose and facts.get(flag) is not True
    }
    return sorted(feature.value for feature in lacks)


def _counts_thoughts(facts: dict[str, object], provider: str, model: str) -> bool:
    """Whether the model is told by a number how long to think. The file says so of Anthropic's models; of Google's it was
    the second generation."""
    if provider == "anthropic":
        return facts.get("supports_adaptive_thinking") is not True
    return provider == "gemini" and model.startswith("gemini-2.")


def _price(usd_per_token: object) -> float | None:
    """USD per million tokens; None when the file does not say."""
    if usd_per_token is None:
        return None
    if isinstance(usd_per_token, bool) or not isinstance(usd_per_token, int | float):
        raise _SkipError("price is not a number")
    if not 0.0 <= usd_per_token <= PRICE_USD_PER_MTOK_MAX / 1e6:
        raise _SkipError(f"price is not between 0 and {PRICE_USD_PER_MTOK_MAX:g} USD per million tokens")
    # Twelve digits: beyond them is only what the conversion from a price per token leaves behind.
    return float(f"{usd_per_token * 1e6:.12g}")


def _token_count(value: object) -> int | None:
    """A limit in tokens; None when the file does not say, or says it in words."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(TOKEN_COUNT_MAX)):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Not a number is not in the range either.
    return int(value) if 1 <= value <= TOKEN_COUNT_MAX else None


def _add(endpoints: dict[tuple[str, str], _Endpoint], endpoint: _Endpoint) -> None:
    """Adds the endpoint under a name that is free: two vendors' models may end alike."""
    for model in (endpoint.model, endpoint.upstream_model.lower()):
        taken = endpoints.get((model, endpoint.provider))
        if taken is None and MODEL_RULE.pattern.fullmatch(model):
            if len(endpoints) == ENDPOINT_COUNT_MAX:
                raise _SkipError(f"beyond the {ENDPOINT_COUNT_MAX} endpoints of a catalog")
            endpoints[model, endpoint.provider] = replace(endpoint, model=model)
            return
        if taken is not None and taken.upstream_model == endpoint.upstream_model:
            break
    raise _SkipError("is there already under another spelling")


def _print(providers: Mapping[str, Mapping[str, str]], endpoints: list[_Endpoint]) -> str:
    blocks = [
        "\n".join([f"[providers.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in address.items())])
        for name, address in sorted(providers.items())
    ]
    for endpoint in sorted(endpoints, key=lambda endpoint: (endpoint.model, endpoint.provider)):
        lines = [
            "[[endpoints]]",
            f"model = {json.dumps(endpoint.model)}",
            f"provider = {json.dumps(endpoint.provider)}",
        ]
        if endpoint.upstream_model != endpoint.model:
            lines.append(f"upstream_model = {json.dumps(endpoint.upstream_model)}")
        blocks.append("\n".join([*lines, *endpoint.facts]))
    return "\n\n".join(blocks) + "\n"
