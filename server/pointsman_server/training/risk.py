"""From held-out prompts to a promise: up to which gap a candidate may pass so that falling short stays within a risk.

Conformal risk control (Angelopoulos et al., "Conformal Risk Control", 2022). The loss of a prompt at a gap g is 1 where
any candidate within g of the best prediction falls short of what the best one scored, and 0 elsewhere: it grows with g,
so the largest g with (n R(g) + 1) / (n + 1) <= risk over n held-out prompts keeps the expected loss of the next prompt
within the risk. Because *any* candidate counts, the promise holds for whichever of them is picked, for price or speed.

Two things make it hold for those who use it. Who their candidates are is not known beforehand, so the loss of a prompt
is its mean over random pools of the models that answered it. How many they are is known in service and makes much of a
difference, for of more models more can fall short, so each number is calibrated by itself. And which kind of prompts they
send is not known, so each source of prompts is calibrated by itself too, and the smallest gap is taken: it holds for every
mixture of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pointsman_server.decision.risk import ONLY_REFERENCE, RiskTable
from pointsman_server.training.dataset import Strings

Doubles = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

MODEL_COUNTS = (2, 3, 5, 9, 20)
"""Levels of the number of candidates: each about twice the one before. A prompt that fewer models answered counts with
those."""
SHARES = (0.5, 0.8, 0.9, 0.95, 1.0)
"""Levels of the share of the best candidate's quality. With answers that are right or wrong all are alike; graded ones
tell them apart."""
RISKS = tuple(percent / 100 for percent in range(1, 51))
"""Levels of the accepted risk: every whole percent that a bound can state."""
PROMPT_COUNT_MIN = 100
"""Fewer held-out prompts are no group of their own: they could not show a risk of 1 %, and would forbid 5 % by chance."""
POOL_COUNT = 16
"""Random pools per prompt and number of models: what chance they leave is a tenth of what the prompts leave."""
GAP_MAX = 1.0
"""No two qualities are further apart."""
SCORE_TOLERANCE = 1e-6
"""Scores are 32-bit numbers: a tenth of 0.7 is not exactly 0.07."""


def calibrate(predicted: Doubles, observed: Doubles, sources: Strings, *, rng: np.random.Generator) -> RiskTable | None:
    """The table of these held-out prompts; None where they are fewer than `PROMPT_COUNT_MIN`.

    `predicted` and `observed` are qualities 0..1, one row per prompt and one column per model, unknown outcomes NaN. A
    prompt counts if at least two of its outcomes are known.
    """
    usable = np.isfinite(observed).sum(axis=1) >= 2
    groups = list(_groups(sources[usable]))
    if not groups:
        return None
    nearest = nearest_shortfalls(predicted[usable], observed[usable], rng=rng)
    by_group = [
        [
            [largest_gaps(nearest[group, count, :, share]) for share in range(len(SHARES))]
            for count in range(len(MODEL_COUNTS))
        ]
        for group in groups
    ]
    gap_max = np.min(by_group, axis=0)
    # So it is but for chance: more models or a larger share never make falling short rarer.
    gap_max = np.minimum.accumulate(np.minimum.accumulate(gap_max, axis=0), axis=1)
    return RiskTable(
        model_counts=MODEL_COUNTS,
        shares=SHARES,
        risks=RISKS,
        gap_max=tuple(tuple(tuple(row) for row in rows) for rows in gap_max.tolist()),
        prompt_count=min(int(group.sum()) for group in groups),
    )


def nearest_shortfalls(predicted: Doubles, observed: Doubles, *, rng: np.random.Generator) -> Doubles:
    """Over (prompts, `MODEL_COUNTS`, `POOL_COUNT` random pools, `SHARES`) the gap of the nearest candidate that falls
    short.

    Infinite where none does: then whatever passes is as good as the reference.
    """
    nearest = np.full((len(predicted), len(MODEL_COUNTS), POOL_COUNT, len(SHARES)), np.inf)
    levels = np.array(SHARES)[:, np.newaxis]
    for row, (quality, score) in enumerate(zip(predicted, observed, strict=True)):
        known = np.flatnonzero(np.isfinite(score))
        for count_index, model_count in enumerate(MODEL_COUNTS):
            for pool_index in range(POOL_COUNT):
                pool = rng.permutation(known)[:model_count]
                reference = pool[quality[pool].argmax()]
                short = score[pool] < levels * score[reference] - SCORE_TOLERANCE
                gaps = quality[reference] - quality[pool]
                nearest[row, count_index, pool_index] = np.where(short, gaps, np.inf).min(axis=1)
    return nearest


def largest_gaps(nearest: Doubles) -> list[float]:
    """For each of `RISKS` the largest gap that may pass, from the nearest shortfalls over (prompts, pools) of a group."""
    prompt_count = len(nearest)
    ascending = np.sort(nearest, axis=None)
    gaps = []
    for risk in RISKS:
        # How much of the loss may be seen: (n R + 1) / (n + 1) <= risk, in pools of which each is 1 / POOL_COUNT prompt.
        allowed = (risk * (prompt_count + 1) - 1.0) * POOL_COUNT
        if allowed < 0.0:
            gaps.append(ONLY_REFERENCE)
            continue
        first_too_many = ascending[int(allowed + 1e-9)]
        gaps.append(GAP_MAX if np.isinf(first_too_many) else float(np.nextafter(first_too_many, -1.0)))
    return gaps


def _groups(sources: Strings) -> Iterator[Booleans]:
    """Which prompts are calibrated together: those of each source that has enough; the other sources as one, or with the
    smallest that has enough. None if all together are too few."""
    names, counts = np.unique(sources.astype(str), return_counts=True)
    order = sorted(zip(counts.tolist(), names.tolist(), strict=True))
    rest = [name for count, name in order if count < PROMPT_COUNT_MIN]
    groups = [[name] for count, name in order if count >= PROMPT_COUNT_MIN]
    if rest and (sum(count for count, name in order if name in rest) >= PROMPT_COUNT_MIN):
        groups.append(rest)
    elif groups:
        groups[0] += rest
    for group in groups:
        yield np.isin(sources.astype(str), group)
