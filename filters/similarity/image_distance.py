"""Keep samples whose image is near to some image of a target set.

Source: DataComp's *ImageNet distance* (arXiv 2304.14108, Tables 25 and 26); written from the
paper. The score is the cosine of a sample's image features with the nearest ones of the target
set (ImageNet-1k's training images).
"""

from __future__ import annotations

from pydantic import Field

from ..assets import asset_field, given_assets, locate
from ..contract import Decision, Scorer, View
from ..published import Published
from ..ranking import Ranked
from .targets import LargestSimilarity


class ImageDistance(Ranked):
    """Keep the samples whose image is nearest to an image of a target set (ImageNet-1k)."""

    published = (
        Published("L/14, 30 %", "small", 0.034, 0.139),
        Published("L/14, 30 %", "medium", 0.212, 0.269),
    )

    target_embeddings: str | None = asset_field("target_embeddings")
    features: str = Field("l14_img", description="image features, those of the target set too")
    share: float = Field(
        1.0, gt=0, le=1, description="part of the target set to use, spread evenly; less is faster"
    )
    device: str = Field("auto", description="where to compare: auto, cpu, cuda")

    def files(self) -> dict[str, str]:
        """Name the assets that were given."""
        return given_assets(self)

    def scorers(self) -> list[Scorer]:
        """Find the nearest image of the target set."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Keep the nearest."""
        return self.high(view, view.score(self._scorer()), "far_from_targets")

    def _scorer(self) -> Scorer:
        path = locate("image_distance", "target_embeddings", self.target_embeddings)
        return LargestSimilarity(path, self.features, self.share, self.device)
