"""Keep the samples that a data filtering network scores highest.

Source: Fang et al., "Data Filtering Networks" (arXiv 2309.17425); written from the paper. The
network is a CLIP model that was trained on few pairs of high quality, and a sample's score is the
similarity it sees between image and caption; 15 % stay. How well a network filters is another
matter than how well it classifies: what it was trained on counts. Any open_clip checkpoint will do.
The authors' weights may not be used commercially; none come with this filter.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from .checkpoint_score import CheckpointScore
from .published import Published

_SOURCE, _NOTE = "arXiv 2309.17425", "quoted from memory, not checked against the paper"
_LISTED = "as open_clip's list of results has ViT-L-14-quickgelu, dfn2b: .8141 and .6687"


class Dfn(CheckpointScore):
    """Keep the samples that a CLIP model trained on pairs of high quality scores highest.

    The scores are those of `clip_score` with the same checkpoint.
    """

    use: ClassVar[str] = "dfn"
    usual_fraction = 0.15
    published = (
        Published("", "medium", 0.371, 0.373, source=_SOURCE, note=_NOTE),
        Published("", "large", 0.678, 0.560, source=_SOURCE, note=_NOTE),
        Published("DFN-2B", "xlarge", 0.814, 0.669, source=_SOURCE, note=_LISTED),
    )

    fraction: float | None = Field(None, gt=0, le=1, description="part to keep (default 0.15)")
