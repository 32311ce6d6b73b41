"""What the built-in model predicts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.quality.model import QualityModel, normalised

PROMPTS = (
    "What is the capital of France?",
    "Let $a, b, c$ be positive reals with $a + b + c = 4abc$. Find the maximum of $\\frac{a}{bc}$.",
    "Write a Python function that returns the longest palindromic subsequence of a string.\n\ndef lps(s):",
    "Who wrote the opera about a barber in Seville?",
    "Which of the following is a symptom of anaemia?\nOptions:\nA. fatigue\nB. fever\nC. rash\nD. cough",
    "chip, lace, wrap, begin, bat, soap: write one sentence with all of these words.",
)


class TestPredict:
    """Quality, uncertainty and length per model."""

    @given(text=st.text(max_size=200))
    def test_predictions_are_in_range(self, text: str, builtin: QualityModel) -> None:
        """Whatever the text, quality is a probability, its standard error is positive and finite, a length positive."""
        for prediction in builtin.predict(text, sorted(builtin.models)).values():
            assert 0.0 <= prediction.mean <= 1.0
            assert 0.0 <= prediction.standard_error <= 1.0
            assert prediction.output_token_count is None or 0.0 < prediction.output_token_count < 100_000

    def test_an_unknown_model_is_absent(self, builtin: QualityModel) -> None:
        """A model that the artifact does not know has no prediction, rather than a made-up one."""
        assert set(builtin.predict("Hello", ["gpt-4o", "nobody/no-such-model"])) == {"gpt-4o"}

    def test_no_known_model_is_no_prediction(self, builtin: QualityModel) -> None:
        """Without a known model the mapping is empty."""
        assert builtin.predict("Hello", ["no-such-model"]) == {}

    @given(order=st.permutations(["gpt-4o", "o1-mini", "llama-3.1-8b-instruct", "mistral-7b-instruct"]))
    def test_the_order_of_models_is_irrelevant(self, order: list[str], builtin: QualityModel) -> None:
        """Each model's prediction is the same in any order."""
        expected = builtin.predict(PROMPTS[1], sorted(order))
        assert dict(builtin.predict(PROMPTS[1], order)) == dict(expected)

    def test_company_is_irrelevant(self, builtin: QualityModel) -> None:
        """A model's prediction is the same alone and among all others, up to rounding."""
        among = builtin.predict(PROMPTS[0], sorted(builtin.models))["gpt-4o"]
        alone = builtin.predict(PROMPTS[0], ["gpt-4o"])["gpt-4o"]
        assert alone.mean == pytest.approx(among.mean, rel=1e-5)
        assert alone.standard_error == pytest.approx(among.standard_error, rel=1e-3)

    def test_many_catalogs_keep_their_own_predictions(self, builtin: QualityModel) -> None:
        """However many sequences of names are asked in turn, each gets the predictions of its own models."""
        models = sorted(builtin.models)
        catalogs = [models[start : start + 3] for start in range(len(models) - 3)]
        first = [dict(builtin.predict(PROMPTS[0], catalog)) for catalog in catalogs]
        assert [list(predictions) for predictions in first] == catalogs
        assert [dict(builtin.predict(PROMPTS[0], catalog)) for catalog in catalogs] == first

    def test_the_latents_are_the_reading_and_the_booster(self, builtin: QualityModel) -> None:
        """To the linear reading the trees add what XGBoost says of the prompt's features, bit for bit."""
        for prompt in PROMPTS:
            position, length_latent = builtin.latent(prompt)
            vector = builtin.features(prompt)
            read_by_trees = vector[np.newaxis, : builtin.booster.num_features()]
            added = builtin.booster.inplace_predict(read_by_trees, validate_features=False)[0]
            expected = added + builtin.features.base(vector)
            assert [*position.tolist(), length_latent] == [1.0, *expected.tolist()]

    def test_quality_depends_on_the_prompt(self, builtin: QualityModel) -> None:
        """The same model is not equally good at everything."""
        means = [builtin.predict(prompt, ["llama-3.1-8b-instruct"])["llama-3.1-8b-instruct"].mean for prompt in PROMPTS]
        assert max(means) - min(means) > 0.2

    def test_the_ranking_depends_on_the_prompt(self, builtin: QualityModel) -> None:
        """At least one pair of models changes places from one prompt to another."""
        models = sorted(profile.model for profile in builtin.profiles)
        rankings = set()
        for prompt in PROMPTS:
            predictions = builtin.predict(prompt, models)
            rankings.add(tuple(sorted(models, key=lambda model: predictions[model].mean)))
        assert len(rankings) > 1

    def test_a_strong_model_is_better_than_a_weak_one_at_mathematics(self, builtin: QualityModel) -> None:
        """The model knows the difference that everybody knows."""
        predictions = builtin.predict(PROMPTS[1], ["o1-mini", "gemma-2-2b-it"])
        assert predictions["o1-mini"].mean > predictions["gemma-2-2b-it"].mean + 0.2


class TestNames:
    """How a catalog's name finds its profile."""

    def test_names_are_normalised(self) -> None:
        """Case and vendor do not matter."""
        assert normalised("OpenAI/GPT-4o") == normalised("gpt-4o") == "gpt-4o"

    def test_an_alias_is_the_same_model(self, builtin: QualityModel) -> None:
        """A floating name and a vendor prefix lead to the same prediction, each under the name that was asked."""
        names = ["gpt-4o", "openai/gpt-4o-2024-08-06", "GPT-4o"]
        predictions = builtin.predict(PROMPTS[0], names)
        assert set(predictions) == set(names)
        assert len({prediction.mean for prediction in predictions.values()}) == 1

    def test_a_stand_in_is_less_certain(self, builtin: QualityModel) -> None:
        """An LLM that borrows a profile has the mean of its relative and a wider interval."""
        predictions = builtin.predict(PROMPTS[1], ["gpt-4o", "gpt-4.1"])
        assert predictions["gpt-4.1"].mean == predictions["gpt-4o"].mean
        assert predictions["gpt-4.1"].standard_error > predictions["gpt-4o"].standard_error

    def test_every_name_is_known_by_models(self, builtin: QualityModel) -> None:
        """`models` lists exactly the names for which there are predictions."""
        assert set(builtin.predict("Hello", sorted(builtin.models))) == builtin.models
