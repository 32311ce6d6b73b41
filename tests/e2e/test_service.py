"""The service around the decision: outcomes, lists, watching, health, reflection, keys, limits, reload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import grpc
import pytest
from e2e.harness import Running, config_of, delta_event, endpoints, running, streaming, urls_of
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from pointsman import (
    AsyncClient,
    Delta,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    ResourceExhaustedError,
    UnauthenticatedError,
    outcome,
    seconds,
)
from pointsman.v1 import router_service_pb2, routing_pb2
from pointsman_server.app import Application
from pointsman_server.config import parse_config
from pointsman_server.edge.service import SERVICE_NAME
from pointsman_server.errors import ArtifactError, ConfigError
from pointsman_server.providers.scripted import Hang, ReadRequest, ScriptedUpstream, Send, WaitFor, stream_head

NOWHERE = {"north": "http://127.0.0.1:9/v1", "south": "http://127.0.0.1:9/v1"}
CATALOG = endpoints({"north": ["a", "b"], "south": ["a"]}, NOWHERE)


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    """A server with three endpoints."""
    async with running(config_of(CATALOG)) as started:
        yield started


async def test_a_reported_outcome_teaches_the_aggregator(server: Running) -> None:
    """What a caller measured of its own call is what the next decision knows."""
    decision = await server.client.route("hi", router="a@north")
    await server.client.report_outcome(
        decision.id, ttft_s=0.25, duration_s=1.25, input_token_count=10, output_token_count=101
    )
    again = await server.client.route("hi", router="a@north")
    (candidate,) = [c for c in again.candidates if c.rank]
    assert seconds(candidate.ttft.mean) == pytest.approx(0.25, rel=0.3)
    assert seconds(candidate.inter_token_latency.mean) == pytest.approx(0.01, rel=0.3)


async def test_a_reported_failure_counts_against_the_endpoint(server: Running) -> None:
    """Failures that callers met open the breaker as our own do."""
    for _ in range(5):
        decision = await server.client.route("hi", router="a")
        if decision.endpoint == "a@south":
            break
        await server.client.report_outcome(decision.id, endpoint="a@north", duration_s=0.1, failure="server_error")
    status = {s.endpoint.name: s.runtime for s in await server.client.list_endpoints()}
    assert status["a@north"].error_rate > 0.1


async def test_quality_alone_says_nothing_of_latency(server: Running) -> None:
    """A judgement that comes later is no observation of the call."""
    decision = await server.client.route("hi", router="a@north")
    await server.client.report_outcome(decision.id, quality=0.9, quality_source="user")
    status = {s.endpoint.name: s.runtime for s in await server.client.list_endpoints()}
    assert status["a@north"].observation_count == 0


async def test_outcomes_of_unknown_decisions_are_not_found(server: Running) -> None:
    """An id that was never given out, or is forgotten, is NOT_FOUND with its reason."""
    with pytest.raises(NotFoundError) as caught:
        await server.client.report_outcome("0" * 32, ttft_s=0.1)
    assert caught.value.reason == "ERROR_REASON_UNKNOWN_DECISION"
    decision = await server.client.route("hi")
    with pytest.raises(InvalidRequestError) as invalid:
        await server.client.report_outcome(decision.id, ttft_s=2.0, duration_s=1.0)
    assert [violation.field for violation in invalid.value.violations] == ["outcome.ttft"]


async def test_a_stream_of_outcomes_takes_what_it_can(server: Running) -> None:
    """Refused outcomes are listed with their place; the others count."""
    decision = await server.client.route("hi")
    response = await server.client.report_outcomes(
        [outcome(decision.id, ttft_s=0.1), outcome("missing", ttft_s=0.1), outcome(decision.id, quality=2.0)]
    )
    assert (response.accepted_count, response.refused_count) == (1, 2)
    assert [(refusal.index, refusal.decision_id) for refusal in response.refusals] == [(1, "missing"), (2, decision.id)]


async def test_lists_come_in_pages(server: Running) -> None:
    """A page token continues where the page before ended; the last page has none."""
    names: list[str] = []
    token = ""
    for _ in range(3):
        page = await server.stub.ListEndpoints(router_service_pb2.ListEndpointsRequest(page_size=1, page_token=token))
        names += [status.endpoint.name for status in page.endpoints]
        token = page.next_page_token
    assert (names, token) == (["a@north", "a@south", "b@north"], "")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.stub.ListEndpoints(router_service_pb2.ListEndpointsRequest(page_size=-1))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_routers_are_listed_with_their_text_and_artifact(server: Running) -> None:
    """The default router is always there, with the quality artifact that it predicts by."""
    (router,) = await server.client.list_routers()
    assert (router.name, router.text) == ("default", "router@q:1|rc:5|t:0.00001|e:0.000001")
    assert router.quality_artifact.version
    assert router.quality_artifact.models
    assert router.preferences.weights.quality == 1.0


async def test_watching_shows_everything_once_and_then_what_changes(server: Running) -> None:
    """The first response has every endpoint, the next one only what has been observed since."""
    async with aclosing(server.client.watch_endpoints(min_interval_s=0.1)) as watch:
        first = await anext(watch)
        assert [status.endpoint.name for status in first.endpoints] == ["a@north", "a@south", "b@north"]
        decision = await server.client.route("hi", router="b")
        await server.client.report_outcome(decision.id, ttft_s=0.2, duration_s=0.4)
        second = await anext(watch)
        assert [status.endpoint.name for status in second.endpoints] == ["b@north"]
        await server.application.reload(config_of(endpoints({"north": ["a"]}, NOWHERE)))
        third = await anext(watch)
        assert list(third.removed_endpoints) == ["a@south", "b@north"]


async def health_of(channel: grpc.aio.Channel, service: str) -> int:
    """What Check says of a service."""
    check: grpc.aio.UnaryUnaryMultiCallable[HealthCheckRequest, HealthCheckResponse] = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    return (await check(HealthCheckRequest(service=service))).status


async def test_health_is_checked_and_watched(server: Running) -> None:
    """Both the server and its service report SERVING, to Check and to Watch."""
    watch: grpc.aio.UnaryStreamMultiCallable[HealthCheckRequest, HealthCheckResponse] = server.channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    for name in ("", SERVICE_NAME):
        assert await health_of(server.channel, name) == HealthCheckResponse.SERVING
        call = watch(HealthCheckRequest(service=name))
        async for response in call:
            assert response.status == HealthCheckResponse.SERVING
            break
        call.cancel()


async def test_reflection_lists_the_service(server: Running) -> None:
    """Tools such as grpcurl find the service without its proto."""
    listing: grpc.aio.StreamStreamMultiCallable[ServerReflectionRequest, ServerReflectionResponse] = (
        server.channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )
    )
    call = listing(iter([ServerReflectionRequest(list_services="")]))
    async for response in call:
        assert SERVICE_NAME in {service.name for service in response.list_services_response.service}
        break
    call.cancel()


async def test_without_its_key_a_caller_is_turned_away() -> None:
    """A server with keys answers only callers who send one of them; health stays open to probes."""
    config = config_of(CATALOG, {"KEYS": "first-key-123456,second-key-123456"}, server='api_keys_env = "KEYS"')
    async with running(config, api_key="second-key-123456") as server:
        assert (await server.client.route("hi")).endpoint
        for wrong in (None, "third-key-123456"):
            async with AsyncClient(server.address, api_key=wrong) as stranger:
                with pytest.raises(UnauthenticatedError) as caught:
                    await stranger.route("hi")
                assert "key-123456" not in str(caught.value.status)
        assert await health_of(server.channel, "") == HealthCheckResponse.SERVING


async def test_a_full_server_says_so_at_once() -> None:
    """Beyond its limit of concurrent requests the server refuses with the limit and a time to come back."""
    hanging = (ReadRequest(), Send(stream_head()), Send(delta_event("x")), Hang())
    async with ScriptedUpstream(hanging) as upstream:
        config = config_of(endpoints({"north": ["a"]}, urls_of(north=upstream)), server="request_count_max = 1")
        async with running(config) as server, aclosing(server.client.complete("hi")) as events:
            async for event in events:
                if isinstance(event, Delta):
                    break
            with pytest.raises(ResourceExhaustedError) as caught:
                await server.client.route("hi")
            assert caught.value.reason == "ERROR_REASON_OVERLOADED"
            assert caught.value.metadata["limit"] == "1"
            assert caught.value.retry_after_s is not None


async def test_a_reload_changes_what_is_served_and_keeps_what_is_known(server: Running) -> None:
    """New endpoints serve at once, old ones are gone, and observations of those that stay are kept."""
    decision = await server.client.route("hi", router="a@north")
    await server.client.report_outcome(decision.id, ttft_s=0.2, duration_s=0.4)
    version = decision.router_version
    await server.application.reload(config_of(endpoints({"north": ["a", "c"]}, NOWHERE)))
    statuses = {status.endpoint.name: status.runtime for status in await server.client.list_endpoints()}
    assert set(statuses) == {"a@north", "c@north"}
    assert statuses["a@north"].observation_count == 1
    assert (await server.client.route("hi")).router_version != version


async def test_an_endpoint_that_comes_back_starts_anew(server: Running) -> None:
    """What was known of an endpoint is forgotten when it leaves the catalog."""
    decision = await server.client.route("hi", router="b@north")
    await server.client.report_outcome(decision.id, ttft_s=0.2, duration_s=0.4)
    await server.application.reload(config_of(endpoints({"north": ["a"]}, NOWHERE)))
    await server.application.reload(config_of(CATALOG))
    statuses = {status.endpoint.name: status.runtime for status in await server.client.list_endpoints()}
    assert statuses["b@north"].observation_count == 0


async def test_what_takes_a_restart_is_said_at_a_reload(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    """A changed [server] table is told about, an unchanged one is not, and an unchanged artifact is not loaded again."""
    quality = server.application.router.world.routers["default"].quality
    await server.application.reload(config_of(CATALOG))
    assert caplog.text == ""
    assert server.application.router.world.routers["default"].quality is quality
    await server.application.reload(config_of(CATALOG, server="request_count_max = 7"))
    assert "they take effect at the next start" in caplog.text


async def test_a_bug_is_answered_by_an_id_alone(
    server: Running, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever escapes, an error of ours that no call should end in or a foreign one, is INTERNAL and says nothing."""
    for bug in (ArtifactError("canary-bug"), ValueError("canary-bug")):

        def broken(*_: object, bug: Exception = bug, **__: object) -> None:
            raise bug

        monkeypatch.setattr(server.application.router, "route", broken)
        with pytest.raises(InternalError) as caught:
            await server.client.route("hi")
        assert caught.value.error_id in caplog.text
        assert "canary-bug" not in f"{caught.value.status}{caplog.text}"


async def test_a_stream_under_way_survives_a_reload() -> None:
    """A reload that replaces a provider lets its answers end."""
    gate = asyncio.Event()
    script = (ReadRequest(), Send(stream_head()), Send(delta_event("be")), WaitFor(gate), *streaming("fore")[2:])
    async with (
        ScriptedUpstream(script) as upstream,
        running(config_of(endpoints({"north": ["a"]}, urls_of(north=upstream)))) as server,
    ):
        texts: list[str] = []
        async for event in server.client.complete("hi"):
            if isinstance(event, Delta):
                texts.append(event.text)
                if not gate.is_set():
                    await server.application.reload(config_of(endpoints({"north": ["a"]}, NOWHERE)))
                    gate.set()
        assert "".join(texts) == "before"


async def test_a_taken_port_is_a_clear_error(server: Running) -> None:
    """Two servers on one port: the second says so instead of sharing it silently."""
    text = f'[server]\nlisten = "{server.address}"\n{CATALOG}'
    config = parse_config(text, source="second", directory=Path(), environment={})
    with pytest.raises(ConfigError, match="the port is taken"):
        async with Application(config):
            pass


async def test_an_unknown_enum_number_is_refused(server: Running) -> None:
    """Enums of proto3 are open; a number from a newer protocol is told, not guessed."""
    request = router_service_pb2.RouteRequest()
    message = request.conversation.messages.add(role=2)
    message.parts.add().text.text = "hi"
    request.routing.preferences.objective.metric = 99  # type: ignore[assignment]  # what the test is about
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.stub.Route(request)
    assert "is 99, which this version does not know" in str(caught.value.details())
    assert routing_pb2.METRIC_TTFT == 7
