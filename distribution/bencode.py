"""Bencoding (BEP 3), the encoding of torrents.

Values are ``int``, ``bytes``, ``list`` and ``dict`` with ``bytes`` keys; text is encoded as
UTF-8. The encoding of a value is unique, and ``decode`` accepts nothing but that one encoding.
Long strings need not be in memory: a ``Stretch`` of a file, or a ``Joined``, is encoded as the
bytes it stands for, and ``scan`` leaves them in the file that it reads.
"""

from __future__ import annotations

import itertools
import os
from operator import itemgetter
from typing import Any

from ..errors import DataError, UnsafeInputError
from .stretch import Bytes, Joined, Stretch

MAX_DEPTH = 64
MAX_DIGITS = 20
"""A number of more digits is no number of bytes, files or seconds."""
LONG = 1 << 10
"""Strings of more bytes stay in the file that is scanned."""
WINDOW = 1 << 12


class Encoded(bytes):
    """Bytes that are the encoding of a value already."""


class Encoding(Joined):
    """The encoding of a value already, as ``lazily`` returns it."""

    __slots__ = ()


def encode(value: Any) -> bytes:
    """Return the one encoding of a value; keys of a dict may be ``str`` and come in any order."""
    parts: list[Bytes] = []
    _append(value, parts)
    return b"".join(part if isinstance(part, bytes) else bytes(part) for part in parts)


def lazily(value: Any) -> Encoding:
    """Return the one encoding of a value; what of it lies in files is not read yet."""
    parts: list[Bytes] = []
    _append(value, parts)
    runs = itertools.groupby(parts, lambda part: isinstance(part, bytes))
    joined = (Joined(run) for _, run in runs)
    return Encoding(bytes(run) if run.is_held else run for run in joined)


def _append(value: Any, parts: list[Bytes]) -> None:
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
    elif kind is Encoded or kind is Encoding:
        parts.append(value)
    elif kind is Stretch or kind is Joined:
        parts += (b"%d:" % len(value), value)
    else:
        raise TypeError(f"{kind.__name__} cannot be bencoded")


def decode(data: bytes, limit: int, where: str = "bencoded data") -> Any:
    """Return the value that ``data`` encodes, strings as ``bytes``.

    Raises UnsafeInputError for more than ``limit`` bytes or deep nesting, DataError for what is
    not exactly one canonical encoding.
    """
    return _Decoder(data, where).whole(limit)


def locate(data: bytes, limit: int, where: str = "bencoded data") -> dict[bytes, memoryview]:
    """Return where the values of the outermost dict stand; nothing of them is copied.

    Empty for what is no dict. Raises as ``decode``.
    """
    decoder = _Locator(data, where)
    decoder.whole(limit)
    return decoder.found


def scan(file: Any, limit: int, where: str) -> tuple[Any, dict[bytes, Stretch]]:
    """Return the value that an open file encodes, and where each of its keys' values stands.

    Long strings are a ``Stretch`` of the file, to be used while it is open. Raises as ``decode``.
    """
    decoder = _Scanner(file, where)
    return decoder.whole(limit), decoder.places


class _Decoder:
    def __init__(self, data: Any, where: str) -> None:
        self._data, self._where = data, where

    def whole(self, limit: int) -> Any:
        """Return the value that all of the data encode, if they are at most ``limit`` bytes."""
        size = len(self._data)
        if size > limit:
            raise UnsafeInputError(f"{self._where}: larger than {limit:,} bytes; refused")
        value, end = self.value(0, 0)
        if end != size:
            raise DataError(f"{self._where}: {size - end:,} bytes follow its end")
        return value

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
            start, after = self._span(at)
            key = self._data[start:after]
            if last is not None and key <= last:
                raise self._broken(at)
            items[key], at = self.value(after, depth + 1)
            self._placed(key, after, at, depth)
            last = key
        return items, at + 1

    def _placed(self, key: bytes, start: int, end: int, depth: int) -> None:
        """Take note of where the value of a key stands."""

    def _string(self, at: int) -> tuple[Any, int]:
        start, end = self._span(at)
        return self._data[start:end], end

    def _span(self, at: int) -> tuple[int, int]:
        """Return where a string's bytes start and end."""
        size, start = self._number(at, b":")
        if size < 0 or start + size > len(self._data):
            raise self._broken(at)
        return start, start + size

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


class _Locator(_Decoder):
    def __init__(self, data: bytes, where: str) -> None:
        super().__init__(data, where)
        self.found: dict[bytes, memoryview] = {}

    def _placed(self, key: bytes, start: int, end: int, depth: int) -> None:
        if depth == 0:
            self.found[key] = memoryview(self._data)[start:end]

    def _string(self, at: int) -> tuple[bytes, int]:
        return b"", self._span(at)[1]


class _Scanner(_Decoder):
    def __init__(self, file: Any, where: str) -> None:
        super().__init__(_Window(file), where)
        self._file = file
        self.places: dict[bytes, Stretch] = {}

    def _placed(self, key: bytes, start: int, end: int, depth: int) -> None:
        if depth == 0:
            self.places[key] = Stretch(self._file, start, end - start)

    def _string(self, at: int) -> tuple[Any, int]:
        start, end = self._span(at)
        if end - start > LONG:
            return Stretch(self._file, start, end - start), end
        return self._data[start:end], end


class _Window:
    """As much of a file's bytes as a decoder asks of them."""

    def __init__(self, file: Any) -> None:
        self._file, self._size = file, os.fstat(file.fileno()).st_size
        self._at, self._block = 0, b""

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, end = part.start, min(part.stop, self._size)
        if start < self._at or end > self._at + len(self._block):
            self._block = os.pread(self._file.fileno(), max(WINDOW, end - start), start)
            self._at = start
        return self._block[start - self._at : max(end, start) - self._at]

    def find(self, what: bytes, start: int, end: int) -> int:
        found = self[start:end].find(what)
        return found if found < 0 else start + found
