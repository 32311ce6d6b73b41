"""The short ways to write constraints, preferences, outcomes and durations."""

from __future__ import annotations

from typing import get_type_hints

import pointsman
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from pointsman.durations import duration, seconds
from pointsman.routing import METRIC_NAMES, ConstraintOptions
from pointsman.v1.routing_pb2 import (
    CAPABILITY_IMAGE_INPUT,
    Constraints,
    Direction,
    DurationBound,
    Label,
    Metric,
    Objective,
    Outcome,
    Preferences,
    QualityBound,
    ValueBound,
    Weights,
)


def test_constraints_read_as_they_are_meant() -> None:
    """Each argument lands in the bound that it names, in that bound's unit."""
    assert pointsman.constraints(
        models=["a", "b"],
        skip_providers=["x"],
        capabilities=["image_input"],
        labels={"region": ["eu", "ch"], "retention": "none"},
        quality_min=0.7,
        quality_risk=0.1,
        request_cost_usd_max=0.01,
        ttft_s_max=0.5,
        ttft_quantile=0.95,
        error_rate_max=None,
    ) == Constraints(
        models=["a", "b"],
        skip_providers=["x"],
        capabilities=[CAPABILITY_IMAGE_INPUT],
        labels=[
            Label(key="region", value="eu"),
            Label(key="region", value="ch"),
            Label(key="retention", value="none"),
        ],
        quality=QualityBound(min=0.7, risk=0.1),
        request_cost_usd=ValueBound(max=0.01),
        ttft=DurationBound(max=duration(0.5), quantile=0.95),
    )


def test_zero_bounds() -> None:
    """A bound of zero is a bound."""
    assert pointsman.constraints(error_rate_max=0) == Constraints(error_rate=ValueBound(max=0))


def _bound_arguments() -> dict[str, float]:
    """An argument for every part of every bound that the contract has."""
    arguments = {}
    for field in Constraints.DESCRIPTOR.fields:
        if field.message_type is None or not field.name or not field.message_type.name.endswith("Bound"):
            continue
        unit = "_s" if field.message_type.name == "DurationBound" else ""
        for part in field.message_type.fields:
            suffix = unit if part.name in ("min", "max") else ""
            arguments[f"{field.name}{suffix}_{part.name}"] = 0.75
    return arguments


def test_every_bound_of_the_contract_can_be_written() -> None:
    """There is an argument for every part of every bound, and none that has no place in the contract."""
    arguments = _bound_arguments()
    written = pointsman.constraints(**arguments)  # type: ignore[arg-type] # the names are made here
    parts = [part for _, bound in written.ListFields() for part, _ in _fields(bound)]
    assert len(parts) == len(arguments)
    others = {"capabilities", "labels"} | {
        f"{skip}{kind}" for skip in ("", "skip_") for kind in ("models", "providers", "endpoints")
    }
    assert set(get_type_hints(ConstraintOptions)) == set(arguments) | others


def _fields(message: Message) -> list[tuple[str, object]]:
    return [(field.name, value) for field, value in message.ListFields()]


def test_slips_in_constraints_are_refused() -> None:
    """A misspelt argument, a single name in place of several, and an unknown capability don't pass unnoticed."""
    with pytest.raises(TypeError, match="ttft_max_s"):
        pointsman.constraints(ttft_max_s=0.5)  # type: ignore[call-arg] # the slip
    with pytest.raises(TypeError, match=r"write \['gpt-4o'\]"):
        pointsman.constraints(models="gpt-4o")
    with pytest.raises(ValueError, match="CAPABILITY_FLIGHT"):
        pointsman.constraints(capabilities=["flight"])  # type: ignore[list-item] # the slip


def test_weights_are_preferences() -> None:
    """Weights land in the metric that they name."""
    assert pointsman.weights(quality=1, request_cost_usd=20, ttft_s=0.05, error_rate=0.5) == Preferences(
        weights=Weights(quality=1, request_cost_usd=20, ttft_seconds=0.05, error_rate=0.5)
    )


@pytest.mark.parametrize(
    ("text", "metric", "direction"),
    [
        ("highest-quality", Metric.METRIC_QUALITY, Direction.DIRECTION_HIGHEST),
        ("lowest-ttft", Metric.METRIC_TTFT, Direction.DIRECTION_LOWEST),
        ("highest-tks-per-sec", Metric.METRIC_OUTPUT_TOKENS_PER_SECOND, Direction.DIRECTION_HIGHEST),
    ],
)
def test_objectives_are_preferences(text: str, metric: Metric.ValueType, direction: Direction.ValueType) -> None:
    """An objective as text is the metric and the end that it names."""
    assert pointsman.objective(text) == Preferences(objective=Objective(metric=metric, direction=direction))


@pytest.mark.parametrize("text", ["", "quality", "best-quality", "lowest-", "lowest-price", "lowest"])
def test_unknown_objectives_are_refused(text: str) -> None:
    """What is not an objective is refused with the list of metrics."""
    with pytest.raises(ValueError, match="relative-quality"):
        pointsman.objective(text)


def test_every_metric_has_a_name() -> None:
    """Every metric of the contract can be an objective."""
    assert set(METRIC_NAMES.values()) == set(Metric.values()) - {Metric.METRIC_UNSPECIFIED}


def test_outcomes_say_only_what_is_known() -> None:
    """What was not measured is absent from an outcome, and zero is not absence."""
    assert pointsman.outcome("d1", ttft_s=0.0, input_token_count=0, quality=None) == Outcome(
        decision_id="d1", ttft=duration(0), input_token_count=0
    )
    with pytest.raises(TypeError, match="ttft"):
        pointsman.outcome("d1", ttft=1.0)  # type: ignore[call-arg] # the slip


@given(st.floats(min_value=0, max_value=1e6))
def test_durations_survive_the_wire(value_s: float) -> None:
    """A span in seconds comes back to the nanosecond."""
    assert seconds(duration(value_s)) == pytest.approx(value_s, abs=1e-9, rel=1e-12)


@pytest.mark.parametrize("value_s", [float("nan"), float("inf"), float("-inf")])
def test_endless_durations_are_refused(value_s: float) -> None:
    """A span that is not a finite number is refused."""
    with pytest.raises(ValueError, match="finite"):
        duration(value_s)
