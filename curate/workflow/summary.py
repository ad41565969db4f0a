"""Gather what a study's stages found into one table: ``results.json``."""

from __future__ import annotations

from typing import Any

from ... import __version__
from ...evaluate.results import combine, is_tie_pooled, pooled_spread
from ...evaluate.tasks import Task
from .config import Study
from .scheduler import Record


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
            "pool": {key: pool[key] for key in ("samples", "digest", "set_aside", "defects")},
        },
        "tasks": [
            {
                "key": task.key, "name": task.name, "main_metric": task.main_metric,
                "chance": task.chance, "near_chance": task.near_chance, "group": task.suite,
            }
            for task in tasks
        ],
        "datasets": rows,
        "best": rows[0]["name"],
        "verdict": verdict(rows),
    }  # fmt: skip


def verdict(rows: list[dict[str, Any]]) -> str:
    """Say in one sentence whether curation won, against the dataset that keeps the whole pool."""
    best = rows[0]
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
        "seconds": _seconds(name, seeds, records),
    }


def _spread(values: list[float]) -> dict[str, Any]:
    estimate = combine(values)
    return {"mean": estimate.mean, "spread": estimate.deviation, "values": values}


def _seconds(name: str, seeds: list[int], records: dict[str, Record]) -> dict[str, float]:
    seconds = {
        "filter": records[f"filter-{name}"].seconds,
        "shards": records[f"shards-{name}"].seconds,
        "train": sum(records[f"train-{name}-seed{seed}"].seconds for seed in seeds),
        "evaluate": sum(records[f"evaluate-{name}-seed{seed}"].seconds for seed in seeds),
    }
    rounded = {key: round(value, 1) for key, value in seconds.items()}
    return {**rounded, "total": round(sum(seconds.values()), 1)}
