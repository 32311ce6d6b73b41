"""What the labels say of each prompt: a small latent vector, from a factorisation of the outcome matrix.

    quality[p, m] ~ mean[m] + loadings[m] . z[p]

fitted by alternating ridge regressions over the known entries (Koren, Bell and Volinsky, "Matrix Factorization
Techniques for Recommender Systems", 2009). The latents are the booster's targets; the loadings are dropped, because `profiles` fits them to what the booster
actually predicts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pointsman_server.training.dataset import Matrix, Strings

Doubles = npt.NDArray[np.float64]

PROMPT_RIDGE = 0.2
"""Noise variance of one 0/1 outcome given its probability, about 0.2 over the prior variance of a latent, which is 1."""
LOADING_RIDGE = 5.0
"""Prior outcomes per loading: a model with fewer labels than this is hardly told from the mean."""
MEAN_RIDGE = 0.1
ITERATION_COUNT = 30
"""Alternations; the fit changes in the third digit after 15."""
CATEGORY_PRIOR_COUNT = 5.0
"""Prompts that a category's mean latent is shrunk by."""


def factorise(quality: Matrix, *, latent_count: int, rng: np.random.Generator) -> Doubles:
    """The latent vector of each prompt, (prompts, latents), about unit variance. NaN is unknown.

    Every column needs at least one known entry.
    """
    known = ~np.isnan(quality)
    assert known.any(axis=0).all(), "a column without labels can't be fitted"
    values = np.where(known, quality, 0.0).astype(np.float64)
    mean = values.sum(axis=0) / known.sum(axis=0)
    loadings = rng.normal(scale=0.1, size=(quality.shape[1], latent_count))
    latents = np.zeros((len(quality), latent_count))
    for _ in range(ITERATION_COUNT):
        latents = _fit_latents(values, known, mean, loadings)
        mean, loadings = _fit_loadings(values, known, latents)
        loadings = loadings @ np.linalg.cholesky(_covariance(latents))
    return _fit_latents(values, known, mean, loadings)


def smoothed(latents: Doubles, categories: Strings, *, share: float) -> Doubles:
    """Each latent moved towards the mean of its category by `share`: the mean is nearly free of the noise of single
    labels, and what a category has in common is most of what a prompt's text can tell."""
    overall = latents.mean(axis=0)
    target = np.empty_like(latents)
    for category in np.unique(categories):
        members = categories == category
        total = latents[members].sum(axis=0) + CATEGORY_PRIOR_COUNT * overall
        target[members] = total / (members.sum() + CATEGORY_PRIOR_COUNT)
    return share * target + (1.0 - share) * latents


def _fit_latents(values: Doubles, known: npt.NDArray[np.bool_], mean: Doubles, loadings: Doubles) -> Doubles:
    gram = np.einsum("pm,mk,ml->pkl", known.astype(np.float64), loadings, loadings, optimize=True)
    gram += PROMPT_RIDGE * np.eye(loadings.shape[1])
    residual = np.where(known, values - mean, 0.0)
    return np.asarray(np.linalg.solve(gram, (residual @ loadings)[..., np.newaxis])[..., 0])


def _fit_loadings(values: Doubles, known: npt.NDArray[np.bool_], latents: Doubles) -> tuple[Doubles, Doubles]:
    design = np.column_stack((np.ones(len(latents)), latents))
    ridge = np.diag([MEAN_RIDGE, *[LOADING_RIDGE] * latents.shape[1]])
    fitted = np.empty((values.shape[1], design.shape[1]))
    for column in range(values.shape[1]):
        rows = design[known[:, column]]
        fitted[column] = np.linalg.solve(rows.T @ rows + ridge, rows.T @ values[known[:, column], column])
    return fitted[:, 0], fitted[:, 1:]


def _covariance(latents: Doubles) -> Doubles:
    size = latents.shape[1]
    return np.cov(latents, rowvar=False).reshape(size, size) + 1e-9 * np.eye(size)
