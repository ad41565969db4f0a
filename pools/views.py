"""Views: a subset of indexed tars as virtual shards, without copying a byte.

A view is a folder of two small files. ``samples.npy`` has one record per sample in the order of
the view: high and low half of the uid, the number of its tar, the 512-byte block where it starts
and how many blocks it takes, and which repetition of its uid it is. ``view.json`` says which
tars these are and how they looked when they were indexed; a tar that has changed since is an
error. Virtual shard K is the same samples under the same names, in the same bytes, as shard K of
a build with the same options.

Reading needs nothing but Python: ``datacomp shards cat`` starts at once.
"""

from __future__ import annotations

import functools
import io
import json
import os
import shlex
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DataError, IntegrityError, MissingError, UsageError
from . import tar
from .ranges import OpenFiles, Stamp, fetch, is_remote, join, open_ranges, read_places, stale

FORMAT = "datacomp-view"
VERSION = 1
METADATA = "view.json"
SAMPLES = "samples.npy"
MAX_METADATA_BYTES = 1 << 30
FIELDS = (
    ("high", "<u8"), ("low", "<u8"), ("file", "<u4"), ("block", "<u4"), ("blocks", "<u4"),
    ("copy", "<u4"),
)  # fmt: skip
"""The columns of ``samples.npy``."""

RECORD = struct.Struct("<QQIIII")
_HEADER = f"{{'descr': {list(FIELDS)!r}, 'fortran_order': False, 'shape': (%d,), }}"


@dataclass(frozen=True, slots=True)
class ViewSample:
    """One sample of a view: its key ``<uid>-<j>``, and its bytes as they lie in the tar."""

    key: str
    found: tar.TarSample
    data: memoryview

    def member(self, extension: str) -> memoryview:
        """Return the data of one member."""
        member = self.found.members[extension]
        return self.data[member.data : member.data + member.size]

    def window(self) -> tar.Window:
        """Return what reads members by offset, as from an open tar."""
        return tar.Memory(self.data)


class View:
    """A view that is there. ``len(view)`` is its number of virtual shards.

    It may lie in an object store, or on a web server: then ``path`` is only its name.
    """

    def __init__(self, place: str, metadata: dict[str, Any], files: list[Stamp]) -> None:
        self.place, self.metadata, self.files = place, metadata, files
        self.path = Path(place)
        self.samples_count: int = metadata["samples"]
        self.shard_size: int = metadata["shard_size"]
        self.digest: str = metadata["digest"]
        self._records_start = _records_start(join(place, SAMPLES), self.samples_count)

    @classmethod
    def open(cls, path: Path | str) -> View:
        """Open a view. Raises MissingError, or DataError for what is none."""
        path = str(path)
        where = join(path, METADATA)
        data = _metadata(path)
        if data is None:
            raise MissingError(f"{path}: no such view; make one with 'datacomp shards select'")
        try:
            if len(data) > MAX_METADATA_BYTES:
                raise ValueError("too large")
            value = json.loads(data)
            if value["format"] != FORMAT:
                raise ValueError("not a view")
            if value["version"] != VERSION:
                raise DataError(
                    f"{path}: view of version {value['version']!r}, but this datacomp knows "
                    f"{VERSION}; update datacomp"
                )
            roots = [str(source["root"]) for source in value["sources"]]
            files = [
                Stamp(f"{roots[source]}/{_plain(name)}", int(size), str(version))
                for source, name, size, version in value["files"]
            ]
            sizes = (value["samples"], value["shard_size"])
            if not all(type(size) is int and size > 0 for size in sizes):
                raise ValueError("bad sizes")
            if not isinstance(value["digest"], str):
                raise ValueError("no digest")
        except DataError:
            raise
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            raise DataError(f"{where}: damaged; make the view again") from None
        return cls(path, value, files)

    def __len__(self) -> int:
        return (self.samples_count - 1) // self.shard_size + 1

    def size_of(self, shard: int) -> int:
        """Return how many samples a virtual shard has."""
        first, last = self._range(shard)
        return last - first

    def samples(self, shard: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield samples as WebDataset does: ``__key__``, ``__url__`` and a member's bytes each."""
        for number in range(len(self)) if shard is None else [shard]:
            url = f"{self.place}/{number:08d}.tar"
            for sample in self.shard(number):
                members = {name: bytes(sample.member(name)) for name in sample.found.members}
                yield {"__key__": sample.key, "__url__": url, **members}

    def shard(self, number: int) -> Iterator[ViewSample]:
        """Yield the samples of a virtual shard; their bytes are checked to be those indexed.

        Raises DataError when a tar has changed, MissingError when it is gone.
        """
        first, last = self._range(number)
        file = open_ranges(join(self.place, SAMPLES))
        try:
            start = self._records_start + first * RECORD.size
            raw = file.read(start, (last - first) * RECORD.size)
        finally:
            file.close()
        yield from read_samples(self.files, raw)

    def write_shard(self, number: int, file: BinaryIO) -> int:
        """Write a virtual shard as a tar; return its samples."""
        writer = tar.TarWriter(file)
        count = 0
        for sample in self.shard(number):
            write_sample(writer, sample)
            count += 1
        writer.close()
        return count

    def stream(self, number: int) -> BinaryIO:
        """Return a virtual shard as a readable tar, made while it is read."""
        return io.BufferedReader(_Stream(self, number), 1 << 20)

    def pattern(self) -> str:
        """Return the URL pattern that WebDataset and open_clip's trainer read the view by."""
        last = len(self) - 1
        numbers = f"{{{0:06d}..{last:06d}}}" if last else f"{0:06d}"
        return f"pipe:datacomp shards cat {quoted(self.place)} {numbers}"

    def verify(self) -> None:
        """Compare every tar with what was indexed; raise DataError for the first that differs."""
        for stamp in self.files:
            file = open_ranges(stamp.place)
            try:
                if (file.size, file.version) != (stamp.size, stamp.version):
                    raise stale(stamp)
            finally:
                file.close()

    def _range(self, shard: int) -> tuple[int, int]:
        if not 0 <= shard < len(self):
            raise UsageError(f"{self.path}: has virtual shards 0 to {len(self) - 1}, not {shard}")
        first = shard * self.shard_size
        return first, min(first + self.shard_size, self.samples_count)


def shard_names(view: View) -> list[str]:
    """Return the virtual shards of a view as a reader of folders would name them."""
    return [f"{view.path}/{number:08d}.tar" for number in range(len(view))]


def find_shard(name: str) -> tuple[View, int] | None:
    """Return the view and the number of a virtual shard; None for the name of a real one."""
    folder, _, file = name.rpartition("/")
    stem = file.removesuffix(".tar")
    if not (stem.isascii() and stem.isdigit()) or not os.path.isfile(f"{folder}/{METADATA}"):
        return None
    return _opened(folder), int(stem)


@functools.lru_cache(16)
def _opened(folder: str) -> View:
    return View.open(folder)


def open_shard(url: str, mode: str = "rb", bufsize: int = 8192, **_: Any) -> BinaryIO:
    """Open ``view:PATH#K``: an opener for ``webdataset.gopen_schemes["view"]``."""
    path, found, number = url.removeprefix("view:").rpartition("#")
    if not found or not (number.isascii() and number.isdigit()) or "r" not in mode:
        raise UsageError(f"{url}: expected view:PATH#NUMBER, opened for reading")
    return View.open(path).stream(int(number))


def read_samples(files: list[Stamp], raw: bytes) -> Iterator[ViewSample]:
    """Yield the samples of some records of ``samples.npy``, in their order."""
    records = RECORD.iter_unpack(raw)
    places = (
        (file, block * tar.BLOCK, blocks * tar.BLOCK)
        for _, _, file, block, blocks, _ in RECORD.iter_unpack(raw)
    )
    with OpenFiles() as opened:
        try:
            for record, data in zip(records, read_places(files, places, opened), strict=True):
                yield sample_of(files, record, data)
        except IndexError:
            raise no_such_tar() from None


def sample_of(
    files: list[Stamp], record: tuple[int, int, int, int, int, int], data: memoryview
) -> ViewSample:
    """Return the sample of a record whose range holds ``data``, if it is the one indexed."""
    high, low, number, block, _, copy = record
    uid = f"{high:016x}{low:016x}"
    where = f"{files[number].place} at byte {block * tar.BLOCK}"
    sample = ViewSample(f"{uid}-{copy}", tar.parse_sample(data, where), data)
    _check_uid(uid, sample, where)
    return sample


def no_such_tar() -> DataError:
    """Return the error of records that point where nothing is."""
    return DataError("a view names a tar that it does not list; make it again")


def write_sample(writer: tar.TarWriter, sample: ViewSample) -> None:
    """Append a sample under its key in a view, members in alphabetical order."""
    for extension in sorted(sample.found.members):
        writer.add(f"{sample.key}.{extension}", sample.member(extension))


def quoted(place: Path | str) -> str:
    """Return the place of a view as it stands in a URL pattern."""
    text = str(place) if is_remote(str(place)) else str(Path(place).resolve())
    if any(piece in text for piece in ("{", "}", "::")):
        raise UsageError(f"{text}: a name with braces or '::' cannot stand in a URL pattern")
    return shlex.quote(text)


def npy_header(count: int) -> bytes:
    """Return the header of ``samples.npy`` for so many records: .npy version 1.0."""
    text = (_HEADER % count).encode("ascii")
    padding = b" " * (-(10 + len(text) + 1) % 64)
    text += padding + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def _metadata(path: str) -> bytes | None:
    """Return ``view.json``, or a byte more than it may have; None where there is none."""
    where = join(path, METADATA)
    if is_remote(path):
        return fetch(where, MAX_METADATA_BYTES)
    try:
        with open(where, "rb") as file:
            return file.read(MAX_METADATA_BYTES + 1)
    except OSError:
        return None


def _records_start(place: str, count: int) -> int:
    header = npy_header(count)
    try:
        file = open_ranges(place)
    except DataError as error:
        raise MissingError(str(error)) from None
    try:
        found = file.read_at(0, len(header))
        size = file.size
    finally:
        file.close()
    if found != header or size != len(header) + count * RECORD.size:
        raise DataError(f"{place}: does not hold {count:,} samples; make the view again")
    return len(header)


def _check_uid(uid: str, sample: ViewSample, where: str) -> None:
    """Make sure that a range holds the sample that the index promised.

    Most samples carry their uid in their json; it is computed for those that do not.
    """
    if "json" in sample.found.members and uid.encode() in bytes(sample.member("json")):
        return
    from .identity import uid_of_sample

    try:
        found = uid_of_sample(sample.window(), sample.found)
    except ValueError as error:
        found = str(error)
    if found != uid:
        raise IntegrityError(
            f"{where}: holds {found} where the index says {uid}; index the tars again"
        )


def _plain(name: str) -> str:
    if not isinstance(name, str) or not name or "/" in name or name in (".", ".."):
        raise ValueError("bad name")
    return name


class _Stream(io.RawIOBase):
    """A virtual shard made piece by piece while it is read."""

    def __init__(self, view: View, number: int) -> None:
        self._pieces = self._make(view, number)
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._piece = memoryview(piece)
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def close(self) -> None:
        self._pieces.close()
        super().close()

    @staticmethod
    def _make(view: View, number: int) -> Any:
        for sample in view.shard(number):
            pieces = io.BytesIO()
            write_sample(tar.TarWriter(pieces), sample)
            yield pieces.getvalue()
        yield tar.END
