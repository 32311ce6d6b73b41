"""The door as an HTTP server: limits, clients that misbehave, the end of a server, traces."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from e2e.harness import END, config_of, delta_event, endpoints, streaming, urls_of
from openai_door.harness import IN_ORDER, PATIENCE_S, Opened, opened
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from pointsman import Delta
from pointsman_server.app import Application
from pointsman_server.config import Config
from pointsman_server.errors import ArtifactError, ConfigError
from pointsman_server.providers.scripted import (
    Hang,
    ReadRequest,
    Script,
    ScriptedUpstream,
    Send,
    WaitFor,
    event,
    stream_head,
)
from pointsman_server.telemetry import names
from pointsman_server.telemetry.setup import TelemetrySettings, configure_telemetry
from telemetry.test_metrics import of, points

CHAT = "/v1/chat/completions"
CERTIFICATE = Path(__file__).parents[1] / "providers" / "localhost.pem"
BODY = {"model": IN_ORDER, "messages": [{"role": "user", "content": "hi"}]}
BEGUN: Script = (ReadRequest(), Send(stream_head()), Send(delta_event("Hel")), Hang())


@asynccontextmanager
async def http(door: Opened) -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client of the door."""
    async with httpx.AsyncClient(base_url=door.url, timeout=30.0) as client:
        yield client


def data_of(sent: str) -> list[str]:
    """The data of each event of a stream."""
    return [line.removeprefix("data: ") for line in sent.split("\n\n") if line]


async def test_the_stream_is_what_the_protocol_says() -> None:
    """Events of JSON, then the mark of a good end; nothing between may be gathered by a proxy."""
    async with opened(streaming("Hel", "lo")) as door, http(door) as client:
        response = await client.post(CHAT, json=BODY | {"stream": True})
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert (response.headers["cache-control"], response.headers["x-accel-buffering"]) == ("no-cache", "no")
        *told, end = data_of(response.text)
        assert end == "[DONE]"
        assert [json.loads(one)["object"] for one in told] == ["chat.completion.chunk"] * len(told)
        assert json.loads(told[0])["choices"][0]["delta"]["role"] == "assistant"
        assert "role" not in json.loads(told[-1])["choices"][0]["delta"]


async def test_text_of_any_script_arrives_as_it_is() -> None:
    """Line ends that SSE knows, separators that JavaScript knows, and letters beyond the basic plane stay what they are."""
    text = "a\nb\r\nc\u2028d\x00e\U0001f682"
    async with opened(streaming(text), streaming(text)) as door, http(door) as client:
        whole = await client.post(CHAT, json=BODY | {"model": "a@first"})
        assert whole.json()["choices"][0]["message"]["content"] == text
        stream = await client.post(CHAT, json=BODY | {"model": "a@second", "stream": True})
        chunks = [json.loads(one) for one in data_of(stream.text)[:-1]]
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == text


async def test_a_page_in_a_browser_cannot_ask_in_passing() -> None:
    """What a browser sends without asking first is refused: else any page could spend credit at a loopback address."""
    async with opened() as door, http(door) as client:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
            response = await client.post(CHAT, content=json.dumps(BODY), headers={"content-type": content_type})
            assert (response.status_code, response.json()["error"]["param"]) == (400, "content-type")
            assert "access-control-allow-origin" not in response.headers
        assert [upstream.connections for upstream in door.upstreams] == [[], [], []]


async def test_a_name_that_was_made_to_mean_this_machine_does_not_count() -> None:
    """Without keys on loopback a request must name this machine, whatever a resolver has told a browser."""
    async with opened(streaming("fine")) as door, http(door) as client:
        for host, status in (
            ("localhost:1", 200),
            ("[::1]", 200),
            ("127.0.0.1", 200),
            ("evil.example", 400),
            ("localhost.evil.example", 400),
        ):
            response = await client.post(CHAT, json=BODY | {"model": "a@first"}, headers={"host": host})
            assert response.status_code == status


async def test_where_a_key_is_asked_for_any_name_will_do() -> None:
    """Behind a proxy the door has the proxy's name."""
    async with opened(streaming("fine"), door='api_keys_env = "KEYS"', environment={"KEYS": "sk-1"}) as door:
        async with http(door) as client:
            headers = {"host": "llm.example", "authorization": "Bearer sk-1"}
            response = await client.post(CHAT, json=BODY | {"model": "a@first"}, headers=headers)
        assert response.status_code == 200


async def chunked(piece: bytes, count: int) -> AsyncIterator[bytes]:
    """A body whose length is not told beforehand."""
    for _ in range(count):
        yield piece


async def test_a_body_beyond_the_limit_is_refused_with_the_limit() -> None:
    """Told or not, more than the limit is 413; the connection's other end is not left waiting."""
    async with opened(door="body_bytes_max = 2048") as door, http(door) as client:
        for content in (b" " * 4096, chunked(b" " * 512, 8)):
            response = await client.post(CHAT, content=content, headers={"content-type": "application/json"})
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (413, "request_too_large")
            assert error["pointsman"]["metadata"]["limit_bytes"] == "2048"


async def test_a_body_that_is_not_coded_as_it_says_is_refused() -> None:
    """What claims to be compressed and is not is the client's fault, not the server's."""
    async with opened() as door, http(door) as client:
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        response = await client.post(CHAT, content=b"not gzip", headers=headers)
        assert response.status_code == 400


async def test_what_is_no_resource_is_refused_in_the_same_shape() -> None:
    """Unknown paths and wrong methods are OpenAI's errors too; so is a head that is none, but in plain text."""
    async with opened(door="header_bytes_max = 2048") as door, http(door) as client:
        for method, path, status in (
            ("POST", "/v1/embeddings", 404),
            ("GET", CHAT, 405),
            ("DELETE", "/v1/models/a", 405),
        ):
            response = await client.request(method, path)
            assert (response.status_code, response.json()["error"]["code"]) == (status, "unknown_url")
            assert ("allow" in response.headers) == (status == 405)
        long = await client.get("/v1/models", headers={"x-long": "x" * 4096})
        assert long.status_code == 400
        many = await client.get("/v1/models", headers={f"x-{number}": "1" for number in range(100)})
        assert many.status_code == 400
        assert (await client.get("/v1/models")).status_code == 200


async def test_a_connection_too_many_is_closed_at_once() -> None:
    """Beyond their limit connections are reset, and those that there are go on."""
    async with opened(door="connection_count_max = 1") as door, http(door) as client:
        assert (await client.get("/v1/models")).status_code == 200
        async with http(door) as late:
            with pytest.raises(httpx.TransportError):
                await late.get("/v1/models")
        assert (await client.get("/v1/models")).status_code == 200


async def test_the_limit_on_requests_is_one_for_both_doors() -> None:
    """A call by gRPC counts for the door: beyond the limit it says when to come back."""
    async with opened(BEGUN, server="request_count_max = 1") as door, http(door) as client:
        events = door.server.client.complete("hi", router=IN_ORDER)
        async for told in events:
            if isinstance(told, Delta):
                break
        response = await client.post(CHAT, json=BODY)
        assert (response.status_code, response.json()["error"]["code"]) == (429, "overloaded")
        assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == ("1", "500")
        await events.aclose()


async def test_a_client_that_does_not_read_holds_its_provider_up() -> None:
    """What nobody reads is not fetched: the provider waits, and once the client reads everything arrives, in order."""
    piece_count, piece = 250, "x" * 100_000
    sent = [Send(delta_event(piece)) for _ in range(piece_count)]
    script: Script = (ReadRequest(), Send(stream_head()), *sent, Send(END))
    async with opened(script) as door:
        body = json.dumps(BODY | {"stream": True}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", door.server.application.openai_port)) as client:
            client.sendall(head.encode() + body)
            connection = await asyncio.wait_for(door.upstreams[0].connection(0), PATIENCE_S)
            for _ in range(200):
                # Twenty-five megabytes would have passed by then, if nothing held them up.
                await asyncio.sleep(0.005)
            assert not connection.script_done.is_set()
            received = await asyncio.to_thread(read_to, client, b"data: [DONE]")
        assert received.count(b"x" * 1000) == piece_count * 100


def read_to(client: socket.socket, end: bytes) -> bytes:
    """What comes up to and including `end`."""
    received = bytearray()
    while end not in received[-1000:]:
        received += (piece := client.recv(1 << 20))
        assert piece, "the connection was closed before the end"
    return bytes(received)


async def test_a_half_sent_request_that_is_given_up_leaves_nothing() -> None:
    """A client that leaves in the middle of its body is no error, and asks nobody."""
    async with opened() as door:
        _, writer = await asyncio.open_connection("127.0.0.1", door.server.application.openai_port)
        head = (
            f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n"
        )
        writer.write(head.encode() + b'{"mod')
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(door.server.application._guard.idle.wait(), PATIENCE_S)
        assert [upstream.connections for upstream in door.upstreams] == [[], [], []]


def one_endpoint(upstream: ScriptedUpstream, *, grace_s: float = 5.0) -> Config:
    """A door in front of one endpoint."""
    text = '[openai_door]\nlisten = "127.0.0.1:0"\n' + endpoints({"first": ["a"]}, urls_of(first=upstream))
    config = config_of(text)
    return replace(config, server=replace(config.server, shutdown_grace_s=grace_s))


async def stopped(application: Application) -> None:
    """Tells a server to stop, and waits for it."""
    await application.__aexit__()


async def test_a_told_server_ends_the_doors_streams_first() -> None:
    """A stream under way is sent to its end while new connections are refused; then the server is gone."""
    gate = asyncio.Event()
    script = (ReadRequest(), Send(stream_head()), Send(delta_event("be")), WaitFor(gate), *streaming("fore")[2:])
    async with ScriptedUpstream(script) as upstream:
        application = await Application(one_endpoint(upstream)).__aenter__()
        url = f"http://127.0.0.1:{application.openai_port}"
        async with (
            httpx.AsyncClient(base_url=url, timeout=30.0) as client,
            client.stream("POST", CHAT, json=BODY | {"model": "a", "stream": True}) as response,
        ):
            lines = response.aiter_lines()
            assert "be" in await anext(lines)
            stopping = asyncio.create_task(stopped(application))
            await asyncio.sleep(0)
            async with httpx.AsyncClient(base_url=url) as late:
                with pytest.raises(httpx.ConnectError):
                    await late.get("/v1/models")
            assert not stopping.done()
            gate.set()
            rest = [line async for line in lines if line]
            assert "fore" in rest[0]
            assert rest[-1] == "data: [DONE]"
            await asyncio.wait_for(stopping, PATIENCE_S)


async def test_what_outlives_the_grace_is_cut_and_closed_upstream() -> None:
    """A stream that does not end is broken off without the mark of a good end, and the provider's connection closed."""
    async with ScriptedUpstream(BEGUN) as upstream:
        application = await Application(one_endpoint(upstream, grace_s=0.2)).__aenter__()
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{application.openai_port}", timeout=30.0) as client,
            client.stream("POST", CHAT, json=BODY | {"model": "a", "stream": True}) as response,
        ):
            lines = response.aiter_lines()
            assert "Hel" in await anext(lines)
            stopping = asyncio.create_task(stopped(application))
            rest: list[str] = []
            with pytest.raises(httpx.RemoteProtocolError):
                rest.extend([line async for line in lines])
            assert "data: [DONE]" not in rest
            await asyncio.wait_for(upstream.connections[0].client_closed.wait(), PATIENCE_S)
            await asyncio.wait_for(stopping, PATIENCE_S)


async def test_an_idle_connection_does_not_hold_a_server_up() -> None:
    """Connections that are kept alive between requests are closed at once."""
    async with ScriptedUpstream(streaming("x")) as upstream:
        application = await Application(one_endpoint(upstream, grace_s=600.0)).__aenter__()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{application.openai_port}") as client:
            assert (await client.get("/v1/models")).status_code == 200
            await asyncio.wait_for(stopped(application), PATIENCE_S)


async def test_a_call_through_the_door_is_the_same_call_in_traces_and_metrics(caplog: pytest.LogCaptureFixture) -> None:
    """The server span joins the caller's trace and says which door; metrics count it as the RPC that it is; neither key
    nor prompt nor answer is told, and a client that left is no fault."""
    caplog.set_level(logging.DEBUG)
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    telemetry = configure_telemetry(TelemetrySettings(), span_exporter=exporter, metric_reader=reader)
    trace_id, caller_id, canary = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "canary-5b1d"
    headers = {"traceparent": f"00-{trace_id}-{caller_id}-01", "authorization": f"Bearer {canary}"}
    asked = {"messages": [{"role": "user", "content": canary}]}
    async with (
        ScriptedUpstream(streaming(canary), BEGUN) as upstream,
        Application(one_endpoint(upstream), telemetry=telemetry) as application,
    ):
        url = f"http://127.0.0.1:{application.openai_port}"
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30.0) as client:
            assert (await client.post(CHAT, json=asked | {"model": "a"})).status_code == 200
            assert (await client.post(CHAT, json=asked | {"model": canary})).status_code == 404
            assert (await client.get("/v1/models")).status_code == 200
            async with client.stream("POST", CHAT, json=asked | {"model": "a", "stream": True}) as response:
                await anext(response.aiter_lines())
        await asyncio.wait_for(application._guard.idle.wait(), PATIENCE_S)
        found = points(reader)
    calls = [span for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER]
    assert {(span.attributes or {})[names.DOOR] for span in calls} == {"openai"}
    told = {(span.name.rpartition("/")[2], (span.attributes or {})[names.RPC_RESPONSE_STATUS_CODE]) for span in calls}
    assert told == {
        ("Complete", "OK"),
        ("Complete", "INVALID_ARGUMENT"),
        ("Complete", "CANCELLED"),
        ("ListEndpoints", "OK"),
    }
    assert {span.parent.span_id for span in calls if span.parent is not None} == {int(caller_id, 16)}
    served = found[names.RPC_SERVER_CALL_DURATION]
    assert of(served, rpc_method="pointsman.v1.RouterService/Complete", rpc_response_status_code="CANCELLED") > 0.0
    everything = "".join(span.to_json() for span in exporter.get_finished_spans()) + caplog.text
    assert canary not in everything


async def test_a_bug_is_answered_by_an_id_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever escapes is a 500 that says nothing but an id that the log has."""
    async with opened() as door, http(door) as client:
        for bug in (ArtifactError("canary-bug"), ValueError("canary-bug")):

            def broken(*_: object, bug: Exception = bug, **__: object) -> None:
                raise bug

            monkeypatch.setattr(door.server.application.router, "route", broken)
            response = await client.post(CHAT, json=BODY)
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (500, "internal")
            assert error["pointsman"]["metadata"]["error_id"] in caplog.text
            assert "canary-bug" not in f"{response.text}{caplog.text}"


async def test_a_door_speaks_tls_with_the_servers_certificate() -> None:
    """With [server.tls] the door is https, and plain text is not answered."""
    tls = f'[server.tls]\ncertificate_file = "{CERTIFICATE}"\nkey_file = "{CERTIFICATE}"\n'
    async with ScriptedUpstream(streaming("fine")) as upstream:
        text = f'{tls}[openai_door]\nlisten = "127.0.0.1:0"\n' + endpoints({"first": ["a"]}, urls_of(first=upstream))
        async with Application(config_of(text)) as application:
            trust = ssl.create_default_context(cafile=CERTIFICATE)
            port = application.openai_port
            async with httpx.AsyncClient(base_url=f"https://localhost:{port}", verify=trust, timeout=30.0) as client:
                assert (await client.post(CHAT, json=BODY | {"model": "a"})).status_code == 200
            async with httpx.AsyncClient(base_url=f"http://localhost:{port}") as plain:
                with pytest.raises(httpx.TransportError):
                    await plain.get("/v1/models")


async def test_a_door_asks_for_certificates_as_the_server_does() -> None:
    """With client_ca_file only a client that shows a certificate signed by it is let in."""
    tls = f'[server.tls]\ncertificate_file = "{CERTIFICATE}"\nkey_file = "{CERTIFICATE}"\n'
    tls += f'client_ca_file = "{CERTIFICATE}"\n[openai_door]\nlisten = "127.0.0.1:0"\n'
    async with Application(
        config_of(tls + endpoints({"first": ["a"]}, {"first": "http://127.0.0.1:9/v1"}))
    ) as application:
        url = f"https://localhost:{application.openai_port}"
        stranger, known = (ssl.create_default_context(cafile=CERTIFICATE) for _ in range(2))
        known.load_cert_chain(CERTIFICATE)
        async with httpx.AsyncClient(base_url=url, verify=known, timeout=30.0) as client:
            assert (await client.get("/v1/models")).status_code == 200
        async with httpx.AsyncClient(base_url=url, verify=stranger, timeout=30.0) as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/v1/models")


async def test_a_taken_port_is_a_clear_error() -> None:
    """A door that can't be opened stops the server from starting, and says which address."""
    async with opened() as door:
        listen = f"127.0.0.1:{door.server.application.openai_port}"
        text = f'[openai_door]\nlisten = "{listen}"\n' + endpoints({"first": ["a"]}, {"first": "http://127.0.0.1:9/v1"})
        with pytest.raises(ConfigError, match=r"openai_door\.listen: can't listen on 127"):
            async with Application(config_of(text)):
                pass


async def test_a_changed_door_is_said_to_take_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    """A reload goes on with the door as it was opened."""
    async with opened() as door:
        await door.server.application.reload(config_of(endpoints({"first": ["a"]}, {"first": "http://127.0.0.1:9/v1"})))
        assert "they take effect at the next start" in caplog.text
        async with http(door) as client:
            ids = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
        assert ids == ["default", "a", "a@first"]


async def test_a_finished_answer_without_a_delta_is_an_answer() -> None:
    """A model that says nothing gives an empty text, whole and streamed."""
    empty = event(json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})) + event("[DONE]")
    script: Script = (ReadRequest(), Send(stream_head() + empty))
    async with opened(script, script) as door, http(door) as client:
        whole = (await client.post(CHAT, json=BODY | {"model": "a@first"})).json()
        assert whole["choices"][0]["message"]["content"] == ""
        assert "usage" not in whole
        stream = await client.post(CHAT, json=BODY | {"model": "a@second", "stream": True})
        (chunk,) = [json.loads(one) for one in data_of(stream.text)[:-1]]
        assert chunk["choices"][0] | {"logprobs": 0} == {
            "index": 0,
            "delta": {"role": "assistant"},
            "logprobs": 0,
            "finish_reason": "stop",
        }
