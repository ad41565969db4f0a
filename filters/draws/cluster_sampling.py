"""Draw samples so that small clusters are seen more often than they are met.

Source: DataComp's *image-based sampling* (arXiv 2304.14108, appendix P, Tables 25 and 26); written
from the paper. Image features are clustered; a cluster of s samples is drawn with a probability
that grows as s to the power alpha, and of it a sample at random, with repetition. With alpha = 1
that is the pool as it is, with 0 all clusters are alike. A sample drawn more than 100 times drops
out. The paper draws as many samples as the pool has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...pools.uids import UidArray
from ..clusters.kmeans import NEEDS, Clusters, assign
from ..clusters.scorer import ClusterScorer
from ..clusters.spread import centroids_of, gatherer, summed_up
from ..contract import Decision, Filter, Scorer, View
from ..published import Published
from ..ranking import NO_FEATURES
from ..sets import Samples, SpreadScorer, Values
from ..spool import gathered
from ..together import Together
from .numbered import Drawn, Landing, Law, draws, part_of

_WHAT = 4


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
        return {**super().identity(), "draws": "cluster, then sample by number in it"}

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield the draws; samples without usable features are left out."""
        about = self._parameters
        with gathered(samples) as (uids, (spool,)):
            if not len(uids):
                return
            groups = self.cluster(uids, spool, about["clusters"])
        powers, size = powers_of(groups.sizes(), about["alpha"]), about["size"] or len(uids)
        landing = Landing(groups.ids, uids, np.ones(len(uids), np.int64))
        law = Law(about["seed"], _WHAT)
        yield uids[landing.order], landing.count(draws(powers, law, 0, size), law)

    def score_apart(
        self, samples: Samples, together: Together
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield the draws of a partition's samples; each partition makes its share of the draws."""
        about, gather, place = self._parameters, gatherer(samples), together.place
        found = centroids_of(self.digest(), together, gather, about)
        if found is None:
            return
        file = summed_up(self.digest(), together, gather, found, self._device, Clusters.sizes)
        law = Law(about["seed"], _WHAT)
        joint = Drawn(self.digest(), law)

        def share() -> None:
            with gather() as (uids, spool):
                ids = assign(spool, found.centroids, self._device).ids
            part = part_of(about["size"] or found.total, place.number, place.count)
            powers = powers_of(np.load(file, allow_pickle=False), about["alpha"])
            made = draws(powers, law, *part)
            joint.share(together, ids, uids, np.ones(len(uids), np.int64), made)

        together.ask(joint, share)
        yield from joint.counted(together)


def powers_of(sizes: NDArray[np.int64], alpha: float) -> NDArray[np.float64]:
    """Return the power of each cluster's size (k,); an empty one is worth nothing."""
    found = np.zeros(len(sizes))
    some = sizes > 0
    found[some] = sizes[some] ** alpha
    return found
