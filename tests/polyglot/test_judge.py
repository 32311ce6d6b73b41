"""The conformance suite finds what is wrong: a client can't pass by leaving something out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pointsman_server.providers.scripted import ReadRequest, ScriptedUpstream, Send
from polyglot.toolchains import require

from conformance.clients import LANGUAGES, CommandError, execute
from conformance.judge import differences, merged, mismatches
from conformance.report import matrix
from conformance.run import Outcome, at_new_target, outcome_of
from conformance.runner import RunnerError, Seen, running
from conformance.scenario import Scenario, load_scenarios
from conformance.stage import Stage, staged

SEEN = Seen(
    status="OK",
    message="",
    reason="",
    metadata={},
    violations=(),
    no_eligible_endpoint=None,
    attempts_exhausted=None,
    retry_after_s=None,
    responses=(),
)
SCENARIOS = {scenario.name: scenario for scenario in load_scenarios()}


@pytest.mark.parametrize(
    ("pattern", "got", "difference"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, None),
        ({"a": 1}, {"b": 2}, "x.a is null, expected 1"),
        ({"a": [{"b": 1}, {}]}, {"a": [{"b": 1, "c": 2}, {"d": 3}]}, None),
        ([1, 2], [1], "x is [1], expected [1, 2]"),
        ([1], [1, 2], "x is [1, 2], expected [1]"),
        ("text", "texts", 'x is "texts", expected "text"'),
        (0.3, 0.1 + 0.2, None),
        (0.3, 0.31, "x is 0.31, expected 0.3"),
        ({}, None, "x is null, expected {}"),
        (None, "whatever", None),
    ],
)
def test_a_pattern_matches_what_has_all_that_it_names(pattern: Any, got: Any, difference: str | None) -> None:
    """Objects may have more, lists may not; numbers are equal but for rounding; everything else is equal."""
    assert list(mismatches(pattern, got, "x")) == ([] if difference is None else [difference])


def test_neighbouring_pieces_of_one_thing_are_one() -> None:
    """Texts that follow each other are one delta, fragments of one tool call one; others are not."""
    pieces: list[dict[str, Any]] = [
        {"delta": {"text": "a"}},
        {"delta": {"text": "b"}},
        {"toolCallDelta": {"id": "1", "argumentsJsonFragment": "{"}},
        {"toolCallDelta": {"argumentsJsonFragment": "}"}},
        {"toolCallDelta": {"index": 1, "argumentsJsonFragment": "{}"}},
        {"delta": {"text": "c"}},
    ]
    assert list(merged(pieces)) == [
        {"delta": {"text": "ab"}},
        {"toolCallDelta": {"id": "1", "argumentsJsonFragment": "{}"}},
        {"toolCallDelta": {"index": 1, "argumentsJsonFragment": "{}"}},
        {"delta": {"text": "c"}},
    ]


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_client_that_does_nothing_passes_no_scenario(name: str) -> None:
    """Whoever answers OK, and has neither called nor seen anything, is told."""
    scenario = SCENARIOS[name]
    async with staged(scenario) as stage:
        assert await differences(scenario, SEEN, stage, close_patience_s=0.01) != []


async def test_a_failure_that_nobody_expected_is_told_with_its_message() -> None:
    """A client that says UNAVAILABLE also says why; what a scenario expects needs no explanation."""
    scenario = SCENARIOS["watch-endpoints"]
    failed = replace(SEEN, status="UNAVAILABLE", message="io exception")
    left = replace(SEEN, status="CANCELLED", message="cancelled", responses=tuple(expected_responses(scenario)))
    async with staged(scenario) as stage:
        found = await differences(scenario, failed, stage)
        assert 'message is "io exception", which may say why' in found
        assert await differences(scenario, left, stage) == []


async def test_a_call_that_is_left_open_upstream_is_told() -> None:
    """A provider's connection that nobody closes is a difference, and one that was closed is none."""
    scenario = SCENARIOS["cancel-midway"]
    cancelled = replace(SEEN, status="CANCELLED", responses=tuple(expected_responses(scenario)))
    async with ScriptedUpstream((ReadRequest(), Send(b"nothing"))) as upstream:
        stage = Stage("127.0.0.1:1", None, {"north": upstream}, None)
        _, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        await upstream.connection(0)
        left_open = await differences(scenario, cancelled, stage, close_patience_s=0.01)
        writer.close()
        closed = await differences(scenario, cancelled, stage)
    assert left_open == ["north: the call upstream was left open"]
    assert closed == []


def expected_responses(scenario: Scenario) -> list[dict[str, Any]]:
    """Responses just as the scenario expects them."""
    responses: Any = scenario.expect["responses"]
    return list(responses)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expects": {}}, "there is no expects in a scenario"),
        ({"call": {"method": "Route", "requests": [{}], "when": 1}}, "there is no when in a call"),
        ({"call": {"method": "Route", "requests": [{"prompt": "hi"}]}}, 'no field named "prompt"'),
    ],
)
def test_a_misspelt_scenario_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """A key that nobody reads would be an expectation that nobody checks."""
    scenario = {"name": "n", "title": "t", "call": {"method": "Route", "requests": [{}]}, "expect": {}} | change
    file = tmp_path / "scenarios.json"
    file.write_text(json.dumps([scenario]), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_scenarios(file)


@pytest.mark.parametrize(("command", "message"), [("true", "has ended"), ("echo nonsense; cat", "not a result")])
async def test_a_runner_that_fails_is_no_client_that_passes(command: str, message: str) -> None:
    """A runner that ends, or answers what is no result, is an error of its own."""
    scenario = SCENARIOS["retry"]
    async with (
        staged(scenario) as stage,
        running(("sh", "-c", command), folder=Path(), environment={"PATH": "/usr/bin:/bin"}) as runner,
    ):
        with pytest.raises(RunnerError, match=message):
            await runner.call(scenario, stage)


async def test_no_two_scenarios_are_played_at_one_address() -> None:
    """Where a port comes again the stage that has it stays, so that it can't come once more, until one has another; all end
    with the block."""
    ports, ended = iter((1, 2, 1, 2, 3)), []

    @asynccontextmanager
    async def make() -> AsyncIterator[Stage]:
        stage = Stage(f"127.0.0.1:{next(ports)}", None, {}, None)
        yield stage
        ended.append(stage.target)

    targets: set[str] = set()
    for expected, left in (("127.0.0.1:1", 1), ("127.0.0.1:2", 1), ("127.0.0.1:3", 3)):
        ended.clear()
        async with AsyncExitStack() as stack:
            assert (await at_new_target(stack, make, targets)).target == expected
            assert ended == []
        assert len(ended) == left


def test_what_is_said_to_be_impossible_must_fail() -> None:
    """A scenario that passes though it can't is told; each is one that there is."""
    assert outcome_of(("status is wrong",), "no streams") == Outcome((), "no streams")
    assert outcome_of((), "no streams") == Outcome(
        ("it is possible, though said not to be (no streams)",), "no streams"
    )
    assert outcome_of((), "") == Outcome(())
    assert {name for language in LANGUAGES.values() for name in language.impossible} <= SCENARIOS.keys()


def test_the_matrix_says_what_can_not_be_and_why() -> None:
    """A cell of its own, and below the table the reason."""
    scenario = SCENARIOS["report-outcomes"]
    seen = {"go": {scenario.name: Outcome(())}, "envoy-web": {scenario.name: Outcome((), "there is no stream")}}
    _, _, row, _, note = matrix([scenario], seen).splitlines()
    assert row == f"| {scenario.title} | yes | can't be |"
    assert note == (f'can\'t be: "{scenario.title}" by Envoy: gRPC-Web, from Chromium, because there is no stream.')


def test_a_missing_toolchain_is_named() -> None:
    """A language knows which of its programs are not there."""
    language = replace(LANGUAGES["go"], tools=("sh", "no-such-program"))
    assert language.missing_tools() == ["no-such-program"]


def test_a_build_that_fails_says_what_its_tools_said(tmp_path: Path) -> None:
    """The error has the command, and what it printed."""
    with pytest.raises(CommandError, match=r"(?s)failed:.*some words"):
        execute((("sh", "-c", "echo some words; exit 1"),), tmp_path)


def test_a_missing_toolchain_skips_its_tests_but_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both say what is missing; what is there is no matter of either."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="Go: go and gofmt not found"):
        require("Go", ["go", "gofmt"])
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="Go: go and gofmt not found"):
        require("Go", ["go", "gofmt"])
    require("Go", [])
