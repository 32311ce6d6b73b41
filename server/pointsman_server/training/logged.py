"""Labelled prompts from a decision log: what callers reported of answers, as training reads it.

A log has labels where its router chose to look: of the models that it favours, on the prompts that it gave them. Each
label is weighed by one over the probability with which its endpoint was chosen, so that a model is learned as if it had
been asked everything (Horvitz and Thompson, 1952). The weights of a model add up to what its labels are worth, Kish's
effective sample size, so that a few heavy ones do not pass for many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pointsman_server.decision_log.reader import DecisionLogReader, LoggedRequest
from pointsman_server.replay.again import logging_probabilities
from pointsman_server.training.dataset import Dataset, DatasetError, assembled
from pointsman_server.training.tables import Doubles, Table

LOG_SOURCE = "log"
"""The source of prompts from a decision log."""
WEIGHT_MAX = 50.0
"""What was chosen with less than 2 % counts as if with 2 %: a little bias for much less chance. It is the rate at which
routers explore by default."""


@dataclass(frozen=True, slots=True)
class LoggedLabels:
    """What a log gives to learn from."""

    dataset: Dataset
    decision_count: int
    """All of them."""
    without_quality_count: int
    without_prompt_count: int
    """Judged, but the log does not keep prompts."""
    failed_over_count: int
    """Judged, but the answer is of an endpoint that was not chosen, with a probability that nobody knows."""


@dataclass(slots=True)
class _Label:
    """A judged answer."""

    prompt_id: str
    text: str
    model: str
    quality: float
    weight: float
    cost_usd: float | None
    output_token_count: int | None
    input_token_count: int | None
    duration_s: float | None


@dataclass(slots=True)
class _Collected:
    """What has been found so far."""

    labels: list[_Label] = field(default_factory=list)
    decision_count: int = 0
    without_quality_count: int = 0
    without_prompt_count: int = 0
    failed_over_count: int = 0

    def add(self, request: LoggedRequest) -> None:
        """One more decision, if there is anything to learn from it."""
        self.decision_count += 1
        logged, quality = request.decision, request.quality
        chosen = logged.decision.chosen
        if quality is None or chosen is None:
            self.without_quality_count += 1
        elif logged.prompt.text is None or not logged.prompt.text.strip():
            self.without_prompt_count += 1
        elif request.answered_by != chosen.endpoint.name:
            self.failed_over_count += 1
        else:
            probability = logging_probabilities(logged)[0].get(chosen.endpoint.name, 1.0)
            model = logged.setting.quality_names.get(chosen.endpoint.model, chosen.endpoint.model)
            self.labels.append(_label(request, model, logged.prompt.text, quality, min(WEIGHT_MAX, 1.0 / probability)))


def load_logged(directory: Path, *, progress: Callable[[], None]) -> LoggedLabels:
    """The judged answers in a decision log.

    Args:
        directory: Where the log is.
        progress: Told of each decision that is read.

    Raises:
        DecisionLogError: there is no log, or it is of another version.
        DatasetError: nothing in it can be learned from.
    """
    collected = _Collected()
    for request in DecisionLogReader(directory).requests():
        collected.add(request)
        progress()
    if not collected.labels:
        raise DatasetError(
            f"{directory}: none of {collected.decision_count} decisions can be learned from: {_lacking(collected)}"
        )
    return LoggedLabels(
        dataset=_dataset(collected.labels, directory),
        decision_count=collected.decision_count,
        without_quality_count=collected.without_quality_count,
        without_prompt_count=collected.without_prompt_count,
        failed_over_count=collected.failed_over_count,
    )


def _lacking(collected: _Collected) -> str:
    return (
        f"{collected.without_quality_count} have no reported quality (ReportOutcome), {collected.without_prompt_count} no"
        f" prompt (decision_log.keep_prompts), {collected.failed_over_count} were answered by another endpoint"
    )


def _label(request: LoggedRequest, model: str, text: str, quality: float, weight: float) -> _Label:
    completion = request.completion
    told = [report for report in request.reports if report.output_token_count is not None]
    used = [attempt for attempt in completion.attempts if attempt.failure is None] if completion is not None else []
    source = used[-1] if used else told[-1] if told else None
    return _Label(
        prompt_id=request.decision.decision_id,
        text=text,
        model=model,
        quality=quality,
        weight=weight,
        cost_usd=None if completion is None else completion.cost_usd,
        output_token_count=None if source is None else source.output_token_count,
        input_token_count=None if source is None else source.input_token_count,
        duration_s=None if completion is None else completion.duration_s,
    )


def _dataset(labels: list[_Label], directory: Path) -> Dataset:
    ids = [label.prompt_id for label in labels]
    numbers = range(1, len(labels) + 1)
    outcomes: dict[str, Sequence[object] | Doubles] = {
        "prompt_id": ids,
        "model": [label.model for label in labels],
        "quality": _numbers([label.quality for label in labels]),
        "weight": _effective_weights(labels),
        "cost_usd": _numbers([label.cost_usd for label in labels]),
        "output_tokens": _numbers([label.output_token_count for label in labels]),
        "input_tokens": _numbers([label.input_token_count for label in labels]),
        "latency_s": _numbers([label.duration_s for label in labels]),
    }
    prompts: dict[str, Sequence[object] | Doubles] = {
        "prompt_id": ids,
        "prompt": [label.text for label in labels],
        "source": [LOG_SOURCE] * len(labels),
    }
    return assembled(Table(str(directory), prompts, numbers), Table(str(directory), outcomes, numbers))


def _effective_weights(labels: list[_Label]) -> Doubles:
    """The weights, scaled for each model so that they add up to its effective sample size."""
    weights = np.array([label.weight for label in labels])
    models = [label.model for label in labels]
    for model in set(models):
        own = np.array([other == model for other in models])
        weights[own] *= weights[own].sum() / (weights[own] ** 2).sum()
    return weights


def _numbers(values: Sequence[float | None]) -> Doubles:
    return np.array([np.nan if value is None else float(value) for value in values])
