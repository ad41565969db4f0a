"""The SQL that the engine makes of decisions."""

from __future__ import annotations

from collections.abc import Iterable


def true(predicate: str) -> str:
    """Return SQL that is true or false where a predicate may be NULL."""
    return f"coalesce(({predicate})::BOOLEAN, false)"


def all_true(predicates: Iterable[str]) -> str:
    """Return SQL that is true where all predicates are, and of none."""
    return " AND ".join(map(true, predicates)) or "true"


def number(value: str, kind: str) -> str:
    """Return SQL of a value that is to be stored as ``kind``; NaN becomes NULL, which is no score.

    SQL takes NaN for the largest number, so it would pass what asks for high scores.
    """
    if kind.upper() not in ("FLOAT", "REAL", "DOUBLE"):
        return value
    return f"CASE WHEN isnan({value}::{kind}) THEN NULL ELSE {value} END"


def matching(relation: str, predicate: str) -> str:
    """Return the SELECT of the uids for which a predicate, windowed or not, is true."""
    return f"SELECT uid FROM (SELECT uid, {true(predicate)} AS kept FROM {relation}) WHERE kept"
