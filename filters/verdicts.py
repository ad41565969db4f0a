"""Decide over all candidates in one scan: which stay, and under which reason the others drop."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..durable import atomic_path
from ..errors import DataError
from ..pools.pool import literal
from ..pools.uid_sorter import UidSorter
from .blaming import blaming_decision
from .expression import Node
from .gathering import Gatherer
from .predicates import all_true, matching, true
from .relations import CANDIDATES, Relations

GROUP = "group:"
"""Begins the names of columns that hold what a group of filters decides."""


class Rule(NamedTuple):
    """A decision that was taken: a filter, its reason, and SQL that is true of what stays."""

    node: Node
    reason: str
    predicate: str


@dataclass
class Verdict:
    """What a filter, or a group of them, decides: predicates over all candidates.

    ``refused`` is SQL of what it is sure to drop; a sample whose image could not be read is
    neither kept nor refused. ``whole`` is SQL of what passes all rules, if that can be said
    shorter. ``weight`` is SQL of how often a kept sample is to be seen, if not
    once. ``others`` tells whether rules look at other samples too. ``given`` are the rules as the
    filter gave them, where those of the verdict stand for their outcome.
    """

    node: Node
    rules: list[Rule]
    refused: str = "false"
    whole: str | None = None
    weight: str | None = None
    others: bool = False
    given: list[Rule] | None = None

    def kept(self) -> str:
        """Return SQL that is true for what the filter keeps."""
        return self.whole or all_true(rule.predicate for rule in self.rules)


@dataclass
class Outcome:
    """The uids of what stays, each as often as it is to be seen, and why the others drop.

    ``dropped[filter][rule]`` counts those that drop under a rule of a filter.
    """

    uids: UidSorter
    dropped: list[list[int]]


class Decider:
    """Decides with the verdicts of filters that are joined by ``combine``."""

    def __init__(self, relations: Relations, verdicts: list[Verdict], combine: str) -> None:
        self._relations, self._verdicts, self._combine = relations, verdicts, combine
        rules = [rule for verdict in verdicts for rule in verdict.rules]
        self._names = [(rule.node.label(), rule.reason) for rule in rules]
        cases = [f"WHEN NOT {true(rule.predicate)} THEN {n}" for n, rule in enumerate(rules, 1)]
        if combine == "or":
            cases.insert(0, f"WHEN {' OR '.join(f'({v.kept()})' for v in verdicts)} THEN 0")
        # Rules are numbered from 1; 0 is for what stays.
        self._number = (
            f"(CASE {' '.join(cases)} ELSE 0 END)::USMALLINT" if rules else "0::USMALLINT"
        )
        self._weight = next((v.weight for v in verdicts if v.weight is not None), None)

    def decide(self, total: int, reasons: Path | None = None) -> Outcome:
        """Scan the ``total`` candidates; write uid, filter and reason of the dropped, if asked."""
        try:
            if reasons is None and self._weight is None and self._is_quick():
                return self._count_and_gather(total)
            relation = f"(SELECT *, {self._number} AS dropped FROM {CANDIDATES})"
            if reasons is not None:
                columns = (
                    "uid, dropped" if self._weight is None else f"uid, dropped, {self._weight}"
                )
                relation = self._relations.create(
                    "TABLE", "verdict", f"SELECT {columns} FROM {relation}"
                )
                self._write_reasons(relation, reasons)
            return self._gather(relation, total)
        except DataError:
            self._blame()
            raise

    def _is_quick(self) -> bool:
        """Tell whether it costs less to decide twice than to make uids of what is dropped.

        So it is where no rule looks at text, at scores computed here, or at other samples.
        """
        texts = [name for name, kind in self._relations.types.items() if kind == "VARCHAR"]
        slow = re.compile(
            "|".join([r"\bselect\b", r"\bover\b", "score:", GROUP, *map(re.escape, texts)]),
            re.IGNORECASE,
        )
        return not any(slow.search(rule.predicate) for v in self._verdicts for rule in v.rules)

    def _count_and_gather(self, total: int) -> Outcome:
        """Count the reasons from the columns they need, then collect the uids that stay."""
        if self._combine == "or":
            kept = " OR ".join(f"({verdict.kept()})" for verdict in self._verdicts) or "true"
            counted = f"SELECT {self._number} AS dropped FROM {CANDIDATES}"
            pool = self._relations.pool
            rows = pool.sql(f"SELECT dropped, count(*) FROM ({counted}) GROUP BY ALL").fetchall()
            return self._outcome(Gatherer(self._relations, total).where(kept), dict(rows))
        passed = list(itertools.accumulate(
            (true(rule.predicate) for verdict in self._verdicts for rule in verdict.rules),
            "{} AND {}".format,
        ))  # fmt: skip
        left = [total]
        if passed[:-1]:  # what the last rule leaves is counted as it is collected
            # A single condition is the scan's own, which costs half of asking every row it finds.
            counts = ", ".join(f"count(*) FILTER ({predicate})" for predicate in passed[:-1])
            query = f"SELECT {counts} FROM {CANDIDATES}"
            if len(passed) == 2:
                query = f"SELECT count(*) FROM {CANDIDATES} WHERE {passed[0]}"
            left += self._relations.pool.sql(query).fetchall()[0]
        uids = Gatherer(self._relations, left[-1]).where(passed[-1] if passed else "true")
        left.append(uids.count)
        return self._outcome(
            uids, {n: a - b for n, (a, b) in enumerate(itertools.pairwise(left), 1)}
        )

    def _gather(self, relation: str, total: int) -> Outcome:
        """Decide and collect in one scan."""
        counts = np.zeros(len(self._names) + 1, np.int64)
        uids = Gatherer(self._relations, total).by_number(relation, self._weight, counts)
        return self._outcome(uids, dict(enumerate(counts.tolist())))

    def _outcome(self, uids: UidSorter, counts: dict[int, int]) -> Outcome:
        numbers = itertools.count(1)
        dropped = [[counts.get(next(numbers), 0) for _ in v.rules] for v in self._verdicts]
        return Outcome(uids, dropped)

    def _write_reasons(self, relation: str, path: Path) -> None:
        """Write uid, filter and first reason of every dropped sample as parquet."""
        rules = ", ".join(
            f"({number}, {literal(label)}, {literal(reason)})"
            for number, (label, reason) in enumerate(self._names, 1)
        )
        rules = f"VALUES {rules}" if rules else "SELECT 0, '', '' LIMIT 0"
        with atomic_path(path) as partial:
            partial.open("wb").close()  # of a place where none can be made DuckDB says less
            partial.unlink()
            self._relations.pool.sql(
                "COPY (SELECT printf('%032x', v.uid) AS uid, r.filter, r.reason "
                f"FROM {relation} v JOIN ({rules}) r(number, filter, reason) "
                "ON r.number = v.dropped ORDER BY v.uid) "
                f"TO {literal(str(partial))} (FORMAT parquet)"
            )

    def _blame(self) -> None:
        """Name the decision that fails on some sample."""
        for verdict in self._verdicts:
            for rule in verdict.rules:
                with blaming_decision(rule.node, rule.reason):
                    found = f"SELECT count(*) FROM ({matching(CANDIDATES, rule.predicate)})"
                    self._relations.pool.sql(found)
