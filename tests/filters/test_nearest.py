import numpy as np
import pytest
from datacomp.errors import UsageError
from datacomp.filters import nearest
from datacomp.filters.nearest import Nearest


def unit(rows, seed, dimension=32):
    vectors = np.random.default_rng(seed).standard_normal((rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def by_definition(vectors, centroids):
    return (vectors.astype(np.float64) @ centroids.astype(np.float64).T).argmax(1)


@pytest.mark.parametrize("block", [1, 7, 64, 4096])
@pytest.mark.parametrize("count", [1, 2, 200])
def test_the_nearest_centroid_is_found_whatever_the_blocks(monkeypatch, block, count):
    monkeypatch.setattr(nearest, "_ROWS", block)
    vectors, centroids = unit(50, 1), unit(count, 2)
    found = Nearest(centroids, "cpu").of(vectors.astype(np.float16))
    assert found.tolist() == by_definition(vectors.astype(np.float16), centroids).tolist()


def test_of_equal_centroids_the_first_is_taken():
    centroids = unit(6, 3)
    centroids[4] = centroids[2]
    found = Nearest(np.concatenate([centroids, centroids]), "cpu").of(centroids)
    assert found.tolist() == [0, 1, 2, 3, 2, 5]


def test_what_float32_cannot_tell_apart_is_told_in_float64():
    """Two centroids differ by less than the products' rounding; float32 alone would guess."""
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((300, 768)).astype(np.float32)
    base = rng.standard_normal(768).astype(np.float32)
    near = np.nextafter(base, np.float32(9), where=rng.random(768) < 0.05, out=base.copy())
    centroids = np.stack([base, near, -base])
    exact = by_definition(vectors, centroids)
    assert len(set(exact.tolist())) == 3
    assert Nearest(centroids, "cpu").of(vectors).tolist() == exact.tolist()
    # The same with torch, which is what a GPU uses.
    import torch

    ids, gap = nearest.best_two_with_torch(vectors, torch.from_numpy(centroids))
    sure = gap > 1e-2
    assert ids[sure].tolist() == exact[sure].tolist()
    numpy_ids, numpy_gap = nearest._best_two(vectors, centroids)
    assert numpy_ids[sure].tolist() == ids[sure].tolist()
    assert np.allclose(numpy_gap, gap, atol=1e-3)


def test_no_vectors_and_an_unknown_device():
    assert Nearest(unit(3, 5), "cpu").of(np.empty((0, 32), np.float16)).tolist() == []
    with pytest.raises(UsageError, match=r"^unknown device 'tpu'"):
        Nearest(unit(3, 5), "tpu")
