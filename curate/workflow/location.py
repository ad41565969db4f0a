"""Find the line of a TOML text at which a key stands: the parser itself does not tell.

The text is cut into statements (the fewest lines that are TOML by themselves: a header, or a key
with its value), each of which is parsed alone. So every way of writing a key is understood.
"""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Location = tuple[str | int, ...]
"""A path of keys, and of places in arrays, counted from 0."""


@dataclass(frozen=True)
class _Statement:
    """Some lines; ``header`` is the path of the table they belong to, or themselves open."""

    line: int
    lines: list[str]
    header: Location
    value: Any


def line_of(text: str, location: Location) -> int:
    """Return the line (from 1) at which a key path stands in a TOML text, or the nearest above it.

    >>> line_of("[train]\\nseeds = 3\\n", ("train", "seeds"))
    2
    """
    best, depth = 1, 0
    for statement in _statements(text):
        header = statement.header
        if location and header[: len(location)] == location:
            return statement.line
        if location[: len(header)] != header:
            continue
        path, inside = location[len(header) :], statement.value
        found = len(header) + _known(inside, path)
        if found > depth and (inside is None or found > len(header)):
            best, depth = statement.line + _within(statement, path), found
    return best


def _statements(text: str) -> Iterator[_Statement]:
    lines = text.replace("\r\n", "\n").split("\n")
    arrays: dict[Location, int] = {}
    header: Location = ()
    start = 0
    while start < len(lines):
        end, value = _first_whole(lines, start)
        if value:
            opens = lines[start].lstrip().startswith("[")
            if opens:
                header = _header(value, arrays)
            yield _Statement(start + 1, lines[start:end], header, None if opens else value)
        start = end


def _first_whole(lines: list[str], start: int) -> tuple[int, dict[str, Any]]:
    """Return the end of the statement that begins at ``start``, and what it says."""
    for end in range(start + 1, len(lines) + 1):
        try:
            return end, tomllib.loads("\n".join(lines[start:end]))
        except tomllib.TOMLDecodeError:
            continue
    return len(lines), {}


def _header(value: dict[str, Any], arrays: dict[Location, int]) -> Location:
    """Return the path of a header; the names of arrays are followed by the place in them."""
    path: Location = ()
    node: Any = value
    while node:
        ((key, node),) = node.items()
        path = (*path, key)
        if isinstance(node, list):
            arrays[path] = arrays.get(path, -1) + 1
            return (*path, arrays[path])
        if path in arrays and node:
            path = (*path, arrays[path])
    return path


def _known(value: Any, path: Location) -> int:
    """Return how many steps of a path lead somewhere in a value."""
    for steps, part in enumerate(path):
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return steps
    return len(path)


def _within(statement: _Statement, path: Location) -> int:
    """Return how many lines below its first an entry of an array of several lines stands."""
    depth = next((n for n, part in enumerate(path, 1) if isinstance(part, int)), None)
    if depth is None or statement.value is None or _known(statement.value, path) < depth:
        return 0
    for below in range(len(statement.lines)):
        lines = statement.lines[: below + 1]
        if below + 1 < len(statement.lines):
            lines = [*lines, "]"]
        with contextlib.suppress(tomllib.TOMLDecodeError):
            if _known(tomllib.loads("\n".join(lines)), path) >= depth:
                return below
    return 0
