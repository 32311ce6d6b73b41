"""Prompt caches end to end, and docs/prompt-cache.md: its numbers are the code's, its example prints what it shows."""

from __future__ import annotations

import json
import re
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, STDOUT

import pytest
from e2e.harness import DONE_EVENT, FINISH_EVENT, config_of, delta_event, endpoints, running, urls_of
from pointsman import InvalidRequestError, assistant, explain, system, user
from pointsman.v1.routing_pb2 import Affinity
from pointsman_server.providers.scripted import (
    LAST_CHUNK,
    Hang,
    ReadRequest,
    Script,
    ScriptedUpstream,
    Send,
    event,
    stream_head,
)
from pointsman_server.runtime import prompt_cache
from test_docs import page, rows

PAGE = page("prompt-cache.md")
CACHED_PRICE = "cached_input_price_usd_per_mtok = 0.1"
NO_CHANCE = "\n[routers.default]\nexploration_rate = 0.0\n"
LONG = "Article 1. The points are set before the train comes. " * 200


def answering(*, input_count: int, cached_count: int) -> Script:
    """A script that answers one request and reports these tokens."""
    usage = {
        "prompt_tokens": input_count,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": cached_count},
    }
    end = FINISH_EVENT + event(json.dumps({"choices": [], "usage": usage})) + DONE_EVENT + LAST_CHUNK
    return (ReadRequest(), Send(stream_head()), Send(delta_event("In time.")), Send(end))


def block(name: str) -> str:
    """The code block that follows the comment with that name."""
    match = re.search(rf"<!-- test: {name} -->\n```[a-z]+\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None, name
    return match[1]


async def test_a_conversation_goes_on_where_it_was_answered() -> None:
    """The second turn is expected to find the first in the cache of who answered it, and to cost less there than at its
    like; the decision says that it stays, in the protocol and in words. Short prompts have nothing to stay for."""
    async with (
        ScriptedUpstream(answering(input_count=2700, cached_count=0)) as one,
        ScriptedUpstream(answering(input_count=2700, cached_count=0)) as other,
    ):
        toml = endpoints(
            {"one": ["gpt-4o-mini"], "other": ["gpt-4o-mini"]}, urls_of(one=one, other=other), extra=CACHED_PRICE
        )
        async with running(config_of(toml + NO_CHANCE)) as server:
            turns = [system(LONG), user("When?")]
            assert (await server.client.route(turns)).affinity == Affinity.AFFINITY_UNSPECIFIED
            answer = await server.client.complete_text(turns)
            answered_by = answer.done.endpoint
            turns += [assistant(answer.text), user("By whom?")]
            decision = await server.client.route(turns)
            short = await server.client.route("hi")
    assert "and has read the conversation before" in explain(decision)
    assert (decision.endpoint, decision.affinity) == (answered_by, Affinity.AFFINITY_KEPT)
    first, second = decision.candidates
    assert first.cached_input_token_count > 0.4 * decision.input_token_count
    assert second.cached_input_token_count == 0.0
    assert first.cost_usd < 0.7 * second.cost_usd
    assert short.affinity == Affinity.AFFINITY_UNSPECIFIED


async def test_who_calls_by_himself_tells_by_reporting() -> None:
    """A decision without a call leaves nothing in a cache; a reported success does, a reported failure does not."""
    toml = endpoints(
        {"one": ["gpt-4o-mini"], "other": ["gpt-4o-mini"]},
        dict.fromkeys(("one", "other"), "http://127.0.0.1:9/v1"),
        extra=CACHED_PRICE,
    )
    async with running(config_of(toml + NO_CHANCE)) as server:
        client, turns = server.client, [system(LONG), user("When?")]
        first = await client.route(turns)
        assert (await client.route(turns)).affinity == Affinity.AFFINITY_UNSPECIFIED
        await client.report_outcome(first.id, failure="server_error", duration_s=0.1)
        assert (await client.route(turns)).affinity == Affinity.AFFINITY_UNSPECIFIED
        await client.report_outcome(first.id, ttft_s=0.2, duration_s=0.4, output_token_count=10)
        again = await client.route(turns)
    cached = {candidate.endpoint for candidate in again.candidates if candidate.cached_input_token_count}
    assert cached == {first.endpoint}


async def test_a_conversation_id_is_bounded() -> None:
    """One that is too long is refused like every other fault of a request."""
    toml = endpoints({"one": ["gpt-4o-mini"]}, {"one": "http://127.0.0.1:9/v1"})
    async with running(config_of(toml + NO_CHANCE)) as server:
        await server.client.route("hi", conversation_id="c" * 256)
        with pytest.raises(InvalidRequestError) as caught:
            await server.client.route("hi", conversation_id="c" * 257)
    assert [violation.field for violation in caught.value.violations] == ["routing.conversation_id"]


def test_the_numbers_are_those_of_the_code() -> None:
    """Each number of the table is the constant that the code goes by."""
    assert [row[1] for row in rows(PAGE, "number")] == [
        f"{prompt_cache.BEGINNING_TOKEN_COUNT_MIN:,} tokens",
        f"{prompt_cache.LIFETIME_S:g} s",
        f"{prompt_cache.HIT_SHARE_PRIOR * 100:g} %",
        f"{prompt_cache.BEGINNING_COUNT_MAX:,}",
    ]


async def test_the_example_prints_what_the_page_shows() -> None:
    """Against a provider that has all of the last turn in its cache, and one that is dearer, the program ends with the
    output below it."""
    script = (*answering(input_count=2710, cached_count=0), *answering(input_count=2720, cached_count=2700))
    async with ScriptedUpstream(script) as cheap, ScriptedUpstream((ReadRequest(), Hang())) as dear:
        toml = endpoints({"cheap": ["gpt-4o-mini"]}, urls_of(cheap=cheap), extra=CACHED_PRICE)
        toml += "\n" + endpoints({"dear": ["gpt-4o-mini"]}, urls_of(dear=dear), extra=CACHED_PRICE).replace(
            "= 1.0", "= 9.0"
        )
        async with running(config_of(toml + NO_CHANCE)) as server:
            program = block("program").replace("127.0.0.1:50061", server.address)
            process = await create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE, stderr=STDOUT)
            printed, _ = await process.communicate()
    assert (process.returncode, printed.decode()) == (0, block("printed"))
