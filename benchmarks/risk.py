"""Does the stated risk hold? Relative floors with a risk, on test prompts that neither training nor calibration saw.

    python benchmarks/risk.py --data DIR

For every test prompt the shipped quality model predicts each model that answered it, and a real decision is made under
`rq.pNN>=r`. What the chosen candidate scored is then compared with what the reference, the model predicted best, scored.
The figures go to benchmarks/results/risk.md and risk.json.
"""

import argparse
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from pointsman_server.decision.decide import decide
from pointsman_server.decision.metrics import Metric
from pointsman_server.decision.types import (
    Bound,
    Comparison,
    DecisionInput,
    Endpoint,
    Policy,
    QualityPrediction,
    RequestFacts,
    RuntimeSnapshot,
)
from pointsman_server.quality.artifact import builtin_artifact_path, load
from pointsman_server.quality.model import QualityModel, normalised
from pointsman_server.training.build import MMLU_PRO_CHAT_MODELS, TRAINED_SOURCES, training_part
from pointsman_server.training.dataset import CHARACTERS_PER_TOKEN, Dataset, load_dataset
from pointsman_server.training.train import cells

RESULTS = Path(__file__).parent / "results"
RISKS = (0.05, 0.1, 0.2)
SHARES = (0.9, 1.0)
QUANTILES = (0.8, 0.9, 0.95)
"""Of the absolute floors."""
HEADINGS = (
    "prompts and models", "prompts", "models", "floor", "stated risk", "any passing falls short", "holds",
    "chosen falls short", "holds", "not the reference", "cost saved",
)  # fmt: skip
NORMAL_QUANTILE_95 = NormalDist().inv_cdf(0.975)
SHORTFALL_TOLERANCE = 1e-6
USUAL_OUTPUT_TOKEN_COUNT = 200.0
"""Of an answer, where a source tells no lengths at all."""
UNSEEN_SOURCES = ("routellm", "routerarena")
"""Never trained on or calibrated with: other prompts, other scoring, and models of which some are known only as newer
relatives of those that were measured."""

Price = tuple[float, float]
"""USD per million input and output tokens."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Prompts, and the models among which they are routed."""

    name: str
    prompts: Dataset
    columns: tuple[int, ...]
    """Of the models in the data."""
    models: tuple[str, ...]
    """The same, as the quality model knows them."""
    prices: tuple[Price | None, ...]

    @property
    def priced(self) -> bool:
        """Whether every model has a list price."""
        return None not in self.prices


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one prompt."""

    fell_short: bool
    """The chosen candidate: the cheapest that passes, or the one predicted worst where prices are not known."""
    any_fell_short: bool
    """Some candidate that passes: what is promised not to happen more often than stated."""
    left_reference: bool
    cost_usd: float
    reference_cost_usd: float


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one pool, share and risk. Shares 0..1, each interval of 95 %."""

    pool: str
    prompt_count: int
    model_count: int
    share: float
    risk: float
    fell_short: float
    fell_short_low: float
    fell_short_high: float
    any_fell_short: float
    any_fell_short_low: float
    any_fell_short_high: float
    left_reference: float
    cost_saved: float | None
    """Of what the reference alone would cost, at list prices; None where they are not known."""

    @property
    def holds(self) -> bool:
        """Whether the interval of the chosen candidates' risk reaches down to the stated one."""
        return self.fell_short_low <= self.risk

    @property
    def holds_for_any(self) -> bool:
        """Whether that of the worst possible choice does."""
        return self.any_fell_short_low <= self.risk


def pools(model: QualityModel, dataset: Dataset, prices: Mapping[str, Price]) -> Iterator[Pool]:
    """Each trained source's usual questions and all its questions, and sources that were never seen."""
    usual = training_part(dataset).in_split("test")
    whole = dataset.in_split("test")
    for source in (trained.name for trained in TRAINED_SOURCES):
        for label, part in ((source, usual), (f"{source}, all questions", whole)):
            if len((prompts := part.from_sources([source])).texts):
                yield from _both(label, model, prompts, prices)
    for source in UNSEEN_SOURCES:
        if len((prompts := whole.from_sources([source])).texts):
            yield from _both(f"{source}, never seen", model, prompts, prices)


def _both(label: str, model: QualityModel, prompts: Dataset, prices: Mapping[str, Price]) -> Iterator[Pool]:
    """The pool of all models and, where they are fewer, that of those with a price.

    A model is called by its own name, so that a stand-in is predicted as one.
    """
    by_endpoint = {endpoint: profile.model for profile in model.profiles for endpoint in profile.endpoints}
    names_of = {profile.model: (profile.model, *profile.aliases) for profile in model.profiles}
    column_of: dict[str, int] = {}
    for column, endpoint in enumerate(prompts.endpoints):
        known = by_endpoint.get(endpoint, normalised(endpoint[1]))
        if known in model.models and (endpoint[0] != "mmlu_pro" or endpoint[1] in MMLU_PRO_CHAT_MODELS):
            column_of.setdefault(known, column)
    price_of = {known: prices[name] for known in column_of for name in names_of.get(known, (known,)) if name in prices}
    priced = {known: column for known, column in column_of.items() if known in price_of}
    for suffix, chosen in (("", column_of), (", with prices", priced)):
        if len(chosen) > 1 and not (suffix and len(chosen) == len(column_of)):
            yield Pool(
                f"{label}{suffix}",
                prompts,
                tuple(chosen.values()),
                tuple(chosen),
                tuple(price_of.get(known) for known in chosen),
            )


def measure(model: QualityModel, pool: Pool, *, prompt_count_max: int | None) -> Iterator[Row]:
    """Every share and risk on one pool."""
    if prompt_count_max is not None:
        step = max(1, len(pool.prompts.texts) // prompt_count_max)
        pool = replace(pool, prompts=pool.prompts.where(np.arange(len(pool.prompts.texts)) % step == 0))
    predictions = [model.predict(text, pool.models) for text in pool.prompts.texts]
    answered = [np.flatnonzero(np.isfinite(row)) for row in pool.prompts.quality[:, pool.columns]]
    usable = [prompt for prompt, known in enumerate(answered) if len(known) > 1]
    for share in SHARES:
        for risk in RISKS:
            bound = Bound(Metric.RELATIVE_QUALITY, Comparison.GREATER_EQUAL, share, 1.0 - risk)
            outcomes = [
                outcome(model, pool, prompt, known=answered[prompt], predicted=predictions[prompt], bound=bound)
                for prompt in usable
            ]
            yield summary(pool, outcomes, share=share, risk=risk)


def outcome(
    model: QualityModel,
    pool: Pool,
    prompt: int,
    *,
    known: npt.NDArray[np.intp],
    predicted: Mapping[str, QualityPrediction],
    bound: Bound,
) -> Outcome:
    """What a decision under `bound` makes of one prompt, among the models that answered it."""
    position = {pool.models[index]: int(index) for index in known}
    decision = decide(
        DecisionInput(
            decision_id="benchmark",
            facts=RequestFacts(input_token_count=1),
            alternatives=(Policy(bounds=(bound,)),),
            endpoints=tuple(Endpoint(name, "list") for name in position),
            qualities=predicted,
            snapshot=RuntimeSnapshot(),
            seed=0,
            risk_table=model.risk_table,
        )
    )
    passing = [candidate.endpoint.model for candidate in decision.eligible]
    reference = min(position, key=lambda name: (-predicted[name].mean, name))
    score = {name: float(pool.prompts.quality[prompt, pool.columns[index]]) for name, index in position.items()}
    cost = {name: _cost_usd(pool, prompt, index) for name, index in position.items()}
    chosen = min(passing, key=lambda name: (cost[name] if pool.priced else predicted[name].mean, name))
    least = bound.limit * score[reference] - SHORTFALL_TOLERANCE
    return Outcome(
        fell_short=score[chosen] < least,
        any_fell_short=any(score[name] < least for name in passing),
        left_reference=chosen != reference,
        cost_usd=cost[chosen],
        reference_cost_usd=cost[reference],
    )


def _cost_usd(pool: Pool, prompt: int, index: int) -> float:
    """Of the answer that was given, at list price; where its length is not known, of one as long as the model's usual."""
    price = pool.prices[index]
    if price is None:
        return float("nan")
    tokens = pool.prompts.output_tokens[:, pool.columns[index]]
    known = tokens[np.isfinite(tokens)]
    usual = float(known.mean()) if len(known) else USUAL_OUTPUT_TOKEN_COUNT
    output_tokens = tokens[prompt] if np.isfinite(tokens[prompt]) else usual
    input_tokens = len(pool.prompts.texts[prompt]) / CHARACTERS_PER_TOKEN
    return float(price[0] * input_tokens + price[1] * output_tokens) * 1e-6


def summary(pool: Pool, outcomes: Sequence[Outcome], *, share: float, risk: float) -> Row:
    """The figures of all prompts."""
    chosen = [outcome.fell_short for outcome in outcomes]
    every = [outcome.any_fell_short for outcome in outcomes]
    saved = 1.0 - sum(o.cost_usd for o in outcomes) / sum(o.reference_cost_usd for o in outcomes)
    return Row(
        pool.name,
        len(outcomes),
        len(pool.models),
        share,
        risk,
        float(np.mean(chosen)),
        *wilson(sum(chosen), len(chosen)),
        float(np.mean(every)),
        *wilson(sum(every), len(every)),
        float(np.mean([outcome.left_reference for outcome in outcomes])),
        saved if pool.priced else None,
    )


def wilson(count: int, total: int) -> tuple[float, float]:
    """Wilson's interval of 95 % for a share (Wilson, 1927)."""
    z, share = NORMAL_QUANTILE_95, count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def floor_coverage(model: QualityModel, prompts: Dataset, quantile: float) -> tuple[int, float]:
    """Cells (one model, one category), and in which share of them the true mean is at least the floor that a prediction
    passes at that confidence; the noise of the cell's own sample is allowed for."""
    measured = cells(model, prompts)
    calibration, z = model.calibration, NormalDist().inv_cdf(quantile)
    errors = [
        (cell.standard_error(scale=calibration.variance_scale, floor=calibration.variance_floor) ** 2, cell)
        for cell in measured
    ]
    above = [cell.error >= -z * (variance + cell.noise_variance) ** 0.5 for variance, cell in errors]
    return len(above), float(np.mean(above)) if above else float("nan")


def read_prices(path: Path) -> dict[str, Price]:
    """List prices by normalised model name."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            normalised(line["model"]): (float(line["usd_per_1m_input"]), float(line["usd_per_1m_output"]))
            for line in csv.DictReader(file)
        }


def markdown(model: QualityModel, rows: Sequence[Row], coverage: Sequence[tuple[str, float, int, float]]) -> str:
    """The report."""
    prompt_count = 0 if model.risk_table is None else model.risk_table.prompt_count
    lines = [
        "# Does the stated risk hold?",
        "",
        f"Quality model `{model.name}` {model.version}, calibrated on held-out prompts, {prompt_count} of its smallest source.",
        "How to read it: [README](../README.md).",
        "",
        f"| {' | '.join(HEADINGS)} |",
        "|---|--:|--:|--:|--:|--:|---|--:|---|--:|--:|",
    ]
    for row in rows:
        saved = "" if row.cost_saved is None else f"{row.cost_saved:.0%}"
        lines.append(
            f"| {row.pool} | {row.prompt_count} | {row.model_count} | {row.share:g} | {row.risk:.0%} "
            f"| {row.any_fell_short:.1%} ({row.any_fell_short_low:.1%} to {row.any_fell_short_high:.1%}) "
            f"| {_yes(row.holds_for_any)} "
            f"| {row.fell_short:.1%} ({row.fell_short_low:.1%} to {row.fell_short_high:.1%}) "
            f"| {_yes(row.holds)} "
            f"| {row.left_reference:.0%} | {saved} |"
        )
    lines += [
        "",
        "## Absolute floors with a confidence",
        "",
        "| test prompts | confidence | cells | expected quality at or above the floor |",
        "|---|--:|--:|--:|",
        *(f"| {name} | {quantile:.0%} | {count} | {share:.1%} |" for name, quantile, count, share in coverage),
        "",
    ]
    return "\n".join(lines)


def _yes(holds: bool) -> str:  # noqa: FBT001 - it turns this into a word
    return "yes" if holds else "**no**"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data, with model_prices.csv")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--prompts", type=int, help="measure about so many prompts of each source alone, evenly spread")
    options = parser.parse_args()
    model, dataset = load(builtin_artifact_path()), load_dataset(options.data)
    rows: list[Row] = []
    for pool in pools(model, dataset, read_prices(options.data / "model_prices.csv")):
        rows += measure(model, pool, prompt_count_max=options.prompts)
        print(f"{pool.name}: {len(pool.models)} models", flush=True)
    coverage = []
    for source in (trained.name for trained in TRAINED_SOURCES):
        prompts = training_part(dataset).in_split("test").from_sources([source])
        if len(prompts.texts):
            coverage += [(source, quantile, *floor_coverage(model, prompts, quantile)) for quantile in QUANTILES]
    report = markdown(model, rows, coverage)
    print(report)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "risk.md").write_text(report, encoding="utf-8")
    values = {
        "artifact": f"{model.name} {model.version}",
        "results": [asdict(row) | {"holds": row.holds, "holds_for_any": row.holds_for_any} for row in rows],
        "absolute_floors": [
            {"prompts": name, "confidence": quantile, "cell_count": count, "share_above": share}
            for name, quantile, count, share in coverage
        ],
    }
    (options.out / "risk.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
