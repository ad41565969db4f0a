"""From scale to scale: whether rankings agree, and what a power law foretells.

Fits follow "Scaling Vision Transformers" (arXiv 2106.04560): the error 1 - score falls as a power
of compute. Its saturating form has four parameters; a method has at most four scales here, so the
pure power law is fitted, by least squares on logarithms, and told with its uncertainty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..results import t_quantile

RESAMPLES = 1000
FEW = 6
"""Methods below which resampling them says nothing of a correlation."""


@dataclass(frozen=True)
class PowerLaw:
    """``error = exp(intercept) * compute ** slope``, fitted to ``n`` points.

    ``deviation`` is the residual standard deviation of the logarithm of the error, None for two
    points, through which every such law goes.
    """

    intercept: float
    slope: float
    n: int
    deviation: float | None
    centre: float
    spread: float

    def score(self, compute: float) -> float:
        """Return the score foretold at a compute."""
        return 1 - math.exp(self.intercept + self.slope * math.log(compute))

    def interval(self, compute: float) -> tuple[float, float] | None:
        """Return the 95 % prediction interval of the score at a compute, None if not known."""
        if self.deviation is None:
            return None
        x = math.log(compute)
        leverage = 1 + 1 / self.n + (x - self.centre) ** 2 / self.spread
        half = t_quantile(self.n - 2) * self.deviation * math.sqrt(leverage)
        middle = self.intercept + self.slope * x
        return 1 - math.exp(middle + half), 1 - math.exp(middle - half)


def fit_power_law(points: Sequence[tuple[float, float]]) -> PowerLaw | None:
    """Fit (compute, score) points; None with fewer than two computes or a score not below 1."""
    if len({x for x, _ in points}) < 2 or any(y >= 1 or x <= 0 for x, y in points):
        return None
    x = np.log([compute for compute, _ in points])
    y = np.log([1 - score for _, score in points])
    centre, spread = float(x.mean()), float(((x - x.mean()) ** 2).sum())
    slope = float(((x - centre) * (y - y.mean())).sum()) / spread
    intercept = float(y.mean()) - slope * centre
    residuals = y - intercept - slope * x
    free = len(points) - 2
    deviation = math.sqrt(float((residuals**2).sum()) / free) if free else None
    return PowerLaw(intercept, slope, len(points), deviation, centre, spread)


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return the rank correlation of two lists, ties sharing their mean rank; None if undefined."""
    if len(a) < 3:
        return None
    return _pearson(average_ranks(np.asarray(a)), average_ranks(np.asarray(b)))


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value from 1 on, float (n,); equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def _pearson(a: np.ndarray, b: np.ndarray) -> float | None:
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / norm if norm > 0 else None


@dataclass(frozen=True)
class Agreement:
    """The rank correlation of two scales over the methods both have, with a 95 % interval.

    The interval is None below FEW methods.
    """

    first: str
    second: str
    methods: int
    correlation: float | None
    interval: tuple[float, float] | None


def agreement(first: str, second: str, a: Mapping[str, float], b: Mapping[str, float]) -> Agreement:
    """Compare the averages of two scales, method by method.

    The interval is the percentile interval over resampled methods, with a fixed seed.
    """
    shared = sorted(a.keys() & b.keys())
    x, y = np.array([a[k] for k in shared]), np.array([b[k] for k in shared])
    whole = spearman(x.tolist(), y.tolist())
    interval = None
    if whole is not None and len(shared) >= FEW:
        rng = np.random.default_rng(0)
        drawn = [rng.integers(0, len(shared), len(shared)) for _ in range(RESAMPLES)]
        values = [v for at in drawn if (v := spearman(x[at].tolist(), y[at].tolist())) is not None]
        low, high = np.quantile(values, [0.025, 0.975])
        interval = float(low), float(high)
    return Agreement(first, second, len(shared), whole, interval)


def task_correlation(scores: np.ndarray) -> np.ndarray:
    """Return the rank correlation of every two tasks, float (t, t), over rows of scores (n, t).

    NaN where a task has the same score in every row.
    """
    ranks = np.apply_along_axis(average_ranks, 0, scores)
    centred = ranks - ranks.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return centred.T @ centred / np.outer(norm, norm)
