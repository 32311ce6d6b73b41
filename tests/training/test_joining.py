"""LLMs that join a trained model with their own labels, in a world in which the truth is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from pointsman_server.quality.joining import ANCHOR_COUNT, Prior
from pointsman_server.quality.model import QualityModel
from pointsman_server.quality.published import with_published_scores
from pointsman_server.training.dataset import Dataset, DatasetError
from pointsman_server.training.joining import (
    Calibration,
    benchmark_members,
    calibrate,
    joined_length,
    posterior_of_labels,
)
from pointsman_server.training.train import BoosterSettings, TrainingSettings, train
from training.world import LENGTHS, TRUTH

SETTINGS = TrainingSettings(
    embedding_dimension_count=4, latent_count=2, booster=BoosterSettings(round_count=40, depth=3, learning_rate=0.2)
)
PROMPTS = {
    "mathematics": "250: theorem triangle equation angle sum matrix sum integral",
    "history": "250: empire queen war treaty century king war dynasty",
}
NEWCOMER = "historian"


def part_of(dataset: Dataset, *models: str) -> Dataset:
    """The same prompts with the outcomes of these models alone."""
    columns = [column for column, (_, model) in enumerate(dataset.endpoints) if model in models]
    return replace(
        dataset,
        endpoints=tuple(dataset.endpoints[column] for column in columns),
        quality=dataset.quality[:, columns],
        output_tokens=dataset.output_tokens[:, columns],
    )


def labelled(dataset: Dataset, count: int) -> Dataset:
    """The newcomer's outcomes on `count` prompts that no model was trained on."""
    held_out = part_of(dataset.where(dataset.splits != "train"), NEWCOMER)
    return held_out.where(np.arange(len(held_out.texts)) < count)


@pytest.fixture(scope="module")
def model(small_world: Dataset) -> QualityModel:
    """A model of the small world, in which the newcomer has not been seen."""
    known = part_of(small_world, *(set(TRUTH) - {NEWCOMER}))
    return train(known, settings=SETTINGS, seed=1, progress=lambda _step, _share: None, name="small", version="1")


@pytest.fixture(scope="module")
def calibrated(model: QualityModel, small_world: Dataset) -> Calibration:
    """The newcomer has joined with 100 labels."""
    return calibrate(model, labelled(small_world, 100), name=NEWCOMER)


class TestCalibrate:
    """From a few labels to a profile."""

    @pytest.mark.parametrize("topic", sorted(PROMPTS))
    def test_it_learns_what_the_newcomer_is_good_at(self, calibrated: Calibration, topic: str) -> None:
        """A hundred labels of a model that is good where the trained ones are not come near the truth, which lies
        within three standard errors."""
        found = calibrated.model.predict(PROMPTS[topic], [NEWCOMER])[NEWCOMER]
        assert found.mean == pytest.approx(TRUTH[NEWCOMER][topic], abs=0.25)
        assert abs(found.mean - TRUTH[NEWCOMER][topic]) < 3.0 * found.standard_error

    def test_it_routes_the_newcomers_prompts_to_it(self, calibrated: Calibration) -> None:
        """Each topic's expert ranks first."""
        for topic, expert in (("mathematics", "mathematician"), ("history", NEWCOMER)):
            found = calibrated.model.predict(PROMPTS[topic], sorted(TRUTH))
            assert max(found, key=lambda name: found[name].mean) == expert

    def test_the_others_stay_as_they_are(self, model: QualityModel, calibrated: Calibration) -> None:
        """Every other profile is the same, bit for bit, and so are booster and features."""
        names = sorted(model.models)
        for prompt in PROMPTS.values():
            assert dict(calibrated.model.predict(prompt, names)) == dict(model.predict(prompt, names))
        assert calibrated.model.table.covariance[:-1].tobytes() == model.table.covariance.tobytes()
        assert calibrated.model.booster is model.booster

    def test_more_labels_narrow_the_interval(self, model: QualityModel, small_world: Dataset) -> None:
        """Twenty labels leave more open than fifty, and these more than a hundred and fifty."""
        errors = []
        for count in (20, 50, 150):
            joined = calibrate(model, labelled(small_world, count), name=NEWCOMER).model
            found = [joined.predict(prompt, [NEWCOMER])[NEWCOMER] for prompt in PROMPTS.values()]
            errors.append(sum(one.standard_error / (one.mean * (1.0 - one.mean)) for one in found))
        assert all(more > less for more, less in pairwise(errors))

    def test_it_learns_the_length(self, calibrated: Calibration) -> None:
        """The expected length is near that of its labels, though the trained models answer at greater length."""
        found = calibrated.model.predict(PROMPTS["history"], [NEWCOMER])[NEWCOMER]
        assert found.output_token_count == pytest.approx(LENGTHS[NEWCOMER], rel=0.15)

    def test_it_says_what_it_rests_on(self, calibrated: Calibration) -> None:
        """Labels and lengths are counted."""
        assert (calibrated.joined, calibrated.label_count, calibrated.length_count) == (NEWCOMER, 100, 100)
        assert calibrated.relative is None

    def test_the_version_depends_on_the_evidence_alone(self, model: QualityModel, small_world: Dataset) -> None:
        """The same labels in another order give the same version and profile; another label gives another version."""
        labels = labelled(small_world, 60)
        turned = labels.where(np.ones(60, dtype=np.bool_))
        turned = replace(
            turned,
            texts=turned.texts[::-1],
            quality=turned.quality[::-1],
            output_tokens=turned.output_tokens[::-1],
        )
        changed = labels.quality.copy()
        changed[0] = 1.0 - changed[0]
        one, same = (calibrate(model, data, name=NEWCOMER).model for data in (labels, turned))
        other = calibrate(model, replace(labels, quality=changed), name=NEWCOMER).model
        assert one.version.startswith("1+")
        assert one.version == same.version != other.version
        assert one.table.weights[-1] == pytest.approx(same.table.weights[-1], abs=1e-4)

    def test_joining_twice_keeps_the_version_short(self, calibrated: Calibration, small_world: Dataset) -> None:
        """A second calibration replaces what the first added to the version, and depends on it."""
        again = calibrate(calibrated.model, labelled(small_world, 60), name=NEWCOMER, replace=True).model
        assert again.version.count("+") == 1
        assert len(again.profiles) == len(calibrated.model.profiles)

    def test_a_relative_is_where_it_starts(self, model: QualityModel, small_world: Dataset) -> None:
        """With few labels a near relative of the mathematician is taken to be good at mathematics, unlike the average."""
        few = labelled(small_world, 20)
        few = replace(few, quality=np.full_like(few.quality, 0.5))
        near = calibrate(model, few, name=NEWCOMER, relative="mathematician")
        far = calibrate(model, few, name=NEWCOMER, relative="average")
        gap = [
            one.model.predict(PROMPTS["mathematics"], [NEWCOMER])[NEWCOMER].mean
            - one.model.predict(PROMPTS["history"], [NEWCOMER])[NEWCOMER].mean
            for one in (near, far)
        ]
        assert near.relative == "mathematician"
        assert gap[0] > gap[1] + 0.05


class TestRefusal:
    """What is not enough, or not what was meant."""

    def test_too_few_labels(self, model: QualityModel, small_world: Dataset) -> None:
        """Nineteen labels are refused, with how many are needed."""
        with pytest.raises(DatasetError) as caught:
            calibrate(model, labelled(small_world, 19), name=NEWCOMER)
        assert str(caught.value) == "19 labels of historian are too few: at least 20 are needed"

    def test_nobody_of_that_name(self, model: QualityModel, small_world: Dataset) -> None:
        """A name without outcomes is told, with the names that have some."""
        with pytest.raises(DatasetError) as caught:
            calibrate(model, labelled(small_world, 50), name="histrian")
        assert str(caught.value) == "there are no outcomes of histrian, only of historian"

    def test_a_model_that_is_known_already(self, calibrated: Calibration, small_world: Dataset) -> None:
        """A profile is not replaced unless that was asked for."""
        with pytest.raises(DatasetError) as caught:
            calibrate(calibrated.model, labelled(small_world, 50), name="Vendor/Historian")
        assert str(caught.value) == (
            "the artifact knows Vendor/Historian by its labels already; --replace takes these instead"
        )

    def test_an_unknown_relative(self, model: QualityModel, small_world: Dataset) -> None:
        """Who is to be a relative has to be known."""
        with pytest.raises(DatasetError) as caught:
            calibrate(model, labelled(small_world, 50), name=NEWCOMER, relative="nobody")
        assert str(caught.value) == "the artifact does not know nobody, of which historian is to be a relative"


class TestFitJoining:
    """What training keeps for models that join."""

    def test_there_are_anchors_of_every_kind_of_prompt(self, model: QualityModel) -> None:
        """Both topics are benchmarks, with as many anchors as there should be, near the prompts of that topic."""
        joining = model.joining
        assert joining.benchmarks == ("history", "mathematics")
        assert joining.anchors.shape[:2] == (2, ANCHOR_COUNT)

    def test_the_scores_of_a_known_model_give_its_profile_back(self, model: QualityModel, small_world: Dataset) -> None:
        """From nothing but the mathematician's true means on the two topics, a namesake is predicted nearly like it."""
        scores = {topic: TRUTH["mathematician"][topic] for topic in PROMPTS}
        joined = with_published_scores(model, {"namesake": scores})
        assert len(small_world.texts)
        for topic, prompt in PROMPTS.items():
            found = joined.predict(prompt, ["namesake"])["namesake"].mean
            assert found == pytest.approx(TRUTH["mathematician"][topic], abs=0.15)

    def test_benchmarks_are_wholes_and_their_parts(self) -> None:
        """A category is listed beside its benchmark, unless it is all of it or has too few prompts; names are lower."""
        categories = np.array(
            ["MMLU/Law"] * 40 + ["MMLU/Art"] * 35 + ["MMLU/Rest"] * 5 + ["gsm8k/x"] * 50 + [""] * 60, dtype=object
        )
        members = benchmark_members(categories)
        assert {name: len(rows) for name, rows in members.items()} == {
            "gsm8k": 50,
            "mmlu": 80,
            "mmlu/art": 35,
            "mmlu/law": 40,
        }
        assert list(members) == sorted(members)
        assert members["gsm8k"].tolist() == list(range(80, 130))


class TestPosteriorOfLabels:
    """How much labels move the prior."""

    PRIOR = Prior(mean=np.array([0.0, 1.0]), factor=np.diag([1.0, 0.15]))
    POSITIONS = np.column_stack((np.ones(80), np.tile([-1.5, 1.5], 40)))

    def slope(self, probabilities: tuple[float, float], count: int = 80) -> float:
        """The fitted slope of a model that answers well so often at the two positions."""
        rng = np.random.default_rng(3)
        odds = np.tile(np.array(probabilities), 40)[:count]
        labels = (rng.random(count) < odds).astype(np.float32)
        return float(posterior_of_labels(self.PRIOR, self.POSITIONS[:count], labels).weights[1])

    def test_an_odd_model_is_believed(self) -> None:
        """A model for which the hard prompts are the easy ones, against what is common, gets a slope against it; with
        the prior's own spread alone it would have kept a positive one."""
        assert self.slope((0.9, 0.1)) < -0.3

    def test_a_usual_model_stays_usual(self) -> None:
        """Labels as the prior expects them leave the slope near the prior's."""
        assert self.slope((0.18, 0.82)) == pytest.approx(1.0, abs=0.15)

    def test_the_interval_tells_how_likely_the_truth_is(self) -> None:
        """Over many models drawn from the prior and their labels, the weights lie within the stated 90 % interval about
        nine times in ten."""
        rng = np.random.default_rng(11)
        inside, total = 0, 0
        for _ in range(300):
            weights = self.PRIOR.mean + self.PRIOR.factor @ rng.normal(size=2)
            chance = 1.0 / (1.0 + np.exp(-self.POSITIONS @ weights))
            found = posterior_of_labels(self.PRIOR, self.POSITIONS, (rng.random(80) < chance).astype(np.float32))
            error = np.abs(found.weights - weights) / np.sqrt(np.diag(found.covariance))
            inside += int((error < 1.645).sum())
            total += 2
        assert 0.86 < inside / total < 0.97


class TestJoinedLength:
    """The expected length of a model that joins."""

    POOL = np.array([[5.0, 1.0], [6.0, 1.2], [np.nan, np.nan]], dtype=np.float32)
    LATENT = np.zeros(40)

    def lengths(self, count: int, tokens: float) -> npt.NDArray[np.float32]:
        """That many known lengths around a mean, the rest unknown."""
        spread = np.tile([0.5, 1.5], 20)
        return np.where(np.arange(40) < count, tokens * spread, np.nan).astype(np.float32)

    def test_without_lengths_it_is_the_pools(self) -> None:
        """Nothing known is the usual."""
        assert joined_length(self.POOL, self.LATENT, self.lengths(0, 1.0)) == pytest.approx((5.5, 1.1))

    def test_where_nobody_has_lengths_it_is_unknown(self) -> None:
        """No length is made up."""
        intercept, _ = joined_length(self.POOL[2:], self.LATENT, self.lengths(4, 100.0))
        assert np.isnan(intercept)

    def test_more_lengths_move_it_further_to_its_own(self) -> None:
        """A few lengths move it part of the way from the usual to the model's mean, many nearly all of it."""
        few, many = (joined_length(self.POOL, self.LATENT, self.lengths(n, 3000.0))[0] for n in (6, 40))
        assert 5.5 < few < many < np.log(3000.0)
        assert many == pytest.approx(np.log(3000.0), abs=0.15)
