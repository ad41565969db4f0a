"""Keep samples that stand for all others.

Source: submodular selection by facility location, greedily and lazily (Minoux, "Accelerated greedy
algorithms for maximizing submodular set functions", 1978; for training data Wei et al.,
"Submodularity in Data Subset Selection and Active Learning", 2015); written from the papers. The
worth of a choice is the sum, over all samples, of the cosine with the nearest chosen one; one after
another the sample is taken that adds most, which comes within a factor 1 - 1/e of the best choice.
So that the work is bounded it is done within clusters of at most 4,096 samples, each of which gives
its part.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...pools.uids import UidArray
from ...progress import Progress
from ..contract import Decision, Filter, Scorer, View
from ..products import products
from ..ranking import NO_FEATURES
from ..sets import Samples, Values
from ..spool import Spool, gathered
from ..together import Together
from ..vectors import Floats, unit
from .kmeans import NEEDS, Clusters, by_draw, in_order
from .spread import Found, Gather, SpreadClusterScorer, WholeClusters, numbered_anew, summed_up

_MOST = 4096


class FacilityLocation(Filter):
    """Keep the samples that, within each cluster, are most like all the others."""

    set_level = True
    needs = NEEDS
    not_reported = (
        "the papers are older; SDM (ICLR 2026), submodular too but over learnt concepts "
        "matched to a target, has .352 and .364 at medium with 18M"
    )

    fraction: float = Field(0.3, gt=0, le=1, description="part to keep")
    clusters: int | None = Field(
        None, ge=1, le=1 << 20, description="how many (default: the root of the number of samples)"
    )
    iterations: int = Field(20, ge=1, le=1000, description="of k-means")
    seed: int = Field(0, ge=0, lt=1 << 31, description="another seed gives other clusters")
    features: str = Field("l14_img", description="features to compare")
    device: str = Field("auto", description="where to assign clusters: auto, cpu, cuda")

    def scorers(self) -> list[Scorer]:
        """Find who is chosen."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Keep them."""
        chosen = view.score(self._scorer())
        return [Decision(NO_FEATURES, f"{chosen} IS NOT NULL"), Decision("stood_for", chosen)]

    def _scorer(self) -> FacilityLocationScorer:
        return FacilityLocationScorer(**self.model_dump())


class FacilityLocationScorer(SpreadClusterScorer):
    """Tells whether a sample is chosen."""

    name = "facility_location"
    type = "BOOLEAN"

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield who is chosen; samples without usable features are left out."""
        about = self._parameters
        with gathered(samples) as (uids, (spool,)):
            if not len(uids):
                return
            groups = self.cluster(uids, spool, about["clusters"])
            sizes = groups.sizes()
            starts = np.cumsum(sizes) - sizes
            yield uids, _chosen(uids, spool, groups, starts, about["fraction"], about["seed"])

    def score_found(
        self, together: Together, gather: Gather, found: Found
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield who is chosen of a partition's samples."""
        about, what = self._parameters, self.digest()
        sizes = summed_up(what, together, gather, found, self._device, Clusters.sizes)
        joint = Representatives(what, str(sizes), about["fraction"], about["seed"])
        yield from joint.ask(together, gather, found, self._device)


@dataclass(frozen=True)
class Representatives(WholeClusters):
    """Who is chosen in clusters whose sizes, those of all, stand in a file."""

    sizes: str
    fraction: float
    seed: int
    type = np.bool_

    def values(self, uids: UidArray, groups: Clusters, spool: Spool) -> NDArray[Any]:
        """Choose in each, as many as are due at its place among all."""
        present, groups = numbered_anew(groups)
        sizes = np.load(self.sizes, allow_pickle=False)
        starts = (np.cumsum(sizes) - sizes)[present]
        return _chosen(uids, spool, groups, starts, self.fraction, self.seed)


def _chosen(
    uids: UidArray, spool: Spool, groups: Clusters, starts: NDArray[np.int64], fraction: float,
    seed: int,
) -> NDArray[np.bool_]:  # fmt: skip
    """Tell who is chosen, (n,); ``starts`` are how many samples the clusters before each have."""
    rank = np.empty(len(uids), np.int64)
    rank[by_draw(uids, seed, 5)] = np.arange(len(uids))
    order = np.lexsort((rank, groups.ids))
    chosen = np.zeros(len(uids), bool)
    here = 0
    with in_order(spool, order) as ordered, Progress("choosing", len(uids)) as progress:
        for size, start in zip(groups.sizes().tolist(), starts.tolist(), strict=True):
            for first, end in _parts(size):
                rows, _ = unit(ordered.stretch(here + first, here + end))
                # So many are due up to here, rounded; what was taken before is not.
                due = round((start + end) * fraction) - round((start + first) * fraction)
                chosen[order[here + first + choose(rows, due)]] = True
                progress.advance(end - first)
            here += size
    return chosen


def _parts(size: int) -> Iterator[tuple[int, int]]:
    """Yield where each part of a cluster begins and ends: even parts of at most 4,096."""
    pieces = -(-size // _MOST)
    for piece in range(pieces):
        yield size * piece // pieces, size * (piece + 1) // pieces


def choose(rows: Floats, count: int) -> NDArray[np.int64]:
    """Return which of some unit vectors, shape (n, d), are taken first, in order, shape (count,).

    A cosine below zero counts as zero. Of equal gains the first row wins.
    """
    likeness = np.maximum(products(rows, rows), 0)
    nearest = np.zeros(len(rows), np.float32)
    # A gain can only shrink, so the largest that is up to date is the largest of all.
    waiting = [(-gain, row) for row, gain in enumerate(likeness.sum(1, dtype=np.float64).tolist())]
    heapq.heapify(waiting)
    taken: list[int] = []
    while len(taken) < count:
        _, row = heapq.heappop(waiting)
        gain = float(np.maximum(likeness[row] - nearest, 0).sum(dtype=np.float64))
        if waiting and (-gain, row) > waiting[0]:
            heapq.heappush(waiting, (-gain, row))
            continue
        taken.append(row)
        np.maximum(nearest, likeness[row], out=nearest)
    return np.array(taken, np.int64)
