"""Tell what a run of filters would do, and what it would cost, before it does it.

Nothing is scored. Decisions that need no score are made, so the plan says how many samples each
scorer would still see; what a score costs is known once any of it was computed on this pool.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import DataError
from ..pools.pool import Pool
from .blaming import all_of, blaming
from .contract import Decision, Scorer
from .engine import Engine, prepare
from .predicates import all_true
from .relations import CANDIDATES
from .sets import SetScorer
from .spec import FilterSpec
from .verdicts import Verdict


@dataclass
class ScorerPlan:
    """What a scorer has to do: how many samples at most, how many are scored already.

    ``seconds`` is an estimate from what earlier scores of the kind took; None is not known.
    """

    name: str
    reads: str
    samples: int
    scored: int
    seconds: float | None


@dataclass
class FilterPlan:
    """What one filter does: its scorers, then its decisions as (reason, SQL).

    Decisions are ``known`` in full before scoring, or else only those that need no score.
    """

    filter: str
    scorers: list[ScorerPlan] = field(default_factory=list)
    decisions: list[tuple[str, str]] = field(default_factory=list)
    known: bool = True


@dataclass
class Plan:
    """The filters in the order in which they are judged, over so many samples."""

    samples: int
    combine: str
    filters: list[FilterPlan]


def explain(pool: Pool, specs: list[FilterSpec], combine: str = "and") -> Plan:
    """Return the plan of ``run_filters`` with the same arguments. Raises what that raises."""
    prepared = prepare(specs, combine)
    total = pool.count()
    if total == 0:
        raise DataError(f"{pool.path}: the pool is empty; add samples with 'datacomp pool add'")
    engine = Engine(pool, combine)
    try:
        plan = Plan(total, combine, [])
        for spec, made in prepared:
            with blaming(spec, made):
                scorers = all_of(Scorer, made.scorers())
            found = FilterPlan(spec.label())
            plan.filters.append(found)
            if not scorers and (not made.set_level or combine != "then" or _all_known(plan)):
                verdict = engine.judge(spec, made)
            else:
                with blaming(spec, made):
                    cheap = all_of(Decision, made.before_scoring(engine.view(spec, CANDIDATES)))
                verdict = Verdict(spec, [(rule.reason, rule.predicate) for rule in cheap])
                found.known = False
                whole = made.set_level and combine != "then"
                alive = [verdict.kept()] + ([] if whole else engine.alive)
                found.scorers = [_scorer(pool, scorer, alive) for scorer in scorers]
                if combine != "or" and not spec.negated:
                    engine.alive.append(verdict.kept())
            found.decisions = verdict.given or verdict.rules
        return plan
    finally:
        engine.relations.clean()


def _all_known(plan: Plan) -> bool:
    return all(found.known for found in plan.filters)


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
    table = pool.scalar("SELECT values_table FROM scores WHERE digest = ?", [digest])
    samples = pool.scalar(f"SELECT count(*) FROM {CANDIDATES} WHERE {where}")
    if table is None:
        return ScorerPlan(scorer.name, reads, samples, 0, None)
    scored = pool.scalar(
        f"SELECT count(*) FROM {CANDIDATES} SEMI JOIN {table} USING (uid) WHERE {where}"
    )
    ever = pool.scalar(f"SELECT count(*) FROM {table}")
    spent = pool.scalar("SELECT value FROM pool WHERE key = ?", [f"seconds:{digest}"])
    seconds = float(spent) / ever * (samples - scored) if spent is not None and ever else None
    return ScorerPlan(scorer.name, reads, samples, scored, seconds)
