"""Say in plain words what was found and what would be accepted, where pydantic speaks of types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ..errors import suggest

_WORDS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text in quotes",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
}
_SHOWN = 60


def complaint(error: ValidationError) -> Mapping[str, Any]:
    """Return the complaint to tell: a name misspelt is often also the name that is missing."""
    return min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")


def accepted(complaint: Mapping[str, Any]) -> str:
    """Return what one of pydantic's complaints would accept: ``a whole number``, ``at least 1``."""
    kind, context = complaint["type"], complaint.get("ctx", {})
    if kind in _WORDS:
        return _WORDS[kind].format(**context)
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        value = complaint["input"]
        return context["expected"] + (suggest(value, known) if isinstance(value, str) else "")
    message = complaint["msg"].removeprefix("Value error, ")
    return re.sub(r"^(Input should be|Value should have|String should) ", "", message)


def found(value: Any) -> str:
    """Return a value as one would write it in TOML, cut where it is long; tables by their kind."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "a list of tables"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
