"""Run a funnel of filters over a pool: score what is not scored yet, then decide in one scan.

``combine`` says how filters join:

- ``and``: each filter judges the whole pool; a sample stays if all keep it (DataComp's
  intersections are made this way);
- ``or``: a sample stays if any keeps it;
- ``minus``: a sample stays if the first filter keeps it and none of the others does;
- ``then``: each filter sees only what the one before it left.

A negated filter (``FilterSpec.negated``) keeps what it would have dropped, for the reason
``excluded``. A ``FilterGroup`` joins filters into one, which can stand among others.

Decisions are free, scores are dear. So filters are judged in the order of what their scores cost,
unless ``then`` says otherwise, and a scorer sees only samples whose fate it can still change.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError
from ..pools.engine import Engine as Workers
from ..pools.pool import Pool
from ..pools.uid_sorter import UidSorter
from ..pools.uids import UidArray
from .expression import Node, prepare
from .images import reads_images
from .judging import Engine, Frame
from .needs import check_needs
from .scoring import Unreadable
from .verdicts import Decider, Verdict


@dataclass
class Step:
    """One filter of a funnel: how many samples it dropped, and under which reasons.

    ``seen`` is how often the samples left are to be seen in all, where a filter gives weights.
    """

    filter: str
    before: int
    after: int
    reasons: dict[str, int]
    seen: int | None = None


@dataclass
class Selection:
    """What a funnel kept, the counts on the way, and what scored.

    ``unreadable`` tells of samples dropped because their images could not be read now: they
    have no score, and are read again when the filters run again. ``scoring`` is how many seconds
    each score took to compute, by digest, whenever that was; ``scoring_now`` how many of
    ``seconds``, in which the uids were found but not yet sorted, went into scoring now.
    """

    gathered: UidSorter
    total: int
    steps: list[Step]
    combine: str
    scores: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    scoring: dict[str, float] = field(default_factory=dict)
    scoring_now: float = 0.0
    unreadable: Unreadable | None = None

    @property
    def uids(self) -> UidArray:
        """The uids that were kept, sorted, shape (n,), each as often as it is to be seen."""
        return self.gathered.sorted()

    @property
    def kept(self) -> int:
        """How many samples stay, each counted once."""
        return self.steps[-1].after

    def funnel(self) -> list[dict[str, Any]]:
        """Return the counts as plain values."""
        return [
            {"filter": s.filter, "before": s.before, "after": s.after, "reasons": s.reasons}
            | ({} if s.seen is None else {"seen": s.seen})
            for s in self.steps
        ]


def run_filters(
    pool: Pool,
    filters: Sequence[Node],
    combine: str = "and",
    reasons: Path | None = None,
    workers: Workers | None = None,
) -> Selection:
    """Run filters, and groups of them, over a pool and return what they keep.

    With ``reasons``, writes a parquet of every dropped sample: uid (hex), filter, reason. Images
    are scored by ``workers``, an engine, if there are any; all else is done here.
    Raises UsageError for unknown filters or parameters, MissingError for missing columns or when
    none of the images can be read.
    """
    prepared = prepare(filters, combine)
    check_needs(prepared)
    if workers is not None and not reads_images(prepared):
        raise UsageError(
            f"{pool.path}: holds its samples, so it cannot be worked on in partitions, and no "
            "filter reads images; leave --workers and --engine out, or give a folder of metadata, "
            "or a pool that links to one ('datacomp pool add ... --link')"
        )
    total = pool.count()
    if total == 0:
        raise DataError(f"{pool.path}: the pool is empty; add samples with 'datacomp pool add'")
    started = time.monotonic()
    engine, frame = Engine(pool, workers=workers), Frame(combine)
    try:
        verdicts = [engine.judge(one, frame) for one in prepared]
        outcome = Decider(engine.relations, verdicts, combine).decide(total, reasons)
        steps = steps_of(total, [rules_of(verdict) for verdict in verdicts], outcome.dropped)
        if any(verdict.weight is not None for verdict in verdicts):
            steps[-1].seen = outcome.uids.count
        selection = Selection(outcome.uids, total, steps, combine)
        selection.unreadable = engine.scoring.unreadable()
    finally:
        engine.relations.clean()
    scoring = engine.scoring
    selection.scores = scoring.used
    selection.scoring, selection.scoring_now = scoring.seconds, scoring.seconds_now
    selection.seconds = time.monotonic() - started
    return selection


Rules = tuple[str, list[str]]
"""The label of a filter, and the reasons of its decisions."""


def rules_of(verdict: Verdict) -> Rules:
    """Return what the funnel says of a verdict."""
    return verdict.node.label(), [rule.reason for rule in verdict.rules]


def steps_of(total: int, rules: Sequence[Rules], dropped: list[list[int]]) -> list[Step]:
    """Return the counts of the funnel; ``dropped[filter][decision]`` are those that drop."""
    left, steps = total, []
    for (label, names), counts in zip(rules, dropped, strict=True):
        reasons: dict[str, int] = {}
        for reason, count in zip(names, counts, strict=True):
            if count:
                reasons[reason] = reasons.get(reason, 0) + count
        after = left - sum(reasons.values())
        steps.append(Step(label, left, after, reasons))
        left = after
    return steps


def nothing_kept(steps: Sequence[Step]) -> DataError:
    """Return the error for filters that keep no sample, which says under which reasons."""
    drops = ", ".join(f"{n:,} {why}" for step in steps for why, n in step.reasons.items())
    return DataError(f"the filters keep no sample ({drops}); loosen them")
