"""gRPC-Web through a real Envoy, byte by byte: what every browser's client is made of."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from e2e.harness import delta_event, streaming
from google.rpc.error_details_pb2 import ErrorInfo
from pointsman.v1 import chat_pb2, router_service_pb2, routing_pb2
from pointsman_server.providers.scripted import Hang, ReadRequest, Reset, Script, Send, WaitFor, stream_head
from proxy.harness import (
    IN_ORDER,
    PATIENCE_S,
    SERVICE,
    WEB_HEADERS,
    behind_envoy,
    framed,
    messages,
    status_of,
    trailers,
)

BEGUN: Script = (ReadRequest(), Send(stream_head()), Send(delta_event("Hel")), Hang())
BREAKING: Script = (ReadRequest(), Send(stream_head()), Send(delta_event("Hel")), Reset())


def asking(router: str = IN_ORDER) -> router_service_pb2.CompleteRequest:
    """A request of one turn."""
    request = router_service_pb2.CompleteRequest(routing=routing_pb2.Routing(router=router))
    message = request.conversation.messages.add(role=chat_pb2.ROLE_USER)
    message.parts.add().text.text = "hi"
    return request


def events(body: bytes) -> list[router_service_pb2.CompleteResponse]:
    """The events of a response."""
    return [router_service_pb2.CompleteResponse.FromString(serialised) for serialised in messages(body)]


def kinds(body: bytes) -> list[str | None]:
    """The kinds of events, in order."""
    return [event.WhichOneof("event") for event in events(body)]


async def test_a_decision_is_one_frame_and_its_trailers(tmp_path: Path) -> None:
    """Route over gRPC-Web: a message, then the status."""
    async with behind_envoy(tmp_path) as proxied:
        asked = router_service_pb2.RouteRequest(conversation=asking().conversation, routing=asking().routing)
        response = await proxied.client.post(f"{SERVICE}/Route", content=framed(asked), headers=WEB_HEADERS)
        assert response.headers["content-type"] == "application/grpc-web+proto"
        (serialised,) = messages(response.content)
        assert router_service_pb2.RouteResponse.FromString(serialised).decision.endpoint == "a@first"
        assert trailers(response.content)["grpc-status"] == "0"


async def test_an_answer_streams_frame_by_frame(tmp_path: Path) -> None:
    """Complete over gRPC-Web: a token is there before the next one is, and the status comes last."""
    gate = asyncio.Event()
    script = (ReadRequest(), Send(stream_head()), Send(delta_event("zig")), WaitFor(gate), *streaming("zag")[2:])
    async with (
        behind_envoy(tmp_path, script) as proxied,
        proxied.client.stream("POST", f"{SERVICE}/Complete", content=framed(asking()), headers=WEB_HEADERS) as response,
    ):
        body = b""
        async for piece in response.aiter_bytes():
            body += piece
            if b"zig" in body:
                gate.set()
        assert kinds(body) == ["decision", "attempt_started", "delta", "delta", "usage", "done"]
        assert "".join(event.delta.text for event in events(body)) == "zigzag"
        assert trailers(body)["grpc-status"] == "0"


async def test_text_coding_is_spoken_too(tmp_path: Path) -> None:
    """What old browsers need: the same in base64."""
    async with behind_envoy(tmp_path, streaming("fine")) as proxied:
        headers = {"content-type": "application/grpc-web-text", "accept": "application/grpc-web-text"}
        response = await proxied.client.post(
            f"{SERVICE}/Complete", content=b64encode(framed(asking())), headers=headers
        )
        # Each piece is coded, and padded, on its own.
        coded = [response.content[at : at + 4] for at in range(0, len(response.content), 4)]
        body = b"".join(b64decode(four) for four in coded)
        assert kinds(body)[-1] == "done"
        assert b"fine" in body


async def test_a_failure_has_its_details(tmp_path: Path) -> None:
    """Code, message and details arrive, though nothing was answered."""
    async with behind_envoy(tmp_path) as proxied:
        asked = framed(asking("router@c<0.001"))
        response = await proxied.client.post(f"{SERVICE}/Complete", content=asked, headers=WEB_HEADERS)
        told = dict(response.headers) if not response.content else trailers(response.content)
        status = status_of(told)
        assert (told["grpc-status"], status.code) == ("9", 9)
        info = ErrorInfo()
        status.details[0].Unpack(info)
        assert info.reason == "ERROR_REASON_NO_ELIGIBLE_ENDPOINT"


async def test_a_stream_that_breaks_off_says_so_in_its_trailers(tmp_path: Path) -> None:
    """After text was sent the status is UNAVAILABLE, with what was sent counted."""
    async with behind_envoy(tmp_path, BREAKING) as proxied:
        response = await proxied.client.post(f"{SERVICE}/Complete", content=framed(asking()), headers=WEB_HEADERS)
        assert kinds(response.content)[2] == "delta"
        told = trailers(response.content)
        info = ErrorInfo()
        status_of(told).details[0].Unpack(info)
        assert (told["grpc-status"], info.reason, info.metadata["character_count"]) == (
            "14",
            "ERROR_REASON_STREAM_BROKEN",
            "3",
        )


@pytest.mark.parametrize("script", [(ReadRequest(), Hang()), BEGUN], ids=["silent", "begun"])
async def test_a_deadline_ends_the_call_and_the_upstream(tmp_path: Path, script: Script) -> None:
    """grpc-timeout holds all the way: the status is DEADLINE_EXCEEDED, and the provider's connection is closed."""
    async with behind_envoy(tmp_path, script) as proxied:
        headers = WEB_HEADERS | {"grpc-timeout": "1500m"}
        response = await proxied.client.post(f"{SERVICE}/Complete", content=framed(asking("a@first")), headers=headers)
        told = dict(response.headers) if not response.content else trailers(response.content)
        assert told["grpc-status"] == "4"
        await asyncio.wait_for(proxied.upstreams[0].connections[0].client_closed.wait(), PATIENCE_S)


async def test_the_trace_of_a_page_is_joined(tmp_path: Path) -> None:
    """Traceparent passes through Envoy to the server, and on to the provider."""
    async with behind_envoy(tmp_path, streaming("fine")) as proxied:
        trace_id = "0af7651916cd43dd8448eb211c80319c"
        headers = WEB_HEADERS | {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
        await proxied.client.post(f"{SERVICE}/Complete", content=framed(asking()), headers=headers)
        assert trace_id in proxied.upstreams[0].connections[0].requests[0].head.decode()
