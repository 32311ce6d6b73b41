"""A linear reading of a prompt's words and pairs of neighbouring words: what its wording alone says of the latents.

    words -> hashed words and pairs -> weights (1 + log count) idf, unit length -> x
    x W + w0                         a latent vector, by ridge regression
    (x V + v0)+^2, normalised        the share of each category of training prompts; times the mean latents of each
    (x V + v0)+^4, normalised        the same shares, nearer to a verdict, for the profiles to see

Linear models over words are what trees are worst at, and on single-source data they rank prompts better than trees do
(docs/quality.md). Pure: the same text and table give the same numbers, bit for bit. Buckets are shared by whatever
hashes alike (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Buckets = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

BUCKET_BITS = 16
"""65,536 buckets hold the 100,000 words and pairs that 10,000 prompts use more than once; twice as many rank no better."""
BUCKET_COUNT = 1 << BUCKET_BITS
CATEGORY_COUNT_MAX = 64
"""Categories that are told apart; each takes a byte per bucket. RouteLLM's MMLU, the finest here, has 57."""

_SHIFT = np.uint64(64 - BUCKET_BITS)
_FIRST, _SECOND, _MIX = (np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93))
"""Odd multipliers that spread 32-bit hashes over 64 bits (Knuth's multiplicative hashing); wrapping is meant."""


_COUNT_WEIGHTS = (1.0 + np.log(np.maximum(1, np.arange(8192)))).astype(np.float32)
"""What a bucket counts for by how often a text has it; no window holds more words and pairs."""


def word_hash(word: str) -> int:
    """Under which number a word, or another piece of text, enters; whatever its case."""
    return crc32(word.lower().encode("utf-8"))


def buckets(hashes: Hashes) -> Buckets:
    """The bucket of each word of a text, then that of each word with its successor."""
    single = hashes * _FIRST
    pairs = (single[:-1] ^ (hashes[1:] * _SECOND)) * _MIX
    # No bucket's number reaches the bit that tells the two types apart.
    return (np.concatenate((single, pairs)) >> _SHIFT).view(np.int64)


def counted(hashes: Hashes) -> tuple[Buckets, Floats]:
    """The distinct buckets of a text, ascending, and 1 + log of how often each occurs."""
    found = buckets(hashes)
    if not found.size:
        return found, np.empty(0, dtype=np.float32)
    # What np.unique does, without its detours.
    found.sort()
    is_first = np.empty(found.size + 1, dtype=np.bool_)
    is_first[0] = is_first[-1] = True  # The end is the beginning of what would come next.
    np.not_equal(found[1:], found[:-1], out=is_first[1:-1])
    starts = is_first.nonzero()[0]
    return found.take(starts[:-1]), _COUNT_WEIGHTS.take(starts[1:] - starts[:-1], mode="clip")


@dataclass(frozen=True, slots=True)
class NgramTable:
    """The regressions of latents and categories on hashed words and pairs.

    Memory: 65,536 x (latents + categories + 4) bytes, 3 MB for 13 latents and 30 categories.
    """

    weight: Floats
    """(buckets,): inverse document frequency; 0 for what too few training prompts have."""
    values: npt.NDArray[np.int8]
    """(buckets, latents + categories), quantised."""
    scale: Floats
    """(latents + categories,): what one step of each column is worth."""
    offset: Floats
    """(latents + categories,): the reading of a text without a known word."""
    category_latents: Floats
    """(categories, latents): mean latents of the prompts of each category, beside the mean of all. May have no row."""

    def __post_init__(self) -> None:
        categories, latents = self.category_latents.shape
        assert categories <= CATEGORY_COUNT_MAX, "a bounded number of categories"
        assert self.values.shape == (BUCKET_COUNT, latents + categories), "a row per bucket, a column per output"
        assert self.weight.shape == (BUCKET_COUNT,), "a weight per bucket"
        assert self.scale.shape == self.offset.shape == (latents + categories,), "a scale and an offset per column"

    @property
    def latent_count(self) -> int:
        """Latents per reading."""
        return int(self.category_latents.shape[1])

    @property
    def category_count(self) -> int:
        """Shares per reading."""
        return len(self.category_latents)

    def read(self, hashes: Hashes) -> Floats:
        """(2 x latents + categories): latents by the regression and by the shares of the categories, and these shares, of
        the words with these hashes."""
        members, counts = counted(hashes)
        weight = self.weight.take(members) * counts
        norm = float(weight.dot(weight)) ** 0.5
        outputs: Floats = self.offset
        if norm > 0.0:
            known = self.values.take(members, axis=0).astype(np.float32)
            outputs = weight.dot(known) * (self.scale * np.float32(1.0 / norm)) + outputs
        return readings(outputs, self.category_latents)


def readings(outputs: Floats, category_latents: Floats) -> Floats:
    """(..., 2 x latents + categories) from the outputs (..., latents + categories) of the two regressions."""
    latent_count = category_latents.shape[1]
    # Squared, the regression of membership comes near enough to a probability; negative evidence is none.
    shares = np.maximum(outputs[..., latent_count:], np.float32(0.0))
    shares *= shares
    by_category = _normalised(shares).dot(category_latents)
    shares *= shares
    return np.concatenate((outputs[..., :latent_count], by_category, _normalised(shares)), axis=-1)


def _normalised(shares: Floats) -> Floats:
    """Shares of one; all zero where nothing speaks for any."""
    normalised: Floats = shares / np.maximum(shares.sum(axis=-1, keepdims=True), np.float32(1e-12))
    return normalised
