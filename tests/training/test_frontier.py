"""The numbers of the star plot: true to the shipped decision, and honest about what was picked on what."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.decision.router_string import RouterStringError, parse_router_string
from pointsman_server.errors import InvalidRequestError
from pointsman_server.quality.artifact import builtin_artifact_path, load
from pointsman_server.quality.model import QualityModel
from pointsman_server.training.costs import Price
from pointsman_server.training.dataset import Dataset, load_dataset
from pointsman_server.training.frontier import POINTED_OUT_COUNT_MAX, Frontier, Plan, _Means, _pointed_out, compute
from pointsman_server.training.frontier_fields import frontier_fields
from pointsman_server.training.frontier_grid import Family, RouterText, router_grid, spread_weights
from pointsman_server.training.frontier_pool import Axis, Doubles, FrontierError, Pool, build_pool
from pointsman_server.training.frontier_questions import (
    Selection,
    candidates_of,
    choose_prompts,
    decision_of,
    questions_at,
    routing_of,
    shares_of,
)
from training.frontier_samples import write_questions

PRICES = {
    "gpt-4o": Price(2.5, 10.0),
    "gpt-4o-mini": Price(0.15, 0.6),
    "llama-3.1-8b-instruct": Price(0.05, 0.08),
}
PLAN = Plan(Axis.COST, "own", "test", given=("gpt-4o-mini@own",), prompt_count_max=150)


@pytest.fixture(scope="module")
def model() -> QualityModel:
    """The shipped artifact."""
    return load(builtin_artifact_path())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Prompts of which the truth is known."""
    return load_dataset(write_questions(tmp_path_factory.mktemp("questions")))


@pytest.fixture(scope="module")
def pool(data: Dataset, model: QualityModel) -> Pool:
    """All of its models, at list prices."""
    return pool_of(data, model)


@pytest.fixture(scope="module")
def frontier(data: Dataset, model: QualityModel, pool: Pool) -> Frontier:
    """The plot of cost, with one router that was asked for."""
    return compute(data, pool, model, PLAN, lambda _share: None)


def pool_of(data: Dataset, model: QualityModel, *, chosen: frozenset[str] = frozenset()) -> Pool:
    """The models of the data at the prices above."""
    return build_pool(data, "own", model, listed=None, prices=PRICES, latencies={}, chosen=chosen, axis=Axis.COST)


def prompts_of(
    data: Dataset, pool: Pool, *, split: str = "test", count_max: int = 1000, seed: int = 0
) -> tuple[list[int], list[int], Selection]:
    """The rows that are reported, the rows of the selection, and what the selection is."""
    found = choose_prompts(data, pool, source="own", split=split, axis=Axis.COST, count_max=count_max, seed=seed)
    return found.reported.tolist(), found.selecting.tolist(), found.selection


class TestPrompts:
    """Which prompts are reported, and which the selection is made on."""

    def test_the_selection_is_made_on_the_val_split(self, data: Dataset, pool: Pool) -> None:
        """The test split is reported, and what is pointed out is decided on val: no question is in both."""
        reported, selecting, selection = prompts_of(data, pool)
        assert {str(data.splits[row]) for row in reported} == {"test"}
        assert {str(data.splits[row]) for row in selecting} == {"val"}
        assert selection is Selection.VAL

    @pytest.mark.parametrize("seed", range(5))
    def test_without_a_val_split_the_questions_are_halved(self, data: Dataset, pool: Pool, seed: int) -> None:
        """Then one half of the questions selects and the other reports, all wordings of a question on one side."""
        keys = np.array([f"k{row // 3}" for row in range(len(data.texts))], dtype=object)
        whole = replace(data, splits=np.array(["test"] * len(keys), dtype=object), dedupe_keys=keys)
        reported, selecting, selection = prompts_of(whole, pool, seed=seed)
        assert selection is Selection.HALF
        assert sorted(reported + selecting) == list(range(len(keys)))
        assert not set(keys[reported]) & set(keys[selecting])
        assert abs(len(reported) - len(selecting)) <= 3

    def test_the_val_split_itself_is_halved(self, data: Dataset, pool: Pool) -> None:
        """Who asks for the val split gets one half of it, selected on the other."""
        reported, selecting, selection = prompts_of(data, pool, split="val")
        assert {str(data.splits[row]) for row in reported + selecting} == {"val"}
        assert (selection, set(reported) & set(selecting)) == (Selection.HALF, set())

    def test_the_number_of_prompts_is_bounded(self, data: Dataset, pool: Pool) -> None:
        """At most so many are reported and half as many select; the seed draws them, the same each time."""
        drawn = prompts_of(data, pool, count_max=60, seed=3)
        assert (len(drawn[0]), len(drawn[1])) == (60, 30)
        assert drawn == prompts_of(data, pool, count_max=60, seed=3)
        assert drawn != prompts_of(data, pool, count_max=60, seed=4)

    def test_only_prompts_that_all_endpoints_answered_count(self, data: Dataset, pool: Pool) -> None:
        """A prompt without an answer or without its length is in neither part."""
        quality, tokens = data.quality.copy(), data.output_tokens.copy()
        quality[3, 0], tokens[4, 1] = np.nan, np.nan
        reported, selecting, _ = prompts_of(replace(data, quality=quality, output_tokens=tokens), pool)
        assert not {3, 4} & {*reported, *selecting}
        assert len(reported) + len(selecting) == len(data.texts) - 2

    def test_too_few_prompts_are_an_error(self, data: Dataset, pool: Pool) -> None:
        """With a handful of prompts no interval says anything, and the error says what would."""
        with pytest.raises(FrontierError, match="all 3 endpoints answered only 0 prompts of the train split, and 192"):
            prompts_of(data, pool, split="train")


class TestGrid:
    """Which routers are tried."""

    def test_every_string_reads_back_as_itself(self, frontier: Frontier) -> None:
        """Each router's text, parsed by the server's parser and printed, is the same text."""
        for router in frontier.routers:
            assert str(parse_router_string(router.text)) == router.text

    def test_a_restriction_is_in_every_alternative(self, data: Dataset, model: QualityModel) -> None:
        """Where a part of the endpoints is drawn, each router says so, also in its fallbacks and where it was given."""
        pool = pool_of(data, model, chosen=frozenset({"gpt-4o", "gpt-4o-mini"}))
        found = prompts_of(data, pool)
        questions = questions_at(data, pool, model, np.array(found[1][:30]), Axis.COST)
        grid = router_grid(
            Axis.COST, candidates_of(pool, questions, {}), restriction=pool.restriction, given=("gpt-4o->router",)
        )
        assert {Family.GIVEN, Family.WEIGHT, Family.FLOOR, Family.BUDGET} <= {router.family for router in grid}
        for router in grid:
            for alternative in parse_router_string(router.text).alternatives:
                assert alternative.space.models == {"gpt-4o", "gpt-4o-mini"}

    def test_an_unreadable_router_is_refused(self, data: Dataset, model: QualityModel, pool: Pool) -> None:
        """A router that can't be read, or that names what is not there, ends in the error that the server would give."""
        for text, error in (("router@foo:1", RouterStringError), ("gpt-5", InvalidRequestError)):
            with pytest.raises(error):
                compute(data, pool, model, replace(PLAN, given=(text,)), lambda _share: None)

    @given(
        shape=st.tuples(st.integers(2, 30), st.integers(2, 6)),
        seed=st.integers(0, 2**32 - 1),
        scale=st.floats(1e-6, 1e3),
    )
    def test_weights_rise_and_are_finite(self, shape: tuple[int, int], seed: int, scale: float) -> None:
        """Whatever is predicted, the weights are above 0, finite, and each is larger than the one before."""
        rng = np.random.default_rng(seed)
        weights = spread_weights(rng.random(shape), scale * rng.random(shape))
        assert all(0.0 < weight < float("inf") for weight in weights)
        assert weights == sorted(set(weights))

    def test_endpoints_that_cost_the_same_need_no_weights(self) -> None:
        """Where nothing can be saved, no router trades quality for it."""
        assert spread_weights(np.random.default_rng(1).random((20, 3)), np.full((20, 3), 0.5)) == []


class TestShares:
    """How the shipped decision distributes prompts."""

    def test_shares_are_the_probabilities_of_the_decision(self, data: Dataset, model: QualityModel, pool: Pool) -> None:
        """Each row is what the decision says of that prompt: it sums to 1, and a near-tie has its part."""
        questions = questions_at(data, pool, model, np.arange(40), Axis.COST)
        routing = routing_of("router@q:1|rc:15", pool, {})
        shares = shares_of(routing, pool, questions)
        assert shares.sum(axis=1) == pytest.approx(1.0)
        for row in range(len(questions)):
            decision = decision_of(routing, pool, questions.facts[row], questions.predictions[row])
            by_name = {each.endpoint.name: each.probability for each in decision.candidates}
            assert shares[row].tolist() == [by_name[endpoint.name] for endpoint in pool.endpoints]

    def test_a_prompt_that_nothing_fits_goes_nowhere(self, data: Dataset, model: QualityModel, pool: Pool) -> None:
        """Where no endpoint is eligible the row is empty."""
        questions = questions_at(data, pool, model, np.arange(5), Axis.COST)
        assert not shares_of(routing_of("router@q>=1", pool, {}), pool, questions).any()


class TestFrontier:
    """What is reported."""

    def test_single_endpoints_are_their_means(self, data: Dataset, pool: Pool, frontier: Frontier) -> None:
        """A dot is the mean over the reported prompts, within its interval; chance is the mean of the dots."""
        rows = prompts_of(data, pool, count_max=150)[0]
        assert frontier.prompt_count == len(rows) == 150
        for endpoint, member in zip(frontier.endpoints, pool.members, strict=True):
            assert endpoint.at.quality.value == pytest.approx(float(data.quality[rows, member.column].mean()))
            assert endpoint.at.quality.low < endpoint.at.quality.value < endpoint.at.quality.high
            assert endpoint.at.x.low < endpoint.at.x.value < endpoint.at.x.high
        mean = np.mean([endpoint.at.quality.value for endpoint in frontier.endpoints])
        assert frontier.random.quality.value == pytest.approx(mean)

    def test_the_oracle_is_out_of_reach(self, data: Dataset, pool: Pool, frontier: Frontier) -> None:
        """It is as good as the best answer to each prompt, and costs less than taking the dearest of the best."""
        rows = prompts_of(data, pool, count_max=150)[0]
        assert frontier.oracle.quality.value == pytest.approx(float(data.quality[rows].max(axis=1).mean()))
        assert all(router.at.quality.value <= frontier.oracle.quality.value for router in frontier.routers)
        assert frontier.oracle.x.value < frontier.endpoints[frontier.best_single].at.x.value

    def test_a_router_to_one_endpoint_is_that_endpoint(self, frontier: Frontier) -> None:
        """The router that was asked for sends all to gpt-4o-mini: its star lies on that dot, and is always lettered."""
        (router,) = [router for router in frontier.routers if router.family is Family.GIVEN]
        (dot,) = [endpoint for endpoint in frontier.endpoints if endpoint.model == "gpt-4o-mini"]
        assert (router.text, router.shares) == ("gpt-4o-mini@own", (1.0, 0.0, 0.0))
        assert router.at.quality.value == pytest.approx(dot.at.quality.value)
        assert router.at.x.value == pytest.approx(dot.at.x.value)
        assert router.letter

    def test_gains_are_differences_on_the_same_prompts(self, frontier: Frontier) -> None:
        """A gain is the difference of two qualities, and its interval is narrower than theirs together."""
        best = frontier.endpoints[frontier.best_single].at
        for router in frontier.routers:
            gain = router.gain_over_best_single
            assert gain.value == pytest.approx(router.at.quality.value - best.quality.value)
            widths = [each.high - each.low for each in (router.at.quality, best.quality)]
            assert gain.high - gain.low <= sum(widths)
            assert router.x_share_of_best_single.value == pytest.approx(router.at.x.value / best.x.value)

    def test_a_single_endpoint_gains_nothing_over_the_random_mix(self, frontier: Frontier) -> None:
        """The mix passes through its corners, so what only sends all to one of them gains nothing, for sure."""
        corners = dict(frontier.mix)
        for router in frontier.routers:
            if router.at.x.value in corners and max(router.shares) == 1.0:
                assert router.at.quality.value <= corners[router.at.x.value]
            assert not isnan(router.gain_over_mix.value)

    def test_routers_are_distinct_and_in_order(self, frontier: Frontier) -> None:
        """No two routers have the same text, and they and their letters ascend along the axis."""
        texts = [router.text for router in frontier.routers]
        assert len(set(texts)) == len(texts) > POINTED_OUT_COUNT_MAX
        xs = [router.at.x.value for router in frontier.routers]
        assert xs == sorted(xs)
        letters = [router.letter for router in frontier.routers if router.letter]
        assert letters == sorted(letters)
        assert 2 <= len(letters) <= POINTED_OUT_COUNT_MAX

    def test_what_is_pointed_out_depends_on_the_selection_alone(
        self, data: Dataset, model: QualityModel, pool: Pool, frontier: Frontier
    ) -> None:
        """With every answer of the reported prompts turned around, the same routers are lettered and the same endpoint is
        the best single one; only the figures change."""
        turned = data.quality.copy()
        turned[data.splits == "test"] = 1.0 - turned[data.splits == "test"]
        other = compute(replace(data, quality=turned), pool, model, PLAN, lambda _share: None)

        def lettered(found: Frontier) -> dict[str, str]:
            return {router.text: router.letter for router in found.routers}

        assert lettered(other) == lettered(frontier)
        assert other.best_single == frontier.best_single
        assert other.endpoints != frontier.endpoints

    def test_a_router_that_leaves_prompts_behind_is_left_out(
        self, data: Dataset, model: QualityModel, pool: Pool
    ) -> None:
        """A router without a fallback that rejects everything for some prompts is not drawn, and that is said."""
        plan = replace(PLAN, given=("router@q>=0.99",), prompt_count_max=40)
        found = compute(data, pool, model, plan, lambda _share: None)
        assert "router@q>=0.99" not in [router.text for router in found.routers]
        (left_out,) = found.left_out
        assert left_out.name == "router@q>=0.99"
        assert "of the prompts without an endpoint" in left_out.reason

    def test_progress_reaches_the_end(self, data: Dataset, model: QualityModel, pool: Pool) -> None:
        """Progress is told in rising shares, up to 1."""
        told: list[float] = []
        compute(data, pool, model, replace(PLAN, prompt_count_max=40), told.append)
        assert told == sorted(told)
        assert told[-1] == 1.0

    def test_the_same_seed_gives_the_same_numbers(
        self, data: Dataset, model: QualityModel, pool: Pool, frontier: Frontier
    ) -> None:
        """The plot can be drawn again."""
        again = compute(data, pool, model, PLAN, lambda _share: None)
        assert frontier_fields(again) == frontier_fields(frontier)


@pytest.mark.parametrize(
    ("x", "quality", "pointed_out"),
    [
        (2.0, 0.75, True),  # nothing is as good for less
        (1.0, 0.5, True),  # as good as the cheap endpoint
        (0.995, 0.4, False),  # saves half a percent for ten points
        (2.5, 0.59, False),  # a random mix of the two endpoints reaches 0.65
        (4.5, 0.8, False),  # the dear endpoint does it for less
    ],
)
def test_only_what_nothing_beats_is_pointed_out(x: float, quality: float, *, pointed_out: bool) -> None:
    """Between a cheap and a dear endpoint, a router is lettered if no endpoint, no mix of them and no other router is
    better at its place, a hundredth of x aside; the user's own is lettered in any case."""
    columns = np.array([1.0, 4.0, 2.5, 2.0, x]), np.array([0.5, 0.8, 0.65, 0.9, quality])
    means = _Means(2, columns[1], columns[0], columns[1][np.newaxis], columns[0][np.newaxis])
    for family, expected in ((Family.WEIGHT, pointed_out), (Family.GIVEN, True)):
        assert bool(_pointed_out([RouterText("router@q:1", family)], means)) is expected


def test_a_perfect_prediction_finds_the_frontier() -> None:
    """Where each weight has one best endpoint for every prompt, the weights make the choice pass from the best to the
    cheapest."""
    quality: Doubles = np.tile([[0.9, 0.6, 0.3]], (10, 1))
    taken: Doubles = np.tile([[4.0, 2.0, 1.0]], (10, 1))
    weights = spread_weights(quality, taken)
    chosen = [int(np.argmax(quality[0] - weight * taken[0])) for weight in weights]
    assert chosen[0] == 0
    assert chosen == sorted(chosen)
