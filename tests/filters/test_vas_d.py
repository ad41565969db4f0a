import numpy as np
import pytest
from datacomp.errors import UsageError
from datacomp.filters import registry
from datacomp.filters.similarity.vas_d import VasDScorer

# Three point one way, two another, one a third: the first way has most of the variance.
ROWS = np.float32([[1, 0, 0], [0, 2, 0], [1, 0, 0], [0, 0, 3], [0, 1, 0], [2, 0, 0]])


def test_the_rarest_direction_drops_first(features_of, set_scores):
    """S is diag(3, 2, 1)/6, then diag(3, 2, 0)/5 and so on: scores are its entries; 1, 4 tie."""
    pool = features_of(l14_img=ROWS)
    assert set_scores(pool, VasDScorer("l14_img", 0.5, 3)) == [3, 2, 3, 0, 1, 3]
    # All at once: the first score decides, and of ties the smaller uid stays.
    assert set_scores(pool, VasDScorer("l14_img", 0.7, 1)) == [1, 1, 1, 0, 0, 1]
    assert set_scores(pool, VasDScorer("l14_img", 1.0, 4)) == [4] * 6
    # More rounds than samples: one a round, until as many are left as shall stay.
    assert set_scores(pool, VasDScorer("l14_img", 0.1, 9)) == [9, 2, 4, 0, 1, 3]


def by_definition(rows, fraction, rounds):
    """The paper's loop, on everything at once."""
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    left, target = np.arange(len(rows)), int(len(rows) * fraction)
    step, lasted = -(-(len(rows) - target) // rounds), np.full(len(rows), rounds)
    for number in range(rounds):
        here = rows[left]
        scores = np.einsum("nd,de,ne->n", here, here.T @ here / len(here), here)
        order = np.argsort(-scores, kind="stable")
        keep = max(target, len(left) - step)
        lasted[left[order[keep:]]] = number
        left = np.sort(left[order[:keep]])
    return lasted.tolist()


@pytest.mark.parametrize("rounds", [1, 4, 30])
def test_it_is_the_papers_loop(features_of, set_scores, rounds):
    rows = np.random.default_rng(3).standard_normal((40, 5))
    expected = by_definition(rows, 0.35, rounds)
    for order in (np.arange(40), np.arange(40)[::-1]):
        pool = features_of(3, order=order, l14_img=rows)
        assert set_scores(pool, VasDScorer("l14_img", 0.35, rounds)) == expected


def test_rows_without_length_have_no_score(features_of, set_scores):
    rows = np.concatenate([ROWS, np.zeros((1, 3)), np.full((1, 3), np.inf)])
    found = set_scores(features_of(l14_img=rows), VasDScorer("l14_img", 0.5, 3))
    assert found == [3, 2, 3, 0, 1, 3, None, None]


@pytest.mark.parametrize("wrong", [{"fraction": 0}, {"rounds": 0}, {"fraction": 1.1}])
def test_wrong_parameters(wrong):
    with pytest.raises(UsageError, match=r"^filter vas_d: parameter "):
        registry.create("vas_d", wrong)
