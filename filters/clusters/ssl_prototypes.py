"""Drop the most typical samples, which teach the least.

Source: Sorscher et al., "Beyond neural scaling laws: beating power law scaling via data pruning"
(arXiv 2206.14486), *self-supervised prototypes*; written from the paper. Features are clustered by
k-means; the score of a sample is its cosine with the centroid of its cluster, and the highest
drop out.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from ...pools.uids import UidArray
from ..contract import Decision, Filter, Scorer, View
from ..ranking import NO_FEATURES, highest
from ..sets import Samples, Values
from ..spool import gathered
from ..together import Together
from .kmeans import NEEDS, assign
from .spread import Found, Gather, SpreadClusterScorer


class SslPrototypes(Filter):
    """Keep the samples farthest from the centroids of their clusters."""

    set_level = True
    needs = NEEDS
    not_reported = "the paper prunes ImageNet and trains on its labels"

    fraction: float = Field(0.8, gt=0, le=1, description="part to keep")
    clusters: int | None = Field(
        None, ge=1, le=1 << 20, description="how many (default: the root of the number of samples)"
    )
    iterations: int = Field(20, ge=1, le=1000, description="of k-means")
    seed: int = Field(0, ge=0, lt=1 << 31, description="another seed gives other clusters")
    features: str = Field("l14_img", description="features to cluster")
    device: str = Field("auto", description="where to assign clusters: auto, cpu, cuda")

    def scorers(self) -> list[Scorer]:
        """Compute the cosine with the centroid."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Keep the lowest cosines."""
        score = view.score(self._scorer())
        return [
            Decision(NO_FEATURES, f"{score} IS NOT NULL"),
            Decision("prototypical", highest(view, f"(-{score})", self.fraction)),
        ]

    def _scorer(self) -> PrototypeScorer:
        return PrototypeScorer(**self.model_dump(exclude={"fraction"}))


class PrototypeScorer(SpreadClusterScorer):
    """The cosine of a sample's features and the centroid of its cluster, float32."""

    name = "centroid_similarity"

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield the cosines; samples without usable features are left out."""
        with gathered(samples) as (uids, (spool,)):
            if len(uids):
                yield uids, self.cluster(uids, spool, self._parameters["clusters"]).similarity

    def score_found(
        self, together: Together, gather: Gather, found: Found
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield the cosines of a partition's samples."""
        with gather() as (uids, spool):
            yield uids, assign(spool, found.centroids, self._device).similarity
