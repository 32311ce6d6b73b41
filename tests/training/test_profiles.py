"""Profiles of models from their outcomes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from pointsman_server.training.profiles import (
    CATEGORY_VARIANCES,
    LOADING_VARIANCES,
    FittedProfiles,
    Located,
    Spread,
    chosen_spread,
    fit_lengths,
    fit_profiles,
    length_targets,
)


def fitted_profiles(
    latents: npt.NDArray[np.float64], quality: npt.NDArray[np.float32], groups: npt.NDArray[np.object_] | None = None
) -> FittedProfiles:
    """Profiles with settings as in service; one group unless said otherwise."""
    return fit_profiles(located_at(latents, groups=groups), quality, spread=Spread(0.05), ease_variance=1.0)


def located_at(
    latents: npt.NDArray[np.float64],
    shares: npt.NDArray[np.float64] | None = None,
    groups: npt.NDArray[np.object_] | None = None,
) -> Located:
    """Prompts of one group and no category unless said otherwise."""
    return Located(
        latents,
        np.zeros((len(latents), 0)) if shares is None else shares,
        np.full(len(latents), "all", dtype=object) if groups is None else groups,
    )


class TestCategories:
    """Profiles that see the shares of categories."""

    def test_a_specialist_of_a_category_is_found(self) -> None:
        """What a model does in a category shows in its profile, however tightly the latents hold the models together."""
        rng = np.random.default_rng(5)
        of_first = rng.random(1000) < 0.5
        shares = np.column_stack((of_first, ~of_first)).astype(np.float64)
        ability = np.column_stack((np.where(of_first, 0.9, 0.3), np.where(of_first, 0.3, 0.9)))
        quality = (rng.random((1000, 2)) < ability).astype(np.float32)
        located = located_at(rng.normal(size=(1000, 2)), shares)
        fitted = fit_profiles(located, quality, spread=Spread(LOADING_VARIANCES[0]), ease_variance=1.0)
        expected = 1.0 / (1.0 + np.exp(-(located.rows @ fitted.weights.T)))
        assert expected[of_first].mean(axis=0).tolist() == pytest.approx([0.9, 0.3], abs=0.05)
        assert expected[~of_first].mean(axis=0).tolist() == pytest.approx([0.3, 0.9], abs=0.05)

    def test_a_category_without_prompts_tells_nothing(self) -> None:
        """A share that is always zero leaves the weights of the others as they are: small."""
        rng = np.random.default_rng(6)
        first = rng.random(600)
        shares = np.column_stack((first, 1.0 - first, np.zeros(600)))
        quality = (rng.random((600, 3)) < 0.5).astype(np.float32)
        fitted = fit_profiles(
            located_at(rng.normal(size=(600, 2)), shares), quality, spread=Spread(0.01), ease_variance=1.0
        )
        assert np.abs(fitted.weights).max() < 1.0


class TestChosenSpread:
    """How much models are allowed to differ."""

    RNG = np.random.default_rng(7)
    LATENTS = RNG.normal(size=(1500, 2))
    FOLDS = RNG.integers(5, size=1500)

    def chosen(self, weights: npt.NDArray[np.float64]) -> float:
        """For models with these weights on the latents."""
        odds = np.column_stack((np.ones(1500), self.LATENTS)) @ weights.T
        quality = (np.random.default_rng(8).random(odds.shape) < 1.0 / (1.0 + np.exp(-odds))).astype(np.float32)
        return chosen_spread(located_at(self.LATENTS), quality, self.FOLDS, ease_variance=1.0).loading

    def test_specialists_may_differ(self) -> None:
        """Models that are good at opposite prompts are not held together."""
        assert self.chosen(np.array([[0.0, 2.0, 0.0], [0.0, -2.0, 0.0], [0.0, 0.0, 2.0]])) >= 0.1

    def test_models_that_rank_prompts_alike_are_held_together(self) -> None:
        """Where only the means differ, the tightest is chosen."""
        assert self.chosen(np.array([[-0.5, 1.0, 0.5], [0.0, 1.0, 0.5], [0.5, 1.0, 0.5]])) == LOADING_VARIANCES[0]

    def test_too_few_labels_hold_them_together(self) -> None:
        """Where one half of the folds lacks a model, nothing can be compared, and the tightest is chosen."""
        quality = np.ones((1500, 2), dtype=np.float32)
        quality[self.FOLDS % 2 == 0, 1] = np.nan
        found = chosen_spread(located_at(self.LATENTS), quality, self.FOLDS, ease_variance=1.0)
        assert found == Spread(LOADING_VARIANCES[0], CATEGORY_VARIANCES[0])


class TestChosenCategorySpread:
    """How much models are allowed to differ by category."""

    RNG = np.random.default_rng(9)
    CATEGORY = RNG.integers(12, size=720)
    LATENTS = RNG.normal(size=(720, 2))
    FOLDS = RNG.integers(5, size=720)

    def chosen(self, ability: npt.NDArray[np.float64], *, seed: int = 10) -> float:
        """For models with this chance of a good answer in each category, (categories, models)."""
        quality = (np.random.default_rng(seed).random((720, ability.shape[1])) < ability[self.CATEGORY]).astype(
            np.float32
        )
        located = located_at(self.LATENTS, np.eye(12)[self.CATEGORY])
        return chosen_spread(located, quality, self.FOLDS, ease_variance=1.0).category

    def test_one_that_leads_everywhere_keeps_its_prompts(self) -> None:
        """Where others pass the best model by the luck of few labels, the tightest is chosen."""
        assert self.chosen(np.tile([0.86, 0.8, 0.8, 0.8, 0.8], (12, 1))) == CATEGORY_VARIANCES[0]

    def test_luck_is_seldom_taken_for_a_talent(self) -> None:
        """Of ten draws of labels by which the best model leads by four points everywhere, most choose the tightest; what
        routing got most with would be it in three."""
        ability = np.tile([0.84, 0.8, 0.8, 0.8, 0.8], (12, 1))
        assert sum(self.chosen(ability, seed=seed) == CATEGORY_VARIANCES[0] for seed in range(10, 20)) >= 7

    def test_specialists_of_categories_get_their_prompts(self) -> None:
        """Where each model excels in other categories, the loosest is chosen."""
        ability = np.where(np.arange(12)[:, np.newaxis] % 4 == np.arange(4), 0.75, [[0.6, 0.45, 0.3, 0.2]])
        assert self.chosen(ability) == CATEGORY_VARIANCES[-1]


class TestFitProfiles:
    """Hierarchical logistic regression."""

    RNG = np.random.default_rng(3)
    LATENTS = RNG.normal(size=(4000, 2))
    WEIGHTS = np.array([[0.5, 0.6, 0.2], [-0.5, 0.6, 0.5], [0.0, 0.9, 0.3]])
    ODDS = np.column_stack((np.ones(4000), LATENTS)) @ WEIGHTS.T
    QUALITY = (RNG.random((4000, 3)) < 1.0 / (1.0 + np.exp(-ODDS))).astype(np.float32)

    def test_it_recovers_the_weights(self) -> None:
        """With thousands of labels the fitted weights are the true ones."""
        fitted = fitted_profiles(self.LATENTS, self.QUALITY)
        assert fitted.weights == pytest.approx(self.WEIGHTS, abs=0.15)

    def test_without_labels_a_model_is_like_the_others(self) -> None:
        """A model without labels gets what is common among the others, and the widest posterior."""
        quality = np.column_stack((self.QUALITY, np.full(4000, np.nan, dtype=np.float32)))
        fitted = fitted_profiles(self.LATENTS, quality)
        assert fitted.weights[3] == pytest.approx(fitted.weights[:3].mean(axis=0), abs=0.05)
        assert np.diag(fitted.covariance[3]).min() > np.diag(fitted.covariance[0]).max()

    def test_what_few_models_show_is_expected_of_all(self) -> None:
        """Prompts that are hard for the three models that met them are expected to be hard for twenty that did not."""
        hard = self.LATENTS[:, 0] < 0.0
        latents = np.column_stack((self.LATENTS, np.where(hard, -1.0, 1.0)))
        easy_only = np.where(hard[:, np.newaxis], np.nan, np.ones((4000, 20), dtype=np.float32))
        easy_only[::2][~hard[::2]] = 0.0
        met = np.where(hard, 0.05, 0.5)[:, np.newaxis] > self.RNG.random((4000, 3))
        quality = np.column_stack((met, easy_only)).astype(np.float32)
        fitted = fitted_profiles(latents, quality)
        typical = latents[hard].mean(axis=0)
        assert 1.0 / (1.0 + np.exp(-fitted.weights[-1] @ [1.0, *typical])) < 0.15

    def test_easy_prompts_do_not_make_a_model_look_able(self) -> None:
        """Of two models the one that is worse on every prompt that both met stays behind, though its average is lifted
        by a group of easy prompts that only it, and a few other models, met."""
        rng = np.random.default_rng(7)
        ability = np.array([1.1, 0.6, 0.0, 1.6, -0.5, 2.2, -1.0, 0.3])
        easy = np.arange(1200) >= 800
        odds = ability + np.where(easy, 3.0, -0.5)[:, np.newaxis] + rng.normal(scale=1.0, size=1200)[:, np.newaxis]
        quality = (rng.random((1200, 8)) < 1.0 / (1.0 + np.exp(-odds))).astype(np.float32)
        quality[np.ix_(easy.nonzero()[0], np.array([0, 2, 3, 4]))] = np.nan
        latents = rng.normal(size=(1200, 2))
        groups = np.where(easy, "easy", "usual").astype(object)
        naive = np.nanmean(quality, axis=0)
        weights = fitted_profiles(latents, quality, groups).weights
        assert naive[1] > naive[0]
        assert weights[0, 0] > weights[1, 0]
        assert np.argsort(weights[:, 0]).tolist() == np.argsort(ability).tolist()


class TestLengths:
    """Expected lengths."""

    def test_the_mean_prediction_is_the_mean_length(self) -> None:
        """Lengths are predicted as means, because a price multiplies them."""
        rng = np.random.default_rng(5)
        latent = rng.normal(scale=0.5, size=2000)
        tokens = np.exp(5.0 + latent + rng.normal(scale=0.8, size=2000)).astype(np.float32)[:, np.newaxis]
        intercept, slope = fit_lengths(latent, tokens)[0]
        assert slope == pytest.approx(1.0, abs=0.1)
        assert np.exp(intercept + slope * latent).mean() == pytest.approx(tokens.mean(), rel=1e-3)

    def test_an_unknown_length_stays_unknown(self) -> None:
        """A prompt without any length has no target, a model without lengths no prediction."""
        tokens = np.array([[10.0, np.nan], [np.nan, np.nan]], dtype=np.float32)
        assert np.isnan(length_targets(tokens)).tolist() == [False, True]
        assert np.isnan(fit_lengths(np.zeros(2), tokens)).all()
