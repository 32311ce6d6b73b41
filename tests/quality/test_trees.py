"""The booster as arrays: the same outputs as XGBoost itself gives."""

from collections.abc import Sequence

import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from pointsman_server.errors import ArtifactError
from pointsman_server.quality.model import Floats, QualityModel
from pointsman_server.quality.trees import DEPTH_MAX, CompleteTrees

FEATURE_COUNT = 5
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VECTORS = st_numpy.arrays(np.float32, FEATURE_COUNT, elements=st.floats(-4, 4, width=32) | FLOATS)
VECTOR_LEAVES = {"multi_strategy": "multi_output_tree", "tree_method": "hist", "base_score": 0.0, "nthread": 1}


def train(parameters: dict[str, object], *, round_count: int = 8, output_count: int = 3) -> xgboost.Booster:
    """A booster of random targets."""
    rng = np.random.default_rng(7)
    inputs = rng.normal(size=(2_000, FEATURE_COUNT)).astype(np.float32)
    targets = rng.normal(size=(2_000, output_count)) + np.abs(inputs[:, :1])
    return xgboost.train(parameters, xgboost.DMatrix(inputs, targets), num_boost_round=round_count)


def reference(booster: xgboost.Booster, vector: Floats) -> list[float]:
    """What XGBoost itself says."""
    outputs: list[float] = booster.inplace_predict(vector[np.newaxis], validate_features=False)[0].tolist()
    return outputs


@pytest.fixture(scope="module", params=[1, 2, 3, 4], ids="depth {}".format)
def booster(request: pytest.FixtureRequest) -> xgboost.Booster:
    """A booster of each depth, whose trees have leaves at several levels."""
    return train(VECTOR_LEAVES | {"max_depth": request.param, "gamma": 1.0})


@pytest.fixture(scope="module")
def trees(booster: xgboost.Booster) -> CompleteTrees:
    """The same as arrays."""
    return CompleteTrees.of(booster)


@pytest.fixture(scope="module")
def builtin_trees(builtin: QualityModel) -> CompleteTrees:
    """The trees that ship, as arrays."""
    return CompleteTrees.of(builtin.booster)


class TestPredict:
    """The walk of all trees at once."""

    @given(vector=VECTORS)
    def test_it_agrees_with_xgboost_to_the_last_bit(
        self, vector: Floats, booster: xgboost.Booster, trees: CompleteTrees
    ) -> None:
        """Any finite vector leads to the same leaves, added up in the same order."""
        assert trees.predict(vector).tolist() == reference(booster, vector)

    @given(scale=st.floats(0, 100), seed=st.integers(0, 2**32 - 1))
    def test_the_built_in_booster_agrees_too(
        self, scale: float, seed: int, builtin: QualityModel, builtin_trees: CompleteTrees
    ) -> None:
        """The trees that ship, on random features, near zero and far from it."""
        noise = np.random.default_rng(seed).normal(scale=scale, size=builtin.booster.num_features())
        vector = noise.astype(np.float32)
        assert builtin_trees.predict(vector).tolist() == reference(builtin.booster, vector)

    def test_a_value_on_the_threshold_goes_right(self, booster: xgboost.Booster, trees: CompleteTrees) -> None:
        """Vectors made of the trees' own thresholds, where rounding would show."""
        for threshold in trees.thresholds:
            vector = np.full(FEATURE_COUNT, threshold, dtype=np.float32)
            assert trees.predict(vector).tolist() == reference(booster, vector)

    def test_a_base_score_counts(self) -> None:
        """What the booster adds to every prediction is in the leaves."""
        booster = train(VECTOR_LEAVES | {"max_depth": 2, "base_score": 0.75})
        vector = np.zeros(FEATURE_COUNT, dtype=np.float32)
        assert CompleteTrees.of(booster).predict(vector).tolist() == pytest.approx(reference(booster, vector), rel=1e-6)

    def test_trees_of_one_leaf_have_one_answer(self) -> None:
        """A booster that found nothing to split on still predicts."""
        booster = train(VECTOR_LEAVES | {"max_depth": 2, "gamma": 1e9})
        vector = np.ones(FEATURE_COUNT, dtype=np.float32)
        assert CompleteTrees.of(booster).predict(vector).tolist() == reference(booster, vector)


REFUSALS: Sequence[tuple[dict[str, object], str]] = (
    (
        {"booster": "gblinear", "nthread": 1},
        "the booster is gblinear for reg:squarederror; train gbtree for reg:squarederror",
    ),
    (
        VECTOR_LEAVES | {"objective": "reg:absoluteerror"},
        "the booster is gbtree for reg:absoluteerror; train gbtree for reg:squarederror",
    ),
    (
        {"tree_method": "hist", "nthread": 1},
        "a leaf of the booster holds one output alone; train it with multi_output_tree",
    ),
    (
        VECTOR_LEAVES | {"max_depth": DEPTH_MAX + 1, "min_child_weight": 0.0},
        "the booster is 5 levels deep; train it with at most 4",
    ),
)


class TestRefusal:
    """Boosters that arrays of this kind don't hold."""

    @pytest.mark.parametrize(("parameters", "expected"), REFUSALS, ids=["linear", "objective", "scalar", "deep"])
    def test_another_kind_of_booster_is_refused(self, parameters: dict[str, object], expected: str) -> None:
        """The text says what the booster is and what it should be."""
        with pytest.raises(ArtifactError) as caught:
            CompleteTrees.of(train(parameters, round_count=1))
        assert str(caught.value) == expected
