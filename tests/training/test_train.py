"""Training on a small world, where the truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from pointsman_server.quality.model import QualityModel
from pointsman_server.training.dataset import Dataset, DatasetError
from pointsman_server.training.evaluate import evaluate
from pointsman_server.training.train import BoosterSettings, TrainingSettings, train
from pointsman_server.training.wording import CATEGORY_SIZE_MIN
from training.world import LENGTHS, TOPICS, TRUTH

SETTINGS = TrainingSettings(
    embedding_dimension_count=4, latent_count=2, booster=BoosterSettings(round_count=40, depth=3, learning_rate=0.2)
)
PROMPTS = {
    "mathematics": "250: theorem triangle equation angle sum matrix sum integral",
    "history": "250: empire queen war treaty century king war dynasty",
}


def _train(dataset: Dataset, *, seed: int = 1) -> QualityModel:
    return train(dataset, settings=SETTINGS, seed=seed, progress=lambda _step, _share: None, name="small", version="1")


@pytest.fixture(scope="module")
def model(small_world: Dataset) -> QualityModel:
    """A model of the small world."""
    return _train(small_world)


class TestTrain:
    """From labels to predictions."""

    @pytest.mark.parametrize("topic", sorted(TOPICS))
    def test_it_learns_who_is_good_at_what(self, model: QualityModel, topic: str) -> None:
        """Each model's predicted quality on a topic is near its true one, so the expert ranks first."""
        predictions = model.predict(PROMPTS[topic], sorted(TRUTH))
        for name, truth in TRUTH.items():
            assert predictions[name].mean == pytest.approx(truth[topic], abs=0.15)

    def test_it_learns_lengths(self, model: QualityModel) -> None:
        """The expected length of each model's answers is that of its labels."""
        predictions = model.predict(PROMPTS["history"], sorted(TRUTH))
        for name, length in LENGTHS.items():
            assert predictions[name].output_token_count == pytest.approx(length, rel=0.1)

    def test_without_lengths_they_are_unknown(self, small_world: Dataset) -> None:
        """Where no source tells lengths, none is made up."""
        model = _train(replace(small_world, output_tokens=np.full_like(small_world.output_tokens, np.nan)))
        assert model.predict(PROMPTS["history"], ["historian"])["historian"].output_token_count is None

    def test_the_seed_makes_it_reproducible(self, small_world: Dataset, model: QualityModel) -> None:
        """The same data and seed give the same booster and profiles, byte for byte."""
        again = _train(small_world)
        assert again.booster.save_raw("ubj") == model.booster.save_raw("ubj")
        assert again.table.weights.tobytes() == model.table.weights.tobytes()

    def test_routing_beats_every_single_model(self, small_world: Dataset, model: QualityModel) -> None:
        """On held-out prompts, following the predictions is far better than any one model, and close to the truth."""
        metrics = evaluate(model, small_world, split="test")["own"]
        assert metrics["accuracy"] > metrics["accuracy_best_single"] + 0.2
        assert metrics["accuracy"] == pytest.approx(0.9, abs=0.08)
        assert metrics["accuracy"] <= metrics["accuracy_oracle"]
        assert metrics["ece"] < 0.1

    def test_fewer_labels_widen_the_interval(self, small_world: Dataset) -> None:
        """A model with a fifth of the labels is predicted with a larger standard error."""
        quality = small_world.quality.copy()
        quality[::5] = small_world.quality[::5]
        sparse = np.arange(len(quality)) % 5 != 0
        quality[sparse, small_world.endpoints.index(("own", "average"))] = np.nan
        few = _train(replace(small_world, quality=quality)).predict(PROMPTS["history"], ["average", "historian"])
        assert few["average"].standard_error > few["historian"].standard_error

    def test_too_few_labels_are_refused(self, small_world: Dataset) -> None:
        """Without enough labels of any model there is nothing to train."""
        few = small_world.where(np.arange(len(small_world.texts)) < 40)
        with pytest.raises(DatasetError) as caught:
            _train(few)
        assert str(caught.value) == "no model has 50 outcomes in the train split, the least a profile needs"


class TestCategories:
    """What the profiles see of the categories."""

    def test_a_prompt_lies_where_its_categories_say(self, model: QualityModel) -> None:
        """Behind the latents stand the shares of the categories, and each topic has nearly all of its own."""
        places = []
        for prompt in PROMPTS.values():
            position, _ = model.latent(prompt)
            assert position[-2:].tolist() == model.features(prompt)[-2:].tolist()
            places.append(int(position[-2:].argmax()))
            assert position[-2:].max() > 0.9
        assert sorted(places) == [0, 1]

    def test_they_can_be_left_unseen(self, small_world: Dataset) -> None:
        """For several sources the profiles see the latents alone."""
        model = train(
            small_world,
            settings=replace(SETTINGS, sees_categories=False, loading_variance=0.02),
            seed=1,
            progress=lambda _step, _share: None,
            name="unseeing",
            version="1",
        )
        position, _ = model.latent(PROMPTS["history"])
        assert len(position) == model.table.weights.shape[1] == 1 + SETTINGS.latent_count

    def test_a_category_that_is_rare_in_a_fold_is_one_all_the_same(self, small_world: Dataset) -> None:
        """With just as many prompts as a category takes, it is told apart though some folds lack a few of them."""
        rare = small_world.groups == small_world.groups[0]
        kept = ~rare | (np.cumsum(rare & (small_world.splits == "train")) <= CATEGORY_SIZE_MIN)
        model = _train(small_world.where(kept))
        assert model.features.ngrams.category_count == 2
