"""What filters share that rank samples by the score of a CLIP checkpoint of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, PrivateAttr

from ..pools.clip_model import ModelSpec
from .clip_score import ClipScorer, model_of
from .contract import Decision, Scorer, View
from .ranking import Ranked


class CheckpointScore(Ranked):
    """A filter that keeps the samples that score highest with a CLIP checkpoint."""

    use: ClassVar[str]
    """The filter's name, for complaints."""

    needs: ClassVar[Mapping[str, str]] = {"open_clip": "train"}

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

    def scorer_of(self, model: ModelSpec) -> ClipScorer:
        """Return what scores with the checkpoint's model."""
        return ClipScorer(model, self.device)

    def _scorer(self) -> ClipScorer:
        """Return the scorer, made once: its identity is the digest of the weights."""
        if self._made is None:
            model = model_of(self.use, self.checkpoint, self.model, self.model_config_file)
            self._made = self.scorer_of(model)
        return self._made
