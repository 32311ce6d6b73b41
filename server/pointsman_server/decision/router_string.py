"""Routers as text: the compact form that people copy from a plot, parsed and printed back exactly.

    routers     := alternative ("->" alternative)*              later ones are fallbacks
    alternative := head | head "@" provider | head "@" item ("|" item)*
    head        := "router" (the default one), the name of a router, or the name of a model
    item        := metric ":" weight                            q:1, c:4.65e-03
                 | ("highest-" | "lowest-") metric              lowest-ttft
                 | metric [".p" percent] ("<"|"<="|">"|">=") n  ttft.p95<500
                 | list ":" name ("," name)*                    models:a,b  skip_providers:x
                 | "capabilities:" capability ("," capability)*
                 | "labels:" key "=" value ("," key "=" value)* labels:region=eu,retention=none

Metrics and their units stand in `metrics`: the text counts latencies in milliseconds. docs/router-strings.md is the
reader's version.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from pointsman_server.decision.metrics import METRIC_BY_NAME, METRIC_SPECS, Metric
from pointsman_server.decision.types import (
    QUANTILE_MAX,
    QUANTILE_MIN,
    Bound,
    Capability,
    Comparison,
    Direction,
    Objective,
    Preference,
    SearchSpace,
    Weights,
    number_text,
    parse_number,
)
from pointsman_server.errors import PointsmanError

LENGTH_MAX = 4096
"""Characters of a router string: room for lists of models, no room for abuse."""
ALTERNATIVE_COUNT_MAX = 16
"""A chain of fallbacks longer than this is a mistake."""
ITEM_COUNT_MAX = 64
"""More items than there are metrics, bounds and lists to name."""
DEFAULT_HEAD = "router"
"""The head that stands for the default router."""

SPACE_LISTS = ("models", "providers", "endpoints", "skip_models", "skip_providers", "skip_endpoints")

_BOUND = re.compile(r"([a-z0-9-]+)(?:\.p([0-9.]+))?(<=|>=|<|>)(.*)", re.DOTALL)
_OBJECTIVE = re.compile(r"(highest|lowest)-(.*)", re.DOTALL)
_PAIR = re.compile(r"([a-z_0-9-]+):(.*)", re.DOTALL)
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:+-]{0,127}")
ENDPOINT_NAME_PATTERN = re.compile(rf"{NAME_PATTERN.pattern}@{NAME_PATTERN.pattern}")
LABEL_PATTERN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._/-]{0,62})=([A-Za-z0-9][A-Za-z0-9._/-]{0,62})")


class RouterStringError(PointsmanError):
    """A router string that can't be read; `position` is where, in characters from 0."""

    def __init__(self, message: str, position: int) -> None:
        self.position = position
        super().__init__(f"{message} (at character {position})")


@dataclass(frozen=True, slots=True)
class RouterAlternative:
    """One alternative of a router string: what it names, and what it asks on top of that."""

    head: str
    space: SearchSpace = SearchSpace()
    bounds: tuple[Bound, ...] = ()
    capabilities: frozenset[Capability] = frozenset()
    labels: frozenset[tuple[str, str]] = frozenset()
    preference: Preference | None = None
    """None: the preference of what the head names."""


@dataclass(frozen=True, slots=True)
class RouterString:
    """A parsed router string: its alternatives in the order in which they are tried."""

    alternatives: tuple[RouterAlternative, ...]

    def __str__(self) -> str:
        return "->".join(_print_alternative(alternative) for alternative in self.alternatives)


def parse_router_string(text: str) -> RouterString:
    """Reads a router string. An empty one names the default router.

    Raises:
        RouterStringError: it can't be read; says where, why, and what would be right.
    """
    if len(text) > LENGTH_MAX:
        raise RouterStringError(f"a router string has at most {LENGTH_MAX} characters, not {len(text)}", LENGTH_MAX)
    if not text:
        return RouterString((RouterAlternative(DEFAULT_HEAD),))
    alternatives: list[RouterAlternative] = []
    position = 0
    for part in text.split("->"):
        if len(alternatives) == ALTERNATIVE_COUNT_MAX:
            raise RouterStringError(f"at most {ALTERNATIVE_COUNT_MAX} alternatives, joined by ->", position)
        alternatives.append(_parse_alternative(part, position))
        position += len(part) + len("->")
    return RouterString(tuple(alternatives))


def _parse_alternative(text: str, position: int) -> RouterAlternative:
    head, at, tail = text.partition("@")
    if NAME_PATTERN.fullmatch(head) is None:
        raise RouterStringError(
            f"{_shown(head)} is no name; expected router, the name of a router, or the name of a model", position
        )
    alternative = RouterAlternative(head)
    if not at:
        return alternative
    position += len(head) + 1
    if _OBJECTIVE.fullmatch(tail) is None and NAME_PATTERN.fullmatch(tail) is not None and ":" not in tail:
        return replace(alternative, space=SearchSpace(providers=frozenset({tail})))
    weights: dict[Metric, float] = {}
    items = tail.split("|")
    if len(items) > ITEM_COUNT_MAX:
        raise RouterStringError(f"at most {ITEM_COUNT_MAX} items, separated by |", position)
    for item in items:
        alternative = _parse_item(item, alternative, weights, position)
        position += len(item) + 1
    if not weights:
        return alternative
    if not any(weights.values()):
        raise RouterStringError("at least one weight must be above 0", position - 1)
    return replace(alternative, preference=Weights.of(weights))


def _parse_item(
    item: str, alternative: RouterAlternative, weights: dict[Metric, float], position: int
) -> RouterAlternative:
    """`alternative` with what `item` adds to it; a weight goes to `weights`."""
    if match := _BOUND.fullmatch(item):
        bound = _parse_bound(match, position)
        return replace(alternative, bounds=(*alternative.bounds, bound))
    if match := _OBJECTIVE.fullmatch(item):
        if weights or alternative.preference is not None:
            raise RouterStringError("an objective stands alone: no second objective and no weights", position)
        metric = _metric(match[2], position + match.start(2))
        if metric is Metric.RELATIVE_QUALITY:
            raise RouterStringError("relative-quality is relative to the best; seek quality", position)
        return replace(alternative, preference=Objective(metric, Direction(match[1])))
    if (match := _PAIR.fullmatch(item)) is None:
        raise RouterStringError(
            f"{_shown(item)} is neither a weight (q:1), an objective (lowest-ttft), a bound (ttft<500) nor a list"
            " (models:a,b)",
            position,
        )
    key, value, value_position = match[1], match[2], position + match.start(2)
    if key in SPACE_LISTS:
        if getattr(alternative.space, key):
            raise RouterStringError(f"{key} is listed twice", position)
        pattern = ENDPOINT_NAME_PATTERN if key.endswith("endpoints") else NAME_PATTERN
        names = frozenset(_list(value, pattern, key, value_position))
        return replace(alternative, space=replace(alternative.space, **{key: names}))
    if key == "capabilities":
        known = "|".join(re.escape(capability.value) for capability in Capability)
        names = frozenset(_list(value, re.compile(known), key, value_position))
        return replace(alternative, capabilities=alternative.capabilities | {Capability(name) for name in names})
    if key == "labels":
        pairs = (LABEL_PATTERN.fullmatch(pair) for pair in _list(value, LABEL_PATTERN, key, value_position))
        return replace(alternative, labels=alternative.labels | {(pair[1], pair[2]) for pair in pairs if pair})
    _parse_weight(key, value, alternative, weights, position)
    return alternative


def _parse_weight(
    key: str, value: str, alternative: RouterAlternative, weights: dict[Metric, float], position: int
) -> None:
    metric = _metric(key, position)
    if not METRIC_SPECS[metric].weighable:
        raise RouterStringError(f"{metric.value} has no weight; bound it, or weigh what it is made of", position)
    if alternative.preference is not None:
        raise RouterStringError("an objective stands alone: no weights beside it", position)
    if metric in weights:
        raise RouterStringError(f"{metric.value} is weighed twice", position)
    # A weight per millisecond is 10^3 times that per second: the exponent works the other way than for a value.
    weight = _number(value, position + len(key) + 1, exponent=-METRIC_SPECS[metric].text_exponent)
    if weight < 0.0:
        raise RouterStringError(
            "a weight is at least 0; what is better when lower is subtracted already", position + len(key) + 1
        )
    weights[metric] = weight


def _parse_bound(match: re.Match[str], position: int) -> Bound:
    metric = _metric(match[1], position)
    spec = METRIC_SPECS[metric]
    quantile = None
    if match[2] is not None:
        if not spec.has_quantile:
            raise RouterStringError(
                f"{metric.value} has no distribution, so no .p{match[2]}", position + match.start(2)
            )
        quantile = _number(match[2], position + match.start(2), exponent=2)
        if not QUANTILE_MIN <= quantile <= QUANTILE_MAX:
            raise RouterStringError("a quantile lies between .p50 and .p99", position + match.start(2))
    limit = _number(match[4], position + match.start(4), exponent=spec.text_exponent)
    if limit < 0.0 or (spec.value_max is not None and limit > spec.value_max):
        range_text = "at least 0" if spec.value_max is None else f"from 0 to {spec.value_max:g}"
        raise RouterStringError(f"{metric.value} is {range_text}", position + match.start(4))
    return Bound(metric, Comparison(match[3]), limit, quantile)


def _metric(name: str, position: int) -> Metric:
    metric = METRIC_BY_NAME.get(name)
    if metric is None:
        known = ", ".join(f"{metric.value} ({spec.aliases[0]})" for metric, spec in METRIC_SPECS.items())
        raise RouterStringError(f"{_shown(name)} is no metric; known are {known}", position)
    return metric


def _number(text: str, position: int, *, exponent: int) -> float:
    try:
        return parse_number(text, exponent=exponent)
    except ValueError:
        raise RouterStringError(f"{_shown(text)} is no finite number", position) from None


def _list(value: str, pattern: re.Pattern[str], key: str, position: int) -> list[str]:
    names = value.split(",")
    for name in names:
        if pattern.fullmatch(name) is None:
            raise RouterStringError(f"{_shown(name)} can't stand in the list {key}", position)
        position += len(name) + 1
    return names


def _shown(text: str) -> str:
    """A piece of the caller's text in an error: quoted and short."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _print_alternative(alternative: RouterAlternative) -> str:
    if len(alternative.space.providers) == 1:
        (provider,) = alternative.space.providers
        plain = RouterAlternative(alternative.head, SearchSpace(providers=frozenset({provider})))
        if alternative == plain and ":" not in provider and _OBJECTIVE.fullmatch(provider) is None:
            return f"{alternative.head}@{provider}"
    items: list[str] = []
    match alternative.preference:
        case Objective(metric, direction):
            items.append(f"{direction.value}-{METRIC_SPECS[metric].aliases[-1]}")
        case Weights(by_metric):
            for metric, weight in by_metric:
                spec = METRIC_SPECS[metric]
                items.append(f"{spec.aliases[0]}:{number_text(weight, exponent=-spec.text_exponent)}")
        case None:
            pass
    items.extend(str(bound) for bound in alternative.bounds)
    lists = ((key, getattr(alternative.space, key)) for key in SPACE_LISTS)
    items.extend(f"{key}:{','.join(sorted(names))}" for key, names in lists if names)
    if alternative.capabilities:
        items.append(f"capabilities:{','.join(sorted(alternative.capabilities))}")
    if alternative.labels:
        items.append(f"labels:{','.join(f'{key}={value}' for key, value in sorted(alternative.labels))}")
    return f"{alternative.head}@{'|'.join(items)}" if items else alternative.head
