"""`pointsman endpoints`, `routers` and `health`."""

from __future__ import annotations

import json

import pytest
from cli.conftest import Pointsman
from client.samples import ENDPOINTS, ROUTERS
from client.scripted_server import ScriptedServer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from pointsman.v1.router_service_pb2 import ListEndpointsResponse, ListRoutersResponse, WatchEndpointsResponse
from pointsman.v1.routing_pb2 import Router


def test_endpoints_are_a_table(server: ScriptedServer, pointsman: Pointsman) -> None:
    """Each endpoint is a row; what is not known is a question mark, never a zero."""
    server.on("ListEndpoints", ListEndpointsResponse(endpoints=ENDPOINTS))
    done = pointsman("endpoints")
    assert (done.exit_code, done.err) == (0, "")
    *_, large, small = (line.split() for line in done.out.splitlines())
    assert large == ["large@south", "?", "?", "?", "closed", "0", "2.5", "10", "never", "?", "128,000"]
    assert " ".join(small) == "small@north 210/480 ms 8/11 ms 2.0% open 4 s 3 ? ? 1.5 s ago 120 ?"


def test_narrow_terminals_lose_columns(
    server: ScriptedServer, pointsman: Pointsman, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that is too wide for a terminal loses its last columns as a whole, and no cell is cut."""
    server.on("ListEndpoints", ListEndpointsResponse(endpoints=ENDPOINTS))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "66")
    *_, large, small = pointsman("endpoints").out.splitlines()
    assert large.split() == ["large@south", "?", "?", "?", "closed", "0"]
    assert " ".join(small.split()) == "small@north 210/480 ms 8/11 ms 2.0% open 4 s 3"


def test_endpoints_are_json(server: ScriptedServer, pointsman: Pointsman) -> None:
    """With --json the endpoints are one object."""
    server.on("ListEndpoints", ListEndpointsResponse(endpoints=ENDPOINTS))
    done = pointsman("endpoints", "--json")
    names = [status["endpoint"]["name"] for status in json.loads(done.out)["endpoints"]]
    assert (done.exit_code, names) == (0, ["large@south", "small@north"])


_CHANGES = (
    WatchEndpointsResponse(endpoints=ENDPOINTS),
    WatchEndpointsResponse(endpoints=[ENDPOINTS[1]], removed_endpoints=["large@south"]),
)


def test_watch_keeps_up(server: ScriptedServer, pointsman: Pointsman) -> None:
    """A watch shows the endpoints as they are after the last change, without those that have left."""
    server.on("WatchEndpoints", _CHANGES)
    done = pointsman("endpoints", "--watch")
    assert done.exit_code == 0
    assert "small@north" in done.out
    assert "large@south" not in done.out


def test_watch_is_json(server: ScriptedServer, pointsman: Pointsman) -> None:
    """With --json a watch is a line for each change."""
    server.on("WatchEndpoints", _CHANGES)
    done = pointsman("endpoints", "--watch", "--json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert (done.exit_code, [len(line["endpoints"]) for line in lines]) == (0, [2, 1])
    assert lines[1]["removed_endpoints"] == ["large@south"]


def test_routers_are_listed(server: ScriptedServer, pointsman: Pointsman) -> None:
    """The named routers are a table, and with --json one object."""
    server.on("ListRouters", ListRoutersResponse(routers=ROUTERS))
    done = pointsman("routers")
    assert done.exit_code == 0
    assert "router@q:1|c:0.05" in done.out
    assert "Good enough for less." in done.out
    done = pointsman("routers", "--json")
    assert [router["name"] for router in json.loads(done.out)["routers"]] == ["cheap", "default"]


def test_a_refused_update_is_listed_below_the_routers(server: ScriptedServer, pointsman: Pointsman) -> None:
    """Each router whose artifact could not be updated has a line with the reason; the others have none."""
    refused, sound = Router(), ROUTERS[1]
    refused.CopyFrom(ROUTERS[0])
    refused.quality_artifact.refused_update = "schema version is 99"
    server.on("ListRouters", ListRoutersResponse(routers=[refused, sound]))
    lines = pointsman("routers").out.splitlines()
    assert lines[-1] == "cheap: an update of its quality model was refused: schema version is 99"
    assert " ".join(lines[-2].split()) == "default router@q:1|c:0.01 7c1e builtin@1.0 0.1 cheap cheap"


def test_health(server: ScriptedServer, pointsman: Pointsman) -> None:
    """Health is code 0 while the server takes calls, and 1 while it does not or is not there."""
    well = pointsman("health")
    assert (well.exit_code, well.out, well.err) == (0, "SERVING\n", "")
    assert server.requests["Health"][0].service == "pointsman.v1.RouterService"
    server.health = HealthCheckResponse.NOT_SERVING
    ill = pointsman("health", "--json")
    assert (ill.exit_code, json.loads(ill.out)) == (1, {"status": "NOT_SERVING"})
    gone = pointsman("health", "--server", "127.0.0.1:1")
    assert (gone.exit_code, gone.out) == (1, "")
    assert "is a server running at 127.0.0.1:1?" in gone.err
