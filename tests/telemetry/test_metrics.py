"""Metrics: each event lands in its instruments, under bounded names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from pointsman_server.chat import Usage
from pointsman_server.decision.decide import decide
from pointsman_server.decision.metrics import Metric
from pointsman_server.decision.types import (
    Agreement,
    Assignment,
    Bound,
    Comparison,
    Decision,
    DecisionInput,
    Endpoint,
    Policy,
    QualityPrediction,
    RequestFacts,
    RuntimeSnapshot,
)
from pointsman_server.errors import UpstreamErrorKind
from pointsman_server.telemetry import names
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.regret import Seen
from pointsman_server.telemetry.setup import Telemetry, TelemetrySettings, configure_telemetry

ENDPOINT = Endpoint("small", "north")
UNSPLIT = Assignment("default", "default")
SEEN = Seen(cost_usd=0.5, ttft_s=0.25, inter_token_latency_s=0.01, duration_s=2.0)
Points = dict[frozenset[tuple[str, object]], float]


@pytest.fixture
def reader() -> InMemoryMetricReader:
    """Reads the metrics."""
    return InMemoryMetricReader()


@pytest.fixture
def telemetry(reader: InMemoryMetricReader) -> Iterator[Telemetry]:
    """Telemetry that is read by the test."""
    telemetry = configure_telemetry(TelemetrySettings(), metric_reader=reader)
    yield telemetry
    telemetry.shutdown()


@pytest.fixture
def metrics(telemetry: Telemetry) -> Metrics:
    """The instruments under test."""
    return telemetry.metrics


def points(reader: InMemoryMetricReader) -> dict[str, Points]:
    """By metric and attributes: the sum of what was recorded."""
    read = reader.get_metrics_data()
    found: dict[str, Points] = {}
    if read is None:
        return found
    for resource in read.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                sums = found.setdefault(metric.name, {})
                for point in metric.data.data_points:
                    assert isinstance(point, NumberDataPoint | HistogramDataPoint)
                    value = point.value if isinstance(point, NumberDataPoint) else point.sum
                    sums[frozenset((point.attributes or {}).items())] = value
    return found


def of(found: Points, **wanted: object) -> float:
    """The one point that has these attributes, written with _ for a dot."""
    pairs = set(wanted.items())
    matching = [
        value for attributes, value in found.items() if pairs <= {(key.replace(".", "_"), v) for key, v in attributes}
    ]
    assert len(matching) == 1, found
    return matching[0]


def a_decision(
    quality_min: float = 0.0,
    *,
    router_name: str = "default",
    assignment: Assignment = UNSPLIT,
    quality_of_b: float | None = 0.7,
    price: float | None = None,
) -> Decision:
    """Two models of quality 0.5 and (if it is known) 0.7, under a bound."""
    qualities = {"a": QualityPrediction(0.5, 0.1, 100.0)}
    if quality_of_b is not None:
        qualities["b"] = QualityPrediction(quality_of_b, 0.1, 100.0)
    return decide(
        DecisionInput(
            decision_id="d-1",
            facts=RequestFacts(input_token_count=100),
            alternatives=(Policy(bounds=(Bound(Metric.QUALITY, Comparison.GREATER_EQUAL, quality_min),)),),
            endpoints=(Endpoint("a", "north", price, price), Endpoint("b", "north", price, price)),
            qualities=qualities,
            snapshot=RuntimeSnapshot(),
            seed=1,
            router_name=router_name,
            assignment=assignment,
        )
    )


def test_calls_are_counted_by_method_and_status(metrics: Metrics, reader: InMemoryMetricReader) -> None:
    """Each call is in the histogram of its method and status, with its duration."""
    metrics.served("S/Route", status="OK", duration_s=0.25)
    metrics.served("S/Route", status="OK", duration_s=0.5)
    metrics.served("S/Route", status="UNAVAILABLE", duration_s=1.0)
    calls = points(reader)[names.RPC_SERVER_CALL_DURATION]
    assert of(calls, rpc_method="S/Route", rpc_response_status_code="OK") == 0.75
    assert of(calls, rpc_method="S/Route", rpc_response_status_code="UNAVAILABLE") == 1.0


def test_decisions_are_counted_by_router_and_endpoint(metrics: Metrics, reader: InMemoryMetricReader) -> None:
    """A choice counts for its endpoint; a decision for nothing counts too, and every rejection by its reason."""
    metrics.decided(a_decision(0.0), duration_s=0.001)
    metrics.decided(a_decision(0.6), duration_s=0.001)
    metrics.decided(a_decision(0.9), duration_s=0.001)
    read = points(reader)
    assert sum(read[names.DECISIONS].values()) == 3
    assert of(read[names.DECISIONS], pointsman_decision_reason="only_candidate", pointsman_endpoint="b@north") == 1
    assert of(read[names.DECISIONS], pointsman_decision_reason=names.REASON_NONE_ELIGIBLE) == 1
    assert of(read[names.REJECTIONS], pointsman_rejection_reason="bound_violated") == 3
    assert of(read[names.ROUTING_DURATION], pointsman_router_name="default") == pytest.approx(0.003)


def test_what_a_split_assigned_is_told_apart(metrics: Metrics, reader: InMemoryMetricReader) -> None:
    """Decisions, outcomes, quality and cost carry the router that was asked for beside the one that decided; where
    nothing was split there is but one name."""
    arm = a_decision(router_name="arm", assignment=Assignment("default", "arm", probability=0.1))
    own = a_decision(assignment=Assignment("default", "default", probability=0.9))
    for decision in (arm, own, a_decision(), a_decision(router_name="arm", assignment=Assignment("arm", "arm"))):
        assigned = decision.assignment
        metrics.decided(decision, duration_s=0.001)
        metrics.spent(decision, ENDPOINT, usage=Usage(3, 4), cost_usd=0.5)
        metrics.reported(0.5, endpoint_name="b@north", router_name=decision.router_name, split_name=assigned.split_name)
    read = points(reader)
    for name in (names.DECISIONS, names.OUTCOMES, names.REPORTED_QUALITY, names.ROUTER_COST):
        told = {
            (dict(attributes)[names.ROUTER_NAME], dict(attributes).get(names.ROUTER_ASKED)) for attributes in read[name]
        }
        assert told == {("arm", "default"), ("default", "default"), ("default", None), ("arm", None)}
    assert of(read[names.ROUTER_COST], pointsman_router_name="arm", pointsman_router_asked="default") == 0.5


def test_a_shadow_is_held_against_the_acting_router(metrics: Metrics, reader: InMemoryMetricReader) -> None:
    """Agreement is counted, and quality and cost of both choices are measured side by side."""
    acting, shadow = a_decision(price=2.0), a_decision(router_name="s", quality_of_b=0.4, price=1.0)
    metrics.decided(acting, [shadow, shadow], duration_s=0.001)
    read = points(reader)
    pair = {"pointsman_router_name": "default", "pointsman_shadow_router": "s"}
    assert of(read[names.SHADOW_DECISIONS], **pair, pointsman_shadow_agreement="other") == 2
    assert acting.chosen is not None
    assert shadow.chosen is not None
    for side, choice in ((names.SIDE_ACTING, acting.chosen), (names.SIDE_SHADOW, shadow.chosen)):
        assert choice.quality is not None
        assert choice.cost_usd is not None
        assert of(read[names.SHADOW_QUALITY], **pair, pointsman_shadow_side=side) == 2 * choice.quality.mean
        assert of(read[names.SHADOW_COST], **pair, pointsman_shadow_side=side) == pytest.approx(2 * choice.cost_usd)


def test_what_one_side_alone_knows_is_not_compared(metrics: Metrics, reader: InMemoryMetricReader) -> None:
    """A shadow without an eligible endpoint, or choices of which one has no price, leave no figure on either side."""
    metrics.decided(a_decision(price=2.0), [a_decision(0.9, router_name="s")], duration_s=0.001)
    metrics.decided(a_decision(0.9), [a_decision(router_name="s")], duration_s=0.001)
    metrics.decided(a_decision(0.9), [a_decision(0.9, router_name="s")], duration_s=0.001)
    assert {names.SHADOW_QUALITY, names.SHADOW_COST} & set(points(reader)) == set()
    metrics.decided(a_decision(price=2.0), [a_decision(router_name="s")], duration_s=0.001)
    read = points(reader)
    assert names.SHADOW_COST not in read
    assert len(read[names.SHADOW_QUALITY]) == 2
    agreements = {dict(attributes)[names.SHADOW_AGREEMENT] for attributes in read[names.SHADOW_DECISIONS]}
    assert agreements == set(Agreement) - {Agreement.OTHER}


def test_artifacts_are_counted_by_what_became_of_them(metrics: Metrics, reader: InMemoryMetricReader) -> None:
    """A directory's loads and refusals are told apart."""
    for refused in (False, True, True):
        metrics.artifact_read("/models/one", refused=refused)
    read = points(reader)[names.ARTIFACT_READS]
    assert of(read, pointsman_artifact_path="/models/one", pointsman_artifact_result="loaded") == 1
    assert of(read, pointsman_artifact_path="/models/one", pointsman_artifact_result="refused") == 2


def test_an_attempt_leaves_its_figures_at_its_endpoint(metrics: Metrics, reader: InMemoryMetricReader) -> None:
    """Latencies, tokens and cost of a successful attempt, and no failure."""
    metrics.first_token(ENDPOINT, ttft_s=0.25)
    metrics.attempted(ENDPOINT, usage=Usage(10, 20), cost_usd=0.5, inter_token_latency_s=0.01, error_type=None)
    read = points(reader)
    name = ENDPOINT.name
    assert of(read[names.GEN_AI_CLIENT_TIME_TO_FIRST_CHUNK], pointsman_endpoint=name) == 0.25
    assert of(read[names.INTER_TOKEN_LATENCY], pointsman_endpoint=name) == 0.01
    assert of(read[names.GEN_AI_CLIENT_TOKEN_USAGE], pointsman_endpoint=name, gen_ai_token_type="input") == 10
    assert of(read[names.GEN_AI_CLIENT_TOKEN_USAGE], pointsman_endpoint=name, gen_ai_token_type="output") == 20
    assert of(read[names.COST], pointsman_endpoint=name, gen_ai_request_model="small") == 0.5
    assert names.ATTEMPT_FAILURES not in read


def test_what_is_unknown_is_not_recorded_as_zero(metrics: Metrics, reader: InMemoryMetricReader) -> None:
    """A failed attempt without tokens and prices counts as a failure of its kind, and nowhere else."""
    metrics.attempted(
        ENDPOINT,
        usage=Usage(),
        cost_usd=None,
        inter_token_latency_s=None,
        error_type=UpstreamErrorKind.TIMEOUT.value,
    )
    read = points(reader)
    assert set(read) == {names.ATTEMPT_FAILURES}
    assert of(read[names.ATTEMPT_FAILURES], pointsman_endpoint=ENDPOINT.name, error_type="timeout") == 1


def test_reported_outcomes_are_counted_and_judged_ones_measured(metrics: Metrics, reader: InMemoryMetricReader) -> None:
    """An outcome without a judgement counts, and does not lower the mean quality."""
    metrics.reported(None, endpoint_name=ENDPOINT.name, router_name="default")
    metrics.reported(0.75, endpoint_name=ENDPOINT.name, router_name="default")
    read = points(reader)
    assert of(read[names.OUTCOMES], pointsman_endpoint=ENDPOINT.name, pointsman_router_name="default") == 2
    assert of(read[names.REPORTED_QUALITY], pointsman_endpoint=ENDPOINT.name) == 0.75


def test_off_takes_everything_and_does_nothing() -> None:
    """Without a reader every event is accepted."""
    metrics = configure_telemetry(TelemetrySettings()).metrics
    metrics.served("S/Route", status="OK", duration_s=0.1)
    metrics.decided(a_decision(0.0), duration_s=0.1)
    metrics.first_token(ENDPOINT, ttft_s=0.1)
    metrics.attempted(ENDPOINT, usage=Usage(1, 2), cost_usd=0.1, inter_token_latency_s=0.1, error_type="timeout")
    metrics.reported(1.0, endpoint_name=ENDPOINT.name, router_name="default")
    metrics.decided(a_decision(), [a_decision()], duration_s=0.1)
    metrics.spent(a_decision(), ENDPOINT, usage=Usage(1, 2), cost_usd=0.1)
    metrics.answered(a_decision(), ENDPOINT, SEEN)
    metrics.artifact_read("/models/one", refused=True)
