"""What merging tokens gains and costs: measured on a few samples, never promised."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..clip_model import ClipModel

SAMPLE = 128
BATCH = 32
KEPT = 0.3
"""The fraction that DataComp's own filters keep."""


@dataclass(frozen=True)
class Drift:
    """The model with merged tokens beside the one without, on ``samples`` images.

    Images a second of both, their forward passes alone; the similarity of image and caption:
    mean of the change, mean and largest of its absolute value; the least cosine of the two
    embeddings of an image; and which share of the 30 % with the best scores is the same.
    """

    samples: int
    rate: float
    rate_unmerged: float
    mean_change: float
    mean_absolute_change: float
    largest_change: float
    least_cosine: float
    same_best: float

    @property
    def speedup(self) -> float:
        """How many times as many images a second."""
        return self.rate / self.rate_unmerged

    def line(self, r: int) -> str:
        """Say it in one line."""
        return (
            f"token merging, {r} a layer, on {self.samples} images: {self.speedup:.2f}x as fast "
            f"({self.rate:,.1f} images/s, without {self.rate_unmerged:,.1f}); scores change by "
            f"{self.mean_absolute_change:.4f} (mean {self.mean_change:+.4f}, at most "
            f"{self.largest_change:.4f}); of the best {KEPT:.0%} by score {self.same_best:.0%} "
            "are the same"
        )


def measure_drift(
    plain: ClipModel, merged: ClipModel, images: list[Any], texts: list[str]
) -> Drift | None:
    """Embed some prepared images with both models in turn; None where there are none."""
    if not images:
        return None
    batches = [images[n : n + BATCH] for n in range(0, len(images), BATCH)]
    seconds = [0.0, 0.0]
    found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for model in (plain, merged):
        model.encode_tensors(batches[0])  # warm
    for batch in batches:
        for place, model in enumerate((plain, merged)):
            started = time.perf_counter()
            found[place].append(model.encode_tensors(batch))
            seconds[place] += time.perf_counter() - started
    captions = plain.encode_texts(texts, BATCH)
    before, after = map(np.concatenate, found)
    old, new = (np.einsum("nd,nd->n", one, captions) for one in (before, after))
    change = (new - old).astype(np.float64)
    best = max(1, int(len(old) * KEPT))
    same = len(set(np.argsort(-old)[:best].tolist()) & set(np.argsort(-new)[:best].tolist()))
    return Drift(
        samples=len(images),
        rate=len(images) / seconds[1],
        rate_unmerged=len(images) / seconds[0],
        mean_change=float(change.mean()),
        mean_absolute_change=float(np.abs(change).mean()),
        largest_change=float(np.abs(change).max()),
        least_cosine=float(np.einsum("nd,nd->n", before, after).min()),
        same_best=same / best,
    )
