"""Unsigned varints of the multiformats: seven bits a byte, least significant first, at most 63.

https://github.com/multiformats/unsigned-varint
"""

from __future__ import annotations

from ...errors import DataError

MAX_BYTES = 9


def encode(value: int) -> bytes:
    """Return the shortest encoding of ``value`` (0 to 2**63 - 1)."""
    if not 0 <= value < 1 << 63:
        raise ValueError(f"{value} does not fit a varint")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int]:
    """Return the number at ``offset`` and the offset after it.

    Raises DataError where the number is cut off, longer than nine bytes, or not in its shortest
    form: one number has one encoding, or two names could mean one thing.
    """
    value = shift = 0
    for position in range(offset, min(offset + MAX_BYTES, len(data))):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and position > offset:
                raise DataError("a varint is not in its shortest form")
            return value, position + 1
        shift += 7
    if len(data) - offset >= MAX_BYTES:
        raise DataError("a varint is longer than nine bytes")
    raise DataError("a varint is cut off")
