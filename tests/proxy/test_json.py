"""JSON over plain HTTP through a real Envoy: what curl, a script or any HTTP client gets of Pointsman."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
from e2e.harness import delta_event, refusing, streaming
from e2e.test_service import health_of
from grpc_health.v1.health_pb2 import HealthCheckResponse
from pointsman import AsyncClient
from pointsman_server.providers.scripted import Hang, ReadRequest, Reset, Script, Send, WaitFor, stream_head
from proxy.harness import IN_ORDER, PATIENCE_S, SERVICE, behind_envoy

BEGUN: Script = (ReadRequest(), Send(stream_head()), Send(delta_event("Hel")), Hang())
BREAKING: Script = (ReadRequest(), Send(stream_head()), Send(delta_event("Hel")), Reset())


def asking(text: str = "hi", **fields: Any) -> dict[str, Any]:
    """A request as a person writes it."""
    message = {"role": "ROLE_USER", "parts": [{"text": {"text": text}}]}
    return {"conversation": {"messages": [message]}, "routing": {"router": IN_ORDER}} | fields


async def test_a_decision_is_json(tmp_path: Path) -> None:
    """Route gives the decision with its candidates; names are those of the proto, of either spelling in the request."""
    async with behind_envoy(tmp_path) as proxied:
        asked = asking(routing={"router": IN_ORDER, "constraints": {"skipModels": ["x"], "skip_providers": ["y"]}})
        response = await proxied.client.post(f"{SERVICE}/Route", json=asked)
        assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
        decision = response.json()["decision"]
        assert decision["endpoint"] == "a@first"
        assert decision["router_text"].count("skip_models:x|skip_providers:y") == 2
        assert [candidate["endpoint"] for candidate in decision["candidates"]] == ["a@first", "a@second"]


async def test_an_answer_is_a_line_for_each_event_as_it_comes(tmp_path: Path) -> None:
    """Complete streams one JSON object a line, from the decision to `done`; a token arrives before the next is there."""
    gate = asyncio.Event()
    script = (ReadRequest(), Send(stream_head()), Send(delta_event("be")), WaitFor(gate), *streaming("fore")[2:])
    async with (
        behind_envoy(tmp_path, script) as proxied,
        proxied.client.stream("POST", f"{SERVICE}/Complete", json=asking()) as response,
    ):
        events = []
        async for line in response.aiter_lines():
            events.append(json.loads(line))
            if events[-1].get("delta") == {"text": "be"}:
                gate.set()
        assert [next(iter(event)) for event in events] == [
            "decision",
            "attempt_started",
            "delta",
            "delta",
            "usage",
            "done",
        ]
        assert events[-1]["done"]["endpoint"] == "a@first"


async def test_a_failure_is_its_status_with_all_details(tmp_path: Path) -> None:
    """What fails before anything was sent is a google.rpc.Status in JSON, its details readable, with an HTTP status to
    match."""
    invalid: dict[str, Any] = {"conversation": {}}
    impossible = asking(routing={"router": "router@c<0.001"})
    async with behind_envoy(tmp_path) as proxied:
        for method in ("Route", "Complete"):
            for asked, code, reason in (
                (invalid, 3, "ERROR_REASON_INVALID_REQUEST"),
                (impossible, 9, "ERROR_REASON_NO_ELIGIBLE_ENDPOINT"),
            ):
                response = await proxied.client.post(f"{SERVICE}/{method}", json=asked)
                body = response.json()
                assert (response.status_code, body["code"]) == (400, code)
                assert body["details"][0]["reason"] == reason
                assert body["details"][1]["@type"].startswith("type.googleapis.com/")


async def test_that_all_providers_are_down_is_told(tmp_path: Path) -> None:
    """Of a failure after the decision the lines tell each attempt and end without `done`; the next call is 503 or 429 at
    once, since everyone is known to be down."""
    async with behind_envoy(tmp_path, *([refusing(429, "rate_limit_exceeded", ("retry-after", "60"))] * 2)) as proxied:
        response = await proxied.client.post(f"{SERVICE}/Complete", json=asking())
        kinds = [next(iter(json.loads(line))) for line in response.text.splitlines()]
        assert kinds == ["decision", "attempt_started", "attempt_failed", "attempt_started", "attempt_failed"]
        again = await proxied.client.post(f"{SERVICE}/Complete", json=asking())
        assert (again.status_code, again.json()["code"]) == (429, 8)
        assert again.json()["details"][0]["reason"] == "ERROR_REASON_ENDPOINTS_RATE_LIMITED"


async def test_a_key_is_handed_on(tmp_path: Path) -> None:
    """Without the server's key a call is 401, with it it is served."""
    async with behind_envoy(tmp_path, server='api_keys_env = "KEYS"') as proxied:
        assert (await proxied.client.post(f"{SERVICE}/Route", json=asking())).status_code == 401
        headers = {"authorization": "Bearer sk-one"}
        assert (await proxied.client.post(f"{SERVICE}/Route", json=asking(), headers=headers)).status_code == 200


async def test_what_is_no_method_is_not_found(tmp_path: Path) -> None:
    """Unknown methods and services are 404; so is what the server has but Envoy does not offer."""
    async with behind_envoy(tmp_path) as proxied:
        for path in (f"{SERVICE}/Nothing", "/pointsman.v1.NoService/Route", "/", "/metrics"):
            assert (await proxied.client.post(path, json={})).status_code == 404


async def test_a_name_that_is_not_listed_is_not_found(tmp_path: Path) -> None:
    """A page that has made its host's name mean this machine is served nothing."""
    async with behind_envoy(tmp_path) as proxied:
        for host in ("evil.example", "localhost.evil.example:8080"):
            response = await proxied.client.post(f"{SERVICE}/Route", json=asking(), headers={"host": host})
            assert response.status_code == 404


async def test_a_stream_that_breaks_off_has_no_done(tmp_path: Path) -> None:
    """After text was sent the lines simply end: an answer without `done` is no answer."""
    async with behind_envoy(tmp_path, BREAKING) as proxied:
        response = await proxied.client.post(f"{SERVICE}/Complete", json=asking())
        kinds = [next(iter(json.loads(line))) for line in response.text.splitlines()]
        assert kinds == ["decision", "attempt_started", "delta", "usage", "attempt_failed"]


async def test_a_client_that_leaves_closes_the_call_upstream(tmp_path: Path) -> None:
    """Closing the connection to Envoy closes the provider's."""
    async with behind_envoy(tmp_path, BEGUN) as proxied:
        async with proxied.client.stream("POST", f"{SERVICE}/Complete", json=asking()) as response:
            async for line in response.aiter_lines():
                if "delta" in json.loads(line):
                    break
        await asyncio.wait_for(proxied.upstreams[0].connections[0].client_closed.wait(), PATIENCE_S)


async def test_a_prompt_of_four_megabytes_passes(tmp_path: Path) -> None:
    """A million tokens are no reason for a proxy to refuse."""
    async with behind_envoy(tmp_path, streaming("long")) as proxied:
        text = "word " * (4 * 1024 * 1024 // 5)
        response = await proxied.client.post(f"{SERVICE}/Complete", json=asking(text))
        assert '"delta":{"text":"long"}' in response.text
        (sent,) = json.loads(proxied.upstreams[0].connections[0].requests[0].body)["messages"]
        assert sent["content"] == text


async def test_grpc_itself_passes_through_the_same_port(tmp_path: Path) -> None:
    """A gRPC client needs no other address: decisions, streams, health."""
    async with (
        behind_envoy(tmp_path, streaming("fine")) as proxied,
        AsyncClient(proxied.url.removeprefix("http://")) as client,
        grpc.aio.insecure_channel(proxied.url.removeprefix("http://")) as channel,
    ):
        assert (await client.route("hi", router=IN_ORDER)).endpoint == "a@first"
        assert (await client.complete_text("hi", router=IN_ORDER)).text == "fine"
        assert await health_of(channel, "") == HealthCheckResponse.SERVING


async def test_a_page_in_a_browser_cannot_ask_in_passing(tmp_path: Path) -> None:
    """What a browser sends to another origin without asking first goes nowhere."""
    async with behind_envoy(tmp_path) as proxied:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            headers = {"content-type": content_type, "origin": "https://evil.example"}
            response = await proxied.client.post(f"{SERVICE}/Complete", content=json.dumps(asking()), headers=headers)
            assert response.status_code == 404
        assert [upstream.connections for upstream in proxied.upstreams] == [[], []]


async def test_pages_of_the_listed_origins_may_call(tmp_path: Path) -> None:
    """A browser that asks is told yes for the origins of the configuration, whole, and for no other."""
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-grpc-web"}
    async with behind_envoy(tmp_path) as proxied:
        for origin in ("http://localhost:5173", "http://127.0.0.1"):
            response = await proxied.client.options(f"{SERVICE}/Complete", headers={"origin": origin, **asked})
            assert response.headers["access-control-allow-origin"] == origin
            named = response.headers["access-control-allow-headers"].split(",")
            assert {"content-type", "x-grpc-web", "grpc-timeout", "authorization"} <= set(named)
        for origin in ("https://evil.example", "http://localhost.evil.example", "https://localhost", "null"):
            response = await proxied.client.options(f"{SERVICE}/Complete", headers={"origin": origin, **asked})
            assert "access-control-allow-origin" not in response.headers
