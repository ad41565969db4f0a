import math

import numpy as np
import pytest
from datacomp.errors import UsageError
from datacomp.filters import registry
from datacomp.filters.similarity import neg_clip_loss as module
from datacomp.filters.similarity.neg_clip_loss import NegClipLossScorer, neg_clip_loss

IMAGES = np.float32([[1, 0], [0, 1], [0.6, 0.8]])
CAPTIONS = np.float32([[1, 0], [0.8, 0.6], [0, 1]])


def by_hand(temperature):
    """Similarities are (1, .8, 0), (0, .6, 1), (.6, .96, .8): the loss by its definition."""
    s = [[1, 0.8, 0], [0, 0.6, 1], [0.6, 0.96, 0.8]]
    found = []
    for i in range(3):
        row = math.log(sum(math.exp(s[i][j] / temperature) for j in range(3)))
        column = math.log(sum(math.exp(s[j][i] / temperature) for j in range(3)))
        found.append(s[i][i] - temperature / 2 * (row + column))
    return found


def scorer(size=8, repeats=1, seed=0, temperature=0.5):
    return NegClipLossScorer("l14", temperature, size, repeats, seed, "cpu")


@pytest.mark.parametrize("temperature", [0.5, 0.01])
@pytest.mark.parametrize("rows", [1, 2, 1024])
def test_the_loss_of_three_pairs(monkeypatch, temperature, rows):
    monkeypatch.setattr(module, "_ROWS", rows)
    found = neg_clip_loss(IMAGES, CAPTIONS, temperature)
    assert found == pytest.approx(by_hand(temperature), abs=1e-6)
    # Worked once with pencil and paper: of pair 0 at 0.5, e^2, e^1.6, e^0 and e^2, e^0, e^1.2.
    if temperature == 0.5:
        row, column = 7.3890561 + 4.9530324 + 1, 7.3890561 + 1 + 3.3201169
        assert found[0] == pytest.approx(1 - 0.25 * (math.log(row) + math.log(column)), abs=1e-6)


def test_it_agrees_with_the_authors_code():
    """Its values at temperature 0.07, on pairs of whole numbers at length one."""
    images = np.float32([[2, -1, 0], [1, 3, 1], [0, -2, 1], [1, 1, -1]])
    captions = np.float32([[1, -1, 1], [2, 2, 1], [-1, -2, 0], [3, 1, -2]])
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    captions /= np.linalg.norm(captions, axis=1, keepdims=True)
    authors = [-0.026983, -0.00034, -0.018483, -0.000567]
    assert neg_clip_loss(images, captions, 0.07) == pytest.approx(authors, abs=2e-6)


def test_a_low_temperature_does_not_overflow():
    same = np.float32([[1, 0], [-1, 0]])
    found = neg_clip_loss(same, same, 1e-4)
    assert found == pytest.approx([0, 0], abs=1e-6)


def test_on_torch_it_is_the_same():
    torch = pytest.importorskip("torch")
    assert torch is not None
    compare = module._Torch(CAPTIONS, "cpu")
    for ours, theirs in zip(
        module._Numpy(CAPTIONS).log_sums(IMAGES, 0.5), compare.log_sums(IMAGES, 0.5), strict=True
    ):
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_a_pool_is_scored_whatever_the_files(features_of, set_scores):
    for files in (1, 3):
        pool = features_of(files, l14_img=IMAGES, l14_txt=CAPTIONS * 2)
        assert set_scores(pool, scorer()) == pytest.approx(by_hand(0.5), abs=1e-6)


def test_batches_are_drawn_by_uid_and_are_of_equal_size(features_of, set_scores):
    rng = np.random.default_rng(1)
    images, captions = rng.standard_normal((2, 10, 4)).astype(np.float32)
    there = features_of(2, l14_img=images, l14_txt=captions)
    turned = features_of(3, l14_img=images, l14_txt=captions, order=np.arange(10)[::-1])
    first = set_scores(there, scorer(size=4, repeats=3))
    assert first == set_scores(turned, scorer(size=4, repeats=3))
    assert first != set_scores(there, scorer(size=4, repeats=3, seed=1))
    assert first != set_scores(there, scorer(size=4, repeats=2))
    # In one batch there is nothing to draw.
    assert set_scores(there, scorer(10, 1)) == set_scores(turned, scorer(10, 5, seed=3))


def test_pairs_without_usable_features_have_no_score(features_of, set_scores):
    images = np.concatenate([IMAGES, [[np.nan, 1]], [[0, 0]]]).astype(np.float32)
    captions = np.concatenate([CAPTIONS, [[1, 0]], [[1, 0]]]).astype(np.float32)
    found = set_scores(features_of(l14_img=images, l14_txt=captions), scorer())
    assert found[3:] == [None, None]
    assert found[:3] == pytest.approx(by_hand(0.5), abs=1e-6)


def test_no_pair_at_all(features_of, set_scores):
    nothing = np.zeros((3, 2), np.float32)
    assert set_scores(features_of(l14_img=nothing, l14_txt=nothing), scorer()) == [None] * 3


@pytest.mark.parametrize(
    "wrong", [{"fraction": 0}, {"temperature": 0}, {"repeats": 0}, {"batch_size": 1},
              {"fraction": 0.2, "threshold": 0.1}, {"threshold": float("nan")}],
)  # fmt: skip
def test_wrong_parameters(wrong):
    with pytest.raises(UsageError, match=r"^filter neg_clip_loss: "):
        registry.create("neg_clip_loss", wrong)
