"""Hypothesis strategies for the domain: endpoints, runtime states, policies, whole decision inputs."""

from __future__ import annotations

from hypothesis import strategies as st
from pointsman_server.decision.metrics import METRIC_SPECS, Metric
from pointsman_server.decision.risk import ONLY_REFERENCE, RiskTable
from pointsman_server.decision.types import (
    Bound,
    BreakerState,
    Capability,
    Comparison,
    DecisionInput,
    Direction,
    Endpoint,
    EndpointRuntime,
    Exploration,
    Latency,
    Objective,
    Policy,
    Preference,
    QualityPrediction,
    RequestFacts,
    RequestFeature,
    RuntimeSnapshot,
    SearchSpace,
    Weights,
)

MODELS = ("large", "medium", "small", "tiny")
PROVIDERS = ("north", "south", "east")

NO_EXPLORATION = Exploration(rate=0.0)

unit = st.floats(0.0, 1.0)
prices = st.none() | st.floats(0.01, 100.0)
capabilities = st.frozensets(st.sampled_from(list(Capability)), max_size=3)
features = st.frozensets(st.sampled_from(list(RequestFeature)[:4]), max_size=2)
labels = st.frozensets(
    st.tuples(st.sampled_from(["region", "retention"]), st.sampled_from(["eu", "us", "none"])), max_size=2
)


@st.composite
def latencies(draw: st.DrawFn, low_s: float, high_s: float) -> Latency:
    """A latency whose quantiles are in order."""
    p50 = draw(st.floats(low_s, high_s))
    p90 = p50 * draw(st.floats(1.0, 3.0))
    p95 = p90 * draw(st.floats(1.0, 1.5))
    p99 = p95 * draw(st.floats(1.0, 3.0))
    return Latency(mean=p50 * draw(st.floats(0.9, 1.5)), p50=p50, p90=p90, p95=p95, p99=p99)


runtimes = st.builds(
    EndpointRuntime,
    ttft_s=st.none() | latencies(0.05, 5.0),
    inter_token_latency_s=st.none() | latencies(0.001, 0.2),
    error_rate=st.none() | unit,
    breaker=st.sampled_from([BreakerState.CLOSED] * 5 + [BreakerState.HALF_OPEN, BreakerState.OPEN]),
    retry_after_s=st.sampled_from([None, None, None, 5.0]),
    breaker_open_s=st.none() | st.floats(0.1, 300.0),
    age_s=st.none() | st.floats(0.0, 1000.0),
    ttft_s_per_input_token=st.just(0.0) | st.floats(1e-5, 1e-2),
    reference_input_token_count=st.floats(0.0, 5000.0),
    marginal_load_s=st.just(0.0) | st.floats(0.0, 5.0),
    marginal_load_s_per_token=st.just(0.0) | st.floats(0.0, 0.1),
)

qualities = st.builds(
    QualityPrediction,
    mean=unit,
    standard_error=st.floats(0.0, 0.3),
    output_token_count=st.none() | st.floats(1.0, 4000.0),
)

preferences: st.SearchStrategy[Preference] = st.one_of(
    st.builds(
        Weights.of,
        st.dictionaries(
            st.sampled_from([metric for metric, spec in METRIC_SPECS.items() if spec.weighable]),
            st.floats(0.001, 100.0),
            min_size=1,
        ),
    ),
    st.builds(
        Objective,
        st.sampled_from([metric for metric in Metric if metric is not Metric.RELATIVE_QUALITY]),
        st.sampled_from(Direction),
    ),
)


@st.composite
def bounds(draw: st.DrawFn) -> Bound:
    """A bound within the range of its metric."""
    metric = draw(st.sampled_from(Metric))
    spec = METRIC_SPECS[metric]
    limit = draw(st.floats(0.0, spec.value_max if spec.value_max is not None else 200.0))
    quantile = draw(st.none() | st.integers(50, 99).map(lambda p: p / 100)) if spec.has_quantile else None
    return Bound(metric, draw(st.sampled_from(Comparison)), limit, quantile)


@st.composite
def risk_tables(draw: st.DrawFn) -> RiskTable:
    """A table of three shares and four risks, some of which nothing but the reference meets."""
    tables = []
    for _ in range(2):
        rows = [sorted(draw(st.lists(st.just(ONLY_REFERENCE) | unit, min_size=4, max_size=4))) for _ in range(3)]
        # Sorting the columns leaves the rows sorted.
        tables.append(list(zip(*(sorted(column, reverse=True) for column in zip(*rows, strict=True)), strict=True)))
    few, other = tables
    many = [tuple(map(min, row, above)) for row, above in zip(other, few, strict=True)]
    return RiskTable(
        model_counts=(2, 3),
        shares=(0.5, 0.9, 1.0),
        risks=(0.01, 0.05, 0.1, 0.5),
        gap_max=(tuple(few), tuple(many)),
        prompt_count=200,
    )


def spaces() -> st.SearchStrategy[SearchSpace]:
    """A search space over the names that `endpoints` uses."""
    names = [f"{model}@{provider}" for model in MODELS for provider in PROVIDERS]
    some_models = st.frozensets(st.sampled_from(MODELS), max_size=3)
    some_providers = st.frozensets(st.sampled_from(PROVIDERS), max_size=2)
    some_endpoints = st.frozensets(st.sampled_from(names), max_size=4)
    return st.builds(
        SearchSpace,
        models=some_models,
        providers=some_providers,
        endpoints=st.just(frozenset[str]()) | some_endpoints,
        skip_models=st.just(frozenset[str]()) | some_models,
        skip_providers=st.just(frozenset[str]()) | some_providers,
        skip_endpoints=some_endpoints,
    )


policies = st.builds(
    Policy,
    space=st.just(SearchSpace()) | spaces(),
    bounds=st.lists(bounds(), max_size=3).map(tuple),
    capabilities=st.just(frozenset[Capability]()) | capabilities,
    labels=st.just(frozenset[tuple[str, str]]()) | labels,
    preference=preferences,
)


@st.composite
def endpoints(draw: st.DrawFn) -> tuple[Endpoint, ...]:
    """A catalog of up to 12 endpoints with distinct names."""
    names = draw(
        st.lists(st.tuples(st.sampled_from(MODELS), st.sampled_from(PROVIDERS)), min_size=1, max_size=12, unique=True)
    )
    return tuple(
        Endpoint(
            model,
            provider,
            input_price_usd_per_mtok=draw(prices),
            output_price_usd_per_mtok=draw(prices),
            cached_input_price_usd_per_mtok=draw(st.none() | prices),
            cache_write_price_usd_per_mtok=draw(st.none() | prices),
            context_token_count_max=draw(st.none() | st.integers(100, 200_000)),
            output_token_count_max=draw(st.none() | st.integers(100, 16_000)),
            capabilities=draw(capabilities),
            labels=draw(labels),
            lacks=draw(st.just(frozenset[RequestFeature]()) | features),
        )
        for model, provider in names
    )


@st.composite
def decision_inputs(
    draw: st.DrawFn, *, alternative_count_max: int = 2, exploration: Exploration | None = None
) -> DecisionInput:
    """Everything a decision depends on."""
    catalog = draw(endpoints())
    return DecisionInput(
        decision_id="d-1",
        facts=draw(
            st.builds(
                RequestFacts,
                input_token_count=st.integers(1, 5000),
                output_token_count_max=st.none() | st.integers(1, 8000),
                capabilities=st.just(frozenset[Capability]()) | capabilities,
                features=st.just(frozenset[RequestFeature]()) | features,
            )
        ),
        alternatives=tuple(draw(st.lists(policies, min_size=1, max_size=alternative_count_max))),
        endpoints=catalog,
        qualities=draw(st.dictionaries(st.sampled_from(MODELS), qualities)),
        snapshot=RuntimeSnapshot(
            draw(st.dictionaries(st.sampled_from([endpoint.name for endpoint in catalog]), runtimes))
        ),
        seed=draw(st.integers(0, 2**63 - 1)),
        exploration=exploration or draw(st.builds(Exploration, rate=st.sampled_from([0.0, 0.02, 0.5, 1.0]))),
        risk_table=draw(st.none() | risk_tables()),
        cached_input_token_counts=draw(
            st.just({})
            | st.dictionaries(st.sampled_from([one.name for one in catalog]), st.floats(1.0, 5000.0), max_size=2)
        ),
    )
