"""From the journal to labels: each endpoint's answer scored, then one row per prompt and model, as training reads it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from pointsman_server.catalog.catalog import CatalogEntry
from pointsman_server.labelling.judge import Verdict, parsed_verdict, quality_of_grade
from pointsman_server.labelling.plan import Plan, answer_of, verdict_calls
from pointsman_server.labelling.prompts import LabelledPrompt
from pointsman_server.labelling.records import Answered, Ledger
from pointsman_server.labelling.scoring import Compared, Judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """One endpoint's answer to one prompt, scored."""

    prompt_id: str
    entry: CatalogEntry
    quality: float
    """0..1."""
    answer: Answered
    verdicts: tuple[Verdict, ...] = ()
    """What the judge said; of a comparison first with the answer shown before the baseline, then after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    """One row of `outcomes`: what a model made of a prompt. None is unknown."""

    prompt_id: str
    model: str
    quality: float
    input_tokens: float | None
    output_tokens: float | None
    cost_usd: float | None
    latency_s: float | None
    """From the request to the end of the answer."""
    ttft_s: float | None
    """From the request to the first piece of the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRow:
    """One row of `prompts`."""

    prompt_id: str
    prompt: str = field(repr=False)
    category: str
    split: str | None


def labels(plan: Plan, ledger: Ledger) -> tuple[Labelled, ...]:
    """Every label that the journal gives, in the order of prompts and endpoints. What is missing is left out: a call that
    failed says nothing of quality."""
    found = []
    for prompt in plan.prompts:
        for entry in plan.entries:
            label = _label(plan, ledger, prompt, entry)
            if label is not None:
                found.append(label)
    return tuple(found)


def _label(plan: Plan, ledger: Ledger, prompt: LabelledPrompt, entry: CatalogEntry) -> Labelled | None:
    answer = answer_of(plan, ledger, prompt, entry)
    if answer is None:
        return None
    if not isinstance(prompt.rule, Judged | Compared):
        quality: float | None = prompt.rule.score(answer.text)
        verdicts: tuple[Verdict, ...] = ()
    elif prompt.rule == Compared(None) and entry == plan.baseline:
        quality, verdicts = _baseline_quality(plan, ledger, prompt), ()
    else:
        verdicts = _verdicts(plan, ledger, prompt, entry, answer)
        quality = quality_of_grade(fmean(verdict.grade for verdict in verdicts)) if verdicts else None
    if quality is None:
        return None
    return Labelled(prompt_id=prompt.prompt_id, entry=entry, quality=quality, answer=answer, verdicts=verdicts)


def _verdicts(
    plan: Plan, ledger: Ledger, prompt: LabelledPrompt, entry: CatalogEntry, answer: Answered
) -> tuple[Verdict, ...]:
    """The verdicts on an answer; none where one of them is missing, because one order alone would be biased."""
    baseline = None if plan.baseline is None else answer_of(plan, ledger, prompt, plan.baseline)
    baseline_answer = None if baseline is None else baseline.text
    calls = verdict_calls(plan, prompt, entry, answer=answer.text, baseline_answer=baseline_answer)
    found = []
    for call in calls:
        record, place = ledger.answered.get(call.key), call.key.purpose.place
        verdict = None if record is None or place is None else parsed_verdict(record.text, place)
        if verdict is None:
            return ()
        found.append(verdict)
    return tuple(found)


def _baseline_quality(plan: Plan, ledger: Ledger, prompt: LabelledPrompt) -> float | None:
    """The mean of all grades that the baseline endpoint's answer got beside the others; None where it got none."""
    grades = []
    for entry in plan.entries:
        answer = None if entry == plan.baseline else answer_of(plan, ledger, prompt, entry)
        if answer is not None:
            verdicts = _verdicts(plan, ledger, prompt, entry, answer)
            grades += [verdict.baseline_grade for verdict in verdicts if verdict.baseline_grade is not None]
    return quality_of_grade(fmean(grades)) if grades else None


def outcome_rows(labelled: Iterable[Labelled]) -> tuple[OutcomeRow, ...]:
    """One row per prompt and model, in the order in which they come: where a model was asked at several providers, the
    means of what they gave."""
    groups: dict[tuple[str, str], list[Labelled]] = {}
    for label in labelled:
        groups.setdefault((label.prompt_id, label.entry.endpoint.model), []).append(label)
    return tuple(_outcome_row(prompt_id, model, group) for (prompt_id, model), group in groups.items())


def _outcome_row(prompt_id: str, model: str, same: Sequence[Labelled]) -> OutcomeRow:
    answers = [label.answer for label in same]
    return OutcomeRow(
        prompt_id=prompt_id,
        model=model,
        quality=fmean(label.quality for label in same),
        input_tokens=_mean(answer.input_token_count for answer in answers),
        output_tokens=_mean(answer.output_token_count for answer in answers),
        cost_usd=_mean(None if answer.is_cost_estimated else answer.cost_usd for answer in answers),
        latency_s=_mean(answer.latency_s for answer in answers),
        ttft_s=_mean(answer.ttft_s for answer in answers),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def prompt_rows(prompts: Iterable[LabelledPrompt], outcomes: Iterable[OutcomeRow]) -> tuple[PromptRow, ...]:
    """The prompts that have an outcome."""
    labelled = {row.prompt_id for row in outcomes}
    return tuple(
        PromptRow(prompt_id=prompt.prompt_id, prompt=prompt.text, category=prompt.category, split=prompt.split)
        for prompt in prompts
        if prompt.prompt_id in labelled
    )


NORMAL_QUANTILE_95 = 1.959964
"""Of the two-sided interval of 95 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSummary:
    """What came of one endpoint."""

    endpoint_name: str
    label_count: int
    quality_mean: float | None
    """None without a label; so are the bounds."""
    quality_low: float | None
    quality_high: float | None
    cost_usd: float | None
    """Of its labelled answers; None where a price is unknown."""
    is_cost_estimated: bool
    """Some provider did not count its tokens."""
    latency_s_median: float | None


def endpoint_summary(entry: CatalogEntry, labelled: Iterable[Labelled]) -> EndpointSummary:
    """Count, quality, cost and latency of the labelled answers of one endpoint."""
    own = [label for label in labelled if label.entry == entry]
    costs = [label.answer.cost_usd for label in own]
    known_costs = [cost for cost in costs if cost is not None]
    mean = fmean(label.quality for label in own) if own else None
    low, high = (None, None) if mean is None else mean_interval_95(mean, len(own))
    return EndpointSummary(
        endpoint_name=entry.endpoint.name,
        label_count=len(own),
        quality_mean=mean,
        quality_low=low,
        quality_high=high,
        cost_usd=sum(known_costs) if len(known_costs) == len(costs) else None,
        is_cost_estimated=any(label.answer.is_cost_estimated for label in own),
        latency_s_median=median(label.answer.latency_s for label in own) if own else None,
    )


def mean_interval_95(mean: float, count: int) -> tuple[float, float]:
    """Wilson's interval (1927) of a mean of values from 0 to 1: of right and wrong answers what it is made for, of grades in
    between, which spread less, wider than need be. It stays within 0..1 and says something even of one value."""
    assert count > 0, count
    z_squared = NORMAL_QUANTILE_95**2
    centre = (mean + z_squared / (2 * count)) / (1 + z_squared / count)
    half = (
        NORMAL_QUANTILE_95 * (mean * (1 - mean) / count + z_squared / (4 * count**2)) ** 0.5 / (1 + z_squared / count)
    )
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionBias:
    """How much the judge went by the order in which it saw two answers."""

    pair_count: int
    """Pairs that were judged in both orders."""
    flipped_count: int
    """Pairs in which each order preferred another answer."""
    first_grade_advantage: float
    """Mean grade of what was shown first minus that of what was shown second; 0 for a judge without bias."""


def position_bias(labelled: Iterable[Labelled]) -> PositionBias | None:
    """What the two orders say of the judge; None where nothing was compared."""
    leads = []
    for label in labelled:
        if len(label.verdicts) == 2:
            first, second = label.verdicts
            assert first.baseline_grade is not None, "compared in both orders"
            assert second.baseline_grade is not None, "compared in both orders"
            # By how much the answer leads the baseline when shown first, and when shown second.
            leads.append((first.grade - first.baseline_grade, second.grade - second.baseline_grade))
    if not leads:
        return None
    return PositionBias(
        pair_count=len(leads),
        flipped_count=sum(one * other < 0 for one, other in leads),
        first_grade_advantage=fmean((one - other) / 2 for one, other in leads),
    )
