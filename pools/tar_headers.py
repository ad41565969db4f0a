"""The headers of a tar: checksums, numbers, names, and what PAX and GNU headers add to them."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from ..errors import DataError, UnsafeInputError

_OCTAL = re.compile(rb"[0-7]+")
_SPACES = 8 * ord(" ")
"""The field of the checksum counts as spaces."""


@dataclass(slots=True)
class Extended:
    """What PAX and GNU headers say about the member that follows them."""

    name: str | None = None
    size: int | None = None
    pending: bool = False

    def take(self, kind: bytes, payload: bytes, offset: int, where: str) -> None:
        """Read the payload of one extended header."""
        self.pending = self.pending or kind != b"g"
        if kind == b"L":
            self.name = _text(payload, offset, where)
        elif kind in (b"x", b"g"):
            records = _pax(payload, offset, where)
            if b"GNU.sparse" in payload and any(n.startswith("GNU.sparse") for n in records):
                raise UnsafeInputError(f"{where}: sparse member at byte {offset} is refused")
            if kind == b"g" and ("path" in records or "size" in records):
                raise UnsafeInputError(
                    f"{where}: global header at byte {offset} renames or resizes every member; "
                    "the tar is refused"
                )
            self.name = records.get("path", self.name)
            if "size" in records:
                self.size = _pax_size(records["size"], offset, where)


def is_sum(checksum: bytes, block: bytes | memoryview) -> bool:
    """Tell whether a header's checksum is right, and written as everybody writes it."""
    return checksum[:7] == b"%06o\0" % (byte_sum(block) - sum(checksum) + _SPACES)


def byte_sum(block: bytes | memoryview) -> int:
    """Add up the 512 bytes of a header.

    The low half of an Adler-32 is 1 + the sum of the bytes modulo 65521, which is exact for up
    to 256 bytes and several times faster than ``sum``.
    """
    return (zlib.adler32(block[:256]) & 0xFFFF) + (zlib.adler32(block[256:]) & 0xFFFF) - 2


def verify_checksum(block: bytes, offset: int, where: str) -> None:
    """Raise DataError for a block that is no header."""
    checksum = block[148:156]
    if not is_sum(checksum, block) and number_in(checksum, offset, where) != (
        byte_sum(block) - sum(checksum) + _SPACES
    ):
        raise DataError(f"{where}: not a tar header at byte {offset}; the file is damaged")


def number_in(raw: bytes, offset: int, where: str) -> int:
    """Read a header's number: octal digits, or base 256 behind the byte 0x80."""
    if raw[-1] == 0 and raw[:-1].isdigit():
        try:
            return int(raw[:-1], 8)
        except ValueError:
            pass  # 8 or 9; refused below
    if raw[0] == 0x80:
        return int.from_bytes(raw[1:], "big")
    digits = raw.partition(b"\0")[0].strip(b" ")
    if digits and not _OCTAL.fullmatch(digits):
        raise DataError(f"{where}: not a tar header at byte {offset}; the file is damaged")
    return int(digits or b"0", 8)


def _text(raw: bytes, offset: int, where: str) -> str:
    try:
        return raw.split(b"\0", 1)[0].decode()
    except UnicodeDecodeError:
        raise DataError(f"{where}: a name at byte {offset} is not UTF-8") from None


def ustar_name(block: bytes, offset: int, where: str) -> str:
    """Return the name in a header, its prefix included."""
    name = _text(block[:100], offset, where)
    if not block[345] or block[257:263] != b"ustar\0":
        return name
    return f"{_text(block[345:500], offset, where)}/{name}"


def _pax(payload: bytes, offset: int, where: str) -> dict[str, str]:
    """Split a PAX payload into its records: ``LENGTH NAME=VALUE\\n``, one after the other."""
    records: dict[str, str] = {}
    position = 0
    while position < len(payload) and payload[position] != 0:
        space = payload.find(b" ", position, position + 12)
        digits = payload[position:space] if space > 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        if not space + 1 < end <= len(payload) or payload[end - 1] != ord("\n"):
            raise DataError(f"{where}: broken PAX header at byte {offset}")
        name, _, value = payload[space + 1 : end - 1].partition(b"=")
        try:
            records[name.decode()] = value.decode()
        except UnicodeDecodeError:
            raise DataError(f"{where}: a name at byte {offset} is not UTF-8") from None
        position = end
    return records


def _pax_size(text: str, offset: int, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise DataError(f"{where}: bad PAX size at byte {offset}")
    return int(text)
