"""`pointsman route`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cli.conftest import Pointsman
from client.samples import DECISION, REJECTED, SPLIT_DECISION
from client.scripted_server import Failure, Pause, ScriptedServer, scripted_server
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from pointsman import AsyncClient, conversation, system, user
from pointsman.durations import duration
from pointsman.v1.router_service_pb2 import ListRoutersResponse, RouteResponse
from pointsman.v1.routing_pb2 import BoundChange, NoEligibleEndpoint, Relaxation
from pointsman_server.cli.route_file import CONCURRENCY, read_lines, routed

_ANSWER = RouteResponse(decision=DECISION)

_NOTHING_FITS = Failure(
    grpc.StatusCode.FAILED_PRECONDITION,
    "none of 1 endpoints satisfies the constraints",
    "ERROR_REASON_NO_ELIGIBLE_ENDPOINT",
    {"decision_id": "d1"},
    (
        NoEligibleEndpoint(
            decision_id="d1",
            candidates=[REJECTED],
            relaxations=[
                Relaxation(endpoint="large@west", changes=[BoundChange(bound="ttft<500", relaxed_bound="ttft<812")])
            ],
        ),
    ),
)


def test_a_decision_is_a_table(server: ScriptedServer, pointsman: Pointsman) -> None:
    """A decision shows the choice, what each candidate would give, and why the others are out."""
    server.on("Route", _ANSWER)
    done = pointsman("route", "Hello", "--router", "cheap")
    assert (done.exit_code, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines()]
    assert done.out.startswith("small@north: it ranks first")
    assert [
        "1",
        "small@north",
        "0.74",
        "(0.61-0.85)",
        "$0.000210",
        "210/480",
        "ms",
        "8.4",
        "ms",
        "0.7312",
        "90%",
    ] in lines
    assert ["2", "large@south", "0.91", "(0.84-0.96)", "$0.0123", "?", "?", "0.6987", "10%"] in lines
    assert "large@west  bound violated: time-to-first-token.p95<500 (812 ms)" in done.out
    request = server.requests["Route"][0]
    assert (request.conversation, request.routing.router) == (conversation("Hello"), "cheap")


def test_a_split_and_its_shadows_are_asked_for_and_shown(server: ScriptedServer, pointsman: Pointsman) -> None:
    """The key and the wish for shadows go along, also for a file, and each shadow has a line below the decision."""
    server.on("Route", RouteResponse(decision=SPLIT_DECISION))
    done = pointsman("route", "Hello", "--assignment-key", "user-42", "--shadows")
    assert done.out.splitlines()[-1] == "shadow cheap 55d0: large@south, at quality 0.91 and cost $0.0123"
    pointsman("route", "--file", "-", "--assignment-key", "user-42", "--shadows", stdin='{"prompt": "Hello"}')
    for request in server.requests["Route"]:
        assert (request.routing.assignment_key, request.routing.include_shadows) == ("user-42", True)


def test_a_decision_is_json(server: ScriptedServer, pointsman: Pointsman) -> None:
    """With --json a decision is one object, with every field that is known and none that is not."""
    server.on("Route", _ANSWER)
    done = pointsman("route", "Hello", "--json")
    assert (done.exit_code, done.err) == (0, "")
    decision = json.loads(done.out)["decision"]
    assert decision["endpoint"] == "small@north"
    runner, newcomer, rejected = decision["candidates"]
    assert runner["ttft"]["p95"] == "0.480s"
    assert "ttft" not in newcomer
    assert (rejected["rank"], rejected["rejections"][0]["actual"]) == (0, 0.812)


def test_prompt_from_standard_input(server: ScriptedServer, pointsman: Pointsman) -> None:
    """A dash takes the prompt from standard input, without its last newline."""
    server.on("Route", _ANSWER)
    assert pointsman("route", "-", stdin="Hello\nthere\n").exit_code == 0
    assert server.requests["Route"][0].conversation == conversation("Hello\nthere")


@pytest.mark.parametrize(
    ("argv", "stdin", "message"),
    [
        (("route",), "", "either a prompt"),
        (("route", "Hello", "--file", "prompts.jsonl"), "", "either a prompt"),
        (("route", ""), "", "the prompt is empty"),
        (("route", "-"), "\n", "the prompt is empty"),
        (("route", "-"), b"\xff", "not UTF-8"),
        (("route", "Hello", "--timeout", "0"), "", "above 0"),
        (("route", "Hello", "--timeout", "soon"), "", "--timeout"),
        (("route", "Hello", "--api-key-env", "NOT_SET"), "", "NOT_SET is not set"),
        (("route", "Hello", "--tls-ca", "missing.pem"), "", "can't read missing.pem"),
        (("route", "--file", "missing.jsonl"), "", "can't read missing.jsonl"),
        (("switch",), "", "invalid choice"),
        ((), "", "required"),
    ],
)
def test_wrong_arguments(
    pointsman: Pointsman, server: ScriptedServer, argv: tuple[str, ...], stdin: str | bytes, message: str
) -> None:
    """Wrong arguments are code 2 with a reason, and nothing is sent."""
    done = pointsman(*argv, stdin=stdin)
    assert (done.exit_code, done.out) == (2, "")
    assert message in done.err
    assert not server.requests


def test_impossible_constraints_are_explained(server: ScriptedServer, pointsman: Pointsman) -> None:
    """When nothing fits, each rejection is listed with the nearest change that would do; there is no traceback."""
    server.on("Route", _NOTHING_FITS)
    done = pointsman("route", "Hello")
    assert (done.exit_code, done.out) == (1, "")
    assert "none of 1 endpoints satisfies the constraints  FAILED_PRECONDITION" in done.err
    assert "large@west  bound violated: time-to-first-token.p95<500 (812 ms)" in done.err
    assert "would do: large@west, by relaxing ttft<500 to ttft<812" in done.err
    assert "Traceback" not in done.err


def test_failures_are_json(server: ScriptedServer, pointsman: Pointsman) -> None:
    """With --json a failure is an object with its details on standard output, and words on standard error."""
    server.on("Route", _NOTHING_FITS)
    done = pointsman("route", "Hello", "--json")
    assert done.exit_code == 1
    error = json.loads(done.out)["error"]
    assert (error["code"], error["reason"]) == ("FAILED_PRECONDITION", "ERROR_REASON_NO_ELIGIBLE_ENDPOINT")
    assert error["metadata"] == {"decision_id": "d1"}
    (fitting,) = [detail for detail in error["details"] if detail["@type"].endswith("NoEligibleEndpoint")]
    assert fitting["candidates"][0]["endpoint"] == "large@west"
    assert "none of 1 endpoints" in done.err


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (
            Failure(
                grpc.StatusCode.INVALID_ARGUMENT,
                "1 violation",
                "ERROR_REASON_INVALID_REQUEST",
                details=(
                    BadRequest(field_violations=[BadRequest.FieldViolation(field="routing.router", description="odd")]),
                ),
            ),
            "routing.router: odd",
        ),
        (
            Failure(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "busy",
                "ERROR_REASON_OVERLOADED",
                details=(RetryInfo(retry_delay=duration(2.5)),),
            ),
            "try again in 2.5 s",
        ),
        (Failure(grpc.StatusCode.UNIMPLEMENTED, "of another version"), "of another version  UNIMPLEMENTED"),
    ],
    ids=["invalid", "overloaded", "foreign"],
)
def test_failures_say_what_helps(server: ScriptedServer, pointsman: Pointsman, failure: Failure, words: str) -> None:
    """A failed call is code 1, with what the server says of it."""
    server.on("Route", failure)
    done = pointsman("route", "Hello")
    assert done.exit_code == 1
    assert words in done.err


def test_no_server(pointsman: Pointsman) -> None:
    """Where nobody listens, the message says how to start a server."""
    done = pointsman("route", "Hello", "--server", "127.0.0.1:1")
    assert done.exit_code == 1
    assert "is a server running at 127.0.0.1:1?" in done.err


def test_timeout(server: ScriptedServer, pointsman: Pointsman) -> None:
    """A decision that takes longer than --timeout fails."""
    server.on("Route", Pause.UNTIL_CANCELLED)
    done = pointsman("route", "Hello", "--timeout", "0.05")
    assert done.exit_code == 1
    assert "DEADLINE_EXCEEDED" in done.err


def test_api_key_comes_from_the_environment(
    server: ScriptedServer, pointsman: Pointsman, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API key is read from the usual variable or the named one, and sent."""
    server.on("Route", _ANSWER)
    monkeypatch.setenv("POINTSMAN_API_KEY", "usual")
    monkeypatch.setenv("OTHER", "named")
    pointsman("route", "Hello")
    pointsman("route", "Hello", "--api-key-env", "OTHER")
    assert [each["authorization"] for each in server.headers["Route"]] == ["Bearer usual", "Bearer named"]


def test_connections_can_be_secured(pointsman: Pointsman) -> None:
    """A server with a certificate is reached with the roots that are named, and with no other."""
    folder = Path(__file__).parents[1] / "client"
    certificate = folder / "localhost.pem"
    pair = ((folder / "localhost.key").read_bytes(), certificate.read_bytes())
    with scripted_server(grpc.ssl_server_credentials([pair])) as secured:
        secured.on("ListRouters", ListRoutersResponse())
        assert pointsman("routers", "--server", secured.target, "--tls-ca", str(certificate)).exit_code == 0
        assert pointsman("routers", "--server", secured.target, "--tls").exit_code == 1


def test_colours_are_for_people(server: ScriptedServer, pointsman: Pointsman, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are colours where they are forced as on a terminal, none in a pipe, none with NO_COLOR."""
    server.on("Route", _ANSWER)
    assert "\x1b[" not in pointsman("route", "Hello").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[1;32m" in pointsman("route", "Hello").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;32m" not in pointsman("route", "Hello").out


_LINES = """\
{"id": "a", "prompt": "Hello"}

not JSON
{"id": 7, "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]}
{"prompt": "fails"}
"""


def test_a_file_is_routed_line_by_line(server: ScriptedServer, pointsman: Pointsman, tmp_path: Path) -> None:
    """A file gives a JSON line for each of its lines, in its order; what can't be routed is named by its number."""
    server.on("Route", _ANSWER)
    path = tmp_path / "prompts.jsonl"
    path.write_text(_LINES, encoding="utf-8")
    done = pointsman("route", "--file", str(path), "--router", "cheap")
    results = [json.loads(line) for line in done.out.splitlines()]
    assert [(each["line"], each.get("id")) for each in results] == [(1, "a"), (3, None), (4, 7), (5, None)]
    assert [each.get("decision", {}).get("endpoint") for each in results] == ["small@north", None, *["small@north"] * 2]
    assert results[1]["error"]["message"] == "is not JSON"
    assert done.err == "line 3: is not JSON\n3 routed, 1 failed\n"
    assert done.exit_code == 1
    assert {request.routing.router for request in server.requests["Route"]} == {"cheap"}
    sent = [request.conversation for request in server.requests["Route"]]
    assert conversation([system("Be brief."), user("Hi")]) in sent


def test_a_file_from_standard_input(server: ScriptedServer, pointsman: Pointsman) -> None:
    """A dash takes the lines from standard input; without a failure the code is 0."""
    server.on("Route", _ANSWER)
    done = pointsman("route", "--file", "-", stdin='{"prompt": "Hello"}\n' * (3 * CONCURRENCY))
    assert done.exit_code == 0
    assert [json.loads(line)["line"] for line in done.out.splitlines()] == list(range(1, 3 * CONCURRENCY + 1))


def test_failed_lines_do_not_stop_a_file(server: ScriptedServer, pointsman: Pointsman) -> None:
    """A line that the server refuses is an error of its own, and the rest goes on."""
    server.on("Route", _NOTHING_FITS, _ANSWER)
    done = pointsman("route", "--file", "-", stdin='{"prompt": "a"}\n{"prompt": "b"}\n')
    assert done.exit_code == 1
    results = [json.loads(line) for line in done.out.splitlines()]
    assert sorted("error" in each for each in results) == [False, True]
    assert done.err.endswith("1 routed, 1 failed\n")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("[]", "is not an object"),
        ("{}", "either prompt or messages"),
        ('{"prompt": "a", "messages": []}', "either prompt or messages"),
        ('{"prompt": ""}', "no text in prompt"),
        ('{"prompt": 5}', "no text in prompt"),
        ('{"messages": "a"}', "messages that are not"),
        ('{"messages": []}', "messages that are not"),
        ('{"messages": ["a"]}', "messages that are not"),
        ('{"messages": [{"role": "king", "content": "a"}]}', "messages that are not"),
        ('{"messages": [{"role": "user", "content": ["a"]}]}', "messages that are not"),
        ('{"id": [1], "prompt": "a"}', "id is neither"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_bad_lines_are_named(server: ScriptedServer, pointsman: Pointsman, line: str, fault: str) -> None:
    """A line that says nothing routable is named with its number and its fault, and not sent."""
    done = pointsman("route", "--file", "-", stdin=line)
    assert done.exit_code == 1
    assert done.err.startswith("line 1: ")
    assert fault in done.err
    assert fault in json.loads(done.out)["error"]["message"]
    assert not server.requests


def test_a_file_that_is_no_text(pointsman: Pointsman, tmp_path: Path) -> None:
    """A file that is not UTF-8 is a wrong argument."""
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'{"prompt": "\xff"}')
    done = pointsman("route", "--file", str(path))
    assert (done.exit_code, done.out) == (2, "")
    assert "not UTF-8" in done.err


def test_progress_is_for_people(
    server: ScriptedServer, pointsman: Pointsman, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Progress is shown on standard error, where a person looks, and never disturbs the lines on standard output."""
    server.on("Route", _ANSWER)
    monkeypatch.setenv("FORCE_COLOR", "1")
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Hello"}\n', encoding="utf-8")
    done = pointsman("route", "--file", str(path))
    assert "routing" in done.err
    assert [json.loads(line)["line"] for line in done.out.splitlines()] == [1]


def test_a_file_without_a_server(pointsman: Pointsman) -> None:
    """Where nobody listens, a file ends at once with how to start a server, and not with a failure for each line."""
    done = pointsman("route", "--file", "-", "--server", "127.0.0.1:1", stdin='{"prompt": "a"}\n' * 20)
    assert (done.exit_code, done.out) == (1, "")
    assert done.err.count("UNAVAILABLE") == 1
    assert "is a server running at 127.0.0.1:1?" in done.err


async def test_concurrency_is_bounded(server: ScriptedServer) -> None:
    """Lines are read only as they are needed: no more are under way at one time than is promised."""
    server.on("Route", _ANSWER)
    read_count = taken_count = 0

    def file() -> Iterator[str]:
        nonlocal read_count
        for _ in range(50):
            read_count += 1
            yield '{"prompt": "Hello"}'

    async with AsyncClient(server.target) as client:
        async for _ in routed(client, read_lines(file()), router="", timeout_s=None):
            taken_count += 1
            assert read_count - taken_count < CONCURRENCY
    assert taken_count == 50
