"""What each call of a data set cost: as measured, or by list prices; and what it could be expected to cost beforehand.

A list price needs lengths. An unknown input is estimated from the prompt's characters. An unknown output counts as the
model's mean, of a model without any as the mean of its source, and where a source gives none at all as
`ASSUMED_OUTPUT_TOKENS`; what was assumed is told with the figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pointsman_server.quality.model import normalised
from pointsman_server.training.dataset import CHARACTERS_PER_TOKEN, Dataset, DatasetError
from pointsman_server.training.llms import llm_of
from pointsman_server.training.metrics import Doubles
from pointsman_server.training.tables import Faults, place, read_rows, shown

PRICE_COLUMNS = ("model", "usd_per_1m_input", "usd_per_1m_output")
PRICE_USD_PER_1M_MAX = 100_000.0
"""A hundred times the dearest list price: beyond it somebody mistook the unit."""
ASSUMED_OUTPUT_TOKENS = 200.0
"""Where a source gives no length at all: a short paragraph. With flat prices it decides nothing but the scale."""
TOKENS_PER_PRICE = 1e6


class CostBasis(StrEnum):
    """Where the costs of a part come from."""

    MEASURED = "measured"
    LIST_PRICE = "list_price"
    """Times the tokens of the data, estimated from characters where they were not counted."""
    LIST_PRICE_ASSUMED_LENGTH = "list_price_assumed_length"
    """No length of an answer is known in this source."""


@dataclass(frozen=True, slots=True)
class Price:
    """A model's list price."""

    input_usd_per_1m: float
    output_usd_per_1m: float


Prices = Mapping[str, Price]
"""By the name in the file, and by its normalised form."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What calls cost, (prompts, models), NaN where unknown; one column per model of the part."""

    basis: CostBasis
    actual_usd: Doubles
    prices: tuple[Price | None, ...]
    """Of each model; None where costs were measured or no price is known."""

    @property
    def known(self) -> tuple[int, ...]:
        """The columns of the models that have a cost at all."""
        return tuple(np.flatnonzero(np.isfinite(self.actual_usd).any(axis=0)).tolist())


def read_prices(path: Path) -> Prices:
    """List prices from a CSV file: model, usd_per_1m_input, usd_per_1m_output. Of two lines for a model the last counts.

    Raises:
        DatasetError: it can't be read, lacks a column, or a price is not a number.
    """
    prices: dict[str, Price] = {}
    by_plain_name: dict[str, Price] = {}
    faults = Faults()
    for number, cells in read_rows(path):
        if missing := [column for column in PRICE_COLUMNS if column not in cells]:
            raise DatasetError(f"{path}: column {missing[0]} is missing; required are {', '.join(PRICE_COLUMNS)}")
        values = [_price(path, number, column, cells[column], faults) for column in PRICE_COLUMNS[1:]]
        model = cells["model"]
        if not isinstance(model, str):
            faults.add(f"{place(path.name, number, 'model')}: {shown(model, 'model')} is not a name")
            continue
        prices[model] = by_plain_name[normalised(model)] = Price(*values)
    faults.raise_if_any()
    if not prices:
        raise DatasetError(f"{path}: has no price")
    return by_plain_name | prices


def _price(path: Path, number: int, column: str, cell: object, faults: Faults) -> float:
    try:
        price = float(cell) if isinstance(cell, str | float | int) else math.nan
    except ValueError:
        price = math.nan
    if not 0.0 <= price <= PRICE_USD_PER_1M_MAX:
        limit = f"a price from 0 to {PRICE_USD_PER_1M_MAX:,.0f} USD per million tokens"
        faults.add(f"{place(path.name, number, column)}: {shown(cell, column)} is not {limit}")
    return price


def price_of(endpoint: tuple[str, str], prices: Prices) -> Price | None:
    """The list price of an endpoint, under its own name or another of the same LLM; None where there is none."""
    llm = llm_of(endpoint)
    names = (endpoint[1], normalised(endpoint[1]), llm.model, *llm.aliases)
    return next((prices[name] for name in names if name in prices), None)


def costs_of(part: Dataset, columns: Sequence[int], prices: Prices | None) -> Costs | None:
    """What the calls of these columns cost; None where nothing tells.

    Measured costs count where the part has any; list prices otherwise.
    """
    measured = part.cost_usd[:, columns].astype(np.float64)
    if np.isfinite(measured).any():
        return Costs(CostBasis.MEASURED, measured, (None,) * len(columns))
    if prices is None:
        return None
    found = tuple(price_of(part.endpoints[column], prices) for column in columns)
    if not any(found):
        return None
    output, basis = _output_tokens(part, columns)
    given = part.input_tokens[:, columns].astype(np.float64)
    tokens = np.where(np.isfinite(given), given, input_tokens(part)[:, np.newaxis])
    return Costs(basis, _priced(found, tokens, output), found)


def expected_costs(
    costs: Costs,
    *,
    train: npt.NDArray[np.bool_],
    evaluated: npt.NDArray[np.bool_],
    lengths: Doubles,
    output_tokens: Doubles,
) -> Doubles:
    """What each call of the evaluated prompts could be expected to cost before it is made, (prompts, models).

    With list prices: by the prompt's length and the predicted length of the answer, where the artifact predicts one.
    Otherwise by a straight line through the costs of the `train` prompts, over the prompt's length.

    Args:
        costs: what the calls cost.
        train: which prompts the line may be fitted to.
        evaluated: which prompts are asked for.
        lengths: of the prompts, in tokens.
        output_tokens: predicted of each answer, NaN where unknown.
    """
    by_price = _priced(costs.prices, lengths[:, np.newaxis], output_tokens)[evaluated]
    by_line = [_line(column, train, lengths)[evaluated] for column in costs.actual_usd.T]
    return np.where(np.isfinite(by_price).all(axis=0), by_price, np.column_stack(by_line))


def input_tokens(part: Dataset) -> Doubles:
    """Of each prompt, estimated from its characters: what a router can know before a provider counts."""
    return np.array([len(text) for text in part.texts], dtype=np.float64) / CHARACTERS_PER_TOKEN


def _output_tokens(part: Dataset, columns: Sequence[int]) -> tuple[Doubles, CostBasis]:
    given = part.output_tokens[:, columns].astype(np.float64)
    known = np.isfinite(given)
    if not known.any():
        return np.full(given.shape, ASSUMED_OUTPUT_TOKENS), CostBasis.LIST_PRICE_ASSUMED_LENGTH
    totals, counts = np.where(known, given, 0.0).sum(axis=0), known.sum(axis=0)
    means = np.where(counts > 0, totals / np.maximum(counts, 1), given[known].mean())
    return np.where(known, given, means), CostBasis.LIST_PRICE


def _priced(prices: Sequence[Price | None], tokens_in: Doubles, tokens_out: Doubles) -> Doubles:
    """(prompts, models), NaN without a price."""
    per_input = np.array([math.nan if price is None else price.input_usd_per_1m for price in prices])
    per_output = np.array([math.nan if price is None else price.output_usd_per_1m for price in prices])
    return np.asarray((per_input * tokens_in + per_output * tokens_out) / TOKENS_PER_PRICE)


def _line(cost_usd: Doubles, train: npt.NDArray[np.bool_], lengths: Doubles) -> Doubles:
    """A straight line over the prompt's length, never below the cheapest call that was seen; NaN without any."""
    seen = train & np.isfinite(cost_usd)
    if not seen.any():
        return np.full(len(cost_usd), math.nan)
    design = np.column_stack((np.ones(len(lengths)), lengths))
    fitted = np.linalg.lstsq(design[seen], cost_usd[seen], rcond=None)[0]
    return np.asarray(np.maximum(design @ fitted, cost_usd[seen].min()))
