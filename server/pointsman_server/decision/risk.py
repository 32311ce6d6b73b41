"""How likely a candidate is to fall short of the best one: what held-out prompts have shown, as a table.

On a prompt, a candidate *falls short* of a share r of the best candidate's quality when its answer scores less than r
times what the best candidate's answer scores. The best candidate is the one of the highest predicted quality, the
*reference*; it never falls short of itself, so choosing it is how a router abstains. The *gap* of a candidate is the
reference's predicted quality minus its own.

The table says, for a number of candidates, a share and a risk, up to which gap candidates may pass so that, on prompts
exchangeable with the held-out ones, the probability that *any* candidate that passes falls short is at most the risk:
whatever picks among them, the promise holds (Angelopoulos et al., "Conformal Risk Control", 2022; see `training.risk`
for the calibration).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

ONLY_REFERENCE = -1.0
"""As the largest gap: no candidate but the reference passes, for gaps are never negative."""
UNSHOWN = 1.0
"""The risk of a candidate that no level of the table lets pass: all that can be said is that it is at most certain."""
LEVEL_TOLERANCE = 1e-9
"""A risk written as 1 - 0.9 is 0.09999999999999998, and means the level 0.1."""


@dataclass(frozen=True, slots=True)
class RiskTable:
    """The largest gap that may pass. More candidates, a larger share or a smaller risk never raise it. Memory: 10 kB."""

    model_counts: tuple[int, ...]
    """Levels of the number of models to choose among, the reference included, ascending, 2 and up."""
    shares: tuple[float, ...]
    """Levels of the share r of the reference's quality, ascending, above 0 and up to 1."""
    risks: tuple[float, ...]
    """Levels of the accepted probability of falling short, ascending, above 0 and below 1."""
    gap_max: tuple[tuple[tuple[float, ...], ...], ...]
    """For each number of models, for each share one gap for each risk, quality 0..1, or `ONLY_REFERENCE`."""
    prompt_count: int
    """Held-out prompts that the table rests on: of the smallest group of prompts for which it holds by itself."""

    def __post_init__(self) -> None:
        assert _ascending(self.model_counts), "numbers of models ascend"
        assert _ascending(self.shares), "shares ascend"
        assert _ascending(self.risks), "risks ascend"
        assert len(self.gap_max) == len(self.model_counts), "one table per number of models"
        for table in self.gap_max:
            assert len(table) == len(self.shares), "one row per share"
            assert all(len(row) == len(self.risks) for row in table), "one gap per risk"
            assert all(one <= other for row in table for one, other in pairwise(row)), "less risk, smaller gaps"
            assert all(_nowhere_above(larger, smaller) for smaller, larger in pairwise(table)), (
                "larger share, smaller gaps"
            )
        for few, many in pairwise(self.gap_max):
            assert all(map(_nowhere_above, many, few)), "more models, smaller gaps"

    def risk_of(self, gap: float, *, share: float, model_count: int) -> float:
        """The smallest level of risk at which a candidate with this gap may pass for `share`, or `UNSHOWN`.

        Between two levels the stricter one counts: the larger share, the larger number of models. Beyond the largest
        number of models that counts, the most that the held-out prompts can tell.
        """
        table = self.gap_max[min(bisect_left(self.model_counts, model_count), len(self.model_counts) - 1)]
        row = table[min(bisect_left(self.shares, share - LEVEL_TOLERANCE), len(self.shares) - 1)]
        index = bisect_left(row, gap)
        return self.risks[index] if index < len(row) else UNSHOWN


def is_accepted(risk: float, *, quantile: float) -> bool:
    """Whether a bound that must hold in the share `quantile` of cases accepts `risk`."""
    return risk <= 1.0 - quantile + LEVEL_TOLERANCE


def _ascending(levels: Sequence[float]) -> bool:
    return levels[0] > 0.0 and all(one < other for one, other in pairwise(levels))


def _nowhere_above(stricter: Sequence[float], looser: Sequence[float]) -> bool:
    return all(one <= other for one, other in zip(stricter, looser, strict=True))
