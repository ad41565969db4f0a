"""Clusters of unit vectors by k-means on cosines, in bounded memory.

Centroids are found with faiss on a sample of the vectors, drawn by uid; then each vector goes to
the nearest centroid, which is told exactly, so that neither threads nor the order of files change
anything. In memory are the sample (131,072 vectors; 39 a cluster where that is more) and the
centroids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, MissingError
from ...pools.uids import UidArray
from ...progress import Progress, say
from ..nearest import Nearest
from ..spool import Spool
from ..vectors import Floats, draw, unit

NEEDS: Mapping[str, str] = {"faiss": "clusters"}
"""What a filter needs whose centroids are found here."""

_SAMPLE = 131_072
_PER_CLUSTER, _LEAST_PER_CLUSTER = 256, 39
"""How many vectors a cluster are used, and needed, to find centroids: faiss's own numbers."""

_ROWS = 4096


@dataclass(frozen=True)
class Clusters:
    """Centroids (k, d) at length one, the cluster of each vector (n,), its cosine with it (n,)."""

    centroids: Floats
    ids: NDArray[np.int64]
    similarity: Floats

    def sizes(self) -> NDArray[np.int64]:
        """Return how many vectors each cluster has, shape (k,)."""
        return np.bincount(self.ids, minlength=len(self.centroids))


def cluster(
    uids: UidArray, spool: Spool, count: int | None, iterations: int, seed: int,
    device: str = "auto",
) -> Clusters:  # fmt: skip
    """Group the rows of a spool into ``count`` clusters, by default the root of their number.

    Raises DataError where there are fewer rows than clusters.
    """
    wanted = clusters_of(len(uids), count)
    if wanted > len(uids):
        raise DataError(
            f"{wanted:,} clusters of {len(uids):,} samples with features: ask for fewer clusters"
        )
    chosen = _sample(uids, wanted, seed)
    say(f"clustering {len(uids):,} samples: {wanted:,} clusters of {len(chosen):,}", 1)
    rows = np.empty((len(chosen), spool.dimension), np.float32)
    for start in range(0, len(chosen), _ROWS):
        rows[start : start + _ROWS], _ = unit(spool.take(chosen[start : start + _ROWS]))
    return assign(spool, train(rows, wanted, iterations, seed), device)


def _sample(uids: UidArray, clusters: int, seed: int) -> NDArray[np.int64]:
    """Return the places of the vectors to find centroids with, in an order drawn by uid."""
    return by_draw(uids, seed)[: sample_size(clusters)]


def clusters_of(rows: int, count: int | None) -> int:
    """Return how many clusters so many vectors are to have."""
    return max(1, round(rows**0.5)) if count is None else count


def sample_size(clusters: int) -> int:
    """Return of how many vectors, if there are so many, so many centroids are found."""
    return max(_LEAST_PER_CLUSTER * clusters, min(_PER_CLUSTER * clusters, _SAMPLE))


def by_draw(uids: UidArray, seed: int, what: int = 0) -> NDArray[np.int64]:
    """Return the places of uids in an order that is drawn, and does not depend on their own."""
    return np.lexsort((uids["f1"], uids["f0"], draw(uids, seed, what)))


def train(rows: Floats, count: int, iterations: int, seed: int) -> Floats:
    """Return ``count`` centroids at length one of unit vectors, shape (n, d) to (count, d)."""
    try:
        import faiss
    except ImportError:
        raise MissingError(
            "clusters need faiss, which is not installed: pip install -e '.[clusters]'"
        ) from None
    found = faiss.Kmeans(
        rows.shape[1], count, niter=iterations, seed=seed, spherical=True,
        min_points_per_centroid=1, max_points_per_centroid=max(1, len(rows)),
    )  # fmt: skip
    found.train(rows)
    # The mean of opposite vectors has no direction: any will do, if it is always the same.
    centroids, usable = unit(np.asarray(found.centroids))
    centroids[~usable, 0] = 1
    return centroids


def assign(spool: Spool, centroids: Floats, device: str = "auto") -> Clusters:
    """Return the clusters of a spool's rows for given centroids."""
    nearest = Nearest(centroids, device)
    rows = spool.rows
    ids, similarity = np.empty(rows, np.int64), np.empty(rows, np.float32)
    with Progress("assigning clusters", rows) as progress:
        for start, part in stretches(spool):
            vectors, _ = unit(part)
            end = start + len(part)
            ids[start:end] = nearest.of(vectors)
            similarity[start:end] = np.einsum(
                "nd,nd->n", vectors, centroids[ids[start:end]], dtype=np.float64
            )
            progress.advance(len(part))
    return Clusters(centroids, ids, similarity)


def stretches(spool: Spool) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
    """Yield the rows of a spool from the first to the last, with where each stretch begins."""
    for start in range(0, spool.rows, _ROWS):
        yield start, spool.stretch(start, min(start + _ROWS, spool.rows))


def in_order(spool: Spool, order: NDArray[np.int64]) -> Spool:
    """Return a copy of those rows of a spool that ``order`` names, in that order."""
    copy = Spool(len(order), spool.dimension, spool.dtype)
    places = np.full(spool.rows, -1, np.int64)
    places[order] = np.arange(len(order))
    for start, rows in stretches(spool):
        here = places[start : start + len(rows)]
        copy.write(here[here >= 0], rows[here >= 0])
    return copy
