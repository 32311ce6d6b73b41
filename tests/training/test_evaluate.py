"""Metrics, on numbers worked out by hand."""

import numpy as np
import pytest
from pointsman_server.training.evaluate import auc, calibration_error


class TestAuc:
    """Area under the ROC curve."""

    @pytest.mark.parametrize(
        ("predicted", "observed", "expected"),
        [
            ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1.0),
            ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 0.0),
            ([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1], 0.5),
            ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),
            ([0.1, 0.9], [1, 1], None),
        ],
    )
    def test_it_counts_ordered_pairs(
        self, predicted: list[float], observed: list[float], expected: float | None
    ) -> None:
        """The share of (good, bad) pairs in which the good one was predicted higher, ties counting half."""
        assert auc(np.array(predicted), np.array(observed, dtype=np.float64)) == expected


class TestCalibrationError:
    """Expected calibration error."""

    def test_true_probabilities_have_none(self) -> None:
        """Predictions that equal the observed means are perfectly calibrated."""
        predicted = np.repeat([0.25, 0.75], 30)
        observed = np.concatenate((np.tile([1.0, 0.0, 0.0, 0.0], 8)[:30], np.tile([1.0, 1.0, 1.0, 0.0], 8)[:30]))
        assert calibration_error(predicted, observed) <= 0.25

    def test_a_constant_error_is_found(self) -> None:
        """Predicting 0.9 where all fails is off by 0.9."""
        assert calibration_error(np.full(30, 0.9), np.zeros(30)) == pytest.approx(0.9)
