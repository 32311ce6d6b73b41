"""Where the endpoints of a star plot come from: a configuration, or a running server."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pointsman import Client, EndpointStatus, Router, seconds
from pointsman.v1.routing_pb2 import LatencyEstimate

from pointsman_server.cli.catalog_show import read_config
from pointsman_server.cli.connection import client_arguments, failures_shown
from pointsman_server.config import Config
from pointsman_server.decision.resolve import DEFAULT_ROUTER_NAME, KnownNames, NamedRouter, resolve
from pointsman_server.decision.router_string import RouterAlternative, RouterString, parse_router_string
from pointsman_server.decision.types import Endpoint, EndpointRuntime, Exploration, Latency
from pointsman_server.training.frontier_pool import Listed

P90_OF_P95 = (0.9 - 0.5) / (0.95 - 0.5)
"""A server tells no p90: it is taken to lie between the median and the p95, as the decision itself takes what lies between
two quantiles."""


@dataclass(frozen=True, slots=True)
class ListedCatalog:
    """The endpoints of a server, and its named routers."""

    listed: tuple[Listed, ...]
    routers: Mapping[str, NamedRouter]
    notices: tuple[str, ...] = field(default=())
    """What its operator should know."""


def configured(arguments: Namespace, environment: Mapping[str, str]) -> ListedCatalog:
    """What a server with the configuration would serve.

    Raises:
        CommandError: the configuration has faults; all are listed.
    """
    config: Config = read_config(arguments.config, environment)
    endpoints = config.catalog.endpoints
    routers = {
        name: _named(name, settings.policy, endpoints, settings.exploration)
        for name, settings in config.routers.items()
    }
    listed = tuple(Listed(entry.endpoint, entry.quality_model) for entry in config.catalog.entries)
    return ListedCatalog(listed, routers, config.notices)


def served(arguments: Namespace, environment: Mapping[str, str]) -> ListedCatalog:
    """What a running server serves, with the latencies that it sees.

    Raises:
        CommandError: it can't be asked; all has been said.
    """
    with failures_shown(arguments), Client(**client_arguments(arguments, environment)) as client:
        statuses = client.list_endpoints(timeout_s=arguments.timeout)
        routers = client.list_routers(timeout_s=arguments.timeout)
    return listed_of(statuses, routers)


def listed_of(statuses: Iterable[EndpointStatus], routers: Iterable[Router]) -> ListedCatalog:
    """What a server has told of itself."""
    listed = tuple(_listed(status) for status in statuses)
    endpoints = [entry.endpoint for entry in listed]
    return ListedCatalog(
        listed,
        {each.name: _named(each.name, parse_router_string(each.text), endpoints, Exploration()) for each in routers},
    )


def _named(name: str, policy: RouterString, endpoints: Iterable[Endpoint], exploration: Exploration) -> NamedRouter:
    """A named router, its text resolved against the built-in default one."""
    base = {DEFAULT_ROUTER_NAME: NamedRouter(DEFAULT_ROUTER_NAME)}
    resolved = resolve(policy, RouterAlternative(""), routers=base, known=KnownNames.of(endpoints))
    return NamedRouter(name, resolved.alternatives, exploration)


def _listed(status: EndpointStatus) -> Listed:
    told, runtime = status.endpoint, status.runtime
    endpoint = Endpoint(
        model=told.model,
        provider=told.provider,
        input_price_usd_per_mtok=(
            told.input_price_usd_per_million_tokens if told.HasField("input_price_usd_per_million_tokens") else None
        ),
        output_price_usd_per_mtok=(
            told.output_price_usd_per_million_tokens if told.HasField("output_price_usd_per_million_tokens") else None
        ),
        context_token_count_max=(told.max_context_token_count if told.HasField("max_context_token_count") else None),
        output_token_count_max=told.max_output_token_count if told.HasField("max_output_token_count") else None,
    )
    seen = EndpointRuntime(
        ttft_s=_latency(runtime.ttft) if runtime.HasField("ttft") else None,
        inter_token_latency_s=(
            _latency(runtime.inter_token_latency) if runtime.HasField("inter_token_latency") else None
        ),
        # As fresh as can be: a plot shows what a router does with these latencies, not that it would look again.
        age_s=0.0,
    )
    return Listed(endpoint, told.model, seen)


def _latency(told: LatencyEstimate) -> Latency:
    p50, p95 = seconds(told.p50), seconds(told.p95)
    return Latency(seconds(told.mean), p50, p50 + P90_OF_P95 * (p95 - p50), p95, seconds(told.p99))
