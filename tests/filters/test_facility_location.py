import itertools

import numpy as np
import pytest
from datacomp.filters import parse, run_filters
from datacomp.filters.clusters import facility_location as module
from datacomp.filters.clusters.facility_location import choose
from datacomp.pools.uids import to_hex

# Three near one direction, two near another, one alone: cosines by hand are .8, .6 and 0.
ROWS = np.float32([[0.8, 0.6, 0, 0], [1, 0, 0, 0], [0.8, -0.6, 0, 0],
                   [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # fmt: skip


def test_who_stands_for_most_comes_first():
    """1 covers 2.6; then 3 or 4 cover 2, 5 covers 1; then 0 and 2 add .2 each, 4 adds nothing."""
    assert choose(ROWS, 6).tolist() == [1, 3, 5, 0, 2, 4]
    assert choose(ROWS, 0).tolist() == []
    opposite = np.float32([[1, 0], [-1, 0]])
    assert choose(opposite, 2).tolist() == [0, 1]


def worth(likeness, chosen):
    return likeness[:, list(chosen)].max(axis=1).sum()


@pytest.mark.parametrize("seed", range(5))
def test_each_step_is_the_best_one_and_the_whole_near_the_best(seed):
    rows = np.random.default_rng(seed).standard_normal((9, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    likeness = np.maximum(rows @ rows.T, 0)
    found = choose(rows, 4).tolist()
    for n in range(4):
        best = max(worth(likeness, [*found[:n], row]) for row in range(9))
        assert worth(likeness, found[: n + 1]) == pytest.approx(best, abs=1e-5)
    optimum = max(worth(likeness, some) for some in itertools.combinations(range(9), 4))
    assert worth(likeness, found) >= (1 - 1 / np.e) * optimum


@pytest.mark.parametrize("most", [2, 4096])
def test_a_pool(monkeypatch, features_of, most):
    monkeypatch.setattr(module, "_MOST", most)
    rows = np.concatenate([ROWS, np.zeros((1, 4))])
    kept = set()
    for order in (None, np.arange(7)[::-1]):
        pool = features_of(2, order=order, l14_img=rows)
        found = run_filters(pool, [parse("facility_location:clusters=1,fraction=0.5")])
        assert found.steps[0].reasons == {"no_features": 1, "stood_for": 3}
        kept.add(tuple(int(uid, 16) for uid in to_hex(found.uids)))
    assert len(kept) == 1
    if most > 6:
        ((first, *rest),) = kept
        assert first == 1
        assert rest in ([3, 5], [4, 5])
