"""How the numbers of a star plot are written: in the picture, on the page, in the table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import isfinite

from pointsman_server.training.frontier import Frontier
from pointsman_server.training.frontier_labels import text_width
from pointsman_server.training.frontier_pool import Axis
from pointsman_server.training.resampling import INTERVAL_LEVEL, Measured

NAME_ROOM = 230.0
NAME_SIZE = 12.0
"""Pixels that the name of an endpoint may take in the plot, and its font size."""
UNKNOWN = "?"
_LEVEL = f"{100 * INTERVAL_LEVEL:.0f} %"


@dataclass(frozen=True, slots=True)
class AxisWords:
    """What an axis is called."""

    title: str
    """With its unit."""
    short: str


AXIS_WORDS = {
    Axis.COST: AxisWords("cost, USD per 1,000 requests", "cost"),
    Axis.PRICE: AxisWords("price, USD per million tokens (3 of input to 1 of output)", "price"),
    Axis.TTFT: AxisWords("time to the first token, mean in ms", "TTFT"),
    Axis.ITL: AxisWords("time between tokens, mean in ms", "latency"),
}


def title(frontier: Frontier) -> str:
    """The headline."""
    return {
        Axis.COST: "Quality against cost",
        Axis.PRICE: "Quality against price",
        Axis.TTFT: "Quality against time to the first token",
        Axis.ITL: "Quality against inter-token latency",
    }[frontier.axis]


def subtitle(frontier: Frontier) -> tuple[str, str]:
    """What was measured, and how to read it."""
    source = f"{frontier.source}, " if frontier.source else ""
    what = f"{frontier.prompt_count:,} prompts, {len(frontier.endpoints)} endpoints, artifact {frontier.artifact}"
    chosen = f"{frontier.selection.value} ({frontier.selection_prompt_count:,} prompts)"
    return (
        f"{source}{frontier.split} split: {what}.",
        f"{_LEVEL} intervals by bootstrap over questions. Lettered routers and the best single endpoint were chosen on {chosen}.",
    )


def x_text(axis: Axis, value: float, *, unit: bool = True) -> str:
    """A value of the axis."""
    if not isfinite(value):
        return UNKNOWN
    match axis:
        case Axis.COST | Axis.PRICE:
            return f"${value:.3g}" if value >= 0.001 or value == 0.0 else f"${value:.2e}"
        case Axis.TTFT | Axis.ITL:
            return f"{value:.3g} ms" if unit else f"{value:.3g}"


def percent(share: float, *, digit_count: int = 1) -> str:
    """A share of 1, to a tenth of a percent unless told otherwise."""
    return f"{100.0 * share:.{digit_count}f} %" if isfinite(share) else UNKNOWN


def quality_range(quality: Measured) -> str:
    """A quality with its interval, in percent."""
    return f"{100 * quality.value:.1f} % ({100 * quality.low:.1f} to {100 * quality.high:.1f})"


def points(gain: Measured) -> str:
    """A difference of qualities with its interval, in percentage points."""
    if not isfinite(gain.value):
        return UNKNOWN
    return f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})".replace("-", "\N{MINUS SIGN}")


def is_beyond_doubt(gain: Measured) -> bool:
    """Whether a gain is above 0 with its whole interval."""
    return gain.low > 0.0


def shortened(text: str, *, room: float, size: float) -> str:
    """A text, cut to the room there is."""
    kept = text
    while kept and text_width(kept, size) > room:
        kept = kept[:-1]
    return text if kept == text else f"{kept}…"


def endpoint_labels(frontier: Frontier) -> tuple[str, ...]:
    """The shortest name of each endpoint that tells it apart: its model, where no other provider has it."""
    counts = Counter(endpoint.model for endpoint in frontier.endpoints)
    names = (each.model if counts[each.model] == 1 else each.name for each in frontier.endpoints)
    return tuple(shortened(name, room=NAME_ROOM, size=NAME_SIZE) for name in names)
