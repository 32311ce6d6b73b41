"""What a router is compared with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pointsman_server.training.baselines import (
    best,
    category_table,
    cheapest,
    chosen,
    configurations,
    length_table,
    oracle,
    single_table,
)
from pointsman_server.training.metrics import Doubles, envelope, zero_router

TRAIN = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
CATEGORIES = np.array(["sums", "sums", "names", "names", "names"], dtype=object)


@st.composite
def markets(draw: st.DrawFn) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """Expected and true qualities and costs of some models on some prompts."""
    shape = (draw(st.integers(1, 12)), draw(st.integers(1, 4)))
    qualities = [draw(arrays(np.float64, shape, elements=st.sampled_from((0.0, 0.3, 0.6, 1.0)))) for _ in range(2)]
    costs = [draw(arrays(np.float64, shape, elements=st.floats(1e-5, 1e-2))) for _ in range(2)]
    return qualities[0], costs[0], qualities[1], costs[1]


def test_the_best_single_model_is_chosen_on_the_train_split() -> None:
    """Where both have three good answers of five, one more decides, for every prompt."""
    assert best(single_table(np.vstack((TRAIN, [[0.0, 1.0]])), 3)).tolist() == [1, 1, 1]


def test_the_best_model_per_category() -> None:
    """Each category has its own best model; one that was never seen has the best on average."""
    table = category_table(TRAIN, CATEGORIES, np.array(["names", "sums", "poems"], dtype=object))
    assert table.tolist() == [pytest.approx([1 / 3, 1.0]), [1.0, 0.0], pytest.approx([0.6, 0.6])]


def test_lengths_tell_prompts_apart() -> None:
    """Where short prompts want one model and long ones the other, the table says so, also beyond what it has seen."""
    lengths = np.arange(1.0, 101.0)
    train = np.column_stack((lengths <= 50, lengths > 50)).astype(np.float64)
    table = length_table(train, lengths, np.array([0.0, 25.0, 75.0, 900.0]))
    assert best(table).tolist() == [0, 0, 1, 1]


def test_lengths_that_are_all_alike_tell_nothing() -> None:
    """With one length in the train split, other lengths expect the mean."""
    table = length_table(TRAIN, np.full(5, 7.0), np.array([1.0, 7.0, 90.0]))
    assert table == pytest.approx(np.full((3, 2), 0.6))


def test_the_oracle_takes_the_cheapest_of_the_best() -> None:
    """Of two models that answer, the oracle pays the cheaper one; without costs it takes the first."""
    quality, cost = np.array([[1.0, 1.0, 0.0]]), np.array([[0.2, 0.1, 0.0]])
    assert oracle(quality, cost).tolist() == [1]
    assert oracle(quality).tolist() == [0]


@given(markets())
def test_nobody_beats_the_oracle(market: tuple[Doubles, Doubles, Doubles, Doubles]) -> None:
    """Whatever is expected, no choice is better than the oracle's, on any prompt."""
    expected, expected_cost, quality, cost = market
    top = chosen(quality, oracle(quality, cost))
    assert np.all(top == quality.max(axis=1))
    for choice in (best(expected), cheapest(expected_cost), best(single_table(quality, len(quality)))):
        assert np.all(chosen(quality, choice) <= top)


@given(markets())
def test_willingness_runs_from_quality_to_cost(market: tuple[Doubles, Doubles, Doubles, Doubles]) -> None:
    """The first configuration calls what is expected to be best, the last what is expected to be cheapest; in between,
    expected costs never rise."""
    expected, expected_cost, quality, cost = market
    found = configurations(expected, expected_cost, quality=quality, cost_usd=cost)
    assert np.array_equal(found.quality[:, 0], chosen(quality, best(expected)))
    assert np.array_equal(found.cost_usd[:, -1], chosen(cost, cheapest(expected_cost)))
    planned = configurations(expected, expected_cost, quality=expected, cost_usd=expected_cost)
    assert np.all(np.diff(planned.cost_usd, axis=1) <= 1e-12)
    assert np.all(np.diff(planned.quality, axis=1) <= 1e-12)


def test_a_router_that_knows_only_the_means_is_the_zero_router() -> None:
    """With each model's mean as the expectation, the configurations are single models, and those on the Zero router's
    envelope are among them."""
    rng = np.random.default_rng(8)
    quality = (rng.random((2000, 4)) < [0.3, 0.55, 0.5, 0.7]).astype(np.float64)
    cost = np.tile([1e-4, 3e-4, 5e-4, 9e-4], (2000, 1))
    found = configurations(single_table(quality, 2000), cost, quality=quality, cost_usd=cost)
    ours = envelope(found.cost_usd.mean(axis=0), found.quality.mean(axis=0))
    expected = zero_router(cost.mean(axis=0), quality.mean(axis=0))
    assert ours.cost_usd == pytest.approx(expected.cost_usd)
    assert ours.quality == pytest.approx(expected.quality)


def test_equal_costs_leave_quality_alone() -> None:
    """Where every model costs the same, there is nothing to give quality up for."""
    expected, cost = np.array([[0.2, 0.8]]), np.full((1, 2), 0.01)
    found = configurations(expected, cost, quality=expected, cost_usd=cost)
    assert found.quality[0, 0] == 0.8
