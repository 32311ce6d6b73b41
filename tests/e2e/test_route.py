"""Route: decisions over real gRPC, and every way in which a request can be wrong."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import grpc
import pytest
from e2e.harness import Running, config_of, endpoints, running
from pointsman import (
    InvalidRequestError,
    NoEligibleEndpointError,
    ResourceExhaustedError,
    constraints,
    image,
    user,
    weights,
)
from pointsman.v1 import chat_pb2, router_service_pb2, routing_pb2

NOWHERE = {"north": "http://127.0.0.1:9/v1", "south": "http://127.0.0.1:9/v1"}
"""Route calls no provider, so nobody needs to listen."""

CATALOG = endpoints({"north": ["gpt-4o", "gpt-4o-mini"], "south": ["gpt-4o-mini"]}, NOWHERE)
ROUTERS = """
[routers.frugal]
description = "cheap ones only"
policy = "router@lowest-cost|skip_models:gpt-4o"
"""


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    """A server with three endpoints of which nothing has been observed yet."""
    async with running(config_of(CATALOG + ROUTERS)) as started:
        yield started


async def test_a_decision_tells_everything(server: Running) -> None:
    """The decision names the choice, ranks every candidate with its predictions, and says what it was made by."""
    decision = await server.client.route("What is 17 * 23?", seed=7)
    assert decision.endpoint == f"{decision.model}@{decision.provider}"
    assert [candidate.rank for candidate in decision.candidates] == [1, 2, 3]
    assert decision.candidates[0].endpoint == decision.endpoint
    assert sum(candidate.probability for candidate in decision.candidates) == pytest.approx(1.0)
    assert decision.router == "default"
    assert decision.router_version
    assert decision.quality_artifact
    assert decision.seed == 7
    assert len(decision.id) == 32
    assert not decision.HasField("runtime_age")
    for candidate in decision.candidates:
        assert 0.0 <= candidate.quality.low <= candidate.quality.mean <= candidate.quality.high <= 1.0
        assert candidate.cost_usd > 0.0
        assert not candidate.HasField("ttft")
        assert candidate.utility == pytest.approx(sum(term.contribution for term in candidate.utility_terms))


async def test_the_same_request_and_seed_decide_alike(server: Running) -> None:
    """A decision repeats itself when nothing was observed in between; only its id and time are new."""
    first = await server.client.route("Explain photosynthesis.", seed=3)
    second = await server.client.route("Explain photosynthesis.", seed=3)
    for decision in (first, second):
        decision.ClearField("id")
        decision.ClearField("decide_time")
    assert first == second


async def test_named_routers_and_router_strings_decide(server: Running) -> None:
    """A router's name, a model, an endpoint and a text each route as they say; the decision repeats it in full."""
    by_name = await server.client.route("hi", router="frugal")
    assert by_name.router == "frugal"
    assert by_name.router_text == "router@lowest-c|skip_models:gpt-4o"
    assert by_name.model == "gpt-4o-mini"
    assert (await server.client.route("hi", router="gpt-4o")).endpoint == "gpt-4o@north"
    assert (await server.client.route("hi", router="gpt-4o-mini@south")).endpoint == "gpt-4o-mini@south"
    skipped = await server.client.route("hi", router="router@q:1|skip_providers:north")
    assert skipped.endpoint == "gpt-4o-mini@south"
    fallback = await server.client.route("hi", router="gpt-4o@ttft<1->gpt-4o-mini@south")
    assert (fallback.endpoint, fallback.reason) == ("gpt-4o-mini@south", routing_pb2.DECISION_REASON_FALLBACK)


async def test_typed_constraints_and_preferences_decide(server: Running) -> None:
    """What the text form can say, the messages can."""
    decision = await server.client.route(
        "hi",
        constraints=constraints(models=["gpt-4o-mini"], skip_providers=["north"]),
        preferences=weights(quality=1.0, request_cost_usd=3.0),
    )
    assert decision.endpoint == "gpt-4o-mini@south"
    assert decision.router_text == "router@q:1|rc:3|models:gpt-4o-mini|skip_providers:north"


async def test_capabilities_are_derived_from_the_conversation(server: Running) -> None:
    """An image needs an endpoint that takes images; none here does, and the rejection says so."""
    with pytest.raises(NoEligibleEndpointError) as caught:
        await server.client.route([user("What is this?", image("https://example.com/cat.png"))])
    reasons = {rejection.constraint for c in caught.value.candidates for rejection in c.rejections}
    assert reasons == {"capabilities:image_input"}
    assert caught.value.relaxations == ()


async def test_an_impossible_constraint_is_answered_with_reasons_and_the_nearest_change(server: Running) -> None:
    """FAILED_PRECONDITION lists each endpoint's rejections, and the smallest change of bounds that would do."""
    with pytest.raises(NoEligibleEndpointError) as caught:
        await server.client.route("hi", router="router@c<0.5|models:gpt-4o-mini")
    error = caught.value
    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert error.reason == "ERROR_REASON_NO_ELIGIBLE_ENDPOINT"
    assert error.metadata["candidate_count"] == "3"
    rejected = {
        candidate.endpoint: [(r.reason, r.constraint) for r in candidate.rejections] for candidate in error.candidates
    }
    violated = (routing_pb2.REJECTION_REASON_BOUND_VIOLATED, "c<0.5")
    outside = (routing_pb2.REJECTION_REASON_NOT_IN_SEARCH_SPACE, "models:gpt-4o-mini")
    assert rejected == {
        "gpt-4o-mini@north": [violated],
        "gpt-4o-mini@south": [violated],
        "gpt-4o@north": [outside, violated],
    }
    (change,) = error.relaxations[0].changes
    assert (change.bound, change.relaxed_bound) == ("c<0.5", "c<=1.25")
    relaxed = await server.client.route("hi", router="router@c<=1.25|models:gpt-4o-mini")
    assert relaxed.model == "gpt-4o-mini"


async def test_an_unknown_latency_is_rejected_where_it_is_bounded(server: Running) -> None:
    """Before anything was observed a bound on TTFT rejects everything, as unknown rather than as violated."""
    with pytest.raises(NoEligibleEndpointError) as caught:
        await server.client.route("hi", constraints=constraints(ttft_s_max=10.0, ttft_quantile=0.95))
    found = {(r.reason, r.constraint, r.HasField("actual")) for c in caught.value.candidates for r in c.rejections}
    assert found == {(routing_pb2.REJECTION_REASON_UNKNOWN_VALUE, "ttft.p95<=10000", False)}


async def test_every_violation_is_listed_at_once(server: Running) -> None:
    """An invalid request is answered with INVALID_ARGUMENT and the path of each fault."""
    request = router_service_pb2.RouteRequest(
        conversation=chat_pb2.Conversation(
            messages=[chat_pb2.Message(), chat_pb2.Message(role=chat_pb2.ROLE_TOOL, parts=[chat_pb2.Part()])],
            sampling=chat_pb2.SamplingOptions(temperature=3.0, top_p=math.nan, stop=["", "x"]),
        ),
        routing=routing_pb2.Routing(
            router="router@q:x",
            constraints=routing_pb2.Constraints(
                quality=routing_pb2.QualityBound(min=math.inf, risk=0.9),
                price_usd_per_million_tokens=routing_pb2.ValueBound(min=5.0, max=1.0),
                labels=[routing_pb2.Label(key="region")],
            ),
            preferences=routing_pb2.Preferences(weights=routing_pb2.Weights(quality=-1.0)),
        ),
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.stub.Route(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(InvalidRequestError) as translated:
        await server.client.route(request.conversation, router="router@q:x", constraints=request.routing.constraints)
    paths = {violation.field for violation in translated.value.violations}
    assert paths == {
        "conversation.messages[0].role",
        "conversation.messages[0].parts",
        "conversation.messages[1].parts[0]",
        "conversation.messages[1].tool_call_id",
        "conversation.sampling.temperature",
        "conversation.sampling.top_p",
        "conversation.sampling.stop",
        "routing.router",
        "routing.constraints.quality.min",
        "routing.constraints.quality.risk",
        "routing.constraints.price_usd_per_million_tokens",
        "routing.constraints.labels[0]",
    }
    assert translated.value.metadata == {"violation_count": "12"}


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        (router_service_pb2.RouteRequest(), "conversation.messages", "is empty; expected at least one message"),
        (
            router_service_pb2.RouteRequest(
                conversation=chat_pb2.Conversation(
                    messages=[
                        chat_pb2.Message(
                            role=chat_pb2.ROLE_ASSISTANT, parts=[chat_pb2.Part(text=chat_pb2.TextPart(text="x"))]
                        )
                    ]
                )
            ),
            "conversation.messages",
            "must end with a turn of the user or of a tool",
        ),
    ],
)
async def test_an_unusable_conversation_is_refused(
    server: Running, request_: router_service_pb2.RouteRequest, field: str, words: str
) -> None:
    """An empty conversation, and one that leaves nothing to answer, are told apart."""
    with pytest.raises(InvalidRequestError) as caught:
        await server.client.route(request_.conversation)
    assert [(violation.field, violation.description) for violation in caught.value.violations] == [(field, words)]


async def test_an_unknown_model_is_told_from_a_constraint(server: Running) -> None:
    """A typing error is an invalid argument with a suggestion, not an endless search."""
    with pytest.raises(InvalidRequestError) as caught:
        await server.client.route("hi", router="gpt-4o-mni")
    (violation,) = caught.value.violations
    assert violation.field == "routing.router"
    assert violation.description.startswith("no router and no model is named 'gpt-4o-mni'; did you mean gpt-4o-mini")
    with pytest.raises(InvalidRequestError) as caught:
        await server.client.route("hi", constraints=constraints(providers=["nroth"]))
    (violation,) = caught.value.violations
    assert (violation.field, violation.description) == (
        "routing.constraints.providers",
        "the catalog has no provider 'nroth'; did you mean north or south?",
    )


async def test_a_message_that_is_no_protobuf_is_an_invalid_argument(server: Running) -> None:
    """Bytes that don't decode end in our status with our reason, not in gRPC's UNKNOWN."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = server.channel.unary_unary(
        "/pointsman.v1.RouterService/Route"
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\xff\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "the request is not a serialised RouteRequest"


async def test_a_prompt_over_the_limit_is_refused_with_the_limit() -> None:
    """A message larger than the configured limit ends in RESOURCE_EXHAUSTED that names limit and size."""
    async with running(config_of(CATALOG, server="message_bytes_max = 2000")) as server:
        with pytest.raises(ResourceExhaustedError) as caught:
            await server.client.route("x" * 2500)
        assert caught.value.reason == "ERROR_REASON_MESSAGE_TOO_LARGE"
        assert caught.value.metadata["limit_bytes"] == "2000"
        assert (await server.client.route("x" * 1500)).endpoint


async def test_a_text_of_any_script_and_size_is_routed(server: Running) -> None:
    """Emoji, right-to-left text, control characters and a megabyte of text get their decision."""
    for text in ("😀" * 10, "مرحبا بالعالم", "\x00\x01\u202e", "word " * 200_000):
        assert (await server.client.route(text)).endpoint


async def test_prompt_text_stays_out_of_the_decision(server: Running) -> None:
    """Neither a decision nor an error repeats the prompt."""
    canary = "canary-5d1f"
    assert canary not in str(await server.client.route(canary))
    with pytest.raises(NoEligibleEndpointError) as caught:
        await server.client.route(canary, router="router@c<0.01")
    assert canary not in str(caught.value.status)
