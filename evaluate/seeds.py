"""Several runs of one recipe on one dataset, that differ in nothing but the seed, as one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..durable import digest
from ..pools.clip_runs import RUN_INFO, read_run
from .results import RESULTS, Estimate, Result, combine, group_names, group_score
from .tasks import Suite

_ALIKE = (
    "scale", "model", "data_weights", "precision", "accumulation", "grad_clip_norm", "objective",
    "init",
)  # fmt: skip


@dataclass(frozen=True)
class Seeds:
    """What the seeds of one dataset scored, by task and by (suite, group).

    A task that only some runs have is combined over those; a group is None where a run lacks
    some of its tasks.
    """

    name: str
    runs: tuple[str, ...]
    tasks: dict[str, Estimate]
    groups: dict[tuple[str, str], Estimate | None]


def combine_seeds(
    runs: Mapping[str, Mapping[str, Result]], suites: Sequence[Suite], partial: bool = False
) -> list[Seeds]:
    """Combine the results of runs (folder or results file -> results by task), in their order.

    Runs belong together when their ``info.json`` say the same of recipe and data; results
    without one stand for themselves. ``partial`` averages the tasks that are there.
    """
    gathered: dict[str, list[str]] = {}
    for run in runs:
        gathered.setdefault(_recipe(Path(run)) or run, []).append(run)
    combined: list[Seeds] = []
    for members in gathered.values():
        found = [runs[run] for run in members]
        keys = dict.fromkeys(key for results in found for key in results)
        tasks = {key: estimate for key in keys if (estimate := _of_task(found, key)) is not None}
        groups = {
            (suite.name, group): _of_group(found, suite, group, partial)
            for suite in suites
            for group in group_names(suite)
        }
        combined.append(Seeds(_name(members), tuple(members), tasks, groups))
    return combined


def run_name(run: str) -> str:
    """Return the name of a run; a results file inside a run goes by the run."""
    path = Path(run).absolute()
    return path.parent.name if path.name == RESULTS else path.name


def run_names(runs: Sequence[str]) -> list[str]:
    """Return the names of runs; those that share one go by their paths."""
    names = [run_name(run) for run in runs]
    return [run if names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)]


def _recipe(run: Path) -> str | None:
    """Return a digest of all that two seeds have in common, None without an ``info.json``."""
    folder = run.parent if run.name == RESULTS else run
    if not (folder / RUN_INFO).is_file():
        return None
    info = {"objective": "clip", "init": None, **read_run(folder)}  # as older runs were, untold
    data: Any = info.get("data")
    pins = [source.get("fingerprint") for source in data if isinstance(source, dict)] if (
        isinstance(data, list)
    ) else []  # fmt: skip
    return digest([pins, *(info.get(key) for key in _ALIKE)]) if all(pins) and pins else None


def _of_task(found: Sequence[Mapping[str, Result]], key: str) -> Estimate | None:
    scores = [(r.value, r.standard_error) for results in found if (r := results.get(key))]
    known = [(value, error) for value, error in scores if value is not None]
    if not known:
        return None
    return combine([value for value, _ in known], known[0][1])


def _of_group(
    found: Sequence[Mapping[str, Result]], suite: Suite, group: str, partial: bool
) -> Estimate | None:
    scores = [group_score(results, suite, group, partial=True) for results in found]
    values = [score.value for score in scores if score.value is not None]
    incomplete = any(score.missing for score in scores)
    if len(values) < len(scores) or (incomplete and not partial):
        return None
    if len({score.missing for score in scores}) > 1:
        return None  # means over different tasks are no seeds of one number
    return combine(values, scores[0].standard_error)


def _name(members: Sequence[str]) -> str:
    """Return the name of a run without its seed: ``clip`` for ``clip-seed0``, ``clip-seed1``."""
    names = [run_name(run) for run in members]
    if len(names) == 1:
        return names[0]
    stems = {re.sub(r"[-_.]*(seed)?[-_.]*\d+$", "", name) for name in names}
    return next(iter(stems)) or names[0] if len(stems) == 1 else names[0]
