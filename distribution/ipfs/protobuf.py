"""The two kinds of protobuf fields that IPFS uses: varints and bytes.

https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator

from ...errors import DataError
from . import varint


def number(field: int, value: int) -> bytes:
    """Return a varint field."""
    return varint.encode(field << 3) + varint.encode(value)


def data(field: int, value: bytes) -> bytes:
    """Return a bytes field."""
    return varint.encode(field << 3 | 2) + varint.encode(len(value)) + value


def fields(message: bytes | memoryview) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field, value) in the order they stand; raises DataError for anything else."""
    offset = 0
    while offset < len(message):
        tag, offset = varint.decode(message, offset)
        field, kind = tag >> 3, tag & 7
        value, offset = varint.decode(message, offset)
        if kind == 0:
            yield field, value
        elif kind == 2:
            if value > len(message) - offset:
                raise DataError(f"protobuf field {field} says {value:,} bytes, more than there are")
            yield field, bytes(message[offset : offset + value])
            offset += value
        else:
            raise DataError(f"protobuf field {field} is of a kind that IPFS does not use ({kind})")
