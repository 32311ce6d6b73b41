"""Importing the public file of model prices: what fits is taken over exactly, the rest is counted with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.catalog.catalog import CatalogEntry
from pointsman_server.catalog.importer import ImportResult, Skipped, import_litellm_prices
from pointsman_server.chat import ReasoningControl
from pointsman_server.config import Config, parse_config
from pointsman_server.decision.types import Capability, Endpoint, RequestFeature
from pointsman_server.errors import ConfigError
from pointsman_server.providers import anthropic_wire
from pointsman_server.providers.dialects import DIALECTS

PRICES: dict[str, object] = {
    "sample_spec": {"mode": "one of: chat, embedding", "litellm_provider": "one of the providers"},
    "small-1": {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 1.5e-07,
        "output_cost_per_token": 6e-07,
        "cache_read_input_token_cost": 7.5e-08,
        "max_input_tokens": 128000,
        "max_output_tokens": 16384,
        "max_tokens": 16384,
        "supports_function_calling": True,
        "supports_vision": True,
        "supports_response_schema": True,
        "supports_reasoning": True,
    },
    "together_ai/vendor/Open-7B-Instruct": {
        "litellm_provider": "together_ai",
        "mode": "chat",
        "input_cost_per_token": 2e-07,
        "output_cost_per_token": 2e-07,
        "max_tokens": "8192",
    },
    "deepinfra/vendor/Open-7B-Instruct": {"litellm_provider": "deepinfra", "mode": "chat", "max_output_tokens": 4096.0},
    "fireworks_ai/accounts/fireworks/models/open-3p1": {"litellm_provider": "fireworks_ai", "mode": "chat"},
    "tall-1": {
        "litellm_provider": "anthropic",
        "mode": "chat",
        "max_output_tokens": 100,
        "supports_vision": True,
        "supports_response_schema": 1,
    },
    "long-1": {
        "litellm_provider": "anthropic",
        "mode": "chat",
        "max_output_tokens": 100,
        "supports_response_schema": True,
    },
    "vague-1": {"litellm_provider": "anthropic", "mode": "chat"},
    "groq/whisper": {"litellm_provider": "groq", "mode": "audio_transcription"},
    "groq/embed-1": {"litellm_provider": "groq", "mode": "embedding"},
    "groq/embed-2": {"litellm_provider": "groq", "mode": "embedding"},
    "cloudy/model": {"litellm_provider": "bedrock", "mode": "chat"},
}


CLAUDE_LACKS = anthropic_wire.LACKS | {RequestFeature.LATE_SYSTEM_TURNS}


def import_prices(content: object, providers: frozenset[str] | None = None) -> ImportResult:
    """The import of some JSON."""
    return import_litellm_prices(json.dumps(content), providers=providers)


def parse(result: ImportResult) -> Config:
    """The configuration of what was imported, with every key in the environment."""
    names = ("ANTHROPIC", "OPENAI", "TOGETHER", "DEEPINFRA", "FIREWORKS", "GROQ", "GEMINI", "MISTRAL")
    environment = {f"{name}_API_KEY": "key" for name in names}
    return parse_config(result.toml, source="imported", directory=Path(), environment=environment)


def model_of(facts: dict[str, object]) -> dict[str, object]:
    """A file with one model at OpenAI."""
    return {"m": {"litellm_provider": "openai", "mode": "chat"} | facts}


def test_every_fact_is_taken_over() -> None:
    """Prices become USD per million tokens, limits and capabilities keep their meaning, names become ours."""
    result = import_prices(PRICES)
    assert result.endpoint_count == 6
    expected = [
        (
            Endpoint(
                "long-1",
                "anthropic",
                output_token_count_max=100,
                capabilities=frozenset({Capability.JSON_SCHEMA}),
                lacks=CLAUDE_LACKS,
            ),
            "long-1",
        ),
        (
            Endpoint("open-3.1", "fireworks"),
            "accounts/fireworks/models/open-3p1",
        ),
        (
            Endpoint("open-7b-instruct", "deepinfra", output_token_count_max=4096),
            "vendor/Open-7B-Instruct",
        ),
        (
            Endpoint(
                "open-7b-instruct",
                "together",
                0.2,
                0.2,
                context_token_count_max=8192,
                lacks=DIALECTS["together"].lacks,
            ),
            "vendor/Open-7B-Instruct",
        ),
        (
            Endpoint(
                "small-1",
                "openai",
                input_price_usd_per_mtok=0.15,
                output_price_usd_per_mtok=0.6,
                cached_input_price_usd_per_mtok=0.075,
                context_token_count_max=128_000,
                output_token_count_max=16_384,
                capabilities=frozenset(Capability),
                lacks=DIALECTS["openai"].lacks,
            ),
            "small-1",
        ),
        (
            Endpoint(
                "tall-1",
                "anthropic",
                output_token_count_max=100,
                capabilities=frozenset({Capability.IMAGE_INPUT}),
                lacks=CLAUDE_LACKS,
            ),
            "tall-1",
        ),
    ]
    assert parse(result).catalog.entries == tuple(
        CatalogEntry(endpoint=endpoint, upstream_model=upstream_model, quality_model=endpoint.model)
        for endpoint, upstream_model in expected
    )


def test_what_is_left_out_is_counted_with_its_reason() -> None:
    """Each model that is not taken over stands under a reason, the most frequent reason first."""
    assert import_prices(PRICES).skipped == (
        Skipped("mode is embedding, not chat", ("groq/embed-1", "groq/embed-2")),
        Skipped("longest answer is not told, which Anthropic's API wants to know", ("vague-1",)),
        Skipped("mode is audio_transcription, not chat", ("groq/whisper",)),
        Skipped("no address is known for the provider bedrock", ("cloudy/model",)),
    )


def test_providers_come_with_their_address_and_key() -> None:
    """The imported file declares the providers that it uses, and no other."""
    assert set(parse(import_prices(PRICES)).providers) == {"anthropic", "deepinfra", "fireworks", "openai", "together"}
    assert parse(import_prices(model_of({}))).providers["openai"].dialect == DIALECTS["openai"]


@pytest.mark.parametrize(
    ("facts", "lacks"),
    [
        ({}, set()),
        ({"supports_sampling_params": True}, set()),
        (
            {"supports_sampling_params": False},
            {RequestFeature.TEMPERATURE, RequestFeature.TOP_P, RequestFeature.TOP_K},
        ),
        ({"supports_forced_tool_use": False}, {RequestFeature.FORCED_TOOL_CALL}),
        ({"supports_minimal_reasoning_effort": False}, {RequestFeature.MINIMAL_REASONING}),
        ({"supports_minimal_reasoning_effort": None}, set()),
    ],
)
def test_what_a_model_cannot_do_is_taken_over(facts: dict[str, object], lacks: set[RequestFeature]) -> None:
    """A flag that is false is something that the endpoint lacks; one that is absent says nothing."""
    (endpoint,) = parse(import_prices(model_of(facts))).catalog.endpoints
    assert endpoint.lacks == DIALECTS["openai"].lacks | lacks


@pytest.mark.parametrize(("price", "expected"), [(1.25e-06, 1.25), (0.0, None), (None, None)])
def test_a_cache_that_is_written_to_for_nothing_has_no_price(price: float | None, expected: float | None) -> None:
    """Zero is how the file writes that writing costs nothing beside the input."""
    (endpoint,) = parse(import_prices(model_of({"cache_creation_input_token_cost": price}))).catalog.endpoints
    assert endpoint.cache_write_price_usd_per_mtok == expected


@pytest.mark.parametrize(
    ("provider", "model", "facts", "expected"),
    [
        ("anthropic", "m", {}, ReasoningControl.BUDGET),
        ("anthropic", "m", {"supports_adaptive_thinking": True}, ReasoningControl.EFFORT),
        ("gemini", "gemini/gemini-2.5-pro", {}, ReasoningControl.BUDGET),
        ("gemini", "gemini/gemini-3-pro", {}, ReasoningControl.EFFORT),
        ("openai", "m", {}, ReasoningControl.EFFORT),
    ],
)
def test_models_that_are_told_a_number_of_thoughts_are_known(
    provider: str, model: str, facts: dict[str, object], expected: ReasoningControl
) -> None:
    """Anthropic's before adaptive thinking, and the second generation of Google's."""
    usual = {"litellm_provider": provider, "mode": "chat", "supports_reasoning": True, "max_output_tokens": 7}
    (entry,) = parse(import_prices({model: usual | facts})).catalog.entries
    assert entry.reasoning_control is expected


@pytest.mark.parametrize("name", ["together", "together_ai"])
def test_only_the_providers_that_were_asked_for_are_taken(name: str) -> None:
    """A provider may be asked for by our name or by the file's; the others are counted as not asked for."""
    result = import_prices(PRICES, providers=frozenset({name}))
    assert parse(result).catalog.providers == {"together"}
    assert ("provider was not asked for", 7) in [(skipped.reason, len(skipped.models)) for skipped in result.skipped]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"input_cost_per_token": -1e-6}, "price is not between 0 and 10000 USD per million tokens"),
        ({"input_cost_per_token": float("nan")}, "price is not between 0 and 10000 USD per million tokens"),
        ({"output_cost_per_token": float("inf")}, "price is not between 0 and 10000 USD per million tokens"),
        ({"output_cost_per_token": 10**400}, "price is not between 0 and 10000 USD per million tokens"),
        ({"output_cost_per_token": 1}, "price is not between 0 and 10000 USD per million tokens"),
        ({"cache_read_input_token_cost": "cheap"}, "price is not a number"),
        ({"input_cost_per_token": True}, "price is not a number"),
        ({"mode": None}, "mode is unknown, not chat"),
        ({"mode": "a\nb"}, "mode is unknown, not chat"),
        ({"litellm_provider": ["openai"]}, "no address is known for the provider unknown"),
    ],
)
def test_a_wrong_value_costs_one_model_and_says_why(facts: dict[str, object], reason: str) -> None:
    """A model with a value that can't be is left out; the others are still taken over."""
    result = import_prices(model_of(facts) | {"sound": {"litellm_provider": "openai", "mode": "chat"}})
    assert result.endpoint_count == 1
    assert result.skipped == (Skipped(reason, ("m",)),)


@pytest.mark.parametrize("entry", [None, 1, "text", [], True])
def test_an_entry_that_is_no_object_is_left_out(entry: object) -> None:
    """Whatever stands in a model's place is survived."""
    assert import_prices(model_of({}) | {"odd": entry}).skipped == (Skipped("is no object", ("odd",)),)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ft:m", "fine-tuned: its name is only a prefix"),
        ("openai/", "name can't be written in a router string"),
        ("openai/a b", "name can't be written in a router string"),
        ("openai/ü", "name can't be written in a router string"),
        ("openai/router", "name can't be written in a router string"),
        ("openai/m", "is there already under another spelling"),
    ],
)
def test_a_name_that_cannot_be_used_is_left_out(name: str, reason: str) -> None:
    """A name that no router string can hold, or that means a model that is there, is counted."""
    result = import_prices(model_of({}) | {name: {"litellm_provider": "openai", "mode": "chat"}})
    assert result.skipped == (Skipped(reason, (name,)),)


def test_two_vendors_models_of_one_name_stay_apart() -> None:
    """Where the short name is taken at a provider, the whole path in lower case is the name."""
    facts = {"litellm_provider": "deepinfra", "mode": "chat"}
    result = import_prices({"deepinfra/One/Chat": facts, "deepinfra/Two/Chat": facts})
    entries = parse(result).catalog.entries
    assert [(entry.endpoint.model, entry.upstream_model) for entry in entries] == [
        ("chat", "One/Chat"),
        ("two/chat", "Two/Chat"),
    ]


def test_a_limit_in_words_is_unknown() -> None:
    """Limits that are no numbers of tokens, or impossible ones, are absent rather than wrong."""
    for value in ("many", 0, -1, 1e300, 10**400, float("nan"), True, [1], "9" * 30):
        [entry] = parse(
            import_prices(model_of({"max_input_tokens": value, "max_output_tokens": value}))
        ).catalog.entries
        assert entry.endpoint == Endpoint("m", "openai", lacks=DIALECTS["openai"].lacks)


def test_an_answer_longer_than_the_context_is_unknown() -> None:
    """A limit on the answer beyond the context says nothing and is left out."""
    facts: dict[str, object] = {"max_input_tokens": 1000, "max_output_tokens": 2000}
    [entry] = parse(import_prices(model_of(facts))).catalog.entries
    assert entry.endpoint == Endpoint("m", "openai", context_token_count_max=1000, lacks=DIALECTS["openai"].lacks)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("[" * 200_000, "is no JSON"),
        ("[]", "must be an object with one member for each model"),
        ("{}", "holds no chat model of a provider whose address is known and that was asked for"),
    ],
)
def test_a_text_of_another_format_is_refused(text: str, reason: str) -> None:
    """What is not such a file, or yields nothing, is a ConfigError that says so."""
    with pytest.raises(ConfigError) as caught:
        import_litellm_prices(text)
    assert str(caught.value) == f"the file of model prices is not valid:\n  file: {reason}"


def test_no_more_endpoints_than_a_catalog_holds() -> None:
    """The import is bounded, and counts what was beyond the bound."""
    content = {f"m{n}": {"litellm_provider": "openai", "mode": "chat"} for n in range(4100)}
    result = import_prices(content)
    assert result.endpoint_count == 4096
    assert [(skipped.reason, len(skipped.models)) for skipped in result.skipped] == [
        ("beyond the 4096 endpoints of a catalog", 4)
    ]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda children: st.lists(children, max_size=2) | st.dictionaries(st.text(max_size=4), children, max_size=2),
    max_leaves=4,
)
MODELS = st.fixed_dictionaries(
    {"litellm_provider": st.sampled_from(["openai", "groq", "together_ai"]) | JSON_VALUES, "mode": st.just("chat")},
    optional={
        "input_cost_per_token": st.floats(0.0, 1e-2) | JSON_VALUES,
        "output_cost_per_token": st.floats(0.0, 1e-2) | JSON_VALUES,
        "max_input_tokens": st.integers(1, 10**7) | JSON_VALUES,
        "max_output_tokens": st.integers(1, 10**7) | JSON_VALUES,
        "supports_vision": JSON_VALUES,
    },
)
MODEL_NAMES = st.text("aB1./:-@ü\"\\\n'", min_size=1, max_size=8) | st.text(max_size=8)


@given(st.dictionaries(MODEL_NAMES, MODELS | JSON_VALUES, max_size=8))
def test_what_was_imported_is_always_a_sound_configuration(content: dict[str, object]) -> None:
    """Of any file, what is imported parses back, and every model is either taken over or counted as left out."""
    content = {"always": {"litellm_provider": "openai", "mode": "chat"}} | content
    try:
        result = import_prices(content)
    except ConfigError:
        return
    config = parse(result)
    assert len(config.catalog.entries) == result.endpoint_count
    assert result.endpoint_count + sum(len(skipped.models) for skipped in result.skipped) == len(
        content.keys() - {"sample_spec"}
    )
