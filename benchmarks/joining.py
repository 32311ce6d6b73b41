"""How well an LLM joins a trained quality model without retraining, one model left out at a time.

    make bench-joining DATA=DIR

DIR holds prompts.parquet and outcomes.parquet of mmlu_pro, zeroeval and llmrouter. The judged LLMs are split into three
groups; for each group a model is trained on all the others' outcomes, booster and latents included. Each of the group
then joins that model by itself, and is judged on test prompts that nothing was trained on, beside a model that was
trained on its outcomes as well. Takes about ten minutes of one core. Writes benchmarks/results/joining.md and .json.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pointsman_server.quality.joining import SCORE_ERROR, SCORE_MARGIN, Posterior, log_odds, posterior_of_scores
from pointsman_server.quality.model import QualityModel
from pointsman_server.quality.published import fitting
from pointsman_server.training.build import MMLU_PRO_CHAT_MODELS, SETTINGS, training_part
from pointsman_server.training.dataset import Dataset, DatasetError, load_dataset
from pointsman_server.training.joining import benchmark_members, posterior_of_labels
from pointsman_server.training.llms import llm_of
from pointsman_server.training.train import CELL_SIZE_MIN, train

from benchmarks.harness.machine import Machine, this_machine

Doubles = npt.NDArray[np.float64]

RESULTS = Path(__file__).parent / "results"
SEED = 20261125
GROUP_COUNT = 3
"""A third of the judged LLMs is left out at a time: more trainings would take longer and hardly change the others."""
ZEROEVAL_COUNT = 12
"""LLMs of zeroeval that are judged, drawn among those that no other source has."""
ZEROEVAL_LABELS_MIN = 400
LABEL_COUNTS = (20, 50, 100, 200)
DRAW_COUNT = 5
"""Draws of labels per model and count, averaged."""
TEST_PROMPTS_MIN = 30
TRAIN_LABELS_MIN = 100
POOL_COVERAGE_MIN = 0.8
RESAMPLE_COUNT = 2000
NORMAL_QUANTILE_90 = 1.645
SOURCES = ("mmlu_pro", "zeroeval", "llmrouter")
WAYS = ("mean", "nothing", "scores", *(f"{count} labels" for count in LABEL_COUNTS), "retrained")
"""What is known of the model that joins."""
BARS = {"scores": 0.5, "50 labels": 0.75}
"""Share of the gain of full retraining in AUC."""
AIMS = {"scores": 0.7, "50 labels": 0.9}


@dataclass(frozen=True, slots=True)
class Judged:
    """One LLM in one source, by each way of joining."""

    model: str
    source: str
    auc: Mapping[str, float]
    accuracy: Mapping[str, float]
    """Of routing by predicted quality with it in the pool; empty where the pool has no prompt that all answered."""
    gain: Mapping[str, float]
    """That accuracy minus the one of the same pool, by the same predictions, without it."""
    error: Mapping[str, float]
    """Predicted minus observed mean quality, absolute."""
    cells: Mapping[str, tuple[int, int]]
    """Categories whose observed mean lies within the 90 % interval, and all of them."""


class World:
    """A trained model with the positions of the prompts that are not trained on."""

    def __init__(self, model: QualityModel, held_out: Dataset) -> None:
        self.model = model
        self.positions = np.stack([model.latent(text)[0] for text in held_out.texts]).astype(np.float64)

    def quality(self, posterior: Posterior, rows: npt.NDArray[np.bool_]) -> Doubles:
        """Predicted on these prompts."""
        return np.asarray(1.0 / (1.0 + np.exp(-self.positions[rows] @ posterior.weights)), dtype=np.float64)

    def known(self, name: str) -> Posterior:
        """The profile of a model that it was trained on."""
        found = self.model.found(name)
        assert found is not None, name
        return Posterior(self.model.table.weights[found[0]], self.model.table.covariance[found[0]])


def auc(predicted: Doubles, observed: Doubles) -> float:
    """Probability that a good answer (0.5 or more) was predicted higher than a bad one, ties halved."""
    good, bad = predicted[observed >= 0.5], predicted[observed < 0.5]
    return float((good[:, None] > bad).mean() + 0.5 * (good[:, None] == bad).mean())


def judged_llms(data: Dataset, rng: np.random.Generator) -> list[str]:
    """The chat models of mmlu_pro, all of llmrouter, and a dozen of zeroeval's."""
    chosen = {
        llm_of(endpoint).model
        for endpoint in data.endpoints
        if endpoint[0] == "llmrouter" or (endpoint[0] == "mmlu_pro" and endpoint[1] in MMLU_PRO_CHAT_MODELS)
    }
    training = data.in_split("train")
    label_count = np.isfinite(training.quality).sum(axis=0)
    others = {
        llm_of(endpoint).model
        for column, endpoint in enumerate(data.endpoints)
        if endpoint[0] == "zeroeval" and label_count[column] >= ZEROEVAL_LABELS_MIN
    }
    drawn = rng.choice(sorted(others - chosen), ZEROEVAL_COUNT, replace=False)
    return sorted(chosen | set(drawn.tolist()))


def without(data: Dataset, llms: Sequence[str]) -> Dataset:
    """The data without any outcome of these."""
    gone = [llm_of(endpoint).model in llms for endpoint in data.endpoints]
    quality, tokens = data.quality.copy(), data.output_tokens.copy()
    quality[:, gone] = np.nan
    tokens[:, gone] = np.nan
    return replace(data, quality=quality, output_tokens=tokens)


def outcomes(data: Dataset, llm: str, source: str) -> Doubles:
    """Quality of that LLM on each prompt of the source, NaN elsewhere; the mean where several endpoints answered."""
    columns = [
        c for c, endpoint in enumerate(data.endpoints) if endpoint[0] == source and llm_of(endpoint).model == llm
    ]
    quality = data.quality[:, columns].astype(np.float64)
    known = np.isfinite(quality)
    return np.where(known.any(axis=1), np.nansum(quality, axis=1) / np.maximum(1, known.sum(axis=1)), np.nan)


def published_scores(training: Dataset, quality: Doubles, rng: np.random.Generator) -> dict[str, float]:
    """The model's mean on the train prompts of each whole benchmark, off by as much as published scores are off."""
    scores = {}
    for name, rows in benchmark_members(training.categories).items():
        answered = quality[rows][np.isfinite(quality[rows])]
        if "/" not in name and len(answered) >= CELL_SIZE_MIN:
            odds = log_odds(np.clip(answered.mean(), SCORE_MARGIN, 1.0 - SCORE_MARGIN)) + rng.normal(0.0, SCORE_ERROR)
            scores[name] = float(1.0 / (1.0 + np.exp(-odds)))
    return scores


def joined(
    left: World, *, training: Dataset, held_out: Dataset, llm: str, source: str, rng: np.random.Generator
) -> dict[str, list[Posterior]]:
    """The profiles of an LLM that `left` has not seen, by way of joining: one, or one per draw of labels."""
    joining = left.model.joining
    prior = joining.prior
    nothing = fitting(left.model, posterior_of_scores(joining, prior, {}))
    scores = published_scores(training, outcomes(training, llm, source), rng)
    ways = {"nothing": [nothing], "scores": [fitting(left.model, posterior_of_scores(joining, prior, scores))]}
    quality = outcomes(held_out, llm, source)
    labelled = np.flatnonzero(np.isfinite(quality) & (held_out.splits == "val"))
    for count in LABEL_COUNTS:
        ways[f"{count} labels"] = []
        for _ in range(DRAW_COUNT):
            drawn = rng.choice(labelled, min(count, len(labelled)), replace=False)
            labels = quality[drawn].astype(np.float32)
            posterior = posterior_of_labels(prior, left.positions[drawn], labels)
            ways[f"{count} labels"].append(fitting(left.model, posterior))
    return ways


def covered(world: World, posterior: Posterior, held_out: Dataset, quality: Doubles) -> tuple[int, int]:
    """How many categories' means lie within the 90 % interval, widened by their own sampling noise, and of how many."""
    calibration, inside, total = world.model.calibration, 0, 0
    tested = np.isfinite(quality) & (held_out.splits == "test")
    for category in sorted(set(held_out.categories[tested])):
        rows = tested & (held_out.categories == category)
        if rows.sum() < CELL_SIZE_MIN:
            continue
        mean, position = world.quality(posterior, rows), world.positions[rows]
        variance = np.einsum("pi,ij,pj->p", position, posterior.covariance, position)
        odds_error = np.sqrt(calibration.variance_scale * variance + calibration.variance_floor)
        residual = quality[rows] - mean
        noise = residual.var(ddof=1) / rows.sum()
        error = (mean * (1.0 - mean) * odds_error).mean()
        inside += abs(residual.mean()) <= NORMAL_QUANTILE_90 * (error**2 + noise) ** 0.5
        total += 1
    return int(inside), total


def judge(
    llm: str, source: str, *, left: World, full: World, data: Dataset, held_out: Dataset, rng: np.random.Generator
) -> Judged | None:
    """One LLM in one source; None if it was hardly measured there, or answers all alike."""
    training = data.in_split("train")
    quality, known_before = outcomes(held_out, llm, source), outcomes(training, llm, source)
    tested = np.isfinite(quality) & (held_out.splits == "test")
    observed = quality[tested]
    if tested.sum() < TEST_PROMPTS_MIN or np.isfinite(known_before).sum() < TRAIN_LABELS_MIN:
        return None
    if (observed >= 0.5).all() or (observed < 0.5).all():
        return None
    mean = float(np.nanmean(known_before))
    ways = joined(left, training=training, held_out=held_out, llm=llm, source=source, rng=rng)
    routed = Pool(llm, source, left=left, full=full, held_out=held_out)
    results: dict[str, dict[str, float]] = {"auc": {"mean": 0.5}, "accuracy": {}, "error": {}}
    results["error"]["mean"] = abs(mean - float(observed.mean()))
    if routed.is_large_enough:
        results["accuracy"]["mean"] = routed.accuracy(left, lambda rows: np.full(int(rows.sum()), mean))
    cells = {}
    for way, posteriors in {**ways, "retrained": [full.known(llm)]}.items():
        world = full if way == "retrained" else left
        predicted = [world.quality(posterior, tested) for posterior in posteriors]
        results["auc"][way] = float(np.mean([auc(p, observed) for p in predicted]))
        results["error"][way] = float(np.mean([abs(p.mean() - observed.mean()) for p in predicted]))
        counts = [covered(world, posterior, held_out, quality) for posterior in posteriors]
        cells[way] = (sum(inside for inside, _ in counts), sum(total for _, total in counts))
        if routed.is_large_enough:
            accuracies = [routed.accuracy(world, _predictor(world, posterior)) for posterior in posteriors]
            results["accuracy"][way] = float(np.mean(accuracies))
    gain = {
        way: accuracy - routed.accuracy_without(full if way == "retrained" else left)
        for way, accuracy in results["accuracy"].items()
    }
    return Judged(llm, source, results["auc"], results["accuracy"], gain, results["error"], cells)


def _predictor(world: World, posterior: Posterior) -> Callable[[npt.NDArray[np.bool_]], Doubles]:
    return lambda rows: world.quality(posterior, rows)


class Pool:
    """The models of a source among which prompts are routed: those that were not left out, and the one that joins."""

    def __init__(self, llm: str, source: str, *, left: World, full: World, held_out: Dataset) -> None:
        self._llms: list[str] = []
        columns = []
        for endpoint in held_out.endpoints:
            name = llm_of(endpoint).model
            is_routed = endpoint[0] == source and (source != "mmlu_pro" or endpoint[1] in MMLU_PRO_CHAT_MODELS)
            if not is_routed or name == llm or name in self._llms or left.model.found(name) is None:
                continue
            quality = outcomes(held_out, name, source)
            if np.isfinite(quality[held_out.sources == source]).mean() >= POOL_COVERAGE_MIN:
                self._llms.append(name)
                columns.append(quality)
        columns.append(outcomes(held_out, llm, source))
        quality = np.column_stack(columns)
        self._rows = np.isfinite(quality).all(axis=1) & (held_out.splits == "test")
        self._quality = quality[self._rows]
        self._of = {id(world): self._predicted(world) for world in (left, full)}
        self.is_large_enough = bool(self._llms) and int(self._rows.sum()) >= TEST_PROMPTS_MIN

    def accuracy_without(self, world: World) -> float:
        """Of the others alone."""
        return self._accuracy(self._of[id(world)])

    def accuracy(self, world: World, predict: Callable[[npt.NDArray[np.bool_]], Doubles]) -> float:
        """With the joining model predicted so, and the others by `world`."""
        return self._accuracy(np.column_stack((self._of[id(world)], predict(self._rows))))

    def _predicted(self, world: World) -> Doubles:
        columns = [world.quality(world.known(name), self._rows) for name in self._llms]
        return np.column_stack(columns) if columns else np.empty((int(self._rows.sum()), 0))

    def _accuracy(self, predicted: Doubles) -> float:
        return float(self._quality[np.arange(len(predicted)), predicted.argmax(axis=1)].mean())


def share_of_gain(judged: Sequence[Judged], way: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """Gain in AUC over the model's mean as a share of that of retraining: of all, and a 95 % interval over models."""
    gain = np.array([[one.auc[way] - 0.5, one.auc["retrained"] - 0.5] for one in judged])
    drawn = gain[rng.integers(len(gain), size=(RESAMPLE_COUNT, len(gain)))].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
    return float(gain[:, 0].sum() / gain[:, 1].sum()), float(low), float(high)


def measure(data: Dataset, seed: int) -> list[Judged]:
    """Every judged LLM in every source that measured it."""
    rng = np.random.default_rng(seed)
    held_out = data.where(data.splits != "train")
    llms = judged_llms(data, rng)
    full = World(trained(data, seed), held_out)
    order = rng.permutation(len(llms))
    found = []
    for group in range(GROUP_COUNT):
        gone = [llms[index] for index in sorted(order[group::GROUP_COUNT].tolist())]
        left = World(trained(without(data, gone), seed), held_out)
        for llm in gone:
            for source in SOURCES:
                one = judge(llm, source, left=left, full=full, data=data, held_out=held_out, rng=rng)
                if one is not None:
                    found.append(one)
                    print(f"{source:10} {llm:34}", *(f"{one.auc[way]:.3f}" for way in WAYS), flush=True)
    return found


def trained(data: Dataset, seed: int) -> QualityModel:
    """A model as the shipped one is trained."""
    return train(data, settings=SETTINGS, seed=seed, progress=lambda _step, _share: None, name="left-out", version="0")


def summary(judged: Sequence[Judged], seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """By source, then by way, the figures of the tables."""
    rng = np.random.default_rng(seed)
    report: dict[str, dict[str, dict[str, float]]] = {}
    for source in (*SOURCES, "all"):
        part = [one for one in judged if source in (one.source, "all")]
        routed = [one for one in part if one.accuracy]
        report[source] = {}
        for way in WAYS:
            share, low, high = share_of_gain(part, way, rng)
            inside = [one.cells[way] for one in part if way in one.cells]
            figures = {
                "models": float(len(part)),
                "auc": float(np.mean([one.auc[way] for one in part])),
                "share": share,
                "share_low": low,
                "share_high": high,
                "error": float(np.mean([one.error[way] for one in part])),
                "accuracy": float(np.mean([one.accuracy[way] for one in routed])),
                "gain": float(np.mean([one.gain[way] for one in routed])),
            }
            if inside:
                figures["coverage_90"] = sum(cell[0] for cell in inside) / sum(cell[1] for cell in inside)
            report[source][way] = figures
    return report


def markdown(
    judged: Sequence[Judged], report: Mapping[str, Mapping[str, Mapping[str, float]]], machine: Machine, seed: int
) -> str:
    """The report for people."""
    lines = [
        "# How well an LLM joins without retraining",
        "",
        f"- {machine.date}, commit {machine.git_commit}, seed {seed}",
        f"- {len({one.model for one in judged})} LLMs, each left out of training (features of its prompts stay; its outcomes do not)",
        "",
        "How to read it: [joining](../../docs/joining.md#how-well-it-works).",
    ]
    for source, ways in report.items():
        lines += [
            "",
            f"## {'All together' if source == 'all' else source}: {ways['mean']['models']:.0f} models",
            "",
            (
                "| known of the model | AUC | share of retraining's gain | error of its mean | 90 % interval holds "
                "| routed accuracy | gain in points by joining |"
            ),
            "|---|--:|--:|--:|--:|--:|--:|",
        ]
        for way, figures in ways.items():
            coverage = f"{figures['coverage_90']:.0%}" if "coverage_90" in figures else ""
            lines.append(
                f"| {way} | {figures['auc']:.3f} | {figures['share']:.0%} "
                f"({figures['share_low']:.0%} to {figures['share_high']:.0%}) | {figures['error']:.3f} | {coverage} "
                f"| {100 * figures['accuracy']:.2f} | {100 * figures['gain']:+.2f} |"
            )
    lines += ["", "## Bars", "", "| | bar | aim | measured | |", "|---|--:|--:|--:|---|"]
    for source, ways in report.items():
        for way, bar in BARS.items():
            share = ways[way]["share"]
            verdict = "aim reached" if share >= AIMS[way] else "bar reached" if share >= bar else "missed"
            lines.append(f"| {source}: {way} | {bar:.0%} | {AIMS[way]:.0%} | {share:.0%} | {verdict} |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory with prompts.parquet and outcomes.parquet")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where joining.md and joining.json go")
    options = parser.parse_args()
    try:
        data = training_part(load_dataset(options.data))
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 2
    machine = this_machine()
    judged = measure(data, options.seed)
    report = summary(judged, options.seed)
    text = markdown(judged, report, machine, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "joining.md").write_text(text, encoding="utf-8")
    content = {
        "machine": asdict(machine),
        "seed": options.seed,
        "summary": report,
        "models": [asdict(one) for one in judged],
    }
    (options.out / "joining.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
