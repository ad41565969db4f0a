"""Gather what a study's stages found into one table: ``results.json``."""

from __future__ import annotations

import math
from statistics import NormalDist, fmean
from typing import Any

from ... import __version__
from ...evaluate.results import combine, is_tie_pooled, pooled_spread, tied_best
from ...evaluate.tasks import Task, load_suites
from .config import Study
from .scheduler import Record

_LEVEL = 0.001
"""How probable it may be that guessing alone would pass for better than chance."""
_OF_POOL = ("samples", "digest", "files", "set_aside", "defects")
"""What is told of the pool; it is named by ``digest`` or, if it links to files, by ``files``."""


def summarise(study: Study, tasks: list[Task], records: dict[str, Record]) -> dict[str, Any]:
    """Return one row per dataset, ranked by the average over tasks, ties marked as ties."""
    rows = [_row(study, dataset.name, tasks, records) for dataset in study.dataset]
    estimates = {row["name"]: combine(row["average"]["values"]) for row in rows}
    spread, freedom = pooled_spread(list(estimates.values()))
    rows.sort(key=lambda row: -row["average"]["mean"])
    for rank, row in enumerate(rows, 1):
        row["rank"] = rank
        row["tied_with"] = [
            other["name"] for other in rows
            if other is not row
            and is_tie_pooled(estimates[row["name"]], estimates[other["name"]], spread, freedom)
        ]  # fmt: skip
    pool = records["pool"].result
    return {
        "format": "datacomp-results",
        "version": 1,
        "study": {
            "name": study.study.name,
            "datacomp": __version__,
            "scale": study.train.resolved().to_dict(),
            "seeds": study.train.seeds,
            "suite": study.evaluate.suite,
            "spread": spread,
            "pool": {key: pool[key] for key in _OF_POOL if key in pool},
        },
        "tasks": [
            {
                "key": task.key, "name": task.name, "main_metric": task.main_metric,
                "chance": task.chance, "near_chance": task.near_chance, "group": task.suite,
                "best": _best_of({row["name"]: row["scores"][task.key] for row in rows}),
            }
            for task in tasks
        ],
        "datasets": rows,
        "truth": _against_truth(records),
        "best": rows[0]["name"],
        "verdict": verdict(rows, tasks),
    }  # fmt: skip


def verdict(rows: list[dict[str, Any]], tasks: list[Task]) -> str:
    """Say in one sentence whether curation won, against the dataset that keeps the whole pool."""
    best = rows[0]
    if _all_at_chance(rows, tasks):
        return (
            "No dataset does better than chance: these scores say nothing. The highest average is "
            f"{best['average']['mean']:.3f}; train longer, or on more samples."
        )
    baseline = next((row for row in rows if row["share"] == 1.0), None)
    if baseline is None or len(rows) == 1:
        return f"{best['name']} has the highest average, {best['average']['mean']:.3f}."
    if best["average"]["spread"] is None:
        return (
            f"{best['name']} has the highest average, {best['average']['mean']:.3f}; with one "
            "seed each no spread is known, so nothing is called a difference."
        )
    if best is baseline and len(best["tied_with"]) < len(rows) - 1:
        return (
            f"Curation did not win: the whole pool ({best['name']}) has the highest average, "
            f"{best['average']['mean']:.3f}."
        )
    if best is baseline:
        return (
            f"No clear winner: the whole pool ({best['name']}) has the highest average, "
            f"{best['average']['mean']:.3f}, but all others are within the spread of the seeds."
        )
    gain = best["average"]["mean"] - baseline["average"]["mean"]
    numbers = f"{best['average']['mean']:.3f} against {baseline['average']['mean']:.3f}"
    if baseline["name"] in best["tied_with"]:
        return (
            f"No clear winner: {best['name']} is {gain:.3f} ahead of the whole pool ({numbers}), "
            "which is within the spread of the seeds."
        )
    return (
        f"Curation won: {best['name']} keeps {best['share']:.0%} of the pool and is {gain:.3f} "
        f"ahead of the whole pool ({numbers}), by more than the spread of the seeds."
    )


def _all_at_chance(rows: list[dict[str, Any]], tasks: list[Task]) -> bool:
    """Tell whether guessing explains every score, where it is known what guessing scores.

    Each dataset may show that it knows something on any task or over all of them together. Only
    of a share of images known right is the error of guessing that of a coin.
    """
    known = [
        (task.key, task.chance, task.size)
        for task in tasks
        if task.chance is not None and task.main_metric in ("acc1", "mean_per_class_recall")
    ]
    if not known:
        return False
    limit = NormalDist().inv_cdf(1 - _LEVEL / (len(rows) * (len(known) + 1)))
    errors = [math.sqrt(chance * (1 - chance) / size) for _, chance, size in known]
    for row in rows:
        gains = [row["scores"][key]["mean"] - chance for key, chance, _ in known]
        if fmean(gains) > limit * math.hypot(*errors) / len(errors):
            return False
        if any(gain > limit * error for gain, error in zip(gains, errors, strict=True)):
            return False
    return True


def _against_truth(records: dict[str, Record]) -> list[dict[str, Any]]:
    """Return what filters that were not trained on keep of the planted truth, best first."""
    if "truth" not in records:
        return []
    rows: list[dict[str, Any]] = records["truth"].result["rows"]
    mean = {row["filter"]: _harmonic(row["precision"], row["recall"]) for row in rows}
    return sorted(rows, key=lambda row: (-mean[row["filter"]], row["filter"]))


def _harmonic(precision: float | None, recall: float | None) -> float:
    """Return the harmonic mean of both, which is high only where both are."""
    if not precision or not recall:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def _row(study: Study, name: str, tasks: list[Task], records: dict[str, Record]) -> dict[str, Any]:
    seeds = study.train.seeds
    chosen = records[f"filter-{name}"].result
    values = [records[f"evaluate-{name}-seed{seed}"].result["values"] for seed in seeds]
    scores = {task.key: _spread([run[task.key] for run in values]) for task in tasks}
    averages = [sum(run[task.key] for task in tasks) / len(tasks) for run in values]
    keys = ("filters", "combine", "size", "share", "funnel", "scored_by", "precision", "recall",
            "kept_defects")  # fmt: skip
    return {
        "name": name,
        **{key: chosen[key] for key in keys},
        "scores": scores,
        "average": _spread(averages),
        "aggregates": _aggregates(study.evaluate.suite, values),
        "seconds": _seconds(name, seeds, records),
        "used": _used(study, name, records),
    }


def _spread(values: list[float]) -> dict[str, Any]:
    estimate = combine(values)
    return {"mean": estimate.mean, "spread": estimate.deviation, "values": values}


def _aggregates(suite: str, values: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Return the average of every group of the suite whose tasks are all there."""
    groups = load_suites()[suite].groups
    return {
        name: _spread([fmean(run[key] for key in keys) for run in values])
        for name, keys in groups.items()
        if all(key in run for run in values for key in keys)
    }


def _best_of(scores: dict[str, dict[str, Any]]) -> list[str]:
    """Return the datasets of the highest mean and those tied with it; none where all are."""
    best = tied_best({name: combine(score["values"]) for name, score in scores.items()})
    return [name for name in scores if name in best] if len(best) < len(scores) else []


def _seconds(name: str, seeds: list[int], records: dict[str, Record]) -> dict[str, float]:
    """Return the seconds that the dataset's own stages took, all seeds together.

    ``scoring`` is what the scores its filters used took to compute, also where another dataset
    had them computed first; ``filter`` is the rest of filtering.
    """
    chosen = records[f"filter-{name}"]
    spent = chosen.result["seconds"]
    seconds = {
        "scoring": spent["scoring"],
        "filter": max(chosen.seconds - spent["now"], 0.0),
        "shards": records[f"shards-{name}"].seconds,
        "train": sum(_training(records[f"train-{name}-seed{seed}"]) for seed in seeds),
        "evaluate": sum(records[f"evaluate-{name}-seed{seed}"].seconds for seed in seeds),
    }
    rounded = {key: round(value, 1) for key, value in seconds.items()}
    return {**rounded, "total": round(sum(seconds.values()), 1)}


def _training(record: Record) -> float:
    """Return the seconds of a run; one that was found finished tells what it took itself."""
    return max(record.seconds, record.result["seconds"])


def _used(study: Study, name: str, records: dict[str, Record]) -> dict[str, Any]:
    """Return the runs whose models a dataset's filters score with, directly or through others.

    ``seconds`` is what had to be done before they could score: filtering, scoring, building
    and training, of the one seed that scores.
    """
    first = study.train.seeds[0]
    runs: dict[str, float] = {}
    waiting = study.runs_needed(study.get_dataset(name))
    while waiting:
        other = waiting.pop(0)
        if other in runs:
            continue
        seconds = _seconds(other, [first], records)
        runs[other] = seconds["total"] - seconds["evaluate"]
        waiting += study.runs_needed(study.get_dataset(other))
    return {
        "runs": [f"{other}-seed{first}" for other in runs],
        "seconds": round(sum(runs.values()), 1),
    }
