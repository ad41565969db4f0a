"""Who stands where: verified submissions and the paper's rows, ranked, ties shown as ties."""

from __future__ import annotations

import functools
import re
import statistics
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics import interval
from ..results import TELLING, Estimate, Result, combine, group_score, pooled_spread, t_quantile
from ..scales import SCALES
from ..tasks import Suite, load_tasks
from .check import Report
from .make import suite_of
from .record import Record

PUBLISHED_NOISE = 0.006
"""By how much the average of 38 differs from seed to seed at most, as DataComp's README states;
the spread assumed at DataComp's scales where no submission has several seeds."""
_COLUMNS = ("ImageNet", "ImageNet dist. shifts", "VTAB", "Retrieval", "Average")
_NORMAL = 1.96


@dataclass(frozen=True)
class Score:
    """A task's score: the mean over the runs, and its uncertainty from the test images."""

    value: float
    standard_error: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Row:
    """One line of a leaderboard: a verified submission, or a published baseline."""

    id: str
    method: str
    author: str
    track: str
    scale: str
    size: int
    averages: Mapping[str, float]
    estimate: Estimate
    tasks: Mapping[str, Score] = field(default_factory=dict)
    replicates: np.ndarray | None = field(default=None, repr=False)
    record: Record | None = None
    note: str = ""
    passed: Sequence[str] = ()
    not_replayed: Mapping[str, str] = field(default_factory=dict)

    @property
    def average(self) -> float:
        """Return what the row is ranked by."""
        return self.estimate.mean

    @property
    def is_reference(self) -> bool:
        """Tell whether the row is cited, not submitted."""
        return self.record is None


@dataclass(frozen=True)
class Place:
    """A row's rank, 1 being best, and the rows it ties with (their places in the table)."""

    rank: int
    ties: tuple[int, ...]


@functools.cache
def _references() -> dict[str, Any]:
    with (Path(__file__).parent / "references.toml").open("rb") as file:
        return tomllib.load(file)


@functools.cache
def _reference_tasks() -> dict[str, Any]:
    with (Path(__file__).parent / "reference_tasks.toml").open("rb") as file:
        return tomllib.load(file)


def citation() -> tuple[str, str]:
    """Return where the published rows stand: the citation and its address."""
    return _references()["citation"], _references()["url"]


def task_citation() -> tuple[str, str]:
    """Return where the published rows' scores of single tasks stand, and its address."""
    return _reference_tasks()["citation"], _reference_tasks()["url"]


def compute_of(scale: str) -> float | None:
    """Return the multiply-accumulates of one training run at a scale, None if not published."""
    return _references()["compute"].get(scale)


def reference_rows(scale: str) -> list[Row]:
    """Return the baselines published at a scale, with their tasks where these are published too."""
    single = _reference_tasks()
    rows: list[Row] = []
    for method, size, *values, note in _references()["rows"].get(scale, []):
        averages: dict[str, float] = dict(zip(_COLUMNS, values, strict=True))
        scores = single["rows"].get(scale, {}).get(method)
        tasks: dict[str, Score] = {}
        if scores is not None:
            tasks = {k: Score(v) for k, v in zip(single["tasks"], scores, strict=True)}
            averages[TELLING] = statistics.fmean(
                score.value for key, score in tasks.items() if not load_tasks()[key].near_chance
            )
        slug = re.sub(r"[^a-z0-9]+", "-", method.lower()).strip("-")
        rows.append(
            Row(
                f"paper-{scale}-{slug}", method, "Gadre et al. 2023", "filtering", scale, size,
                averages, Estimate(averages["Average"], None, 1, None), tasks, note=note,
            )
        )  # fmt: skip
    return rows


def row_of(report: Report) -> Row:
    """Return the line of an accepted submission."""
    record = report.record
    assert record is not None
    assert report.accepted
    suite = suite_of(record.scale_name)
    averages = {
        name: statistics.fmean(run.aggregates[name] for run in record.runs)
        for name in record.runs[0].aggregates
    }
    scores = [group_score(results, suite) for results in report.results]
    values = [score.value for score in scores if score.value is not None]
    drawn = [score.replicates for score in scores if score.replicates is not None]
    return Row(
        record.id, record.method, record.author, record.track, record.scale_name,
        record.dataset_size, averages, combine(values, scores[0].standard_error),
        _tasks(report.results, suite), np.mean(drawn, axis=0) if drawn else None, record,
        passed=report.passed, not_replayed=report.not_replayed,
    )  # fmt: skip


def _tasks(runs: Sequence[Mapping[str, Result]], suite: Suite) -> dict[str, Score]:
    scores: dict[str, Score] = {}
    for key in suite.groups["Average"]:
        found = [run[key] for run in runs]
        value = statistics.fmean(result.value or 0.0 for result in found)
        if len(found) == 1:
            scores[key] = Score(value, found[0].standard_error, found[0].interval)
            continue
        drawn = np.mean([r.replicates for r in found if r.replicates is not None], axis=0)
        scores[key] = Score(value, float(np.std(drawn, ddof=1)), interval(drawn))
    return scores


def ranked(rows: Sequence[Row]) -> tuple[list[Row], list[Place]]:
    """Order the rows of one scale by their average, and say which of them tie.

    Two rows tie when they differ by no more than what other test images and other seeds would
    change: ``|a - b| <= sqrt(image² + seed²)``. ``image`` is 1.96 standard deviations of the
    paired bootstrap of their difference (nothing for cited rows, which have no replicates).
    ``seed`` is ``t * s * sqrt(1/m + 1/n)`` with the spread s that the submissions of several
    seeds share; where there are none it is PUBLISHED_NOISE at DataComp's scales, and unknown,
    which makes everything a tie, at the demo's. A row's rank is one more than the number of rows
    that are better and do not tie with it, and never better than that of a row above it.
    """
    ordered = sorted(rows, key=lambda row: (-row.average, row.id))
    if not ordered:
        return [], []
    tie = ties(ordered)
    better = np.tri(len(ordered), k=-1, dtype=bool) & _lower(ordered)
    ranks = np.maximum.accumulate(1 + (better & ~tie).sum(axis=1))
    return ordered, [
        Place(int(rank), tuple(np.flatnonzero(line).tolist()))
        for rank, line in zip(ranks, tie, strict=True)
    ]


def _lower(ordered: Sequence[Row]) -> np.ndarray:
    """Return where row i has a lower average than row j, bool (n, n)."""
    means = np.array([row.average for row in ordered])
    return means[:, None] < means[None, :]


def ties(rows: Sequence[Row]) -> np.ndarray:
    """Return which rows of one scale tie, bool (n, n); see :func:`ranked`. No row ties itself."""
    means = np.array([row.average for row in rows])
    image = _NORMAL**2 * _variance_of_differences(rows)
    spread, freedom = pooled_spread([row.estimate for row in rows])
    seeds = np.array([row.estimate.n for row in rows])
    if spread is not None:
        shared = 1 / seeds[:, None] + 1 / seeds[None, :]
        seed = (t_quantile(freedom) * spread) ** 2 * shared
    else:
        known = rows[0].scale != "demo"
        seed = np.full(image.shape, PUBLISHED_NOISE**2 if known else np.inf)
    found = np.abs(means[:, None] - means[None, :]) <= np.sqrt(image + seed)
    np.fill_diagonal(found, False)
    return found


def _variance_of_differences(rows: Sequence[Row]) -> np.ndarray:
    """Return the variance of each difference over paired resamples, 0 where not known, (n, n)."""
    known = [i for i, row in enumerate(rows) if row.replicates is not None]
    variance = np.zeros((len(rows), len(rows)))
    if known:
        drawn = np.stack([r for row in rows if (r := row.replicates) is not None])
        centred = drawn - drawn.mean(axis=1, keepdims=True)
        covariance = centred @ centred.T / (drawn.shape[1] - 1)
        own = np.diag(covariance)
        variance[np.ix_(known, known)] = np.maximum(own[:, None] + own[None, :] - 2 * covariance, 0)
        for i, row in enumerate(rows):
            if row.replicates is None:
                variance[i, known] = variance[known, i] = own
    return variance


def by_scale(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each scale with the published ones; scales without any are left out."""
    found = {
        scale: [row for row in rows if row.scale == scale] + reference_rows(scale)
        for scale in SCALES
    }
    return {scale: members for scale, members in found.items() if members}
