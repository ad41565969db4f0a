"""One partition judged: what it drops, what it keeps, or what it must ask the others. In a worker.

A partition is judged from the beginning in every round, with more answers known each time. Scores
are files by then, so only the first round computes them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..durable import atomic_path, digest, write_json
from ..pools.feature_places import computed_names
from ..pools.partitions import Partition, open_partition
from ..pools.pool import Pool
from ..pools.remote import RemoteMetadata
from .answers import AsWholeError, Bounds, Question, Share, UnansweredError, share_of
from .behind import check_behind
from .contract import Scorer
from .engine import Rules, rules_of, run_filters
from .expression import Node, Prepared, every_scorer, filters_of, prepare
from .judging import Engine, Frame
from .nearest import asks_for_gpu, in_partitions
from .stored import EmbeddedScore
from .together import Joint, Place
from .verdicts import Decider


@dataclass(frozen=True)
class Task:
    """What a worker is to do with a partition, or with the ``whole`` pool where there is none.

    ``known`` are the answers so far; ``bounds`` and ``most`` are for its share of the next one;
    ``count`` is how many partitions there are, and ``remote`` where the files are, if not here.
    ``behind`` are the digests of the files behind the filters (see ``behind``).
    """

    partition: Partition | None
    pool: Path
    columns: dict[str, str]
    filters: tuple[Node, ...]
    combine: str
    work: Path
    reasons: bool
    known: tuple[tuple[Question | Joint, Any], ...] = ()
    bounds: Bounds = field(default_factory=Bounds)
    most: int = 0
    count: int = 1
    remote: RemoteMetadata | None = None
    behind: dict[str, str] = field(default_factory=dict)

    def prepared(self) -> list[Prepared]:
        """Return the filters, made of the files that they are to be made of."""
        prepared = prepare(self.filters, self.combine)
        check_behind(prepared, self.behind)
        return prepared

    def path(self, kind: str, suffix: str) -> Path:
        """Return where the partition's outcome of a kind goes."""
        number = "whole" if self.partition is None else f"{self.partition.number:06d}"
        return self.work / kind / f"{number}{suffix}"


@dataclass(frozen=True)
class Asked:
    """The partition cannot go on without an answer; this is its share of it."""

    question: Question | Joint
    share: Any


@dataclass(frozen=True)
class NotApart:
    """The filters cannot be judged in partitions, and why."""

    why: str


@dataclass(frozen=True)
class Judged:
    """The partition is done: what was counted. Its uids and reasons are files of the task."""

    samples: int
    rules: list[Rules]
    dropped: list[list[int]]
    seen: int
    weighted: bool
    scores: list[dict[str, Any]]
    scoring: dict[str, float]
    scoring_now: float


def judge(task: Task) -> Asked | NotApart | Judged:
    """Judge a partition as far as the answers go."""
    assert task.partition is not None
    mark = digest([[repr(question), repr(answer)] for question, answer in task.known])
    done = _done(task, mark)
    if done is not None:
        return done
    scores = task.work / "scores" / f"{task.partition.number:06d}"
    prepared = task.prepared()
    with in_partitions(), _opened(task, prepared) as pool:
        place = Place(task.partition.number, task.count, task.work / "joint")
        engine = Engine(pool, Share(dict(task.known), scores, place))
        frame = Frame(task.combine)
        try:
            verdicts = [engine.judge(one, frame) for one in prepared]
        except AsWholeError as error:
            return NotApart(str(error))
        except UnansweredError as error:
            question = error.question
            if error.share is not None:
                return Asked(question, error.share())
            assert isinstance(question, Question)
            return Asked(question, share_of(pool, question, task.bounds, task.most))
        samples = pool.count()
        reasons = task.path("reasons", ".parquet") if task.reasons else None
        if reasons is not None:
            reasons.parent.mkdir(parents=True, exist_ok=True)
        outcome = Decider(engine.relations, verdicts, task.combine).decide(samples, reasons)
        scoring = engine.scoring
        found = Judged(
            samples, [rules_of(verdict) for verdict in verdicts], outcome.dropped,
            outcome.uids.count, any(verdict.weight is not None for verdict in verdicts),
            scoring.used, scoring.seconds, scoring.seconds_now,
        )  # fmt: skip
    outcome.uids.save(task.path("uids", ".npy"))
    write_json(task.path("judged", ".json"), {"mark": mark, **asdict(found)})
    return found


@contextlib.contextmanager
def _opened(task: Task, prepared: Sequence[Prepared]) -> Iterator[Pool]:
    """Open the partition of a task, copied from its store if it is not here."""
    assert task.partition is not None
    with contextlib.ExitStack() as stack:
        partition = task.partition
        if task.remote is not None:
            fetched = task.remote.fetched(partition, _asks_for_features(prepared))
            partition = stack.enter_context(fetched)
        yield stack.enter_context(open_partition(partition, task.columns, threads=1))


def _asks_for_features(prepared: Sequence[Prepared]) -> bool:
    """Tell whether any filter scores features."""
    return any(scorer.features for scorer in _scorers(prepared))


def stored_with(pool: Pool, prepared: Sequence[Prepared]) -> str | None:
    """Return what filters use of that which ``pool embed`` wrote, in words; None is nothing."""
    computed = computed_names(pool)
    for scorer in _scorers(prepared):
        if isinstance(scorer, EmbeddedScore):
            return "the scores that 'pool embed' wrote"
        for name in scorer.features:
            if name in computed:
                return f"the features {name}"
    return None


def asks_for_gpu_of(some: Iterable[Prepared]) -> bool:
    """Tell whether any filter was told to use a GPU."""
    return any(asks_for_gpu(str(getattr(made, "device", "cpu"))) for _, made in filters_of(some))


def _scorers(some: Iterable[Prepared]) -> Iterator[Scorer]:
    for spec, made in filters_of(some):
        yield from every_scorer(spec, made)


def judge_whole(task: Task) -> Judged:
    """Judge a folder of metadata as a whole, on one machine, as ``judge_pool`` does."""
    prepared = task.prepared()
    with contextlib.ExitStack() as stack:
        folder = task.pool
        if task.remote is not None:
            folder = stack.enter_context(task.remote.everything(_asks_for_features(prepared)))
        with in_partitions(), Pool.open(folder, threads=1) as pool:
            return judge_pool(task, pool)


def judge_pool(task: Task, pool: Pool) -> Judged:
    """Judge a pool as a whole, for filters that cannot be judged apart."""
    reasons = task.path("reasons", ".parquet") if task.reasons else None
    found = run_filters(pool, task.filters, task.combine, reasons)
    found.gathered.save(task.path("uids", ".npy"))
    names = [list(step.reasons) for step in found.steps]
    return Judged(
        found.total,
        [(step.filter, reasons) for step, reasons in zip(found.steps, names, strict=True)],
        [list(step.reasons.values()) for step in found.steps],
        found.gathered.count, found.steps[-1].seen is not None,
        found.scores, found.scoring, found.scoring_now,
    )  # fmt: skip


def merge_reasons(files_and_out: tuple[list[Path], Path]) -> None:
    """Write the reasons of all partitions into one file, by uid, in a worker."""
    from ..pools.connection import connect
    from ..pools.pool import literal

    files, out = files_and_out
    listed = ", ".join(literal(str(file)) for file in files)
    # DuckDB knows nothing of what TRY gives; else it may note that a column has no NULL.
    columns = ", ".join(f"TRY({name}) AS {name}" for name in ("uid", "filter", "reason"))
    with connect(None, threads=1) as connection, atomic_path(out) as partial:
        connection.execute(
            f"COPY (SELECT {columns} FROM read_parquet([{listed}]) ORDER BY uid) "
            f"TO {literal(str(partial))} (FORMAT parquet)"
        )


def _done(task: Task, mark: str) -> Judged | None:
    """Return what an earlier run found with the same answers."""
    file = task.path("judged", ".json")
    try:
        said = json.loads(file.read_bytes())
        if said.pop("mark") != mark:
            return None
        said["rules"] = [(label, names) for label, names in said["rules"]]
        return Judged(**said)
    except (OSError, ValueError, KeyError, TypeError):
        return None
