"""Both clients against a scripted server: what they send, what they give back, and when they hang up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import grpc
import pointsman
import pytest
from client.samples import ANSWER_EVENTS, DECISION, ENDPOINTS, ROUTERS
from client.scripted_server import Failure, Pause, ScriptedServer, events, pages, scripted_server
from pointsman import AsyncClient, Client
from pointsman.durations import duration
from pointsman.v1.chat_pb2 import Delta, ToolCall, ToolCallDelta
from pointsman.v1.router_service_pb2 import (
    BREAK_POLICY_RESTART,
    CompleteResponse,
    Done,
    Execution,
    ListEndpointsResponse,
    ListRoutersResponse,
    OutcomeRefusal,
    ReportOutcomeResponse,
    ReportOutcomesResponse,
    RouteRequest,
    RouteResponse,
    WatchEndpointsResponse,
)
from pointsman.v1.routing_pb2 import AttemptStarted, Routing

_PATIENCE_S = 30.0
"""How long the server may take to see a cancellation before the test gives up on it."""

_STOPPING = Failure(grpc.StatusCode.CANCELLED)
_DOWN = Failure(grpc.StatusCode.UNAVAILABLE, "every endpoint is down", "ERROR_REASON_ENDPOINTS_DOWN")


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[Client]:
    """A blocking client of the scripted server."""
    with Client(server.target) as blocking:
        yield blocking


@pytest.fixture
async def async_client(server: ScriptedServer) -> AsyncIterator[AsyncClient]:
    """An asynchronous client of the scripted server."""
    async with AsyncClient(server.target) as asynchronous:
        yield asynchronous


async def test_both_clients_route_alike(server: ScriptedServer, client: Client, async_client: AsyncClient) -> None:
    """Both clients send the same request for the same arguments, and give back the server's decision."""
    server.on("Route", RouteResponse(decision=DECISION))
    limits = pointsman.constraints(ttft_s_max=0.5)
    wish = pointsman.objective("lowest-cost")

    ours = client.route("Hello", router="cheap", constraints=limits, preferences=wish, seed=0)
    theirs = await async_client.route("Hello", router="cheap", constraints=limits, preferences=wish, seed=0)

    assert ours == theirs == DECISION
    expected = RouteRequest(
        conversation=pointsman.conversation("Hello"),
        routing=Routing(router="cheap", constraints=limits, preferences=wish, seed=0),
    )
    assert server.requests["Route"] == [expected, expected]


async def test_events_come_in_order(server: ScriptedServer, client: Client, async_client: AsyncClient) -> None:
    """An answer's events come as the messages that they are, in the order in which they were sent."""
    server.on("Complete", events(*ANSWER_EVENTS))
    assert list(client.complete("Hello")) == list(ANSWER_EVENTS)
    assert [event async for event in async_client.complete("Hello")] == list(ANSWER_EVENTS)


async def test_execution_is_sent(server: ScriptedServer, client: Client, async_client: AsyncClient) -> None:
    """How a call is to be carried out reaches the server."""
    server.on("Complete", events(Done()))
    list(
        client.complete(
            "Hello",
            max_attempt_count=3,
            ttft_timeout_s=1.5,
            on_break="restart",
            allow_hedging=True,
            omit_candidates=True,
        )
    )
    await async_client.complete_text("Hello")
    asked, plain = server.requests["Complete"]
    assert asked.execution == Execution(
        max_attempt_count=3,
        ttft_timeout=duration(1.5),
        break_policy=BREAK_POLICY_RESTART,
        allow_hedging=True,
        omit_candidates=True,
    )
    assert not plain.execution.HasField("max_attempt_count")
    assert not plain.execution.HasField("ttft_timeout")


async def test_answer_is_the_sum_of_its_events(
    server: ScriptedServer, client: Client, async_client: AsyncClient
) -> None:
    """The text shortcut gives the whole text, who answered, what failed before, and what it cost."""
    server.on("Complete", events(*ANSWER_EVENTS))
    for answer in (client.complete_text("Hello"), await async_client.complete_text("Hello")):
        assert answer.text == "Signals are set."
        assert answer.reasoning == "short"
        assert answer.decision == DECISION
        assert answer.endpoint == "large@south"
        assert [failed.endpoint for failed in answer.failed_attempts] == ["small@north"]
        assert [usage.output_token_count for usage in answer.usages] == [4]
        assert answer.cost_usd == 0.0101
        assert answer.ttft_s == pytest.approx(0.31)
        assert "Signals" not in repr(answer)


def test_restarted_answer_holds_the_last_attempt(server: ScriptedServer, client: Client) -> None:
    """When an answer is started again, what came before is void."""
    first, second = AttemptStarted(attempt_number=1), AttemptStarted(attempt_number=2)
    server.on("Complete", events(first, Delta(text="Sig"), second, Delta(text="Signals"), Done()))
    assert client.complete_text("Hello", on_break="restart").text == "Signals"


def test_tool_calls_are_put_together(server: ScriptedServer, client: Client) -> None:
    """The pieces of each tool call add up to the call, whatever their order among calls."""
    pieces = (
        ToolCallDelta(index=1, id="b", name="weather", arguments_json_fragment='{"city":'),
        ToolCallDelta(index=0, id="a", name="clock"),
        ToolCallDelta(index=1, arguments_json_fragment='"Ulm"}'),
    )
    server.on("Complete", events(*pieces, Done()))
    answer = client.complete_text("Hello")
    assert answer.tool_calls == (
        ToolCall(id="a", name="clock"),
        ToolCall(id="b", name="weather", arguments_json='{"city":"Ulm"}'),
    )
    assert (answer.cost_usd, answer.ttft_s) == (None, None)


def test_answer_without_its_end_is_not_an_answer(server: ScriptedServer, client: Client) -> None:
    """A stream that ends without its last event raises, because nobody knows whether the answer is whole."""
    server.on("Complete", events(Delta(text="Sig")))
    with pytest.raises(pointsman.PointsmanError, match="without its last event"):
        client.complete_text("Hello")


def test_unknown_events_are_passed_over(server: ScriptedServer, client: Client) -> None:
    """An event of a kind that a newer server has invented does not disturb an answer."""
    server.on("Complete", [CompleteResponse(), *events(Done())])
    assert list(client.complete("Hello")) == [Done()]


def test_leaving_the_loop_cancels(server: ScriptedServer, client: Client) -> None:
    """A caller who stops reading an answer ends the call on the server."""
    server.on("Complete", [*events(Delta(text="Sig")), Pause.UNTIL_CANCELLED])
    for event in client.complete("Hello"):
        assert event == Delta(text="Sig")
        break
    assert server.cancelled.wait(_PATIENCE_S)


async def test_leaving_the_loop_cancels_without_blocking(server: ScriptedServer, async_client: AsyncClient) -> None:
    """A coroutine that stops reading an answer ends the call on the server, even by a mere break."""
    server.on("Complete", [*events(Delta(text="Sig")), Pause.UNTIL_CANCELLED])
    async for event in async_client.complete("Hello"):
        assert event == Delta(text="Sig")
        break
    assert await asyncio.to_thread(server.cancelled.wait, _PATIENCE_S)


async def test_closing_the_iterator_cancels(server: ScriptedServer, async_client: AsyncClient) -> None:
    """Closing an answer's iterator while it is still held ends the call on the server."""
    server.on("Complete", [*events(Delta(text="Sig")), Pause.UNTIL_CANCELLED])
    async with aclosing(async_client.complete("Hello")) as answer:
        assert await anext(answer) == Delta(text="Sig")
    assert await asyncio.to_thread(server.cancelled.wait, _PATIENCE_S)


async def test_cancelling_the_task_cancels(server: ScriptedServer, async_client: AsyncClient) -> None:
    """A task that is cancelled while it waits for an answer ends the call on the server, and stays cancelled."""
    server.on("Complete", [*events(Delta(text="Sig")), Pause.UNTIL_CANCELLED])
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in async_client.complete("Hello"):
            begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(server.cancelled.wait, _PATIENCE_S)


async def test_leaving_a_watch_cancels(server: ScriptedServer, client: Client, async_client: AsyncClient) -> None:
    """A watch gives the changes as they come, and ends on the server when the caller leaves it."""
    update = WatchEndpointsResponse(endpoints=ENDPOINTS)
    server.on("WatchEndpoints", [update, Pause.UNTIL_CANCELLED])
    for response in client.watch_endpoints(endpoints=["small@north"], min_interval_s=0.5):
        assert response == update
        break
    assert await asyncio.to_thread(server.cancelled.wait, _PATIENCE_S)
    assert server.requests["WatchEndpoints"][0].endpoints == ["small@north"]
    assert server.requests["WatchEndpoints"][0].min_interval == duration(0.5)

    server.cancelled.clear()
    async for response in async_client.watch_endpoints():
        assert response == update
        break
    assert await asyncio.to_thread(server.cancelled.wait, _PATIENCE_S)
    assert not server.requests["WatchEndpoints"][1].HasField("min_interval")


async def test_lists_are_read_to_the_end(server: ScriptedServer, client: Client, async_client: AsyncClient) -> None:
    """Endpoints and routers are read page by page until there is no more."""
    endpoint_pages = pages(ListEndpointsResponse, "endpoints", ENDPOINTS, size=1)
    router_pages = pages(ListRoutersResponse, "routers", ROUTERS, size=1)
    server.on("ListEndpoints", *endpoint_pages, *endpoint_pages)
    server.on("ListRouters", *router_pages, *router_pages)

    assert client.list_endpoints() == await async_client.list_endpoints() == ENDPOINTS
    assert client.list_routers() == await async_client.list_routers() == ROUTERS
    assert [request.page_token for request in server.requests["ListEndpoints"]] == ["", "page-1"] * 2
    assert [request.page_token for request in server.requests["ListRouters"]] == ["", "page-1"] * 2


async def test_outcomes_are_told(server: ScriptedServer, client: Client, async_client: AsyncClient) -> None:
    """An outcome reaches the server with what was measured, and without what was not."""
    server.on("ReportOutcome", ReportOutcomeResponse())
    client.report_outcome("d1", ttft_s=0.2, duration_s=1.5, output_token_count=0, failure="timeout")
    await async_client.report_outcome("d1", quality=0.0, quality_source="user", endpoint="small@north")
    measured, judged = (request.outcome for request in server.requests["ReportOutcome"])
    assert measured == pointsman.outcome("d1", ttft_s=0.2, duration_s=1.5, output_token_count=0, failure="timeout")
    assert not measured.HasField("quality")
    assert judged == pointsman.outcome("d1", quality=0.0, quality_source="user", endpoint="small@north")
    assert not judged.HasField("ttft")


async def test_many_outcomes_are_told_in_one_stream(
    server: ScriptedServer, client: Client, async_client: AsyncClient
) -> None:
    """Outcomes from a list or an asynchronous source go over one stream, and refusals come back as a value."""
    verdict = ReportOutcomesResponse(accepted_count=1, refused_count=1, refusals=[OutcomeRefusal(index=1)])
    server.on("ReportOutcomes", verdict)
    outcomes = [pointsman.outcome("d1"), pointsman.outcome("d2", quality=1.0)]

    async def source() -> AsyncIterator[pointsman.Outcome]:
        for each in outcomes:
            yield each

    assert client.report_outcomes(outcomes) == verdict
    assert await async_client.report_outcomes(outcomes) == verdict
    assert await async_client.report_outcomes(source()) == verdict
    received = [[request.outcome for request in stream] for stream in server.requests["ReportOutcomes"]]
    assert received == [outcomes] * 3


async def test_decisions_are_asked_for_again(server: ScriptedServer, client: Client, async_client: AsyncClient) -> None:
    """A decision or a list that meets an unavailable server, or one that just stops, is asked for again."""
    answer = RouteResponse(decision=DECISION)
    server.on("Route", _DOWN, answer, _STOPPING, answer)
    server.on("ListRouters", _DOWN, ListRoutersResponse(routers=ROUTERS))
    assert client.route("Hello") == await async_client.route("Hello") == DECISION
    assert client.list_routers() == ROUTERS
    assert (len(server.requests["Route"]), len(server.requests["ListRouters"])) == (4, 2)


def test_retries_are_bounded(server: ScriptedServer, client: Client) -> None:
    """A server that stays unavailable is asked four times at most."""
    server.on("Route", _DOWN)
    with pytest.raises(pointsman.UnavailableError):
        client.route("Hello")
    assert len(server.requests["Route"]) == 4


async def test_what_must_happen_once_is_never_retried(
    server: ScriptedServer, client: Client, async_client: AsyncClient
) -> None:
    """An answer and an outcome are never asked for twice."""
    for method in ("Complete", "ReportOutcome", "ReportOutcomes"):
        server.on(method, _DOWN)
    with pytest.raises(pointsman.UnavailableError):
        client.complete_text("Hello")
    with pytest.raises(pointsman.UnavailableError):
        await async_client.complete_text("Hello")
    with pytest.raises(pointsman.UnavailableError):
        await async_client.report_outcome("d1")
    with pytest.raises(pointsman.UnavailableError):
        client.report_outcomes([])
    counts = [len(server.requests[method]) for method in ("Complete", "ReportOutcome", "ReportOutcomes")]
    assert counts == [2, 1, 1]


async def test_deadlines_hold(server: ScriptedServer, client: Client, async_client: AsyncClient) -> None:
    """A call that takes longer than its timeout fails with the deadline, and ends on the server."""
    server.on("Route", Pause.UNTIL_CANCELLED)
    server.on("Complete", Pause.UNTIL_CANCELLED)
    with pytest.raises(pointsman.DeadlineExceededError):
        client.route("Hello", timeout_s=0.05)
    with pytest.raises(pointsman.DeadlineExceededError):
        await async_client.complete_text("Hello", timeout_s=0.05)
    assert await asyncio.to_thread(server.cancelled.wait, _PATIENCE_S)


async def test_client_has_default_deadlines(server: ScriptedServer) -> None:
    """Without a timeout of its own a call has its client's: one for answers, one for the rest."""
    server.on("Route", Pause.UNTIL_CANCELLED)
    server.on("Complete", Pause.UNTIL_CANCELLED)
    async with AsyncClient(server.target, timeout_s=0.05, complete_timeout_s=0.05) as client:
        with pytest.raises(pointsman.DeadlineExceededError):
            await client.route("Hello")
        with pytest.raises(pointsman.DeadlineExceededError):
            await client.complete_text("Hello")


async def test_headers_go_along(server: ScriptedServer) -> None:
    """The API key and the caller's own headers, such as a trace's parent, go along with every call."""
    server.on("Route", RouteResponse(decision=DECISION))
    server.on("Complete", events(Done()))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with Client(server.target, api_key="secret") as client:
        client.route("Hello", metadata={"traceparent": parent})
    async with AsyncClient(server.target, api_key="secret") as async_client:
        await async_client.complete_text("Hello", metadata={"traceparent": parent})
    for method in ("Route", "Complete"):
        headers = server.headers[method][0]
        assert (headers["authorization"], headers["traceparent"]) == ("Bearer secret", parent)


def test_without_a_key_none_is_sent(server: ScriptedServer, client: Client) -> None:
    """A client without an API key sends no authorization."""
    server.on("Route", RouteResponse(decision=DECISION))
    client.route("Hello")
    assert "authorization" not in server.headers["Route"][0]


async def test_misspelt_arguments_are_refused(client: Client, async_client: AsyncClient) -> None:
    """A keyword argument that there is not is a TypeError at the call, not silence."""
    misspelt = {"contraints": None}
    with pytest.raises(TypeError, match="contraints"):
        client.route("Hello", **misspelt)  # type: ignore[arg-type] # what an untyped caller would do
    with pytest.raises(TypeError, match="contraints"):
        async_client.complete("Hello", **misspelt)  # type: ignore[arg-type] # likewise


def test_nobody_listens() -> None:
    """A server that can't be reached is an UnavailableError."""
    with Client("127.0.0.1:1") as client, pytest.raises(pointsman.UnavailableError):
        client.complete_text("Hello")


async def test_connections_can_be_secured() -> None:
    """With TLS settings both clients check the server's certificate against the given roots."""
    certificate = (Path(__file__).parent / "localhost.pem").read_bytes()
    key = (Path(__file__).parent / "localhost.key").read_bytes()
    tls = pointsman.TlsSettings(root_certificates_pem=certificate)
    with scripted_server(grpc.ssl_server_credentials([(key, certificate)])) as server:
        server.on("Route", RouteResponse(decision=DECISION))
        with Client(server.target, tls=tls) as client:
            assert client.route("Hello") == DECISION
        async with AsyncClient(server.target, tls=tls) as async_client:
            assert await async_client.route("Hello") == DECISION
        with Client(server.target, tls=pointsman.TlsSettings()) as wary, pytest.raises(pointsman.UnavailableError):
            wary.complete_text("Hello")


def test_half_of_mutual_tls_is_refused() -> None:
    """A key without its certificate is refused, and a key never shows in a repr."""
    with pytest.raises(ValueError, match="both"):
        pointsman.TlsSettings(private_key_pem=b"key")
    assert "hidden" not in repr(pointsman.TlsSettings(private_key_pem=b"hidden", certificate_chain_pem=b"chain"))
