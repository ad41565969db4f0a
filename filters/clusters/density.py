"""Keep more of complex concepts than of simple ones, and of each what is least typical.

Source: Abbas et al., "Effective pruning of web-scale datasets based on complexity of concept
clusters" (arXiv 2401.04578), *density-based pruning*; written from the paper. Features are
clustered. The complexity of a cluster is the mean distance (1 - cosine) of its samples to its
centroid, times the mean distance of its centroid to the 20 nearest others. A softmax of the
complexities says which part of the result each cluster should be; a quadratic programme finds the
nearest shares that add up and ask no cluster for less than one sample or more than it has. Of each
cluster the samples farthest from the centroid stay.

The paper clusters what SemDeDup has left (filters joined by `then`), in 100 clusters for 128M
samples, and takes DINOv2's features; any of the pool's can be named. Complexities and shares are
those of the authors' code; it rounds each share by itself, so that their sum may miss by a few what
was asked for, and lets a cluster of one sample go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...errors import DataError
from ...pools.uids import UidArray
from ..contract import Decision, Filter, Scorer, View
from ..products import products
from ..published import Published
from ..ranking import NO_FEATURES
from ..sets import Samples, Values
from ..spool import Spool, gathered
from ..together import Barrier, Together, save
from ..vectors import Floats
from .kmeans import NEEDS, Clusters
from .spread import Found, Gather, SpreadClusterScorer, WholeClusters, numbered_anew, summed_up

_FINE = 1 << 30

NEIGHBOURS = 20
"""How many other centroids say how far a cluster is from the rest."""


class Density(Filter):
    """Keep a share of each cluster that grows with its complexity, least typical samples first."""

    set_level = True
    needs = NEEDS
    published = (
        Published(
            "of LAION-CAT-440M after SemDeDup, ViT-B/32", "LAION-440M", 0.641, None,
            source="arXiv 2401.04578",
            note="trained for 27.7 % of what gives .630 with all of LAION-400M",
        ),
    )  # fmt: skip

    fraction: float = Field(0.3, gt=0, le=1, description="part to keep")
    temperature: float = Field(0.1, gt=0, description="of the softmax; high makes shares equal")
    clusters: int = Field(100, ge=1, le=1 << 20, description="how many")
    iterations: int = Field(20, ge=1, le=1000, description="of k-means")
    seed: int = Field(0, ge=0, lt=1 << 31, description="another seed gives other clusters")
    features: str = Field("l14_img", description="features to cluster")
    device: str = Field("auto", description="where to assign clusters: auto, cpu, cuda")

    def scorers(self) -> list[Scorer]:
        """Find who stays."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Keep them."""
        kept = view.score(self._scorer())
        return [
            Decision(NO_FEATURES, f"{kept} IS NOT NULL"),
            Decision("dense", kept),
        ]

    def _scorer(self) -> DensityScorer:
        return DensityScorer(**self.model_dump())


class DensityScorer(SpreadClusterScorer):
    """Tells whether a sample stays."""

    name = "density"
    type = "BOOLEAN"

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield who stays; samples without usable features are left out."""
        about = self._parameters
        with gathered(samples) as (uids, (spool,)):
            if not len(uids):
                return
            groups = self.cluster(uids, spool, about["clusters"])
            sizes = groups.sizes()
            wanted = max(1, int(len(uids) * about["fraction"]))
            found = complexity(groups.centroids, spread(groups))
            counts = quotas(found, sizes, wanted, about["temperature"])
            yield uids, _ranks(uids, groups) < counts[groups.ids]

    def score_found(
        self, together: Together, gather: Gather, found: Found
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield who stays of a partition's samples."""
        about = self._parameters
        file = summed_up(self.digest(), together, gather, found, self._device, spread)
        sums = np.load(file, allow_pickle=False)
        wanted = max(1, int(found.total * about["fraction"]))
        joint = Quotas(self.digest(), wanted, about["temperature"])

        def share() -> None:
            # Each could tell: one is asked, for all that all know.
            if together.place.number == 0:
                found_ = complexity(found.centroids, sums)
                save(together.place.file(joint), quotas(found_, sums[0], wanted, joint.temperature))

        together.ask(joint, share)
        file = together.place.folder(joint) / "sent" / "000000.npy"
        yield from Densest(self.digest(), str(file)).ask(together, gather, found, self._device)


@dataclass(frozen=True)
class Quotas(Barrier):
    """That the first partition has written how many samples to keep of each cluster."""

    what: str
    wanted: int
    temperature: float


@dataclass(frozen=True)
class Densest(WholeClusters):
    """Who is among the first of its cluster, of as many as a file says for each cluster."""

    counts: str
    vectors = False
    type = np.bool_

    def values(self, uids: UidArray, groups: Clusters, spool: Spool) -> NDArray[Any]:
        """Compare ranks with the counts."""
        present, groups = numbered_anew(groups)
        counts = np.load(self.counts, allow_pickle=False)[present]
        return _ranks(uids, groups) < counts[groups.ids]


def _ranks(uids: UidArray, groups: Clusters) -> NDArray[np.int64]:
    """Return the place of each sample in its cluster, (n,), the least typical first."""
    sizes = groups.sizes()
    order = np.lexsort((uids["f1"], uids["f0"], groups.similarity, groups.ids))
    rank = np.empty(len(uids), np.int64)
    rank[order] = np.arange(len(uids)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rank


def spread(groups: Clusters) -> NDArray[np.int64]:
    """Return size of each cluster and sum of distances to its centroid, in 2^-30, shape (2, k).

    Integers, so that it does not depend on the order of the samples.
    """
    found = np.zeros((2, len(groups.centroids)), np.int64)
    found[0] = groups.sizes()
    apart = np.rint((1 - groups.similarity.astype(np.float64)) * _FINE).astype(np.int64)
    np.add.at(found[1], groups.ids, apart)
    return found


def complexity(centroids: Floats, sums: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how spread each cluster is, times how far it is from others, shape (k,).

    That of a cluster without samples is the mean of the others. ``sums`` are those of ``spread``.
    """
    sizes = sums[0]
    inside = np.divide(sums[1] / _FINE, sizes, out=np.full(len(sizes), np.nan), where=sizes > 0)
    found = inside * _apart(centroids.astype(np.float64))
    found[np.isnan(found)] = np.nanmean(found)
    return np.maximum(found, 0)


def _apart(centroids: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean distance of each centroid to its nearest others; 1 where it is alone."""
    near = min(NEIGHBOURS, len(centroids) - 1)
    if near == 0:
        return np.ones(1)
    found = np.empty(len(centroids))
    for start in range(0, len(centroids), 1024):
        cosines = products(centroids[start : start + 1024], centroids)
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf
        found[start : start + 1024] = 1 - np.sort(cosines, axis=1)[:, -near:].mean(axis=1)
    return found


def quotas(
    complexities: NDArray[np.float64], sizes: NDArray[np.int64], wanted: int, temperature: float
) -> NDArray[np.int64]:
    """Return how many samples to keep of each cluster, shape (k,); they add up to ``wanted``.

    It is the nearest point, in the sum of squares, to the softmax of the complexities times
    ``wanted``, between one sample (if there are so many) and the size of each cluster; then
    rounded so that the largest remainders go up.
    """
    if wanted > sizes.sum():
        raise DataError(f"{wanted:,} of {sizes.sum():,} samples cannot be kept")
    powers = np.exp((complexities - complexities.max()) / temperature)
    ideal = powers / powers.sum() * wanted
    least = np.minimum(sizes, 1 if wanted >= (sizes > 0).sum() else 0)
    # The sum of the clipped shares grows with the shift: halve until it is as asked for.
    low, high = -float(ideal.max()) - 1, float(sizes.max()) + 1
    for _ in range(200):
        middle = (low + high) / 2
        if np.clip(ideal + middle, least, sizes).sum() < wanted:
            low = middle
        else:
            high = middle
    shares = np.clip(ideal + high, least, sizes)
    found = np.floor(shares + 1e-9).astype(np.int64)
    remainders = np.where(found < sizes, shares - found, -np.inf)
    missing = wanted - int(found.sum())
    found[np.argsort(-remainders, kind="stable")[:missing]] += 1
    return found
