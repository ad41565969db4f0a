"""Draw samples so that small clusters are seen more often than they are met.

Source: DataComp's *image-based sampling* (arXiv 2304.14108, appendix P, Tables 25 and 26); written
from the paper. Image features are clustered; a cluster of s samples is drawn with a probability
that grows as s to the power alpha, and of it a sample at random, with repetition. With alpha = 1
that is the pool as it is, with 0 all clusters are alike. A sample drawn more than 100 times drops
out. The paper draws as many samples as the pool has.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...pools.uids import UID_DTYPE, UidArray
from ..clusters.scorer import ClusterScorer
from ..contract import Decision, Filter, Scorer, View
from ..published import Published
from ..ranking import NO_FEATURES
from ..sets import Samples, Values
from ..spool import gathered
from ..vectors import uniform

_DRAWS = 1 << 20


class ClusterSampling(Filter):
    """Draw samples with repetition, clusters by a power of their size.

    The subset names a sample as often as it was drawn.
    """

    set_level = True
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


class ClusterSamplingScorer(ClusterScorer):
    """Tells how often a sample is drawn."""

    name = "cluster_draws"
    type = "UINTEGER"

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield the draws; samples without usable features are left out."""
        about = self._parameters
        with gathered(samples) as (uids, (spool,)):
            if not len(uids):
                return
            groups = self.cluster(uids, spool, about["clusters"])
        chances = groups.sizes()[groups.ids] ** (about["alpha"] - 1.0)
        order = np.lexsort((uids["f1"], uids["f0"]))
        drawn = np.empty(len(uids), np.uint32)
        size = about["size"] or len(uids)
        drawn[order] = draws(chances[order], size, about["seed"])
        yield uids, drawn


def draws(chances: NDArray[np.float64], size: int, seed: int) -> NDArray[np.uint32]:
    """Return how often each of n is drawn in ``size`` draws with repetition, shape (n,)."""
    reached = np.cumsum(chances)
    found = np.zeros(len(chances), np.int64)
    for start in range(0, size, _DRAWS):
        numbers = np.zeros(min(_DRAWS, size - start), UID_DTYPE)
        numbers["f1"] = np.arange(start, start + len(numbers))
        places = np.searchsorted(reached, uniform(numbers, seed, 4) * reached[-1], "right")
        found += np.bincount(np.minimum(places, len(chances) - 1), minlength=len(chances))
    return found.astype(np.uint32)
