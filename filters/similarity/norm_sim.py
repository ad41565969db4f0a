"""Keep samples whose images are like those of a target set, by a norm of their similarities.

Source: Wang et al., "CLIPLoss and Norm-Based Data Selection Methods for Multimodal Contrastive
Learning" (arXiv 2405.19547), *NormSim*; written from the paper. The score is the p-norm of the
cosines of a sample's image with all images of the target set: for p infinite the largest, for
p = 2 the root of the sum of their squares, which one matrix of the target set's moments gives.

The paper takes ImageNet-1k's training images, or those of 24 of the evaluation tasks, and applies
the rule to what negCLIPLoss has kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from ..assets import asset_field, given_assets, locate
from ..contract import Decision, Scorer, View
from ..published import Published
from ..ranking import Ranked
from .targets import LargestSimilarity, VarianceAlignment

_TABLE = "a later paper's table"


class NormSim(Ranked):
    """Keep the samples with the largest norm of similarities to a target set.

    In the paper it follows `neg_clip_loss:fraction=0.3`, joined by `then`, with fraction 0.66.
    """

    published = (
        Published("p infinite, ImageNet-1k, after negCLIPLoss 30 %", "medium", 0.328, 0.353, "22M",
                  source="arXiv 2405.19547", note=_TABLE),
        Published("p infinite, 24 tasks, after negCLIPLoss 30 %", "medium", 0.327, 0.357, "22M",
                  source="arXiv 2405.19547", note=_TABLE),
    )  # fmt: skip

    norm: Literal["max", "l2"] = Field("max", description="max (p infinite) or l2 (p = 2)")
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
        """Compute the norm."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Keep the largest."""
        return self.high(view, view.score(self._scorer()), "unlike_targets")

    def _scorer(self) -> Scorer:
        path: Path = locate("norm_sim", "target_embeddings", self.target_embeddings)
        if self.norm == "l2":
            return VarianceAlignment(path, self.features, self.share, norm=True)
        return LargestSimilarity(path, self.features, self.share, self.device, absolute=True)
