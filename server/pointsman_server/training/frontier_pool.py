"""The endpoints of a star plot: what they cost, how fast they are, and where the data has what became of them.

They come from the user's own configuration or server; or from the data itself, with the prices that its costs imply or
that a price list names. Only endpoints that the data measured and whose model the artifact knows take part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from pointsman_server.chat import Conversation, Message, Role, TextPart
from pointsman_server.decision.cost import cost_usd
from pointsman_server.decision.facts import request_facts
from pointsman_server.decision.metrics import Metric
from pointsman_server.decision.router_string import DEFAULT_HEAD, RouterAlternative, RouterString
from pointsman_server.decision.types import (
    NEVER_OBSERVED,
    Candidate,
    Endpoint,
    EndpointRuntime,
    Latency,
    RequestFacts,
    RuntimeSnapshot,
    SearchSpace,
)
from pointsman_server.errors import PointsmanError
from pointsman_server.quality.model import Profile, QualityModel, normalised
from pointsman_server.training.costs import Price, Prices
from pointsman_server.training.dataset import Dataset
from pointsman_server.training.evaluate import POOL_COVERAGE_MIN

Doubles = npt.NDArray[np.float64]

POOL_SIZE_MIN = 2
"""With one endpoint there is nothing to choose."""
FITTED_ROW_COUNT_MIN = 20
"""Answers from which two prices, or two latencies, of an endpoint are estimated: ten for each."""
NAMED_COUNT_MAX = 6
"""Names that are told for each reason why some were left out."""
REQUESTS_PER_UNIT = 1000.0
"""Costs are shown per thousand requests: a single one costs fractions of a cent."""
MS_PER_S = 1000.0

_NOT_KNOWN = (
    "the artifact does not know the model (quality_model in a configuration gives it the name of one that it knows)"
)
_NOT_MEASURED = "the data has too few answers of the model"
_FOREIGN_CHARACTERS = re.compile(r"[^A-Za-z0-9._/:-]+")
"""What no name of a catalog may hold."""


class FrontierError(PointsmanError):
    """A star plot can't be drawn from what was given; the text says what is missing and what would do."""


class Axis(StrEnum):
    """What quality is plotted against."""

    COST = "cost"
    """Of a thousand requests, USD."""
    PRICE = "price"
    """Blended list price, USD per million tokens."""
    TTFT = "ttft"
    """Time to the first token, ms."""
    ITL = "itl"
    """Time between two output tokens, ms."""

    @property
    def metric(self) -> Metric:
        """What a router weighs to move along this axis."""
        return {
            Axis.COST: Metric.REQUEST_COST,
            Axis.PRICE: Metric.PRICE,
            Axis.TTFT: Metric.TTFT,
            Axis.ITL: Metric.INTER_TOKEN_LATENCY,
        }[self]

    def expected(self, candidate: Candidate) -> float | None:
        """What a decision expects of a candidate along this axis, in the metric's canonical unit."""
        match self:
            case Axis.COST:
                return candidate.cost_usd
            case Axis.PRICE:
                return candidate.endpoint.blended_price_usd_per_mtok
            case Axis.TTFT:
                return None if candidate.ttft_s is None else candidate.ttft_s.mean
            case Axis.ITL:
                return None if candidate.inter_token_latency_s is None else candidate.inter_token_latency_s.mean


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that takes no part, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listed:
    """An endpoint of a catalog."""

    endpoint: Endpoint
    quality_model: str
    """The name under which quality models know the model."""
    runtime: EndpointRuntime = NEVER_OBSERVED


@dataclass(frozen=True, slots=True)
class Member:
    """An endpoint that can be chosen in the plot."""

    endpoint: Endpoint
    quality_model: str
    runtime: EndpointRuntime
    column: int
    """Of the data: what the model made of each prompt."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What can be chosen."""

    members: tuple[Member, ...]
    """In the order of the endpoints' names."""
    restriction: SearchSpace
    """What a router string has to say so that only these are chosen; the whole space where it need not say anything."""
    has_own_costs: bool
    """Whether what a prompt costs is in the data; else it is the price of its tokens."""
    left_out: tuple[LeftOut, ...]

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints, as the decision knows them."""
        return tuple(member.endpoint for member in self.members)

    @property
    def columns(self) -> npt.NDArray[np.intp]:
        """Where the data has what the endpoints made of the prompts."""
        return np.array([member.column for member in self.members], dtype=np.intp)

    @property
    def snapshot(self) -> RuntimeSnapshot:
        """The runtime state that all decisions see."""
        return RuntimeSnapshot({member.endpoint.name: member.runtime for member in self.members})


@dataclass(frozen=True, slots=True)
class AssumedLatency:
    """What an endpoint's latency is taken to be, seconds."""

    ttft_s: float
    inter_token_latency_s: float

    @property
    def runtime(self) -> EndpointRuntime:
        """The same as the runtime aggregator would tell it: fresh, and without spread."""
        return EndpointRuntime(
            ttft_s=_fixed(self.ttft_s), inter_token_latency_s=_fixed(self.inter_token_latency_s), age_s=0.0
        )


def _fixed(value_s: float) -> Latency:
    return Latency(value_s, value_s, value_s, value_s, value_s)


@dataclass(frozen=True, slots=True)
class _MeasuredModel:
    """A column of the data whose model the artifact knows."""

    name: str
    """As the data writes it."""
    column: int
    quality_model: str
    names: tuple[str, ...]
    """Under which it may be listed elsewhere, normalised, the best first."""


def choose_source(data: Dataset, asked: str | None) -> str:
    """The source whose prompts are drawn: models of different sources were prompted differently.

    Raises:
        FrontierError: there are several and none was asked for, or the one asked for is not there.
    """
    sources = sorted(set(data.sources))
    if asked is None and len(sources) == 1:
        return str(sources[0])
    if asked is None or asked not in sources:
        reason = "comes from several sources" if asked is None else f"has no source {asked!r}"
        raise FrontierError(f"the data {reason}: name one with --source, of {', '.join(sources)}")
    return asked


def build_pool(
    data: Dataset,
    source: str,
    model: QualityModel,
    *,
    listed: Sequence[Listed] | None,
    prices: Prices,
    latencies: Mapping[str, AssumedLatency],
    chosen: frozenset[str],
    axis: Axis,
) -> Pool:
    """The endpoints that take part.

    Args:
        data: all of the data directory.
        source: whose models and prompts are drawn.
        model: the artifact that predicts.
        listed: the catalog; None makes one of the data's own models.
        prices: by normalised name of a model; for the data's own models, instead of what their costs imply.
        latencies: by name of an endpoint or normalised name of a model, instead of what else is known.
        chosen: names of the models or endpoints to draw; empty draws all.
        axis: what must be known of each.

    Raises:
        FrontierError: fewer than two endpoints are left, or one that was chosen is none of them.
    """
    measured, left_out = _measured_models(data, source, model)
    if listed is None:
        matched = [(_listed_of(data, found, source, prices), found) for found in measured]
    else:
        # What else the data measured is of no interest to who asks about this catalog.
        matched, left_out = _matched(listed, measured, model)
    members: list[Member] = []
    for entry, found in matched:
        member = _member(entry, found, latencies)
        if missing := _missing(member, axis, data):
            left_out.append(LeftOut(entry.endpoint.name, missing))
        else:
            members.append(member)
    kept = sorted(_chosen(members, chosen), key=lambda member: member.endpoint.name)
    if len(kept) < POOL_SIZE_MIN:
        reasons = "".join(f"\n  {line}" for line in summary_of(left_out))
        raise FrontierError(f"a plot needs {POOL_SIZE_MIN} endpoints, and has {len(kept)}; left out were:{reasons}")
    # A catalog that was made of the data has nothing but the pool, unless a part of it was asked for.
    whole = [each.endpoint for each in (members if listed is None else listed)]
    costs = data.cost_usd[:, [member.column for member in kept]]
    return Pool(
        members=tuple(kept),
        restriction=restriction_of(whole, [member.endpoint for member in kept]),
        has_own_costs=listed is None and not prices and bool(np.isfinite(costs).any(axis=0).all()),
        left_out=tuple(left_out),
    )


def summary_of(left_out: Sequence[LeftOut]) -> list[str]:
    """What was left out, a line for each reason."""
    by_reason: dict[str, list[str]] = {}
    for each in left_out:
        by_reason.setdefault(each.reason, []).append(each.name)
    lines = []
    for reason, names in by_reason.items():
        more = len(names) - NAMED_COUNT_MAX
        lines.append(f"{reason}: {', '.join(names[:NAMED_COUNT_MAX])}{f' and {more} more' if more > 0 else ''}")
    return lines


def _member(entry: Listed, found: _MeasuredModel, latencies: Mapping[str, AssumedLatency]) -> Member:
    names = (entry.endpoint.name, normalised(entry.endpoint.model), *found.names)
    assumed = next((latencies[name] for name in names if name in latencies), None)
    return Member(
        entry.endpoint, found.quality_model, entry.runtime if assumed is None else assumed.runtime, found.column
    )


def _measured_models(data: Dataset, source: str, model: QualityModel) -> tuple[list[_MeasuredModel], list[LeftOut]]:
    """The source's models that the artifact knows and that answered enough prompts, and why the others are left out."""
    profile_of_pair = {pair: profile for profile in model.profiles for pair in profile.endpoints}
    profile_of_name = {
        name: profile for profile in model.profiles for name in (profile.model, *profile.aliases, *profile.stand_ins)
    }
    in_source = data.sources == source
    found: list[_MeasuredModel] = []
    left_out: list[LeftOut] = []
    for column, pair in enumerate(data.endpoints):
        if pair[0] != source:
            continue
        name = pair[1]
        coverage = float(np.isfinite(data.quality[in_source, column]).mean())
        profile = profile_of_pair.get(pair) or profile_of_name.get(normalised(name))
        if profile is None:
            left_out.append(LeftOut(name, "the artifact does not know the model"))
        elif coverage < POOL_COVERAGE_MIN:
            left_out.append(LeftOut(name, f"it answered less than {POOL_COVERAGE_MIN:.0%} of the prompts"))
        else:
            known = normalised(name) if normalised(name) in model.models else profile.model
            known = profile.model if pair in profile_of_pair else known
            found.append(_MeasuredModel(name, column, known, _names_of(name, profile)))
    return found, left_out


def _names_of(name: str, profile: Profile) -> tuple[str, ...]:
    """Names of the same LLM; those that only borrow its profile are others."""
    own = normalised(name)
    others = () if own in profile.stand_ins else (profile.model, *profile.aliases)
    return tuple(dict.fromkeys((own, own.partition("@")[0], *others)))


def _matched(
    listed: Sequence[Listed], measured: Sequence[_MeasuredModel], model: QualityModel
) -> tuple[list[tuple[Listed, _MeasuredModel]], list[LeftOut]]:
    """A catalog's endpoints with what the data measured of their models, and why the others are left out.

    A model is found by its own name, else by another of the same LLM. It is predicted as a server would: by the name that
    the catalog gives it.
    """
    found: list[tuple[Listed, _MeasuredModel]] = []
    left_out: list[LeftOut] = []
    for entry in listed:
        names = {normalised(entry.quality_model), normalised(entry.endpoint.model)}
        exact = (each for each in measured if each.names[0] in names)
        alike = (each for each in measured if names & set(each.names))
        match = next(exact, None) or next(alike, None)
        if normalised(entry.quality_model) not in model.models:
            left_out.append(LeftOut(entry.endpoint.name, _NOT_KNOWN))
        elif match is None:
            left_out.append(LeftOut(entry.endpoint.name, _NOT_MEASURED))
        else:
            found.append((entry, replace(match, quality_model=entry.quality_model)))
    return found, left_out


def _listed_of(data: Dataset, measured: _MeasuredModel, source: str, prices: Prices) -> Listed:
    """The endpoint that the data's own model is, with its prices and latencies as far as they are known."""
    model, _, provider = measured.name.partition("@")
    priced = next((prices[name] for name in measured.names if name in prices), None)
    if priced is None and not prices:
        priced = implied_prices(data, measured.column)
    endpoint = Endpoint(
        model=_catalog_name(model),
        provider=_catalog_name(provider or source),
        input_price_usd_per_mtok=None if priced is None else priced.input_usd_per_1m,
        output_price_usd_per_mtok=None if priced is None else priced.output_usd_per_1m,
    )
    implied = implied_latency(data, measured.column)
    return Listed(endpoint, measured.quality_model, NEVER_OBSERVED if implied is None else implied.runtime)


def _catalog_name(text: str) -> str:
    return _FOREIGN_CHARACTERS.sub("-", text).lstrip("._/:-") or "unnamed"


def implied_prices(data: Dataset, column: int) -> Price | None:
    """The prices that a model's costs imply, by least squares over its tokens; None without costs or lengths."""
    output = data.output_tokens[:, column].astype(np.float64)
    cost = data.cost_usd[:, column].astype(np.float64)
    known = np.flatnonzero(np.isfinite(output) & np.isfinite(cost))
    if len(known) < FITTED_ROW_COUNT_MIN:
        return None
    inputs = input_token_counts(data, known, column)
    fitted = _not_negative_fit(np.column_stack([inputs, output[known]]), cost[known] * 1e6)
    return Price(*fitted)


def implied_latency(data: Dataset, column: int) -> AssumedLatency | None:
    """The latencies that whole answers imply, by least squares over their lengths; None without latencies or lengths."""
    output = data.output_tokens[:, column].astype(np.float64)
    latency = data.latency_s[:, column].astype(np.float64)
    known = np.isfinite(output) & np.isfinite(latency)
    if known.sum() < FITTED_ROW_COUNT_MIN:
        return None
    gaps = np.maximum(output[known] - 1.0, 0.0)
    return AssumedLatency(*_not_negative_fit(np.column_stack([np.ones(len(gaps)), gaps]), latency[known]))


def _not_negative_fit(columns: Doubles, target: Doubles) -> tuple[float, float]:
    """Two factors from 0 up by least squares; where one would be below 0, the better of the two alone."""
    both, *_ = np.linalg.lstsq(columns, target, rcond=None)
    if (both >= 0.0).all():
        return float(both[0]), float(both[1])
    scale = np.maximum((columns**2).sum(axis=0), np.finfo(np.float64).tiny)
    alone = np.maximum(columns.T @ target / scale, 0.0)
    errors = ((columns * alone - target[:, np.newaxis]) ** 2).sum(axis=0)
    return (float(alone[0]), 0.0) if errors[0] <= errors[1] else (0.0, float(alone[1]))


def input_token_counts(data: Dataset, rows: npt.NDArray[np.intp], column: int) -> Doubles:
    """Input tokens of these prompts at that model: counted where the data says so, else estimated as the server does."""
    counted: Doubles = data.input_tokens[rows, column].astype(np.float64)
    if np.isfinite(counted).all():
        return counted
    estimated = [facts_of(text).input_token_count for text in data.texts[rows]]
    return np.where(np.isnan(counted), np.array(estimated, dtype=np.float64), counted)


def facts_of(text: str) -> RequestFacts:
    """The facts of a request that asks this prompt and nothing else."""
    return request_facts(Conversation((Message(Role.USER, (TextPart(text),)),)))


def _missing(member: Member, axis: Axis, data: Dataset) -> str:
    """What is not known of an endpoint although the axis needs it; empty where nothing is."""
    unpriced = member.endpoint.blended_price_usd_per_mtok is None
    match axis:
        case Axis.COST if unpriced:
            return "its price is not known (--prices, --config, --server, or cost_usd in the data)"
        case Axis.COST if not np.isfinite(data.output_tokens[:, member.column]).any():
            return "the data does not say how long its answers are (--x price needs no lengths)"
        case Axis.PRICE if unpriced:
            return "its price is not known"
        case Axis.TTFT if member.runtime.ttft_s is None:
            return "its time to the first token is not known (--latency, --server, or latency_s in the data)"
        case Axis.ITL if member.runtime.inter_token_latency_s is None:
            return "its inter-token latency is not known (--latency, --server, or latency_s in the data)"
        case _:
            return ""


def _chosen(members: Sequence[Member], chosen: frozenset[str]) -> list[Member]:
    """The members that were asked for, by the name of the endpoint or of the model."""
    if not chosen:
        return list(members)
    known = {name for member in members for name in (member.endpoint.name, member.endpoint.model)}
    unknown = sorted(chosen - known)
    if unknown:
        models = ", ".join(sorted({member.endpoint.model for member in members}))
        raise FrontierError(f"{unknown[0]!r} is no endpoint of the plot; there are the models {models}")
    return [member for member in members if {member.endpoint.name, member.endpoint.model} & chosen]


def restriction_of(catalog: Iterable[Endpoint], kept: Iterable[Endpoint]) -> SearchSpace:
    """The search space, the shortest to write, in which only `kept` of the catalog are eligible."""
    inside = frozenset(endpoint.name for endpoint in kept)
    dropped = [endpoint for endpoint in catalog if endpoint.name not in inside]
    if not dropped:
        return SearchSpace()
    kept_models = frozenset(name.rpartition("@")[0] for name in inside)
    dropped_models = frozenset(endpoint.model for endpoint in dropped)
    spaces = [
        SearchSpace(endpoints=inside),
        SearchSpace(skip_endpoints=frozenset(endpoint.name for endpoint in dropped)),
    ]
    if not kept_models & dropped_models:
        spaces += [SearchSpace(models=kept_models), SearchSpace(skip_models=dropped_models)]
    return min(spaces, key=lambda space: len(str(RouterString((RouterAlternative(DEFAULT_HEAD, space),)))))


def restricted(router: RouterString, space: SearchSpace) -> RouterString:
    """The router, looking only where both it and `space` allow.

    Raises:
        FrontierError: nothing is left of a list of the router's.
    """
    return RouterString(
        tuple(replace(each, space=_intersection(each.space, space, router)) for each in router.alternatives)
    )


def _intersection(own: SearchSpace, other: SearchSpace, router: RouterString) -> SearchSpace:
    lists: dict[str, frozenset[str]] = {}
    for each in fields(SearchSpace):
        ours: frozenset[str] = getattr(own, each.name)
        theirs: frozenset[str] = getattr(other, each.name)
        both = ours | theirs if each.name.startswith("skip_") or not ours or not theirs else ours & theirs
        if (ours or theirs) and not both:
            raise FrontierError(f"{router}: none of its {each.name} is in the plot")
        lists[each.name] = both
    return SearchSpace(**lists)


def outcome_matrix(data: Dataset, pool: Pool, rows: npt.NDArray[np.intp], axis: Axis) -> Doubles:
    """What each of these prompts took at each endpoint, on the axis's scale: (rows, endpoints), NaN where unknown."""
    return np.column_stack([_outcomes(data, pool, member, rows, axis) for member in pool.members])


def _outcomes(data: Dataset, pool: Pool, member: Member, rows: npt.NDArray[np.intp], axis: Axis) -> Doubles:
    match axis:
        case Axis.COST if pool.has_own_costs:
            return np.asarray(REQUESTS_PER_UNIT * data.cost_usd[rows, member.column], dtype=np.float64)
        case Axis.COST:
            inputs = input_token_counts(data, rows, member.column)
            outputs = data.output_tokens[rows, member.column].astype(np.float64)
            costs = [
                cost_usd(member.endpoint, input_token_count=each_in, output_token_count=each_out)
                for each_in, each_out in zip(inputs.tolist(), outputs.tolist(), strict=True)
            ]
            return REQUESTS_PER_UNIT * np.array(costs, dtype=np.float64)
        case Axis.PRICE:
            return np.full(len(rows), member.endpoint.blended_price_usd_per_mtok, dtype=np.float64)
        case Axis.TTFT:
            return np.full(len(rows), MS_PER_S * _mean_s(member.runtime.ttft_s))
        case Axis.ITL:
            return np.full(len(rows), MS_PER_S * _mean_s(member.runtime.inter_token_latency_s))


def _mean_s(latency: Latency | None) -> float:
    assert latency is not None, "endpoints of unknown latency take no part"
    return latency.mean
