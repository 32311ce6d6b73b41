"""What is counted and measured of all requests together.

Cardinality is bounded by the configuration: methods of our service, routers, endpoints of the catalog, and the values of
closed enumerations. Nothing that a caller writes becomes an attribute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias, TypeVar

from pointsman_server.chat import Usage
from pointsman_server.decision.types import BreakerState, Decision, DecisionReason, Endpoint, RuntimeSnapshot
from pointsman_server.telemetry import names
from pointsman_server.telemetry.memo import Memo
from pointsman_server.telemetry.regret import Seen, candidate_of, expected_regret, seen_regret
from pointsman_server.telemetry.series import SERIES_COUNT_MAX, CounterSeries, Distribution, Key, Registry
from pointsman_server.telemetry.spans import Phase
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

_DecisionKey: TypeAlias = tuple[str, str, DecisionReason | None, str | None]
"""Router, the router whose split had it decide (empty: none), reason, chosen endpoint."""
_AnswerKey: TypeAlias = tuple[str, str, str]
"""Router, the router whose split had it decide (empty: none), endpoint."""
_KeyT = TypeVar("_KeyT")
_SeriesT = TypeVar("_SeriesT")


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
            self._instruments.of_call[method, status].record(duration_s, example)

    def decided(
        self,
        decision: Decision,
        shadows: Sequence[Decision] = (),
        *,
        duration_s: float,
        phases: Sequence[Phase] = (),
        example: TraceContext | None = None,
    ) -> None:
        """A decision was made, for or against; `shadows` decided beside it."""
        instruments = self._instruments
        if instruments is None:
            return
        chosen = decision.chosen
        series = instruments.of_decision[
            decision.router_name,
            decision.assignment.split_name,
            decision.reason,
            None if chosen is None else chosen.endpoint.name,
        ]
        series.routing.record(duration_s, example)
        series.decisions.add(1)
        for phase in phases:
            instruments.of_phase[phase.name].record(phase.duration_s)
        # Who was rejected stands behind all others: where the last one was not, nobody was.
        if decision.candidates and decision.candidates[-1].rejections:
            _count_rejections(instruments.rejections, decision)
        regret = expected_regret(decision)
        if regret is not None:
            series.regret.record(regret)
        for shadow in shadows:
            instruments.shadows.compare(decision, shadow)

    def spent(self, decision: Decision, endpoint: Endpoint, *, usage: Usage, cost_usd: float | None) -> None:
        """An attempt that carried out this decision used so many tokens, and cost so much as far as prices are known."""
        if self._instruments is None:
            return
        series = self._instruments.of_answer[_answer(decision, endpoint)]
        if usage.input_token_count is not None:
            series.input_tokens.add(usage.input_token_count)
        if usage.output_token_count is not None:
            series.output_tokens.add(usage.output_token_count)
        if cost_usd is not None:
            series.cost.add(cost_usd)

    def answered(self, decision: Decision, endpoint: Endpoint, seen: Seen) -> None:
        """An endpoint gave its whole answer: what the decision expected of it is held against what was seen."""
        candidate = None if self._instruments is None else candidate_of(decision, endpoint)
        if self._instruments is None or candidate is None:
            return
        series = self._instruments.of_answer[_answer(decision, endpoint)]
        expected_s = None if candidate.ttft_s is None else candidate.ttft_s.mean
        if seen.ttft_s is not None and expected_s:
            series.ttft_ratio.record(seen.ttft_s / expected_s)
        if seen.cost_usd is not None and candidate.cost_usd:
            series.cost_ratio.record(seen.cost_usd / candidate.cost_usd)
        regret = seen_regret(decision, candidate, seen)
        if regret is not None:
            series.regret.record(regret)

    def first_token(self, endpoint: Endpoint, *, ttft_s: float, example: TraceContext | None = None) -> None:
        """An attempt's first token came after `ttft_s`."""
        if self._instruments is not None:
            self._instruments.of_attempt[endpoint.model, endpoint.provider].ttft.record(ttft_s, example)

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
        series = instruments.of_attempt[endpoint.model, endpoint.provider]
        if usage.input_token_count is not None:
            series.input_tokens.record(usage.input_token_count)
        if usage.output_token_count is not None:
            series.output_tokens.record(usage.output_token_count)
        if cost_usd is not None:
            series.cost.add(cost_usd)
        if inter_token_latency_s is not None:
            series.gap.record(inter_token_latency_s)
        if error_type is not None:
            instruments.failures.add(1, (*_endpoint_key(endpoint), (names.ERROR_TYPE, error_type)))

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
        key = (*_router_key(router_name, split_name), (names.ENDPOINT, endpoint_name))
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
        # What every request records, by what tells its series apart: two dozen values, for one look-up per event.
        self.of_call: Memo[tuple[str, str], Distribution] = _memo(lambda call: self.calls.at(_call_key(*call)))
        self.of_phase: Memo[str, Distribution] = _memo(lambda name: self.phases.at(((names.ROUTING_PHASE, name),)))
        self.of_decision: Memo[_DecisionKey, _DecisionSeries] = _memo(lambda key: _DecisionSeries(self, *key))
        self.of_answer: Memo[_AnswerKey, _AnswerSeries] = _memo(lambda key: _AnswerSeries(self, *key))
        self.of_attempt: Memo[tuple[str, str], _AttemptSeries] = _memo(
            lambda model_provider: _AttemptSeries(self, Endpoint(*model_provider))
        )


class _DecisionSeries:
    """What is recorded of the decisions of a router that were alike."""

    __slots__ = ("decisions", "regret", "routing")

    def __init__(
        self,
        instruments: _Instruments,
        router_name: str,
        split_name: str,
        reason: DecisionReason | None,
        endpoint_name: str | None,
    ) -> None:
        router = ((names.ROUTER_NAME, router_name),)
        choice: Key = ((names.DECISION_REASON, names.REASON_NONE_ELIGIBLE if reason is None else reason.value),)
        if endpoint_name is not None:
            choice += ((names.ENDPOINT, endpoint_name),)
        self.routing = instruments.routing.at(router)
        self.decisions = instruments.decisions.at(_router_key(router_name, split_name) + choice)
        self.regret = instruments.forecasts.regret_expected.at(router)


class _AnswerSeries:
    """What is recorded of the attempts at an endpoint that carry out a router's decisions."""

    __slots__ = ("cost", "cost_ratio", "input_tokens", "output_tokens", "regret", "ttft_ratio")

    def __init__(self, instruments: _Instruments, router_name: str, split_name: str, endpoint_name: str) -> None:
        endpoint = (names.ENDPOINT, endpoint_name)
        key = (*_router_key(router_name, split_name), endpoint)
        tokens, forecasts = instruments.router_tokens, instruments.forecasts
        self.input_tokens = tokens.at((*key, (names.GEN_AI_TOKEN_TYPE, names.TOKEN_TYPE_INPUT)))
        self.output_tokens = tokens.at((*key, (names.GEN_AI_TOKEN_TYPE, names.TOKEN_TYPE_OUTPUT)))
        self.cost = instruments.router_cost.at(key)
        self.ttft_ratio = forecasts.ttft.at((endpoint,))
        self.cost_ratio = forecasts.cost.at((endpoint,))
        self.regret = forecasts.regret_seen.at(((names.ROUTER_NAME, router_name),))


class _AttemptSeries:
    """What is recorded of every attempt at an endpoint, unless it fails."""

    __slots__ = ("cost", "gap", "input_tokens", "output_tokens", "ttft")

    def __init__(self, instruments: _Instruments, endpoint: Endpoint) -> None:
        key = _endpoint_key(endpoint)
        self.ttft = instruments.ttft.at(key)
        self.gap = instruments.gaps.at(key)
        self.input_tokens = instruments.tokens.at((*key, (names.GEN_AI_TOKEN_TYPE, names.TOKEN_TYPE_INPUT)))
        self.output_tokens = instruments.tokens.at((*key, (names.GEN_AI_TOKEN_TYPE, names.TOKEN_TYPE_OUTPUT)))
        self.cost = instruments.cost.at(key)


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


def _count_rejections(counter: CounterSeries, decision: Decision) -> None:
    rejections = Counter(
        [
            (rejection.reason, None if rejection.bound is None else rejection.bound.metric)
            for candidate in decision.candidates
            for rejection in candidate.rejections
        ]
    )
    for (reason, metric), count in rejections.items():
        about = ((names.REJECTION_METRIC, metric.value),) if metric is not None else ()
        counter.add(count, ((names.ROUTER_NAME, decision.router_name), (names.REJECTION_REASON, reason.value), *about))


def _memo(make: Callable[[_KeyT], _SeriesT]) -> Memo[_KeyT, _SeriesT]:
    return Memo(make, count_max=SERIES_COUNT_MAX)


def _call_key(method: str, status: str) -> Key:
    return (
        (names.RPC_SYSTEM_NAME, names.RPC_SYSTEM_GRPC),
        (names.RPC_METHOD, method),
        (names.RPC_RESPONSE_STATUS_CODE, status),
    )


def _answer(decision: Decision, endpoint: Endpoint) -> _AnswerKey:
    return (decision.router_name, decision.assignment.split_name, endpoint.name)


def _router_key(router_name: str, split_name: str) -> Key:
    deciding = (names.ROUTER_NAME, router_name)
    return (deciding, (names.ROUTER_ASKED, split_name)) if split_name else (deciding,)


def _endpoint_key(endpoint: Endpoint) -> Key:
    return (
        (names.GEN_AI_OPERATION_NAME, names.CHAT_OPERATION),
        (names.ENDPOINT, endpoint.name),
        (names.GEN_AI_REQUEST_MODEL, endpoint.model),
        (names.GEN_AI_PROVIDER_NAME, endpoint.provider),
    )
