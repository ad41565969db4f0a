"""Metrics and their uncertainty, on plain arrays.

A rank is the number of candidates that score higher than the right one; among equal scores
the lower index comes first. So every number follows from the scores alone, ties included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
_Z = 1.959963984540054  # the normal distribution's 97.5 % quantile
_BLOCK = 2_000_000


@dataclass(frozen=True)
class Uncertainty:
    """A 95 % interval of a metric over resampled test samples, and its standard error."""

    interval: tuple[float, float]
    standard_error: float
    method: str

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "interval": list(self.interval),
            "standard_error": self.standard_error,
            "method": self.method,
            "level": LEVEL,
        }


def ranks(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the rank (0 is best) of column ``right[i]`` in each row of ``scores`` (n, m)."""
    best = scores[np.arange(len(scores)), right][:, None]
    earlier = np.arange(scores.shape[1])[None, :] < right[:, None]
    return ((scores > best) | ((scores == best) & earlier)).sum(axis=1)


def recall_at(rank: np.ndarray, k: int) -> float:
    """Return the share of samples whose right answer is among the first ``k``."""
    return float(np.mean(rank < k))


def mean_per_class_recall(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the mean over the classes present of the share of each that is recognised."""
    total = np.bincount(labels)
    hits = np.bincount(labels[labels == predictions], minlength=len(total))
    present = total > 0
    return float(np.mean(hits[present] / total[present]))


def wilson(hits: int, n: int) -> Uncertainty:
    """Return Wilson's interval of a share: sound at 0 and 1, where resampling sees no spread."""
    p, z2 = hits / n, _Z * _Z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    interval = (max(0.0, centre - half), min(1.0, centre + half))
    return Uncertainty(interval, half / _Z, "wilson")


def bootstrap(
    counts: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> Uncertainty:
    """Return the percentile interval of a statistic over resampled samples.

    Samples that count alike are one cell: ``counts`` (g,) says how many fell into each, and
    ``statistic`` maps resampled counts (r, g) to values (r,). Drawing counts from the
    multinomial distribution is exactly drawing samples with replacement, without the loop.
    """
    total = int(counts.sum())
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // len(counts))
    values = np.concatenate(
        [
            statistic(rng.multinomial(total, counts / total, size=min(step, RESAMPLES - start)))
            for start in range(0, RESAMPLES, step)
        ]
    )
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    spread = float(np.std(values, ddof=1))
    return Uncertainty((float(low), float(high)), spread, "bootstrap")


def mean_per_class_recall_uncertainty(
    labels: np.ndarray, predictions: np.ndarray, seed: int = 0
) -> Uncertainty:
    """Return the bootstrap uncertainty of :func:`mean_per_class_recall` over samples."""
    classes = int(labels.max()) + 1
    hit = (labels == predictions).astype(np.int64)
    counts = np.bincount(labels * 2 + hit, minlength=2 * classes)

    def statistic(resampled: np.ndarray) -> np.ndarray:
        cells = resampled.reshape(len(resampled), classes, 2)
        total = cells.sum(axis=2)
        recall = np.divide(cells[:, :, 1], total, out=np.zeros(total.shape), where=total > 0)
        return recall.sum(axis=1) / (total > 0).sum(axis=1)

    return bootstrap(counts, statistic, seed)


def mean_recall_uncertainty(
    image_hits: np.ndarray, caption_hits: np.ndarray, captions: np.ndarray, seed: int = 0
) -> Uncertainty:
    """Return the bootstrap uncertainty, over images, of the mean of both retrieval recalls.

    Per image: whether one of its captions was found (0 or 1), how many of its captions found
    it, and how many captions it has. Captions of one image are resampled together, since
    they are not independent.
    """

    def statistic(weights: np.ndarray) -> np.ndarray:
        to_text = weights @ image_hits / weights.sum(axis=1)
        to_image = weights @ caption_hits / (weights @ captions)
        return 0.5 * (to_text + to_image)

    return bootstrap(np.ones(len(image_hits), np.int64), statistic, seed)
