"""What the star plot looks like, and its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import resvg_py

from pointsman_server.training.frontier import Frontier
from pointsman_server.training.frontier_plot import PICTURE, drawing

FONTS = Path(__file__).parent / "fonts"
FONT_FILES = (FONTS / "Inter-Regular.otf", FONTS / "Inter-SemiBold.otf")
"""A picture looks the same on every machine, also on one that has no fonts."""
PIXELS_PER_UNIT = 1.5
"""Of a PNG: sharp enough for a page, and small enough for a repository."""

Colours = Mapping[str, str]

LIGHT: Colours = {
    "paper": "#ffffff", "ink": "#1c2530", "muted": "#5d6875", "grid": "#e4e8ed", "star": "#d55e00",
    "dot": "#0072b2", "oracle": "#00855f", "mix": "#6f7782",
}  # fmt: skip
DARK: Colours = {
    "paper": "#12161c", "ink": "#e8ecf1", "muted": "#9fabb8", "grid": "#2a323d", "star": "#ff9a4d",
    "dot": "#62b6f0", "oracle": "#3fcfa5", "mix": "#97a1ad",
}  # fmt: skip

SHEET = """
.frontier text { font-family: Inter, system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif; font-size: 12px; fill: var(--ink); }
.frontier .paper { fill: var(--paper); }
.frontier .title { font-size: 20px; font-weight: 600; }
.frontier .muted, .frontier .legend, .frontier .tick { fill: var(--muted); }
.frontier .axis-title { fill: var(--ink); font-weight: 600; }
.frontier .grid { stroke: var(--grid); stroke-width: 1; fill: none; }
.frontier .dotted { stroke-dasharray: 2 4; stroke: var(--muted); }
.frontier .axis, .frontier .break { stroke: var(--muted); stroke-width: 1; fill: none; }
.frontier .mix { stroke: var(--mix); stroke-width: 1.6; stroke-dasharray: 6 4; fill: none; }
.frontier .chance { stroke: var(--mix); stroke-width: 2.2; fill: none; }
.frontier .oracle { fill: var(--oracle); }
.frontier .dot { fill: var(--dot); stroke: var(--paper); stroke-width: 1.2; }
.frontier .ring { fill: none; stroke: var(--dot); stroke-width: 1.5; }
.frontier .star { fill: var(--star); stroke: var(--paper); stroke-width: 1; }
.frontier .minor { fill: var(--paper); stroke: var(--star); stroke-width: 1.1; stroke-opacity: .75; }
.frontier .bar { stroke: var(--star); stroke-width: 1.6; stroke-opacity: .5; fill: none; }
.frontier .leader { stroke: var(--muted); stroke-width: .8; stroke-opacity: .6; fill: none; }
.frontier .letter { fill: var(--star); font-size: 13px; font-weight: 600; }
.frontier .oracle-label { fill: var(--oracle); }
.frontier .letter, .frontier .endpoint-label, .frontier .oracle-label { paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; }
.frontier .endpoint-label { fill: var(--ink); }
.frontier .key-head { fill: var(--muted); font-weight: 600; }
.frontier .certain { font-weight: 600; }
.frontier .uncertain { fill: var(--muted); }
"""
"""Of each class of the drawing. Colours are variables: a page sets them, a picture has them filled in."""


def picture_svg(frontier: Frontier) -> str:
    """The plot as an SVG file: light on a light page, dark on a dark one."""
    style = f"{style_sheet(LIGHT)}@media (prefers-color-scheme: dark) {{{style_sheet(DARK)}}}"
    return drawing(frontier, PICTURE, style=style)


def picture_png(frontier: Frontier) -> bytes:
    """The plot as a PNG file, light."""
    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=drawing(frontier, PICTURE, style=style_sheet(LIGHT)),
            zoom=PIXELS_PER_UNIT,
            font_files=[str(path) for path in FONT_FILES],
            sans_serif_family="Inter",
        )
    )


def style_sheet(colours: Colours) -> str:
    """What the classes of the drawing look like in these colours."""
    sheet = SHEET
    for name, colour in colours.items():
        sheet = sheet.replace(f"var(--{name})", colour)
    return sheet
