"""Let filters score and decide, one by one; what is left for later ones is kept as SQL."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from ..errors import UsageError
from ..pools.engine import Engine as Workers
from ..pools.pool import Pool
from .answers import Answers, AsWholeError, Whole
from .blaming import all_of, blaming, blaming_decision
from .contract import Decision, Filter, Scorer, View
from .expression import FilterGroup, Prepared
from .guard import check_predicate, looks_beyond
from .predicates import all_true, matching, true
from .relations import CANDIDATES, Relations
from .scoring import Scoring
from .spec import FilterSpec
from .verdicts import GROUP, Rule, Verdict
from .view import view_of

EXCLUDED, NOT_DRAWN, UNREADABLE = "excluded", "not_drawn", "unreadable"


@dataclass
class Frame:
    """Where a filter stands: what joins it to its neighbours, and what they have decided so far.

    ``before`` is SQL that is true of what the chains (``then``) it stands in have left for it:
    the pool of a filter that judges a pool as a whole. ``alive`` is true of the samples whose
    fate is still open; in ``or`` those that none has kept yet. ``weighs`` where no ``or`` or
    ``not`` is around, so that weights can be said; ``negated`` where a ``not`` is.
    """

    combine: str
    before: list[str] = field(default_factory=list)
    alive: list[str] = field(default_factory=list)
    weighs: bool = True
    negated: bool = False

    def enter(self, group: FilterGroup) -> Frame:
        """Return the frame of a group that stands in this one."""
        weighs = self.weighs and not group.negated and self.combine != "or"
        negated = self.negated or group.negated
        return Frame(group.combine, [*self.before], [*self.alive], weighs, negated)

    def note(self, kept: str) -> None:
        """Remember what a filter keeps."""
        if self.combine == "then":
            self.before.append(kept)
        self.alive.append(f"NOT ({kept})" if self.combine == "or" else kept)


class Engine:
    """Judges filters and groups of them over a pool; ``workers`` score images, if there are any."""

    def __init__(
        self, pool: Pool, answers: Answers | None = None, workers: Workers | None = None
    ) -> None:
        self.pool, self.answers = pool, answers or Whole()
        self.relations = Relations(pool)
        self.relations.show_candidates()
        self.scoring = Scoring(self.relations, self.answers, workers)
        self._numbers = itertools.count(1)
        self._weighted: str | None = None

    def judge(self, one: Prepared, frame: Frame) -> Verdict:
        """Return what a filter or a group decides, and let the frame know."""
        if one.made is None:
            assert isinstance(one.node, FilterGroup)
            inner = frame.enter(one.node)
            return self.judge_group(one.node, [self.judge(m, inner) for m in one.members], frame)
        assert isinstance(one.node, FilterSpec)
        return self._judge_filter(one.node, one.made, frame)

    def judge_group(self, group: FilterGroup, members: list[Verdict], frame: Frame) -> Verdict:
        """Join what the members of a group decide."""
        rules = [rule for member in members for rule in member.rules]
        refused = [f"({member.refused})" for member in members]
        if group.combine == "or":
            # What any member keeps passes the rules of all.
            kept = self._column(" OR ".join(f"({member.kept()})" for member in members))
            rules = [r._replace(predicate=f"{kept} OR {true(r.predicate)}") for r in rules]
            verdict = Verdict(group, rules, " AND ".join(refused), kept)
        else:
            verdict = Verdict(group, rules, " OR ".join(refused))
        if group.negated:
            kept, dropped = self._column(verdict.kept()), self._column(verdict.refused)
            unread = any(rule.reason == UNREADABLE for rule in rules)
            known = [Rule(group, UNREADABLE, f"{kept} OR {dropped}")] if unread else []
            verdict = Verdict(group, [*known, Rule(group, EXCLUDED, dropped)], kept, dropped)
        verdict.weight = next((m.weight for m in members if m.weight is not None), None)
        verdict.others = any(member.others for member in members)
        self._note(verdict, frame)
        return verdict

    def view(self, spec: FilterSpec, scope: str) -> View:
        """Return the pool as a filter sees it."""
        return view_of(self.relations, self.scoring.column, spec, scope, self.answers)

    def check(self, spec: FilterSpec, decisions: list[Decision], relation: str) -> list[bool]:
        """Bind every predicate before anything runs; tell which ones look at other rows too."""
        windowed = []
        for decision in decisions:
            with blaming_decision(spec, decision.reason):
                windowed.append(check_predicate(self.pool, decision.predicate, relation))
                if not self.answers.whole and looks_beyond(self.pool, decision.predicate):
                    raise AsWholeError(f"{spec.use} compares samples with each other")
                self.pool.sql(f"SELECT {true(decision.predicate)} FROM {relation} LIMIT 0")
        return windowed

    def _judge_filter(self, spec: FilterSpec, made: Filter, frame: Frame) -> Verdict:
        """Let a filter score and decide; set-level ones of a chain see what is left."""
        scope = self._left(frame.before) if made.set_level else CANDIDATES
        view = self.view(spec, scope)
        with blaming(spec, made):
            scorers = all_of(Scorer, made.scorers())
        missed = len(self.scoring.missed)
        if scorers:
            self._score(spec, made, scorers, view, frame.alive)
            if scope != CANDIDATES:
                scope = self._left(frame.before)
                view = self.view(spec, scope)
        with blaming(spec, made):
            decisions = all_of(Decision, made.decide(view))
            weight = made.weight(view)
        windowed = self.check(spec, decisions, scope)
        rules = [Rule(spec, decision.reason, decision.predicate) for decision in decisions]
        if weight is not None:
            column = self._weigh(spec, weight, scope, frame)
            # What a chain has left was put aside before there was that column.
            often = column if scope == CANDIDATES else f"({weight})::UINTEGER"
            rules.append(Rule(spec, NOT_DRAWN, f"{often} > 0"))
            weight = column
        if spec.negated:
            rules = [Rule(spec, EXCLUDED, f"NOT ({all_true(r.predicate for r in rules)})")]
        read = [_not_in(spec, table) for table in self.scoring.missed[missed:]]
        seen, decided = (all_true(rule.predicate for rule in some) for some in (read, rules))
        verdict = Verdict(spec, [*read, *rules], f"{seen} AND NOT ({decided})")
        verdict.weight, verdict.others = weight, any(windowed)
        self._note(verdict, frame, scope if made.set_level else None)
        return verdict

    def _note(self, verdict: Verdict, frame: Frame, scope: str | None = None) -> None:
        """Let the frame know what a verdict leaves open.

        In a chain, what looks at other samples is decided at once over those that are left, or
        over ``scope``.
        """
        chained = frame.combine == "then" or bool(frame.before)
        if chained and (scope is not None or verdict.others):
            self._materialise(verdict, scope or self._left(frame.before), frame.negated)
        if not verdict.others:
            frame.note(verdict.kept())

    def _score(
        self, spec: FilterSpec, made: Filter, scorers: list[Scorer], view: View, alive: list[str]
    ) -> None:  # fmt: skip
        """Let a filter's scorers see the samples whose fate is open."""
        with blaming(spec, made):
            cheap = all_of(Decision, made.before_scoring(view))
        windowed = self.check(spec, cheap, view.relation)
        own = [
            decision.predicate
            for decision, others in zip(cheap, windowed, strict=True)
            if not others
        ]
        # A filter that judges the pool as a whole needs every score.
        open_ = own if made.set_level else alive + own
        for scorer in scorers:
            with blaming(spec, made):
                for column in scorer.columns:
                    view.require(column, f"scorer {scorer.name} needs it")
            with blaming(spec, made):
                self.scoring.ensure(spec, scorer, view.relation, open_)
        self.relations.show_candidates()

    def _weigh(self, spec: FilterSpec, weight: str, scope: str, frame: Frame) -> str:
        """Compute how often samples are to be seen; return the column that says so."""
        inside = not frame.weighs or frame.combine == "or" or spec.negated
        if self._weighted is not None or inside:
            other = f"{self._weighted} does too" if self._weighted else "no 'or' or 'not' can join"
            raise UsageError(f"filter {spec.use} says how often samples are to be seen; {other}")
        self._weighted = spec.use
        with blaming_decision(spec, NOT_DRAWN):
            check_predicate(self.pool, weight, scope)
            weights = f"SELECT uid, ({weight})::UINTEGER AS value FROM {scope}"
            self.relations.join("weight:", self.relations.create_next("weights", weights))
        self.relations.show_candidates()
        return '"weight:"'

    def _column(self, expression: str) -> str:
        """Give what is asked often a column of its own."""
        return self.relations.define(f"{GROUP}{next(self._numbers)}", expression)

    def _left(self, before: list[str]) -> str:
        """Return a relation of the candidates that a chain has not dropped."""
        if not before:
            return CANDIDATES
        where = " AND ".join(before)
        return self.relations.create_next("left", f"SELECT * FROM {CANDIDATES} WHERE {where}")

    def _materialise(self, verdict: Verdict, scope: str, negated: bool) -> None:
        """Evaluate a verdict over ``scope`` alone; its rules then are predicates over all."""

        def found(predicate: str) -> str:
            name = self.relations.create_next("kept", matching(scope, predicate))
            return f"uid IN (SELECT uid FROM {name})"

        verdict.given, verdict.rules, verdict.whole = verdict.rules, [], None
        for rule in verdict.given:
            with blaming_decision(rule.node, rule.reason):
                verdict.rules.append(rule._replace(predicate=found(rule.predicate)))
        verdict.refused = found(verdict.refused) if negated else "false"
        verdict.others = False


def _not_in(spec: FilterSpec, table: str) -> Rule:
    """Return the rule that drops the samples whose images could not be read."""
    return Rule(spec, UNREADABLE, f"uid NOT IN (SELECT uid FROM {table})")
