"""Put what pydantic finds wrong with a datacomp.toml into the words of the file itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ...errors import suggest
from ...filters.wording import accepted, complaint, found
from .location import Location

PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$": (
        "letters, digits, '.', '_' or '-', beginning with a letter or digit, at most 80"
    ),
    r"^(auto|cpu|cuda(:\d+)?)$": "auto, cpu, cuda or cuda:N",
    r"^[^\x00]+$": "a path",
    r"^[1-9]\d*(\.\d+)? ?([KMGT]i?B|%)$": "a size such as 2GB or a share such as 25%",
}
"""What a pattern accepts, for people."""


def explain(error: ValidationError, root: type[BaseModel]) -> tuple[Location, str]:
    """Return where one complaint is about, and the complaint: key, found, what is accepted."""
    first = complaint(error)
    location: Location = first["loc"]
    key = key_of(location)
    model = _model_at(root, location[:-1])
    if first["type"] == "extra_forbidden":
        known = list(model.model_fields)
        hint = suggest(str(location[-1]), known)
        return location, f"unknown key '{key}'{hint}, expected one of: {', '.join(known)}"
    field = model.model_fields.get(str(location[-1]))
    if first["type"] == "missing":
        near = suggest(str(location[-1]), [str(name) for name in first["input"]])
        near = near.replace("did you mean", "it has").replace("?", "")
        wanted = _section(location, field) or _described(field)
        return location, f"{key} is missing{near}, expected {wanted}"
    if isinstance(location[-1], int) and len(location) > 1:
        field = _model_at(root, location[:-2]).model_fields.get(str(location[-2]))
        key = f"an entry of {key}"
    wanted = _section(location, field) if first["type"].endswith("_type") else None
    return location, f"{key} is {found(first['input'])}, expected {wanted or _wanted(first, field)}"


def key_of(location: Location) -> str:
    """Write a location as a dotted key: ``pool.source.kind``."""
    return ".".join(part for part in location if isinstance(part, str))


def _described(field: FieldInfo | None) -> str:
    if field is None or field.description is None:
        return "a value"
    return field.description + (f", e.g. {field.examples[0]}" if field.examples else "")


def _wanted(first: Mapping[str, Any], field: FieldInfo | None) -> str:
    text = PATTERNS.get(first.get("ctx", {}).get("pattern", "")) or accepted(first)
    if field is None or not field.examples:
        return text
    return f"{text}, e.g. {field.examples[0]}"


def _section(location: Location, field: FieldInfo | None) -> str | None:
    """Return how a section or a list of sections is written, if that is what should stand there."""
    if isinstance(location[-1], int) or field is None or not _models(field):
        return None
    key = key_of(location)
    if key == "dataset.filters":
        return None  # written as a list
    if "list" in str(field.annotation):
        return f"at least one section [[{key}]], in double brackets"
    return f"a [{key}] section"


def _models(field: FieldInfo) -> list[type[BaseModel]]:
    kinds = (field.annotation, *get_args(field.annotation))
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _model_at(root: type[BaseModel], location: Location) -> type[BaseModel]:
    model = root
    for part in location:
        field = model.model_fields.get(str(part))
        if field is not None and _models(field):
            model = _models(field)[0]
    return model
