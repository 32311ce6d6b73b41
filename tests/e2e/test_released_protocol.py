"""Clients of the last release go on working: nothing is taken from the protocol, and their stubs still call the server."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from e2e.harness import Running, config_of, endpoints, running, streaming, urls_of
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from pointsman_server.providers.scripted import ScriptedUpstream

PROTO = Path(__file__).parents[2] / "proto"
RELEASED = PROTO / "released.binpb"
SERVICE = "pointsman.v1.RouterService"
CONVERSATION = {"messages": [{"role": "ROLE_USER", "parts": [{"text": {"text": "hi"}}]}]}


class ReleasedStub:
    """Calls the service with the messages of the release's descriptors, from a pool that knows nothing newer."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        pool = DescriptorPool()
        for file in FileDescriptorSet.FromString(RELEASED.read_bytes()).file:
            pool.Add(file)
        self._methods = pool.FindServiceByName(SERVICE).methods_by_name

    async def call(self, name: str, *requests: dict[str, Any], count: int | None = None) -> list[dict[str, Any]]:
        """The responses as proto3 JSON: all of them, or of a stream without end so many."""
        method = self._methods[name]
        request_class, response_class = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        shape = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
        multicallable = getattr(self._channel, "_".join(shape))(
            f"/{SERVICE}/{name}",
            request_serializer=request_class.SerializeToString,
            response_deserializer=response_class.FromString,
        )
        messages = [ParseDict(request, request_class()) for request in requests]
        call = multicallable(messages if method.client_streaming else messages[0], timeout=30.0)
        if not method.server_streaming:
            return [MessageToDict(await call)]
        found: list[dict[str, Any]] = []
        async for response in call:
            found.append(MessageToDict(response))
            if len(found) == count:
                call.cancel()
                break
        return found


async def exercised(server: Running) -> None:
    """Every method, as a client of the release calls it."""
    stub = ReleasedStub(server.channel)
    (routed,) = await stub.call("Route", {"conversation": CONVERSATION, "routing": {"router": "router@q:1|rc:5"}})
    assert routed["decision"]["endpoint"] == "a@north"
    events = await stub.call("Complete", {"conversation": CONVERSATION})
    assert [next(iter(event)) for event in events] == ["decision", "attemptStarted", "delta", "usage", "done"]
    assert events[2]["delta"]["text"] == "Hello"
    outcome = {"decisionId": events[0]["decision"]["id"], "quality": 0.9}
    assert await stub.call("ReportOutcome", {"outcome": outcome}) == [{}]
    assert await stub.call("ReportOutcomes", {"outcome": outcome}, {"outcome": outcome}) == [{"acceptedCount": "2"}]
    (listed,) = await stub.call("ListEndpoints", {})
    (watched,) = await stub.call("WatchEndpoints", {}, count=1)
    assert [each["endpoint"]["name"] for each in listed["endpoints"]] == ["a@north"]
    assert [each["endpoint"]["name"] for each in watched["endpoints"]] == ["a@north"]
    (routers,) = await stub.call("ListRouters", {})
    assert [router["name"] for router in routers["routers"]] == ["default"]


async def test_stubs_of_the_last_release_work_with_this_server() -> None:
    """Each method of the service answers a client that knows only the release's descriptors."""
    async with (
        ScriptedUpstream(streaming("Hello")) as upstream,
        running(config_of(endpoints({"north": ["a"]}, urls_of(north=upstream)))) as server,
    ):
        await exercised(server)


def breaking(proto: Path) -> str:
    """What buf says against the last release. Empty: nothing is broken."""
    buf = str(Path(sys.executable).with_name("buf"))
    command = (buf, "breaking", str(proto), "--against", str(RELEASED))
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_the_protocol_breaks_no_released_client() -> None:
    """Against the last release nothing of the protocol is changed or taken away."""
    assert breaking(PROTO) == ""


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        ("  string router = 1;\n", "  string router = 9;\n", "router"),
        ("  Constraints constraints = 2;\n", "", "constraints"),
        ("  optional int64 seed = 4;\n", "  optional string seed = 4;\n", "type"),
    ],
)
def test_a_change_that_breaks_a_client_is_refused(tmp_path: Path, before: str, after: str, word: str) -> None:
    """A number, a field or a type that is changed or gone is told, so that the check can fail at all."""
    shutil.copytree(PROTO, tmp_path / "proto")
    file = tmp_path / "proto/pointsman/v1/routing.proto"
    text = file.read_text(encoding="utf-8")
    assert before in text
    file.write_text(text.replace(before, after, 1), encoding="utf-8")
    assert word in breaking(tmp_path / "proto")
