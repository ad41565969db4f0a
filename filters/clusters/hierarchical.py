"""Draw evenly over concepts, found by k-means of k-means.

Source: Vo et al., "Automatic Data Curation for Self-Supervised Learning: A Clustering-Based
Approach" (arXiv 2405.15613); written from the paper. Features are clustered, their centroids are
clustered again, and so on. Clusters of plain k-means follow the density of the data; so each higher
level is found in several steps on samples drawn evenly from its clusters, which spreads centroids
over the space. Then a number of samples is shared out from the top: every cluster of a level gets
as many as the others, unless it has fewer; at the bottom they are drawn at random, or are the
nearest to the centroid. The paper's levels are 10M, 500,000, 50,000 and 10,000 clusters for 743M
images.

Distances are Euclidean in the paper; here they are cosines at every level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from ...errors import DataError
from ...pools.engine import Engine
from ...pools.uids import UidArray
from ..contract import Decision, Filter, Scorer, View
from ..nearest import Nearest
from ..ranking import NO_FEATURES
from ..sets import Samples, SpreadScorer, Values
from ..spool import Spool, gathered
from ..together import Joint, Together, save
from ..vectors import Floats, uniform
from .kmeans import NEEDS, Clusters, by_draw, train
from .scorer import ClusterScorer
from .spread import WholeClusters, centroids_of, gatherer, numbered_anew, summed_up

_Ids = NDArray[np.int64]


class Hierarchical(Filter):
    """Keep a part of the samples, shared out evenly over a tree of clusters.

    `clusters` names the levels from the bottom to the top, such as 10000/1000/100.
    """

    set_level = True
    needs = NEEDS
    not_reported = "the paper trains self-supervised models of images alone"

    fraction: float = Field(0.3, gt=0, le=1, description="part to keep")
    clusters: str = Field(
        "1000/100", description="how many clusters each level has, from the bottom, as 1000/100"
    )
    resampling: int = Field(10, ge=0, le=100, description="steps in which a level is spread out")
    sample: int = Field(3, ge=1, description="points drawn from each cluster in such a step")
    draw: Literal["random", "closest"] = Field(
        "random", description="which samples of the lowest clusters: random or closest"
    )
    iterations: int = Field(20, ge=1, le=1000, description="of k-means")
    seed: int = Field(0, ge=0, lt=1 << 31, description="another seed gives other clusters")
    features: str = Field("l14_img", description="features to cluster")
    device: str = Field("auto", description="where to assign clusters: auto, cpu, cuda")

    @field_validator("clusters", mode="before")
    @classmethod
    def _descending(cls, value: Any) -> Any:
        levels = str(value).split("/")
        numbers = [int(level) for level in levels if level.isascii() and level.isdigit()]
        fine = len(numbers) == len(levels) and all(0 < n <= 1 << 20 for n in numbers)
        if not fine or sorted(set(numbers), reverse=True) != numbers:
            raise ValueError("descending numbers such as 1000/100")
        return "/".join(map(str, numbers))

    def scorers(self) -> list[Scorer]:
        """Find who stays."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Keep them."""
        kept = view.score(self._scorer())
        return [Decision(NO_FEATURES, f"{kept} IS NOT NULL"), Decision("not_drawn", kept)]

    def _scorer(self) -> HierarchicalScorer:
        return HierarchicalScorer(**self.model_dump())


class HierarchicalScorer(ClusterScorer, SpreadScorer):
    """Tells whether a sample is drawn."""

    name = "hierarchical"
    type = "BOOLEAN"

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield who is drawn; samples without usable features are left out."""
        about = self._parameters
        tree = self._tree()
        with gathered(samples) as (uids, (spool,)):
            if not len(uids):
                return
            first = self.cluster(uids, spool, tree.counts[0])
        wanted = max(1, int(len(uids) * about["fraction"]))
        targets = tree.targets(first.centroids, first.sizes(), wanted)
        yield uids, taken(uids, first, targets, about["draw"] == "closest", about["seed"])

    def score_apart(
        self, samples: Samples, together: Together
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield who is drawn of a partition's samples."""
        about, gather, what = self._parameters, gatherer(samples), self.digest()
        tree = self._tree()
        about_first = {**about, "clusters": tree.counts[0]}
        found = centroids_of(what, together, gather, about_first)
        if found is None:
            return
        sizes = summed_up(what, together, gather, found, self._device, Clusters.sizes)
        wanted = max(1, int(found.total * about["fraction"]))
        joint = Targets(what, tree, wanted, str(sizes))

        def share() -> None:
            if together.place.number == 0:  # one of them tells the others
                save(together.place.file(joint), found.centroids)

        together.ask(joint, share)
        file = together.place.folder(joint) / "targets.npy"
        closest = about["draw"] == "closest"
        drawn = Drawn(what, str(file), closest, about["seed"])
        yield from drawn.ask(together, gather, found, self._device)

    def _tree(self) -> Tree:
        about = self._parameters
        counts = tuple(int(level) for level in about["clusters"].split("/"))
        names = ("iterations", "seed", "resampling", "sample")
        return Tree(counts, *(about[name] for name in names))


@dataclass(frozen=True)
class Tree:
    """How clusters of clusters are made: how many each level has, from the bottom."""

    counts: tuple[int, ...]
    iterations: int
    seed: int
    resampling: int
    sample: int

    def targets(self, centroids: Floats, sizes: _Ids, wanted: int) -> _Ids:
        """Return how many samples to take of each lowest cluster, shape (k,).

        ``centroids`` are those of the lowest clusters, ``sizes`` how many samples they have.
        """
        levels = []
        for number, count in enumerate(self.counts[1:], 1):
            parents, centroids = spread(
                centroids, count, self.iterations, self.seed + number, self.resampling, self.sample
            )
            levels.append(parents)
        return share_out(sizes, levels, wanted, self.seed)


@dataclass(frozen=True)
class Targets(Joint):
    """How many samples to take of each lowest cluster: one worker makes the tree above them."""

    what: str
    tree: Tree
    wanted: int
    sizes: str

    def settle(self, folder: Path, shares: Sequence[Any], engine: Engine) -> Any:
        """Share out, in a worker."""
        list(engine.map(_share_out, [(self, folder)], count=1))
        return True


def _share_out(task: tuple[Targets, Path]) -> None:
    joint, folder = task
    centroids = np.load(folder / "sent" / "000000.npy", allow_pickle=False)
    sizes = np.load(joint.sizes, allow_pickle=False)
    save(folder / "targets.npy", joint.tree.targets(centroids, sizes, joint.wanted))


@dataclass(frozen=True)
class Drawn(WholeClusters):
    """``taken`` of the clusters of all partitions; a file says how many of each."""

    targets: str
    closest: bool
    seed: int
    vectors = False
    type = np.bool_

    def values(self, uids: UidArray, groups: Clusters, spool: Spool) -> NDArray[Any]:
        """Take as many as the file says."""
        present, groups = numbered_anew(groups)
        targets = np.load(self.targets, mmap_mode="r", allow_pickle=False)[present]
        return taken(uids, groups, targets, self.closest, self.seed)


def spread(
    rows: Floats, count: int, iterations: int, seed: int, steps: int, sample: int
) -> tuple[_Ids, Floats]:
    """Cluster rows so that centroids do not crowd where rows do; return ids (n,) and centroids.

    In each step the rows nearest to each centroid, ``sample`` of a cluster, are clustered anew.
    """
    if count > len(rows):
        raise DataError(f"{count:,} clusters of {len(rows):,}: a level needs fewer than the last")
    centroids = train(rows, count, iterations, seed)
    for _ in range(steps):
        ids = Nearest(centroids, "cpu").of(rows)
        near = np.einsum("nd,nd->n", rows, centroids[ids], dtype=np.float64)
        order = np.lexsort((np.arange(len(rows)), -near, ids))
        sizes = np.bincount(ids, minlength=count)
        rank = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        chosen = np.sort(order[rank < sample])
        if len(chosen) < count:
            break
        centroids = train(rows[chosen], count, iterations, seed)
    return Nearest(centroids, "cpu").of(rows), centroids


def share_out(sizes: _Ids, levels: list[_Ids], wanted: int, seed: int) -> _Ids:
    """Return how many to take of each lowest cluster when ``wanted`` are shared out from the top.

    ``sizes`` (k,) are those of the lowest clusters; ``levels`` are the clusters of these clusters,
    shape (k,), then the clusters of those, and so on.
    """
    every = [sizes]
    for parents in levels:
        every.append(np.bincount(parents, every[-1]).astype(np.int64))
    targets = even_shares(every[-1], wanted, seed)
    for depth in range(len(levels) - 1, -1, -1):
        below = np.zeros(len(every[depth]), np.int64)
        for parent, target in enumerate(targets.tolist()):
            children = np.flatnonzero(levels[depth] == parent)
            if len(children):
                below[children] = even_shares(every[depth][children], target, seed + parent + 1)
        targets = below
    return targets


def taken(
    uids: UidArray, groups: Clusters, targets: _Ids, closest: bool, seed: int
) -> NDArray[np.bool_]:
    """Return which samples (n,) are taken, ``targets`` (k,) of each cluster.

    They are the nearest to the centroid if ``closest``, else drawn; of ties the smallest uids.
    """
    if closest:
        order = np.lexsort((uids["f1"], uids["f0"], -groups.similarity))
    else:
        order = by_draw(uids, seed, 2)
    ids = groups.ids[order]
    grouped = np.argsort(ids, kind="stable")
    counts = np.bincount(ids, minlength=len(targets))
    rank = np.arange(len(ids)) - np.repeat(np.cumsum(counts) - counts, counts)
    found = np.zeros(len(ids), bool)
    chosen = order[grouped]
    found[chosen[rank < targets[groups.ids[chosen]]]] = True
    return found


def even_shares(sizes: _Ids, wanted: int, seed: int) -> _Ids:
    """Return how many to take of each of several sets so that they are as even as can be, (k,).

    All get the same, but none more than it has; what cannot be divided goes to sets that are
    drawn. In all it is ``wanted``, or everything where there is less.
    """
    if sizes.sum() <= wanted:
        return sizes.astype(np.int64)
    low, high = 0, int(sizes.max())
    while high - low > 1:
        middle = (low + high) // 2
        if np.minimum(sizes, middle).sum() <= wanted:
            low = middle
        else:
            high = middle
    found = np.minimum(sizes, low).astype(np.int64)
    open_ones = np.flatnonzero(sizes > low)
    numbers = np.zeros(len(open_ones), "<u8,<u8")
    numbers["f1"] = open_ones
    drawn = np.argsort(uniform(numbers, seed, 3), kind="stable")
    found[open_ones[drawn[: wanted - int(found.sum())]]] += 1
    return found
