"""What is counted and measured of all requests together.

Cardinality is bounded by the configuration: methods of our service, routers, endpoints of the catalog, and the values of
closed enumerations. Nothing that a caller writes becomes an attribute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pointsman_server.chat import Usage
from pointsman_server.decision.types import BreakerState, Decision, Endpoint, RuntimeSnapshot
from pointsman_server.telemetry import names
from pointsman_server.telemetry.regret import Seen, candidate_of, expected_regret, seen_regret
from pointsman_server.telemetry.series import Key, Registry
from pointsman_server.telemetry.spans import PhaseTime
from pointsman_server.telemetry.trace_context import TraceContext

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
PHASE_BUCKETS_S = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.1)
"""A phase takes from a hundredth of a decision to most of it."""
RATIO_BUCKETS = (0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Seen by expected: finest where they agree, and alike on both sides."""
REGRET_BUCKETS = (0.0, 0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""A point of quality is 0.01 under the default preference; near-ties are closer than that."""


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

    def __init__(self, registry: Registry | None) -> None:
        """Nothing is recorded yet; without a registry nothing ever is."""
        self._instruments = None if registry is None else _Instruments(registry)

    def served(self, method: str, *, status: str, duration_s: float, example: TraceContext | None = None) -> None:
        """A call of a method of our service ended with this gRPC status, by its name."""
        if self._instruments is not None:
            key = (
                (names.RPC_SYSTEM_NAME, names.RPC_SYSTEM_GRPC),
                (names.RPC_METHOD, method),
                (names.RPC_RESPONSE_STATUS_CODE, status),
            )
            self._instruments.calls.record(duration_s, key, example=example)

    def decided(
        self,
        decision: Decision,
        shadows: Sequence[Decision] = (),
        *,
        duration_s: float,
        phases: Sequence[PhaseTime] = (),
        example: TraceContext | None = None,
    ) -> None:
        """A decision was made, for or against; `shadows` decided beside it."""
        instruments = self._instruments
        if instruments is None:
            return
        router = ((names.ROUTER_NAME, decision.router_name),)
        instruments.routing.record(duration_s, router, example=example)
        for phase in phases:
            instruments.phases.record(phase.duration_s, ((names.ROUTING_PHASE, phase.name),))
        chosen, reason = decision.chosen, decision.reason
        choice: Key = ((names.DECISION_REASON, names.REASON_NONE_ELIGIBLE if reason is None else reason.value),)
        if chosen is not None:
            choice += ((names.ENDPOINT, chosen.endpoint.name),)
        instruments.decisions.add(1, _router_key(decision) + choice)
        rejections = Counter(
            [
                (rejection.reason, None if rejection.bound is None else rejection.bound.metric)
                for candidate in decision.candidates
                if candidate.rejections
                for rejection in candidate.rejections
            ]
        )
        for (rejection_reason, metric), count in rejections.items():
            about = ((names.REJECTION_METRIC, metric.value),) if metric is not None else ()
            instruments.rejections.add(count, (*router, (names.REJECTION_REASON, rejection_reason.value), *about))
        regret = expected_regret(decision)
        if regret is not None:
            instruments.forecasts.regret_expected.record(regret, router)
        for shadow in shadows:
            instruments.shadows.compare(decision, shadow)

    def spent(self, decision: Decision, endpoint: Endpoint, *, usage: Usage, cost_usd: float | None) -> None:
        """An attempt that carried out this decision used so many tokens, and cost so much as far as prices are known."""
        if self._instruments is None:
            return
        key = (*_router_key(decision), (names.ENDPOINT, endpoint.name))
        for token_type, count in _counts(usage):
            self._instruments.router_tokens.add(count, (*key, (names.GEN_AI_TOKEN_TYPE, token_type)))
        if cost_usd is not None:
            self._instruments.router_cost.add(cost_usd, key)

    def answered(self, decision: Decision, endpoint: Endpoint, seen: Seen) -> None:
        """An endpoint gave its whole answer: what the decision expected of it is held against what was seen."""
        candidate = None if self._instruments is None else candidate_of(decision, endpoint)
        if self._instruments is None or candidate is None:
            return
        key = ((names.ENDPOINT, endpoint.name),)
        expected_s = None if candidate.ttft_s is None else candidate.ttft_s.mean
        if seen.ttft_s is not None and expected_s:
            self._instruments.forecasts.ttft.record(seen.ttft_s / expected_s, key)
        if seen.cost_usd is not None and candidate.cost_usd:
            self._instruments.forecasts.cost.record(seen.cost_usd / candidate.cost_usd, key)
        regret = seen_regret(decision, candidate, seen)
        if regret is not None:
            self._instruments.forecasts.regret_seen.record(regret, ((names.ROUTER_NAME, decision.router_name),))

    def first_token(self, endpoint: Endpoint, *, ttft_s: float, example: TraceContext | None = None) -> None:
        """An attempt's first token came after `ttft_s`."""
        if self._instruments is not None:
            self._instruments.ttft.record(ttft_s, _endpoint_key(endpoint), example=example)

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
        instruments = self._instruments
        if instruments is None:
            return
        key = _endpoint_key(endpoint)
        for token_type, count in _counts(usage):
            instruments.tokens.record(count, (*key, (names.GEN_AI_TOKEN_TYPE, token_type)))
        if cost_usd is not None:
            instruments.cost.add(cost_usd, key)
        if inter_token_latency_s is not None:
            instruments.gaps.record(inter_token_latency_s, key)
        if error_type is not None:
            instruments.failures.add(1, (*key, (names.ERROR_TYPE, error_type)))

    def hedged(self, endpoint: Endpoint, result: HedgeResult) -> None:
        """An attempt at this endpoint was slow, and a second one was made beside it."""
        if self._instruments is not None:
            self._instruments.hedges.add(1, (*_endpoint_key(endpoint), (names.HEDGE_RESULT, result.value)))

    def failed_over(self, endpoint_name: str, *, error_type: str) -> None:
        """After this endpoint had failed so, another one was asked."""
        if self._instruments is not None:
            self._instruments.failovers.add(1, ((names.ENDPOINT, endpoint_name), (names.ERROR_TYPE, error_type)))

    def failover_refused(self) -> None:
        """There was another endpoint to try, but the retry budget was spent."""
        if self._instruments is not None:
            self._instruments.failovers_refused.add(1)

    def probed(self, endpoint: Endpoint, *, token_count: int, error_type: str | None) -> None:
        """A probe is over; None: it succeeded."""
        if self._instruments is None:
            return
        key = _endpoint_key(endpoint)
        self._instruments.probe_tokens.add(token_count, key)
        self._instruments.probes.add(1, key if error_type is None else (*key, (names.ERROR_TYPE, error_type)))

    def reported(
        self,
        quality: float | None,
        *,
        endpoint_name: str,
        router_name: str,
        split_name: str = "",
        predicted_quality: float | None = None,
    ) -> None:
        """A caller reported an outcome.

        Args:
            quality: 0..1; None when it was not judged.
            endpoint_name: Whose answer it was.
            router_name: The router that had decided.
            split_name: The router whose split had that one decide; empty when none did.
            predicted_quality: What had been expected of the endpoint, 0..1; None when nothing was.
        """
        instruments = self._instruments
        if instruments is None:
            return
        asked = ((names.ROUTER_ASKED, split_name),) if split_name else ()
        key = ((names.ROUTER_NAME, router_name), *asked, (names.ENDPOINT, endpoint_name))
        instruments.outcomes.add(1, key)
        if quality is not None:
            instruments.quality.record(quality, key)
            if predicted_quality is not None:
                instruments.forecasts.quality.record(predicted_quality, key)

    def artifact_read(self, path: str, *, refused: bool) -> None:
        """The quality artifact in a directory of the configuration was loaded, or refused so that the old one stays."""
        if self._instruments is not None:
            result = names.ARTIFACT_REFUSED if refused else names.ARTIFACT_LOADED
            key = ((names.ARTIFACT_PATH, path), (names.ARTIFACT_RESULT, result))
            self._instruments.artifact_reads.add(1, key)

    def log_dropped(self, count: int, reason: str) -> None:
        """So many records of the decision log were not written."""
        if self._instruments is not None:
            self._instruments.log_drops.add(count, ((names.DROP_REASON, reason),))

    def watch(self, state: Callable[[], ServerState | None]) -> None:
        """Figures that stand somewhere else are asked for there, whenever metrics are read; None: not to be known now."""
        if self._instruments is not None:
            self._instruments.state.watch(state)


@dataclass(frozen=True, slots=True)
class ServerState:
    """What is there to see of a server at an instant."""

    request_count: int
    """Calls of the service under way."""
    endpoint_names: tuple[str, ...]
    """Of the catalog."""
    snapshot: RuntimeSnapshot


class _Instruments:
    """Everything that is recorded; its attributes are what the methods of `Metrics` give."""

    def __init__(self, registry: Registry) -> None:
        counter, histogram = registry.counter, registry.histogram
        self.calls = histogram(
            names.RPC_SERVER_CALL_DURATION,
            "s",
            "Duration of calls of our service; its count is the number of calls.",
            CALL_BUCKETS_S,
        )
        self.decisions = counter(names.DECISIONS, "{decision}", "Decisions by router and choice.")
        self.rejections = counter(
            names.REJECTIONS, "{rejection}", "Candidates that were not eligible, by reason and what a bound was about."
        )
        self.routing = histogram(names.ROUTING_DURATION, "s", "Time from a request to its decision.", ROUTING_BUCKETS_S)
        self.phases = histogram(names.ROUTING_PHASE_DURATION, "s", "Time of each phase of a decision.", PHASE_BUCKETS_S)
        self.ttft = histogram(
            names.GEN_AI_CLIENT_TIME_TO_FIRST_CHUNK,
            "s",
            "Time from an upstream request to its first token.",
            TTFT_BUCKETS_S,
        )
        self.gaps = histogram(
            names.INTER_TOKEN_LATENCY, "s", "Mean time between two output tokens of an answer.", GAP_BUCKETS_S
        )
        self.tokens = histogram(names.GEN_AI_CLIENT_TOKEN_USAGE, "{token}", "Tokens of an attempt.", TOKEN_BUCKETS)
        self.quality = histogram(names.REPORTED_QUALITY, "1", "Quality that callers reported, 0..1.", QUALITY_BUCKETS)
        self.cost = counter(names.COST, "USD", "Cost of attempts at list prices, where they are known.")
        self.failures = counter(names.ATTEMPT_FAILURES, "{attempt}", "Attempts that failed, by kind.")
        self.hedges = counter(
            names.HEDGES, "{hedge}", "Second attempts beside a slow one, by the slow one's endpoint and who won."
        )
        self.failovers = counter(
            names.FAILOVERS, "{failover}", "Further endpoints that were asked, by the one that had failed and how."
        )
        self.failovers_refused = counter(
            names.FAILOVERS_REFUSED, "{failover}", "Failovers that were not made because the retry budget was spent."
        )
        self.probes = counter(names.PROBES, "{probe}", "Probes of endpoints that were not seen for long.")
        self.probe_tokens = counter(names.PROBE_TOKENS, "{token}", "Tokens of probes.")
        self.outcomes = counter(names.OUTCOMES, "{outcome}", "Outcomes that callers reported.")
        self.router_cost = counter(
            names.ROUTER_COST, "USD", "Cost of attempts at list prices by the router that decided, where it is known."
        )
        self.router_tokens = counter(
            names.ROUTER_TOKENS, "{token}", "Tokens of attempts by the router that decided and the endpoint."
        )
        self.log_drops = counter(names.DECISION_LOG_DROPS, "{record}", "Log records that were dropped.")
        self.artifact_reads = counter(
            names.ARTIFACT_READS, "{artifact}", "Quality artifacts that were read, at the start or while serving."
        )
        self.shadows = _ShadowInstruments(registry)
        self.forecasts = _ForecastInstruments(registry)
        self.state = _StateInstruments(registry)


class _ForecastInstruments:
    """Hold what was expected against what was seen."""

    def __init__(self, registry: Registry) -> None:
        histogram = registry.histogram
        self.ttft = histogram(
            names.FORECAST_TTFT_RATIO, "1", "Seen time to first token by the expected one.", RATIO_BUCKETS
        )
        self.cost = histogram(names.FORECAST_COST_RATIO, "1", "Cost of an answer by the expected one.", RATIO_BUCKETS)
        self.quality = histogram(
            names.FORECAST_QUALITY,
            "1",
            "Predicted quality of the answers whose quality was reported, 0..1.",
            QUALITY_BUCKETS,
        )
        self.regret_expected = histogram(
            names.REGRET_EXPECTED,
            "1",
            "Expected utility of the best candidate beyond the chosen one's.",
            REGRET_BUCKETS,
        )
        self.regret_seen = histogram(
            names.REGRET_SEEN,
            "1",
            "Expected utility of the best other candidate beyond what the answer gave, cost and latencies as seen.",
            REGRET_BUCKETS,
        )


class _StateInstruments:
    """Show what stands somewhere else."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._state: ServerState | None = None
        self._requests = registry.observed(names.REQUESTS_IN_FLIGHT, "{request}", "Calls of our service under way.")
        self._in_flight = registry.observed(names.ENDPOINT_IN_FLIGHT, "{attempt}", "Calls of an endpoint under way.")
        self._breakers = registry.observed(
            names.ENDPOINT_BREAKER, "1", "1 for the state that an endpoint's breaker is in, 0 for the others."
        )

    def watch(self, state: Callable[[], ServerState | None]) -> None:
        """See `Metrics.watch`."""

        def look() -> None:
            self._state = state()

        self._registry.before_reading.append(look)
        self._requests.reading = self._request_count
        self._in_flight.reading = self._in_flight_counts
        self._breakers.reading = self._breaker_states

    def _request_count(self) -> list[tuple[Key, float]]:
        return [] if self._state is None else [((), self._state.request_count)]

    def _in_flight_counts(self) -> list[tuple[Key, float]]:
        state = self._state
        if state is None:
            return []
        return [(((names.ENDPOINT, name),), state.snapshot.of(name).in_flight_count) for name in state.endpoint_names]

    def _breaker_states(self) -> list[tuple[Key, float]]:
        state = self._state
        if state is None:
            return []
        return [
            (((names.ENDPOINT, name), (names.BREAKER_STATE, each.value)), int(state.snapshot.of(name).breaker is each))
            for name in state.endpoint_names
            for each in BreakerState
        ]


class _ShadowInstruments:
    """Hold the choices of acting routers against those of their shadows."""

    def __init__(self, registry: Registry) -> None:
        self._decisions = registry.counter(
            names.SHADOW_DECISIONS, "{decision}", "Decisions of shadows, by their agreement with the acting router's."
        )
        self._quality = registry.histogram(
            names.SHADOW_QUALITY,
            "1",
            "Predicted quality of the acting router's choice and of its shadow's, each by its own artifact.",
            QUALITY_BUCKETS,
        )
        self._cost = registry.histogram(
            names.SHADOW_COST,
            "USD",
            "Expected cost of the acting router's choice and of its shadow's.",
            COST_BUCKETS_USD,
        )

    def compare(self, acting: Decision, shadow: Decision) -> None:
        """Counts a shadow's choice. What is known of one of the two choices alone is not recorded: means could not be
        compared."""
        pair = ((names.ROUTER_NAME, acting.router_name), (names.SHADOW_ROUTER, shadow.router_name))
        self._decisions.add(1, (*pair, (names.SHADOW_AGREEMENT, acting.agreement(shadow).value)))
        ours, theirs = acting.chosen, shadow.chosen
        if ours is None or theirs is None:
            return
        sides = [(*pair, (names.SHADOW_SIDE, side)) for side in (names.SIDE_ACTING, names.SIDE_SHADOW)]
        if ours.quality is not None and theirs.quality is not None:
            for quality, side in zip((ours.quality, theirs.quality), sides, strict=True):
                self._quality.record(quality.mean, side)
        if ours.cost_usd is not None and theirs.cost_usd is not None:
            for cost_usd, side in zip((ours.cost_usd, theirs.cost_usd), sides, strict=True):
                self._cost.record(cost_usd, side)


def _router_key(decision: Decision) -> Key:
    deciding = (names.ROUTER_NAME, decision.router_name)
    split_name = decision.assignment.split_name
    return (deciding, (names.ROUTER_ASKED, split_name)) if split_name else (deciding,)


def _endpoint_key(endpoint: Endpoint) -> Key:
    return (
        (names.GEN_AI_OPERATION_NAME, names.CHAT_OPERATION),
        (names.ENDPOINT, endpoint.name),
        (names.GEN_AI_REQUEST_MODEL, endpoint.model),
        (names.GEN_AI_PROVIDER_NAME, endpoint.provider),
    )


def _counts(usage: Usage) -> list[tuple[str, int]]:
    """Tokens by type, as far as they were counted."""
    counts = ((names.TOKEN_TYPE_INPUT, usage.input_token_count), (names.TOKEN_TYPE_OUTPUT, usage.output_token_count))
    return [(token_type, count) for token_type, count in counts if count is not None]
