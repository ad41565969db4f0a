"""WebDataset tars: read headers only, trust nothing; write plain ustar, byte for byte the same.

A sample of a WebDataset tar is a run of members that share a key (the name up to its first
dot after the last slash), so it is one contiguous range of 512-byte blocks. Formats:
POSIX.1-1988 ustar, POSIX.1-2001 PAX and GNU long names.
"""

from __future__ import annotations

import io
import os
import re
import zlib
from collections.abc import Callable, Iterator
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
_EXTENDED = (b"x", b"g", b"L", b"K")
_ZEROS = b"\0" * BLOCK
_OCTAL = re.compile(rb"[0-7]+")


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
    """Split a member's name into key and lower-case extension, as WebDataset does.

    A hidden file (``.DS_Store``, ``._cat.jpg``) has no extension, since it has no key.
    """
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    if not stem:
        return name, ""
    return folder + slash + stem, extension.lower()


def check_name(name: str, where: str) -> str:
    """Return a member's name if it stays inside its root, else raise UnsafeInputError."""
    if not name:
        raise UnsafeInputError(f"{where}: a member without a name; the tar is refused")
    leaves = name.startswith("/") or ".." in name.split("/")
    if leaves or "\0" in name or "\\" in name or len(name) > MAX_NAME:
        raise UnsafeInputError(
            f"{where}: member {name[:80]!r} would leave its folder; the tar is refused"
        )
    return name


def scan(path: Path | str) -> Iterator[Member]:
    """Yield the regular files of a tar, reading headers only.

    Raises DataError for a truncated or broken tar and UnsafeInputError for names that leave
    the root; links and devices are refused as unsafe too.
    """
    with Path(path).open("rb", buffering=0) as file:
        yield from _scan(Window(file.fileno()), os.fstat(file.fileno()).st_size, str(path))


def samples(path: Path | str) -> Iterator[TarSample]:
    """Yield the samples of a tar in order, reading headers only.

    A key whose members are not neighbours is refused (DataError): a sample must be one range.
    Members without an extension and hidden files belong to no sample.
    """
    yield from _group(scan(path), str(path))


def samples_in(window: Window, where: str) -> Iterator[TarSample]:
    """Yield the samples of an open tar as ``samples`` does, for callers that read data too."""
    total = os.fstat(window.descriptor).st_size
    yield from _group(_scan(window, total, where), where)


def parse_sample(data: bytes, where: str) -> TarSample:
    """Return the one sample that the byte range ``data`` of a tar holds; offsets count from 0.

    Raises DataError when it is not exactly one sample.
    """
    found = list(_group(_scan(lambda at, size: data[at : at + size], len(data), where), where))
    if len(found) != 1:
        raise DataError(f"{where}: {len(found)} samples in a range that should hold one")
    return found[0]


class Window:
    """Reads ranges of an open file through a small window.

    Headers and the small members between two images are neighbours: one system call serves
    them all.
    """

    def __init__(self, descriptor: int, size: int = 8 * BLOCK) -> None:
        self.descriptor, self._size = descriptor, size
        self._start, self._data = 0, b""

    def __call__(self, offset: int, size: int) -> bytes:
        """Return the bytes at [offset, offset + size); fewer where the file ends."""
        at = offset - self._start
        if at < 0 or at + size > len(self._data):
            self._data = os.pread(self.descriptor, max(size, self._size), offset)
            self._start, at = offset, 0
        return self._data[at : at + size]


def _scan(read: Callable[[int, int], bytes], total: int, where: str) -> Iterator[Member]:
    """Yield the members of ``total`` bytes of tar; ``read(offset, size)`` returns bytes of it."""
    offset, start = 0, 0
    extended = _Extended()
    while True:
        block = read(offset, BLOCK)
        ended = not block and offset == total and offset > 0
        if ended and not extended.pending:
            return  # some writers leave out the end-of-archive blocks
        if len(block) < BLOCK:
            raise DataError(f"{where}: truncated at byte {total}; fetch or build it again")
        if block == _ZEROS:
            if extended.pending:
                raise DataError(f"{where}: an extended header at byte {start} has no member")
            return
        _verify_checksum(block, offset, where)
        kind = block[156:157]
        size = _number(block[124:136], offset, where)
        data = offset + BLOCK
        if kind in _EXTENDED:
            if size > MAX_EXTENDED_HEADER:
                raise UnsafeInputError(f"{where}: extended header of {size:,} bytes at {offset}")
            payload = read(data, size)
            if len(payload) < size:
                raise DataError(f"{where}: truncated at byte {total}; fetch or build it again")
            extended.take(kind, payload, offset, where)
            offset = data + padded(size)
            continue
        name = extended.name if extended.name is not None else _ustar_name(block, offset, where)
        if extended.size is not None:
            size = extended.size
        extended = _Extended()
        if data + size > total:
            raise DataError(
                f"{where}: truncated at byte {total} inside {name[:80]!r}; fetch or build it again"
            )
        name = check_name(name, where).removeprefix("./")
        if kind == _DIRECTORY or (kind == b"\0" and name.endswith("/")):
            if size:
                raise UnsafeInputError(f"{where}: folder {name[:80]!r} with data is refused")
        elif kind in _REGULAR:
            if size > MAX_MEMBER_BYTES:
                raise UnsafeInputError(f"{where}: member {name[:80]!r} has {size:,} bytes")
            yield Member(check_name(name, where), start, data, size)
        else:
            raise UnsafeInputError(
                f"{where}: member {name[:80]!r} is a link or device; the tar is refused"
            )
        offset = start = data + padded(size)


@dataclass(slots=True)
class _Extended:
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
            if any(name.startswith("GNU.sparse") for name in records):
                raise UnsafeInputError(f"{where}: sparse member at byte {offset} is refused")
            if kind == b"g" and not records.keys().isdisjoint(("path", "size")):
                raise UnsafeInputError(
                    f"{where}: global header at byte {offset} renames or resizes every member; "
                    "the tar is refused"
                )
            self.name = records.get("path", self.name)
            if "size" in records:
                self.size = _pax_size(records["size"], offset, where)


def _group(members: Iterator[Member], where: str) -> Iterator[TarSample]:
    seen: set[str] = set()
    current: TarSample | None = None
    for member in members:
        key, extension = split_key(member.name)
        if not extension:
            continue
        if current is None or key != current.key:
            if current is not None:
                yield current
            if key in seen:
                raise DataError(
                    f"{where}: members of {key[:80]!r} are interleaved with other samples; "
                    "repack the tar so that they are neighbours"
                )
            seen.add(key)
            current = TarSample(key, member.start, member.end)
        if extension in current.members:
            raise DataError(f"{where}: member {member.name[:80]!r} stands there twice")
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
    encoded = check_name(name, "tar writer").encode()
    prefix = b""
    if len(encoded) > 100:
        cut = encoded.rfind(b"/", 0, 156)
        if cut <= 0 or not 0 < len(encoded) - cut - 1 <= 100:
            raise DataError(f"name too long for a tar header: {name[:80]!r}")
        prefix, encoded = encoded[:cut], encoded[cut + 1 :]
    if size >= 8**11:
        raise DataError(f"{name[:80]!r}: {size:,} bytes do not fit a plain tar member")
    fields = (
        encoded.ljust(100, b"\0") + b"0000444\0" + b"0000000\0" * 2 + b"%011o\0" % size
        + b"00000000000\0" + b" " * 8 + b"0" + b"\0" * 100 + b"ustar\0" + b"00"
        + b"bigdata".ljust(32, b"\0") * 2 + b"0000000\0" * 2 + prefix.ljust(155, b"\0")
    ).ljust(BLOCK, b"\0")  # fmt: skip
    return fields[:148] + b"%06o\0 " % _byte_sum(fields) + fields[156:]


def tar_bytes(files: list[tuple[str, bytes]]) -> bytes:
    """Return a whole small tar in memory."""
    buffer = io.BytesIO()
    writer = TarWriter(buffer)
    for name, data in files:
        writer.add(name, data)
    writer.close()
    return buffer.getvalue()


def _byte_sum(block: bytes) -> int:
    """Add up the 512 bytes of a header.

    The low half of an Adler-32 is 1 + the sum of the bytes modulo 65521, which is exact for up
    to 256 bytes and several times faster than ``sum``.
    """
    return (zlib.adler32(block[:256]) & 0xFFFF) + (zlib.adler32(block[256:]) & 0xFFFF) - 2


def _verify_checksum(block: bytes, offset: int, where: str) -> None:
    recorded = _number(block[148:156], offset, where)
    if recorded != _byte_sum(block[:148] + b" " * 8 + block[156:]):
        raise DataError(f"{where}: not a tar header at byte {offset}; the file is damaged")


def _number(raw: bytes, offset: int, where: str) -> int:
    """Read a header's number: octal digits, or base 256 behind the byte 0x80."""
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


def _ustar_name(block: bytes, offset: int, where: str) -> str:
    name = _text(block[:100], offset, where)
    prefix = _text(block[345:500], offset, where) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


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
