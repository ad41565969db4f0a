"""What the SQL of a filter may read: the candidates, and never the truth about them.

SQL is judged by its syntax tree, not by its text, so that no spelling gets round it; a caption
may well speak of truth.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..errors import UsageError
from ..pools.pool import Pool
from ..pools.schema import TRUTH

_TABLE_FUNCTIONS = ("unnest", "range", "generate_series")
_RELATIONS = ("BASE_TABLE", "SUBQUERY", "JOIN", "EMPTY", "EXPRESSION_LIST", "TABLE_FUNCTION")


def check_predicate(pool: Pool, predicate: str, relation: str) -> bool:
    """Raise UsageError unless ``predicate`` is one expression over ``relation``.

    Returns whether it looks at other rows too (window functions).
    """
    node = _parse(pool, f"SELECT ({predicate}) FROM {relation}")
    clauses = ("where_clause", "having", "qualify", "group_expressions", "modifiers")
    if (
        node.get("type") != "SELECT_NODE"
        or len(node["select_list"]) != 1
        or any(node.get(clause) for clause in clauses)
    ):
        raise UsageError("a predicate must be one SQL expression")
    _check(pool, node, relation)
    return any(item.get("class") == "WINDOW" for item in _walk(node))


def looks_beyond(pool: Pool, predicate: str) -> bool:
    """Tell whether a predicate looks at other rows: by a window, or by a query of its own."""
    node = _parse(pool, f"SELECT ({predicate})")
    return any(item.get("class") in ("WINDOW", "SUBQUERY") for item in _walk(node))


def check_query(pool: Pool, query: str, relation: str) -> None:
    """Raise UsageError unless ``query`` is one SELECT that reads nothing but ``relation``."""
    _check(pool, _parse(pool, query), relation)


def _parse(pool: Pool, query: str) -> dict[str, Any]:
    tree = json.loads(pool.scalar("SELECT json_serialize_sql(?)", [query]))
    if tree["error"]:
        raise UsageError(" ".join(str(tree["error_message"]).split()))
    if len(tree["statements"]) != 1:
        raise UsageError("expected one SELECT")
    return tree["statements"][0]["node"]


def _check(pool: Pool, node: dict[str, Any], relation: str) -> None:
    readable = {relation, "candidates"}
    named = _named_in(node)
    if named:  # what stands in the pool is hidden by no name that a query gives
        for kind in ("table", "view"):
            found = pool.sql(f"SELECT {kind}_name FROM duckdb_{kind}s()").fetchall()
            named -= {row[0].lower() for row in found}
        readable |= named
    for item in _walk(node):
        if item.get("class") == "COLUMN_REF" and TRUTH in map(str.lower, item["column_names"]):
            raise UsageError(f"no filter may read the column {TRUTH!r}")
        if "class" not in item and "alias" in item and "sample" in item:
            _check_relation(item, readable, relation)


def _check_relation(item: dict[str, Any], readable: set[str], relation: str) -> None:
    kind = item["type"]
    name = item.get("table_name") or item.get("function", {}).get("function_name") or kind
    if kind == "BASE_TABLE":
        fine = name in readable and not item["schema_name"] and not item["catalog_name"]
    elif kind == "TABLE_FUNCTION":
        fine = name in _TABLE_FUNCTIONS
    else:
        fine = kind in _RELATIONS
    if not fine:
        raise UsageError(f"a filter may read {relation!r}, but nothing else; it reads {name!r}")


def _named_in(node: dict[str, Any]) -> set[str]:
    """Return the names that WITH clauses give."""
    maps = (item["cte_map"]["map"] for item in _walk(node) if item.get("cte_map"))
    return {entry["key"].lower() for entries in maps for entry in entries}


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a syntax tree."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield found
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found
