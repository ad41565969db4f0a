"""Run a funnel of filters over a pool: score what is not scored yet, then decide in one scan.

``combine`` says how filters join:

- ``and``: each filter judges the whole pool; a sample stays if all keep it (DataComp's
  intersections are made this way);
- ``or``: a sample stays if any keeps it;
- ``minus``: a sample stays if the first filter keeps it and none of the others does;
- ``then``: each filter sees only what the one before it left.

A negated filter (``FilterSpec.negated``) keeps what it would have dropped, for the reason
``excluded``.

Decisions are free, scores are dear. So filters are judged in the order of what their scores cost,
unless ``then`` says otherwise, and a scorer sees only samples whose fate it can still change.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError, suggest
from ..pools.pool import Pool
from ..pools.uids import UidArray
from .blaming import all_of, blaming, blaming_decision
from .contract import Decision, Filter, Scorer, View
from .guard import check_predicate
from .predicates import all_true, matching, true
from .relations import CANDIDATES, Relations
from .scoring import Scoring, Unreadable
from .sets import SetScorer
from .spec import FilterSpec
from .verdicts import Decider, Verdict
from .view import view_of

COMBINE = ("and", "or", "then", "minus")
EXCLUDED, NOT_DRAWN = "excluded", "not_drawn"


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
    specs: list[FilterSpec],
    combine: str = "and",
    reasons: Path | None = None,
) -> Selection:
    """Run filters over a pool and return what they keep.

    With ``reasons``, writes a parquet of every dropped sample: uid (hex), filter, reason.
    Raises UsageError for unknown filters or parameters, MissingError for missing columns or when
    none of the images can be read.
    """
    prepared = prepare(specs, combine)
    total = pool.count()
    if total == 0:
        raise DataError(f"{pool.path}: the pool is empty; add samples with 'datacomp pool add'")
    started = time.monotonic()
    engine = Engine(pool, combine)
    try:
        verdicts = [engine.judge(spec, made) for spec, made in prepared]
        outcome = Decider(engine.relations, verdicts, combine).decide(total, reasons)
        steps = _steps(total, verdicts, outcome.dropped, len(outcome.uids))
        selection = Selection(outcome.uids, total, steps, combine)
        selection.unreadable = engine.scoring.unreadable()
    finally:
        engine.relations.clean()
    scoring = engine.scoring
    selection.scores = scoring.used
    selection.scoring, selection.scoring_now = scoring.seconds, scoring.seconds_now
    selection.seconds = time.monotonic() - started
    return selection


def prepare(specs: list[FilterSpec], combine: str) -> list[tuple[FilterSpec, Filter]]:
    """Make the filters, in the order in which they are judged."""
    if combine not in COMBINE:
        raise UsageError(
            f"combine is {combine!r}{suggest(combine, list(COMBINE))}; "
            f"expected one of: {', '.join(COMBINE)}"
        )
    if not specs:
        raise UsageError("no filter given; 'no_filter' keeps everything")
    if combine == "minus":
        specs = [specs[0], *(replace(spec, negated=not spec.negated) for spec in specs[1:])]
    made = [(spec, spec.make()) for spec in specs]
    if combine != "then":
        made.sort(key=lambda one: _cost(*one))
    return made


def _cost(spec: FilterSpec, made: Filter) -> int:
    """Return a rank of what a filter's scores cost: none, columns, features, images, whole sets."""
    with blaming(spec, made):
        scorers = all_of(Scorer, made.scorers())
    ranks = [
        4 if isinstance(s, SetScorer) else 3 if s.images else 2 if s.features else 1
        for s in scorers
    ]
    return max(ranks, default=0)


def _steps(
    total: int, verdicts: list[Verdict], dropped: list[list[int]], seen: int
) -> list[Step]:  # fmt: skip
    """Return the counts of the funnel."""
    left, steps = total, []
    for verdict, counts in zip(verdicts, dropped, strict=True):
        reasons: dict[str, int] = {}
        for (reason, _), count in zip(verdict.rules, counts, strict=True):
            if count:
                reasons[reason] = reasons.get(reason, 0) + count
        after = left - sum(reasons.values())
        steps.append(Step(verdict.spec.label(), left, after, reasons))
        left = after
    if any(verdict.weight is not None for verdict in verdicts):
        steps[-1].seen = seen
    return steps


class Engine:
    """Judges filters one by one over a pool; what is left for later ones is kept as SQL."""

    def __init__(self, pool: Pool, combine: str) -> None:
        self.pool, self.combine = pool, combine
        self.relations = Relations(pool)
        self.relations.show_candidates()
        self.scoring = Scoring(self.relations)
        self.alive: list[str] = []
        """True for what the filters so far leave open: in ``or`` what none of them keeps."""
        self._weighted: str | None = None

    def judge(self, spec: FilterSpec, made: Filter) -> Verdict:
        """Let a filter score and decide; set-level ones of a chain see what is left."""
        chained = self.combine == "then"
        scope = self._left() if chained and made.set_level else CANDIDATES
        view = self.view(spec, scope)
        with blaming(spec, made):
            scorers = all_of(Scorer, made.scorers())
        missed = len(self.scoring.missed)
        if scorers:
            self._score(spec, made, scorers, view)
            if scope != CANDIDATES:
                scope = self._left()
                view = self.view(spec, scope)
        with blaming(spec, made):
            decisions = all_of(Decision, made.decide(view))
            weight = made.weight(view)
        windowed = self._check(spec, decisions, scope)
        rules = [(decision.reason, decision.predicate) for decision in decisions]
        if weight is not None:
            weight = self._weigh(spec, weight, scope)
            rules.append((NOT_DRAWN, f"{weight} > 0"))
        if spec.negated:
            rules = _negated(rules)
        unseen = [_not_in(table) for table in self.scoring.missed[missed:]]
        verdict = Verdict(spec, [*unseen, *rules], weight)
        self._note_alive(made, verdict, scope, any(windowed))
        return verdict

    def view(self, spec: FilterSpec, scope: str) -> View:
        """Return the pool as a filter sees it."""
        return view_of(self.relations, self.scoring.column, spec, scope)

    def _note_alive(self, made: Filter, verdict: Verdict, scope: str, others: bool) -> None:
        """Remember what a verdict leaves open; it may look at ``others`` than the sample."""
        if self.combine == "then":
            if made.set_level or others:
                within = scope if made.set_level else self._left()
                found = self._materialised(verdict, within)
                verdict.given, verdict.rules = verdict.rules, found
            self.alive.append(verdict.kept())
        elif not others:
            self.alive.append(f"NOT ({verdict.kept()})" if self.combine == "or" else verdict.kept())

    def _score(self, spec: FilterSpec, made: Filter, scorers: list[Scorer], view: View) -> None:
        """Let a filter's scorers see the samples whose fate is open."""
        with blaming(spec, made):
            cheap = all_of(Decision, made.before_scoring(view))
        windowed = self._check(spec, cheap, view.relation)
        own = [
            decision.predicate
            for decision, others in zip(cheap, windowed, strict=True)
            if not others
        ]
        # A filter that judges the pool as a whole needs every score.
        alive = own if made.set_level else self.alive + own
        for scorer in scorers:
            with blaming(spec, made):
                for column in scorer.columns:
                    view.require(column, f"scorer {scorer.name} needs it")
            with blaming(spec, made):
                self.scoring.ensure(spec, scorer, view.relation, alive)
        self.relations.show_candidates()

    def _weigh(self, spec: FilterSpec, weight: str, scope: str) -> str:
        """Compute how often samples are to be seen; return the column that says so."""
        if self._weighted is not None or spec.negated or self.combine == "or":
            other = f"{self._weighted} does too" if self._weighted else "no 'or' or 'not' can join"
            raise UsageError(f"filter {spec.use} says how often samples are to be seen; {other}")
        self._weighted = spec.use
        with blaming_decision(spec, NOT_DRAWN):
            check_predicate(self.pool, weight, scope)
            weights = f"SELECT uid, ({weight})::UINTEGER AS value FROM {scope}"
            self.relations.join("weight:", self.relations.create_next("weights", weights))
        self.relations.show_candidates()
        return '"weight:"'

    def _left(self) -> str:
        """Return a relation of the candidates that are not dropped yet."""
        if not self.alive:
            return CANDIDATES
        where = " AND ".join(self.alive)
        return self.relations.create_next("left", f"SELECT * FROM {CANDIDATES} WHERE {where}")

    def _materialised(self, verdict: Verdict, scope: str) -> list[tuple[str, str]]:
        """Evaluate decisions over ``scope`` alone and return them as predicates over all."""
        found = []
        for reason, predicate in verdict.rules:
            with blaming_decision(verdict.spec, reason):
                name = self.relations.create_next("kept", matching(scope, predicate))
            found.append((reason, f"uid IN (SELECT uid FROM {name})"))
        return found

    def _check(self, spec: FilterSpec, decisions: list[Decision], relation: str) -> list[bool]:
        """Bind every predicate before anything runs; tell which ones look at other rows too."""
        windowed = []
        for decision in decisions:
            with blaming_decision(spec, decision.reason):
                windowed.append(check_predicate(self.pool, decision.predicate, relation))
                self.pool.sql(f"SELECT {true(decision.predicate)} FROM {relation} LIMIT 0")
        return windowed


def _negated(rules: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the rule that keeps what the rules drop."""
    return [(EXCLUDED, f"NOT ({all_true(predicate for _, predicate in rules)})")]


def _not_in(table: str) -> tuple[str, str]:
    """Return the rule that drops the samples whose images could not be read."""
    return "unreadable", f"uid NOT IN (SELECT uid FROM {table})"
