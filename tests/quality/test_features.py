"""What the quality model reads of a prompt."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.quality.features import (
    LINE_BREAK,
    PIECE,
    SURFACE_NAMES,
    FeatureExtractor,
    Window,
    WordTable,
    ascii_pieces,
    base_latents,
    piece_hash,
    pieces_of,
    surface,
)
from pointsman_server.quality.model import QualityModel


@pytest.fixture(scope="session")
def features(builtin: QualityModel) -> FeatureExtractor:
    """The features of the built-in model."""
    return builtin.features


class TestWindow:
    """The bounded part of a prompt that is read."""

    @given(text=st.text(alphabet="ab\n", max_size=100))
    def test_the_window_is_bounded(self, text: str) -> None:
        """Whatever the length of the text, no more than head, tail and one line break are read."""
        assert len(Window(head_characters=10, tail_characters=5).of(text)) <= 16

    def test_a_short_text_is_read_whole(self) -> None:
        """A text that fits is not touched."""
        assert Window(head_characters=3, tail_characters=3).of("abcdef") == "abcdef"

    def test_a_long_text_keeps_its_head_and_its_tail(self) -> None:
        """Of a longer text, the beginning and the end are read."""
        assert Window(head_characters=3, tail_characters=2).of("abcdefgh") == "abc\ngh"

    def test_a_lone_surrogate_is_read_as_a_question_mark(self) -> None:
        """Text that is no valid UTF-8 does not fail."""
        assert Window().of("a\ud800b") == "a?b"


class TestFeatureExtractor:
    """The whole vector."""

    @given(text=st.text(max_size=300))
    def test_every_text_has_a_finite_vector(self, text: str, features: FeatureExtractor) -> None:
        """Any text at all gives one finite float32 per name, and the same ones again."""
        vector = features(text)
        assert vector.dtype == np.float32
        assert vector.shape == (len(features.names),)
        assert np.isfinite(vector).all()
        assert vector.tobytes() == features(text).tobytes()

    def test_names_are_distinct(self, features: FeatureExtractor) -> None:
        """No two features share a name."""
        assert len(set(features.names)) == len(features.names)

    def test_the_middle_of_a_long_prompt_is_not_read(self, features: FeatureExtractor) -> None:
        """Two prompts of one length that differ only beyond the window are the same to the model."""
        head, tail = "Prove that 1 + 1 = 2. " * 100, " Answer in one line." * 100
        first, second = (head + middle * 100_000 + tail for middle in ("x", "9"))
        assert features(first).tobytes() == features(second).tobytes()

    def test_the_length_of_the_whole_prompt_is_known(self, features: FeatureExtractor) -> None:
        """The logarithm of the length counts what the window skips."""
        index = features.names.index("log_characters")
        assert features("a" * 1_000_000)[index] == pytest.approx(np.log1p(1_000_000))

    def test_different_topics_have_different_embeddings(self, features: FeatureExtractor) -> None:
        """Two mathematical questions lie closer to each other than to a historical one."""
        embedding = slice(0, len(features.table.scale))
        algebra, calculus, history = (
            features(text)[embedding]
            for text in (
                "Solve the quadratic equation and give its roots.",
                "Find the derivative of the polynomial function.",
                "Which king ruled France during the revolution?",
            )
        )
        assert np.linalg.norm(algebra - calculus) < np.linalg.norm(algebra - history)


class TestSurface:
    """Features of the characters."""

    @given(text=st.text(alphabet="aB 07\n\r\x1c\x00.)", max_size=60))
    def test_ascii_is_read_like_any_other_text(self, text: str) -> None:
        """The short cut for ASCII finds the same numbers and option lines as the general rules do in the same text."""
        names = ("log_numbers", "mean_number_length", "longest_number", "option_lines")
        told, general = (surface(text + end, character_count=0) for end in ("..", "\u00e9"))
        for name in names:
            assert told[SURFACE_NAMES.index(name)] == general[SURFACE_NAMES.index(name)]

    @given(text=st.text(alphabet="AK1(.) \n\r\u2028", max_size=30))
    def test_option_lines_begin_a_line(self, text: str) -> None:
        """A choice counts at the beginning of the text or after a line break, nowhere else."""
        expected = sum(re.match(r"\(?[A-J][.)] ", line) is not None for line in text.split("\n"))
        assert surface(text, character_count=0)[SURFACE_NAMES.index("option_lines")] == expected

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("share_digit", "12345"),
            ("share_question_mark", "???"),
            ("share_east_asian", "\u4f60\u597d"),
            ("share_greek_cyrillic", "\u043f\u0440\u0438"),
            ("log_count_def", "def f(): pass"),
            ("option_lines", "A. one\nB. two"),
            ("longest_number", "in 1987"),
        ],
    )
    def test_a_telling_text_raises_its_feature(self, name: str, text: str) -> None:
        """Each of these texts has more of its feature than plain prose."""
        index = SURFACE_NAMES.index(name)
        told, plain = surface(text, character_count=len(text)), surface("plain prose", character_count=11)
        assert told[index] > plain[index]

    def test_the_empty_text_has_features(self) -> None:
        """Nothing at all is all zeros, not an error."""
        assert surface("", character_count=0).tolist() == [0.0] * len(SURFACE_NAMES)


def _rows(table: WordTable, text: str) -> tuple[np.ndarray, int]:
    """The rows of a text's words that have one, and how many have none."""
    words = table.read(pieces_of(text))
    return words.rows, words.unknown_count


class TestWordTable:
    """The quantised embedding."""

    TABLE = WordTable(
        words=("a", "b"),
        values=np.array([[10, 0], [0, 20]], dtype=np.int8),
        scale=np.array([0.1, 1.0], dtype=np.float32),
        weight=np.array([1.0, 3.0], dtype=np.float32),
    )

    def test_pooling_is_the_weighted_mean(self) -> None:
        """Rows count by their weight, and columns are brought to scale."""
        assert self.TABLE.pool(np.array([0, 1])).tolist() == pytest.approx([0.25, 15.0])

    def test_words_without_a_row_are_counted(self) -> None:
        """Known words give their rows in order, the others are only counted."""
        rows, unknown_count = _rows(self.TABLE, "b a x b")
        assert (rows.tolist(), unknown_count) == ([1, 0, 1], 1)

    @given(text=st.text(alphabet=st.characters(max_codepoint=127), max_size=60))
    def test_ascii_is_cut_like_any_other_text(self, text: str) -> None:
        """The pieces of an ASCII text are those that the general rule finds."""
        assert ["\n" if piece == LINE_BREAK else piece for piece in ascii_pieces(text)] == PIECE.findall(text)

    @given(text=st.text(alphabet="ab \n0_", max_size=30))
    def test_ascii_is_looked_up_like_any_other_text(self, text: str) -> None:
        """A word outside ASCII changes what is known of a text by itself alone, line breaks included."""
        table = WordTable(
            words=("a", "\n", "0", "_"),
            values=np.ones((4, 1), dtype=np.int8),
            scale=np.ones(1, dtype=np.float32),
            weight=np.ones(4, dtype=np.float32),
        )
        rows, unknown_count = _rows(table, text)
        general_rows, general_unknown_count = _rows(table, text + " \u00e9")
        assert (rows.tolist(), unknown_count + 1) == (general_rows.tolist(), general_unknown_count)

    def test_no_words_pool_to_zero(self) -> None:
        """A text without words has the zero embedding."""
        assert self.TABLE.pool(np.array([], dtype=np.intp)).tolist() == [0.0, 0.0]


class TestWords:
    """What the linear reading hashes."""

    TABLE = WordTable(
        words=("One", "two", "\n"),
        values=np.zeros((3, 1), dtype=np.int8),
        scale=np.ones(1, dtype=np.float32),
        weight=np.ones(3, dtype=np.float32),
    )

    @given(text=st.text(alphabet="One twO\u00c9\u00e90.,_\n\r\u2028", max_size=40))
    def test_every_piece_has_the_hash_of_itself(self, text: str) -> None:
        """Whether a piece has a row or not, its hash is that of the piece in lower case."""
        pieces = pieces_of(text)
        assert self.TABLE.read(pieces).hashes.tolist() == [piece_hash(piece) for piece in pieces]

    def test_case_and_the_script_of_the_rest_are_irrelevant(self) -> None:
        """The same words hash alike in either case, with or without a row, in ASCII and in other texts."""
        first = self.TABLE.read(pieces_of("One\ntwo three \u00e9")).hashes[:-1]
        assert first.tolist() == self.TABLE.read(pieces_of("ONE\nTwo THREE")).hashes.tolist()


def test_the_base_is_the_mean_of_both_readings() -> None:
    """Where categories are told apart both readings count alike, else the wording alone."""
    readings = np.array([1.0, 2.0, 3.0, 6.0], dtype=np.float32)
    assert base_latents(readings, has_categories=True).tolist() == [2.0, 4.0]
    assert base_latents(readings, has_categories=False).tolist() == [1.0, 2.0]
