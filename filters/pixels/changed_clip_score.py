"""Keep samples whose image and caption agree even when the image is turned or digits are gone.

Source: Yu et al., "The Devil is in the Details: A Deep Dive into the Rabbit Hole of Data Filtering"
(arXiv 2309.15954), for images turned left to right, so that letters in them say nothing; and
"The Devil is in the Number" (DataComp workshop, ICCV 2023), for captions without their digits.
Written from the papers' abstracts: the score is the CLIP similarity (arXiv 2104.08718) of the
changed pair, and a part of the highest stays, 40 % in the second paper. Images and a checkpoint
are needed: CommonPool's stored features are of unchanged pairs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PrivateAttr

from ..clip_score import ClipScorer, model_of
from ..contract import Decision, Scorer, View
from ..ranking import Ranked

if TYPE_CHECKING:
    from PIL.Image import Image

_DIGITS = re.compile(r"\d+")


class FlippedClipScorer(ClipScorer):
    """The cosine of the caption and of the image turned left to right."""

    name = "flipped_clip_score"

    def identity(self) -> dict[str, Any]:
        """Name the model, and the change."""
        return {**super().identity(), "image": "flipped"}

    def seen(self, image: Image) -> Image:
        """Turn it left to right."""
        from PIL.Image import Transpose

        return image.transpose(Transpose.FLIP_LEFT_RIGHT)


class UndigitedClipScorer(ClipScorer):
    """The cosine of the image and of the caption without digits."""

    name = "digit_masked_clip_score"

    def identity(self) -> dict[str, Any]:
        """Name the model, and the change."""
        return {**super().identity(), "caption": "without digits"}

    def read(self, text: str) -> str:
        """Take the digits out, and the space they leave."""
        return " ".join(_DIGITS.sub(" ", text).split()) if _DIGITS.search(text) else text


class FlippedClipScore(Ranked):
    """Keep the samples with the highest CLIP similarity of the caption and the turned image."""

    use: ClassVar[str] = "flipped_clip_score"
    scorer: ClassVar[type[ClipScorer]] = FlippedClipScorer

    checkpoint: str = Field(..., description="weights file, or folder of a run")
    model: str | None = Field(None, description="open_clip architecture of the weights file")
    model_config_file: str | None = Field(None, description="JSON of an architecture of one's own")
    device: str = Field("auto", description="where to score: auto, cpu, cuda")

    _made: ClipScorer | None = PrivateAttr(None)

    def scorers(self) -> list[Scorer]:
        """Score with the checkpoint."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Keep the highest."""
        return self.high(view, view.score(self._scorer()), "low_clip_score", "no_score")

    def _scorer(self) -> ClipScorer:
        """Return the scorer, made once: its identity is the digest of the weights."""
        if self._made is None:
            model = model_of(self.use, self.checkpoint, self.model, self.model_config_file)
            self._made = self.scorer(model, self.device)
        return self._made


class DigitMaskedClipScore(FlippedClipScore):
    """Keep the samples with the highest CLIP similarity of image and caption without digits."""

    use = "digit_masked_clip_score"
    scorer = UndigitedClipScorer
    usual_fraction = 0.4

    fraction: float | None = Field(None, gt=0, le=1, description="part to keep (default 0.4)")
