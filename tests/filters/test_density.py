import math

import numpy as np
import pytest
from datacomp.errors import DataError
from datacomp.filters import parse, run_filters
from datacomp.filters.clusters.density import complexity, quotas, spread
from datacomp.filters.clusters.kmeans import Clusters
from datacomp.pools.uids import to_hex
from hypothesis import given
from hypothesis import strategies as st


def test_complexity_by_hand():
    """Distances to centroids are .1 and .3 in the mean, of the centroids 1 and 1."""
    groups = Clusters(
        np.eye(2, dtype=np.float32), np.array([0, 0, 1, 1]), np.float32([0.8, 1, 0.6, 0.8])
    )
    assert complexity(groups.centroids, spread(groups)) == pytest.approx([0.1, 0.3], abs=1e-6)
    # The third centroid lies between; its cluster is empty and gets the mean of the others.
    root = 0.5**0.5
    three = np.float32([[1, 0], [0, 1], [root, root]])
    found = complexity(three, spread(Clusters(three, groups.ids, groups.similarity)))
    apart = ((1 - 0) + (1 - root)) / 2
    assert found == pytest.approx([0.1 * apart, 0.3 * apart, 0.2 * apart], abs=1e-6)
    one = Clusters(three[:1], np.array([0, 0]), np.float32([0.5, 1]))
    assert complexity(one.centroids, spread(one)) == pytest.approx([0.25])


def test_only_the_nearest_centroids_count():
    rows = np.random.default_rng(1).standard_normal((30, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    groups = Clusters(rows.astype(np.float32), np.arange(30), np.zeros(30, np.float32))
    expected = [1 - np.sort(np.delete(rows @ row, i))[-20:].mean() for i, row in enumerate(rows)]
    assert complexity(groups.centroids, spread(groups)) == pytest.approx(expected, abs=1e-6)


def test_it_agrees_with_the_authors_code():
    """What their functions for distances of centroids, and for shares, give: run once.

    Theirs rounds each share by itself: they add up to 71 where 70 were asked for.
    """
    rows = np.random.default_rng(7).standard_normal((25, 6)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    groups = Clusters(rows, np.arange(25), np.zeros(25, np.float32))
    authors = [0.776485, 0.784621, 1.016232, 0.872533]
    assert complexity(rows, spread(groups))[:4] == pytest.approx(authors, abs=2e-6)
    values = np.array([0.12, 0.3, 0.05, 0.22, 0.41, 0.18])
    found = quotas(values, np.array([40, 12, 90, 25, 60, 8]), 70, 0.1)
    assert found.sum() == 70
    assert np.abs(found - [3, 12, 2, 7, 42, 5]).tolist() == [0, 0, 1, 0, 0, 0]


def test_quotas_by_hand():
    """Shares of e^0 : e^1 are .269 and .731 of ten; what the second lacks goes to the first."""
    share = 10 * math.e / (1 + math.e)
    assert share == pytest.approx(7.31, abs=0.01)
    values = np.array([0.0, 0.1])
    assert quotas(values, np.array([50, 50]), 10, 0.1).tolist() == [3, 7]
    assert quotas(values, np.array([50, 4]), 10, 0.1).tolist() == [6, 4]
    assert quotas(values, np.array([50, 50]), 10, 0.001).tolist() == [1, 9]  # one at least
    assert quotas(values, np.array([50, 50]), 10, 1e9).tolist() == [5, 5]
    assert quotas(values, np.array([3, 4]), 7, 0.1).tolist() == [3, 4]
    assert quotas(np.array([0.0, 0.1, 0.3]), np.array([9, 9, 9]), 1, 0.1).tolist() == [0, 0, 1]
    with pytest.raises(DataError, match=r"^9 of 8 samples cannot be kept"):
        quotas(values, np.array([4, 4]), 9, 0.1)


@given(st.data())
def test_quotas_solve_the_quadratic_programme(data):
    """What the paper's solver finds: shares as near as can be, seen by its conditions."""
    sizes = np.array(data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=8)))
    values = np.array(
        data.draw(st.lists(st.floats(0, 1), min_size=len(sizes), max_size=len(sizes)))
    )
    if not sizes.sum():
        return
    wanted = data.draw(st.integers(1, int(sizes.sum())))
    found = quotas(values, sizes, wanted, 0.2)
    assert found.sum() == wanted
    assert (found <= sizes).all()
    least = np.minimum(sizes, 1 if wanted >= (sizes > 0).sum() else 0)
    assert (found >= least).all()
    powers = np.exp(values / 0.2)
    shift = found - powers / powers.sum() * wanted
    free = (found > least) & (found < sizes)
    # Whatever is free is moved by the same amount, up to rounding; what is bound, not beyond it.
    if free.any():
        assert shift[free].max() - shift[free].min() <= 2.001
        assert (
            shift[(found == sizes) & ~free & (sizes > least)] <= shift[free].max() + 2.001
        ).all()
        assert (shift[(found == least) & (sizes > least)] >= shift[free].min() - 2.001).all()


def test_a_pool_is_pruned(features_of):
    """Of eight alike and eight spread, the spread ones keep more, the least typical first."""
    rng = np.random.default_rng(3)
    tight = np.eye(5)[0] + rng.standard_normal((8, 5)) * 0.01
    wide = np.eye(5)[4] + rng.standard_normal((8, 5)) * 0.4
    rows = np.concatenate([tight, wide, np.zeros((1, 5))])
    for order in (None, np.arange(17)[::-1]):
        pool = features_of(2, order=order, l14_img=rows)
        found = run_filters(pool, [parse("density:clusters=2,fraction=0.5,temperature=0.05")])
        kept = [int(uid, 16) for uid in to_hex(found.uids)]
        assert len(kept) == 8
        assert sum(uid >= 8 for uid in kept) >= 6
        assert found.steps[0].reasons == {"no_features": 1, "dense": 8}
        mean = rows[:8] / np.linalg.norm(rows[:8], axis=1, keepdims=True)
        cosines = mean @ mean.sum(0)
        inside = [uid for uid in kept if uid < 8]
        assert inside == sorted(np.argsort(cosines)[: len(inside)].tolist())
