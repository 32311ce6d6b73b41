"""The star plot as a drawing: one geometry, as SVG, for pictures and for the page alike.

Endpoints are dots, routers are stars, the oracle is a diamond, chance is a cross: shapes tell them apart, not colours
alone, and the colours are those of Okabe and Ito, which colour-blind people tell apart. Elements carry classes; what
these look like stands in a style sheet of its own, so that a page can show the same drawing light and dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import cos, floor, log10, pi, sin

from pointsman_server.training.frontier import Frontier, RouterPoint, is_logarithmic
from pointsman_server.training.frontier_labels import Box, Label, Placed, place, text_width
from pointsman_server.training.frontier_words import (
    AXIS_WORDS,
    endpoint_labels,
    is_beyond_doubt,
    percent,
    points,
    quality_range,
    shortened,
    subtitle,
    title,
    x_text,
)
from pointsman_server.training.resampling import Measured

STAR_RADIUS = 8.5
MINOR_STAR_RADIUS = 4.5
STAR_WAIST = 0.45
"""Inner radius as a share of the outer one."""
DOT_RADIUS = 5.0
LEFT_EDGE = 20.0
TITLE_HEIGHT = 70.0
LEGEND_ROW_HEIGHT = 20.0
LEGEND = (
    ("star", "router, 95 % intervals"),
    ("minor", "other routers"),
    ("dot", "endpoint (ringed: best single)"),
    ("mix", "random mix of endpoints"),
    ("chance", "any endpoint by chance"),
    ("oracle", "oracle"),
)
"""Kinds of marks, and what they mean."""
KEY_ROW_HEIGHT = 21.0
LEFT_COLUMN_MAX = 60.0
"""Columns of the key that start further right hold numbers, and end where they are placed."""
STRIP_HEIGHT = 40.0
"""Above the plot, behind a break of the axis, for an oracle that is out of reach."""
STRIP_GAP_MIN = 0.3
"""Share of the plot's height that the way up to the oracle may take before it moves into the strip."""
DEEP_SHARE = 0.35
"""Endpoints that lie lower than this share of the routers' range under it are shown at the bottom edge."""
MARGIN_SHARE = 0.06
TICK_COUNT_MAX = 7
CURVE_POINT_COUNT = 24
"""Points of a straight mix between two endpoints, which is a curve on a logarithmic axis."""


@dataclass(frozen=True, slots=True)
class Canvas:
    """The size of the drawing, and what it says beside the plot itself. Units are CSS pixels."""

    width: float
    height: float
    """Of the plot with its axes; a key comes below it."""
    has_title: bool
    has_key: bool
    """Whether the routers that are pointed out are listed below."""

    @property
    def frame(self) -> Box:
        """Where the plot lies, with the strip above it."""
        top = 54.0 + LEGEND_ROW_HEIGHT * len(_legend_rows(self)) + (TITLE_HEIGHT if self.has_title else 0.0)
        return Box(LEFT_EDGE + 38.0, top, self.width - 26.0, self.height - 52.0)


PICTURE = Canvas(1040.0, 650.0, has_title=True, has_key=True)
PAGE = Canvas(800.0, 560.0, has_title=False, has_key=False)


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Where a value lies, pixels."""
        low, high, at = (log10(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round values within the scale."""
        if self.logarithmic:
            decades = range(floor(log10(self.low)), floor(log10(self.high)) + 1)
            for steps in ((1, 2, 5), (1, 3), (1,)):
                found = [s * 10.0**d for d in decades for s in steps if self.low <= s * 10.0**d <= self.high]
                if len(found) <= TICK_COUNT_MAX:
                    break
            return found
        raw = (self.high - self.low) / (TICK_COUNT_MAX - 1)
        magnitude = 10.0 ** floor(log10(raw))
        step = magnitude * next(s for s in (1.0, 2.0, 2.5, 5.0, 10.0) if s * magnitude >= raw * 0.999)
        first = floor(self.low / step) + 1 if self.low % step else round(self.low / step)
        return [round(k * step, 12) for k in range(int(first), int(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where everything lies."""

    frontier: Frontier
    canvas: Canvas
    frame: Box
    x: Scale
    y: Scale
    oracle_y: float
    """Of the oracle's mark, within the plot or in the strip above it."""
    has_strip: bool

    def dot(self, index: int) -> tuple[float, float]:
        """The place of an endpoint; one that lies below the plot is at its lower edge."""
        at = self.frontier.endpoints[index].at
        return self.x(at.x.value), min(self.y(at.quality.value), self.frame.bottom - 7.0)

    def is_below(self, index: int) -> bool:
        """Whether an endpoint lies below the plot."""
        return self.frontier.endpoints[index].at.quality.value < self.y.low

    def star(self, router: RouterPoint) -> tuple[float, float]:
        """The place of a router."""
        return self.x(router.at.x.value), self.y(router.at.quality.value)


def _layout(frontier: Frontier, canvas: Canvas) -> _Layout:
    frame = canvas.frame
    starred = [router for router in frontier.routers if router.letter] or list(frontier.routers)
    lowest = min(router.at.quality.low for router in starred)
    highest = max(router.at.quality.high for router in starred)
    deep = lowest - DEEP_SHARE * (highest - lowest)
    others = [*(endpoint.at.quality.value for endpoint in frontier.endpoints), frontier.random.quality.value]
    low = min([lowest, *(value for value in others if value >= deep)])
    high = max([highest, *others])
    oracle = frontier.oracle.quality.value
    has_strip = oracle - high > STRIP_GAP_MIN * max(oracle - low, 1e-9)
    high = high if has_strip else max(high, oracle)
    margin = MARGIN_SHARE * max(high - low, 0.01)
    top = frame.top + (STRIP_HEIGHT if has_strip else 0.0)
    y = Scale(max(0.0, low - margin), min(1.0, high + margin), frame.bottom, top)
    values = [*(each.at.x.value for each in frontier.endpoints), *(each.at.x.value for each in frontier.routers)]
    values += [frontier.oracle.x.value, frontier.random.x.value]
    values += [end for router in starred for end in (router.at.x.low, router.at.x.high)]
    x = _x_scale(values, frame)
    plot = Box(frame.left, top, frame.right, frame.bottom)
    return _Layout(frontier, canvas, plot, x, y, frame.top + 18.0 if has_strip else y(oracle), has_strip)


def _x_scale(values: Sequence[float], frame: Box) -> Scale:
    low, high = min(values), max(values)
    if is_logarithmic(values):
        factor = (high / low) ** MARGIN_SHARE
        return Scale(low / factor, high * factor, frame.left, frame.right, logarithmic=True)
    margin = MARGIN_SHARE * (high - low) or 0.5 * high or 0.5
    return Scale(max(0.0, low - margin), high + margin, frame.left, frame.right)


def drawing(frontier: Frontier, canvas: Canvas, *, style: str = "") -> str:
    """The plot as an SVG element.

    Args:
        frontier: the numbers.
        canvas: its size.
        style: a style sheet to put into it; a page that shows it has one already.
    """
    layout = _layout(frontier, canvas)
    placed = _labels(layout)
    key = _key(layout) if canvas.has_key else ""
    row_count = sum(1 for router in frontier.routers if router.letter) + 1
    height = canvas.height + (KEY_ROW_HEIGHT * row_count + 30.0 if canvas.has_key else 0.0)
    parts = [
        _opening(canvas.width, height, title(frontier)),
        f"<style>{style}</style>" if style else "",
        f'<rect class="paper" width="{canvas.width:g}" height="{height:g}"/>' if style else "",
        _headings(layout) if canvas.has_title else "",
        _legend(layout),
        _axes(layout),
        _mix(layout),
        '<g class="halos"></g>',
        _leaders(placed),
        _chance_and_oracle(layout),
        "".join(_dot(layout, index) for index in range(len(frontier.endpoints))),
        "".join(_star(layout, index, router) for index, router in _stars(frontier)),
        _texts(placed),
        key,
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


def _opening(width: float, height: float, words: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="frontier" viewBox="0 0 {width:g} {height:g}"'
        f' width="{width:g}" height="{height:g}" role="group" aria-label="{escape(words)}">'
    )


def _stars(frontier: Frontier) -> list[tuple[int, RouterPoint]]:
    """The routers with their indices, those that are pointed out last and so on top."""
    return sorted(enumerate(frontier.routers), key=lambda each: (bool(each[1].letter), each[0]))


def _headings(layout: _Layout) -> str:
    frontier, left = layout.frontier, LEFT_EDGE
    lines = subtitle(frontier)
    return f'<text class="title" x="{left:g}" y="34">{escape(title(frontier))}</text>' + "".join(
        f'<text class="muted" x="{left:g}" y="{56 + 17 * index:g}">{escape(line)}</text>'
        for index, line in enumerate(lines)
    )


def _legend(layout: _Layout) -> str:
    """What the marks mean, in as many lines above the plot as it takes."""
    canvas = layout.canvas
    parts = []
    for row, entries in enumerate(_legend_rows(canvas)):
        y = canvas.frame.top - 42.0 - LEGEND_ROW_HEIGHT * (len(_legend_rows(canvas)) - 1 - row)
        for kind, words, x in entries:
            parts.append(_legend_mark(kind, x + 7.0, y - 4.0))
            parts.append(f'<text class="legend" x="{x + 20:.1f}" y="{y:.1f}">{words}</text>')
    return f'<g class="key">{"".join(parts)}</g>'


def _legend_rows(canvas: Canvas) -> list[list[tuple[str, str, float]]]:
    """The kind of mark, what it means and where it stands, by line."""
    rows: list[list[tuple[str, str, float]]] = [[]]
    x = LEFT_EDGE
    for kind, words in LEGEND:
        width = 20.0 + text_width(words, 12.0) + 12.0
        if x + width > canvas.width and rows[-1]:
            rows.append([])
            x = LEFT_EDGE
        rows[-1].append((kind, words, x))
        x += width
    return rows


def _legend_mark(kind: str, x: float, y: float) -> str:
    match kind:
        case "star":
            return f'<path class="star" d="{_star_path(x, y, 7.0)}"/>'
        case "minor":
            return f'<path class="minor" d="{_star_path(x, y, MINOR_STAR_RADIUS)}"/>'
        case "dot":
            return f'<circle class="dot" cx="{x:g}" cy="{y:g}" r="{DOT_RADIUS:g}"/>'
        case "mix":
            return f'<path class="mix" d="M{x - 9:g} {y:g}H{x + 9:g}"/>'
        case "chance":
            return f'<path class="chance" d="{_cross_path(x, y)}"/>'
        case _:
            return f'<path class="oracle" d="{_diamond_path(x, y)}"/>'


def _axes(layout: _Layout) -> str:
    """Grid, ticks and titles; the quality axis has its title above it, where it can be read without turning the head."""
    frame, parts = layout.frame, []
    for value in layout.y.ticks():
        y = layout.y(value)
        parts.append(f'<path class="grid" d="M{frame.left:.1f} {y:.1f}H{frame.right:.1f}"/>')
        parts.append(
            f'<text class="tick" text-anchor="end" x="{frame.left - 8:.1f}" y="{y + 4:.1f}">{100 * value:g}</text>'
        )
    for value in layout.x.ticks():
        x = layout.x(value)
        parts.append(f'<path class="grid" d="M{x:.1f} {frame.top:.1f}V{frame.bottom:.1f}"/>')
        text = escape(x_text(layout.frontier.axis, value, unit=False))
        parts.append(f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{frame.bottom + 18:.1f}">{text}</text>')
    parts.append(f'<path class="axis" d="M{frame.left:.1f} {frame.bottom:.1f}H{frame.right:.1f}"/>')
    words = AXIS_WORDS[layout.frontier.axis].title + (", logarithmic" if layout.x.logarithmic else "")
    middle = (frame.left + frame.right) / 2.0
    parts.append(
        f'<text class="axis-title" text-anchor="middle" x="{middle:.1f}" y="{frame.bottom + 40:.1f}">{escape(words)}</text>'
    )
    top = layout.canvas.frame.top
    parts.append(f'<text class="axis-title" x="{LEFT_EDGE:.1f}" y="{top - 15:.1f}">quality, mean in %</text>')
    if layout.has_strip:
        y = frame.top - 6.0
        parts += [
            f'<path class="break" d="M{x - 5:.1f} {y + 3:.1f}l4 -6m3 6l4 -6"/>' for x in (frame.left, frame.right - 6.0)
        ]
        parts.append(f'<path class="grid dotted" d="M{frame.left + 10:.1f} {y:.1f}H{frame.right - 10:.1f}"/>')
    return "".join(parts)


def _mix(layout: _Layout) -> str:
    """What assigning prompts by chance reaches, as a line."""
    places = _mix_places(layout)
    return f'<path class="mix" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in places)}"/>' if places else ""


def _mix_places(layout: _Layout) -> list[tuple[float, float]]:
    """Places on that line: straight between two endpoints, level above the last."""
    corners = list(layout.frontier.mix)
    corners.append((max(layout.x.high, corners[-1][0]), corners[-1][1]))
    places = []
    for (x0, q0), (x1, q1) in pairwise(corners):
        for step in range(CURVE_POINT_COUNT + 1):
            part = step / CURVE_POINT_COUNT
            places.append((layout.x(x0 + part * (x1 - x0)), layout.y(q0 + part * (q1 - q0))))
    return [(x, y) for x, y in places if y <= layout.frame.bottom]


def _chance_and_oracle(layout: _Layout) -> str:
    random, oracle = layout.frontier.random, layout.frontier.oracle
    parts = []
    if random.quality.value >= layout.y.low:
        parts.append(
            f'<path class="chance" d="{_cross_path(layout.x(random.x.value), layout.y(random.quality.value))}"/>'
        )
    parts.append(f'<path class="oracle" d="{_diamond_path(layout.x(oracle.x.value), layout.oracle_y)}"/>')
    return "".join(parts)


def _dot(layout: _Layout, index: int) -> str:
    x, y = layout.dot(index)
    shape = f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{DOT_RADIUS:g}"/>'
    if layout.is_below(index):
        shape = f'<path class="dot" d="M{x - 5:.1f} {y - 4:.1f}h10l-5 9z"/>'
    elif index == layout.frontier.best_single:
        shape = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="{DOT_RADIUS + 3.5:g}"/>{shape}'
    return f'<g class="endpoint" data-endpoint="{index}">{shape}</g>'


def _star(layout: _Layout, index: int, router: RouterPoint) -> str:
    x, y = layout.star(router)
    if not router.letter:
        star = f'<path class="minor" d="{_star_path(x, y, MINOR_STAR_RADIUS)}"/>'
        return f'<g class="router" data-router="{index}">{star}</g>'
    bars = "".join(f'<path class="bar" d="{path}"/>' for path in _bars(layout, router))
    star = f'<path class="star" d="{_star_path(x, y, STAR_RADIUS)}"/>'
    words = f"{router.letter}: {router.text}, quality {quality_range(router.at.quality)}, {x_text(layout.frontier.axis, router.at.x.value)}"
    return (
        f'<g class="router pointed" data-router="{index}" tabindex="0" role="button"'
        f' aria-label="{escape(words)}">{bars}{star}</g>'
    )


def _bars(layout: _Layout, router: RouterPoint) -> tuple[str, str]:
    """The intervals of quality and of x, as lines through the star."""
    x, y = layout.star(router)
    y0, y1 = layout.y(router.at.quality.low), layout.y(router.at.quality.high)
    x0, x1 = layout.x(router.at.x.low), layout.x(router.at.x.high)
    return f"M{x:.1f} {y0:.1f}V{y1:.1f}", f"M{x0:.1f} {y:.1f}H{x1:.1f}"


def _labels(layout: _Layout) -> list[Placed]:
    """Letters of the stars first, then the oracle, then endpoints, the best first: an endpoint that comes late may find no
    room, and is then only in the table."""
    frontier = layout.frontier
    obstacles: list[Box] = []
    labels: list[Label] = []
    for router in frontier.routers:
        x, y = layout.star(router)
        obstacles.append(Box.around(x, y, STAR_RADIUS if router.letter else MINOR_STAR_RADIUS))
        if router.letter:
            y0, y1 = layout.y(router.at.quality.low), layout.y(router.at.quality.high)
            x0, x1 = layout.x(router.at.x.low), layout.x(router.at.x.high)
            obstacles += [Box(x - 1.0, y1, x + 1.0, y0), Box(x0, y - 1.0, x1, y + 1.0)]
            labels.append(Label(router.letter, x, y, STAR_RADIUS, 13.0, "letter", must=True))
    oracle, random = frontier.oracle, frontier.random
    oracle_x = layout.x(oracle.x.value)
    obstacles.append(Box.around(oracle_x, layout.oracle_y, 7.0))
    words = f"oracle {percent(oracle.quality.value)} at {x_text(frontier.axis, oracle.x.value)}"
    labels.append(Label(words, oracle_x, layout.oracle_y, 7.0, 12.0, "oracle-label", must=True))
    if random.quality.value >= layout.y.low:
        obstacles.append(Box.around(layout.x(random.x.value), layout.y(random.quality.value), 5.0))
    names = endpoint_labels(frontier)
    best_first = sorted(range(len(names)), key=lambda index: -frontier.endpoints[index].at.quality.value)
    best_first.sort(key=lambda index: index != frontier.best_single)
    for index in best_first:
        x, y = layout.dot(index)
        obstacles.append(Box.around(x, y, DOT_RADIUS))
        below = f" {percent(frontier.endpoints[index].at.quality.value)}" if layout.is_below(index) else ""
        must = index == frontier.best_single
        labels.append(Label(names[index] + below, x, y, DOT_RADIUS, 12.0, "endpoint-label", must=must))
    room = Box(layout.frame.left, layout.canvas.frame.top, layout.canvas.width - 6.0, layout.frame.bottom - 1.0)
    mix = [Box.around(x, y, 2.0) for x, y in _mix_places(layout)]
    return place(labels, obstacles, room, avoided=mix)


def _texts(placed: Iterable[Placed]) -> str:
    return "".join(
        f'<text class="{each.label.style}" text-anchor="{each.anchor}" x="{each.x:.1f}" y="{each.y:.1f}">'
        f"{escape(each.label.text)}</text>"
        for each in placed
    )


def _leaders(placed: Iterable[Placed]) -> str:
    """Lines from what is labelled to labels that found room only further off."""
    return "".join(
        f'<path class="leader" d="M{each.label.x:.1f} {each.label.y:.1f}L{each.end_x:.1f} {each.end_y:.1f}"/>'
        for each in placed
        if each.has_leader
    )


def _key(layout: _Layout) -> str:
    """The routers that are pointed out, a line each, below the plot."""
    frontier, left = layout.frontier, LEFT_EDGE
    right = layout.canvas.width - 26.0
    columns = (left, left + 24.0, right - 485.0, right - 325.0, right - 160.0, right)
    y = layout.canvas.height + 32.0
    short = AXIS_WORDS[frontier.axis].short
    header = ("", "router", "quality, %", "over best single", f"{short} (of best single's)", "over random mix")
    cells = [_key_text(cell, x, y, "key-head") for cell, x in zip(header, columns, strict=True)]
    for number, router in enumerate((router for router in frontier.routers if router.letter), start=1):
        row_y = y + number * KEY_ROW_HEIGHT
        cells.append(f'<text class="letter" x="{left:.1f}" y="{row_y:.1f}">{router.letter}</text>')
        share = percent(router.x_share_of_best_single.value, digit_count=0)
        texts = (
            (shortened(router.text, room=columns[2] - columns[1] - 150.0, size=12.0), ""),
            (quality_range(router.at.quality), ""),
            (points(router.gain_over_best_single), _certainty(router.gain_over_best_single)),
            (f"{x_text(frontier.axis, router.at.x.value)} ({share})", ""),
            (points(router.gain_over_mix), _certainty(router.gain_over_mix)),
        )
        cells += [_key_text(text, x, row_y, style) for (text, style), x in zip(texts, columns[1:], strict=True)]
    line = f'<path class="axis" d="M{left:.1f} {y - 22:.1f}H{right:.1f}"/>'
    return f'<g class="listing">{line}{"".join(cells)}</g>'


def _key_text(text: str, x: float, y: float, style: str) -> str:
    anchor = "start" if x < LEFT_COLUMN_MAX else "end"
    return f'<text class="{style}" text-anchor="{anchor}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _certainty(gain: Measured) -> str:
    """The style of a gain: plain to see where it is beyond its interval."""
    return "certain" if is_beyond_doubt(gain) else "uncertain"


def _star_path(x: float, y: float, radius: float) -> str:
    corners = []
    for k in range(10):
        r = radius if k % 2 == 0 else STAR_WAIST * radius
        corners.append(f"{x + r * sin(pi * k / 5):.1f} {y - r * cos(pi * k / 5):.1f}")
    return f"M{'L'.join(corners)}Z"


def _diamond_path(x: float, y: float) -> str:
    return f"M{x:.1f} {y - 7:.1f}l6 7l-6 7l-6 -7z"


def _cross_path(x: float, y: float) -> str:
    return f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
