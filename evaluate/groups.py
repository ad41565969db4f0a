"""Accuracy by groups of samples: numbering, counting, the worst group and its uncertainty.

Groups are the combinations of some fields of the samples' metadata. As in WILDS, a field's
values count from 0 to the highest that occurs, so some groups may be empty: their count is 0
and they have no accuracy (None).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from . import metrics

MAX_GROUPS = 5000


@dataclass(frozen=True)
class Grouping:
    """The group of each sample, ``of`` (n,), and the name of each group."""

    of: np.ndarray
    names: tuple[str, ...]

    def accuracies(self, hits: np.ndarray) -> tuple[list[float | None], list[int]]:
        """Return each group's share of ``hits`` (n,), None if it is empty, and its count."""
        counts = np.bincount(self.of, minlength=len(self.names))
        found = np.bincount(self.of[hits], minlength=len(self.names))
        shares = [
            float(hit / count) if count else None for hit, count in zip(found, counts, strict=True)
        ]
        return shares, [int(count) for count in counts]


def group_by(metadata: np.ndarray, fields: Sequence[str], chosen: Sequence[str]) -> Grouping:
    """Group samples by the fields ``chosen``; ``metadata`` (n, f) has one column a field.

    The first field varies fastest; names read from the last to the first: ``race:2_gender:0``.
    A fraction is cut off, as WILDS does. Raises DataError for values that cannot number groups.
    """
    of = np.zeros(len(metadata), np.int64)
    names = [""]
    for field in chosen:
        values = metadata[:, fields.index(field)]
        low, high = float(np.min(values)), float(np.max(values))
        if not 0 <= low <= high < MAX_GROUPS:  # False for NaN too
            raise DataError(
                f"metadata field {field} holds {low:g} to {high:g}, expected 0 to {MAX_GROUPS - 1}"
            )
        of += values.astype(np.int64) * len(names)
        names = [
            f"{field}:{value}{'_' if name else ''}{name}"
            for value in range(int(high) + 1)
            for name in names
        ]
        if len(names) > MAX_GROUPS:
            raise DataError(f"metadata make {len(names):,} groups, at most {MAX_GROUPS:,}")
    return Grouping(of, tuple(names))


def group_metrics(metric: str, hits: np.ndarray, grouping: Grouping) -> dict[str, float | None]:
    """Return ``METRIC_GROUP`` and ``count_GROUP`` of every group."""
    values: dict[str, float | None] = {}
    for name, share, count in zip(grouping.names, *grouping.accuracies(hits), strict=True):
        values[f"{metric}_{name}"] = share
        values[f"count_{name}"] = count
    return values


def worst(hits: np.ndarray, grouping: Grouping, left_out: int | None = None) -> float | None:
    """Return the lowest accuracy of the groups that have samples; one may be left out."""
    shares = grouping.accuracies(hits)[0]
    known = [share for group, share in enumerate(shares) if share is not None and group != left_out]
    return min(known, default=None)


def worst_uncertainty(hits: np.ndarray, grouping: Grouping, seed: int) -> metrics.Uncertainty:
    """Return the bootstrap uncertainty of :func:`worst` over samples."""
    groups = len(grouping.names)

    def statistic(resampled: np.ndarray) -> np.ndarray:
        cells = resampled.reshape(len(resampled), groups, 2)
        total = cells.sum(axis=2)
        share = np.divide(cells[:, :, 1], total, out=np.ones(total.shape), where=total > 0)
        return share.min(axis=1)

    return metrics.bootstrap(grouping.of * 2 + hits, 2 * groups, statistic, seed)
