"""What the quality model reads of a prompt: a pooled static embedding and surface features, at a bounded cost.

    text -> window (head and tail, bounded in characters) -> words -> weighted mean of their rows         \
                                                                   -> linear reading of words and pairs    -> float32 vector
                                                          -> byte classes, counts of telling strings      /

Pure: the same text and table give the same vector, bit for bit. The table is a projection of a public static embedding;
rare words weigh more than common ones (Arora, Liang and Ma, "A Simple but Tough-to-Beat Baseline for Sentence
Embeddings", 2017). Words are looked up whole: splitting the one in nine that has no row of its own into subwords cost
as much as all the rest and told the model nothing more (docs/quality.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np
import numpy.typing as npt

from pointsman_server.quality.ngrams import Hashes, NgramTable, word_hash

Floats = npt.NDArray[np.float32]

PIECE = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_|\n")
"""What is looked up: words, single digits (as the embedding's vocabulary has them), punctuation marks, line breaks."""
OPTION_LINE = re.compile(r"\n\(?[A-J][.)] ")
"""The beginning of a line that offers a choice, as in multiple-choice questions."""
NUMBER = re.compile(r"\d+")

BYTE_CLASSES: tuple[tuple[str, bytes], ...] = (
    ("lower", bytes(range(ord("a"), ord("z") + 1))),
    ("upper", bytes(range(ord("A"), ord("Z") + 1))),
    ("digit", b"0123456789"),
    ("space", b" "),
    ("line_break", b"\n"),
    ("tab", b"\t\r"),
    ("period", b"."),
    ("comma", b","),
    ("question_mark", b"?"),
    ("exclamation_mark", b"!"),
    ("colon", b":;"),
    ("quote", b"\"'"),
    ("backtick", b"`"),
    ("parenthesis", b"()"),
    ("square_bracket", b"[]"),
    ("curly_bracket", b"{}"),
    ("minus", b"-"),
    ("arithmetic", b"+*/%^"),
    ("comparison", b"<>="),
    ("backslash", b"\\"),
    ("dollar", b"$"),
    ("underscore", b"_"),
    ("symbol", b"#@&|~"),
    ("latin_accent", bytes(range(0xC3, 0xCA))),
    ("greek_cyrillic", bytes(range(0xCD, 0xD4))),
    ("semitic", bytes(range(0xD6, 0xDD))),
    ("indic_symbol", bytes(range(0xE0, 0xE3))),
    ("east_asian", bytes(range(0xE3, 0xEF))),
)
"""Kinds of UTF-8 bytes whose share is a feature. Lead bytes tell the script, which is the cheapest hint of language."""

TELLING_STRINGS: tuple[str, ...] = (
    "\n\n", "```", "def ", "return", "import ", "class ", "assert", "function", "\\frac", "\\boxed", "json", "http",
    "step by step", "Answer", "Options", "Which of the following", "What ", "How ", "Why ", "who ", "Write ", "prove",
    "True", " not ", " if ", "____",
)  # fmt: skip
"""Strings whose count hints at the kind of task: code, mathematics, multiple choice, open questions, reasoning."""

SURFACE_NAMES: tuple[str, ...] = (
    "log_characters", "log_words", "log_lines", "mean_word_length", "distinct_word_share", "option_lines",
    "log_numbers", "mean_number_length", "longest_number",
    *(f"share_{name}" for name, _ in BYTE_CLASSES),
    *(f"log_count_{string.strip() or 'blank_line'}" for string in TELLING_STRINGS),
)  # fmt: skip
"""Names of the surface features, in the order in which they follow the embedding."""
SHARES = slice(9, 9 + len(BYTE_CLASSES))
"""Where the shares of the byte classes stand among them."""


def _byte_class_table() -> npt.NDArray[np.uint8]:
    """Class of each of the 256 bytes; the last class collects what no other holds."""
    table = np.full(256, len(BYTE_CLASSES), dtype=np.uint8)
    for index, (_, members) in enumerate(BYTE_CLASSES):
        table[np.frombuffer(members, dtype=np.uint8)] = index
    return table


BYTE_CLASS = _byte_class_table().tobytes()
ASCII_DIGITS = bytes(byte if byte in b"0123456789" else ord(" ") for byte in range(256))
"""Blanks all bytes but the digits of an ASCII text, so that splitting it gives its numbers."""
LINE_BREAK = "0a"
"""How `ascii_pieces` writes a line break, which splitting would drop. No piece is a digit and a letter."""
FILLER = b"\xff"
"""Stands in no ASCII text, nor in any UTF-8."""


def _padding_table() -> npt.NDArray[np.uint32]:
    """Four bytes for each ASCII byte: a letter alone, white space as a blank, all else between blanks; then filler."""
    table = np.zeros(128, dtype="S4")
    for byte in range(128):
        character = chr(byte)
        if character == "\n":
            padded = f" {LINE_BREAK} "
        elif character.isspace():
            padded = " "
        else:
            padded = character if character.isalpha() else f" {character} "
        table[byte] = padded.encode("ascii").ljust(4, FILLER)
    return table.view(np.uint32)


PADDING = _padding_table()

NO_ROW = -1
"""Stands for the row of a word that has none."""


@dataclass(frozen=True, slots=True)
class Window:
    """How much of a prompt is read, in characters. The middle of a longer text is skipped: instructions stand at its
    beginning and at its end."""

    head_characters: int = 1536
    """From the beginning. With the tail this bounds the cost: 3,072 characters take about 0.25 ms."""
    tail_characters: int = 1536
    """From the end."""

    def of(self, text: str) -> str:
        """The part of `text` that is read, as valid UTF-8 text (a lone surrogate becomes a question mark)."""
        if len(text) > self.head_characters + self.tail_characters:
            text = text[: self.head_characters] + "\n" + text[len(text) - self.tail_characters :]
        return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a text."""

    rows: npt.NDArray[np.intp]
    """Of those that have one, in the table."""
    hashes: Hashes
    """Of all of them."""
    unknown_count: int
    """How many have no row."""


@dataclass(frozen=True, slots=True)
class WordTable:
    """A static embedding, quantised. Memory: words x dimensions bytes, and about 100 bytes per word to look it up."""

    words: tuple[str, ...]
    """What `PIECE` can find, one per row, distinct."""
    values: npt.NDArray[np.int8]
    """One row per word, one column per dimension."""
    scale: Floats
    """What one step of each column is worth."""
    weight: Floats
    """How much each word counts in the mean; positive."""
    _row_of: Mapping[str, int] = field(init=False, repr=False)
    _hashes: Hashes = field(init=False, repr=False)
    """Of each word, see `word_hash`; most words of a text need not be hashed again."""

    def __post_init__(self) -> None:
        assert self.values.shape == (len(self.words), len(self.scale)), "one row per word, one scale per column"
        assert self.weight.shape == (len(self.words),), "one weight per word"
        row_of = {word: row for row, word in enumerate(self.words)}
        assert len(row_of) == len(self.words), "words are distinct"
        if (line_break := row_of.get("\n")) is not None:
            row_of[LINE_BREAK] = line_break
        object.__setattr__(self, "_row_of", row_of)
        hashes = np.fromiter(map(piece_hash, self.words), dtype=np.uint64, count=len(self.words))
        object.__setattr__(self, "_hashes", hashes)

    def read(self, pieces: list[str]) -> Words:
        """What these pieces of a text are."""
        found = np.fromiter(map(self._row_of.get, pieces, repeat(NO_ROW)), dtype=np.intp, count=len(pieces))
        unknown = (found == NO_ROW).nonzero()[0]
        hashes = self._hashes.take(found)
        if not unknown.size:
            return Words(found, hashes, 0)
        hashes[unknown] = [piece_hash(pieces[index]) for index in unknown.tolist()]
        return Words(found[found != NO_ROW], hashes, unknown.size)

    def pool(self, rows: npt.NDArray[np.intp]) -> Floats:
        """The weighted mean of these rows; zeros when there are none."""
        if rows.size == 0:
            return np.zeros(self.scale.shape, dtype=np.float32)
        weight = self.weight.take(rows)
        pooled: Floats = (weight @ self.values.take(rows, axis=0).astype(np.float32)) * (self.scale / weight.sum())
        return pooled


@dataclass(frozen=True, slots=True)
class FeatureExtractor:
    """Turns a prompt into the vector that the booster reads. Immutable, so safe to share between threads."""

    table: WordTable
    ngrams: NgramTable
    window: Window = Window()

    @property
    def names(self) -> tuple[str, ...]:
        """One name per feature, in order."""
        latents = range(self.ngrams.latent_count)
        return (
            *(f"embedding_{index}" for index in range(len(self.table.scale))),
            "unknown_word_share",
            *SURFACE_NAMES,
            *(f"wording_{index}" for index in latents),
            *(f"category_{index}" for index in latents),
            *(f"share_of_category_{index}" for index in range(self.ngrams.category_count)),
        )

    def __call__(self, text: str) -> Floats:
        """The features of `text`. The cost is bounded by the window, whatever the length of the text."""
        window = self.window.of(text)
        pieces = pieces_of(window)
        words = self.table.read(pieces)
        plain = plain_features(self.table, window, words, character_count=len(text))
        return np.concatenate((plain, self.ngrams.read(words.hashes)))

    def base(self, vectors: Floats) -> Floats:
        """The latents that the linear readings in these vectors (..., features) stand for; the trees add to them."""
        first = len(self.table.scale) + 1 + len(SURFACE_NAMES)
        readings = vectors[..., first : first + 2 * self.ngrams.latent_count]
        return base_latents(readings, has_categories=self.ngrams.category_count > 0)


def plain_features(table: WordTable, window: str, words: Words, *, character_count: int) -> Floats:
    """The features that come before the linear readings: embedding, share of unknown words, surface."""
    embedding_size = table.scale.size
    vector = np.empty(embedding_size + 1 + len(SURFACE_NAMES), dtype=np.float32)
    vector[:embedding_size] = table.pool(words.rows)
    vector[embedding_size] = words.unknown_count / max(1, words.hashes.size)
    vector[embedding_size + 1 :] = surface(window, character_count=character_count)
    return vector


def base_latents(readings: Floats, *, has_categories: bool) -> Floats:
    """The mean of the two readings in (..., 2 x latents), or the first alone where no category was told apart."""
    count = readings.shape[-1] // 2
    wording, category = readings[..., :count], readings[..., count:]
    return np.float32(0.5) * (wording + category) if has_categories else wording


def pieces_of(window: str) -> list[str]:
    """What `PIECE` finds."""
    return ascii_pieces(window) if window.isascii() else PIECE.findall(window)


def piece_hash(piece: str) -> int:
    """The hash by which the linear reading knows a piece; that of a line break is the same however it is written."""
    return word_hash(LINE_BREAK if piece == "\n" else piece)


def ascii_pieces(window: str) -> list[str]:
    """What `PIECE` finds in an ASCII text, in half the time; `LINE_BREAK` in place of each line break."""
    padded = PADDING.take(np.frombuffer(window.encode("ascii"), dtype=np.uint8)).tobytes()
    return padded.translate(None, FILLER).decode("ascii").split()


def surface(window: str, *, character_count: int) -> Floats:
    """Surface features of the window, in the order of `SURFACE_NAMES`; `character_count` is the whole text's."""
    encoded = window.encode("utf-8")
    words = window.split()
    word_count = max(1, len(words))
    numbers = encoded.translate(ASCII_DIGITS).split() if window.isascii() else NUMBER.findall(window)
    number_lengths = list(map(len, numbers))
    counts = np.log1p(
        [character_count, len(words), window.count("\n"), len(numbers), *map(window.count, TELLING_STRINGS)]
    )
    classes = np.frombuffer(encoded.translate(BYTE_CLASS), dtype=np.uint8)
    features = np.empty(len(SURFACE_NAMES), dtype=np.float32)
    features[:3] = counts[:3]
    features[3 : SHARES.start] = (
        (len(window) - window.count(" ")) / word_count,
        len(set(words)) / word_count,
        len(OPTION_LINE.findall("\n" + window)),
        counts[3],
        sum(number_lengths) / max(1, len(numbers)),
        max(number_lengths, default=0),
    )
    class_counts = np.bincount(classes, minlength=len(BYTE_CLASSES) + 1)
    features[SHARES] = class_counts[:-1] / max(1, classes.size)
    features[SHARES.stop :] = counts[4:]
    return features
