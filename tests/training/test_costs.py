"""What calls cost."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from pointsman_server.training.costs import (
    ASSUMED_OUTPUT_TOKENS,
    CostBasis,
    Costs,
    Price,
    costs_of,
    expected_costs,
    price_of,
    read_prices,
)
from pointsman_server.training.dataset import CHARACTERS_PER_TOKEN, DatasetError, load_dataset
from training.conftest import Write

HEADER = "model,usd_per_1m_input,usd_per_1m_output,source\n"
PROMPTS: dict[str, list[object]] = {"prompt_id": ["a", "b"], "prompt": ["x" * 400, "y" * 800]}
OUTCOMES: dict[str, list[object]] = {
    "prompt_id": ["a", "b", "a", "b"],
    "model": ["m", "m", "n", "n"],
    "quality": [1.0, 0.5, 0.0, 1.0],
}
PRICES = {"m": Price(10.0, 30.0), "n": Price(1.0, 1.0)}
NAN = pytest.approx(math.nan, nan_ok=True)


def prices_in(tmp_path: Path, text: str) -> Path:
    """A file of prices."""
    path = tmp_path / "prices.csv"
    path.write_text(text, encoding="utf-8")
    return path


class TestPrices:
    """List prices from a file."""

    def test_a_price_is_found_under_any_name_of_its_llm(self, tmp_path: Path) -> None:
        """As written, without its vendor, or under an alias that the table of public models knows."""
        prices = read_prices(
            prices_in(
                tmp_path,
                f"{HEADER}vendor/Alpha,1,2,here\nmeta-llama/Meta-Llama-3.1-70B-Instruct-Turbo,0.88,0.9,there\n",
            )
        )
        assert price_of(("s", "vendor/Alpha"), prices) == Price(1.0, 2.0)
        assert price_of(("s", "other/ALPHA"), prices) == Price(1.0, 2.0)
        assert price_of(("mmlu_pro", "Meta-Llama-3_1-70B-Instruct"), prices) == Price(0.88, 0.9)
        assert price_of(("s", "beta"), prices) is None

    def test_the_last_line_of_a_model_counts(self, tmp_path: Path) -> None:
        """A model may be listed twice; an exact name is never overruled by one that differs in its vendor."""
        prices = read_prices(prices_in(tmp_path, f"{HEADER}a,1,1,x\na,2,3,y\nv/a,4,4,z\n"))
        assert price_of(("s", "a"), prices) == Price(2.0, 3.0)
        assert price_of(("s", "v/a"), prices) == Price(4.0, 4.0)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                f"{HEADER}a,free,1,x\n",
                "prices.csv line 2, column usd_per_1m_input: 'free' is not a price from 0 to 100,000 USD per million tokens",
            ),
            (f"{HEADER}a,1,-1,x\n", "prices.csv line 2, column usd_per_1m_output: '-1' is not a price"),
            (f"{HEADER}a,1,,x\n", "prices.csv line 2, column usd_per_1m_output: null is not a price"),
            (f"{HEADER},1,1,x\n", "prices.csv line 2, column model: null is not a name"),
            ("model,usd_per_1m_input\na,1\n", "column usd_per_1m_output is missing"),
            (HEADER, "has no price"),
        ],
    )
    def test_a_bad_price_is_named(self, tmp_path: Path, text: str, expected: str) -> None:
        """File, line and column are told."""
        with pytest.raises(DatasetError) as caught:
            read_prices(prices_in(tmp_path, text))
        assert expected in str(caught.value)


class TestCosts:
    """What the calls of a data set cost."""

    def test_what_was_measured_counts(self, write: Write) -> None:
        """Where the data tells what calls cost, list prices are not asked."""
        dataset = load_dataset(write(PROMPTS, OUTCOMES | {"cost_usd": [0.5, 0.25, None, None]}))
        costs = costs_of(dataset, [0, 1], PRICES)
        assert costs is not None
        assert costs.basis is CostBasis.MEASURED
        assert costs.actual_usd.tolist() == [[0.5, NAN], [0.25, NAN]]
        assert costs.known == (0,)

    def test_list_prices_times_tokens(self, write: Write) -> None:
        """Counted tokens count; an input that was not counted is estimated from the prompt, an output from the model's
        others."""
        outcomes = OUTCOMES | {"input_tokens": [100, None, None, None], "output_tokens": [50, None, 10, 20]}
        costs = costs_of(load_dataset(write(PROMPTS, outcomes)), [0, 1], PRICES)
        assert costs is not None
        assert costs.basis is CostBasis.LIST_PRICE
        long = 800 / CHARACTERS_PER_TOKEN
        assert 1e6 * costs.actual_usd == pytest.approx(
            np.array([[10 * 100 + 30 * 50, 100 + 10], [10 * long + 30 * 50, long + 20]])
        )

    def test_without_any_length_one_is_assumed(self, write: Write) -> None:
        """Where no length of an answer is known, one is taken for all, and the basis says so."""
        costs = costs_of(load_dataset(write(PROMPTS, OUTCOMES)), [1], PRICES)
        assert costs is not None
        assert costs.basis is CostBasis.LIST_PRICE_ASSUMED_LENGTH
        assert 1e6 * costs.actual_usd[0, 0] == pytest.approx(100 + ASSUMED_OUTPUT_TOKENS)

    def test_without_prices_nothing_is_known(self, write: Write) -> None:
        """Neither measured nor priced, a call has no cost; a model without a price has none among others with one."""
        dataset = load_dataset(write(PROMPTS, OUTCOMES))
        assert costs_of(dataset, [0, 1], None) is None
        assert costs_of(dataset, [0, 1], {"other": Price(1.0, 1.0)}) is None
        some = costs_of(dataset, [0, 1], {"n": Price(1.0, 1.0)})
        assert some is not None
        assert some.known == (1,)


class TestExpectedCosts:
    """What a router can know beforehand."""

    LENGTHS = np.array([100.0, 200.0, 300.0, 400.0])
    TRAIN = np.array([True, True, True, False])

    def test_measured_costs_are_a_line_over_the_length(self) -> None:
        """What the train prompts cost tells what a longer one will; what was paid for it is not looked at."""
        actual = np.array([[1.0, 7.0], [2.0, 7.0], [3.0, 7.0], [99.0, 99.0]])
        found = expected_costs(
            Costs(CostBasis.MEASURED, actual, (None, None)),
            train=self.TRAIN,
            evaluated=~self.TRAIN,
            lengths=self.LENGTHS,
            output_tokens=np.full((4, 2), math.nan),
        )
        assert found == pytest.approx(np.array([[4.0, 7.0]]))

    def test_a_line_never_falls_below_what_was_seen(self) -> None:
        """Where costs fall with length, a long prompt still costs as much as the cheapest that was seen."""
        found = expected_costs(
            Costs(CostBasis.MEASURED, np.array([[3.0], [2.0], [1.0], [0.5]]), (None,)),
            train=self.TRAIN,
            evaluated=~self.TRAIN,
            lengths=self.LENGTHS,
            output_tokens=np.full((4, 1), math.nan),
        )
        assert found == pytest.approx(np.array([[1.0]]))

    def test_list_prices_meet_the_predicted_length(self) -> None:
        """With a price and a predicted length, the cost is their product; without the length, the line."""
        actual = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [99.0, 99.0]])
        tokens = np.array([[math.nan, math.nan]] * 3 + [[50.0, math.nan]])
        found = expected_costs(
            Costs(CostBasis.LIST_PRICE, actual, (Price(10.0, 30.0), Price(10.0, 30.0))),
            train=self.TRAIN,
            evaluated=~self.TRAIN,
            lengths=self.LENGTHS,
            output_tokens=tokens,
        )
        assert found == pytest.approx(np.array([[(10 * 400 + 30 * 50) / 1e6, 4.0]]))
