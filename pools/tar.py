"""WebDataset tars: read headers only, trust nothing; write plain ustar, byte for byte the same.

A sample of a WebDataset tar is a run of members that share a key (the name up to its first
dot after the last slash), so it is one contiguous range of 512-byte blocks. Formats:
POSIX.1-1988 ustar, POSIX.1-2001 PAX and GNU long names.
"""

from __future__ import annotations

import functools
import io
import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from ..errors import DataError, TruncatedError, UnsafeInputError
from .tar_headers import Extended, is_sum, number_in, ustar_name, verify_checksum

BLOCK = 512
END = b"\0" * (2 * BLOCK)
MAX_EXTENDED_HEADER = 1 << 20
MAX_MEMBER_BYTES = 1 << 30
MAX_NAME = 4096
MAX_KNOWN = 64
MEMBERS_APART = "members_apart"
"""The reason code of a sample whose members are not neighbours."""

_REGULAR = (b"0", b"\0", b"7")
_DIRECTORY = b"5"
_EXTENDED = (b"x", b"g", b"L", b"K")
_FILE, _PAX = ord("0"), ord("x")
_KIND = 156
_FIELDS = struct.Struct("100s24x12s12x8sB188xB").unpack_from
"""Name, size, checksum, kind, and the first byte of the name's prefix."""
_TIME_RECORD = re.compile(rb"(\d{2}) [acm]time=[0-9.]+\n")
_DIGITS = re.compile(rb"[0-7]{11}\0")
_PLAIN_NAME = re.compile(rb"([\x01-\x2d\x30-\x5b\x5d-\x7f][\x01-\x2e\x30-\x5b\x5d-\x7f]*)\0*")
"""ASCII, not hidden, without folders."""
_ZEROS = b"\0" * BLOCK


class Member(NamedTuple):
    """One file inside a tar: where its header starts, where its data starts, how long it is."""

    name: str
    start: int
    data: int
    size: int

    @property
    def end(self) -> int:
        """Offset just after the padded data."""
        return self.data - -self.size // BLOCK * BLOCK


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
    leaves = name[0] == "/" or (".." in name and ".." in name.split("/"))
    if leaves or "\0" in name or "\\" in name or len(name) > MAX_NAME:
        raise UnsafeInputError(
            f"{where}: member {name[:80]!r} would leave its folder; the tar is refused"
        )
    return name


def scan(path: Path | str) -> Iterator[Member]:
    """Yield the regular files of a tar, reading headers only.

    Raises TruncatedError for a tar that ends too early, also where nothing but the blocks that
    end a tar are missing: members may have stood there. Raises DataError for a broken tar and
    UnsafeInputError for names that leave the root; links and devices are refused as unsafe too.
    """
    with Path(path).open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        yield from _scan(Window(file.fileno()), size, str(path), ended=True)


def samples(path: Path | str) -> Iterator[TarSample]:
    """Yield the samples of a tar in order, reading headers only.

    A key whose members are not neighbours is refused (DataError): a sample must be one range.
    Members without an extension and hidden files belong to no sample.
    """
    yield from _group(scan(path), str(path))


def samples_in(
    window: Window, where: str, start: int = 0, torn: set[str] | None = None
) -> Iterator[TarSample]:
    """Yield the samples of an open tar as ``samples`` does, for callers that read data too.

    They may ``start`` at the offset of one. Into ``torn``, if it is given, go the keys whose
    members are not neighbours: what was yielded for such a key is only a part of its sample.
    """
    yield from _group(_scan(window, window.total, where, start, ended=True), where, torn)


def parse_sample(data: bytes | memoryview, where: str) -> TarSample:
    """Return the one sample that the byte range ``data`` of a tar holds; offsets count from 0.

    Raises DataError when it is not exactly one sample.
    """
    view = memoryview(data)
    plain = plain_sample(view)
    if plain is not None:
        return plain
    found = list(
        _group(_scan(lambda at, size: bytes(view[at : at + size]), len(data), where), where)
    )
    if len(found) != 1:
        raise DataError(f"{where}: {len(found)} samples in a range that should hold one")
    return found[0]


def plain_sample(view: memoryview) -> TarSample | None:
    """Parse the sample of an ordinary tar fast; None for whatever needs a closer look.

    Ordinary are plain members with short, harmless names, and PAX headers that say nothing
    about name and size (as Python's tarfile writes for times).
    """
    total, offset, start = len(view), 0, 0
    key: str | None = None
    members: dict[str, Member] = {}
    while offset < total:
        data = offset + BLOCK
        block = bytes(view[offset:data])
        if len(block) < BLOCK:
            return None
        plain = _plain_pax(block) if block[_KIND] == _PAX else _plain_header(block, 0)
        if plain is None:
            return None
        name, size = plain
        offset = end = data - -size // BLOCK * BLOCK
        if name is None:
            if not _says_time(bytes(view[data : data + size])):
                return None
            continue
        stem, _, extension = name.partition(".")
        extension = extension.lower()
        key = stem if key is None else key
        if not stem or not extension or stem != key or extension in members:
            return None
        members[extension] = Member(name, start, data, size)
        start = end
    return TarSample(key, 0, total, members) if key and start == total else None


def _plain_header(buffer: bytes | memoryview, at: int) -> tuple[str | None, int] | None:
    """Return name and size of an ordinary header at an offset; None for anything else.

    Ordinary are regular files with short names, ASCII without folders, and PAX headers, which
    have no name.
    """
    if len(buffer) < at + BLOCK:
        return None
    name, digits, checksum, kind, prefix = _FIELDS(buffer, at)
    if prefix or kind not in (_FILE, _PAX) or not _DIGITS.fullmatch(digits):
        return None
    if not is_sum(checksum, buffer[at : at + BLOCK]):
        return None
    size = int(digits[:11], 8)
    if kind == _PAX:
        return None, size
    found = _PLAIN_NAME.fullmatch(name)
    return (found[1].decode(), size) if found else None


@functools.lru_cache(MAX_KNOWN)
def _plain_pax(block: bytes) -> tuple[str | None, int] | None:
    """Do what ``_plain_header`` does, for PAX headers: most are the same bytes as one before."""
    return _plain_header(block, 0)


def _behind_pax(three: bytes, size: int | None) -> tuple[str, int] | None:
    """Return name and size of a member behind a PAX header known already, as ``_plain_header``.

    ``three`` blocks: the header, the ``size`` bytes it announces (a time), the member's header.
    """
    if size is None or not _says_time(three[BLOCK : BLOCK + size]):
        return None
    name, size = _plain_header(three, 2 * BLOCK) or (None, 0)
    return None if name is None else (name, size)


def _says_time(payload: bytes) -> bool:
    """Tell whether a PAX header says nothing but a time, as Python's tarfile writes it."""
    found = _TIME_RECORD.fullmatch(payload)
    return found is not None and int(found[1]) == len(payload)


class Window:
    """Reads ranges of an open file through a small window.

    Headers and the small members between two images are neighbours: one system call serves
    them all. ``source`` is a descriptor, or a function that returns up to ``size`` bytes at an
    offset of a file of ``total`` bytes. Where asking costs more than reading ``gap`` bytes, the
    window doubles, up to ``most`` bytes, each time the next one lies no further than that away.
    ``bytes_read`` and ``requests`` count what was asked of the source.
    """

    def __init__(
        self,
        source: int | Callable[[int, int], bytes],
        size: int = 8 * BLOCK,
        total: int | None = None,
        most: int = 0,
        gap: int = 0,
    ) -> None:
        if isinstance(source, int):
            self._read_at = lambda offset, size: os.pread(source, size, offset)
            total = os.fstat(source).st_size if total is None else total
        else:
            self._read_at = source
        self.total = total or 0
        self.bytes_read = self.requests = 0
        self._least = self._size = size
        self._most, self._gap = most, gap
        self._start, self._data = 0, b""
        self._start_of_tail, self._tail = 0, b""  # the end of the window before

    def __call__(self, offset: int, size: int) -> bytes:
        """Return the bytes at [offset, offset + size); fewer where the file ends."""
        at = offset - self._start
        if at < 0:  # something of the sample before: the window stays where the headers are
            at = offset - self._start_of_tail
            if at < 0 or at + size > len(self._tail):
                return self._read(offset, size)
            return self._tail[at : at + size]
        if at + size > len(self._data):
            if self._most and self._data:
                self._tail = self._data[-self._least :]
                self._start_of_tail = self._start + len(self._data) - len(self._tail)
                near = at - len(self._data) <= self._gap
                self._size = min(2 * self._size, self._most) if near else self._least
            self._data = self._read(offset, max(size, self._size))
            self._start, at = offset, 0
        return self._data[at : at + size]

    def _read(self, offset: int, size: int) -> bytes:
        data = self._read_at(offset, size)
        self.bytes_read += len(data)
        self.requests += 1
        return data


class Memory(Window):
    """A window on bytes that are in memory already."""

    def __init__(self, data: memoryview) -> None:
        self._view = data
        self.total = len(data)

    def __call__(self, offset: int, size: int) -> bytes:
        """Return the bytes at [offset, offset + size); fewer where the data ends."""
        return bytes(self._view[offset : offset + size])


def _scan(
    read: Callable[[int, int], bytes], total: int, where: str, start: int = 0, ended: bool = False
) -> Iterator[Member]:
    """Yield the members of ``total`` bytes of tar; ``read(offset, size)`` returns bytes of it.

    A tar is ``ended`` by a block of zeros, a range of one is not.
    """
    offset = start
    extended: Extended | None = None
    timed = False  # behind an extended header that says nothing but a time
    known: dict[bytes, int] = {}  # most PAX headers are the same bytes as one before
    while True:
        if known and not timed and extended is None:
            three = read(offset, 3 * BLOCK)  # the PAX header, what it says, the member's header
            block = three[:BLOCK]
            plain = _behind_pax(three, known.get(block))
            data = offset + 3 * BLOCK
            if plain is not None and plain[1] <= min(total - data, MAX_MEMBER_BYTES):
                yield Member(plain[0], start, data, plain[1])
                offset = start = data - -plain[1] // BLOCK * BLOCK
                continue
        else:
            block = read(offset, BLOCK)
        if len(block) < BLOCK:
            between = not (block or timed or _pending(extended)) and offset == total > 0
            if between and not ended:
                return
            raise _truncated(where, total, ", where a tar does not end" if between else "")
        if block == _ZEROS:
            if timed or _pending(extended):
                raise DataError(f"{where}: an extended header at byte {start} has no member")
            return
        plain = _plain_header(block, 0) if extended is None else None
        if plain is not None and plain[1] <= MAX_MEMBER_BYTES:
            name, size = plain
            data = offset + BLOCK
            end = data - -size // BLOCK * BLOCK
            if name is None:
                if size <= BLOCK and _says_time(read(data, size)):
                    if len(known) < MAX_KNOWN:
                        known[block] = size
                    offset, timed = end, True
                    continue
            elif data + size <= total:
                yield Member(name, start, data, size)
                offset, start, timed = end, end, False
                continue
        verify_checksum(block, offset, where)
        kind = block[156:157]
        size = number_in(block[124:136], offset, where)
        data = offset + BLOCK
        if kind in _EXTENDED:
            extended = extended or Extended()
            extended.take(kind, _payload(read, data, size, total, where), offset, where)
            offset = data + padded(size)
            continue
        if extended is None or extended.name is None:
            name = ustar_name(block, offset, where)
        else:
            name = extended.name
        if extended is not None and extended.size is not None:
            size = extended.size
        extended, timed = None, False
        if data + size > total:
            raise _truncated(f"{where}", total, f" inside {name[:80]!r}")
        name = check_name(name, where)
        if name[0] == ".":
            name = name.removeprefix("./")
        if kind == _DIRECTORY or (kind == b"\0" and name.endswith("/")):
            if size:
                raise UnsafeInputError(f"{where}: folder {name[:80]!r} with data is refused")
        elif kind in _REGULAR:
            if size > MAX_MEMBER_BYTES:
                raise UnsafeInputError(f"{where}: member {name[:80]!r} has {size:,} bytes")
            if not name or name[0] == "/":  # behind a "./"
                check_name(name, where)
            yield Member(name, start, data, size)
        else:
            raise UnsafeInputError(
                f"{where}: member {name[:80]!r} is a link or device; the tar is refused"
            )
        offset = start = data - -size // BLOCK * BLOCK


def _pending(extended: Extended | None) -> bool:
    return extended is not None and extended.pending


def _payload(
    read: Callable[[int, int], bytes], data: int, size: int, total: int, where: str
) -> bytes:
    """Read what stands behind an extended header."""
    if size > MAX_EXTENDED_HEADER:
        raise UnsafeInputError(f"{where}: extended header of {size:,} bytes at {data - BLOCK}")
    payload = read(data, size)
    if len(payload) < size:
        raise _truncated(where, total)
    return payload


def _truncated(where: str, total: int, inside: str = "") -> TruncatedError:
    return TruncatedError(f"{where}: truncated at byte {total}{inside}; fetch or build it again")


def _group(
    members: Iterator[Member], where: str, torn: set[str] | None = None
) -> Iterator[TarSample]:
    seen: set[str] = set()
    current: TarSample | None = None
    for member in members:
        key, extension = split_key(member.name)
        if not extension:
            continue
        if current is None or key != current.key:
            if current is not None and (torn is None or current.key not in torn):
                yield current
            if key in seen:
                if torn is None:
                    raise interleaved(where, key)
                torn.add(key)
            seen.add(key)
            current = TarSample(key, member.start, member.end)
        if extension in current.members:
            raise DataError(f"{where}: member {member.name[:80]!r} stands there twice")
        current.members[extension] = member
        current.end = member.end
    if current is not None and (torn is None or current.key not in torn):
        yield current


def interleaved(where: str, key: str) -> DataError:
    """Return the error of a tar in which the members of a key are not neighbours."""
    return DataError(
        f"{where}: members of {key[:80]!r} are interleaved with other samples; repack the tar so "
        "that they are neighbours"
    )


def read_member(file: BinaryIO, member: Member) -> bytes:
    """Read one member's data from an open tar."""
    file.seek(member.data)
    return file.read(member.size)


class Sink(Protocol):
    """What bytes can be written to."""

    def write(self, data: Any, /) -> Any:
        """Take all of ``data``."""


class TarWriter:
    """Writes plain ustar with fixed metadata: the same members give the same bytes."""

    def __init__(self, file: Sink) -> None:
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
    length = b"%011o" % size
    tail = _TAIL + prefix.ljust(155, b"\0") + _REST if prefix else _TAIL_WITHOUT_PREFIX
    total = _FIXED_SUM + sum(encoded) + sum(length) + sum(prefix)
    return b"".join((encoded.ljust(100, b"\0"), _MODE, length, _TIME, b"%06o\0 " % total, tail))


# What stands in every header written: mode and owner, time, kind and owner's names.
_MODE = b"0000444\0" + b"0000000\0" * 2
_TIME = b"\0" + b"00000000000\0"
_TAIL = (
    b"0" + b"\0" * 100 + b"ustar\0" + b"00" + b"bigdata".ljust(32, b"\0") * 2
    + b"0000000\0" * 2
)  # fmt: skip
_REST = b"\0" * 12
_TAIL_WITHOUT_PREFIX = _TAIL + b"\0" * 155 + _REST
_FIXED_SUM = sum(_MODE) + sum(_TIME) + sum(_TAIL) + 8 * ord(" ")


def tar_bytes(files: list[tuple[str, bytes]]) -> bytes:
    """Return a whole small tar in memory."""
    buffer = io.BytesIO()
    writer = TarWriter(buffer)
    for name, data in files:
        writer.add(name, data)
    writer.close()
    return buffer.getvalue()
