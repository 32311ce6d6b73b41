"""Measuring a model, on a small world and on samples whose figures can be worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from pointsman_server.quality.model import QualityModel
from pointsman_server.training.baselines import best, category_table, chosen
from pointsman_server.training.comparison import Sample, cost_figures, pair_figures, routing_figures
from pointsman_server.training.costs import CostBasis, Costs, Price
from pointsman_server.training.dataset import Dataset
from pointsman_server.training.evaluate import ALL, EvaluationSettings, evaluate, evaluated, measure
from pointsman_server.training.figures import ChosenOn, Evaluation, as_json
from pointsman_server.training.honesty import CELL_SIZE_MIN, Groups, prediction_figures
from pointsman_server.training.metrics import apgr, auc, brier, ece
from pointsman_server.training.names import UnknownModelError
from pointsman_server.training.predictions import Predictions, predictions
from pointsman_server.training.resampling import Measured, Resamples
from training.world import TRUTH

PRICES = {"mathematician": Price(1.0, 1.0), "historian": Price(1.0, 3.0), "average": Price(20.0, 60.0)}
FEW = 200
"""Resamples that are enough to see an interval."""


def measured_world(model: QualityModel, dataset: Dataset, settings: EvaluationSettings) -> Evaluation:
    """The evaluation, and that all prompts were counted."""
    done: list[int] = []
    found = measure(model, dataset, settings, done.append)
    assert sum(done) == evaluated(dataset, settings.split).sum()
    return found


def settled(found: Measured) -> bool:
    """Whether a measure has a value, within its interval."""
    return found.low <= found.value <= found.high


@pytest.fixture(scope="module")
def evaluation(small_model: QualityModel, small_world: Dataset) -> Evaluation:
    """The small world's test split, with prices and a pair."""
    settings = EvaluationSettings("test", pair=("mathematician", "average"), prices=PRICES, resample_count=FEW)
    return measured_world(small_model, small_world, settings)


class TestMeasure:
    """A whole data set."""

    def test_routing_beats_every_baseline(self, evaluation: Evaluation) -> None:
        """Where prompts tell who is good at them, following the predictions is far better than any one model, certainly
        so, and as good as knowing the category."""
        (part,) = evaluation.parts
        assert part.routing is not None
        policies = part.routing.policies
        assert list(policies) == [
            "router", "random", "cheapest", "prompt_length", "best_single", "best_per_category", "oracle",
        ]  # fmt: skip
        assert policies["router"].accuracy.value > policies["best_single"].accuracy.value + 0.2
        assert part.routing.gain_over_best_single.low > 0.0
        assert part.routing.gain.value == pytest.approx(0.0, abs=0.03)
        values = [policy.accuracy.value for policy in policies.values()]
        assert max(values) == policies["oracle"].accuracy.value
        assert all(settled(policy.accuracy) for policy in policies.values())
        assert part.routing.cheapest_model == "historian"

    def test_costs_are_compared(self, evaluation: Evaluation) -> None:
        """With prices, each policy has a cost and a score; the router's envelope lies above the single models' and below
        the oracle's, and the dearest model's quality is reached for less than it costs."""
        (part,) = evaluation.parts
        assert part.cost is not None
        assert part.cost.basis is CostBasis.LIST_PRICE
        aiq = {name: found.value for name, found in part.cost.aiq.items()}
        assert aiq["zero_router"] < aiq["router"] < aiq["oracle"]
        assert 0.0 < part.cost.share_of_cost_at_98.value <= part.cost.share_of_cost_at_100.value < 1.0
        assert part.cost.cost_saved_at_98.value == pytest.approx(1.0 - part.cost.share_of_cost_at_98.value)
        assert part.cost.cost_saved_at_98.low <= part.cost.cost_saved_at_98.high
        low, high = part.cost.cost_range_usd
        assert low < high
        assert part.routing is not None
        for policy in part.routing.policies.values():
            assert policy.cost_usd is not None
            assert low <= policy.cost_usd.value <= high
            assert policy.arena_score is not None
            assert settled(policy.arena_score)

    def test_a_pair_is_measured(self, small_model: QualityModel, small_world: Dataset) -> None:
        """Where three prompts in four are the strong model's, the order is that of the predicted differences, and all of
        the gap is recovered long before all calls are strong; random orders recover half of it."""
        mostly = (small_world.categories == "mathematics") | (np.arange(len(small_world.texts)) % 3 == 0)
        settings = EvaluationSettings(ALL, pair=("mathematician", "average"), resample_count=FEW)
        (part,) = measured_world(small_model, small_world.where(mostly), settings).parts
        assert part.pair is not None
        assert (part.pair.strong, part.pair.weak) == ("mathematician", "average")
        routers = part.pair.routers
        part_of_world = small_world.where(mostly)
        found = predictions(
            small_model, part_of_world.texts.tolist(), ("mathematician", "average"), lambda _count: None
        )
        strong, _, weak = part_of_world.quality.T[::-1].astype(np.float64)
        expected = apgr(found.quality[:, 0] - found.quality[:, 1], strong, weak)
        assert routers["router"].apgr.value == pytest.approx(expected)
        assert settled(routers["router"].apgr)
        assert routers["router"].cpt_50.value < routers["router"].cpt_80.value < routers["router"].cpt_95.value < 0.8
        assert routers["random"].apgr.low < 0.5 < routers["random"].apgr.high

    def test_predictions_are_true(self, evaluation: Evaluation) -> None:
        """The predicted probabilities rank and are calibrated, and the intervals of all cells hold or nearly so."""
        (part,) = evaluation.parts
        assert part.predictions is not None
        assert part.predictions.auc_within_model.low > 0.6
        assert part.predictions.brier.high < 0.25
        assert part.predictions.ece.value < 0.1
        assert part.predictions.cell_count == 2 * len(TRUTH)
        assert part.predictions.coverage_90.value >= 4 / 6

    def test_the_seed_decides(self, small_model: QualityModel, small_world: Dataset, evaluation: Evaluation) -> None:
        """The same seed gives the same figures, and another one the same values with other intervals."""
        settings = EvaluationSettings("test", pair=("mathematician", "average"), prices=PRICES, resample_count=FEW)
        again, other = (
            measured_world(small_model, small_world, replace(settings, seed=seed)) for seed in (settings.seed, 9)
        )
        assert as_json(again) == as_json(evaluation)
        assert as_json(other)["parts"] != as_json(evaluation)["parts"]
        for first, second in zip(other.parts, evaluation.parts, strict=True):
            assert first.routing is not None
            assert second.routing is not None
            assert first.routing.gain.value == second.routing.gain.value

    def test_json_has_no_nan(self, evaluation: Evaluation) -> None:
        """The figures are valid JSON, with null for what is not defined, under a named and numbered format."""
        written = json.dumps(as_json(evaluation), allow_nan=False)
        assert json.loads(written)["format"] == "pointsman.evaluation"
        assert json.loads(written)["format_version"] == 1

    def test_models_can_be_chosen(self, small_model: QualityModel, small_world: Dataset) -> None:
        """Only the models that are asked for take part; one that the data lacks is answered with those near it."""
        settings = EvaluationSettings("test", models=("own/historian", "AVERAGE"), resample_count=0)
        (part,) = measured_world(small_model, small_world, settings).parts
        assert part.models.known == part.models.routed == ("average", "historian")
        with pytest.raises(UnknownModelError) as caught:
            measured_world(small_model, small_world, replace(settings, models=("historiann",)))
        assert str(caught.value).startswith("the data has no model historiann; near it: historian")

    def test_unknown_models_are_left_out(self, small_model: QualityModel, small_world: Dataset) -> None:
        """A model that the artifact does not know is named, and takes part in nothing."""
        stranger = replace(small_world, endpoints=(("own", "stranger"), *small_world.endpoints[1:]))
        (part,) = measured_world(small_model, stranger, EvaluationSettings(resample_count=0)).parts
        assert part.models.unknown == ("stranger",)
        assert part.models.routed == ("historian", "mathematician")

    def test_a_source_of_strangers_has_no_figures(self, small_model: QualityModel, small_world: Dataset) -> None:
        """Where no model is known, nothing is measured, and that is told."""
        strangers = replace(small_world, endpoints=tuple(("own", f"stranger-{n}") for n in range(3)))
        (part,) = measured_world(small_model, strangers, EvaluationSettings(resample_count=0)).parts
        assert (part.predictions, part.routing, part.cost, part.pair) == (None, None, None, None)
        assert len(part.models.unknown) == 3

    def test_without_a_train_split_baselines_choose_on_what_is_measured(
        self, small_model: QualityModel, small_world: Dataset
    ) -> None:
        """Where nothing else is there, the best single model is the best in hindsight, and the part says so."""
        only = small_world.in_split("test")
        (part,) = measured_world(small_model, only, EvaluationSettings(ALL, resample_count=0)).parts
        assert part.chosen_on is ChosenOn.EVALUATED
        assert part.routing is not None
        assert part.routing.policies["best_single"].accuracy.value == pytest.approx(only.quality.mean(axis=0).max())

    def test_contaminated_prompts_are_left_out(self, small_model: QualityModel, small_world: Dataset) -> None:
        """A prompt with that tag is not measured, and is counted."""
        tags = np.where(np.arange(len(small_world.texts)) % 3 == 0, "old,contaminated", "").astype(object)
        tagged = replace(small_world, tags=tags)
        (part,) = measured_world(small_model, tagged, EvaluationSettings(ALL, resample_count=0)).parts
        assert part.contaminated_count == len(tags) // 3
        assert part.prompt_count == len(tags) - len(tags) // 3

    def test_each_data_set_of_a_source_is_a_part(self, small_model: QualityModel, small_world: Dataset) -> None:
        """A source with several data sets is measured whole and one by one; each part is what it would be alone."""
        names = np.where(np.arange(len(small_world.texts)) % 2 == 0, "even", "odd").astype(object)
        several = replace(small_world, datasets=names)
        settings = EvaluationSettings(resample_count=FEW)
        whole, even, odd = measured_world(small_model, several, settings).parts
        assert [part.dataset for part in (whole, even, odd)] == [None, "even", "odd"]
        assert even.prompt_count + odd.prompt_count == whole.prompt_count
        (alone,) = measured_world(small_model, several.where(names == "even"), settings).parts
        assert replace(alone, dataset="even") == even

    def test_plain_numbers_are_the_same(self, small_model: QualityModel, small_world: Dataset) -> None:
        """The main metrics, as a manifest has them, are the values of the figures."""
        metrics = evaluate(small_model, small_world, split="test")["own"]
        (part,) = measured_world(small_model, small_world, EvaluationSettings(resample_count=0)).parts
        assert part.routing is not None
        assert part.predictions is not None
        assert metrics["accuracy"] == part.routing.policies["router"].accuracy.value
        assert metrics["brier"] == part.predictions.brier.value
        assert metrics["routing_models"] == 3.0


class TestSamples:
    """Figures of numbers that can be worked out."""

    COUNT = 60
    EASY = np.arange(COUNT) % 2 == 0
    """Every other prompt is one that both models answer; the rest only the first, at ten times the cost."""
    QUALITY = np.column_stack((np.ones(COUNT), EASY)).astype(np.float64)
    COST = np.tile([0.010, 0.001], (COUNT, 1))
    CATEGORIES = np.where(EASY, "easy", "hard").astype(object)
    SAMPLE = Sample(
        models=("large", "small"),
        quality=QUALITY,
        predicted=np.column_stack((np.full(COUNT, 0.9), np.where(EASY, 0.9, 0.1))),
        categories=CATEGORIES,
        lengths=(7 * np.arange(COUNT) % COUNT).astype(np.float64),
        questions=np.array([f"q{number}" for number in range(COUNT)], dtype=object),
        train_quality=QUALITY,
        train_categories=CATEGORIES,
        train_lengths=(7 * np.arange(COUNT) % COUNT).astype(np.float64),
        cost_usd=COST,
        expected_cost_usd=COST,
    )

    def test_routing_by_hand(self) -> None:
        """The oracle pays the small model wherever it is good; chance is right three times in four."""
        found = routing_figures(self.SAMPLE, seed=1, resample_count=FEW)
        values = {name: policy.accuracy.value for name, policy in found.policies.items()}
        assert values == {
            "router": 1.0, "random": 0.75, "cheapest": 0.5, "prompt_length": 1.0, "best_single": 1.0,
            "best_per_category": 1.0, "oracle": 1.0,
        }  # fmt: skip
        oracle = found.policies["oracle"].cost_usd
        assert oracle is not None
        assert oracle.value == pytest.approx(0.0055)
        assert (found.best_single_model, found.cheapest_model) == ("large", "small")
        assert found.gain == Measured(0.0, 0.0, 0.0)

    def test_costs_by_hand(self) -> None:
        """The router that knows which prompts are easy goes from all small (0.5 at 0.001) straight to all of the quality
        at 0.0055, which is 55 % of the large model's cost; mixing the two models goes straight to 1 at 0.010."""
        costs = Costs(CostBasis.MEASURED, self.COST, (None, None))
        found = cost_figures(self.SAMPLE, costs, seed=1, resample_count=FEW)
        assert found.cost_range_usd == pytest.approx((0.001, 0.010))
        assert found.aiq["zero_router"].value == pytest.approx(0.75)
        assert found.aiq["router"].value == pytest.approx(0.875)
        assert found.aiq["best_per_category"].value == pytest.approx(0.875)
        assert found.share_of_cost_at_100.value == pytest.approx(0.55)
        # 98 % of the quality is 24/25 of the way from 0.5 to 1.
        assert found.share_of_cost_at_98.value == pytest.approx((0.001 + 0.96 * 0.0045) / 0.010)
        assert all(settled(each) for each in found.aiq.values())

    def test_a_pair_by_hand(self) -> None:
        """The router's order is that of its predicted differences: half of the calls recover all of the gap."""
        found = pair_figures(self.SAMPLE, seed=1, resample_count=FEW)
        win = self.SAMPLE.predicted[:, 0] - self.SAMPLE.predicted[:, 1]
        assert found.routers["router"].apgr.value == apgr(win, *self.QUALITY.T)
        assert found.routers["router"].cpt_50.value == pytest.approx(0.25)
        assert found.routers["best_per_category"].apgr.value == found.routers["router"].apgr.value
        assert found.strong_accuracy.value == 1.0
        assert found.weak_accuracy.value == 0.5

    def test_a_pair_s_interval_is_that_of_the_resampled_order(self) -> None:
        """Sorting once and weighing gives what weighing and sorting anew gives."""
        found = pair_figures(self.SAMPLE, seed=1, resample_count=FEW).routers["prompt_length"].apgr
        drawn = Resamples.of(self.SAMPLE.questions, seed=1, resample_count=FEW).each(
            lambda weight: apgr(self.SAMPLE.lengths, *self.QUALITY.T, weight=weight)
        )
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))))

    def test_the_gain_is_over_the_better_one(self) -> None:
        """Where the category table is the better baseline, the gain is over that."""
        worse = replace(self.SAMPLE, predicted=self.SAMPLE.predicted[:, ::-1], cost_usd=None, expected_cost_usd=None)
        found = routing_figures(worse, seed=1, resample_count=FEW)
        table = category_table(worse.train_quality, worse.train_categories, worse.categories)
        expected = chosen(worse.quality, best(worse.predicted)).mean() - chosen(worse.quality, best(table)).mean()
        assert found.gain.value == pytest.approx(expected)
        assert "cheapest" not in found.policies
        assert found.policies["router"].cost_usd is None


class TestHonesty:
    """How true predictions are."""

    RNG = np.random.default_rng(2)
    QUALITY = RNG.uniform(0.1, 0.9, size=(400, 2))
    OBSERVED = np.where(RNG.random((400, 2)) < 0.1, np.nan, (RNG.random((400, 2)) < QUALITY).astype(np.float64))
    GROUPS = Groups(np.arange(400).astype(object), np.array(["a", "b"] * 200, dtype=object))

    def test_figures_are_those_of_the_measures(self) -> None:
        """All known outcomes count once: AUC within each model and averaged, Brier score and calibration error of all."""
        predicted = Predictions(self.QUALITY, np.full((400, 2), 0.05), np.full((400, 2), np.nan))
        found = prediction_figures(predicted, self.OBSERVED, self.GROUPS, seed=1, count=FEW)
        assert found is not None
        known = np.isfinite(self.OBSERVED)
        values, outcomes = self.QUALITY[known], self.OBSERVED[known]
        areas = [auc(self.QUALITY[known[:, c], c], self.OBSERVED[known[:, c], c]) for c in range(2)]
        assert found.outcome_count == known.sum()
        assert found.auc_within_model.value == pytest.approx(np.mean(areas))
        assert found.brier.value == pytest.approx(brier(values, outcomes))
        assert found.ece.value == pytest.approx(ece(values, outcomes))
        assert settled(found.auc_within_model)
        assert settled(found.brier)
        assert found.ece.low < found.ece.high
        assert found.cell_count == 4

    @pytest.mark.parametrize(("error", "expected"), [(0.0, 0.0), (0.3, 1.0)])
    def test_intervals_hold_where_they_are_wide_enough(self, error: float, expected: float) -> None:
        """Predictions that are 0.3 too high in every cell lie outside of intervals of no width, and inside wide ones."""
        predicted = Predictions(np.clip(self.QUALITY + 0.3, 0, 2), np.full((400, 2), error), self.QUALITY)
        found = prediction_figures(predicted, self.OBSERVED, self.GROUPS, seed=1, count=FEW)
        assert found is not None
        assert found.coverage_90.value == expected

    def test_small_cells_say_nothing(self) -> None:
        """A category with too few prompts is no cell; without an outcome there is no figure at all."""
        few = CELL_SIZE_MIN - 1
        predicted = Predictions(*(self.QUALITY[:few] for _ in range(3)))
        groups = Groups(np.arange(few).astype(object), np.full(few, "a", dtype=object))
        found = prediction_figures(predicted, np.round(self.QUALITY[:few]), groups, seed=1, count=FEW)
        assert found is not None
        assert found.cell_count == 0
        assert math.isnan(found.coverage_90.value)
        assert prediction_figures(predicted, np.full((few, 2), np.nan), groups, seed=1, count=FEW) is None


class TestPredictions:
    """Asking a model many times."""

    def test_they_are_what_the_model_says(self, small_model: QualityModel, small_world: Dataset) -> None:
        """Row by row the arrays hold what `predict` gives, a name that stands twice in both of its columns."""
        texts = small_world.texts[:5].tolist()
        done: list[int] = []
        found = predictions(small_model, texts, ("historian", "average", "historian"), done.append)
        assert done == [1] * 5
        for row, text in enumerate(texts):
            expected = small_model.predict(text, ("historian", "average"))
            assert found.quality[row].tolist() == [
                expected["historian"].mean, expected["average"].mean, expected["historian"].mean,
            ]  # fmt: skip
            assert found.output_tokens[row, 1] == expected["average"].output_token_count
        low, high = found.interval
        assert np.all((low >= 0.0) & (low <= found.quality) & (found.quality <= high) & (high <= 1.0))
        assert low[0, 0] == pytest.approx(max(0.0, found.quality[0, 0] - 1.645 * found.standard_error[0, 0]))
