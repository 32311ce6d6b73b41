"""The numbers of the star plot: what routers reach on labelled prompts, beside every single endpoint.

Nothing is simulated but the choice: the artifact predicts each prompt, the shipped `decide` chooses by the router string
as the shipped parser reads it, and what became of the prompt at the chosen endpoint is looked up in the data. Where
near-ties share the traffic, each counts with its probability.

Which routers to point out, and which endpoint is the best single one, is decided on other questions than those that
are reported: whoever picks the best of many on the prompts that he reports, reports luck.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import hypot
from string import ascii_uppercase
from types import MappingProxyType

import numpy as np

from pointsman_server.decision.resolve import NamedRouter
from pointsman_server.quality.model import QualityModel
from pointsman_server.training.dataset import Dataset
from pointsman_server.training.frontier_grid import Family, RouterText, router_grid
from pointsman_server.training.frontier_pool import Axis, Doubles, LeftOut, Pool
from pointsman_server.training.frontier_questions import (
    Progress,
    Questions,
    Selection,
    candidates_of,
    choose_prompts,
    questions_at,
    routing_of,
    shares_of,
)
from pointsman_server.training.metrics import envelope
from pointsman_server.training.resampling import Measured, Resamples, measured

DEFAULT_PROMPT_COUNT = 2000
"""Intervals are then about two points wide to each side, and the decisions take half a minute."""
DISTINCT_SHARE_MIN = 0.01
"""Two routers are distinct if they send this share of the prompts to different endpoints."""
POINTED_OUT_COUNT_MAX = 9
"""Routers that are pointed out: as many as a reader tells apart."""
POINTED_OUT_DISTANCE_MIN = 0.07
"""Share of the plot by which they lie apart, so that their stars do not touch."""
LINEAR_RATIO_MAX = 8.0
"""Beyond this ratio of its ends an axis is logarithmic: a linear one would crowd the cheap half into an eighth."""
NEGLIGIBLE_X_SHARE = 0.01
"""Nobody gives up quality to save this share of what it takes, so a router that saves no more is no choice."""
ROUTED_MIN = 1.0 - 1e-9
"""Sum of the probabilities of a prompt that is routed, but for rounding."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to draw."""

    axis: Axis
    source: str
    split: str
    given: tuple[str, ...] = ()
    """Router strings to draw beside those of the grid."""
    routers: Mapping[str, NamedRouter] = field(default_factory=lambda: MappingProxyType({}))
    """The named routers of the server; empty is the built-in default alone."""
    prompt_count_max: int = DEFAULT_PROMPT_COUNT
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Point:
    """Where something lies in the plot. Intervals hold 95 % of what other questions would give."""

    x: Measured
    quality: Measured


@dataclass(frozen=True, slots=True)
class EndpointPoint:
    """A single endpoint that gets every prompt."""

    name: str
    model: str
    at: Point


@dataclass(frozen=True, slots=True)
class RouterPoint:
    """A router, and how it did."""

    text: str
    """What to paste into a request."""
    family: Family
    letter: str
    """Of a router that is pointed out; empty for the others."""
    at: Point
    gain_over_best_single: Measured
    """Its quality minus the best single endpoint's, on the same prompts."""
    gain_over_mix: Measured
    """Its quality minus what the best random mix of endpoints reaches at the same x."""
    x_share_of_best_single: Measured
    """Its x as a share of the best single endpoint's."""
    shares: tuple[float, ...]
    """Of the prompts, by endpoint."""


@dataclass(frozen=True, slots=True)
class Frontier:
    """Everything that the plot shows."""

    axis: Axis
    source: str
    split: str
    artifact: str
    """Name and version."""
    prompt_count: int
    selection: Selection
    selection_prompt_count: int
    endpoints: tuple[EndpointPoint, ...]
    """In the order of the pool."""
    best_single: int
    """Index of the endpoint that was best on the prompts of the selection."""
    routers: tuple[RouterPoint, ...]
    """By x, ascending."""
    mix: tuple[tuple[float, float], ...]
    """Corners (x, quality) of the best random mix of endpoints, ascending."""
    random: Point
    """Every endpoint with the same chance."""
    oracle: Point
    """The best answer to each prompt, and of the best ones the one that took least."""
    left_out: tuple[LeftOut, ...]
    """Endpoints and routers that are not drawn."""


def compute(data: Dataset, pool: Pool, model: QualityModel, plan: Plan, progress: Progress) -> Frontier:
    """The plot's numbers.

    Raises:
        FrontierError: too few prompts were answered by all endpoints.
        RouterStringError, InvalidRequestError: a given router can't be read, or names what is not there.
    """
    prompts = choose_prompts(
        data,
        pool,
        source=plan.source,
        split=plan.split,
        axis=plan.axis,
        count_max=plan.prompt_count_max,
        seed=plan.seed,
    )
    reported = questions_at(data, pool, model, prompts.reported, plan.axis)
    selecting = questions_at(data, pool, model, prompts.selecting, plan.axis)
    expected = candidates_of(pool, selecting, plan.routers)
    routers = router_grid(plan.axis, expected, restriction=pool.restriction, given=plan.given)
    routings = [routing_of(router.text, pool, plan.routers) for router in routers]
    shares = []
    for index, routing in enumerate(routings):
        shares.append((shares_of(routing, pool, selecting), shares_of(routing, pool, reported)))
        progress((index + 1) / len(routings))
    kept, unrouted = _worth_drawing(routers, [reported_shares for _, reported_shares in shares])
    selected = _means(selecting, [shares[index][0] for index in kept], seed=plan.seed)
    pointed_out = _pointed_out([routers[index] for index in kept], selected)
    means = _means(reported, [shares[index][1] for index in kept], seed=plan.seed)
    best_single = int(selected.quality[: selected.endpoint_count].argmax())
    corners = envelope(means.x[: means.endpoint_count], means.quality[: means.endpoint_count])
    return Frontier(
        axis=plan.axis,
        source=plan.source,
        split=plan.split,
        artifact=f"{model.name} {model.version}",
        prompt_count=len(reported),
        selection=prompts.selection,
        selection_prompt_count=len(selecting),
        endpoints=tuple(
            EndpointPoint(endpoint.name, endpoint.model, means.point(column))
            for column, endpoint in enumerate(pool.endpoints)
        ),
        best_single=best_single,
        routers=_router_points(
            [routers[index] for index in kept],
            [shares[index][1] for index in kept],
            means,
            pointed_out=pointed_out,
            best_single=best_single,
        ),
        mix=tuple(zip(corners.cost_usd.tolist(), corners.quality.tolist(), strict=True)),
        random=means.point(means.random),
        oracle=means.point(means.oracle),
        left_out=pool.left_out + unrouted,
    )


def _worth_drawing(routers: Sequence[RouterText], shares: Sequence[Doubles]) -> tuple[list[int], tuple[LeftOut, ...]]:
    """The routers that route every prompt and decide unlike all earlier ones, and what is to be said of the others. What
    the user asked for stays, whatever it resembles."""
    kept: list[int] = []
    unrouted: list[LeftOut] = []
    for index, share in enumerate(shares):
        routed = float((share.sum(axis=1) >= ROUTED_MIN).mean())
        differences = (float(np.abs(share - shares[other]).sum(axis=1).mean()) / 2.0 for other in kept)
        if routed < 1.0:
            unrouted.append(
                LeftOut(routers[index].text, f"it leaves {1.0 - routed:.1%} of the prompts without an endpoint")
            )
        elif routers[index].family is Family.GIVEN or min(differences, default=1.0) >= DISTINCT_SHARE_MIN:
            kept.append(index)
    return kept, tuple(unrouted)


@dataclass(frozen=True, slots=True)
class _Means:
    """Mean quality and x of every way to distribute the prompts, and the same in every resample of the questions. Columns:
    each endpoint alone, every endpoint by chance, the oracle, the routers."""

    endpoint_count: int
    quality: Doubles
    x: Doubles
    resampled_quality: Doubles
    """(resamples, columns)."""
    resampled_x: Doubles

    @property
    def random(self) -> int:
        return self.endpoint_count

    @property
    def oracle(self) -> int:
        return self.endpoint_count + 1

    @property
    def first_router(self) -> int:
        return self.endpoint_count + 2

    def point(self, column: int) -> Point:
        return Point(
            measured(float(self.x[column]), self.resampled_x[:, column]),
            measured(float(self.quality[column]), self.resampled_quality[:, column]),
        )

    def gain(self, column: int, base: int) -> Measured:
        """Quality of one column minus another's; on the same prompts, so far narrower than the two intervals."""
        resampled = self.resampled_quality[:, column] - self.resampled_quality[:, base]
        return measured(float(self.quality[column] - self.quality[base]), resampled)

    def x_share(self, column: int, base: int) -> Measured:
        """How much x one column takes, as a share of another's; not defined where that is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            resampled = self.resampled_x[:, column] / self.resampled_x[:, base]
            return measured(float(self.x[column] / self.x[base]), resampled)

    def gains_over_mix(self) -> list[Measured]:
        """Quality of each router minus that of the best random mix of endpoints at its x."""
        columns = slice(self.first_router, None)
        heights = _mix_heights(self.x, self.quality, self.endpoint_count)
        resampled = np.array(
            [
                quality[columns] - _mix_heights(x, quality, self.endpoint_count)
                for x, quality in zip(self.resampled_x, self.resampled_quality, strict=True)
            ]
        )
        gains = self.quality[columns] - heights
        return [measured(float(gain), resampled[:, index]) for index, gain in enumerate(gains)]


def _mix_heights(x: Doubles, quality: Doubles, endpoint_count: int) -> Doubles:
    """The quality of the best random mix of endpoints at each router's x."""
    mix = envelope(x[:endpoint_count], quality[:endpoint_count])
    return np.array([mix.height(float(each)) for each in x[endpoint_count + 2 :]])


def _means(questions: Questions, router_shares: Sequence[Doubles], *, seed: int) -> _Means:
    """The means of all ways to distribute these prompts."""
    prompt_count, endpoint_count = questions.quality.shape
    alone = np.eye(endpoint_count)
    best = questions.quality >= questions.quality.max(axis=1, keepdims=True)
    oracle = alone[np.argmin(np.where(best, questions.taken, np.inf), axis=1)]
    singles = [np.tile(row, (prompt_count, 1)) for row in alone]
    by_chance = np.full((prompt_count, endpoint_count), 1.0 / endpoint_count)
    ways = [*singles, by_chance, oracle, *router_shares]
    quality = np.column_stack([(shares * questions.quality).sum(axis=1) for shares in ways])
    taken = np.column_stack([(shares * questions.taken).sum(axis=1) for shares in ways])
    resamples = Resamples.of(questions.keys, seed=seed)
    return _Means(
        endpoint_count, quality.mean(axis=0), taken.mean(axis=0), resamples.means(quality), resamples.means(taken)
    )


def _pointed_out(routers: Sequence[RouterText], selected: _Means) -> frozenset[int]:
    """Which routers are pointed out, by the prompts of the selection: those that no other router, no endpoint and no random
    mix of endpoints beats; first the corners of the frontier, then those that lie farthest from them. The user's own
    always are."""
    columns = [column for column in range(len(selected.quality)) if column not in (selected.random, selected.oracle)]
    x, quality = selected.x[columns], selected.quality[columns]
    hull = envelope(x, quality)
    corners = set(zip(hull.cost_usd.tolist(), hull.quality.tolist(), strict=True))
    heights = _mix_heights(selected.x, selected.quality, selected.endpoint_count)
    places = np.column_stack([_across(x), _across(quality)])[selected.endpoint_count :]
    chosen = [index for index, router in enumerate(routers) if router.family is Family.GIVEN]
    cornered, others = [], []
    for index in sorted(set(range(len(routers))) - set(chosen)):
        own_x, own_quality = selected.x[selected.first_router + index], selected.quality[selected.first_router + index]
        better = (x <= own_x * (1.0 + NEGLIGIBLE_X_SHARE)) & (quality > own_quality)
        cheaper = (x < own_x * (1.0 - NEGLIGIBLE_X_SHARE)) & (quality >= own_quality)
        if (better | cheaper).any():
            continue
        if (float(own_x), float(own_quality)) in corners:
            cornered.append(index)
        elif own_quality >= heights[index]:
            others.append(index)
    for group in (cornered, others):
        chosen += _farthest(group, chosen, places, count_max=POINTED_OUT_COUNT_MAX - len(chosen))
    return frozenset(chosen)


def _farthest(group: Sequence[int], chosen: Sequence[int], places: Doubles, *, count_max: int) -> list[int]:
    """The members of `group` that lie apart from each other and from those chosen already, the farthest first."""
    found: list[int] = []
    remaining = list(group)
    while remaining and len(found) < count_max:
        near = [min((hypot(*(places[a] - places[b])) for b in (*chosen, *found)), default=1.0) for a in remaining]
        farthest = int(np.argmax(near))
        if near[farthest] < POINTED_OUT_DISTANCE_MIN:
            break
        found.append(remaining.pop(farthest))
    return found


def is_logarithmic(x: Sequence[float] | Doubles) -> bool:
    """Whether an axis with these values is better read in powers of ten."""
    return min(x) > 0.0 and max(x) / min(x) > LINEAR_RATIO_MAX


def _across(values: Doubles) -> Doubles:
    """Where values lie between the ends of their axis, 0..1."""
    placed = np.log(values) if is_logarithmic(values) else values
    return np.asarray((placed - placed.min()) / max(float(placed.max() - placed.min()), np.finfo(np.float64).tiny))


def _router_points(
    routers: Sequence[RouterText],
    shares: Sequence[Doubles],
    means: _Means,
    *,
    pointed_out: frozenset[int],
    best_single: int,
) -> tuple[RouterPoint, ...]:
    """The routers by x, with letters for those that are pointed out."""
    gains_over_mix = means.gains_over_mix()
    order = sorted(range(len(routers)), key=lambda index: (means.x[means.first_router + index], routers[index].text))
    letters = dict(zip((index for index in order if index in pointed_out), ascii_uppercase, strict=False))
    return tuple(
        RouterPoint(
            text=routers[index].text,
            family=routers[index].family,
            letter=letters.get(index, ""),
            at=means.point(means.first_router + index),
            gain_over_best_single=means.gain(means.first_router + index, best_single),
            gain_over_mix=gains_over_mix[index],
            x_share_of_best_single=means.x_share(means.first_router + index, best_single),
            shares=tuple(shares[index].mean(axis=0).tolist()),
        )
        for index in order
    )
