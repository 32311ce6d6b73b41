"""The linear reading of words and pairs of words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.quality.ngrams import BUCKET_COUNT, NgramTable, buckets, counted, readings, word_hash

WORDS = st.lists(st.sampled_from(["a", "b", "c", "0a", "\u00e9"]), max_size=12)


def _hashes(*words: str) -> np.ndarray:
    return np.array([word_hash(word) for word in words], dtype=np.uint64)


def _table(bucket_values: dict[int, list[int]], *, categories: int, latents: int) -> NgramTable:
    """A table that knows only these buckets, with one category latent more for each category."""
    width = latents + categories
    values = np.zeros((BUCKET_COUNT, width), dtype=np.int8)
    weight = np.zeros(BUCKET_COUNT, dtype=np.float32)
    for bucket, row in bucket_values.items():
        values[bucket] = row
        weight[bucket] = 1.0
    return NgramTable(
        weight=weight,
        values=values,
        scale=np.full(width, 0.5, dtype=np.float32),
        offset=np.arange(width, dtype=np.float32),
        category_latents=np.arange(categories * latents, dtype=np.float32).reshape(categories, latents),
    )


class TestBuckets:
    """Where words and pairs are found."""

    @given(words=WORDS)
    def test_each_word_and_each_pair_has_one(self, words: list[str]) -> None:
        """A text of n words has n buckets and n - 1 of pairs, all within bounds."""
        found = buckets(_hashes(*words))
        assert len(found) == max(0, 2 * len(words) - 1)
        assert ((found >= 0) & (found < BUCKET_COUNT)).all()

    def test_the_order_of_a_pair_counts(self) -> None:
        """Two words swapped are the same words and another pair."""
        there, back = buckets(_hashes("dog", "man")), buckets(_hashes("man", "dog"))
        assert sorted(there[:2]) == sorted(back[:2])
        assert there[2] != back[2]

    def test_words_spread(self) -> None:
        """A thousand words share hardly a bucket."""
        words = [f"word{index}" for index in range(1000)]
        assert len(set(buckets(_hashes(*words))[:1000].tolist())) > 980

    @given(words=WORDS)
    def test_they_are_counted(self, words: list[str]) -> None:
        """Each distinct bucket is there once, with one more than the logarithm of how often it occurs."""
        found, counts = counted(_hashes(*words))
        expected, expected_counts = np.unique(buckets(_hashes(*words)), return_counts=True)
        assert found.tolist() == expected.tolist()
        assert counts.tolist() == pytest.approx((1.0 + np.log(expected_counts)).tolist())


class TestNgramTable:
    """The reading of one text."""

    def test_a_text_without_known_words_reads_as_the_offset(self) -> None:
        """What training has never seen tells nothing."""
        table = _table({}, categories=0, latents=2)
        for words in ((), ("new", "words")):
            assert table.read(_hashes(*words)).tolist() == [0.0, 1.0, 0.0, 0.0]

    def test_known_words_add_up_at_unit_length(self) -> None:
        """Two known words of one weight count 1 / sqrt(2) each; what is unknown counts nothing."""
        first, second, _ = buckets(_hashes("a", "b")).tolist()
        table = _table({first: [4, 0], second: [0, 8]}, categories=0, latents=2)
        expected = [0.5 * 4 / np.sqrt(2), 1.0 + 0.5 * 8 / np.sqrt(2), 0.0, 0.0]
        assert table.read(_hashes("a", "b")).tolist() == pytest.approx(expected)

    def test_repetition_counts_by_its_logarithm(self) -> None:
        """A word that stands four times beside one that stands once has 1 + log 4 of its weight."""
        first, second, _ = buckets(_hashes("a", "b")).tolist()
        table = _table({first: [2, 0], second: [0, 2]}, categories=0, latents=2)
        reading = table.read(_hashes(*"axayazab"))
        assert reading[0] / (reading[1] - 1.0) == pytest.approx(1.0 + np.log(4.0))

    @given(words=WORDS)
    def test_every_text_has_a_finite_reading(self, words: list[str]) -> None:
        """Any text gives one finite number per latent and reading and one per category, and the same ones again."""
        known = {int(bucket): [3, -5, 7, 1] for bucket in buckets(_hashes("a", "b", "a"))}
        table = _table(known, categories=2, latents=2)
        reading = table.read(_hashes(*words))
        assert reading.dtype == np.float32
        assert reading.shape == (6,)
        assert np.isfinite(reading).all()
        assert reading.tobytes() == table.read(_hashes(*words)).tobytes()

    def test_case_is_irrelevant(self) -> None:
        """A word is known whatever its case."""
        bucket = int(buckets(_hashes("prove"))[0])
        table = _table({bucket: [10]}, categories=0, latents=1)
        assert table.read(_hashes("PROVE"))[0] == pytest.approx(5.0)


class TestReadings:
    """From the regressions' outputs to latents."""

    def test_a_sure_category_gives_its_latents(self) -> None:
        """Membership of one category alone reads as the mean latents of that category."""
        latents = np.array([[1.0, -1.0], [5.0, 2.0]], dtype=np.float32)
        outputs = np.array([[0.25, 0.5, -0.1, 0.8]], dtype=np.float32)
        assert readings(outputs, latents).tolist() == [[0.25, 0.5, 5.0, 2.0, 0.0, 1.0]]

    def test_no_category_is_the_mean_of_all(self) -> None:
        """Where nothing speaks for any category, the reading by category is zero, the mean of all prompts, and so are the shares."""
        latents = np.array([[1.0], [5.0]], dtype=np.float32)
        assert readings(np.array([[0.25, -1.0, -2.0]], dtype=np.float32), latents).tolist() == [[0.25, 0.0, 0.0, 0.0]]

    def test_shares_are_by_the_square_and_seen_by_its_square(self) -> None:
        """Evidence of 0.2 and 0.4 counts 1 to 4 in the latents, and 1 to 16 in the shares that profiles see."""
        latents = np.array([[0.0], [5.0]], dtype=np.float32)
        reading = readings(np.array([[0.0, 0.2, 0.4]], dtype=np.float32), latents)[0]
        assert reading[1:].tolist() == pytest.approx([4.0, 1 / 17, 16 / 17])
