import numpy as np
import pytest
from datacomp.errors import DataError, UsageError
from datacomp.filters import parse, registry, run_filters
from datacomp.filters.clusters.hierarchical import even_shares, share_out, spread, taken
from datacomp.filters.clusters.kmeans import Clusters
from datacomp.pools.uids import UID_DTYPE, to_hex
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("sizes", "wanted", "authors"),
    [([5, 1, 9, 9], 12, [1, 3, 4, 4]), ([3, 3, 3], 7, [2, 2, 3]), ([0, 4, 2], 5, [0, 2, 3]),
     ([20, 1], 9, [1, 8])],
)  # fmt: skip
def test_shares_are_those_of_the_authors_code(sizes, wanted, authors):
    """Up to who gets the odd ones, which are drawn; 3,000 random cases were compared once."""
    assert sorted(even_shares(np.array(sizes), wanted, 0).tolist()) == authors


@given(st.lists(st.integers(0, 20), min_size=1, max_size=9), st.integers(0, 200), st.integers(0, 9))
def test_shares_are_as_even_as_can_be(sizes, wanted, seed):
    sizes = np.array(sizes)
    found = even_shares(sizes, wanted, seed)
    assert found.sum() == min(wanted, sizes.sum())
    assert ((found >= 0) & (found <= sizes)).all()
    less = found < sizes
    if less.any():
        assert found[less].max() - found[less].min() <= 1
        assert found.max() <= found[less].min() + 1


def test_sharing_out_by_hand():
    """Two top clusters get four each; the first has 1 + 6 samples below it, the second 3 + 3."""
    sizes = np.array([1, 6, 3, 3])
    parents = np.array([0, 0, 1, 1])
    assert share_out(sizes, [parents], 8, 0).tolist() == [1, 3, 2, 2]
    assert share_out(sizes, [], 4, 0).sum() == 4
    assert share_out(sizes, [parents], 13, 0).tolist() == sizes.tolist()


def test_the_first_of_each_cluster_are_taken():
    """By nearness to the centroid, of ties by uid; or drawn."""
    uids = np.zeros(6, UID_DTYPE)
    uids["f1"] = [5, 4, 3, 2, 1, 0]
    ids = np.array([0, 1, 1, 1, 0, 1])
    groups = Clusters(np.zeros((2, 1), np.float32), ids, np.float32([1, 1, 3, 1, 2, 2]))
    targets = np.array([1, 3])
    found = taken(uids, groups, targets, True, 0)
    assert np.flatnonzero(found).tolist() == [2, 3, 4, 5]
    drawn = taken(uids, groups, targets, False, 1)
    assert np.bincount(ids[drawn]).tolist() == [1, 3]
    turned = taken(uids[::-1], Clusters(groups.centroids, ids[::-1], ids), targets, False, 1)
    assert turned[::-1].tolist() == drawn.tolist()


def test_resampling_spreads_centroids():
    """Of 300 rows about one direction and one about each of three others, each gets a centroid."""
    rng = np.random.default_rng(0)
    crowd = np.eye(6)[0] + rng.standard_normal((300, 6)) * 0.25
    rows = np.concatenate([crowd, np.eye(6)[1:4]]).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    plain, _ = spread(rows, 6, 20, 0, 0, 3)
    spread_out, centroids = spread(rows, 6, 20, 0, 10, 3)
    assert centroids.shape == (6, 6)
    crowded = [len(set(ids[:300].tolist())) for ids in (plain, spread_out)]
    assert crowded[1] <= crowded[0]
    with pytest.raises(DataError, match=r"^7 clusters of 6: a level needs fewer than the last"):
        spread(rows[:6], 7, 2, 0, 0, 1)


def test_a_pool_is_balanced(features_of):
    """Of 90, 9 and 9 samples about three directions, the few have a larger part than before."""
    rng = np.random.default_rng(1)
    near = np.repeat([0, 1, 2], [90, 9, 9])
    rows = np.eye(8)[near] + rng.standard_normal((108, 8)) * 0.05
    rows = np.concatenate([rows, np.zeros((1, 8))])
    found = {}
    for text in ("", ",draw=closest", ",seed=5"):
        spec = parse(f"hierarchical:clusters=12/3,fraction=0.25,sample=1{text}")
        for order in (None, np.arange(109)[::-1]):
            pool = features_of(3, order=order, l14_img=rows)
            done = run_filters(pool, [spec])
            kept = [int(uid, 16) for uid in to_hex(done.uids)]
            assert found.setdefault(text, kept) == kept
        crowd, one, other = np.bincount(near[kept])
        assert crowd + one + other == 27
        assert crowd < 22  # which is its part of the pool
        assert min(one, other) > 2
        assert done.steps[0].reasons == {"no_features": 1, "not_drawn": 81}
    assert len(set(map(tuple, found.values()))) == 3


@pytest.mark.parametrize("clusters", ["", "a", "10/100", "10/10", "0", "10/", 7.5, "³"])
def test_levels_that_are_none(clusters):
    with pytest.raises(UsageError, match="clusters") as caught:
        registry.create("hierarchical", {"clusters": clusters})
    assert str(caught.value) == (
        f"filter hierarchical: parameter clusters is {clusters!r}, expected descending numbers "
        "such as 1000/100"
    )


def test_one_level_may_be_a_number(features_of):
    assert registry.create("hierarchical", {"clusters": 20}).clusters == "20"
