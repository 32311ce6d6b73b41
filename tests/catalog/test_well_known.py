"""The shipped catalog is sound."""

from __future__ import annotations

import datetime as dt
import math
import tomllib
from collections import Counter

from pointsman_server.catalog.well_known import well_known_text
from pointsman_server.config import Config, load_config
from pointsman_server.decision.types import Capability

DOCUMENT = tomllib.loads(well_known_text())


def whole_catalog() -> Config:
    """The built-in configuration with every key in the environment."""
    return load_config(None, {provider["api_key_env"]: "key" for provider in DOCUMENT["providers"].values()})


def test_it_is_dated() -> None:
    """The file says when its prices were read."""
    assert dt.date.fromisoformat(DOCUMENT["prices_as_of"]) >= dt.date(2026, 1, 1)


def test_it_is_as_large_as_promised_and_complete() -> None:
    """At least 40 endpoints of at least 10 providers, none of them lost or left out."""
    config = whole_catalog()
    assert len(config.catalog.entries) == len(DOCUMENT["endpoints"]) >= 40
    assert config.catalog.providers == DOCUMENT["providers"].keys()
    assert len(config.catalog.providers) >= 10
    assert config.notices == ()


def test_every_price_is_known_finite_and_plausible() -> None:
    """Input and output have a price; output costs at least as much, cached input at most as much as input."""
    for endpoint in whole_catalog().catalog.endpoints:
        input_price, output_price = endpoint.input_price_usd_per_mtok, endpoint.output_price_usd_per_mtok
        cached_price = endpoint.cached_input_price_usd_per_mtok
        assert input_price is not None, endpoint.name
        assert output_price is not None, endpoint.name
        assert math.isfinite(input_price), endpoint.name
        assert 0.0 < input_price <= output_price <= 200.0, endpoint.name
        assert cached_price is None or 0.0 < cached_price <= input_price, endpoint.name


def test_every_context_is_known_and_plausible() -> None:
    """Contexts are from 8 thousand to 2 million tokens."""
    for endpoint in whole_catalog().catalog.endpoints:
        assert endpoint.context_token_count_max is not None, endpoint.name
        assert 8_192 <= endpoint.context_token_count_max <= 2_100_000, endpoint.name


def test_open_models_are_at_several_providers_under_one_name() -> None:
    """There is something to choose between providers: several models with at least three endpoints."""
    counts = Counter(endpoint.model for endpoint in whole_catalog().catalog.endpoints)
    assert {"gpt-oss-120b", "kimi-k3", "glm-5.3", "deepseek-v4.1-flash"} <= {
        model for model, count in counts.items() if count >= 3
    }


def test_a_capability_that_the_api_drops_is_not_promised() -> None:
    """Anthropic's API has no way to ask for just any JSON, so no endpoint there promises it; a schema it follows."""
    for endpoint in whole_catalog().catalog.endpoints:
        if endpoint.provider == "anthropic":
            assert Capability.JSON_OBJECT not in endpoint.capabilities, endpoint.name
            assert Capability.JSON_SCHEMA in endpoint.capabilities, endpoint.name


def test_providers_with_an_api_of_their_own_are_called_by_it() -> None:
    """Anthropic and Google by theirs, all others by OpenAI's."""
    adapters = whole_catalog().adapters
    assert adapters.keys() == DOCUMENT["providers"].keys()
    own = {name: adapter for name, adapter in adapters.items() if adapter != "openai_compatible"}
    assert own == {"anthropic": "anthropic", "gemini": "gemini"}


def test_what_is_written_to_a_cache_costs_no_less_than_input() -> None:
    """Where the price of writing is known it is that of the input, or more."""
    for endpoint in whole_catalog().catalog.endpoints:
        write_price, input_price = endpoint.cache_write_price_usd_per_mtok, endpoint.input_price_usd_per_mtok
        assert write_price is None or input_price is None or input_price <= write_price, endpoint.name


def test_every_provider_is_called_over_tls() -> None:
    """Keys never travel in the clear."""
    assert all(settings.base_url.startswith("https://") for settings in whole_catalog().providers.values())
