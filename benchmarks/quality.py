"""How well the quality model routes, out of fold, beside what it has to beat.

    python -m benchmarks.quality --data DIR [--sets rl_gsm8k,llmrouter] [--seed 1]

Of each public set every question is predicted by a model that was trained on the other four fifths of the set's
questions and on nothing else, with the settings of `pointsman train`. The baselines choose on the same four fifths.
Figures have their bootstrap intervals. Results are written to benchmarks/results/quality.json and into docs/quality.md; a
set that is not asked for keeps its last figures.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet
from pointsman_server.quality.artifact import builtin_artifact_path, load
from pointsman_server.quality.features import FeatureExtractor, Window, pieces_of, plain_features
from pointsman_server.quality.model import QualityModel
from pointsman_server.training.baselines import best, category_table, chosen, length_table, single_table
from pointsman_server.training.build import MMLU_PRO_CHAT_MODELS
from pointsman_server.training.comparison import Sample, cost_figures, pair_figures, routing_figures
from pointsman_server.training.costs import Costs, Prices, costs_of, expected_costs, input_tokens, read_prices
from pointsman_server.training.dataset import Dataset, load_dataset
from pointsman_server.training.metrics import Doubles, auc, brier, ece
from pointsman_server.training.names import ModelNames
from pointsman_server.training.own import train_own
from pointsman_server.training.predictions import predictions
from pointsman_server.training.resampling import Measured, Resamples, bootstrap_interval, measured
from pointsman_server.training.train import BoosterSettings, fit_booster
from rich.progress import Progress, TaskID

from benchmarks.harness.machine import this_machine

RESULTS = Path(__file__).parent / "results"
DOCUMENT = Path(__file__).parents[1] / "docs" / "quality.md"
PRICES = Path(__file__).parent / "quality_prices.csv"
"""Of the models for which the data have neither a cost nor a list price: each line says where its price is from."""
BEGIN, END = "<!-- bench-quality -->\n", "<!-- end of bench-quality -->"
FOLD_COUNT = 5
DEFAULT_SEED = 1
COVERAGE_MIN = 0.9
"""A model takes part in a set if it answered this share of its prompts; only prompts that all answered count."""
NEIGHBOUR_COUNT = 50
"""Of the nearest-neighbour baseline, by the pooled embedding."""
STRONG, WEAK = "gpt-4-1106-preview", "mistralai/Mixtral-8x7B-Instruct-v0.1"
"""RouteLLM's pair."""
SETS = ("rl_mmlu", "rl_gsm8k", "rl_mt_bench", "routerbench", "llmrouter", "mmlu_pro", "zeroeval", "robustness")
ZEROEVAL_TASKS = ("gsm", "crux", "math-l5")
FLIP_POOL = (
    "gpt-4o",
    "gpt-4o-mini",
    "claude-3-5-sonnet",
    "llama-3.1-70b-instruct",
    "llama-3.1-8b-instruct",
    "qwen2.5-72b-instruct",
)
"""Among whom paraphrases are routed: the models of the tour, with their list prices there."""
COST_WEIGHT = 5.0
"""What a dollar is worth beside quality, as in the README's example `q:1|rc:5`."""


@dataclass(frozen=True, slots=True)
class OutOfFold(Sample):
    """A sample whose tables come from several folds."""

    stored: Mapping[str, Doubles] = field(default_factory=dict)

    @property
    def tables(self) -> Mapping[str, Doubles]:
        """What each kind of router expects, each prompt by what its fold's training prompts told."""
        return self.stored

    @classmethod
    def of(cls, part: Dataset, tables: Mapping[str, Doubles]) -> "OutOfFold":
        """The prompts of a set, with what every kind of router expects of them."""
        quality, lengths = part.quality.astype(np.float64), input_tokens(part)
        return cls(
            models=tuple(model for _, model in part.endpoints),
            quality=quality,
            predicted=tables["router"],
            categories=part.categories,
            lengths=lengths,
            questions=part.dedupe_keys,
            train_quality=quality,
            train_categories=part.categories,
            train_lengths=lengths,
            stored=tables,
        )

    def routed_by(self, name: str) -> "OutOfFold":
        """The same with another table in the place of the router's."""
        return replace(self, stored={**self.stored, "router": self.stored[name]})


def part_of(dataset: Dataset, name: str) -> Dataset:
    """The prompts and models of one set."""
    if name.startswith("rl_"):
        part = dataset.from_sources(["routellm"])
        kept = (part.datasets == name.removeprefix("rl_")) & ~part.tagged("contaminated")
        part = part.where(kept)
    else:
        part = dataset.from_sources([name])
        if name == "zeroeval":
            part = part.where(np.isin(part.datasets, ZEROEVAL_TASKS))
    coverage = np.isfinite(part.quality).mean(axis=0)
    columns = [
        column
        for column, (source, model) in enumerate(part.endpoints)
        if coverage[column] >= COVERAGE_MIN and (source != "mmlu_pro" or model in MMLU_PRO_CHAT_MODELS)
    ]
    part = part.of_endpoints(columns)
    return part.where(np.asarray(np.isfinite(part.quality).all(axis=1)))


def folds_of(part: Dataset, seed: int) -> npt.NDArray[np.intp]:
    """A fold per prompt; a question is in one."""
    keys, inverse = np.unique(part.dedupe_keys.astype(str), return_inverse=True)
    return np.asarray((np.random.default_rng(seed).permutation(len(keys)) % FOLD_COUNT)[inverse], dtype=np.intp)


def plain_matrix(features: FeatureExtractor, part: Dataset) -> npt.NDArray[np.float32]:
    """Embedding and surface features of every prompt, for the plain baselines."""
    rows = []
    for text in part.texts:
        window = Window().of(text)
        rows.append(
            plain_features(features.table, window, features.table.read(pieces_of(window)), character_count=len(text))
        )
    return np.stack(rows)


def nearest_table(known: npt.NDArray[np.float32], quality: Doubles, asked: npt.NDArray[np.float32]) -> Doubles:
    """Every prompt expects what each model reached on its nearest neighbours."""
    centre = known.mean(axis=0)
    unit = [
        (rows - centre) / np.maximum(np.linalg.norm(rows - centre, axis=1, keepdims=True), 1e-9)
        for rows in (known, asked)
    ]
    nearest = np.argpartition(-(unit[1] @ unit[0].T), NEIGHBOUR_COUNT, axis=1)[:, :NEIGHBOUR_COUNT]
    return np.asarray(quality[nearest].mean(axis=1))


PLAIN_XGBOOST = BoosterSettings(
    round_count=100, depth=6, learning_rate=0.1, child_weight_min=1.0, ridge=1.0, column_share=1.0
)
"""As one would train it without a second thought: every model's quality from embedding and surface features."""


def booster_progress(advance: Callable[[float], None], *, fold: int) -> Callable[[str, float], None]:
    """What `train` tells its progress to; the booster takes most of the time."""

    def told_of(step: str, share: float) -> None:
        if step == "booster":
            advance((fold + share) / FOLD_COUNT)

    return told_of


def out_of_fold(
    part: Dataset, *, seed: int, prices: Prices, advance: Callable[[float], None]
) -> tuple[OutOfFold, Costs | None]:
    """Everything predicted out of fold, and what the calls cost."""
    folds = folds_of(part, seed)
    quality = part.quality.astype(np.float64)
    lengths = input_tokens(part)
    costs = costs_of(part, range(len(part.endpoints)), prices)
    if costs is not None and len(costs.known) < len(part.endpoints):
        costs = None
    tables = {
        name: np.empty_like(quality)
        for name in ("router", "prompt_length", "best_single", "best_per_category", "plain_xgboost", "nearest")
    }
    expected = None if costs is None else np.empty_like(quality)
    for fold in range(FOLD_COUNT):
        inside, outside = folds != fold, folds == fold
        model = train_own(
            replace(part, splits=np.where(outside, "test", "train").astype(object)),
            seed=seed,
            name="fold",
            progress=booster_progress(advance, fold=fold),
        )
        names = [str(ModelNames.of(model).of_endpoint(endpoint)) for endpoint in part.endpoints]
        found = predictions(model, part.texts[outside].tolist(), names, lambda _count: None)
        plain = plain_matrix(model.features, part)
        embedding = plain[:, : model.features.table.scale.size]
        booster = fit_booster(plain[inside], quality[inside], PLAIN_XGBOOST, seed=seed)
        of_fold = {
            "router": found.quality,
            "prompt_length": length_table(quality[inside], lengths[inside], lengths[outside]),
            "best_single": single_table(quality[inside], int(outside.sum())),
            "best_per_category": category_table(quality[inside], part.categories[inside], part.categories[outside]),
            "plain_xgboost": booster.inplace_predict(plain[outside]).reshape(int(outside.sum()), -1),
            "nearest": nearest_table(embedding[inside], quality[inside], embedding[outside]),
        }
        for name, table in of_fold.items():
            tables[name][outside] = table
        if costs is not None and expected is not None:
            tokens = np.full(quality.shape, math.nan)
            tokens[outside] = found.output_tokens
            expected[outside] = expected_costs(
                costs, train=inside, evaluated=outside, lengths=lengths, output_tokens=tokens
            )
        advance((fold + 1) / FOLD_COUNT)
    paid = None if costs is None else costs.actual_usd
    return replace(OutOfFold.of(part, tables), cost_usd=paid, expected_cost_usd=expected), costs


def told(value: Measured) -> list[float]:
    """A figure with its interval, for JSON."""
    return [round(value.value, 5), round(value.low, 5), round(value.high, 5)]


def set_figures(sample: OutOfFold, costs: Costs | None, *, seed: int) -> dict[str, Any]:
    """Everything that is told of one set."""
    resamples = Resamples.of(sample.questions, seed=seed)
    routing = routing_figures(sample, seed=seed, resample_count=len(resamples.counts))
    accuracy = {name: told(policy.accuracy) for name, policy in routing.policies.items()}
    for name in ("plain_xgboost", "nearest"):
        column = chosen(sample.quality, best(sample.stored[name]))
        accuracy[name] = told(measured(float(column.mean()), resamples.means(column[:, np.newaxis])[:, 0]))
    predicted, observed = sample.predicted, sample.quality
    figures: dict[str, Any] = {
        "prompts": len(sample.quality),
        "models": len(sample.models),
        "accuracy": accuracy,
        "gain": told(routing.gain),
        "ece": round(ece(predicted.ravel(), observed.ravel()), 5),
        "brier": round(brier(predicted.ravel(), observed.ravel()), 5),
        "auc_within_model": round(
            float(np.nanmean([auc(predicted[:, m], observed[:, m]) for m in range(len(sample.models))])), 4
        ),
    }
    if costs is not None:
        found = cost_figures(sample, costs, seed=seed, resample_count=200)
        figures["cost"] = {
            "basis": str(costs.basis),
            "aiq": {name: told(value) for name, value in found.aiq.items()},
            "share_of_cost_at_98": told(found.share_of_cost_at_98),
            "share_of_cost_at_100": told(found.share_of_cost_at_100),
        }
        for name in ("plain_xgboost", "nearest"):
            other = cost_figures(sample.routed_by(name), costs, seed=seed, resample_count=0)
            figures["cost"]["aiq"][name] = told(other.aiq["router"])
    return figures


def apgr_figures(sample: OutOfFold, *, seed: int) -> dict[str, Any]:
    """APGR of every way to rank prompts for the strong model."""
    order = [sample.models.index(STRONG), sample.models.index(WEAK)]
    pair = replace(
        sample,
        models=(STRONG, WEAK),
        quality=sample.quality[:, order],
        stored={name: table[:, order] for name, table in sample.stored.items()},
    )
    figures = pair_figures(pair, seed=seed, resample_count=500)
    found = {name: told(each.apgr) for name, each in figures.routers.items()}
    for name in ("plain_xgboost", "nearest"):
        if name in pair.stored:
            found[name] = told(pair_figures(pair.routed_by(name), seed=seed, resample_count=0).routers["router"].apgr)
    return {"prompts": len(pair.quality), "apgr": found}


def transfer_figures(dataset: Dataset, *, seed: int, advance: Callable[[float], None]) -> dict[str, Any]:
    """MT-bench by a model of RouteLLM's MMLU and GSM8K alone, none of whose questions is MT-bench's."""
    known = dataset.from_sources(["routellm"])
    known = known.where(~known.tagged("contaminated") & np.isin(known.datasets, ("mmlu", "gsm8k")))
    asked = part_of(dataset, "rl_mt_bench")
    model = train_own(
        replace(known, splits=np.full(len(known.texts), "train", dtype=object)),
        seed=seed,
        name="transfer",
        progress=booster_progress(advance, fold=0),
    )
    names = [str(ModelNames.of(model).of_endpoint(endpoint)) for endpoint in asked.endpoints]
    quality = asked.quality.astype(np.float64)
    found = predictions(model, asked.texts.tolist(), names, lambda _count: None)
    tables = {"router": found.quality, "best_per_category": single_table(quality, len(quality))}
    return apgr_figures(OutOfFold.of(asked, tables), seed=seed)


def robustness_figures(model: QualityModel, dataset: Dataset, path: Path, *, seed: int) -> dict[str, Any]:
    """How often the shipped artifact's choice changes when RouterArena's questions are paraphrased."""
    rows = pyarrow.parquet.read_table(path, columns=["global_index", "paraphrased_prompt"]).to_pylist()
    text_of = dict(zip(dataset.prompt_ids.tolist(), dataset.texts.tolist(), strict=True))
    flips = []
    for row in rows:
        original = text_of.get(f"routerarena:{row['global_index']}")
        if original is not None:
            flips.append(float(choice(model, original) != choice(model, row["paraphrased_prompt"])))
    values = np.array(flips)
    questions = np.array([str(index) for index in range(len(flips))], dtype=object)
    rate = bootstrap_interval(lambda weight: float(values @ weight / weight.sum()), questions, seed=seed)
    return {"paraphrases": len(flips), "flip_rate": told(rate), "models": len(FLIP_POOL)}


PRICES_USD_PER_MTOK = {
    "gpt-4o": (2.5, 10.0), "gpt-4o-mini": (0.15, 0.6), "claude-3-5-sonnet": (3.0, 15.0),
    "llama-3.1-70b-instruct": (0.88, 0.88), "llama-3.1-8b-instruct": (0.18, 0.18), "qwen2.5-72b-instruct": (0.9, 0.9),
}  # fmt: skip


def choice(model: QualityModel, text: str) -> str:
    """The model of `FLIP_POOL` with the highest quality less what it costs."""
    found = model.predict(text, FLIP_POOL)

    def utility(name: str) -> float:
        per_input, per_output = PRICES_USD_PER_MTOK[name]
        tokens = found[name].output_token_count or 0.0
        return found[name].mean - COST_WEIGHT * (per_input * len(text) / 4.0 + per_output * tokens) / 1e6

    return max((name for name in FLIP_POOL if name in found), key=utility)


def page(report: Mapping[str, Any]) -> str:
    """The figures as Markdown tables."""
    sets: dict[str, dict[str, Any]] = report["sets"]
    lines = [
        f"Made by `make bench-quality` (seed {report['seed']}, commit {report['machine']['git_commit']}, {report['machine']['date'][:10]}). Five folds over all questions of a set; intervals are 95 %, by bootstrap over questions.",
        "",
        "### APGR between gpt-4-1106-preview and mixtral-8x7b (RouteLLM's sets)",
        "",
        "| set | prompts | Pointsman | random | prompt length | category table | plain XGBoost | nearest neighbours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ("rl_mmlu", "rl_gsm8k", "rl_mt_bench"):
        if name in sets:
            apgr: dict[str, list[float]] = sets[name]["apgr"]
            cells = [
                _cell(apgr.get(key), 3)
                for key in ("router", "random", "prompt_length", "best_per_category", "plain_xgboost", "nearest")
            ]
            lines.append(f"| {name.removeprefix('rl_')} | {sets[name]['prompts']} | " + " | ".join(cells) + " |")
    order = (
        "router",
        "random",
        "cheapest",
        "prompt_length",
        "best_single",
        "best_per_category",
        "plain_xgboost",
        "nearest",
        "oracle",
    )
    lines += [
        "",
        "### Accuracy, every prompt sent to the model predicted best, %",
        "",
        "| | " + " | ".join(n for n in sets if "accuracy" in sets[n]) + " |",
    ]
    shown = [n for n in sets if "accuracy" in sets[n]]
    lines.append("|---" * (len(shown) + 1) + "|")
    for policy in order:
        row = [_cell(sets[n]["accuracy"].get(policy), 2, 100.0) for n in shown]
        lines.append(f"| {policy.replace('_', ' ')} | " + " | ".join(row) + " |")
    lines.append(
        "| gain over the better of best single and category table | "
        + " | ".join(_cell(sets[n]["gain"], 2, 100.0) for n in shown)
        + " |"
    )
    for key in ("ece", "brier", "auc_within_model"):
        lines.append(f"| {key.replace('_', ' ')} | " + " | ".join(f"{sets[n][key]:.3f}" for n in shown) + " |")
    priced = [n for n in shown if "cost" in sets[n]]
    lines += ["", "### Cost", "", "| | " + " | ".join(priced) + " |", "|---" * (len(priced) + 1) + "|"]
    lines.append("| cost from | " + " | ".join(str(sets[n]["cost"]["basis"]).replace("_", " ") for n in priced) + " |")
    for key in ("router", "zero_router", "prompt_length", "best_per_category", "plain_xgboost", "nearest", "oracle"):
        lines.append(
            f"| AIQ, {key.replace('_', ' ')} | "
            + " | ".join(_cell(sets[n]["cost"]["aiq"].get(key), 3) for n in priced)
            + " |"
        )
    for key, words in (
        ("share_of_cost_at_98", "share of the best single's cost at 98 % of its accuracy, %"),
        ("share_of_cost_at_100", "the same at 100 %, %"),
    ):
        lines.append(f"| {words} | " + " | ".join(_cell(sets[n]["cost"][key], 0, 100.0) for n in priced) + " |")
    if "robustness" in sets:
        robust = sets["robustness"]
        lines += [
            "",
            f"RouterArena's paraphrases ({robust['paraphrases']}): the shipped artifact's choice among {robust['models']} models changes for {_cell(robust['flip_rate'], 1, 100.0)} %.",
        ]
    return "\n".join(lines) + "\n"


def _cell(values: list[float] | None, digits: int, factor: float = 1.0) -> str:
    if values is None or not math.isfinite(values[0]):
        return ""
    value, low, high = (factor * number for number in values)
    interval = f" ({low:.{digits}f} to {high:.{digits}f})" if math.isfinite(low) else ""
    return f"{value:.{digits}f}{interval}"


def list_prices(data: Path) -> Prices:
    """Those of the data, and of models that have none there `PRICES`."""
    given = data / "model_prices.csv"
    return {**read_prices(PRICES), **(read_prices(given) if given.is_file() else {})}


def measure(name: str, dataset: Dataset, data: Path, *, seed: int, advance: Callable[[float], None]) -> dict[str, Any]:
    """The figures of one set."""
    if name == "robustness":
        return robustness_figures(
            load(builtin_artifact_path()), dataset, data / "routerarena_robustness.parquet", seed=seed
        )
    if name == "rl_mt_bench":
        return transfer_figures(dataset, seed=seed, advance=advance)
    part = part_of(dataset, name)
    sample, costs = out_of_fold(part, seed=seed, prices=list_prices(data), advance=advance)
    figures = set_figures(sample, costs, seed=seed)
    return figures | apgr_figures(sample, seed=seed) if name.startswith("rl_") else figures


def document(tables: str) -> None:
    """Puts the tables into the log of experiments."""
    before, begin, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"{DOCUMENT} has the marks between which the tables stand"
    DOCUMENT.write_text(f"{before}{begin}\n{tables}{end}{after}", encoding="utf-8")


def _advance(progress: Progress, task: TaskID, share: float) -> None:
    progress.update(task, completed=share)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    options = parser.parse_args()
    out = RESULTS / "quality.json"
    before = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {"sets": {}}
    dataset = load_dataset(options.data)
    with Progress() as progress:
        for name in options.sets.split(","):
            task = progress.add_task(name, total=1.0)
            started_s = time.perf_counter()
            before["sets"][name] = measure(
                name,
                dataset,
                options.data,
                seed=options.seed,
                advance=partial(_advance, progress, task),
            )
            before["sets"][name]["seconds"] = round(time.perf_counter() - started_s, 1)
            progress.update(task, completed=1.0)
            report = {
                "seed": options.seed,
                "machine": asdict(this_machine()),
                "sets": {key: before["sets"][key] for key in SETS if key in before["sets"]},
            }
            out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            document(page(report))
    print(page(report))


if __name__ == "__main__":
    main()
