"""Which routers a star plot tries: chosen by what the artifact predicts, never by what became of the prompts.

Three families move along the frontier: a weight on what is plotted, a floor under the relative quality, and a budget
for every single request. Their numbers come from the predictions, so that the stars spread over the plot whatever the
prices are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from pointsman_server.decision.metrics import METRIC_SPECS
from pointsman_server.decision.router_string import parse_router_string
from pointsman_server.decision.types import Candidate, SearchSpace
from pointsman_server.training.frontier_pool import Axis, Doubles, restricted

WEIGHT_COUNT = 20
"""Routers that weigh quality against what is plotted."""
TRIED_WEIGHT_COUNT = 200
"""Weights that are tried on the predictions to find those that lie apart: steps of a few percent."""
FLOORS = (0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
"""Of the quality relative to the best candidate's: above 0.98 hardly any other candidate is left."""
BUDGET_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Budgets, as quantiles of what the endpoints are expected to take."""
TURN_MARGIN = 1.5
"""Factor beyond the weights at which the first and the last prompt change their endpoint."""
DIGIT_COUNT = 3
"""Significant digits of a number that people copy."""
LEAST_SPREAD = 1e-12
"""Endpoints that differ by less than this share do not differ."""


class Family(StrEnum):
    """How a router trades quality."""

    DEFAULT = "default"
    """The server's default router."""
    EXTREME = "extreme"
    """One end of the frontier: the best predicted quality, or the lowest x."""
    WEIGHT = "weight"
    FLOOR = "floor"
    BUDGET = "budget"
    GIVEN = "given"
    """Asked for by the user."""


@dataclass(frozen=True, slots=True)
class RouterText:
    """A router of the grid."""

    text: str
    """As the parser prints it."""
    family: Family


def router_grid(
    axis: Axis, expected: Sequence[Sequence[Candidate]], *, restriction: SearchSpace, given: Sequence[str]
) -> tuple[RouterText, ...]:
    """The routers to try, each text once, the user's own first.

    Args:
        axis: what is plotted against quality.
        expected: for each prompt, what is expected of each endpoint, in a fixed order.
        restriction: where every router looks, also those that are given.
        given: the user's own routers.

    Raises:
        RouterStringError: one of `given` can't be read.
        FrontierError: one of `given` names only what is not in the plot.
    """
    quality = np.array([[_known(c.quality and c.quality.mean) for c in row] for row in expected])
    taken = _filled(np.array([[_known(axis.expected(candidate)) for candidate in row] for row in expected]))
    spec = METRIC_SPECS[axis.metric]
    weighed, bounded = spec.aliases[0], spec.aliases[-1]
    scale = 10.0**spec.text_exponent
    lowest = f"router@lowest-{bounded}"
    weights = [_short(weight / scale) for weight in spread_weights(quality, taken)]
    budgets = [_short(float(value) * scale) for value in np.quantile(taken, BUDGET_QUANTILES)]
    texts = [
        *((text, Family.GIVEN) for text in given),
        ("router", Family.DEFAULT),
        ("router@q:1", Family.EXTREME),
        (lowest, Family.EXTREME),
        *((f"router@q:1|{weighed}:{weight}", Family.WEIGHT) for weight in weights),
        *((f"{lowest}|rq>={floor:g}", Family.FLOOR) for floor in FLOORS),
        *((f"router@highest-q|{bounded}<={budget}->{lowest}", Family.BUDGET) for budget in budgets),
    ]
    found: dict[str, Family] = {}
    for text, family in texts:
        found.setdefault(str(restricted(parse_router_string(text), restriction)), family)
    return tuple(RouterText(text, family) for text, family in found.items())


def spread_weights(quality: Doubles, taken: Doubles) -> list[float]:
    """Weights of one canonical unit of `taken` against quality, under which the choices by predicted utility lie evenly
    along the frontier that they make, from the best endpoint for each prompt to the one that takes least.

    Args:
        quality: predicted, (prompts, endpoints).
        taken: expected cost, price or latency, likewise.
    """
    spread = float(taken.max() - taken.min())
    if spread <= LEAST_SPREAD * float(np.abs(taken).max()):
        return []
    best = np.argmax(quality, axis=1)
    # The weight at which the best candidate loses to one that takes less, over all prompts and such candidates.
    lost = np.take_along_axis(quality, best[:, np.newaxis], axis=1) - quality
    saved = np.take_along_axis(taken, best[:, np.newaxis], axis=1) - taken
    turns = (lost / np.where(saved > 0.0, saved, np.inf))[(saved > 0.0) & (lost > 0.0)]
    if not len(turns):
        return []
    tried = np.geomspace(float(turns.min()) / TURN_MARGIN, float(turns.max()) * TURN_MARGIN, TRIED_WEIGHT_COUNT)
    every = np.arange(len(quality))
    chosen = [np.argmax(quality - weight * taken, axis=1) for weight in tried]
    heights = np.array([quality[every, columns].mean() for columns in chosen])
    positions = np.array([taken[every, columns].mean() for columns in chosen])
    length = _unit(heights) + _unit(np.log(np.maximum(positions, np.finfo(np.float64).tiny)))
    wanted = np.linspace(float(length.min()), float(length.max()), WEIGHT_COUNT)
    indices = {int(np.argmin(np.abs(length - target))) for target in wanted}
    return [float(tried[index]) for index in sorted(indices)]


def _unit(values: Doubles) -> Doubles:
    """Shifted and scaled to 0..1; all 0 where they do not differ."""
    spread = values.max() - values.min()
    return np.asarray((values - values.min()) / spread) if spread > 0.0 else np.zeros(len(values))


def _filled(values: Doubles) -> Doubles:
    """What is unknown taken to be like the others', as the decision takes it."""
    known = values[np.isfinite(values)]
    return np.where(np.isfinite(values), values, np.median(known) if len(known) else 0.0)


def _known(value: float | None) -> float:
    return np.nan if value is None else value


def _short(value: float) -> str:
    """A number to copy, rounded."""
    return f"{value:.{DIGIT_COUNT}g}"
