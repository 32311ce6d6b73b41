"""A router beside what needs no model of the prompt, on the same prompts and in the same resamples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pointsman_server.training.baselines import (
    Choice,
    Configurations,
    best,
    category_table,
    cheapest,
    chosen,
    configurations,
    length_table,
    oracle,
    single_table,
)
from pointsman_server.training.costs import Costs
from pointsman_server.training.dataset import Strings
from pointsman_server.training.figures import CostFigures, PairFigures, PolicyFigures, RoutingFigures, WinFigures
from pointsman_server.training.metrics import (
    Doubles,
    Envelope,
    arena_score,
    envelope,
    shared_cost_range,
    strong_weak_curve,
)
from pointsman_server.training.resampling import Resamples, measured

ROUTER = "router"
"""The artifact's own choice, among the policies."""
QUALITY_SHARES = (0.98, 1.0)
"""Of the best single model's quality, at which a router's cost is read."""
GAP_SHARES = (0.5, 0.8, 0.95)
"""Of the gap between two models, at which the share of strong calls is read."""
RANDOM_ORDER_COUNT = 100
"""Random orders, whose spread says what an APGR on these prompts is worth."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The evaluated prompts that some models all answered, and the prompts on which baselines choose."""

    models: tuple[str, ...]
    quality: Doubles
    """(prompts, models), as observed."""
    predicted: Doubles
    """Likewise, by the artifact."""
    categories: Strings
    lengths: Doubles
    """Of the prompts, in tokens."""
    questions: Strings
    """The keys of the questions, by which is resampled."""
    train_quality: Doubles
    """(train prompts, models)."""
    train_categories: Strings
    train_lengths: Doubles
    cost_usd: Doubles | None = None
    """(prompts, models); None where the cost of a model is unknown."""
    expected_cost_usd: Doubles | None = None
    """Likewise, as it could be expected beforehand."""

    @property
    def tables(self) -> Mapping[str, Doubles]:
        """What each kind of router expects of the models on the evaluated prompts."""
        return {
            ROUTER: self.predicted,
            "prompt_length": length_table(self.train_quality, self.train_lengths, self.lengths),
            "best_single": single_table(self.train_quality, len(self.quality)),
            "best_per_category": category_table(self.train_quality, self.train_categories, self.categories),
        }


def routing_figures(sample: Sample, *, seed: int, resample_count: int) -> RoutingFigures:
    """Accuracy, cost and score of each way to choose."""
    choices = _choices(sample)
    resamples = Resamples.of(sample.questions, seed=seed, resample_count=resample_count)
    accuracy = {name: _received(sample.quality, choice) for name, choice in choices.items()}
    drawn_accuracy = _drawn(accuracy, resamples)
    paid, drawn_paid = {}, {}
    if sample.cost_usd is not None:
        paid = {name: _received(sample.cost_usd, choice) for name, choice in choices.items()}
        drawn_paid = _drawn(paid, resamples)
    gains = [
        (float((accuracy[ROUTER] - accuracy[name]).mean()), drawn_accuracy[ROUTER] - drawn_accuracy[name])
        for name in ("best_single", "best_per_category")
    ]
    single, category = (measured(*gain) for gain in gains)
    return RoutingFigures(
        prompt_count=len(sample.quality),
        best_single_model=_first_model(sample, choices["best_single"]),
        cheapest_model=_first_model(sample, choices["cheapest"]) if "cheapest" in choices else None,
        policies={
            name: _policy(accuracy[name], drawn_accuracy[name], paid.get(name), drawn_paid.get(name))
            for name in choices
        },
        gain_over_best_single=single,
        gain_over_best_per_category=category,
        gain=measured(min(single.value, category.value), np.minimum(*(drawn for _, drawn in gains))),
    )


def _choices(sample: Sample) -> dict[str, Choice | None]:
    """What each way calls, in the order in which they are told; None is any of the models by chance."""
    by_table = {name: best(table) for name, table in sample.tables.items()}
    choices: dict[str, Choice | None] = {ROUTER: by_table.pop(ROUTER), "random": None}
    if sample.expected_cost_usd is not None:
        dearness = np.tile(sample.expected_cost_usd.mean(axis=0), (len(sample.quality), 1))
        choices["cheapest"] = cheapest(dearness)
    return {**choices, **by_table, "oracle": oracle(sample.quality, sample.cost_usd)}


def _received(values: Doubles, choice: Choice | None) -> Doubles:
    """Quality or cost of each prompt's call."""
    return np.asarray(values.mean(axis=1)) if choice is None else chosen(values, choice)


def _drawn(columns: Mapping[str, Doubles], resamples: Resamples) -> dict[str, Doubles]:
    """The mean of each column in each resample."""
    means = resamples.means(np.column_stack(list(columns.values())))
    return dict(zip(columns, means.T, strict=True))


def _first_model(sample: Sample, choice: Choice | None) -> str:
    """The model of a choice that is the same for every prompt."""
    assert choice is not None
    return sample.models[int(choice[0])]


def _policy(
    accuracy: Doubles, drawn_accuracy: Doubles, cost_usd: Doubles | None, drawn_cost_usd: Doubles | None
) -> PolicyFigures:
    mean = float(accuracy.mean())
    if cost_usd is None or drawn_cost_usd is None:
        return PolicyFigures(measured(mean, drawn_accuracy), None, None)
    paid = float(cost_usd.mean())
    scores = np.array(
        [arena_score(quality, cost_usd=cost) for quality, cost in zip(drawn_accuracy, drawn_cost_usd, strict=True)]
    )
    return PolicyFigures(
        accuracy=measured(mean, drawn_accuracy),
        cost_usd=measured(paid, drawn_cost_usd),
        arena_score=measured(arena_score(mean, cost_usd=paid), scores),
    )


@dataclass(frozen=True, slots=True)
class _Means:
    """Mean costs and qualities of every router's configurations, in all resamples; the first row is the sample itself."""

    cost_usd: Mapping[str, Doubles]
    """By router: (1 + resamples, configurations)."""
    quality: Mapping[str, Doubles]
    reference: tuple[Doubles, Doubles]
    """Mean cost and quality of the best single model."""


def cost_figures(sample: Sample, costs: Costs, *, seed: int, resample_count: int) -> CostFigures:
    """AIQ of each kind of router, and what the artifact's costs at the best single model's quality."""
    assert sample.cost_usd is not None
    assert sample.expected_cost_usd is not None
    tables = sample.tables
    best_single = int(best(tables["best_single"])[0])
    routers = {
        name: configurations(table, sample.expected_cost_usd, quality=sample.quality, cost_usd=sample.cost_usd)
        for name, table in tables.items()
        if name != "best_single"
    }
    routers["oracle"] = configurations(
        sample.quality, sample.cost_usd, quality=sample.quality, cost_usd=sample.cost_usd
    )
    routers["zero_router"] = Configurations(sample.quality, sample.cost_usd)
    means = _means(routers, best_single, Resamples.of(sample.questions, seed=seed, resample_count=resample_count))
    drawn = [_aiq_and_shares(means, row) for row in range(len(means.reference[0]))]
    columns = {name: np.array([found[name] for found in drawn]) for name in drawn[0]}
    shares = [columns[_share_name(share)] for share in QUALITY_SHARES]
    first = _envelopes(means, 0)
    return CostFigures(
        basis=costs.basis,
        prompt_count=len(sample.quality),
        best_single_model=sample.models[best_single],
        cost_range_usd=shared_cost_range(first.values(), dearest_usd=float(means.cost_usd["zero_router"][0].max())),
        aiq={
            name: measured(float(columns[name][0]), columns[name][1:])
            for name in (ROUTER, "zero_router", "prompt_length", "best_per_category", "oracle")
        },
        share_of_cost_at_98=measured(float(shares[0][0]), shares[0][1:]),
        share_of_cost_at_100=measured(float(shares[1][0]), shares[1][1:]),
        cost_saved_at_98=measured(float(1.0 - shares[0][0]), 1.0 - shares[0][1:]),
        cost_saved_at_100=measured(float(1.0 - shares[1][0]), 1.0 - shares[1][1:]),
    )


def _means(routers: Mapping[str, Configurations], best_single: int, resamples: Resamples) -> _Means:
    matrices = [matrix for router in routers.values() for matrix in (router.cost_usd, router.quality)]
    # One product for all of them.
    side_by_side = np.hstack(matrices)
    means = np.vstack((side_by_side.mean(axis=0), resamples.means(side_by_side)))
    found = iter(np.split(means, np.cumsum([matrix.shape[1] for matrix in matrices])[:-1], axis=1))
    cost, quality = {}, {}
    for name in routers:
        cost[name], quality[name] = next(found), next(found)
    reference = (cost["zero_router"][:, best_single], quality["zero_router"][:, best_single])
    return _Means(cost, quality, reference)


def _envelopes(means: _Means, row: int) -> dict[str, Envelope]:
    return {name: envelope(means.cost_usd[name][row], means.quality[name][row]) for name in means.cost_usd}


def _aiq_and_shares(means: _Means, row: int) -> dict[str, float]:
    """By router its AIQ, and the shares of the best single model's cost, in one resample."""
    envelopes = _envelopes(means, row)
    low, high = shared_cost_range(envelopes.values(), dearest_usd=float(means.cost_usd["zero_router"][row].max()))
    found = {name: each.mean_height(low, high) for name, each in envelopes.items()}
    cost, quality = (float(values[row]) for values in means.reference)
    for share in QUALITY_SHARES:
        reached = envelopes[ROUTER].cost_of(share * quality)
        found[_share_name(share)] = reached / cost if cost > 0.0 else math.nan
    return found


def _share_name(share: float) -> str:
    return f"share_of_cost_at_{share:.0%}"


def pair_figures(sample: Sample, *, seed: int, resample_count: int) -> PairFigures:
    """APGR and CPT of each order in which prompts go to the strong model; of the sample's two models, the strong first."""
    assert len(sample.models) == 2, "a pair is two models"
    strong, weak = sample.quality.T
    resamples = Resamples.of(sample.questions, seed=seed, resample_count=resample_count)
    tables = sample.tables
    wins = {
        ROUTER: _difference(tables[ROUTER]),
        "prompt_length": sample.lengths,
        "best_per_category": _difference(tables["best_per_category"]),
    }
    ends = resamples.means(sample.quality)
    rng = np.random.default_rng(seed)
    shuffled = [_win_values(rng.random(len(strong)), strong, weak, None) for _ in range(RANDOM_ORDER_COUNT)]
    routers = {name: _win_figures(win, strong, weak, resamples) for name, win in wins.items()}
    return PairFigures(
        strong=sample.models[0],
        weak=sample.models[1],
        prompt_count=len(strong),
        strong_accuracy=measured(float(strong.mean()), ends[:, 0]),
        weak_accuracy=measured(float(weak.mean()), ends[:, 1]),
        routers=routers | {"random": _summary(np.mean(shuffled, axis=0), np.array(shuffled))},
    )


def _difference(table: Doubles) -> Doubles:
    return np.asarray(table[:, 0] - table[:, 1])


def _win_figures(win: Doubles, strong: Doubles, weak: Doubles, resamples: Resamples) -> WinFigures:
    # In this order once, so that no resample has to sort.
    order = np.argsort(win, kind="stable")
    ranked = Resamples(resamples.question_of[order], resamples.counts)
    values = (win[order], strong[order], weak[order])
    drawn = [_win_values(*values, weight) for block in ranked.weights() for weight in block]
    return _summary(np.array(_win_values(*values, None)), np.array(drawn).reshape(-1, 1 + len(GAP_SHARES)))


def _win_values(win: Doubles, strong: Doubles, weak: Doubles, weight: Doubles | None) -> tuple[float, ...]:
    curve = strong_weak_curve(win, strong, weak, weight=weight)
    return (curve.apgr, *(curve.cpt(share) for share in GAP_SHARES))


def _summary(values: Doubles, drawn: Doubles) -> WinFigures:
    return WinFigures(*(measured(float(value), column) for value, column in zip(values, drawn.T, strict=True)))
