"""What an endpoint can't do of what is asked is a reason against it, told before anything is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from e2e.harness import Running, config_of, refusing, running, streaming
from pointsman import NoEligibleEndpointError, conversation, user
from pointsman.v1 import router_service_pb2, routing_pb2
from pointsman.v1.chat_pb2 import SamplingOptions, ToolCall
from pointsman_server.providers.scripted import ScriptedUpstream


@asynccontextmanager
async def serving(*, fallback: bool = True) -> AsyncIterator[tuple[Running, ScriptedUpstream]]:
    """A server with a model at a provider that can't draw by a seed, and at one that speaks plain OpenAI."""
    async with ScriptedUpstream(streaming("ok")) as plain, ScriptedUpstream(refusing(500)) as unused:
        toml = f"""
            [providers.claude]
            adapter = "anthropic"
            base_url = "{unused.base_url}"
            [[endpoints]]
            model = "m"
            provider = "claude"
            output_token_count_max = 100
            cache_write_price_usd_per_mtok = 1.25
            [providers.plain]
            base_url = "{plain.base_url}"
            [[endpoints]]
            model = "{"m" if fallback else "another"}"
            provider = "plain"
        """
        async with running(config_of(toml)) as server:
            yield server, unused


async def test_a_seed_rejects_who_cannot_draw_by_it() -> None:
    """With that reason; the other endpoint answers, and the first is never called."""
    asked = conversation("hi", sampling=SamplingOptions(seed=7))
    async with serving() as (server, unused):
        answer = await server.client.complete_text(asked, router="m@lowest-ttft")
        assert answer.endpoint == "m@plain"
        (rejected,) = [c for c in answer.decision.candidates if c.endpoint == "m@claude"]
        assert [(r.reason, r.constraint) for r in rejected.rejections] == [
            (routing_pb2.REJECTION_REASON_MISSING_CAPABILITY, "request:seed")
        ]
        assert unused.connections == []


async def test_where_nobody_can_the_caller_is_told_why() -> None:
    """No endpoint satisfies: the reasons stand in the error."""
    asked = conversation("hi", sampling=SamplingOptions(seed=7, presence_penalty=1.0))
    async with serving(fallback=False) as (server, unused):
        with pytest.raises(NoEligibleEndpointError) as raised:
            await server.client.complete_text(asked, router="m@claude")
        (rejected,) = [c for c in raised.value.candidates if c.endpoint == "m@claude"]
        assert {r.constraint for r in rejected.rejections} == {"request:penalties", "request:seed"}
        assert unused.connections == []


async def test_what_depends_on_a_value_fails_the_attempt_before_it_is_made() -> None:
    """A call with arguments that are no object: Anthropic's format can't say them, the next candidate's can."""
    asked = conversation("hi")
    asked.messages.add(role="ROLE_ASSISTANT", tool_calls=[ToolCall(id="1", name="f", arguments_json="[1]")])
    result = asked.messages.add(role="ROLE_TOOL", tool_call_id="1")
    result.parts.add().text.text = "r"
    async with serving() as (server, unused):
        answer = await server.client.complete_text(asked, router="m@claude->m@plain")
        assert answer.endpoint == "m@plain"
        (failed,) = answer.failed_attempts
        assert failed.kind == routing_pb2.ATTEMPT_FAILURE_KIND_REJECTED
        assert "a tool call whose arguments are no JSON object" in failed.message
        assert unused.connections == []


async def test_the_catalog_shows_what_an_endpoint_lacks_and_costs() -> None:
    """By the names of docs/providers.md."""
    async with serving() as (server, _):
        listed = await server.stub.ListEndpoints(router_service_pb2.ListEndpointsRequest())
        (claude,) = [status.endpoint for status in listed.endpoints if status.endpoint.provider == "claude"]
        assert "seed" in claude.lacks
        assert "late_system_turns" not in claude.lacks
        assert claude.cache_write_input_price_usd_per_million_tokens == 1.25


async def test_the_usual_request_rejects_nobody() -> None:
    """A plain question goes wherever it is sent."""
    async with serving() as (server, _):
        decision = await server.client.route(conversation(user("hi")), router="m@lowest-ttft")
        assert {c.endpoint for c in decision.candidates if not c.rejections} == {"m@claude", "m@plain"}
