"""Write a filter with its parameters as text: ``clip_score:arch=l14,fraction=0.3``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import UsageError
from .contract import Filter
from .registry import create

NOT = "not"
"""Stands before a filter that keeps what it would have dropped."""


@dataclass(frozen=True)
class FilterSpec:
    """Which filter with which parameters, before it is made; ``title`` stands for it in records.

    A title that leaves out where files lie keeps the records the same in any folder. A
    ``negated`` filter keeps what it would have dropped.
    """

    use: str
    parameters: dict[str, Any] = field(default_factory=dict)
    title: str | None = None
    negated: bool = False

    @property
    def is_file(self) -> bool:
        """Whether the filter is a class in a file of one's own."""
        return ".py:" in self.use

    def make(self) -> Filter:
        """Make the filter; raises UsageError for an unknown name or parameter."""
        return create(self.use, self.parameters)

    def label(self) -> str:
        """Return the title or, without one, the text form; ``not`` before it for a negated one."""
        text = self.title
        if text is None:
            inside = ",".join(f"{name}={_text(value)}" for name, value in self.parameters.items())
            text = f"{self.use}:{inside}" if inside else self.use
        return f"{NOT} {text}" if self.negated else text


def parse(text: str) -> FilterSpec:
    """Read the text form; ``file.py:Class:name=value`` names a class of one's own."""
    if text.startswith(f"{NOT} "):
        spec = parse(text.removeprefix(NOT).lstrip())
        return replace(spec, negated=not spec.negated)
    head, rest = text, ""
    start = text.partition("=")[0].find(".py:")
    if start >= 0:
        cut = text.find(":", start + 4)
        if cut >= 0:
            head, rest = text[:cut], text[cut + 1 :]
    else:
        head, _, rest = text.partition(":")
        if odd := next((letter for letter in head.strip() if letter in "() "), None):
            raise UsageError(
                f"filter {head!r}: it has {'a space' if odd == ' ' else repr(odd)} in it; each "
                "filter, word and parenthesis is an argument of its own, as in: no_filter minus "
                "'(' exact_dedup then caption_length ')'"
            )
    if not head.strip():
        raise UsageError(f"filter {text!r}: expected NAME or NAME:parameter=value,...")
    parameters: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        name, found, value = part.partition("=")
        if not found or not name.strip():
            raise UsageError(f"filter {text!r}: {part!r} is not parameter=value")
        if name.strip() in parameters:
            raise UsageError(f"filter {text!r}: parameter {name.strip()} is given twice")
        parameters[name.strip()] = parse_value(value.strip())
    return FilterSpec(head.strip(), parameters)


def parse_value(text: str) -> Any:
    """Read ``true``, ``false``, integers and floats; everything else is text."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
