"""Calibration of risks: the promise, on worlds where the truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from pointsman_server.decision.risk import ONLY_REFERENCE
from pointsman_server.training.dataset import Dataset, Strings
from pointsman_server.training.risk import (
    GAP_MAX,
    MODEL_COUNTS,
    POOL_COUNT,
    PROMPT_COUNT_MIN,
    RISKS,
    SHARES,
    Doubles,
    calibrate,
    largest_gaps,
    nearest_shortfalls,
)
from training.test_train import _train

WORLD_PROMPT_COUNT = 2000
MODEL_COUNT = 6
CALIBRATION_COUNT = 200
TEST_COUNT = 200
DRAW_COUNT = 200
SEED = 20261125


def world(rng: np.random.Generator, prompt_count: int) -> tuple[Doubles, Doubles]:
    """Predicted and observed quality of models whose graded answers share the luck of the prompt, and of predictions
    that are off by a tenth."""
    ability = np.linspace(0.4, 0.8, MODEL_COUNT)
    truth = np.clip(ability + rng.normal(0.0, 0.15, (prompt_count, MODEL_COUNT)), 0.02, 0.98)
    luck = np.clip(rng.random((prompt_count, 1)) + rng.normal(0.0, 0.2, (prompt_count, MODEL_COUNT)), 0.0, 1.0)
    observed = np.round(np.clip(1.0 + (truth - luck) * 3.0, 0.0, 1.0), 2)
    return np.clip(truth + rng.normal(0.0, 0.1, truth.shape), 0.0, 1.0), observed.astype(np.float64)


def named(count: int, name: str = "own") -> Strings:
    """The sources of that many prompts."""
    return np.array([name] * count, dtype=object)


@pytest.fixture(scope="module")
def nearest() -> Doubles:
    """The nearest shortfalls of a large world, from which small sets are drawn."""
    rng = np.random.default_rng(SEED)
    return nearest_shortfalls(*world(rng, WORLD_PROMPT_COUNT), rng=rng)


@pytest.mark.parametrize("model_count", [2, 5])
@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("risk", [0.05, 0.1, 0.2])
def test_the_stated_risk_holds(nearest: Doubles, model_count: int, share: float, risk: float) -> None:
    """Over 200 draws of held-out and of new prompts, some candidate that passes falls short on no more of the new ones
    than stated, on average and within what chance allows; and on nearly as many: the promise is not bought with
    silence."""
    rng = np.random.default_rng([SEED, round(risk * 100), round(share * 100)])
    wanted = RISKS.index(risk)
    nearest = nearest[:, MODEL_COUNTS.index(model_count), :, SHARES.index(share)]
    realised = []
    for _ in range(DRAW_COUNT):
        drawn = rng.permutation(WORLD_PROMPT_COUNT)[: CALIBRATION_COUNT + TEST_COUNT]
        gap_max = largest_gaps(nearest[drawn[:CALIBRATION_COUNT]])[wanted]
        realised.append(float((nearest[drawn[CALIBRATION_COUNT:]] <= gap_max).mean()))
    chance = 3.0 * float(np.std(realised)) / DRAW_COUNT**0.5
    assert np.mean(realised) <= risk + chance
    assert np.mean(realised) >= risk - 2.0 / (CALIBRATION_COUNT + 1) - chance


def test_the_promise_is_for_whoever_is_picked(nearest: Doubles) -> None:
    """A gap passes only if nobody within it falls short on more prompts than allowed: the count is exact."""
    few = nearest[:CALIBRATION_COUNT, -1, :, -1]
    for risk, gap_max in zip(RISKS, largest_gaps(few), strict=True):
        inside, beyond = (few <= gap_max).sum(), (few <= np.nextafter(gap_max, 2.0)).sum()
        allowed = (risk * (CALIBRATION_COUNT + 1) - 1.0) * POOL_COUNT
        assert inside <= allowed + 1e-9 < beyond


class TestCalibrate:
    """From held-out prompts to the table."""

    def test_too_few_prompts_promise_nothing(self) -> None:
        """Below the least number of prompts there is no table; prompts with one known outcome do not count."""
        rng = np.random.default_rng(SEED)
        predicted, observed = world(rng, PROMPT_COUNT_MIN)
        assert calibrate(predicted, observed, named(PROMPT_COUNT_MIN), rng=rng) is not None
        observed[0, 1:] = np.nan
        assert calibrate(predicted, observed, named(PROMPT_COUNT_MIN), rng=rng) is None

    def test_a_risk_below_what_the_prompts_can_show_leaves_the_best_alone(self) -> None:
        """With 60 to 160 prompts of a group the least risk that can be shown is 1 / (n + 1)."""
        gaps = largest_gaps(np.full((60, POOL_COUNT), np.inf))
        assert gaps[RISKS.index(0.01)] == ONLY_REFERENCE
        assert gaps[RISKS.index(0.02)] == GAP_MAX

    def test_equals_that_fall_short_do_not_pass(self) -> None:
        """A rival with the very prediction of the best one, which always fails, is told from it."""
        predicted = np.full((PROMPT_COUNT_MIN, 2), 0.7)
        observed = np.tile([1.0, 0.0], (PROMPT_COUNT_MIN, 1))
        table = calibrate(predicted, observed, named(PROMPT_COUNT_MIN), rng=np.random.default_rng(SEED))
        assert table is not None
        assert table.risk_of(0.0, share=1.0, model_count=2) > 0.4

    def test_the_hardest_source_decides(self) -> None:
        """Each source is calibrated by itself, and the smallest gap of all is taken."""
        rng = np.random.default_rng(SEED)
        (easy, right), (hard, mixed) = world(rng, 300), world(rng, 120)
        right = np.ones_like(right)
        both = calibrate(
            np.concatenate((easy, hard)),
            np.concatenate((right, mixed)),
            np.concatenate((named(300, "easy"), named(120, "hard"))),
            rng=np.random.default_rng(1),
        )
        alone = calibrate(easy, right, named(300, "easy"), rng=np.random.default_rng(1))
        assert both is not None
        assert alone is not None
        assert both.prompt_count == 120
        assert alone.gap_max[0][-1][RISKS.index(0.1)] == GAP_MAX
        assert both.gap_max[0][-1][RISKS.index(0.1)] < 0.5

    def test_small_sources_are_calibrated_together(self) -> None:
        """Sources with too few prompts make one group if they are enough together, or join the smallest that is."""
        rng = np.random.default_rng(SEED)

        def prompt_count(**sources: int) -> int | None:
            count = sum(sources.values())
            names = np.concatenate([named(number, name) for name, number in sources.items()])
            table = calibrate(*world(rng, count), names, rng=rng)
            return None if table is None else table.prompt_count

        assert prompt_count(a=60, b=60) == 120
        assert prompt_count(a=60, b=30) is None
        assert prompt_count(a=60, b=110, c=130) == 130
        assert prompt_count(a=60, b=70, c=140) == 130

    def test_graded_answers_tell_the_shares_apart(self) -> None:
        """Half of the best one's score is reached more often than all of it, so that more may pass."""
        rng = np.random.default_rng(SEED)
        table = calibrate(*world(rng, 400), named(400), rng=rng)
        assert table is not None
        index = RISKS.index(0.1)
        assert table.gap_max[0][0][index] > table.gap_max[0][-1][index]

    def test_more_models_fall_short_more_often(self) -> None:
        """The gap that two models may have is wider than that of nine."""
        rng = np.random.default_rng(SEED)
        table = calibrate(*world(rng, 400), named(400), rng=rng)
        assert table is not None
        index = RISKS.index(0.1)
        assert table.gap_max[0][-1][index] > table.gap_max[MODEL_COUNTS.index(9)][-1][index]

    def test_the_seed_makes_it_reproducible(self) -> None:
        """The same prompts and seed give the same table."""
        predicted, observed = world(np.random.default_rng(SEED), 150)
        first, second = (calibrate(predicted, observed, named(150), rng=np.random.default_rng(2)) for _ in range(2))
        assert first == second


class TestTrain:
    """The table in a trained model."""

    def test_a_model_knows_its_risks_only_from_held_out_prompts(self, small_world: Dataset) -> None:
        """With a val split of at least a hundred prompts the model has a table; without one it has none."""
        splits = small_world.splits.copy()
        splits[: PROMPT_COUNT_MIN + 50] = "val"
        table = _train(replace(small_world, splits=splits)).risk_table
        assert table is not None
        assert table.prompt_count >= PROMPT_COUNT_MIN
        assert _train(small_world.where(small_world.splits != "val")).risk_table is None
