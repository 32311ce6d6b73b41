"""Profiles of LLMs from nothing but the scores that their makers, or leaderboards, publish."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from pointsman_server.quality.joining import Floats, Posterior, Prior, posterior_of_scores, relative_prior
from pointsman_server.quality.model import JoinedProfile, QualityModel, normalised

MISFIT_VARIANCE = 0.25
"""What a joined profile's interval has on top, log-odds squared, for what no profile can express: half a unit of log-odds, as
where an interval could not be fitted. The 90 % interval of a category's mean then holds in 90 % of categories or more of
two sources of three, with scores or labels (benchmarks/results/joining.md)."""


def with_published_scores(model: QualityModel, scores: Mapping[str, Mapping[str, float]]) -> QualityModel:
    """`model`, joined by the LLMs of which scores are published.

    An LLM that `model` knows by its labels keeps them: they say more. One that it knows only as a relative of another
    starts from that one's profile.

    Args:
        model: what they join. It is returned as it is if nobody does.
        scores: 0..1 by name of the LLM, then by benchmark. Benchmarks that `model` has no anchors of are passed over.
    """
    joined = {}
    for name, of_benchmark in sorted(scores.items()):
        known = {benchmark: score for benchmark, score in of_benchmark.items() if benchmark in model.joining.benchmarks}
        found = model.found(name)
        if not known or (found is not None and not found[1]):
            continue
        joined[normalised(name)] = JoinedProfile(
            model=normalised(name),
            posterior=fitting(model, posterior_of_scores(model.joining, starting_prior(model, name), known)),
            length=usual_length(model.table.length) if found is None else _length(model.table.length[found[0]]),
        )
    return model.with_profiles(tuple(joined.values())) if joined else model


def starting_prior(model: QualityModel, relative: str | None) -> Prior:
    """What is expected of an LLM before its own evidence: the profile of its relative, widened by how far relatives are
    apart; or without one, what is common to all."""
    found = None if relative is None else model.found(relative)
    if found is None:
        return model.joining.prior
    row, calibration = found[0], model.calibration
    return relative_prior(
        model.joining,
        model.table.weights[row],
        model.table.covariance[row] * np.float32(calibration.variance_scale),
        ability_variance=calibration.stand_in_variance,
    )


def fitting(model: QualityModel, posterior: Posterior) -> Posterior:
    """The posterior of a profile that joins, so that `model` predicts with an honest interval.

    A prediction scales the covariance of every profile by what made the intervals of the trained ones true. That of a
    joined one is true by itself, as its prior has the spread that models have; so it is divided by that scale.
    """
    covariance = posterior.covariance.astype(np.float64)
    covariance[0, 0] += MISFIT_VARIANCE
    return Posterior(posterior.weights, (covariance / model.calibration.variance_scale).astype(np.float32))


def usual_length(lengths: Floats) -> tuple[float, float]:
    """Row of `ProfileTable.length` for a model of whose answers no length is known: the mean of those in the table, so
    that what it costs can be told from its prices; NaN where no model's is known."""
    known = lengths[np.isfinite(lengths).all(axis=1)].astype(np.float64)
    return _length(known.mean(axis=0)) if len(known) else (float("nan"), float("nan"))


def _length(row: npt.NDArray[np.floating]) -> tuple[float, float]:
    intercept, slope = row.tolist()
    return intercept, slope
