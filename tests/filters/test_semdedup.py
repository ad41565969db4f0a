import numpy as np
import pytest
from datacomp.errors import UsageError
from datacomp.filters import registry
from datacomp.filters.clusters import semdedup as module
from datacomp.filters.clusters.semdedup import SemDeDupScorer

ROWS = np.float32([[2, 1, 0], [1, 2, 0], [2, 1, 0.2], [0, 1, 3],
                   [0, 1, 2.9], [1, 1, 1], [3, -1, 0], [3, -1.1, 0.1]])  # fmt: skip


def scorer(clusters=1, keep="hard", seed=0):
    return SemDeDupScorer(
        features="l14_img", clusters=clusters, iterations=5, seed=seed, keep=keep, device="cpu"
    )


def test_three_images_by_hand(features_of, set_scores):
    """The mean points up; the farthest from it comes first, and 2 is like 0 to cosine 0.96."""
    rows = np.float32([[0, 1], [1, 0], [0.28, 0.96]])
    pool = features_of(l14_img=rows)
    # In order: 1 (cosine with the centroid .55), 0 (.84), 2 (.96).
    assert set_scores(pool, scorer()) == pytest.approx([0, 0, 0.96], abs=1e-6)
    # From the nearest: 2, 0, 1.
    assert set_scores(pool, scorer(keep="easy")) == pytest.approx([0.96, 0.28, 0], abs=1e-6)


@pytest.mark.parametrize("block", [1, 3, 4096])
def test_it_agrees_with_the_authors_code(monkeypatch, features_of, set_scores, block):
    """Which largest cosines the authors' function gives for these rows, farthest first."""
    monkeypatch.setattr(module, "_ROWS", block)
    authors = [0.8, 0.291575, 0.996024, 0.0, 0.999947, 0.822951, 0.99907, 0.0]
    assert set_scores(features_of(l14_img=ROWS), scorer()) == pytest.approx(authors, abs=2e-6)


def test_only_within_clusters(features_of, set_scores):
    rows = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)
    found = set_scores(features_of(l14_img=rows), scorer(4))
    assert sorted(found) == pytest.approx([0] * 4 + [1] * 16)
    # Of copies, that of the smallest uid is kept.
    assert [i for i, value in enumerate(found) if value == 0] == [0, 5, 10, 15]


def test_neither_files_nor_order_matter(features_of, set_scores):
    rows = np.random.default_rng(2).standard_normal((60, 4)).astype(np.float16)
    for keep in ("hard", "easy", "random"):
        found = set_scores(features_of(1, l14_img=rows), scorer(3, keep))
        turned = features_of(3, order=np.arange(60)[::-1], l14_img=rows)
        assert set_scores(turned, scorer(3, keep)) == pytest.approx(found, abs=1e-6)
    assert set_scores(turned, scorer(3, "random", 1)) != found


def test_rows_without_length_have_no_score(features_of, set_scores):
    rows = np.concatenate([ROWS, np.zeros((1, 3)), np.full((1, 3), np.nan)])
    found = set_scores(features_of(l14_img=rows), scorer())
    assert found[8:] == [None, None]
    assert found[:8] == pytest.approx(set_scores(features_of(l14_img=ROWS), scorer()), abs=1e-6)
    assert set_scores(features_of(l14_img=np.zeros((2, 3), np.float32)), scorer()) == [None] * 2


@pytest.mark.parametrize(
    "wrong", [{"epsilon": 0}, {"clusters": 0}, {"keep": "best"}, {"fraction": 2}, {"seed": -1}]
)
def test_wrong_parameters(wrong):
    with pytest.raises(UsageError, match=r"^filter semdedup: parameter "):
        registry.create("semdedup", wrong)
