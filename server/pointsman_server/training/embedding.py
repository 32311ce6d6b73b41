"""The word table of the features: wordllama's public embedding, weighted, projected and quantised.

wordllama (MIT) ships a 32,000 x 256 static embedding and its tokenizer inside its wheel. Both files are opened
directly; its own `load()` looks elsewhere and may download.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from pointsman_server.quality.features import PIECE, Window, WordTable, pieces_of
from pointsman_server.training.dataset import DatasetError, Strings

TOKENIZER_PATH = "tokenizers/l2_supercat_tokenizer_config.json"
TABLE_PATH = "weights/l2_supercat_256.safetensors"

WORD_START = "\u2581"
"""How the SentencePiece vocabulary marks a token that begins a word."""
LINE_BREAK_TOKEN = "<0x0A>"

SMOOTHING = 1e-3
"""Of the weight a / (a + frequency): the value that Arora, Liang and Ma found flat between 1e-4 and 1e-2."""

QUANTISATION_STEPS = 127
"""An int8 step is 1/127 of the largest value that is kept."""
CLIPPED_SHARE = 1e-3
"""Share of a column's values that may be clipped, so that a few outliers do not coarsen the rest."""


def fit_word_table(texts: Strings, *, dimension_count: int, window: Window) -> WordTable:
    """A table fitted on these texts: weights from word frequencies, principal axes of the pooled
    embeddings.

    Raises:
        DatasetError: wordllama is not installed, or there are fewer texts than dimensions.
    """
    if len(texts) <= dimension_count:
        raise DatasetError(f"{len(texts)} training prompts are too few for {dimension_count} embedding dimensions")
    words, embedding = public_embedding()
    raw = quantised(words, embedding[:, :1], np.ones(len(words), np.float32))
    rows = [raw.read(pieces_of(window.of(text))).rows for text in texts]
    weight = frequency_weights(rows, word_count=len(words))
    pooled = np.stack([_pooled(embedding, weight, row) for row in rows])
    axes = np.linalg.svd(pooled - pooled.mean(axis=0), full_matrices=False)[2][:dimension_count]
    signs = np.sign(axes[np.arange(dimension_count), np.abs(axes).argmax(axis=1)])
    return quantised(words, embedding @ (axes * signs[:, np.newaxis]).T, weight)


def public_embedding() -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
    """The words of wordllama's vocabulary and their embeddings, one row each.

    Raises:
        DatasetError: wordllama is not installed.
    """
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise DatasetError("training needs the package wordllama: install pointsman[train]")
    root = Path(spec.origin).parent
    table: npt.NDArray[np.float32] = load_file(root / TABLE_PATH)["embedding.weight"].astype(np.float32)
    vocabulary = Tokenizer.from_file(str(root / TOKENIZER_PATH)).get_vocab(with_added_tokens=False)
    row_of = rows_of_words(vocabulary)
    return tuple(row_of), table[list(row_of.values())]


def rows_of_words(vocabulary: Mapping[str, int]) -> dict[str, int]:
    """The row of each token that `PIECE` finds as one piece: where there are two, the one that begins a word."""
    rows = {token: row for token, row in sorted(vocabulary.items()) if not token.startswith(WORD_START)}
    rows |= {token[1:]: row for token, row in sorted(vocabulary.items()) if token.startswith(WORD_START)}
    rows["\n"] = vocabulary[LINE_BREAK_TOKEN]
    return {word: row for word, row in rows.items() if PIECE.fullmatch(word)}


def frequency_weights(rows: list[npt.NDArray[np.intp]], *, word_count: int) -> npt.NDArray[np.float32]:
    """How much each word counts, a / (a + p) for its share p of all (prompt, distinct word) pairs: rare ones say more."""
    counts = np.full(word_count, 0.5)
    for row in rows:
        counts[np.unique(row)] += 1.0
    return np.asarray(SMOOTHING / (SMOOTHING + counts / counts.sum()), dtype=np.float32)


def quantised(words: tuple[str, ...], table: npt.NDArray[np.float32], weight: npt.NDArray[np.float32]) -> WordTable:
    """The table in int8, one scale per column."""
    values, scale = quantised_columns(table, clipped_share=CLIPPED_SHARE)
    return WordTable(words=words, values=values, scale=scale, weight=weight)


def quantised_columns(
    table: npt.NDArray[np.float32], *, clipped_share: float = 0.0
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """The table in int8 and what one step of each column is worth; the largest `clipped_share` of values is cut."""
    scale = np.maximum(np.quantile(np.abs(table), 1.0 - clipped_share, axis=0), 1e-9) / QUANTISATION_STEPS
    values = np.clip(np.round(table / scale), -QUANTISATION_STEPS, QUANTISATION_STEPS)
    return values.astype(np.int8), scale.astype(np.float32)


def _pooled(
    embedding: npt.NDArray[np.float32], weight: npt.NDArray[np.float32], rows: npt.NDArray[np.intp]
) -> npt.NDArray[np.float32]:
    """The weighted mean in full precision; zeros without words."""
    if rows.size == 0:
        return np.zeros(embedding.shape[1], dtype=np.float32)
    pooled: npt.NDArray[np.float32] = (weight[rows] @ embedding[rows]) / weight[rows].sum()
    return pooled
