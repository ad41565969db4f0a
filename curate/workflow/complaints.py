"""Put what pydantic finds wrong with a datacomp.toml into the words of the file itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, Tag, ValidationError
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
    location, models = _walk(root, first["loc"])
    key = key_of(location)
    model = models[len(location) - 1]
    if first["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in model.model_fields.items()]
        hint = suggest(str(location[-1]), known)
        return location, f"unknown key '{key}'{hint}, expected one of: {', '.join(known)}"
    field = model.model_fields.get(str(location[-1]))
    if first["type"] == "missing":
        near = suggest(str(location[-1]), [str(name) for name in first["input"]])
        near = near.replace("did you mean", "it has").replace("?", "")
        wanted = _section(location, field) or _described(field)
        return location, f"{key} is missing{near}, expected {wanted}"
    if isinstance(location[-1], int) and len(location) > 1:
        field = models[len(location) - 2].model_fields.get(str(location[-2]))
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
    if key.endswith(".filters"):
        return None  # written as a list
    if "list" in str(field.annotation):
        return f"at least one section [[{key}]], in double brackets"
    return f"a [{key}] section"


def _models(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """Return the sections that may stand in a field, by tag where there are several."""
    found: dict[str, type[BaseModel]] = {}

    def look(annotation: Any, tag: str) -> None:
        named = [
            part.tag for part in getattr(annotation, "__metadata__", ()) if isinstance(part, Tag)
        ]
        tag = named[0] if named else tag
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found[tag] = annotation
        for part in get_args(annotation):
            look(part, tag)

    look(field.annotation, "")
    return found


def _walk(
    root: type[BaseModel], location: Location
) -> tuple[Location, list[type[BaseModel]]]:  # fmt: skip
    """Return a location without the tags that pydantic puts in, and the section before each part.

    A tag says which of several sections an entry of a list is.
    """
    plain: list[str | int] = []
    models = [root]
    kinds: dict[str, type[BaseModel]] = {}
    for part in location:
        if plain and isinstance(plain[-1], int) and len(kinds) > 1 and part in kinds:
            models[-1], kinds = kinds[str(part)], {}
            continue
        field = models[-1].model_fields.get(str(part))
        if field is not None and isinstance(part, str):
            kinds = _models(field)
        plain.append(part)
        models.append(next(iter(kinds.values())) if kinds and field is not None else models[-1])
    return tuple(plain), models
