"""The decision log of a whole server: what is in it, and what never is."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.harness import Running, config_of, delta_event, endpoints, refusing, running, streaming, urls_of
from pointsman import (
    AttemptsExhaustedError,
    DeadlineExceededError,
    Delta,
    NoEligibleEndpointError,
    StreamBrokenError,
    constraints,
)
from pointsman_server.config import Config
from pointsman_server.decision.decide import decide
from pointsman_server.decision_log.codec import decision_bytes
from pointsman_server.decision_log.reader import DecisionLogReader, LoggedRequest
from pointsman_server.decision_log.records import CompletionResult
from pointsman_server.decision_log.segments import segment_paths
from pointsman_server.errors import ConfigError, UpstreamErrorKind
from pointsman_server.providers.scripted import Hang, ReadRequest, Script, ScriptedUpstream, Send, stream_head

CANARY = "canary-7f3a91"
KEY = "key-canary-55d1"
PROMPT = f"What is 17 * 23? {CANARY}"


@dataclass(frozen=True, slots=True)
class Logging:
    """A server with a log, and where that is."""

    server: Running
    directory: Path


def config_with_log(directory: Path, urls: dict[str, str], *, extra: str = "") -> Config:
    """Two providers with one model each, logged in this directory."""
    catalog = endpoints({"north": ["gpt-4o"], "south": ["llama-3.1-8b-instruct"]}, urls)
    catalog = catalog.replace('adapter = "openai_compatible"', 'adapter = "openai_compatible"\napi_key_env = "KEY"')
    return config_of(f'{catalog}\n[decision_log]\ndirectory = "{directory}"\n{extra}', {"KEY": KEY, "CLIENTS": KEY})


@asynccontextmanager
async def logging_server(directory: Path, *scripts: Sequence[Script], extra: str = "") -> AsyncIterator[Logging]:
    """A server over scripted providers; `scripts` are the answers of north, then of south."""
    north, south = scripts
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(ScriptedUpstream(*north))
        other = await stack.enter_async_context(ScriptedUpstream(*south))
        config = config_with_log(directory, urls_of(north=one, south=other), extra=extra)
        yield Logging(await stack.enter_async_context(running(config)), directory)


def read(directory: Path) -> list[LoggedRequest]:
    """What the log holds; nothing of it is damaged."""
    reader = DecisionLogReader(directory)
    found = list(reader.requests())
    assert reader.damage.line_count == 0
    return found


async def test_a_request_is_logged_with_all_that_came_of_it(tmp_path: Path) -> None:
    """Features, candidates, snapshot, propensity, seed and versions; then the attempts and the answer; then the quality
    that was reported; and from what is logged the same is decided again, byte for byte."""
    directory = tmp_path / "log"
    scripts = [[refusing(503), streaming("3", "91")], [streaming("391", " it is"), streaming("x")]]
    async with logging_server(directory, *scripts) as logging:
        client = logging.server.client
        answer = await client.complete_text(PROMPT, router="router@q:1|rc:5", seed=11)
        await client.report_outcome(answer.decision.id, quality=0.25, quality_source="user")
        await client.report_outcome(answer.decision.id, quality=0.75, quality_source="judge")
        routed = await client.route(PROMPT, constraints=constraints(skip_providers=["south"]))
    completed, only_routed = read(directory)
    logged = completed.decision
    assert (logged.decision_id, logged.given.seed, logged.served) == (answer.decision.id, 11, True)
    assert logged.given.router_version == answer.decision.router_version
    assert logged.given.quality_artifact == answer.decision.quality_artifact
    assert (logged.caller_seeded, only_routed.decision.caller_seeded) == (True, False)
    assert (str(logged.asked), logged.prompt.character_count) == ("router@q:1|rc:5", len(PROMPT))
    assert logged.given.facts.input_token_count == answer.decision.input_token_count
    chosen = logged.decision.chosen
    assert chosen is not None
    assert (chosen.endpoint.name, chosen.probability) == (answer.decision.endpoint, answer.decision.probability)
    assert completed.completion is not None
    assert (completed.completion.result, completed.completion.endpoint_name) == (CompletionResult.DONE, answer.endpoint)
    assert completed.completion.attempt_count == len(completed.completion.attempts) == 2
    failed, won = completed.completion.attempts
    assert (failed.endpoint_name, failed.failure) == (answer.decision.endpoint, UpstreamErrorKind.SERVER_ERROR)
    assert (won.endpoint_name, won.failure, won.input_token_count, won.output_token_count) == (
        answer.endpoint,
        None,
        11,
        3,
    )
    assert completed.completion.cost_usd == pytest.approx(answer.cost_usd)
    assert [(report.quality, report.quality_source) for report in completed.reports] == [
        (0.25, "user"),
        (0.75, "judge"),
    ]
    assert (completed.quality, completed.answered_by) == (0.75, answer.endpoint)
    assert (only_routed.decision.decision_id, only_routed.decision.served) == (routed.id, False)
    assert only_routed.decision.overlay.space.skip_providers == {"south"}
    assert (only_routed.completion, only_routed.reports) == (None, ())
    for request in (completed, only_routed):
        given = request.decision.given
        assert decision_bytes(given, decide(given)) == decision_bytes(given, request.decision.decision)


async def test_neither_prompt_nor_key_is_ever_in_the_log(tmp_path: Path) -> None:
    """By default a log has the traits of a prompt, not a word of it, nor of an answer, a tool, an assignment key or a
    provider's error; opted in, it has the prompt, and still nothing else of these."""
    for number, extra in enumerate(("", "keep_prompts = true")):
        directory = tmp_path / f"log-{number}"
        scripts = [[refusing(500), streaming(f"{CANARY}-answer")], [refusing(500), streaming(f"{CANARY}-answer")]]
        async with logging_server(directory, *scripts, extra=extra) as logging:
            client = logging.server.client
            with pytest.raises(AttemptsExhaustedError):
                await client.complete_text(PROMPT, assignment_key=f"{CANARY}-user")
            await client.complete_text(PROMPT, assignment_key=f"{CANARY}-user")
        written = b"".join(path.read_bytes() for path in segment_paths(directory)).decode()
        first, second = read(directory)
        assert first.completion is not None
        assert second.completion is not None
        assert (first.completion.result, second.completion.result) == (
            CompletionResult.EXHAUSTED,
            CompletionResult.DONE,
        )
        kept = [request.decision.prompt.text for request in (first, second)]
        assert kept == ([PROMPT, PROMPT] if extra else [None, None])
        assert written.count(CANARY) == (2 if extra else 0)
        for secret in (KEY, "a secret detail of the provider", "17 * 23") if not extra else (KEY, "a secret detail"):
            assert secret not in written


async def test_every_end_of_a_completion_is_told(tmp_path: Path) -> None:
    """A caller that leaves, a deadline that passes and an answer that breaks off are told apart."""
    directory = tmp_path / "log"
    hanging = (ReadRequest(), Send(stream_head()), Send(delta_event("3")), Hang())
    broken = (ReadRequest(), Send(stream_head()), Send(delta_event("3")))
    async with logging_server(directory, [hanging, hanging, broken], [streaming("x")]) as logging:
        client = logging.server.client
        only_north = constraints(providers=["north"])
        async for event in client.complete(PROMPT, constraints=only_north):
            if isinstance(event, Delta):
                break
        with pytest.raises(DeadlineExceededError):
            await client.complete_text(PROMPT, constraints=only_north, timeout_s=0.5)
        with pytest.raises(StreamBrokenError):
            await client.complete_text(PROMPT, constraints=only_north)
    results = [request.completion.result for request in read(directory) if request.completion is not None]
    assert results[0] is CompletionResult.LEFT
    assert results[1] in {CompletionResult.DEADLINE, CompletionResult.LEFT}
    assert results[2] is CompletionResult.BROKEN


async def test_a_decision_for_nobody_is_logged_too(tmp_path: Path) -> None:
    """Where nothing is eligible the rejections and the nearest relaxations come back."""
    directory = tmp_path / "log"
    async with logging_server(directory, [streaming("x")], [streaming("x")]) as logging:
        with pytest.raises(NoEligibleEndpointError):
            await logging.server.client.route(PROMPT, router="router@c<0.001")
    (request,) = read(directory)
    assert request.decision.decision.chosen is None
    assert request.decision.decision.relaxations
    assert request.answered_by is None


async def test_a_log_that_cannot_be_written_to_is_told_at_the_start(tmp_path: Path) -> None:
    """The server does not start, and names the directory."""
    directory = tmp_path / "log"
    config = config_with_log(directory, {"north": "http://127.0.0.1:9/v1", "south": "http://127.0.0.1:9/v1"})
    directory.write_text("not a folder")
    with pytest.raises(ConfigError, match=re.escape(f"decision_log.directory: can't write to {directory}")):
        async with running(config):
            pass
