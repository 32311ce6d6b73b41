"""What is counted and measured of all requests together.

Cardinality is bounded by the configuration: methods of our service, routers, endpoints of the catalog, and the values of
closed enumerations. Nothing that a caller writes becomes an attribute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

from opentelemetry.metrics import Meter

from pointsman_server.chat import Usage
from pointsman_server.decision.types import Decision, Endpoint
from pointsman_server.telemetry import names

CALL_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""From a route, about 1 ms, to a long completion."""
ROUTING_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
"""A decision over 20 endpoints takes less than 1 ms; 100 ms is a fault."""
TTFT_BUCKETS_S = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0)
"""From an edge cache to a model that thinks; finest where providers differ, 0.2 to 1 s."""
GAP_BUCKETS_S = (0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08, 0.15, 0.3, 1.0)
"""From 1,000 tokens per second to one."""
TOKEN_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
"""Powers of four, to the longest contexts on offer."""
COST_BUCKETS_USD = (0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""From a short answer of a small model to a long one of the dearest."""
QUALITY_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class HedgeResult(StrEnum):
    """How a hedged attempt ended."""

    WON = "won"
    """The second attempt showed a token first."""
    LOST = "lost"
    """The first one did after all."""
    NEITHER = "neither"
    """Both failed, or the caller left before."""


class Metrics:
    """The instruments of the server. Each method is told of one event."""

    def __init__(self, meter: Meter) -> None:
        self._calls = meter.create_histogram(
            names.RPC_SERVER_CALL_DURATION,
            "s",
            "Duration of calls of our service; its count is the number of calls.",
            explicit_bucket_boundaries_advisory=CALL_BUCKETS_S,
        )
        self._decisions = meter.create_counter(names.DECISIONS, "{decision}", "Decisions by router and choice.")
        self._rejections = meter.create_counter(
            names.REJECTIONS, "{rejection}", "Candidates that were not eligible, by reason."
        )
        self._routing = meter.create_histogram(
            names.ROUTING_DURATION,
            "s",
            "Time from a request to its decision.",
            explicit_bucket_boundaries_advisory=ROUTING_BUCKETS_S,
        )
        self._ttft = meter.create_histogram(
            names.GEN_AI_CLIENT_TIME_TO_FIRST_CHUNK,
            "s",
            "Time from an upstream request to its first token.",
            explicit_bucket_boundaries_advisory=TTFT_BUCKETS_S,
        )
        self._gaps = meter.create_histogram(
            names.INTER_TOKEN_LATENCY,
            "s",
            "Mean time between two output tokens of an answer.",
            explicit_bucket_boundaries_advisory=GAP_BUCKETS_S,
        )
        self._tokens = meter.create_histogram(
            names.GEN_AI_CLIENT_TOKEN_USAGE,
            "{token}",
            "Tokens of an attempt.",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        )
        self._cost = meter.create_counter(names.COST, "USD", "Cost of attempts at list prices, where they are known.")
        self._failures = meter.create_counter(names.ATTEMPT_FAILURES, "{attempt}", "Attempts that failed, by kind.")
        self._hedges = meter.create_counter(
            names.HEDGES, "{hedge}", "Second attempts beside a slow one, by the slow one's endpoint and who won."
        )
        self._failovers_refused = meter.create_counter(
            names.FAILOVERS_REFUSED, "{failover}", "Failovers that were not made because the retry budget was spent."
        )
        self._probes = meter.create_counter(names.PROBES, "{probe}", "Probes of endpoints that were not seen for long.")
        self._probe_tokens = meter.create_counter(names.PROBE_TOKENS, "{token}", "Tokens of probes.")
        self._outcomes = meter.create_counter(names.OUTCOMES, "{outcome}", "Outcomes that callers reported.")
        self._quality = meter.create_histogram(
            names.REPORTED_QUALITY,
            "1",
            "Quality that callers reported, 0..1.",
            explicit_bucket_boundaries_advisory=QUALITY_BUCKETS,
        )
        self._router_cost = meter.create_counter(
            names.ROUTER_COST, "USD", "Cost of attempts at list prices by the router that decided, where it is known."
        )
        self._log_drops = meter.create_counter(names.DECISION_LOG_DROPS, "{record}", "Log records that were dropped.")
        self._shadows = _ShadowInstruments(meter)
        self._artifact_reads = meter.create_counter(
            names.ARTIFACT_READS, "{artifact}", "Quality artifacts that were read, at the start or while serving."
        )

    def served(self, method: str, *, status: str, duration_s: float) -> None:
        """A call of a method of our service ended with this gRPC status, by its name."""
        self._calls.record(
            duration_s,
            {
                names.RPC_SYSTEM_NAME: names.RPC_SYSTEM_GRPC,
                names.RPC_METHOD: method,
                names.RPC_RESPONSE_STATUS_CODE: status,
            },
        )

    def decided(self, decision: Decision, shadows: Sequence[Decision] = (), *, duration_s: float) -> None:
        """A decision was made, for or against; `shadows` decided beside it."""
        router = {names.ROUTER_NAME: decision.router_name}
        self._routing.record(duration_s, router)
        chosen, reason = decision.chosen, decision.reason
        choice = {names.DECISION_REASON: names.REASON_NONE_ELIGIBLE if reason is None else reason.value}
        if chosen is not None:
            choice[names.ENDPOINT] = chosen.endpoint.name
        self._decisions.add(1, _router_attributes(decision.router_name, decision.assignment.split_name) | choice)
        rejections = Counter(
            rejection.reason for candidate in decision.candidates for rejection in candidate.rejections
        )
        for rejection_reason, count in rejections.items():
            self._rejections.add(count, router | {names.REJECTION_REASON: rejection_reason.value})
        for shadow in shadows:
            self._shadows.compare(decision, shadow)

    def spent(self, decision: Decision, *, cost_usd: float) -> None:
        """An attempt that carried out this decision cost so much."""
        self._router_cost.add(cost_usd, _router_attributes(decision.router_name, decision.assignment.split_name))

    def first_token(self, endpoint: Endpoint, *, ttft_s: float) -> None:
        """An attempt's first token came after `ttft_s`."""
        self._ttft.record(ttft_s, _endpoint_attributes(endpoint))

    def attempted(
        self,
        endpoint: Endpoint,
        *,
        usage: Usage,
        cost_usd: float | None,
        inter_token_latency_s: float | None,
        error_type: str | None,
    ) -> None:
        """An attempt is over.

        Args:
            endpoint: Which was called.
            usage: Tokens, as far as they were counted.
            cost_usd: None when a price is unknown.
            inter_token_latency_s: Mean time between two tokens; None when there were fewer than two.
            error_type: The value of an `UpstreamErrorKind`; None when it did not fail, also when its caller left.
        """
        attributes = _endpoint_attributes(endpoint)
        for token_type, count in (
            (names.TOKEN_TYPE_INPUT, usage.input_token_count),
            (names.TOKEN_TYPE_OUTPUT, usage.output_token_count),
        ):
            if count is not None:
                self._tokens.record(count, attributes | {names.GEN_AI_TOKEN_TYPE: token_type})
        if cost_usd is not None:
            self._cost.add(cost_usd, attributes)
        if inter_token_latency_s is not None:
            self._gaps.record(inter_token_latency_s, attributes)
        if error_type is not None:
            self._failures.add(1, attributes | {names.ERROR_TYPE: error_type})

    def hedged(self, endpoint: Endpoint, result: HedgeResult) -> None:
        """An attempt at this endpoint was slow, and a second one was made beside it."""
        self._hedges.add(1, _endpoint_attributes(endpoint) | {names.HEDGE_RESULT: result.value})

    def failover_refused(self) -> None:
        """There was another endpoint to try, but the retry budget was spent."""
        self._failovers_refused.add(1)

    def probed(self, endpoint: Endpoint, *, token_count: int, error_type: str | None) -> None:
        """A probe is over; None: it succeeded."""
        attributes = _endpoint_attributes(endpoint)
        self._probe_tokens.add(token_count, attributes)
        self._probes.add(1, attributes if error_type is None else attributes | {names.ERROR_TYPE: error_type})

    def reported(self, quality: float | None, *, endpoint_name: str, router_name: str, split_name: str = "") -> None:
        """A caller reported an outcome.

        Args:
            quality: 0..1; None when it was not judged.
            endpoint_name: Whose answer it was.
            router_name: The router that had decided.
            split_name: The router whose split had that one decide; empty when none did.
        """
        attributes = _router_attributes(router_name, split_name) | {names.ENDPOINT: endpoint_name}
        self._outcomes.add(1, attributes)
        if quality is not None:
            self._quality.record(quality, attributes)

    def artifact_read(self, path: str, *, refused: bool) -> None:
        """The quality artifact in a directory of the configuration was loaded, or refused so that the old one stays."""
        result = names.ARTIFACT_REFUSED if refused else names.ARTIFACT_LOADED
        self._artifact_reads.add(1, {names.ARTIFACT_PATH: path, names.ARTIFACT_RESULT: result})

    def log_dropped(self, count: int, reason: str) -> None:
        """So many records of the decision log were not written."""
        self._log_drops.add(count, {names.DROP_REASON: reason})


class _ShadowInstruments:
    """Hold the choices of acting routers against those of their shadows."""

    def __init__(self, meter: Meter) -> None:
        self._decisions = meter.create_counter(
            names.SHADOW_DECISIONS, "{decision}", "Decisions of shadows, by their agreement with the acting router's."
        )
        self._quality = meter.create_histogram(
            names.SHADOW_QUALITY,
            "1",
            "Predicted quality of the acting router's choice and of its shadow's, each by its own artifact.",
            explicit_bucket_boundaries_advisory=QUALITY_BUCKETS,
        )
        self._cost = meter.create_histogram(
            names.SHADOW_COST,
            "USD",
            "Expected cost of the acting router's choice and of its shadow's.",
            explicit_bucket_boundaries_advisory=COST_BUCKETS_USD,
        )

    def compare(self, acting: Decision, shadow: Decision) -> None:
        """Counts a shadow's choice. What is known of one of the two choices alone is not recorded: means could not be
        compared."""
        pair = {names.ROUTER_NAME: acting.router_name, names.SHADOW_ROUTER: shadow.router_name}
        self._decisions.add(1, pair | {names.SHADOW_AGREEMENT: acting.agreement(shadow).value})
        ours, theirs = acting.chosen, shadow.chosen
        if ours is None or theirs is None:
            return
        sides = (pair | {names.SHADOW_SIDE: names.SIDE_ACTING}, pair | {names.SHADOW_SIDE: names.SIDE_SHADOW})
        if ours.quality is not None and theirs.quality is not None:
            for quality, side in zip((ours.quality, theirs.quality), sides, strict=True):
                self._quality.record(quality.mean, side)
        if ours.cost_usd is not None and theirs.cost_usd is not None:
            for cost_usd, side in zip((ours.cost_usd, theirs.cost_usd), sides, strict=True):
                self._cost.record(cost_usd, side)


def _router_attributes(router_name: str, split_name: str) -> dict[str, str]:
    deciding = {names.ROUTER_NAME: router_name}
    return deciding | {names.ROUTER_ASKED: split_name} if split_name else deciding


def _endpoint_attributes(endpoint: Endpoint) -> dict[str, str]:
    return {
        names.GEN_AI_OPERATION_NAME: names.CHAT_OPERATION,
        names.ENDPOINT: endpoint.name,
        names.GEN_AI_REQUEST_MODEL: endpoint.model,
        names.GEN_AI_PROVIDER_NAME: endpoint.provider,
    }
