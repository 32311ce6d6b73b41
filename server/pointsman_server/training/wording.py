"""Fits the linear reading of a prompt's words and pairs of words (see `quality.ngrams`).

Ridge regression on TF-IDF vectors, all outputs at once, by conjugate gradients: the vectors are sparse, and the matrix
of the normal equations would not fit in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from pointsman_server.quality.ngrams import BUCKET_COUNT, CATEGORY_COUNT_MAX, Hashes, NgramTable, counted, readings
from pointsman_server.training.dataset import Strings
from pointsman_server.training.embedding import quantised_columns

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

DOCUMENT_COUNT_MIN = 2
"""A word or pair of a single training prompt tells nothing of others."""
LATENT_RIDGE = 12.0
"""In units of squared length of one prompt's vector: the best of 2, 5, 12 and 30 on RouteLLM's sets (docs/quality.md)."""
CATEGORY_RIDGE = 1.0
"""Less, because a category's name is free of the noise that labels of quality have."""
CATEGORY_SIZE_MIN = 20
"""Prompts of a category that is told apart."""
CATEGORY_PRIOR_COUNT = 10.0
"""Prompts by which the mean latents of a category are shrunk to the mean of all."""
STEP_COUNT_MAX = 60
RESIDUAL_SHARE = 1e-3
"""Of the right side's norm: where conjugate gradients stop, which is after some 20 steps."""


def ngram_counts(hashes: Iterable[Hashes]) -> csr_matrix:
    """(prompts, buckets): 1 + log of the count of every word and pair of texts whose words have these hashes."""
    columns, values, ends = [], [], [0]
    for of_text in hashes:
        members, counts = counted(of_text)
        columns.append(members)
        values.append(counts)
        ends.append(ends[-1] + len(members))
    shape = (len(ends) - 1, BUCKET_COUNT)
    return csr_matrix((np.concatenate(values), np.concatenate(columns), np.array(ends)), shape=shape)


@dataclass(frozen=True, slots=True)
class Wording:
    """A fitted linear reading, in full precision."""

    weight: Floats
    """(buckets,): inverse document frequency."""
    coefficients: Floats
    """(buckets, latents + categories)."""
    offset: Floats
    category_latents: Floats

    def read(self, counts: csr_matrix) -> Floats:
        """(prompts, 2 x latents + categories), as `NgramTable.read` gives for one."""
        outputs = _vectors(counts, self.weight) @ self.coefficients + self.offset
        return readings(np.asarray(outputs, dtype=np.float32), self.category_latents)

    def table(self) -> NgramTable:
        """The same for service, quantised."""
        values, scale = quantised_columns(self.coefficients)
        return NgramTable(
            weight=self.weight, values=values, scale=scale, offset=self.offset, category_latents=self.category_latents
        )


def fit_wording(counts: csr_matrix, targets: Doubles, members: Floats) -> Wording:
    """The regression of the latents in `targets` (prompts, latents), and of `membership` in categories."""
    weight = _inverse_document_frequency(counts)
    vectors = _vectors(counts, weight)
    latents, latent_offset = _ridge(vectors, targets.astype(np.float32), LATENT_RIDGE)
    categories, category_offset = _ridge(vectors, members, CATEGORY_RIDGE)
    centred = targets - targets.mean(axis=0)
    category_latents = (members.T @ centred) / (members.sum(axis=0)[:, np.newaxis] + CATEGORY_PRIOR_COUNT)
    return Wording(
        weight=weight,
        coefficients=np.concatenate((latents, categories), axis=1),
        offset=np.concatenate((latent_offset, category_offset)),
        category_latents=category_latents.astype(np.float32),
    )


def membership(groups: Strings) -> Floats:
    """(prompts, categories): 1 where a prompt is of that category; the largest ones. One alone tells nothing."""
    names, inverse, counts = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:CATEGORY_COUNT_MAX]
    kept = np.sort(largest[counts[largest] >= CATEGORY_SIZE_MIN])
    if len(names) < 2 or len(kept) < 2:
        return np.zeros((len(groups), 0), dtype=np.float32)
    return np.asarray(inverse[:, np.newaxis] == kept, dtype=np.float32)


def _inverse_document_frequency(counts: csr_matrix) -> Floats:
    document_counts = np.bincount(counts.indices, minlength=BUCKET_COUNT)
    weight = np.log((1.0 + counts.shape[0]) / (1.0 + document_counts)) + 1.0
    return np.asarray(np.where(document_counts >= DOCUMENT_COUNT_MIN, weight, 0.0), dtype=np.float32)


def _vectors(counts: csr_matrix, weight: Floats) -> csr_matrix:
    """Weighted counts, each prompt's of unit length (or all zero)."""
    values = counts.data * weight[counts.indices]
    row_of = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    norm = np.sqrt(np.bincount(row_of, values * values, minlength=counts.shape[0]))
    values = (values / np.maximum(norm, 1e-9)[row_of]).astype(np.float32)
    return csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)


def _ridge(vectors: csr_matrix, targets: Floats, ridge: float) -> tuple[Floats, Floats]:
    """Coefficients (buckets, outputs) and offset (outputs,) by conjugate gradients on the normal equations."""
    offset = targets.mean(axis=0)
    transposed = vectors.T.tocsr()
    right = np.asarray(transposed @ (targets - offset), dtype=np.float32)
    solution, residual, direction = np.zeros_like(right), right.copy(), right.copy()
    norm = (residual * residual).sum(axis=0)
    enough = RESIDUAL_SHARE**2 * norm
    for _ in range(STEP_COUNT_MAX):
        if (norm <= enough).all():
            break
        image = transposed @ (vectors @ direction) + ridge * direction
        step = norm / np.maximum((direction * image).sum(axis=0), 1e-30)
        solution += step * direction
        residual -= step * image
        next_norm = (residual * residual).sum(axis=0)
        direction = residual + (next_norm / np.maximum(norm, 1e-30)) * direction
        norm = next_norm
    return solution, np.asarray(offset, dtype=np.float32)
