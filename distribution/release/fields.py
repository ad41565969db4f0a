"""Reads a stranger's JSON key by key and says what is wrong where."""

from __future__ import annotations

import re
from typing import Any

from ...errors import DataError

MAX_NUMBER = 1 << 53
"""Numbers above this are not whole to every reader of JSON."""

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")
"""A dataset or version: safe in paths and URLs."""
_HEX = {digits: re.compile(f"[0-9a-f]{{{digits}}}") for digits in (40, 64)}
CID = re.compile(r"(b[a-z2-7]{40,120}|Qm[1-9A-HJ-NP-Za-km-z]{44})")


class Reader:
    """Takes the keys of a JSON object one by one and refuses what is not as it should be."""

    def __init__(self, value: Any, where: str, inside: str = "") -> None:
        self.value, self.where, self._inside = value, where, inside
        if not isinstance(value, dict):
            raise self.broken("", "an object", value)

    def broken(self, name: str, expected: str, found: Any) -> DataError:
        """Return the error of one key."""
        return DataError(
            f"{self.where}: {self._inside}{name}: expected {expected}, found {str(found)[:80]!r}"
        )

    def text(self, name: str, pattern: re.Pattern[str] | None = None, limit: int = 65_536) -> str:
        """Return a string."""
        found = self.value.get(name)
        if not isinstance(found, str) or len(found) > limit:
            raise self.broken(name, "text", found)
        if pattern is not None and not pattern.fullmatch(found):
            raise self.broken(name, f"text as {pattern.pattern}", found)
        return found

    def optional(self, name: str) -> str | None:
        """Return a string or None."""
        return None if self.value.get(name) is None else self.text(name)

    def number(self, name: str, least: int = 0) -> int:
        """Return a whole number."""
        found = self.value.get(name)
        if type(found) is not int or not least <= found <= MAX_NUMBER:
            raise self.broken(name, f"a whole number of at least {least}", found)
        return found

    def name(self, name: str) -> str:
        """Return the name of a dataset or a version."""
        return self.text(name, NAME)

    def cid(self, name: str) -> str:
        """Return a CID."""
        return self.text(name, CID)

    def hex(self, name: str, digits: int = 64) -> str:
        """Return hex digits."""
        return self.text(name, _HEX[digits])

    def items(self, name: str) -> list[Any]:
        """Return a list."""
        found = self.value.get(name)
        if not isinstance(found, list):
            raise self.broken(name, "a list", found)
        return found

    def texts(self, name: str, pattern: re.Pattern[str] | None = None) -> tuple[str, ...]:
        """Return a list of strings."""
        found = self.items(name)
        for item in found:
            good = isinstance(item, str) and (pattern is None or pattern.fullmatch(item))
            if not good:
                raise self.broken(name, "a list of texts", item)
        return tuple(found)

    def within(self, name: str) -> Reader:
        """Return the reader of an object."""
        return Reader(self.value.get(name), self.where, f"{self._inside}{name}.")

    def each(self, name: str) -> list[Reader]:
        """Return the readers of a list of objects."""
        return [
            Reader(item, self.where, f"{self._inside}{name}[{number}].")
            for number, item in enumerate(self.items(name))
        ]

    def maybe_number(self, name: str) -> int | None:
        """Return a whole number or None."""
        return None if self.value.get(name) is None else self.number(name)
