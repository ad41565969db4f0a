"""Run a funnel of filters over the partitions of a pool, with the outcome of ``run_filters``.

Every partition is judged by a worker of the engine. Where a filter needs to know something of all
candidates, such as the score from which on a third of them is kept, the partitions tell their
shares and are judged again with the answer (see ``answers`` and ``narrowing``). The driver never
holds more than that and the uids that it is merging.

Filters that ask the pool as a whole, in SQL of their own, cannot be judged apart: these run on one
worker, over all files, as ``run_filters`` does it; of a pool that is a file of its own, in this
process, which holds it open.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..durable import atomic_path, digest, read_json, sweep_attempts, write_json
from ..errors import DataError, RunError
from ..pools.engine import Engine
from ..pools.merging import Merged, merge_subsets
from ..pools.partitions import Partition, partitions_of
from ..pools.pool import Pool
from ..pools.remote import RemoteMetadata
from ..pools.uid_sorter import UidSorter
from ..progress import Progress, say
from .answers import Bounds, Question
from .apart import (
    Asked,
    Judged,
    NotApart,
    Task,
    asks_for_gpu_of,
    judge,
    judge_pool,
    judge_whole,
    merge_reasons,
    stored_with,
)
from .behind import digests_of, files_behind
from .engine import Selection, Step, nothing_kept, steps_of
from .expression import Node, prepare
from .narrowing import most_told, settle
from .nearest import in_partitions
from .needs import check_needs, require_needs
from .together import Joint, settle_once

_ROUNDS = 1000
_MARK, _MAX_MARK = "work.json", 1 << 20
_REASONS = "reasons.parquet"


@dataclass(frozen=True)
class Partitioned:
    """What a funnel kept, and the subset it wrote; the selection's uids are mapped from it."""

    selection: Selection
    merged: Merged


def run_partitions(
    pool: Pool,
    filters: Sequence[Node],
    out: Path,
    engine: Engine,
    combine: str = "and",
    reasons: Path | None = None,
    remote: RemoteMetadata | None = None,
) -> Partitioned:
    """Run filters over the files that a pool links to, and write the subset they keep to ``out``.

    The files of ``remote`` metadata are copied by the workers; the pool is that of their footers.

    What the workers do meanwhile stands in a folder beside ``out``, which all of them must see;
    the same call after an interruption goes on at the partitions that are not done. It is
    removed in the end. Raises as ``run_filters``, and DataError when nothing is kept: ``out`` is
    left as it was then.
    """
    started = time.monotonic()
    prepared = prepare(filters, combine)
    check_needs(prepared)  # what is wrong is told before the work
    require_needs(engine, prepared)
    partitions = partitions_of(pool)
    behind = files_behind(prepared)
    digests = digests_of(behind)
    files = [stamp for partition in partitions for stamp in _stamps(partition, remote)]
    asked = [[repr(node) for node in filters], combine, reasons is not None]
    work = out.absolute().with_name(f".{out.name}.partitions")
    sweep_attempts(out.parent, out.name)
    _claim(work, digest([__version__, files, asked, digests]))
    folders = {partition.file.parent for partition in partitions} if remote is None else ()
    engine.reach(work, *sorted(folders))
    # A package's code may lie elsewhere on another machine: each worker looks by itself.
    engine.reach(*(name for name, path in behind.items() if name == str(path)), contents=True)
    task = Task(
        None, pool.path.absolute(), pool.columns(), tuple(filters), combine, work,
        reasons is not None, most=most_told(len(partitions)), count=len(partitions),
        remote=remote, behind=digests,
    )  # fmt: skip
    tasks = [
        replace(task, partition=one, remote=None if remote is None else remote.of(one))
        for one in partitions
    ]
    gpu = asks_for_gpu_of(prepared)
    stored = stored_with(pool, prepared)
    found: list[Judged] | NotApart = (
        NotApart(f"{stored} lie with the pool, not with its files")
        if stored
        else _rounds(tasks, engine, gpu)
    )
    if isinstance(found, NotApart):
        if pool.path.is_file():  # open here, so that no worker can open it
            say(f"{found.why}: the filters are run over all {len(tasks)} files at once")
            with in_partitions():
                whole = judge_pool(task, pool)
        else:
            say(f"{found.why}: one worker runs the filters over all {len(tasks)} files")
            (whole,) = engine.map(judge_whole, [task], count=1, gpu=gpu)
        tasks, found = [task], [whole]
    _check_scores(tasks, found)
    total = sum(one.samples for one in found)
    if total == 0:
        raise DataError(f"{pool.path}: the pool is empty; add samples with 'datacomp pool add'")
    if reasons is not None:
        written, joined = [one.path("reasons", ".parquet") for one in tasks], work / _REASONS
        list(engine.map(merge_reasons, [(written, joined)], count=1))
        _bring(joined, reasons)
    steps = _steps(found, total)
    if not steps[-1].after:
        shutil.rmtree(work, ignore_errors=True)
        raise nothing_kept(steps)
    merged = merge_subsets([one.path("uids", ".npy") for one in tasks], out, work, engine)
    uids = UidSorter.holding(np.load(out, mmap_mode="r", allow_pickle=False))
    selection = Selection(uids, total, steps, combine, found[0].scores)
    for one in found:
        for name, seconds in one.scoring.items():
            selection.scoring[name] = selection.scoring.get(name, 0.0) + seconds
        selection.scoring_now += one.scoring_now
    selection.seconds = time.monotonic() - started
    shutil.rmtree(work, ignore_errors=True)
    return Partitioned(selection, merged)


def _claim(work: Path, identity: str) -> None:
    """Go on with the work that an interrupted run left, if it was this."""
    mark = work / _MARK
    if not mark.is_file() or read_json(mark, _MAX_MARK) != identity:
        shutil.rmtree(work, ignore_errors=True)
        write_json(mark, identity)


def _bring(made: Path, out: Path) -> None:
    """Put in its place what a worker made in the folder that all see; the place may be ours alone.

    Raises RunError where it is not there.
    """
    if not made.is_file():
        raise RunError(
            f"{made}: a worker wrote it, but it is not here; the machines of a cluster need a file "
            "system that they share for the folder of the subset"
        )
    with atomic_path(out) as partial:
        shutil.move(made, partial)


def _stamps(partition: Partition, remote: RemoteMetadata | None) -> list[list[Any]]:
    """Return what changes when the files of a partition do.

    That is sizes, and times in ns or the versions of a store.
    """
    if remote is not None:
        return [[s.place, s.size, s.version] for s in remote.of(partition).stamps.values()]
    found: list[list[Any]] = []
    features = partition.file.with_suffix(".npz")
    for path in (partition.file, features):
        if path != features or path.exists():  # features need not be there
            state = path.stat()
            found.append([str(path), state.st_size, state.st_mtime_ns])
    return found


def _check_scores(tasks: list[Task], found: list[Judged]) -> None:
    """Raise RunError if some partitions were scored by something else than the others.

    What they have done is removed: nobody knows which of them are right.
    """
    scores = [{(score["name"], score["digest"]) for score in one.scores} for one in found]
    for task, used in zip(tasks, scores, strict=True):
        for name, _ in sorted(used ^ scores[0])[:1]:
            assert task.partition is not None
            shutil.rmtree(task.work, ignore_errors=True)
            raise RunError(
                f"{task.partition.file}: what gave it {name} is not what gave other files theirs; "
                "give all machines the same files and packages, and run the same command again"
            )


def _rounds(tasks: list[Task], engine: Engine, gpu: bool) -> list[Judged] | NotApart:
    """Judge all partitions, round after round, until nothing is left to ask.

    ``gpu`` says whether workers are to have one.
    """
    known: list[tuple[Question | Joint, Any]] = []
    bounds = Bounds()
    for _ in range(_ROUNDS):
        now = [replace(task, known=tuple(known), bounds=bounds) for task in tasks]
        judged: list[Judged] = []
        shares: list[Any] = []
        questions: set[Question | Joint] = set()
        label = "judging" if not known else f"judging, {len(known)} answers known"
        with Progress(label, len(now), "partitions") as progress:
            for reply in engine.map(judge, now, count=len(now), gpu=gpu):
                progress.advance()
                if isinstance(reply, NotApart):
                    return reply
                if isinstance(reply, Asked):
                    questions.add(reply.question)
                    shares.append(reply.share)
                else:
                    judged.append(reply)
        if not questions:
            return judged
        if judged or len(questions) > 1:
            raise DataError(
                "a filter asks other things of one partition than of another; run it without "
                "--engine and --workers"
            )
        (question,) = questions
        if isinstance(question, Joint):
            work = tasks[0].work / "joint"
            settled, found = True, settle_once(question, shares, work, engine)
        else:
            settled, found = settle(question, shares, bounds)
        if settled:
            known.append((question, found))
            bounds = Bounds()
        else:
            bounds = found
    raise DataError(f"{len(known)} questions and no end; run the filters without --engine")


def _steps(found: list[Judged], total: int) -> list[Step]:
    """Put together what the partitions counted."""
    first = found[0]
    dropped = [
        [sum(counts) for counts in zip(*(one.dropped[n] for one in found), strict=True)]
        for n in range(len(first.rules))
    ]
    steps = steps_of(total, first.rules, dropped)
    if first.weighted:
        steps[-1].seen = sum(one.seen for one in found)
    return steps
