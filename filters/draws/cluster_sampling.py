"""Draw samples so that small clusters are seen more often than they are met.

Source: DataComp's *image-based sampling* (arXiv 2304.14108, appendix P, Tables 25 and 26); written
from the paper. Image features are clustered; a cluster of s samples is drawn with a probability
that grows as s to the power alpha, and of it a sample at random, with repetition. With alpha = 1
that is the pool as it is, with 0 all clusters are alike. A sample drawn more than 100 times drops
out. The paper draws as many samples as the pool has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...pools.uids import UID_DTYPE, UidArray
from ..clusters.kmeans import NEEDS, Clusters, assign
from ..clusters.scorer import ClusterScorer
from ..clusters.spread import centroids_of, gatherer, summed_up
from ..contract import Decision, Filter, Scorer, View
from ..published import Published
from ..ranking import NO_FEATURES
from ..sets import Samples, SpreadScorer, Values
from ..spool import gathered
from ..together import Exchange, Records, Together, send, uids_of
from ..vectors import draw, uniform

_DRAWS = 1 << 20


class ClusterSampling(Filter):
    """Draw samples with repetition, clusters by a power of their size.

    The subset names a sample as often as it was drawn.
    """

    set_level = True
    needs = NEEDS
    published = (
        Published("best of each column over alpha", "small", 0.040, 0.155),
        Published("best of each column over alpha", "medium", 0.269, 0.295),
    )

    alpha: float = Field(0.5, ge=0, le=2, description="power of a cluster's size")
    size: int | None = Field(
        None, ge=1, le=1 << 34, description="how many draws (default: as many as samples)"
    )
    most: int = Field(100, ge=1, description="what is drawn more often drops out")
    clusters: int | None = Field(
        None, ge=1, le=1 << 20, description="how many (default: the root of the number of samples)"
    )
    iterations: int = Field(20, ge=1, le=1000, description="of k-means")
    seed: int = Field(
        0, ge=0, lt=1 << 31, description="another seed gives other clusters and draws"
    )
    features: str = Field("l14_img", description="features to cluster")
    device: str = Field("auto", description="where to assign clusters: auto, cpu, cuda")

    def scorers(self) -> list[Scorer]:
        """Draw."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Drop what has no features or was drawn too often; who was never drawn goes as well."""
        drawn = view.score(self._scorer())
        return [
            Decision(NO_FEATURES, f"{drawn} IS NOT NULL"),
            Decision("drawn_too_often", f"{drawn} <= {self.most}"),
        ]

    def weight(self, view: View) -> str:
        """Return how often each was drawn."""
        return view.score(self._scorer())

    def _scorer(self) -> ClusterSamplingScorer:
        return ClusterSamplingScorer(**self.model_dump(exclude={"most"}))


class ClusterSamplingScorer(ClusterScorer, SpreadScorer):
    """Tells how often a sample is drawn."""

    name = "cluster_draws"
    type = "UINTEGER"

    def identity(self) -> dict[str, Any]:
        """Name the features, all parameters, and that a draw is first one of a cluster."""
        return {**super().identity(), "draws": "cluster, then sample"}

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield the draws; samples without usable features are left out."""
        about = self._parameters
        with gathered(samples) as (uids, (spool,)):
            if not len(uids):
                return
            groups = self.cluster(uids, spool, about["clusters"])
        sizes = groups.sizes()
        order = np.lexsort((uids["f1"], uids["f0"], groups.ids))
        firsts = np.cumsum(sizes) - sizes
        found = np.zeros(len(uids), np.int64)
        size = about["size"] or len(uids)
        for ids, within in draws(sizes, about["alpha"], about["seed"], 0, size):
            found += np.bincount(firsts[ids] + place_of(within, sizes[ids]), minlength=len(uids))
        drawn = np.empty(len(uids), np.uint32)
        drawn[order] = found
        yield uids, drawn

    def score_apart(
        self, samples: Samples, together: Together
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield the draws of a partition's samples; each partition makes its share of the draws."""
        about, gather, place = self._parameters, gatherer(samples), together.place
        found = centroids_of(self.digest(), together, gather, about)
        if found is None:
            return
        file = summed_up(self.digest(), together, gather, found, self._device, Clusters.sizes)
        joint = Drawn(self.digest())

        def share() -> None:
            with gather() as (uids, spool):
                ids = assign(spool, found.centroids, self._device).ids
            here = np.empty(len(uids), _RECORD)
            here["f0"], here["f1"], here["id"] = uids["f0"], uids["f1"], ids
            size = about["size"] or found.total
            part = (size * place.number // place.count, size * (place.number + 1) // place.count)
            made = [here]
            sizes = np.load(file, allow_pickle=False)
            for chosen, within in draws(sizes, about["alpha"], about["seed"], *part):
                some = np.empty(len(chosen), _RECORD)
                some["f0"], some["f1"], some["id"] = 0, within, -1 - chosen
                made.append(some)
            every = np.concatenate(made)
            numbers = np.where(every["id"] < 0, -1 - every["id"], every["id"])
            ways = numbers % place.count
            send(place.file(joint), ways, place.count, _RECORD, lambda some: every[some])

        together.ask(joint, share)
        for records in joint.answers(place):
            yield uids_of(records), records["drawn"]


_RECORD = np.dtype([("f0", "<u8"), ("f1", "<u8"), ("id", "<i8")])
"""A sample and its cluster; or, where the cluster is -1 - id, a draw: f1 says which of it."""


@dataclass(frozen=True)
class Drawn(Exchange):
    """Brings the samples of some clusters together with the draws from these clusters."""

    what: str

    def judge(self, got: Iterator[tuple[int, Records]]) -> tuple[NDArray[np.int64], Records]:
        """Return how often each sample is drawn."""
        nothing = np.empty(0, _RECORD)
        numbers, parts, drawn = [np.empty(0, np.int64)], [nothing], [nothing]
        for number, records in got:
            samples = records[records["id"] >= 0]
            numbers.append(np.full(len(samples), number))
            parts.append(samples)
            drawn.append(records[records["id"] < 0])
        number, every, made = np.concatenate(numbers), np.concatenate(parts), np.concatenate(drawn)
        order = np.lexsort((every["f1"], every["f0"], every["id"]))
        number, every = number[order], every[order]
        firsts = np.searchsorted(every["id"], -1 - made["id"], "left")
        sizes = np.searchsorted(every["id"], -1 - made["id"], "right") - firsts
        places = firsts + place_of(made["f1"], sizes)
        found = np.empty(len(every), [("f0", "<u8"), ("f1", "<u8"), ("drawn", "<u4")])
        found["f0"], found["f1"] = every["f0"], every["f1"]
        found["drawn"] = np.bincount(places, minlength=len(every))
        return number, found


def draws(
    sizes: NDArray[np.int64], alpha: float, seed: int, first: int, end: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint64]]]:
    """Yield the draws of some numbers: the cluster of each, and 64 random bits for which of it.

    ``sizes`` (k,) are those of the clusters; a cluster is drawn by their power of ``alpha``.
    """
    powers = np.zeros(len(sizes))
    some = sizes > 0
    powers[some] = sizes[some] ** alpha
    reached = np.cumsum(powers)
    last = int(np.flatnonzero(some)[-1])
    for start in range(first, end, _DRAWS):
        numbers = np.zeros(min(_DRAWS, end - start), UID_DTYPE)
        numbers["f1"] = np.arange(start, start + len(numbers))
        ids = np.searchsorted(reached, uniform(numbers, seed, 4) * reached[-1], "right")
        yield np.minimum(ids, last), draw(numbers, seed, 5)


def place_of(bits: NDArray[np.uint64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a place from 0 to before each size (n,) for 64 random bits (n,)."""
    share = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return np.minimum((share * sizes).astype(np.int64), sizes - 1)
