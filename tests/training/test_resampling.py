"""Bootstrap intervals."""

from __future__ import annotations

from functools import partial
from math import isnan, nan

import numpy as np
import pytest
from pointsman_server.training.metrics import Doubles, apgr, weighted_mean
from pointsman_server.training.resampling import Measured, Resamples, bootstrap_interval, measured

RNG = np.random.default_rng(11)
VALUES = RNG.random((300, 3))
QUESTIONS = np.array([f"q{number // 2}" for number in range(300)], dtype=object)


class TestResamples:
    """Drawing questions."""

    RESAMPLES = Resamples.of(QUESTIONS, seed=3, resample_count=120)

    def test_every_resample_has_as_many_questions(self) -> None:
        """Each draw takes as many questions as there are, and both wordings of a question together."""
        assert self.RESAMPLES.counts.shape == (120, 150)
        assert set(self.RESAMPLES.counts.sum(axis=1)) == {150}
        weights = np.concatenate(list(self.RESAMPLES.weights()))
        assert np.array_equal(weights[:, ::2], weights[:, 1::2])

    def test_means_are_those_of_the_weights(self) -> None:
        """One product for all resamples gives what each resample gives alone."""
        means = self.RESAMPLES.means(VALUES)
        for column in range(3):
            alone = self.RESAMPLES.each(partial(weighted_mean, VALUES[:, column]))
            assert means[:, column] == pytest.approx(alone)

    def test_the_seed_decides(self) -> None:
        """The same seed draws the same, another one something else."""
        again, other = (Resamples.of(QUESTIONS, seed=seed, resample_count=120) for seed in (3, 4))
        assert np.array_equal(again.counts, self.RESAMPLES.counts)
        assert not np.array_equal(other.counts, self.RESAMPLES.counts)


class TestIntervals:
    """What the draws say."""

    def test_the_interval_of_a_mean_is_the_textbook_one(self) -> None:
        """Of independent questions it is the mean give or take 1.96 standard errors, to within a tenth of its width."""
        values = VALUES[:, 0]
        found = bootstrap_interval(
            lambda weight: weighted_mean(values, weight), np.arange(300).astype(object), seed=1, resample_count=2000
        )
        error = 1.96 * float(values.std()) / 300**0.5
        assert found.value == pytest.approx(values.mean())
        assert (found.low, found.high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.2 * error)

    def test_repeated_questions_widen_it(self) -> None:
        """Ten wordings of one question say what one says: the interval is wider than that of as many questions."""
        values = np.repeat(VALUES[:30, 0], 10)

        def mean(weight: Doubles) -> float:
            return weighted_mean(values, weight)

        grouped = bootstrap_interval(mean, np.repeat(np.arange(30), 10).astype(object), seed=1)
        single = bootstrap_interval(mean, np.arange(300).astype(object), seed=1)
        assert grouped.high - grouped.low > 2.0 * (single.high - single.low)

    def test_it_takes_any_measure(self) -> None:
        """The interval of an APGR holds it, and lies between nothing and everything recovered here."""
        win, strong, weak = VALUES.T
        found = bootstrap_interval(
            lambda weight: apgr(win, strong + 1.0, weak, weight=weight), QUESTIONS, seed=1, resample_count=200
        )
        assert 0.0 < found.low < found.value < found.high < 1.0

    def test_what_is_not_defined_has_no_interval(self) -> None:
        """Resamples without a value are left out; without any, or without the value itself, both ends are unknown."""
        assert measured(1.0, np.array([1.0, nan, 1.0])) == Measured(1.0, 1.0, 1.0)
        for found in (measured(nan, np.array([1.0])), measured(1.0, np.array([nan]))):
            assert isnan(found.low)
            assert isnan(found.high)
