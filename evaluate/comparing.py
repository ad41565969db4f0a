"""Two runs side by side: the difference of each score, and whether it is one.

The same resamples of a task's test images were drawn for both, so the replicates are subtracted
one by one: what is hard for both runs cancels out, and the interval of the difference is
narrower than those of the scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .metrics import interval
from .results import Result, check_comparable, group_names, group_score
from .tasks import Suite


@dataclass(frozen=True)
class Difference:
    """``second`` - ``first`` with its 95 % interval; None where no replicates were recorded.

    ``tie`` tells whether the interval holds 0; without an interval nobody knows.
    """

    name: str
    first: float
    second: float
    interval: tuple[float, float] | None
    missing: tuple[str, ...] = ()

    @property
    def difference(self) -> float:
        """Return how much higher the second score is."""
        return self.second - self.first

    @property
    def tie(self) -> bool | None:
        """Tell whether the scores are too close to call."""
        return None if self.interval is None else self.interval[0] <= 0 <= self.interval[1]


def compare_tasks(first: Mapping[str, Result], second: Mapping[str, Result]) -> list[Difference]:
    """Compare the main metrics of the tasks that both runs have.

    Raises DataError for runs that were evaluated on different data, or have no task in common.
    """
    check_comparable({"the first run": first, "the second run": second})
    if not first.keys() & second.keys():
        raise DataError("no task in common: the runs were evaluated on other tasks")
    found: list[Difference] = []
    for key, result in first.items():
        other = second.get(key)
        if other is None or result.value is None or other.value is None:
            continue
        spread = _interval(result.replicates, other.replicates)
        found.append(Difference(key, result.value, other.value, spread))
    return found


def compare_groups(
    first: Mapping[str, Result],
    second: Mapping[str, Result],
    suite: Suite,
    partial: bool = False,
) -> list[Difference]:
    """Compare the averages of a suite's groups.

    A group that lacks tasks in a run is left out; if ``partial``, the tasks that both have are
    averaged, and the others named in ``missing``.
    """
    shared = first.keys() & second.keys()
    runs = [{key: run[key] for key in run if key in shared} for run in (first, second)]
    found: list[Difference] = []
    for group in group_names(suite):
        a, b = (group_score(run, suite, group, partial=True) for run in runs)
        if a.value is None or b.value is None or (a.missing and not partial):
            continue
        spread = _interval(a.replicates, b.replicates)
        found.append(Difference(group, a.value, b.value, spread, a.missing))
    return found


def _interval(first: np.ndarray | None, second: np.ndarray | None) -> tuple[float, float] | None:
    return None if first is None or second is None else interval(second - first)
