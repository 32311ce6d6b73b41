"""The client of every language does what conformance/scenarios.json says, and docs/clients.md tells which ones do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from polyglot.toolchains import require

from conformance.clients import LANGUAGES, Language
from conformance.report import cell, rows_of_page
from conformance.run import Outcome, outcomes
from conformance.scenario import load_scenarios

SCENARIOS = load_scenarios()


@dataclass(frozen=True, slots=True)
class Asked:
    """A language, and what came of each scenario with its client."""

    language: Language
    outcomes: Mapping[str, Outcome]


@pytest.fixture(scope="module", params=LANGUAGES)
def asked(request: pytest.FixtureRequest) -> Asked:
    """Every scenario with one language's client, once for all tests."""
    language = LANGUAGES[str(request.param)]
    require(language.title, language.missing_tools())
    return Asked(language, asyncio.run(outcomes(language, SCENARIOS)))


def test_the_client_does_what_every_scenario_says(asked: Asked) -> None:
    """Against the real server each call gets the events, status and details, and each provider sees what it should."""
    wrong = {name: outcome.differences for name, outcome in asked.outcomes.items() if outcome.differences}
    assert wrong == {}
    assert list(asked.outcomes) == [scenario.name for scenario in SCENARIOS]


def test_the_matrix_on_the_page_is_what_was_seen(asked: Asked) -> None:
    """docs/clients.md has a row for every scenario, and in the language's column what came of it."""
    shown = {row["scenario"]: row[asked.language.title] for row in rows_of_page()}
    assert shown == {scenario.title: cell(asked.outcomes[scenario.name]) for scenario in SCENARIOS}
