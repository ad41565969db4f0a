"""Run a funnel of filters over a pool: score what is not scored yet, then decide in one scan.

``combine`` says how filters join:

- ``and``: each filter judges the whole pool; a sample stays if all keep it (DataComp's
  intersections are made this way);
- ``or``: a sample stays if any keeps it;
- ``then``: each filter sees only what the one before it left.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from ..durable import atomic_path
from ..errors import DatacompError, DataError, MissingError, RunError, UsageError, suggest
from ..pools.features import Features
from ..pools.pool import HALVES, Pool, literal, quote
from ..pools.reading import iterate
from ..pools.schema import TRUTH
from ..pools.uids import UidArray, from_halves
from ..progress import Progress, warn
from .contract import Batch, Decision, Filter, Scorer, View
from .guard import check_predicate, check_query
from .registry import blame, defined_at
from .spec import FilterSpec

T = TypeVar("T")

COMBINE = ("and", "or", "then")
_NO_COLUMNS = pa.table({})


@dataclass
class Step:
    """One filter of a funnel: how many samples it dropped, and under which reasons."""

    filter: str
    before: int
    after: int
    reasons: dict[str, int]


@dataclass(frozen=True)
class Unreadable:
    """How many images could not be read, and where the first of them should have been."""

    count: int
    first: str

    def __str__(self) -> str:
        """Say it in one line."""
        what = "image" if self.count == 1 else "images"
        return f"{self.count:,} {what} cannot be read, first {self.first}"


@dataclass
class Selection:
    """What a funnel kept: sorted uids (n,), the counts on the way, and what scored.

    ``unreadable`` tells of samples dropped because their images could not be read now: they
    have no score, and are read again when the filters run again. ``scoring`` is how many seconds
    each score took to compute, by digest, whenever that was; ``scoring_now`` how many of
    ``seconds`` went into scoring now.
    """

    uids: UidArray
    total: int
    steps: list[Step]
    combine: str
    scores: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    scoring: dict[str, float] = field(default_factory=dict)
    scoring_now: float = 0.0
    unreadable: Unreadable | None = None

    def funnel(self) -> list[dict[str, Any]]:
        """Return the counts as plain values."""
        return [
            {"filter": s.filter, "before": s.before, "after": s.after, "reasons": s.reasons}
            for s in self.steps
        ]


def run_filters(
    pool: Pool,
    specs: list[FilterSpec],
    combine: str = "and",
    reasons: Path | None = None,
) -> Selection:
    """Run filters over a pool and return what they keep.

    With ``reasons``, writes a parquet of every dropped sample: uid (hex), filter, reason.
    Raises UsageError for unknown filters or parameters, MissingError for missing columns or when
    none of the images can be read.
    """
    if combine not in COMBINE:
        raise UsageError(
            f"combine is {combine!r}{suggest(combine, list(COMBINE))}; "
            f"expected one of: {', '.join(COMBINE)}"
        )
    if not specs:
        raise UsageError("no filter given; 'no_filter' keeps everything")
    filters = [(spec, spec.make()) for spec in specs]
    if pool.count() == 0:
        raise DataError(f"{pool.path}: the pool is empty; add samples with 'datacomp pool add'")
    started = time.monotonic()
    engine = _Engine(pool)
    try:
        engine.create_view()
        verdicts = [engine.judge(spec, made, combine) for spec, made in filters]
        engine.decide(verdicts, combine)
        if reasons is not None:
            engine.write_reasons(reasons)
        selection = Selection(engine.kept(), pool.count(), engine.steps(verdicts), combine)
        selection.unreadable = engine.unreadable()
    finally:
        engine.clean()
    selection.scores = engine.used
    selection.scoring, selection.scoring_now = engine.scoring, engine.scoring_now
    selection.seconds = time.monotonic() - started
    return selection


@dataclass
class _Verdict:
    """A filter's decisions, as (reason, SQL predicate over all candidates)."""

    spec: FilterSpec
    rules: list[tuple[str, str]]


class _Engine:
    """Holds the temporary relations of one run on a pool's connection."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.columns = [name for name in pool.columns() if name.lower() != TRUTH]
        self.used: list[dict[str, Any]] = []
        self.scoring: dict[str, float] = {}
        self.scoring_now = 0.0
        self._joined: dict[str, str] = {}
        self._alive: list[str] = []
        self._made: dict[str, str] = {}
        self._unreadable: list[str] = []
        self._left_tables = self._kept_tables = 0

    def create_view(self) -> None:
        """(Re)create the view that filters see: no truth, one column more for each score."""
        names = ", ".join(f"s.{quote(name)}" for name in self.columns)
        scores = "".join(f", {t}.value AS {quote(c)}" for c, t in self._joined.items())
        joins = " ".join(f"LEFT JOIN {t} ON {t}.uid = s.uid" for t in self._joined.values())
        self._create("VIEW", "candidates", f"SELECT {names}{scores} FROM samples s {joins}")

    def _create(self, kind: str, name: str, query: str) -> str:
        """(Re)create a temporary table or view of this run."""
        self._made[name] = kind
        self.pool.sql(f"CREATE OR REPLACE TEMP {kind} {name} AS {query}")
        return name

    def clean(self) -> None:
        """Drop what the run left on the connection, so that the next one starts clean."""
        with contextlib.suppress(DatacompError):
            for name, kind in reversed(self._made.items()):
                self.pool.sql(f"DROP {kind} IF EXISTS temp.{name}")

    def judge(self, spec: FilterSpec, made: Filter, combine: str) -> _Verdict:
        """Let a filter score and decide; set-level ones of a chain see what is left."""
        chained = combine == "then"
        scope = self._left() if chained and made.set_level else "candidates"
        view = _view(self, spec, scope)
        with _blaming(spec, made):
            scorers = _all(Scorer, made.scorers())
        unreadable = len(self._unreadable)
        if scorers:
            self._score(spec, made, scorers, view, combine)
            if scope != "candidates":
                scope = self._left()
                view = _view(self, spec, scope)
        with _blaming(spec, made):
            decisions = _all(Decision, made.decide(view))
        windowed = self._check(spec, decisions, scope)
        rules = [(decision.reason, decision.predicate) for decision in decisions]
        missed = [_not_in(table) for table in self._unreadable[unreadable:]]
        rules, windowed = [*missed, *rules], [*(False for _ in missed), *windowed]
        if chained and (made.set_level or any(windowed)):
            rules = self._materialise_rules(spec, rules, scope if made.set_level else self._left())
        elif combine == "and":
            rules_of_one_row = [r for r, others in zip(rules, windowed, strict=True) if not others]
            self._alive += [_true(predicate) for _, predicate in rules_of_one_row]
        if chained:
            self._alive += [_true(predicate) for _, predicate in rules]
        return _Verdict(spec, rules)

    def _score(
        self, spec: FilterSpec, made: Filter, scorers: list[Scorer], view: View, combine: str
    ) -> None:
        """Let a filter's scorers see the samples that can still be kept."""
        with _blaming(spec, made):
            cheap = _all(Decision, made.before_scoring(view))
        windowed = self._check(spec, cheap, view.relation)
        alive = [] if made.set_level or combine == "or" else self._alive
        alive = alive + [
            _true(decision.predicate)
            for decision, others in zip(cheap, windowed, strict=True)
            if not others
        ]
        for scorer in scorers:
            with _blaming(spec, made):
                for column in scorer.columns:
                    view.require(column, f"scorer {scorer.name} needs it")
                self._ensure_scored(spec, scorer, view.relation, alive)
        self.create_view()

    def _ensure_scored(
        self, spec: FilterSpec, scorer: Scorer, scope: str, alive: list[str]
    ) -> None:
        """Compute and store the scores that are missing."""
        digest = scorer.digest()
        with _blaming_scorer(spec, scorer):
            parameters = {**scorer.identity(), "type": scorer.type}
            table = self.pool.score_table(scorer.name, digest, parameters)
        where = " AND ".join(alive) or "true"
        self._create(
            "TABLE",
            "to_score",
            f"SELECT uid FROM {scope} c ANTI JOIN {table} t USING (uid) WHERE {where}",
        )
        total = self.pool.scalar("SELECT count(*) FROM to_score")
        with Progress(f"scoring {scorer.name}", total) as progress, self._timed(digest, total):
            for uids, batch in _batches(self.pool, scorer):
                values = list(scorer.score(batch))
                if len(values) != len(uids):
                    raise RunError(
                        f"filter {spec.use}: scorer {scorer.name} ({defined_at(scorer)}) returned "
                        f"{len(values)} values for {len(uids)} samples"
                    )
                with _blaming_scorer(spec, scorer):
                    self.pool.write_scores(table, uids, values)
                progress.advance(len(uids))
        if scorer.images:
            self._note_unreadable(scorer, table, scope, total)
        self._joined[_score_name(scorer.name, digest)] = table
        self.used.append({"name": scorer.name, "digest": digest, **scorer.identity()})

    def _note_unreadable(self, scorer: Scorer, table: str, scope: str, total: int) -> None:
        """Set apart what was to be scored and has no score: its image was not there to be seen."""
        name = f"unreadable_{len(self._unreadable) + 1}"
        self._create("TABLE", name, f"SELECT uid FROM to_score ANTI JOIN {table} USING (uid)")
        count = self.pool.scalar(f"SELECT count(*) FROM {name}")
        if not count:
            return
        self._unreadable.append(name)
        scored = f"SELECT count(*) FROM {scope} SEMI JOIN {table} USING (uid)"
        if count == total and not self.pool.scalar(scored):
            raise MissingError(
                f"scoring {scorer.name}: no image can be read ({total:,} tried), first "
                f"{self._place_of_first(name)}; are the pool's sources where they were?"
            )

    def unreadable(self) -> Unreadable | None:
        """Return how many samples were dropped for images that could not be read."""
        if not self._unreadable:
            return None
        every = " UNION ".join(f"SELECT uid FROM {name}" for name in self._unreadable)
        name = self._create("TABLE", "unreadable", every)
        count = self.pool.scalar(f"SELECT count(*) FROM {name}")
        return Unreadable(count, self._place_of_first(name))

    def _place_of_first(self, table: str) -> str:
        """Return where the image of the first sample of a table should be, in file order."""
        row = self.pool.sql(
            f"SELECT printf('%032x', s.uid), s.source, s.shard FROM samples s SEMI JOIN {table} "
            'USING (uid) ORDER BY s.source, s.shard, s."offset", s.uid LIMIT 1'
        ).fetchone()
        assert row is not None
        uid, source, shard = row
        if shard is None:
            return f"{uid} (a sample without an image)"
        root = self.pool.source_paths()[source]
        return f"{uid} of {root if root.is_file() else root / shard}"

    @contextlib.contextmanager
    def _timed(self, digest: str, samples: int) -> Iterator[None]:
        """Add the time of the block to what a score has cost: kept in the pool, as the score is."""
        key, started = f"seconds:{digest}", time.monotonic()
        before = float(self.pool.scalar("SELECT value FROM pool WHERE key = ?", [key]) or 0)
        self.scoring[digest] = before
        try:
            yield
        finally:
            if samples:
                seconds = time.monotonic() - started
                self.scoring[digest] = before + seconds
                self.scoring_now += seconds
                with contextlib.suppress(DatacompError):  # it may be the pool that failed
                    self.pool.sql("INSERT OR REPLACE INTO pool VALUES (?, ?)",
                                  [key, f"{before + seconds:.3f}"])  # fmt: skip

    def score_column(self, scorer: Scorer) -> str:
        """Return the quoted column of a score that was computed."""
        name = _score_name(scorer.name, scorer.digest())
        if name not in self._joined:
            raise UsageError(f"scorer {scorer.name} is used in decide(), but not in scorers()")
        return quote(name)

    def _left(self) -> str:
        """Return a relation of the candidates that are not dropped yet."""
        if not self._alive:
            return "candidates"
        self._left_tables += 1
        where = " AND ".join(self._alive)
        name = f"left_{self._left_tables}"
        return self._create("TABLE", name, f"SELECT * FROM candidates WHERE {where}")

    def _materialise_rules(
        self, spec: FilterSpec, rules: list[tuple[str, str]], scope: str
    ) -> list[tuple[str, str]]:
        """Evaluate decisions over ``scope`` alone and return them as predicates over all."""
        found = []
        for reason, predicate in rules:
            self._kept_tables += 1
            name = f"kept_{self._kept_tables}"
            with _blaming_decision(spec, reason):
                self._create("TABLE", name, _matching(scope, predicate))
            found.append((reason, f"uid IN (SELECT uid FROM {name})"))
        return found

    def _check(self, spec: FilterSpec, decisions: list[Decision], relation: str) -> list[bool]:
        """Bind every predicate before anything runs; tell which ones look at other rows too."""
        windowed = []
        for decision in decisions:
            with _blaming_decision(spec, decision.reason):
                windowed.append(check_predicate(self.pool, decision.predicate, relation))
                self.pool.sql(f"SELECT {_true(decision.predicate)} FROM {relation} LIMIT 0")
        return windowed

    def decide(self, verdicts: list[_Verdict], combine: str) -> None:
        """Write the table ``verdict`` (uid, step, reason) in one scan; step is NULL for kept."""
        cases: list[str] = []
        for step, verdict in enumerate(verdicts):
            for rule, (_, predicate) in enumerate(verdict.rules):
                failed = f"NOT {_true(predicate)}"
                cases.append(f"WHEN {failed} THEN {step * 1000 + rule}")
        if combine == "or":
            kept = " OR ".join(
                "(" + (" AND ".join(_true(p) for _, p in v.rules) or "true") + ")" for v in verdicts
            )
            cases.insert(0, f"WHEN {kept} THEN NULL")
        case = f"CASE {' '.join(cases)} END" if cases else "NULL"
        query = f"SELECT uid, ({case})::INTEGER AS dropped FROM candidates"
        try:
            self._create("TABLE", "verdict", query)
        except DataError:
            self._blame(verdicts)
            raise
        names = [
            f"({step * 1000 + rule}, {literal(verdict.spec.label())}, {literal(reason)})"
            for step, verdict in enumerate(verdicts)
            for rule, (reason, _) in enumerate(verdict.rules)
        ]
        self._create("TABLE", "rule", "SELECT 0 AS id, '' AS filter, '' AS reason LIMIT 0")
        if names:
            self.pool.sql(f"INSERT INTO rule VALUES {', '.join(names)}")

    def _blame(self, verdicts: list[_Verdict]) -> None:
        """Name the decision that fails on some sample."""
        for verdict in verdicts:
            for reason, predicate in verdict.rules:
                with _blaming_decision(verdict.spec, reason):
                    self.pool.sql(f"SELECT count(*) FROM ({_matching('candidates', predicate)})")

    def kept(self) -> UidArray:
        """Return the sorted uids of what stays."""
        kept = self.pool.table(f"SELECT {HALVES} FROM verdict WHERE dropped IS NULL ORDER BY uid")
        return from_halves(kept["high"].to_numpy(), kept["low"].to_numpy())

    def steps(self, verdicts: list[_Verdict]) -> list[Step]:
        """Return the counts of the funnel."""
        counts = dict(
            self.pool.sql(
                "SELECT dropped, count(*) FROM verdict WHERE dropped IS NOT NULL GROUP BY dropped"
            ).fetchall()
        )
        left = self.pool.count()
        steps = []
        for number, verdict in enumerate(verdicts):
            reasons: dict[str, int] = {}
            for rule, (reason, _) in enumerate(verdict.rules):
                dropped = counts.get(number * 1000 + rule, 0)
                if dropped:
                    reasons[reason] = reasons.get(reason, 0) + dropped
            after = left - sum(reasons.values())
            steps.append(Step(verdict.spec.label(), left, after, reasons))
            left = after
        return steps

    def write_reasons(self, path: Path) -> None:
        """Write uid, filter and first reason of every dropped sample as parquet."""
        with atomic_path(path) as partial:
            self.pool.sql(
                "COPY (SELECT printf('%032x', v.uid) AS uid, r.filter, r.reason FROM verdict v "
                f"JOIN rule r ON r.id = v.dropped ORDER BY v.uid) TO {literal(str(partial))} "
                "(FORMAT parquet)"
            )


def _batches(pool: Pool, scorer: Scorer) -> Iterator[tuple[UidArray, Batch]]:
    """Yield what a scorer asks for of the samples to score."""
    if not scorer.features:
        for part in iterate(pool, "to_score", scorer.columns, scorer.images, scorer.batch_size):
            if not scorer.images:
                yield part.uids, Batch(part.columns)
            elif seen := [n for n, image in enumerate(part.images) if image is not None]:
                images = [image for image in part.images if image is not None]
                yield part.uids[seen], Batch(part.columns.take(seen), images)
        return
    readers = {name: Features(pool, name) for name in scorer.features}
    found = (reader.batches("to_score", scorer.batch_size) for reader in readers.values())
    for parts in itertools.zip_longest(*found):
        if any(part is None or not np.array_equal(part[0], parts[0][0]) for part in parts):
            raise DataError(
                f"{pool.path}: not every sample with the features {scorer.features[0]} has "
                f"{' and '.join(scorer.features[1:])} too; get the .npz files again"
            )
        vectors = {name: rows for name, (_, rows) in zip(readers, parts, strict=True)}
        yield parts[0][0], Batch(_NO_COLUMNS, features=vectors)
    left_out = {aside.item: aside for reader in readers.values() for aside in reader.left_out}
    for aside in left_out.values():
        warn(f"scoring {scorer.name}: left out {aside.item}: {aside.detail}")


def _view(engine: _Engine, spec: FilterSpec, relation: str) -> View:
    """Return the pool as a filter may see it.

    The pool itself is held by closures, so that no attribute leads a plug-in to what it should
    not use. That prevents mistakes, not intent: a plug-in is code with the rights of its user.
    """
    pool, scope = engine.pool, relation

    class Seen:
        relation = scope

        def has(self, column: str) -> bool:
            return column in engine.columns

        def require(self, column: str, hint: str = "") -> str:
            known = engine.columns
            if column not in known:
                more = f"; {hint}" if hint else ""
                raise MissingError(
                    f"{pool.path}: the pool has no column {column!r}"
                    f"{suggest(column, known)}; there are: {', '.join(known)}{more}"
                )
            return quote(column)

        def score(self, scorer: Scorer) -> str:
            return engine.score_column(scorer)

        def scalar(self, query: str) -> Any:
            try:
                check_query(pool, query, scope)
                return pool.scalar(query)
            except (DataError, UsageError) as error:
                raise UsageError(f"filter {spec.use}: {error}") from None

        def count(self) -> int:
            return self.scalar(f"SELECT count(*) FROM {scope}")

    return Seen()


def _all(kind: type[T], items: list[T]) -> list[T]:
    """Return the items, or raise TypeError for what a plug-in should not have returned."""
    for item in items:
        if not isinstance(item, kind):
            raise TypeError(f"expected a list of {kind.__name__}, found {item!r}")
    return list(items)


def _true(predicate: str) -> str:
    """Return SQL that is true or false where a predicate may be NULL."""
    return f"coalesce(({predicate})::BOOLEAN, false)"


def _matching(relation: str, predicate: str) -> str:
    """Return the SQL for the uids for which a predicate, windowed or not, is true."""
    return f"SELECT uid FROM (SELECT uid, {_true(predicate)} AS kept FROM {relation}) WHERE kept"


def _not_in(table: str) -> tuple[str, str]:
    """Return the rule that drops the samples whose images could not be read."""
    return "unreadable", f"uid NOT IN (SELECT uid FROM {table})"


def _score_name(name: str, digest: str) -> str:
    return f"score:{name}:{digest[:16]}"


@contextlib.contextmanager
def _blaming(spec: FilterSpec, made: Filter) -> Iterator[None]:
    """Name file and line of a plug-in that raises."""
    try:
        yield
    except DatacompError:
        raise
    except Exception as error:
        raise RunError(f"filter {spec.use} failed at {blame(error, made)}") from error


@contextlib.contextmanager
def _blaming_scorer(spec: FilterSpec, scorer: Scorer) -> Iterator[None]:
    """Name the scorer whose values do not fit its type."""
    try:
        yield
    except (DataError, ValueError, TypeError, OverflowError) as error:
        raise RunError(
            f"filter {spec.use}: scorer {scorer.name} ({defined_at(scorer)}) gives what is no "
            f"{scorer.type}: {' '.join(str(error).split())[:300]}"
        ) from error


@contextlib.contextmanager
def _blaming_decision(spec: FilterSpec, reason: str) -> Iterator[None]:
    """Name the decision whose SQL cannot be run."""
    try:
        yield
    except (DataError, UsageError) as error:
        raise UsageError(f"filter {spec.use}: {reason}: {error}") from None
