"""Tell what a run of filters would do, and what it would cost, before it does it.

Nothing is scored. Decisions that need no score are made, so the plan says how many samples each
scorer would still see; what a score costs is known once any of it was computed on this pool, and
about known once a scorer of the kind was at work on this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import DataError
from ..pools.pool import Pool
from .blaming import all_of, blaming
from .contract import Decision, Scorer
from .expression import FilterGroup, Node, Prepared, prepare
from .judging import Engine, Frame
from .predicates import all_true
from .relations import CANDIDATES
from .sets import SetScorer
from .speeds import estimate
from .stored import EmbeddedScore
from .verdicts import Rule, Verdict


@dataclass
class ScorerPlan:
    """What a scorer has to do: how many samples at most, how many are scored already.

    ``seconds`` is an estimate from what the score took on this pool, or else from what scorers of
    the kind took on this machine; None is not known.
    """

    name: str
    reads: str
    samples: int
    scored: int
    seconds: float | None


@dataclass
class FilterPlan:
    """What one filter does: its scorers, then its decisions as (reason, SQL).

    Decisions are ``known`` in full before scoring, or else only those that need no score. A group
    has ``members``, joined by ``combine``, and decides what they do.
    """

    filter: str
    scorers: list[ScorerPlan] = field(default_factory=list)
    decisions: list[tuple[str, str]] = field(default_factory=list)
    known: bool = True
    combine: str | None = None
    members: list[FilterPlan] = field(default_factory=list)


@dataclass
class Plan:
    """The filters in the order in which they are judged, over so many samples."""

    samples: int
    combine: str
    filters: list[FilterPlan]


def explain(pool: Pool, filters: Sequence[Node], combine: str = "and") -> Plan:
    """Return the plan of ``run_filters`` with the same arguments. Raises what that raises."""
    prepared = prepare(filters, combine)
    total = pool.count()
    if total == 0:
        raise DataError(f"{pool.path}: the pool is empty; add samples with 'datacomp pool add'")
    planner = _Planner(pool)
    try:
        frame, plans = Frame(combine), []
        for one in prepared:
            plans.append(planner.plan(one, frame)[0])
        return Plan(total, combine, plans)
    finally:
        planner.engine.relations.clean()


class _Planner:
    """Judges what can be judged before anything is scored."""

    def __init__(self, pool: Pool) -> None:
        self.engine = Engine(pool)
        self._chain_is_known = True

    def plan(self, one: Prepared, frame: Frame) -> tuple[FilterPlan, Verdict]:
        """Return what a filter or a group would do, and its verdict as far as it is known."""
        node = one.node
        if isinstance(node, FilterGroup):
            inner = frame.enter(node)
            found = [self.plan(member, inner) for member in one.members]
            plans = [plan for plan, _ in found]
            group = FilterPlan(node.label(), combine=node.combine, members=plans)
            group.known = all(plan.known for plan in plans)
            verdicts = [verdict for _, verdict in found]
            if group.known:
                return group, self.engine.judge_group(node, verdicts, frame)
            joined = Verdict(node, [rule for v in verdicts for rule in v.rules])
            joined.others = any(verdict.others for verdict in verdicts)
            if node.combine != "or":
                _note(joined, node, frame)
            return group, joined
        assert one.made is not None
        with blaming(node, one.made):
            scorers = all_of(Scorer, one.made.scorers())
        chained = frame.combine == "then" or bool(frame.before)
        if not scorers and not (one.made.set_level and chained and not self._chain_is_known):
            verdict = self.engine.judge(one, frame)
            shown = [(rule.reason, rule.predicate) for rule in verdict.given or verdict.rules]
            return FilterPlan(node.label(), decisions=shown), verdict
        self._chain_is_known = False
        with blaming(node, one.made):
            cheap = all_of(Decision, one.made.before_scoring(self.engine.view(node, CANDIDATES)))
        others = self.engine.check(node, cheap, CANDIDATES)
        verdict = Verdict(node, [Rule(node, rule.reason, rule.predicate) for rule in cheap])
        verdict.others = any(others)
        # What judges a pool as a whole scores all of it, or what a chain has left.
        scope = frame.before if one.made.set_level else frame.alive
        alive = [*([] if verdict.others else [verdict.kept()]), *scope]
        plans = [_scorer(self.engine.pool, scorer, alive) for scorer in scorers]
        _note(verdict, node, frame)
        shown = [(rule.reason, rule.predicate) for rule in verdict.rules]
        return FilterPlan(node.label(), plans, shown, known=False), verdict


def _note(verdict: Verdict, node: Node, frame: Frame) -> None:
    """Let the frame know what drops out in any case, whatever the scores will be."""
    if frame.combine != "or" and not node.negated and not verdict.others:
        frame.note(verdict.kept())


def _scorer(pool: Pool, scorer: Scorer, alive: list[str]) -> ScorerPlan:
    where = all_true(alive)
    reads = (
        "images" if scorer.images
        else f"features {', '.join(scorer.features)}" if scorer.features
        else f"columns {', '.join(scorer.columns)}"
    )  # fmt: skip
    if isinstance(scorer, SetScorer):
        reads += ", as a whole"
    digest = scorer.digest()
    if isinstance(scorer, EmbeddedScore):
        reads, (digest, _, _) = "what pool embed wrote", scorer.find(pool)
    table = pool.scalar("SELECT values_table FROM scores WHERE digest = ?", [digest])
    samples = pool.scalar(f"SELECT count(*) FROM {CANDIDATES} WHERE {where}")
    if table is None:
        return ScorerPlan(scorer.name, reads, samples, 0, estimate(scorer, samples))
    scored = pool.scalar(
        f"SELECT count(*) FROM {CANDIDATES} SEMI JOIN {table} USING (uid) WHERE {where}"
    )
    ever = pool.scalar(f"SELECT count(*) FROM {table}")
    spent = pool.scalar("SELECT value FROM pool WHERE key = ?", [f"seconds:{digest}"])
    left = samples - scored
    seconds = float(spent) / ever * left if spent is not None and ever else estimate(scorer, left)
    return ScorerPlan(scorer.name, reads, samples, scored, seconds)
