"""Keep one of several samples that mean the same.

Source: Abbas et al., "SemDeDup: Data-efficient learning at web-scale through semantic
deduplication" (arXiv 2303.09540); written from the paper. Image features are clustered by k-means
on cosines; in each cluster the samples are put in order, and one drops out if its cosine with some
sample before it is above 1 - epsilon. The usual order begins with what is farthest from the
centroid. The score is the largest cosine with a sample before it, so another epsilon needs no
second computation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...pools.uids import UidArray
from ...progress import Progress
from ..contract import Decision, Filter, Scorer, View, sql_number
from ..products import products
from ..published import Published
from ..ranking import NO_FEATURES, highest
from ..sets import Samples, Values
from ..spool import Spool, gathered
from ..together import Together
from ..vectors import Floats, unit
from .kmeans import NEEDS, Clusters, by_draw, in_order
from .spread import Found, Gather, SpreadClusterScorer, WholeClusters, numbered_anew

Order = Literal["hard", "easy", "random"]

_ROWS = 4096
_WEBSTER = "near duplicates by Webster's descriptors, threshold 0.5"


class SemDeDup(Filter):
    """Keep one sample of those whose images are nearly the same to a model.

    Copies are looked for within clusters. With `fraction` it keeps as many as asked for, those
    that are least like one before them, instead of comparing with `epsilon`.
    """

    set_level = True
    needs = NEEDS
    published = (
        Published(_WEBSTER, "medium", 0.227, 0.295, "29.6M", note="appendix K"),
        Published(f"{_WEBSTER.replace('0.5', '0.1')}, and CLIP score 30 %", "medium", 0.288, 0.337,
                  note="appendix K"),
    )  # fmt: skip

    epsilon: float = Field(0.05, gt=0, lt=1, description="drop above a cosine of 1 - epsilon")
    fraction: float | None = Field(
        None, gt=0, le=1, description="part to keep, in place of epsilon"
    )
    keep: Order = Field(
        "hard", description="of copies, what is far from the centroid, near (easy), or random"
    )
    clusters: int | None = Field(
        None, ge=1, le=1 << 20, description="how many (default: the root of the number of samples)"
    )
    iterations: int = Field(20, ge=1, le=1000, description="of k-means")
    seed: int = Field(0, ge=0, lt=1 << 31, description="another seed gives other clusters")
    features: str = Field("l14_img", description="features to compare")
    device: str = Field("auto", description="where to assign clusters: auto, cpu, cuda")

    def scorers(self) -> list[Scorer]:
        """Find the nearest sample before each."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Drop what is too near."""
        score = view.score(self._scorer())
        if self.fraction is None:
            unlike = f"{score} <= {sql_number(1 - self.epsilon)}"
        else:
            unlike = highest(view, f"(-{score})", self.fraction)
        return [
            Decision(NO_FEATURES, f"{score} IS NOT NULL"),
            Decision("semantic_duplicate", unlike),
        ]

    def _scorer(self) -> SemDeDupScorer:
        return SemDeDupScorer(**self.model_dump(exclude={"epsilon", "fraction"}))


class SemDeDupScorer(SpreadClusterScorer):
    """The largest cosine of a sample and one before it in its cluster; 0 at least; float32."""

    name = "semdedup"

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield the cosines; samples without usable features are left out."""
        with gathered(samples) as (uids, (spool,)):
            if not len(uids):
                return
            about = self._parameters
            groups = self.cluster(uids, spool, about["clusters"])
            yield uids, redundancy(uids, spool, groups, about["keep"], about["seed"])

    def score_found(
        self, together: Together, gather: Gather, found: Found
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield the cosines of a partition's samples."""
        joint = Redundancy(self.digest(), self._parameters["keep"], self._parameters["seed"])
        yield from joint.ask(together, gather, found, self._device)


@dataclass(frozen=True)
class Redundancy(WholeClusters):
    """``redundancy`` of the clusters of all partitions."""

    keep: Order
    seed: int

    def values(self, uids: UidArray, groups: Clusters, spool: Spool) -> NDArray[Any]:
        """Compare within each cluster."""
        return redundancy(uids, spool, numbered_anew(groups)[1], self.keep, self.seed)


def redundancy(
    uids: UidArray, spool: Spool, groups: Clusters, keep: Order, seed: int
) -> NDArray[np.float32]:
    """Return the largest cosine of each row with one before it in its cluster, shape (n,)."""
    if keep == "random":
        rank = np.empty(len(uids), np.int64)
        rank[by_draw(uids, seed, 1)] = np.arange(len(uids))
        order = np.lexsort((rank, groups.ids))
    else:
        near = groups.similarity if keep == "hard" else -groups.similarity
        order = np.lexsort((uids["f1"], uids["f0"], near, groups.ids))
    found = np.empty(len(uids), np.float32)
    sizes = groups.sizes()
    with in_order(spool, order) as ordered, Progress("comparing", len(uids)) as progress:
        for start, size in zip(np.cumsum(sizes) - sizes, sizes, strict=True):
            found[order[start : start + size]] = _largest_before(ordered, int(start), int(size))
            progress.advance(int(size))
    return found


def _largest_before(spool: Spool, start: int, size: int) -> Floats:
    """Return the largest cosine of each of some successive rows with one of them before it."""
    found = np.zeros(size, np.float32)
    for at in range(0, size, _ROWS):
        here, _ = unit(spool.stretch(start + at, start + min(at + _ROWS, size)))
        own = products(here, here)
        best = np.tril(own, -1).max(axis=1)
        for before in range(0, at, _ROWS):
            earlier, _ = unit(spool.stretch(start + before, start + before + _ROWS))
            np.maximum(best, products(here, earlier).max(axis=1), out=best)
        found[at : at + len(here)] = best
    return np.maximum(found, 0)
