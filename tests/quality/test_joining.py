"""LLMs that join a trained model with nothing but their published scores."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pointsman_server.quality.artifact import Joined, Provenance, load, read_benchmarks, read_provenance, save
from pointsman_server.quality.joining import (
    SCORE_ERROR,
    Doubles,
    Joining,
    Posterior,
    Prior,
    log_odds,
    posterior_of_scores,
    relative_prior,
)
from pointsman_server.quality.model import JoinedProfile, QualityModel
from pointsman_server.quality.published import usual_length, with_published_scores

PROMPTS = (
    "What is 17 * 23?",
    "Which enzyme unwinds DNA during replication?\n(A) ligase\n(B) helicase\n(C) primase\n(D) polymerase",
    "def f(x):\n    return x[::-1]\nWhat does f('abc') return?",
    "Prove that there are infinitely many primes.",
)
PROVENANCE = Provenance(created="2026-11-25", sources=(), settings={}, metrics={}, packages={})


def score_of(joining: Joining, posterior: Posterior, benchmark: str) -> float:
    """The expected score of a profile on a benchmark, by the definition."""
    row = joining.benchmarks.index(benchmark)
    odds = joining.anchors[row].astype(np.float64) @ posterior.weights + joining.offsets[row]
    return float((1.0 / (1.0 + np.exp(-odds))).mean())


def misfit(joining: Joining, prior: Prior, scores: dict[str, float], u: Doubles) -> float:
    """Minus the logarithm of the posterior density at mean + factor u, up to a constant, by the definition."""
    total = float(u @ u) / 2.0
    for benchmark, score in scores.items():
        weights = (prior.mean + prior.factor @ u).astype(np.float64)
        row = joining.benchmarks.index(benchmark)
        odds = joining.anchors[row].astype(np.float64) @ weights + joining.offsets[row]
        expected = np.array([(1.0 / (1.0 + np.exp(-odds))).mean()])
        total += float((log_odds(np.array([score])) - log_odds(expected))[0] ** 2) / (2.0 * SCORE_ERROR**2)
    return total


class TestPosteriorOfScores:
    """From scores to a profile."""

    SCORES = {"mmlu_pro": 0.62, "gsm8k": 0.9, "crux": 0.7}  # noqa: RUF012

    def test_it_is_the_most_likely_profile(self, builtin: QualityModel) -> None:
        """No other profile explains prior and scores better, whichever way one steps from it."""
        joining, prior = builtin.joining, builtin.joining.prior
        found = posterior_of_scores(joining, prior, self.SCORES)
        u: Doubles = np.linalg.lstsq(prior.factor, found.weights - prior.mean, rcond=None)[0].astype(np.float64)
        least = misfit(joining, prior, self.SCORES, u)
        rng = np.random.default_rng(5)
        for _ in range(200):
            step = rng.normal(size=u.size)
            assert misfit(joining, prior, self.SCORES, u + 0.05 * step / np.linalg.norm(step)) > least

    @pytest.mark.parametrize("width", [1.0, 30.0, 1000.0])
    def test_a_wide_prior_does_not_keep_it_from_being_found(self, builtin: QualityModel, width: float) -> None:
        """However little is known beforehand, it explains prior and scores better than knowing nothing does."""
        joining, wide = builtin.joining, Prior(builtin.joining.prior.mean, width * builtin.joining.prior.factor)
        found = posterior_of_scores(joining, wide, self.SCORES)
        u: Doubles = np.linalg.lstsq(wide.factor, found.weights - wide.mean, rcond=None)[0].astype(np.float64)
        assert misfit(joining, wide, self.SCORES, u) < 0.5 * misfit(joining, wide, self.SCORES, np.zeros(u.size))

    @pytest.mark.parametrize("benchmark", ["mmlu_pro", "mmlu_pro/physics", "gsm8k", "crux"])
    def test_its_expected_score_is_between_the_usual_one_and_the_published_one(
        self, builtin: QualityModel, benchmark: str
    ) -> None:
        """A score moves what is expected of the model there most of the way to it, and never beyond."""
        joining = builtin.joining
        usual = score_of(joining, posterior_of_scores(joining, joining.prior, {}), benchmark)
        for score in (0.2, 0.95):
            found = score_of(joining, posterior_of_scores(joining, joining.prior, {benchmark: score}), benchmark)
            assert min(usual, score) < found < max(usual, score)
            assert abs(found - score) < 0.5 * abs(usual - score)

    @given(low=st.floats(0.0, 1.0), rise=st.floats(0.01, 1.0), benchmark=st.sampled_from(["mmlu_pro", "gsm8k", "math"]))
    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    def test_a_higher_score_never_lowers_what_is_expected_there(
        self, builtin: QualityModel, low: float, rise: float, benchmark: str
    ) -> None:
        """On its own benchmark a higher score means a higher expected score, and every figure stays finite."""
        joining = builtin.joining
        lower, higher = (
            posterior_of_scores(joining, joining.prior, {benchmark: score}) for score in (low, min(1.0, low + rise))
        )
        assert score_of(joining, lower, benchmark) <= score_of(joining, higher, benchmark) + 1e-6
        assert np.isfinite(higher.weights).all()
        assert np.isfinite(higher.covariance).all()

    def test_each_score_narrows_the_interval(self, builtin: QualityModel) -> None:
        """The more is published, the less is left open at any prompt."""
        joining = builtin.joining
        names = list(self.SCORES)
        variances = []
        for count in range(len(names) + 1):
            known = {name: self.SCORES[name] for name in names[:count]}
            covariance = posterior_of_scores(joining, joining.prior, known).covariance
            positions = [builtin.latent(prompt)[0] for prompt in PROMPTS]
            variances.append([float(position @ covariance @ position) for position in positions])
        assert all(
            less < more for before, after in pairwise(variances) for less, more in zip(after, before, strict=True)
        )

    def test_without_scores_it_is_the_prior(self, builtin: QualityModel) -> None:
        """Nothing known leaves the prior's mean and covariance."""
        prior = builtin.joining.prior
        found = posterior_of_scores(builtin.joining, prior, {"no such benchmark": 0.5})
        assert found.weights == pytest.approx(prior.mean, abs=1e-6)
        assert found.covariance == pytest.approx(prior.factor @ prior.factor.T, abs=1e-6)


class TestRelativePrior:
    """Where a relative of a trained model starts."""

    def test_it_lies_around_that_model(self, builtin: QualityModel) -> None:
        """Its mean is that model's profile, and its ability is open by as much as was said, beside that model's own."""
        weights, covariance = builtin.table.weights[3], builtin.table.covariance[3]
        prior = relative_prior(builtin.joining, weights, covariance, ability_variance=0.5)
        assert prior.mean == pytest.approx(weights)
        assert (prior.factor @ prior.factor.T)[0, 0] == pytest.approx(0.5 + covariance[0, 0], rel=1e-5)


class TestWithPublishedScores:
    """A model joined by what the catalog tells."""

    def test_a_new_name_becomes_known(self, builtin: QualityModel) -> None:
        """An LLM that the artifact has never heard of is predicted, the better the higher its score, at a usual length."""
        scores = {"vendor/Brand-New": {"mmlu_pro": 0.85}, "brand-old": {"mmlu_pro": 0.25}}
        joined = with_published_scores(builtin, scores)
        for prompt in PROMPTS:
            found = joined.predict(prompt, ["brand-new", "brand-old"])
            assert found["brand-new"].mean > found["brand-old"].mean
            lengths = [one.output_token_count for one in builtin.predict(prompt, sorted(builtin.models)).values()]
            known = [length for length in lengths if length is not None]
            assert min(known) < (found["brand-new"].output_token_count or 0.0) < max(known)

    def test_the_others_stay_as_they_are(self, builtin: QualityModel) -> None:
        """Each model that was known before is predicted the same, bit for bit, by the same booster."""
        joined = with_published_scores(builtin, {"brand-new": {"mmlu_pro": 0.85}})
        names = sorted(builtin.models)
        for prompt in PROMPTS:
            assert dict(joined.predict(prompt, names)) == dict(builtin.predict(prompt, names))
        assert joined.booster is builtin.booster

    def test_labels_count_for_more_than_scores(self, builtin: QualityModel) -> None:
        """A model that the artifact knows by its labels keeps its profile, under an alias too."""
        scores = {"gpt-4o": {"mmlu_pro": 0.01}, "gpt-4o-2024-08-06": {"mmlu_pro": 0.01}}
        assert with_published_scores(builtin, scores) is builtin

    def test_scores_of_unknown_benchmarks_say_nothing(self, builtin: QualityModel) -> None:
        """Without an anchor there is nothing to compare a score with, so nobody joins."""
        assert with_published_scores(builtin, {"brand-new": {"no such benchmark": 0.9}}) is builtin

    def test_a_stand_in_becomes_a_model_of_its_own(self, builtin: QualityModel) -> None:
        """It starts from its relative, keeps that one's length, and is known better than before; the relative stays."""
        joined = with_published_scores(builtin, {"llama-3.3-70b-instruct": {"mmlu_pro": 0.689}})
        names = ["llama-3.3-70b-instruct", "llama-3.1-70b-instruct"]
        for prompt in PROMPTS:
            before, after = builtin.predict(prompt, names), joined.predict(prompt, names)
            assert after[names[1]] == before[names[1]]
            assert after[names[0]].mean != before[names[0]].mean
            assert after[names[0]].standard_error < before[names[0]].standard_error
            assert after[names[0]].output_token_count == before[names[0]].output_token_count

    def test_the_order_of_the_catalog_is_irrelevant(self, builtin: QualityModel) -> None:
        """The same scores in another order give the same model."""
        scores = {"a": {"mmlu_pro": 0.5, "gsm8k": 0.9}, "b": {"crux": 0.6}}
        turned = {"b": {"crux": 0.6}, "a": {"gsm8k": 0.9, "mmlu_pro": 0.5}}
        one, other = with_published_scores(builtin, scores), with_published_scores(builtin, turned)
        assert one.profiles == other.profiles
        assert one.table.weights.tobytes() == other.table.weights.tobytes()


class TestUsualLength:
    """How long the answers of a model are of which only scores are known."""

    def test_it_is_the_mean_of_those_that_are_known(self) -> None:
        """Models without a length do not count."""
        lengths = np.array([[5.0, 1.0], [np.nan, np.nan], [6.0, 1.2]], dtype=np.float32)
        assert usual_length(lengths) == pytest.approx((5.5, 1.1))

    def test_where_none_is_known_it_is_unknown(self) -> None:
        """No length is made up."""
        assert np.isnan(usual_length(np.full((2, 2), np.nan, dtype=np.float32))).all()


class TestWithProfiles:
    """Replacing and renaming."""

    def test_a_profile_of_the_same_name_is_replaced(self, builtin: QualityModel) -> None:
        """The new profile answers under that name and its aliases, and no source is said to be behind it."""
        row, _ = builtin.found("gpt-4o") or (0, False)
        posterior = Posterior(np.zeros_like(builtin.table.weights[0]), builtin.table.covariance[row])
        joined = builtin.with_profiles([JoinedProfile("gpt-4o-2024-08-06", posterior, (1.0, 1.0))], version="x")
        assert joined.version == "x"
        assert len(joined.profiles) == len(builtin.profiles)
        assert joined.models == builtin.models
        assert joined.predict(PROMPTS[0], ["gpt-4o"])["gpt-4o"].mean == 0.5
        assert joined.profiles[-1].endpoints == ()

    def test_a_name_answers_for_one_profile_alone(self, builtin: QualityModel) -> None:
        """An alias that becomes a model of its own is no alias any more."""
        posterior = builtin.table.weights[0], builtin.table.covariance[0]
        joined = builtin.with_profiles([JoinedProfile("gpt-4o", Posterior(*posterior), (1.0, 1.0))])
        assert joined.profiles[-1].model == "gpt-4o"
        assert all("gpt-4o" not in profile.aliases for profile in joined.profiles)


class TestArtifact:
    """What models join by survives on disk."""

    def test_it_is_saved_and_loaded(self, builtin: QualityModel, tmp_path: Path) -> None:
        """Prior, benchmarks and anchors are the same after loading, and the manifest lists the benchmarks."""
        save(tmp_path / "a", builtin, PROVENANCE, card="card")
        loaded = load(tmp_path / "a").joining
        assert loaded.benchmarks == builtin.joining.benchmarks == read_benchmarks(tmp_path / "a")
        for name in ("prior_mean", "prior_factor", "anchors", "offsets"):
            assert getattr(loaded, name).tobytes() == getattr(builtin.joining, name).tobytes()

    def test_the_manifest_tells_who_has_joined(self, builtin: QualityModel, tmp_path: Path) -> None:
        """Provenance is read back as it was written."""
        one = Joined("brand-new", "2026-11-25", 50, 40, "gpt-4o-2024-08-06", "1")
        written = replace(PROVENANCE, joined=(one,), settings={"seed": 1}, metrics={"own": {"ece": 0.01}})
        save(tmp_path / "a", builtin, written, card="card")
        assert read_provenance(tmp_path / "a") == written
