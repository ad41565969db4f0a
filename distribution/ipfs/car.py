"""CARs: blocks one after another, each with its CID, as a stream (version 1).

Writing keeps nothing and reading keeps one block: every block is compared with its CID before it
is handed on. Of version 2 the inner version 1 is read.

https://ipld.io/specs/transport/car
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from ...errors import DataError, IntegrityError, UnsafeInputError
from . import dagcbor, varint
from .cid import CID

MAX_HEADER = 1 << 16
"""Bytes of a header. Ours has one root and 59 bytes; this is room for 1,500 roots."""

MAX_BLOCK = 2 << 20
"""Bytes of a block that IPFS passes on (Bitswap's limit)."""

_MAX_CID = 160
_V2_PRAGMA = b"\x0a\xa1gversion\x02"
_V2_HEADER = 40


def header(roots: Iterable[CID]) -> bytes:
    """Return the head of a CAR."""
    data = dagcbor.encode({"roots": list(roots), "version": 1})
    return varint.encode(len(data)) + data


def section(cid: CID, block: bytes) -> bytes:
    """Return a block as it stands in a CAR."""
    name = cid.to_bytes()
    return b"".join((varint.encode(len(name) + len(block)), name, block))


def write(roots: Iterable[CID], blocks: Iterable[tuple[CID, bytes]]) -> Iterator[bytes]:
    """Yield a CAR piece by piece: the head, then one piece a block."""
    yield header(roots)
    for cid, block in blocks:
        yield section(cid, block)


class Reader:
    """Reads a stranger's CAR: ``roots``, and by iteration (CID, block), every block verified.

    Raises DataError for what is no CAR or is cut off, UnsafeInputError for a header or a block
    larger than the limits, IntegrityError for a block that is not what its CID says. ``where``
    names the CAR in messages.
    """

    def __init__(self, file: BinaryIO, where: str, max_block: int = MAX_BLOCK) -> None:
        self._file, self._where, self._max_block = file, where, max_block
        self._left: int | None = None
        self._offset = 0
        head = self._head()
        if head.get("version") == 2:
            self._enter_version_2()
            head = self._head()
        roots = head.get("roots")
        if head.get("version") != 1 or not isinstance(roots, list):
            raise DataError(f"{where}: not a CAR of version 1 or 2")
        if not all(isinstance(root, CID) for root in roots):
            raise DataError(f"{where}: not a CAR: a root is no CID")
        self.roots: tuple[CID, ...] = tuple(roots)

    def __iter__(self) -> Iterator[tuple[CID, bytes]]:
        while True:
            start = self._offset
            length = self._varint("a block")
            if length is None:
                return
            # The length is bounded before a byte is read: it is a stranger's.
            if length > self._max_block + _MAX_CID:
                raise UnsafeInputError(
                    f"{self._where}: a block of {length:,} bytes at byte {start:,}; "
                    f"at most {self._max_block:,} are accepted"
                )
            data = memoryview(self._read(length, "a block"))
            try:
                cid, end = CID.read(data)
            except DataError as error:
                raise DataError(f"{self._where}: at byte {start:,}: {error}") from None
            block = bytes(data[end:])
            if len(block) > self._max_block:
                raise UnsafeInputError(
                    f"{self._where}: a block of {len(block):,} bytes at byte {start:,}; "
                    f"at most {self._max_block:,} are accepted"
                )
            try:
                cid.check(block)
            except IntegrityError as error:
                raise IntegrityError(f"{self._where}: at byte {start:,}: {error}") from None
            yield cid, block

    def _head(self) -> dict[str, Any]:
        length = self._varint("the header")
        if length is None:
            raise DataError(f"{self._where}: not a CAR: it is empty")
        if length > MAX_HEADER:
            raise UnsafeInputError(
                f"{self._where}: a CAR header of {length:,} bytes; at most {MAX_HEADER:,} are "
                "accepted"
            )
        data = self._read(length, "the header")
        try:
            value = dagcbor.decode(data)
        except DataError as error:
            raise DataError(f"{self._where}: not a CAR: {error}") from None
        if not isinstance(value, dict):
            raise DataError(f"{self._where}: not a CAR: its header is no map")
        return value

    def _enter_version_2(self) -> None:
        """Skip to the inner CAR, whose place the fixed header tells, and stop at its end."""
        fixed = self._read(_V2_HEADER, "the header")
        start = int.from_bytes(fixed[16:24], "little")
        size = int.from_bytes(fixed[24:32], "little")
        if start < self._offset:
            raise DataError(f"{self._where}: not a CAR: its data would begin in its header")
        while self._offset < start:
            self._read(min(start - self._offset, 1 << 16), "the header")
        self._left = size

    def _varint(self, what: str) -> int | None:
        """Read a length byte by byte; None at the end of the CAR."""
        read = bytearray()
        while len(read) < varint.MAX_BYTES:
            byte = self._take(1)
            if not byte:
                break
            read += byte
            if byte[0] < 0x80:
                break
        if not read:
            return None
        try:
            return varint.decode(read)[0]
        except DataError as error:
            raise DataError(
                f"{self._where}: the length of {what} at byte {self._offset - len(read):,}: {error}"
            ) from None

    def _read(self, length: int, what: str) -> bytes:
        parts = []
        left = length
        while left:
            part = self._take(left)
            if not part:
                raise DataError(f"{self._where}: cut off in {what} at byte {self._offset:,}")
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take(self, length: int) -> bytes:
        if self._left is not None:
            length = min(length, self._left)
            self._left -= length
        data = self._file.read(length) if length else b""
        self._offset += len(data)
        return data
