"""What a quality prediction costs: 20 candidates on prompts of 1 kB and 16 kB, beside XGBoost's own prediction.

    python benchmarks/quality_latency.py

All variants are timed in turn within each round, so that a slow moment of the machine strikes all of them; medians are
printed and written to benchmarks/results/quality_latency.json.
"""

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xgboost
from pointsman_server.quality.artifact import builtin_artifact_path, load
from pointsman_server.quality.model import Floats, QualityModel
from pointsman_server.quality.trees import CompleteTrees

RESULT = Path(__file__).parent / "results" / "quality_latency.json"
SEED = 20261124
CANDIDATE_COUNT = 20
PROMPT_SIZES = {"1 kB": 1_000, "16 kB": 16_000}
PROMPT_COUNT = 50
"""Different prompts per size, so that caches see what they would in service."""
ROUND_COUNT = 20
TEXT = (
    "Find the derivative of this function and explain every step ; which of the following treaties ended the war ? "
    "def parse ( line ) : return line.split ( ',' ) [ 0 ] A patient aged 45 presents with acute thrombocytopenia . "
    "If x = 3 + 4 y then what is y when x equals 27 ? Translate the sentence into formal English , please !"
)
"""Prose, code, mathematics and names, whose words are drawn at random."""


def prompt(size: int, rng: np.random.Generator) -> str:
    """A text of `size` characters out of words, code, numbers and line breaks."""
    words = rng.choice([*TEXT.split(), "\n"], size=size)
    return " ".join(words.tolist())[:size]


def measure(variants: dict[str, Callable[[str], object]], prompts: list[str]) -> dict[str, float]:
    """Median milliseconds of each variant over all prompts and rounds."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUND_COUNT):
        for text in prompts:
            for name, call in variants.items():
                start_s = time.perf_counter()
                call(text)
                times[name].append((time.perf_counter() - start_s) * 1e3)
    return {name: round(statistics.median(values), 4) for name, values in times.items()}


def machine() -> dict[str, str]:
    """Where and from which state of the code the numbers come."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    cpu = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": str(len(cpu)),
        "python": platform.python_version(),
        "xgboost": xgboost.__version__,
        "commit": commit.stdout.strip() if commit.returncode == 0 else "uncommitted",
    }


def variants_of(model: QualityModel, row: Floats) -> dict[str, Callable[[str], object]]:
    """What is timed; the last three read `row`, ready features, instead of the text."""
    trees = CompleteTrees.of(model.booster)
    candidates = sorted(profile.model for profile in model.profiles)[:CANDIDATE_COUNT]
    return {
        f"predict, {CANDIDATE_COUNT} candidates": lambda text: model.predict(text, candidates),
        "predict, 1 candidate": lambda text: model.predict(text, candidates[:1]),
        "features alone": model.features,
        "trees alone": lambda _: trees.predict(row[0]),
        "Booster.inplace_predict alone": lambda _: model.booster.inplace_predict(row, validate_features=False),
        "plain Booster.predict(DMatrix) alone": lambda _: model.booster.predict(xgboost.DMatrix(row, nthread=1)),
    }


def main() -> None:
    """Measure, print, write."""
    model = load(builtin_artifact_path())
    rng = np.random.default_rng(SEED)
    report: dict[str, object] = {"seed": SEED, "candidates": CANDIDATE_COUNT, "machine": machine()}
    for label, size in PROMPT_SIZES.items():
        prompts = [prompt(size, rng) for _ in range(PROMPT_COUNT)]
        medians = measure(
            variants_of(model, model.features(prompts[0])[np.newaxis, : model.booster.num_features()]), prompts
        )
        report[label] = medians
        for name, median in medians.items():
            print(f"{label:>6}  {name:40} {median:.3f} ms")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
