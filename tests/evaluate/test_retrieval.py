import numpy as np
import pytest
from datacomp.evaluate import retrieval
from datacomp.evaluate.retrieval import rank_pairs, summarise
from hypothesis import given
from hypothesis import strategies as st


def test_several_captions_by_hand():
    images = np.eye(3, dtype=np.float32)
    owner = np.array([0, 0, 1, 2])
    texts = np.array(
        [
            [0.9, 0.1, 0.0],  # of image 0, finds it
            [0.0, 0.8, 0.6],  # of image 0, which scores last
            [0.1, 0.7, 0.7],  # of image 1, tied with image 2: the lower index is first
            [0.2, 0.9, 0.5],  # of image 2, which scores second
        ],
        np.float32,
    )
    ranks = rank_pairs(images, texts, owner)
    assert ranks.image.tolist() == [0, 2, 0, 1]
    # image 0: its first caption scores best; image 1: texts 3 and 1 are better than 2;
    # image 2: text 2 (0.7) and text 1 (0.6) are better than 3 (0.5)
    assert ranks.text.tolist() == [0, 2, 2]
    metrics = summarise(ranks, owner, 0).metrics
    assert metrics["image_retrieval_recall@1"] == 2 / 4
    assert metrics["text_retrieval_recall@1"] == 1 / 3
    assert metrics["mean_recall@1"] == pytest.approx((2 / 4 + 1 / 3) / 2)
    assert metrics["image_retrieval_recall@5"] == metrics["text_retrieval_recall@10"] == 1.0


def test_a_collapsed_model_is_at_chance():
    images, texts = np.ones((20, 4), np.float32), np.ones((40, 4), np.float32)
    metrics = summarise(rank_pairs(images, texts, np.repeat(np.arange(20), 2)),
                        np.repeat(np.arange(20), 2), 0).metrics  # fmt: skip
    assert metrics["image_retrieval_recall@1"] == 1 / 20
    assert metrics["text_retrieval_recall@1"] == 1 / 20


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_recall_is_at_least_one_match_among_the_first_k(seed, count):
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(count), rng.integers(1, 4, count))
    images = rng.integers(-2, 3, (count, 3)).astype(np.float32)
    texts = rng.integers(-2, 3, (len(owner), 3)).astype(np.float32)
    ranks = rank_pairs(images, texts, owner)
    scores = texts @ images.T
    for k in (1, 5, 10):
        first = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        found = (first == owner[:, None]).any(axis=1)
        assert ((ranks.image < k) == found).all()
        first = np.argsort(-scores.T, axis=1, kind="stable")[:, :k]
        found = (owner[first] == np.arange(count)[:, None]).any(axis=1)
        assert ((ranks.text < k) == found).all()


def test_blocks_of_rows_do_not_matter(monkeypatch):
    rng = np.random.default_rng(3)
    owner = np.repeat(np.arange(30), 2)
    images, texts = rng.integers(-4, 5, (30, 8)), rng.integers(-4, 5, (60, 8))
    whole = rank_pairs(images, texts, owner)
    monkeypatch.setattr(retrieval, "ROWS_AT_ONCE", 7)
    parts = rank_pairs(images, texts, owner)
    assert (whole.image == parts.image).all()
    assert (whole.text == parts.text).all()
