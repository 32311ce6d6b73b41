"""Under which names the models of somebody's own data are found, in their catalog and on the command line.

An LLM is called as its owner calls it, vendor and case aside, and its outcomes in several sources are fitted together.
Where `llms` lists an endpoint of public data, its entry counts, with all its names. Two models of one source that
differ in their vendor alone stay two: the second goes by its whole name, with a dot for the slash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pointsman_server.quality.model import Profile, QualityModel, normalised
from pointsman_server.training.dataset import Dataset, Matrix
from pointsman_server.training.llms import KNOWN_LLMS, KnownLlm

Endpoint = tuple[str, str]
Members = Mapping[str, Sequence[Endpoint]]
"""By the name of each LLM its endpoints in the data, first the one that stands for all."""

_LISTED: Mapping[Endpoint, KnownLlm] = {endpoint: llm for llm in KNOWN_LLMS for endpoint in llm.members}


def llms_of(endpoints: Sequence[Endpoint]) -> Members:
    """The LLMs of some endpoints."""
    present = [_LISTED[endpoint] for endpoint in endpoints if endpoint in _LISTED]
    listed_names = {name: llm.model for llm in present for name in (llm.model, *llm.aliases)}
    in_source = Counter((source, normalised(model)) for source, model in endpoints)
    ambiguous = {name for (_, name), count in in_source.items() if count > 1}
    members: dict[str, list[Endpoint]] = {}
    # Listed ones first, so that one of them stands for the rest.
    for endpoint in sorted(endpoints, key=lambda endpoint: (endpoint not in _LISTED, endpoint)):
        plain = normalised(endpoint[1])
        if endpoint in _LISTED:
            name = _LISTED[endpoint].model
        elif plain in ambiguous and endpoint[1].lower() != plain:
            name = endpoint[1].lower().replace("/", ".")
        else:
            name = listed_names.get(plain, plain)
        members.setdefault(name, []).append(endpoint)
    return members


def by_llm(dataset: Dataset, members: Members) -> Dataset:
    """The data with one column per LLM, under the endpoint that stands for it; what several of its endpoints made of a
    prompt is averaged."""
    column_of = {endpoint: column for column, endpoint in enumerate(dataset.endpoints)}
    groups = [[column_of[endpoint] for endpoint in found] for found in members.values()]

    def merged(matrix: Matrix) -> Matrix:
        return np.column_stack([_known_mean(matrix[:, columns]) for columns in groups])

    return replace(
        dataset,
        endpoints=tuple(found[0] if found[0] in _LISTED else (found[0][0], name) for name, found in members.items()),
        quality=merged(dataset.quality),
        cost_usd=merged(dataset.cost_usd),
        input_tokens=merged(dataset.input_tokens),
        output_tokens=merged(dataset.output_tokens),
        latency_s=merged(dataset.latency_s),
        weight=None if dataset.weight is None else merged(np.where(np.isnan(dataset.quality), np.nan, dataset.weight)),
    )


def named(model: QualityModel, members: Members) -> QualityModel:
    """A model that was trained on `by_llm` data, under the names of its owner, with all endpoints of each LLM."""
    name_of = {found[0] if found[0] in _LISTED else (found[0][0], name): name for name, found in members.items()}
    profiles = []
    taken = set(members)
    for profile in model.profiles:
        name = name_of[profile.endpoints[0]]
        others = [
            tuple(other for other in names if other not in taken) for names in (profile.aliases, profile.stand_ins)
        ]
        profiles.append(Profile(name, others[0], others[1], tuple(sorted(members[name]))))
    return replace(model, profiles=tuple(profiles))


def _known_mean(values: Matrix) -> Matrix:
    """The mean of the known entries of each row, NaN where none is known."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(1, known.sum(axis=1)), np.nan).astype(np.float32)
