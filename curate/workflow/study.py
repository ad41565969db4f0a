"""Run a study: pool, filters, shards, training, evaluation, report, each skipped when done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...durable import alone, sha256_file, write_json
from ...errors import UsageError, suggest
from ...evaluate.tasks import Task as EvaluationTask
from ...evaluate.tasks import select_tasks
from ...filters.behind import parts_of
from ...filters.expression import leaves_of
from ...pools.views import METADATA
from ...progress import say
from ..engine import open_engine
from . import stages
from .checks import check_inputs
from .config import RUN, DatasetSection, Study, TruthSection
from .scheduler import Record, Scheduler, Task
from .summary import summarise

STAGES = ("pool", "evalsets", "filter", "shards", "train", "evaluate", "report")
RESULTS, REPORT = "results.json", "report.html"


@dataclass(frozen=True)
class StudyReport:
    """Where a study's outputs are, and its results (None when only some stages ran).

    ``set_aside`` counts by stage: samples that the ``pool`` could not take, whose images could
    not be read to ``filter``, or that were left out when they came up to ``train``.
    """

    output: Path
    results: dict[str, Any] | None
    set_aside: dict[str, int]

    @property
    def page(self) -> Path:
        """The report page."""
        return self.output / REPORT


def run_study(study: Study, start: str | None = None, only: str | None = None) -> StudyReport:
    """Run what is not done yet; ``start`` redoes that stage and all after it, ``only`` just it."""
    _check_stages(start, only)
    from ...evaluate.training import require_extra

    require_extra()
    check_inputs(study)
    evaluation = evaluation_tasks(study)
    busy = f"{study.output}: another 'datacomp run' is at work there; wait for it or stop it"
    with alone(study.output, busy), joined(study) as study:  # noqa: PLR1704
        tasks = plan(study, evaluation)
        scheduler = Scheduler(study.output / "stages", study.train.parallel)
        if only is not None:
            tasks = _only(scheduler, tasks, only)
        again = frozenset(
            task.key for task in tasks
            if _redone(task, start, only) or (only is None and unread(task, scheduler))
        )  # fmt: skip
        records = scheduler.run(tasks, again)
        aside = set_aside(tasks, records)
        if only not in (None, "report"):
            return StudyReport(study.output, None, aside)
        results = write_outputs(study, evaluation, records)
    return StudyReport(study.output, results, aside)


@contextlib.contextmanager
def joined(study: Study) -> Iterator[Study]:
    """Yield the study with a cluster that its stages can join: it is asked, or made, only once."""
    if study.engine.kind == "local":
        yield study
        return
    from ..engine.cluster import RayEngine

    with open_engine(study.engine.choice()) as engine:
        assert isinstance(engine, RayEngine)
        yield study.at(engine.address)


def write_outputs(
    study: Study, evaluation: list[EvaluationTask], records: dict[str, Record]
) -> dict[str, Any]:
    """Write ``results.json`` and ``report.html`` and return the results."""
    from ...pools.connection import patience
    from ...pools.pool import Pool
    from ..report import collect_sheets, write_report

    results = summarise(study, evaluation, records)
    write_json(study.output / RESULTS, results)
    say("writing the report", 1)
    files = [
        (d.name, study.subset_path(d.name),
         study.subset_path(d.name).with_suffix(".reasons.parquet"))
        for d in study.dataset
    ]  # fmt: skip
    with (
        patience(),
        Pool.open(study.pool_path, read_only=True, **stages.limits(study)) as pool,
    ):
        sheets = collect_sheets(pool, files)
    write_report(study.output / REPORT, results, sheets)
    return results


def evaluation_tasks(study: Study) -> list[EvaluationTask]:
    """Return the tasks the study evaluates: those with a score to compare datasets by."""
    tasks = select_tasks(study.evaluate.tasks, study.evaluate.suite)
    return [task for task in tasks if task.main_metric is not None]


def plan(study: Study, evaluation: list[EvaluationTask]) -> list[Task]:
    """Return every stage of every dataset with what it needs, in the order of the file."""
    tasks = [_pool_task(study)]
    if study.evaluate.data is None:
        tasks.append(Task(
            "evalsets", "evalsets", stages.make_evalsets, (study,), label="evaluation sets",
            outputs=(Path(study.eval_data),),
            amount=sum(task.size for task in select_tasks(suite=study.evaluate.suite)),
        ))  # fmt: skip
    for dataset in study.dataset:
        tasks += [_filter_task(study, dataset), _shards_task(study, dataset.name)]
        for seed in study.train.seeds:
            tasks.append(_train_task(study, dataset.name, seed))
            tasks.append(_evaluate_task(study, dataset.name, seed, evaluation))
    if study.truth.filters:
        tasks.append(_truth_task(study))
    return tasks


def _pool_task(study: Study) -> Task:
    sources = [
        {"kind": s.kind, "options": s.options(), "signature": s.signature()}
        for s in study.sources()
    ]
    return Task(
        "pool", "pool", stages.make_pool, (study,), settings={"sources": sources},
        outputs=(study.pool_path,), exclusive="pool",
    )  # fmt: skip


def _filter_task(study: Study, dataset: DatasetSection) -> Task:
    name, nodes = dataset.name, study.filters_of(dataset)
    first = study.train.seeds[0]
    needed = [f"train-{other}-seed{first}" for other in study.runs_needed(dataset)]
    return Task(
        f"filter-{name}", "filter", stages.select, (study, name), ("pool", *needed),
        settings={"filters": [node.label() for node in nodes], "combine": dataset.combine,
                  "files": _digests_of_files(study, dataset)},
        outputs=(study.subset_path(name),), exclusive="pool", label=f"filter {name}",
        pace=f"filter {' '.join(sorted(spec.use for spec in leaves_of(nodes)))}",
    )  # fmt: skip


def _truth_task(study: Study) -> Task:
    truth, first = study.truth, study.train.seeds[0]
    needed = [f"train-{other}-seed{first}" for other in study.runs_needed(truth)]
    return Task(
        "truth", "filter", stages.hold_against_truth, (study,), ("pool", *needed),
        settings={"filters": [node.label() for node in study.filters_of(truth)],
                  "files": _digests_of_files(study, truth)},
        exclusive="pool", label="filters against the truth", pace="truth",
    )  # fmt: skip


def _shards_task(study: Study, name: str) -> Task:
    made = METADATA if study.shards.view else "manifest.json"
    return Task(
        f"shards-{name}", "shards", stages.build, (study, name), (f"filter-{name}",),
        settings={"size": study.shards.size, **({"view": True} if study.shards.view else {})},
        outputs=(study.shards_dir(name) / made,), exclusive="pool",
        label=f"shards {name}",
    )  # fmt: skip


def _train_task(study: Study, name: str, seed: int) -> Task:
    recipe = study.train.resolved()
    settings = study.train.model_dump(exclude={"scale", "seeds", "parallel", "samples_seen"})
    return Task(
        f"train-{name}-seed{seed}", "train", stages.train, (study, name, seed),
        (f"shards-{name}",), settings={"scale": recipe.to_dict(), **settings},
        outputs=(study.run_dir(name, seed) / "info.json",), label=f"train {name} seed {seed}",
        amount=recipe.samples_seen,
    )  # fmt: skip


def _evaluate_task(study: Study, name: str, seed: int, evaluation: list[EvaluationTask]) -> Task:
    needs = [f"train-{name}-seed{seed}"] + (["evalsets"] if study.evaluate.data is None else [])
    versions = [[task.key, task.version] for task in evaluation]
    return Task(
        f"evaluate-{name}-seed{seed}", "evaluate", stages.evaluate,
        (study, name, seed, [task.key for task in evaluation]), tuple(needs),
        settings={"tasks": versions, "data": study.evaluate.data},
        outputs=(study.run_dir(name, seed) / "eval_results.jsonl",),
        label=f"evaluate {name} seed {seed}",
        amount=sum(task.size for task in evaluation), unit="images",
    )  # fmt: skip


def _digests_of_files(study: Study, dataset: DatasetSection | TruthSection) -> list[str]:
    """Return the digests of all files the filters use, so that an edit runs them again.

    Runs of the study itself are none of them: they count as stages that the filters need.
    """
    files = []
    for spec in (study.spec_of(section) for _, section in dataset.sections()):
        files += [Path(spec.use.rpartition(":")[0])] if spec.is_file else []
        given = spec.make().files().values()
        files += [study.resolve(value) for value in given if not value.startswith(RUN)]
    return [sha256_file(part) for file in files for part in parts_of(file) if part.is_file()]


def _only(scheduler: Scheduler, tasks: list[Task], only: str) -> list[Task]:
    """Keep the tasks of one stage, and the done ones they need; refuse if those are not done.

    The report is no task: it needs all of them.
    """
    by_key = {task.key: task for task in tasks}
    keep: set[str] = set()

    def need(key: str) -> None:
        for other in by_key[key].needs:
            if other not in keep:
                keep.add(other)
                need(other)

    for task in tasks:
        if only in (task.stage, "report"):
            keep.add(task.key)
            need(task.key)
    done: dict[str, Record] = {}
    for task in tasks:
        if task.key not in keep:
            continue
        record = scheduler.is_done(task, done) if set(task.needs) <= set(done) else None
        if record is None and task.stage == only:
            continue
        if record is None:
            raise UsageError(
                f"--only {only}: {task.key} is not done yet; run without --only, or "
                f"--only {task.stage} first"
            )
        done[task.key] = record
    return [task for task in tasks if task.key in keep]


def _check_stages(*stages: str | None) -> None:
    for stage in stages:
        if stage is not None and stage not in STAGES:
            raise UsageError(
                f"unknown stage {stage!r}{suggest(stage, list(STAGES))}; "
                f"there are: {', '.join(STAGES)}"
            )


def _redone(task: Task, start: str | None, only: str | None) -> bool:
    """Tell whether a task is asked for again, done or not."""
    later = start is not None and STAGES.index(task.stage) >= STAGES.index(start)
    return later or task.stage == only


def unread(task: Task, scheduler: Scheduler) -> bool:
    """Tell whether filters could not read some images: they may be there by now."""
    record = scheduler.record(task.key) if task.stage == "filter" else None
    return record is not None and bool(record.result.get(stages.UNREADABLE))


def set_aside(tasks: list[Task], records: dict[str, Record]) -> dict[str, int]:
    """Return how many samples each stage could not use; an image is unreadable to many filters."""
    counts: dict[str, int] = {}
    for task in tasks:
        result = records[task.key].result
        if unread := result.get(stages.UNREADABLE, 0):
            counts["filter"] = max(counts.get("filter", 0), unread)
        if aside := sum(result.get(stages.SET_ASIDE, {}).values()):
            counts[task.stage] = counts.get(task.stage, 0) + aside
    return counts


def describe_plan(
    study: Study, start: str | None = None, only: str | None = None
) -> list[tuple[str, str]]:
    """Return (task, state) of every stage, for ``--dry-run``: done already, or to run."""
    _check_stages(start, only)
    check_inputs(study)
    scheduler = Scheduler(study.output / "stages", study.train.parallel)
    done: dict[str, Record] = {}
    lines = []
    for task in plan(study, evaluation_tasks(study)):
        ready = set(task.needs) <= set(done)
        record = scheduler.is_done(task, done) if ready else None
        if _redone(task, start, only) or (only is None and unread(task, scheduler)):
            record = None
        if record is not None:
            done[task.key] = record
        lines.append((task.key, "done already" if record is not None else "to run"))
    return [*lines, ("report", "to run")]
