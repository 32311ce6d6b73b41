"""Drift is told where there is some, and hardly ever where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from decision_log.samples import SAMPLE, logged
from pointsman_server.decision.types import QualityPrediction
from pointsman_server.decision_log.reader import LoggedRequest
from pointsman_server.decision_log.records import LoggedReport, PromptTraits
from pointsman_server.quality.features import SURFACE_NAMES
from pointsman_server.replay.drift import BEST_QUALITY, Drift, distance, drift, holm


def requests(
    count: int, *, seed: int, bias: float = 0.0, late_bias: float = 0.0, late_length: float = 0.0, artifact: str = "a@1"
) -> list[LoggedRequest]:
    """Judged answers of a model that is calibrated but for `bias`, and from the middle on for `late_bias` too."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        is_late = number >= count // 2
        mean = float(rng.uniform(0.3, 0.8))
        qualities = {"large": QualityPrediction(mean, 0.05, 100.0), "small": QualityPrediction(0.1, 0.05, 100.0)}
        given = SAMPLE._replace(decision_id=f"d-{number}", qualities=qualities, quality_artifact=artifact)
        traits = rng.normal(size=len(SURFACE_NAMES))
        traits[0] += late_length * is_late
        record = logged(given, prompt=PromptTraits(100, tuple(traits.tolist())))
        chosen = record.decision.chosen
        assert chosen is not None
        good = float(rng.random() < mean + bias + late_bias * is_late)
        report = LoggedReport(
            decision_id=given.decision_id, time_unix_s=0.0, endpoint_name=chosen.endpoint.name, quality=good
        )
        found.append(LoggedRequest(record, None, (report,)))
    return found


def off(found: Drift) -> set[str]:
    """What is told of."""
    return {bias.of for bias in found.biases if bias.is_off} | {s.of for s in found.shifts if s.has_shifted}


def test_a_calibrated_model_fits() -> None:
    """Of twenty logs in which nothing changes at most two raise an alarm, as the stated one in twenty allows."""
    alarms = [off(drift(requests(300, seed=seed))) for seed in range(20)]
    assert sum(bool(alarm) for alarm in alarms) <= 2, alarms


def test_a_model_that_is_too_hopeful_is_told_of_by_name() -> None:
    """Its answers are 0.2 worse than predicted: all together are off, and so is the model."""
    found = drift(requests(400, seed=1, bias=-0.2))
    assert found.fits is False
    assert off(found) == {"all", "large"}
    of_all = found.biases[0]
    assert of_all.bias.low <= -0.2 <= of_all.bias.high
    assert of_all.reported - of_all.predicted == pytest.approx(of_all.bias.value)


def test_a_bias_that_does_not_matter_is_none() -> None:
    """However many judgements make it certain."""
    found = drift(requests(5000, seed=2, bias=-0.02))
    assert found.biases[0].bias.high < 0.0
    assert off(found) == set()


def test_what_has_changed_on_the_way_is_told() -> None:
    """A model that fitted in the first half and does not in the second, on longer prompts."""
    found = drift(requests(800, seed=3, late_bias=-0.25, late_length=1.0))
    assert "later - earlier" in off(found)
    assert found.shifts[0].of == SURFACE_NAMES[0]
    assert off(found) & set(SURFACE_NAMES) == {SURFACE_NAMES[0]}
    assert found.shifts[0].later - found.shifts[0].earlier == pytest.approx(1.0, abs=0.3)


def test_too_little_is_not_judged() -> None:
    """With a handful of judged answers nothing is said for or against the model."""
    found = drift(requests(20, seed=4, bias=-0.3))
    assert (found.fits, found.biases, found.shifts) == (None, (), ())


def test_only_the_last_artifact_is_judged() -> None:
    """Decisions by an older one are counted and left out."""
    found = drift([*requests(60, seed=5, bias=-0.3, artifact="a@0"), *requests(60, seed=6)])
    assert (found.artifact, found.decision_count, found.other_count) == ("a@1", 60, 60)
    assert found.biases[0].label_count == 60


def test_distances_are_those_of_the_tables() -> None:
    """Equal samples are at distance 0, separate ones at 1; in between the probability is Kolmogorov's."""
    numbers = np.arange(100.0)
    assert distance(numbers, numbers) == (0.0, 1.0)
    far, p_value = distance(numbers, numbers + 1000.0)
    assert (far, p_value < 1e-20) == (1.0, True)
    # scipy.stats.ks_2samp(range(100), [x + 20 for x in range(100)]): 0.2, asymptotically 0.0366.
    far, p_value = distance(numbers, numbers + 20.0)
    assert far == pytest.approx(0.2)
    assert p_value == pytest.approx(0.0366, abs=0.006)


def test_comparisons_are_taken_together() -> None:
    """What would show alone does not show among many; the strongest are taken first."""
    assert holm([0.04]) == [True]
    assert holm([0.04, 0.5]) == [False, False]
    assert holm([0.03, 0.001, 0.02]) == [True, True, True]
    assert holm([]) == []


def test_predictions_are_compared_too() -> None:
    """What the model expects of the best candidate is among what may move."""
    assert BEST_QUALITY in {shift.of for shift in drift(requests(300, seed=7)).shifts}
