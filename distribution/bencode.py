"""Bencoding (BEP 3), the encoding of torrents.

Values are ``int``, ``bytes``, ``list`` and ``dict`` with ``bytes`` keys; text is encoded as
UTF-8. The encoding of a value is unique, and ``decode`` accepts nothing but that one encoding.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from ..errors import DataError, UnsafeInputError

MAX_DEPTH = 64
MAX_DIGITS = 20
"""A number of more digits is no number of bytes, files or seconds."""


class Encoded(bytes):
    """Bytes that are the encoding of a value already."""


def encode(value: Any) -> bytes:
    """Return the one encoding of a value; keys of a dict may be ``str`` and come in any order."""
    parts: list[bytes] = []
    _append(value, parts)
    return b"".join(parts)


def _append(value: Any, parts: list[bytes]) -> None:
    # By exact type: a torrent has ten thousands of values, and this is asked of each.
    kind = type(value)
    if kind is str:
        value = value.encode()
        kind = bytes
    if kind is bytes:
        parts += (b"%d:" % len(value), value)
    elif kind is int or kind is bool:
        parts.append(b"i%de" % value)
    elif kind is dict:
        parts.append(b"d")
        pairs = [(key.encode() if type(key) is str else key, item) for key, item in value.items()]
        for key, item in sorted(pairs, key=itemgetter(0)):
            parts += (b"%d:" % len(key), key)
            _append(item, parts)
        parts.append(b"e")
    elif kind is list or kind is tuple:
        parts.append(b"l")
        for item in value:
            _append(item, parts)
        parts.append(b"e")
    elif kind is Encoded:
        parts.append(value)
    else:
        raise TypeError(f"{kind.__name__} cannot be bencoded")


def decode(data: bytes, limit: int, where: str = "bencoded data") -> Any:
    """Return the value that ``data`` encodes, strings as ``bytes``.

    Raises UnsafeInputError for more than ``limit`` bytes or deep nesting, DataError for what is
    not exactly one canonical encoding.
    """
    if len(data) > limit:
        raise UnsafeInputError(f"{where}: larger than {limit:,} bytes; refused")
    value, end = _Decoder(data, where).value(0, 0)
    if end != len(data):
        raise DataError(f"{where}: {len(data) - end:,} bytes follow its end")
    return value


class _Decoder:
    def __init__(self, data: bytes, where: str) -> None:
        self._data, self._where = data, where

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        """Return the value that starts at an offset, and where it ends."""
        if depth > MAX_DEPTH:
            raise UnsafeInputError(f"{self._where}: nested deeper than {MAX_DEPTH}; refused")
        kind = self._data[at : at + 1]
        if kind == b"i":
            return self._number(at + 1, b"e")
        if kind == b"l":
            return self._list(at + 1, depth)
        if kind == b"d":
            return self._dict(at + 1, depth)
        return self._string(at)

    def _list(self, at: int, depth: int) -> tuple[list[Any], int]:
        items: list[Any] = []
        while self._data[at : at + 1] != b"e":
            item, at = self.value(at, depth + 1)
            items.append(item)
        return items, at + 1

    def _dict(self, at: int, depth: int) -> tuple[dict[bytes, Any], int]:
        items: dict[bytes, Any] = {}
        last: bytes | None = None
        while self._data[at : at + 1] != b"e":
            key, after = self._string(at)
            if last is not None and key <= last:
                raise self._broken(at)
            items[key], at = self.value(after, depth + 1)
            last = key
        return items, at + 1

    def _string(self, at: int) -> tuple[bytes, int]:
        size, start = self._number(at, b":")
        if size < 0 or start + size > len(self._data):
            raise self._broken(at)
        return self._data[start : start + size], start + size

    def _number(self, at: int, until: bytes) -> tuple[int, int]:
        end = self._data.find(until, at, at + MAX_DIGITS + 1)
        digits = self._data[at:end]
        try:
            number = int(digits) if end > at else None
        except ValueError:
            number = None
        if number is None or b"%d" % number != digits:
            raise self._broken(at)
        return number, end + 1

    def _broken(self, at: int) -> DataError:
        return DataError(f"{self._where}: not bencoded at byte {at:,}")
