"""The booster's trees as arrays, which numpy reads for one prompt at a fraction of what a call into XGBoost costs.

Every tree is padded to a complete one of the same depth, and asks all its questions at once: seven for a depth of three,
of which a prompt would meet three. The answers are the bits of one small number, and a table says to which leaf each
number leads (after the bit vectors of QuickScorer, Lucchese et al., 2015). What is summed, and in which order, is as in
XGBoost, so the outputs agree with `Booster.inplace_predict` to the last bit (tests/quality/test_trees.py).
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

DEPTH_MAX = 4
"""A tree's answers fill 2^depth bits, and the table of what they lead to has 2^(2^depth) entries: half a megabyte for a depth of four.
Those in use have three."""


NO_CHILD = -1
"""What XGBoost writes for the left child of a leaf."""
_TREES = '"trees":['
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class CompleteTrees:
    """Vector-leaf trees of one depth. Immutable, so safe to share between threads.

    Memory: trees x 2^depth x (4 x outputs + 12) bytes, 80 kB for 150 trees of depth 3 with 13 outputs.
    """

    features: Indices
    """(trees x answers): the feature that each node reads, level by level, and one that fills the tree's last bit."""
    thresholds: Floats
    """(trees x answers): a feature from this value on leads to the second child."""
    answers: np.dtype[np.unsignedinteger[Any]]
    """The number that holds the answers of one tree."""
    reached: Indices
    """(2^answers,): the leaf of a tree to which its answers lead, as a number whose lowest bit is the root's."""
    first_leaves: Indices
    """(trees,): where the leaves of each tree begin."""
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
        # The answers of a tree fill whole bytes.
        answer_count = max(8, 2**depth)
        features, thresholds, leaves = zip(
            *(_padded(tree, depth=depth, answer_count=answer_count, output_count=output_count) for tree in trees),
            strict=True,
        )
        leaves[0][:] += np.array(json.loads(learner["learner_model_param"]["base_score"]), dtype=np.float32)
        return cls(
            features=np.concatenate(features),
            thresholds=np.concatenate(thresholds),
            answers=np.dtype(f"<u{answer_count // 8}"),
            reached=_reached(depth=depth, answer_count=answer_count),
            first_leaves=np.arange(len(trees), dtype=np.intp) << depth,
            leaves=np.concatenate(leaves),
        )

    def predict(self, vector: Floats) -> Floats:
        """The outputs for one vector of features, all of them finite."""
        goes_right = vector.take(self.features) >= self.thresholds
        answers = np.packbits(goes_right, bitorder="little").view(self.answers)
        outputs: Floats = np.add.reduce(
            self.leaves.take(self.reached.take(answers) + self.first_leaves, axis=0), axis=0
        )
        return outputs


def _reached(*, depth: int, answer_count: int) -> Indices:
    """The leaf that each combination of answers leads to."""
    answers = np.arange(2**answer_count)
    place = np.zeros_like(answers)
    for level in range(depth):
        place = 2 * place + (answers >> (2**level - 1 + place) & 1)
    return place.astype(np.intp)


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


def _padded(
    tree: Mapping[str, Any], *, depth: int, answer_count: int, output_count: int
) -> tuple[Indices, Floats, Floats]:
    """Features and thresholds of the inner nodes, level by level, and the leaves of a tree made `depth` levels deep.

    Below a leaf that lies higher, every leaf is the same, so whatever its padding asks leads to it.
    """
    features = np.zeros(answer_count, dtype=np.intp)
    thresholds = np.zeros(answer_count, dtype=np.float32)
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
