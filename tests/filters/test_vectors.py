"""What filters on features are built of: unit vectors, draws, rows on disk, clusters, ranks."""

import numpy as np
import pytest
from datacomp.errors import DataError
from datacomp.filters.clusters import kmeans
from datacomp.filters.spool import Spool
from datacomp.filters.vectors import draw, uniform, unit
from datacomp.pools.uids import from_halves
from hypothesis import given
from hypothesis import strategies as st


def uids_of(rows):
    return from_halves(np.zeros(rows, np.uint64), np.arange(rows, dtype=np.uint64))


def spooled(rows):
    spool = Spool(len(rows), rows.shape[1], rows.dtype)
    spool.write(np.arange(len(rows)), rows)
    return spool


def test_rows_of_any_size_come_to_length_one():
    rows = np.array([[3, 4], [0, 0], [1e300, 1e300], [1e-320, 0], [np.nan, 1], [np.inf, 1]])
    found, usable = unit(rows)
    assert usable.tolist() == [True, False, True, True, False, False]
    assert found.dtype == np.float32
    root = np.float32(0.5**0.5)
    assert found.tolist() == [
        [np.float32(0.6), np.float32(0.8)], [0, 0], [root, root], [1, 0], [0, 0], [0, 0]
    ]  # fmt: skip
    assert unit(np.empty((0, 3), np.float16))[0].shape == (0, 3)


def test_draws_are_known_and_even():
    uids = from_halves(np.arange(20_000, dtype=np.uint64), np.full(20_000, 7, np.uint64))
    numbers = uniform(uids, 0)
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert abs(np.histogram(numbers, 20, (0, 1))[0] - 1000).max() < 150
    assert len(np.unique(draw(uids, 0))) == 20_000
    for other in (draw(uids, 1), draw(uids, 0, 1)):
        assert not np.intersect1d(other, draw(uids, 0)).size
    # They are part of what subsets depend on, so they never change.
    assert draw(uids[:2], 0).tolist() == [15642227136566096148, 15221269846667281747]


@given(st.lists(st.integers(0, 30), unique=True, max_size=30), st.lists(st.integers(0, 30)))
def test_rows_on_disk(places, wanted):
    there = np.arange(62, dtype=np.float16).reshape(31, 2)
    with Spool(31, 2, np.dtype(np.float16)) as spool:
        spool.write(np.array(places, np.int64), there[places])
        expected = np.zeros_like(there)
        expected[places] = there[places]
        assert np.array_equal(spool.take(np.array(wanted, np.int64)), expected[wanted])
        assert np.array_equal(spool.stretch(3, 20), expected[3:20])


def test_rows_outside_are_refused():
    with Spool(3, 2, np.dtype(np.float32)) as spool:
        with pytest.raises(IndexError):
            spool.write(np.array([3]), np.zeros((1, 2), np.float32))
        with pytest.raises(DataError, match="has become shorter"):
            spool.stretch(2, 5)


def blobs(rows=600, seed=1):
    """Return rows near four directions, 12 dimensions, and which of them each is near."""
    rng = np.random.default_rng(seed)
    centres = np.eye(12, dtype=np.float32)[:4]
    near = rng.integers(0, 4, rows)
    return (centres[near] + rng.standard_normal((rows, 12)) * 0.1).astype(np.float32), near


def test_clusters_are_found():
    rows, near = blobs()
    with spooled(rows) as spool:
        found = kmeans.cluster(uids_of(600), spool, 4, 20, 0, "cpu")
    pairs = set(zip(near.tolist(), found.ids.tolist(), strict=True))
    assert len(pairs) == 4
    assert found.sizes().tolist() == [(found.ids == i).sum() for i in range(4)]
    cosines = np.einsum("nd,nd->n", unit(rows)[0], found.centroids[found.ids])
    assert found.similarity == pytest.approx(cosines, abs=1e-6)
    assert (found.similarity > 0.8).all()
    # Each row is with its nearest centroid, and each centroid is the mean of its rows.
    assert (unit(rows)[0] @ found.centroids.T).argmax(1).tolist() == found.ids.tolist()
    for number, centroid in enumerate(found.centroids):
        mean = unit(rows)[0][found.ids == number].mean(axis=0)
        assert centroid == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_clusters_depend_neither_on_threads_nor_on_the_order_of_rows():
    import faiss

    rows, _ = blobs(seed=2)
    uids = uids_of(600)
    order = np.random.default_rng(5).permutation(600)
    threads = faiss.omp_get_max_threads()
    found = []
    try:
        for number, places in ((1, slice(None)), (2, slice(None)), (2, order)):
            faiss.omp_set_num_threads(number)
            with spooled(rows[places]) as spool:
                found.append(kmeans.cluster(uids[places], spool, 9, 5, 3, "cpu"))
    finally:
        faiss.omp_set_num_threads(threads)
    first, second, turned = found
    assert first.centroids.tobytes() == second.centroids.tobytes() == turned.centroids.tobytes()
    assert np.array_equal(first.ids, second.ids)
    assert np.array_equal(first.ids[order], turned.ids)


def test_the_sample_is_bounded():
    assert len(kmeans._sample(uids_of(300_000), 1000, 0)) == 131_072
    assert len(kmeans._sample(uids_of(300_000), 5000, 0)) == 39 * 5000
    assert len(kmeans._sample(uids_of(300_000), 10, 0)) == 2560
    assert len(kmeans._sample(uids_of(100), 10, 0)) == 100


def test_more_clusters_than_samples():
    with (
        spooled(np.ones((3, 2), np.float32)) as spool,
        pytest.raises(
            DataError, match=r"^4 clusters of 3 samples with features: ask for fewer clusters"
        ),
    ):
        kmeans.cluster(uids_of(3), spool, 4, 2, 0, "cpu")
