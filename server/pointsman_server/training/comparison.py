"""A router beside what needs no model of the prompt, on the same prompts and in the same resamples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pointsman_server.training.baselines import (
    Configurations,
    best,
    category_table,
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
    costs = sample.cost_usd
    choices = {name: best(table) for name, table in sample.tables.items()}
    choices["oracle"] = oracle(sample.quality, costs)
    cheapest_column = None
    if sample.expected_cost_usd is not None:
        cheapest_column = int(sample.expected_cost_usd.mean(axis=0).argmin())
        choices["cheapest"] = np.full(len(sample.quality), cheapest_column)
    columns = {name: chosen(sample.quality, choice) for name, choice in choices.items()}
    columns["random"] = sample.quality.mean(axis=1)
    paid = {} if costs is None else {name: chosen(costs, choice) for name, choice in choices.items()}
    if costs is not None:
        paid["random"] = costs.mean(axis=1)
    resamples = Resamples.of(sample.questions, seed=seed, resample_count=resample_count)
    order = ("router", "random", "cheapest", "prompt_length", "best_single", "best_per_category", "oracle")
    names = [name for name in order if name in columns]
    drawn = resamples.means(np.column_stack([columns[name] for name in names]))
    accuracies = dict(zip(names, drawn.T, strict=True))
    spent = (
        dict(zip(names, resamples.means(np.column_stack([paid[name] for name in names])).T, strict=True))
        if paid
        else {}
    )
    gains = {
        name: (
            float(columns[ROUTER].mean() - columns[name].mean()),
            accuracies[ROUTER] - accuracies[name],
        )
        for name in ("best_single", "best_per_category")
    }
    return RoutingFigures(
        prompt_count=len(sample.quality),
        best_single_model=sample.models[int(choices["best_single"][0])],
        cheapest_model=None if cheapest_column is None else sample.models[cheapest_column],
        policies={name: _policy(columns[name], accuracies[name], paid.get(name), spent.get(name)) for name in names},
        gain_over_best_single=measured(*gains["best_single"]),
        gain_over_best_per_category=measured(*gains["best_per_category"]),
        gain=measured(
            min(value for value, _ in gains.values()), np.minimum(*(drawn_gain for _, drawn_gain in gains.values()))
        ),
    )


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
