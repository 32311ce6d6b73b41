"""What each LLM can do: hierarchical logistic regression of its outcomes on the prompts' predicted latents.

    log-odds of a good answer of model m on prompt p = w[m] . [1, z[p]] + ease[p],      w[m] ~ Normal(common, spread)

`ease` is what makes a prompt, or a whole group of prompts, easier for every model than its latents tell. Without it a
model that was measured on easy prompts would pass for able: models are compared on the prompts that they share, as in
item response theory (Rasch, "Probabilistic Models for Some Intelligence and Attainment Tests", 1960). A new prompt's
ease is unknown; its variance flattens the odds, which the last step accounts for.

`common` is learned from all models (Gelman and Hill, "Data Analysis Using Regression and Multilevel/Hierarchical
Models", 2006), so a model with few labels, or labels on one kind of prompt only, takes from the others what its own do
not tell, and its posterior covariance says how uncertain that leaves it. `spread` is chosen by cross-validation for one
source, and fixed and tight on whitened latents for several: there, learning it would fit each source no better, and make
models that were measured in one only worse elsewhere than knowing nothing of them (docs/quality.md).

For one source z is followed by the shares of the categories, with a spread of their own: what a model does in a category is
known well, however little tells prompts of one category apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pointsman_server.training.dataset import Matrix, Strings

Doubles = npt.NDArray[np.float64]

ROUND_COUNT = 8
"""Alternations between the models' weights and the common mean, which then moves by less than 1 %."""
COMMON_RIDGE = 1.0
"""Prior precision of the common mean: it may be anything, but is zero where no model has labels."""
GROUP_EASE_VARIANCE = 9.0
"""Between groups of prompts, log-odds squared: one may be trivial for all models, and another out of reach."""
EASE_STEP_COUNT = 5
"""Newton steps per round; each round starts from the ease of the one before."""
EASE_STEP_MAX = 2.0
"""Log-odds; keeps Newton's method from leaping where all models agree."""
NEWTON_STEPS_MAX = 25
STEP_TOLERANCE = 1e-4
"""Log-odds; a smaller step ends Newton's method."""
INTERCEPT_VARIANCE = 1.0
"""Between models, log-odds squared: at the mean prompt most answer 0.25 to 0.75 well."""
LOADING_VARIANCES = (0.001, 0.01, 0.1)
"""Among which one is chosen, log-odds squared: from models that all rank the prompts of a category alike to specialists."""
LOADING_VARIANCE = LOADING_VARIANCES[1]
"""While the categories' variance is chosen."""
CATEGORY_VARIANCES = (0.03, 0.1, 0.5, 2.0)
"""Among which one is chosen, log-odds squared: from the mean of all prompts, where the best model gets them all, to the table
of what each model reached in each category."""
CATEGORY_VARIANCE = CATEGORY_VARIANCES[2]
"""Where the spread is not chosen."""
TOSS_UP = 0.005
"""Of two models this far apart in expected quality the better one counts e times as much when it is judged what routing
would get: a choice that hangs on less says nothing, and changes with every draw of the labels."""
SINGULAR_SHARE_MIN = 1e-3
"""Of the largest singular value: along a direction with less, such as the share of a category that no prompt is of, the
latents tell nothing of ease."""
LATENT_DEVIATION_MIN = 1e-3
"""A latent that varies less than this over the prompts carries nothing and is not blown up to unit variance."""
SPREAD_ROUND_COUNT = 8
"""Steps of expectation and maximisation; more change nothing that a joining model shows (docs/quality.md)."""
SPREAD_PRIOR_COUNT = 10.0
"""Models that the fixed spread counts as when the spread of joining models is learned: three models tell little of it."""
LENGTH_RIDGE = 50.0
"""Prior outcomes that hold a model's length slope at 1, which is the slope of the mean model."""
LENGTH_LABELS_MIN = 50
"""With fewer known lengths a model's length is unknown."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What is common among models before their own labels are seen."""

    mean: Doubles
    precision: Doubles


@dataclass(frozen=True, slots=True)
class Spread:
    """How much models may differ before their own labels are seen, log-odds squared."""

    loading: float
    """In what a prompt's latents mean to them, per whitened latent."""
    category: float = CATEGORY_VARIANCE
    """In what a category means to them."""


@dataclass(frozen=True, slots=True)
class FittedProfiles:
    """Posterior of every model's weights on [1, latents], rows in the order of the columns of the outcome matrix."""

    weights: Doubles
    covariance: Doubles
    common: CommonProfile
    """What a model without labels starts from."""


@dataclass(frozen=True, slots=True)
class CommonProfile:
    """What is common among the fitted models, on the scale of their profiles: log-odds where a prompt's ease is unknown."""

    mean: Doubles
    """(1 + latents,)."""
    factor: Doubles
    """(1 + latents, directions): the spread of the models around the mean, as learned from them, is factor factor^T."""
    ease: Doubles
    """Of each prompt, log-odds before they were flattened."""
    shift: float
    slope: float
    """A profile's log-odds are shift + slope x those at known ease, without the ease."""


@dataclass(frozen=True, slots=True)
class Located:
    """Where the prompts lie that profiles are fitted to."""

    latents: Doubles
    """(prompts, latents)."""
    shares: Doubles
    """(prompts, categories): may have no column."""
    groups: Strings
    """Of prompts that were asked and scored alike."""

    @property
    def rows(self) -> Doubles:
        """(prompts, 1 + latents + categories): what profiles are multiplied with."""
        return np.column_stack((np.ones(len(self.latents)), self.latents, self.shares))

    def where(self, chosen: npt.NDArray[np.bool_]) -> Located:
        """Some of the prompts."""
        return Located(self.latents[chosen], self.shares[chosen], self.groups[chosen])


def chosen_spread(located: Located, quality: Matrix, folds: npt.NDArray[np.intp], *, ease_variance: float) -> Spread:
    """The spread with which profiles of one half of the folds do well on the prompts of the other half, both ways.

    The categories' is the smallest of `CATEGORY_VARIANCES` with which routing gets no less than with any other, by more
    than one standard error (the rule of Breiman et al., "Classification and Regression Trees", 1984): a model takes a
    category from the best of all where that is seen to pay, not where it passes it by the luck of few labels.

    The loadings' is the one of `LOADING_VARIANCES` that then best tells how models differ. The squared error of relative
    quality, what is left of it after the mean of each prompt's models, is what routing lives on; likelihood would mostly
    judge how well all of them together are predicted.
    """
    halves = [folds % 2 == half for half in range(2)]
    if not all(half.any() and np.isfinite(quality[half]).any(axis=0).all() for half in halves):
        return Spread(LOADING_VARIANCES[0], CATEGORY_VARIANCES[0])

    def expected(spread: Spread) -> Doubles:
        found = np.empty(quality.shape)
        for half in halves:
            fitted = fit_profiles(located.where(~half), quality[~half], spread=spread, ease_variance=ease_variance)
            found[half] = 1.0 / (1.0 + np.exp(-(located.where(half).rows @ fitted.weights.T)))
        return found

    category = CATEGORY_VARIANCES[0]
    if located.shares.shape[1]:
        routed = [_routed_quality(expected(Spread(LOADING_VARIANCE, each)), quality) for each in CATEGORY_VARIANCES]
        most = max(routed, key=np.sum)
        lost = [most - each for each in routed]
        category = CATEGORY_VARIANCES[[each.sum() <= each.std() * np.sqrt(len(each)) for each in lost].index(True)]
    return min(
        (Spread(each, category) for each in LOADING_VARIANCES),
        key=lambda spread: _relative_error(expected(spread), quality),
    )


def _routed_quality(expected: Doubles, quality: Matrix) -> Doubles:
    """What each prompt gets if models are called by what is expected of them, near ties by chance (see `TOSS_UP`)."""
    known = ~np.isnan(quality)
    odds = np.where(known, np.exp((expected - expected.max(axis=1, keepdims=True)) / TOSS_UP), 0.0)
    total = np.maximum(odds.sum(axis=1), np.finfo(np.float64).tiny)
    return np.asarray((odds * np.where(known, quality, 0.0)).sum(axis=1) / total)


def _relative_error(expected: Doubles, quality: Matrix) -> float:
    """Sum of squares of what is left of the errors of each prompt after the mean over the models whose quality is known."""
    error = quality - expected
    known = ~np.isnan(error)
    filled = np.where(known, error, 0.0)
    mean = filled.sum(axis=1) / np.maximum(1, known.sum(axis=1))
    return float((np.where(known, filled - mean[:, np.newaxis], 0.0) ** 2).sum())


def fit_profiles(
    located: Located,
    quality: Matrix,
    weight: Matrix | None = None,
    *,
    spread: Spread,
    ease_variance: float,
) -> FittedProfiles:
    """The profiles of all columns of `quality` (prompts x models, NaN unknown) on where these prompts lie.

    Args:
        located: the prompts.
        quality: of each model on each prompt.
        weight: how many labels each of them counts as; None: one.
        spread: of the models, as it is taken to be beforehand.
        ease_variance: the prior variance of ease between the prompts of a group, in log-odds squared.
    """
    whitening = _whitening(located.latents, located.shares)
    design = located.rows @ whitening
    size, model_count = design.shape[1], quality.shape[1]
    precision = _precision(size, latent_count=min(located.latents.shape), spread=spread)
    prior = Prior(mean=np.zeros(size), precision=precision)
    weights = np.zeros((model_count, size))
    covariance = np.zeros((model_count, size, size))
    ease = np.zeros(len(design))
    group_of = np.unique(located.groups.astype(str), return_inverse=True)[1]
    for _ in range(ROUND_COUNT):
        for column in range(model_count):
            counted = None if weight is None else weight[:, column]
            weights[column], covariance[column] = fit_profile(
                design, quality[:, column], prior, weights[column], offset=ease, counted=counted
            )
        common = _common_mean(weights, covariance, prior)
        ease = _fit_ease(design @ weights.T, quality, weight, group_of, ease, variance=ease_variance)
        # What the latents tell of the ease is common to all models.
        told = np.linalg.lstsq(design, ease, rcond=SINGULAR_SHARE_MIN)[0]
        ease -= design @ told
        weights += told
        prior = Prior(mean=common + told, precision=precision)
    learned = _spread(weights, covariance, prior)
    shift, slope = _flattening(design @ weights.T, quality, weight)
    weights *= slope
    weights[:, 0] += shift
    mean = slope * prior.mean
    mean[0] += shift
    return FittedProfiles(
        weights=weights @ whitening.T,
        covariance=slope**2 * (whitening @ covariance @ whitening.T),
        common=CommonProfile(
            mean=whitening @ mean,
            factor=slope * whitening @ np.linalg.cholesky(learned),
            ease=ease,
            shift=shift,
            slope=slope,
        ),
    )


def _precision(size: int, *, latent_count: int, spread: Spread) -> Doubles:
    variances = np.full(size, spread.category)
    variances[0] = INTERCEPT_VARIANCE
    variances[1 : 1 + latent_count] = spread.loading
    return np.diag(1.0 / variances)


def _fit_ease(
    odds: Doubles,
    quality: Matrix,
    weight: Matrix | None,
    group_of: npt.NDArray[np.intp],
    ease: Doubles,
    *,
    variance: float,
) -> Doubles:
    """The most likely ease of each prompt beside `odds` (log-odds, prompts x models), by Newton's method from `ease`."""
    known = ~np.isnan(quality)
    labels = np.where(known, quality, 0.0)
    counted = known.astype(np.float64) if weight is None else np.where(known, weight, 0.0)
    count = np.bincount(group_of)
    # Exact for a normal ease: the group's mean, shrunk by what its prompts leave open.
    group_mean = np.bincount(group_of, ease) / (count + variance / GROUP_EASE_VARIANCE)
    for _ in range(EASE_STEP_COUNT):
        expected = 1.0 / (1.0 + np.exp(-(odds + ease[:, np.newaxis])))
        gradient = ((labels - expected) * counted).sum(axis=1) - (ease - group_mean[group_of]) / variance
        curvature = (expected * (1.0 - expected) * counted).sum(axis=1) + 1.0 / variance
        ease = ease + np.clip(gradient / curvature, -EASE_STEP_MAX, EASE_STEP_MAX)
    return ease


def _flattening(odds: Doubles, quality: Matrix, weight: Matrix | None) -> tuple[float, float]:
    """Shift and slope that turn log-odds at known ease into log-odds at unknown ease, by logistic regression."""
    known = ~np.isnan(quality)
    rows = np.column_stack((np.ones(int(known.sum())), odds[known]))
    anything = Prior(mean=np.array([0.0, 1.0]), precision=np.eye(2))
    counted = None if weight is None else weight[known]
    (shift, slope), _ = fit_profile(rows, quality[known], anything, anything.mean, counted=counted)
    return float(shift), float(slope)


def _common_mean(weights: Doubles, covariance: Doubles, prior: Prior) -> Doubles:
    """The most likely common mean given the spread: each model counts, in each direction, by how much its own labels
    say there; the mere average of posteriors would crawl where few models have labels."""
    precision = prior.precision
    information = (precision - precision @ covariance @ precision).sum(axis=0)
    evidence = precision @ (weights - covariance @ (precision @ prior.mean)).sum(axis=0)
    return np.asarray(np.linalg.solve(information + COMMON_RIDGE * np.eye(len(evidence)), evidence), dtype=np.float64)


def _spread(weights: Doubles, covariance: Doubles, prior: Prior) -> Doubles:
    """The likely covariance of the models' weights around the common mean, by expectation and maximisation (Dempster,
    Laird and Rubin, 1977) from the fixed one. It is for models that join: few labels then move the weights together as
    models differ. Between the sources that a model has no labels in it would carry what is not so (see above)."""
    precision = prior.precision
    fixed = np.linalg.inv(precision)
    information = np.linalg.inv(covariance) - precision
    pull = np.einsum("mij,mj->mi", np.linalg.inv(covariance), weights - prior.mean)
    spread = fixed
    for _ in range(SPREAD_ROUND_COUNT):
        uncertain = np.linalg.inv(information + np.linalg.inv(spread))
        deviation = np.einsum("mij,mj->mi", uncertain, pull)
        seen = np.einsum("mi,mj->ij", deviation, deviation) + uncertain.sum(axis=0)
        spread = (seen + SPREAD_PRIOR_COUNT * fixed) / (len(weights) + SPREAD_PRIOR_COUNT)
    return np.asarray(spread, dtype=np.float64)


def _whitening(latents: Doubles, shares: Doubles) -> Doubles:
    """The matrix W for which [1, z, s] W = [1, whitened z, s']: z of zero mean, uncorrelated, of unit variance, and the
    shares in an orthonormal basis of what they can differ in, which is one direction less because they sum to one."""
    mean, size = latents.mean(axis=0), latents.shape[1]
    deviation, axes = np.linalg.svd((latents - mean) / np.sqrt(len(latents)), full_matrices=False)[1:]
    scaled = (axes / np.maximum(deviation, LATENT_DEVIATION_MIN)[:, np.newaxis]).T
    contrasts = np.linalg.svd(np.ones((1, shares.shape[1])))[2][1:].T if shares.shape[1] else np.zeros((0, 0))
    kept = scaled.shape[1]
    whitening = np.zeros((1 + size + len(contrasts), 1 + kept + contrasts.shape[1]))
    whitening[0, 0] = 1.0
    whitening[0, 1 : 1 + kept] = -mean @ scaled
    whitening[0, 1 + kept :] = -shares.mean(axis=0) @ contrasts
    whitening[1 : 1 + size, 1 : 1 + kept] = scaled
    whitening[1 + size :, 1 + kept :] = contrasts
    return whitening


def fit_profile(
    design: Doubles,
    quality: npt.NDArray[np.float32],
    prior: Prior,
    start: Doubles,
    *,
    offset: Doubles | None = None,
    counted: npt.NDArray[np.float32] | None = None,
) -> tuple[Doubles, Doubles]:
    """Posterior mode and covariance (Laplace) of one model's weights, by Newton's method from `start`.

    `offset` is added to the log-odds of each prompt; None adds nothing. `counted` says how many labels each of `quality`
    counts as; None: one.
    """
    known = ~np.isnan(quality)
    rows, labels = design[known], quality[known].astype(np.float64)
    count = np.ones(len(rows)) if counted is None else counted[known].astype(np.float64)
    given = np.zeros(len(rows)) if offset is None else offset[known]
    weights = start
    for _ in range(NEWTON_STEPS_MAX):
        expected = 1.0 / (1.0 + np.exp(-(rows @ weights + given)))
        gradient = rows.T @ (count * (labels - expected)) - prior.precision @ (weights - prior.mean)
        hessian = (rows * (count * expected * (1.0 - expected))[:, np.newaxis]).T @ rows + prior.precision
        step = np.linalg.solve(hessian, gradient)
        weights = weights + step
        if np.abs(step).max() < STEP_TOLERANCE:
            break
    return weights, np.asarray(np.linalg.inv(hessian), dtype=np.float64)


def length_targets(output_tokens: Matrix) -> Doubles:
    """How much longer than usual the answers to each prompt are, in log tokens averaged over models; NaN if unknown."""
    log_tokens = np.log1p(output_tokens.astype(np.float64))
    known = ~np.isnan(log_tokens)
    mean = np.where(known, log_tokens, 0.0).sum(axis=0) / np.maximum(1, known.sum(axis=0))
    relative = np.where(known, log_tokens - mean, 0.0).sum(axis=1)
    count = known.sum(axis=1)
    return np.where(count > 0, relative / np.maximum(1, count), np.nan)


def fit_lengths(length_latent: Doubles, output_tokens: Matrix) -> Doubles:
    """(models, 2): log of the expected output tokens at length latent 0, and per unit; NaN where lengths are unknown.

    A ridge regression of log tokens, moved so that the mean of the predictions is the mean of the lengths (Duan,
    "Smearing Estimate", 1983): the decision multiplies by a price, so it needs the mean, not the median.
    """
    fitted = np.full((output_tokens.shape[1], 2), np.nan)
    for column in range(output_tokens.shape[1]):
        known = ~np.isnan(output_tokens[:, column])
        if known.sum() < LENGTH_LABELS_MIN:
            continue
        tokens, latent = output_tokens[known, column].astype(np.float64), length_latent[known]
        centred = latent - latent.mean()
        log_tokens = np.log1p(tokens)
        slope = (centred @ (log_tokens - log_tokens.mean()) + LENGTH_RIDGE * latent.var()) / (
            centred @ centred + LENGTH_RIDGE * latent.var() + 1e-9
        )
        intercept = np.log(max(1.0, tokens.mean()) / np.exp(slope * latent).mean())
        fitted[column] = intercept, slope
    return fitted
