"""The numbers of a star plot as JSON, for programs and for the page. docs/frontier.md is the reader's version."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from pointsman_server.training.frontier import Frontier, Point, RouterPoint
from pointsman_server.training.frontier_words import AXIS_WORDS, is_beyond_doubt
from pointsman_server.training.resampling import Measured

JsonValue = str | int | float | bool | None | list["JsonValue"] | dict[str, "JsonValue"]


def frontier_fields(frontier: Frontier) -> dict[str, JsonValue]:
    """Everything that the plot shows. Qualities and shares are 0..1; a number that is not defined is null."""
    return {
        "x": frontier.axis.value,
        "x_title": AXIS_WORDS[frontier.axis].title,
        "source": frontier.source,
        "split": frontier.split,
        "artifact": frontier.artifact,
        "prompt_count": frontier.prompt_count,
        "selection": {"made_on": frontier.selection.value, "prompt_count": frontier.selection_prompt_count},
        "endpoints": [{"endpoint": endpoint.name, **_point(endpoint.at)} for endpoint in frontier.endpoints],
        "best_single": frontier.endpoints[frontier.best_single].name,
        "random": {**_point(frontier.random)},
        "random_mix": [{"x": x, "quality": quality} for x, quality in frontier.mix],
        "oracle": {**_point(frontier.oracle)},
        "routers": [_router(frontier, router) for router in frontier.routers],
        "left_out": [{"name": each.name, "reason": each.reason} for each in frontier.left_out],
    }


def _router(frontier: Frontier, router: RouterPoint) -> JsonValue:
    shares = zip((endpoint.name for endpoint in frontier.endpoints), router.shares, strict=True)
    return {
        "letter": router.letter,
        "router": router.text,
        "family": router.family.value,
        **_point(router.at),
        "gain_over_best_single": {
            **_measured(router.gain_over_best_single),
            "beyond_interval": is_beyond_doubt(router.gain_over_best_single),
        },
        "gain_over_random_mix": {
            **_measured(router.gain_over_mix),
            "beyond_interval": is_beyond_doubt(router.gain_over_mix),
        },
        "x_share_of_best_single": {**_measured(router.x_share_of_best_single)},
        "shares": dict(shares),
    }


def _point(at: Point) -> Mapping[str, JsonValue]:
    return {"x": {**_measured(at.x)}, "quality": {**_measured(at.quality)}}


def _measured(value: Measured) -> Mapping[str, JsonValue]:
    return {"value": _finite(value.value), "low": _finite(value.low), "high": _finite(value.high)}


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
