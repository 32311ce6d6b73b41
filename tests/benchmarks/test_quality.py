"""The benchmark of routing quality."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from pointsman_server.training.costs import CostBasis, costs_of, price_of
from pointsman_server.training.dataset import load_dataset

from benchmarks.quality import PRICES, list_prices, part_of

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("POINTSMAN_DATA", ROOT.parent / "shared" / "data")) / "quality"


def test_every_price_says_where_it_is_from(tmp_path: Path) -> None:
    """Each is read, and either dated by the table that it was taken from or called an assumption."""
    with PRICES.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    prices = list_prices(tmp_path)
    for line in lines:
        assert prices[line["model"]].input_usd_per_1m == float(line["usd_per_1m_input"])
        assert line["source"].startswith(("LiteLLM 1.55.6 (December 2024)", "assumed"))


def test_prices_of_the_data_win(tmp_path: Path) -> None:
    """A model that has a list price beside the data costs that."""
    (tmp_path / "model_prices.csv").write_text(
        "model,usd_per_1m_input,usd_per_1m_output\no1-mini-2024-09-12,1.1,4.4\n", encoding="utf-8"
    )
    price = price_of(("zeroeval", "o1-mini-2024-09-12"), list_prices(tmp_path))
    assert price is not None
    assert (price.input_usd_per_1m, price.output_usd_per_1m) == (1.1, 4.4)


@pytest.mark.parametrize("name", ["mmlu_pro", "zeroeval"])
def test_every_call_has_a_cost(name: str) -> None:
    """Where the data tell no cost, each model has a list price and each answer a length."""
    if not (DATA / "prompts.parquet").is_file():
        pytest.skip(f"no data in {DATA}; set POINTSMAN_DATA to the directory that contains quality/prompts.parquet")
    part = part_of(load_dataset(DATA), name)
    costs = costs_of(part, range(len(part.endpoints)), list_prices(DATA))
    assert costs is not None
    assert costs.basis is CostBasis.LIST_PRICE
    assert len(costs.known) == len(part.endpoints)
