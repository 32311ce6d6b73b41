"""docs/providers.md says what the adapters do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pointsman_server.config import parse_config
from pointsman_server.decision.types import RequestFeature
from pointsman_server.providers.dialects import DIALECTS, Dialect
from pointsman_server.providers.registry import ADAPTERS
from pointsman_server.providers.traits import ADAPTER_TRAITS
from test_docs import blocks, page, rows

PAGE = page("providers.md")


def names(text: str) -> list[str]:
    """The words in backquotes, in the order in which they stand."""
    return re.findall(r"`(\w+)`", text)


def test_the_example_is_a_sound_configuration() -> None:
    """Its endpoints are called as they are written."""
    ((_, example),) = blocks(PAGE, "toml")
    keys = dict.fromkeys(("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "AZURE_OPENAI_API_KEY"), "key")
    config = parse_config(example, source="docs/providers.md", directory=Path(), environment=keys)
    assert config.adapters == {"claude": "anthropic", "google": "gemini", "azure-eu": "openai_compatible"}
    assert config.providers["azure-eu"].dialect == DIALECTS["azure"]


def test_each_dialect_has_its_row() -> None:
    """With all that it lacks, and with nothing said of one that is as OpenAI's documentation has it."""
    table = {names(row[0])[0]: row for row in rows(PAGE, "dialect")}
    assert list(table) == list(DIALECTS)
    for name, (_, otherwise, lacks) in table.items():
        dialect = DIALECTS[name]
        assert names(lacks) == sorted(feature.value for feature in dialect.lacks), name
        plain = Dialect(name=name, lacks=dialect.lacks) == dialect
        assert (otherwise == "nothing") == plain, name
        assert ("max_completion_tokens" in otherwise) == (dialect.max_tokens_field == "max_completion_tokens"), name


def test_each_thing_that_an_endpoint_can_lack_has_its_row() -> None:
    """No more and no less."""
    assert sorted(names(row[0])[0] for row in rows(PAGE, "name")) == sorted(feature.value for feature in RequestFeature)


@pytest.mark.parametrize("adapter", ["anthropic", "gemini"])
def test_what_a_format_lacks_is_told(adapter: str) -> None:
    """All of it, in the order of the alphabet."""
    (told,) = re.findall(rf"`{adapter}` lacks ((?:`\w+`(?:,\s)?)+)", PAGE)
    assert names(told) == sorted(feature.value for feature in ADAPTER_TRAITS[adapter].lacks)


def test_each_format_has_its_column_and_its_traits() -> None:
    """The registry, the configuration and the page know the same adapters."""
    header = next(line for line in PAGE.splitlines() if line.startswith("| ours |"))
    assert set(names(header)) == ADAPTERS.keys() == ADAPTER_TRAITS.keys()
