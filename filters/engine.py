"""Run a funnel of filters over a pool: score what is not scored yet, then decide in one scan.

``combine`` says how filters join:

- ``and``: each filter judges the whole pool; a sample stays if all keep it (DataComp's
  intersections are made this way);
- ``or``: a sample stays if any keeps it;
- ``then``: each filter sees only what the one before it left.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..durable import atomic_path
from ..errors import DatacompError, DataError, MissingError, RunError, UsageError, suggest
from ..pools.pool import HALVES, Pool, literal, quote
from ..pools.reading import iterate
from ..pools.schema import TRUTH
from ..pools.uids import UidArray, from_halves
from ..progress import Progress
from .contract import Batch, Decision, Filter, Scorer
from .registry import blame
from .spec import FilterSpec

COMBINE = ("and", "or", "then")


@dataclass
class Step:
    """One filter of a funnel: how many samples it dropped, and under which reasons."""

    filter: str
    before: int
    after: int
    reasons: dict[str, int]


@dataclass
class Selection:
    """What a funnel kept: sorted uids (n,), the counts on the way, and what scored."""

    uids: UidArray
    total: int
    steps: list[Step]
    combine: str
    scores: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

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
    Raises UsageError for unknown filters or parameters, MissingError for missing columns.
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
    with _temporary(pool):
        verdicts = [engine.judge(spec, made, combine) for spec, made in filters]
        engine.decide(verdicts, combine)
        if reasons is not None:
            engine.write_reasons(reasons)
        selection = Selection(engine.kept(), pool.count(), engine.steps(verdicts, combine), combine)
    selection.scores = engine.used
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
        self.columns = [name for name in pool.columns() if name != TRUTH]
        self.used: list[dict[str, Any]] = []
        self._joined: dict[str, str] = {}
        self._alive: list[str] = []
        self._kept_tables = 0
        self.relation = "candidates"
        self._create_view()

    def _create_view(self) -> None:
        """(Re)create the view that filters see: no truth, one column more for each score."""
        names = ", ".join(f"s.{quote(name)}" for name in self.columns)
        scores = "".join(f", {t}.value AS {quote(c)}" for c, t in self._joined.items())
        joins = " ".join(f"LEFT JOIN {t} ON {t}.uid = s.uid" for t in self._joined.values())
        self.pool.sql(
            f"CREATE OR REPLACE TEMP VIEW candidates AS SELECT {names}{scores} "
            f"FROM samples s {joins}"
        )

    def judge(self, spec: FilterSpec, made: Filter, combine: str) -> _Verdict:
        """Let a filter score and decide; set-level ones of a chain see what is left."""
        chained = combine == "then" and made.set_level and bool(self._alive)
        scope = self._materialise_alive() if chained else "candidates"
        view = _View(self, scope)
        with _blaming(spec, made):
            scorers = made.scorers()
        for scorer in scorers:
            whole = made.set_level or combine == "or"
            with _blaming(spec, made):
                self._ensure_scored(scorer, scope, [] if whole else self._alive)
        if chained:
            scope = view.relation = self._materialise_alive()
        with _blaming(spec, made):
            decisions = made.decide(view)
        self._check(spec, decisions, view.relation)
        if chained:
            rules = self._materialise_rules(decisions, scope)
        else:
            rules = [(decision.reason, decision.predicate) for decision in decisions]
        if combine != "or":
            self._alive += [f"coalesce({predicate}, false)" for _, predicate in rules
                            if " OVER " not in predicate.upper()]  # fmt: skip
        return _Verdict(spec, rules)

    def _ensure_scored(self, scorer: Scorer, scope: str, alive: list[str]) -> None:
        """Compute and store the scores that are missing, cheapest rows only."""
        view = _View(self, scope)
        for column in scorer.columns:
            view.require(column, f"scorer {scorer.name} needs it")
        digest = scorer.digest()
        parameters = {**scorer.identity(), "type": scorer.type}
        table = self.pool.score_table(scorer.name, digest, parameters)
        where = " AND ".join(alive) or "true"
        relation = f"SELECT uid FROM {scope} c ANTI JOIN {table} t USING (uid) WHERE {where}"
        self.pool.sql(f"CREATE OR REPLACE TEMP TABLE to_score AS {relation}")
        total = self.pool.scalar("SELECT count(*) FROM to_score")
        with Progress(f"scoring {scorer.name}", total) as progress:
            for part in iterate(
                self.pool, "to_score", scorer.columns, scorer.images, scorer.batch_size
            ):
                values = list(scorer.score(Batch(part.columns, part.images)))
                if len(values) != len(part):
                    raise DataError(
                        f"scorer {scorer.name} returned {len(values)} values for "
                        f"{len(part)} samples"
                    )
                self.pool.write_scores(table, part.uids, values)
                progress.advance(len(part))
        self._joined[f"score:{scorer.name}:{digest[:16]}"] = table
        self.used.append({"name": scorer.name, "digest": digest, **scorer.identity()})
        self._create_view()

    def score_column(self, scorer: Scorer) -> str:
        name = f"score:{scorer.name}:{scorer.digest()[:16]}"
        if name not in self._joined:
            raise UsageError(f"scorer {scorer.name} is used in decide(), but not in scorers()")
        return quote(name)

    def _materialise_alive(self) -> str:
        self._kept_tables += 1
        name = f"left_{self._kept_tables}"
        where = " AND ".join(self._alive) or "true"
        self.pool.sql(
            f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM candidates WHERE {where}"
        )
        return name

    def _materialise_rules(self, decisions: list[Decision], scope: str) -> list[tuple[str, str]]:
        """Evaluate decisions over ``scope`` alone and return them as predicates over all."""
        rules = []
        for decision in decisions:
            self._kept_tables += 1
            name = f"kept_{self._kept_tables}"
            self.pool.sql(
                f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT uid FROM {scope} "
                f"QUALIFY coalesce({decision.predicate}, false)"
                if " OVER " in decision.predicate.upper()
                else f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT uid FROM {scope} "
                f"WHERE coalesce({decision.predicate}, false)"
            )
            rules.append((decision.reason, f"uid IN (SELECT uid FROM {name})"))
        return rules

    def _check(self, spec: FilterSpec, decisions: list[Decision], relation: str) -> None:
        """Bind every predicate before anything runs, and keep the truth out of it."""
        for decision in decisions:
            if re.search(rf"\b{TRUTH}\b", decision.predicate, re.IGNORECASE):
                raise UsageError(f"filter {spec.use}: no filter may read the column {TRUTH!r}")
            try:
                self.pool.sql(f"SELECT ({decision.predicate})::BOOLEAN FROM {relation} LIMIT 0")
            except DatacompError as error:
                raise UsageError(f"filter {spec.use}: {error}") from None

    def decide(self, verdicts: list[_Verdict], combine: str) -> None:
        """Write the table ``verdict`` (uid, step, reason) in one scan; step is NULL for kept."""
        cases: list[str] = []
        for step, verdict in enumerate(verdicts):
            for rule, (_, predicate) in enumerate(verdict.rules):
                failed = f"NOT coalesce({predicate}, false)"
                cases.append(f"WHEN {failed} THEN {step * 1000 + rule}")
        if combine == "or":
            kept = " OR ".join(
                "(" + (" AND ".join(f"coalesce({p}, false)" for _, p in v.rules) or "true") + ")"
                for v in verdicts
            )
            cases.insert(0, f"WHEN {kept} THEN NULL")
        case = f"CASE {' '.join(cases)} END" if cases else "NULL"
        self.pool.sql(
            f"CREATE OR REPLACE TEMP TABLE verdict AS SELECT uid, ({case})::INTEGER AS dropped "
            "FROM candidates"
        )
        names = [
            f"({step * 1000 + rule}, {literal(verdict.spec.label())}, {literal(reason)})"
            for step, verdict in enumerate(verdicts)
            for rule, (reason, _) in enumerate(verdict.rules)
        ]
        self.pool.sql(
            "CREATE OR REPLACE TEMP TABLE rule (id INTEGER, filter VARCHAR, reason VARCHAR)"
        )
        if names:
            self.pool.sql(f"INSERT INTO rule VALUES {', '.join(names)}")

    def kept(self) -> UidArray:
        """Return the sorted uids of what stays."""
        arrays = self.pool.sql(
            f"SELECT {HALVES} FROM verdict WHERE dropped IS NULL ORDER BY uid"
        ).fetchnumpy()
        return from_halves(arrays["high"], arrays["low"])

    def steps(self, verdicts: list[_Verdict], combine: str) -> list[Step]:
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


class _View:
    """The pool as a filter may see it."""

    def __init__(self, engine: _Engine, relation: str) -> None:
        self._engine, self.relation = engine, relation

    def has(self, column: str) -> bool:
        return column in self._engine.columns

    def require(self, column: str, hint: str = "") -> str:
        if not self.has(column):
            known = self._engine.columns
            more = f"; {hint}" if hint else ""
            raise MissingError(
                f"{self._engine.pool.path}: the pool has no column {column!r}"
                f"{suggest(column, known)}; there are: {', '.join(known)}{more}"
            )
        return quote(column)

    def score(self, scorer: Scorer) -> str:
        return self._engine.score_column(scorer)

    def scalar(self, query: str) -> Any:
        return self._engine.pool.scalar(query)

    def count(self) -> int:
        return self.scalar(f"SELECT count(*) FROM {self.relation}")


@contextlib.contextmanager
def _blaming(spec: FilterSpec, made: Filter) -> Iterator[None]:
    """Name file and line of a plug-in that raises."""
    try:
        yield
    except DatacompError:
        raise
    except Exception as error:
        raise RunError(
            f"filter {spec.use} failed at {blame(error, made)}: {type(error).__name__}: {error}"
        ) from error


@contextlib.contextmanager
def _temporary(pool: Pool) -> Iterator[None]:
    """Drop what a run left on the connection, so that the next one starts clean."""
    try:
        yield
    finally:
        with contextlib.suppress(DatacompError):
            names = pool.sql(
                "SELECT table_name, 'TABLE' FROM duckdb_tables() WHERE temporary UNION ALL "
                "SELECT view_name, 'VIEW' FROM duckdb_views() WHERE temporary AND NOT internal"
            ).fetchall()
            for name, kind in sorted(names, key=lambda item: item[1], reverse=True):
                pool.sql(f"DROP {kind} IF EXISTS {quote(name)}")
