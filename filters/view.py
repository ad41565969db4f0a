"""The pool as a filter may see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import DataError, MissingError, UsageError, suggest
from ..pools.pool import quote
from .answers import Answers, AsWholeError, Question, query_of
from .contract import Scorer, View
from .guard import check_query
from .relations import Relations
from .spec import FilterSpec


def view_of(
    relations: Relations, score_column: Callable[[Scorer], str], spec: FilterSpec, scope: str,
    answers: Answers,
) -> View:  # fmt: skip
    """Return a view of the relation ``scope``; ``answers`` are given about all of it.

    The pool itself is held by closures, so that no attribute leads a plug-in to what it should
    not use. That prevents mistakes, not intent: a plug-in is code with the rights of its user.
    """
    pool, known = relations.pool, tuple(relations.columns)

    class Seen:
        relation = scope

        def has(self, column: str) -> bool:
            return column in known

        def require(self, column: str, hint: str = "") -> str:
            if column not in known:
                more = f"; {hint}" if hint else ""
                raise MissingError(
                    f"{pool.path}: the pool has no column {column!r}"
                    f"{suggest(column, list(known))}; there are: {', '.join(known)}{more}"
                )
            return quote(column)

        def score(self, scorer: Scorer) -> str:
            return score_column(scorer)

        def scalar(self, query: str) -> Any:
            if not answers.whole:
                raise AsWholeError(f"{spec.use} asks the pool as a whole")
            return checked(query, lambda: pool.scalar(query))

        def count(self, where: str = "true") -> int:
            return ask(Question("count", scope, where=where))

        def nth(
            self, value: str, place: int, *, where: str = "true", descending: bool = False,
            repeated: bool = False,
        ) -> Any:  # fmt: skip
            return ask(Question("nth", scope, value, where, place, descending), repeated)

        def first(self, *columns: str) -> str:
            for column in columns:
                self.require(column)
            return answers.first(relations, scope, columns)

        def kind(self, column: str) -> str:
            return relations.types[column]

    def ask(question: Question, repeated: bool = False) -> Any:
        query = query_of(question, repeated)
        return checked(query, lambda: answers.ask(pool, question, repeated))

    def checked(query: str, run: Callable[[], Any]) -> Any:
        try:
            check_query(pool, query, scope)
            return run()
        except (DataError, UsageError) as error:
            raise UsageError(f"filter {spec.use}: {error}") from None

    return Seen()
