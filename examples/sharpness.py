"""Keep sharp images: a filter of one's own. Use it as ``sharpness.py:Sharpness:min=25``."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from datacomp.errors import DataError
from datacomp.filters import Batch, Decision, Filter, Scorer, View
from datacomp.pools.images import decode
from pydantic import Field


class SharpnessScorer(Scorer):
    """Scores an image with the variance of its Laplacian: near 0 where all is smooth."""

    name = "sharpness"
    images = True

    def identity(self) -> dict[str, Any]:
        """Name what the values depend on; raise the number when ``sharpness`` changes."""
        return {"version": 1}

    def score(self, batch: Batch) -> Sequence[float | None]:
        """Return one value per image; None where it cannot be decoded."""
        return [sharpness(data) for data in batch.images]


class Sharpness(Filter):
    """Keep images whose edges are sharp (variance of the Laplacian)."""

    min: float = Field(25.0, ge=0, description="least sharpness, in grey levels squared")

    def scorers(self) -> list[Scorer]:
        """Measure every image once; the pool remembers it."""
        return [SharpnessScorer()]

    def decide(self, view: View) -> list[Decision]:
        """Ask for a score, then compare."""
        score = view.score(SharpnessScorer())
        return [Decision("no_score", f"{score} IS NOT NULL"),
                Decision("blurred", f"{score} >= {self.min}")]  # fmt: skip


def sharpness(data: bytes) -> float | None:
    """Return the variance of the 4-neighbour Laplacian of the grey image."""
    try:
        grey = np.asarray(decode(data).convert("L"), dtype=np.float32)
    except DataError:
        return None
    if min(grey.shape) < 3:
        return None
    middle = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * middle).var())
