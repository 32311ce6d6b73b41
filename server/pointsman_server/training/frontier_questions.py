"""The prompts of a star plot, and how the shipped decision distributes them among the endpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from pointsman_server.decision.decide import decide
from pointsman_server.decision.resolve import (
    DEFAULT_ROUTER_NAME,
    KnownNames,
    NamedRouter,
    ResolvedRouting,
    resolve,
)
from pointsman_server.decision.router_string import DEFAULT_HEAD, RouterAlternative, parse_router_string
from pointsman_server.decision.types import Candidate, Decision, DecisionInput, QualityPrediction, RequestFacts
from pointsman_server.quality.model import QualityModel
from pointsman_server.training.dataset import Dataset, Strings
from pointsman_server.training.frontier_pool import Axis, Doubles, FrontierError, Pool, facts_of, outcome_matrix

Rows = npt.NDArray[np.intp]

PROMPT_COUNT_MIN = 20
"""With fewer prompts an interval says nothing."""
SELECTION_SPLIT = "val"
"""Held out like the test split, and not what is reported."""
SELECTION_SHARE = 0.5
"""Of the questions, where there is no such split; of the prompts that are reported at most, where there is one."""
DECISION_ID = "frontier"
SEED = 0
"""Of decisions. It decides nothing: of near-ties, the probability of each is counted."""


class Selection(StrEnum):
    """On which prompts it was decided what to point out."""

    VAL = "the val split"
    HALF = "the other half"


@dataclass(frozen=True, slots=True)
class PromptRows:
    """Rows of the data: those that are reported, and those of other questions that the selection is made on."""

    reported: Rows
    selecting: Rows
    selection: Selection


@dataclass(frozen=True, slots=True)
class Questions:
    """Prompts and what became of each at every endpoint of the pool. Rows are prompts, columns are endpoints."""

    facts: tuple[RequestFacts, ...]
    predictions: tuple[Mapping[str, QualityPrediction], ...]
    """By the catalog's name of the model."""
    keys: Strings
    """What question a prompt asks: its wordings share a key."""
    quality: Doubles
    taken: Doubles
    """What an answer took, on the scale of the axis."""

    def __len__(self) -> int:
        return len(self.facts)


def choose_prompts(
    data: Dataset, pool: Pool, *, source: str, split: str, axis: Axis, count_max: int, seed: int
) -> PromptRows:
    """The prompts that every endpoint of the pool answered; at most `count_max` of them, drawn by the seed, each time.

    Raises:
        FrontierError: there are too few.
    """
    in_source = np.flatnonzero(data.sources == source)
    quality = data.quality[np.ix_(in_source, pool.columns)]
    answered = np.isfinite(quality).all(axis=1)
    answered &= np.isfinite(outcome_matrix(data, pool, in_source, axis)).all(axis=1)
    usable = in_source[answered]
    rng = np.random.default_rng(seed)
    reported = _sample(usable[data.splits[usable] == split], count_max, rng)
    held_out = usable[data.splits[usable] == SELECTION_SPLIT]
    if split != SELECTION_SPLIT and len(held_out) >= PROMPT_COUNT_MIN:
        found = PromptRows(reported, _sample(held_out, int(count_max * SELECTION_SHARE), rng), Selection.VAL)
    else:
        keys = data.dedupe_keys[reported].astype(str)
        questions = rng.permutation(np.unique(keys))
        to_select = np.isin(keys, questions[: int(len(questions) * SELECTION_SHARE)])
        found = PromptRows(reported[~to_select], reported[to_select], Selection.HALF)
    if min(len(found.reported), len(found.selecting)) < PROMPT_COUNT_MIN:
        raise FrontierError(
            f"all {len(pool.members)} endpoints answered only {len(found.reported)} prompts of the {split} split, and"
            f" {len(found.selecting)} others to select on; a plot takes {PROMPT_COUNT_MIN} of each. Fewer endpoints"
            " (--pool) have more in common, and other splits (--split) other prompts"
        )
    return found


def _sample(rows: Rows, count_max: int, rng: np.random.Generator) -> Rows:
    return rows if len(rows) <= count_max else np.sort(rng.choice(rows, size=count_max, replace=False))


def questions_at(data: Dataset, pool: Pool, model: QualityModel, rows: Rows, axis: Axis) -> Questions:
    """These rows of the data, each predicted once."""
    names = tuple(dict.fromkeys(member.quality_model for member in pool.members))
    texts = data.texts[rows].tolist()
    predictions = []
    for text in texts:
        predicted = model.predict(text, names)
        predictions.append({m.endpoint.model: predicted[m.quality_model] for m in pool.members})
    return Questions(
        facts=tuple(facts_of(text) for text in texts),
        predictions=tuple(predictions),
        keys=data.dedupe_keys[rows],
        quality=data.quality[np.ix_(rows, pool.columns)].astype(np.float64),
        taken=outcome_matrix(data, pool, rows, axis),
    )


def routing_of(text: str, pool: Pool, routers: Mapping[str, NamedRouter]) -> ResolvedRouting:
    """What a server with this pool decides by when a request says `text`.

    Args:
        text: a router string.
        pool: the endpoints.
        routers: the named routers of that server, with its default one; empty is a server with the built-in one alone.

    Raises:
        RouterStringError, InvalidRequestError: it can't be read, or names what is not there.
    """
    named = routers or {DEFAULT_ROUTER_NAME: NamedRouter(DEFAULT_ROUTER_NAME)}
    asked = parse_router_string(text)
    return resolve(asked, RouterAlternative(DEFAULT_HEAD), routers=named, known=KnownNames.of(pool.endpoints))


def decision_of(
    routing: ResolvedRouting, pool: Pool, facts: RequestFacts, predictions: Mapping[str, QualityPrediction]
) -> Decision:
    """The decision that a server makes of a request with these facts and predictions."""
    return decide(
        DecisionInput(
            decision_id=DECISION_ID,
            facts=facts,
            alternatives=routing.alternatives,
            endpoints=pool.endpoints,
            qualities=predictions,
            snapshot=pool.snapshot,
            seed=SEED,
            exploration=routing.router.exploration,
        )
    )


def shares_of(routing: ResolvedRouting, pool: Pool, questions: Questions) -> Doubles:
    """With what probability each prompt goes to each endpoint: (prompts, endpoints); a row of zeros where none is
    eligible."""
    column_of = {endpoint.name: column for column, endpoint in enumerate(pool.endpoints)}
    shares = np.zeros((len(questions), len(column_of)))
    for row, (facts, predictions) in enumerate(zip(questions.facts, questions.predictions, strict=True)):
        for candidate in decision_of(routing, pool, facts, predictions).candidates:
            if candidate.probability > 0.0:
                shares[row, column_of[candidate.endpoint.name]] = candidate.probability
    return shares


def candidates_of(pool: Pool, questions: Questions, routers: Mapping[str, NamedRouter]) -> list[tuple[Candidate, ...]]:
    """What the decision expects of each endpoint for each prompt, in the order of the pool."""
    routing = routing_of("", pool, routers)
    found = []
    for facts, predictions in zip(questions.facts, questions.predictions, strict=True):
        decision = decision_of(routing, pool, facts, predictions)
        found.append(tuple(sorted(decision.candidates, key=lambda candidate: candidate.endpoint.name)))
    return found


Progress = Callable[[float], None]
"""Told the share of the work that is done, 0..1."""
