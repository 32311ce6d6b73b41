"""The booster's trees as arrays, which numpy walks for one prompt at a fraction of what a call into XGBoost costs.

Every tree is padded to a complete one of the same depth, so that all of them take each step together: from node i of a
level, a prompt goes on to node 2i or 2i + 1 of the next. What is summed, and in which order, is as in XGBoost, so the
outputs agree with `Booster.inplace_predict` to the last bit (tests/quality/test_trees.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost

from pointsman_server.errors import ArtifactError

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

DEPTH_MAX = 10
"""Padding takes 2^depth leaves per tree: 150 trees of depth 10 with 13 outputs fill 10 MB; those in use have depth 6."""


NO_CHILD = -1
"""What XGBoost writes for the left child of a leaf."""
_TREES = '"trees":['
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class CompleteTrees:
    """Vector-leaf trees of one depth. Immutable, so safe to share between threads.

    Memory: trees x 2^depth x (4 x outputs + 12) bytes, 0.6 MB for 150 trees of depth 6 with 13 outputs.
    """

    features: tuple[Indices, ...]
    """By level, the feature that each node reads: 2^level nodes of the first tree, then those of the second, ..."""
    thresholds: tuple[Floats, ...]
    """By level, in the same order: a feature from this value on leads to the second child."""
    leaves: Floats
    """(trees x 2^depth, outputs): what each leaf adds to the outputs."""

    @classmethod
    def of(cls, booster: xgboost.Booster) -> CompleteTrees:
        """The trees of a booster whose leaves hold one value per output.

        Raises:
            ArtifactError: the booster is of another kind, or deeper than `DEPTH_MAX`.
        """
        learner, trees = _parsed(booster)
        kind, objective = learner["gradient_booster"]["name"], learner["objective"]["name"]
        if (kind, objective) != ("gbtree", "reg:squarederror"):
            raise ArtifactError(f"the booster is {kind} for {objective}; train gbtree for reg:squarederror")
        if not all(tree.get("leaf_weights") for tree in trees):
            raise ArtifactError("a leaf of the booster holds one output alone; train it with multi_output_tree")
        if any(any(tree["split_type"]) for tree in trees):
            raise ArtifactError("the booster splits by category; train it on numbers alone")
        depth = max(level for tree in trees for _, level, _ in _nodes(tree))
        if depth > DEPTH_MAX:
            raise ArtifactError(f"the booster is {depth} levels deep; train it with at most {DEPTH_MAX}")
        output_count = int(learner["learner_model_param"]["num_target"])
        features, thresholds, leaves = zip(
            *(_padded(tree, depth=depth, output_count=output_count) for tree in trees), strict=True
        )
        leaves[0][:] += np.array(json.loads(learner["learner_model_param"]["base_score"]), dtype=np.float32)
        levels = [slice(2**level - 1, 2 ** (level + 1) - 1) for level in range(depth)]
        return cls(
            features=tuple(np.concatenate([of_tree[level] for of_tree in features]) for level in levels),
            thresholds=tuple(np.concatenate([of_tree[level] for of_tree in thresholds]) for level in levels),
            leaves=np.concatenate(leaves),
        )

    def predict(self, vector: Floats) -> Floats:
        """The outputs for one vector of features, all of them finite."""
        node = np.arange(len(self.leaves) >> len(self.features))
        for features, thresholds in zip(self.features, self.thresholds, strict=True):
            goes_right = vector.take(features.take(node)) >= thresholds.take(node)
            node += node
            node += goes_right
        outputs: Floats = np.add.reduce(self.leaves.take(node, axis=0), axis=0)
        return outputs


def _parsed(booster: xgboost.Booster) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """The learner in XGBoost's JSON without its trees, and these.

    Each tree is parsed by itself: a parser keeps the interpreter to itself until it is done, so that a server which
    loads an artifact would stand still for as long as one pass over all of them takes, 0.15 s for 4 MB.
    """
    before, opening, rest = booster.save_raw("json").decode("utf-8").partition(_TREES)
    trees: list[Mapping[str, Any]] = []
    position = 0
    while rest[position : position + 1] not in {"]", ""}:
        tree, position = _DECODER.raw_decode(rest, position)
        trees.append(tree)
        position += rest[position] == ","
    return json.loads(before + opening + rest[position:])["learner"], trees


def _nodes(tree: Mapping[str, Any]) -> Iterator[tuple[int, int, int]]:
    """Each node of a tree in XGBoost's JSON, its level, and its place among the nodes that a full level would have."""
    waiting = [(0, 0, 0)]
    while waiting:
        node, level, place = waiting.pop()
        yield node, level, place
        if (left := tree["left_children"][node]) != NO_CHILD:
            waiting += [(left, level + 1, 2 * place), (tree["right_children"][node], level + 1, 2 * place + 1)]


def _padded(tree: Mapping[str, Any], *, depth: int, output_count: int) -> tuple[Indices, Floats, Floats]:
    """Features and thresholds of the inner nodes, level by level, and the leaves of a tree made `depth` levels deep.

    Below a leaf that lies higher, every leaf is the same, so whatever its padding asks leads to it.
    """
    features = np.zeros(2**depth - 1, dtype=np.intp)
    thresholds = np.zeros(2**depth - 1, dtype=np.float32)
    leaves = np.zeros((2**depth, output_count), dtype=np.float32)
    weights = np.array(tree["leaf_weights"], dtype=np.float32).reshape(-1, output_count)
    for node, level, place in _nodes(tree):
        if tree["left_children"][node] == NO_CHILD:
            width = 2 ** (depth - level)
            # A vector leaf has no right child; XGBoost keeps the row of its weights there.
            leaves[place * width : (place + 1) * width] = weights[tree["right_children"][node]]
        else:
            features[2**level - 1 + place] = tree["split_indices"][node]
            thresholds[2**level - 1 + place] = tree["split_conditions"][node]
    return features, thresholds, leaves
