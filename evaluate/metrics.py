"""Metrics and their uncertainty, on plain arrays.

A rank is the number of candidates that score higher than the right one; among equal scores
the lower index comes first. So every number follows from the scores alone, ties included.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
_Z = 1.959963984540054  # the normal distribution's 97.5 % quantile
_BLOCK = 2_000_000
_REPLICATE = np.dtype("<f4")


@dataclass(frozen=True)
class Uncertainty:
    """A 95 % interval of a metric over resampled test samples, and its standard error.

    ``replicates`` are the metric's values on RESAMPLES resamples. The seed of a task draws the
    same resamples for every model, so replicates of two models can be subtracted one by one.
    """

    interval: tuple[float, float]
    standard_error: float
    method: str
    replicates: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "interval": list(self.interval),
            "standard_error": self.standard_error,
            "method": self.method,
            "level": LEVEL,
            "replicates": pack(self.replicates),
        }


def pack(replicates: tuple[float, ...]) -> str:
    """Write replicates as text: little-endian float32 in base64."""
    return base64.b64encode(np.array(replicates, _REPLICATE).tobytes()).decode()


def unpack(text: str) -> np.ndarray:
    """Return the replicates, float64 (RESAMPLES,), that :func:`pack` wrote; ValueError if not."""
    values = np.frombuffer(base64.b64decode(text, validate=True), _REPLICATE).astype(np.float64)
    if len(values) != RESAMPLES or not np.isfinite(values).all():
        raise ValueError(f"expected {RESAMPLES} finite numbers")
    return values


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


def share_uncertainty(hits: np.ndarray, seed: int) -> Uncertainty:
    """Return Wilson's interval of the share of ``hits`` (n,), and its replicates."""
    drawn = bootstrap(hits, 2, lambda counts: counts[:, 1] / len(hits), seed)
    return replace(wilson(int(hits.sum()), len(hits)), replicates=drawn.replicates)


def bootstrap(
    cells: np.ndarray, count: int, statistic: Callable[[np.ndarray], np.ndarray], seed: int
) -> Uncertainty:
    """Return the percentile interval of a statistic over resampled samples.

    Samples that count alike share a cell: ``cells`` (n,) numbers them, below ``count``, and
    ``statistic`` maps how many samples were drawn of each, (r, count), to values (r,). Which
    samples are drawn follows from n and the seed alone.
    """
    rng = np.random.default_rng(seed)
    cells = cells.astype(np.int64)
    step = max(1, _BLOCK // count)
    parts: list[np.ndarray] = []
    for start in range(0, RESAMPLES, step):
        counts = [
            np.bincount(cells[rng.integers(0, len(cells), len(cells))], minlength=count)
            for _ in range(start, min(start + step, RESAMPLES))
        ]
        parts.append(statistic(np.array(counts)))
    values = np.concatenate(parts)
    spread = float(np.std(values, ddof=1))
    return Uncertainty(interval(values), spread, "bootstrap", tuple(values.tolist()))


def interval(replicates: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of bootstrap replicates."""
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mean_per_class_recall_uncertainty(
    labels: np.ndarray, predictions: np.ndarray, seed: int
) -> Uncertainty:
    """Return the bootstrap uncertainty of :func:`mean_per_class_recall` over samples."""
    classes = int(labels.max()) + 1

    def statistic(resampled: np.ndarray) -> np.ndarray:
        cells = resampled.reshape(len(resampled), classes, 2)
        total = cells.sum(axis=2)
        recall = np.divide(cells[:, :, 1], total, out=np.zeros(total.shape), where=total > 0)
        return recall.sum(axis=1) / (total > 0).sum(axis=1)

    return bootstrap(labels * 2 + (labels == predictions), 2 * classes, statistic, seed)


def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the mean over the classes present of the harmonic mean of precision and recall."""
    classes = int(max(labels.max(), predictions.max())) + 1
    total = np.bincount(labels, minlength=classes)
    given = np.bincount(predictions, minlength=classes)
    hits = np.bincount(labels[labels == predictions], minlength=classes)
    present = total > 0
    return float(np.mean(2 * hits[present] / (total + given)[present]))


def macro_f1_uncertainty(labels: np.ndarray, predictions: np.ndarray, seed: int) -> Uncertainty:
    """Return the bootstrap uncertainty of :func:`macro_f1` over samples."""
    classes = int(max(labels.max(), predictions.max())) + 1
    pairs, cells = np.unique(labels * classes + predictions, return_inverse=True)
    label, prediction = pairs // classes, pairs % classes

    def by_class(counts: np.ndarray, of: np.ndarray) -> np.ndarray:
        """Add up columns that belong to one class: (r, pairs) to (r, classes)."""
        order = np.argsort(of, kind="stable")
        known, starts = np.unique(of[order], return_index=True)
        sums = np.zeros((len(counts), classes), counts.dtype)
        sums[:, known] = np.add.reduceat(counts[:, order], starts, axis=1)
        return sums

    def statistic(counts: np.ndarray) -> np.ndarray:
        total, given = by_class(counts, label), by_class(counts, prediction)
        hits = by_class(np.where(label == prediction, counts, 0), label)
        score = np.divide(2 * hits, total + given, out=np.zeros(total.shape), where=total > 0)
        return score.sum(axis=1) / (total > 0).sum(axis=1)

    return bootstrap(cells, len(pairs), statistic, seed)


def mean_recall_uncertainty(
    image_hits: np.ndarray, caption_hits: np.ndarray, captions: np.ndarray, seed: int
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

    return bootstrap(np.arange(len(image_hits)), len(image_hits), statistic, seed)


def mean_uncertainty(values: np.ndarray, seed: int) -> Uncertainty:
    """Return the bootstrap uncertainty of the mean of ``values`` (n,)."""
    kinds, cells = np.unique(values, return_inverse=True)
    return bootstrap(cells, len(kinds), lambda counts: counts @ kinds / len(values), seed)
