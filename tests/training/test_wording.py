"""Fitting the linear reading."""

import numpy as np
import pytest
from pointsman_server.quality.features import pieces_of
from pointsman_server.quality.ngrams import word_hash
from pointsman_server.training.wording import CATEGORY_SIZE_MIN, fit_wording, membership, ngram_counts
from scipy.sparse import csr_matrix

FILLER = ("one two three", "two three one", "three one two", "one three two")


def _hashes(text: str) -> np.ndarray:
    return np.array([word_hash(piece) for piece in pieces_of(text)], dtype=np.uint64)


def _counts(texts: list[str]) -> csr_matrix:
    return ngram_counts(map(_hashes, texts))


def _texts(word_of: dict[str, str], count: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Texts of each group that hold its word, their groups, and a latent that is 1 for the first group, -1 for the rest."""
    groups = np.array([group for group in word_of for _ in range(count)], dtype=object)
    texts = [f"{word_of[group]} {FILLER[index % 4]}" for index, group in enumerate(groups)]
    latent = np.where(groups == next(iter(word_of)), 1.0, -1.0)[:, np.newaxis]
    return texts, groups, latent


def test_the_word_that_tells_is_learned() -> None:
    """A text with the telling word reads as its group; by wording within the shrinkage, by category nearly in full."""
    texts, groups, latent = _texts({"maths": "prove", "history": "king"}, count=50)
    wording = fit_wording(_counts(texts), latent, membership(groups))
    maths, history = wording.read(_counts(["prove one", "the king one"]))
    assert maths[0] > 0.3
    assert history[0] < -0.3
    assert maths[1] == pytest.approx(50 / 60, abs=0.05)
    assert history[1] == pytest.approx(-50 / 60, abs=0.05)


def test_service_reads_as_training_does() -> None:
    """The quantised table gives one text what the fitted reading gives many, up to the steps of its columns."""
    texts, groups, latent = _texts({"maths": "prove", "history": "king"}, count=50)
    wording = fit_wording(_counts(texts), latent, membership(groups))
    table = wording.table()
    for text in ("prove", "a king one two", "nothing of this", ""):
        expected = wording.read(_counts([text]))[0]
        assert table.read(_hashes(text)).tolist() == pytest.approx(expected.tolist(), abs=0.02)


def test_one_group_is_no_category() -> None:
    """With one group alone there is nothing to tell apart, and the reading by category is zero."""
    texts, groups, latent = _texts({"maths": "prove"}, count=50)
    wording = fit_wording(_counts(texts), latent, membership(groups))
    assert wording.category_latents.shape == (0, 1)
    assert wording.read(_counts(["prove"]))[0, 1] == 0.0


def test_small_groups_are_not_told_apart() -> None:
    """A group of fewer prompts than it takes is no category; the others are."""
    texts, groups, latent = _texts({"maths": "prove", "history": "king", "rare": "haiku"}, count=40)
    kept = np.concatenate((np.arange(80), np.arange(80, 80 + CATEGORY_SIZE_MIN - 1)))
    wording = fit_wording(_counts([texts[row] for row in kept]), latent[kept], membership(groups[kept]))
    assert wording.category_latents.shape == (2, 1)


def test_the_regression_is_that_of_the_normal_equations() -> None:
    """Conjugate gradients find what solving the ridge regression outright does."""
    from pointsman_server.training.wording import LATENT_RIDGE

    rng = np.random.default_rng(5)
    words = [f"w{index}" for index in range(30)]
    texts = [" ".join(rng.choice(words, size=6)) for _ in range(120)]
    latent = rng.normal(size=(120, 2))
    wording = fit_wording(_counts(texts), latent, membership(np.array(["g"] * 120, dtype=object)))
    counts = _counts(texts).toarray() * wording.weight
    vectors = counts / np.linalg.norm(counts, axis=1, keepdims=True)
    kernel = vectors @ vectors.T + LATENT_RIDGE * np.eye(120)
    expected = vectors @ (vectors.T @ np.linalg.solve(kernel, latent - latent.mean(axis=0))) + latent.mean(axis=0)
    read = wording.read(_counts(texts))[:, :2]
    assert np.abs(read - expected).max() < 0.01
