"""What a router has to beat: choices that need no model of the prompt, and the one that knows the answers.

A router is here a matrix of expected quality, (prompts, models), and one of expected cost; which model it calls follows
from how much it is willing to pay. The baselines fill the first from the train split: with each model's mean, its mean
in the prompt's category, or its mean among prompts of that length.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pointsman_server.training.metrics import Doubles

Choice = npt.NDArray[np.intp]
"""Of each prompt the column of the model that is called."""

LENGTH_BIN_COUNT = 10
"""Prompt lengths are told apart by the deciles of the train split, as coarse as the thresholds between two models."""
WILLINGNESS_COUNT = 60
"""Steps from quality alone to cost alone: a factor of about 1.3 each, finer than the envelope between them shows."""
QUALITY_DIFFERENCE_MIN = 1e-3
"""A router that gives up less quality than this for the whole range of costs does not look at cost."""


def single_table(train_quality: Doubles, prompt_count: int) -> Doubles:
    """Every prompt expects what each model reached on average: its argmax is the best single model."""
    return np.tile(train_quality.mean(axis=0), (prompt_count, 1))


def category_table(
    train_quality: Doubles, train_categories: npt.NDArray[np.object_], categories: npt.NDArray[np.object_]
) -> Doubles:
    """Every prompt expects what each model reached in its category; in one that the train split lacks, on average."""
    means = {
        category: train_quality[train_categories == category].mean(axis=0) for category in np.unique(train_categories)
    }
    overall = train_quality.mean(axis=0)
    return np.stack([means.get(category, overall) for category in categories])


def length_table(train_quality: Doubles, train_lengths: Doubles, lengths: Doubles) -> Doubles:
    """Every prompt expects what each model reached among prompts of about its length, in any unit."""
    edges = np.quantile(train_lengths, np.linspace(0.0, 1.0, LENGTH_BIN_COUNT + 1)[1:-1])
    train_bins, bins = np.searchsorted(edges, train_lengths), np.searchsorted(edges, lengths)
    overall = train_quality.mean(axis=0)
    means = np.stack(
        [
            train_quality[train_bins == number].mean(axis=0) if (train_bins == number).any() else overall
            for number in range(LENGTH_BIN_COUNT)
        ]
    )
    return means[bins]


def best(expected_quality: Doubles) -> Choice:
    """The model with the highest expected quality for each prompt; of equals the first."""
    return np.asarray(expected_quality.argmax(axis=1), dtype=np.intp)


def cheapest(expected_cost_usd: Doubles) -> Choice:
    """The model with the lowest expected cost for each prompt."""
    return np.asarray(expected_cost_usd.argmin(axis=1), dtype=np.intp)


def oracle(quality: Doubles, cost_usd: Doubles | None = None) -> Choice:
    """The model that did best on each prompt; of several, with costs the cheapest."""
    if cost_usd is None:
        return best(quality)
    return cheapest(np.where(quality == quality.max(axis=1, keepdims=True), cost_usd, np.inf))


def chosen(values: Doubles, choice: Choice) -> Doubles:
    """Of each prompt the value, such as quality or cost, of the model that is called."""
    return np.take_along_axis(values, choice[:, np.newaxis], axis=1)[:, 0]


@dataclass(frozen=True, slots=True)
class Configurations:
    """One router at different willingness to pay, from quality alone to cost alone."""

    quality: Doubles
    """(prompts, configurations): of the model that each calls."""
    cost_usd: Doubles
    """Likewise."""


def configurations(
    expected_quality: Doubles, expected_cost_usd: Doubles, *, quality: Doubles, cost_usd: Doubles
) -> Configurations:
    """What comes of calling the model with the highest expected quality - price x expected cost, over all prices that
    change a choice.

    Args:
        expected_quality: what the router knows of each prompt and model beforehand.
        expected_cost_usd: likewise.
        quality: what came of it.
        cost_usd: what it cost.
    """
    choices = [best(expected_quality - price * expected_cost_usd) for price in _prices_of_a_dollar(expected_cost_usd)]
    choices.append(cheapest(expected_cost_usd))
    distinct = choices[:1] + [after for before, after in pairwise(choices) if not np.array_equal(before, after)]
    return Configurations(
        quality=np.column_stack([chosen(quality, choice) for choice in distinct]),
        cost_usd=np.column_stack([chosen(cost_usd, choice) for choice in distinct]),
    )


def _prices_of_a_dollar(expected_cost_usd: Doubles) -> Doubles:
    """How much quality a router gives up to save a dollar: from nothing to so much that only cost counts."""
    means = np.sort(expected_cost_usd.mean(axis=0))
    gaps = np.diff(means)
    gaps = gaps[gaps > 0.0]
    if not len(gaps):
        return np.zeros(1)
    lowest = QUALITY_DIFFERENCE_MIN / (means[-1] - means[0])
    return np.concatenate(([0.0], np.geomspace(lowest, 1.0 / gaps.min(), WILLINGNESS_COUNT)))
