"""Which endpoints take part in a star plot, and what is known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from pointsman_server.decision.resolve import KnownNames
from pointsman_server.decision.router_string import parse_router_string
from pointsman_server.decision.types import Endpoint, SearchSpace
from pointsman_server.quality.artifact import builtin_artifact_path, load
from pointsman_server.quality.model import QualityModel
from pointsman_server.training.costs import Price
from pointsman_server.training.dataset import Dataset, load_dataset
from pointsman_server.training.frontier_latencies import read_latencies
from pointsman_server.training.frontier_pool import (
    AssumedLatency,
    Axis,
    FrontierError,
    Listed,
    Pool,
    build_pool,
    choose_source,
    facts_of,
    implied_latency,
    implied_prices,
    outcome_matrix,
    restricted,
    restriction_of,
)
from pointsman_server.training.tables import DatasetError
from strategies import endpoints as some_endpoints
from strategies import spaces
from training.frontier_samples import GOOD, PROMPT_COUNT, outcome_columns, prompt_columns, write_questions

PRICES = {
    "gpt-4o": Price(2.5, 10.0),
    "gpt-4o-mini": Price(0.15, 0.6),
    "llama-3.1-8b-instruct": Price(0.05, 0.08),
}


@pytest.fixture(scope="module")
def model() -> QualityModel:
    """The shipped artifact."""
    return load(builtin_artifact_path())


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The sample without costs and latencies."""
    return load_dataset(write_questions(tmp_path_factory.mktemp("questions")))


def pool_of(
    data: Dataset,
    model: QualityModel,
    *,
    listed: list[Listed] | None = None,
    prices: dict[str, Price] | None = None,
    latencies: dict[str, AssumedLatency] | None = None,
    chosen: frozenset[str] = frozenset(),
    axis: Axis = Axis.COST,
) -> Pool:
    """A pool of the only source, at the prices above unless others are given."""
    return build_pool(
        data,
        "own",
        model,
        listed=listed,
        prices=PRICES if prices is None else prices,
        latencies=latencies or {},
        chosen=chosen,
        axis=axis,
    )


def tokens(kind: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Input or output tokens of each outcome of the sample, in its order."""
    prompts = prompt_columns()
    if kind == "output":
        return np.array(outcome_columns(prompts)["output_tokens"], dtype=np.float64)
    return np.repeat([float(facts_of(str(text)).input_token_count) for text in prompts["prompt"]], len(GOOD))


def test_the_models_of_the_data_are_endpoints_at_the_prices_of_the_list(
    questions: Dataset, model: QualityModel
) -> None:
    """Each model that is priced is an endpoint named after itself and its source, and nothing has to be said about it."""
    pool = pool_of(questions, model)
    assert [endpoint.name for endpoint in pool.endpoints] == [
        "gpt-4o-mini@own",
        "gpt-4o@own",
        "llama-3.1-8b-instruct@own",
    ]
    assert [endpoint.output_price_usd_per_mtok for endpoint in pool.endpoints] == [0.6, 10.0, 0.08]
    assert (pool.restriction, pool.left_out, pool.has_own_costs) == (SearchSpace(), (), False)


def test_what_a_prompt_costs_is_the_price_of_its_tokens(questions: Dataset, model: QualityModel) -> None:
    """With list prices a cell is its measured output and estimated input at those prices, for a thousand requests."""
    pool = pool_of(questions, model)
    rows = np.array([0, 7])
    inputs = [facts_of(text).input_token_count for text in questions.texts[rows]]
    expected = 1e-3 * (2.5 * np.array(inputs) + 10.0 * questions.output_tokens[rows, 0])
    assert outcome_matrix(questions, pool, rows, Axis.COST)[:, 1] == pytest.approx(expected)
    assert outcome_matrix(questions, pool, rows, Axis.PRICE)[:, 1] == pytest.approx([4.375, 4.375])


def test_costs_of_the_data_imply_prices(tmp_path: Path, model: QualityModel) -> None:
    """Where each call's cost is its tokens at fixed prices, these are found again, and the costs themselves are plotted."""
    costs = (3.0 * tokens("input") + 12.0 * tokens("output")) / 1e6
    data = load_dataset(write_questions(tmp_path, cost_usd=list(costs)))
    found = implied_prices(data, 0)
    assert found is not None
    assert found.input_usd_per_1m == pytest.approx(3.0, rel=1e-3)
    assert found.output_usd_per_1m == pytest.approx(12.0, rel=1e-3)
    pool = pool_of(data, model, prices={})
    assert pool.has_own_costs
    every = np.arange(PROMPT_COUNT)
    assert outcome_matrix(data, pool, every, Axis.COST) == pytest.approx(1000.0 * data.cost_usd[:, [1, 0, 2]])


def test_an_implied_price_is_never_below_zero(tmp_path: Path) -> None:
    """Costs that fall with the length of the input, which no price can explain, are explained by the output alone."""
    costs = (20.0 * tokens("output") - 3.0 * tokens("input")) / 1e6
    found = implied_prices(load_dataset(write_questions(tmp_path, cost_usd=list(np.maximum(costs, 0.0)))), 0)
    assert found is not None
    assert found.input_usd_per_1m == 0.0
    assert found.output_usd_per_1m == pytest.approx(20.0, rel=0.05)


def test_latencies_of_whole_answers_imply_both_kinds(tmp_path: Path, model: QualityModel) -> None:
    """Answers that take half a second and 20 ms for each further token tell the time to the first one."""
    data = load_dataset(write_questions(tmp_path, latency_s=list(0.5 + 0.02 * (tokens("output") - 1.0))))
    found = implied_latency(data, 0)
    assert found is not None
    assert found.ttft_s == pytest.approx(0.5, rel=1e-3)
    assert found.inter_token_latency_s == pytest.approx(0.02, rel=1e-3)
    assert outcome_matrix(data, pool_of(data, model, axis=Axis.TTFT), np.array([0]), Axis.TTFT) == pytest.approx(500.0)
    assert outcome_matrix(data, pool_of(data, model, axis=Axis.ITL), np.array([0]), Axis.ITL) == pytest.approx(20.0)


def test_what_is_missing_is_said(questions: Dataset, model: QualityModel) -> None:
    """Without latencies there is no plot against them, and the error says what would give them."""
    with pytest.raises(FrontierError, match=r"needs 2 endpoints, and has 0.*\n.*--latency, --server, or latency_s"):
        pool_of(questions, model, axis=Axis.TTFT)
    with pytest.raises(FrontierError, match="--prices, --config, --server, or cost_usd"):
        pool_of(questions, model, prices={"somebody-else": Price(1.0, 1.0)})


def test_given_latencies_are_taken(questions: Dataset, model: QualityModel) -> None:
    """A latency holds for an endpoint by its name, and for a model at every provider; the rest is left out."""
    given = {"gpt-4o@own": AssumedLatency(0.4, 0.016), "gpt-4o-mini": AssumedLatency(0.3, 0.012)}
    pool = pool_of(questions, model, latencies=given, axis=Axis.TTFT)
    assert outcome_matrix(questions, pool, np.array([0]), Axis.TTFT).tolist() == [[300.0, 400.0]]
    assert [each.name for each in pool.left_out] == ["llama-3.1-8b-instruct@own"]


def test_a_catalog_of_ones_own_meets_the_data_by_its_models(questions: Dataset, model: QualityModel) -> None:
    """Endpoints take part by the name of their model or another name of it; strings then say what is left out."""
    listed = [
        Listed(Endpoint("gpt-4o", "openai", 2.5, 10.0), "gpt-4o"),
        Listed(Endpoint("my-llama", "groq", 0.05, 0.08), "meta-llama-3.1-8b-instruct"),
        Listed(Endpoint("my-llama", "together", 0.18, 0.18), "meta-llama-3.1-8b-instruct"),
        Listed(Endpoint("gemma-2-9b-it", "groq", 0.2, 0.2), "gemma-2-9b-it"),
        Listed(Endpoint("gpt-4o-mini", "home", 0.2, 0.2), "something-else"),
    ]
    pool = pool_of(questions, model, listed=listed)
    assert [member.endpoint.name for member in pool.members] == ["gpt-4o@openai", "my-llama@groq", "my-llama@together"]
    assert [questions.endpoints[member.column][1] for member in pool.members] == [
        "gpt-4o",
        *["llama-3.1-8b-instruct"] * 2,
    ]
    assert {each.name: each.reason.partition(" (")[0] for each in pool.left_out} == {
        "gemma-2-9b-it@groq": "the data has too few answers of the model",
        "gpt-4o-mini@home": "the artifact does not know the model",
    }
    assert pool.restriction == SearchSpace(models=frozenset({"gpt-4o", "my-llama"}))
    prices = outcome_matrix(questions, pool, np.array([0]), Axis.COST)[0]
    assert prices[1] < prices[2] < prices[0]


def test_endpoints_can_be_chosen(questions: Dataset, model: QualityModel) -> None:
    """--pool draws only what it names, by model or endpoint; a name that is not there is an error with those that are."""
    pool = pool_of(questions, model, chosen=frozenset({"gpt-4o@own", "gpt-4o-mini"}))
    assert [endpoint.model for endpoint in pool.endpoints] == ["gpt-4o-mini", "gpt-4o"]
    assert pool.restriction == SearchSpace(models=frozenset({"gpt-4o", "gpt-4o-mini"}))
    with pytest.raises(FrontierError, match="'gpt-5' is no endpoint of the plot; there are the models gpt-4o, "):
        pool_of(questions, model, chosen=frozenset({"gpt-5"}))


def test_a_source_is_named_where_there_are_several(questions: Dataset) -> None:
    """The only source needs no name; a wrong one is answered with those that are there."""
    assert choose_source(questions, None) == "own"
    with pytest.raises(FrontierError, match="the data has no source 'other': name one with --source, of own"):
        choose_source(questions, "other")


@given(catalog=some_endpoints())
def test_a_restriction_leaves_what_was_kept(catalog: tuple[Endpoint, ...]) -> None:
    """Whatever part of a catalog is kept, the restriction allows that part and nothing else."""
    kept = catalog[::2]
    space = restriction_of(catalog, kept)
    allowed = [
        each
        for each in catalog
        if (not space.models or each.model in space.models)
        and (not space.endpoints or each.name in space.endpoints)
        and each.model not in space.skip_models
        and each.name not in space.skip_endpoints
    ]
    assert allowed == list(kept)
    assert not (space.models | space.endpoints) - KnownNames.of(catalog).models - KnownNames.of(catalog).endpoints


@given(own=spaces(), other=spaces())
def test_a_restricted_router_looks_where_both_allow(own: SearchSpace, other: SearchSpace) -> None:
    """The restricted router skips what either skips, and of two lists of what is allowed keeps what both have; where
    nothing is left, it says so."""
    router = parse_router_string("router@q:1->gpt-4o")
    first = restricted(router, own)
    try:
        both = restricted(first, other)
    except FrontierError:
        lists = [(own.models, other.models), (own.providers, other.providers), (own.endpoints, other.endpoints)]
        assert any(ours and theirs and not ours & theirs for ours, theirs in lists)
        return
    for alternative in both.alternatives:
        assert alternative.space.skip_models == own.skip_models | other.skip_models
        if own.models and other.models:
            assert alternative.space.models == own.models & other.models
        else:
            assert alternative.space.models == own.models | other.models
    assert parse_router_string(str(both)) == both


def test_latencies_are_read_from_a_small_table(tmp_path: Path) -> None:
    """A latency is in ms and holds for an endpoint, or for a model whatever its case; the last line for a name counts."""
    path = tmp_path / "latencies.csv"
    path.write_text(
        "endpoint,ttft_ms,inter_token_latency_ms,note\ngpt-4o@openai,9,9,old\ngpt-4o@openai,420,16,\nGPT-4o-mini,380,12.5,\n"
    )
    assert read_latencies(path) == {
        "gpt-4o@openai": AssumedLatency(0.42, 0.016),
        "gpt-4o-mini": AssumedLatency(0.38, 0.0125),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("endpoint,ttft_ms\ngpt-4o,1\n", "column inter_token_latency_ms is missing; required are endpoint, "),
        (
            "endpoint,ttft_ms,inter_token_latency_ms\ngpt-4o,-1,2\n",
            "line 2, column ttft_ms: '-1' is not a number from 0",
        ),
        ("endpoint,ttft_ms,inter_token_latency_ms\ngpt-4o,1,fast\n", "inter_token_latency_ms: 'fast' is not a number"),
        ("endpoint,ttft_ms,inter_token_latency_ms\n,1,2\n", "line 2, column endpoint: null is not a name"),
        ("endpoint,ttft_ms,inter_token_latency_ms\n", "has no line below its first"),
    ],
)
def test_a_fault_of_the_table_names_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    """What is wrong with latencies is said with the place and what would be right."""
    path = tmp_path / "latencies.csv"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_latencies(path)
