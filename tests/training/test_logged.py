"""A decision log is a source of labels, each weighed by one over its propensity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from decision_log.samples import SAMPLE, logged
from pointsman_server.decision.assignment import assign
from pointsman_server.decision.resolve import NamedRouter
from pointsman_server.decision.router_string import parse_router_string
from pointsman_server.decision.types import Arm, Endpoint, Exploration, Policy, QualityPrediction, SearchSpace
from pointsman_server.decision_log.codec import LineWriter
from pointsman_server.decision_log.records import (
    CompletionResult,
    LoggedAttempt,
    LoggedCompletion,
    LoggedDecision,
    LoggedReport,
    PromptTraits,
    Record,
    Setting,
)
from pointsman_server.training.dataset import Dataset, DatasetError, joined
from pointsman_server.training.logged import LOG_SOURCE, WEIGHT_MAX, LoggedLabels, load_logged
from pointsman_server.training.profiles import Prior, fit_profile
from training.world import TOPICS, TRUTH

MODELS = tuple(TRUTH)
ENDPOINTS = tuple(Endpoint(model, "north", 1.0, 2.0) for model in MODELS)
ROUTERS = {
    "default": NamedRouter("default", exploration=Exploration(0.0), split=tuple(Arm(model, 0.2) for model in MODELS)),
    **{model: NamedRouter(model, (Policy(SearchSpace(models=frozenset({model}))),)) for model in MODELS},
}
"""Two of five requests go to the model that is best at the topic, each of the others to a model whatever the topic."""
SETTING = Setting(ENDPOINTS, {model: model for model in MODELS}, ROUTERS, dict.fromkeys(ROUTERS, ""))


def record(number: int, *, topic: str, keep_prompt: bool = True) -> tuple[LoggedDecision, str]:
    """A decision on a prompt of that topic, by predictions that are the truth, and who was chosen."""
    rng = np.random.default_rng((7, number))
    text = f"{number}: " + " ".join(rng.choice(TOPICS[topic], size=8))
    seed = int(rng.integers(2**63))
    assigned = assign(parse_router_string(""), ROUTERS, key="", seed=seed)
    router = ROUTERS[assigned.router_name]
    given = SAMPLE._replace(
        decision_id=f"d-{number}",
        seed=seed,
        endpoints=ENDPOINTS,
        alternatives=router.alternatives,
        exploration=router.exploration,
        router_name=router.name,
        assignment=assigned,
        qualities={model: QualityPrediction(TRUTH[model][topic], 0.05, 100.0) for model in MODELS},
    )
    traits = PromptTraits(len(text), (0.5,), text if keep_prompt else None)
    found = replace(logged(given, setting=SETTING, prompt=traits), asked=parse_router_string(""))
    chosen = found.decision.chosen
    assert chosen is not None
    return found, chosen.endpoint.name


def write(directory: Path, *, count: int, keep_prompt: bool = True) -> None:
    """A log of so many judged decisions."""
    rng, records = np.random.default_rng(8), list[Record]()
    for number in range(count):
        topic = str(rng.choice(sorted(TOPICS)))
        found, name = record(number, topic=topic, keep_prompt=keep_prompt)
        quality = float(rng.random() < TRUTH[name.partition("@")[0]][topic])
        attempt = LoggedAttempt(
            number=1, endpoint_name=name, input_token_count=12, output_token_count=90, cost_usd=0.01
        )
        completion = LoggedCompletion(
            decision_id=f"d-{number}",
            time_unix_s=1.0,
            result=CompletionResult.DONE,
            endpoint_name=name,
            duration_s=3.0,
            cost_usd=0.01,
            attempt_count=1,
            attempts=(attempt,),
        )
        report = LoggedReport(decision_id=f"d-{number}", time_unix_s=2.0, endpoint_name=name, quality=quality)
        records += [found, completion, report]
    _write(directory, records)


def _write(directory: Path, records: list[Record]) -> None:
    writer = LineWriter()
    lines = [line + b"\n" for each in records for line in writer.lines(each)]
    (directory / "decisions-1.jsonl").write_bytes(b"".join(lines))


def read(directory: Path) -> LoggedLabels:
    """What the log gives to learn from."""
    return load_logged(directory, progress=lambda: None)


def test_every_judged_answer_is_a_label(tmp_path: Path) -> None:
    """A prompt each, of the source `log`, with one outcome: of the model that was chosen, with what it cost."""
    write(tmp_path, count=40)
    found = read(tmp_path)
    dataset = found.dataset
    assert (found.decision_count, len(dataset.texts)) == (40, 40)
    assert set(dataset.sources) == {LOG_SOURCE}
    assert set(dataset.endpoints) <= {(LOG_SOURCE, model) for model in MODELS}
    known = ~np.isnan(dataset.quality)
    assert (known.sum(axis=1) == 1).all()
    assert (dataset.output_tokens[known] == 90.0).all()
    assert dataset.cost_usd[known] == pytest.approx(0.01)
    assert dataset.latency_s[known] == pytest.approx(3.0)
    assert str(dataset.texts[0]).startswith("0: ")


def test_weights_undo_the_choice_of_the_router(tmp_path: Path) -> None:
    """A model that is asked what it is good at looks better than it is; weighed, its labels tell its true mean over all
    prompts. The weights add up to what the labels are worth."""
    write(tmp_path, count=1500)
    dataset = read(tmp_path).dataset
    assert dataset.weight is not None
    for model in ("mathematician", "historian"):
        column = dataset.endpoints.index((LOG_SOURCE, model))
        known = ~np.isnan(dataset.quality[:, column])
        quality, weight = dataset.quality[known, column], dataset.weight[known, column]
        truth = np.mean(list(TRUTH[model].values()))
        assert quality.mean() > truth + 0.1
        assert np.average(quality, weights=weight) == pytest.approx(truth, abs=0.08)
        assert weight.sum() == pytest.approx(weight.sum() ** 2 / (weight**2).sum(), rel=1e-4)
        assert weight.sum() < known.sum()


def test_what_cannot_be_learned_from_is_counted_and_told(tmp_path: Path) -> None:
    """Without prompts, without judgements and after a failover there is no label, and the reasons are named."""
    write(tmp_path, count=3, keep_prompt=False)
    with pytest.raises(DatasetError, match=r"none of 3 decisions .* 0 have no reported quality .* 3 no prompt"):
        read(tmp_path)
    first, name = record(0, topic="history")
    unjudged, _ = record(1, topic="history")
    failed_over, other = record(2, topic="history")
    elsewhere = next(endpoint.name for endpoint in ENDPOINTS if endpoint.name != other)
    completion = LoggedCompletion(
        decision_id="d-2",
        time_unix_s=0.0,
        result=CompletionResult.DONE,
        endpoint_name=elsewhere,
        duration_s=1.0,
        attempt_count=2,
    )
    reports = [LoggedReport(decision_id=f"d-{n}", time_unix_s=0.0, endpoint_name=name, quality=1.0) for n in (0, 2)]
    _write(tmp_path, [first, unjudged, failed_over, completion, *reports])
    found = read(tmp_path)
    assert len(found.dataset.texts) == 1
    assert (found.without_quality_count, found.without_prompt_count, found.failed_over_count) == (1, 0, 1)


def test_no_label_counts_without_bound() -> None:
    """A weight is at most as if of a choice of 2 %."""
    assert WEIGHT_MAX == 1 / 0.02


def test_a_label_that_counts_twice_is_two_labels() -> None:
    """Profiles of weighed labels are those of labels that are repeated."""
    rng = np.random.default_rng(3)
    design, quality = rng.normal(size=(30, 3)), rng.integers(0, 2, size=30).astype(np.float32)
    prior = Prior(mean=np.zeros(3), precision=np.eye(3))
    count = rng.integers(1, 4, size=30)
    weighed, covariance = fit_profile(design, quality, prior, prior.mean, counted=count.astype(np.float32))
    repeated, expected = fit_profile(design.repeat(count, axis=0), quality.repeat(count), prior, prior.mean)
    assert weighed == pytest.approx(repeated)
    assert covariance == pytest.approx(expected)
    plain, _ = fit_profile(design, quality, prior, prior.mean)
    assert not np.allclose(plain, repeated, atol=1e-3)


def test_a_log_joins_other_data(small_world: Dataset, tmp_path: Path) -> None:
    """Rows and endpoints of both are there, each with its own, and nothing is known of the one at the other."""
    write(tmp_path, count=30)
    log = read(tmp_path).dataset
    both = joined(small_world, log)
    assert len(both.texts) == len(small_world.texts) + 30
    assert set(both.endpoints) == {*small_world.endpoints, *log.endpoints}
    old = both.from_sources(sorted(set(small_world.sources)))
    assert np.array_equal(old.quality, small_world.quality, equal_nan=True)
    assert log.weight is not None
    assert both.weight is not None
    of_log = both.from_sources([LOG_SOURCE]).weight
    assert of_log is not None
    assert np.array_equal(of_log, log.weight)
    assert (both.weight[: len(small_world.texts)] == 1.0).all()
    with pytest.raises(DatasetError, match="30 prompt_ids are in both"):
        joined(log, log)
