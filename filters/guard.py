"""What the SQL of a filter may read: the candidates, and never the truth about them.

SQL is judged by its syntax tree, not by its text, so that no spelling gets round it; a caption
may well speak of truth.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ..errors import UsageError
from ..pools.pool import Pool
from ..pools.schema import TRUTH

_TABLE_FUNCTIONS = ("unnest", "range", "generate_series")
_RELATIONS = ("BASE_TABLE", "SUBQUERY", "JOIN", "EMPTY", "EXPRESSION_LIST", "TABLE_FUNCTION")
_NODES = ("SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE")
"""Kinds of query that only read: a WITH can hold INSERT, UPDATE, DELETE and COPY too."""
_BEYOND = (
    "current_setting", "currval", "getenv", "getvariable", "json_serialize_plan", "nextval",
    "pg_get_constraintdef", "pg_get_viewdef", "setval", "write_log",
)  # fmt: skip
"""Functions that look at, or change, something else than the values they are given."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


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
    try:
        tree = json.loads(pool.scalar("SELECT json_serialize_sql(?)", [query]))
    except RecursionError:
        raise UsageError("too many parts stand within each other; write it flatter") from None
    if tree["error"]:
        raise UsageError(" ".join(str(tree["error_message"]).split()))
    if len(tree["statements"]) != 1:
        raise UsageError("expected one SELECT")
    return tree["statements"][0]["node"]


def _check(pool: Pool, node: dict[str, Any], relation: str) -> None:
    own = {relation.lower(), "candidates"}
    hidden: set[str] = set()
    if named := _named_in(node):  # what stands in the pool is hidden by no name that a query gives
        for kind in ("table", "view"):
            found = pool.sql(f"SELECT {kind}_name FROM duckdb_{kind}s()").fetchall()
            hidden |= {row[0].lower() for row in found} - own
        # What DuckDB does not know as a table, it takes for a file.
        if odd := next((name for name in sorted(named) if not _NAME.fullmatch(name)), None):
            raise UsageError(f"WITH gives the name {odd!r}; use letters, digits and _")
    for item, names in _scoped(node, own):
        if item.get("class") == "COLUMN_REF" and TRUTH in map(str.lower, item["column_names"]):
            raise UsageError(f"no filter may read the column {TRUTH!r}")
        if item.get("class") == "FUNCTION" and item["function_name"].lower() in _BEYOND:
            raise UsageError(f"no filter may use the function {item['function_name']!r}")
        if "cte_map" in item and item["type"] not in _NODES:
            kind = item["type"].partition("_")[0]
            raise UsageError(f"a filter may read {relation!r}, but change nothing; found {kind}")
        if "class" not in item and "alias" in item and "sample" in item:
            _check_relation(item, names - hidden, relation)


def _check_relation(item: dict[str, Any], readable: set[str], relation: str) -> None:
    kind = item["type"]
    function = item.get("function", {})
    name = item.get("table_name") or function.get("function_name") or kind
    if kind == "BASE_TABLE":
        fine = name.lower() in readable and not item["schema_name"] and not item["catalog_name"]
    elif kind == "TABLE_FUNCTION":
        fine = name in _TABLE_FUNCTIONS and not function["schema"] and not function["catalog"]
    else:
        fine = kind in _RELATIONS
    if not fine:
        raise UsageError(f"a filter may read {relation!r}, but nothing else; it reads {name!r}")


def _named_in(node: dict[str, Any]) -> set[str]:
    """Return the names that WITH clauses give."""
    maps = (item["cte_map"]["map"] for item in _walk(node) if item.get("cte_map"))
    return {entry["key"].lower() for entries in maps for entry in entries}


def _scoped(node: dict[str, Any], names: set[str]) -> Iterator[tuple[dict[str, Any], set[str]]]:
    """Yield every object of a syntax tree, and the names that can be read there.

    What WITH names can be read in its query and in what WITH names later, and in itself where it
    is recursive.
    """
    waiting: list[tuple[Any, set[str]]] = [(node, names)]
    while waiting:
        found, names = waiting.pop()
        if isinstance(found, list):
            waiting += [(value, names) for value in found]
        elif isinstance(found, dict):
            for entry in (found.get("cte_map") or {}).get("map", ()):
                more = names | {entry["key"].lower()}
                recursive = entry["value"]["query_node"]["type"] == "RECURSIVE_CTE_NODE"
                waiting.append((entry["value"], more if recursive else names))
                names = more
            yield found, names
            waiting += [(value, names) for key, value in found.items() if key != "cte_map"]


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a syntax tree."""
    return (item for item, _ in _scoped(value, set()))
