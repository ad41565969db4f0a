"""Keep samples whose images vary as those of a target set do.

Source: Wang et al., "Variance Alignment Score: A Simple But Tough-to-Beat Data Selection Method
for Multimodal Contrastive Learning" (arXiv 2402.02055); written from the paper. The score of an
image x is x' S x, where S is the mean of t t' over the images t of the target set: the mean of
its squared cosines with them. The paper joins it to a CLIP score that keeps 45 % of the pool.
"""

from __future__ import annotations

from pydantic import Field

from ..assets import asset_field, given_assets, locate
from ..contract import Decision, Scorer, View
from ..published import Published
from ..ranking import Ranked
from .targets import VarianceAlignment


class Vas(Ranked):
    """Keep the samples with the largest variance alignment score to a target set.

    In the paper it follows `clip_score:arch=l14,fraction=0.45`, joined by `then`, with fraction
    0.66.
    """

    published = (
        Published(
            "with a CLIP score", "not said", None, None, source="arXiv 2402.02055",
            note="its abstract has 1.3 points more than the baselines on the average of 38",
        ),
    )  # fmt: skip

    target_embeddings: str | None = asset_field("target_embeddings")
    features: str = Field("l14_img", description="image features, those of the target set too")

    def files(self) -> dict[str, str]:
        """Name the assets that were given."""
        return given_assets(self)

    def scorers(self) -> list[Scorer]:
        """Compute the score."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Keep the largest."""
        return self.high(view, view.score(self._scorer()), "low_alignment")

    def _scorer(self) -> Scorer:
        path = locate("vas", "target_embeddings", self.target_embeddings)
        return VarianceAlignment(path, self.features)
