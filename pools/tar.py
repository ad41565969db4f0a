"""WebDataset tars: read headers only, trust nothing; write plain ustar, byte for byte the same.

A sample of a WebDataset tar is a run of members that share a key (the name up to its first
dot after the last slash), so it is one contiguous range of 512-byte blocks. Formats:
POSIX.1-1988 ustar, POSIX.1-2001 PAX and GNU long names.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError, UnsafeInputError

BLOCK = 512
END = b"\0" * (2 * BLOCK)
MAX_EXTENDED_HEADER = 1 << 20
MAX_MEMBER_BYTES = 1 << 30
MAX_NAME = 4096

_REGULAR = (b"0", b"\0", b"7")
_DIRECTORY = b"5"


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside a tar: where its header starts, where its data starts, how long it is."""

    name: str
    start: int
    data: int
    size: int

    @property
    def end(self) -> int:
        """Offset just after the padded data."""
        return self.data + padded(self.size)


@dataclass(slots=True)
class TarSample:
    """The members of one key: the byte range [start, end) of the tar holds all of them."""

    key: str
    start: int
    end: int
    members: dict[str, Member] = field(default_factory=dict)


def padded(size: int) -> int:
    """Round a size up to whole 512-byte blocks."""
    return -(-size // BLOCK) * BLOCK


def split_key(name: str) -> tuple[str, str]:
    """Split a member's name into key and lower-case extension, as WebDataset does."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def check_name(name: str, where: str) -> str:
    """Return a member's name if it stays inside its root, else raise UnsafeInputError."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name or "\\" in name or len(name) > MAX_NAME:
        raise UnsafeInputError(
            f"{where}: member {name[:80]!r} would leave its folder; the tar is refused"
        )
    return name


def scan(path: Path | str) -> Iterator[Member]:
    """Yield the regular files of a tar, reading headers only.

    Raises DataError for a truncated or broken tar and UnsafeInputError for names that leave
    the root; links and devices are refused as unsafe too.
    """
    path = Path(path)
    with path.open("rb", buffering=BLOCK * 8) as file:
        yield from _scan(file, os.fstat(file.fileno()).st_size, str(path))


def _scan(file: BinaryIO, total: int, where: str) -> Iterator[Member]:
    offset, start = 0, 0
    long_name: str | None = None
    long_size: int | None = None
    while True:
        file.seek(offset)
        block = file.read(BLOCK)
        if not block and offset == total and offset > 0:
            return  # some writers leave out the end-of-archive blocks
        if len(block) < BLOCK:
            raise DataError(f"{where}: truncated at byte {total}; fetch or build it again")
        if block == b"\0" * BLOCK:
            return
        _verify_checksum(block, offset, where)
        size = long_size if long_size is not None else _number(block[124:136], offset, where)
        kind = block[156:157]
        data = offset + BLOCK
        if kind in (b"x", b"g", b"L", b"K"):
            size = _number(block[124:136], offset, where)
            if size > MAX_EXTENDED_HEADER:
                raise UnsafeInputError(f"{where}: extended header of {size:,} bytes at {offset}")
            payload = file.read(size)
            if len(payload) < size:
                raise DataError(f"{where}: truncated at byte {total}; fetch or build it again")
            if kind == b"L":
                long_name = _text(payload, offset, where)
            elif kind == b"x":
                records = _pax(payload, offset, where)
                if any(name.startswith("GNU.sparse") for name in records):
                    raise UnsafeInputError(f"{where}: sparse member at byte {offset} is refused")
                long_name = records.get("path", long_name)
                if "size" in records:
                    long_size = int(records["size"]) if records["size"].isdigit() else -1
                    if long_size < 0:
                        raise DataError(f"{where}: bad PAX size at byte {offset}")
            offset = data + padded(size)
            continue
        name = long_name if long_name is not None else _ustar_name(block, offset, where)
        long_name = long_size = None
        if data + size > total:
            raise DataError(
                f"{where}: truncated at byte {total} inside {name[:80]!r}; fetch or build it again"
            )
        if kind in _REGULAR:
            if size > MAX_MEMBER_BYTES:
                raise UnsafeInputError(f"{where}: member {name[:80]!r} has {size:,} bytes")
            yield Member(check_name(name.removeprefix("./"), where), start, data, size)
        elif kind != _DIRECTORY:
            raise UnsafeInputError(
                f"{where}: member {name[:80]!r} is a link or device; the tar is refused"
            )
        offset = start = data + padded(size)


def samples(path: Path | str) -> Iterator[TarSample]:
    """Yield the samples of a tar in order, reading headers only.

    A key whose members are not neighbours is refused (DataError): a sample must be one range.
    """
    seen: set[str] = set()
    current: TarSample | None = None
    for member in scan(path):
        key, extension = split_key(member.name)
        if not extension:
            continue
        if current is None or key != current.key:
            if current is not None:
                yield current
            if key in seen:
                raise DataError(
                    f"{path}: members of {key[:80]!r} are interleaved with other samples; "
                    "repack the tar so that they are neighbours"
                )
            seen.add(key)
            current = TarSample(key, member.start, member.end)
        if extension in current.members:
            raise DataError(f"{path}: member {member.name[:80]!r} stands there twice")
        current.members[extension] = member
        current.end = member.end
    if current is not None:
        yield current


def read_member(file: BinaryIO, member: Member) -> bytes:
    """Read one member's data from an open tar."""
    file.seek(member.data)
    return file.read(member.size)


class TarWriter:
    """Writes plain ustar with fixed metadata: the same members give the same bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.offset = 0

    def add(self, name: str, data: bytes | memoryview) -> int:
        """Append one file; return the offset of its data."""
        self._file.write(ustar_header(name, len(data)))
        start = self.offset + BLOCK
        self._file.write(data)
        self._file.write(b"\0" * (padded(len(data)) - len(data)))
        self.offset = start + padded(len(data))
        return start

    def close(self) -> None:
        """Write the two zero blocks that end a tar."""
        self._file.write(END)
        self.offset += len(END)


def ustar_header(name: str, size: int) -> bytes:
    """Return the 512-byte ustar header of a regular file, owner and time fixed."""
    encoded = name.encode()
    prefix = b""
    if len(encoded) > 100:
        cut = encoded.rfind(b"/", 0, 156)
        if cut <= 0 or len(encoded) - cut - 1 > 100:
            raise DataError(f"name too long for a tar header: {name[:80]!r}")
        prefix, encoded = encoded[:cut], encoded[cut + 1 :]
    if size >= 8**11:
        raise DataError(f"{name[:80]!r}: {size:,} bytes do not fit a plain tar member")
    fields = (
        encoded.ljust(100, b"\0") + b"0000444\0" + b"0000000\0" * 2 + b"%011o\0" % size
        + b"00000000000\0" + b" " * 8 + b"0" + b"\0" * 100 + b"ustar\0" + b"00"
        + b"bigdata".ljust(32, b"\0") * 2 + b"0000000\0" * 2 + prefix.ljust(155, b"\0")
    ).ljust(BLOCK, b"\0")  # fmt: skip
    checksum = sum(fields)
    return fields[:148] + b"%06o\0 " % checksum + fields[156:]


def tar_bytes(files: list[tuple[str, bytes]]) -> bytes:
    """Return a whole small tar in memory."""
    buffer = io.BytesIO()
    writer = TarWriter(buffer)
    for name, data in files:
        writer.add(name, data)
    writer.close()
    return buffer.getvalue()


def _verify_checksum(block: bytes, offset: int, where: str) -> None:
    recorded = _number(block[148:156], offset, where)
    if recorded != sum(block) - sum(block[148:156]) + 8 * 32:
        raise DataError(f"{where}: not a tar header at byte {offset}; the file is damaged")


def _number(raw: bytes, offset: int, where: str) -> int:
    if raw[0] & 0x80:
        return int.from_bytes(raw[1:], "big")
    try:
        value = int(raw.rstrip(b" \0") or b"0", 8)
    except ValueError:
        value = -1
    if value < 0:
        raise DataError(f"{where}: not a tar header at byte {offset}; the file is damaged")
    return value


def _text(raw: bytes, offset: int, where: str) -> str:
    try:
        return raw.split(b"\0", 1)[0].decode()
    except UnicodeDecodeError:
        raise DataError(f"{where}: a name at byte {offset} is not UTF-8") from None


def _ustar_name(block: bytes, offset: int, where: str) -> str:
    name = _text(block[:100], offset, where)
    prefix = _text(block[345:500], offset, where) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _pax(payload: bytes, offset: int, where: str) -> dict[str, str]:
    records: dict[str, str] = {}
    position = 0
    while position < len(payload) and payload[position] != 0:
        space = payload.find(b" ", position, position + 12)
        length = payload[position:space] if space > 0 else b""
        if not length.isdigit() or not space - position < int(length) <= len(payload) - position:
            raise DataError(f"{where}: broken PAX header at byte {offset}")
        record = payload[space + 1 : position + int(length) - 1]
        name, _, value = record.partition(b"=")
        records[_text(name, offset, where)] = _text(value, offset, where)
        position += int(length)
    return records
