"""Measures, against numbers worked out by hand, brute force, and what must hold whatever the numbers are."""

from __future__ import annotations

from math import isnan, log2, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pointsman_server.training.metrics import (
    ECE_BIN_COUNT,
    EDGE_COUNT,
    Doubles,
    aiq,
    apgr,
    arena_score,
    auc,
    auc_of_resamples,
    brier,
    cpt,
    ece,
    envelope,
    equal_bins,
    share_of_cost_at,
    shared_cost_range,
    strong_weak_curve,
    weighted_mean,
    zero_router,
)

SHARES = st.floats(0.0, 1.0, allow_subnormal=False)
COSTS = st.floats(1e-6, 1e-1, allow_subnormal=False)


def numbers(*values: float) -> Doubles:
    """An array of these."""
    return np.array(values, dtype=np.float64)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """A win, the quality of the strong and the weak model, and a weight, for each of some prompts."""
    count = draw(st.integers(2, 40))
    win = draw(arrays(np.float64, count, elements=SHARES))
    strong, weak = (draw(arrays(np.float64, count, elements=st.sampled_from((0.0, 0.5, 1.0)))) for _ in range(2))
    weight = draw(arrays(np.int64, count, elements=st.integers(0, 3)).filter(lambda counts: counts.sum() > 0))
    return win, strong, weak, weight.astype(np.float64)


@st.composite
def configurations(draw: st.DrawFn) -> tuple[Doubles, Doubles]:
    """Mean costs and qualities of some configurations."""
    count = draw(st.integers(1, 12))
    return draw(arrays(np.float64, count, elements=COSTS)), draw(arrays(np.float64, count, elements=SHARES))


@st.composite
def predictions(draw: st.DrawFn) -> tuple[Doubles, Doubles, Doubles]:
    """Predicted and observed qualities, and a weight, for each of some prompts."""
    count = draw(st.integers(1, 40))
    predicted = draw(arrays(np.float64, count, elements=st.sampled_from((0.1, 0.2, 0.5, 0.7, 0.9))))
    observed = draw(arrays(np.float64, count, elements=st.sampled_from((0.0, 0.4, 0.5, 1.0))))
    weight = draw(arrays(np.int64, count, elements=st.integers(0, 3)).filter(lambda counts: counts.sum() > 0))
    return predicted, observed, weight.astype(np.float64)


def repeated(values: Doubles, weight: Doubles) -> Doubles:
    """What a weight stands for: each value so often."""
    return np.repeat(values, weight.astype(int))


def trapezoid(x: Doubles, y: Doubles) -> float:
    """The area below a line through these points, one strip at a time."""
    return float(sum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2.0 for i in range(len(x) - 1)))


class TestStrongWeakCurve:
    """A router between two models."""

    TEN = np.arange(10.0)
    """Ten prompts: the last three are those that only the strong model answers, the rest both do."""
    STRONG = np.ones(10)
    WEAK = (TEN < 7).astype(np.float64)

    def test_a_perfect_order_by_hand(self) -> None:
        """With the three prompts that need the strong model in front, quality grows by a tenth per call until all three
        are answered, and is 1 from there on."""
        curve = strong_weak_curve(self.TEN, self.STRONG, self.WEAK)
        # The decile edges of 0..9 are 0, 0.9, 1.8, ..., 9: at or above the k-th of them lie 10 - k prompts.
        assert curve.strong_share == pytest.approx(numbers(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0))
        assert curve.quality == pytest.approx(numbers(0.7, 0.8, 0.9, *[1.0] * 8))
        # The area is 0.1 (0.75 + 0.85 + 0.95) + 0.7; less 0.7, over the gap of 0.3.
        assert curve.apgr == pytest.approx((0.255 + 0.7 - 0.7) / 0.3)
        assert (curve.cpt(0.5), curve.cpt(0.95), curve.cpt(1.0)) == pytest.approx((0.15, 0.285, 0.3))

    def test_the_worst_order_by_hand(self) -> None:
        """With those prompts at the end, nothing is gained until seven calls are made."""
        assert apgr(-self.TEN, self.STRONG, self.WEAK) == pytest.approx(1.0 - 0.255 / 0.3)
        assert cpt(-self.TEN, self.STRONG, self.WEAK, gap_share=0.5) == pytest.approx(0.85)

    def test_chance_recovers_half(self) -> None:
        """The mean APGR of random orders is 0.5, to within its spread."""
        rng = np.random.default_rng(5)
        strong, weak = (rng.random(500) < 0.8).astype(float), (rng.random(500) < 0.5).astype(float)
        found = [apgr(rng.random(500), strong, weak) for _ in range(200)]
        assert np.mean(found) == pytest.approx(0.5, abs=4.0 * float(np.std(found)) / 200**0.5)

    def test_a_router_that_can_not_tell_prompts_apart_recovers_half(self) -> None:
        """With one win for all prompts the curve is the straight line from weak to strong."""
        curve = strong_weak_curve(np.full(10, 0.3), self.STRONG, self.WEAK)
        assert curve.apgr == pytest.approx(0.5)
        assert curve.cpt(0.8) == pytest.approx(0.8)

    def test_without_a_gap_there_is_nothing_to_recover(self) -> None:
        """Two models of equal quality have neither APGR nor CPT; below the weak one only the latter is undefined."""
        assert isnan(apgr(self.TEN, self.STRONG, self.STRONG))
        assert isnan(cpt(self.TEN, self.WEAK, self.STRONG, gap_share=0.5))

    def test_the_edges_are_numpy_s_deciles(self) -> None:
        """Which prompts reach each threshold is what NumPy's quantiles say, the last one aside, which is to be exceeded."""
        win = np.random.default_rng(6).random(997)
        curve = strong_weak_curve(win, np.ones(997), np.zeros(997))
        edges = np.quantile(win, np.linspace(0.0, 1.0, EDGE_COUNT))
        expected = [*(float((win >= edge).mean()) for edge in edges[:-1]), 0.0]
        assert curve.strong_share == pytest.approx(expected[::-1])

    @given(pairs())
    def test_a_weight_is_a_repetition(self, sample: tuple[Doubles, Doubles, Doubles, Doubles]) -> None:
        """Counting a prompt three times is the same as having it three times."""
        win, strong, weak, weight = sample
        weighted = strong_weak_curve(win, strong, weak, weight=weight)
        plain = strong_weak_curve(*(repeated(values, weight) for values in (win, strong, weak)))
        assert weighted.strong_share == pytest.approx(plain.strong_share)
        assert weighted.quality == pytest.approx(plain.quality)

    @given(pairs())
    def test_only_the_order_counts(self, sample: tuple[Doubles, Doubles, Doubles, Doubles]) -> None:
        """With every prompt at a win of its own, their ranks give the same as themselves."""
        win, strong, weak, _ = sample
        ranks = np.argsort(np.argsort(win, kind="stable"), kind="stable").astype(np.float64)
        by_rank, by_half = (strong_weak_curve(scale * ranks, strong, weak) for scale in (1.0, 0.5))
        assert by_rank.quality.tolist() == by_half.quality.tolist()

    @given(pairs())
    def test_the_ends_are_the_two_models(self, sample: tuple[Doubles, Doubles, Doubles, Doubles]) -> None:
        """Without a strong call the quality is the weak model's, with nothing else the strong one's; in between the
        share never falls, and the call-performance threshold grows with what is to be recovered."""
        win, strong, weak, _ = sample
        curve = strong_weak_curve(win, strong, weak)
        assert (curve.strong_share[0], curve.strong_share[-1]) == (0.0, 1.0)
        assert (curve.quality[0], curve.quality[-1]) == pytest.approx((weak.mean(), strong.mean()))
        assert np.all(np.diff(curve.strong_share) >= 0.0)
        if strong.mean() > weak.mean():
            found = [curve.cpt(share) for share in (0.2, 0.5, 0.8, 1.0)]
            assert found == sorted(found)
            assert 0.0 <= found[0] <= found[-1] <= 1.0

    @given(pairs())
    def test_apgr_is_the_area_between(self, sample: tuple[Doubles, Doubles, Doubles, Doubles]) -> None:
        """APGR is the area above the weak model over the area between the two, strip by strip."""
        curve = strong_weak_curve(*sample[:3])
        gap = curve.strong_quality - curve.weak_quality
        if abs(gap) > 0.01:
            area = trapezoid(curve.strong_share, curve.quality)
            assert curve.apgr == pytest.approx((area - curve.weak_quality) / gap)


class TestEnvelope:
    """Quality against cost."""

    def test_dominated_configurations_drop_out(self) -> None:
        """A configuration below a line between two others, or dearer and worse, is no corner."""
        found = envelope(numbers(1.0, 2.0, 3.0, 2.5, 4.0), numbers(0.2, 0.6, 0.7, 0.5, 0.65))
        assert found.cost_usd.tolist() == [1.0, 2.0, 3.0]
        assert found.quality.tolist() == [0.2, 0.6, 0.7]

    def test_mean_height_by_hand(self) -> None:
        """Two corners (1, 0.2) and (3, 0.6): from 2 to 5 the height rises from 0.4 to 0.6 and stays there."""
        assert aiq(numbers(1.0, 3.0), numbers(0.2, 0.6), cost_min_usd=2.0, cost_max_usd=5.0) == pytest.approx(
            (0.5 * 1.0 + 0.6 * 2.0) / 3.0
        )

    def test_one_configuration_is_flat(self) -> None:
        """The AIQ of one configuration is its quality, over any range from its cost on, and over none of it."""
        assert aiq(numbers(1.0), numbers(0.7), cost_min_usd=1.0, cost_max_usd=9.0) == pytest.approx(0.7)
        assert aiq(numbers(1.0), numbers(0.7), cost_min_usd=1.0, cost_max_usd=1.0) == pytest.approx(0.7)
        assert isnan(aiq(numbers(1.0), numbers(0.7), cost_min_usd=0.5, cost_max_usd=9.0))

    @given(configurations())
    def test_it_covers_every_configuration_and_is_concave(self, points: tuple[Doubles, Doubles]) -> None:
        """No configuration lies above the envelope, its corners are configurations, and it rises ever less."""
        found = envelope(*points)
        given = set(zip(*(values.tolist() for values in points), strict=True))
        assert set(zip(found.cost_usd.tolist(), found.quality.tolist(), strict=True)) <= given
        assert all(found.height(cost) >= quality - 1e-12 for cost, quality in given)
        slopes = np.diff(found.quality) / np.diff(found.cost_usd)
        assert np.all(slopes > 0.0)
        assert np.all(np.diff(slopes) <= 1e-9 * (1.0 + np.abs(slopes[:-1])))

    @given(configurations())
    def test_its_own_corners_give_the_same_aiq(self, points: tuple[Doubles, Doubles]) -> None:
        """The envelope of an envelope is itself, so the AIQ of its corners is that of all configurations."""
        found = envelope(*points)
        low, high = float(found.cost_usd[0]), 0.2
        expected = aiq(*points, cost_min_usd=low, cost_max_usd=high)
        assert aiq(found.cost_usd, found.quality, cost_min_usd=low, cost_max_usd=high) == pytest.approx(expected)

    @given(configurations(), configurations())
    def test_more_configurations_never_lower_it(
        self, some: tuple[Doubles, Doubles], more: tuple[Doubles, Doubles]
    ) -> None:
        """A router that can do what another can, and more, has at least its AIQ over the range that they share."""
        both = (np.concatenate((some[0], more[0])), np.concatenate((some[1], more[1])))
        low, high = shared_cost_range((envelope(*some), envelope(*both)), dearest_usd=0.2)
        first, second = (aiq(*points, cost_min_usd=low, cost_max_usd=high) for points in (some, both))
        assert second >= first - 1e-12

    @given(configurations())
    def test_the_area_is_what_a_fine_grid_gives(self, points: tuple[Doubles, Doubles]) -> None:
        """The mean height is the mean of the heights on a fine grid."""
        found = envelope(*points)
        low = float(found.cost_usd[0])
        grid = np.linspace(low, 0.2, 20_001)
        heights = np.array([found.height(float(cost)) for cost in grid[::100]])
        fine = np.interp(grid, grid[::100], heights).mean()
        assert found.mean_height(low, 0.2) == pytest.approx(fine, abs=0.01)

    def test_the_zero_router_beats_no_model_at_its_own_cost(self) -> None:
        """Each single model is on the Zero router or below it."""
        costs, qualities = numbers(0.1, 0.2, 0.4, 0.9), numbers(0.5, 0.45, 0.7, 0.8)
        router = zero_router(costs, qualities)
        assert [router.height(float(cost)) for cost in costs] == pytest.approx([0.5, 0.5 + 0.2 / 3.0, 0.7, 0.8])


class TestShareOfCost:
    """What it costs to be as good as a model."""

    def test_by_hand(self) -> None:
        """From (1, 0.5) to (3, 0.9), 98 % of 0.9 is reached at 2.91 of a model's 10."""
        found = share_of_cost_at(
            numbers(1.0, 3.0),
            numbers(0.5, 0.9),
            reference_cost_usd=10.0,
            reference_quality=0.9,
            quality_share=0.98,
        )
        assert found == pytest.approx(0.291)

    def test_what_is_never_reached_has_no_cost(self) -> None:
        """A router that stays below has no share, nor has a model without a cost."""
        costs, qualities = numbers(1.0, 3.0), numbers(0.5, 0.8)
        for cost, quality in ((10.0, 0.9), (nan, 0.5), (0.0, 0.5)):
            assert isnan(
                share_of_cost_at(
                    costs, qualities, reference_cost_usd=cost, reference_quality=quality, quality_share=1.0
                )
            )

    def test_the_cheapest_configuration_may_be_enough(self) -> None:
        """Where already the cheapest is good enough, it is what is paid."""
        found = share_of_cost_at(
            numbers(1.0, 3.0), numbers(0.9, 0.95), reference_cost_usd=4.0, reference_quality=0.8, quality_share=1.0
        )
        assert found == pytest.approx(0.25)


class TestArenaScore:
    """RouterArena's score."""

    def test_its_ends(self) -> None:
        """At the lowest cost C is 1, so the score is 1.1 A / (0.1 A + 1); at the highest it is 0."""
        assert arena_score(0.8, cost_usd=0.0044 / 1000.0) == pytest.approx(1.1 * 0.8 / 1.08)
        assert arena_score(0.8, cost_usd=0.2) == 0.0

    def test_in_between(self) -> None:
        """One dollar per thousand prompts, by the formula of the data's notes."""
        thrift = log2(200.0) / log2(200.0 / 0.0044)
        assert arena_score(0.7, cost_usd=0.001) == pytest.approx(1.1 * 0.7 * thrift / (0.07 + thrift))

    def test_an_unknown_cost_has_no_score(self) -> None:
        """Without a cost there is no score; without quality at no cost it is 0."""
        assert isnan(arena_score(0.7, cost_usd=nan))
        assert arena_score(0.0, cost_usd=1.0) == 0.0


class TestPredictions:
    """How true predicted qualities are."""

    @pytest.mark.parametrize(
        ("predicted", "observed", "expected"),
        [
            ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1.0),
            ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 0.0),
            ([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1], 0.5),
            ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),
        ],
    )
    def test_auc_by_hand(self, predicted: list[float], observed: list[float], expected: float) -> None:
        """The share of (good, bad) pairs in which the good one was predicted higher, ties counting half."""
        assert auc(numbers(*predicted), numbers(*observed)) == expected

    def test_auc_needs_both_kinds(self) -> None:
        """Where all answers are good, or there is none, there is no pair."""
        assert isnan(auc(numbers(0.1, 0.9), numbers(1.0, 1.0)))
        assert isnan(auc(numbers(), numbers()))
        assert isnan(auc(numbers(0.1, 0.9), numbers(0.0, 1.0), weight=numbers(0.0, 2.0)))

    @given(predictions())
    def test_auc_is_the_share_of_pairs(self, sample: tuple[Doubles, Doubles, Doubles]) -> None:
        """Counting all pairs one by one gives the same, with each prompt as often as its weight says."""
        predicted, observed, weight = sample
        p, y = repeated(predicted, weight), repeated(observed, weight)
        scores = [1.0 if a > b else 0.5 if a == b else 0.0 for a in p[y >= 0.5] for b in p[y < 0.5]]
        found = auc(predicted, observed, weight=weight)
        assert found == pytest.approx(np.mean(scores)) if scores else isnan(found)

    @given(predictions())
    def test_auc_of_resamples_is_that_of_each(self, sample: tuple[Doubles, Doubles, Doubles]) -> None:
        """All resamples at a time give what each gives alone."""
        predicted, observed, weight = sample
        weights = np.stack((weight, np.ones(len(weight)), weight + 1.0))
        expected = [auc(predicted, observed, weight=row) for row in weights]
        assert auc_of_resamples(predicted, observed, weights) == pytest.approx(expected, nan_ok=True)

    @given(predictions())
    def test_brier_is_a_mean_of_squares(self, sample: tuple[Doubles, Doubles, Doubles]) -> None:
        """With weights, the Brier score is that of the repeated prompts; without an error it is 0."""
        predicted, observed, weight = sample
        plain = float(np.mean((repeated(predicted, weight) - repeated(observed, weight)) ** 2))
        assert brier(predicted, observed, weight=weight) == pytest.approx(plain)
        assert brier(observed, observed) == 0.0

    def test_ece_by_hand(self) -> None:
        """Of thirty prompts in bins of two, predicting 0.9 where all fails is off by 0.9, and predicting what is
        observed in every bin is not off at all."""
        assert ece(np.full(30, 0.9), np.zeros(30)) == pytest.approx(0.9)
        assert ece(np.repeat(np.linspace(0.1, 0.9, 15), 2), np.repeat(np.linspace(0.1, 0.9, 15), 2)) == 0.0
        # Bins of two with one good answer each: 0.5 is right in all of them, 0.7 is off by 0.2.
        assert ece(np.full(30, 0.5), np.tile([0.0, 1.0], 15)) == pytest.approx(0.0)
        assert ece(np.full(30, 0.7), np.tile([0.0, 1.0], 15)) == pytest.approx(0.2)
        assert isnan(ece(numbers(), numbers()))

    @given(predictions())
    def test_ece_is_between_the_mean_error_and_the_mean_distance(
        self, sample: tuple[Doubles, Doubles, Doubles]
    ) -> None:
        """Errors may cancel within a bin, never between bins."""
        predicted, observed, weight = sample
        found = ece(predicted, observed, weight=weight)
        assert found >= abs(weighted_mean(predicted - observed, weight)) - 1e-12
        assert found <= weighted_mean(np.abs(predicted - observed), weight) + 1e-12

    @given(arrays(np.float64, st.integers(0, 60), elements=SHARES))
    def test_bins_are_of_equal_size_and_in_order(self, predicted: Doubles) -> None:
        """No bin has more than one prediction over another, and none holds a smaller one than a bin below it."""
        bins = equal_bins(predicted)
        sizes = np.bincount(bins, minlength=ECE_BIN_COUNT)
        assert sizes.max() - sizes.min() <= 1
        ordered = predicted[np.lexsort((predicted, bins))]
        assert np.all(np.diff(ordered) >= 0.0)

    def test_the_mean_of_nothing_is_unknown(self) -> None:
        """Neither no values nor values that do not count have a mean."""
        assert isnan(weighted_mean(numbers()))
        assert isnan(weighted_mean(numbers(1.0), numbers(0.0)))
