"""Metrics of a running server, as Prometheus finds them."""

from __future__ import annotations

import socket

import httpx
import pytest
from e2e.harness import config_of, endpoints, refusing, streaming, urls_of
from pointsman import AsyncClient, NoEligibleEndpointError
from pointsman_server.app import Application
from pointsman_server.errors import ConfigError
from pointsman_server.providers.scripted import ScriptedUpstream
from pointsman_server.telemetry import names
from pointsman_server.telemetry.exposition import prometheus_name
from prometheus_client.openmetrics.parser import text_string_to_metric_families

MODEL = "llama-3.1-8b-instruct"
"""One that the shipped quality model knows, so that there is a forecast."""
FIRST, SECOND = f"{MODEL}@first", f"{MODEL}@second"
SCRAPED = '[telemetry]\nprometheus_listen = "127.0.0.1:0"\n'


async def test_a_failover_is_in_the_metrics() -> None:
    """After an answer by way of a failover, a report of its quality and a rejection, each figure is there: what was
    decided and how long its phases took, what failed, what it cost, and how what was seen compares with the forecast."""
    async with ScriptedUpstream(refusing(503)) as first, ScriptedUpstream(streaming("fine")) as second:
        toml = endpoints({"first": [MODEL], "second": [MODEL]}, urls_of(first=first, second=second)) + "\n" + SCRAPED
        async with (
            Application(config_of(toml)) as application,
            AsyncClient(f"127.0.0.1:{application.port}") as client,
            httpx.AsyncClient(trust_env=False) as http,
        ):
            answer = await client.complete_text("hi", router=f"{FIRST}->{SECOND}")
            await client.report_outcome(answer.decision.id, endpoint=FIRST, quality=1.0)
            with pytest.raises(NoEligibleEndpointError):
                await client.route("hi", router="router@c<0.001")
            url = f"http://127.0.0.1:{application.metrics_port}/metrics"
            page = (await http.get(url, headers={"accept": "application/openmetrics-text"})).text
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)  # type: ignore[no-untyped-call]
        for sample in family.samples
    }

    def value(name: str, unit: str = "1", *, suffix: str = "_total", **labels: str) -> float:
        """The sum of what has these labels."""
        wanted = prometheus_name(name, unit, is_counter=False) + suffix
        found = [v for (n, pairs), v in samples.items() if n == wanted and set(labels.items()) <= pairs]
        assert found, (wanted, labels)
        return float(sum(found))

    assert value(names.FAILOVERS, pointsman_endpoint=FIRST, error_type="server_error") == 1
    assert value(names.ATTEMPT_FAILURES, pointsman_endpoint=FIRST) == 1
    assert value(names.REJECTIONS, pointsman_rejection_metric="cost", pointsman_rejection_reason="bound_violated") == 2
    assert value(names.DECISIONS, pointsman_decision_reason="none_eligible") == 1
    for phase in ("features", "predict_quality", "snapshot", "decide"):
        assert value(names.ROUTING_PHASE_DURATION, "s", suffix="_count", pointsman_routing_phase=phase) == 2
    assert value(names.ROUTER_TOKENS, pointsman_endpoint=SECOND, gen_ai_token_type="output") == 3
    assert value(names.ROUTER_COST, "USD", pointsman_endpoint=SECOND) == pytest.approx(answer.cost_usd)
    assert value(names.FORECAST_COST_RATIO, suffix="_count", pointsman_endpoint=SECOND) == 1
    assert value(names.REPORTED_QUALITY, suffix="_sum", pointsman_endpoint=FIRST) == 1.0
    predicted = value(names.FORECAST_QUALITY, suffix="_sum", pointsman_endpoint=FIRST)
    assert predicted == pytest.approx(answer.decision.candidates[0].quality.mean)
    assert value(names.REGRET_EXPECTED, suffix="_count") == 1
    assert value(names.REQUESTS_IN_FLIGHT, suffix="") == 0
    assert value(names.ENDPOINT_IN_FLIGHT, suffix="", pointsman_endpoint=FIRST) == 0
    assert value(names.ENDPOINT_BREAKER, suffix="", pointsman_endpoint=SECOND, pointsman_breaker_state="closed") == 1
    assert value(names.ENDPOINT_BREAKER, suffix="") == 2


async def test_a_taken_address_for_metrics_is_a_clear_error() -> None:
    """The server says which address it can't have, and does not start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        toml = endpoints({"first": ["a"]}, {"first": "http://127.0.0.1:9/v1"})
        config = config_of(f'{toml}\n[telemetry]\nprometheus_listen = "{listen}"')
        with pytest.raises(ConfigError, match=r"telemetry\.prometheus_listen: can't listen on"):
            async with Application(config):
                pass


@pytest.mark.parametrize(("written", "read"), [(":9464", "127.0.0.1:9464"), ("[::1]:9464", "[::1]:9464")])
def test_metrics_are_for_this_machine_unless_a_host_is_named(written: str, read: str) -> None:
    """A mere port is one of loopback."""
    toml = endpoints({"first": ["a"]}, {"first": "http://127.0.0.1:9/v1"})
    config = config_of(f'{toml}\n[telemetry]\nprometheus_listen = "{written}"')
    assert config.telemetry.prometheus_listen == read
    assert config.notices == ()
    with pytest.raises(ConfigError, match=r"telemetry\.prometheus_listen: must be host:port or :port"):
        config_of(f'{toml}\n[telemetry]\nprometheus_listen = "9464"')
    open_to_all = config_of(f'{toml}\n[telemetry]\nprometheus_listen = "0.0.0.0:9464"')
    assert ["0.0.0.0:9464" in notice for notice in open_to_all.notices] == [True]
