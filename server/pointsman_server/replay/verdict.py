"""Whether the log can answer what it is asked, in plain words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from pointsman_server.replay.estimate import Estimates
from pointsman_server.replay.evidence import Gatherer, Outcome, Support

EFFECTIVE_COUNT_MIN = 100
"""Below it an interval of 95 % is wider than the differences that one looks for, and its ends are themselves uncertain."""
RARER_COUNT_MIN = 20
"""Of fewer failures, say, the mean is skewed, and an interval of 95 % holds the truth in 90 % of cases or less."""
LARGEST_SHARE_MAX = 0.1
"""A single decision that carries more may move an estimate by more than its interval."""
UNSEEN_SHARE_MAX = 0.01
"""More of the other router's choices than this, of which nothing was seen, may hide any truth."""
CERTAIN_SHARE_MAX = 0.5
"""Where more decisions than this could not have gone otherwise, a log says what was, hardly what would be."""
WEIGHT_ERRORS_MAX = 4.0
"""Standard errors by which the mean weight may be off what it must be: by chance once in 16,000 logs."""
JUDGED_QUANTILE = 3.29
"""Standard normal quantile at 0.9995: shares of judged answers that differ by more do so by chance once in a thousand."""
NAMED_COUNT_MAX = 3
"""Endpoints that are named where more could be."""


def warnings(gatherer: Gatherer, found: Mapping[Outcome, Estimates]) -> tuple[str, ...]:
    """Why the estimates should not be relied on; empty where nothing speaks against it."""
    return (*_support_warnings(gatherer.support), *_weight_warnings(found), *_judging_warnings(gatherer))


def _support_warnings(support: Support) -> Iterator[str]:
    count = support.decision_count
    if not count:
        yield "no decision of the log can be weighed: nobody was chosen, or the other router would turn all away"
        return
    if support.impossible_count:
        yield f"{support.impossible_count} decisions chose who could not be chosen, and are left out: is this one log?"
    if support.unseen_share > UNSEEN_SHARE_MAX:
        names = sorted(support.unseen, key=lambda name: -support.unseen[name])[:NAMED_COUNT_MAX]
        yield (
            f"{support.unseen_share:.1%} of what the other router would choose could never be chosen by the one that ran"
            f" ({', '.join(names)}): of that the log knows nothing, and only predictions speak for it"
        )
    if support.certain_count > CERTAIN_SHARE_MAX * count:
        yield (
            f"{support.certain_count / count:.1%} of the decisions could not have gone otherwise (propensity 1): log with"
            " more chance, by a split or a wider near_tie_width, to learn of other choices"
        )
    if support.apart_count:
        yield (
            f"{support.apart_count} decisions of a split are weighed by their own arm alone, because the arms have"
            " different quality models; they tell less"
        )
    weights = np.array(support.weights)
    expected = 1.0 - support.unseen_share
    error = float(weights.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    off = abs(float(weights.mean()) - expected)
    # Weights that are all the same but for rounding have no error to speak of.
    if off > WEIGHT_ERRORS_MAX * error and off > 1e-6:
        yield (
            f"the weights have a mean of {weights.mean():.3f} in place of {expected:.3f}: a log of which a part is"
            " missing, or of other routers than it tells of, makes the propensities wrong"
        )


def _weight_warnings(found: Mapping[Outcome, Estimates]) -> Iterator[str]:
    few = {outcome: estimate for outcome, estimate in found.items() if estimate.effective_count < EFFECTIVE_COUNT_MIN}
    if few:
        counts = sorted(round(estimate.effective_count) for estimate in few.values())
        worth = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
        yield (
            f"{', '.join(few)}: what was seen is worth {worth} decisions of the other router's own, too few to rely on (at"
            f" least {EFFECTIVE_COUNT_MIN})"
        )
    for outcome, estimate in found.items():
        if outcome in few:
            continue
        if estimate.rarer_count is not None and estimate.rarer_count < RARER_COUNT_MIN:
            yield (
                f"{outcome}: only {estimate.rarer_count} of {estimate.decision_count} outcomes are unlike the rest, too few"
                " for an interval"
            )
        elif estimate.largest_share > LARGEST_SHARE_MAX:
            yield f"{outcome}: a single decision carries {estimate.largest_share:.0%} of the weight"
    if Outcome.QUALITY not in found:
        yield "quality: none was reported, so nothing is known of it (ReportOutcome with `quality`)"


def _judging_warnings(gatherer: Gatherer) -> Iterator[str]:
    """Whether answers of some endpoints are judged more often than those of others."""
    judged_count, count = sum(gatherer.judged.values()), sum(gatherer.chosen.values())
    if not 0 < judged_count < count:
        return
    share = judged_count / count
    statistic = freedom = 0.0
    for name, chosen_count in gatherer.chosen.items():
        expected = chosen_count * share
        statistic += (gatherer.judged[name] - expected) ** 2 / (expected * (1.0 - share))
        freedom += 1.0
    if freedom < 2.0:
        return
    # Wilson's and Hilferty's approximation of the chi-squared distribution (1931).
    spread = 2.0 / (9.0 * (freedom - 1.0))
    normal = ((statistic / (freedom - 1.0)) ** (1.0 / 3.0) - (1.0 - spread)) / math.sqrt(spread)
    if normal > JUDGED_QUANTILE:
        rates = {name: gatherer.judged[name] / gatherer.chosen[name] for name in gatherer.chosen}
        low, high = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
        yield (
            f"quality: answers of {high} were judged in {rates[high]:.0%} of cases, those of {low} in {rates[low]:.0%}: if"
            " good ones are judged more often than bad ones, or less, that shows as quality"
        )
