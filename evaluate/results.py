"""Results on disk and what may be concluded from them.

A line of ``eval_results.jsonl`` is ``{"key", "dataset", "metrics"}`` as DataComp writes it,
plus ``provenance`` and ``uncertainty``. DataComp's own files are read too.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, MissingError, UsageError, suggest
from .metrics import interval, unpack
from .tasks import Suite, Task, load_tasks

RESULTS = "eval_results.jsonl"
LISTED = 5
MAX_LINE_BYTES = 1 << 20

# 97.5 % quantiles of Student's t distribution for 1 to 30 degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179,
      2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064,
      2.060, 2.056, 2.052, 2.048, 2.045, 2.042)  # fmt: skip
_NORMAL = 1.960


@dataclass(frozen=True)
class Result:
    """One task's result for one model."""

    key: str
    dataset: str
    metrics: dict[str, float | None]
    provenance: dict[str, Any] = field(default_factory=dict)
    uncertainty: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float | None:
        """Return the main metric, None where the task has none."""
        return self.metrics.get("main_metric")

    @property
    def standard_error(self) -> float | None:
        """Return the main metric's standard error over test samples, None if not recorded."""
        error = self.uncertainty.get("standard_error")
        return float(error) if isinstance(error, int | float) else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the main metric's 95 % interval, None if not recorded."""
        found = self.uncertainty.get("interval")
        return (float(found[0]), float(found[1])) if found else None

    @property
    def replicates(self) -> np.ndarray | None:
        """Return the main metric on bootstrap resamples, None if not recorded."""
        found = self.uncertainty.get("replicates")
        return unpack(found) if found else None

    @property
    def set_aside(self) -> int:
        """Return how many of the task's samples could not be used."""
        return int(self.provenance.get("set_aside", 0))

    def to_dict(self) -> dict[str, Any]:
        """Return the line of the results file."""
        return {
            "key": self.key,
            "dataset": self.dataset,
            "metrics": self.metrics,
            "provenance": self.provenance,
            "uncertainty": self.uncertainty,
        }


def read_results(path: Path | str) -> dict[str, Result]:
    """Read a results file, or that of a run's directory; the last line of a task counts.

    A torn last line, as a killed writer leaves it, is not there yet. Raises MissingError
    without the file and DataError, naming the line, for what is no result.
    """
    path = Path(path)
    file = path / RESULTS if path.is_dir() else path
    if not file.is_file():
        raise MissingError(f"no results at {file}; {_instead(path)}")
    results: dict[str, Result] = {}
    with file.open("rb") as lines:
        number = 0
        while line := lines.readline(MAX_LINE_BYTES):
            number += 1
            if not line.endswith(b"\n"):
                if len(line) == MAX_LINE_BYTES:
                    raise DataError(f"{file}: line {number}: over {MAX_LINE_BYTES:,} bytes")
                break
            if line.strip():
                result = _parse(line, f"{file}: line {number}")
                results[result.key] = result
    return results


def _instead(path: Path) -> str:
    """Say which results lie in a folder that is no evaluated run, or how to make some."""
    if path.is_dir():
        runs = sorted(str(file.parent) for file in path.glob(f"*/{RESULTS}"))
        files = sorted(str(file) for file in path.glob(f"*_{RESULTS.removeprefix('eval_')}"))
        if found := runs or files:
            return f"name what is there: {' '.join(found[:LISTED])}{' ...' * (len(found) > LISTED)}"
    return "run 'datacomp evaluate' first"


def _parse(line: bytes, where: str) -> Result:
    try:
        # DataComp's own files hold bare NaN where a group is empty, which is not JSON.
        found = json.loads(line, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: not JSON; the file is damaged") from None
    if not isinstance(found, dict):
        raise DataError(f"{where}: expected an object")
    key, dataset, metrics = (found.get(name) for name in ("key", "dataset", "metrics"))
    if not isinstance(key, str) or not isinstance(dataset, str) or not isinstance(metrics, dict):
        raise DataError(f"{where}: expected key, dataset and metrics")
    for name, value in metrics.items():
        if value is not None and not _is_number(value):
            raise DataError(f"{where}: metric {name[:80]!r} is not a number")
    extra = [found.get(name) or {} for name in ("provenance", "uncertainty")]
    for name, value in zip(("provenance", "uncertainty"), extra, strict=True):
        if not isinstance(value, dict):
            raise DataError(f"{where}: {name} is not an object")
    interval = extra[1].get("interval")
    if interval is not None and not (
        isinstance(interval, list) and len(interval) == 2 and all(map(_is_number, interval))
    ):
        raise DataError(f"{where}: interval is not two numbers")
    replicates = extra[1].get("replicates")
    if replicates is not None:
        try:
            unpack(replicates)
        except (ValueError, TypeError):
            raise DataError(f"{where}: replicates are not packed numbers") from None
    if not isinstance(extra[0].get("set_aside", 0), int):
        raise DataError(f"{where}: set_aside is not a number")
    return Result(key, dataset, metrics, *extra)


def _is_number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and math.isfinite(value)


TELLING = "Average without near-chance tasks"
"""The average of the tasks on which differences say something."""
ABOVE_CHANCE = "Average above chance"
"""The average of (score - chance) / (1 - chance): 0 is guessing, 1 is perfect."""


@dataclass(frozen=True)
class GroupScore:
    """The mean main metric of a group; ``missing`` tasks are not in it.

    The 95 % ``interval`` and the ``replicates`` behind it are None unless all of its tasks have
    replicates.
    """

    value: float | None
    standard_error: float | None
    keys: tuple[str, ...]
    missing: tuple[str, ...]
    interval: tuple[float, float] | None = None
    replicates: np.ndarray | None = field(default=None, compare=False, repr=False)


def group_names(suite: Suite) -> tuple[str, ...]:
    """Return what :func:`group_score` can average: the suite's groups, and what follows of them."""
    tasks = [load_tasks()[key] for key in suite.groups["Average"]]
    derived = [TELLING] if any(task.near_chance for task in tasks) else []
    derived += [ABOVE_CHANCE] if all(task.chance is not None for task in tasks) else []
    return (*suite.groups, *derived)


def group_score(
    results: Mapping[str, Result], suite: Suite, group: str = "Average", partial: bool = False
) -> GroupScore:
    """Average the main metrics of a suite's group, every task counting the same.

    Refuses with MissingError, naming them, when tasks are missing, unless ``partial``; then
    the mean is over those present (None without any). Raises DataError for a result of
    another version of its task: such numbers do not belong together.
    """
    names = group_names(suite)
    if group not in names:
        raise UsageError(
            f"suite {suite.name} has no group {group!r}{suggest(group, list(names))}; "
            f"there are: {', '.join(names)}"
        )
    tasks = load_tasks()
    keys = suite.groups.get(group, suite.groups["Average"])
    if group == TELLING:
        keys = tuple(key for key in keys if not tasks[key].near_chance)
    have = {key: results[key] for key in keys if key in results and results[key].value is not None}
    missing = tuple(key for key in keys if key not in have)
    if missing and not partial:
        raise MissingError(
            f"{group} of suite {suite.name} needs {len(keys)} tasks, {len(missing)} missing: "
            f"{', '.join(missing)}; ask for a partial average to leave them out"
        )
    for key, result in have.items():
        _check_version(result, tasks[key])
    above = {key: tasks[key].chance or 0.0 if group == ABOVE_CHANCE else 0.0 for key in have}
    return _mean(have, above, keys, missing)


def _check_version(result: Result, task: Task) -> None:
    version = result.provenance.get("task_version")
    if version is not None and version != task.version:
        raise DataError(
            f"{task.key} was evaluated as version {version} of the task, the list has version "
            f"{task.version}; evaluate it again"
        )


def _mean(
    have: Mapping[str, Result],
    above: Mapping[str, float],
    keys: tuple[str, ...],
    missing: tuple[str, ...],
) -> GroupScore:
    """Average results, each stretched so that ``above`` is 0 and 1 stays 1."""
    values: list[float] = []
    errors: list[float] = []
    drawn: list[np.ndarray] = []
    for key, result in have.items():
        zero = above[key]
        values.append(((result.value or 0.0) - zero) / (1 - zero))
        if result.standard_error is not None:
            errors.append(result.standard_error / (1 - zero))
        if result.replicates is not None:
            drawn.append((result.replicates - zero) / (1 - zero))
    replicates = np.mean(drawn, axis=0) if drawn and len(drawn) == len(values) else None
    known = bool(errors) and len(errors) == len(values)
    return GroupScore(
        value=statistics.fmean(values) if values else None,
        standard_error=math.hypot(*errors) / len(errors) if known else None,
        keys=keys,
        missing=missing,
        interval=None if replicates is None else interval(replicates),
        replicates=replicates,
    )


@dataclass(frozen=True)
class Estimate:
    """What several seeds say: mean, its standard error, their number and their spread.

    ``deviation`` is the sample standard deviation over seeds, None for a single seed.
    """

    mean: float
    standard_error: float | None
    n: int
    deviation: float | None


def combine(values: Sequence[float], standard_error: float | None = None) -> Estimate:
    """Combine the scores of one dataset's seeds.

    With two seeds or more the standard error is their sample standard deviation / sqrt(n).
    With one it is ``standard_error``, the uncertainty from the test samples alone: it knows
    nothing of how training varies.
    """
    if not values:
        raise UsageError("no scores to combine")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Estimate(mean, standard_error, 1, None)
    deviation = statistics.stdev(values)
    return Estimate(mean, deviation / math.sqrt(len(values)), len(values), deviation)


def pooled_spread(estimates: Sequence[Estimate]) -> tuple[float | None, int]:
    """Return the standard deviation over seeds that several datasets share, and its freedom.

    With two or three seeds each dataset's own spread is hardly known; taken together (the root
    of their mean variance, weighted by n - 1, as in an analysis of variance) they know it
    better. It assumes that training varies alike on all of them. None without repeated seeds.
    """
    parts = [(e.deviation, e.n - 1) for e in estimates if e.deviation is not None]
    freedom = sum(n for _, n in parts)
    if not freedom:
        return None, 0
    return math.sqrt(sum(deviation**2 * n for deviation, n in parts) / freedom), freedom


def is_tie_pooled(a: Estimate, b: Estimate, spread: float | None, freedom: int) -> bool:
    """Tell whether two datasets are too close to call, given the spread all datasets share.

    A tie when ``|a.mean - b.mean| <= t * spread * sqrt(1 / a.n + 1 / b.n)``, t being
    Student's 97.5 % quantile at ``freedom``. Without a spread everything is a tie.
    """
    if spread is None:
        return True
    error = spread * math.sqrt(1 / a.n + 1 / b.n)
    return abs(a.mean - b.mean) <= t_quantile(freedom) * error


def tied_best(estimates: Mapping[str, Estimate]) -> frozenset[str]:
    """Return the datasets of a column that no other beats: the highest mean and its ties.

    Takes one column (a task, or the average) as dataset name -> :func:`combine` of its seeds,
    higher being better; a dataset without a score is left out of the mapping. The rule is
    :func:`is_tie_pooled` with the column's own :func:`pooled_spread`, so with one seed each,
    where no spread is known, all of them are returned.
    """
    if not estimates:
        return frozenset()
    spread, freedom = pooled_spread(list(estimates.values()))
    best = max(estimates.values(), key=lambda estimate: estimate.mean)
    return frozenset(
        name
        for name, estimate in estimates.items()
        if is_tie_pooled(best, estimate, spread, freedom)
    )


def t_quantile(freedom: float) -> float:
    """Return Student's 97.5 % quantile, degrees of freedom rounded down (the careful side)."""
    if freedom >= len(_T) + 1:
        return _NORMAL if freedom > 200 else _T[-1]
    return _T[max(int(freedom + 1e-9), 1) - 1]


def check_comparable(runs: Mapping[str, Mapping[str, Result]]) -> None:
    """Raise DataError if two runs evaluated a task on different data or versions of it."""
    seen: dict[str, tuple[str, Any]] = {}
    for run, results in runs.items():
        for key, result in results.items():
            mark = [result.provenance.get(name) for name in ("data", "task_version")]
            if mark == [None, None]:
                continue  # a line of DataComp's own does not say
            first, expected = seen.setdefault(key, (run, mark))
            if mark != expected:
                raise DataError(
                    f"{key}: {run} was evaluated on other data than {first}; "
                    "evaluate both on the same evaluation sets"
                )
