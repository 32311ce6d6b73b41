"""What is shipped for those who look at Pointsman: it asks for nothing that is not there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from pointsman.v1 import error_reason_pb2
from pointsman_server.telemetry import names
from pointsman_server.telemetry.exposition import prometheus_name
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.series import CounterSeries, HistogramSeries, ObservedSeries, Registry

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ATTRIBUTES = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}


@pytest.fixture(scope="module")
def exposed() -> set[str]:
    """The name of every sample that Prometheus can find."""
    registry = Registry(Resource({}), unix_ns=lambda: 0)
    Metrics(registry)
    found = {prometheus_name(names.SPANS_DROPPED, "{span}", is_counter=True)}
    for instrument in registry._instruments:
        assert isinstance(instrument, CounterSeries | HistogramSeries | ObservedSeries)
        written = prometheus_name(instrument.name, instrument._unit, is_counter=isinstance(instrument, CounterSeries))
        suffixes = ("_bucket", "_sum", "_count") if isinstance(instrument, HistogramSeries) else ("",)
        found |= {written + suffix for suffix in suffixes}
    return found


def test_the_dashboard_asks_for_what_there_is(exposed: set[str]) -> None:
    """Each metric and each label in the dashboard's queries is one of ours; each panel says what it shows."""
    dashboard: dict[str, Any] = json.loads((DEPLOY / "grafana/pointsman.json").read_text(encoding="utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    labels = {name.replace(".", "_") for name in ATTRIBUTES} | {"le"}
    asked = set()
    for panel in panels:
        assert panel["description"]
        for target in panel["targets"]:
            found = set(re.findall(r"\b(?:pointsman|gen_ai|rpc)_\w+\b", target["expr"]))
            assert found & exposed, target["expr"]
            assert found - exposed - labels == set()
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels
            asked |= found & exposed
    shown = {re.sub(r"_(?:bucket|sum|count)$", "", name) for name in asked}
    assert len(shown) >= 20
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_collector_looks_for_what_is_told() -> None:
    """Attributes and reasons in the tail sampling's policies are names of ours."""
    text = (DEPLOY / "otel-collector.yaml").read_text(encoding="utf-8")
    attributes = re.findall(r"key: (\S+)", text) + re.findall(r'attributes\["([^"]+)"\]', text)
    assert len(attributes) == 3
    assert set(attributes) <= ATTRIBUTES
    reasons = re.findall(r"ERROR_REASON_\w+", text)
    assert reasons
    assert set(reasons) <= set(error_reason_pb2.ErrorReason.keys())
    assert f'name == "{names.ROUTE_SPAN}"' in text
