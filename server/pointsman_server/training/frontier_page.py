"""The star plot as a page: one file that needs nothing else, neither a network nor a server."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from pointsman_server.training.frontier import Frontier, RouterPoint
from pointsman_server.training.frontier_fields import frontier_fields
from pointsman_server.training.frontier_picture import DARK, LIGHT, SHEET, Colours
from pointsman_server.training.frontier_plot import PAGE, drawing
from pointsman_server.training.frontier_pool import summary_of
from pointsman_server.training.frontier_words import (
    AXIS_WORDS,
    endpoint_labels,
    is_beyond_doubt,
    percent,
    points,
    quality_range,
    subtitle,
    title,
    x_text,
)
from pointsman_server.training.resampling import Measured

TEMPLATE = Path(__file__).parent / "frontier_page.html"
"""The page around the plot, with its style and its script. `{{name}}` marks what is filled in."""


def page_html(frontier: Frontier) -> str:
    """The page."""
    parts = {
        "title": escape(title(frontier)),
        "subtitle": "<br>".join(escape(line) for line in subtitle(frontier)),
        "light": _variables(LIGHT),
        "dark": _variables(DARK),
        "sheet": SHEET,
        "plot": drawing(frontier, PAGE),
        "short": escape(AXIS_WORDS[frontier.axis].short),
        "routers": "\n".join(_router_row(frontier, index) for index in range(len(frontier.routers))),
        "endpoints": "\n".join(_endpoint_row(frontier, index) for index in range(len(frontier.endpoints))),
        "left_out": "".join(f"<li>{escape(line)}</li>" for line in summary_of(frontier.left_out)) or "<li>nothing</li>",
        "data": _embedded(frontier),
    }
    page = TEMPLATE.read_text(encoding="utf-8")
    before, *pieces = page.split("{{")
    filled = [before]
    for piece in pieces:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)


def _variables(colours: Colours) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


def _router_row(frontier: Frontier, index: int) -> str:
    router = frontier.routers[index]
    share = percent(router.x_share_of_best_single.value)
    return (
        f'<tr data-router="{index}"{" class=pointed" if router.letter else ""}>'
        f'<td><button type="button" aria-label="show this router">{router.letter or "&#9734;"}</button></td>'
        f"<td><code>{escape(router.text)}</code></td>"
        f"<td>{quality_range(router.at.quality)}</td>"
        f"<td>{escape(_x_range(frontier, router.at.x))}</td><td>{share}</td>"
        f"{_gain_cell(router.gain_over_best_single)}{_gain_cell(router.gain_over_mix)}</tr>"
    )


def _gain_cell(gain: Measured) -> str:
    return f'<td class="{"certain" if is_beyond_doubt(gain) else "uncertain"}">{points(gain)}</td>'


def _endpoint_row(frontier: Frontier, index: int) -> str:
    endpoint = frontier.endpoints[index]
    mark = " (best single)" if index == frontier.best_single else ""
    return (
        f"<tr><td>{escape(endpoint.name)}{mark}</td><td>{quality_range(endpoint.at.quality)}</td>"
        f"<td>{escape(_x_range(frontier, endpoint.at.x))}</td></tr>"
    )


def _x_range(frontier: Frontier, x: Measured) -> str:
    """A value of the axis with its interval, where it has one."""
    value, low, high = (x_text(frontier.axis, each) for each in (x.value, x.low, x.high))
    return value if low == high else f"{value} ({low} to {high})"


def _embedded(frontier: Frontier) -> str:
    """The numbers as JSON, with the texts that the script shows; nothing in it can end the element that holds it."""
    words = {
        "best": endpoint_labels(frontier)[frontier.best_single],
        "endpoints": list(endpoint_labels(frontier)),
        "endpointPlaces": [
            f"{quality_range(each.at.quality)} at {_x_range(frontier, each.at.x)}" for each in frontier.endpoints
        ],
        "routers": [_router_words(frontier, router) for router in frontier.routers],
    }
    text = json.dumps({"frontier": frontier_fields(frontier), "words": words}, ensure_ascii=False, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _router_words(frontier: Frontier, router: RouterPoint) -> dict[str, str]:
    return {
        "quality": quality_range(router.at.quality),
        "x": _x_range(frontier, router.at.x),
        "share": percent(router.x_share_of_best_single.value),
        "best": points(router.gain_over_best_single),
        "mix": points(router.gain_over_mix),
        "verdict": _verdict(frontier, router),
    }


def _verdict(frontier: Frontier, router: RouterPoint) -> str:
    """What may be said of the router, and what not."""
    best = endpoint_labels(frontier)[frontier.best_single]
    gain, mix = router.gain_over_best_single, router.gain_over_mix
    share = percent(router.x_share_of_best_single.value)
    short = AXIS_WORDS[frontier.axis].short
    if gain.low > 0.0:
        first = f"Better than {best}, beyond the interval"
    elif gain.high < 0.0:
        first = f"Not as good as {best}"
    else:
        first = f"No difference from {best} that these prompts could show"
    second = (
        "better than any random mix of endpoints at that place, beyond the interval"
        if is_beyond_doubt(mix)
        else "not beyond doubt better than a random mix of endpoints"
    )
    return f"{first}, at {share} of its {short}; {second}."
