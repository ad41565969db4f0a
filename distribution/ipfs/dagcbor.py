"""The part of DAG-CBOR that CAR headers and IPNS records are written in.

Integers, bytes, text, lists, maps with text as keys, true, false, null and links (tag 42).
Floats do not occur there and are refused.

https://ipld.io/specs/codecs/dag-cbor/spec
"""

from __future__ import annotations

from typing import Any

from ...errors import DataError
from .cid import CID

MAX_DEPTH = 16
_LINK_TAG = 42
_SIMPLE: dict[int, Any] = {20: False, 21: True, 22: None}


def encode(value: Any) -> bytes:
    """Return the one DAG-CBOR encoding of a value; keys are sorted by length, then by bytes."""
    if value is None or isinstance(value, bool):
        return bytes((0xE0 | {False: 20, True: 21, None: 22}[value],))
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        return _head(3, len(value.encode())) + value.encode()
    if isinstance(value, list | tuple):
        return _head(4, len(value)) + b"".join(map(encode, value))
    if isinstance(value, dict):
        pairs = sorted((len(key.encode()), key.encode(), key) for key in value)
        parts = (encode(key) + encode(value[key]) for _, _, key in pairs)
        return _head(5, len(value)) + b"".join(parts)
    if isinstance(value, CID):
        return _head(6, _LINK_TAG) + encode(b"\0" + value.to_bytes())
    raise ValueError(f"{type(value).__name__} cannot be written as DAG-CBOR here")


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes((major << 5 | number,))
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * size:
            return bytes((major << 5 | code,)) + number.to_bytes(size, "big")
    raise ValueError(f"{number} does not fit DAG-CBOR")


def decode(data: bytes) -> Any:
    """Read one value and nothing after it; raises DataError."""
    value, end = _Reader(data).value(0, 0)
    if end != len(data):
        raise DataError(f"{len(data) - end:,} bytes follow the CBOR value")
    return value


class _Reader:
    """Reads values at offsets of the same bytes; nothing can be longer than those."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def value(self, offset: int, depth: int) -> tuple[Any, int]:
        if depth > MAX_DEPTH:
            raise DataError(f"CBOR nested more than {MAX_DEPTH} deep")
        major, number, offset = self.head(offset)
        if major == 0:
            return number, offset
        if major == 1:
            return -1 - number, offset
        if major in (2, 3):
            return self.text(offset, number, major == 3)
        if major == 4:
            return self.list(offset, number, depth)
        if major == 5:
            return self.map(offset, number, depth)
        if major == 6:
            return self.link(offset, number, depth)
        if number in _SIMPLE:
            return _SIMPLE[number], offset
        raise DataError("a CBOR value that is not read here (a float?)")

    def head(self, offset: int) -> tuple[int, int, int]:
        if offset >= len(self.data):
            raise DataError("the CBOR is cut off")
        major, short = self.data[offset] >> 5, self.data[offset] & 31
        offset += 1
        if short < 24:
            return major, short, offset
        size = {24: 1, 25: 2, 26: 4, 27: 8}.get(short)
        if size is None or major == 7:
            raise DataError("a CBOR value that DAG-CBOR does not have")
        number = int.from_bytes(self.data[offset : offset + size], "big")
        if offset + size > len(self.data):
            raise DataError("the CBOR is cut off")
        if len(_head(major, number)) != 1 + size:
            raise DataError("a CBOR number is not in its shortest form")
        return major, number, offset + size

    def text(self, offset: int, length: int, is_text: bool) -> tuple[bytes | str, int]:
        value = self.data[offset : offset + length]
        if len(value) != length:
            raise DataError("the CBOR is cut off")
        try:
            return (value.decode() if is_text else value), offset + length
        except UnicodeDecodeError:
            raise DataError("a CBOR text is not UTF-8") from None

    def list(self, offset: int, count: int, depth: int) -> tuple[list[Any], int]:
        self.enough(offset, count)
        values = []
        for _ in range(count):
            value, offset = self.value(offset, depth + 1)
            values.append(value)
        return values, offset

    def map(self, offset: int, count: int, depth: int) -> tuple[dict[str, Any], int]:
        self.enough(offset, 2 * count)
        values: dict[str, Any] = {}
        for _ in range(count):
            key, offset = self.value(offset, depth + 1)
            if not isinstance(key, str) or key in values:
                raise DataError("a CBOR map with a key that is no text or stands there twice")
            values[key], offset = self.value(offset, depth + 1)
        return values, offset

    def enough(self, offset: int, count: int) -> None:
        """Every value takes a byte at least."""
        if count > len(self.data) - offset:
            raise DataError("the CBOR is cut off")

    def link(self, offset: int, tag: int, depth: int) -> tuple[CID, int]:
        value, offset = self.value(offset, depth + 1)
        if tag != _LINK_TAG or not isinstance(value, bytes) or value[:1] != b"\0":
            raise DataError(f"CBOR tag {tag} that is no link")
        return CID.from_bytes(value[1:]), offset
